/**
 * The messages of the collaborative search, as bytes.
 *
 * Invariant: what is encoded here decodes to the same message; bytes that are no message are refused with `ERR_CORRUPT` and decoding reads
 * nothing outside of them, whatever they hold. All little-endian, unaligned, no padding; counts must account for the length exactly.
 * Vertices are int32, distances float32 and finite (a bound may be infinite), peers (shards and origins) u16.
 *
 * ```
 *  header  u8 type | u8 flags | u16 from | u16 origin | u16 0 | u32 serial | u32 sequence                                     16 bytes
 *  start   header, u32 remainingMs | u16 k | u16 ef | u16 leader | u16 primaries | u16 seeds | u8 settings[6],
 *          u16[primaries], (i32 vertex, f32 distance or NaN)[seeds], code of the query
 *  sync    header, f32 bound | u16 tops | u16 ids, (i32 vertex, f32 distance)[tops], i32 vertex[ids]
 *  ask     header, f32 bound | u16 ids, i32 vertex[ids], code of the query                              flags: 1 = neighbours
 *  reply   header, u16 pairs | u16 ids, (i32 vertex, f32 distance)[pairs], i32 vertex[ids]                flags: 1 = send the query, 2 = stolen
 *  token   header, u32 generation | i32 count | u16 lost, tally, u16[lost]                                         flags: 1 = black
 *  result  header, u8 reason | u8 0 | u16 missing | u16 pairs, tally, u16[missing], (i32 vertex, f32 distance)[pairs]
 *  tally   u32 computations | u32 pulled | u32 stolen | u32 list reads | u32 pushes | u32 messages | u32 bytes
 *  stop    header                                                                           flags: 1 = answer with what you have
 *  code    see message-bytes.ts
 * ```
 * `(origin, serial)` names the query. `sequence` numbers sync and token messages of one sender to one receiver, and is what an ask and
 * its reply have in common.
 *
 * Source: the message kinds of CoTra (arXiv 2507.06653). Divergence: a push names its vertices, 4 bytes each, since our adjacency
 * records hold no lists of remote groups that an offset could point at.
 */
import { SETTINGS_BYTES } from "./cotra-options.ts";
import { type CotraTally, TALLY_BYTES } from "./cotra-tally.ts";
import { codeLength, corrupt, MessageReader, MessageWriter, type Pairs } from "./message-bytes.ts";

export const MESSAGE = { START: 1, SYNC: 2, ASK: 3, REPLY: 4, TOKEN: 5, RESULT: 6, STOP: 7 } as const;
/** Flag of an ask: for the adjacency of its one vertex rather than for distances. */
export const ASK_NEIGHBOURS = 1;
/** Flag of a reply: the owner does not know the query; ask again with it. */
export const REPLY_NEEDS_QUERY = 1;
/** Flag of a reply: another worker than the owner has computed the distances. */
export const REPLY_STOLEN = 2;
const TOKEN_BLACK = 1;
/** Flag of a stop: answer with what was found so far. */
export const STOP_REPORT = 1;

const HEADER_BYTES = 16;
/** Why a result is not the whole answer. The number travels. */
export const REASONS = ["none", "ERR_WORKER_LOST", "ERR_TIMEOUT", "ERR_OVERLOADED"] as const;
export type Reason = (typeof REASONS)[number];

/** What every message carries. */
export interface Header {
  readonly from: number;
  readonly origin: number;
  readonly serial: number;
  readonly sequence: number;
}

export interface StartMessage extends Header {
  readonly type: typeof MESSAGE.START;
  readonly remainingMs: number;
  readonly k: number;
  readonly ef: number;
  readonly leader: number;
  readonly settings: Uint8Array;
  readonly primaries: readonly number[];
  /** Not a number where the distance is not known. */
  readonly seeds: Pairs;
  readonly query: Uint8Array;
}

export interface SyncMessage extends Header {
  readonly type: typeof MESSAGE.SYNC;
  readonly bound: number;
  readonly tops: Pairs;
  readonly ids: Int32Array;
}

export interface AskMessage extends Header {
  readonly type: typeof MESSAGE.ASK;
  readonly flags: number;
  readonly bound: number;
  readonly ids: Int32Array;
  /** Empty when the owner should know it. */
  readonly query: Uint8Array;
}

