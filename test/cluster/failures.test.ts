import { execFile } from "node:child_process";
import { pbkdf2Sync } from "node:crypto";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import type { Cluster, ShardloomError } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { counter, saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, randomVector, startTestCluster } from "../support/cluster.ts";
import { hold } from "../support/holds.ts";
import { Stalls } from "../support/stalls.ts";

async function within<T>(limitMs: number, stalls: Stalls, work: Promise<T>): Promise<T> {
  const [started, stalledMs] = [performance.now(), stalls.totalMs];
  try {
    return await work;
  } finally {
    expect(performance.now() - started).toBeLessThan(limitMs + stalls.totalMs - stalledMs);
  }
}

describe("a worker that dies", () => {
  it.each([
    ["exits", (cluster: Cluster, key: string) => cluster.actor(saboteur, key).exit(7), "ERR_WORKER_LOST"],
    [
      "throws outside any handler",
      (cluster: Cluster, key: string) => cluster.actor(saboteur, key).throwOutside(),
      "ERR_WORKER_LOST",
    ],
    [
      "hangs in JavaScript",
      (cluster: Cluster, key: string) => cluster.actor(saboteur, key).block(1e9),
      "ERR_HANDLER_HUNG",
    ],
  ])("%s: its requests fail typed within 2 s and its shard comes back", async (_, sabotage, code) => {
    const cluster = await startTestCluster({ maxHandlerMs: 1_000 });
    await using stalls = await Stalls.begin();
    try {
      const key = keyOnShard(cluster, saboteur, 1);
      const survivor = keyOnShard(cluster, counter, 0);
      await cluster.actor(counter, survivor).add(1);
      await cluster.actor(saboteur, key).calls();
      const restarted = new Promise<{ shard: number }>((resolve) => cluster.once("worker-restarted", resolve));
      const open = [sabotage(cluster, key), cluster.actor(saboteur, key).sleep(60_000)];
      for (const call of open) await within(2_000, stalls, expect(call).rejects.toMatchObject({ code }));
      expect(await restarted).toMatchObject({ shard: 1, incarnation: 2 });
      expect(await cluster.actor(saboteur, key).calls()).toBe(1); // from its initial state
      expect(await cluster.actor(counter, survivor).read()).toBe(1); // untouched
    } finally {
      await cluster.close();
    }
  });

  it("runs out of memory: noticed, and its shard comes back", async () => {
    const cluster = await startTestCluster({ maxHeapMb: 64, maxHandlerMs: 20_000 });
    try {
      const key = keyOnShard(cluster, saboteur, 0);
      await expect(cluster.actor(saboteur, key).eatMemory({ timeoutMs: 20_000 } as never)).rejects.toMatchObject({
        code: "ERR_WORKER_LOST",
        details: { reason: "ERR_WORKER_OUT_OF_MEMORY" },
      });
      expect(await cluster.actor(saboteur, key).calls()).toBe(1);
    } finally {
      await cluster.close();
    }
  });

  it("keeps peers talking: the mesh is relinked", async () => {
    const { relay } = await import("../support/actors.ts");
    const cluster = await startTestCluster();
    try {
      const relayKey = keyOnShard(cluster, relay, 0);
      const target = keyOnShard(cluster, counter, 1);
      expect(await cluster.actor(relay, relayKey).addTo({ key: target, amount: 1 })).toBe(1);
      const restarted = new Promise((resolve) => cluster.once("worker-restarted", resolve));
      await cluster
        .actor(saboteur, keyOnShard(cluster, saboteur, 1))
        .exit(1)
        .catch(() => undefined);
      await restarted;
      await eventually("the relay reaches the new worker", async () => {
        const answer = await cluster
          .actor(relay, relayKey)
          .addTo({ key: target, amount: 1 }, { timeoutMs: 2_000 })
          .catch(() => undefined);
        return answer !== undefined;
      });
    } finally {
      await cluster.close();
    }
  });

  it("loses no acknowledged vector, whatever kills it", async () => {
    const seed = Number(process.env["SEED"] ?? 77);
    const random = createSeededRandom(seed);
    const cluster = await startTestCluster();
    try {
      const docs = await cluster.vectors("docs", { dimensions: 16, metric: "l2" });
      const expected = new Map<number, Float32Array>();
      for (let round = 0; round < 4; round++) {
        const batch = Array.from({ length: 200 }, () => ({
          id: random.u32() % 1_000,
          vector: randomVector(random, 16),
        }));
        const distinct = [...new Map(batch.map((document) => [document.id, document])).values()];
        await docs.upsert(distinct);
        for (const { id, vector } of distinct) expected.set(id, vector);
        const doomed = [...expected.keys()].slice(0, 10);
        await docs.delete(doomed);
        for (const id of doomed) expected.delete(id);
        const restarted = new Promise((resolve) => cluster.once("worker-restarted", resolve));
        await cluster
          .actor(saboteur, keyOnShard(cluster, saboteur, round % 2))
          .exit(1)
          .catch(() => undefined);
        await restarted;
        expect(await docs.count(), `seed ${seed}`).toBe(expected.size);
        const ids = [...expected.keys()];
        const stored = await docs.getMany(ids);
        for (const [at, id] of ids.entries())
          expect(stored[at]?.vector, `seed ${seed}, id ${id}`).toEqual(expected.get(id));
        for (const id of ids.slice(0, 5)) {
          const { hits } = await docs.search(expected.get(id) as Float32Array, { k: 1 });
          expect(hits[0]).toMatchObject({ id, score: 0 });
          const target = new Float32Array(16);
          const region = docs.region(id);
          expect(region).toBeDefined();
          expect(cluster.reader().read(region as never, target)).toBe(0);
          expect(target).toEqual(expected.get(id));
        }
      }
    } finally {
      await cluster.close();
    }
  });

  it("gives up a shard whose worker keeps dying, and says so", async () => {
    const cluster = await startTestCluster();
    try {
      const key = keyOnShard(cluster, saboteur, 0);
      const down = new Promise<{ shard: number; error: ShardloomError }>((resolve) =>
        cluster.once("worker-down", resolve),
      );
      let gone = false;
      void down.then(() => {
        gone = true;
      });
      while (!gone)
        await cluster
          .actor(saboteur, key)
          .exit(1, { timeoutMs: 10_000 })
          .catch(() => undefined);
      expect(await down).toMatchObject({ shard: 0 });
      await expect(cluster.actor(saboteur, key).calls()).rejects.toMatchObject({ code: "ERR_WORKER_LOST" });
      const other = keyOnShard(cluster, saboteur, 1);
      expect(await cluster.actor(saboteur, other).calls()).toBe(1);
    } finally {
      await cluster.close();
    }
  });
});

