/**
 * Messages from the primary of vshards to a shard that holds copies of them, and their answers.
 *
 * Little-endian, at an 8-aligned offset; bodies are padded to 8. Writers trust their arguments, readers check every length.
 *
 * ```
 *  append    i32 source | i32 incarnation | i32 entries | i32 map, then entries: f64 lsn | f64 atMs | i32 vshard | i32 type |
 *            i32 collection | i32 bodyBytes, body
 *  status    i32 source | i32 incarnation | i32 vshards | i32 map, then (f64 from | f64 to | f64 head | i32 vshard | i32 0)[vshards]
 *  snapshot  i32 source | i32 incarnation | i32 vshard | i32 transfer | i32 sequence | i32 part | f64 startLsn | f64 endLsn |
 *            i32 type | i32 collection | i32 bodyBytes | i32 map, body
 *  fetch     i32 source | i32 incarnation | i32 vshard | i32 transfer | i32 sequence | i32 map
 *  answer    i32 copies | i32 0, then (i32 vshard | i32 state, and 16 when it is unsure | f64 lsn)[copies]
 *  fetched   i32 vshard | i32 transfer | i32 sequence | i32 part | f64 lsn | i32 type | i32 collection | i32 bodyBytes | i32 0, body
 * ```
 *
 * `map` is the version of the map in which the source is the primary.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Payload } from "../../src/routing/requester.ts";
import type { LogEntry } from "../../src/store/log.ts";
import type { EngineReply, EngineRequest, ReceivedEffect, WireMemory } from "../engine.ts";

/** What a copy is: nothing that is known, as its LSN says, replaying what a snapshot missed, or being filled by one. */
export const COPY = { UNKNOWN: 0, VALID: 1, REPLAYING: 2, RESTORING: 3 } as const;
export type CopyState = (typeof COPY)[keyof typeof COPY];

/** Parts of a snapshot: the first one empties, the last one ends it; both have no body. */
export const PART = { BEGIN: 0, BODY: 1, END: 2 } as const;
export type SnapshotPartKind = (typeof PART)[keyof typeof PART];

/**
 * What a shard tells of one of its copies. `lsn`: the last entry it has applied, for VALID and REPLAYING; otherwise the LSN that none of
 * its rows is behind, -1 when it may have nothing.
 */
export interface CopyStatus {
  readonly vshard: number;
  readonly state: CopyState;
  readonly lsn: number;
  /** It may have acknowledged more in an earlier life, which it has forgotten. @default false */
  readonly isUnsure?: boolean;
}

/**
 * A copy that its primary asks about. Where `to` is above 0, what the primary had at LSN `from` has LSN `to` from now on: a copy that is valid
 * at exactly `from` takes that over.
 */
export interface AskedCopy {
  readonly vshard: number;
  readonly from: number;
  readonly to: number;
  /** The primary's head: who has that has everything; -1 while that is not known. */
  readonly head: number;
}

/** Who sends: a primary's shard, and which worker of it. */
export interface ReplicaSource {
  readonly shard: number;
  readonly incarnation: number;
  /** Version of the map by which it is the primary. @default 1 */
  readonly mapVersion?: number;
}

/** Who sends, by the map that he knows when he does. */
export function sourceOf(shard: number, incarnation: number, mapVersion: () => number): ReplicaSource {
  return {
    shard,
    incarnation,
    get mapVersion() {
      return mapVersion();
    },
  };
}

export interface VshardEntry {
  readonly vshard: number;
  readonly entry: LogEntry;
}

/** One message of a snapshot. */
export interface SnapshotChunk {
  readonly vshard: number;
  /** Number of the transfer; a new one begins from nothing. */
  readonly transfer: number;
  /** Number of the message in its transfer, from 0. */
  readonly sequence: number;
  readonly part: SnapshotPartKind;
  /** Head when the snapshot began: entries above it are to be applied after it. */
  readonly startLsn: number;
  /** Head when it ended: below it the copy may mix old and new. Of the last part. */
  readonly endLsn: number;
  readonly type: number;
  readonly collection: number;
  readonly body: Uint8Array;
}

