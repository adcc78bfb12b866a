/**
 * Memory layout of one single-producer single-consumer ring: offsets, sizes, record framing and checks; no behaviour.
 *
 * Invariant: all mutable shared state of a ring lies here, in the buffer; cursors are free-running int32 positions
 * (index = position & (capacity - 1)), so a ring holds at most 2^30 bytes and needs no wasted slot.
 * Source: Thompson, agrona `RecordDescriptor` / `RingBufferDescriptor`, for the idea of a descriptor file.
 * Divergence: only the size word *after* the last published record is cleared, by the producer and before it publishes,
 * so that consuming writes nothing but the head; the type word carries a 16-bit check over type, length and position, so
 * that a damaged or stale header poisons the ring and is not followed.
 *
 * ```
 * ring     | header line | producer line | consumer line | capacityBytes of records ...
 * bytes      128           128             128
 *
 * record     0                   4                   8
 *          +-------------------+---------+---------+--------------------------+
 *          | int32 size        | type 16 | check 16| payload, padded to 8     |
 *          +-------------------+---------+---------+--------------------------+
 *            size = 8 + payload bytes; 0 = nothing published here yet
 * ```
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";

/** Returned when the ring has no space; it may have some at any later moment. */
export const INSUFFICIENT_CAPACITY = -1;
/** Returned when the ring was closed (for the consumer: and everything in it was consumed). */
export const RING_CLOSED = -2;
/** Returned when the consumer found a record that cannot be one; the ring never recovers. */
export const RING_POISONED = -3;

/** Two common 64-byte lines: adjacent-line prefetch pulls them in pairs. */
export const CACHE_LINE_BYTES = 128;
/** `"Ring"` as little-endian int32, so that a wrong buffer is noticed at once. */
export const RING_MAGIC = 0x676e6952;

// Header line: written at initialization, state bits afterwards (rarely).
export const MAGIC_OFFSET = 0;
export const CAPACITY_OFFSET = 4;
export const STATE_OFFSET = 8;
// Producer line: written by the producer only. The size words say how far the stream goes; the tail follows them and is
// looked at now and then only, to notice a size word that was lost.
export const TAIL_OFFSET: number = CACHE_LINE_BYTES;
export const PRODUCED_OFFSET: number = CACHE_LINE_BYTES + 8;
export const PUBLICATIONS_OFFSET: number = CACHE_LINE_BYTES + 16;
export const REFUSALS_OFFSET: number = CACHE_LINE_BYTES + 24;
// Consumer line: written by the consumer only.
export const HEAD_OFFSET: number = 2 * CACHE_LINE_BYTES;
export const CONSUMED_OFFSET: number = 2 * CACHE_LINE_BYTES + 8;
export const DRAINS_OFFSET: number = 2 * CACHE_LINE_BYTES + 16;

export const RING_HEADER_BYTES: number = 3 * CACHE_LINE_BYTES;

/** Bits of the state word; set with `Atomics.or`, never cleared. */
export const STATE_PRODUCER_CLOSED = 1;
export const STATE_CONSUMER_CLOSED = 2;
export const STATE_POISONED = 4;

export const RECORD_HEADER_BYTES = 8;
export const RECORD_ALIGNMENT_BYTES = 8;
/** Type of the filler before the wrap; never handed out. */
export const PADDING_TYPE = 0;
export const MAX_RECORD_TYPE = 0xffff;

export const MIN_CAPACITY_BYTES = 64;
export const MAX_CAPACITY_BYTES: number = 2 ** 30;

const CHECK_MULTIPLIER = 0x9e3779b1 | 0;

/** The size word of the next record, zero until it is published, must have room too. */
export const NEXT_HEADER_BYTES: number = RECORD_HEADER_BYTES;

/** Bytes a record takes in the ring: header, payload and padding to 8. */
export function recordBytes(lengthBytes: number): number {
  return (lengthBytes + RECORD_HEADER_BYTES + RECORD_ALIGNMENT_BYTES - 1) & -RECORD_ALIGNMENT_BYTES;
}

/** The second header word: type above, 16 check bits over type, length and position below. */
export function typeWord(type: number, lengthBytes: number, position: number): number {
  return (type << 16) | ((type ^ (Math.imul(lengthBytes ^ position, CHECK_MULTIPLIER) >>> 16)) & 0xffff);
}

