/**
 * Options of {@link Verbs}, their defaults and checks, and the shape of what a read in place returns.
 *
 * Invariant: resolved options are whole and in range; the completion queue checks its own capacity.
 */
import { invalidArgument } from "../src/errors.ts";
import { CELL_ATTEMPTS, NEEDS_RMW_CHECK } from "./cell.ts";

export interface VerbsOptions {
  /** Completions held until polled, 1 … 65536; when full, `post` accepts no more. @default 256 */
  readonly completionCapacity?: number;
  /** Attempts on a busy cell before RETRY_EXCEEDED, at least 1. @default 128 */
  readonly attempts?: number;
  /** Whether second checks are read-modify-writes. @default what this processor needs */
  readonly rmwCheck?: boolean;
}

/** How a read in place ended. */
export interface InPlaceResult<T> {
  readonly status: number;
  /** What the validated call returned; undefined unless the status is SUCCESS. */
  readonly value: T | undefined;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the option and its value. */
export function resolveVerbsOptions(options: VerbsOptions): Required<VerbsOptions> {
  const { completionCapacity = 256, attempts = CELL_ATTEMPTS, rmwCheck = NEEDS_RMW_CHECK } = options;
  if (!Number.isInteger(attempts) || attempts < 1)
    throw invalidArgument("create verbs", "attempts", "an integer, at least 1", attempts);
  return { completionCapacity, attempts, rmwCheck };
}
