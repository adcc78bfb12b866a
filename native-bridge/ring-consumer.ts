/**
 * The reading side of a ring: see `spsc-ring.ts` for the algorithm, its source and its invariants.
 *
 * Invariant: only the consumer moves the head, and it never reads beyond the tail it has acquired; a header that cannot be
 * one poisons the ring for good. The consumer alone sets the poison bit.
 */
import {
  CONSUMED_OFFSET,
  DRAINS_OFFSET,
  HEAD_OFFSET,
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

/** Called once a record; the payload may be read during the call only. */
export type RecordHandler = (type: number, offset: number, lengthBytes: number) => void;

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
    // The next address must not depend on a load that misses: records of one size are taken as predicted by a branch, so
    // that the processor fetches the following ones meanwhile.
    let usualBytes = 0;
    let usualSize = recordBytes(0);
    try {
      while (head !== tail && count < limit) {
        const index = head & mask;
        const at = (base + index) >> 2;
        const lengthBytes = i32[at] as number;
        const word = i32[at + 1] as number;
        const type = word >>> 16;
        if (lengthBytes !== usualBytes) {
          usualBytes = lengthBytes;
          usualSize = recordBytes(lengthBytes);
        }
        const size = usualSize;
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

/** Reads the counters of a ring whose produced count lies at `producedIndex`. */
export function readCounters(f64: Float64Array, producedIndex: number): RingCounters {
  const consumedIndex = producedIndex + ((CONSUMED_OFFSET - PRODUCED_OFFSET) >> 3);
  return {
    produced: f64[producedIndex] as number,
    publications: f64[producedIndex + ((PUBLICATIONS_OFFSET - PRODUCED_OFFSET) >> 3)] as number,
    refusals: f64[producedIndex + ((REFUSALS_OFFSET - PRODUCED_OFFSET) >> 3)] as number,
    consumed: f64[consumedIndex] as number,
    drains: f64[consumedIndex + ((DRAINS_OFFSET - CONSUMED_OFFSET) >> 3)] as number,
  };
}
