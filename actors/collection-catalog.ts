/**
 * Which collections of one engine exist, and where each shard keeps its root: the client's side of opening, dropping and
 * recovering.
 *
 * Invariant: a collection is listed only once the current worker of every shard of this node has opened it; its roots are always
 * those of these workers. What is not listed a new worker frees, so a collection that is being opened or dropped never
 * outlives a worker; for the workers that live on, a drop stays on a list until each has acknowledged it, and every later
 * call tries it again.
 *
 * Every node of a cluster opens a collection on its own shards, whose workers it must be able to replace: one because somebody asks for it
 * there, the others because they are told (see collection-exchange.ts). All make the same id from the name. Who creates one asks the shards of
 * the others whether the options agree, as far as they can be reached: a node that is down hinders nobody. Where two nodes that could not reach
 * each other have made one with different options, opening it fails on both until it is dropped. The id of a dropped collection is not used
 * again: shards remember it, and the next collection of that name gets the id of its next generation.
 *
 * Where the node has a directory, its collections are open again from the next start on. See collection-store.ts for the order of things.
 */
import type { RegionRef } from "../native-bridge/region-layout.ts";
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import type { CollectionNews } from "../src/plane/collection-exchange.ts";
import type { RecoverTask, ShardReady } from "../src/plane/shard-task.ts";
import type { KeptCollection } from "../src/store/collection-store.ts";
import { isRemoved, mayAnswer } from "../src/topology/snapshot.ts";
import { PRIORITY, VSHARD_LISTED } from "../src/wire/envelope-layout.ts";
import { allDropped, dropped, notThere, sameHash, tooOften } from "./catalog-errors.ts";
import type { CatalogEngine, CatalogEntry, CatalogParts } from "./catalog-types.ts";
import { CollectionDrops, isLost } from "./collection-drops.ts";
import { collectionIdOf } from "./collection-id.ts";
import { wasDropped } from "./dropped-collections.ts";

