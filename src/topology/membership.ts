/**
 * The registry of a cluster's nodes and shards: who is a member, in which state, and what every snapshot says about it.
 *
 * Invariant: only registered members are in it, once each, and each changes its state only along the table of `member.ts`.
 * `version` rises with every change that a snapshot could show, never otherwise. What belongs to an older incarnation
 * changes nothing: a worker that was replaced cannot speak for its successor.
 *
 * For the control plane only. What it feeds in: worker started → `registerShard` (joining); ready → `ready`; lost → `lost`;
 * respawn → `restarted` (joining, incarnation + 1); given up → nothing more (it stays down) or `deregister`; verdicts of the failure
 * detector → `observe`.
 */
import { invalidArgument } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { LivenessChange } from "./failure-detector.ts";
import {
  checkIdentity,
  checkIncarnation,
  checkTransition,
  fresh,
  isHealthy,
  isOld,
  isSame,
  isShardId,
  type Member,
  type MemberMetrics,
  type NodeMember,
  type ShardMember,
  servingState,
  shardId,
  stateNumber,
  worseState,
} from "./member.ts";
import type { PlacementMember } from "./placement.ts";
import { createSnapshot, MAX_SHARDS, type MemberStateName, type TopologySnapshot } from "./snapshot.ts";
import { checkWeight } from "./weight.ts";

/** A node that joins. */
export interface NodeRegistration {
  /** Not empty, and not of the form `shard-0`. */
  readonly name: string;
  /** @default none */
  readonly roles?: readonly string[];
  /** @default 0 */
  readonly zone?: number;
  /** @default 1 */
  readonly incarnation?: number;
}

/** A shard that joins; its node is a member already. */
export interface ShardRegistration {
  /** Below 256. */
  readonly shard: number;
  readonly node: string;
  /** @default none */
  readonly roles?: readonly string[];
  /** @default its node's */
  readonly zone?: number;
  /** @default 1 */
  readonly weight?: number;
  /** @default 1 */
  readonly incarnation?: number;
}

/** A member entered a state. */
export interface MemberChange {
  /** As it is after the change. */
  readonly member: Member;
  /** Undefined for a member that has just been registered for the first time. */
  readonly from: MemberStateName | undefined;
  readonly to: MemberStateName;
  readonly nowMs: number;
  readonly reason: string;
}

/** Counts over the members that are not removed. */
export interface MembershipCounts {
  readonly nodes: number;
  /** Up or draining. */
  readonly healthyNodes: number;
  readonly shards: number;
  /** Up or draining, on a node that is so too. */
  readonly healthyShards: number;
  /** Metrics of all shards, added up by name. */
  readonly metrics: MemberMetrics;
}

/** Removed members that are remembered for their incarnation: a member of an older one must not come back. */
const REMEMBERED_LIMIT = 1024;

/** The registry. One per node, on its control plane. */
export class Membership {
  readonly #clock: Clock;
  readonly #members: Map<string, Member> = new Map();
  readonly #listeners: Set<(change: MemberChange) => void> = new Set();
  readonly #told: MemberChange[] = [];
  #telling = false;
  #version = 0;

  constructor(options: { readonly clock: Clock }) {
    this.#clock = options.clock;
  }

  /** Number of changes of members, states, zones and weights so far; metrics do not count. */
  get version(): number {
    return this.#version;
  }

