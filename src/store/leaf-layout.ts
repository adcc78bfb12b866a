/**
 * Layout of a leaf table: small clusters of a graph's vectors, with the shard that each belongs to. One registered cell, found from the root.
 *
 * ```
 *  header (32) | i32 words below, 16 | leaves x (i32 label | i32 vertices | i32 medoid + 1, 0 = none | f32 its distance to the centroid)
 *  | leaves x centroid cell (as in actors/vector/routing/code-table.ts) | calibration, JSON, padded with zeros to 16
 * ```
 *
 * A table never changes but for `vertices`, `medoid` and its distance, single words that any shard of the node writes and that are hints. The next
 * table has a new place and version; the memory of old ones stays until the graph is dropped, as somebody may still write a hint to it.
 */
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";

export const LEAF_MAGIC = 0x46_41_45_4c; // "LEAF"
export const LEAF_LAYOUT = 1;

// Words of the table's payload.
export const LEAF_MAGIC_WORD = 0;
export const LEAF_LAYOUT_WORD = 1;
export const LEAF_COUNT = 2;
export const LEAF_DIMENSIONS = 3;
export const LEAF_ELEMENT = 4;
export const LEAF_METRIC = 5;
export const LEAF_VERSION = 6;
export const LEAF_CODE_BYTES = 7;
export const LEAF_CALIBRATION_BYTES = 8;
/** Vectors that the graph had when the table was made. */
export const LEAF_TRAINED = 9;
/** Of a table that was replaced: address of the one that was replaced before it; 0 = none. */
export const LEAF_PREVIOUS = 10;
export const LEAF_ENTRIES = 16;
export const LEAF_WORDS = 4;
export const LEAF_LABEL = 0;
export const LEAF_VERTICES = 1;
export const LEAF_MEDOID = 2;
export const LEAF_MEDOID_DISTANCE = 3;

/** A vertex names its leaf in 16 bits. */
export const MAX_LEAVES = 65_535;
/** A vertex names its table in 8 bits, and 0 is none. */
export const MAX_LEAF_VERSION = 255;

/** Bytes from one centroid to the next. */
export function centroidStride(codeBytes: number): number {
  return (CELL_HEADER_BYTES + codeBytes + 15) & ~15;
}

/** Byte offset of the first centroid in a table. */
export function centroidsOffset(leaves: number): number {
  return CELL_HEADER_BYTES + (LEAF_ENTRIES + leaves * LEAF_WORDS) * 4;
}

/** Byte offset of the calibration in a table. */
export function calibrationOffset(leaves: number, codeBytes: number): number {
  return centroidsOffset(leaves) + leaves * centroidStride(codeBytes);
}

export function leafTableBytes(leaves: number, codeBytes: number, calibrationBytes: number): number {
  return (calibrationOffset(leaves, codeBytes) + calibrationBytes + 15) & ~15;
}
