/**
 * Keeps one node's membership and publishes every change of it as the next topology snapshot.
 *
 * Fed by the control plane's events (a worker starts, serves, is lost) and by the failure detector, which reads the workers' shared
 * words: a worker in a long native call, or one with nothing to do, stays up; one that is silent in JavaScript is suspect and
 * then down, and returns by itself when it moves again.
 *
 * Invariant: an epoch is published once and never changes; changes of one turn share an epoch. Only this object publishes.
 */
import { EventEmitter } from "node:events";
import { invalidArgument } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import { FailureDetector } from "../topology/failure-detector.ts";
import { shardId } from "../topology/member.ts";
import { type MemberChange, Membership } from "../topology/membership.ts";
import { type PlacementMember, type PlacementPlan, planPlacement } from "../topology/placement.ts";
import { MEMBER_STATE, type TopologySnapshot } from "../topology/snapshot.ts";
import { createTopologyBlock, SharedTopology } from "../topology/topology-source.ts";
import type { ControlPlane } from "./control-plane.ts";

/** Name of the one node that a process is. */
const NODE = "local";

/** What a node's topology is made from. */
export interface NodeTopologyOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly shards: number;
  readonly vshards: number;
  readonly replicationFactor: number;
  /** Zone of each shard, by name. */
  readonly zones: readonly string[];
  /** A shard silent for so long is suspect, and down; in ms. */
  readonly suspectMs: number;
  readonly downMs: number;
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
}

/** Membership, failure detection and the published snapshot of one node. */
export class NodeTopology extends EventEmitter<NodeTopologyEvents> {
  readonly membership: Membership;
  readonly block: SharedArrayBuffer;
  readonly shared: SharedTopology;
  readonly #options: NodeTopologyOptions;
  readonly #detector: FailureDetector;
  #timer: Timer | undefined;
  #dirty = false;

  constructor(options: NodeTopologyOptions) {
    super();
    const { clock, shards, vshards, replicationFactor, zones } = options;
    this.#options = options;
    this.membership = new Membership({ clock });
    const zoneNames = [...new Set(zones)];
    this.membership.registerNode({ name: NODE, roles: ["coordinator", "data"] });
    this.membership.ready(NODE);
    for (let shard = 0; shard < shards; shard++)
      this.membership.registerShard({ shard, node: NODE, zone: zoneNames.indexOf(zones[shard] as string) });
    const { copies } = planPlacement(undefined, this.membership.placementMembers(), replicationFactor, vshards);
    const first = this.membership.snapshotOf({
      shards,
      vshards,
      replicationFactor,
      topologyEpoch: 1,
      mapEpoch: 1,
      copies,
    });
    this.block = createTopologyBlock(first);
    this.shared = new SharedTopology(this.block, first);
    this.#detector = new FailureDetector({
      self: NODE,
      suspectMs: options.suspectMs,
      downMs: options.downMs,
      lookIntervalMs: lookInterval(options.suspectMs),
      onChange: (change) => this.membership.observe(change),
    });
    this.membership.subscribe((change) => this.#changed(change));
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

  /** Publishes what has changed at once; otherwise it is published when the present stack has unwound. */
  publish(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    const { shards, vshards, replicationFactor, topologyEpoch, mapEpoch, copies } = this.current;
    this.shared.publish(
      this.membership.snapshotOf({
        shards,
        vshards,
        replicationFactor,
        topologyEpoch: topologyEpoch + 1,
        mapEpoch,
        copies,
      }),
    );
  }

  /** Moves that a change of members would bring: where each copy would come from, where it would go, and why. Changes nothing. */
  preview(change: PlacementChange): PlacementPlan {
    const { drain = [], remove = [], add = [] } = change;
    for (const [name, shards] of Object.entries({ drain, remove })) {
      if (!Array.isArray(shards) || !shards.every(Number.isInteger))
        throw invalidArgument("preview placement", name, "an array of numbers of shards", shards);
    }
    if (!Array.isArray(add)) throw invalidArgument("preview placement", "add", "an array of members", add);
    const members = this.membership
      .placementMembers()
      .filter(({ shard }) => !remove.includes(shard))
      .map((member) => (drain.includes(member.shard) ? { ...member, state: MEMBER_STATE.DRAINING } : member));
    const { current } = this;
    const replicationFactor = change.replicationFactor ?? current.replicationFactor;
    return planPlacement(current, [...members, ...add], replicationFactor, current.vshards);
  }

  close(): void {
    this.#timer?.cancel();
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

/** Looks often enough that the limits hold, and no oftener than ten times a second. */
function lookInterval(suspectMs: number): number {
  return Math.min(100, suspectMs / 5);
}
