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
import {
  CONSUMED_OFFSET,
  DRAINS_OFFSET,
  HEAD_OFFSET,
  INSUFFICIENT_CAPACITY,
  MAX_RECORD_TYPE,
  PADDING_TYPE,
  PRODUCED_OFFSET,
  PUBLICATIONS_OFFSET,
  RECORD_HEADER_BYTES,
  REFUSALS_OFFSET,
  RING_CLOSED,
  RING_HEADER_BYTES,
  RING_POISONED,
  STATE_CONSUMER_CLOSED,
  STATE_OFFSET,
  STATE_POISONED,
  STATE_PRODUCER_CLOSED,
  TAIL_OFFSET,
  maxPayloadBytesOf,
  openRing,
  recordBytes,
  typeWord,
} from "./ring-layout.ts";

export { INSUFFICIENT_CAPACITY, RING_CLOSED, RING_POISONED, initializeRing, ringByteLength } from "./ring-layout.ts";

/** Called once a record; the payload may be read during the call only. */
export type RecordHandler = (type: number, offset: number, lengthBytes: number) => void;

/** How a producer publishes. */
export interface RingProducerOptions {
  /** Records that may be committed before they become visible while the consumer is behind; 1 publishes each. @default 32 */
  readonly publishBatchMessages?: number;
}

