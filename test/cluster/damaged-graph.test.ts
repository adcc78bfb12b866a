/**
 * Graphs that are hard or damaged, over real threads, searched by every strategy: what is asked for is found, or another strategy answers and the
 * result says why.
 */
import { afterEach, describe, expect, it } from "vitest";
import { graphShapeOf } from "../../actors/vector/graph/graph-code.ts";
import type { Cluster, StrategyName, VectorCollection } from "../../src/index.ts";
import { RegionTable } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import {
  GRAPH_DIMENSIONS,
  GRAPH_LEAVES_VERSION,
  GRAPH_MAGIC,
  GRAPH_VERSION,
  graphGeometry,
  VERTEX_DEGREE,
  vertexTreeWord,
} from "../../src/store/graph-layout.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";

const seed = Number(process.env["SEED"] ?? 1);
const SHARDS = [0, 1, 2];
const STRATEGIES = ["one-sided", "compass", "spire", "cotra", "auto"] as const;
/** All but spire go by it. */
const effortOf = (by: StrategyName): { ef?: number } => (by === "spire" ? {} : { ef: 200 });

let cluster: Cluster;
afterEach(() => cluster.close());

/** Vectors around centres, one centre after the other. */
function clustered(centres: number, each: number, dimensions: number, spread: number): Float32Array[] {
  const random = createSeededRandom(seed);
  return Array.from({ length: centres }, () => {
    const centre = Float32Array.from({ length: dimensions }, () => random.float() * 3);
    return Array.from({ length: each }, () => centre.map((x) => x + random.float() * spread));
  }).flat();
}

async function collection(vectors: readonly Float32Array[]): Promise<VectorCollection> {
  cluster = await startTestCluster({ workers: SHARDS.length, requestTimeoutMs: 20_000 });
  const dimensions = (vectors[0] as Float32Array).length;
  const docs = await cluster.vectors("docs", { dimensions, metric: "l2", strategy: "one-sided" });
  await docs.upsert(vectors.map((vector, id) => ({ id, vector })));
  await docs.indexed({ timeoutMs: 60_000 });
  await eventually("all shards know all leaves", async () =>
    (await docs.status()).every(({ knownShards }) => knownShards === SHARDS.length),
  );
  return docs;
}

/** Asks for some documents by their own vectors. @returns how often each way was gone */
async function ask(
  docs: VectorCollection,
  vectors: readonly Float32Array[],
  by: StrategyName,
): Promise<{ missed: number; ways: Readonly<Record<string, number>> }> {
  let missed = 0;
  const ways: Record<string, number> = {};
  const ids = Array.from(vectors.keys()).filter((id) => id % Math.ceil(vectors.length / 24) === 0);
  const results = ids.map((id) => docs.search(vectors[id] as Float32Array, { by, ...effortOf(by) }));
  for (const [at, { hits, by: answered, fallback }] of (await Promise.all(results)).entries()) {
    expect(hits, by).toHaveLength(10);
    if (hits[0]?.id !== ids[at]) missed++;
    const way = `${answered} ${fallback ?? ""}`.trim();
    ways[way] = (ways[way] ?? 0) + 1;
  }
  return { missed, ways };
}

/** Asks by every strategy; each has to find about all, and nearly always by itself. */
async function askAll(docs: VectorCollection, vectors: readonly Float32Array[]): Promise<void> {
  for (const by of STRATEGIES) {
    const { missed, ways } = await ask(docs, vectors, by);
    expect(missed, by).toBeLessThan(4);
    const { [by === "auto" ? "one-sided" : by]: own = 0, "scatter reach": reach = 0, ...others } = ways;
    expect(others, by).toEqual({});
    expect(own, `${by}, and ${reach} times all shards as the lists did not lead on`).toBeGreaterThan(16);
  }
}

describe("a search by any strategy", () => {
  it("finds what was loaded cluster by cluster, each of them far from all others", async () => {
    const vectors = clustered(8, 140, 96, 0.5);
    const docs = await collection(vectors);
    await askAll(docs, vectors);
  });

  it("answers whole where lists and the tree hold anything, and where a table is of another version", async () => {
    const vectors = clustered(20, 60, 16, 1);
    const docs = await collection(vectors);
    const geometry = graphGeometry(graphShapeOf(docs.options));
    const { stride, degree } = geometry;
    const chunksOf = (shard: number): ReturnType<RegionTable["list"]> =>
      new RegionTable(cluster.arena, shard, () => 0).list(shard).filter((chunk) => chunk.cellStrideBytes === stride);
    const random = createSeededRandom(seed + 1);
    const { i32 } = cluster.arena;
    for (const { ref } of SHARDS.flatMap(chunksOf))
      for (let at = ref.address; at < ref.address + ref.length; at += stride) {
        const first = (at + VERTEX_DEGREE) >>> 2;
        if (random.float() < 0.1) i32[first] = [-1, 1_000_000, degree + 1][Math.floor(random.float() * 3)] as number;
        for (let link = 1; link <= degree; link++)
          if (random.float() < 0.2) i32[first + link] = Math.floor((random.float() - 0.3) * 2 ** 31);
        const tree = (at + vertexTreeWord(geometry)) >>> 2;
        if (random.float() < 0.3) i32[tree] = Math.floor((random.float() - 0.5) * 2_000);
      }
    await askAll(docs, vectors);
    // Who writes goes on, and what is deleted is gone for all.
    await docs.delete([0, 20, 40]);
    await docs.upsert([{ id: 20, vector: vectors[20] as Float32Array }]);
    await docs.indexed();
    for (const by of STRATEGIES)
      for (const [id, there] of [
        [0, false],
        [20, true],
        [40, false],
      ] as const) {
        const { hits } = await docs.search(vectors[id] as Float32Array, { by, ...effortOf(by) });
        expect(
          hits.some((hit) => hit.id === id),
          `${by}, ${id}`,
        ).toBe(there);
      }
    await docs.upsert([0, 40].map((id) => ({ id, vector: vectors[id] as Float32Array })));

    let root = i32.indexOf(GRAPH_MAGIC);
    while (i32[root + 1] !== GRAPH_VERSION || i32[root + GRAPH_DIMENSIONS] !== 16)
      root = i32.indexOf(GRAPH_MAGIC, root + 1);
    const version = i32[root + GRAPH_LEAVES_VERSION] as number;
    i32[root + GRAPH_LEAVES_VERSION] = (version % 255) + 1;
    for (const by of ["compass", "spire"] as const)
      expect(Object.keys((await ask(docs, vectors, by)).ways), by).toEqual(["one-sided training"]);
    i32[root + GRAPH_LEAVES_VERSION] = version;
  });
});
