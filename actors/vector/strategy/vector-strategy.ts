/**
 * How a search finds its documents: the seam between a collection and the ways to search it.
 *
 * A strategy answers four questions: which shards a query concerns, what shards tell each other while the collection is built, what a chosen
 * shard is sent, and which memory is read without asking anybody. What it leaves out is as with scatter-gather, the reference and the last resort
 * of every other: all shards, no exchange, no message but the plain search, no memory. The first and the last two are asked by the thread that
 * searches, the second by the shards' workers, so a strategy keeps nothing: it is told what its side holds.
 * The strategies are those of `StrategyName`, and none can be added from outside: a collection or a search chooses one by its name (`strategy`, `by`),
 * and client-strategy.ts says how each is carried out. The types tell what they are asked and told.
 * Invariant: a strategy decides nothing about what is true: hits are read from their documents' rows whoever found them.
 */
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import type { Payload } from "../../../src/routing/requester.ts";
import type { Metadata } from "../../../src/store/metadata-codec.ts";
import type { Candidate, Crossing } from "../graph/label-search.ts";
import type { Code } from "../routing/code-table.ts";
import type { Compass } from "../routing/compass.ts";
import type { IndexName, StrategyName } from "../vector-options.ts";

/** What a strategy is told of a shard. */
export interface ShardDescriptor {
  readonly shard: number;
}

/** What the thread that searches knows of the leaves of all shards, for one query. */
export interface KnownLeaves {
  readonly router: Pick<Compass, "selectShards" | "nearestLeaves" | "shardOf">;
  /** Where searches for the first `count` leaves begin. */
  entriesOf(leaves: Int32Array, count: number): readonly number[];
}

/** What a strategy is told of a query. */
export interface StrategyQuery {
  readonly collectionId: number;
  /** As the vertices of the graph are compared. */
  readonly code: Code;
  /** The same as bytes. */
  readonly bytes: Uint8Array;
  readonly k: number;
  /** Candidates kept on the way, and those wanted of a shard, at least k. */
  readonly ef: number;
  readonly wanted: number;
  /** Conditions on the payload, and about what share of the documents passes them, in (0, 1]; 1 without any. */
  readonly filter?: Metadata | undefined;
  readonly selectivity: number;
  /** Mean share of the true nearest to be found, in (0, 1]. */
  readonly recallTarget: number;
  /** What a shard is told it has. */
  readonly timeoutMs: number;
}

/** A query whose strategy chooses by leaves. */
export interface RoutedQuery extends StrategyQuery {
  readonly leaves: KnownLeaves;
  /** What the collection has for leaves to be chosen by. */
  readonly index: IndexName;
  /** Distances that choosing took are added here. */
  readonly spent: { distances: number };
}

/** A shard that is to be asked. */
export interface SelectedShard {
  readonly shard: number;
  /** Vertices to begin at; none: wherever it likes. */
  readonly entries: readonly number[];
  /** Others of the selected that are asked once this one has answered, as they go on from what it found. @default none */
  readonly followers?: readonly number[];
}

/** What the shard has found that others follow. */
export interface Lead {
  readonly candidates: readonly Candidate[];
  /** Where they lead to in shards that follow. @default none */
  readonly crossings?: readonly Crossing[];
}

/** A message to one shard. */
export interface DirectMessage {
  readonly type: number;
  readonly payload: Payload;
}

/** What a shard holds of the tables of centroids, its own and its peers'. */
export interface HeldTables {
  /** What a peer is told of them; undefined: it is none of those that have leaves. */
  offer(peer: number): DirectMessage | undefined;
}

/** Memory of a collection that threads of its node can open. */
export interface SharedMemory {
  /** The root of the graph over all shards; undefined while there is none. */
  readonly graph: RegionRef | undefined;
}

/** What one of the strategies answers. There is nothing to pass another one to: searches and collections choose by name. */
export interface VectorStrategy<Query extends StrategyQuery = StrategyQuery> {
  readonly name: StrategyName;
  /** The shards that a query is for, of those there are; none when others would be needed. @default all, each for its own documents; with memory that is exposed nobody: this thread finds all in it */
  readonly selectShards?: (query: Query, shards: readonly ShardDescriptor[]) => readonly SelectedShard[];
  /** What a shard sends a peer while the collection is built, and now and then after. @default nothing */
  readonly buildTimeExchange?: (peer: number, held: HeldTables) => DirectMessage | undefined;
  /** What a chosen shard is sent; a follower with what it follows, or without where that is long in coming. @default the plain search */
  readonly directMessage?: (shard: SelectedShard, query: Query, lead?: Lead) => DirectMessage;
  /** Memory that the thread that searches reads by itself. @default none */
  readonly exposedRegion?: (memory: SharedMemory) => RegionRef | undefined;
}

/** A strategy that chooses shards and has messages for them. */
export type AskingStrategy<Query extends StrategyQuery = StrategyQuery> = VectorStrategy<Query> &
  Required<Pick<VectorStrategy<Query>, "selectShards" | "directMessage" | "exposedRegion">>;

/** All that is left out: every shard is asked for its own documents by the plain search, as a planned read, and no memory is read. */
export const SCATTER: VectorStrategy = { name: "scatter" };

/** Nobody is asked: the thread that searches reads the whole graph. */
export const ONE_SIDED: VectorStrategy & Required<Pick<VectorStrategy, "exposedRegion">> = {
  name: "one-sided",
  exposedRegion: wholeGraph,
};

/** The graph of all shards: of every strategy that is no scatter, as documents are ranked by it whoever found them. */
export function wholeGraph({ graph }: SharedMemory): RegionRef | undefined {
  return graph;
}