/** Asks a copy for the next part of a vshard. */
export interface FetchRequest {
  readonly vshard: number;
  /** Number of the transfer; sequence 0 begins it. */
  readonly transfer: number;
  readonly sequence: number;
}

/** A part of what a copy holds. */
export interface FetchedPart extends FetchRequest {
  readonly part: SnapshotPartKind;
  /** LSN that the copy's rows are not behind. */
  readonly lsn: number;
  readonly type: number;
  readonly collection: number;
}

const HEADER = 16;
const FETCH_BYTES = 24;
const FETCHED_HEADER = 40;
const ENTRY_HEADER = 32;
const SNAPSHOT_HEADER = 56;
const STATUS_BYTES = 16;
const ASKED_BYTES = 32;
/** In the state of an answer. */
const UNSURE = 16;
/** What a message may have around one body. */
export const MESSAGE_OVERHEAD_BYTES = 64;

export function entryBytes(entry: LogEntry): number {
  return ENTRY_HEADER + pad(entry.body.length);
}

/** A message with entries, oldest first for each vshard. */
export function appendMessage(source: ReplicaSource, entries: readonly VshardEntry[]): Payload {
  const byteLength = entries.reduce((sum, { entry }) => sum + entryBytes(entry), HEADER);
  return {
    byteLength,
    write({ bytes, i32, f64 }, offset) {
      i32.set([source.shard, source.incarnation, entries.length, source.mapVersion ?? 1], offset >>> 2);
      let at = offset + HEADER;
      for (const { vshard, entry } of entries) {
        const { lsn, atMs, type, collection, body } = entry;
        f64[at >>> 3] = lsn;
        f64[(at >>> 3) + 1] = atMs;
        i32.set([vshard, type, collection, body.length], (at >>> 2) + 4);
        bytes.set(body, at + ENTRY_HEADER);
        at += entryBytes(entry);
      }
    },
  };
}

export function statusMessage(source: ReplicaSource, vshards: readonly AskedCopy[]): Payload {
  return {
    byteLength: HEADER + ASKED_BYTES * vshards.length,
    write({ i32, f64 }, offset) {
      i32.set([source.shard, source.incarnation, vshards.length, source.mapVersion ?? 1], offset >>> 2);
      let at = offset + HEADER;
      for (const { vshard, from, to, head } of vshards) {
        f64[at >>> 3] = from;
        f64[(at >>> 3) + 1] = to;
        f64[(at >>> 3) + 2] = head;
        i32.set([vshard, 0], (at >>> 2) + 6);
        at += ASKED_BYTES;
      }
    },
  };
}

export function snapshotMessage(source: ReplicaSource, chunk: SnapshotChunk): Payload {
  const { vshard, transfer, sequence, part, startLsn, endLsn, type, collection, body } = chunk;
  return {
    byteLength: SNAPSHOT_HEADER + pad(body.length),
    write({ bytes, i32, f64 }, offset) {
      i32.set([source.shard, source.incarnation, vshard, transfer, sequence, part], offset >>> 2);
      f64[(offset >>> 3) + 3] = startLsn;
      f64[(offset >>> 3) + 4] = endLsn;
      i32.set([type, collection, body.length, source.mapVersion ?? 1], (offset >>> 2) + 10);
      bytes.set(body, offset + SNAPSHOT_HEADER);
    },
  };
}

export function fetchMessage(source: ReplicaSource, { vshard, transfer, sequence }: FetchRequest): Payload {
  return {
    byteLength: FETCH_BYTES,
    write({ i32 }, offset) {
      i32.set([source.shard, source.incarnation, vshard, transfer, sequence, source.mapVersion ?? 1], offset >>> 2);
    },
  };
}