describe("a busy worker", () => {
  it("stays up while a handler runs within its budget, and asks to it time out typed", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 10_000 });
    try {
      let lost = 0;
      cluster.on("worker-lost", () => lost++);
      const key = keyOnShard(cluster, saboteur, 0);
      const held = await hold(cluster, 0, 9_000);
      await expect(cluster.actor(saboteur, key).calls(undefined, { timeoutMs: 800 })).rejects.toMatchObject({
        code: "ERR_TIMEOUT",
      });
      expect(await held.release()).toBe("done");
      expect(lost).toBe(0);
    } finally {
      await cluster.close();
    }
  });

  it("does not stop one-sided reads", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 60_000 });
    try {
      const docs = await cluster.vectors("docs", { dimensions: 8, metric: "l2" });
      await docs.upsert(Array.from({ length: 100 }, (_, id) => ({ id, vector: new Float32Array(8).fill(id) })));
      const blocked = await Promise.all([0, 1].map((shard) => hold(cluster, shard, 30_000)));
      await expect(docs.get(1, { timeoutMs: 50 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
      const reader = cluster.reader();
      const target = new Float32Array(8);
      for (let id = 0; id < 100; id++) {
        const region = docs.region(id);
        expect(reader.read(region as never, target)).toBe(0);
        expect(target[0]).toBe(id);
        expect(await docs.read(id, target)).toMatchObject({ by: "one-sided" });
      }
      expect(await docs.read("unknown", target)).toBeUndefined();
      await Promise.all(blocked.map((held) => held.release()));
    } finally {
      await cluster.close();
    }
  });
});

