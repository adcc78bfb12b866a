/** W5 of the bench `wire`: appends to a shard's log in NATS, 64 in flight, against the bare client publishing the same bytes. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { jetstream } from "@nats-io/jetstream";
import { connectNats, type NatsConnection } from "../../src/runtime/nats.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { LOG_ENTRY, type ShardLogEntry } from "../../src/store/log.ts";
import { NatsLog } from "../../src/store/nats-log.ts";
import { type GoalResult, judge } from "../harness/goals.ts";
import { type BenchCase, type BenchContext, type BenchRow, interleave, ratioOf, sized } from "../harness/harness.ts";
import { freePort } from "./wire-setup.ts";

const NAME = "W5 append 64 B to NATS, 64 in flight";
const PROGRAM = "nats-server";
const IN_FLIGHT = 64;
const CALL_MS = 10_000;
const START_MS = 15_000;

/** A server with JetStream on loopback, and where it is; undefined when the program is not on the path. */
export async function startNats(
  root: string,
): Promise<{ readonly child: ChildProcess; readonly url: string } | undefined> {
  const port = await freePort();
  const args = ["-a", "127.0.0.1", "-p", String(port), "-js", "-sd", join(root, "nats")];
  const child = spawn(PROGRAM, args, {
    stdio: "ignore",
    // Where Debian has it, which is not on every user's path.
    env: { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/usr/local/sbin` },
  });
  const isThere = await Promise.race([once(child, "spawn").then(() => true), once(child, "error").then(() => false)]);
  if (!isThere) return undefined;
  const url = `nats://127.0.0.1:${port}`;
  const byMs = performance.now() + START_MS;
  for (;;) {
    try {
      const connection = await connectNats({ servers: [url], scheduler: systemScheduler });
      await connection.close();
      return { child, url };
    } catch (error) {
      if (performance.now() > byMs || child.exitCode !== null) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** Measures W5. */
export async function measureNats(
  { mode, goals }: BenchContext,
  url: string,
): Promise<{ rows: BenchRow[]; goals: GoalResult[] }> {
  await using connection = await connectNats({ servers: [url], scheduler: systemScheduler });
  const stream = await connection.openStream({ name: "ours" }, CALL_MS);
  const log = await NatsLog.open(stream, { scheduler: systemScheduler, random: systemRandom });
  const count = sized(mode, 200, 5_000, 20_000);
  const body = new Uint8Array(64).fill(3);
  const entry: ShardLogEntry = {
    ...{ kind: LOG_ENTRY.EFFECT, vshard: 0, lsn: 0, leaseEpoch: 0, type: 1, collection: 1, body },
    ...{ idempotencyKey: "", result: new Uint8Array(0) },
  };
  let lsn = 0;
  const append = async (): Promise<void> => {
    log.append([{ ...entry, lsn: ++lsn }]);
    await log.flush();
  };
  const bare = await publisher(connection, body);
  const rows = await interleave(
    [flight("shardloom", append, count, () => log.durable), flight("bare client", bare, count)],
    sized(mode, 1, 5, 9),
  );
  await log.close();
  return { rows, goals: [judge(goals, "W5", ratioOf(rows, NAME, "shardloom", "bare client"))] };
}

async function publisher(connection: NatsConnection, body: Uint8Array): Promise<() => Promise<void>> {
  await connection.openStream({ name: "theirs" }, CALL_MS);
  const client = jetstream(connection.library);
  return async () => {
    await client.publish("shardloom.theirs", body);
  };
}

function flight(side: string, append: () => Promise<void>, count: number, durable?: () => number): BenchCase {
  let [before, done] = [0, 0];
  return {
    name: NAME,
    side,
    unit: "appends/s",
    run: async () => {
      before = durable?.() ?? 0;
      done = 0;
      let next = 0;
      const lane = async (): Promise<void> => {
        while (next++ < count) {
          await append();
          done++;
        }
      };
      const started = performance.now();
      await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
      return (count / (performance.now() - started)) * 1_000;
    },
    validate: () => {
      const kept = durable === undefined ? count : durable() - before;
      if (done !== count || kept !== count)
        throw new Error(`${side}: ${done} appends of ${count} ended, ${kept} are kept`);
    },
  };
}
