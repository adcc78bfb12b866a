/**
 * Loader of the WASM distance kernels, and one thread's instance of them over the node's shared memory.
 *
 * Invariant: an instance writes only inside its own scratch range, so every thread has its own instance and none needs a
 * lock. All addresses are absolute byte offsets in the arena. The largest scratch area is kept until `close()`.
 *
 * A scan is a small session: `beginScan` (query, k), any number of `scanCells` / `offerCell` calls that share one bounded
 * heap, then `endScan`, after which the hits can be read in the total order (distance, row).
 * Divergence from the usual f32 distances: hits are f64, so that sums of bytes up to 784 × 255² stay exact and ties are real.
 */
import { readFileSync } from "node:fs";
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import {
  type KernelExports,
  QUERY_OFFSET,
  WORD_BITMAP,
  WORD_COUNT,
  WORD_DIMENSIONS,
  WORD_ELEMENT,
  WORD_HASH,
  WORD_HEAD,
  WORD_HITS,
  WORD_LIMIT,
  WORD_METRIC,
  WORD_QUERY,
  WORD_QUERY_INVERSE_NORM,
  WORD_RETRIES,
  WORD_SCORED,
  WORD_SKIP_MASK,
  WORD_UNREAD,
  WORD_UNREAD_COUNT,
  WORD_UNREAD_LIMIT,
} from "./kernels-layout.ts";

/** Distance functions; smaller is closer: squared Euclidean, 1 − cosine (clamped to [0, 2]), 1 − dot product. */
export const METRIC = { L2: 0, COSINE: 1, INNER_PRODUCT: 2 } as const;
/**
 * Component types. Record and query are of the same type, but for `F16_F32`: f16 records (`a`), f32 query (`b`).
 *
 * `B1` is a sign a bit: set +1, clear −1, component i in bit `i & 7` of byte `i >> 3`. Of d bits of which h differ, `L2` is 4h, `COSINE` 2h/d
 * and `INNER_PRODUCT` 1 − d + 2h: all rank by h. Distances of `U8`, `I8` and `B1` (not cosine) are exact integers.
 */
export const ELEMENT = { F32: 0, U8: 1, F16: 2, I8: 3, B1: 4, F16_F32: 5 } as const;

export type MetricCode = (typeof METRIC)[keyof typeof METRIC];
export type ElementCode = (typeof ELEMENT)[keyof typeof ELEMENT];

/** Components of a query, or a vector, of each element type: of f16 the bits. */
export type Components = Float32Array | Uint8Array | Int8Array | Uint16Array;

/** What the kernels need of the arena. */
export interface KernelArena {
  readonly memory: WebAssembly.Memory;
  allocate(byteLength: number): number;
  free(byteOffset: number, byteLength: number): void;
  /** A range that a successor of a dead thread with the same number gets back; a larger one replaces it. Only used when an owner is given. */
  allocateScratch?(owner: number, byteLength: number): number;
  freeScratch?(owner: number): boolean;
}

/** What a scan may be told besides its query. */
export interface ScanOptions {
  /** Byte offset of a bitmap of u32 words over rows (bit r & 31 of word r >> 5 admits row r); 0 admits every row. @default 0 */
  readonly bitmap?: number;
  /** Rows with any of these bits in `user3` are skipped. @default 0 */
  readonly skipMask?: number;
  /** How often a row that is being written is read again before it counts as unread. @default 100 */
  readonly retries?: number;
  /** Components, where the query does not tell: `B1`. @default `query.length`, of `B1` eight times that */
  readonly dimensions?: number;
}

/** Bytes of one hit in scratch: f64 distance | i32 row | 4 unused. */
export const HIT_BYTES = 16;
/** How many unread rows are remembered by number; `unreadCount` counts all. */
export const UNREAD_LIMIT = 1024;
/** Largest number of components; u8 sums stay below 2^31 per lane. */
export const MAX_DIMENSIONS = 65_536;

const DEFAULT_SCRATCH_BYTES = 65_536;
const DEFAULT_RETRIES = 100;
const MAX_LIMIT = 1 << 24;

/** Words of the head of a document that is hashed. */
export const HASH_HEAD_WORDS = 6;

/**
 * Which build of the kernels: `portable`, or the one with relaxed SIMD, where product and sum are fused. `fastest` is the latter where this
 * Node knows it (22 and later; 20 with --experimental-wasm-relaxed-simd). Floats differ in the last bits between the two, integers never.
 */
