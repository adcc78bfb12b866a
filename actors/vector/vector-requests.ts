/**
 * Fixed binary layouts of the requests to a vector shard, both directions: the coordinator writes, the shard reads. Those that open and
 * drop collections are in `collection-requests.ts`.
 *
 * All little-endian, in place in ring memory at an 8-aligned offset; every part starts at a multiple of 8 and padding is
 * not read. Writers trust their arguments; readers check every length against the record before using it, so that no
 * mutated request reads outside its record (`ERR_CORRUPT`).
 *
 * ```
 *  upsert  i32 collection | count | dimensions | flags, f64 rowsBefore | bytesBefore, then items: i32 idWord | payloadBytes | hash | vshard,
 *          f32[dimensions], id, payload, padding to 8
 *  ids     i32 collection | count | flags | 0, then ids: i32 idWord | hash, id, padding to 8           (get, delete)
 *  filter  i32 collection | filterBytes, filter (msgpack)                                              (count; status: empty)
 *  search  i32 collection | k | ef | flags | queries | dimensions | filterBytes | skip, f32[queries * dimensions],
 *          padding to 8, filter (msgpack)
 * ```
 */
import { ShardloomError } from "../../src/errors.ts";
import { idLengthOf, idWordOf, isIdWord, type VectorId, writeId } from "../../src/store/id-codec.ts";
import type { EngineRequest, WireMemory } from "../engine.ts";

/** Flags of get and search, to be combined with `|`. */
export const INCLUDE = { PAYLOAD: 1, VECTOR: 2 } as const;
/** Flag of a search: scan every row, do not use the index. */
export const SEARCH_EXACT = 4;
/** Flag of a search in a collection with a graph: look in that. Without it rows are scanned, as by {@link SEARCH_EXACT}. */
export const SEARCH_GRAPH = 8;
/** Flag of an upsert: check the items and take the memory they need, but write nothing. */
const UPSERT_RESERVE = 1;

export const UPSERT_HEADER = 32;
export const UPSERT_ITEM_HEADER = 16;
export const IDS_HEADER = 16;
const ID_ENTRY_HEADER = 8;
const FILTER_HEADER = 8;
const SEARCH_HEADER = 32;
/** Rows or bytes that one batch may reserve; the arena's own limit. */
const MAX_RESERVED = 2 ** 32;

/** A document on its way to its shard. `hash` = hashId(id), `vshard` = its ownership tag. */
export interface UpsertItem {
  readonly id: VectorId;
  readonly hash: number;
  readonly vshard: number;
  /** Components; their number must be the collection's dimensions. */
  readonly vector: ArrayLike<number>;
  /** msgpack bytes of the metadata, plain maps and not records; opaque except to filters. */
  readonly payload?: Uint8Array | undefined;
}

/** What earlier requests of the same batch have reserved and not yet written. */
export interface Reservation {
  readonly rows: number;
  readonly bytes: number;
}

export interface SearchRequest {
  readonly collectionId: number;
  readonly k: number;
  /** Candidates of the index search; 0 = the collection's `expansionSearch`. */
  readonly ef: number;
  /** {@link INCLUDE}, {@link SEARCH_EXACT} and {@link SEARCH_GRAPH}. */
  readonly flags: number;
  /** Shape: `Float32Array[queries * dimensions]`, row-major. */
  readonly queries: Float32Array;
  readonly dimensions: number;
  /** msgpack bytes of the filter. */
  readonly filter?: Uint8Array | undefined;
  /** Hits that an earlier reply had room for and that are left out of this one. One query only. @default 0 */
  readonly skip?: number;
}

/** A search as the shard reads it. */
export interface ReceivedSearch extends SearchRequest {
  readonly queryCount: number;
  readonly skip: number;
}

/** Bytes of one item in an upsert request, for splitting batches. Checks the id. */
export function upsertItemBytes(dimensions: number, item: UpsertItem): number {
  return (UPSERT_ITEM_HEADER + dimensions * 4 + idLengthOf(idWordOf(item.id)) + (item.payload?.length ?? 0) + 7) & ~7;
}

/** Bytes of an upsert request with the items [from, to). */
export function upsertRequestBytes(
  dimensions: number,
  items: readonly UpsertItem[],
  from = 0,
  to: number = items.length,
): number {
  let bytes = UPSERT_HEADER;
  for (let i = from; i < to; i++) bytes += upsertItemBytes(dimensions, items[i] as UpsertItem);
  return bytes;
}

