/**
 * What a catalog of collections is made of, and what it gives: types of collection-catalog.ts.
 *
 * Invariant: no behaviour. An engine tells a catalog how its messages and options look, and nothing of what is in its collections.
 */
import type { RegionRef } from "../native-bridge/region-layout.ts";
import type { CollectionExchange } from "../src/plane/collection-exchange.ts";
import type { Payload, ReplyFrame } from "../src/routing/requester.ts";
import type { CollectionStore } from "../src/store/collection-store.ts";
import type { Coordinator } from "./coordinator.ts";

/** What a catalog needs to know of its engine. */
export interface CatalogEngine<Resolved> {
  /** As in {@link RecoverTask}. */
  readonly name: string;
  /** @throws {ShardloomError} `ERR_COLLECTION_MISMATCH`. */
  readonly assertSame: (existing: Resolved, wanted: Resolved) => void;
  /** Whether a collection lies on a shard. @default it does */
  readonly liesOn?: (options: Resolved, shard: number) => boolean;
  readonly openType: number;
  /** @param checkOnly Compares the options with those of the collection if the shard has it, and creates nothing. */
  readonly openPayload: (collectionId: number, options: Resolved, checkOnly: boolean) => Payload;
  readonly readRoot: (frame: ReplyFrame) => RegionRef;
  readonly dropType: number;
  /** @param undo Takes a creation back: the id may be used again. */
  readonly dropPayload: (collectionId: number, undo: boolean) => Payload;
  /** Options as the engine recovers a collection from them, which is how they are kept. */
  readonly toKept: (options: Resolved) => unknown;
  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for what {@link toKept} did not make. */
  readonly fromKept: (options: unknown) => Resolved;
}

/** What a catalog needs from its thread. */
export interface CatalogParts {
  readonly coordinator: Coordinator;
  /** Shards whose workers this node replaces; the others belong to other nodes. @default all */
  readonly ownShards?: readonly number[];
  readonly assertOpen: () => void;
  /** Whether a shard has no worker any more, and gets none: nothing is waited for there. @default none is so */
  readonly isGivenUp?: (shard: number) => boolean;
  /** The collections of the node's directory. @default none: they end with the process */
  readonly store?: CollectionStore | undefined;
  /** The other nodes: they are told what is opened and dropped here. @default there are none */
  readonly others?: Pick<CollectionExchange, "settled" | "spread" | "tell"> | undefined;
  /** Called when a collection is gone, before its shards have acknowledged that. */
  readonly onDropped?: (collectionId: number) => void;
}

/** An open collection. */
export interface CatalogEntry<Resolved> {
  readonly collectionId: number;
  readonly options: Resolved;
  /** By shard; undefined for those of other nodes, whose memory nobody here can read. */
  readonly roots: (RegionRef | undefined)[];
  dropped: boolean;
}