/** Rounds of `grind` that take about this long on this machine. */
function roundsFor(milliseconds: number): number {
  const started = performance.now();
  pbkdf2Sync("secret", "salt", 50_000, 32, "sha512");
  return Math.ceil((50_000 * milliseconds) / (performance.now() - started));
}

describe("a native call past its budget", () => {
  it("is quarantined: requests fail typed, a replacement serves, and the thread ends only when the call has returned", async () => {
    const cluster = await startTestCluster({ maxNativeMs: 300, maxHandlerMs: 250 });
    await using stalls = await Stalls.begin();
    try {
      const docs = await cluster.vectors("docs", { dimensions: 4, metric: "l2" });
      await docs.upsert(Array.from({ length: 100 }, (_, id) => ({ id, vector: new Float32Array(4).fill(id) })));
      const key = keyOnShard(cluster, saboteur, 0);
      const restarted = new Promise<{ shard: number }>((resolve) => cluster.once("worker-restarted", resolve));
      const grinding = cluster.actor(saboteur, key).grind(roundsFor(2_500), { timeoutMs: 20_000 });
      await within(2_000, stalls, expect(grinding).rejects.toMatchObject({ code: "ERR_NATIVE_QUARANTINED" }));
      expect(await restarted).toMatchObject({ shard: 0 });
      expect(await cluster.actor(saboteur, key).calls()).toBe(1);
      expect(await docs.count()).toBe(100);
      await docs.upsert([{ id: 1, vector: new Float32Array(4).fill(-1) }]);
      expect((await docs.get(1))?.vector).toEqual(new Float32Array(4).fill(-1));
      const before = cluster.arena.stats();
      await new Promise((resolve) => setTimeout(resolve, 3_000)); // the native call returns, and its thread ends
      expect(cluster.arena.stats()).toEqual(before); // it gave nothing back that its successor uses
      const { hits } = await docs.search(new Float32Array(4).fill(50.1), { k: 3, exact: true });
      expect(hits.map((hit) => hit.id)).toEqual([50, 51, 49]);
    } finally {
      await cluster.close({ timeoutMs: 20_000 });
    }
  });

  it("within its budget is no reason to worry", async () => {
    const cluster = await startTestCluster({ maxNativeMs: 20_000, maxHandlerMs: 500 });
    try {
      let lost = 0;
      cluster.on("worker-lost", () => lost++);
      expect(await cluster.actor(saboteur, "native").grind(roundsFor(800), { timeoutMs: 20_000 })).toBe(32);
      expect(lost).toBe(0);
    } finally {
      await cluster.close();
    }
  });

  it("does not let close() abort the process: close waits, or says what it waits for", async () => {
    const cluster = await startTestCluster({ maxNativeMs: 20_000 });
    const grinding = cluster.actor(saboteur, "closing").grind(roundsFor(1_500), { timeoutMs: 20_000 });
    grinding.catch(() => undefined);
    await eventually("the native call runs", () => cluster.heartbeats().some((beat) => beat.activity === "native"));
    await expect(cluster.close({ timeoutMs: 100, force: true })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    await cluster.close({ timeoutMs: 20_000 });
    await expect(grinding).rejects.toMatchObject({ code: "ERR_CLOSED" });
  });
});

describe("an idle cluster", () => {
  it("uses at most 1 % of a core per worker, its main thread included", async () => {
    const child = fileURLToPath(new URL("./idle.child.js", import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, [child], { timeout: 20_000 });
    const shares = JSON.parse(stdout) as number[];
    // What is left of the start, such as compilation and collections, is over in some of the windows; what idling costs is in all.
    const idle = Math.min(...shares);
    expect(idle, stdout).toBeGreaterThan(0);
    expect(idle, stdout).toBeLessThan(0.01);
  });
});