export function readFetch(m: EngineRequest): FetchRequest {
  if (m.length < FETCH_BYTES) throw corrupt("byte length", m.length);
  const word = (at: number): number => m.i32[(m.offset >>> 2) + at] as number;
  return { vshard: word(2), transfer: word(3), sequence: word(4) };
}

export function answerFetched(reply: EngineReply, fetched: FetchedPart, body: Uint8Array): void {
  const { vshard, transfer, sequence, part, lsn, type, collection } = fetched;
  reply.claim(FETCHED_HEADER + pad(body.length));
  const { i32, f64, bytes, offset } = reply;
  i32.set([vshard, transfer, sequence, part], offset >>> 2);
  f64[(offset >>> 3) + 2] = lsn;
  i32.set([type, collection, body.length, 0], (offset >>> 2) + 6);
  bytes.set(body, offset + FETCHED_HEADER);
}

export function readFetched(m: WireMemory, offset: number, length: number): FetchedPart & ReceivedEffect {
  if (length < FETCHED_HEADER) throw corrupt("byte length", length);
  const { bytes, i32, f32, f64 } = m;
  const w = offset >>> 2;
  const body = i32[w + 8] as number;
  const part = i32[w + 3] as number;
  const lsn = f64[(offset >>> 3) + 2] as number;
  if (body < 0 || FETCHED_HEADER + body > length) throw corrupt("body length", body);
  if (part !== PART.BODY && part !== PART.END) throw corrupt("part", part);
  if (!Number.isSafeInteger(lsn)) throw corrupt("LSN", lsn);
  return {
    bytes,
    i32,
    f32,
    f64,
    vshard: i32[w] as number,
    transfer: i32[w + 1] as number,
    sequence: i32[w + 2] as number,
    part,
    lsn,
    type: i32[w + 6] as number,
    collection: i32[w + 7] as number,
    offset: offset + FETCHED_HEADER,
    length: body,
  };
}

export function readSource(m: EngineRequest): ReplicaSource {
  if (m.length < HEADER) throw corrupt("byte length", m.length);
  return { shard: m.i32[m.offset >>> 2] as number, incarnation: m.i32[(m.offset >>> 2) + 1] as number };
}

/** An entry as it arrives. */
export interface ReceivedEntry extends ReceivedEffect {
  readonly lsn: number;
  readonly atMs: number;
}

/** Calls `take` for every entry of a message; the object is valid during the call. Lengths are checked before the first call. */
export function readAppend(m: EngineRequest, take: (entry: ReceivedEntry) => void): void {
  const count = countOf(m);
  const end = m.offset + m.length;
  let at = m.offset + HEADER;
  const places: number[] = [];
  for (let i = 0; i < count; i++) {
    if (at + ENTRY_HEADER > end) throw corrupt("entry", i);
    const body = m.i32[(at >>> 2) + 7] as number;
    const lsn = m.f64[at >>> 3] as number;
    if (body < 0 || at + ENTRY_HEADER + body > end) throw corrupt("body length", body);
    if (!Number.isSafeInteger(lsn) || lsn < 1) throw corrupt("LSN", lsn);
    places.push(at);
    at += ENTRY_HEADER + pad(body);
  }
  const { bytes, i32, f32, f64 } = m;
  for (const place of places) {
    const w = place >>> 2;
    take({
      bytes,
      i32,
      f32,
      f64,
      lsn: f64[place >>> 3] as number,
      atMs: f64[(place >>> 3) + 1] as number,
      vshard: i32[w + 4] as number,
      type: i32[w + 5] as number,
      collection: i32[w + 6] as number,
      offset: place + ENTRY_HEADER,
      length: i32[w + 7] as number,
    });
  }
}

export function readAskedCopies(m: EngineRequest): AskedCopy[] {
  const count = countOf(m);
  if (HEADER + ASKED_BYTES * count > m.length) throw corrupt("number of vshards", count);
  return Array.from({ length: count }, (_, i) => {
    const at = m.offset + HEADER + ASKED_BYTES * i;
    const [from = 0, to = 0, head = -1] = m.f64.subarray(at >>> 3, (at >>> 3) + 3);
    return { vshard: m.i32[(at >>> 2) + 6] as number, from, to, head };
  });
}

