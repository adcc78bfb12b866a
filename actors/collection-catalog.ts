/**
 * Which collections of one engine exist, and where each shard keeps its root: the client's side of opening, dropping and
 * recovering.
 *
 * Invariant: a collection is listed only once the current worker of every shard of this node has opened it; its roots are always
 * those of these workers. What is not listed a new worker frees, so a collection that is being opened or dropped never
 * outlives a worker; for the workers that live on, a drop stays on a list until each has acknowledged it, and every later
 * call tries it again.
 *
 * Every node of a cluster opens a collection for itself, on its own shards, whose workers it must be able to replace. All make the
 * same id from the name, and ask each other's shards whether the options agree, as far as they can be reached: a node that is down
 * hinders nobody. The id of a dropped collection is not used again: shards remember it, and the next collection of that name gets the
 * id of its next generation.
 *
 * Where the node has a directory, its collections are open again from the next start on. See collection-store.ts for the order of things.
 */
import type { RegionRef } from "../native-bridge/region-layout.ts";
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import type { RecoverTask, ShardReady } from "../src/plane/shard-task.ts";
import type { KeptCollection } from "../src/store/collection-store.ts";
import { isRemoved, MEMBER_STATE, shardsOf, type TopologySnapshot } from "../src/topology/snapshot.ts";
import { hashString } from "../src/topology/stable-hash.ts";
import { PRIORITY, VSHARD_LISTED } from "../src/wire/envelope-layout.ts";
import type { CatalogEngine, CatalogEntry, CatalogParts } from "./catalog-types.ts";
import { wasDropped } from "./dropped-collections.ts";

/** A drop that some shards have not acknowledged. */
interface Dropping {
  readonly name: string;
  readonly collectionId: number;
  /** Takes a creation back. */
  readonly undo: boolean;
  readonly shards: Set<number>;
  /** The attempt under way. */
  attempt: Promise<void> | undefined;
}

/** How often a collection is opened again on shards whose worker was replaced meanwhile, and dropped where one was lost. */
const ATTEMPTS = 4;
const LOST: ReadonlySet<string> = new Set(["ERR_WORKER_LOST", "ERR_HANDLER_HUNG", "ERR_NATIVE_QUARANTINED"]);

