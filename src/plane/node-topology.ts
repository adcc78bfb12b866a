/**
 * Keeps one node's membership and publishes every change of it as the next topology snapshot.
 *
 * Fed by the control plane's events (a worker starts, serves, is lost) and by the failure detector, which reads the workers' shared
 * words: a worker in a long native call, or one with nothing to do, stays up; one that is silent in JavaScript is suspect and
 * then down, and returns by itself when it moves again. In a cluster of several nodes the others are judged by what is heard from them,
 * and their shards by what they tell.
 *
 * Invariant: an epoch is published once and never changes; changes of one turn share an epoch. Only this object publishes. States,
 * `topologyEpoch` and `mapEpoch` are this node's view; a `mapVersion` names the same map on every node, as all compute it from the same list
 * and the same record (cluster-map.ts).
 */
import { EventEmitter } from "node:events";
import { invalidArgument } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import { type ClusterMap, resolveMap } from "../topology/cluster-map.ts";
import { FailureDetector, type LivenessChange, type Receipt } from "../topology/failure-detector.ts";
import { firstShardIncarnation, isHealthy, type ShardMember, shardId } from "../topology/member.ts";
import { type MemberChange, Membership } from "../topology/membership.ts";
import { type PlacementMember, type PlacementPlan, planPlacement } from "../topology/placement.ts";
import { MEMBER_STATE, type MemberStateName, type TopologySnapshot } from "../topology/snapshot.ts";
import { createTopologyBlock, SharedTopology } from "../topology/topology-source.ts";
import type { ControlPlane } from "./control-plane.ts";
import { type ClusterNodes, checkNodes, registerNodes } from "./node-members.ts";

/** Name of the one node of a cluster that is one process. */
const NODE = "local";

/** What a node's topology is made from. */
export interface NodeTopologyOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** Of all nodes. */
  readonly shards: number;
  readonly vshards: number;
  readonly replicationFactor: number;
  /** Zone of each shard, by name; with `nodes` those are of the nodes. */
  readonly zones: readonly string[];
  /** Share of each shard, relative to the others. @default equal ones */
  readonly weights?: readonly number[];
  /** A shard or node silent for so long is suspect, and down; in ms. */
  readonly suspectMs: number;
  readonly downMs: number;
  /** The nodes that the cluster consists of. @default one, which hosts all shards */
  readonly nodes?: ClusterNodes;
}

/** A change of the cluster that placement is asked about; nothing is done. */
export interface PlacementChange {
  /** Shards that would give their copies away. */
  readonly drain?: readonly number[];
  /** Shards that would be gone. */
  readonly remove?: readonly number[];
  /** Shards that would be new. */
  readonly add?: readonly PlacementMember[];
  /** Copies of every vshard, all counted. @default as it is */
  readonly replicationFactor?: number;
}

/** What a node's topology tells. */
export interface NodeTopologyEvents {
  /** A member entered a state. */
  change: [MemberChange];
  /** Vshards have other primaries; the snapshot is published. */
  map: [ClusterMap];
}

