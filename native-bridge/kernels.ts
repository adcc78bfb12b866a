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

/** Distance functions; smaller is closer: squared Euclidean, 1 − cosine (clamped to [0, 2]), 1 − dot product. */
export const METRIC = { L2: 0, COSINE: 1, INNER_PRODUCT: 2 } as const;
/** Component types. */
export const ELEMENT = { F32: 0, U8: 1 } as const;

export type MetricCode = (typeof METRIC)[keyof typeof METRIC];
export type ElementCode = (typeof ELEMENT)[keyof typeof ELEMENT];

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

// Control block of a scan, as int32 words; offsets equal those in distance.as.ts.
const WORD_METRIC = 0;
const WORD_ELEMENT = 1;
const WORD_DIMENSIONS = 2;
const WORD_QUERY = 3;
const WORD_QUERY_INVERSE_NORM = 4;
const WORD_LIMIT = 5;
const WORD_COUNT = 6;
const WORD_HITS = 7;
const WORD_UNREAD_COUNT = 8;
const WORD_UNREAD_LIMIT = 9;
const WORD_UNREAD = 10;
const WORD_RETRIES = 11;
const WORD_SKIP_MASK = 12;
const WORD_BITMAP = 13;
const WORD_SCORED = 14;
const QUERY_OFFSET = 320; // 64 control bytes + 16 block entries of 16 bytes

interface KernelExports {
  distance(metric: number, element: number, a: number, b: number, dimensions: number): number;
  inverseNorm(element: number, a: number, dimensions: number): number;
  scanCells(scan: number, cells: number, stride: number, from: number, to: number, rowBase: number): void;
  offerCell(scan: number, cell: number, row: number): number;
  scoreCell(scan: number, cell: number): number;
  sortHits(scan: number): number;
}

/**
 * Compiles the kernels that stand beside this file after the build. The module can be posted to workers.
 *
 * @throws {ShardloomError} `ERR_MODULE_NOT_LOADED` when the file is missing or does not compile.
 */
export function compileKernels(): WebAssembly.Module {
  const url = new URL("./kernels/distance.wasm", import.meta.url);
  try {
    return new WebAssembly.Module(readFileSync(url));
  } catch (cause) {
    throw new ShardloomError(
      "ERR_MODULE_NOT_LOADED",
      "Cannot load kernels as kernels/distance.wasm is missing or broken: run the build",
      {
        cause,
      },
    );
  }
}

/** One thread's kernels. Not shared: the scratch range has one user. */
export class Kernels {
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

  /** Distance of two vectors in the arena. f32 vectors must be 4-aligned only by convention; the kernel takes any offset. */
  distance(metric: number, element: number, a: number, b: number, dimensions: number): number {
    return this.#exports.distance(metric, element, a, b, dimensions);
  }

  /** 1 / |a| rounded to f32, 0 for a zero vector: what `user4` of a cell holds. */
  inverseNorm(element: number, a: number, dimensions: number): number {
    return this.#exports.inverseNorm(element, a, dimensions);
  }

  /**
   * Starts a scan: copies the query into scratch and empties the heap.
   *
   * @param k Hits to keep, in [1, 2^24].
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for k or an empty query, `ERR_OUT_OF_MEMORY` when scratch cannot grow.
   */
  beginScan(metric: number, element: number, query: Float32Array | Uint8Array, k: number, options?: ScanOptions): void {
    if (!Number.isInteger(k) || k < 1 || k > MAX_LIMIT)
      throw invalidArgument("scan", "k", `an integer in [1, ${MAX_LIMIT}]`, k);
    if (query.length < 1 || query.length > MAX_DIMENSIONS) {
      throw invalidArgument("scan", "query.length", `in [1, ${MAX_DIMENSIONS}]`, query.length);
    }
    const hitsOffset = QUERY_OFFSET + ((query.length * (element === ELEMENT.F32 ? 4 : 1) + 15) & ~15);
    const unreadOffset = hitsOffset + k * HIT_BYTES;
    this.#reserve(unreadOffset + UNREAD_LIMIT * 4);
    const base = this.#scratchOffset;
    const word = this.#word;
    const i32 = this.#i32;
    if (element === ELEMENT.F32) this.#f32.set(query, (base + QUERY_OFFSET) >>> 2);
    else this.#bytes.set(query, base + QUERY_OFFSET);
    i32[word + WORD_METRIC] = metric;
    i32[word + WORD_ELEMENT] = element;
    i32[word + WORD_DIMENSIONS] = query.length;
    i32[word + WORD_QUERY] = base + QUERY_OFFSET;
    this.#f32[word + WORD_QUERY_INVERSE_NORM] =
      metric === METRIC.COSINE ? this.#exports.inverseNorm(element, base + QUERY_OFFSET, query.length) : 0;
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
