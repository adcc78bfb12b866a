/**
 * What a cluster does with its members when it is told to: drains a shard, resumes it, removes it for good.
 *
 * ```
 *  remove   checked ──▶ draining ──all it was primary of is served elsewhere──▶ its worker ends ──the map has another holder for each copy──▶ removed
 *              │            └──not in time, or a graph cannot be moved: it is resumed, and gets back what it was primary of by and by
 *              └──refused: nothing is changed
 * ```
 *
 * Invariant: what a removed shard had is on its vshards' primaries, whole, before its worker ends, and what graphs had on it is on their other
 * shards: nothing that was acknowledged is on it alone. Who follows it as holder of a copy counts for nothing before the primary has filled that
 * copy, see refill.ts. One shard is removed at a time.
 */
import type { MovedGraph } from "../actors/graph/graph-move.ts";
import type { ClusterCollections } from "./cluster-collections.ts";
import type { ClusterStorage } from "./cluster-storage.ts";
import { invalidArgument, ShardloomError } from "./errors.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import type { MapKeeper } from "./plane/map-keeper.ts";
import type { NodeTopology } from "./plane/node-topology.ts";
import type { Runtime } from "./runtime/runtime.ts";
import { sleep } from "./runtime/scheduler.ts";
import { followersOf, withRemoved } from "./topology/cluster-map.ts";
import { shardId } from "./topology/member.ts";
import { ReplicaTable } from "./topology/replica-table.ts";
import { holdsCopy, isRemoved, NO_SHARD } from "./topology/snapshot.ts";

/** How {@link Cluster.remove} waits. */
export interface RemoveOptions {
  /** How long the shard may take to give away what it is primary of, graphs to be copied, and its worker to end; in ms, `1..86400000`. @default 10000 */
  readonly timeoutMs?: number;
  /** Gives up what graphs have on the shard, if it was given up itself: its vertices, and all edges from and to them. @default false */
  readonly force?: boolean;
}

/** What {@link Cluster.remove} has done. */
export interface RemovalReport {
  readonly shard: number;
  /** Vshards that it was primary of, and others are now. */
  readonly primaries: number;
  /** Vshards of which it held a copy, and another shard holds one now. */
  readonly copies: number;
  /** Those of them whose new copies are not level yet, as they are being filled: until then these have a copy less. */
  readonly filling: readonly number[];
  /** What graphs had on it: vertices that it owned and edges that came from them, which others own now, or nobody if it was given up. */
  readonly graphs: readonly MovedGraph[];
}

/** What it works with. */
export interface ClusterMembersOptions {
  readonly runtime: Runtime;
  readonly topology: NodeTopology;
  /** The block of the replica table. */
  readonly replicas: SharedArrayBuffer;
  readonly control: ControlPlane;
  /** Absent where no vshard can get another primary. */
  readonly keeper: MapKeeper | undefined;
  /** Shards that this node was started with. */
  readonly own: readonly number[];
  readonly assertOpen: () => void;
  /** What moves from a shard before it ends. */
  readonly collections: Pick<ClusterCollections, "graphs" | "isGivenUp" | "shardDown">;
  /** Why nothing can be removed here whatever the copies are. @default it can */
  readonly obstacle: () => string | undefined;
}

/** What keeps a cluster from removing shards whatever their copies are. */
export function obstacleTo(
  hasOthers: boolean,
  storage: ClusterStorage | undefined,
  { vectors }: ClusterCollections,
): string | undefined {
  if (hasOthers) return "its cluster must be one process: shards of several nodes stay where they are";
  if (storage !== undefined) return "nothing of its cluster may be kept: a directory, or NATS, is of just its shards";
  const [graph] = vectors.graphNames();
  return graph === undefined
    ? undefined
    : `no graph of vectors may lie on it: that of ${JSON.stringify(graph)} lies on all shards`;
}

const ACTION = "remove shard";
const TIMEOUT_MS = 10_000;
const MAX_TIMEOUT_MS = 86_400_000;
/** Pause between two looks. */
const LOOK_MS = 5;
/** A copy that lacks nothing older than this is as good as level: it is asked for the rest. */
const LEVEL_MS = 1_000;
/** How long new copies are waited for, once nothing can go wrong any more. */
const FILL_MS = 2_000;

export class ClusterMembers {
  readonly #options: ClusterMembersOptions;
  readonly #table: ReplicaTable;
  #removing: { readonly shard: number; readonly done: Promise<RemovalReport> } | undefined;

  constructor(options: ClusterMembersOptions) {
    const { runtime, topology, replicas, control, collections } = options;
    this.#options = options;
    control.on("worker-down", ({ shard }) => collections.shardDown(shard));
    this.#table = new ReplicaTable(replicas, topology.shared, () => runtime.clock.nowMs());
  }

