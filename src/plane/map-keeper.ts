/**
 * Sees to it that every vshard has a primary that lives: holds this node's lease, watches those of the others, and gives the vshards of who is lost to
 * other holders of copies, by changing the map.
 *
 * ```
 *  own     NONE ──acquired──▶ LEASED ──map has this life──▶ SERVING ──taken by another──▶ NONE
 *  other   HELD ──silent for longer than its holder counts──▶ OVER ──lease taken──▶ TAKEN ──map changed──▶ its shards are copies
 * ```
 *
 * Who was primary by the placement gets its vshards back when it has been well for a while and its copies are level: whoever has them meanwhile
 * stops to serve them, changes the map, and is a copy.
 *
 * Order of a takeover: the lease is over, so its holder serves nothing any more; it is taken, so he cannot renew it; the map is changed, under the
 * condition that he has not registered anew since. Who comes back registers under a new lease before he serves, and learns in that what he is not.
 * Within this node no lease is needed: a worker that is lost was retired before anybody is told.
 *
 * Invariant: everything runs on the node's control thread. Nothing that this object believes makes two primaries: the store decides.
 */
import { ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import { assertMember, type ClusterMap, decodeMap, MAP_KEY, withMember, withMoved } from "../topology/cluster-map.ts";
import { HeldLease, leaseKey, takeLease, WatchedLease } from "../topology/lease.ts";
import { isTransient, type LeaseEntry, type LeaseStore } from "../topology/lease-store.ts";
import type { LeaseWords } from "../topology/lease-words.ts";
import type { ReplicaTable } from "../topology/replica-table.ts";
import { planTakeover } from "../topology/takeover.ts";
import { MapRecord } from "./map-record.ts";
import type { NodeTopology } from "./node-topology.ts";

/** What a keeper works with. */
export interface MapKeeperOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly store: LeaseStore;
  readonly topology: NodeTopology;
  readonly table: ReplicaTable;
  readonly incarnation: number;
  readonly leaseMs: number;
  /** Where workers see until when the lease is good. */
  readonly words: LeaseWords;
  /** The other nodes; none: this one needs no lease. */
  readonly others: readonly string[];
  /** Time that a lost worker has to be replaced before its vshards go to others, in ms. @default 350 */
  readonly promotionDelayMs?: number;
}

/** A successor is there sooner, as a rule; with what the change itself takes, copies serve within half a second. */
const PROMOTION_DELAY_MS = 350;
const RENEWALS_PER_LEASE = 3;
const LOOKS_PER_LEASE = 10;
/** Looks between two readings of the store where it tells no changes. */
const LOOKS_PER_READ = 3;
/** Time between two looks for vshards to give back, and how long their shard must have been well. */
const GIVE_BACK_MS = 1_000;
const WELL_MS = 3_000;
/** Pause before what failed is tried again. */
const RETRY_MS = 50;
/** Nodes that find the same lease over begin in this range, so that one is first. */
const JITTER_MS = 50;

export class MapKeeper {
  readonly #options: MapKeeperOptions;
  readonly #record: MapRecord;
  readonly #lease: HeldLease;
  readonly #watched: Map<string, WatchedLease> = new Map();
  /** Nodes whose vshards are being taken. */
  readonly #taking: Set<string> = new Set();
  /** Own shards whose worker is lost, with what gives them up. */
  readonly #lost: Map<number, Timer | undefined> = new Map();
  readonly #timers: Set<Timer> = new Set();
  #unwatch: (() => void) | undefined;
  #looks = 0;
  readonly #isLeased: boolean;
  /** Own shards that serve nothing until it is known whether they are primaries still. */
  readonly #barred: Set<number> = new Set();
  /** A change of the map may yet come. */
  #inDoubt = false;
  #moving = false;
  #reading = false;
  #closed = false;

