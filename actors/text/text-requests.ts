/**
 * Fixed binary layouts of the requests to a text shard, both directions: the client writes, the shard reads.
 *
 * All little-endian, in place in ring memory at an 8-aligned offset; every part starts at a multiple of 8 and padding is
 * not read. Writers trust their arguments; readers check every length against the record before using it
 * (`ERR_CORRUPT`). Searches: search-request.ts.
 *
 * ```
 *  open        i32 collection | options bytes, options (msgpack)
 *  collection  i32 collection | 0                                                           (drop, status, count)
 *  upsert      i32 collection | count, then items: i32 idWord | body bytes | hash | vshard, id, body, padding to 8
 *  ids         i32 collection | count | flags | 0, then ids: i32 idWord | hash, id, padding  (get, delete)
 * ```
 */
import { ShardloomError } from "../../src/errors.ts";
import { type DocumentId, idLengthOf, idWordOf, isIdWord, writeId } from "../../src/store/id-codec.ts";
import { decodeMetadata, encodeMetadata } from "../../src/store/metadata-codec.ts";
import type { EngineRequest, WireMemory } from "../engine.ts";
import { type ResolvedTextOptions, resolveTextOptions, toTextOptions } from "./text-options.ts";

const HEADER = 8;
export const UPSERT_ITEM_HEADER = 16;
export const IDS_HEADER = 16;
const ID_HEADER = 8;

/** A document on its way to its shard. `hash` = hashId(id). */
export interface UpsertItem {
  readonly id: DocumentId;
  readonly hash: number;
  readonly vshard: number;
  readonly body: Uint8Array;
}

export function openRequestBytes(options: Uint8Array): number {
  return HEADER + align(options.length);
}

export function encodeOptions(options: ResolvedTextOptions): Uint8Array {
  return encodeMetadata(toTextOptions(options) as Record<string, unknown>, "options");
}

/** Set in the length of the options: the collection is not to be created. */
const CHECK_ONLY = 0x4000_0000;

export function writeOpenRequest(
  m: WireMemory,
  offset: number,
  collectionId: number,
  options: Uint8Array,
  checkOnly = false,
): void {
  m.i32[offset >>> 2] = collectionId;
  m.i32[(offset >>> 2) + 1] = options.length | (checkOnly ? CHECK_ONLY : 0);
  m.bytes.set(options, offset + HEADER);
}

/** `checkOnly`: the collection is not to be created. */
export function readOpenRequest(m: EngineRequest): {
  collectionId: number;
  options: ResolvedTextOptions;
  checkOnly: boolean;
} {
  need(m, HEADER, "open");
  const word = m.i32[(m.offset >>> 2) + 1] as number;
  const length = word & ~CHECK_ONLY;
  if (length < 0 || HEADER + length > m.length) throw corrupt("open", "options bytes", length);
  const options = decodeMetadata(m.bytes.slice(m.offset + HEADER, m.offset + HEADER + length));
  return {
    collectionId: m.i32[m.offset >>> 2] as number,
    options: resolveTextOptions(options),
    checkOnly: (word & CHECK_ONLY) !== 0,
  };
}

export const COLLECTION_REQUEST_BYTES: number = HEADER;

export function writeCollectionRequest(m: WireMemory, offset: number, collectionId: number): void {
  m.i32[offset >>> 2] = collectionId;
  m.i32[(offset >>> 2) + 1] = 0;
}

/** @param undo Takes a creation back: the id may be used again. */
export function writeDropRequest(m: WireMemory, offset: number, collectionId: number, undo: boolean): void {
  m.i32[offset >>> 2] = collectionId;
  m.i32[(offset >>> 2) + 1] = undo ? 1 : 0;
}

export function readDropRequest(m: EngineRequest): { collectionId: number; undo: boolean } {
  need(m, HEADER, "drop");
  return { collectionId: m.i32[m.offset >>> 2] as number, undo: m.i32[(m.offset >>> 2) + 1] === 1 };
}

/** The collection that any request names: its first word. */
export function readCollection(m: EngineRequest): number {
  need(m, HEADER, "collection");
  return m.i32[m.offset >>> 2] as number;
}

export const UPSERT_HEADER: number = HEADER;

/** Bytes of one item in an upsert request. */
export function upsertItemBytes(item: UpsertItem): number {
  return align(UPSERT_ITEM_HEADER + idLengthOf(idWordOf(item.id)) + item.body.length);
}

export function writeUpsertRequest(
  m: WireMemory,
  offset: number,
  collectionId: number,
  items: readonly UpsertItem[],
): void {
  const { i32, bytes } = m;
  i32[offset >>> 2] = collectionId;
  i32[(offset >>> 2) + 1] = items.length;
  let at = offset + UPSERT_HEADER;
  for (const { id, hash, vshard, body } of items) {
    const idWord = idWordOf(id);
    i32[at >>> 2] = idWord;
    i32[(at >>> 2) + 1] = body.length;
    i32[(at >>> 2) + 2] = hash;
    i32[(at >>> 2) + 3] = vshard;
    writeId(bytes, at + UPSERT_ITEM_HEADER, id, idWord);
    bytes.set(body, at + UPSERT_ITEM_HEADER + idLengthOf(idWord));
    at = align(at + UPSERT_ITEM_HEADER + idLengthOf(idWord) + body.length);
  }
}

