/**
 * How the calls of a text collection find their shards: the only place of the engine's client that decides it.
 *
 * Invariant: reads go to primaries. Texts have one copy, whatever the cluster's replication factor: another holder of a vshard
 * has none of its documents.
 */

import type { ReadOptions } from "../call-options.ts";
import type { ReadScope } from "../coordinator.ts";
import type { TextCollectionParts } from "./client-collection.ts";

/** Options of reads of texts: all but the choice between copies. */
export type TextReadOptions = Omit<ReadOptions, "consistency" | "maxStalenessMs" | "strategy">;

/** Everything. */
export const WHOLE: ReadScope = { kind: "scatter" };

export function toReadOptions(options: TextReadOptions): ReadOptions {
  return { ...options, consistency: "strong" };
}

/** Whether one shard has everything, so that its own statistics are those of the whole. */
export function isOneShard({ coordinator }: TextCollectionParts): boolean {
  return coordinator.snapshot.shards === 1;
}
