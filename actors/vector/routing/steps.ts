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
/** Vectors a slice that only adds up or scores once. */
export const SLICE_MEANS = 1024;
/** Means, or looks at some few leaves, a slice. */
export const SLICE_GROUPS = 256;
/** Training queries a slice, where each is ranked or weighed against its ranked leaves. */
export const SLICE_QUERIES = 4;
/**
 * Distances that no slice of a training exceeds: some milliseconds, so that a machine ten times as slow still answers in between. Only with more
 * leaves than this the search for a leaf with room does, for a vector whose nearest are all full.
 */
export const MOST_SLICE_DISTANCES: number = 1 << 16;

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
