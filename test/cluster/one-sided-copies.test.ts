/** One-sided reads where documents have copies: what counts is the primary's row, whatever a copy that is behind still holds. */
import { expect, it } from "vitest";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { randomVector } from "../support/cluster.ts";
import { startCopies } from "../support/copies.ts";
import { block } from "../support/holds.ts";

it("scanExact finds what is there behind the rows of a copy that has not heard of their deletion", async () => {
  const cluster = await startCopies({ workers: 2, replicationFactor: 2, maxHandlerMs: 60_000 });
  try {
    const docs = await cluster.vectors("docs", { dimensions: 2, metric: "l2" });
    const ids = Array.from({ length: 400 }, (_, id) => id);
    const gone = ids.filter((id) => cluster.shardOfId(id) === 1).slice(0, 100);
    const kept = ids.filter((id) => cluster.shardOfId(id) === 0).slice(0, 20);
    const documents = [...gone.map((id) => [id, 0]), ...kept.map((id) => [id, 1])];
    await docs.upsert(
      documents.map(([id = 0, near]) => ({ id, vector: [near as number, id / 1000] })),
      { acks: 2 },
    );
    const blocked = await block(cluster, 0, 20_000);
    expect(await docs.delete(gone, { acks: 1 })).toBe(gone.length);
    for (const k of [1, 5, 20, 50]) {
      const { hits, statuses } = docs.reader().scanExact(new Float32Array(2), k);
      expect(hits.map(({ id }) => id)).toEqual(kept.slice(0, k));
      expect(statuses).toEqual([0, 0]);
    }
    await blocked.release();
  } finally {
    await cluster.close();
  }
});

it("a search that is to lack nothing goes by the graph as well: each shard finds in it what it is the primary of", async () => {
  const cluster = await startCopies({ workers: 3, replicationFactor: 2 });
  try {
    const [k, dimensions] = [5, 8];
    const options = { dimensions, metric: "l2", strategy: "one-sided", scanRows: 50, expansionSearch: k } as const;
    const docs = await cluster.vectors("docs", options);
    const random = createSeededRandom(5);
    const vectors = Array.from({ length: 1_200 }, () => randomVector(random, dimensions));
    await docs.upsert(
      vectors.map((vector, id) => ({ id, vector })),
      { acks: 2 },
    );
    await docs.indexed({ timeoutMs: 60_000 });
    let found = 0;
    for (let query = 0; query < 20; query++) {
      const near = randomVector(random, dimensions);
      const { hits, by, fallback, explain } = await docs.search(near, { k, explain: true });
      expect([by, fallback, hits.length, new Set(hits.map(({ id }) => id)).size]).toEqual([
        "scatter",
        "consistency",
        k,
        k,
      ]);
      expect(new Set(explain?.ways?.map(({ plan }) => plan))).toEqual(new Set(["filtered-index"]));
      const truth = new Set((await docs.search(near, { k, exact: true })).hits.map(({ id }) => id));
      found += hits.filter(({ id }) => truth.has(id)).length;
    }
    expect(found / 20 / k).toBeGreaterThan(0.95);
    // At once, whatever the graph still leads to.
    for (const id of [1, 2, 3]) {
      const vector = vectors[id] as Float32Array;
      await docs.delete(id);
      expect((await docs.search(vector, { k })).hits.map((hit) => hit.id)).not.toContain(id);
      await docs.upsert({ id, vector: vector.map((x) => x + 9) });
      expect(
        (
          await docs.search(
            vector.map((x) => x + 9),
            { k: 1 },
          )
        ).hits[0],
      ).toMatchObject({ id, score: 0 });
    }
  } finally {
    await cluster.close();
  }
});
