/**
 * Takes a node of several out of its cluster for good: what each node does for it, whichever of them was asked.
 *
 * ```
 *  who is asked   checked ──▶ LEAVING in the map ──all that the node held is served elsewhere──▶ its shards off the map ──▶ new copies are filled
 *                    │             └──not in time: it is taken back, and the node gets back what it was primary of by and by
 *                    └──refused: nothing is changed
 *  the node       hears that it is leaving ──▶ drains, hands over, goes on as a copy ──hears that it is removed──▶ tells so, and is to be closed
 * ```
 *
 * The map says all of it, so that nothing depends on who was asked, nor on the node: who dies in the middle leaves a map with which the same call,
 * on any node, goes on; of a node that is dead the others take what it is primary of when its lease is over. Who comes back reads in the map what it
 * is before it serves. One change of the map takes all of its shards, on the condition that for every vshard of theirs another node's primary, in that
 * map, has all that was acknowledged: it has told its head since it is known. So no copy of a removed node is needed by anybody, nor counted.
 *
 * Invariant: without `force` nothing that was acknowledged by a majority is on the removed node alone. With it, only a node that is down, and whose
 * lease was taken, is removed so, and only what none of the others could serve in all of the time is given up.
 */
import { handOver } from "./cluster-leases.ts";
import { invalidArgument, ShardloomError } from "./errors.ts";
import type { MapKeeper } from "./plane/map-keeper.ts";
import type { NodeTopology } from "./plane/node-topology.ts";
import type { Runtime } from "./runtime/runtime.ts";
import { sleep } from "./runtime/scheduler.ts";
import {
  assertMember,
  type ClusterMap,
  followersOf,
  isNodeRemoved,
  withLeaving,
  withRemoved,
} from "./topology/cluster-map.ts";
import { decodeLease, leaseKey } from "./topology/lease.ts";
import { isTransient, type LeaseStore } from "./topology/lease-store.ts";
import { shardId } from "./topology/member.ts";
import { ReplicaTable } from "./topology/replica-table.ts";
import { holdsCopy, MEMBER_STATE, NO_SHARD } from "./topology/snapshot.ts";

/** How {@link Cluster.removeNode} waits, and what it may do. */
export interface RemoveNodeOptions {
  /** How long others may take to serve what the node has, in ms, `1..86400000`. @default 30000 */
  readonly timeoutMs?: number;
  /** Gives up what is on the node alone when the time is over, if the node is down: acknowledged writes may be lost. @default false */
  readonly force?: boolean;
}

/** What {@link Cluster.removeNode} has done. */
export interface NodeRemovalReport {
  readonly node: string;
  /** Its shards. */
  readonly shards: readonly number[];
  /** Vshards that they were primary of when it began. */
  readonly primaries: number;
  /** Vshards of which they held copies, and other shards hold them now. */
  readonly copies: number;
  /** Those of them whose new copies are not level yet, as they are being filled: until then these have a copy less. */
  readonly filling: readonly number[];
  /** Vshards of which no other node could serve what was acknowledged: what only the node had of them was given up. Empty without `force`. */
  readonly givenUp: readonly number[];
}

/** What it works with. */
export interface NodeRemovalOptions {
  readonly runtime: Runtime;
  readonly topology: NodeTopology;
  /** The block of the replica table. */
  readonly replicas: SharedArrayBuffer;
  /** Absent where no vshard can get another primary. */
  readonly keeper: MapKeeper | undefined;
  /** Who grants leases. Absent: nobody does, or the cluster is one process. */
  readonly leases: LeaseStore | undefined;
  readonly assertOpen: () => void;
  /** This node was removed. */
  readonly onRemoved: () => void;
}

const ACTION = "remove node";
const TIMEOUT_MS = 30_000;
const MAX_TIMEOUT_MS = 86_400_000;
/** Pause between two looks. */
const LOOK_MS = 10;
/** Pause before the store is asked again. */
const RETRY_MS = 50;
/** In a map that is younger others may not have told yet what they serve, and so long they may be late. */
const CALM_MS = 1_000;
const LATE_MS = 5_000;
/** How long a removal that has failed is tried to be taken back. */
const TAKE_BACK_MS = 3_000;
/** A copy that lacks nothing older than this is as good as level. */
const LEVEL_MS = 1_000;
/** How long new copies are waited for, once nothing can go wrong any more. */
const FILL_MS = 2_000;
/** One try of a node that leaves to hand over, and the pause before the next. */
const LEAVE_MS = 1_000;
const LEAVE_LOOK_MS = 50;
/** States of shards that copies may go to, as a placement sees them. */
const ABLE: readonly number[] = [MEMBER_STATE.JOINING, MEMBER_STATE.UP, MEMBER_STATE.SUSPECT];

