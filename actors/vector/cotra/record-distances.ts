/**
 * Distances of vertex records to a query by the thread's kernels, in a scratch range of its own; while there is no room for one, one by one in the
 * scratch of the kernels, which is there: a worker that computes for others must not fail at it.
 *
 * Invariant: only the scratch is written. No scan of the thread's is under way. Records are read as they stand in memory, unvalidated: their distances lead a search, whose
 * hits are read again. One thread only.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { SCRATCH_OF } from "../../../native-bridge/graph-kernels.ts";
import { type Kernels, METRIC } from "../../../native-bridge/kernels.ts";
import type { GraphGeometry } from "../../../src/store/graph-layout.ts";
import { unlessFull } from "../graph/graph-errors.ts";

/** What is needed of a graph's shape. */
export type RecordShape = Pick<GraphGeometry, "metric" | "element" | "dimensions" | "codeOffset" | "codeBytes">;

/** Records whose distances one call of the kernels computes. */
export const MOST_RECORDS = 256;

export class RecordDistances {
  readonly #arena: Arena;
  readonly #kernels: Kernels;
  readonly #owner: number;
  #queryBytes = 0;
  #query = 0;
  #records = 0;
  #out = 0;
  /** The query that the scratch holds, and its norm. */
  #loaded: Uint8Array | undefined;
  #inverseNorm = 0;

  /** @param worker Number of the shard; its successor takes the scratch over. */
  constructor(arena: Arena, kernels: Kernels, worker: number) {
    this.#arena = arena;
    this.#kernels = kernels;
    this.#owner = SCRATCH_OF.COLLABORATE + worker;
  }

  /**
   * Writes the distances of `count` records, at most {@link MOST_RECORDS}.
   *
   * @param query `codeBytes` bytes, which must not change while it is asked for.
   * @param records Byte offsets.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY` when there is no room for a query that is longer than all that the kernels have seen.
   */
  compute(geometry: RecordShape, query: Uint8Array, records: Uint32Array, count: number, out: Float64Array): void {
    if (!unlessFull(() => this.#load(geometry, query), false)) {
      this.#computeSingly(geometry, query, records, count, out);
      return;
    }
    const { metric, element, dimensions, codeOffset } = geometry;
    const { u32, f64 } = this.#arena;
    u32.set(count === records.length ? records : records.subarray(0, count), this.#records >>> 2);
    this.#kernels.distancesAt(
      metric,
      element,
      dimensions,
      this.#query,
      this.#inverseNorm,
      codeOffset,
      this.#records,
      count,
      this.#out,
    );
    const first = this.#out >>> 3;
    for (let at = 0; at < count; at++) out[at] = f64[first + at] as number;
  }

  /** Gives the scratch back. */
  close(): void {
    if (this.#queryBytes > 0) this.#arena.freeScratch(this.#owner);
    this.#queryBytes = 0;
    this.#loaded = undefined;
  }

  #computeSingly(
    { metric, element, dimensions, codeOffset }: RecordShape,
    query: Uint8Array,
    records: Uint32Array,
    count: number,
    out: Float64Array,
  ): void {
    const kernels = this.#kernels;
    kernels.beginScan(metric, element, query, 1, { dimensions });
    for (let at = 0; at < count; at++)
      out[at] = kernels.distance(
        metric,
        element,
        kernels.queryOffset,
        (records[at] as number) + codeOffset,
        dimensions,
      );
  }

  #load(geometry: RecordShape, query: Uint8Array): true {
    if (query === this.#loaded) return true;
    this.#loaded = undefined;
    if (geometry.codeBytes > this.#queryBytes) this.#reserve(geometry.codeBytes);
    const { metric, element, dimensions } = geometry;
    this.#arena.bytes.set(query, this.#query);
    this.#inverseNorm = metric === METRIC.COSINE ? this.#kernels.inverseNorm(element, this.#query, dimensions) : 0;
    this.#loaded = query;
    return true;
  }

  #reserve(queryBytes: number): void {
    const padded = (queryBytes + 63) & ~63;
    const address = this.#arena.allocateScratch(this.#owner, MOST_RECORDS * 12 + padded);
    this.#out = address;
    this.#records = address + MOST_RECORDS * 8;
    this.#query = address + MOST_RECORDS * 12;
    this.#queryBytes = padded;
    this.#loaded = undefined;
  }
}