/** How often a collection is opened again on shards whose worker was replaced meanwhile. */
const ATTEMPTS = 4;

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
  readonly #drops: CollectionDrops;
  /** Per shard, how many workers it has had. */
  readonly #successions: number[] = [];
  /** How often collections of a name were dropped, as far as this node knows. */
  readonly #generations: Map<string, number> = new Map();
  /** Collections that are being taken off the directory's list, by name. */
  readonly #forgetting: Map<string, Promise<void>> = new Map();
  /** What other nodes have told is taken one after the other, by name. */
  readonly #learning: Map<string, Promise<void>> = new Map();
  /** Names of which another node has a collection with other options. */
  readonly #conflicts: Map<string, { readonly generation: number; readonly error: ShardloomError }> = new Map();
  /** Entries that the other nodes have been given time to open. */
  readonly #spread: WeakMap<CatalogEntry<Resolved>, Promise<void>> = new WeakMap();

  /** With the collections of the directory: they are open once {@link reopen} has resolved. */
  constructor(parts: CatalogParts, engine: CatalogEngine<Resolved>) {
    this.#parts = parts;
    this.#engine = engine;
    this.#drops = new CollectionDrops(parts, engine);
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
      if (!this.#ownShards.every(done)) throw tooOften(name, ATTEMPTS);
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
    this.#drops.retry();
    if (!this.#entries.has(name)) await this.#parts.others?.settled();
    this.#parts.assertOpen();
    let opening = this.#entries.get(name);
    if (opening === undefined) {
      if (options === undefined) throw notThere(name);
      opening = this.#enter(name, this.#create(name, options));
    }
    const entry = await opening;
    if (options !== undefined) this.#engine.assertSame(entry.options, options);
    await this.#spreadOf(name, entry);
    const conflict = this.#conflicts.get(name);
    if (conflict?.generation === this.#generationOf(name)) throw conflict.error;
    return entry;
  }

  /** @throws {ShardloomError} `ERR_UNKNOWN_COLLECTION` when the collection was dropped. */
  assertEntry(name: string, entry: CatalogEntry<Resolved>): void {
    this.#parts.assertOpen();
    if (entry.dropped) throw dropped(name);
  }

  /**
   * Drops a collection on every shard of this node and frees its regions; other nodes are told. It is gone at once; when a shard does not acknowledge that in
   * time, this rejects, and calling it again, or any later open or drop, goes on with it.
   *
   * @param isHeard Whether another node has dropped it. @returns whether it existed, or was still being dropped
   */
  async drop(name: string, isHeard = false): Promise<boolean> {
    const { assertOpen, others } = this.#parts;
    assertOpen();
    if (!isHeard && !this.#entries.has(name)) await others?.settled();
    const entry = await this.#entries.get(name);
    const existed = entry !== undefined && !entry.dropped;
    if (existed) {
      const forgetting =
        this.#forgetting.get(name) ?? this.#forget(name, entry).finally(() => this.#forgetting.delete(name));
      this.#forgetting.set(name, forgetting);
      await forgetting;
    }
    const drops = this.#drops.of(name);
    this.#drops.retry();
    await Promise.all(drops.flatMap(({ attempt }) => (attempt === undefined ? [] : [attempt])));
    if (existed && !isHeard) await others?.spread(this.#newsOf(name));
    return existed || drops.length > 0;
  }

  /** Takes a collection off the lists, the directory's first: were its shards first, a crash could leave a part of it. */
  async #forget(name: string, entry: CatalogEntry<Resolved>): Promise<void> {
    const generation = this.#generationOf(name) + 1;
    const { store, others, onDropped } = this.#parts;
    if (store !== undefined) await store.remove({ engine: this.#engine.name, name, generation });
    entry.dropped = true;
    this.#entries.delete(name);
    this.#open.delete(name);
    onDropped?.(entry.collectionId);
    this.#generations.set(name, generation);
    others?.tell(this.#newsOf(name));
    this.#drops.begin(name, entry.collectionId, false);
  }

  /** Gives a collection the name of another, which is dropped: nobody finds neither. For engines that no directory and no other node knows. */
  async rename(from: string, to: string): Promise<void> {
    const [entry, old] = [from, to].map((name) => this.#open.get(name));
    if (entry === undefined || old === undefined) throw notThere(to);
    const forgetting = this.#forget(to, old);
    this.#generations.set(from, this.#generationOf(from) + 1); // its id is taken
    this.#entries.delete(from);
    this.#open.delete(from);
    this.#entries.set(to, Promise.resolve(entry));
    this.#open.set(to, entry);
    await forgetting;
  }

  /** What the next worker of a shard must take over. It frees everything else, so drops are done with that. */
  recoverTasks(shard: number): RecoverTask[] {
    this.#successions[shard] = this.#successionOf(shard) + 1;
    this.#drops.replaced(shard);
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

  /** What this node has, and what was dropped, as other nodes are told. */
  news(): CollectionNews[] {
    const gone = [...this.#generations.keys()].filter((name) => !this.#open.has(name));
    return [
      ...[...this.#open].map(([name, entry]) => this.#newsOf(name, entry)),
      ...gone.map((name) => this.#newsOf(name)),
    ];
  }

  /**
   * Another node has told what it has: what is newer than what is here is opened, or dropped, here too.
   *
   * @param drop What drops a collection. @throws {ShardloomError} `ERR_COLLECTION_MISMATCH` when there is one with other options; as opening and dropping do.
   */
  learn(
    news: CollectionNews,
    drop: (name: string) => Promise<boolean> = (name) => this.drop(name, true),
  ): Promise<void> {
    const { name } = news;
    const learnt = (this.#learning.get(name) ?? Promise.resolve()).then(() => this.#learn(news, drop));
    const over = learnt.catch(() => undefined);
    this.#learning.set(name, over);
    void over.then(() => {
      if (this.#learning.get(name) === over) this.#learning.delete(name);
    });
    return learnt;
  }

  async #learn({ name, generation, options }: CollectionNews, drop: (name: string) => Promise<boolean>): Promise<void> {
    await this.#entries.get(name)?.catch(() => undefined);
    this.#parts.assertOpen();
    while (generation > this.#generationOf(name) && this.#entries.has(name)) await drop(name);
    if (generation > this.#generationOf(name)) {
      this.#generations.set(name, generation); // at once: who opens one from now on opens the newer one
      await this.#parts.store?.remove({ engine: this.#engine.name, name, generation });
      this.#parts.others?.tell(this.#newsOf(name));
    }
    if (options === undefined || generation !== this.#generationOf(name)) return;
    try {
      const resolved = this.#engine.fromKept(options);
      const opening = this.#entries.get(name) ?? this.#enter(name, this.#createAs(name, generation, resolved, true));
      this.#engine.assertSame((await opening).options, resolved);
    } catch (error) {
      const failure = ShardloomError.from(error);
      if (failure.code === "ERR_COLLECTION_MISMATCH") this.#conflicts.set(name, { generation, error: failure });
      throw failure;
    }
  }

  #newsOf(name: string, entry?: CatalogEntry<Resolved>): CollectionNews {
    const news = { engine: this.#engine.name, name, generation: this.#generationOf(name) };
    return entry === undefined ? news : { ...news, options: this.#engine.toKept(entry.options) };
  }

  /** Gives the other nodes time to open it, once. */
  #spreadOf(name: string, entry: CatalogEntry<Resolved>): Promise<void> | undefined {
    const { others } = this.#parts;
    if (others === undefined || entry.dropped) return undefined;
    const spread = this.#spread.get(entry) ?? others.spread(this.#newsOf(name, entry));
    this.#spread.set(entry, spread);
    return spread;
  }

  #enter(name: string, opening: Promise<CatalogEntry<Resolved>>): Promise<CatalogEntry<Resolved>> {
    this.#entries.set(name, opening);
    opening.catch(() => this.#entries.delete(name));
    return opening;
  }

  /** Creates the collection in the first generation of its name that nobody has dropped. */
  async #create(name: string, options: Resolved): Promise<CatalogEntry<Resolved>> {
    for (let attempt = 0; attempt < MAX_GENERATIONS; attempt++) {
      const generation = this.#generationOf(name);
      try {
        return await this.#createAs(name, generation, options, false);
      } catch (error) {
        if (!wasDropped(error)) throw error;
        this.#generations.set(name, generation + 1);
      }
    }
    throw allDropped(name, MAX_GENERATIONS);
  }

  /** The same on every node. @throws {ShardloomError} `ERR_COLLECTION_MISMATCH` when another collection's name has the same hash. */
  #idOf(name: string, generation: number): number {
    const collectionId = collectionIdOf(this.#engine.name, name, generation);
    for (const [other, entry] of this.#open)
      if (other !== name && entry.collectionId === collectionId) throw sameHash(name, other, collectionId);
    return collectionId;
  }

  /** @param isHeard Whether another node has it: nobody is asked then. */
  async #createAs(
    name: string,
    generation: number,
    options: Resolved,
    isHeard: boolean,
  ): Promise<CatalogEntry<Resolved>> {
    const { store, others } = this.#parts;
    const collectionId = this.#idOf(name, generation);
    await this.#drops.attemptOf(collectionId); // a creation that failed has to be taken back first
    const entry = this.#entryOf(collectionId, options);
    const openedIn: number[] = [];
    let checked = isHeard;
    const kept = { engine: this.#engine.name, name, generation };
    await store?.add({ ...kept, collection: collectionId, options: this.#engine.toKept(options) });
    try {
      for (let attempt = 0; attempt < ATTEMPTS; ) {
        const { liesOn = () => true } = this.#engine;
        const isOpen = (shard: number): boolean => openedIn[shard] === this.#successionOf(shard);
        const missing = this.#ownShards.filter((shard) => liesOn(options, shard) && !isOpen(shard));
        if (missing.length > 0) {
          await this.#openOn(missing, entry, openedIn, ++attempt === ATTEMPTS);
        } else if (!checked) {
          await this.#checkOthers(entry); // after this node's own: of two that open at once one sees the other
          checked = true;
        } else {
          this.#open.set(name, entry); // in one turn with the look above: no worker is replaced in between
          others?.tell(this.#newsOf(name, entry));
          return entry;
        }
      }
      throw tooOften(name, ATTEMPTS);
    } catch (error) {
      // When this fails too the collection is there at the next start: whether it was made is not known.
      await store?.remove(kept).catch(() => undefined);
      await this.#drops.begin(name, collectionId, true).attempt?.catch(() => undefined); // the first failure is the one to tell
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
