/**
 * The vector collections of one cluster: opens, describes, drops and recovers them (see collection-catalog.ts).
 *
 * Invariant: all handles on a collection share one reader, whose roots are those of the shards' current workers: a one-sided
 * reader never follows a dead worker's keys for longer than a recovery takes.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { Verbs } from "../../native-bridge/verbs.ts";
import type { RecoverTask, ShardReady } from "../../src/plane/shard-task.ts";
import { ownerOf, vshardOfHash } from "../../src/topology/snapshot.ts";
import { VECTOR_DROP, VECTOR_OPEN } from "../../src/wire/message-types.ts";
import { type CatalogEntry, type CatalogParts, CollectionCatalog } from "../collection-catalog.ts";
import { VectorCollection } from "./client-collection.ts";
import {
  assertSameOptions,
  type ResolvedVectorOptions,
  resolveVectorOptions,
  type VectorCollectionOptions,
} from "./vector-options.ts";
import { VectorReader } from "./vector-reader.ts";
import { readOpenReply } from "./vector-replies.ts";
import { filterRequestBytes, OPEN_REQUEST_BYTES, writeFilterRequest, writeOpenRequest } from "./vector-requests.ts";

/** What a catalog needs from its thread. */
export interface VectorCatalogOptions extends CatalogParts {
  readonly arena: Arena;
  readonly kernels: Kernels;
}

/** A collection as another thread needs to know it. */
export interface CollectionDescription {
  readonly collectionId: number;
  readonly options: ResolvedVectorOptions;
  readonly roots: readonly RegionRef[];
}

type Entry = CatalogEntry<ResolvedVectorOptions>;

/** The collections of vectors of one cluster. */
export class VectorCatalog {
  readonly #parts: VectorCatalogOptions;
  readonly #catalog: CollectionCatalog<ResolvedVectorOptions>;
  readonly #readers: WeakMap<Entry, VectorReader> = new WeakMap();
  readonly #reservations: { tail: Promise<unknown> } = { tail: Promise.resolve() };

  constructor(parts: VectorCatalogOptions) {
    this.#parts = parts;
    this.#catalog = new CollectionCatalog(parts, {
      name: "vector",
      assertSame: assertSameOptions,
      openType: VECTOR_OPEN,
      openPayload: (collectionId, options) => ({
        byteLength: OPEN_REQUEST_BYTES,
        write: (target, offset) => writeOpenRequest(target, offset, collectionId, options),
      }),
      readRoot: (frame) => readOpenReply(frame, frame.offset).root,
      dropType: VECTOR_DROP,
      dropPayload: (collectionId) => ({
        byteLength: filterRequestBytes(),
        write: (target, offset) => writeFilterRequest(target, offset, collectionId),
      }),
    });
  }

  /** Names of the open collections. */
  names(): string[] {
    return this.#catalog.names();
  }

  /** What another thread needs for a handle of its own; creates the collection as {@link open} does. */
  async describe(name: string, options: VectorCollectionOptions | undefined): Promise<CollectionDescription> {
    const { collectionId, options: resolved, roots } = await this.#entry(name, options);
    return { collectionId, options: resolved, roots: [...roots] };
  }

  /** Opens a collection, creating it when it is new and options are given. Concurrent calls share one creation. */
  async open(name: string, options: VectorCollectionOptions | undefined): Promise<VectorCollection> {
    const entry = await this.#entry(name, options);
    return new VectorCollection({
      name,
      collectionId: entry.collectionId,
      options: entry.options,
      coordinator: this.#parts.coordinator,
      arena: this.#parts.arena,
      reservations: this.#reservations,
      reader: () => this.#reader(entry),
      assertOpen: () => this.#catalog.assertEntry(name, entry),
    });
  }

  /** Drops a collection on every shard. @returns whether it existed, or was still being dropped */
  drop(name: string): Promise<boolean> {
    return this.#catalog.drop(name);
  }

  /** What the next worker of a shard must take over. */
  recoverTasks(shard: number): RecoverTask[] {
    return this.#catalog.recoverTasks(shard);
  }

  /** Takes the new roots of a shard whose worker was replaced. */
  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    this.#catalog.recovered(shard, recovered);
  }

  async #entry(name: string, options: VectorCollectionOptions | undefined): Promise<Entry> {
    this.#parts.assertOpen();
    return this.#catalog.entry(name, options === undefined ? undefined : resolveVectorOptions(options));
  }

  #reader(entry: Entry): VectorReader {
    const { coordinator, arena, kernels } = this.#parts;
    const known = this.#readers.get(entry);
    if (known !== undefined) return known;
    const reader = new VectorReader(arena, new Verbs(arena), kernels, {
      roots: () => entry.roots,
      shardOf: (hash) => {
        const { snapshot } = coordinator;
        return ownerOf(snapshot, vshardOfHash(snapshot, hash));
      },
    });
    this.#readers.set(entry, reader);
    return reader;
  }
}