export type KernelBuild = "fastest" | "portable";

/** This thread's, once they were compiled: they have no state. Undefined: this Node does not know the instructions. */
const compiled = new Map<KernelBuild, WebAssembly.Module | undefined>();

/**
 * Compiles the kernels that stand beside this file after the build; once a thread. The module can be posted to workers.
 *
 * @throws {ShardloomError} `ERR_MODULE_NOT_LOADED` when a file is missing or does not compile.
 */
export function compileKernels(build: KernelBuild = "fastest"): WebAssembly.Module {
  let module = compiled.get(build);
  if (!compiled.has(build)) {
    module = build === "fastest" ? load("distance-relaxed.wasm", true) : load("distance.wasm", false);
    compiled.set(build, module);
  }
  return module ?? compileKernels("portable");
}

/** @returns Undefined for an optional module that is not valid here. */
function load(name: string, optional: boolean): WebAssembly.Module | undefined {
  try {
    const bytes = readFileSync(new URL(`./kernels/${name}`, import.meta.url));
    return optional && !WebAssembly.validate(bytes) ? undefined : new WebAssembly.Module(bytes);
  } catch (cause) {
    const message = `Cannot load kernels as kernels/${name} is missing or broken: run the build`;
    throw new ShardloomError("ERR_MODULE_NOT_LOADED", message, { cause });
  }
}

/** One thread's kernels. Not shared: the scratch range has one user. */
export class Kernels {
  /** The compiled code, for other kernels of this thread. */
  readonly module: WebAssembly.Module;
  readonly #arena: KernelArena;
  readonly #owner: number | undefined;
  readonly #exports: KernelExports;
  readonly #i32: Int32Array;
  readonly #f32: Float32Array;
  readonly #f64: Float64Array;
  readonly #bytes: Uint8Array;
  #scratchOffset: number;
  #scratchBytes: number;
  #word = 0;
  #hits = 0;

  /**
   * @param scratchBytes Initial scratch; it grows by itself for a large k.
   * @param owner Number of the thread; when given, its successor under the same number takes the scratch over instead of leaking it.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY` from the arena.
   */
  constructor(
    module: WebAssembly.Module,
    arena: KernelArena,
    scratchBytes: number = DEFAULT_SCRATCH_BYTES,
    owner?: number,
  ) {
    this.module = module;
    this.#arena = arena;
    this.#owner = arena.allocateScratch === undefined || arena.freeScratch === undefined ? undefined : owner;
    const buffer = arena.memory.buffer;
    this.#i32 = new Int32Array(buffer);
    this.#f32 = new Float32Array(buffer);
    this.#f64 = new Float64Array(buffer);
    this.#bytes = new Uint8Array(buffer);
    const instance = new WebAssembly.Instance(module, { env: { memory: arena.memory } });
    this.#exports = instance.exports as unknown as KernelExports;
    this.#scratchBytes = Math.max(1024, scratchBytes);
    this.#scratchOffset = this.#allocate(this.#scratchBytes);
    this.#word = this.#scratchOffset >>> 2;
  }

  get scratchOffset(): number {
    return this.#scratchOffset;
  }

  get scratchBytes(): number {
    return this.#scratchBytes;
  }

  /** Byte offset of the query of the scan that was begun. */
  get queryOffset(): number {
    return this.#scratchOffset + QUERY_OFFSET;
  }

  /** Distance of two vectors in the arena. f32 vectors must be 4-aligned only by convention; the kernel takes any offset. */
  distance(metric: number, element: number, a: number, b: number, dimensions: number): number {
    return this.#exports.distance(metric, element, a, b, dimensions);
  }

  /** 1 / |a| rounded to f32, 0 for a zero vector: what `user4` of a cell holds. With `F16_F32`, that of an f32 query. */
  inverseNorm(element: number, a: number, dimensions: number): number {
    return this.#exports.inverseNorm(element, a, dimensions);
  }

  /**
   * Writes the distances of `count` records to one query, as f64, to `out`: what {@link distance} gives, to the bit, but faster than as many
   * calls. Nothing is validated, and ids are not checked: one beyond the memory traps.
   *
   * @param queryInverseNorm Of the query, as {@link inverseNorm} gives it; for cosine only. A record's stands in its byte 28 (`user4`).
   * @param base Byte offset of record 0; record r is at `base + r * stride`, its vector `offsetInRecord` bytes into it.
   * @param ids Byte offset of int32 record numbers. @param out Byte offset, 8-aligned.
   */
  distances(
    metric: number,
    element: number,
    dimensions: number,
    query: number,
    queryInverseNorm: number,
    base: number,
    stride: number,
    offsetInRecord: number,
    ids: number,
    count: number,
    out: number,
  ): void {
    const { distances } = this.#exports;
    distances(metric, element, dimensions, query, queryInverseNorm, base, stride, offsetInRecord, ids, count, out);
  }

