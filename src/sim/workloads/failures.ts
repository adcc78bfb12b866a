/**
 * Which errors say that an operation did not happen.
 *
 * Invariant: only what is refused before anything can have been sent counts; everything else may have happened, or may still.
 */
import { ShardloomError } from "../../errors.ts";

/** Refusals of the caller's own side. */
const REFUSED: ReadonlySet<string> = new Set(["ERR_INVALID_ARGUMENT", "ERR_OVERLOADED", "ERR_CLOSED"]);

/** Whether a write that ended with this error certainly did not happen. */
export function certainlyRefused(error: unknown): boolean {
  return ShardloomError.is(error) && REFUSED.has(error.code);
}
