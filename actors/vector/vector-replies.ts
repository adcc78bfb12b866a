/**
 * Fixed binary layouts of the replies of a vector shard, both directions: the shard writes in place, the coordinator reads.
 *
 * ```
 *  open    f64 root address | root rkey | root length | rows
 *  upsert  i32 count | inserted, f64 first version (item i of the request has first + i); of a reserve-only request:
 *          i32 count | new ids, f64 bytes of their records
 *  delete  i32 count | deleted, u8[count] (1 = was there), padding to 8
 *  count   f64 matching rows
 *  status  f64[17], see VectorShardStatus
 *  get     i32 count | flags | dimensions | 0, then per id: f64 version | i32 found | payloadBytes,
 *          [f32[dimensions]], payload, padding to 8
 *  search  i32 queries | flags | dimensions | 0, f64 last version, then per query: i32 hits | plan | scored | hits left out, f64 reach, then hits:
 *          f64 score | f64 version | i32 idWord | payloadBytes, [f32[dimensions]], id, payload, padding to 8
 * ```
 * Vector and payload are there only as the flags say. Readers copy everything out: reply memory is valid in the drain only.
 */

import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import { idLengthOf, readId, type VectorId } from "../../src/store/id-codec.ts";
import type { EngineReply, WireMemory } from "../engine.ts";
import { INCLUDE } from "./vector-requests.ts";

export const OPEN_REPLY_BYTES = 32;
export const UPSERT_REPLY_BYTES = 16;
export const COUNT_REPLY_BYTES = 8;
export const STATUS_REPLY_BYTES = 136;
export const GET_HEADER = 16;
export const GET_ENTRY_HEADER = 16;
export const SEARCH_REPLY_HEADER = 24;
export const SEARCH_QUERY_HEADER = 24;
export const SEARCH_HIT_HEADER = 24;

/** How a shard answered a query. */
export const PLAN = { SCAN: 0, INDEX: 1, FILTERED_SCAN: 2, FILTERED_INDEX: 3 } as const;
/** The same by name. */
export const PLAN_NAMES = ["scan", "index", "filtered-scan", "filtered-index"] as const;

