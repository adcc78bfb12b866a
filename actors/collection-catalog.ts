/**
 * Which collections of one engine exist, and where each shard keeps its root: the client's side of opening, dropping and
 * recovering.
 *
 * Invariant: a collection is listed only once the current worker of every shard has opened it; its roots are always those of
 * the shards' current workers. What is not listed a new worker frees, so a collection that is being opened or dropped never
 * outlives a worker; for the workers that live on, a drop stays on a list until each has acknowledged it, and every later
 * call tries it again.
 */
import type { RegionRef } from "../native-bridge/region-layout.ts";
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import type { RecoverTask, ShardReady } from "../src/plane/shard-task.ts";
import type { Payload, ReplyFrame } from "../src/routing/requester.ts";
import { PRIORITY, VSHARD_LISTED } from "../src/wire/envelope-layout.ts";
import type { Coordinator } from "./coordinator.ts";

/** What a catalog needs to know of its engine. */
export interface CatalogEngine<Resolved> {
  /** As in {@link RecoverTask}. */
  readonly name: string;
  /** @throws {ShardloomError} `ERR_COLLECTION_MISMATCH`. */
  readonly assertSame: (existing: Resolved, wanted: Resolved) => void;
  readonly openType: number;
  readonly openPayload: (collectionId: number, options: Resolved) => Payload;
  readonly readRoot: (frame: ReplyFrame) => RegionRef;
  readonly dropType: number;
  readonly dropPayload: (collectionId: number) => Payload;
}

/** What a catalog needs from its thread. */
export interface CatalogParts {
  readonly coordinator: Coordinator;
  readonly assertOpen: () => void;
  /** Called when a collection is gone, before its shards have acknowledged that. */
  readonly onDropped?: (collectionId: number) => void;
}

/** An open collection. */
export interface CatalogEntry<Resolved> {
  readonly collectionId: number;
  readonly options: Resolved;
  /** By shard. */
  readonly roots: RegionRef[];
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

/** The collections of one engine in one cluster. */
export class CollectionCatalog<Resolved> {
  readonly #parts: CatalogParts;
  readonly #engine: CatalogEngine<Resolved>;
  readonly #entries: Map<string, Promise<CatalogEntry<Resolved>>> = new Map();
  readonly #open: Map<string, CatalogEntry<Resolved>> = new Map();
  readonly #dropping: Map<number, Dropping> = new Map();
  /** Per shard, how many workers it has had. */
  readonly #successions: number[] = [];
  #nextId = 1;

  constructor(parts: CatalogParts, engine: CatalogEngine<Resolved>) {
    this.#parts = parts;
    this.#engine = engine;
  }

  /** Names of the open collections. */
  names(): string[] {
    return [...this.#open.keys()];
  }

  /**
   * Opens a collection, creating it when it is new and options are given. Concurrent calls share one creation.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_COLLECTION`, `ERR_COLLECTION_MISMATCH`, `ERR_INVALID_ARGUMENT`, and those of a call.
   */
  async entry(name: string, options: Resolved | undefined): Promise<CatalogEntry<Resolved>> {
    this.#parts.assertOpen();
    if (typeof name !== "string" || !NAME.test(name))
      throw invalidArgument("open collection", "name", "1 to 128 letters, digits, dots, underscores or dashes", name);
    this.#retryDrops();
    let opening = this.#entries.get(name);
    if (opening === undefined) {
      if (options === undefined) {
        throw new ShardloomError(
          "ERR_UNKNOWN_COLLECTION",
          `Cannot open collection ${JSON.stringify(name)} as it does not exist and no options were given`,
          { details: { name } },
        );
      }
      opening = this.#create(name, options);
      this.#entries.set(name, opening);
      opening.catch(() => this.#entries.delete(name));
    }
    const entry = await opening;
    if (options !== undefined) this.#engine.assertSame(entry.options, options);
    return entry;
  }

  /** @throws {ShardloomError} `ERR_UNKNOWN_COLLECTION` when the collection was dropped. */
  assertEntry(name: string, entry: CatalogEntry<Resolved>): void {
    this.#parts.assertOpen();
    if (!entry.dropped) return;
    throw new ShardloomError(
      "ERR_UNKNOWN_COLLECTION",
      `Cannot use collection ${JSON.stringify(name)} as it was dropped`,
      { details: { name } },
    );
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
      const state = { collectionId, options, rootAddress: root.address };
      return [{ engine: this.#engine.name, collection: collectionId, state }];
    });
  }

  /** Takes the new roots of a shard whose worker was replaced. */
  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    for (const { engine, collection, state } of recovered) {
      if (engine !== this.#engine.name) continue;
      for (const entry of this.#open.values())
        if (entry.collectionId === collection) entry.roots[shard] = state as RegionRef;
    }
  }

  async #create(name: string, options: Resolved): Promise<CatalogEntry<Resolved>> {
    const { shards } = this.#parts.coordinator;
    const entry: CatalogEntry<Resolved> = { collectionId: this.#nextId++, options, roots: [], dropped: false };
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
            if (attempt + 1 < ATTEMPTS && isLost(call.reason)) continue; // its successor opens it
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

  #openOn(shard: number, { collectionId, options }: CatalogEntry<Resolved>): Promise<RegionRef> {
    const { openType, openPayload, readRoot } = this.#engine;
    const payload = openPayload(collectionId, options);
    const { coordinator } = this.#parts;
    return coordinator.ask(shard, openType, VSHARD_LISTED, payload, readRoot, undefined, PRIORITY.CONTROL);
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
    const { dropType, dropPayload } = this.#engine;
    const payload = dropPayload(dropping.collectionId);
    const dropOne = (shard: number): Promise<undefined> =>
      coordinator.ask(shard, dropType, VSHARD_LISTED, payload, () => undefined, undefined, PRIORITY.CONTROL);
    for (let attempt = 1; dropping.shards.size > 0; attempt++) {
      const shards = [...dropping.shards];
      const settled = await Promise.allSettled(shards.map(dropOne));
      let fatal: unknown;
      for (const [at, call] of settled.entries()) {
        if (call.status === "fulfilled") this.#acknowledged(dropping, shards[at] as number);
        else if (attempt === ATTEMPTS || !isLost(call.reason)) fatal ??= call.reason;
      }
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
}

function isLost(error: unknown): boolean {
  return LOST.has(ShardloomError.from(error).code);
}