  /** As {@link distances}, of records in several places: their byte addresses (u32) stand at `records`. */
  distancesAt(
    metric: number,
    element: number,
    dimensions: number,
    query: number,
    queryInverseNorm: number,
    offsetInRecord: number,
    records: number,
    count: number,
    out: number,
  ): void {
    const { distancesAt } = this.#exports;
    distancesAt(metric, element, dimensions, query, queryInverseNorm, offsetInRecord, records, count, out);
  }

  /**
   * Adds to `into[row]`, for rows in `[from, to)`, `values[targets[edge]]` of its edges `offsets[row]` up to `offsets[row + 1]`, in their order.
   * All are byte offsets: of f64, u32, u32 and f64. Nothing is checked; a target beyond the memory traps.
   */
  pullSum(into: number, offsets: number, targets: number, values: number, from: number, to: number): void {
    this.#exports.pullSum(into, offsets, targets, values, from, to);
  }

  /**
   * Starts a scan: copies the query into scratch and empties the heap.
   *
   * @param k Hits to keep, in [1, 2^24].
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for k or an empty query, `ERR_OUT_OF_MEMORY` when scratch cannot grow.
   */
  beginScan(metric: number, element: number, query: Components, k: number, options?: ScanOptions): void {
    const dimensions = options?.dimensions ?? (element === ELEMENT.B1 ? query.length * 8 : query.length);
    if (!Number.isInteger(k) || k < 1 || k > MAX_LIMIT)
      throw invalidArgument("scan", "k", `an integer in [1, ${MAX_LIMIT}]`, k);
    if (dimensions < 1 || dimensions > MAX_DIMENSIONS) {
      throw invalidArgument("scan", "query.length", `in [1, ${MAX_DIMENSIONS}]`, dimensions);
    }
    const hitsOffset = QUERY_OFFSET + ((query.byteLength + 15) & ~15);
    const unreadOffset = hitsOffset + k * HIT_BYTES;
    this.#reserve(unreadOffset + UNREAD_LIMIT * 4);
    const base = this.#scratchOffset;
    const word = this.#word;
    const i32 = this.#i32;
    if (query instanceof Float32Array) this.#f32.set(query, (base + QUERY_OFFSET) >>> 2);
    else this.#bytes.set(new Uint8Array(query.buffer, query.byteOffset, query.byteLength), base + QUERY_OFFSET);
    i32[word + WORD_METRIC] = metric;
    i32[word + WORD_ELEMENT] = element;
    i32[word + WORD_DIMENSIONS] = dimensions;
    i32[word + WORD_QUERY] = base + QUERY_OFFSET;
    this.#f32[word + WORD_QUERY_INVERSE_NORM] =
      metric === METRIC.COSINE ? this.#exports.inverseNorm(element, base + QUERY_OFFSET, dimensions) : 0;
    i32[word + WORD_LIMIT] = k;
    i32[word + WORD_COUNT] = 0;
    i32[word + WORD_HITS] = base + hitsOffset;
    i32[word + WORD_UNREAD_COUNT] = 0;
    i32[word + WORD_UNREAD_LIMIT] = UNREAD_LIMIT;
    i32[word + WORD_UNREAD] = base + unreadOffset;
    i32[word + WORD_RETRIES] = options?.retries ?? DEFAULT_RETRIES;
    i32[word + WORD_SKIP_MASK] = options?.skipMask ?? 0;
    i32[word + WORD_BITMAP] = options?.bitmap ?? 0;
    i32[word + WORD_SCORED] = 0;
    this.#hits = base + hitsOffset;
  }

  /**
   * Offers rows [from, to) of an array of cells to the heap, each validated under its seqlock with atomic loads.
   * Free rows (`user0` = 0), rows with a bit of `skipMask` and rows outside the bitmap are skipped; rows that stay odd are
   * counted as unread. For cosine, `user4` of a cell must hold its inverse norm.
   *
   * @param cells Byte offset of the cell of row 0; `stride` apart, 16-aligned, header of 32 bytes then the components.
   * @param rowBase Added to the row number in hits, in the bitmap and in the unread list.
   * @returns Hits in the heap so far.
   */
  scanCells(cells: number, stride: number, from: number, to: number, rowBase: number = 0): number {
    this.#exports.scanCells(this.#scratchOffset, cells, stride, from, to, rowBase);
    return this.#i32[this.#word + WORD_COUNT] as number;
  }