/** Counters of one ring since it was initialized; each is written by one side. */
export interface RingCounters {
  readonly produced: number;
  readonly publications: number;
  /** Claims refused as the ring was full. */
  readonly refusals: number;
  readonly consumed: number;
  /** Drains that found at least one record. */
  readonly drains: number;
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
   * Makes the claimed record part of the stream: visible at once when the consumer has caught up and this is the start
   * of a burst, else with its batch or the next flush().
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
    if (this.i32[this.#headIndex] === this.#published) {
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

/** The reading side; one per ring at a time, on one thread. */
export class RingConsumer {
  readonly bytes: Uint8Array;
  readonly i32: Int32Array;
  readonly f32: Float32Array;
  readonly f64: Float64Array;
  readonly maxPayloadBytes: number;
  readonly capacityBytes: number;
  readonly #base: number;
  readonly #mask: number;
  readonly #tailIndex: number;
  readonly #headIndex: number;
  readonly #stateIndex: number;
  readonly #countersIndex: number;
  readonly #producerCountersIndex: number;
  #head: number;
  /** Last tail seen: the producer may be further, never behind. */
  #cachedTail: number;

  constructor(buffer: SharedArrayBuffer, byteOffset: number = 0) {
    this.capacityBytes = openRing(buffer, byteOffset);
    this.maxPayloadBytes = maxPayloadBytesOf(this.capacityBytes);
    this.bytes = new Uint8Array(buffer);
    this.i32 = new Int32Array(buffer, 0, buffer.byteLength >> 2);
    this.f32 = new Float32Array(buffer, 0, buffer.byteLength >> 2);
    this.f64 = new Float64Array(buffer, 0, buffer.byteLength >> 3);
    this.#base = byteOffset + RING_HEADER_BYTES;
    this.#mask = this.capacityBytes - 1;
    this.#tailIndex = (byteOffset + TAIL_OFFSET) >> 2;
    this.#headIndex = (byteOffset + HEAD_OFFSET) >> 2;
    this.#stateIndex = (byteOffset + STATE_OFFSET) >> 2;
    this.#countersIndex = (byteOffset + CONSUMED_OFFSET) >> 3;
    this.#producerCountersIndex = (byteOffset + PRODUCED_OFFSET) >> 3;
    this.#head = Atomics.load(this.i32, this.#headIndex);
    this.#cachedTail = this.#head;
  }

  /**
   * Hands up to `limit` records to `handler`, oldest first, then frees their space with one store.
   *
   * A handler that throws has consumed its record; the error propagates after the head is stored. Not re-entrant.
   * A header that cannot be one poisons the ring: the records before it were handled, none after it ever will be.
   * Cost: one atomic load and one atomic store a call, no allocation.
   *
   * @returns Records handled; when none: 0, or `RING_CLOSED` (closed and empty), or `RING_POISONED`.
   */
  drain(handler: RecordHandler, limit: number): number {
    const start = this.#head;
    if (!this.#refreshTail()) return this.#emptyCode();
    const i32 = this.i32;
    const base = this.#base;
    const mask = this.#mask;
    const maxPayloadBytes = this.maxPayloadBytes;
    const tail = this.#cachedTail;
    let head = start;
    let count = 0;
    try {
      while (head !== tail && count < limit) {
        const index = head & mask;
        const at = (base + index) >> 2;
        const lengthBytes = i32[at] as number;
        const word = i32[at + 1] as number;
        const type = word >>> 16;
        const size = recordBytes(lengthBytes);
        if (
          lengthBytes >>> 0 > maxPayloadBytes || // also negative ones
          word !== typeWord(type, lengthBytes, head) ||
          size > ((tail - head) | 0) ||
          index + size > mask + 1 ||
          (type === PADDING_TYPE && index + size !== mask + 1)
        ) {
          Atomics.or(i32, this.#stateIndex, STATE_POISONED); // publishes the poison
          break;
        }
        head = (head + size) | 0;
        if (type === PADDING_TYPE) continue;
        count = (count + 1) | 0;
        handler(type, base + index + RECORD_HEADER_BYTES, lengthBytes);
      }
    } finally {
      this.#release(head, count);
    }
    return count === 0 ? this.#emptyCode() : count;
  }

  /** Whether nothing is visible now; more may become visible at any moment. A poisoned ring counts as empty. */
  isEmpty(): boolean {
    return this.#head === Atomics.load(this.i32, this.#tailIndex) || (Atomics.load(this.i32, this.#stateIndex) & STATE_POISONED) !== 0;
  }

  /** Whether the next drain would return a negative code without handling anything. */
  isDone(): boolean {
    return this.#head === this.#cachedTail ? !this.#refreshTail() && this.#emptyCode() < 0 : (Atomics.load(this.i32, this.#stateIndex) & STATE_POISONED) !== 0;
  }

  /** The consumer takes no more: the producer's next claim returns `RING_CLOSED`. Idempotent. */
  close(): void {
    Atomics.or(this.i32, this.#stateIndex, STATE_CONSUMER_CLOSED); // publishes the end
  }

  counters(): RingCounters {
    return readCounters(this.f64, this.#producerCountersIndex);
  }

  /** Loads the tail; false when there is nothing, or nothing that may be read. */
  #refreshTail(): boolean {
    const tail = Atomics.load(this.i32, this.#tailIndex); // acquires every record before the tail
    const usedBytes = (tail - this.#head) | 0;
    // Only this side poisons, so a plain read sees it.
    if (usedBytes === 0 || ((this.i32[this.#stateIndex] as number) & STATE_POISONED) !== 0) return false;
    if (usedBytes >>> 0 > this.capacityBytes || (usedBytes & 7) !== 0) {
      Atomics.or(this.i32, this.#stateIndex, STATE_POISONED); // publishes the poison
      return false;
    }
    this.#cachedTail = tail;
    return true;
  }

  #release(head: number, count: number): void {
    const f64 = this.f64;
    const counters = this.#countersIndex;
    f64[counters] = (f64[counters] as number) + count;
    f64[counters + 1] = (f64[counters + 1] as number) + 1;
    this.#head = head;
    if ((this.i32[this.#stateIndex] as number) & STATE_POISONED) this.#cachedTail = head;
    Atomics.store(this.i32, this.#headIndex, head); // publishes the space before the head
  }

  #emptyCode(): number {
    const state = Atomics.load(this.i32, this.#stateIndex); // acquires the last tail, which was stored before the state
    if (state === 0) return 0;
    if ((state & STATE_POISONED) !== 0) return RING_POISONED;
    if ((state & STATE_PRODUCER_CLOSED) !== 0 && this.#head !== Atomics.load(this.i32, this.#tailIndex)) return 0;
    return RING_CLOSED;
  }
}

function readCounters(f64: Float64Array, producedIndex: number): RingCounters {
  const consumedIndex = producedIndex + ((CONSUMED_OFFSET - PRODUCED_OFFSET) >> 3);
  return {
    produced: f64[producedIndex] as number,
    publications: f64[producedIndex + ((PUBLICATIONS_OFFSET - PRODUCED_OFFSET) >> 3)] as number,
    refusals: f64[producedIndex + ((REFUSALS_OFFSET - PRODUCED_OFFSET) >> 3)] as number,
    consumed: f64[consumedIndex] as number,
    drains: f64[consumedIndex + ((DRAINS_OFFSET - CONSUMED_OFFSET) >> 3)] as number,
  };
}