  drain(shard: number): boolean {
    return this.#publish(this.#options.topology.membership.drain(this.#idOf("change member", shard)));
  }

  resume(shard: number): boolean {
    const id = this.#idOf("change member", shard);
    if (this.#removing?.shard === shard)
      throw new ShardloomError("ERR_UNAVAILABLE", `Cannot resume shard ${shard} as it is being removed`, {
        details: { shard },
      });
    return this.#publish(this.#options.topology.membership.resume(id));
  }

  /** A second call for the same shard joins the first. */
  remove(shard: number, options: RemoveOptions = {}): Promise<RemovalReport> {
    if (this.#removing !== undefined && this.#removing.shard === shard) return this.#removing.done;
    const done = this.#remove(shard, options).finally(() => {
      if (this.#removing?.done === done) this.#removing = undefined;
    });
    if (this.#removing === undefined) this.#removing = { shard, done };
    return done;
  }

  async #remove(shard: number, { timeoutMs = TIMEOUT_MS, force = false }: RemoveOptions): Promise<RemovalReport> {
    const { runtime, topology, control, collections } = this.#options;
    const { graphs } = collections;
    const id = this.#idOf(ACTION, shard);
    if (!Number.isFinite(timeoutMs) || timeoutMs < 1 || timeoutMs > MAX_TIMEOUT_MS)
      throw invalidArgument(ACTION, "timeoutMs", `a number between 1 and ${MAX_TIMEOUT_MS}`, timeoutMs);
    if (typeof force !== "boolean") throw invalidArgument(ACTION, "force", "a boolean", force);
    const byMs = runtime.clock.nowMs() + timeoutMs;
    const keeper = await this.#checked(shard, byMs);
    const isLost = collections.isGivenUp(shard);
    if (isLost && !force) this.#assertNothingLeft(shard);
    const held = this.#heldBy(shard);
    const primaries = held.filter((vshard) => topology.current.owners[vshard] === shard);
    const drained = topology.membership.get(id)?.drains === true;
    this.#publish(topology.membership.drain(id, "it is being removed"));
    let moved: readonly MovedGraph[];
    try {
      await this.#handOver(keeper, shard, held, byMs);
      moved = await graphs.leave(shard, byMs, isLost);
      topology.shardEnds(shard);
      await control.end(shard, { timeoutMs: Math.max(1, byMs - runtime.clock.nowMs()), force: true });
    } catch (error) {
      graphs.stays(shard);
      if (!drained) this.#publish(topology.membership.resume(id, "it was not removed"));
      keeper.shardReady(shard);
      throw error;
    }
    await this.#leaveMap(keeper, shard);
    const filling = await this.#filled(held, runtime.clock.nowMs() + FILL_MS);
    return { shard, primaries: primaries.length, copies: held.length, filling, graphs: moved };
  }

  /**
   * Waits a little for copies that are about to be level.
   *
   * @throws {ShardloomError} `ERR_UNAVAILABLE` when something would be lost, or the rest could not hold it.
   */
  async #checked(shard: number, byMs: number): Promise<MapKeeper> {
    const { runtime, topology, keeper, obstacle, assertOpen } = this.#options;
    if (this.#removing !== undefined) throw this.#unavailable(shard, `shard ${this.#removing.shard} is being removed`);
    const reason = obstacle();
    if (reason !== undefined) throw this.#unavailable(shard, reason);
    if (keeper === undefined) throw this.#onlyCopies(shard, this.#heldBy(shard));
    const { replicationFactor } = topology.current;
    if (topology.preview({ remove: [shard] }).copies.includes(NO_SHARD)) {
      const rule = `${replicationFactor} shards that may hold copies must be left`;
      throw this.#unavailable(shard, rule, { replicationFactor });
    }
    const levelByMs = Math.min(byMs, runtime.clock.nowMs() + LEVEL_MS);
    for (;;) {
      assertOpen();
      const only = this.#heldBy(shard).filter((vshard) => !this.#isElsewhere(vshard, shard));
      if (only.length === 0) return keeper;
      if (runtime.clock.nowMs() >= levelByMs) throw this.#onlyCopies(shard, only);
      await sleep(runtime.scheduler, LOOK_MS);
    }
  }

  /** @throws {ShardloomError} `ERR_UNAVAILABLE` with what graphs would lose. */
  #assertNothingLeft(shard: number): void {
    const graphs = this.#options.collections.graphs.left(shard);
    if (graphs.length === 0) return;
    const list = graphs.map(
      ({ name, vertices, edges }) => `${vertices} vertices of ${JSON.stringify(name)} and ${edges} edges from them`,
    );
    const rule = `it was given up, and what graphs have on it would be lost, with all edges to it, which takes force: ${list.join(", ")}`;
    throw this.#unavailable(shard, rule, { graphs });
  }

