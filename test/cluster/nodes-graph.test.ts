/** Collections with a graph on several nodes: each node has one over its own shards, and a search finds what is nearest of all of them. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connect, type SearchOptions, type VectorCollection } from "../../src/index.ts";
import { randomFrom } from "../actors/vector/support.ts";
import { TestNodes } from "../support/nodes.ts";

const DIMENSIONS = 8;
/** Shards of a node. */
const WORKERS = 3;
const COUNT = 1_500;
const QUERIES = 10;
const K = 10;
/** So few candidates that a shard gets less than are wanted of what one search of its node's graph finds. */
const EF = 5;
const OPTIONS = {
  dimensions: DIMENSIONS,
  metric: "l2",
  strategy: "one-sided",
  scanRows: 50,
  expansionSearch: EF,
} as const;
const STRATEGIES = ["one-sided", "compass", "spire", "cotra", "auto"] as const;

let of: TestNodes;
afterAll(() => of[Symbol.asyncDispose]());

const random = randomFrom(11);
const vectors = Array.from({ length: COUNT }, () => Float32Array.from({ length: DIMENSIONS }, () => random() * 100));

async function filled(nodes: TestNodes, from = 0): Promise<VectorCollection[]> {
  const collections = await Promise.all(nodes.nodes.map((node) => node.vectors("docs", OPTIONS)));
  const all = vectors.map((vector, id) => ({ id, vector, payload: { even: id % 2 === 0, most: id % 7 !== 0 } }));
  await collections[from]?.upsert(all);
  await collections[from]?.indexed({ timeoutMs: 30_000 });
  return collections;
}

/** @param plans How every shard is to have found its documents. */
async function recallOf(docs: VectorCollection, options: SearchOptions, ...plans: string[]): Promise<number> {
  const { k = K } = options;
  let found = 0;
  for (let query = 0; query < QUERIES; query++) {
    const near = vectors[query * 7]?.map((x) => x + 3) as Float32Array;
    const truth = await docs.search(near, { ...options, by: "scatter", exact: true, k });
    const { hits, completeness, by, fallback, explain } = await docs.search(near, { ...options, k, explain: true });
    for (const { plan } of explain?.ways ?? []) expect(plans).toContain(plan);
    expect(explain?.ways?.length).toBe(completeness.answered);
    expect({ by, fallback, complete: completeness.complete }).toEqual({
      by: "scatter",
      fallback: "nodes",
      complete: true,
    });
    const ids = new Set(truth.hits.map(({ id }) => id));
    found += hits.filter(({ id }) => ids.has(id)).length;
    expect(hits.length).toBe(k);
  }
  return found / QUERIES / k;
}

describe("several nodes of several shards", () => {
  let docs: VectorCollection;
  let other: VectorCollection;
  beforeAll(async () => {
    of = await new TestNodes(2, { workers: WORKERS, vshards: 32, maxHandlerMs: 60_000 }).start();
    [docs, other] = (await filled(of)) as [VectorCollection, VectorCollection];
  }, 60_000);

  it("find by every strategy what is near on both nodes, say that nodes were asked, and see changes at once", async () => {
    for (const by of STRATEGIES)
      expect(await recallOf(by === "spire" ? other : docs, { by }, "index"), by).toBeGreaterThan(0.95);
    expect(await recallOf(other, { filter: { even: true } }, "filtered-scan"), "of so few").toBe(1);
    expect(await recallOf(other, { filter: { most: true }, k: 5 }, "filtered-index")).toBeGreaterThan(0.95);
    const { results, batch } = await docs.searchMany(vectors.slice(0, 3), { k: 1 });
    expect(results.map(({ hits }) => hits[0]?.id)).toEqual([0, 1, 2]);
    expect(batch).toMatchObject({ alone: 3, reason: "nodes" });
    const exact = await docs.search(vectors[5] as Float32Array, { exact: true, k: 1 });
    expect(exact).toMatchObject({ by: "scatter", fallback: "exact", hits: [{ id: 5 }] });
    const { explain } = await docs.search(vectors[9] as Float32Array, { explain: true });
    expect(explain?.plan.targets.map(({ shard }) => shard).sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(explain?.bytes).toBeGreaterThan(0);
    const thread = await connect(await of.node(1).port());
    expect(await recallOf(await thread.vectors("docs"), {}, "index")).toBeGreaterThan(0.95);
    await thread.close();
    // One of each node.
    const changed = [0, WORKERS].map((shard) => vectors.findIndex((_, id) => of.node(0).shardOfId(id) === shard));
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

  it("are asked again where the nearest of a node are another shard's, and no hits", async () => {
    const query = new Float32Array(DIMENSIONS).fill(-100);
    // More than the others of the node ask the graph for: they find nothing that is their own.
    const ids = Array.from({ length: 10_000 }, (_, at) => COUNT + at).filter((id) => of.node(0).shardOfId(id) === 0);
    const near = ids.slice(0, 60).map((id, at) => ({ id, vector: query.map((x) => x + at / 10) }));
    await docs.upsert(near.map((document) => ({ ...document, payload: { most: false } })));
    await docs.indexed({ timeoutMs: 30_000 });
    const wanted = { filter: { most: true }, k: 5 };
    const truth = await docs.search(query, { ...wanted, exact: true });
    const shards = truth.hits.map(({ id }) => of.node(0).shardOfId(id));
    expect(shards.includes(1) || shards.includes(2)).toBe(true);
    const { hits, explain, fallback } = await docs.search(query, { ...wanted, explain: true });
    expect(hits).toEqual(truth.hits);
    expect(fallback).toBe("nodes");
    expect(explain?.attempts, "twice").toBeGreaterThanOrEqual(4 * WORKERS);
    expect(new Set(explain?.ways?.map(({ plan }) => plan))).toEqual(new Set(["filtered-scan"]));
  });
});

it("nodes of copies find what is near as well", async () => {
  await of[Symbol.asyncDispose]();
  of = await new TestNodes(2, { replicationFactor: 2, acks: "all", maxHandlerMs: 60_000 }).start();
  const [docs] = (await filled(of, 1)) as [VectorCollection];
  expect(await recallOf(docs, { k: 5 }, "filtered-index")).toBeGreaterThan(0.95);
  const any = { k: 5, consistency: "eventual" } as const; // of all vshards, where one copy is asked for everything
  expect(await recallOf(docs, any, "filtered-index", "index")).toBeGreaterThan(0.95);
});
