/**
 * Single-producer single-consumer ring of variable-size records in shared memory: the algorithm over `ring-layout.ts`.
 *
 * Invariants: the stream ends at the first size word that is 0, and the one after the last published record is 0 before
 * that record is published; so its room is part of every claim (`tail + 8 - head <= capacity`). Of a batch only the first
 * size word is held back: storing it makes the whole batch visible at once, and nothing of it before. Bytes between head
 * and the end of the stream belong to the consumer, all others to the producer.
 * Source: Lamport 1977; Thompson, agrona OneToOneRingBuffer (publication by the record's own header); rtrb (cached head).
 * Divergence: no shared tail, to wait for, so a message costs one cache line fewer; publication is batched while a burst lasts (1, 2, 4,
 * ... records) and prompt for its first record. Whoever commits must therefore flush() when it has nothing more to send.
 * Order: release and acquire (memory-order.ts). Who publishes and then looks whether somebody sleeps needs a full fence in
 * between; Doorbell.ring() has it.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import { storeRelease } from "./memory-order.ts";
import { type RingCounters, readCounters } from "./ring-consumer.ts";
import {
  HEAD_OFFSET,
  INSUFFICIENT_CAPACITY,
  isRecord,
  MAX_RECORD_TYPE,
  maxPayloadBytesOf,
  NEXT_HEADER_BYTES,
  openRing,
  PADDING_TYPE,
  PRODUCED_OFFSET,
  RECORD_HEADER_BYTES,
  REFUSALS_OFFSET,
  RING_CLOSED,
  RING_HEADER_BYTES,
  RING_POISONED,
  recordBytes,
  STATE_OFFSET,
  STATE_POISONED,
  STATE_PRODUCER_CLOSED,
  TAIL_OFFSET,
  typeWord,
} from "./ring-layout.ts";

export { type RecordHandler, RingConsumer, type RingCounters } from "./ring-consumer.ts";
export { INSUFFICIENT_CAPACITY, initializeRing, RING_CLOSED, RING_POISONED, ringByteLength } from "./ring-layout.ts";

/** How a producer publishes. */
export interface RingProducerOptions {
  /** Records that may be committed before they become visible while the consumer is behind; 1 publishes each. @default 32 */
  readonly publishBatchMessages?: number;
}

const DEFAULT_PUBLISH_BATCH_MESSAGES = 32;
/** A batch is published at the latest when it holds `capacity >> PUBLISH_SHIFT` bytes. */
const PUBLISH_SHIFT = 3;
const NO_CLAIM = -1;
/** Free bytes that are taken from the consumer's cache at once, see {@link RingProducer} `#own`. */
const OWN_BYTES = 2048;
/** Larger records are written by copies, which take many lines at once by themselves. */
const OWN_RECORD_BYTES = 512;
const LINE_WORDS = 16;

/**
 * The writing side; one per ring at a time, on one thread. A new producer takes over where the last one published.
 *
 * @example Write in place
 * const offset = ring.tryClaim(ENVELOPE, 64);
 * if (offset >= 0) { encode(ring.bytes, offset); ring.commit(offset); }
 * ring.flush();
 */
export class RingProducer {
  readonly bytes: Uint8Array;
  readonly i32: Int32Array;
  readonly f32: Float32Array;
  readonly f64: Float64Array;
  readonly maxPayloadBytes: number;
  readonly capacityBytes: number;
  readonly #base: number;
  readonly #mask: number;
  readonly #batch: number;
  readonly #headIndex: number;
  readonly #tailIndex: number;
  readonly #stateIndex: number;
  readonly #countersIndex: number;
  readonly #refusalsIndex: number;
  /** End of what is committed; ahead of what is visible by the pending records. */
  #tail: number;
  /** Last head seen: the consumer may be further, never behind. */
  #cachedHead: number;
  /** Up to here the ring is free and does not wrap, seen from #tail: the fast path of a claim is one comparison. */
  #safeEnd: number;
  #claimOffset: number = NO_CLAIM;
  #claimEnd: number = 0;
  /** Size word of the open claim. */
  #claimSize: number = 0;
  /** Bytes of padding before the open claim, which is committed with it. */
  #claimPadding: number = 0;
  /** Committed records that are not visible: the size word of the first (or of its padding) is held back. */
  #pending: number = 0;
  #heldIndex: number = 0;
  #heldSize: number = 0;
  /** Pending records at which commit publishes. Doubles while a burst lasts, 1 again after flush. */
  #publishAt: number = 1;
  /** Position at which commit publishes whatever the number of records. */
  #publishEnd: number;

