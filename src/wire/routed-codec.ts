/**
 * What stands before the body of a planned request and of its reply: which vshards, how fresh, and what became of them.
 *
 * Little-endian, at an 8-aligned offset, a multiple of 8 long, so that the body stays 8-aligned. A read of all vshards and a complete
 * answer to one cost 8 bytes each.
 *
 * ```
 *  request  u8 consistency | u8 scope | u8 acks | u8 keyed | u16 vshards | u16 minima
 *           i32 part | i32 keyBytes, key (UTF-8), padding to 8                      (keyed writes only)
 *           f64 maxStalenessMs                                                      (bounded staleness only)
 *           u16 vshard[vshards] | u16 vshard[minima], padding to 8 | f64 lsn[minima]
 *  reply    u16 refused | u16 written | i32 stalenessMs, 2^31-1 when it is unknown or more
 *           (u16 vshard | u16 reason)[refused] | u16 vshard[written], padding to 8 | f64 lsn[written]
 * ```
 *
 * Invariant: writers trust their arguments; readers check every length and every value against the record before they use it, so no
 * mutated message reads outside its record (`ERR_CORRUPT`).
 */
import { ShardloomError } from "../errors.ts";

/** How fresh an answer must be; `WRITE` stands before writes. */
export const CONSISTENCY = { STRONG: 0, SESSION: 1, BOUNDED_STALENESS: 2, EVENTUAL: 3, WRITE: 4 } as const;
/** One of {@link CONSISTENCY}. */
export type ConsistencyCode = (typeof CONSISTENCY)[keyof typeof CONSISTENCY];

/** Which vshards a shard is to answer for: those that are listed, all whose primary it is, or all that it holds a copy of. */
export const SCOPE = { LISTED: 0, PRIMARY: 1, HELD: 2 } as const;
/** One of {@link SCOPE}. */
export type ScopeCode = (typeof SCOPE)[keyof typeof SCOPE];

/** Why a shard did not answer for a vshard. `SYNCING`: its copy is being filled; `BEHIND`: it has not applied a session's LSN. */
export const REFUSAL = { NOT_OWNER: 1, STALE: 2, BEHIND: 3, SYNCING: 4 } as const;
/** One of {@link REFUSAL}. */
export type RefusalCode = (typeof REFUSAL)[keyof typeof REFUSAL];

/** The prefix of a planned request. */
export interface RoutedRequest {
  readonly consistency: ConsistencyCode;
  readonly scope: ScopeCode;
  /** The vshards of {@link SCOPE.LISTED}, each once, in any order; at most 32768. */
  readonly vshards?: Uint16Array | undefined;
  /** How far a copy may lag, in ms, not negative; for {@link CONSISTENCY.BOUNDED_STALENESS}. @default 0 */
  readonly maxStalenessMs?: number | undefined;
  /** LSNs that a copy must have applied, for {@link CONSISTENCY.SESSION}: `lsns[i]` of vshard `vshards[i]`. Others are not asked for. */
  readonly minima?: LsnList | undefined;
  /** Copies that must have applied a write before it is answered, the primary counted; in [1, 16] for writes. @default 0 */
  readonly acks?: number | undefined;
  /** What makes a repetition of a write known. @default none */
  readonly key?: RoutedKey | undefined;
}

/** The key of an idempotent write. */
export interface RoutedKey {
  /** 1 to {@link MAX_KEY_BYTES} bytes of UTF-8. */
  readonly bytes: Uint8Array;
  /** Which part of its call the request is: items of one vshard that do not fit one request go in several parts. */
  readonly part: number;
}

/** LSNs by vshard. Shape: both arrays have the same length. */
export interface LsnList {
  readonly vshards: Uint16Array;
  readonly lsns: Float64Array;
}

/** The prefix of a reply to a planned request. */
export interface RoutedReply {
  /** Vshards that the answer leaves out, with the reason for each. */
  readonly refused: readonly RefusedVshard[];
  /** The LSN that each written vshard has come to, or that was shown to a session; none for other reads, and none where nothing is replicated. */
  readonly written: LsnList;
  /** How far what was answered may be behind the primaries, in ms; 0: nothing is missing, infinity: unknown. */
  readonly stalenessMs: number;
  /** Length of the prefix: the body follows it. */
  readonly byteLength: number;
}

/** A vshard that was not answered for. */
export interface RefusedVshard {
  readonly vshard: number;
  readonly reason: RefusalCode;
}

/** Views over the memory that a message lies in; all start at byte 0 of the same buffer. */
interface RoutedMemory {
  readonly i32: Int32Array;
  readonly f64: Float64Array;
}

