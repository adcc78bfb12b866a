/**
 * Messages of reads of registered memory, where that is another process's: a posted list of ranges there, statuses and bytes back.
 *
 * ```
 *  request   u32 ranges | u32 bytes that the reply may have, then for each range: f64 rkey | f64 address | f64 length |
 *            i32 generation | i32 kind of it (GENERATION) | u32 first byte wanted | u32 bytes wanted
 *  reply     u32 ranges | u32 0, then for each range: i32 status | u32 bytes given | i32 version high | i32 version low; then the bytes
 *            of all, in order, those of each padded with zeros to a multiple of 8
 * ```
 *
 * A range is a reference as the verbs take it, checked whole, whatever part of it is wanted. The version is that of its cell, 0 outside cells: parts
 * of one version are from one state of the cell. Fewer bytes than were wanted are given where the reply has no room for more.
 * Invariant: numbers of a reference cross as they are, also such as name nothing, so that a wrong reference ends in the status that it has where it is
 * local. Of what was received nothing is believed before its lengths were checked.
 */
import type { RegionRef } from "../native-bridge/region-layout.ts";
import { STATUS } from "../native-bridge/status.ts";
import { ShardloomError } from "../src/errors.ts";
import type { WireMemory } from "./engine.ts";

/** Ranges of one message at most. */
export const MAX_RANGES = 1024;
/** Bytes of one reply at most: a worker that copies them does little else meanwhile. */
export const MAX_READ_REPLY_BYTES = 65_536;
/** A reply has room for this much at least. */
export const LEAST_READ_REPLY_BYTES = 512;
export const READ_HEADER_BYTES = 8;
export const READ_RANGE_BYTES = 40;
export const READ_ENTRY_BYTES = 16;

/** A reference may have no generation, that of a cell, or one that no cell can have. */
const GENERATION = { NONE: 0, CELL: 1, NO_CELL: 2 } as const;

/** A part of a registered range. */
export interface WantedPart {
  readonly ref: RegionRef;
  readonly from: number;
  readonly take: number;
}

/** A request as the worker gets it. */
export interface ReadRequest {
  readonly parts: readonly WantedPart[];
  readonly mostBytes: number;
}

/** What became of a part. */
export interface ReadPart {
  readonly status: number;
  /** Version of the cell, high and low word. */
  readonly high: number;
  readonly low: number;
  /** In the reply's memory. */
  readonly offset: number;
  /** 0 unless the status is SUCCESS. */
  readonly length: number;
}

/** What a part takes in a reply, besides its entry. */
export function padded(bytes: number): number {
  return (bytes + 7) & ~7;
}

export function readRequestBytes(count: number): number {
  return READ_HEADER_BYTES + count * READ_RANGE_BYTES;
}

export function writeReadRequest(m: WireMemory, offset: number, { parts, mostBytes }: ReadRequest): void {
  m.i32[offset >>> 2] = parts.length;
  m.i32[(offset >>> 2) + 1] = mostBytes;
  let at = offset + READ_HEADER_BYTES;
  for (const { ref, from, take } of parts) {
    const double = at >>> 3;
    const word = (at >>> 2) + 6;
    m.f64[double] = numberOf(ref.rkey);
    m.f64[double + 1] = numberOf(ref.address);
    m.f64[double + 2] = numberOf(ref.length);
    const generation = numberOf(ref.generation) | 0;
    const kind = generation === ref.generation ? GENERATION.CELL : GENERATION.NO_CELL;
    m.i32[word] = generation;
    m.i32[word + 1] = ref.generation === undefined ? GENERATION.NONE : kind;
    m.i32[word + 2] = from;
    m.i32[word + 3] = take;
    at += READ_RANGE_BYTES;
  }
}

