/**
 * The vectors of bench `search`: MNIST where it is (`SHARDLOOM_DATA`, or `../shared/data`), else a clustered set of its shape.
 */
import { existsSync, readFileSync } from "node:fs";
import { openVectorFile } from "../../src/cli/formats/open-file.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";

export const DIMENSIONS = 784;
const CLUSTERS = 200;
const TRUTH_NEIGHBOURS = 10;

export interface SearchData {
  readonly name: string;
  readonly base: readonly Float32Array[];
  readonly queries: readonly Float32Array[];
  /** Rows of the true nearest of each query, when the whole base is here and they are known. */
  readonly truth?: (query: number) => Int32Array;
}

/** @param rows Vectors to index. @param queries Queries, at most 10,000. */
export async function loadData(rows: number, queries: number, synthetic: boolean, seed: number): Promise<SearchData> {
  const folder = `${process.env["SHARDLOOM_DATA"] ?? "../shared/data"}/vectors/mnist`;
  if (synthetic || !existsSync(`${folder}/train-images-idx3-ubyte.gz`)) return clustered(rows, queries, seed);
  const base = await take(`${folder}/train-images-idx3-ubyte.gz`, rows);
  const data = {
    name: `MNIST, ${rows} of 60000`,
    base,
    queries: await take(`${folder}/t10k-images-idx3-ubyte.gz`, queries),
  };
  if (base.length < 60_000) return data;
  const file = readFileSync(`${folder}/gt-l2-10000x10.i32`);
  const truth = new Int32Array(file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength));
  return { ...data, truth: (query) => truth.subarray(query * TRUTH_NEIGHBOURS, (query + 1) * TRUTH_NEIGHBOURS) };
}

async function take(path: string, count: number): Promise<Float32Array[]> {
  const vectors: Float32Array[] = [];
  for await (const { vector } of (await openVectorFile(path)).rows()) {
    vectors.push(vector.slice());
    if (vectors.length === count) break;
  }
  return vectors;
}

function clustered(rows: number, queries: number, seed: number): SearchData {
  const random = createSeededRandom(seed);
  const centres = Array.from({ length: CLUSTERS }, () =>
    Float32Array.from({ length: DIMENSIONS }, () => random.float() * 255),
  );
  const near = (): Float32Array => {
    const centre = centres[random.u32() % CLUSTERS] as Float32Array;
    return centre.map((value) => value + (random.float() - 0.5) * 80);
  };
  return {
    name: `synthetic, ${rows} rows in ${CLUSTERS} clusters`,
    base: Array.from({ length: rows }, near),
    queries: Array.from({ length: queries }, near),
  };
}
