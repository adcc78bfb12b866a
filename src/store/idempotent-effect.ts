/**
 * Keys of idempotent writes as bytes: a key with what its write did to one vshard, alone, or before the effect that it belongs to.
 *
 * Little-endian, at an 8-aligned offset, a multiple of 8 long.
 *
 * ```
 *  key      i32 type | i32 collection | i32 part | i32 keyBytes | i32 items | i32 changed | f64 timeMs, key (UTF-8), padding to 8
 *  keys     key, key, …                          IDEMPOTENCY_KEYS: a part of a snapshot; timeMs is the age
 *  write    key, body of the effect or nothing   IDEMPOTENT_WRITE: the effect of a write with a key; `type` is that of the effect inside
 * ```
 *
 * Invariant: key and effect are one effect with one LSN, so that no log, copy or snapshot has one without the other.
 */
import { ShardloomError } from "../errors.ts";
import { bufferOver } from "./id-codec.ts";
import { MAX_IDEMPOTENCY_KEY_BYTES } from "./log.ts";

/** What a write did to one vshard, for the answer that its repetition gets. */
export interface WriteResult {
  /** Documents or ids that the write had for the vshard. */
  readonly items: number;
  /** Of these, how many were new (upsert) or were there (delete). */
  readonly changed: number;
}

/** A key as one vshard knows it. */
export interface KeyEntry extends WriteResult {
  /** Message type of the write. Another type, collection or part of a call is another write, whatever its key. */
  readonly type: number;
  readonly collection: number;
  readonly part: number;
  readonly key: string;
  /** When it was taken in, or how long ago. */
  readonly timeMs: number;
}

/** Views over the memory that a key lies in; all start at byte 0 of the same buffer. */
export interface KeyMemory {
  readonly bytes: Uint8Array;
  readonly i32: Int32Array;
  readonly f64: Float64Array;
}

const HEADER = 32;

/** The most that a key adds to an effect. */
export const MAX_KEY_ENTRY_BYTES: number = HEADER + MAX_IDEMPOTENCY_KEY_BYTES;

export function keyEntryBytes({ key }: { readonly key: string }): number {
  return HEADER + pad(Buffer.byteLength(key, "utf8"));
}

/** @returns the offset behind it */
export function writeKeyEntry({ bytes, i32, f64 }: KeyMemory, at: number, entry: KeyEntry): number {
  const { type, collection, part, key, items, changed, timeMs } = entry;
  const keyBytes = bufferOver(bytes).write(key, at + HEADER, "utf8");
  i32.set([type, collection, part, keyBytes, items, changed], at >>> 2);
  f64[(at >>> 3) + 3] = timeMs;
  return at + HEADER + pad(keyBytes);
}

/** @throws {ShardloomError} `ERR_CORRUPT` when there is no key between `at` and `limit`. */
export function readKeyEntry(m: KeyMemory, at: number, limit: number): KeyEntry & { readonly end: number } {
  if (at + HEADER > limit) throw corrupt("length", limit - at);
  const word = (index: number): number => m.i32[(at >>> 2) + index] as number;
  const keyBytes = word(3);
  if (keyBytes < 1 || keyBytes > MAX_IDEMPOTENCY_KEY_BYTES || at + HEADER + pad(keyBytes) > limit)
    throw corrupt("length of its key", keyBytes);
  const timeMs = m.f64[(at >>> 3) + 3] as number;
  if (!Number.isFinite(timeMs)) throw corrupt("time", timeMs);
  return {
    type: word(0),
    collection: word(1),
    part: word(2),
    key: bufferOver(m.bytes).toString("utf8", at + HEADER, at + HEADER + keyBytes),
    items: word(4),
    changed: word(5),
    timeMs,
    end: at + HEADER + pad(keyBytes),
  };
}

/** The effect of a write with a key: `body` is the effect without it, empty when the write changes nothing in its vshard. */
export function idempotentEffect(entry: KeyEntry, body: Uint8Array): Uint8Array {
  const before = keyEntryBytes(entry);
  const bytes = new Uint8Array(pad(before + body.length));
  writeKeyEntry(viewsOf(bytes), 0, entry);
  bytes.set(body, before);
  return bytes.subarray(0, before + body.length);
}

/** Views of a buffer of its own. */
export function viewsOf(bytes: Uint8Array): KeyMemory {
  return { bytes, i32: new Int32Array(bytes.buffer), f64: new Float64Array(bytes.buffer) };
}

function pad(bytes: number): number {
  return (bytes + 7) & ~7;
}

function corrupt(name: string, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot decode idempotency key as its ${name} must fit its record: current value is ${value}`,
    { details: { name, value } },
  );
}