/** @throws {ShardloomError} `ERR_CORRUPT` */
export function readReadRequest(m: WireMemory & { readonly offset: number; readonly length: number }): ReadRequest {
  const { offset, length } = m;
  const count = length < READ_HEADER_BYTES ? 0 : u32(m, offset);
  if (count === 0 || count > MAX_RANGES || length !== readRequestBytes(count))
    throw corrupt("request", `${length} bytes must be of 1 to ${MAX_RANGES} ranges`, { length, count });
  const mostBytes = u32(m, offset + 4);
  if (mostBytes < LEAST_READ_REPLY_BYTES)
    throw corrupt("request", `its reply must have room for ${LEAST_READ_REPLY_BYTES} bytes`, { mostBytes });
  const parts: WantedPart[] = [];
  for (let at = offset + READ_HEADER_BYTES; parts.length < count; at += READ_RANGE_BYTES) {
    const double = at >>> 3;
    const word = (at >>> 2) + 6;
    const ref = {
      rkey: m.f64[double] as number,
      address: m.f64[double + 1] as number,
      length: m.f64[double + 2] as number,
    };
    const generation = m.i32[word] as number;
    const kind = m.i32[word + 1];
    const bound = { ...ref, generation: kind === GENERATION.CELL ? generation : Number.NaN };
    parts.push({ ref: kind === GENERATION.NONE ? ref : bound, from: u32(m, at + 32), take: u32(m, at + 36) });
  }
  return { parts, mostBytes };
}

/** Bytes of a reply to so many ranges, before those that were read. */
export function readReplyBytes(count: number): number {
  return READ_HEADER_BYTES + count * READ_ENTRY_BYTES;
}

/** @param parts With offsets in `bytes`, one behind the other and each padded, as they go out. @param total Bytes of all parts, padded. */
export function writeReadReply(
  m: WireMemory,
  offset: number,
  parts: readonly ReadPart[],
  bytes: Uint8Array,
  total: number,
): void {
  m.i32[offset >>> 2] = parts.length;
  m.i32[(offset >>> 2) + 1] = 0;
  let word = (offset + READ_HEADER_BYTES) >>> 2;
  for (const { status, length, high, low } of parts) {
    m.i32[word] = status;
    m.i32[word + 1] = length;
    m.i32[word + 2] = high;
    m.i32[word + 3] = low;
    word += READ_ENTRY_BYTES >>> 2;
  }
  m.bytes.set(bytes.subarray(0, total), word << 2);
}

/** @param wanted What was asked for. @throws {ShardloomError} `ERR_CORRUPT` */
export function readReadReply(
  m: WireMemory & { readonly offset: number; readonly length: number },
  wanted: readonly WantedPart[],
): ReadPart[] {
  const { offset, length } = m;
  const count = length < READ_HEADER_BYTES ? 0 : u32(m, offset);
  if (count !== wanted.length || length < readReplyBytes(count))
    throw corrupt("reply", `it must be of ${wanted.length} ranges`, { length, count });
  let at = offset + readReplyBytes(count);
  const parts = wanted.map(({ take }, index): ReadPart => {
    const entry = offset + READ_HEADER_BYTES + index * READ_ENTRY_BYTES;
    const [status, given] = [u32(m, entry), u32(m, entry + 4)];
    if (status > STATUS.INVALID_REQUEST || given > (status === STATUS.SUCCESS ? take : 0))
      throw corrupt("reply", "it must have a status and no more bytes than were asked for", { status, given, take });
    const part = { status, length: given, high: u32(m, entry + 8), low: u32(m, entry + 12), offset: at };
    at += padded(given);
    return part;
  });
  if (at !== offset + length) throw corrupt("reply", "it must end with its ranges", { length, end: at - offset });
  return parts;
}

function u32(m: WireMemory, offset: number): number {
  return (m.i32[offset >>> 2] as number) >>> 0;
}

/** What is no number names nothing. */
function numberOf(value: unknown): number {
  return typeof value === "number" ? value : Number.NaN;
}

function corrupt(what: string, rule: string, details: Readonly<Record<string, number>>): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot decode ${what} of a memory read as ${rule}`, { details });
}
