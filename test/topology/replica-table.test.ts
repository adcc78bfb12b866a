/** The shared table of copies: lags as defined, bounds that never promise too much, and no torn reads between threads. */
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createManualClock } from "../../src/runtime/clock.ts";
import { createReplicaBlock, ReplicaTable } from "../../src/topology/replica-table.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { LocalTopology } from "../../src/topology/topology-source.ts";

const snapshot = createSnapshot({ shards: 3, vshards: 4, replicationFactor: 2 }); // vshard v on shards v % 3 and (v + 1) % 3

function tableAt(startMs = 1_000) {
  const clock = createManualClock(startMs);
  const block = createReplicaBlock(snapshot);
  const topology = new LocalTopology(snapshot);
  return { clock, block, topology, table: new ReplicaTable(block, topology, () => clock.nowMs()) };
}

describe("the table", () => {
  test("knows nothing at first, and nothing of shards that hold no copy", () => {
    const { table } = tableAt();
    expect(table.head(0)).toBe(0);
    expect(table.appliedLsn(0, 1)).toBe(-1);
    expect(table.lag(0, 1)).toBeUndefined();
    table.publishApplied(0, 2, 7, 0); // holds none
    expect(table.appliedLsn(0, 2)).toBe(-1);
    expect(table.lag(99, 0)).toBeUndefined();
  });

  test("who follows a removed shard has its place, and begins with nothing; nobody else's records move", () => {
    const { table, topology } = tableAt();
    const { copies } = snapshot;
    const wide = createSnapshot({ shards: 4, vshards: 4, replicationFactor: 2, copies, topologyEpoch: 2 });
    table.publishApplied(0, 0, 7, 0);
    table.publishApplied(0, 1, 5, 0);
    topology.learn({ ...wide, copies: wide.copies.with(0, 3), places: wide.places.with(0, 3) });
    expect([0, 1, 2, 3].map((shard) => table.appliedLsn(0, shard))).toEqual([-1, 5, -1, -1]);
    table.publishApplied(0, 3, 4, 0);
    expect([table.appliedLsn(0, 1), table.appliedLsn(0, 3)]).toEqual([5, 4]);
  });

  test("a copy that has everything lags by 0, whenever that was written", () => {
    const { table, clock } = tableAt();
    table.publishHead(0, 1, 1_000);
    table.publishApplied(0, 1, 1, 1_000);
    clock.setMs(900_000);
    expect(table.lag(0, 1)).toEqual({ lagMs: 0, sampledAtMs: 900_000 });
  });

  test("a copy that lacks one entry lags since that was appended", () => {
    const { table, clock } = tableAt();
    table.publishHead(0, 1, 1_000);
    table.publishApplied(0, 1, 1, 1_000);
    clock.setMs(50_000);
    table.publishHead(0, 2, 50_000);
    clock.setMs(50_030);
    expect(table.lag(0, 1)?.lagMs).toBe(30);
  });

  test("a copy is not level with what is appended while it looks whether it is", () => {
    const clock = createManualClock(1_000);
    const topology = new LocalTopology(snapshot);
    const block = createReplicaBlock(snapshot);
    const primary = new ReplicaTable(block, topology, () => clock.nowMs());
    primary.publishHead(0, 5, 1_000);
    let interrupted = false;
    const copy = new ReplicaTable(block, topology, () => {
      if (!interrupted) {
        interrupted = true; // the thread loses its processor here, and others go on
        primary.publishHead(0, 6, 1_001);
        primary.publishHead(0, 7, 1_002);
        clock.setMs(9_000);
      }
      return clock.nowMs();
    });
    copy.publishApplied(0, 1, 5, 1_000);
    expect(primary.lag(0, 1)?.lagMs).toBeGreaterThanOrEqual(9_000 - 1_001);
  });

  test("a copy that is being filled is of unknown lag, until it publishes an LSN again", () => {
    const { table } = tableAt();
    table.publishApplied(0, 1, 5, 0);
    table.publishSyncing(0, 1);
    expect([table.appliedLsn(0, 1), table.lag(0, 1), table.isSyncing(0, 1)]).toEqual([-1, undefined, true]);
    table.publishApplied(0, 1, 6, 0);
    expect([table.appliedLsn(0, 1), table.isSyncing(0, 1)]).toEqual([6, false]);
  });

  test("what another shard wrote in a copy's place says nothing of its next holder", () => {
    const { table, topology } = tableAt();
    table.publishApplied(0, 1, 5, 0);
    const copies = snapshot.copies.slice();
    copies[1] = 2;
    topology.learn(createSnapshot({ ...snapshot, topologyEpoch: 9, copies }));
    expect(table.appliedLsn(0, 2)).toBe(-1);
    expect(table.lag(0, 2)).toBeUndefined();
  });

  test("two records of one vshard, and those of others, do not touch each other", () => {
    const { table, block, topology } = tableAt();
    const other = new ReplicaTable(block, topology, () => 0);
    for (let vshard = 0; vshard < 4; vshard++) {
      table.publishHead(vshard, 100 + vshard, 1);
      for (const shard of [vshard % 3, (vshard + 1) % 3]) {
        table.publishApplied(vshard, shard, 10 * vshard + shard, 1);
        table.publishMissing(vshard, shard, 10 * vshard + shard + 1, 2);
      }
    }
    for (let vshard = 0; vshard < 4; vshard++) {
      expect(other.head(vshard)).toBe(100 + vshard);
      for (const shard of [vshard % 3, (vshard + 1) % 3])
        expect(other.appliedLsn(vshard, shard)).toBe(10 * vshard + shard);
    }
  });

  test("a head whose writer died in publishing it is the old one or the new one, and can be written again", () => {
    const { table, block } = tableAt();
    table.publishHead(1, 41, 5);
    const words = new Int32Array(block);
    const head = (96 + 32) >> 2;
    Atomics.add(words, head, 1); // odd, as its writer left it
    expect(table.head(1)).toBe(0);
    expect(table.recoverHead(1)).toBe(41);
    table.publishHead(1, 42, 6);
    expect(table.head(1)).toBe(42);
    expect((words[head] as number) & 1).toBe(0);
  });

  test("the told lag is never below the true one, whatever order things come in", () => {
    // The model knows when each entry was appended: the true lag is the age of the first one that the copy lacks.
    const step = fc.oneof(
      fc.record({ append: fc.integer({ min: 1, max: 4 }) }),
      fc.record({ apply: fc.integer({ min: 1, max: 5 }) }),
      fc.record({ acknowledge: fc.boolean() }),
      fc.record({ passMs: fc.nat(50) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { table, clock } = tableAt();
        const appendedAt: number[] = [clock.nowMs()];
        let applied = 0;
        let acknowledged = 0;
        table.publishApplied(0, 1, 0, clock.nowMs());
        for (const action of steps) {
          const head = appendedAt.length - 1;
          if ("append" in action) {
            for (let i = 0; i < action.append; i++) {
              appendedAt.push(clock.nowMs());
              const lsn = appendedAt.length - 1;
              if (acknowledged === lsn - 1) table.publishMissing(0, 1, lsn, clock.nowMs());
              table.publishHead(0, lsn, clock.nowMs());
            }
          } else if ("apply" in action) {
            applied = Math.min(head, applied + action.apply);
            table.publishApplied(0, 1, applied, appendedAt[applied] ?? clock.nowMs());
          } else if ("acknowledge" in action) {
            acknowledged = applied;
            if (acknowledged < head)
              table.publishMissing(0, 1, acknowledged + 1, appendedAt[acknowledged + 1] as number);
          } else {
            clock.setMs(clock.nowMs() + action.passMs);
          }
          const missing = appendedAt[applied + 1];
          const trueLag = missing === undefined ? 0 : clock.nowMs() - missing;
          const told = table.lag(0, 1)?.lagMs as number;
          expect(told).toBeGreaterThanOrEqual(trueLag);
          if (trueLag === 0 && missing === undefined) expect(told).toBe(0);
          // Once the primary knows how far the copy is, the lag is exact.
          if (acknowledged === applied) expect(told).toBe(trueLag);
        }
      }),
    );
  });
});