export interface ReplyMessage extends Header {
  readonly type: typeof MESSAGE.REPLY;
  readonly flags: number;
  readonly pairs: Pairs;
  readonly ids: Int32Array;
}

export interface TokenMessage extends Header {
  readonly type: typeof MESSAGE.TOKEN;
  readonly generation: number;
  readonly count: number;
  readonly black: boolean;
  readonly lost: readonly number[];
  /** Of the members that the token has visited. */
  readonly tally: CotraTally;
}

export interface ResultMessage extends Header {
  readonly type: typeof MESSAGE.RESULT;
  readonly reason: Reason;
  readonly missing: readonly number[];
  readonly hits: Pairs;
  readonly tally: CotraTally;
}

export interface StopMessage extends Header {
  readonly type: typeof MESSAGE.STOP;
  readonly flags: number;
}

export type CotraMessage =
  | StartMessage
  | SyncMessage
  | AskMessage
  | ReplyMessage
  | TokenMessage
  | ResultMessage
  | StopMessage;

/** Bytes of an encoded message. */
export function encodedBytes(message: CotraMessage): number {
  return HEADER_BYTES + bodyBytes(message);
}

/** Encodes a message into bytes of its own. @throws {ShardloomError} `ERR_RECORD_TOO_LARGE` for a list of more than 65,535 entries. */
export function encodeMessage(message: CotraMessage): Uint8Array<ArrayBuffer> {
  const out = new MessageWriter(encodedBytes(message));
  out.u8(message.type);
  out.u8(flagsOf(message));
  out.u16(message.from);
  out.u16(message.origin);
  out.u16(0);
  out.u32(message.serial);
  out.u32(message.sequence);
  writeBody(out, message);
  return out.bytes;
}

/**
 * Decodes one message; everything in it is a copy.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` naming the rule that the bytes break.
 */
export function decodeMessage(bytes: Uint8Array): CotraMessage {
  const reader = new MessageReader(bytes);
  const type = reader.u8();
  const flags = reader.u8();
  const from = reader.u16();
  const origin = reader.u16();
  if (reader.u16() !== 0) throw corrupt("the reserved word must be 0");
  const message = readBody(reader, type, flags, { from, origin, serial: reader.u32(), sequence: reader.u32() });
  reader.end();
  return message;
}

function flagsOf(message: CotraMessage): number {
  if (message.type === MESSAGE.TOKEN) return message.black ? TOKEN_BLACK : 0;
  return "flags" in message ? message.flags : 0;
}

function bodyBytes(message: CotraMessage): number {
  switch (message.type) {
    case MESSAGE.START:
      return 14 + SETTINGS_BYTES + message.primaries.length * 2 + pairsBytes(message.seeds) + codeLength(message.query);
    case MESSAGE.SYNC:
      return 8 + pairsBytes(message.tops) + message.ids.length * 4;
    case MESSAGE.ASK:
      return 6 + message.ids.length * 4 + codeLength(message.query);
    case MESSAGE.REPLY:
      return 4 + pairsBytes(message.pairs) + message.ids.length * 4;
    case MESSAGE.TOKEN:
      return 10 + TALLY_BYTES + message.lost.length * 2;
    case MESSAGE.RESULT:
      return 6 + TALLY_BYTES + message.missing.length * 2 + pairsBytes(message.hits);
    case MESSAGE.STOP:
      return 0;
  }
}

function pairsBytes(pairs: Pairs): number {
  return pairs.vertices.length * 8;
}