  #onlyCopies(shard: number, vshards: readonly number[]): ShardloomError {
    const rule = `every vshard must have another copy that is level: ${vshards.length} of its have none, the first is ${vshards[0]}`;
    return this.#unavailable(shard, rule, { vshards });
  }

  /** Whether a shard that serves has all of a vshard, or will have when it asks for what it lacks of the last second. */
  #isElsewhere(vshard: number, shard: number): boolean {
    const { topology } = this.#options;
    const { copies, owners, replicationFactor } = topology.current;
    const holders = copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor);
    return holders.some((other) => {
      if (other === shard || other === NO_SHARD || topology.rankOf(other) === 0) return false;
      return other === owners[vshard] ? this.#isWhole(vshard) : this.#table.stalenessMs(vshard, other) <= LEVEL_MS;
    });
  }

  /** Whether the primary of a vshard has all of it. */
  #isWhole(vshard: number): boolean {
    return this.#options.topology.current.terms[vshard] === 1 || this.#table.hasOwnHead(vshard);
  }

  /** Waits until others are whole primaries of all that a shard holds copies of. */
  async #handOver(keeper: MapKeeper, shard: number, held: readonly number[], byMs: number): Promise<void> {
    const { runtime, assertOpen } = this.#options;
    const { clock, scheduler } = runtime;
    for (;;) {
      assertOpen();
      const isGiven = keeper.leave([shard]);
      const left = held.filter((vshard) => !this.#isServedElsewhere(vshard, shard));
      if (isGiven && left.length === 0) return;
      if (clock.nowMs() >= byMs)
        throw new ShardloomError(
          "ERR_TIMEOUT",
          `Cannot remove shard ${shard} as others must serve what it has in time: ${left.length} vshards are not`,
          { details: { shard, vshards: left } },
        );
      await sleep(scheduler, LOOK_MS);
    }
  }

  /** When it fails the shard is down, and to be removed once more. */
  async #leaveMap(keeper: MapKeeper, shard: number): Promise<void> {
    try {
      const isKnown = await keeper.change((map) => {
        if (map.removed?.includes(shard) === true) return undefined;
        return withRemoved(map, this.#options.topology.current, [shard], this.#followers(shard));
      });
      if (isKnown) return;
      throw this.#unavailable(shard, "the map must be changed: others did so again and again");
    } catch (error) {
      this.#publish(this.#options.topology.membership.lost(shardId(shard), "it has no worker any more"));
      throw error;
    }
  }

  #isServedElsewhere(vshard: number, shard: number): boolean {
    const { topology } = this.#options;
    const owner = topology.current.owners[vshard] as number;
    return owner !== shard && topology.rankOf(owner) > 0 && this.#isWhole(vshard);
  }

  /** Who is to hold each copy of a shard: by the placement without it. */
  #followers(shard: number): Map<number, number[]> {
    const { topology } = this.#options;
    const { current } = topology;
    const followers = followersOf(current, topology.preview({ remove: [shard] }).copies, [shard]);
    for (const [vshard, list] of followers)
      if (list.length === 0 || current.owners[vshard] === shard)
        throw this.#unavailable(shard, `vshard ${vshard} must have another holder and another primary`);
    return followers;
  }

  /** Waits until copies are level. @returns the vshards of which some are not, when the time is over */
  async #filled(vshards: readonly number[], byMs: number): Promise<number[]> {
    const { runtime, topology, assertOpen } = this.#options;
    for (;;) {
      assertOpen();
      const { copies, replicationFactor } = topology.current;
      const filling = vshards.filter((vshard) =>
        copies
          .subarray(vshard * replicationFactor + 1, (vshard + 1) * replicationFactor)
          .some((holder) => this.#table.stalenessMs(vshard, holder) > LEVEL_MS),
      );
      if (filling.length === 0 || runtime.clock.nowMs() >= byMs) return filling;
      await sleep(runtime.scheduler, LOOK_MS);
    }
  }

  #heldBy(shard: number): number[] {
    const { current } = this.#options.topology;
    return Array.from(current.owners.keys()).filter((vshard) => holdsCopy(current, shard, vshard));
  }

  #idOf(action: string, shard: number): string {
    const { own, topology, assertOpen } = this.#options;
    assertOpen();
    const living = own.filter((each) => !isRemoved(topology.current, each));
    if (living.includes(shard)) return shardId(shard);
    throw invalidArgument(action, "shard", `one of this node's, ${living.join(", ")}`, shard);
  }

  #publish(changed: boolean): boolean {
    this.#options.topology.publish();
    return changed;
  }

  #unavailable(shard: number, reason: string, details: Record<string, unknown> = {}): ShardloomError {
    return new ShardloomError("ERR_UNAVAILABLE", `Cannot remove shard ${shard} as ${reason}`, {
      details: { shard, ...details },
      retryable: false,
    });
  }
}
