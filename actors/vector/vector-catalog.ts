/**
 * The vector collections of one cluster: opens, describes, drops and recovers them (see collection-catalog.ts).
 *
 * Invariant: all handles on a collection share one reader, whose roots are those of the current workers of this node's shards: a one-sided
 * reader has no access to other nodes, and never follows a dead worker's keys for longer than a recovery takes.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef, RegionTable } from "../../native-bridge/region-table.ts";
import { Verbs } from "../../native-bridge/verbs.ts";
import type { CollectionNews } from "../../src/plane/collection-exchange.ts";
import type { RecoverTask, ShardReady } from "../../src/plane/shard-task.ts";
import { chunkBytesFor } from "../../src/store/graph-layout.ts";
import { ownerOf, vshardOfHash } from "../../src/topology/snapshot.ts";
import { VECTOR_DROP, VECTOR_OPEN } from "../../src/wire/message-types.ts";
import { assertAllShards } from "../catalog-errors.ts";
import type { CatalogEntry, CatalogParts } from "../catalog-types.ts";
import { CollectionCatalog } from "../collection-catalog.ts";
import { VectorCollection } from "./client-collection.ts";
import { DROP_REQUEST_BYTES, OPEN_REQUEST_BYTES, writeDropRequest, writeOpenRequest } from "./collection-requests.ts";
import { graphShapeOf } from "./graph/graph-code.ts";
import { GraphRoot } from "./graph/graph-root.ts";
import {
  assertSameOptions,
  type ResolvedVectorOptions,
  resolveVectorOptions,
  usesGraph,
  type VectorCollectionOptions,
} from "./vector-options.ts";
import { VectorReader } from "./vector-reader.ts";
import { readOpenReply } from "./vector-replies.ts";

/** What a catalog needs from its thread. */
export interface VectorCatalogOptions extends CatalogParts {
  /** The node's memory, and what the main thread uses it with. */
  readonly memory: { readonly arena: Arena; readonly kernels: Kernels; readonly regions: RegionTable };
  /**
   * Whether a shard has the rows of all vshards whose primary it is. After its node has lost its memory it gets them from copies first,
   * and must not be read one-sidedly meanwhile; once true it stays so. @default always
   */
  readonly hasRows?: (shard: number) => boolean;
}

/** A collection as another thread needs to know it. */
export interface CollectionDescription {
  readonly collectionId: number;
  readonly options: ResolvedVectorOptions;
  /** By shard; undefined for those of other nodes. */
  readonly roots: readonly (RegionRef | undefined)[];
  /** Root of the graph over all shards of the node, where the strategy needs one. */
  readonly graph: RegionRef | undefined;
  /** Whether other nodes have a part of it. */
  readonly elsewhere: boolean;
}

type Entry = CatalogEntry<ResolvedVectorOptions>;

/** The collections of vectors of one cluster. */
export class VectorCatalog {
  readonly engine = "vector";
  readonly #parts: VectorCatalogOptions;
  readonly #catalog: CollectionCatalog<ResolvedVectorOptions>;
  /** The graphs of collections whose strategy needs one, by collection. They belong to the main thread, so they outlive every worker. */
  readonly #graphs: Map<number, GraphRoot> = new Map();
  /** Names of collections that are being dropped and have a graph. */
  readonly #leaving: Map<number, string> = new Map();
  readonly #readers: WeakMap<Entry, VectorReader> = new WeakMap();
  /** Shards that did not have their rows when they were looked at last. */
  readonly #away: Set<number> = new Set();
  readonly #reservations: { tail: Promise<unknown> } = { tail: Promise.resolve() };