/** @param reserve When given, the shard checks the items and reserves memory for them beyond this, and writes nothing. */
export function writeUpsertRequest(
  m: WireMemory,
  offset: number,
  collectionId: number,
  dimensions: number,
  items: readonly UpsertItem[],
  from = 0,
  to: number = items.length,
  reserve?: Reservation,
): void {
  const { i32, f32, f64, bytes } = m;
  i32[offset >>> 2] = collectionId;
  i32[(offset >>> 2) + 1] = to - from;
  i32[(offset >>> 2) + 2] = dimensions;
  i32[(offset >>> 2) + 3] = reserve === undefined ? 0 : UPSERT_RESERVE;
  f64[(offset >>> 3) + 2] = reserve?.rows ?? 0;
  f64[(offset >>> 3) + 3] = reserve?.bytes ?? 0;
  let at = offset + UPSERT_HEADER;
  for (let i = from; i < to; i++) {
    const item = items[i] as UpsertItem;
    const idWord = idWordOf(item.id);
    const payloadBytes = item.payload?.length ?? 0;
    const w = at >>> 2;
    i32[w] = idWord;
    i32[w + 1] = payloadBytes;
    i32[w + 2] = item.hash;
    i32[w + 3] = item.vshard;
    f32.set(item.vector, w + 4);
    const idAt = at + UPSERT_ITEM_HEADER + dimensions * 4;
    writeId(bytes, idAt, item.id, idWord);
    if (item.payload !== undefined) bytes.set(item.payload, idAt + idLengthOf(idWord));
    at = (idAt + idLengthOf(idWord) + payloadBytes + 7) & ~7;
  }
}

/** Walks the items of an upsert request; may be rewound. */
export class UpsertCursor {
  collectionId = 0;
  count = 0;
  dimensions = 0;
  /** Undefined: write the items. Otherwise only reserve memory for them, beyond this. */
  reserve: Reservation | undefined;
  /** Fields of the current item. Offsets are byte offsets in the request's memory. */
  itemOffset = 0;
  itemEnd = 0;
  idWord = 0;
  idOffset = 0;
  hash = 0;
  vshard = 0;
  vectorOffset = 0;
  payloadOffset = 0;
  payloadBytes = 0;
  #request!: EngineRequest;
  #at = 0;
  #index = 0;

  open(m: EngineRequest): this {
    need(m, UPSERT_HEADER, "upsert");
    const w = m.offset >>> 2;
    this.#request = m;
    this.collectionId = m.i32[w] as number;
    this.count = m.i32[w + 1] as number;
    this.dimensions = m.i32[w + 2] as number;
    if (this.count < 0 || this.dimensions < 1 || this.dimensions > 65_536)
      throw corrupt("upsert", "count or dimensions", this.count);
    this.reserve = (m.i32[w + 3] as number) & UPSERT_RESERVE ? readReservation(m) : undefined;
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
    this.vectorOffset = this.#at + UPSERT_ITEM_HEADER;
    this.idOffset = this.vectorOffset + this.dimensions * 4;
    if (this.idOffset > end) throw corrupt("upsert", "item", this.#index - 1);
    this.idWord = m.i32[w] as number;
    this.payloadBytes = m.i32[w + 1] as number;
    this.hash = (m.i32[w + 2] as number) >>> 0;
    this.vshard = m.i32[w + 3] as number;
    this.payloadOffset = this.idOffset + idLengthOf(this.idWord);
    if (!isIdWord(this.idWord) || this.payloadBytes < 0 || this.payloadOffset + this.payloadBytes > end) {
      throw corrupt("upsert", "id or payload length of item", this.#index - 1);
    }
    this.#at = (this.payloadOffset + this.payloadBytes + 7) & ~7;
    this.itemEnd = this.#at;
    return true;
  }
}

function readReservation(m: EngineRequest): Reservation {
  const rows = m.f64[(m.offset >>> 3) + 2] as number;
  const bytes = m.f64[(m.offset >>> 3) + 3] as number;
  if (!(rows >= 0 && rows <= MAX_RESERVED && bytes >= 0 && bytes <= MAX_RESERVED))
    throw corrupt("upsert", "reservation", rows);
  return { rows, bytes };
}

/** Bytes of a get or delete request. Checks the ids. */
export function idsRequestBytes(ids: readonly VectorId[]): number {
  let bytes = IDS_HEADER;
  for (const id of ids) bytes += (ID_ENTRY_HEADER + idLengthOf(idWordOf(id)) + 7) & ~7;
  return bytes;
}

/** @param hashes hashId of each id. @param flags {@link INCLUDE} for get, 0 for delete. */
export function writeIdsRequest(
  m: WireMemory,
  offset: number,
  collectionId: number,
  ids: readonly VectorId[],
  hashes: ArrayLike<number>,
  flags = 0,
): void {
  const { i32, bytes } = m;
  i32.set([collectionId, ids.length, flags, 0], offset >>> 2);
  let at = offset + IDS_HEADER;
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] as VectorId;
    const idWord = idWordOf(id);
    i32[at >>> 2] = idWord;
    i32[(at >>> 2) + 1] = hashes[i] as number;
    writeId(bytes, at + ID_ENTRY_HEADER, id, idWord);
    at = (at + ID_ENTRY_HEADER + idLengthOf(idWord) + 7) & ~7;
  }
}

