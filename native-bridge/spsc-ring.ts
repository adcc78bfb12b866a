/**
 * Single-producer single-consumer ring of variable-size records in shared memory: the algorithm over `ring-layout.ts`.
 *
 * Invariants: only the producer moves the tail, only the consumer the head; `0 <= tail - head <= capacity`; bytes between
 * head and tail belong to the consumer, all others to the producer. A record is visible once the tail passed it.
 * Source: Lamport 1977; Thompson, agrona OneToOneRingBuffer (claim / commit); rtrb and Rigtorp (cached opposite cursor).
 * Divergence: `Atomics.store` is sequentially consistent (there is no release store in JavaScript) and costs more than the
 * rest of a message, so publication is batched while the consumer is behind and prompt when it has caught up. Whoever
 * commits must therefore flush() when it has nothing more to send for now.
 * Plain reads of the opposite cursor or of the state word are hints only; what a decision rests on is loaded atomically.
 */
import { ShardloomError, invalidArgument } from "../src/errors.ts";
import { type RingCounters, readCounters } from "./ring-consumer.ts";
import {
  HEAD_OFFSET,
  INSUFFICIENT_CAPACITY,
  MAX_RECORD_TYPE,
  PADDING_TYPE,
  PRODUCED_OFFSET,
  RECORD_HEADER_BYTES,
  REFUSALS_OFFSET,
  RING_CLOSED,
  RING_HEADER_BYTES,
  RING_POISONED,
  STATE_OFFSET,
  STATE_POISONED,
  STATE_PRODUCER_CLOSED,
  TAIL_OFFSET,
  maxPayloadBytesOf,
  openRing,
  recordBytes,
  typeWord,
} from "./ring-layout.ts";

export { RingConsumer, type RecordHandler, type RingCounters } from "./ring-consumer.ts";
export { INSUFFICIENT_CAPACITY, RING_CLOSED, RING_POISONED, initializeRing, ringByteLength } from "./ring-layout.ts";

/** How a producer publishes. */
export interface RingProducerOptions {
  /** Records that may be committed before they become visible while the consumer is behind; 1 publishes each. @default 32 */
  readonly publishBatchMessages?: number;
}

