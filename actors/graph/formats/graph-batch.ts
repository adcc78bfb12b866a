/**
 * What the readers of graph files hand out: vertices and edges in columns, a bounded number of them at a time.
 *
 * Invariant: the columns of a batch have one length, which is at least 1, and belong to the consumer. A key is a number exactly where
 * its text is the canonical decimal form of a safe integer ≥ 0, so that `7` and `007` are never one vertex.
 */
import type { VertexKey } from "../vertex-key.ts";

/** Some vertices of a file, in its order. */
export interface VertexBatch {
  readonly keys: VertexKey[];
  /** Number of the line of the first vertex, from 1. Blank and comment lines count. */
  readonly firstLine: number;
  /** Number of the line of the last vertex. */
  readonly lastLine: number;
}

/** Some edges of a file, in its order. Edge `i` leads from `sources[i]` to `targets[i]`. */
export interface EdgeBatch {
  readonly sources: VertexKey[];
  readonly targets: VertexKey[];
  /** `Float64Array[sources.length]`, all finite; undefined when the file has no weights. The same for all batches of a file. */
  readonly weights: Float64Array | undefined;
  /** Number of the line of the first edge, from 1. Blank and comment lines count. */
  readonly firstLine: number;
  /** Number of the line of the last edge. */
  readonly lastLine: number;
}