/** Walks the items of an upsert request; may be rewound. */
export class UpsertCursor {
  collectionId = 0;
  count = 0;
  /** Of the current item. Offsets are byte offsets in the request's memory. */
  idWord = 0;
  idOffset = 0;
  hash = 0;
  vshard = 0;
  bodyOffset = 0;
  bodyBytes = 0;
  /** The whole item, padding included. */
  itemOffset = 0;
  itemEnd = 0;
  #request!: EngineRequest;
  #at = 0;
  #index = 0;

  open(m: EngineRequest): this {
    need(m, UPSERT_HEADER, "upsert");
    this.#request = m;
    this.collectionId = m.i32[m.offset >>> 2] as number;
    this.count = m.i32[(m.offset >>> 2) + 1] as number;
    if (this.count < 0) throw corrupt("upsert", "count", this.count);
    return this.rewind();
  }

  rewind(): this {
    this.#at = this.#request.offset + UPSERT_HEADER;
    this.#index = 0;
    return this;
  }

  next(): boolean {
    if (this.#index++ >= this.count) return false;
    const m = this.#request;
    const end = m.offset + m.length;
    const w = this.#at >>> 2;
    this.itemOffset = this.#at;
    this.idOffset = this.#at + UPSERT_ITEM_HEADER;
    if (this.idOffset > end) throw corrupt("upsert", "item", this.#index - 1);
    this.idWord = m.i32[w] as number;
    this.bodyBytes = m.i32[w + 1] as number;
    this.hash = (m.i32[w + 2] as number) >>> 0;
    this.vshard = m.i32[w + 3] as number;
    this.bodyOffset = this.idOffset + idLengthOf(this.idWord);
    const fits = this.bodyBytes >= 0 && this.bodyOffset + this.bodyBytes <= end;
    if (!isIdWord(this.idWord) || !fits) throw corrupt("upsert", "id or body length of item", this.#index - 1);
    if (this.vshard < 0 || this.vshard > 0xffff) throw corrupt("upsert", "vshard of item", this.#index - 1);
    this.#at = align(this.bodyOffset + this.bodyBytes);
    this.itemEnd = this.#at;
    return true;
  }
}

/** Bytes of a get or delete request. Checks the ids. */
export function idsRequestBytes(ids: readonly DocumentId[]): number {
  let bytes = IDS_HEADER;
  for (const id of ids) bytes += align(ID_HEADER + idLengthOf(idWordOf(id)));
  return bytes;
}

export function writeIdsRequest(
  m: WireMemory,
  offset: number,
  collectionId: number,
  ids: readonly DocumentId[],
  hashes: ArrayLike<number>,
  flags: number,
): void {
  const { i32, bytes } = m;
  i32.set([collectionId, ids.length, flags, 0], offset >>> 2);
  let at = offset + IDS_HEADER;
  for (const [index, id] of ids.entries()) {
    const idWord = idWordOf(id);
    i32[at >>> 2] = idWord;
    i32[(at >>> 2) + 1] = hashes[index] as number;
    writeId(bytes, at + ID_HEADER, id, idWord);
    at = align(at + ID_HEADER + idLengthOf(idWord));
  }
}

/** Walks the ids of a get or delete request. */
export class IdsCursor {
  collectionId = 0;
  count = 0;
  flags = 0;
  idWord = 0;
  idOffset = 0;
  hash = 0;
  /** The whole entry, padding included. */
  entryOffset = 0;
  entryEnd = 0;
  #request!: EngineRequest;
  #at = 0;
  #index = 0;

  open(m: EngineRequest): this {
    need(m, IDS_HEADER, "ids");
    const w = m.offset >>> 2;
    this.#request = m;
    this.collectionId = m.i32[w] as number;
    this.count = m.i32[w + 1] as number;
    this.flags = m.i32[w + 2] as number;
    if (this.count < 0 || this.count > (m.length - IDS_HEADER) / ID_HEADER) throw corrupt("ids", "count", this.count);
    this.#at = m.offset + IDS_HEADER;
    this.#index = 0;
    return this;
  }

  next(): boolean {
    if (this.#index++ >= this.count) return false;
    const m = this.#request;
    this.entryOffset = this.#at;
    this.idOffset = this.#at + ID_HEADER;
    if (this.idOffset > m.offset + m.length) throw corrupt("ids", "entry", this.#index - 1);
    this.idWord = m.i32[this.#at >>> 2] as number;
    this.hash = (m.i32[(this.#at >>> 2) + 1] as number) >>> 0;
    const end = this.idOffset + idLengthOf(this.idWord);
    if (!isIdWord(this.idWord) || end > m.offset + m.length)
      throw corrupt("ids", "id length of entry", this.#index - 1);
    this.#at = align(end);
    this.entryEnd = this.#at;
    return true;
  }
}

/** Up to the next multiple of 8. */
export function align(bytes: number): number {
  return (bytes + 7) & ~7;
}

/** @throws {ShardloomError} `ERR_CORRUPT` when the record is shorter. */
export function need(m: EngineRequest, bytes: number, kind: string): void {
  if (m.length < bytes) throw corrupt(kind, "byte length", m.length);
}

/** A part of a request that does not fit its record. */
export function corrupt(kind: string, name: string, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot decode ${kind} request as ${name} must fit its record: current value is ${value}`,
    { details: { kind, name, value } },
  );
}