const DEFAULT_PUBLISH_BATCH_MESSAGES = 32;
const NO_CLAIM = -1;

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
  readonly #tailIndex: number;
  readonly #headIndex: number;
  readonly #stateIndex: number;
  readonly #countersIndex: number;
  readonly #refusalsIndex: number;
  /** End of what is committed; ahead of #published by the records that are not visible yet. */
  #tail: number;
  #published: number;
  /** Last head seen: the consumer may be further, never behind. */
  #cachedHead: number;
  /** Up to here the ring is free and does not wrap, seen from #tail: the fast path of a claim is one comparison. */
  #safeEnd: number;
  #claimOffset: number = NO_CLAIM;
  #claimStart: number = 0;
  #claimEnd: number = 0;
  #pending: number = 0;
  /** Pending records at which commit looks whether to publish. Doubles while a burst lasts, 1 again after flush. */
  #lookAt: number = 1;

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
    this.#tailIndex = (byteOffset + TAIL_OFFSET) >> 2;
    this.#headIndex = (byteOffset + HEAD_OFFSET) >> 2;
    this.#stateIndex = (byteOffset + STATE_OFFSET) >> 2;
    this.#countersIndex = (byteOffset + PRODUCED_OFFSET) >> 3;
    this.#refusalsIndex = (byteOffset + REFUSALS_OFFSET) >> 3;
    this.#tail = Atomics.load(this.i32, this.#tailIndex);
    this.#published = this.#tail;
    this.#cachedHead = Atomics.load(this.i32, this.#headIndex); // acquires the space before it
    this.#safeEnd = this.#tail;
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
    if (lengthBytes >>> 0 > this.maxPayloadBytes || (lengthBytes | 0) !== lengthBytes) throw this.#badLength(lengthBytes);
    if ((type - 1) >>> 0 >= MAX_RECORD_TYPE || (type | 0) !== type) throw invalidArgument("claim record", "type", `an integer in [1, ${MAX_RECORD_TYPE}]`, type);
    if (i32[this.#stateIndex] !== 0) return this.#closedCode();
    const size = recordBytes(lengthBytes);
    let start = this.#tail;
    if (((this.#safeEnd - start) | 0) < size) {
      if (!this.#makeRoom(size)) return INSUFFICIENT_CAPACITY;
      start = this.#claimStart;
    }
    const at = this.#base + (start & this.#mask);
    i32[at >> 2] = lengthBytes;
    i32[(at >> 2) + 1] = typeWord(type, lengthBytes, start);
    this.#claimEnd = (start + size) | 0;
    this.#claimOffset = at + RECORD_HEADER_BYTES;
    return this.#claimOffset;
  }

  /**
   * Makes the claimed record part of the stream: visible at once when it starts a burst (first after a flush), or when
   * the consumer has caught up; else with its batch or the next flush().
   */
  commit(offset: number): void {
    if (offset !== this.#claimOffset) throw this.#badClaim(offset);
    this.#claimOffset = NO_CLAIM;
    this.#tail = this.#claimEnd;
    this.#pending = (this.#pending + 1) | 0;
    if (this.#pending >= this.#lookAt) this.#look();
  }

  /** Gives a claim back; nothing of it is ever visible and no space is lost. */
  abort(offset: number): void {
    if (offset !== this.#claimOffset) throw this.#badClaim(offset);
    this.#claimOffset = NO_CLAIM;
  }

  /** Publishes whatever is committed; true when something new became visible. */
  flush(): boolean {
    this.#lookAt = 1;
    if (this.#pending === 0) return false;
    this.#publish();
    return true;
  }

  /** No more records: publishes what is committed; the consumer gets `RING_CLOSED` after the last one. Idempotent. */
  close(): void {
    this.#claimOffset = NO_CLAIM;
    this.flush();
    Atomics.or(this.i32, this.#stateIndex, STATE_PRODUCER_CLOSED); // publishes the end, after the tail
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

  #look(): void {
    // The first record of a burst goes at once without a look: reading the head would take its line from the consumer.
    if (this.#lookAt === 1 || this.i32[this.#headIndex] === this.#published) {
      this.#publish();
      // A stream that outruns its consumer's wake-up must not fall into one publication a message.
      this.#lookAt = Math.min(this.#lookAt << 1, this.#batch);
    } else if (this.#pending >= this.#batch) {
      this.#publish();
      this.#lookAt = this.#batch;
    } else {
      this.#lookAt = Math.min((this.#pending << 1) | 0, this.#batch);
    }
  }

  #publish(): void {
    const f64 = this.f64;
    const counters = this.#countersIndex;
    f64[counters] = (f64[counters] as number) + this.#pending;
    f64[counters + 1] = (f64[counters + 1] as number) + 1;
    this.#pending = 0;
    this.#published = this.#tail;
    Atomics.store(this.i32, this.#tailIndex, this.#tail); // publishes every record before the tail
  }

  /** Finds where a record of `size` bytes may start: at the tail, or behind padding at the wrap. */
  #makeRoom(size: number): boolean {
    const tail = this.#tail;
    const untilWrap = this.capacityBytes - (tail & this.#mask);
    const needed = size > untilWrap ? (size + untilWrap) | 0 : size;
    if (this.capacityBytes - ((tail - this.#cachedHead) | 0) < needed) {
      this.#cachedHead = Atomics.load(this.i32, this.#headIndex); // acquires the space before it
      if (this.capacityBytes - ((tail - this.#cachedHead) | 0) < needed) {
        this.f64[this.#refusalsIndex] = (this.f64[this.#refusalsIndex] as number) + 1;
        if (this.#pending !== 0) this.#publish();
        return false;
      }
    }
    if (size > untilWrap) {
      const at = (this.#base + (tail & this.#mask)) >> 2;
      this.i32[at] = untilWrap - RECORD_HEADER_BYTES;
      this.i32[at + 1] = typeWord(PADDING_TYPE, untilWrap - RECORD_HEADER_BYTES, tail);
      this.#claimStart = (tail + untilWrap) | 0;
      this.#safeEnd = tail; // the tail is still before the wrap, and stays there if this claim is given back
      return true;
    }
    const free = this.capacityBytes - ((tail - this.#cachedHead) | 0);
    this.#claimStart = tail;
    this.#safeEnd = (tail + Math.min(free, untilWrap)) | 0;
    return true;
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
    return invalidArgument("end claim", "offset", this.#claimOffset === NO_CLAIM ? "one of an open claim" : `${this.#claimOffset}`, offset);
  }
}