describe("a head on another node", () => {
  const sampled = (startMs = 1_000) => {
    const clock = createManualClock(startMs);
    const block = createReplicaBlock(snapshot, (shard) => shard === snapshot.owners[0]);
    return { clock, table: new ReplicaTable(block, new LocalTopology(snapshot), () => clock.nowMs()) };
  };

  test("that was never sampled makes no copy fresh", () => {
    const { table, clock } = sampled();
    table.publishApplied(0, 1, 0, 0);
    expect([table.lag(0, 1), table.stalenessMs(0, 1), table.ownHead(0)]).toEqual([undefined, Infinity, -1]);
    table.publishApplied(0, 1, 9, clock.nowMs()); // the time is another host's
    expect(table.stalenessMs(0, 1)).toBe(Infinity);
    table.publishSampledHead(1, 5, 900); // that one is here, and published nothing
    expect([table.head(1), table.ownHead(1)]).toEqual([0, -1]);
  });

  test("makes a copy level as of the sample, and not after", () => {
    const { table, clock } = sampled();
    table.publishApplied(0, 1, 5, 0);
    table.publishSampledHead(0, 5, 990);
    expect(table.lag(0, 1)).toEqual({ lagMs: 0, sampledAtMs: 990 });
    clock.setMs(3_000);
    expect(table.stalenessMs(0, 1)).toBe(2_010);
    table.publishSampledHead(0, 7, 2_500); // now it lacks something, but nothing that was there at 990
    expect(table.lag(0, 1)).toEqual({ lagMs: 0, sampledAtMs: 990 });
    table.publishApplied(0, 1, 6, 0);
    expect(table.stalenessMs(0, 1)).toBe(2_010);
    table.publishApplied(0, 1, 7, 0);
    expect(table.stalenessMs(0, 1)).toBe(500);
    table.publishSyncing(0, 1);
    table.publishApplied(0, 1, 4, 0); // filled anew, from before
    expect(table.lag(0, 1)).toBeUndefined();
    table.publishUnknown(0, 1);
    expect([table.appliedLsn(0, 1), table.lag(0, 1)]).toEqual([-1, undefined]);
  });

  test("is not replaced by an older sample or a lower LSN", () => {
    const { table } = sampled();
    table.publishSampledHead(0, 7, 900);
    table.publishSampledHead(0, 5, 800);
    table.publishSampledHead(0, 5, 950);
    table.publishApplied(0, 1, 6, 0);
    expect([table.head(0), table.lag(0, 1)]).toEqual([7, undefined]);
    table.publishSampledHead(0, 7, 950);
    table.publishApplied(0, 1, 7, 0);
    expect(table.lag(0, 1)?.sampledAtMs).toBe(950);
  });

  test("never shows a copy fresher than it is, with any delays", () => {
    const step = fc.oneof(
      fc.record({ append: fc.integer({ min: 1, max: 4 }) }),
      fc.record({ apply: fc.integer({ min: 1, max: 5 }) }),
      fc.record({ sample: fc.nat(3), afterMs: fc.nat(60) }),
      fc.record({ refill: fc.boolean() }),
      fc.record({ passMs: fc.nat(40) }),
    );
    let known = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 80 }), (steps) => {
        const { table, clock } = sampled();
        const appendedAt: number[] = [];
        const samples: { lsn: number; asOfMs: number; atMs: number }[] = [];
        let applied = 0;
        table.publishApplied(0, 1, 0, 0);
        for (const action of steps) {
          if ("append" in action) {
            for (let i = 0; i < action.append; i++) appendedAt.push(clock.nowMs());
          } else if ("apply" in action) {
            applied = Math.min(appendedAt.length, applied + action.apply);
            table.publishApplied(0, 1, applied, clock.nowMs() + 1e6);
          } else if ("sample" in action) {
            // The ping left a while ago; the head is read now, and arrives after another while, perhaps after later ones.
            const asOfMs = clock.nowMs() - action.sample;
            samples.push({ lsn: appendedAt.length, asOfMs, atMs: clock.nowMs() + action.afterMs });
          } else if ("refill" in action) {
            table.publishSyncing(0, 1);
            expect(table.stalenessMs(0, 1)).toBe(Infinity);
            table.publishApplied(0, 1, applied, 0);
          } else {
            clock.setMs(clock.nowMs() + action.passMs);
          }
          for (const { lsn, asOfMs, atMs } of samples)
            if (atMs <= clock.nowMs()) table.publishSampledHead(0, lsn, asOfMs);
          const missing = appendedAt[applied];
          const trueMs = missing === undefined ? 0 : clock.nowMs() - missing;
          expect(table.stalenessMs(0, 1)).toBeGreaterThanOrEqual(trueMs);
          if (table.lag(0, 1) !== undefined) known++;
        }
      }),
      { numRuns: 500 },
    );
    expect(known).toBeGreaterThan(500);
  });
});