/**
 * Whether a record may stand at `position`: what both sides ask of a header before they follow it.
 *
 * @param size The size word, not 0.
 * @param word The type word.
 */
export function isRecord(size: number, word: number, position: number, capacityBytes: number): boolean {
  const lengthBytes = size - RECORD_HEADER_BYTES;
  const end = (position & (capacityBytes - 1)) + recordBytes(lengthBytes);
  return (
    lengthBytes >= 0 &&
    lengthBytes <= maxPayloadBytesOf(capacityBytes) &&
    word === typeWord(word >>> 16, lengthBytes, position) &&
    end <= capacityBytes &&
    (word >>> 16 !== PADDING_TYPE || end === capacityBytes)
  );
}

/** The largest payload of a ring: with its padding at the wrap it must always fit an empty ring. */
export function maxPayloadBytesOf(capacityBytes: number): number {
  return (capacityBytes >> 2) - RECORD_HEADER_BYTES;
}

/**
 * Bytes that a ring takes in its buffer, header included; a multiple of 128.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a capacity that is no power of two in `[64, 2^30]`.
 */
export function ringByteLength(capacityBytes: number): number {
  checkCapacity(capacityBytes);
  return RING_HEADER_BYTES + Math.max(capacityBytes, CACHE_LINE_BYTES);
}

/**
 * Makes an empty ring at `byteOffset`. Called once by the creator, before any other thread knows of the ring.
 *
 * @param byteOffset Multiple of 128.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a bad capacity, offset, or a buffer that is too small.
 */
export function initializeRing(buffer: SharedArrayBuffer, byteOffset: number, capacityBytes: number): void {
  const byteLength = ringByteLength(capacityBytes);
  checkPlace("create ring", buffer, byteOffset, byteLength);
  new Uint8Array(buffer, byteOffset, RING_HEADER_BYTES + RECORD_HEADER_BYTES).fill(0); // nothing published at position 0
  const words = new Int32Array(buffer, byteOffset, RING_HEADER_BYTES >> 2);
  words[CAPACITY_OFFSET >> 2] = capacityBytes;
  Atomics.store(words, MAGIC_OFFSET >> 2, RING_MAGIC); // publishes the header
}

/** Checks that a ring lies at `byteOffset` and returns its capacity. */
export function openRing(buffer: SharedArrayBuffer, byteOffset: number): number {
  checkPlace("open ring", buffer, byteOffset, RING_HEADER_BYTES);
  const words = new Int32Array(buffer, byteOffset, RING_HEADER_BYTES >> 2);
  if (Atomics.load(words, MAGIC_OFFSET >> 2) !== RING_MAGIC) {
    // acquires the header
    throw new ShardloomError(
      "ERR_CORRUPT",
      `Cannot open ring as no ring was initialized at byteOffset: current value is ${byteOffset}`,
      {
        details: { byteOffset },
      },
    );
  }
  const capacityBytes = words[CAPACITY_OFFSET >> 2] as number;
  checkPlace("open ring", buffer, byteOffset, ringByteLength(capacityBytes));
  return capacityBytes;
}

function checkCapacity(capacityBytes: number): void {
  const valid =
    Number.isInteger(capacityBytes) &&
    capacityBytes >= MIN_CAPACITY_BYTES &&
    capacityBytes <= MAX_CAPACITY_BYTES &&
    (capacityBytes & (capacityBytes - 1)) === 0;
  if (!valid) {
    throw invalidArgument(
      "create ring",
      "capacityBytes",
      `a power of two in [${MIN_CAPACITY_BYTES}, ${MAX_CAPACITY_BYTES}]`,
      capacityBytes,
    );
  }
}

function checkPlace(action: string, buffer: SharedArrayBuffer, byteOffset: number, byteLength: number): void {
  if (!Number.isInteger(byteOffset) || byteOffset < 0 || byteOffset % CACHE_LINE_BYTES !== 0) {
    throw invalidArgument(action, "byteOffset", `a multiple of ${CACHE_LINE_BYTES}`, byteOffset);
  }
  if (!(byteOffset + byteLength <= buffer.byteLength) || byteOffset + byteLength > 2 ** 31) {
    throw invalidArgument(
      action,
      "buffer.byteLength",
      `at least ${byteOffset + byteLength} and the ring below 2^31`,
      buffer.byteLength,
    );
  }
}