  /** All members that are not removed, in the order of their registration. */
  get members(): readonly Member[] {
    return [...this.#members.values()].filter(({ state }) => state !== "removed");
  }

  /** A member that is not removed, by its id; `shardId` makes that of a shard. */
  get(id: string): Member | undefined {
    const member = this.#members.get(id);
    return member?.state === "removed" ? undefined : member;
  }

  /**
   * Registers a node, which is joining then.
   *
   * Registering it again changes nothing but its roles and zone; a higher incarnation means that it has restarted (joining
   * again), a lower one is ignored. A removed node comes back with a higher incarnation only.
   */
  registerNode(registration: NodeRegistration): NodeMember {
    const { name, roles = [], zone = 0, incarnation = 1 } = registration;
    const action = "register node";
    if (typeof name !== "string" || name === "" || isShardId(name)) {
      throw invalidArgument(action, "name", "a non-empty string that is no shard's", name);
    }
    checkIdentity(action, zone, incarnation);
    return this.#register({ ...fresh(name, roles, zone, incarnation), kind: "node" }) as NodeMember;
  }

  /** Registers a shard; as {@link registerNode}. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` also for an unknown node. */
  registerShard(registration: ShardRegistration): ShardMember {
    const { shard, node, roles = [], weight = 1, incarnation = 1 } = registration;
    const action = "register shard";
    if (!Number.isInteger(shard) || shard < 0 || shard >= MAX_SHARDS) {
      throw invalidArgument(action, "shard", `an integer between 0 and ${MAX_SHARDS - 1}`, shard);
    }
    const host = this.get(node);
    if (host?.kind !== "node") throw invalidArgument(action, `node of shard ${shard}`, "a registered node", node);
    const zone = registration.zone ?? host.zone;
    checkWeight(action, `weight of shard ${shard}`, weight);
    checkIdentity(action, zone, incarnation);
    const base = fresh(shardId(shard), roles, zone, incarnation);
    return this.#register({ ...base, kind: "shard", shard, node, weight }) as ShardMember;
  }

  /** Removes a member, and with a node its shards. @returns false when there is no such member */
  deregister(id: string, reason = "deregistered"): boolean {
    const member = this.get(id);
    if (member === undefined) return false;
    if (member.kind === "node") {
      for (const other of this.members) {
        if (other.kind === "shard" && other.node === id) this.#enter(other, "removed", reason);
      }
    }
    this.#enter(member, "removed", reason);
    this.#forgetOldest();
    return true;
  }

  /** It serves: up, or draining if it shall. @returns false for an older incarnation, or when it serves already */
  ready(id: string, incarnation?: number): boolean {
    const member = this.#require(id);
    if (isOld(member, incarnation)) return false;
    if (incarnation !== undefined && incarnation > member.incarnation) this.restarted(id, incarnation);
    const now = this.#require(id);
    if (isHealthy(now.state)) return false;
    this.#enter(now, servingState(now), "ready");
    return true;
  }

  /** It is gone: down. @returns false for an older incarnation, or when it is down already */
  lost(id: string, reason: string, incarnation?: number): boolean {
    const member = this.#require(id);
    if (isOld(member, incarnation) || member.state === "down") return false;
    this.#enter(member, "down", reason);
    return true;
  }

  /** It starts again as a newer incarnation: joining. @returns false unless the incarnation is newer */
  restarted(id: string, incarnation: number, reason = "restarted"): boolean {
    const member = this.#require(id);
    checkIncarnation("restart member", incarnation);
    if (incarnation <= member.incarnation) return false;
    this.#enter({ ...member, incarnation }, "joining", reason);
    return true;
  }

  /**
   * Takes a verdict of the failure detector. Those about strangers, older incarnations and members that are not serving yet, or
   * no longer, change nothing.
   */
  observe(change: LivenessChange): boolean {
    const member = this.get(change.member);
    if (member === undefined || member.state === "joining" || isOld(member, change.incarnation)) return false;
    if (change.incarnation > member.incarnation) {
      // It was heard in a new life before it registered again: what it served before is gone.
      return this.restarted(member.id, change.incarnation, change.reason);
    }
    const to = change.to === "up" ? servingState(member) : change.to;
    if (to === member.state || (to === "suspect" && member.state === "down")) return false;
    this.#enter(member, to, change.reason);
    return true;
  }

  /** It gets no new copies and gives away those it has. One that does not serve now will be draining when it does. @returns false when it was so */
  drain(id: string, reason = "drained"): boolean {
    return this.#setDrains(id, true, reason);
  }

  /** Ends draining. @returns false when it was not so */
  resume(id: string, reason = "resumed"): boolean {
    return this.#setDrains(id, false, reason);
  }

  /**
   * Moves a member into a state.
   *
   * @returns false when it is in that state already.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming both states when the table does not allow it, or for an unknown member.
   */
  move(id: string, to: MemberStateName, reason: string): boolean {
    const member = this.#members.get(id) ?? this.#require(id);
    if (member.state === to) return false;
    checkTransition(id, member.state, to);
    if (to === "removed") return this.deregister(id, reason);
    const drains = to === "draining" || (to !== "up" && member.drains);
    this.#enter({ ...member, drains }, to, reason);
    return true;
  }

  /** Takes numbers that a member reports; names that it does not report this time keep their value. */
  report(id: string, metrics: MemberMetrics): void {
    const member = this.#require(id);
    for (const [name, value] of Object.entries(metrics)) {
      if (!Number.isFinite(value))
        throw invalidArgument("report metrics", `${name} of ${id}`, "a finite number", value);
    }
    this.#members.set(id, { ...member, metrics: { ...member.metrics, ...metrics } });
  }

  /**
   * Calls a listener with every change, in the order of the changes, after the change.
   *
   * A listener may change members; that change is told after this one. What it throws reaches whoever made the change,
   * after all listeners have been told.
   *
   * @returns A function that ends the subscription.
   */
  subscribe(listener: (change: MemberChange) => void): () => void {
    // A function may subscribe twice: each subscription ends by itself.
    const own = (change: MemberChange): void => listener(change);
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  /** State of a shard as plans must see it: its own or its node's, whichever is worse; removed if it is not registered. */
  stateOf(shard: number): MemberStateName {
    const member = this.get(shardId(shard));
    if (member?.kind !== "shard") return "removed";
    return worseState(member.state, this.get(member.node)?.state ?? "removed");
  }

  /** States as a snapshot has them. Shape: `Uint8Array[shards]`, `MEMBER_STATE`. */
  states(shards: number): Uint8Array {
    return Uint8Array.from({ length: shards }, (_, shard) => stateNumber(this.stateOf(shard)));
  }

  /** Zones as a snapshot has them, 0 for unregistered shards. Shape: `Uint16Array[shards]`. */
  zones(shards: number): Uint16Array {
    return Uint16Array.from({ length: shards }, (_, shard) => this.get(shardId(shard))?.zone ?? 0);
  }

  /** The registered shards as `planPlacement` wants them. */
  placementMembers(): PlacementMember[] {
    return this.members.flatMap((member) => {
      if (member.kind !== "shard") return [];
      const { shard, weight, zone } = member;
      return [{ shard, weight, zone, state: stateNumber(this.stateOf(shard)) }];
    });
  }

  /** A snapshot with the states and zones of now. */
  snapshotOf(map: {
    readonly shards: number;
    readonly vshards: number;
    readonly replicationFactor: number;
    readonly topologyEpoch: number;
    readonly mapEpoch: number;
    readonly mapVersion: number;
    readonly copies: Uint16Array;
    readonly places?: Uint16Array;
    readonly given?: Uint8Array;
    readonly terms: Uint32Array;
  }): TopologySnapshot {
    return createSnapshot({ ...map, states: this.states(map.shards), zones: this.zones(map.shards) });
  }

  counts(): MembershipCounts {
    const counts = { nodes: 0, healthyNodes: 0, shards: 0, healthyShards: 0 };
    const metrics: Record<string, number> = {};
    for (const member of this.members) {
      if (member.kind === "node") {
        counts.nodes++;
        counts.healthyNodes += Number(isHealthy(member.state));
        continue;
      }
      counts.shards++;
      counts.healthyShards += Number(isHealthy(this.stateOf(member.shard)));
      for (const [name, value] of Object.entries(member.metrics)) metrics[name] = (metrics[name] ?? 0) + value;
    }
    return { ...counts, metrics };
  }

  #require(id: string): Member {
    const member = this.get(id);
    if (member === undefined) throw invalidArgument("change member", "id", "a registered member's", id);
    return member;
  }

  #register(member: Member): Member {
    const known = this.#members.get(member.id);
    if (known === undefined) return this.#enter(member, "joining", "registered");
    if (known.state === "removed") {
      if (member.incarnation > known.incarnation) return this.#enter(member, "joining", "registered anew");
      const rule = `above ${known.incarnation}, which was removed`;
      throw invalidArgument("register member", `incarnation of ${member.id}`, rule, member.incarnation);
    }
    if (member.incarnation < known.incarnation) return known;
    const { state, drains, sinceMs, metrics } = known;
    const merged: Member = { ...member, state, drains, sinceMs, metrics };
    if (member.incarnation > known.incarnation) return this.#enter(merged, "joining", "restarted");
    if (isSame(known, merged)) return known;
    this.#store(merged);
    return merged;
  }

