/**
 * Doorbell: an event count in shared memory that wakes one waiting thread; any number of threads may ring it.
 *
 * Invariant: a ring that happens after prepareWait() either wakes the waiter or changes the count its wait compares with,
 * so no wake-up is lost, if the ringer stored its work before it rang (ring() is a full fence; a release store will do), and
 * the waiter re-checks its predicate after prepareWait() and after every wake. Wakes may be spurious; one serves a batch.
 * Source: Vyukov, "Eventcount"; Lars T. Hansen, js-lock-and-condition (no mutable state outside the buffer).
 * Divergence: the only file of its layer that may block (Atomics.wait) or suspend (Atomics.waitAsync). waitAsync never has
 * a timeout (its memory would stay until the timeout fires) and does not keep the process alive: hold a handle elsewhere.
 *
 * ```
 * int32   | count (futex word) | parked 0/1 | parks | wakes |   one 128-byte line
 * ```
 */
import { invalidArgument } from "../src/errors.ts";
import { fullFence } from "./memory-order.ts";

/** Bytes of one doorbell; zeroed memory is a doorbell that nobody waits at. */
export const DOORBELL_BYTES = 128;

const COUNT = 0;
const PARKED = 1;
const PARKS = 2;
const WAKES = 3;

/** The proposal's shape, which the ES2024 library types for Int32Array over shared memory. */
interface AsyncWait {
  readonly async: boolean;
  readonly value: string | Promise<string>;
}

/** Handle on a doorbell. Each thread makes its own; only one thread may wait. */
export class Doorbell {
  readonly #words: Int32Array;
  /** The one unresolved waitAsync of this thread: it is joined, never doubled. */
  #pending: Promise<void> | undefined = undefined;
  readonly #resolved: () => void = () => {
    this.#pending = undefined;
  };

  /** @param byteOffset Multiple of 128. */
  constructor(buffer: SharedArrayBuffer, byteOffset: number = 0) {
    if (
      !Number.isInteger(byteOffset) ||
      byteOffset < 0 ||
      byteOffset % DOORBELL_BYTES !== 0 ||
      byteOffset + DOORBELL_BYTES > buffer.byteLength
    ) {
      throw invalidArgument(
        "open doorbell",
        "byteOffset",
        `a multiple of ${DOORBELL_BYTES} within the buffer of ${buffer.byteLength} bytes`,
        byteOffset,
      );
    }
    this.#words = new Int32Array(buffer, byteOffset, DOORBELL_BYTES >> 2);
  }

  /**
   * Wakes the waiter if one is parked; at most one notify a park, whoever rings.
   * Cost: a fence and one atomic load when nobody is parked.
   *
   * @returns Whether this call woke it.
   */
  ring(): boolean {
    const words = this.#words;
    fullFence(); // the caller's stores are visible before the look at who is parked
    // Acquires the announcement of prepareWait().
    if (Atomics.load(words, PARKED) === 0) return false;
    if (Atomics.exchange(words, PARKED, 0) === 0) return false;
    Atomics.add(words, WAKES, 1);
    Atomics.add(words, COUNT, 1); // publishes the ring to a waiter that has not begun its wait
    Atomics.notify(words, COUNT);
    return true;
  }

  /**
   * Announces that this thread is about to park. The caller must re-check its predicate after this call, and then either
   * cancelWait(), or wait()/waitAsync() with the ticket.
   */
  prepareWait(): number {
    const ticket = Atomics.load(this.#words, COUNT);
    Atomics.store(this.#words, PARKED, 1); // publishes the announcement, before the caller's re-check
    return ticket;
  }

  /** Takes the announcement back. */
  cancelWait(): void {
    Atomics.store(this.#words, PARKED, 0);
  }

  /**
   * Blocks this thread until the bell rings or `timeoutMs` passes; the announcement is over either way.
   * Blocks the event loop: only while there is no open asynchronous work, and in slices of at most 20 ms.
   */
  wait(ticket: number, timeoutMs: number): "woken" | "timed-out" {
    const words = this.#words;
    Atomics.add(words, PARKS, 1);
    const outcome = Atomics.wait(words, COUNT, ticket, timeoutMs);
    Atomics.store(words, PARKED, 0);
    return outcome === "timed-out" && Atomics.load(words, COUNT) === ticket ? "timed-out" : "woken";
  }

  /**
   * Resolves when the bell rings. Its continuation is not ordered against messages: re-check, do not infer.
   *
   * @returns `undefined` when it has rung already since the ticket.
   */
  waitAsync(ticket: number): Promise<void> | undefined {
    const words = this.#words;
    if (Atomics.load(words, COUNT) !== ticket) {
      Atomics.store(words, PARKED, 0);
      return undefined;
    }
    if (this.#pending !== undefined) return this.#pending;
    const wait: AsyncWait = Atomics.waitAsync(words, COUNT, ticket);
    if (typeof wait.value === "string") {
      Atomics.store(words, PARKED, 0);
      return undefined;
    }
    Atomics.add(words, PARKS, 1);
    this.#pending = wait.value.then(this.#resolved);
    return this.#pending;
  }

  /** Waits begun and wakes given since the memory was zeroed. */
  counters(): { readonly parks: number; readonly wakes: number } {
    return { parks: Atomics.load(this.#words, PARKS), wakes: Atomics.load(this.#words, WAKES) };
  }
}
