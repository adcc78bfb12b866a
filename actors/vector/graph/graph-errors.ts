/**
 * Which errors of a graph's memory are for a moment.
 *
 * Invariant: only those are taken for such that say that another shard's part is on its way to its next worker, or that there is no room now.
 */
import { ShardloomError } from "../../../src/errors.ts";

/** What `act` gives; `otherwise` when it has to be done later, as another shard's part is on its way to its next worker. */
export function unlessPassing<T>(act: () => T, otherwise: T): T {
  try {
    return act();
  } catch (error) {
    if (ShardloomError.is(error) && (error.code === "ERR_REGION_ACCESS" || error.code === "ERR_UNAVAILABLE"))
      return otherwise;
    throw error;
  }
}

export function isFull(error: unknown): boolean {
  return ShardloomError.is(error) && (error.code === "ERR_OUT_OF_MEMORY" || error.code === "ERR_REGION_TABLE_FULL");
}

/** Does what may be left out while there is no room. */
export function unlessFull(act: () => void): void {
  try {
    act();
  } catch (error) {
    if (!isFull(error)) throw error;
  }
}