/** Bytes of the prefix of a complete answer, and of a request for whole vshards at no particular freshness. */
export const ROUTED_HEADER_BYTES = 8;

/** Copies that a vshard can have, hence acknowledgements that can be waited for. */
const MAX_ACKS = 16;
const MAX_VSHARDS = 32_768;
/** Longest key of an idempotent write. */
export const MAX_KEY_BYTES = 256;
/** What a key can add to a prefix. */
export const MAX_KEY_PREFIX_BYTES: number = 8 + MAX_KEY_BYTES;
/** Bit of the fourth byte: a key follows the header. */
const KEYED = 1;
/** Staleness that is not known, or too much to be told. */
const STALENESS_UNKNOWN = 0x7fff_ffff;
const MAX_LSN = Number.MAX_SAFE_INTEGER;
const NO_LSNS: LsnList = { vshards: new Uint16Array(0), lsns: new Float64Array(0) };
const COMPLETE: RoutedReply = { refused: [], written: NO_LSNS, stalenessMs: 0, byteLength: ROUTED_HEADER_BYTES };

/** Bytes of a request's prefix, a multiple of 8. */
export function routedRequestBytes(request: RoutedRequest): number {
  const { consistency, vshards, minima, key } = request;
  return (
    keyBytesOf(key?.bytes.length ?? 0) + requestBytes(consistency, vshards?.length ?? 0, minima?.vshards.length ?? 0)
  );
}

/** Writes a request's prefix at a multiple of 8; the body follows after {@link routedRequestBytes}. */
export function writeRoutedRequest(memory: RoutedMemory, offset: number, request: RoutedRequest): void {
  const { i32, f64 } = memory;
  const { consistency, scope, vshards, minima, acks = 0, key } = request;
  const count = vshards?.length ?? 0;
  const minCount = minima?.vshards.length ?? 0;
  i32[offset >>> 2] = consistency | (scope << 8) | (acks << 16) | (key === undefined ? 0 : KEYED << 24);
  i32[(offset >>> 2) + 1] = count | (minCount << 16);
  let at = offset + ROUTED_HEADER_BYTES;
  if (key !== undefined) {
    i32[at >>> 2] = key.part;
    i32[(at >>> 2) + 1] = key.bytes.length;
    new Uint8Array(i32.buffer, at + 8, key.bytes.length).set(key.bytes);
    at += keyBytesOf(key.bytes.length);
  }
  if (consistency === CONSISTENCY.BOUNDED_STALENESS) {
    f64[at >>> 3] = request.maxStalenessMs ?? 0;
    at += 8;
  }
  if (count + minCount === 0) return;
  const halves = new HalfWriter(i32, at);
  for (let i = 0; i < count; i++) halves.write((vshards as Uint16Array)[i] as number);
  for (let i = 0; i < minCount; i++) halves.write((minima as LsnList).vshards[i] as number);
  if (minCount > 0) f64.set((minima as LsnList).lsns, halves.end() >>> 3);
  else halves.end();
}

/**
 * Reads the prefix of a request in place. One object for all requests: `open` refills it, and what it gives is valid while the
 * request is.
 */
export class RoutedReader {
  consistency: ConsistencyCode = CONSISTENCY.STRONG;
  scope: ScopeCode = SCOPE.HELD;
  acks = 0;
  maxStalenessMs = 0;
  /** Vshards that are listed. */
  count = 0;
  /** Vshards with an LSN that must have been applied. */
  minCount = 0;
  /** Length of the prefix. */
  byteLength = 0;
  /** Of an idempotent write; "" when it has none. */
  idempotencyKey = "";
  /** Which part of its call a write with a key is. */
  part = 0;
  #i32!: Int32Array;
  #f64!: Float64Array;
  #listAt = 0;
  #lsnsAt = 0;