/** A removal that is under way. */
interface Removing {
  readonly node: string;
  readonly shards: readonly number[];
  readonly keeper: MapKeeper;
  readonly startedAtMs: number;
  readonly byMs: number;
  readonly force: boolean;
}

export class NodeRemoval {
  readonly #options: NodeRemovalOptions;
  readonly #table: ReplicaTable;
  #mapSinceMs: number = Number.NEGATIVE_INFINITY;
  #current: { readonly node: string; readonly done: Promise<NodeRemovalReport> } | undefined;
  #isStarted = false;
  #isLeaving = false;
  #isRemoved = false;

  constructor(options: NodeRemovalOptions) {
    const { runtime, topology, replicas } = options;
    this.#options = options;
    this.#table = new ReplicaTable(replicas, topology.shared, () => runtime.clock.nowMs());
    topology.on("map", (map) => this.#follow(map));
  }

  /** This node serves. @throws {ShardloomError} `ERR_UNTRUSTED` when it was removed meanwhile. */
  start(): void {
    const { keeper, topology } = this.#options;
    assertMember(keeper?.map, topology.self, this.#isOneOfSeveral ? topology.ownShards : []);
    this.#isStarted = true;
    void this.#leave();
  }

  /** A second call for the same node joins the first. */
  remove(node: string, options: RemoveNodeOptions = {}): Promise<NodeRemovalReport> {
    if (this.#current?.node === node) return this.#current.done;
    const done = this.#remove(node, options).finally(() => {
      if (this.#current?.done === done) this.#current = undefined;
    });
    this.#current ??= { node, done };
    return done;
  }

  async #remove(node: string, options: RemoveNodeOptions): Promise<NodeRemovalReport> {
    const { runtime, topology } = this.#options;
    const removing = this.#checked(node, options);
    const { shards, byMs } = removing;
    const held = this.#heldBy(shards);
    const primaries = held.filter((vshard) => shards.includes(topology.current.owners[vshard] as number)).length;
    try {
      await this.#change(removing, byMs, (map) =>
        isNodeRemoved(map, shards) || map.leaving?.includes(node) === true ? undefined : withLeaving(map, node, true),
      );
      const givenUp = await this.#leaveMap(removing);
      const filling = await this.#filled(held, runtime.clock.nowMs() + FILL_MS);
      return { node, shards, primaries, copies: held.length, filling, givenUp };
    } catch (error) {
      const takeBack = (map: ClusterMap): ClusterMap | undefined =>
        map.leaving?.includes(node) === true ? withLeaving(map, node, false) : undefined;
      // What cannot be taken back stays: the node has handed over, and the same call goes on with it.
      const untilMs = runtime.clock.nowMs() + TAKE_BACK_MS;
      if (!this.#isClosed) await this.#change(removing, untilMs, takeBack).catch(() => undefined);
      throw error;
    }
  }

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_UNAVAILABLE` when the rest could not hold what the node has. */
  #checked(node: string, { timeoutMs = TIMEOUT_MS, force = false }: RemoveNodeOptions): Removing {
    const { runtime, topology, keeper, leases, assertOpen } = this.#options;
    assertOpen();
    const { membership } = topology;
    const names = membership.members.flatMap(({ kind, id }) => (kind === "node" ? [id] : []));
    if (!names.includes(node)) throw invalidArgument(ACTION, "node", `one of ${names.join(", ")}`, node);
    if (!Number.isFinite(timeoutMs) || timeoutMs < 1 || timeoutMs > MAX_TIMEOUT_MS)
      throw invalidArgument(ACTION, "timeoutMs", `a number between 1 and ${MAX_TIMEOUT_MS}`, timeoutMs);
    if (typeof force !== "boolean") throw invalidArgument(ACTION, "force", "a boolean", force);
    if (this.#current !== undefined)
      throw this.#unavailable(node, `one node is removed at a time here: ${this.#current.node} is being removed`);
    const { replicationFactor } = topology.current;
    if (replicationFactor === 1)
      throw this.#unavailable(node, "what it has must have copies elsewhere: every vshard has one copy, see --copies");
    if (keeper === undefined || leases === undefined)
      throw this.#unavailable(
        node,
        "there must be others, and who grants leases: without NATS vshards stay where they are",
      );
    const shards = topology.shardsOf(node);
    const others = membership.placementMembers().filter(({ shard }) => !shards.includes(shard)).length;
    if (others < replicationFactor) throw this.#tooFew(node, others);
    const startedAtMs = runtime.clock.nowMs();
    return { node, shards, keeper, startedAtMs, byMs: startedAtMs + timeoutMs, force };
  }

