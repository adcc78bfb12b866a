/**
 * Writes replies that carry documents straight from the rows into the reply's place; layouts in vector-replies.ts.
 *
 * Invariant: the claimed length equals what is written, byte for byte, so sizes and writing are computed the same way.
 */
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import { RECORD_HEADER_BYTES, RECORD_ID_WORD, RECORD_PAYLOAD_BYTES } from "../../src/store/collection-layout.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";
import type { EngineReply } from "../engine.ts";
import type { SearchResult } from "./search-result.ts";
import {
  GET_ENTRY_HEADER,
  GET_HEADER,
  SEARCH_HIT_HEADER,
  SEARCH_QUERY_HEADER,
  SEARCH_REPLY_HEADER,
} from "./vector-replies.ts";
import { INCLUDE } from "./vector-requests.ts";
import type { VectorStore } from "./vector-store.ts";

/** @param rows Row of each id asked for; −1 = unknown. */
export function writeGetReply(store: VectorStore, rows: Int32Array, flags: number, reply: EngineReply): void {
  const vectorBytes = flags & INCLUDE.VECTOR ? store.dimensions * 4 : 0;
  let length = GET_HEADER;
  for (const row of rows)
    length += GET_ENTRY_HEADER + (row < 0 ? 0 : align(vectorBytes + payloadBytes(store, row, flags)));
  reply.claim(length);
  const { i32, f64 } = reply;
  i32.set([rows.length, flags, store.dimensions, 0], reply.offset >>> 2);
  let at = reply.offset + GET_HEADER;
  for (const row of rows) {
    const payload = row < 0 ? 0 : payloadBytes(store, row, flags);
    f64[at >>> 3] = row < 0 ? 0 : store.versionOf(row);
    i32[(at >>> 2) + 2] = row < 0 ? 0 : 1;
    i32[(at >>> 2) + 3] = payload;
    at += GET_ENTRY_HEADER;
    if (row < 0) continue;
    if (vectorBytes > 0) copyVector(store, row, reply, at);
    copyRecordPart(store, row, false, payload, reply, at + vectorBytes);
    at += align(vectorBytes + payload);
  }
}

/** What a search reply tells about its queries; the hits of all of them lie back to back in a SearchResult. */
export interface SearchReplyParts {
  readonly counts: Int32Array;
  readonly plans: Int32Array;
  readonly scored: Int32Array;
  readonly reaches: Float64Array;
  readonly flags: number;
  /** Hits of the only query that an earlier reply had. */
  readonly skip: number;
}

/** Writes as many hits as one reply has room for; of a single query the rest is left for the next one. */
export function writeSearchReply(
  store: VectorStore,
  result: SearchResult,
  parts: SearchReplyParts,
  reply: EngineReply,
): void {
  const { counts, plans, scored, reaches, flags } = parts;
  const vectorBytes = flags & INCLUDE.VECTOR ? store.dimensions * 4 : 0;
  let length = SEARCH_REPLY_HEADER + counts.length * SEARCH_QUERY_HEADER;
  let hit = Math.min(parts.skip, result.count);
  let left = 0;
  for (let i = hit; i < result.count; i++) {
    const row = result.rows[i] as number;
    const bytes = SEARCH_HIT_HEADER + align(vectorBytes + idBytes(store, row) + payloadBytes(store, row, flags));
    if (length + bytes > reply.limitBytes && counts.length === 1 && i > hit) {
      left = result.count - i;
      break;
    }
    length += bytes;
  }
  if (counts.length === 1) counts[0] = result.count - hit - left;
  reply.claim(length);
  const { i32, f64 } = reply;
  i32.set([counts.length, flags, store.dimensions, 0], reply.offset >>> 2);
  f64[(reply.offset >>> 3) + 2] = store.lastVersion;
  let at = reply.offset + SEARCH_REPLY_HEADER;
  for (let query = 0; query < counts.length; query++) {
    i32[at >>> 2] = counts[query] as number;
    i32[(at >>> 2) + 1] = plans[query] as number;
    i32[(at >>> 2) + 2] = scored[query] as number;
    i32[(at >>> 2) + 3] = left;
    f64[(at >>> 3) + 2] = reaches[query] as number;
    at += SEARCH_QUERY_HEADER;
    for (const end = hit + (counts[query] as number); hit < end; hit++) {
      const row = result.rows[hit] as number;
      const id = idBytes(store, row);
      const payload = payloadBytes(store, row, flags);
      f64[at >>> 3] = result.scores[hit] as number;
      f64[(at >>> 3) + 1] = store.versionOf(row);
      i32[(at >>> 2) + 4] = store.root.arena.i32[(store.recordOf(row) >>> 2) + RECORD_ID_WORD] as number;
      i32[(at >>> 2) + 5] = payload;
      at += SEARCH_HIT_HEADER;
      if (vectorBytes > 0) copyVector(store, row, reply, at);
      copyRecordPart(store, row, true, id, reply, at + vectorBytes);
      copyRecordPart(store, row, false, payload, reply, at + vectorBytes + id);
      at += align(vectorBytes + id + payload);
    }
  }
}

/** Bytes up to which a loop is faster than a view and a call. */
const SHORT_COPY = 48;

function align(bytes: number): number {
  return (bytes + 7) & ~7;
}

function idBytes(store: VectorStore, row: number): number {
  return idLengthOf(store.root.arena.u32[(store.recordOf(row) >>> 2) + RECORD_ID_WORD] as number);
}

function payloadBytes(store: VectorStore, row: number, flags: number): number {
  return flags & INCLUDE.PAYLOAD
    ? (store.root.arena.u32[(store.recordOf(row) >>> 2) + RECORD_PAYLOAD_BYTES] as number)
    : 0;
}

function copyVector(store: VectorStore, row: number, reply: EngineReply, at: number): void {
  const first = (store.cellOf(row) + CELL_HEADER_BYTES) >>> 2;
  reply.f32.set(store.root.arena.f32.subarray(first, first + store.dimensions), at >>> 2);
}

/** Copies the id (`isId`) or the payload of a row's record. */
function copyRecordPart(
  store: VectorStore,
  row: number,
  isId: boolean,
  length: number,
  reply: EngineReply,
  at: number,
): void {
  if (length === 0) return;
  const { bytes } = store.root.arena;
  const from = store.recordOf(row) + RECORD_HEADER_BYTES + (isId ? 0 : idBytes(store, row));
  const target = reply.bytes;
  if (length > SHORT_COPY) target.set(bytes.subarray(from, from + length), at);
  else for (let i = 0; i < length; i++) target[at + i] = bytes[from + i] as number;
}
