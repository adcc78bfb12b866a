/** Requests that were planned with a map that has changed before they were handled. */
import { describe, expect, it } from "vitest";
import type { Cluster } from "../../src/index.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { SharedTopology } from "../../src/topology/topology-source.ts";
import { startCopies } from "../support/copies.ts";
import { block } from "../support/holds.ts";

/** Makes the second copy of every vshard its primary, as a placement would: the data is there already. */
function swapPrimaries(cluster: Cluster, topology: SharedArrayBuffer): void {
  const { shards, vshards, replicationFactor, copies, states, zones, topologyEpoch } = cluster.topology;
  const swapped = copies.slice();
  for (let vshard = 0; vshard < vshards; vshard++) {
    const at = vshard * replicationFactor;
    swapped[at] = copies[at + 1] as number;
    swapped[at + 1] = copies[at] as number;
  }
  const next = { shards, vshards, replicationFactor, copies: swapped, states, zones, topologyEpoch: topologyEpoch + 1 };
  new SharedTopology(topology).publish(createSnapshot(next));
}

const vector = (value: number): number[] => [value, 1, 0, 0];

describe("a map that changes while requests wait", () => {
  it("is told with the answer: reads are planned anew once and are whole", async () => {
    const cluster = await startCopies({ replicationFactor: 2, maxHandlerMs: 60_000 });
    try {
      const docs = await cluster.vectors("docs", { dimensions: 4, metric: "l2" });
      await docs.upsert(
        Array.from({ length: 200 }, (_, id) => ({ id, vector: vector(id) })),
        { acks: "all" },
      );
      const { topology } = await cluster.port(); // the block that every thread reads
      const blocked = await block(cluster, 1, 20_000);
      const before = cluster.routerStats();
      const searches = Array.from({ length: 8 }, () => docs.search(vector(0), { k: 200, hedge: false }));
      const got = docs.getMany(
        Array.from({ length: 200 }, (_, id) => id),
        { hedge: false },
      );
      swapPrimaries(cluster, topology);
      await blocked.release();
      for (const { hits, completeness } of await Promise.all(searches)) {
        expect(completeness.complete).toBe(true);
        expect(hits.map(({ id }) => id)).toEqual(Array.from({ length: 200 }, (_, id) => id));
      }
      expect((await got).every((document, id) => document?.id === id)).toBe(true);
      const after = cluster.routerStats();
      expect(after.replans).toBeGreaterThan(before.replans);
      const workers = (await cluster.info()).workers;
      expect(workers.some(({ stats }) => (stats?.requests.stale ?? 0) > 0)).toBe(true);
    } finally {
      await cluster.close();
    }
  });

  it("is told with the answer: writes go to the new primaries, each once", async () => {
    const cluster = await startCopies({ replicationFactor: 2, maxHandlerMs: 60_000 });
    try {
      const docs = await cluster.vectors("docs", { dimensions: 4, metric: "l2" });
      const items = (value: number) => Array.from({ length: 100 }, (_, id) => ({ id, vector: vector(value) }));
      await docs.upsert(items(1), { acks: "all" });
      const { topology } = await cluster.port(); // the block that every thread reads
      const blocked = await block(cluster, 1, 20_000);
      const session = cluster.session();
      const write = docs.upsert(items(2), { acks: "all", session });
      const removal = docs.delete([100, 5_000], { acks: "all" });
      swapPrimaries(cluster, topology);
      await blocked.release();
      expect(await write).toEqual({ written: 100, inserted: 0 });
      const { workers } = await cluster.info();
      expect(workers[1]?.stats?.requests.stale).toBeGreaterThan(0);
      expect(await removal).toBe(0);
      const read = await docs.getMany(
        Array.from({ length: 100 }, (_, id) => id),
        { session, strategy: "random" },
      );
      for (const document of read) expect(document?.vector?.[0]).toBe(2);
      expect(await docs.count()).toBe(100);
      expect((await docs.search(vector(2), { k: 200, exact: true })).hits).toHaveLength(100);
    } finally {
      await cluster.close();
    }
  });
});