function writeBody(out: MessageWriter, message: CotraMessage): void {
  switch (message.type) {
    case MESSAGE.START:
      out.u32(message.remainingMs);
      for (const word of [message.k, message.ef, message.leader]) out.u16(word);
      out.count(message.primaries.length);
      out.count(message.seeds.vertices.length);
      out.raw(message.settings);
      out.peers(message.primaries);
      out.pairs(message.seeds);
      out.code(message.query);
      return;
    case MESSAGE.SYNC:
      out.f32(message.bound);
      out.count(message.tops.vertices.length);
      out.count(message.ids.length);
      out.pairs(message.tops);
      out.ids(message.ids);
      return;
    case MESSAGE.ASK:
      out.f32(message.bound);
      out.count(message.ids.length);
      out.ids(message.ids);
      out.code(message.query);
      return;
    case MESSAGE.REPLY:
      out.count(message.pairs.vertices.length);
      out.count(message.ids.length);
      out.pairs(message.pairs);
      out.ids(message.ids);
      return;
    case MESSAGE.TOKEN:
      out.u32(message.generation);
      out.i32(message.count);
      out.count(message.lost.length);
      out.tally(message.tally);
      out.peers(message.lost);
      return;
    case MESSAGE.RESULT:
      out.u8(REASONS.indexOf(message.reason));
      out.u8(0);
      out.count(message.missing.length);
      out.count(message.hits.vertices.length);
      out.tally(message.tally);
      out.peers(message.missing);
      out.pairs(message.hits);
      return;
    case MESSAGE.STOP:
      return;
  }
}

function readBody(reader: MessageReader, type: number, flags: number, header: Header): CotraMessage {
  switch (type) {
    case MESSAGE.START:
      noFlags(flags, 0);
      return readStart(reader, header);
    case MESSAGE.SYNC: {
      noFlags(flags, 0);
      const bound = reader.bound();
      const tops = reader.u16();
      const ids = reader.u16();
      return { type, ...header, bound, tops: reader.pairs(tops, false), ids: reader.ids(ids) };
    }
    case MESSAGE.ASK: {
      noFlags(flags, ASK_NEIGHBOURS);
      const bound = reader.bound();
      const ids = reader.u16();
      return { type, flags, ...header, bound, ids: reader.ids(ids), query: reader.code() };
    }
    case MESSAGE.REPLY: {
      noFlags(flags, REPLY_NEEDS_QUERY | REPLY_STOLEN);
      const pairs = reader.u16();
      const ids = reader.u16();
      return { type, flags, ...header, pairs: reader.pairs(pairs, false), ids: reader.ids(ids) };
    }
    case MESSAGE.TOKEN: {
      noFlags(flags, TOKEN_BLACK);
      const generation = reader.u32();
      const count = reader.i32();
      const lost = reader.u16();
      const tally = reader.tally();
      return { type, ...header, generation, count, black: flags === TOKEN_BLACK, lost: reader.peers(lost), tally };
    }
    case MESSAGE.RESULT:
      noFlags(flags, 0);
      return readResult(reader, header);
    case MESSAGE.STOP:
      return { type, flags: noFlags(flags, STOP_REPORT), ...header };
    default:
      throw corrupt(`the type must be one of the known ones: current value is ${type}`);
  }
}

function readStart(reader: MessageReader, header: Header): StartMessage {
  const remainingMs = reader.u32();
  const k = reader.u16();
  const ef = reader.u16();
  const leader = reader.u16();
  const primaryCount = reader.u16();
  const seedCount = reader.u16();
  const settings = reader.raw(SETTINGS_BYTES);
  const primaries = reader.peers(primaryCount);
  const seeds = reader.pairs(seedCount, true);
  const query = reader.code();
  if (settings.subarray(0, 3).includes(0)) throw corrupt("the groups and the sync period of a start must not be 0");
  if (k < 1 || ef < k) throw corrupt(`a start must have 1 ≤ k ≤ ef: current values are ${k}, ${ef}`);
  if (primaries[0] !== leader || new Set(primaries).size !== primaries.length)
    throw corrupt("the primaries of a start must be distinct and the leader their first");
  const type = MESSAGE.START;
  return { type, ...header, remainingMs, k, ef, leader, settings, primaries, seeds, query };
}

function readResult(reader: MessageReader, header: Header): ResultMessage {
  const reason = REASONS[reader.u8()];
  if (reason === undefined || reader.u8() !== 0) throw corrupt("the reason of a result must be a known one");
  const missing = reader.u16();
  const hits = reader.u16();
  const tally = reader.tally();
  const type = MESSAGE.RESULT;
  return { type, ...header, reason, missing: reader.peers(missing), hits: reader.pairs(hits, false), tally };
}

function noFlags(flags: number, known: number): number {
  if ((flags & ~known) !== 0) throw corrupt(`the flags must be known ones: current value is ${flags}`);
  return flags;
}
