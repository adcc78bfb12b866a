/**
 * The vectors of bench `vector-search`: a set of files (`--data`, `--queries`, `--truth`), MNIST where it is (`SHARDLOOM_DATA`, or
 * `../shared/data`), else clusters made of the seed.
 *
 * Invariant: queries are never in the base: they come from a file of their own, or are the last rows of one that has none beside it. The truth is that of the rows that are indexed: of a file only when all
 * of its base is, else of an exact scan. Distances are squared Euclidean ones.
 */
import { existsSync, readFileSync } from "node:fs";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES, USER0 } from "../../native-bridge/cell-layout.ts";
import { compileKernels, ELEMENT, Kernels, METRIC } from "../../native-bridge/kernels.ts";
import { openVectorFile } from "../../src/cli/formats/open-file.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { type BenchContext, sized } from "../harness/harness.ts";

/** Neighbours that are asked for, and known of each query. */
export const K = 10;
const MOST_SYNTHETIC = 60_000;
/** Of the rows of a file that no file of queries belongs to. */
const QUERY_SHARE = 0.1;
/** Of the synthetic set. */
const DIMENSIONS = 64;
const CENTRES = 60;
const SPREAD = 120;
/** Room of an arena beside the rows of an exact scan. */
const ARENA_SLACK_BYTES = 1 << 25;
const ARENA_STEP_BYTES = 1 << 16;

/** Vectors of one length, one after the other. */
export class Vectors {
  readonly values: Float32Array;
  readonly dimensions: number;

  constructor(values: Float32Array, dimensions: number) {
    this.values = values;
    this.dimensions = dimensions;
  }

  get count(): number {
    return this.values.length / this.dimensions;
  }

  /** The vector of a row, in place. */
  at(row: number): Float32Array {
    return this.values.subarray(row * this.dimensions, (row + 1) * this.dimensions);
  }

  slice(from: number, to: number): Vectors {
    return new Vectors(this.values.subarray(from * this.dimensions, to * this.dimensions), this.dimensions);
  }

  /** Components as bytes, row by row. */
  toBytes(): Uint8Array {
    return Uint8Array.from(this.values);
  }
}

export interface VectorSet {
  readonly name: string;
  readonly base: Vectors;
  readonly queries: Vectors;
  /** The rows of the {@link K} nearest of each query, query by query. */
  readonly truth: Int32Array;
  /** Whether every component is a whole number from 0 to 255. */
  readonly bytes: boolean;
}

/** Loads what the command line or the mode asks for. */
export async function loadVectorSet(context: BenchContext): Promise<VectorSet> {
  const { mode, inputs, seed, log } = context;
  const rows = inputs.rows ?? sized(mode, 3_000, 20_000, Number.POSITIVE_INFINITY);
  if (!(rows >= 1)) throw new Error(`Cannot run vector-search as --rows must be at least 1: current value is ${rows}`);
  const queryCount = sized(mode, 60, 1_000, 10_000);
  const raw =
    filesOf(context) === undefined
      ? synthetic(Math.min(rows, MOST_SYNTHETIC), queryCount, seed)
      : await read(filesOf(context) as Files, rows, queryCount);
  const bytes = isBytes(raw.base.values) && isBytes(raw.queries.values);
  const truth = raw.truth ?? exactNearest(raw.base, raw.queries, bytes);
  log(
    `vector-search: ${raw.name}, ${raw.queries.count} queries${raw.truth === undefined ? ", truth by exact scan" : ""}`,
  );
  return { ...raw, bytes, truth };
}

interface Files {
  readonly data: string;
  /** Undefined: the last rows of the data. */
  readonly queries: string | undefined;
  readonly truth: string | undefined;
}

interface RawSet extends Omit<VectorSet, "truth" | "bytes"> {
  readonly truth: Int32Array | undefined;
}

function filesOf({ mode, inputs }: BenchContext): Files | undefined {
  if (inputs.data !== undefined) {
    const queries = inputs.queries ?? siblingOf(inputs.data);
    if (queries === undefined && inputs.truth !== undefined)
      throw new Error(
        `Cannot run vector-search as the queries of ${inputs.truth} must be known: give them as --queries FILE`,
      );
    return { data: inputs.data, queries, truth: inputs.truth };
  }
  const folder = `${process.env["SHARDLOOM_DATA"] ?? "../shared/data"}/vectors/mnist`;
  const data = `${folder}/train-images-idx3-ubyte.gz`;
  if (mode === "smoke" || !existsSync(data)) return undefined;
  return { data, queries: `${folder}/t10k-images-idx3-ubyte.gz`, truth: `${folder}/gt-l2-10000x10.i32` };
}

/** The file of queries beside a file of vectors, by the names that such sets have. */
function siblingOf(data: string): string | undefined {
  const names = [data.replace(/train(?!.*train)/, "t10k"), data.replace(/train(?!.*train)/, "test")];
  return [...names, data.replace(/base(?!.*base)/, "query")].find((name) => name !== data && existsSync(name));
}

async function read({ data, queries, truth }: Files, rows: number, queryCount: number): Promise<RawSet> {
  if (queries === undefined) return splitOff(data, rows, queryCount);
  const base = await take(data, rows);
  const asked = await take(queries, queryCount);
  if (asked.vectors.dimensions !== base.vectors.dimensions)
    throw new Error(`Cannot run vector-search as queries must have ${base.vectors.dimensions} dimensions`);
  return {
    name: `${data.split("/").pop()}, ${base.vectors.count}${base.all ? "" : " first"} rows of ${base.vectors.dimensions} components`,
    base: base.vectors,
    queries: asked.vectors,
    truth: truth === undefined || !base.all ? undefined : await readTruth(truth, asked.vectors.count),
  };
}