  constructor(buffer: SharedArrayBuffer, byteOffset: number = 0, options: RingProducerOptions = {}) {
    const batch = options.publishBatchMessages ?? DEFAULT_PUBLISH_BATCH_MESSAGES;
    if (!Number.isInteger(batch) || batch < 1 || batch > 65_536) {
      throw invalidArgument("open ring", "publishBatchMessages", "an integer in [1, 65536]", batch);
    }
    this.capacityBytes = openRing(buffer, byteOffset);
    this.maxPayloadBytes = maxPayloadBytesOf(this.capacityBytes);
    this.bytes = new Uint8Array(buffer);
    this.i32 = new Int32Array(buffer, 0, buffer.byteLength >> 2);
    this.f32 = new Float32Array(buffer, 0, buffer.byteLength >> 2);
    this.f64 = new Float64Array(buffer, 0, buffer.byteLength >> 3);
    this.#base = byteOffset + RING_HEADER_BYTES;
    this.#mask = this.capacityBytes - 1;
    this.#batch = batch;
    this.#headIndex = (byteOffset + HEAD_OFFSET) >> 2;
    this.#tailIndex = (byteOffset + TAIL_OFFSET) >> 2;
    this.#stateIndex = (byteOffset + STATE_OFFSET) >> 2;
    this.#countersIndex = (byteOffset + PRODUCED_OFFSET) >> 3;
    this.#refusalsIndex = (byteOffset + REFUSALS_OFFSET) >> 3;
    this.#cachedHead = Atomics.load(this.i32, this.#headIndex); // acquires the space before it
    this.#tail = this.#findEnd(this.#cachedHead);
    this.#safeEnd = this.#tail;
    this.#publishEnd = this.#tail;
  }

