/**
 * Which shards a call of a text collection goes to: the only place of the engine's client that decides it.
 *
 * Invariant: one search asks the same shards for statistics and for documents.
 */
import { ownerOf } from "../../src/topology/snapshot.ts";
import type { TextCollectionParts } from "./client-collection.ts";

/** The shard that takes the writes and gives the documents of a vshard. */
export function shardOf({ coordinator }: TextCollectionParts, vshard: number): number {
  return ownerOf(coordinator.snapshot, vshard);
}

/** The shards that together hold every document once. */
export function allShards({ coordinator }: TextCollectionParts): number[] {
  return coordinator.shards;
}