/** The last rows that were taken are the queries, at most a tenth of all. */
async function splitOff(data: string, rows: number, queryCount: number): Promise<RawSet> {
  const { vectors, all } = await take(data, rows + queryCount);
  const asked = Math.min(queryCount, Math.floor(vectors.count * QUERY_SHARE));
  if (asked === 0)
    throw new Error(
      `Cannot run vector-search as ${data} has too few rows to do without some: give queries as --queries FILE`,
    );
  const count = vectors.count - asked;
  return {
    name: `${data.split("/").pop()}, ${all ? "" : "first "}${count} rows of ${vectors.dimensions} components, the ${asked} after them as queries`,
    base: vectors.slice(0, count),
    queries: vectors.slice(count, vectors.count),
    truth: undefined,
  };
}

async function take(path: string, count: number): Promise<{ vectors: Vectors; all: boolean }> {
  const file = await openVectorFile(path);
  const parts: Float32Array[] = [];
  let all = true;
  for await (const { vector } of file.rows()) {
    if (parts.length === count) {
      all = false;
      break;
    }
    parts.push(vector.slice());
  }
  const values = new Float32Array(parts.length * file.dimensions);
  for (const [row, part] of parts.entries()) values.set(part, row * file.dimensions);
  return { vectors: new Vectors(values, file.dimensions), all };
}

/** Rows of neighbours: `ivecs` and other vector files, or bare int32, {@link K} or more for each query of the whole file. */
async function readTruth(path: string, queries: number): Promise<Int32Array> {
  const truth = new Int32Array(queries * K);
  if (!path.endsWith(".i32")) {
    const { vectors } = await take(path, queries);
    if (vectors.count < queries || vectors.dimensions < K)
      throw new Error(`Cannot read ${path} as it must have ${K} neighbours of each of ${queries} queries`);
    for (let query = 0; query < queries; query++) truth.set(vectors.at(query).subarray(0, K), query * K);
    return truth;
  }
  const file = readFileSync(path);
  const words = new Int32Array(file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength));
  if (words.length < truth.length) throw new Error(`Cannot read ${path} as it must have ${truth.length} numbers`);
  return words.slice(0, truth.length);
}

function synthetic(rows: number, queryCount: number, seed: number): RawSet {
  const random = createSeededRandom(seed);
  const centres = Array.from({ length: CENTRES }, () =>
    Float32Array.from({ length: DIMENSIONS }, () => random.float() * 255),
  );
  const make = (count: number): Vectors => {
    const values = new Float32Array(count * DIMENSIONS);
    for (let row = 0; row < count; row++) {
      const centre = centres[random.u32() % CENTRES] as Float32Array;
      for (const [at, value] of centre.entries()) {
        const moved = Math.round(value + (random.float() - 0.5) * SPREAD);
        values[row * DIMENSIONS + at] = Math.min(255, Math.max(0, moved));
      }
    }
    return new Vectors(values, DIMENSIONS);
  };
  const name = `synthetic, ${rows} rows of ${DIMENSIONS} components in ${CENTRES} clusters`;
  return { name, base: make(rows), queries: make(queryCount), truth: undefined };
}

function isBytes(values: Float32Array): boolean {
  return values.every((value) => value === (value & 255));
}

/** Capacity of an arena for so many bytes and what else it is used for. */
export function arenaBytes(bytes: number): number {
  return Math.ceil((bytes + ARENA_SLACK_BYTES) / ARENA_STEP_BYTES) * ARENA_STEP_BYTES;
}

/** Rows of the nearest of each query, by a scan of all. @param own Row of the query itself in the base, which does not count. */
export function exactNearest(
  base: Vectors,
  queries: Vectors,
  bytes: boolean,
  k: number = K,
  own?: (query: number) => number,
): Int32Array {
  const { dimensions, count } = base;
  const stride = (CELL_HEADER_BYTES + dimensions * (bytes ? 1 : 4) + 15) & ~15;
  const arena = new Arena(createArena({ capacityBytes: arenaBytes(count * stride) }));
  const kernels = new Kernels(compileKernels(), arena);
  const cells = arena.allocate(count * stride);
  for (let row = 0; row < count; row++) {
    const cell = cells + row * stride;
    if (bytes) arena.bytes.set(base.at(row), cell + CELL_HEADER_BYTES);
    else arena.f32.set(base.at(row), (cell + CELL_HEADER_BYTES) >>> 2);
    arena.i32[(cell >>> 2) + USER0] = 1; // in use
  }
  const nearest = new Int32Array(queries.count * k).fill(-1);
  for (let query = 0; query < queries.count; query++) {
    const vector = queries.at(query);
    const components = bytes ? Uint8Array.from(vector) : vector;
    kernels.beginScan(METRIC.L2, bytes ? ELEMENT.U8 : ELEMENT.F32, components, k + (own === undefined ? 0 : 1));
    kernels.scanCells(cells, stride, 0, count);
    const found = kernels.endScan();
    for (let hit = 0, at = 0; hit < found && at < k; hit++)
      if (own === undefined || kernels.hitRow(hit) !== own(query)) nearest[query * k + at++] = kernels.hitRow(hit);
  }
  return nearest;
}
