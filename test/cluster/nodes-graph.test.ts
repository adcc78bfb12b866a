/** Collections with a graph on several nodes: each node has one over its own shards, and a search finds what is nearest of all of them. */
import { afterEach, expect, it } from "vitest";
import { connect, type SearchOptions, type VectorCollection } from "../../src/index.ts";
import { randomFrom } from "../actors/vector/support.ts";
import { TestNodes } from "../support/nodes.ts";

const DIMENSIONS = 8;
const COUNT = 600;
const QUERIES = 10;
const K = 10;
const OPTIONS = { dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided", scanRows: 50 } as const;
const STRATEGIES = ["one-sided", "compass", "spire", "cotra", "auto"] as const;

let of: TestNodes | undefined;
afterEach(async () => {
  await of?.[Symbol.asyncDispose]();
  of = undefined;
});

const random = randomFrom(11);
const vectors = Array.from({ length: COUNT }, () => Float32Array.from({ length: DIMENSIONS }, () => random() * 100));

async function filled(nodes: TestNodes, from = 0): Promise<VectorCollection[]> {
  const collections = await Promise.all(nodes.nodes.map((node) => node.vectors("docs", OPTIONS)));
  const all = vectors.map((vector, id) => ({ id, vector, payload: { even: id % 2 === 0 } }));
  await collections[from]?.upsert(all);
  await collections[from]?.indexed({ timeoutMs: 30_000 });
  return collections;
}

async function recallOf(docs: VectorCollection, options: SearchOptions): Promise<number> {
  let found = 0;
  for (let query = 0; query < QUERIES; query++) {
    const near = vectors[query * 7]?.map((x) => x + 3) as Float32Array;
    const truth = await docs.search(near, { ...options, by: "scatter", exact: true, k: K });
    const { hits, completeness, by, fallback } = await docs.search(near, { ...options, k: K });
    expect({ by, fallback, complete: completeness.complete }).toEqual({
      by: "scatter",
      fallback: "nodes",
      complete: true,
    });
    const ids = new Set(truth.hits.map(({ id }) => id));
    found += hits.filter(({ id }) => ids.has(id)).length;
    expect(hits.length).toBe(K);
  }
  return found / QUERIES / K;
}

it("finds by every strategy what is near on both nodes, says that nodes were asked, and sees changes at once", async () => {
  of = await new TestNodes(2).start();
  const [docs, other] = (await filled(of)) as [VectorCollection, VectorCollection];
  for (const by of STRATEGIES) expect(await recallOf(by === "spire" ? other : docs, { by }), by).toBeGreaterThan(0.95);
  expect(await recallOf(other, { filter: { even: true } })).toBeGreaterThan(0.95);
  const { results, batch } = await docs.searchMany(vectors.slice(0, 3), { k: 1 });
  expect(results.map(({ hits }) => hits[0]?.id)).toEqual([0, 1, 2]);
  expect(batch).toMatchObject({ alone: 3, reason: "nodes" });
  const exact = await docs.search(vectors[5] as Float32Array, { exact: true, k: 1 });
  expect(exact).toMatchObject({ by: "scatter", fallback: "exact", hits: [{ id: 5 }] });
  const { explain } = await docs.search(vectors[9] as Float32Array, { explain: true });
  expect(explain?.plan.targets.map(({ shard }) => shard).sort((a, b) => a - b)).toEqual([0, 1]);
  expect(explain?.bytes).toBeGreaterThan(0);
  const thread = await connect(await of.node(1).port());
  expect(await recallOf(await thread.vectors("docs"), {})).toBeGreaterThan(0.95);
  await thread.close();
  // One of each node.
  const changed = [0, 1].map((shard) => vectors.findIndex((_, id) => of?.node(0).shardOfId(id) === shard));
  for (const id of changed) {
    const vector = vectors[id] as Float32Array;
    await docs.delete(id);
    expect((await other.search(vector, { k: 1 })).hits[0]?.id).not.toBe(id);
    await other.upsert({ id, vector: vector.map((x) => x + 200) });
    expect(
      (
        await docs.search(
          vector.map((x) => x + 200),
          { k: 1 },
        )
      ).hits[0],
    ).toMatchObject({ id, score: 0 });
    expect((await docs.search(vector, { k: 1 })).hits[0]?.id).not.toBe(id);
  }
});

it("does so of copies as well", async () => {
  of = await new TestNodes(2, { replicationFactor: 2, acks: "all" }).start();
  const [docs] = (await filled(of, 1)) as [VectorCollection];
  expect(await recallOf(docs, {})).toBeGreaterThan(0.95);
  expect(await recallOf(docs, { consistency: "eventual" })).toBeGreaterThan(0.95);
});