  /** @throws {ShardloomError} `ERR_CORRUPT` when the record of `length` bytes at `offset` does not begin with a prefix. */
  open(memory: RoutedMemory, offset: number, length: number): this {
    if (length < ROUTED_HEADER_BYTES) throw corrupt("request", "byte length", length);
    const { i32, f64 } = memory;
    const first = i32[offset >>> 2] as number;
    const counts = i32[(offset >>> 2) + 1] as number;
    const consistency = first & 0xff;
    this.#i32 = i32;
    this.#f64 = f64;
    this.scope = ((first >>> 8) & 0xff) as ScopeCode;
    this.acks = (first >>> 16) & 0xff;
    const flags = first >>> 24;
    this.count = counts & 0xffff;
    this.minCount = counts >>> 16;
    this.#checkHeader(consistency, flags);
    this.consistency = consistency as ConsistencyCode;
    this.#listAt = offset + ROUTED_HEADER_BYTES;
    this.idempotencyKey = "";
    this.part = 0;
    if (flags === KEYED) this.#readKey(offset, length);
    const keyBytes = this.#listAt - offset - ROUTED_HEADER_BYTES;
    this.byteLength = keyBytes + requestBytes(consistency, this.count, this.minCount);
    if (this.byteLength > length) throw corrupt("request", "number of vshards", this.count + this.minCount);
    this.maxStalenessMs = 0;
    if (consistency === CONSISTENCY.BOUNDED_STALENESS) {
      this.maxStalenessMs = f64[this.#listAt >>> 3] as number;
      if (!(this.maxStalenessMs >= 0)) throw corrupt("request", "maxStalenessMs", this.maxStalenessMs);
      this.#listAt += 8;
    }
    this.#lsnsAt = align8(this.#listAt + 2 * (this.count + this.minCount));
    if (this.count + this.minCount > 0) this.#checkLists();
    return this;
  }

  /** The index-th listed vshard, below 32768. */
  vshard(index: number): number {
    return half(this.#i32, this.#listAt, index);
  }

  /** The index-th vshard with an LSN. */
  minVshard(index: number): number {
    return half(this.#i32, this.#listAt, this.count + index);
  }

  /** The LSN of the index-th vshard with one. */
  minLsn(index: number): number {
    return this.#f64[(this.#lsnsAt >>> 3) + index] as number;
  }

  #readKey(offset: number, length: number): void {
    const at = this.#listAt;
    if (at + 8 > offset + length) throw corrupt("request", "byte length", length);
    const keyBytes = this.#i32[(at >>> 2) + 1] as number;
    this.part = this.#i32[at >>> 2] as number;
    if (keyBytes < 1 || keyBytes > MAX_KEY_BYTES || at + keyBytesOf(keyBytes) > offset + length)
      throw corrupt("request", "length of idempotency key", keyBytes);
    if (this.part < 0) throw corrupt("request", "part", this.part);
    this.idempotencyKey = Buffer.from(this.#i32.buffer as ArrayBuffer, at + 8, keyBytes).toString("utf8");
    this.#listAt += keyBytesOf(keyBytes);
  }

  #checkHeader(consistency: number, flags: number): void {
    if (consistency > CONSISTENCY.WRITE) throw corrupt("request", "consistency", consistency);
    if (this.scope > SCOPE.HELD) throw corrupt("request", "scope", this.scope);
    const write = consistency === CONSISTENCY.WRITE;
    if (write ? this.acks < 1 || this.acks > MAX_ACKS : this.acks !== 0) throw corrupt("request", "acks", this.acks);
    if (flags !== 0 && !(write && flags === KEYED)) throw corrupt("request", "flags", flags);
    if (this.count > MAX_VSHARDS || (this.count > 0 && this.scope !== SCOPE.LISTED))
      throw corrupt("request", "number of vshards", this.count);
    if (this.minCount > MAX_VSHARDS || (this.minCount > 0 && consistency !== CONSISTENCY.SESSION))
      throw corrupt("request", "number of LSNs", this.minCount);
  }

  #checkLists(): void {
    for (let i = 0; i < this.count + this.minCount; i++) {
      const vshard = half(this.#i32, this.#listAt, i);
      if (vshard >= MAX_VSHARDS) throw corrupt("request", `vshard ${i}`, vshard);
    }
    for (let i = 0; i < this.minCount; i++) {
      const lsn = this.minLsn(i);
      if (!isLsn(lsn)) throw corrupt("request", `LSN ${i}`, lsn);
    }
  }
}

/** Bytes of a reply's prefix, a multiple of 8. */
export function routedReplyBytes(refused: number, written: number): number {
  return ROUTED_HEADER_BYTES + align8(4 * refused + 2 * written) + 8 * written;
}

/** Writes a reply's prefix at a multiple of 8; the body follows after {@link routedReplyBytes}. */
export function writeRoutedReply(
  memory: RoutedMemory,
  offset: number,
  refused: readonly RefusedVshard[],
  written: LsnList | undefined,
  stalenessMs = 0,
): void {
  const { i32, f64 } = memory;
  const count = written?.vshards.length ?? 0;
  i32[offset >>> 2] = refused.length | (count << 16);
  i32[(offset >>> 2) + 1] = Math.min(STALENESS_UNKNOWN, Math.ceil(stalenessMs)); // never less than it is
  if (refused.length + count === 0) return;
  const halves = new HalfWriter(i32, offset + ROUTED_HEADER_BYTES);
  for (const { vshard, reason } of refused) {
    halves.write(vshard);
    halves.write(reason);
  }
  for (let i = 0; i < count; i++) halves.write((written as LsnList).vshards[i] as number);
  const lsnsAt = halves.end();
  if (written !== undefined) f64.set(written.lsns, lsnsAt >>> 3);
}

/**
 * Reads a reply's prefix; all it gives are copies. A complete answer costs no allocation.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` when the record of `length` bytes at `offset` does not begin with a prefix.
 */
export function readRoutedReply(memory: RoutedMemory, offset: number, length: number): RoutedReply {
  if (length < ROUTED_HEADER_BYTES) throw corrupt("reply", "byte length", length);
  const { i32, f64 } = memory;
  const counts = i32[offset >>> 2] as number;
  const told = i32[(offset >>> 2) + 1] as number;
  if (told < 0) throw corrupt("reply", "staleness", told);
  const stalenessMs = told === STALENESS_UNKNOWN ? Number.POSITIVE_INFINITY : told;
  if (counts === 0) return told === 0 ? COMPLETE : { ...COMPLETE, stalenessMs };
  const refusedCount = counts & 0xffff;
  const writtenCount = counts >>> 16;
  const byteLength = routedReplyBytes(refusedCount, writtenCount);
  if (refusedCount > MAX_VSHARDS || writtenCount > MAX_VSHARDS || byteLength > length)
    throw corrupt("reply", "number of vshards", refusedCount + writtenCount);
  const listAt = offset + ROUTED_HEADER_BYTES;
  const refused: RefusedVshard[] = [];
  for (let i = 0; i < refusedCount; i++) {
    const vshard = half(i32, listAt, 2 * i);
    const reason = half(i32, listAt, 2 * i + 1);
    if (vshard >= MAX_VSHARDS || reason < REFUSAL.NOT_OWNER || reason > REFUSAL.SYNCING)
      throw corrupt("reply", `refusal ${i}`, vshard);
    refused.push({ vshard, reason: reason as RefusalCode });
  }
  const lsnsAt = align8(listAt + 4 * refusedCount + 2 * writtenCount) >>> 3;
  const written = writtenCount === 0 ? NO_LSNS : emptyLsns(writtenCount);
  for (let i = 0; i < writtenCount; i++) {
    const vshard = half(i32, listAt, 2 * refusedCount + i);
    const lsn = f64[lsnsAt + i] as number;
    if (vshard >= MAX_VSHARDS || !isLsn(lsn)) throw corrupt("reply", `LSN ${i}`, lsn);
    written.vshards[i] = vshard;
    written.lsns[i] = lsn;
  }
  return { refused, written, stalenessMs, byteLength };
}

function emptyLsns(count: number): LsnList {
  return { vshards: new Uint16Array(count), lsns: new Float64Array(count) };
}

/** What a key of so many bytes adds to a prefix. */
function keyBytesOf(keyBytes: number): number {
  return keyBytes === 0 ? 0 : 8 + align8(keyBytes);
}

function requestBytes(consistency: number, count: number, minCount: number): number {
  const staleness = consistency === CONSISTENCY.BOUNDED_STALENESS ? 8 : 0;
  return ROUTED_HEADER_BYTES + staleness + align8(2 * (count + minCount)) + 8 * minCount;
}

/** Writes u16 values one after the other through an int32 view. */
class HalfWriter {
  readonly #i32: Int32Array;
  readonly #start: number;
  #count = 0;

  constructor(i32: Int32Array, offset: number) {
    this.#i32 = i32;
    this.#start = offset >>> 2;
  }

  write(value: number): void {
    const word = this.#start + (this.#count >>> 1);
    if (this.#count++ & 1) this.#i32[word] = (this.#i32[word] as number) | (value << 16);
    else this.#i32[word] = value;
  }

  /** Fills up to a multiple of 8 with zeros, and gives the offset there. */
  end(): number {
    while (this.#count & 3) this.write(0);
    return (this.#start + (this.#count >>> 1)) << 2;
  }
}

function half(i32: Int32Array, offset: number, index: number): number {
  return ((i32[(offset >>> 2) + (index >>> 1)] as number) >>> ((index & 1) << 4)) & 0xffff;
}

function align8(bytes: number): number {
  return (bytes + 7) & ~7;
}

function isLsn(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= MAX_LSN;
}

function corrupt(kind: string, name: string, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot decode planned ${kind} as ${name} must fit its record: current value is ${value}`,
    { details: { kind, name, value } },
  );
}
