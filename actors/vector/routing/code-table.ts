/**
 * Vectors as codes, and a table of codes in the arena that the kernels score in place: the one seam between routing and WASM.
 *
 * Invariant: cell i of a table holds code i with version 0 and, for cosine, its inverse norm, so that both a scan and a single
 * score read it as they read a document's cell. A table has one writer; it is written whole before anything reads it.
 *
 * Layout: cell = 32 bytes of header (cell-layout.ts; USER0 = 1, USER4 = inverse norm) | components, the stride padded to 16.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES, USER0, USER4 } from "../../../native-bridge/cell-layout.ts";
import { ELEMENT, type ElementCode, type Kernels, METRIC, type MetricCode } from "../../../native-bridge/kernels.ts";
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import { centroidStride } from "../../../src/store/leaf-layout.ts";
import type { TopList } from "./top-list.ts";

/** The components of one vector as they are stored. */
export type Code = Float32Array | Uint8Array;

/** What codes of one collection have in common. */
export interface CodeSpace {
  readonly dimensions: number;
  readonly metric: MetricCode;
  readonly element: ElementCode;
}

/** Vectors by number, wherever they are kept. */
export interface VectorSource extends CodeSpace {
  readonly count: number;
  /** The code of one vector; the view is valid until the next call. */
  vector(index: number): Code;
}

/** What a table needs of its arena. */
export type CodeArena = Pick<Arena, "bytes" | "f32" | "i32" | "allocate" | "free">;

/** A thread's means to make and score tables. */
export interface CodeHost {
  readonly arena: CodeArena;
  readonly kernels: Kernels;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for an element that routing cannot average. */
export function codeBytes(space: CodeSpace): number {
  if (space.element === ELEMENT.U8) return space.dimensions;
  if (space.element === ELEMENT.F32) return space.dimensions * 4;
  throw invalidArgument("route vectors", "element", "F32 or U8", space.element);
}

/** An empty code of a space. */
export function newCode(space: CodeSpace, count = 1): Code {
  const length = (codeBytes(space) / (space.element === ELEMENT.U8 ? 1 : 4)) * count;
  return space.element === ELEMENT.U8 ? new Uint8Array(length) : new Float32Array(length);
}

/**
 * The metric under which vectors are grouped.
 *
 * Inner product is no distance: a long centroid would draw every vector to it. Such vectors are grouped by squared Euclidean
 * distance, which keeps together what has one direction *and* one length; a query then ranks leaves by its inner product with
 * the centroid, which is the mean inner product of the leaf's members.
 */
export function groupingMetric(metric: MetricCode): MetricCode {
  return metric === METRIC.INNER_PRODUCT ? METRIC.L2 : metric;
}

export class CodeTable implements VectorSource {
  readonly dimensions: number;
  readonly metric: MetricCode;
  readonly element: ElementCode;
  readonly count: number;
  /** Byte offset of cell 0, and the bytes from one to the next. */
  readonly cells: number;
  readonly stride: number;
  readonly #host: CodeHost;
  #closed: boolean;

  /**
   * @param count Codes that the table will hold, at least 1.
   * @param cells Where a table is that somebody else has written, and owns. @default a place of its own
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY` from the arena, `ERR_INVALID_ARGUMENT`.
   */
  constructor(host: CodeHost, space: CodeSpace, count: number, cells?: number) {
    if (!Number.isInteger(count) || count < 1)
      throw invalidArgument("create code table", "count", "a positive integer", count);
    this.#host = host;
    this.dimensions = space.dimensions;
    this.metric = space.metric;
    this.element = space.element;
    this.count = count;
    this.stride = centroidStride(codeBytes(space));
    this.#closed = cells !== undefined;
    this.cells = cells ?? host.arena.allocate(this.stride * count);
  }

  /** Bytes of the arena that the table holds. */
  get byteLength(): number {
    return this.stride * this.count;
  }

  set(index: number, code: Code): void {
    const { arena, kernels } = this.#host;
    const cell = this.cells + index * this.stride;
    const at = cell + CELL_HEADER_BYTES;
    if (this.element === ELEMENT.F32) arena.f32.set(code, at >>> 2);
    else arena.bytes.set(code, at);
    arena.i32[(cell >>> 2) + USER0] = 1;
    if (this.metric === METRIC.COSINE)
      arena.f32[(cell >>> 2) + USER4] = kernels.inverseNorm(this.element, at, this.dimensions);
  }

  vector(index: number): Code {
    const at = this.cells + index * this.stride + CELL_HEADER_BYTES;
    const { arena } = this.#host;
    return this.element === ELEMENT.F32
      ? arena.f32.subarray(at >>> 2, (at >>> 2) + this.dimensions)
      : arena.bytes.subarray(at, at + this.dimensions);
  }

  /** Takes a query for {@link score}, on this and on every other table of the same thread. Ends the scan before. */
  begin(query: Code, metric: MetricCode = this.metric): void {
    this.#host.kernels.beginScan(metric, this.element, query, 1);
  }

  /** Distance of the query that was begun to code `index`. */
  score(index: number): number {
    return this.#host.kernels.scoreCell(this.cells + index * this.stride);
  }

  /** Distance of two codes of the table, under the metric that groups them. */
  between(a: number, b: number): number {
    const first = this.cells + CELL_HEADER_BYTES;
    const { kernels } = this.#host;
    const { stride, element, dimensions } = this;
    return kernels.distance(groupingMetric(this.metric), element, first + a * stride, first + b * stride, dimensions);
  }

  /** The codes nearest to a query, of all that the table holds: `top.limit` of them, best first. */
  nearest(query: Code, top: TopList, metric: MetricCode = this.metric): void {
    const { kernels } = this.#host;
    kernels.beginScan(metric, this.element, query, top.limit);
    kernels.scanCells(this.cells, this.stride, 0, this.count);
    this.#takeHits(top);
  }

  /** As {@link nearest}, of the codes `[starts[i], starts[i + 1])` for each of the first `count` of `parts` alone. */
  nearestOf(query: Code, parts: ArrayLike<number>, count: number, starts: Int32Array, top: TopList): void {
    const { kernels } = this.#host;
    kernels.beginScan(this.metric, this.element, query, top.limit);
    for (let at = 0; at < count; at++) {
      const part = parts[at] as number;
      kernels.scanCells(this.cells, this.stride, starts[part] as number, starts[part + 1] as number);
    }
    this.#takeHits(top);
  }

  #takeHits(top: TopList): void {
    const { kernels } = this.#host;
    const found = kernels.endScan();
    top.clear();
    for (let i = 0; i < found; i++) top.offer(kernels.hitRow(i), kernels.hitDistance(i));
  }

  /** Gives the memory back. Nobody may read the table after. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#host.arena.free(this.cells, this.byteLength);
  }
}

/** Copies vectors into a table of their own. */
export function tableOf(host: CodeHost, source: VectorSource): CodeTable {
  const table = new CodeTable(host, source, source.count);
  for (let i = 0; i < source.count; i++) table.set(i, source.vector(i));
  return table;
}

/** A source over codes that lie one after the other. */
export function packedSource(space: CodeSpace, codes: Code): VectorSource {
  const { dimensions } = space;
  const count = codes.length / dimensions;
  if (!Number.isInteger(count))
    throw new ShardloomError(
      "ERR_DIMENSION_MISMATCH",
      `Cannot read ${codes.length} components as vectors of ${dimensions}`,
    );
  return { ...space, count, vector: (index) => codes.subarray(index * dimensions, (index + 1) * dimensions) };
}
