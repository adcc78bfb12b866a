/**
 * What a member of a cluster is, and the states that its life goes through.
 *
 * A member starts `joining`, serves as `up`, is `suspect` while it is silent and `down` when it is given up; `draining` it serves,
 * but gets nothing new and gives away what it has; `removed` ends its life. Whatever restarts is `joining` again.
 *
 * Invariant: a member changes its state only along {@link TRANSITIONS}; `down` to `up` is the automatic return of one that was only
 * paused, and one that was draining returns to draining.
 */
import { invalidArgument } from "../errors.ts";
import { MEMBER_STATE_NAMES, type MemberState, type MemberStateName } from "./snapshot.ts";

/** Numbers that a member reports of itself: `documents`, `bytes`, `inFlight` and whatever else there is to add up. */
export type MemberMetrics = Readonly<Record<string, number>>;

interface MemberBase {
  /** Unique in its cluster: a node's name, or {@link shardId}. */
  readonly id: string;
  /**
   * What it says that it is there for: shown to people, and nothing goes by it. All nodes are `coordinator` and `data`, as each plans for its own
   * threads and holds shards; shards have none.
   */
  readonly roles: readonly string[];
  /** Number of the zone: members that fail together. Below 65,536. */
  readonly zone: number;
  readonly state: MemberStateName;
  /** Whether it shall be drained, also while it is not up. */
  readonly drains: boolean;
  /** Counts its restarts. */
  readonly incarnation: number;
  /** When it entered its state, on the registry's clock. */
  readonly sinceMs: number;
  readonly metrics: MemberMetrics;
}

/** A process of the cluster. */
export interface NodeMember extends MemberBase {
  readonly kind: "node";
}

/** A shard actor with its worker; it belongs to one node. */
export interface ShardMember extends MemberBase {
  readonly kind: "shard";
  readonly shard: number;
  /** Name of its node. */
  readonly node: string;
  /** Share of the vshards, see `planPlacement`. */
  readonly weight: number;
}

/** A member as it is now; a change makes a new one. */
export type Member = NodeMember | ShardMember;

/** States that each state may be followed by. */
const TRANSITIONS: Readonly<Record<MemberStateName, readonly MemberStateName[]>> = {
  joining: ["up", "draining", "down", "removed"],
  up: ["suspect", "down", "draining", "joining", "removed"],
  suspect: ["up", "down", "draining", "joining", "removed"],
  down: ["up", "draining", "joining", "removed"],
  draining: ["up", "suspect", "down", "joining", "removed"],
  removed: ["joining"],
};

/** Id of a shard among the members. */
export function shardId(shard: number): string {
  return `shard-${shard}`;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming both states when one cannot follow the other. */
export function checkTransition(id: string, from: MemberStateName, to: MemberStateName): void {
  const next = TRANSITIONS[from];
  if (next.includes(to)) return;
  throw invalidArgument(`move ${id} from ${from} to ${to}`, "the next state", next.join(", "), to);
}

/** How little a member can be used, least first: a shard is as usable as the lesser of it and its node. */
const SEVERITY: readonly MemberStateName[] = ["up", "draining", "suspect", "joining", "down", "removed"];

/** The less usable of two states. */
export function worseState(a: MemberStateName, b: MemberStateName): MemberStateName {
  return SEVERITY.indexOf(a) >= SEVERITY.indexOf(b) ? a : b;
}

/** A member's state as snapshots have it. */
export function stateNumber(state: MemberStateName): MemberState {
  return MEMBER_STATE_NAMES.indexOf(state) as MemberState;
}

/** Whether a member in this state serves and is not accused of anything. */
export function isHealthy(state: MemberStateName): boolean {
  return state === "up" || state === "draining";
}

/** The state in which a member serves. */
export function servingState(member: Member): MemberStateName {
  return member.drains ? "draining" : "up";
}

/** Whether something belongs to a life of the member that is over. */
export function isOld(member: Member, incarnation: number | undefined): boolean {
  return incarnation !== undefined && incarnation < member.incarnation;
}

/** Whether two descriptions of one member say the same, whatever it does at the moment. */
export function isSame(a: Member, b: Member): boolean {
  const sameRoles = a.roles.length === b.roles.length && a.roles.every((role, at) => role === b.roles[at]);
  if (!sameRoles || a.zone !== b.zone) return false;
  if (a.kind === "node" || b.kind === "node") return a.kind === b.kind;
  return a.node === b.node && a.weight === b.weight;
}

/** What a member starts with. */
export function fresh(id: string, roles: readonly string[], zone: number, incarnation: number): MemberBase {
  return { id, roles: [...roles], zone, incarnation, state: "joining", drains: false, sinceMs: 0, metrics: {} };
}

/** Whether a string is what {@link shardId} makes. */
export function isShardId(id: string): boolean {
  return /^shard-\d+$/.test(id);
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a zone or an incarnation out of range. */
export function checkIdentity(action: string, zone: number, incarnation: number): void {
  if (!Number.isInteger(zone) || zone < 0 || zone > 0xffff) {
    throw invalidArgument(action, "zone", "an integer between 0 and 65535", zone);
  }
  checkIncarnation(action, incarnation);
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for what does not count restarts. */
export function checkIncarnation(action: string, incarnation: number): void {
  if (!Number.isSafeInteger(incarnation) || incarnation < 0) {
    throw invalidArgument(action, "incarnation", "an integer of at least 0", incarnation);
  }
}

/** Workers that one life of a node may have for one shard. */
const WORKERS_PER_LIFE = 0x1_0000;
/** Most starts of one node: what is numbered by life keeps within an int32, and LSNs within 2^53. */
export const MAX_NODE_INCARNATION = 0x7fff;

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for what does not count a node's starts. */
export function checkNodeIncarnation(action: string, incarnation: number): void {
  if (!Number.isInteger(incarnation) || incarnation < 1 || incarnation > MAX_NODE_INCARNATION)
    throw invalidArgument(action, "incarnation", `an integer between 1 and ${MAX_NODE_INCARNATION}`, incarnation);
}

/**
 * Incarnation of the first worker that a node's life has for a shard: 1 in the first life, and above all workers of the lives before
 * in every later one, so that nobody takes what an earlier life sent for news.
 */
export function firstShardIncarnation(nodeIncarnation: number): number {
  return (nodeIncarnation - 1) * WORKERS_PER_LIFE + 1;
}

/** The life of a node that a worker belongs to. */
export function nodeIncarnationOf(shardIncarnation: number): number {
  return Math.floor((shardIncarnation - 1) / WORKERS_PER_LIFE) + 1;
}

/** Writes that one term of a vshard may have. */
const WRITES_PER_TERM: number = 2 ** 33;

/**
 * LSN above which the writes of a vshard's term are numbered: above all that the terms before can have given out, whoever still knows of
 * them. Where nobody counts terms, the life of the primary's node is its term.
 */
export function baseLsn(term: number): number {
  return (term - 1) * WRITES_PER_TERM;
}

/** LSN above which the term's writes are numbered that an LSN belongs to, or is the base of. */
export function baseLsnOf(lsn: number): number {
  return Math.floor(lsn / WRITES_PER_TERM) * WRITES_PER_TERM;
}