  /**
   * Claims space for one record at the tail. At most one claim is open: the next claim forgets one that was not committed.
   *
   * A full ring may stop being full at any moment; a ring with space keeps it until this producer claims again.
   * A refusal publishes what is pending, so that the consumer can make room.
   * Cost: O(1), no allocation; one atomic load of the head only when the cached head shows no space.
   *
   * @param type In `[1, 65535]`.
   * @param lengthBytes Payload length in bytes, in `[0, maxPayloadBytes]`.
   * @returns Byte offset of the payload (multiple of 8), or `INSUFFICIENT_CAPACITY`, `RING_CLOSED`, `RING_POISONED`.
   * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE`, `ERR_INVALID_ARGUMENT`.
   */
  tryClaim(type: number, lengthBytes: number): number {
    const i32 = this.i32;
    // One unsigned comparison each: negative, fractional and NaN arguments fail it or the identity with their int32.
    if (lengthBytes >>> 0 > this.maxPayloadBytes || (lengthBytes | 0) !== lengthBytes)
      throw this.#badLength(lengthBytes);
    if ((type - 1) >>> 0 >= MAX_RECORD_TYPE || (type | 0) !== type)
      throw invalidArgument("claim record", "type", `an integer in [1, ${MAX_RECORD_TYPE}]`, type);
    if (i32[this.#stateIndex] !== 0) return this.#closedCode();
    const bytes = recordBytes(lengthBytes);
    let start = this.#tail;
    if (((this.#safeEnd - start) | 0) < bytes) {
      if (!this.#makeRoom(bytes)) return INSUFFICIENT_CAPACITY;
      start = (start + this.#claimPadding) | 0;
    }
    const at = this.#base + (start & this.#mask);
    i32[(at >> 2) + 1] = typeWord(type, lengthBytes, start); // the size word follows at commit
    this.#claimSize = lengthBytes + RECORD_HEADER_BYTES;
    this.#claimEnd = (start + bytes) | 0;
    this.#claimOffset = at + RECORD_HEADER_BYTES;
    return this.#claimOffset;
  }

  /**
   * Makes the claimed record part of the stream: visible at once when it starts a burst (first after a flush); else with
   * its batch, which doubles while the burst lasts, or at the next flush().
   */
  commit(offset: number): void {
    if (offset !== this.#claimOffset) throw this.#badClaim(offset);
    this.#claimOffset = NO_CLAIM;
    const pending = this.#pending;
    if (this.#claimPadding !== 0) {
      this.#commitPadded(offset);
    } else if (pending === 0) {
      this.#heldIndex = (offset - RECORD_HEADER_BYTES) >> 2;
      this.#heldSize = this.#claimSize;
    } else {
      this.i32[(offset - RECORD_HEADER_BYTES) >> 2] = this.#claimSize; // published with the held size word
    }
    this.#tail = this.#claimEnd;
    this.#pending = (pending + 1) | 0;
    if (this.#pending >= this.#publishAt || ((this.#tail - this.#publishEnd) | 0) >= 0) {
      this.#publish();
      // A stream that outruns its consumer must not fall into one publication a message.
      this.#publishAt = Math.min(this.#publishAt << 1, this.#batch);
    }
  }

  /** Gives a claim back; nothing of it is ever visible and no space is lost. */
  abort(offset: number): void {
    if (offset !== this.#claimOffset) throw this.#badClaim(offset);
    this.#claimOffset = NO_CLAIM;
    this.#claimPadding = 0;
  }

  /**
   * Publishes whatever is committed; true when something new became visible. The records are visible before any later
   * store of this thread; before a later *load* only with a full fence, which Doorbell.ring() has.
   */
  flush(): boolean {
    this.#publishAt = 1;
    if (this.#pending === 0) return false;
    this.#publish();
    return true;
  }

  /** No more records: publishes what is committed; the consumer gets `RING_CLOSED` after the last one. Idempotent. */
  close(): void {
    this.#claimOffset = NO_CLAIM;
    this.flush();
    Atomics.or(this.i32, this.#stateIndex, STATE_PRODUCER_CLOSED); // publishes the end, after the last record
  }

  /** Bytes between the consumer's head and what is committed here. An upper bound: the consumer may be further already. */
  usedBytes(): number {
    this.#cachedHead = Atomics.load(this.i32, this.#headIndex); // acquires the space before it
    return (this.#tail - this.#cachedHead) | 0;
  }

  /** As {@link usedBytes} by the last head seen: no atomic load, and never too low. */
  usedBytesHint(): number {
    return (this.#tail - this.#cachedHead) | 0;
  }

  /** `0` while records may be sent, else `RING_CLOSED` or `RING_POISONED`. */
  status(): number {
    return Atomics.load(this.i32, this.#stateIndex) === 0 ? 0 : this.#closedCode();
  }

  counters(): RingCounters {
    return readCounters(this.f64, this.#countersIndex);
  }

  #publish(): void {
    const i32 = this.i32;
    const f64 = this.f64;
    const counters = this.#countersIndex;
    f64[counters] = (f64[counters] as number) + this.#pending;
    f64[counters + 1] = (f64[counters + 1] as number) + 1;
    this.#pending = 0;
    this.#publishEnd = (this.#tail + (this.capacityBytes >> PUBLISH_SHIFT)) | 0;
    i32[(this.#base + (this.#tail & this.#mask)) >> 2] = 0; // the stream ends here: visible before the record is
    storeRelease(i32, this.#heldIndex, this.#heldSize); // publishes the batch
    storeRelease(i32, this.#tailIndex, this.#tail); // after it: where the tail is ahead, a size word stands or was lost
  }

  /** Commits the padding before the wrap and the record behind it as one. */
  #commitPadded(offset: number): void {
    const i32 = this.i32;
    const at = (this.#base + (this.#tail & this.#mask)) >> 2;
    i32[(offset - RECORD_HEADER_BYTES) >> 2] = this.#claimSize;
    i32[at + 1] = typeWord(PADDING_TYPE, this.#claimPadding - RECORD_HEADER_BYTES, this.#tail);
    if (this.#pending === 0) {
      this.#heldIndex = at;
      this.#heldSize = this.#claimPadding;
    } else {
      i32[at] = this.#claimPadding;
    }
    this.#claimPadding = 0;
    this.#safeEnd = this.#claimEnd; // the next claim measures the new lap
  }

  /** Finds where a record of `bytes` bytes may start: at the tail, or behind padding at the wrap. */
  #makeRoom(bytes: number): boolean {
    const tail = this.#tail;
    const usableBytes = this.capacityBytes - NEXT_HEADER_BYTES;
    const untilWrap = this.capacityBytes - (tail & this.#mask);
    const needed = bytes > untilWrap ? (bytes + untilWrap) | 0 : bytes;
    this.#claimPadding = 0;
    if (usableBytes - ((tail - this.#cachedHead) | 0) < needed) {
      this.#cachedHead = Atomics.load(this.i32, this.#headIndex); // acquires the space before it
      if (usableBytes - ((tail - this.#cachedHead) | 0) < needed) {
        this.f64[this.#refusalsIndex] = (this.f64[this.#refusalsIndex] as number) + 1;
        if (this.#pending !== 0) this.#publish();
        return false;
      }
    }
    if (bytes > untilWrap) {
      this.#claimPadding = untilWrap;
      this.#safeEnd = tail; // the tail is still before the wrap, and stays there if this claim is given back
      return true;
    }
    const room = Math.min(usableBytes - ((tail - this.#cachedHead) | 0), untilWrap);
    this.#safeEnd =
      (tail + (bytes > OWN_RECORD_BYTES ? room : this.#own(tail, Math.min(room, Math.max(bytes, OWN_BYTES))))) | 0;
    return true;
  }

  /**
   * Takes the cache lines of free space from the consumer's core, all in one go: stores that miss overlap only if they
   * follow each other closely, and the stores of one record fill the store buffer. Halves the time of a stream.
   */
  #own(position: number, lengthBytes: number): number {
    const i32 = this.i32;
    const first = (this.#base + (position & this.#mask)) >> 2;
    const end = first + (lengthBytes >> 2);
    for (let word = first + LINE_WORDS - 1; word < end; word += LINE_WORDS) i32[word] = 0;
    return lengthBytes;
  }

  /** Where the published stream ends: what an earlier producer committed and did not publish is not part of it. */
  #findEnd(head: number): number {
    let end = head;
    while (((end - head) | 0) < this.capacityBytes) {
      const at = (this.#base + (end & this.#mask)) >> 2;
      const size = Atomics.load(this.i32, at); // acquires the record
      if (size === 0 || !isRecord(size, this.i32[at + 1] as number, end, this.capacityBytes)) break;
      end = (end + recordBytes(size - RECORD_HEADER_BYTES)) | 0;
    }
    return end;
  }

  #closedCode(): number {
    return (Atomics.load(this.i32, this.#stateIndex) & STATE_POISONED) !== 0 ? RING_POISONED : RING_CLOSED;
  }

  #badLength(lengthBytes: number): ShardloomError {
    if (Number.isInteger(lengthBytes) && lengthBytes > this.maxPayloadBytes) {
      return new ShardloomError(
        "ERR_RECORD_TOO_LARGE",
        `Cannot claim record as lengthBytes must be at most ${this.maxPayloadBytes}: current value is ${lengthBytes}`,
        { details: { lengthBytes, maxPayloadBytes: this.maxPayloadBytes } },
      );
    }
    return invalidArgument("claim record", "lengthBytes", `an integer in [0, ${this.maxPayloadBytes}]`, lengthBytes);
  }

  #badClaim(offset: number): ShardloomError {
    return invalidArgument(
      "end claim",
      "offset",
      this.#claimOffset === NO_CLAIM ? "one of an open claim" : `${this.#claimOffset}`,
      offset,
    );
  }
}