/** How long other nodes' shards may take to tell whether they have a collection with other options. */
const CHECK_TIMEOUT_MS = 1_000;
/** Generations of one name that are tried in one call. */
const MAX_GENERATIONS = 1_000;

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
  /** How often collections of a name were dropped, as far as this node knows. */
  readonly #generations: Map<string, number> = new Map();
  /** Collections that are being taken off the directory's list, by name. */
  readonly #forgetting: Map<string, Promise<void>> = new Map();

  /** With the collections of the directory: they are open once {@link reopen} has resolved. */
  constructor(parts: CatalogParts, engine: CatalogEngine<Resolved>) {
    this.#parts = parts;
    this.#engine = engine;
    const { collections = [], generations = [] } = parts.store?.kept ?? {};
    for (const kept of [...generations, ...collections])
      if (kept.engine === engine.name) this.#generations.set(kept.name, kept.generation);
    for (const { engine: name, ...kept } of collections) if (name === engine.name) this.#restore(kept);
  }

  /**
   * Opens the directory's collections on those shards whose workers have not recovered them by themselves. Once, before any call.
   *
   * @param everywhere Whether a collection is to be opened on the others as well, who lack something that comes with it.
   */
  async reopen(everywhere: (options: Resolved) => boolean = () => false): Promise<void> {
    for (const [name, entry] of this.#open) {
      const opened = new Set<number>();
      const done = (shard: number): boolean =>
        entry.roots[shard] !== undefined && (opened.has(shard) || !everywhere(entry.options));
      for (let attempt = 1; !this.#ownShards.every(done) && attempt <= ATTEMPTS; attempt++) {
        const missing = this.#ownShards.filter((shard) => !done(shard));
        const openedIn: number[] = [];
        await this.#openOn(missing, entry, openedIn, attempt === ATTEMPTS);
        for (const shard of missing) if (openedIn[shard] !== undefined) opened.add(shard);
      }
      if (!this.#ownShards.every(done)) throw tooOften(name);
    }
  }

  /** An open collection, if there is one of that name. */
  known(name: string): CatalogEntry<Resolved> | undefined {
    return this.#open.get(name);
  }

  #restore({ name, collection, options }: Omit<KeptCollection, "engine">): void {
    const entry = this.#entryOf(collection, this.#engine.fromKept(options));
    this.#entries.set(name, Promise.resolve(entry));
    this.#open.set(name, entry);
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
   * Drops a collection on every shard of this node and frees its regions; other nodes drop it for themselves. It is gone at once; when a shard does not acknowledge that in
   * time, this rejects, and calling it again, or any later open or drop, goes on with it.
   *
   * @returns whether it existed, or was still being dropped
   */
  async drop(name: string): Promise<boolean> {
    this.#parts.assertOpen();
    const entry = await this.#entries.get(name);
    const existed = entry !== undefined && !entry.dropped;
    if (existed) {
      const forgetting =
        this.#forgetting.get(name) ?? this.#forget(name, entry).finally(() => this.#forgetting.delete(name));
      this.#forgetting.set(name, forgetting);
      await forgetting;
    }
    const drops = [...this.#dropping.values()].filter((dropping) => dropping.name === name);
    this.#retryDrops();
    await Promise.all(drops.flatMap(({ attempt }) => (attempt === undefined ? [] : [attempt])));
    return existed || drops.length > 0;
  }

  /** Takes a collection off the lists, the directory's first: were its shards first, a crash could leave a part of it. */
  async #forget(name: string, entry: CatalogEntry<Resolved>): Promise<void> {
    const generation = this.#generationOf(name) + 1;
    const { store, onDropped } = this.#parts;
    if (store !== undefined) await store.remove({ engine: this.#engine.name, name, generation });
    entry.dropped = true;
    this.#entries.delete(name);
    this.#open.delete(name);
    onDropped?.(entry.collectionId);
    this.#generations.set(name, generation);
    this.#beginDrop(name, entry.collectionId, false);
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

  /** Creates the collection in the first generation of its name that nobody has dropped. */
  async #create(name: string, options: Resolved): Promise<CatalogEntry<Resolved>> {
    for (let attempt = 0; attempt < MAX_GENERATIONS; attempt++) {
      const generation = this.#generationOf(name);
      try {
        return await this.#createAs(name, this.#idOf(name, generation), options);
      } catch (error) {
        if (!wasDropped(error)) throw error;
        this.#generations.set(name, generation + 1);
      }
    }
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot open collection ${JSON.stringify(name)} as ${MAX_GENERATIONS} generations of it were dropped`,
      { details: { name, generations: MAX_GENERATIONS } },
    );
  }

  /** The same on every node. @throws {ShardloomError} `ERR_COLLECTION_MISMATCH` when another collection's name has the same hash. */
  #idOf(name: string, generation: number): number {
    const collectionId = collectionIdOf(this.#engine.name, name, generation);
    for (const [other, entry] of this.#open) {
      if (other === name || entry.collectionId !== collectionId) continue;
      throw new ShardloomError(
        "ERR_COLLECTION_MISMATCH",
        `Cannot open collection ${JSON.stringify(name)} as its hash must differ from that of ${JSON.stringify(other)}: current value is ${collectionId}`,
        { details: { name, other, collectionId } },
      );
    }
    return collectionId;
  }

  async #createAs(name: string, collectionId: number, options: Resolved): Promise<CatalogEntry<Resolved>> {
    await this.#dropping.get(collectionId)?.attempt; // a creation that failed has to be taken back first
    const entry = this.#entryOf(collectionId, options);
    const openedIn: number[] = [];
    let checked = false;
    const kept = { engine: this.#engine.name, name, generation: this.#generationOf(name) };
    await this.#parts.store?.add({ ...kept, collection: collectionId, options: this.#engine.toKept(options) });
    try {
      for (let attempt = 0; attempt < ATTEMPTS; ) {
        const missing = this.#ownShards.filter((shard) => openedIn[shard] !== this.#successionOf(shard));
        if (missing.length > 0) {
          await this.#openOn(missing, entry, openedIn, ++attempt === ATTEMPTS);
        } else if (!checked) {
          await this.#checkOthers(entry); // after this node's own: of two that open at once one sees the other
          checked = true;
        } else {
          this.#open.set(name, entry); // in one turn with the look above: no worker is replaced in between
          return entry;
        }
      }
      throw tooOften(name);
    } catch (error) {
      // When this fails too the collection is there at the next start: whether it was made is not known.
      await this.#parts.store?.remove(kept).catch(() => undefined);
      await this.#beginDrop(name, collectionId, true).attempt?.catch(() => undefined); // the first failure is the one to tell
      throw error;
    }
  }

  /** Opens on shards. A worker that is lost meanwhile leaves its shard missing, unless this is the last attempt. */
  async #openOn(
    missing: readonly number[],
    entry: CatalogEntry<Resolved>,
    openedIn: number[],
    last: boolean,
  ): Promise<void> {
    const succession = missing.map((shard) => this.#successionOf(shard));
    const settled = await Promise.allSettled(missing.map((shard) => this.#ask(shard, entry, false)));
    for (const [at, call] of settled.entries()) {
      if (call.status === "rejected") {
        if (!last && isLost(call.reason)) continue; // its successor opens it
        throw call.reason;
      }
      openedIn[missing[at] as number] = succession[at] as number;
      entry.roots[missing[at] as number] = call.value;
    }
  }

  /** Asks the shards of other nodes whether their options are the same. Who cannot be reached, or has not opened it yet, does not object. */
  async #checkOthers(entry: CatalogEntry<Resolved>): Promise<void> {
    const { coordinator } = this.#parts;
    const own = new Set(this.#ownShards);
    const { states } = coordinator.snapshot;
    const others = coordinator.shards.filter((shard) => !own.has(shard) && mayAnswer(states[shard]));
    for (const call of await Promise.allSettled(others.map((shard) => this.#ask(shard, entry, true)))) {
      if (call.status === "fulfilled") continue;
      const { code } = ShardloomError.from(call.reason);
      if (code === "ERR_COLLECTION_MISMATCH" || wasDropped(call.reason)) throw call.reason;
    }
  }

  #ask(shard: number, { collectionId, options }: CatalogEntry<Resolved>, checkOnly: boolean): Promise<RegionRef> {
    const { openType, openPayload, readRoot } = this.#engine;
    const payload = openPayload(collectionId, options, checkOnly);
    const limits = checkOnly ? { timeoutMs: CHECK_TIMEOUT_MS } : undefined;
    return this.#parts.coordinator.ask(shard, openType, VSHARD_LISTED, payload, readRoot, limits, PRIORITY.CONTROL);
  }

  #entryOf(collectionId: number, options: Resolved): CatalogEntry<Resolved> {
    const roots = new Array<RegionRef | undefined>(this.#parts.coordinator.shards.length).fill(undefined);
    return { collectionId, options, roots, dropped: false };
  }

  #beginDrop(name: string, collectionId: number, undo: boolean): Dropping {
    const shards = new Set(this.#ownShards);
    const dropping: Dropping = { name, collectionId, undo, shards, attempt: undefined };
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
    const payload = dropPayload(dropping.collectionId, dropping.undo);
    const dropOne = (shard: number): Promise<undefined> =>
      coordinator.ask(shard, dropType, VSHARD_LISTED, payload, () => undefined, undefined, PRIORITY.CONTROL);
    for (let attempt = 1; dropping.shards.size > 0; attempt++) {
      const shards = [...dropping.shards].filter((shard) => !isRemoved(coordinator.snapshot, shard));
      for (const shard of dropping.shards) if (!shards.includes(shard)) this.#acknowledged(dropping, shard);
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

  get #ownShards(): readonly number[] {
    const { ownShards, coordinator } = this.#parts;
    if (ownShards === undefined) return coordinator.shards;
    return ownShards.filter((shard) => !isRemoved(coordinator.snapshot, shard));
  }

  #successionOf(shard: number): number {
    return this.#successions[shard] ?? 0;
  }

  #generationOf(name: string): number {
    return this.#generations.get(name) ?? 0;
  }
}

/** @throws {ShardloomError} `ERR_UNAVAILABLE` for what lies on all shards, when one of them was removed. */
export function assertAllShards(snapshot: TopologySnapshot, kind: string, name: string): void {
  const shards = shardsOf(snapshot);
  if (shards.length === snapshot.shards) return;
  throw new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot open ${kind} ${JSON.stringify(name)} as no shard may have been removed: ${snapshot.shards - shards.length} were`,
    { details: { name, shards }, retryable: false },
  );
}

function tooOften(name: string): ShardloomError {
  return new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot open collection ${JSON.stringify(name)} as workers were replaced during ${ATTEMPTS} attempts`,
    { details: { name, attempts: ATTEMPTS } },
  );
}

/** A positive int32 that every node makes of the same collection. */
export function collectionIdOf(engine: string, name: string, generation: number): number {
  return hashString(`${engine} ${name} ${generation}`) & 0x7fffffff || 1;
}

/** Whether a shard in this state can be expected to answer soon. */
function mayAnswer(state: number | undefined): boolean {
  return state === MEMBER_STATE.UP || state === MEMBER_STATE.DRAINING || state === MEMBER_STATE.SUSPECT;
}

function isLost(error: unknown): boolean {
  return LOST.has(ShardloomError.from(error).code);
}
