/** Vectors of extreme magnitude: exact scores, the right neighbours with and without an index, and typed limits of f16. */

import { describe, expect, test } from "vitest";
import type { VectorCollectionOptions } from "../../../actors/vector/vector-options.ts";
import { Bed, plainDistance, randomFrom } from "./support.ts";

const DIMENSIONS = 8;

/** A shard with `count` random vectors of that scale in its index, and a few zero vectors; and what a search should say. */
function setup(options: Omit<VectorCollectionOptions, "dimensions">, scale: number, count = 600) {
  const next = randomFrom(7);
  const vector = (): Float32Array => Float32Array.from({ length: DIMENSIONS }, () => (next() * 2 - 1) * scale);
  const bed = new Bed({ capacityBytes: 32 * 1024 * 1024 });
  bed.open({ dimensions: DIMENSIONS, scanRows: 50, ...options });
  const vectors = Array.from({ length: count }, (_, id) => (id % 40 === 0 ? new Float32Array(DIMENSIONS) : vector()));
  bed.upsert(
    DIMENSIONS,
    vectors.map((of, id) => ({ id, vector: of })),
  );
  bed.settle();
  const truth = (query: Float32Array) =>
    vectors
      .map((of, id) => ({ id, score: plainDistance(options.metric ?? "cosine", of, query) }))
      .sort((a, b) => a.score - b.score || a.id - b.id);
  return { bed, vector, truth };
}

describe("an exact search", () => {
  test.each([
    ["l2", 3e30],
    ["l2", 1e-25],
    ["cosine", 1e20],
    ["cosine", 1e-25],
    ["cosine", 1e-40],
    ["inner-product", 1e20],
  ] as const)("by %s of components around %f gives float64's scores and order", (metric, scale) => {
    const { bed, vector, truth } = setup({ metric }, scale);
    for (let round = 0; round < 10; round++) {
      const query = vector();
      const wanted = truth(query).slice(0, 20);
      const { hits } = bed.search(query, 20, { exact: true });
      expect(hits.map((hit) => hit.id)).toEqual(wanted.map((row) => row.id));
      for (const [at, hit] of hits.entries()) {
        const { score } = wanted[at] as { score: number };
        expect(Math.abs(hit.score - score)).toBeLessThanOrEqual(
          1e-4 * Math.max(Math.abs(score), metric === "cosine" ? 1 : 0),
        );
      }
    }
  });
});

describe("a search through the index", () => {
  test.each([
    ["cosine", "f32", 1e20],
    ["cosine", "f32", 1e-25],
    ["cosine", "f16", 1e20],
    ["cosine", "f16", 1e-8],
    ["l2", "f16", 2e4],
    ["l2", "f32", 1e15],
  ] as const)("by %s with %s of components around %f finds nine in ten", (metric, quantization, scale) => {
    const { bed, vector, truth } = setup({ metric, quantization }, scale);
    let found = 0;
    for (let round = 0; round < 30; round++) {
      const query = vector();
      const wanted = new Set(
        truth(query)
          .slice(0, 10)
          .map((row) => row.id),
      );
      found += bed.search(query, 10).hits.filter((hit) => wanted.has(hit.id as number)).length;
    }
    expect(bed.status().indexed).toBe(600);
    expect(found / 300).toBeGreaterThan(0.9);
  });

  test("with f16 refuses components that it cannot hold, whole and named, and scans for queries beyond", () => {
    const { bed } = setup({ metric: "l2", quantization: "f16" }, 1e3);
    const before = bed.count();
    const good = { id: "good", vector: new Float32Array(DIMENSIONS).fill(65_504) };
    const bad = { id: "bad", vector: Float32Array.from({ length: DIMENSIONS }, (_, at) => (at === 3 ? -65_520 : 1)) };
    expect(() => bed.upsert(DIMENSIONS, [good, bad])).toThrow(
      expect.objectContaining({
        code: "ERR_INVALID_ARGUMENT",
        details: { item: 1, component: 3, value: -65_520, limit: 65_504, id: "bad" },
      }),
    );
    expect(bed.count()).toBe(before);
    bed.upsert(DIMENSIONS, [good]);
    bed.settle();
    const query = new Float32Array(DIMENSIONS).fill(70_000);
    expect(bed.search(query, 1).hits[0]?.id).toBe("good");
    const { bed: cosine } = setup({ metric: "cosine", quantization: "f16" }, 1e3);
    expect(cosine.upsert(DIMENSIONS, [bad]).inserted).toBe(1);
  });
});
