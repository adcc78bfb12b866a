/** The lease store over a real nats-server: the suite of its interface, and what it says of a server that is frozen, restarted or gone. */
import { Kvm } from "@nats-io/kv";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { openNatsBucket } from "../../src/runtime/nats-bucket.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { LeaseStore } from "../../src/topology/lease-store.ts";
import { createNatsLeaseStore } from "../../src/topology/nats-lease-store.ts";
import { fails } from "../conformance/disk.ts";
import { leaseStoreConformance } from "../conformance/lease-store.ts";
import { eventually } from "../support/cluster.ts";
import { NatsServer } from "../support/nats-server.ts";

// A server of its own beside everything else that a busy machine does.
vi.setConfig({ testTimeout: 120_000 });

let server: NatsServer;
let buckets = 0;
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

beforeAll(async () => {
  server = await NatsServer.start();
});
afterEach(() => server.thaw());
afterAll(() => server[Symbol.asyncDispose]());

async function open(bucket: string): Promise<LeaseStore> {
  return createNatsLeaseStore(await server.connect(), { bucket, scheduler: systemScheduler });
}

describe("the lease store over NATS", () => {
  leaseStoreConformance(async () => {
    const bucket = `suite-${buckets++}`;
    const connection = await server.connect();
    return {
      store: await createNatsLeaseStore(connection, { bucket, scheduler: systemScheduler }),
      run: (work) => work,
      again: () => open(bucket),
      keeps: "all",
      close: () => connection.close(),
    };
  });

  test("says in time that a frozen server does not answer; what was sent meanwhile is done later, once at most", async () => {
    const store = await open(`frozen-${buckets++}`);
    const revision = await store.put("a", bytes(1), 0, 5_000);
    await server.freeze();
    const begun = performance.now();
    await Promise.all([
      fails(store.get("a", 700), "ERR_TIMEOUT"),
      fails(store.put("a", bytes(2), revision, 700), "ERR_TIMEOUT"),
    ]);
    expect(performance.now() - begun).toBeLessThan(10_000);
    await expect(store.put("a", bytes(3), revision, 300)).rejects.toMatchObject({ details: { inDoubt: true } });
    server.thaw();
    // The server has both, in the order in which they were sent: the first is done, so that neither the second nor this one is.
    await fails(store.put("a", bytes(4), revision, 5_000), "ERR_STALE_EPOCH");
    expect(await store.get("a", 5_000)).toEqual({ value: bytes(2), revision: revision + 1 });
  });

  test("goes on with a server that was restarted, which has everything; a call meanwhile waits, or is in doubt", async () => {
    const store = await open(`restarted-${buckets++}`);
    const told: number[] = [];
    const end = store.watch?.((_, { revision }) => told.push(revision));
    let revision = await store.put("a", bytes(1), 0, 5_000);
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      await store.put("b", bytes(revision), (await store.get("b", 5_000))?.revision ?? 0, 5_000);
      const stopped = server.stop(signal);
      await stopped;
      await fails(store.put("b", bytes(9), 0, 100), "ERR_TIMEOUT");
      const waiting = store.put("a", bytes(revision), revision, 20_000);
      await server.startAgain();
      revision = await waiting;
      expect((await store.get("a", 5_000))?.revision).toBe(revision);
      expect((await store.get("b", 5_000))?.value).not.toEqual(bytes(9));
    }
    await eventually("the watch goes on", () => told.includes(revision), 25_000);
    end?.();
  });

  test("makes anew what was deleted by hand", async () => {
    const bucket = `deleted-${buckets++}`;
    const store = await open(bucket);
    const connection = await server.connect();
    await store.put("a", bytes(1), 0, 5_000);
    await (await new Kvm(connection.library).open(bucket)).delete("a");
    const view = await openNatsBucket(connection, { bucket }, systemScheduler, 5_000);
    expect(await view.get("a", 5_000)).toMatchObject({ value: undefined });
    expect(await store.get("a", 5_000)).toBeUndefined();
    const revision = await store.put("a", bytes(2), 0, 5_000);
    expect(await store.get("a", 5_000)).toEqual({ value: bytes(2), revision });
    await fails(store.put("a", bytes(3), 0, 5_000), "ERR_STALE_EPOCH");
  });

  test("is closed with its connection, also what is under way", async () => {
    const connection = await server.connect();
    const store = await createNatsLeaseStore(connection, { bucket: `closed-${buckets++}`, scheduler: systemScheduler });
    await server.freeze();
    const reading = fails(store.get("a", 5_000), "ERR_CLOSED");
    await connection.close();
    server.thaw();
    await reading;
    await fails(store.put("a", bytes(1), 0, 1_000), "ERR_CLOSED");
  });
});

describe("a connection to NATS", () => {
  test("is refused, with the address, where nobody answers", async () => {
    const gone = await NatsServer.start();
    await gone.stop();
    await expect(gone.connect()).rejects.toMatchObject({ code: "ERR_UNAVAILABLE", details: { servers: [gone.url] } });
    await gone[Symbol.asyncDispose]();
  });
});
