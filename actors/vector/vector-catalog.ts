/**
 * Which collections exist, and where each shard keeps its root: the client's side of opening, dropping and recovering.
 *
 * Invariant: a collection is listed only once the current worker of every shard has opened it; its roots are always those of
 * the shards' current workers, so that a one-sided reader never follows a dead worker's keys for longer than a recovery takes.
 * What is not listed a new worker frees, so a collection that is being opened or dropped never outlives a worker; for the
 * workers that live on, a drop stays on a list until each has acknowledged it, and every later call tries it again.
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

/** A drop that some shards have not acknowledged. */
interface Dropping {
  readonly name: string;
  readonly collectionId: number;
  readonly shards: Set<number>;
  /** The attempt under way. */
  attempt: Promise<void> | undefined;
}

/** How often a collection is opened again on shards whose worker was replaced meanwhile, and dropped where one was lost. */
const ATTEMPTS = 4;
const LOST: ReadonlySet<string> = new Set(["ERR_WORKER_LOST", "ERR_HANDLER_HUNG", "ERR_NATIVE_QUARANTINED"]);

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** The collections of one cluster. */
export class VectorCatalog {
  readonly #parts: VectorCatalogOptions;
  readonly #entries: Map<string, Promise<Entry>> = new Map();
  readonly #open: Map<string, Entry> = new Map();
  readonly #dropping: Map<number, Dropping> = new Map();
  /** Per shard, how many workers it has had. */
  readonly #successions: number[] = [];
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
    this.#retryDrops();
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

  /**
   * Drops a collection on every shard and frees its regions. It is gone at once; when a shard does not acknowledge that in
   * time, this rejects, and calling it again, or any later open or drop, goes on with it.
   *
   * @returns whether it existed, or was still being dropped
   */
  async drop(name: string): Promise<boolean> {
    this.#parts.assertOpen();
    const entry = await this.#entries.get(name);
    if (entry !== undefined && !entry.dropped) {
      entry.dropped = true;
      this.#entries.delete(name);
      this.#open.delete(name);
      this.#parts.onDropped?.(entry.collectionId);
      this.#beginDrop(name, entry.collectionId);
    }
    const drops = [...this.#dropping.values()].filter((dropping) => dropping.name === name);
    this.#retryDrops();
    await Promise.all(drops.flatMap(({ attempt }) => (attempt === undefined ? [] : [attempt])));
    return drops.length > 0;
  }

  /** What the next worker of a shard must take over. It frees everything else, so drops are done with that. */
  recoverTasks(shard: number): RecoverTask[] {
    this.#successions[shard] = this.#successionOf(shard) + 1;
    for (const dropping of this.#dropping.values()) this.#acknowledged(dropping, shard);
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
    const { shards } = this.#parts.coordinator;
    const entry: Entry = { collectionId: this.#nextId++, options, roots: [], reader: undefined, dropped: false };
    const openedIn: number[] = [];
    try {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        const missing = shards.filter((shard) => openedIn[shard] !== this.#successionOf(shard));
        if (missing.length === 0) {
          this.#open.set(name, entry); // in one turn with the look above: no worker is replaced in between
          return entry;
        }
        const succession = missing.map((shard) => this.#successionOf(shard));
        const settled = await Promise.allSettled(missing.map((shard) => this.#openOn(shard, entry)));
        for (const [at, call] of settled.entries()) {
          if (call.status === "rejected") {
            if (attempt + 1 < ATTEMPTS && LOST.has(ShardloomError.from(call.reason).code)) continue; // its successor opens it
            throw call.reason;
          }
          openedIn[missing[at] as number] = succession[at] as number;
          entry.roots[missing[at] as number] = call.value;
        }
      }
      throw new ShardloomError(
        "ERR_UNAVAILABLE",
        `Cannot open collection ${JSON.stringify(name)} as workers were replaced during ${ATTEMPTS} attempts`,
        { details: { name, attempts: ATTEMPTS } },
      );
    } catch (error) {
      await this.#beginDrop(name, entry.collectionId).attempt?.catch(() => undefined); // the first failure is the one to tell
      throw error;
    }
  }

  #openOn(shard: number, { collectionId, options }: Entry): Promise<RegionRef> {
    const payload: Payload = {
      byteLength: OPEN_REQUEST_BYTES,
      write: (target, offset) => writeOpenRequest(target, offset, collectionId, options),
    };
    return this.#parts.coordinator.ask(
      shard,
      VECTOR_OPEN,
      VSHARD_LISTED,
      payload,
      (frame) => readOpenReply(frame, frame.offset).root,
      undefined,
      PRIORITY.CONTROL,
    );
  }

  #beginDrop(name: string, collectionId: number): Dropping {
    const shards = new Set(this.#parts.coordinator.shards);
    const dropping: Dropping = { name, collectionId, shards, attempt: undefined };
    this.#dropping.set(collectionId, dropping);
    this.#retryDrops();
    return dropping;
  }

  /** Goes on with every drop that nobody is at. Who waits for one awaits its `attempt`; the others leave it on the list. */
  #retryDrops(): void {
    for (const dropping of this.#dropping.values()) {
      if (dropping.attempt !== undefined) continue;
      dropping.attempt = this.#dropOn(dropping).finally(() => {
        dropping.attempt = undefined;
      });
      dropping.attempt.catch(() => undefined); // it stays on the list
    }
  }

  async #dropOn(dropping: Dropping): Promise<void> {
    const { coordinator } = this.#parts;
    const payload: Payload = {
      byteLength: filterRequestBytes(),
      write: (target, offset) => writeFilterRequest(target, offset, dropping.collectionId),
    };
    for (let attempt = 1; dropping.shards.size > 0; attempt++) {
      const failures: unknown[] = [];
      await Promise.all(
        [...dropping.shards].map((shard) =>
          coordinator
            .ask(shard, VECTOR_DROP, VSHARD_LISTED, payload, () => undefined, undefined, PRIORITY.CONTROL)
            .then(
              () => this.#acknowledged(dropping, shard),
              (error: unknown) => failures.push(error),
            ),
        ),
      );
      const fatal = failures.find((error) => attempt === ATTEMPTS || !LOST.has(ShardloomError.from(error).code));
      if (fatal !== undefined && dropping.shards.size > 0) throw ShardloomError.from(fatal);
    }
  }

  #acknowledged(dropping: Dropping, shard: number): void {
    dropping.shards.delete(shard);
    if (dropping.shards.size === 0) this.#dropping.delete(dropping.collectionId);
  }

  #successionOf(shard: number): number {
    return this.#successions[shard] ?? 0;
  }

  #reader(entry: Entry): VectorReader {
    const { coordinator, arena, kernels } = this.#parts;
    entry.reader ??= new VectorReader(arena, new Verbs(arena), kernels, {
      roots: () => entry.roots,
      shardOf: (hash) => {
        const { snapshot } = coordinator;
        return ownerOf(snapshot, vshardOfHash(snapshot, hash));
      },
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