  constructor(parts: VectorCatalogOptions) {
    this.#parts = parts;
    for (const shard of parts.ownShards ?? parts.coordinator.shards) this.#away.add(shard);
    this.#catalog = new CollectionCatalog(parts, {
      name: this.engine,
      assertSame: assertSameOptions,
      openType: VECTOR_OPEN,
      openPayload: (collectionId, options, checkOnly) => ({
        byteLength: OPEN_REQUEST_BYTES,
        write: (target, offset) => {
          const graph = checkOnly ? undefined : this.#graphOf(collectionId, options)?.ref;
          writeOpenRequest(target, offset, collectionId, options, checkOnly, graph);
        },
      }),
      readRoot: (frame) => readOpenReply(frame, frame.offset).root,
      dropType: VECTOR_DROP,
      dropPayload: (collectionId, undo) => ({
        byteLength: DROP_REQUEST_BYTES,
        write: (target, offset) => writeDropRequest(target, offset, collectionId, undo),
      }),
      toKept: (options) => options,
      fromKept: (options) => resolveVectorOptions(options as VectorCollectionOptions),
    });
  }

  /** As {@link CollectionCatalog.reopen}. */
  reopen(): Promise<void> {
    return this.#catalog.reopen(usesGraph);
  }

  /** Names of the open collections. */
  names(): string[] {
    return this.#catalog.names();
  }

  /** Of those the ones with a graph over all shards. */
  graphNames(): string[] {
    return this.names().filter((name) => this.#graphs.has(this.#catalog.known(name)?.collectionId ?? 0));
  }

  /** What another thread needs for a handle of its own; creates the collection as {@link open} does. */
  async describe(name: string, options: VectorCollectionOptions | undefined): Promise<CollectionDescription> {
    const entry = await this.#entry(name, options);
    const { collectionId, options: resolved } = entry;
    const graph = this.#graphOf(collectionId, resolved)?.ref;
    return { collectionId, options: resolved, roots: [...this.#roots(entry)], graph, elsewhere: this.#isElsewhere() };
  }

  /** Opens a collection, creating it when it is new and options are given. Concurrent calls share one creation. */
  async open(name: string, options: VectorCollectionOptions | undefined): Promise<VectorCollection> {
    const entry = await this.#entry(name, options);
    return new VectorCollection({
      name,
      collectionId: entry.collectionId,
      options: entry.options,
      coordinator: this.#parts.coordinator,
      arena: this.#parts.memory.arena,
      reservations: this.#reservations,
      reader: () => this.#reader(entry),
      assertOpen: () => this.#catalog.assertEntry(name, entry),
    });
  }

  /** As {@link CollectionCatalog.news}. */
  news(): CollectionNews[] {
    return this.#catalog.news();
  }

  /** As {@link CollectionCatalog.learn}. */
  learn(news: CollectionNews): Promise<void> {
    return this.#catalog.learn(news, (name) => this.drop(name, true));
  }

  /** As {@link CollectionCatalog.drop}. */
  async drop(name: string, isHeard = false): Promise<boolean> {
    const entry = this.#catalog.known(name);
    if (entry !== undefined && this.#graphs.has(entry.collectionId)) this.#leaving.set(entry.collectionId, name);
    const existed = await this.#catalog.drop(name, isHeard); // when it fails it is tried again: the graph goes then
    if (entry !== undefined) this.#readers.get(entry)?.close();
    for (const [collectionId, of] of this.#leaving) {
      if (of !== name) continue;
      this.#leaving.delete(collectionId);
      this.#graphs.get(collectionId)?.drop(); // every shard has freed its part
      this.#graphs.delete(collectionId);
    }
    return existed;
  }

  /** What the next worker of a shard must take over. */
  recoverTasks(shard: number): RecoverTask[] {
    return this.#catalog.recoverTasks(shard).map((task) => {
      const state = task.state as { readonly options: ResolvedVectorOptions };
      const graph = this.#graphOf(task.collection, state.options)?.ref;
      return graph === undefined ? task : { ...task, state: { ...state, graph } };
    });
  }

  /** Takes the new roots of a shard whose worker was replaced. */
  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    this.#catalog.recovered(shard, recovered);
  }

  async #entry(name: string, options: VectorCollectionOptions | undefined): Promise<Entry> {
    const { assertOpen, coordinator } = this.#parts;
    assertOpen();
    const resolved = options === undefined ? undefined : resolveVectorOptions(options);
    if (resolved !== undefined && usesGraph(resolved)) assertAllShards(coordinator.snapshot, "vector graph", name);
    return this.#catalog.entry(name, resolved);
  }

  /** The graph over a collection, made when it is first asked for; undefined: its strategy needs none. */
  #graphOf(collectionId: number, options: ResolvedVectorOptions): GraphRoot | undefined {
    if (!usesGraph(options)) return undefined;
    const { memory, ownShards, coordinator } = this.#parts;
    const { arena, regions } = memory;
    const chunkBytes = chunkBytesFor((ownShards ?? coordinator.shards).length, arena.capacityBytes);
    const shape = { ...graphShapeOf(options), chunkBytes };
    const graph = this.#graphs.get(collectionId) ?? GraphRoot.create(arena, regions, collectionId, shape);
    this.#graphs.set(collectionId, graph);
    return graph;
  }

  /** Roots of the shards that may be read one-sidedly. */
  #roots({ roots }: Entry): Entry["roots"] {
    if (this.#away.size === 0) return roots;
    const { hasRows } = this.#parts;
    for (const shard of this.#away) if (hasRows?.(shard) !== false) this.#away.delete(shard);
    return roots.map((root, shard) => (this.#away.has(shard) ? undefined : root));
  }

  #isElsewhere(): boolean {
    const { ownShards, coordinator } = this.#parts;
    if (ownShards === undefined || ownShards.length === coordinator.snapshot.shards) return false;
    return coordinator.shards.some((shard) => !ownShards.includes(shard));
  }

  #reader(entry: Entry): VectorReader {
    const { coordinator, memory } = this.#parts;
    const known = this.#readers.get(entry);
    if (known !== undefined) return known;
    const reader = new VectorReader(memory.arena, new Verbs(memory.arena), memory.kernels, {
      roots: () => this.#roots(entry),
      nowMs: () => coordinator.nowMs(),
      graph: { options: entry.options, root: () => this.#graphs.get(entry.collectionId)?.ref },
      elsewhere: () => this.#isElsewhere(),
      shardOf: (hash) => {
        const { snapshot } = coordinator;
        return ownerOf(snapshot, vshardOfHash(snapshot, hash));
      },
    });
    this.#readers.set(entry, reader);
    return reader;
  }
}