/** Membership, failure detection and the published snapshot of one node. */
export class NodeTopology extends EventEmitter<NodeTopologyEvents> {
  readonly membership: Membership;
  readonly block: SharedArrayBuffer;
  readonly shared: SharedTopology;
  readonly #options: NodeTopologyOptions;
  readonly #detector: FailureDetector;
  /** Name of this node. */
  readonly self: string;
  /** By remote shard, the worker whose loss its node has told of: whatever is told of it later is older. */
  readonly #lost: Map<number, number> = new Map();
  /** Copies by the placement. */
  readonly #placed: Uint16Array;
  #timer: Timer | undefined;
  #dirty = false;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the nodes do not host each shard once. */
  constructor(options: NodeTopologyOptions) {
    super();
    const { clock, shards, vshards, replicationFactor, nodes } = options;
    this.#options = options;
    this.self = nodes?.self ?? NODE;
    this.membership = new Membership({ clock });
    this.#register();
    const { copies } = planPlacement(undefined, this.membership.placementMembers(), replicationFactor, vshards);
    this.#placed = copies;
    const epochs = { topologyEpoch: 1, mapEpoch: 1, mapVersion: 1 };
    const terms = new Uint32Array(vshards).fill(1);
    const first = this.membership.snapshotOf({ shards, vshards, replicationFactor, ...epochs, copies, terms });
    this.block = createTopologyBlock(first);
    this.shared = new SharedTopology(this.block, first);
    this.#detector = new FailureDetector({
      self: this.self,
      suspectMs: options.suspectMs,
      downMs: options.downMs,
      lookIntervalMs: lookInterval(options.suspectMs),
      onChange: (change) => this.#judged(change),
    });
    this.membership.subscribe((change) => this.#changed(change));
    this.membership.ready(this.self);
    // Whoever is not heard in time is down, also when it never was.
    for (const { name } of nodes?.members ?? [])
      if (name !== this.self) this.#detector.watchNode(name, 0, clock.nowMs());
  }

  /** A node that is silent for so long is suspect, in ms: a few heartbeats. */
  get suspectMs(): number {
    return this.#options.suspectMs;
  }

  /** The snapshot that was published last. */
  get current(): TopologySnapshot {
    return this.shared.current();
  }

  /** Follows a control plane's workers from their first start on. */
  follow(control: ControlPlane): void {
    control.on("worker-starting", ({ shard, incarnation }) => this.membership.restarted(shardId(shard), incarnation));
    control.on("worker-ready", ({ shard, incarnation }) => {
      const nowMs = this.#options.clock.nowMs();
      this.#detector.watchShard(shardId(shard), incarnation, nowMs, () => control.probe(shard));
      this.membership.ready(shardId(shard), incarnation);
    });
    control.on("worker-lost", ({ shard, incarnation, error }) => {
      this.#detector.forget(shardId(shard));
      this.membership.lost(shardId(shard), error.code, incarnation);
    });
    this.#look();
  }

  /** The member that a shard is. */
  memberOf(shard: number): ShardMember | undefined {
    return this.membership.get(shardId(shard)) as ShardMember | undefined;
  }

  /** Numbers of the shards that this node hosts. */
  get ownShards(): number[] {
    return this.shardsOf(this.self);
  }

  /**
   * Another node was heard: it is up. In a new life its shards are what its first life's were, joining.
   *
   * @param incarnation Counts its starts.
   * @param sequence Counts what it has sent to this node in this life.
   * @returns `old` or `unknown` when what was heard says nothing, and is to be dropped.
   */
  nodeHeard(node: string, incarnation: number, sequence: number): Receipt {
    const known = this.membership.get(node)?.incarnation;
    if (known === undefined) return "unknown"; // it was removed
    const receipt = this.#detector.heard(node, incarnation, sequence, this.#options.clock.nowMs());
    if (receipt !== "taken") return receipt;
    if (incarnation < known) return "old"; // its new life has introduced itself by other means
    this.membership.restarted(node, incarnation);
    if (incarnation > known) this.#restartedShards(node, incarnation);
    this.membership.ready(node, incarnation);
    return receipt;
  }

  /** A node tells that it has started: what its life before had told is void. Says nothing of whether it is up now. */
  nodeRestarted(node: string, incarnation: number): void {
    const member = this.membership.get(node);
    if (member?.kind !== "node" || node === this.self || !this.membership.restarted(node, incarnation)) return;
    this.#restartedShards(node, incarnation);
  }

  /** A node tells the state of one of its shards. Whatever is told of older workers changes nothing. */
  shardTold(shard: number, incarnation: number, state: MemberStateName): void {
    const id = shardId(shard);
    const member = this.membership.get(id);
    if (member?.kind !== "shard" || member.node === this.self || incarnation <= (this.#lost.get(shard) ?? -1)) return;
    if (incarnation < member.incarnation) return;
    this.membership.restarted(id, incarnation);
    switch (state) {
      case "up":
      case "draining":
        this.#serves(id, state === "draining");
        break;
      case "suspect":
        if (this.membership.get(id)?.state !== "suspect") this.#serves(id, member.drains);
        this.membership.move(id, "suspect", "told by its node");
        break;
      case "down":
        this.membership.lost(id, "told by its node", incarnation);
        break;
      case "joining": // as it is since its worker was first heard of
      case "removed":
        break;
    }
  }

  /** A node tells that a worker of one of its shards is gone for good. */
  shardLost(shard: number, incarnation: number): void {
    this.shardTold(shard, incarnation, "down");
    if (incarnation > (this.#lost.get(shard) ?? -1)) this.#lost.set(shard, incarnation);
  }

  /** A shard of this node is about to have no worker any more: that it is silent says nothing. */
  shardEnds(shard: number): void {
    this.#detector.forget(shardId(shard));
  }

  /** Publishes what has changed at once; otherwise it is published when the present stack has unwound. */
  publish(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    const { topologyEpoch } = this.current;
    this.shared.publish(this.membership.snapshotOf({ ...this.current, topologyEpoch: topologyEpoch + 1 }));
  }

  /** Publishes a map that is newer than the one that there is, at once. */
  setMap(map: ClusterMap): void {
    const { current } = this;
    if (map.version <= current.mapVersion) return;
    const nodeOf = (shard: number): string => this.memberOf(shard)?.node ?? "";
    const resolved = resolveMap(map, this.#placed, current.replicationFactor, nodeOf);
    for (const shard of map.removed ?? []) this.#remove(shard);
    const topologyEpoch = current.topologyEpoch + 1;
    const epochs = { topologyEpoch, mapEpoch: topologyEpoch, mapVersion: map.version };
    this.#dirty = false;
    this.shared.publish(this.membership.snapshotOf({ ...current, ...epochs, ...resolved }));
    this.emit("map", map);
  }

  /** The shard that the placement wants as the primary of a vshard. */
  placedOwner(vshard: number): number {
    return this.#placed[vshard * this.current.replicationFactor] as number;
  }

  /** How fit a shard is to take vshards over: 0 not at all, 1 for want of a better one, 2 it serves, shall go on, and is not accused of anything. */
  rankOf(shard: number): number {
    const state = this.membership.stateOf(shard);
    if (state === "up") return 2;
    return state === "suspect" || state === "draining" ? 1 : 0;
  }

  /** Numbers of the shards that a node hosts. */
  shardsOf(node: string): number[] {
    return this.#shardsOf(node).map(({ shard }) => shard);
  }

  /** Moves that a change of members would bring: where each copy would come from, where it would go, and why. Changes nothing. */
  preview(change: PlacementChange): PlacementPlan {
    const { drain = [], remove = [], add = [] } = change;
    const known = this.membership.placementMembers();
    const isKnown = (shard: unknown): boolean => known.some((member) => member.shard === shard);
    for (const [name, shards] of Object.entries({ drain, remove })) {
      if (!Array.isArray(shards))
        throw invalidArgument("preview placement", name, "an array of numbers of shards", shards);
      const stranger = shards.find((shard) => !isKnown(shard));
      if (stranger === undefined) continue;
      const rule = `numbers of shards that are there, ${known.map(({ shard }) => shard).join(", ")}`;
      throw invalidArgument("preview placement", name, rule, stranger);
    }
    if (!Array.isArray(add)) throw invalidArgument("preview placement", "add", "an array of members", add);
    const members = known
      .filter(({ shard }) => !remove.includes(shard))
      .map((member) => (drain.includes(member.shard) ? { ...member, state: MEMBER_STATE.DRAINING } : member));
    const { current } = this;
    const replicationFactor = change.replicationFactor ?? current.replicationFactor;
    return planPlacement(current, [...members, ...add], replicationFactor, current.vshards);
  }

  close(): void {
    this.#timer?.cancel();
  }

  /** All nodes and shards, joining. */
  #register(): void {
    const { shards, zones, weights, nodes } = this.#options;
    if (nodes !== undefined) {
      checkNodes(nodes, shards);
      registerNodes(this.membership, nodes);
      return;
    }
    const zoneNames = [...new Set(zones)];
    this.membership.registerNode({ name: NODE, roles: ["coordinator", "data"] });
    for (let shard = 0; shard < shards; shard++) {
      const zone = zoneNames.indexOf(zones[shard] as string);
      this.membership.registerShard({ shard, node: NODE, zone, weight: weights?.[shard] ?? 1 });
    }
  }

  #judged(change: LivenessChange): void {
    const member = this.membership.get(change.member);
    if (member?.kind === "node" && member.state === "joining" && change.to === "down")
      this.membership.lost(member.id, change.reason);
    else this.membership.observe(change);
  }

  #shardsOf(node: string): ShardMember[] {
    return this.membership.members.filter((member) => member.kind === "shard" && member.node === node) as ShardMember[];
  }

  /** With the last of its shards a node is removed. One that is this process knows its own until it ends, which it is about to. */
  #remove(shard: number): void {
    const node = this.memberOf(shard)?.node;
    if (node === undefined || (node === this.self && this.#options.nodes !== undefined)) return;
    this.membership.deregister(shardId(shard), "removed");
    if (node === this.self || this.#shardsOf(node).length > 0) return;
    this.membership.deregister(node, "removed");
    this.#detector.forget(node);
  }

  #restartedShards(node: string, incarnation: number): void {
    for (const { id } of this.#shardsOf(node))
      this.membership.restarted(id, firstShardIncarnation(incarnation), "its node has restarted");
  }

  #serves(id: string, drains: boolean): void {
    if (drains) this.membership.drain(id);
    else this.membership.resume(id);
    const state = this.membership.get(id)?.state;
    if (state !== undefined && !isHealthy(state)) this.membership.ready(id);
  }

  #changed(change: MemberChange): void {
    if (!this.#dirty) {
      this.#dirty = true;
      this.#options.scheduler.defer(() => this.publish());
    }
    // Whatever a listener throws is its own: it must not disturb supervision.
    this.#options.scheduler.defer(() => this.emit("change", change));
  }

  #look(): void {
    const { clock, scheduler, suspectMs } = this.#options;
    this.#timer = scheduler.timer(lookInterval(suspectMs), () => {
      this.#look();
      this.#detector.look(clock.nowMs());
    });
    this.#timer.unref();
  }
}

/** Looks often enough that the limits hold, and no oftener than needed where these are long. */
function lookInterval(suspectMs: number): number {
  return Math.max(Math.min(100, suspectMs / 5), suspectMs / 6);
}
