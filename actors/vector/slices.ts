/**
 * Work of a client's thread in slices, between which its event loop turns: timers fire, signals abort, messages arrive.
 *
 * Invariant: work that is given up between two slices has run its `finally` blocks. A pause is made when some milliseconds have passed, by the
 * thread's clock, or after so many pieces of work, as a clock that others move stands still meanwhile.
 */
import type { Coordinator } from "../coordinator.ts";

/** Work that may pause wherever it yields, which is after every piece of at most about a millisecond. */
export type Slices<T> = Generator<undefined, T, void>;

const SLICE_MS = 4;
const SLICE_PIECES = 256;

/** The pauses of one call. */
export class Pauses {
  readonly #coordinator: Pick<Coordinator, "nowMs" | "pause">;
  readonly #check: () => void;
  #sinceMs: number;
  #pieces = 0;

  /** @param check After every pause: throws when the call has ended meanwhile. */
  constructor(coordinator: Pick<Coordinator, "nowMs" | "pause">, check: () => void) {
    this.#coordinator = coordinator;
    this.#check = check;
    this.#sinceMs = coordinator.nowMs();
  }

  /** To be asked after every piece of work. */
  areDue(): boolean {
    return ++this.#pieces >= SLICE_PIECES || this.#coordinator.nowMs() - this.#sinceMs >= SLICE_MS;
  }

  /** Lets the event loop turn. */
  async take(): Promise<void> {
    await this.#coordinator.pause(0);
    this.#pieces = 0;
    this.#sinceMs = this.#coordinator.nowMs();
    this.#check();
  }
}

/** Does all the work. */
export async function inSlices<T>(work: Slices<T>, pauses: Pauses): Promise<T> {
  try {
    for (;;) {
      const slice = work.next();
      if (slice.done === true) return slice.value;
      if (pauses.areDue()) await pauses.take();
    }
  } finally {
    work.return(undefined as never); // a no-op once it is done
  }
}
