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

/** What `act` gives; `otherwise` while there is no room for it. */
export function unlessFull<T, U>(act: () => T, otherwise: U): T | U {
  try {
    return act();
  } catch (error) {
    if (!isFull(error)) throw error;
    return otherwise;
  }
}

/**
 * Whether `link` has linked what was taken for it; if it has to be tried again, or there is no room, what was taken is let go.
 *
 * @throws {ShardloomError} As `link`, but for what {@link unlessPassing} keeps.
 */
export function linkOrLetGo(link: () => boolean, letGo: () => void): boolean {
  try {
    const isLinked = unlessPassing(link, false);
    if (!isLinked) letGo();
    return isLinked;
  } catch (error) {
    if (isFull(error)) letGo(); // after any other error the graph may be gone, with what was taken
    throw error;
  }
}
