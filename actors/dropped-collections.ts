/**
 * Ids of collections that were dropped on a shard, and what is said of collections that it does not have.
 *
 * Invariant: an id that is in the set is never opened again; what is still on its way to it (effects of writes before the drop) does
 * nothing. One that was never opened may be opened yet: who needs it is to try again.
 */
import { ShardloomError } from "../src/errors.ts";

/** Ids that one shard remembers; the oldest are forgotten. */
const REMEMBERED = 65_536;

/** The dropped collections of one engine on one shard. */
export class DroppedCollections {
  readonly #ids: Set<number> = new Set();

  add(collectionId: number): void {
    this.#ids.add(collectionId);
    if (this.#ids.size > REMEMBERED) this.#ids.delete(this.#ids.values().next().value as number);
  }

  has(collectionId: number): boolean {
    return this.#ids.has(collectionId);
  }

  /** @throws {ShardloomError} `ERR_UNKNOWN_COLLECTION` for a dropped one. */
  assertMayOpen(collectionId: number): void {
    if (this.has(collectionId)) throw this.unknown(collectionId);
  }

  /** The error for a collection that the shard does not have; retryable unless it was dropped. */
  unknown(collectionId: number): ShardloomError {
    const dropped = this.has(collectionId);
    return new ShardloomError(
      "ERR_UNKNOWN_COLLECTION",
      `Cannot find collection as it must be open on this shard: current value is ${collectionId}${dropped ? ", which was dropped" : ""}`,
      { details: { collectionId, dropped }, retryable: !dropped },
    );
  }
}

/** Whether a shard's answer says that the collection was dropped there. */
export function wasDropped(error: unknown): boolean {
  return ShardloomError.is(error) && error.code === "ERR_UNKNOWN_COLLECTION" && error.details["dropped"] === true;
}