  #setDrains(id: string, drains: boolean, reason: string): boolean {
    const member = this.#require(id);
    if (member.drains === drains) return false;
    const next = { ...member, drains };
    if (isHealthy(member.state)) this.#enter(next, drains ? "draining" : "up", reason);
    else this.#store(next);
    return true;
  }

  /** Stores a member in a state that may follow the one it is in, and tells of it. */
  #enter(member: Member, to: MemberStateName, reason: string): Member {
    const from = this.#members.get(member.id)?.state;
    if (from !== undefined && from !== to) checkTransition(member.id, from, to);
    const nowMs = this.#clock.nowMs();
    const next: Member = { ...member, state: to, sinceMs: nowMs };
    this.#store(next);
    this.#tell({ member: next, from, to, nowMs, reason });
    return next;
  }

  #store(member: Member): void {
    // Removed members stand in the order of their removal.
    if (member.state === "removed") this.#members.delete(member.id);
    this.#members.set(member.id, member);
    this.#version++;
  }

  #tell(change: MemberChange): void {
    this.#told.push(change);
    if (this.#telling) return;
    this.#telling = true;
    const errors: unknown[] = [];
    try {
      for (let next = this.#told.shift(); next !== undefined; next = this.#told.shift()) {
        for (const listener of [...this.#listeners]) {
          try {
            listener(next);
          } catch (error) {
            errors.push(error);
          }
        }
      }
    } finally {
      this.#telling = false;
    }
    if (errors.length > 0) throw errors[0];
  }

  #forgetOldest(): void {
    const removed = [...this.#members.values()].filter(({ state }) => state === "removed");
    for (const { id } of removed.slice(0, Math.max(0, removed.length - REMEMBERED_LIMIT))) this.#members.delete(id);
  }
}