  constructor(options: MapKeeperOptions) {
    const { store, clock, topology, incarnation, leaseMs } = options;
    this.#options = options;
    this.#record = new MapRecord({
      store,
      writer: `${topology.self}#${incarnation}`,
      timeoutMs: leaseMs,
      onMap: (map) => topology.setMap(map),
    });
    this.#lease = new HeldLease({ store, clock, node: topology.self, incarnation, leaseMs });
    this.#isLeased = options.others.length > 0;
    if (this.#isLeased) options.words.lapse();
  }

  /** The newest record. */
  get map(): ClusterMap | undefined {
    return this.#record.map;
  }

  /** Another node tells of a map. */
  learn(map: ClusterMap): void {
    this.#record.learn(map);
  }

  /**
   * Takes part in the cluster: until then this node serves nothing.
   *
   * @throws {ShardloomError} `ERR_UNAVAILABLE` when the store does not answer within the time; `ERR_UNTRUSTED` when this node was removed.
   */
  async start(timeoutMs: number): Promise<void> {
    const { clock, store, others, leaseMs } = this.#options;
    const byMs = clock.nowMs() + timeoutMs;
    while (!(await this.#enter())) {
      if (this.#closed || clock.nowMs() >= byMs)
        throw new ShardloomError(
          "ERR_UNAVAILABLE",
          `Cannot start node ${this.#options.topology.self} as who grants leases must answer within ${timeoutMs} ms`,
        );
      await this.#pause(RETRY_MS);
    }
    if (this.#closed) return;
    assertMember(this.map, this.#options.topology.self, this.#options.topology.ownShards);
    this.#every(GIVE_BACK_MS, () => this.#giveBack());
    if (!this.#isLeased) return;
    for (const node of others)
      this.#watched.set(leaseKey(node), new WatchedLease(leaseMs, leaseMs / LOOKS_PER_LEASE, clock.nowMs()));
    this.#unwatch = store.watch?.((key, entry) => this.#saw(key, entry));
    this.#every(leaseMs / RENEWALS_PER_LEASE, () => this.#renew());
    this.#every(leaseMs / LOOKS_PER_LEASE, () => this.#look());
  }

  /** A worker of this node is lost; one that is not back in time loses its vshards. @param forGood It will not be back */
  shardLost(shard: number, forGood: boolean): void {
    const { scheduler, promotionDelayMs = PROMOTION_DELAY_MS } = this.#options;
    if (this.#closed) return;
    this.#lost.get(shard)?.cancel();
    const giveUp = (): void => {
      this.#lost.set(shard, undefined);
      this.#moveOwn();
    };
    if (forGood) return giveUp();
    const timer = scheduler.timer(promotionDelayMs, giveUp);
    timer.unref();
    this.#lost.set(shard, timer);
  }

  /** It has a worker again. */
  shardReady(shard: number): void {
    this.#lost.get(shard)?.cancel();
    this.#lost.delete(shard);
    this.#moveOwn(); // others may have waited for it
  }

  /**
   * Gives all that shards of this node are primary of to other holders of copies; they go on as copies, which their successors ask before they serve.
   * To be called again until it is done; `shardReady` ends it. @param shards @default all of the node, as it is about to close
   *
   * @returns whether nothing is left, and the store knows
   */
  leave(shards: readonly number[] = this.#options.topology.ownShards): boolean {
    const { topology } = this.#options;
    for (const shard of shards) {
      this.#lost.get(shard)?.cancel();
      this.#lost.set(shard, undefined);
    }
    this.#moveOwn();
    return !this.#moving && !this.#inDoubt && !topology.current.owners.some((owner) => shards.includes(owner));
  }

  /** Changes the map, as {@link MapRecord.change} does: when it asks for the next one the topology is that of the present one. */
  change(change: (map: ClusterMap) => ClusterMap | undefined): Promise<boolean> {
    return this.#record.change(change);
  }

  close(): void {
    this.#closed = true;
    this.#unwatch?.();
    for (const timer of this.#timers) timer.cancel();
    for (const timer of this.#lost.values()) timer?.cancel();
    this.#timers.clear();
  }

  /** Acquires the lease and registers this life under it. @returns false when it is to be tried again */
  async #enter(): Promise<boolean> {
    const { topology, incarnation, words } = this.#options;
    try {
      if (this.#isLeased && !(await this.#lease.acquire())) return false;
      const { leaseEpoch } = this.#lease;
      const own = topology.ownShards;
      const entered = await this.#record.change((map) => withMember(map, topology.self, own, incarnation, leaseEpoch));
      if (entered && this.#isLeased) words.hold(this.#lease.untilMs);
      return entered;
    } catch (error) {
      if (isTransient(error)) return false;
      throw error;
    }
  }

  async #renew(): Promise<void> {
    const { words } = this.#options;
    const outcome = await this.#lease.renew();
    if (this.#closed) return;
    if (outcome === "held") words.hold(this.#lease.untilMs);
    if (outcome !== "lost") return;
    words.lapse();
    while (!this.#closed && !(await this.#enter())) await this.#pause(RETRY_MS);
  }

  async #look(): Promise<void> {
    const { clock, store, random } = this.#options;
    if (store.watch === undefined && this.#looks++ % LOOKS_PER_READ === 0) void this.#read();
    for (const [key, watched] of this.#watched) {
      const node = key.slice(leaseKey("").length);
      if (!watched.look(clock.nowMs()) || this.#taking.has(node) || !this.#ownsAny(node)) continue;
      this.#taking.add(node);
      this.#later(random.float() * JITTER_MS, () => {
        void this.#take(node, watched).finally(() => this.#taking.delete(node));
      });
    }
    this.#moveOwn(); // there may have been nobody to take over before
    await Promise.resolve();
  }

  /** Reads what nobody tells. */
  async #read(): Promise<void> {
    const { store, leaseMs } = this.#options;
    if (this.#reading) return;
    this.#reading = true;
    const keys = [...this.#watched.keys()];
    const reads = keys.map(async (key) => {
      const entry = await store.get(key, leaseMs);
      if (entry !== undefined) this.#saw(key, entry);
    });
    await Promise.allSettled([...reads, this.#record.refresh()]); // what failed is read again
    this.#reading = false;
  }

  #saw(key: string, entry: LeaseEntry): void {
    if (key === MAP_KEY) this.#record.learn(decodeMap(entry.value));
    this.#watched.get(key)?.saw(entry, this.#options.clock.nowMs());
  }

  /** A node's lease is over: takes it, and gives its vshards away. */
  async #take(node: string, watched: WatchedLease): Promise<void> {
    const { store, topology, leaseMs } = this.#options;
    if (this.#closed) return;
    try {
      const taken = await takeLease(store, node, watched.entry, topology.self, leaseMs);
      if (taken === undefined) {
        const entry = await store.get(leaseKey(node), leaseMs);
        if (entry !== undefined) this.#saw(leaseKey(node), entry);
        return;
      }
      const shards = new Set(topology.shardsOf(node));
      await this.#record.change((map) => {
        if ((map.lives[node]?.leaseEpoch ?? 0) >= taken.leaseEpoch) return undefined; // he is back
        return this.#withoutShards(map, (shard) => shards.has(shard));
      });
    } catch (error) {
      if (!isTransient(error)) throw error; // otherwise it is over still when it is looked at next
    }
  }

  /** Gives away what own shards are primary of whose worker is not back in time. */
  #moveOwn(): void {
    if (this.#moving || this.#closed) return;
    const { topology, words } = this.#options;
    const gone = new Set([...this.#lost].flatMap(([shard, timer]) => (timer === undefined ? [shard] : [])));
    if (!this.#inDoubt && !topology.current.owners.some((owner) => gone.has(owner))) return;
    for (const shard of gone) {
      words.bar(shard); // if it comes back meanwhile, it must not serve beside its successor
      this.#barred.add(shard);
    }
    this.#moving = true;
    const change = (map: ClusterMap): ClusterMap | undefined =>
      this.#withoutShards(map, (shard) => gone.has(shard) && this.#lost.has(shard)) ??
      (this.#inDoubt ? map : undefined);
    this.#record
      .change(change)
      .then(
        (done) => this.#settled(done),
        (error: unknown) => {
          if (!isTransient(error)) throw error;
          this.#settled(false);
        },
      )
      .finally(() => {
        this.#moving = false;
      });
  }

  /** Gives vshards of own shards back to where the placement wants them, as far as they are level there. */
  async #giveBack(): Promise<void> {
    const { topology, table, clock, words } = this.#options;
    const { current, ownShards } = topology;
    if (this.#moving || this.#inDoubt || this.#closed || current.mapVersion === 1) return;
    const isDue = (vshard: number): boolean => {
      const owner = current.owners[vshard] as number;
      const placed = topology.placedOwner(vshard);
      if (owner === placed || !ownShards.includes(owner) || topology.rankOf(placed) < 2) return false;
      const head = table.ownHead(vshard);
      const sinceMs = topology.memberOf(placed)?.sinceMs ?? Number.POSITIVE_INFINITY;
      return clock.nowMs() - sinceMs > WELL_MS && head >= 0 && table.appliedLsn(vshard, placed) >= head;
    };
    const due = Array.from(current.owners.keys()).filter(isDue);
    if (due.length === 0) return;
    this.#moving = true;
    for (const vshard of due) {
      words.bar(current.owners[vshard] as number);
      this.#barred.add(current.owners[vshard] as number);
    }
    try {
      this.#settled(await this.#record.change((map) => this.#withGivenBack(map, due)));
    } catch (error) {
      if (!isTransient(error)) throw error;
      this.#settled(false);
    } finally {
      this.#moving = false;
    }
  }

  #withGivenBack(map: ClusterMap, vshards: readonly number[]): ClusterMap | undefined {
    const { topology } = this.#options;
    this.#record.learn(map);
    const { owners, copies, replicationFactor } = topology.current;
    const moved = new Map<number, number[]>();
    for (const vshard of vshards) {
      const placed = topology.placedOwner(vshard);
      if (!topology.ownShards.includes(owners[vshard] as number) || owners[vshard] === placed) continue;
      const list = [...copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor)];
      if (list.includes(placed)) moved.set(vshard, [placed, ...list.filter((shard) => shard !== placed)]);
    }
    return moved.size === 0 ? undefined : withMoved(map, moved);
  }

  /** What became of a change is known, or not: then the next one, whatever it changes, ends the doubt. */
  #settled(isKnown: boolean): void {
    this.#inDoubt = !isKnown;
    if (!isKnown) return;
    for (const shard of this.#barred) this.#options.words.unbar(shard);
    this.#barred.clear();
  }

  /** The map without these shards as primaries, as far as others can be; undefined when that is so already. */
  #withoutShards(map: ClusterMap, isLost: (shard: number) => boolean): ClusterMap | undefined {
    const { topology, table } = this.#options;
    this.#record.learn(map);
    const moved = planTakeover(topology.current, {
      isLost: (shard) => isLost(shard) || this.#lost.has(shard),
      rank: (shard) => topology.rankOf(shard),
      appliedLsn: (vshard, shard) => table.appliedLsn(vshard, shard),
    });
    for (const vshard of moved.keys()) if (!isLost(topology.current.owners[vshard] as number)) moved.delete(vshard);
    return moved.size === 0 ? undefined : withMoved(map, moved);
  }

  #ownsAny(node: string): boolean {
    const { topology } = this.#options;
    const shards = topology.shardsOf(node);
    return topology.current.owners.some((owner) => shards.includes(owner));
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.#later(delayMs, resolve));
  }

  #later(delayMs: number, act: () => void): void {
    const timer = this.#options.scheduler.timer(delayMs, () => {
      this.#timers.delete(timer);
      act();
    });
    this.#timers.add(timer);
  }

  /** Acts again and again, never twice at once. */
  #every(intervalMs: number, act: () => Promise<void>): void {
    const timer = this.#options.scheduler.timer(intervalMs, () => {
      this.#timers.delete(timer);
      void act().finally(() => {
        if (!this.#closed) this.#every(intervalMs, act);
      });
    });
    timer.unref();
    this.#timers.add(timer);
  }
}
