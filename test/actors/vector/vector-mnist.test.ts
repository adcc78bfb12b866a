/** Real images: the exact scan equals brute force, and the index finds at least 95 % of the ten nearest. */
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { PLAN } from "../../../actors/vector/vector-replies.ts";
import { Bed } from "./support.ts";

const FOLDER = `${process.env["SHARDLOOM_DATA"] ?? "../shared/data"}/vectors/mnist`;
const BASE = ["train-images-idx3-ubyte.gz", "base-images-idx3-ubyte.gz"]
  .map((name) => `${FOLDER}/${name}`)
  .find(existsSync);
if (BASE === undefined) process.stderr.write(`skipped: no MNIST images under ${FOLDER}; set SHARDLOOM_DATA\n`);

function loadImages(path: string, from: number, count: number): Float32Array[] {
  const bytes = gunzipSync(readFileSync(path));
  return Array.from({ length: count }, (_, i) =>
    Float32Array.from(bytes.subarray(16 + (from + i) * 784, 16 + (from + i + 1) * 784)),
  );
}

function nearest(vectors: readonly Float32Array[], query: Float32Array, k: number): [number, number][] {
  return vectors
    .map((vector, row): [number, number] => {
      let sum = 0;
      for (let i = 0; i < 784; i++) sum += ((vector[i] as number) - (query[i] as number)) ** 2;
      return [sum, row];
    })
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .slice(0, k);
}

describe.skipIf(BASE === undefined)("MNIST", () => {
  const images = BASE === undefined ? [] : loadImages(BASE, 0, 2000);
  const queries = BASE === undefined ? [] : loadImages(BASE, 50_000, 50);
  const bed = new Bed({ capacityBytes: 128 * 1024 * 1024 });
  bed.open({ dimensions: 784, metric: "l2", scanRows: 500 });
  for (let i = 0; i < images.length; i += 250)
    bed.upsert(
      784,
      images.slice(i, i + 250).map((vector, j) => ({ id: i + j, vector })),
    );

  test("the exact scan of 2,000 images equals brute force, distance by distance", () => {
    for (const query of queries) {
      const hits = bed.search(query, 10, { exact: true }).hits;
      expect(hits.map((hit) => [hit.score, hit.id])).toEqual(nearest(images, query, 10));
    }
  });

  test("recall@10 of the index is at least 0.95", () => {
    bed.settle();
    let found = 0;
    for (const query of queries) {
      const truth = new Set(nearest(images, query, 10).map(([, row]) => row));
      const answer = bed.search(query, 10);
      expect(answer.plan).toBe(PLAN.INDEX);
      found += answer.hits.filter((hit) => truth.has(hit.id as number)).length;
    }
    expect(found / (queries.length * 10)).toBeGreaterThanOrEqual(0.95);
  });
});