  /** Takes its shards off the map as soon as others serve what they hold, and are enough to hold it. @returns vshards that were given up */
  async #leaveMap(removing: Removing): Promise<number[]> {
    const { runtime, topology } = this.#options;
    const { node, shards, byMs } = removing;
    const isEnough = (): boolean => this.#ableBut(shards) >= topology.current.replicationFactor;
    for (;;) {
      this.#options.assertOpen();
      const nowMs = runtime.clock.nowMs();
      const isCalm = nowMs - this.#mapSinceMs >= CALM_MS;
      const isOver = nowMs >= byMs && (isCalm || nowMs >= byMs + LATE_MS);
      let left = this.#unserved(removing);
      const taken = isOver && isCalm && left.length > 0 ? await this.#takenEpoch(removing, left) : undefined;
      if (isEnough() && (left.length === 0 || taken !== undefined)) {
        const limitMs = Math.max(byMs, runtime.clock.nowMs() + TAKE_BACK_MS);
        await this.#change(removing, limitMs, (map) => {
          if (isNodeRemoved(map, shards) || !isEnough()) return undefined;
          const now = this.#unserved(removing); // in this map, which may be newer
          const isBack = taken === undefined || (map.lives[node]?.leaseEpoch ?? 0) >= taken;
          if (now.length > 0 && (isBack || now.length > left.length)) return undefined;
          left = now;
          return this.#without(map, removing);
        });
        if (isNodeRemoved(removing.keeper.map, shards)) return left;
      }
      if (isOver) throw isEnough() ? this.#unserving(removing, left) : this.#tooFew(node, this.#ableBut(shards));
      await sleep(runtime.scheduler, LOOK_MS);
    }
  }

  #without(map: ClusterMap, { node, shards }: Removing): ClusterMap {
    const { topology } = this.#options;
    const { copies } = topology.preview({ remove: shards });
    const followers = followersOf(topology.current, copies, shards);
    const { leaving = [] } = map;
    return withRemoved(
      { ...map, leaving: leaving.filter((each) => each !== node) },
      topology.current,
      shards,
      followers,
    );
  }

  /** Vshards of which no other node is known, in the map that is known, to serve all that was acknowledged. */
  #unserved({ shards, startedAtMs }: Removing): number[] {
    const { topology } = this.#options;
    const table = this.#table;
    const { owners, terms } = topology.current;
    const sinceMs = Math.max(startedAtMs, this.#mapSinceMs);
    return this.#heldBy(shards).filter((vshard) => {
      const owner = owners[vshard] as number;
      if (shards.includes(owner) || topology.rankOf(owner) === 0) return true;
      // Who tells a head is primary by the same map, has all that its term began with, and holds its lease.
      if (table.isRemote(owner)) return table.headKnownAtMs(vshard) < sinceMs;
      return terms[vshard] !== 1 && !table.hasOwnHead(vshard);
    });
  }

  /** The lease that was taken from a node that may be removed by force; undefined: it may not be, or not yet. */
  async #takenEpoch({ node, shards, force, keeper }: Removing, left: readonly number[]): Promise<number | undefined> {
    const { topology, leases } = this.#options;
    if (!force || topology.membership.get(node)?.state !== "down") return undefined;
    const { copies, owners, replicationFactor } = topology.current;
    const known = keeper.map?.lives[node]?.leaseEpoch ?? 0;
    if (!owners.some((owner) => shards.includes(owner))) return known + 1; // that is what it would come back under
    // What others have a copy of is theirs when they have taken the lease: they need not begin with nothing.
    const isOthers = (vshard: number): boolean =>
      shards.includes(owners[vshard] as number) &&
      [...copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor)].some(
        (holder) => holder !== NO_SHARD && !shards.includes(holder) && topology.rankOf(holder) > 0,
      );
    if (left.some(isOthers)) return undefined;
    const entry = await leases?.get(leaseKey(node), LEVEL_MS).catch(() => undefined);
    const lease = entry === undefined ? undefined : decodeLease(entry.value);
    return lease?.takenBy === undefined ? undefined : lease.leaseEpoch;
  }

  #unserving({ node, force }: Removing, vshards: readonly number[]): ShardloomError {
    const { topology } = this.#options;
    const list = `${vshards.length} vshards, ${vshards.slice(0, 8).join(", ")}${vshards.length > 8 ? ", …" : ""}`;
    const isDown = topology.membership.get(node)?.state === "down";
    const rule =
      isDown && !force
        ? `what was acknowledged must be elsewhere too: of ${list}, it may be lost with the node, which takes --force`
        : `others must serve what it has in time: they do not serve ${list}`;
    return new ShardloomError(isDown ? "ERR_UNAVAILABLE" : "ERR_TIMEOUT", `Cannot remove node ${node} as ${rule}`, {
      details: { node, vshards },
      retryable: false,
    });
  }

  /** Changes the map, until it is known to be as it is wanted. @throws {ShardloomError} `ERR_TIMEOUT` */
  async #change(
    { node, keeper }: Removing,
    byMs: number,
    change: (map: ClusterMap) => ClusterMap | undefined,
  ): Promise<void> {
    const { runtime, assertOpen } = this.#options;
    for (;;) {
      assertOpen();
      try {
        if (await keeper.change(change)) return;
      } catch (error) {
        if (!isTransient(error)) throw error;
      }
      if (runtime.clock.nowMs() >= byMs)
        throw new ShardloomError("ERR_TIMEOUT", `Cannot remove node ${node} as who keeps the map must answer in time`, {
          details: { node },
        });
      await sleep(runtime.scheduler, RETRY_MS);
    }
  }

  /** Waits until copies are level. @returns the vshards of which some are not, when the time is over */
  async #filled(vshards: readonly number[], byMs: number): Promise<number[]> {
    const { runtime, topology } = this.#options;
    for (;;) {
      const { copies, replicationFactor } = topology.current;
      const filling = vshards.filter((vshard) =>
        copies
          .subarray(vshard * replicationFactor + 1, (vshard + 1) * replicationFactor)
          .some((holder) => this.#table.stalenessMs(vshard, holder) > LEVEL_MS),
      );
      if (filling.length === 0 || runtime.clock.nowMs() >= byMs || this.#isClosed) return filling;
      await sleep(runtime.scheduler, LOOK_MS);
    }
  }

  #follow(map: ClusterMap): void {
    const { runtime, topology, onRemoved } = this.#options;
    this.#mapSinceMs = runtime.clock.nowMs();
    if (!this.#isRemoved && this.#isOneOfSeveral && isNodeRemoved(map, topology.ownShards)) {
      this.#isRemoved = true;
      if (this.#isStarted) runtime.scheduler.defer(onRemoved);
    }
    if (this.#isStarted) void this.#leave();
  }

  get #isClosed(): boolean {
    try {
      this.#options.assertOpen();
      return false;
    } catch {
      return true;
    }
  }

  get #isOneOfSeveral(): boolean {
    return this.#options.leases !== undefined;
  }

  get #isToLeave(): boolean {
    const { keeper, topology } = this.#options;
    return !this.#isClosed && !this.#isRemoved && keeper?.map?.leaving?.includes(topology.self) === true;
  }

  /** Gives away what this node is primary of for as long as the map says that it is leaving. */
  async #leave(): Promise<void> {
    const { keeper, topology, replicas, runtime } = this.#options;
    if (keeper === undefined || this.#isLeaving || !this.#isToLeave) return;
    this.#isLeaving = true;
    const own = topology.ownShards;
    const drained = own.filter((shard) => topology.memberOf(shard)?.drains === true);
    while (this.#isToLeave) {
      await handOver(keeper, topology, replicas, runtime, LEAVE_MS);
      await sleep(runtime.scheduler, LEAVE_LOOK_MS);
    }
    this.#isLeaving = false;
    if (this.#isClosed || this.#isRemoved) return;
    for (const shard of own) {
      if (!drained.includes(shard)) topology.membership.resume(shardId(shard), "its node was not removed");
      if (topology.rankOf(shard) > 0) keeper.shardReady(shard);
    }
    topology.publish();
  }

  #heldBy(shards: readonly number[]): number[] {
    const { current } = this.#options.topology;
    return Array.from(current.owners.keys()).filter((vshard) =>
      shards.some((shard) => holdsCopy(current, shard, vshard)),
    );
  }

  /** How many shards may hold copies when these are gone. */
  #ableBut(shards: readonly number[]): number {
    const members = this.#options.topology.membership.placementMembers();
    return members.filter(({ shard, state }) => !shards.includes(shard) && ABLE.includes(state as number)).length;
  }

  #tooFew(node: string, found: number): ShardloomError {
    const { replicationFactor } = this.#options.topology.current;
    return this.#unavailable(node, `${replicationFactor} shards that may hold copies must be left: ${found} would be`);
  }

  #unavailable(node: string, reason: string): ShardloomError {
    const message = `Cannot remove node ${node} as ${reason}`;
    return new ShardloomError("ERR_UNAVAILABLE", message, { details: { node }, retryable: false });
  }
}
