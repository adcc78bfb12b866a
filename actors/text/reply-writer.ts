/**
 * Writes replies that carry documents straight from the store into the reply's place; layouts in text-replies.ts.
 *
 * Invariant: the claimed length equals what is written, byte for byte, so sizes and writing are computed the same way.
 */
import type { DocumentStore } from "../../src/store/document-store.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";
import type { EngineReply } from "../engine.ts";
import { payloadStart } from "./document-body.ts";
import { INCLUDE } from "./search-request.ts";
import { GET_ENTRY_HEADER, GET_HEADER, SEARCH_HIT_HEADER, SEARCH_REPLY_HEADER } from "./text-replies.ts";
import { align } from "./text-requests.ts";

/** @param rows Row of each id asked for; −1 = unknown. */
export function writeGetReply(store: DocumentStore, rows: readonly number[], reply: EngineReply): void {
  let length = GET_HEADER;
  for (const row of rows) length += GET_ENTRY_HEADER + (row < 0 ? 0 : align(store.bodyBytes(row)));
  reply.claim(length);
  const { i32, f64 } = reply;
  i32.set([rows.length, 0], reply.offset >>> 2);
  let at = reply.offset + GET_HEADER;
  for (const row of rows) {
    const bytes = row < 0 ? 0 : store.bodyBytes(row);
    f64[at >>> 3] = row < 0 ? 0 : store.versionOf(row);
    i32[(at >>> 2) + 2] = row < 0 ? 0 : 1;
    i32[(at >>> 2) + 3] = bytes;
    at += GET_ENTRY_HEADER;
    if (row >= 0) copy(store, store.bodyOffset(row), bytes, reply, at);
    at += align(bytes);
  }
}

/** What a search found, best first. */
export interface FoundDocuments {
  readonly rows: readonly number[];
  readonly scores: readonly number[];
  /** Shape: `Uint8Array[rows × clauses]`, or undefined when it was not asked for. */
  readonly matched: Uint8Array | undefined;
  readonly clauses: number;
}

/** Writes the hits from `skip` on, as many as one reply has room for, at least one. */
export function writeSearchReply(
  store: DocumentStore,
  fields: number,
  found: FoundDocuments,
  skip: number,
  flags: number,
  reply: EngineReply,
): void {
  const { rows, scores, matched } = found;
  const clauses = matched === undefined ? 0 : found.clauses;
  let length = SEARCH_REPLY_HEADER;
  let end = Math.min(skip, rows.length);
  for (; end < rows.length; end++) {
    const bytes = align(SEARCH_HIT_HEADER + clauses + hitBytes(store, fields, rows[end] as number, flags));
    if (length + bytes > reply.limitBytes && end > skip) break;
    length += bytes;
  }
  reply.claim(length);
  const { i32, f64 } = reply;
  const from = Math.min(skip, rows.length);
  i32.set([end - from, rows.length - end, clauses, flags], reply.offset >>> 2);
  f64[(reply.offset >>> 3) + 2] = store.lastVersion;
  let at = reply.offset + SEARCH_REPLY_HEADER;
  for (let hit = from; hit < end; hit++) {
    const row = rows[hit] as number;
    const idWord = store.idWordOf(row);
    const body = bodyBytes(store, fields, row, flags);
    f64[at >>> 3] = scores[hit] as number;
    f64[(at >>> 3) + 1] = store.versionOf(row);
    i32[(at >>> 2) + 4] = idWord;
    i32[(at >>> 2) + 5] = body;
    at += SEARCH_HIT_HEADER;
    if (matched !== undefined) reply.bytes.set(matched.subarray(hit * clauses, (hit + 1) * clauses), at);
    at += clauses;
    copy(store, store.idOffset(row), idLengthOf(idWord), reply, at);
    at += idLengthOf(idWord);
    copy(store, store.bodyOffset(row) + store.bodyBytes(row) - body, body, reply, at);
    at = align(at + body);
  }
}

function hitBytes(store: DocumentStore, fields: number, row: number, flags: number): number {
  return idLengthOf(store.idWordOf(row)) + bodyBytes(store, fields, row, flags);
}

/** The last bytes of the body that are wanted: all, the payload's, or none. */
function bodyBytes(store: DocumentStore, fields: number, row: number, flags: number): number {
  if (flags & INCLUDE.FIELDS) return store.bodyBytes(row);
  if (!(flags & INCLUDE.PAYLOAD)) return 0;
  const start = store.bodyOffset(row);
  return store.bodyBytes(row) - (payloadStart(store.root.arena.bytes, start, fields) - start);
}

/** Bytes up to which a loop is faster than a view and a call. */
const SHORT_COPY = 48;

function copy(store: DocumentStore, from: number, length: number, reply: EngineReply, at: number): void {
  const { bytes } = store.root.arena;
  if (length > SHORT_COPY) reply.bytes.set(bytes.subarray(from, from + length), at);
  else for (let i = 0; i < length; i++) reply.bytes[at + i] = bytes[from + i] as number;
}
