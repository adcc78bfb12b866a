/**
 * Which collections exist, and where each shard keeps its root: the client's side of opening, dropping and recovering.
 *
 * Invariant: a collection is listed only once every shard has opened it; its roots are always those of the shards'
 * current workers, so that a one-sided reader never follows a dead worker's keys for longer than a recovery takes.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { Verbs } from "../../native-bridge/verbs.ts";
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { RecoverTask, ShardReady } from "../../src/plane/shard-task.ts";
import type { Payload } from "../../src/routing/requester.ts";
import { ownerOf, vshardOfHash } from "../../src/topology/snapshot.ts";
import { PRIORITY, VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { VECTOR_DROP, VECTOR_OPEN } from "../../src/wire/message-types.ts";
import type { Coordinator } from "../coordinator.ts";
import { VectorCollection } from "./client-collection.ts";
import type { VectorRecovery } from "./vector-engine.ts";
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
export interface VectorCatalogOptions {
  readonly coordinator: Coordinator;
  readonly arena: Arena;
  readonly kernels: Kernels;
  readonly assertOpen: () => void;
  /** Called when a collection has been dropped. */
  readonly onDropped?: (collectionId: number) => void;
}

/** A collection as another thread needs to know it. */
export interface CollectionDescription {
  readonly collectionId: number;
  readonly options: ResolvedVectorOptions;
  readonly roots: readonly RegionRef[];
}

interface Entry {
  readonly collectionId: number;
  readonly options: ResolvedVectorOptions;
  readonly roots: RegionRef[];
  reader: VectorReader | undefined;
  dropped: boolean;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** The collections of one cluster. */
export class VectorCatalog {
  readonly #parts: VectorCatalogOptions;
  readonly #entries: Map<string, Promise<Entry>> = new Map();
  readonly #open: Map<string, Entry> = new Map();
  readonly #reservations: { tail: Promise<unknown> } = { tail: Promise.resolve() };
  #nextId = 1;

  constructor(parts: VectorCatalogOptions) {
    this.#parts = parts;
  }

  /** Names of the open collections. */
  names(): string[] {
    return [...this.#open.keys()];
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
      assertOpen: () => this.#assertEntry(name, entry),
    });
  }

  async #entry(name: string, options: VectorCollectionOptions | undefined): Promise<Entry> {
    this.#parts.assertOpen();
    if (typeof name !== "string" || !NAME.test(name)) {
      throw invalidArgument("open collection", "name", "1 to 128 letters, digits, dots, underscores or dashes", name);
    }
    let opening = this.#entries.get(name);
    if (opening === undefined) {
      if (options === undefined) {
        throw new ShardloomError(
          "ERR_UNKNOWN_COLLECTION",
          `Cannot open collection ${JSON.stringify(name)} as it does not exist and no options were given`,
          {
            details: { name },
          },
        );
      }
      opening = this.#create(name, resolveVectorOptions(options));
      this.#entries.set(name, opening);
      opening.catch(() => this.#entries.delete(name));
    }
    const entry = await opening;
    if (options !== undefined) assertSameOptions(entry.options, resolveVectorOptions(options));
    return entry;
  }

  /** Drops a collection on every shard and frees its regions. @returns whether it existed */
  async drop(name: string): Promise<boolean> {
    this.#parts.assertOpen();
    const entry = await this.#entries.get(name);
    if (entry === undefined || entry.dropped) return false;
    entry.dropped = true;
    this.#entries.delete(name);
    this.#open.delete(name);
    this.#parts.onDropped?.(entry.collectionId);
    await this.#dropOn(this.#parts.coordinator.shards, entry.collectionId);
    return true;
  }

  /** What the next worker of a shard must take over. */
  recoverTasks(shard: number): RecoverTask[] {
    return [...this.#open.values()].flatMap(({ collectionId, options, roots }) => {
      const root = roots[shard];
      if (root === undefined) return [];
      const state: VectorRecovery["collections"][number] = { collectionId, options, rootAddress: root.address };
      return [{ engine: "vector", collection: collectionId, state }];
    });
  }

  /** Takes the new roots of a shard whose worker was replaced. */
  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    for (const { engine, collection, state } of recovered) {
      if (engine !== "vector") continue;
      for (const entry of this.#open.values()) {
        if (entry.collectionId === collection) entry.roots[shard] = state as RegionRef;
      }
    }
  }

  async #create(name: string, options: ResolvedVectorOptions): Promise<Entry> {
    const { coordinator } = this.#parts;
    const collectionId = this.#nextId++;
    const payload: Payload = {
      byteLength: OPEN_REQUEST_BYTES,
      write: (target, offset) => writeOpenRequest(target, offset, collectionId, options),
    };
    const calls = coordinator.shards.map((shard) =>
      coordinator.ask(
        shard,
        VECTOR_OPEN,
        VSHARD_LISTED,
        payload,
        (frame) => readOpenReply(frame, frame.offset).root,
        undefined,
        PRIORITY.CONTROL,
      ),
    );
    const settled = await Promise.allSettled(calls);
    const failed = settled.find((call) => call.status === "rejected");
    if (failed !== undefined) {
      const opened = coordinator.shards.filter((shard) => settled[shard]?.status === "fulfilled");
      await this.#dropOn(opened, collectionId).catch(() => undefined); // the first failure is the one to tell
      throw failed.reason;
    }
    const roots = settled.map((call) => (call as PromiseFulfilledResult<RegionRef>).value);
    const entry: Entry = { collectionId, options, roots, reader: undefined, dropped: false };
    this.#open.set(name, entry);
    return entry;
  }

  async #dropOn(shards: readonly number[], collectionId: number): Promise<void> {
    const { coordinator } = this.#parts;
    const payload: Payload = {
      byteLength: filterRequestBytes(),
      write: (target, offset) => writeFilterRequest(target, offset, collectionId),
    };
    await Promise.all(
      shards.map((shard) =>
        coordinator.ask(shard, VECTOR_DROP, VSHARD_LISTED, payload, () => undefined, undefined, PRIORITY.CONTROL),
      ),
    );
  }

  #reader(entry: Entry): VectorReader {
    const { coordinator, arena, kernels } = this.#parts;
    const { snapshot } = coordinator;
    entry.reader ??= new VectorReader(arena, new Verbs(arena), kernels, {
      roots: () => entry.roots,
      shardOf: (hash) => ownerOf(snapshot, vshardOfHash(snapshot, hash)),
    });
    return entry.reader;
  }

  #assertEntry(name: string, entry: Entry): void {
    this.#parts.assertOpen();
    if (!entry.dropped) return;
    throw new ShardloomError(
      "ERR_UNKNOWN_COLLECTION",
      `Cannot use collection ${JSON.stringify(name)} as it was dropped`,
      { details: { name } },
    );
  }
}
