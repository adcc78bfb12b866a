/** Collections while workers die or block at the worst moment: opening, dropping, recovering with nothing left to allocate. */

import { describe, expect, it } from "vitest";
import type { Cluster } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { keyOnShard, startTestCluster } from "../support/cluster.ts";
import { hold } from "../support/holds.ts";

const OPTIONS = { dimensions: 16, metric: "l2" } as const;

function documents(count: number, from = 0) {
  return Array.from({ length: count }, (_, at) => ({ id: from + at, vector: new Float32Array(16).fill(from + at) }));
}

function restarted(cluster: Cluster): Promise<unknown> {
  return new Promise((resolve) => cluster.once("worker-restarted", resolve));
}

/** Kills the worker of a shard and waits for the next. */
async function kill(cluster: Cluster, shard: number): Promise<void> {
  const next = restarted(cluster);
  await cluster
    .actor(saboteur, keyOnShard(cluster, saboteur, shard))
    .exit(1)
    .catch(() => undefined);
  await next;
}

async function used(cluster: Cluster): Promise<{ bytes: number; regions: number }> {
  const { memory, regions } = await cluster.info();
  return { bytes: memory.usedBytes, regions };
}

describe("a worker that dies", () => {
  it("while a collection is being opened: the collection serves on every shard", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 20_000 });
    try {
      const blocking = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 1)).block(1_500); // answers the open later
      const opening = cluster.vectors("docs", OPTIONS);
      const opened = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 0)).calls(); // behind the open in shard 0's ring
      await opened;
      await kill(cluster, 0);
      await blocking;
      const docs = await opening;
      expect(await docs.upsert(documents(50))).toMatchObject({ inserted: 50 });
      await kill(cluster, 0);
      expect(await docs.count()).toBe(50);
      const hits = docs.reader().scanExact(new Float32Array(16).fill(30), 1).hits;
      expect(hits).toMatchObject([{ id: 30, score: 0 }]);
    } finally {
      await cluster.close();
    }
  });

  it("with a drop in its ring: the drop is done, and gives everything back", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 20_000 });
    try {
      const before = await used(cluster);
      const docs = await cluster.vectors("docs", OPTIONS);
      await docs.upsert(documents(2_000));
      const key = keyOnShard(cluster, saboteur, 0);
      const next = restarted(cluster);
      const doomed = [cluster.actor(saboteur, key).block(300), cluster.actor(saboteur, key).exit(1)];
      const drop = cluster.dropVectors("docs");
      await Promise.allSettled(doomed);
      expect(await drop).toBe(true);
      await next;
      expect(await cluster.dropVectors("docs")).toBe(false);
      expect(await used(cluster)).toEqual(before);
      await expect(docs.count()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    } finally {
      await cluster.close();
    }
  });
});

describe("a worker that is busy for longer than a request may take", () => {
  it("fails an open and a drop typed, which leave nothing once they are tried again", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 60_000, requestTimeoutMs: 1_500 });
    try {
      const before = await used(cluster);
      const docs = await cluster.vectors("docs", OPTIONS);
      await docs.upsert(documents(500));
      let busy = await hold(cluster, 0, 30_000);
      await expect(cluster.dropVectors("docs")).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
      await expect(docs.count()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
      await busy.release();
      expect(await cluster.dropVectors("docs")).toBe(true);
      expect(await cluster.dropVectors("docs")).toBe(false);
      expect(await used(cluster)).toEqual(before);
      busy = await hold(cluster, 0, 30_000); // for the open, and what it takes back
      await expect(cluster.vectors("docs", OPTIONS)).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
      await busy.release();
      await cluster.vectors("docs", { ...OPTIONS, dimensions: 8 });
      expect(await cluster.dropVectors("docs")).toBe(true);
      expect(await used(cluster)).toEqual(before);
    } finally {
      await cluster.close();
    }
  });
});

it("a component that f16 cannot hold is refused before any shard has anything of its batch", async () => {
  const cluster = await startTestCluster();
  try {
    const half = await cluster.vectors("half", { ...OPTIONS, quantization: "f16" });
    const batch = documents(100);
    batch[77]?.vector.fill(1e5, 3);
    await expect(half.upsert(batch)).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      details: { id: 77, component: 3, value: 1e5 },
    });
    expect(await half.count()).toBe(0);
  } finally {
    await cluster.close();
  }
});

describe("a full arena", () => {
  it("does not keep a dead worker's shard from coming back", async () => {
    const cluster = await startTestCluster({ memoryBytes: 16 * 1024 * 1024 });
    try {
      const docs = await cluster.vectors("docs", { ...OPTIONS, scanRows: 1e6 });
      const rest = await cluster.vectors("rest", { ...OPTIONS, scanRows: 1e6 });
      const counts = { docs: 0, rest: 0 };
      for (const [name, collection] of Object.entries({ docs, rest }) as [keyof typeof counts, typeof docs][]) {
        for (let size = 500; size >= 1; ) {
          if (name === "docs" && counts.docs === 30_000) break;
          const fits = await collection.upsert(documents(size, counts[name])).then(
            () => true,
            (error: unknown) => {
              expect(error).toMatchObject({ code: "ERR_OUT_OF_MEMORY" });
              return false;
            },
          );
          if (fits) counts[name] += size;
          else size >>= 1;
        }
      }
      expect(counts.rest).toBeGreaterThan(0);
      for (const shard of [0, 1, 0]) await kill(cluster, shard);
      expect(await docs.count()).toBeGreaterThanOrEqual(counts.docs);
      expect(await rest.count()).toBeGreaterThanOrEqual(counts.rest);
      expect((await docs.get(77))?.vector).toEqual(new Float32Array(16).fill(77));
    } finally {
      await cluster.close();
    }
  });
});