test("no reader sees half of what another thread publishes", async () => {
  const pair = createSnapshot({ shards: 2, vshards: 2, replicationFactor: 2 });
  const block = createReplicaBlock(pair);
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(new URL("./replica-table.worker.js", import.meta.url), { workerData: { block, stop } });
  const rounds = new Promise<number>((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  const table = new ReplicaTable(block, new LocalTopology(pair), () => 1e9);
  let seen = 0;
  let last = -1;
  const started = performance.now();
  // Longer where two threads seldom run at one time.
  for (let ms = 0; ms < 1_500 || (seen <= 100 && ms < 20_000); ms = performance.now() - started) {
    const applied = table.appliedLsn(0, 1);
    const head = table.head(0);
    if (applied !== last) seen++;
    last = applied;
    expect(Number.isSafeInteger(head) && head >= 0).toBe(true);
    const sample = table.lag(0, 1);
    if (sample !== undefined && sample.lagMs > 0) expect(sample.lagMs).toBeLessThanOrEqual(1e9);
    // LSN and time of one record belong together: the time is always half the LSN.
    const record = tornAt(block, pair.vshards);
    if (record !== undefined) expect(record.timeMs).toBe(record.lsn / 2);
  }
  Atomics.store(stop, 0, 1);
  expect(await rounds).toBeGreaterThan(1_000);
  expect(seen).toBeGreaterThan(100);
  await worker.terminate();
});

/** Reads the applied record of vshard 0 on shard 1 as the table does; undefined when it changed meanwhile. */
function tornAt(block: SharedArrayBuffer, vshards: number): { lsn: number; timeMs: number } | undefined {
  const words = new Int32Array(block);
  const doubles = new Float64Array(block);
  const at = 32 + (vshards + 1) * 32;
  const before = Atomics.load(words, at >> 2);
  const found = { lsn: doubles[(at >> 3) + 1] as number, timeMs: doubles[(at >> 3) + 2] as number };
  return (before & 1) === 0 && Atomics.load(words, at >> 2) === before ? found : undefined;
}
