/** Three nats-servers with three replicas of everything: a log and leases go on when any one of them is killed or frozen, and have lost nothing. */
import { describe, expect, test } from "vitest";
import type { NatsStream } from "../../src/runtime/nats.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { sleep, systemScheduler } from "../../src/runtime/scheduler.ts";
import { NatsLog } from "../../src/store/nats-log.ts";
import type { LeaseStore } from "../../src/topology/lease-store.ts";
import { createNatsLeaseStore } from "../../src/topology/nats-lease-store.ts";
import { eventually } from "../support/cluster.ts";
import { codeOf, framesOf, valuesIn } from "../support/log-frames.ts";
import { NatsCluster } from "../support/nats-server.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";
/** Servers elect a new leader after up to some seconds, each for itself and for each stream. */
const ELECTION_MS = 60_000;

/** What succeeds at last, when the servers have a leader. */
async function atLast<T>(what: string, run: () => Promise<T>): Promise<T> {
  let made: { readonly value: T } | undefined;
  await eventually(
    what,
    async () => {
      made = await run().then(
        (value) => ({ value }),
        () => undefined,
      );
      return made !== undefined;
    },
    ELECTION_MS,
  );
  return (made as unknown as { readonly value: T }).value;
}

/** Counts up under one key, from the last value that was put. */
async function count(store: LeaseStore): Promise<number> {
  const entry = await store.get("counter", 1_000);
  const next = (entry?.value[0] ?? 0) + 1;
  await store.put("counter", Uint8Array.of(next), entry?.revision ?? 0, 1_000);
  return next;
}

describe("three servers", () => {
  test("lose nothing that was acknowledged when one is lost", {
    timeout: 600_000,
  }, async () => {
    await using cluster = await NatsCluster.start();
    const connection = await cluster.connect();
    const openStream = (): Promise<NatsStream> => connection.openStream({ name: "log", replicas: 3 }, 1_000);
    const stream = await atLast("there is a stream", openStream);
    const options = { scheduler: systemScheduler, random: systemRandom, timeoutMs: 1_000 };
    const log = await atLast("there is a log", () => NatsLog.open(stream, options));
    const leases = await atLast("there is a bucket", () =>
      createNatsLeaseStore(connection, { bucket: "leases", replicas: 3, scheduler: systemScheduler, timeoutMs: 1_000 }),
    );
    const asked: number[] = [];
    let isOver = false;
    const write = async (): Promise<void> => {
      for (let value = 1; !isOver; value++) {
        if (codeOf(() => log.append(framesOf(value, 300))) === undefined) asked.push(value);
        await log.flush().catch(() => undefined);
        await sleep(systemScheduler, 2); // its pace: what is written is read twice in the end
      }
    };
    const writing = write();
    let counted = 0;
    for (const [round, server] of (LONG
      ? [...cluster.servers, ...cluster.servers]
      : cluster.servers.slice(0, 1)
    ).entries()) {
      const { durable } = log;
      await eventually("it writes", () => log.durable > durable + 20, ELECTION_MS);
      const isKilled = round % 2 === 0;
      await (isKilled ? server.stop("SIGKILL") : server.freeze());
      const { durable: before } = log;
      await eventually("it writes with two servers", () => log.durable > before + 20, ELECTION_MS);
      const next = await atLast("a lease is renewed with two servers", () => count(leases));
      expect(next).toBeGreaterThan(counted);
      counted = next;
      if (isKilled) await server.startAgain();
      else server.thaw();
    }
    isOver = true;
    await writing;
    await atLast("all is durable", () => log.flush());
    expect(await atLast("all is read", () => valuesIn(log))).toEqual(asked);
    const successor = await atLast("it is opened by another one", () => NatsLog.open(stream, options));
    expect(await atLast("all is read again", () => valuesIn(successor))).toEqual(asked);
    await Promise.all([log.close(), successor.close()]);
  });
});
