/** Real images: bytes are recognised and exact, and every code with ranking again finds the ten nearest. */
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { METRIC } from "../../../../native-bridge/kernels.ts";
import { encodeAll, recall } from "./support.ts";

const FOLDER = `${process.env["SHARDLOOM_DATA"] ?? "../shared/data"}/vectors/mnist`;
const BASE = ["train-images-idx3-ubyte.gz", "base-images-idx3-ubyte.gz"]
  .map((name) => `${FOLDER}/${name}`)
  .find(existsSync);
if (BASE === undefined) process.stderr.write(`skipped: no MNIST images under ${FOLDER}; set SHARDLOOM_DATA\n`);

describe.skipIf(BASE === undefined)("MNIST", () => {
  const pixels = BASE === undefined ? new Uint8Array() : gunzipSync(readFileSync(BASE)).subarray(16);
  const images = (from: number, count: number): Float32Array[] =>
    Array.from({ length: count }, (_, i) => Float32Array.from(pixels.subarray((from + i) * 784, (from + i + 1) * 784)));
  const vectors = BASE === undefined ? [] : images(0, 2_000);
  const queries = BASE === undefined ? [] : images(50_000, 20);

  test.each([
    ["auto", METRIC.L2, 1],
    ["auto", METRIC.COSINE, 0.99],
    ["f16", METRIC.L2, 1],
    ["f16", METRIC.COSINE, 0.99],
    ["i8", METRIC.L2, 0.99],
    ["i8", METRIC.COSINE, 0.98],
    ["i8", METRIC.INNER_PRODUCT, 0.98],
    ["b1", METRIC.L2, 0.97],
    ["b1", METRIC.COSINE, 0.9],
  ] as const)("%s, metric %i: recall@10 is at least %d", (name, metric, least) => {
    const coded = encodeAll(name, metric, vectors);
    if (name === "auto") expect([coded.code.parameters.name, coded.code.exact]).toEqual(["u8", true]);
    expect(recall(coded, metric, vectors, queries, 10)).toBeGreaterThanOrEqual(least);
  });
});
