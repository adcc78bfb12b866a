/**
 * The vertices of one shard, a page at a time, in order of arrival.
 *
 * Invariant: a vertex keeps its place, so a scan from where the last page ended gives every vertex that was there all the time, once; one that
 * came or went meanwhile may be in it.
 */
import type { VertexKey } from "./vertex-key.ts";
import type { VertexTable } from "./vertex-table.ts";

/** Most bytes of a key in a reply, when all are numbers, and when some are text. */
const NUMBER_BYTES = 9;
const TEXT_BYTES = 520;
const OVERHEAD_BYTES = 64;

export interface ScanRequest {
  readonly collection: number;
  /** Where the page before ended; 0: the first. */
  readonly from: number;
  readonly count: number;
}

export interface ScanReply {
  readonly keys: readonly VertexKey[];
  /** Where the next page begins; -1: this was the last. */
  readonly next: number;
}

/** @param limitBytes Of the reply. */
export function scanVertices(table: VertexTable, { from, count }: ScanRequest, limitBytes: number): ScanReply {
  const room = Math.floor((limitBytes - OVERHEAD_BYTES) / (table.numeric ? NUMBER_BYTES : TEXT_BYTES));
  const end = Math.min(table.count, from + Math.max(1, Math.min(count, room)));
  const keys: VertexKey[] = [];
  const { gone } = table;
  for (let local = from; local < end; local++) if (gone?.[local] !== 1) keys.push(table.keyOf(local));
  return { keys, next: end < table.count ? end : -1 };
}
