/**
 * Fixed binary layouts of the replies of a text shard, both directions: the shard writes in place, the client reads.
 *
 * ```
 *  open    f64 root address | root rkey | root length | documents
 *  upsert  i32 count | inserted
 *  delete  f64 deleted
 *  count   f64 documents
 *  status  f64[11], see TextShardStatus
 *  get     i32 count | 0, then per id: f64 version | i32 found | body bytes, body, padding to 8
 *  stats   f64 documents | i32 lengths | terms, f64[lengths] lengths (see TextStatistics), f64[terms] frequencies
 *  search  i32 hits | hits left out | clauses | flags, f64 last version, then hits:
 *          f64 score | f64 version | i32 idWord | body bytes, [u8[clauses] matched], id, body, padding to 8
 * ```
 * `matched` is there with INCLUDE.TERMS. The body of a hit is whole with INCLUDE.FIELDS, only its payload with INCLUDE.PAYLOAD
 * alone. Readers copy everything out: reply memory is valid in the drain only.
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import { type DocumentId, idLengthOf, readId } from "../../src/store/id-codec.ts";
import type { WireMemory } from "../engine.ts";
import type { TextStatistics } from "./text-scorer.ts";

export const OPEN_REPLY_BYTES = 32;
export const UPSERT_REPLY_BYTES = 8;
export const COUNT_REPLY_BYTES = 8;
export const STATUS_REPLY_BYTES: number = 11 * 8;
export const GET_HEADER = 8;
export const GET_ENTRY_HEADER = 16;
export const SEARCH_REPLY_HEADER = 24;
export const SEARCH_HIT_HEADER = 24;
const STATS_HEADER = 16;

/** State of one shard's part of a collection. */
export interface TextShardStatus {
  readonly documents: number;
  /** Documents that a new worker has not indexed again yet; searches wait for them. */
  readonly unindexed: number;
  /** Distinct terms. */
  readonly terms: number;
  /** Terms in all fields of all documents. */
  readonly occurrences: number;
  readonly lastVersion: number;
  /** Bytes of posting lists. */
  readonly indexBytes: number;
  /** Bytes of records in registered memory, and of those that live. */
  readonly heapBytes: number;
  readonly heapLiveBytes: number;
  readonly rowBytes: number;
  readonly directorySlots: number;
  /** Searches that wait for the index to be whole. */
  readonly waiting: number;
}

/** A document as a shard returns it. */
export interface StoredBody {
  readonly version: number;
  readonly body: Uint8Array;
}

export interface UpsertReply {
  readonly count: number;
  /** How many of the ids were new. */
  readonly inserted: number;
}

export interface ShardHit {
  readonly id: DocumentId;
  readonly score: number;
  readonly version: number;
  /** Whole, or only the payload; undefined when neither was asked for or there is none. */
  readonly body?: Uint8Array;
  /** By clause of the query, 1 = matched. */
  readonly matched?: Uint8Array;
}

export interface ShardHits {
  /** In the total order (score descending, id ascending). */
  readonly hits: readonly ShardHit[];
  /** Hits for which the reply had no room: ask again with `skip`. */
  readonly left: number;
  /** Last version of the shard when it answered: pages of one answer must agree in it. */
  readonly lastVersion: number;
}

export function writeOpenReply(m: WireMemory, offset: number, root: RegionRef, documents: number): void {
  m.f64.set([root.address, root.rkey, root.length, documents], offset >>> 3);
}

export function readOpenReply(m: WireMemory, offset: number): RegionRef {
  const at = offset >>> 3;
  return { address: m.f64[at] as number, rkey: m.f64[at + 1] as number, length: m.f64[at + 2] as number };
}

export function writeUpsertReply(m: WireMemory, offset: number, count: number, inserted: number): void {
  m.i32[offset >>> 2] = count;
  m.i32[(offset >>> 2) + 1] = inserted;
}

export function readUpsertReply(m: WireMemory, offset: number): UpsertReply {
  return { count: m.i32[offset >>> 2] as number, inserted: m.i32[(offset >>> 2) + 1] as number };
}

export function readCountReply(m: WireMemory, offset: number): number {
  return m.f64[offset >>> 3] as number;
}

const STATUS_ORDER: readonly (keyof TextShardStatus)[] = [
  "documents",
  "unindexed",
  "terms",
  "occurrences",
  "lastVersion",
  "indexBytes",
  "heapBytes",
  "heapLiveBytes",
  "rowBytes",
  "directorySlots",
  "waiting",
];

