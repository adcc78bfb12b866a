/**
 * How a search finds its documents: the seam between a collection and the ways to search it.
 *
 * A strategy answers four questions: which shards a query concerns, what shards tell each other while the collection is built, what a chosen
 * shard is sent, and which memory is read without asking anybody. The defaults are those of scatter-gather, the reference and the last
 * resort of every other: all shards, no exchange, no message but the plain search, no region.
 * Invariant: a strategy decides nothing about what is true: hits are read from their documents' rows whoever found them.
 */
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import type { Payload } from "../../../src/routing/requester.ts";
import type { Code } from "../routing/code-table.ts";
import type { StrategyName } from "../vector-options.ts";

/** What a strategy is told of a shard. */
export interface ShardDescriptor {
  readonly shard: number;
}

/** What a strategy is told of a query. */
export interface StrategyQuery {
  /** As the vertices of the graph are compared. */
  readonly code: Code;
  /** The same as bytes. */
  readonly bytes: Uint8Array;
  readonly k: number;
  /** Candidates kept on the way, and those wanted of a shard, at least k. */
  readonly ef: number;
  readonly wanted: number;
  /** Share of the documents that pass the filter, in (0, 1]; 1 without one. */
  readonly selectivity: number;
  /** Mean share of the true nearest to be found, in (0, 1]. */
  readonly recallTarget: number;
}

/** A shard that is to be asked. */
export interface SelectedShard {
  readonly shard: number;
  /** Leaves of that shard to begin at, best first; empty: wherever it likes. */
  readonly leaves: Int32Array;
}

/** A message to one shard. */
export interface DirectMessage {
  readonly type: number;
  readonly payload: Payload;
}

export interface VectorStrategy {
  readonly name: StrategyName;
  /** The shards that a query is for, of those there are. */
  selectShards(query: StrategyQuery, shards: readonly ShardDescriptor[]): readonly SelectedShard[];
  /** What this shard sends a peer while the collection is built, and now and then after. */
  buildTimeExchange(peer: number): DirectMessage | undefined;
  /** What a chosen shard is sent instead of the plain search. */
  directMessage(shard: SelectedShard, query: StrategyQuery): DirectMessage | undefined;
  /** Memory that is read one-sidedly. */
  exposedRegion(): RegionRef | undefined;
}

const EVERYWHERE = new Int32Array(0);

/** Every shard searches its own documents. */
export const SCATTER: VectorStrategy = {
  name: "scatter",
  selectShards: (_, shards) => shards.map(({ shard }) => ({ shard, leaves: EVERYWHERE })),
  buildTimeExchange: () => undefined,
  directMessage: () => undefined,
  exposedRegion: () => undefined,
};
