/**
 * Frees the leaf tables that were replaced: a chain from the root, each naming the one before.
 *
 * Invariant: only when nobody links into the graph any more, as whoever does may still write a hint to any of them.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES } from "../../../native-bridge/cell-layout.ts";
import { GRAPH_LEAVES_OLD } from "../../../src/store/graph-layout.ts";
import {
  LEAF_CALIBRATION_BYTES,
  LEAF_CODE_BYTES,
  LEAF_COUNT,
  LEAF_PREVIOUS,
  leafTableBytes,
} from "../../../src/store/leaf-layout.ts";

/** What is needed of a root. */
interface LeafRoot {
  readonly arena: Arena;
  get(index: number): number;
  set(index: number, value: number): void;
}

export function freeOldLeaves(root: LeafRoot): void {
  const { i32 } = root.arena;
  let address = root.get(GRAPH_LEAVES_OLD) >>> 0;
  root.set(GRAPH_LEAVES_OLD, 0);
  while (address !== 0) {
    const first = (address + CELL_HEADER_BYTES) >>> 2;
    const word = (index: number): number => i32[first + index] as number;
    const byteLength = leafTableBytes(word(LEAF_COUNT), word(LEAF_CODE_BYTES), word(LEAF_CALIBRATION_BYTES));
    const previous = word(LEAF_PREVIOUS) >>> 0;
    root.arena.free(address, byteLength);
    address = previous;
  }
}
