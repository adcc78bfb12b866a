/**
 * What goes wrong while lists of vertices and edges are sent, as the caller is told.
 *
 * Invariant: places are those of the list that the caller gave, whatever parts it was sent in.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { VertexKey } from "./vertex-key.ts";

export function withDetails(error: ShardloomError, more: Readonly<Record<string, unknown>>): ShardloomError {
  const { code, message, retryable, details, cause } = error;
  return new ShardloomError(code, message, { retryable, details: { ...details, ...more }, cause });
}

/** Sends a part of a list. @param part Places in the list; `-1 - place` where it is sent the other way round. */
export async function placed<T>(part: readonly number[], send: () => Promise<T>): Promise<T> {
  try {
    return await send();
  } catch (error) {
    if (!ShardloomError.is(error)) throw error;
    const at = part[error.details["at"] as number];
    throw at === undefined ? error : withDetails(error, { at: at < 0 ? -1 - at : at });
  }
}

export function duplicate(key: VertexKey, at: number): ShardloomError {
  return new ShardloomError(
    "ERR_DUPLICATE_ID",
    `Cannot add vertex as its key must be new: current value is ${String(key)}`,
    { details: { key, at } },
  );
}

export function aborted(signal: AbortSignal): ShardloomError {
  return new ShardloomError("ERR_ABORTED", "Cannot go on loading as the signal was aborted", { cause: signal.reason });
}
