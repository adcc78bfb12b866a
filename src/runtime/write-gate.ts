/**
 * A gate that work of another thread passes, so that this one can let nobody in any more, and wait until nobody is inside.
 *
 * For native calls that must not be cut off when the process exits: threads are ended wherever they are then.
 * Invariant: once {@link WriteGate.shut} has returned true nothing runs inside, and nothing ever will. All state is in one shared word.
 */
import { ShardloomError } from "../errors.ts";

const OPEN = 0;
const BUSY = 1;
const SHUT = 2;

export class WriteGate {
  readonly #word: Int32Array;

  /** @param memory Shared by all that pass; at least 4 bytes, zeros at first. One thread works at a time. */
  constructor(memory: SharedArrayBuffer) {
    this.#word = new Int32Array(memory, 0, 1);
  }

  /**
   * Runs synchronous work inside.
   *
   * @throws {ShardloomError} `ERR_CLOSED` when the gate was shut: then it did not run.
   */
  run<T>(work: () => T): T {
    const before = Atomics.compareExchange(this.#word, 0, OPEN, BUSY);
    if (before === SHUT) throw new ShardloomError("ERR_CLOSED", "Cannot write as the process must not be exiting");
    if (before === BUSY) return work(); // inside already
    try {
      return work();
    } finally {
      Atomics.store(this.#word, 0, OPEN);
      Atomics.notify(this.#word, 0);
    }
  }

  /**
   * Lets nobody in from here on. Blocks the thread until nobody is inside.
   *
   * @returns whether that was so within the time
   */
  shut(timeoutMs: number): boolean {
    // Each wait ends when the work does; another may have begun by then, a bounded number of times.
    for (let left = MAX_WAITS; left > 0; left--) {
      if (Atomics.compareExchange(this.#word, 0, OPEN, SHUT) !== BUSY) return true;
      if (Atomics.wait(this.#word, 0, BUSY, timeoutMs) === "timed-out") return false;
    }
    return false;
  }
}

const MAX_WAITS = 1_000;