/** @throws {ShardloomError} `ERR_RECORD_TOO_LARGE` for a reply that there is no room for. */
export function assertReplyFits(byteLength: number, { limitBytes }: Pick<EngineReply, "limitBytes">): void {
  if (byteLength <= limitBytes) return;
  throw new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot reply as a reply must take at most ${limitBytes} bytes: current value is ${byteLength}`,
    { details: { byteLength, limitBytes } },
  );
}

export interface OpenReply {
  readonly root: RegionRef;
  readonly rows: number;
}
export interface UpsertReply {
  readonly count: number;
  /** How many of the ids were new. */
  readonly inserted: number;
  /** Bytes of records, after a reserve-only request. */
  readonly firstVersion: number;
}
export interface DeleteReply {
  readonly deleted: number;
  /** Per id of the request. */
  readonly found: readonly boolean[];
}
export interface VectorShardStatus {
  readonly rows: number;
  /** Rows in the index; the others are scanned exactly. */
  readonly indexed: number;
  /** Rows waiting for the index; 0 also while the shard is small enough to be scanned. */
  readonly unindexed: number;
  /** Rows of the graph that are still to be brought to where those near them are, about; searches find them meanwhile. 0 without a graph. */
  readonly unplaced: number;
  /** Shards of the node, this one included, whose leaves this one knows in the version that vertices are placed by. 0 without a graph, or while it is small. */
  readonly knownShards: number;
  /** Done share of a learning of leaves, and of levels above them, that this shard is at, in [0, 1]; 1: it is at none. */
  readonly learnt: number;
  readonly lastVersion: number;
  readonly vectorBytes: number;
  readonly heapBytes: number;
  readonly heapLiveBytes: number;
  readonly directorySlots: number;
  /** Root of the shard's rows (collection-layout.ts), and of its node's graph (graph-layout.ts), where it has one. */
  readonly root: RegionRef;
  readonly graph: RegionRef | undefined;
}
/** A document as a shard returns it. Vector and payload are copies, present when asked for. */
export interface StoredVector {
  /** Row sequence of the shard: grows with every write. */
  readonly version: number;
  readonly vector?: Float32Array;
  /** msgpack bytes; absent also when the document has none. */
  readonly payload?: Uint8Array;
}
export interface SearchHit extends StoredVector {
  /** Distance; smaller is closer. */
  readonly score: number;
  readonly id: VectorId;
}
export interface QueryHits {
  /** In the total order (score, id). */
  readonly hits: readonly SearchHit[];
  /** One of {@link PLAN}. */
  readonly plan: number;
  /** Exact distances that the shard computed. */
  readonly scored: number;
  /** Every document of the shard that is left out ranks behind this distance, as far as the index finds them; infinite: of those that were asked for. */
  readonly reach: number;
  /** Hits for which the reply had no room: ask again with `skip`. */
  readonly left: number;
  /** Last version of the shard when it answered: pages of one answer must agree in it. */
  readonly lastVersion: number;
}

export function readOpenReply(m: WireMemory, offset: number): OpenReply {
  return { root: refAt(m, offset), rows: m.f64[(offset >>> 3) + 3] as number };
}

function refAt(m: WireMemory, offset: number): RegionRef {
  const at = offset >>> 3;
  return { address: m.f64[at] as number, rkey: m.f64[at + 1] as number, length: m.f64[at + 2] as number };
}

export function writeOpenReply(m: WireMemory, offset: number, reply: OpenReply): void {
  m.f64.set([reply.root.address, reply.root.rkey, reply.root.length, reply.rows], offset >>> 3);
}

export function readUpsertReply(m: WireMemory, offset: number): UpsertReply {
  const w = offset >>> 2;
  return {
    count: m.i32[w] as number,
    inserted: m.i32[w + 1] as number,
    firstVersion: m.f64[(offset >>> 3) + 1] as number,
  };
}

export function writeUpsertReply(
  m: WireMemory,
  offset: number,
  count: number,
  inserted: number,
  firstVersion: number,
): void {
  m.i32[offset >>> 2] = count;
  m.i32[(offset >>> 2) + 1] = inserted;
  m.f64[(offset >>> 3) + 1] = firstVersion;
}

export function deleteReplyBytes(count: number): number {
  return 8 + ((count + 7) & ~7);
}

export function writeDeleteReply(
  m: WireMemory,
  offset: number,
  count: number,
  deleted: number,
  found: Uint8Array,
): void {
  m.i32[offset >>> 2] = count;
  m.i32[(offset >>> 2) + 1] = deleted;
  for (let i = 0; i < count; i++) m.bytes[offset + 8 + i] = found[i] as number;
}

export function readDeleteReply(m: WireMemory, offset: number): DeleteReply {
  const count = m.i32[offset >>> 2] as number;
  const found = Array.from({ length: count }, (_, i) => m.bytes[offset + 8 + i] === 1);
  return { deleted: m.i32[(offset >>> 2) + 1] as number, found };
}

export function readCountReply(m: WireMemory, offset: number): number {
  return m.f64[offset >>> 3] as number;
}

export function writeStatusReply(m: WireMemory, offset: number, s: VectorShardStatus): void {
  m.f64.set(
    [
      s.rows,
      s.indexed,
      s.unindexed,
      s.lastVersion,
      s.vectorBytes,
      s.heapBytes,
      s.heapLiveBytes,
      s.directorySlots,
      s.unplaced,
      s.knownShards,
      s.learnt,
      ...[s.root.address, s.root.rkey, s.root.length],
      ...[s.graph?.address ?? 0, s.graph?.rkey ?? 0, s.graph?.length ?? 0],
    ],
    offset >>> 3,
  );
}

export function readStatusReply(m: WireMemory, offset: number): VectorShardStatus {
  const value = (index: number): number => m.f64[(offset >>> 3) + index] as number;
  return {
    rows: value(0),
    indexed: value(1),
    unindexed: value(2),
    lastVersion: value(3),
    vectorBytes: value(4),
    heapBytes: value(5),
    heapLiveBytes: value(6),
    directorySlots: value(7),
    unplaced: value(8),
    knownShards: value(9),
    learnt: value(10),
    root: refAt(m, offset + 88),
    graph: value(15) === 0 ? undefined : refAt(m, offset + 112),
  };
}

/** One entry per id of the request, in its order; undefined where the id is unknown. */
export function readGetReply(m: WireMemory, offset: number, length: number): (StoredVector | undefined)[] {
  const w = offset >>> 2;
  const count = m.i32[w] as number;
  const dimensions = (m.i32[w + 1] as number) & INCLUDE.VECTOR ? (m.i32[w + 2] as number) : 0;
  const entries: (StoredVector | undefined)[] = [];
  let at = offset + GET_HEADER;
  for (let i = 0; i < count; i++) {
    checkEnd("get", at + GET_ENTRY_HEADER, offset + length);
    const found = m.i32[(at >>> 2) + 2] === 1;
    const version = m.f64[at >>> 3] as number;
    const payloadBytes = m.i32[(at >>> 2) + 3] as number;
    at += GET_ENTRY_HEADER;
    if (!found) {
      entries.push(undefined);
      continue;
    }
    const end = at + dimensions * 4 + payloadBytes;
    checkEnd("get", end, offset + length);
    entries.push(copyStored(m, version, at, dimensions, at + dimensions * 4, payloadBytes));
    at = (end + 7) & ~7;
  }
  return entries;
}

/** Decodes a search reply: one entry per query of the request. */
export function readSearchReply(m: WireMemory, offset: number, length: number): QueryHits[] {
  const w = offset >>> 2;
  const queries = m.i32[w] as number;
  const dimensions = (m.i32[w + 1] as number) & INCLUDE.VECTOR ? (m.i32[w + 2] as number) : 0;
  const lastVersion = m.f64[(offset >>> 3) + 2] as number;
  const results: QueryHits[] = [];
  let at = offset + SEARCH_REPLY_HEADER;
  for (let query = 0; query < queries; query++) {
    checkEnd("search", at + SEARCH_QUERY_HEADER, offset + length);
    const count = m.i32[at >>> 2] as number;
    const plan = m.i32[(at >>> 2) + 1] as number;
    const scored = m.i32[(at >>> 2) + 2] as number;
    const left = m.i32[(at >>> 2) + 3] as number;
    const reach = m.f64[(at >>> 3) + 2] as number;
    const hits: SearchHit[] = [];
    at += SEARCH_QUERY_HEADER;
    for (let hit = 0; hit < count; hit++) {
      checkEnd("search", at + SEARCH_HIT_HEADER, offset + length);
      const score = m.f64[at >>> 3] as number;
      const idWord = m.i32[(at >>> 2) + 4] as number;
      const payloadBytes = m.i32[(at >>> 2) + 5] as number;
      const vectorAt = at + SEARCH_HIT_HEADER;
      const idAt = vectorAt + dimensions * 4;
      const payloadAt = idAt + idLengthOf(idWord);
      checkEnd("search", payloadAt + payloadBytes, offset + length);
      const id = readId(m.bytes, idAt, idWord);
      const version = m.f64[(at >>> 3) + 1] as number;
      hits.push(
        dimensions === 0 && payloadBytes === 0
          ? { score, id, version } // the common answer, without the copies of the other
          : { score, id, ...copyStored(m, version, vectorAt, dimensions, payloadAt, payloadBytes) },
      );
      at = (payloadAt + payloadBytes + 7) & ~7;
    }
    results.push({ hits, plan, scored, reach, left, lastVersion });
  }
  return results;
}

function copyStored(
  m: WireMemory,
  version: number,
  vectorAt: number,
  dimensions: number,
  payloadAt: number,
  payloadBytes: number,
): StoredVector {
  return {
    version,
    ...(dimensions > 0 ? { vector: m.f32.slice(vectorAt >>> 2, (vectorAt >>> 2) + dimensions) } : {}),
    ...(payloadBytes > 0 ? { payload: m.bytes.slice(payloadAt, payloadAt + payloadBytes) } : {}),
  };
}

function checkEnd(kind: string, end: number, limit: number): void {
  if (end <= limit) return;
  throw new ShardloomError(
    "ERR_CORRUPT",
    `Cannot decode ${kind} reply as its parts must fit its record: current overrun is ${end - limit}`,
    {
      details: { kind, overrun: end - limit },
    },
  );
}
