/**
 * What the record of a vertex tells of it, wherever it lies.
 *
 * Invariant: only reads, of single words that others may change meanwhile.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { USER0, USER3 } from "../../../native-bridge/cell-layout.ts";
import { type GraphGeometry, VERTEX_FLAG, VERTEX_FLAG_BITS, vertexTreeWord } from "../../../src/store/graph-layout.ts";

/** Whether a vertex can be a result: its document was linked, and not deleted. @param record Byte offset of its cell. */
export function isLiveRecord({ i32 }: Arena, record: number): boolean {
  const flags = (i32[(record >>> 2) + USER3] as number) & VERTEX_FLAG_BITS;
  return i32[(record >>> 2) + USER0] !== 0 && flags === VERTEX_FLAG.LINKED;
}

/** Whether a copy of a vertex has its place in the tree, be it linked or not. @param record Byte offset of its cell. */
export function hasMoved({ i32 }: Arena, geometry: GraphGeometry, record: number): boolean {
  return (i32[(record + vertexTreeWord(geometry)) >>> 2] as number) < 0;
}