/** A part of a snapshot as it arrives. */
export type ReceivedChunk = Omit<SnapshotChunk, "body"> & ReceivedEffect;

export function readSnapshot(m: EngineRequest): ReceivedChunk {
  if (m.length < SNAPSHOT_HEADER) throw corrupt("byte length", m.length);
  const { bytes, i32, f32, f64 } = m;
  const w = m.offset >>> 2;
  const length = i32[w + 12] as number;
  const part = i32[w + 5] as number;
  if (length < 0 || SNAPSHOT_HEADER + length > m.length) throw corrupt("body length", length);
  if (part < PART.BEGIN || part > PART.END) throw corrupt("part", part);
  return {
    bytes,
    i32,
    f32,
    f64,
    vshard: i32[w + 2] as number,
    transfer: i32[w + 3] as number,
    sequence: i32[w + 4] as number,
    part: part as SnapshotPartKind,
    startLsn: f64[(m.offset >>> 3) + 3] as number,
    endLsn: f64[(m.offset >>> 3) + 4] as number,
    type: i32[w + 10] as number,
    collection: i32[w + 11] as number,
    offset: m.offset + SNAPSHOT_HEADER,
    length,
  };
}

export function answerCopies(reply: EngineReply, copies: readonly CopyStatus[]): void {
  reply.claim(copiesBytes(copies));
  writeCopies(reply, reply.offset, copies);
}

/** Bytes that {@link writeCopies} writes. */
export function copiesBytes(copies: readonly CopyStatus[]): number {
  return 8 + STATUS_BYTES * copies.length;
}

export function writeCopies(
  { i32, f64 }: Pick<WireMemory, "i32" | "f64">,
  offset: number,
  copies: readonly CopyStatus[],
): void {
  i32.set([copies.length, 0], offset >>> 2);
  let at = offset + 8;
  for (const { vshard, state, lsn, isUnsure = false } of copies) {
    i32.set([vshard, isUnsure ? state | UNSURE : state], at >>> 2);
    f64[(at >>> 3) + 1] = lsn;
    at += STATUS_BYTES;
  }
}

/** Copies that messages of at most `byteLength` bytes can ask about and tell of, at least one. */
export function statusesIn(byteLength: number): number {
  return Math.max(1, Math.floor((byteLength - HEADER) / Math.max(STATUS_BYTES, ASKED_BYTES)));
}

export function readCopies(m: Pick<WireMemory, "i32" | "f64">, offset: number, length: number): CopyStatus[] {
  const count = length < 8 ? -1 : (m.i32[offset >>> 2] as number);
  if (count < 0 || 8 + STATUS_BYTES * count > length) throw corrupt("number of copies", count);
  return Array.from({ length: count }, (_, i) => {
    const at = offset + 8 + STATUS_BYTES * i;
    const word = m.i32[(at >>> 2) + 1] as number;
    const state = word & ~UNSURE;
    if (state < COPY.UNKNOWN || state > COPY.RESTORING) throw corrupt("state", word);
    const status = {
      vshard: m.i32[at >>> 2] as number,
      state: state as CopyState,
      lsn: m.f64[(at >>> 3) + 1] as number,
    };
    return word === state ? status : { ...status, isUnsure: true };
  });
}

function countOf(m: EngineRequest): number {
  if (m.length < HEADER) throw corrupt("byte length", m.length);
  const count = m.i32[(m.offset >>> 2) + 2] as number;
  if (count < 0 || count > m.length) throw corrupt("count", count);
  return count;
}

function pad(bytes: number): number {
  return (bytes + 7) & ~7;
}

function corrupt(name: string, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot decode replica message as ${name} must fit its record: current value is ${value}`,
    { details: { name, value } },
  );
}
