/** Collections whose graph holds codes of vectors: what they find, what they refuse, and that a restart and copies make them again. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Cluster, VectorCollection, VectorCollectionOptions } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { startTestCluster } from "../support/cluster.ts";

const DIMENSIONS = 48;
const DOCUMENTS = 300;
const seed = Number(process.env["SEED"] ?? 1);
type Kind = Pick<VectorCollectionOptions, "quantization" | "metric">;

/** The codes, and what share of the true ten nearest is to be found at least. */
const KINDS: readonly (readonly [string, Required<Kind>, number])[] = [
  ["halves, by l2", { quantization: "f16", metric: "l2" }, 0.95],
  ["halves, by cosine", { quantization: "f16", metric: "cosine" }, 0.95],
  ["halves, by inner product", { quantization: "f16", metric: "inner-product" }, 0.9],
  ["signed bytes, by l2", { quantization: "i8", metric: "l2" }, 0.95],
  ["signed bytes, by cosine", { quantization: "i8", metric: "cosine" }, 0.95],
  ["bits, by cosine", { quantization: "b1", metric: "cosine" }, 0.85],
];

vi.setConfig({ testTimeout: 120_000 });

let cluster: Cluster;
afterEach(() => cluster.close());

/** Vectors around centres on all sides of 0, whole numbers within ±127. */
function clustered(count: number, random: ReturnType<typeof createSeededRandom>): Float32Array[] {
  const shape = createSeededRandom(7);
  const centres = Array.from({ length: 12 }, () => Array.from({ length: DIMENSIONS }, () => shape.float() * 160 - 80));
  return Array.from({ length: count }, () => {
    const centre = centres[Math.floor(random.float() * centres.length)] as number[];
    return Float32Array.from(centre, (x) => Math.round(x + (random.float() - 0.5) * 90));
  });
}

const vectors = clustered(DOCUMENTS, createSeededRandom(seed));
const queries = clustered(20, createSeededRandom(seed + 1));
const nameOf = ({ quantization, metric }: Kind): string => `${quantization}-${metric}`;

/** Those that are looked at: after a restart one of each code. */
let kinds = KINDS;
const openAll = (): Promise<[Required<Kind>, VectorCollection, number][]> =>
  Promise.all(
    kinds.map(async ([, kind, least]): Promise<[Required<Kind>, VectorCollection, number]> => {
      const options = { ...kind, dimensions: DIMENSIONS, strategy: "one-sided" } as const;
      return [kind, await cluster.vectors(nameOf(kind), options), least];
    }),
  );

async function fillAll(): Promise<void> {
  for (const [, docs] of await openAll())
    await docs.upsert(vectors.map((vector, id) => ({ id, vector, payload: { third: id % 3 } })));
}

/** Searches find their share, with the scores of the vectors themselves. */
async function check(by: "one-sided" | "cotra", filter?: { third: number }): Promise<void> {
  for (const [kind, docs, least] of await openAll()) {
    await docs.indexed({ timeoutMs: 60_000 });
    const options = { consistency: "eventual", ...(filter === undefined ? {} : { filter }) } as const;
    let found = 0;
    for (const query of queries) {
      const near = await docs.search(query, { ...options, by });
      expect([near.by, near.fallback, near.hits.length], nameOf(kind)).toEqual([by, undefined, 10]);
      const exact = await docs.search(query, { ...options, by: "scatter", exact: true });
      const truth = new Map(exact.hits.map(({ id, score }) => [id, score]));
      for (const { id, score } of near.hits) {
        if (!truth.has(id)) continue;
        expect(score, nameOf(kind)).toBe(truth.get(id));
        found++;
      }
    }
    expect(found / (10 * queries.length), `${nameOf(kind)} by ${by}`).toBeGreaterThan(least);
  }
}

describe("a collection of codes", () => {
  it("finds its share, alone, together and with a filter, with the scores of its vectors", async () => {
    cluster = await startTestCluster({ requestTimeoutMs: 20_000, maxHandlerMs: 20_000 });
    await fillAll();
    await check("one-sided");
    await check("cotra");
    await check("one-sided", { third: 1 });
    for (const by of ["compass", "spire"] as const) {
      const [, docs] = (await openAll())[0] as [Kind, VectorCollection, number];
      const { by: answered, fallback, hits } = await docs.search(queries[0] as Float32Array, { by });
      expect([answered, fallback, hits.length]).toEqual(["one-sided", "code", 10]);
    }
  });

  it("is there again after a restart, and is made of copies as of its own documents", async () => {
    const directory = await mkdtemp(join(tmpdir(), "shardloom-codes-"));
    kinds = KINDS.filter(([, { metric, quantization }]) => metric === "cosine" || quantization === "i8");
    try {
      cluster = await startTestCluster({ directory, replicationFactor: 2, maxHandlerMs: 20_000 });
      await fillAll();
      await cluster.close();
      cluster = await startTestCluster({ directory, replicationFactor: 2, maxHandlerMs: 20_000 });
      await check("one-sided");
      for (const [kind, docs] of await openAll()) expect(docs.options).toMatchObject(kind);
    } finally {
      await cluster.close();
      await rm(directory, { recursive: true });
    }
  });

  it("refuses what its codes cannot hold, and leaves queries that have none to the shards", async () => {
    cluster = await startTestCluster();
    const shape = { dimensions: 2, strategy: "one-sided" } as const;
    for (const [options, name] of [
      [{ ...shape, quantization: "b1", metric: "l2" }, "quantization"],
      [{ ...shape, quantization: "b1", metric: "inner-product" }, "quantization"],
      [{ ...shape, quantization: "i8", strategy: "scatter" }, "quantization"],
      [{ ...shape, quantization: "b1", strategy: "scatter" }, "quantization"],
      [{ ...shape, quantization: "i4" as "i8" }, "quantization"],
    ] as const)
      await expect(cluster.vectors("odd", options)).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
        details: { name },
      });
    const bytes = await cluster.vectors("bytes", { ...shape, quantization: "i8", metric: "l2" });
    const halves = await cluster.vectors("halves", { ...shape, quantization: "f16", metric: "l2" });
    for (const [docs, good, bad] of [
      [bytes, [-128, 127], [0.5, 128, -129, 1e30]],
      [halves, [-65_504, 1e-9], [65_520, -1e30]],
    ] as const) {
      await docs.upsert({ id: 1, vector: good });
      for (const value of bad) {
        const refused = { code: "ERR_INVALID_ARGUMENT", details: { component: 1, value: Math.fround(value), id: 2 } };
        await expect(docs.upsert({ id: 2, vector: [0, value] })).rejects.toMatchObject(refused);
        const { by, fallback, hits } = await docs.search([0, value]);
        expect([by, fallback, hits.length]).toEqual(["scatter", "query", 1]);
      }
      expect((await docs.search(good)).hits).toMatchObject([{ id: 1, score: 0 }]);
    }
    const any = await cluster.vectors("any", { ...shape, quantization: "i8", metric: "cosine" });
    await any.upsert([
      { id: 0, vector: [0, 0] },
      { id: 1, vector: [1e30, 1e-30] },
    ]);
    await any.indexed();
    expect((await any.search([2e-30, 0])).hits.map(({ id, score }) => [id, Math.round(score)])).toEqual([
      [1, 0],
      [0, 1],
    ]);
  });
});
