/**
 * Long computations in slices: generators that give their progress after every slice of at most some milliseconds.
 *
 * Invariant: a computation that is given up between two slices has run its `finally` blocks, so nothing of it stays in the arena.
 * Whoever drives decides how: at once, or a slice between two messages.
 */
import { ShardloomError } from "../../../src/errors.ts";

/** Yields the done share of the work, in [0, 1], never less than before. */
export type Steps<T> = Generator<number, T, void>;

export interface StepsOptions {
  /** Looked at between slices. */
  readonly signal?: AbortSignal;
  /** Called after each slice with the share that is done. */
  readonly onProgress?: (done: number) => void;
}

/** Vectors a slice, where each costs a look at some hundred leaves or parts. */
export const SLICE_VECTORS = 64;
/** Means a slice. */
export const SLICE_GROUPS = 256;

/**
 * Runs a computation to its end on this thread.
 *
 * @throws {ShardloomError} `ERR_ABORTED` when the signal fires, also from within `onProgress`.
 */
export function runSteps<T>(steps: Steps<T>, options: StepsOptions = {}): T {
  try {
    for (;;) {
      if (options.signal?.aborted === true)
        throw new ShardloomError("ERR_ABORTED", "Cannot finish computation as it was cancelled", {
          cause: options.signal.reason,
        });
      const step = steps.next();
      if (step.done === true) return step.value;
      options.onProgress?.(step.value);
    }
  } finally {
    steps.return(undefined as never); // a no-op once it is done
  }
}

/** Steps of a part of a computation, as the share [from, to) of the whole. */
export function* within<T>(steps: Steps<T>, from: number, to: number): Steps<T> {
  try {
    for (;;) {
      const step = steps.next();
      if (step.done === true) return step.value;
      yield from + (to - from) * step.value;
    }
  } finally {
    steps.return(undefined as never);
  }
}