/** Walks the ids of a get or delete request. */
export class IdsCursor {
  collectionId = 0;
  count = 0;
  flags = 0;
  /** Fields of the current entry. Offsets are byte offsets in the request's memory. */
  entryOffset = 0;
  entryEnd = 0;
  idWord = 0;
  idOffset = 0;
  hash = 0;
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
    if (this.count < 0 || this.count > (m.length - IDS_HEADER) / ID_ENTRY_HEADER)
      throw corrupt("ids", "count", this.count);
    this.#at = m.offset + IDS_HEADER;
    this.#index = 0;
    return this;
  }

  next(): boolean {
    if (this.#index++ >= this.count) return false;
    const m = this.#request;
    this.entryOffset = this.#at;
    this.idOffset = this.#at + ID_ENTRY_HEADER;
    if (this.idOffset > m.offset + m.length) throw corrupt("ids", "entry", this.#index - 1);
    this.idWord = m.i32[this.#at >>> 2] as number;
    this.hash = (m.i32[(this.#at >>> 2) + 1] as number) >>> 0;
    const end = this.idOffset + idLengthOf(this.idWord);
    if (!isIdWord(this.idWord) || end > m.offset + m.length)
      throw corrupt("ids", "id length of entry", this.#index - 1);
    this.#at = (end + 7) & ~7;
    this.entryEnd = this.#at;
    return true;
  }
}

/** Bytes of a drop, status or count request; only count has a filter. */
export function filterRequestBytes(filter?: Uint8Array): number {
  return FILTER_HEADER + (((filter?.length ?? 0) + 7) & ~7);
}

export function writeFilterRequest(m: WireMemory, offset: number, collectionId: number, filter?: Uint8Array): void {
  m.i32[offset >>> 2] = collectionId;
  m.i32[(offset >>> 2) + 1] = filter?.length ?? 0;
  if (filter !== undefined) m.bytes.set(filter, offset + FILTER_HEADER);
}

/** `filter` is a copy. */
export function readFilterRequest(m: EngineRequest): { collectionId: number; filter: Uint8Array | undefined } {
  need(m, FILTER_HEADER, "filter");
  const length = m.i32[(m.offset >>> 2) + 1] as number;
  if (length < 0 || FILTER_HEADER + length > m.length) throw corrupt("filter", "filterBytes", length);
  return { collectionId: m.i32[m.offset >>> 2] as number, filter: copyBytes(m, m.offset + FILTER_HEADER, length) };
}

export function searchRequestBytes(request: SearchRequest): number {
  return SEARCH_HEADER + ((request.queries.length * 4 + 7) & ~7) + (((request.filter?.length ?? 0) + 7) & ~7);
}

export function writeSearchRequest(m: WireMemory, offset: number, request: SearchRequest): void {
  const w = offset >>> 2;
  const { i32 } = m;
  i32[w] = request.collectionId;
  i32[w + 1] = request.k;
  i32[w + 2] = request.ef;
  i32[w + 3] = request.flags;
  i32[w + 4] = request.queries.length / request.dimensions;
  i32[w + 5] = request.dimensions;
  i32[w + 6] = request.filter?.length ?? 0;
  i32[w + 7] = request.skip ?? 0;
  m.f32.set(request.queries, w + 8);
  if (request.filter !== undefined)
    m.bytes.set(request.filter, offset + SEARCH_HEADER + ((request.queries.length * 4 + 7) & ~7));
}

/** `queries` is a view of the request, `filter` a copy. */
export function readSearchRequest(m: EngineRequest): ReceivedSearch {
  need(m, SEARCH_HEADER, "search");
  const word = (index: number): number => m.i32[(m.offset >>> 2) + index] as number;
  const queryCount = word(4);
  const dimensions = word(5);
  const filterBytes = word(6);
  if (queryCount < 0 || dimensions < 1 || filterBytes < 0) throw corrupt("search", "query count", queryCount);
  const vectorBytes = (queryCount * dimensions * 4 + 7) & ~7;
  if (queryCount * dimensions > m.length / 4 || SEARCH_HEADER + vectorBytes + filterBytes > m.length) {
    throw corrupt("search", "query count", queryCount);
  }
  const start = (m.offset + SEARCH_HEADER) >>> 2;
  return {
    collectionId: word(0),
    k: word(1),
    ef: word(2),
    flags: word(3),
    queryCount,
    dimensions,
    skip: word(7),
    queries: m.f32.subarray(start, start + queryCount * dimensions),
    filter: copyBytes(m, m.offset + SEARCH_HEADER + vectorBytes, filterBytes),
  };
}

function copyBytes(m: EngineRequest, start: number, length: number): Uint8Array | undefined {
  return length === 0 ? undefined : m.bytes.slice(start, start + length);
}

/** @throws {ShardloomError} `ERR_CORRUPT` when the request is shorter. */
export function need(m: EngineRequest, bytes: number, kind: string): void {
  if (m.length < bytes) throw corrupt(kind, "byte length", m.length);
}

/** What a request is refused with whose numbers do not fit its record. */
export function corrupt(kind: string, name: string, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot decode ${kind} request as ${name} must fit its record: current value is ${value}`,
    {
      details: { kind, name, value },
    },
  );
}