export function writeStatusReply(m: WireMemory, offset: number, status: TextShardStatus): void {
  for (const [at, name] of STATUS_ORDER.entries()) m.f64[(offset >>> 3) + at] = status[name];
}

export function readStatusReply(m: WireMemory, offset: number): TextShardStatus {
  const status = {} as Record<keyof TextShardStatus, number>;
  for (const [at, name] of STATUS_ORDER.entries()) status[name] = m.f64[(offset >>> 3) + at] as number;
  return status;
}

/** One entry per id of the request, in its order; undefined where the id is unknown. */
export function readGetReply(m: WireMemory, offset: number, length: number): (StoredBody | undefined)[] {
  const count = m.i32[offset >>> 2] as number;
  const entries: (StoredBody | undefined)[] = [];
  let at = offset + GET_HEADER;
  for (let index = 0; index < count; index++) {
    checkEnd("get", at + GET_ENTRY_HEADER, offset + length);
    const found = m.i32[(at >>> 2) + 2] === 1;
    const bodyBytes = m.i32[(at >>> 2) + 3] as number;
    const version = m.f64[at >>> 3] as number;
    at += GET_ENTRY_HEADER;
    checkEnd("get", at + bodyBytes, offset + length);
    entries.push(found ? { version, body: m.bytes.slice(at, at + bodyBytes) } : undefined);
    at = (at + bodyBytes + 7) & ~7;
  }
  return entries;
}

export function statsReplyBytes(statistics: TextStatistics): number {
  return STATS_HEADER + (statistics.lengths.length + statistics.frequencies.length) * 8;
}

export function writeStatsReply(m: WireMemory, offset: number, statistics: TextStatistics): void {
  const { documents, lengths, frequencies } = statistics;
  const at = offset >>> 3;
  m.f64[at] = documents;
  m.i32[(offset >>> 2) + 2] = lengths.length;
  m.i32[(offset >>> 2) + 3] = frequencies.length;
  m.f64.set(lengths, at + 2);
  m.f64.set(frequencies, at + 2 + lengths.length);
}

export function readStatsReply(m: WireMemory, offset: number, length: number): TextStatistics {
  const lengths = m.i32[(offset >>> 2) + 2] as number;
  const terms = m.i32[(offset >>> 2) + 3] as number;
  checkEnd("stats", STATS_HEADER + (lengths + terms) * 8, length);
  const at = (offset + STATS_HEADER) >>> 3;
  return {
    documents: m.f64[offset >>> 3] as number,
    lengths: m.f64.slice(at, at + lengths),
    frequencies: m.f64.slice(at + lengths, at + lengths + terms),
  };
}

export function readSearchReply(m: WireMemory, offset: number, length: number): ShardHits {
  const { i32, f64, bytes } = m;
  const w = offset >>> 2;
  const count = i32[w] as number;
  const clauses = i32[w + 2] as number;
  const hits: ShardHit[] = [];
  let at = offset + SEARCH_REPLY_HEADER;
  for (let hit = 0; hit < count; hit++) {
    checkEnd("search", at + SEARCH_HIT_HEADER, offset + length);
    const idWord = i32[(at >>> 2) + 4] as number;
    const bodyBytes = i32[(at >>> 2) + 5] as number;
    const idAt = at + SEARCH_HIT_HEADER + clauses;
    const bodyAt = idAt + idLengthOf(idWord);
    const end = bodyAt + bodyBytes;
    checkEnd("search", end, offset + length);
    hits.push({
      id: readId(bytes, idAt, idWord),
      score: f64[at >>> 3] as number,
      version: f64[(at >>> 3) + 1] as number,
      ...(bodyBytes === 0 ? {} : { body: bytes.slice(bodyAt, end) }),
      ...(clauses === 0 ? {} : { matched: bytes.slice(idAt - clauses, idAt) }),
    });
    at = (end + 7) & ~7;
  }
  return { hits, left: i32[w + 1] as number, lastVersion: f64[(offset >>> 3) + 2] as number };
}

function checkEnd(kind: string, end: number, limit: number): void {
  if (end <= limit) return;
  throw new ShardloomError(
    "ERR_CORRUPT",
    `Cannot decode ${kind} reply as its parts must fit its record: current overrun is ${end - limit}`,
    { details: { kind, overrun: end - limit } },
  );
}