  /** Offers one cell. 1: offered, 0: free or skipped, -1: unread. The bitmap is not consulted. */
  offerCell(cell: number, row: number): number {
    return this.#exports.offerCell(this.#scratchOffset, cell, row);
  }

  /** Distance of the scan's query to one cell, not validated: for callers that hold the cell or validate it themselves. */
  scoreCell(cell: number): number {
    return this.#exports.scoreCell(this.#scratchOffset, cell);
  }

  /** Sorts the hits, best first; from here `hitDistance` and `hitRow` are valid until the next `beginScan`. */
  endScan(): number {
    return this.#exports.sortHits(this.#scratchOffset);
  }

  hitDistance(index: number): number {
    return this.#f64[(this.#hits >>> 3) + index * 2] as number;
  }

  hitRow(index: number): number {
    return this.#i32[(this.#hits >>> 2) + index * 4 + 2] as number;
  }

  /** Rows of this scan that could not be read because they were being written. */
  get unreadCount(): number {
    return this.#i32[this.#word + WORD_UNREAD_COUNT] as number;
  }

  /** The index-th unread row; only the first {@link UNREAD_LIMIT} are remembered. */
  unreadRow(index: number): number {
    return this.#i32[((this.#i32[this.#word + WORD_UNREAD] as number) >>> 2) + index] as number;
  }

  /** Distances computed in this scan. */
  get scoredCount(): number {
    return this.#i32[this.#word + WORD_SCORED] as number;
  }

  /** Starts a sum of hashes of documents. No scan may begin before it was read. */
  beginHash(): void {
    this.#i32.fill(0, this.#word + WORD_HASH, this.#word + WORD_HEAD + HASH_HEAD_WORDS);
  }

  /** A word of the head of the next document: what is hashed besides its bytes. It stays until it is set again. */
  setHashHead(index: number, word: number): void {
    this.#i32[this.#word + WORD_HEAD + index] = word;
  }

  /** Adds one document: the head, and two ranges of the arena whose lengths the head must tell. Order makes no difference. */
  addDocument(a: number, aBytes: number, b: number, bBytes: number): void {
    const out = this.#scratchOffset + WORD_HASH * 4;
    this.#exports.addDocument(out, out + WORD_HEAD * 4, HASH_HEAD_WORDS * 4, a, aBytes, b, bBytes);
  }

  /** As {@link addDocument}, but the hash takes the sum's place: {@link hashLow} and {@link hashHigh} are this document's. */
  hashDocument(a: number, aBytes: number, b: number, bBytes: number): void {
    const out = this.#scratchOffset + WORD_HASH * 4;
    this.#exports.hashDocument(out, out + WORD_HEAD * 4, HASH_HEAD_WORDS * 4, a, aBytes, b, bBytes);
  }

  get hashLow(): number {
    return (this.#i32[this.#word + WORD_HASH] as number) >>> 0;
  }

  get hashHigh(): number {
    return (this.#i32[this.#word + WORD_HASH + 1] as number) >>> 0;
  }

  /** Gives the scratch range back. The instance must not be used after. */
  close(): void {
    if (this.#scratchBytes === 0) return;
    if (this.#owner !== undefined) this.#arena.freeScratch?.(this.#owner);
    else this.#arena.free(this.#scratchOffset, this.#scratchBytes);
    this.#scratchBytes = 0;
  }

  #reserve(byteLength: number): void {
    if (byteLength <= this.#scratchBytes) return;
    const grown = Math.max(byteLength, this.#scratchBytes * 2);
    const offset = this.#allocate(grown); // when this throws, the old range stays in use; under an owner it is freed by this
    if (this.#owner === undefined) this.#arena.free(this.#scratchOffset, this.#scratchBytes);
    this.#scratchOffset = offset;
    this.#scratchBytes = grown;
    this.#word = offset >>> 2;
  }

  #allocate(byteLength: number): number {
    if (this.#owner === undefined) return this.#arena.allocate(byteLength);
    return this.#arena.allocateScratch?.(this.#owner, byteLength) as number;
  }
}
