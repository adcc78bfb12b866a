/**
 * The reading side of a ring: see `spsc-ring.ts` for the algorithm, its source and its invariants.
 *
 * Invariant: only the consumer moves the head, and it follows a size word only once that is published (not 0) and its header
 * can be one; a header that cannot be one poisons the ring for good. The consumer alone sets the poison bit.
 * Nothing but the head and this side's counters is written, so that polling and draining take no line from the producer.
 */
import { loadAcquire, storeRelease } from "./memory-order.ts";
import {
  CONSUMED_OFFSET,
  DRAINS_OFFSET,
  HEAD_OFFSET,
  isRecord,
  maxPayloadBytesOf,
  openRing,
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

/** A long drain frees its space in pieces of `capacity >> RELEASE_SHIFT` bytes, so that slow handlers do not stop the producer. */
const RELEASE_SHIFT = 2;
/** Empty looks between two that confirm with `Atomics.load` what a plain load said, and two that look at the tail. */
const CONFIRM_MASK = 15;
const TAIL_MASK = 511;

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
  readonly #headIndex: number;
  readonly #tailIndex: number;
  readonly #stateIndex: number;
  readonly #countersIndex: number;
  readonly #producerCountersIndex: number;
  /** As the shared head; the records of a drain that is going on lie behind it. */
  #head: number;
  #emptyLooks: number = 0;

  constructor(buffer: SharedArrayBuffer, byteOffset: number = 0) {
    this.capacityBytes = openRing(buffer, byteOffset);
    this.maxPayloadBytes = maxPayloadBytesOf(this.capacityBytes);
    this.bytes = new Uint8Array(buffer);
    this.i32 = new Int32Array(buffer, 0, buffer.byteLength >> 2);
    this.f32 = new Float32Array(buffer, 0, buffer.byteLength >> 2);
    this.f64 = new Float64Array(buffer, 0, buffer.byteLength >> 3);
    this.#base = byteOffset + RING_HEADER_BYTES;
    this.#mask = this.capacityBytes - 1;
    this.#headIndex = (byteOffset + HEAD_OFFSET) >> 2;
    this.#tailIndex = (byteOffset + TAIL_OFFSET) >> 2;
    this.#stateIndex = (byteOffset + STATE_OFFSET) >> 2;
    this.#countersIndex = (byteOffset + CONSUMED_OFFSET) >> 3;
    this.#producerCountersIndex = (byteOffset + PRODUCED_OFFSET) >> 3;
    this.#head = Atomics.load(this.i32, this.#headIndex);
  }

  /**
   * Hands up to `limit` records to `handler`, oldest first, and frees their space at the end, or by quarters of the ring.
   *
   * A handler that throws has consumed its record; the error propagates after the head is stored. Not re-entrant.
   * A header that cannot be one poisons the ring: the records before it were handled, none after it ever will be.
   * Whoever waits for room must be told by something that fences (a doorbell): the head is stored with release order only.
   * Cost: no allocation, and on x86 no `Atomics` unless the ring is empty, closed or poisoned.
   *
   * @returns Records handled; when none: 0, or `RING_CLOSED` (closed and empty), or `RING_POISONED`.
   */
  drain(handler: RecordHandler, limit: number): number {
    const i32 = this.i32;
    const base = this.#base;
    const mask = this.#mask;
    const start = this.#head;
    if (
      loadAcquire(i32, (base + (start & mask)) >> 2) === 0 ||
      ((i32[this.#stateIndex] as number) & STATE_POISONED) !== 0
    )
      return this.#nothing();
    const capacityBytes = this.capacityBytes;
    const releaseBytes = capacityBytes >> RELEASE_SHIFT;
    let head = start;
    let released = start;
    let count = 0;
    // The next address must not depend on a load that misses: records of one size are taken as predicted by a branch, so
    // that the processor fetches the following ones meanwhile.
    let usualSize = 0;
    let usualBytes = 0;
    try {
      while (count < limit) {
        const index = head & mask;
        const at = (base + index) >> 2;
        const size = loadAcquire(i32, at);
        if (size === 0) break;
        const word = i32[at + 1] as number;
        if (!isRecord(size, word, head, capacityBytes)) {
          Atomics.or(i32, this.#stateIndex, STATE_POISONED); // publishes the poison
          break;
        }
        if (((head - released) | 0) >= releaseBytes) {
          released = head;
          this.#head = head; // the producer may write over what lies before: a handler that asks isEmpty() must not look there
          storeRelease(i32, this.#headIndex, head); // publishes the space before the head
        }
        if (size !== usualSize) {
          usualSize = size;
          usualBytes = (size + 7) & -8;
        }
        head = (head + usualBytes) | 0;
        const type = word >>> 16;
        if (type === PADDING_TYPE) continue;
        count = (count + 1) | 0;
        handler(type, base + index + RECORD_HEADER_BYTES, size - RECORD_HEADER_BYTES);
      }
    } finally {
      this.#release(head, count);
    }
    return count === 0 ? this.#emptyCode() : count;
  }

  /** Whether nothing is visible now; more may become visible at any moment. A poisoned ring counts as empty. */
  isEmpty(): boolean {
    const at = (this.#base + (this.#head & this.#mask)) >> 2;
    // Acquires the record; ordered after what the caller stored or announced with Atomics before.
    if ((this.i32[at] as number) === 0 && Atomics.load(this.i32, at) === 0) {
      this.#emptyLooks = (this.#emptyLooks + 1) | 0;
      if ((this.#emptyLooks & TAIL_MASK) === 0) this.#checkTail();
      return true;
    }
    return ((this.i32[this.#stateIndex] as number) & STATE_POISONED) !== 0; // only this side poisons, so a plain read sees it
  }

  /** Whether a record was found that cannot be one: none after it is ever handed out. Cost: one plain load. */
  get poisoned(): boolean {
    return ((this.i32[this.#stateIndex] as number) & STATE_POISONED) !== 0; // only this side poisons
  }

  /** Whether the next drain would return a negative code without handling anything. */
  isDone(): boolean {
    return this.isEmpty() && this.#emptyCode() < 0;
  }

  /**
   * Whether the ring is poisoned, after looking at the tail once more for a record whose size word was lost. For whoever is
   * about to sleep: polling looks there now and then only. Not during a drain. Cost: three atomic loads.
   */
  isDamaged(): boolean {
    this.#checkTail();
    return (Atomics.load(this.i32, this.#stateIndex) & STATE_POISONED) !== 0;
  }

  /** The consumer takes no more: the producer's next claim returns `RING_CLOSED`. Idempotent. */
  close(): void {
    Atomics.or(this.i32, this.#stateIndex, STATE_CONSUMER_CLOSED); // publishes the end
  }

  counters(): RingCounters {
    return readCounters(this.f64, this.#producerCountersIndex);
  }

  #release(head: number, count: number): void {
    const f64 = this.f64;
    const counters = this.#countersIndex;
    f64[counters] = (f64[counters] as number) + count;
    f64[counters + 1] = (f64[counters + 1] as number) + 1;
    this.#head = head;
    storeRelease(this.i32, this.#headIndex, head); // publishes the space before the head
  }

  /** The code of an empty drain; cheap while the ring is open, as pollers live on it. */
  #nothing(): number {
    if (this.i32[this.#stateIndex] !== 0) return this.#emptyCode();
    this.#emptyLooks = (this.#emptyLooks + 1) | 0;
    // No compiler may take the plain loads of a polling loop for constant if there is an atomic one among them.
    if ((this.#emptyLooks & CONFIRM_MASK) !== 0) return 0;
    if ((this.#emptyLooks & TAIL_MASK) === 0) this.#checkTail();
    return this.#emptyCode();
  }

  /** Poisons a ring whose next size word was lost: the tail, stored after it, says that it was published. */
  #checkTail(): void {
    const tail = Atomics.load(this.i32, this.#tailIndex); // acquires the size words before the tail
    if (((tail - this.#head) | 0) <= 0) return;
    if (Atomics.load(this.i32, (this.#base + (this.#head & this.#mask)) >> 2) === 0)
      Atomics.or(this.i32, this.#stateIndex, STATE_POISONED); // publishes the poison
  }

  #emptyCode(): number {
    let state = Atomics.load(this.i32, this.#stateIndex); // acquires the last record, which was published before the state
    if (state === 0) return 0;
    if ((state & STATE_PRODUCER_CLOSED) !== 0) {
      this.#checkTail(); // closed over a lost record is not closed and empty
      state = Atomics.load(this.i32, this.#stateIndex);
    }
    if ((state & STATE_POISONED) !== 0) return RING_POISONED;
    if (
      (state & STATE_PRODUCER_CLOSED) !== 0 &&
      Atomics.load(this.i32, (this.#base + (this.#head & this.#mask)) >> 2) !== 0
    )
      return 0;
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
