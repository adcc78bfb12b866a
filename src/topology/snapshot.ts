/**
 * The immutable, epoch-numbered view of one cluster that a plan uses whole: which shards hold which vshard, and what state
 * every shard is in.
 *
 * Invariant: a snapshot never changes after it is made; a change of map or states is a new snapshot with a higher
 * `topologyEpoch`, and every envelope carries the epoch of the snapshot that it was planned with.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { hashId, hashString } from "./stable-hash.ts";

/** Stands for "no shard" in a list of copies that is shorter than the replication factor. */
export const NO_SHARD = 0xffff;
/** Most shards of one cluster. */
export const MAX_SHARDS = 256;
/** Most vshards of one cluster. */
export const MAX_VSHARDS = 32_768;
/** Most maps of one cluster: a term is the number of a map, and keeps LSNs within 2^53. */
export const MAX_MAP_VERSION = 0xf_ffff;
/** Most copies of one vshard. */
export const MAX_COPIES = 16;

/** States of a member, in the order of a life. */
export const MEMBER_STATE = { JOINING: 0, UP: 1, SUSPECT: 2, DOWN: 3, DRAINING: 4, REMOVED: 5 } as const;
export type MemberState = (typeof MEMBER_STATE)[keyof typeof MEMBER_STATE];
/** A member's state by name. */
export type MemberStateName = "joining" | "up" | "suspect" | "down" | "draining" | "removed";
/** Names of the states, by number. */
export const MEMBER_STATE_NAMES: readonly MemberStateName[] = [
  "joining",
  "up",
  "suspect",
  "down",
  "draining",
  "removed",
];

/** vshards with the same copies in the same order: the unit of planning. */
export interface ReplicaGroup {
  readonly index: number;
  /** Shards that hold a copy, the primary first; never empty, no {@link NO_SHARD}. */
  readonly copies: Uint16Array;
  /** The group's vshards, ascending. */
  readonly vshards: Uint16Array;
}

/** Which shards hold which vshard, at one epoch. Plain data, so that it crosses threads by structured clone. */
export interface TopologySnapshot {
  readonly topologyEpoch: number;
  /**
   * The epoch at which `copies` last changed. A plan made at this epoch or later sends every vshard where it is, whatever states
   * have changed since; an older one does not.
   */
  readonly mapEpoch: number;
  /** Number of the map, the same on every node of the cluster that has it; it grows with every change of the map. */
  readonly mapVersion: number;
  /** Number of shard actors (= data-plane workers on one host). */
  readonly shards: number;
  /** Number of vshards, a power of two. */
  readonly vshards: number;
  /** Copies of every vshard, all counted: 1 means no replica. */
  readonly replicationFactor: number;
  /** Shape: `Uint16Array[vshards]`, the primary of each vshard. */
  readonly owners: Uint16Array;
  /** Shape: `Uint16Array[vshards × replicationFactor]`, primary first, {@link NO_SHARD} where there are fewer copies. */
  readonly copies: Uint16Array;
  /**
   * The same shards by place, shaped as `copies`: a holder keeps its place while the vshard is its own to hold, whoever is the primary, and who follows
   * one that was removed has its place.
   */
  readonly places: Uint16Array;
  /**
   * Shape as `places`, 1 where the shard follows one that was removed: it had nothing at first, so that nothing of the vshard on its disk, or in its
   * memory, does not mean that the vshard is empty.
   */
  readonly given: Uint8Array;
  /**
   * Shape: `Uint32Array[vshards]`. The term of each vshard: a number that is higher with every primary it gets, and with every life of
   * the primary's node. What was written in a term has LSNs of that term, see `baseLsn`.
   */
  readonly terms: Uint32Array;
  /** Shape: `Uint8Array[shards]`, see {@link MEMBER_STATE}. */
  readonly states: Uint8Array;
  /** Shape: `Uint16Array[shards]`, number of the zone that each shard is in. */
  readonly zones: Uint16Array;
  readonly groups: readonly ReplicaGroup[];
  /** Shape: `Uint16Array[vshards]`, index of each vshard's group. */
  readonly groupOf: Uint16Array;
}

/** What a snapshot is made from. */
export interface SnapshotOptions {
  readonly shards: number;
  readonly vshards: number;
  /** @default 1 */
  readonly topologyEpoch?: number;
  /** @default `topologyEpoch` */
  readonly mapEpoch?: number;
  /** @default 1 */
  readonly mapVersion?: number;
  /** @default 1 */
  readonly replicationFactor?: number;
  /** Shape as {@link TopologySnapshot.copies}. @default round robin: copy c of vshard v on shard (v + c) mod shards */
  readonly copies?: Uint16Array;
  /** Of each vshard the shards of `copies`. @default ascending */
  readonly places?: Uint16Array;
  /** @default all 0 */
  readonly given?: Uint8Array;
  /** @default all 1 */
  readonly terms?: Uint32Array;
  /** @default all up */
  readonly states?: Uint8Array;
  /** @default all zone 0 */
  readonly zones?: Uint16Array;
}

/**
 * Checks and completes a snapshot.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when a number is out of range, a vshard has no primary, or a shard stands
 *   twice among one vshard's copies.
 */
export function createSnapshot(options: SnapshotOptions): TopologySnapshot {
  const { shards, vshards, topologyEpoch = 1, replicationFactor = 1 } = options;
  if (!Number.isInteger(vshards) || vshards < 1 || vshards > MAX_VSHARDS || (vshards & (vshards - 1)) !== 0) {
    throw invalidArgument("create topology", "vshards", `a power of two between 1 and ${MAX_VSHARDS}`, vshards);
  }
  if (!Number.isInteger(shards) || shards < 1 || shards > Math.min(vshards, MAX_SHARDS)) {
    throw invalidArgument(
      "create topology",
      "shards",
      `an integer between 1 and ${Math.min(vshards, MAX_SHARDS)} (vshards)`,
      shards,
    );
  }
  if (!Number.isInteger(replicationFactor) || replicationFactor < 1 || replicationFactor > MAX_COPIES) {
    throw invalidArgument(
      "create topology",
      "replicationFactor",
      `an integer between 1 and ${MAX_COPIES}`,
      replicationFactor,
    );
  }
  if (!Number.isInteger(topologyEpoch) || topologyEpoch < 0 || topologyEpoch > 0x7fffffff) {
    throw invalidArgument("create topology", "topologyEpoch", "an integer between 0 and 2147483647", topologyEpoch);
  }
  const mapEpoch = options.mapEpoch ?? topologyEpoch;
  if (!Number.isInteger(mapEpoch) || mapEpoch < 0 || mapEpoch > topologyEpoch)
    throw invalidArgument(
      "create topology",
      "mapEpoch",
      `an integer between 0 and ${topologyEpoch} (topologyEpoch)`,
      mapEpoch,
    );
  const mapVersion = options.mapVersion ?? 1;
  if (!Number.isInteger(mapVersion) || mapVersion < 1 || mapVersion > MAX_MAP_VERSION)
    throw invalidArgument("create topology", "mapVersion", `an integer between 1 and ${MAX_MAP_VERSION}`, mapVersion);
  const terms = options.terms ?? new Uint32Array(vshards).fill(1);
  requireLength("terms", terms, vshards);
  const copies = options.copies ?? roundRobin(shards, vshards, replicationFactor);
  const places = options.places ?? ascending(copies, replicationFactor);
  const given = options.given ?? new Uint8Array(copies.length);
  const states = options.states ?? new Uint8Array(shards).fill(MEMBER_STATE.UP);
  const zones = options.zones ?? new Uint16Array(shards);
  requireLength("copies", copies, vshards * replicationFactor);
  requireLength("places", places, copies.length);
  requireLength("given", given, copies.length);
  requireLength("states", states, shards);
  requireLength("zones", zones, shards);
  const owners = new Uint16Array(vshards);
  for (let vshard = 0; vshard < vshards; vshard++) {
    owners[vshard] = copies[vshard * replicationFactor] as number;
    checkCopies(copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor), shards, vshard);
  }
  const groupOf = new Uint16Array(vshards);
  const groups = groupCopies(copies, vshards, replicationFactor, groupOf);
  return {
    topologyEpoch,
    mapEpoch,
    mapVersion,
    shards,
    vshards,
    replicationFactor,
    owners,
    copies,
    places,
    given,
    terms,
    states,
    zones,
    groups,
    groupOf,
  };
}

/** The same map with other states, one epoch later. */
export function withStates(snapshot: TopologySnapshot, states: Uint8Array): TopologySnapshot {
  requireLength("states", states, snapshot.shards);
  return { ...snapshot, topologyEpoch: snapshot.topologyEpoch + 1, states };
}

/** Bytes that {@link encodeSnapshot} writes. */
export function snapshotBytes(shape: { shards: number; vshards: number; replicationFactor: number }): number {
  const { shards, vshards, replicationFactor } = shape;
  return 4 * HEADER_WORDS + 4 * vshards + 5 * vshards * replicationFactor + 2 * shards + shards;
}

const HEADER_WORDS = 6;

/**
 * A snapshot as bytes, little-endian: `i32 epoch | i32 mapEpoch | i32 mapVersion | i32 shards | i32 vshards | i32 replicationFactor | u32
 * terms | u16 copies | u16 places | u16 zones | u8 given | u8 states`.
 */
export function encodeSnapshot(snapshot: TopologySnapshot): Uint8Array {
  const { topologyEpoch, mapEpoch, mapVersion, shards, vshards, replicationFactor } = snapshot;
  const { terms, copies, places, given, zones, states } = snapshot;
  const bytes = new Uint8Array(snapshotBytes(snapshot));
  const header = [topologyEpoch, mapEpoch, mapVersion, shards, vshards, replicationFactor];
  new Int32Array(bytes.buffer, 0, HEADER_WORDS).set(header);
  new Uint32Array(bytes.buffer, 4 * HEADER_WORDS, vshards).set(terms);
  const u16 = new Uint16Array(bytes.buffer, 4 * (HEADER_WORDS + vshards), 2 * copies.length + shards);
  u16.set(copies);
  u16.set(places, copies.length);
  u16.set(zones, 2 * copies.length);
  bytes.set(given, 4 * (HEADER_WORDS + vshards) + 2 * u16.length);
  bytes.set(states, bytes.length - shards);
  return bytes;
}

/** @throws {ShardloomError} `ERR_CORRUPT` when the bytes are no snapshot. */
export function decodeSnapshot(bytes: Uint8Array): TopologySnapshot {
  const own = bytes.slice(); // aligned, and ours
  if (own.length < 4 * HEADER_WORDS) throw corrupt(`it has ${own.length} bytes`);
  const header = new Int32Array(own.buffer, 0, HEADER_WORDS);
  const [topologyEpoch = 0, mapEpoch = 0, mapVersion = 0, shards = 0, vshards = 0, replicationFactor = 0] = header;
  const inRange = shards >= 1 && shards <= MAX_SHARDS && vshards >= 1 && vshards <= MAX_VSHARDS;
  if (!inRange || own.length !== snapshotBytes({ shards, vshards, replicationFactor }))
    throw corrupt(`its ${own.length} bytes do not fit its header`);
  const count = vshards * replicationFactor;
  const terms = new Uint32Array(own.buffer, 4 * HEADER_WORDS, vshards);
  const from = 4 * (HEADER_WORDS + vshards);
  const copies = new Uint16Array(own.buffer, from, count);
  const places = new Uint16Array(own.buffer, from + 2 * count, count);
  const zones = new Uint16Array(own.buffer, from + 4 * count, shards);
  const given = own.subarray(from + 4 * count + 2 * shards, from + 5 * count + 2 * shards);
  const states = own.subarray(own.length - shards);
  if (states.some((state) => state > MEMBER_STATE.REMOVED)) throw corrupt("a state is unknown");
  try {
    const epochs = { topologyEpoch, mapEpoch, mapVersion };
    const map = { terms, copies, places, given };
    return createSnapshot({ ...epochs, shards, vshards, replicationFactor, ...map, zones, states });
  } catch (error) {
    throw corrupt(ShardloomError.from(error).message);
  }
}

/** Whether two snapshots have the same copies, in the same terms. */
export function sameMap(a: TopologySnapshot, b: TopologySnapshot): boolean {
  return (
    a.mapVersion === b.mapVersion &&
    (a.copies === b.copies ||
      (a.copies.length === b.copies.length && a.copies.every((peer, at) => peer === b.copies[at]))) &&
    (a.terms === b.terms || a.terms.every((term, at) => term === b.terms[at]))
  );
}

/** The vshard of a document id. */
export function vshardOfId(snapshot: TopologySnapshot, id: string | number): number {
  return vshardOfHash(snapshot, hashId(id));
}

/** The vshard of a document whose id has this `hashId`. */
export function vshardOfHash(snapshot: TopologySnapshot, hash: number): number {
  return hash & (snapshot.vshards - 1);
}

/** The vshard of a virtual actor. */
export function vshardOfActor(snapshot: TopologySnapshot, actorName: string, key: string): number {
  return hashString(key, hashString(actorName)) & (snapshot.vshards - 1);
}

/** The primary of a vshard. */
export function ownerOf(snapshot: TopologySnapshot, vshard: number): number {
  return snapshot.owners[vshard] as number;
}

/** Whether a shard in this state can be expected to answer soon. */
export function mayAnswer(state: number | undefined): boolean {
  return state === MEMBER_STATE.UP || state === MEMBER_STATE.DRAINING || state === MEMBER_STATE.SUSPECT;
}

/** Whether a shard was taken out of the cluster for good. */
export function isRemoved({ states }: TopologySnapshot, shard: number): boolean {
  return states[shard] === MEMBER_STATE.REMOVED;
}

/** All shards that were not, in order. */
export function shardsOf(snapshot: TopologySnapshot): number[] {
  return Array.from({ length: snapshot.shards }, (_, shard) => shard).filter((shard) => !isRemoved(snapshot, shard));
}

/** Whether a shard holds a copy of a vshard. */
export function holdsCopy(snapshot: TopologySnapshot, shard: number, vshard: number): boolean {
  const { replicationFactor, copies } = snapshot;
  const from = vshard * replicationFactor;
  for (let at = from; at < from + replicationFactor; at++) if (copies[at] === shard) return true;
  return false;
}

/** Whether a shard holds a copy of a vshard in the place of a shard that was removed. */
export function isGiven(snapshot: TopologySnapshot, shard: number, vshard: number): boolean {
  const { replicationFactor, places, given } = snapshot;
  const from = vshard * replicationFactor;
  for (let at = from; at < from + replicationFactor; at++) if (places[at] === shard) return given[at] === 1;
  return false;
}

function roundRobin(shards: number, vshards: number, replicationFactor: number): Uint16Array {
  const copies = new Uint16Array(vshards * replicationFactor);
  for (let at = 0; at < copies.length; at++) {
    const copy = at % replicationFactor;
    copies[at] = copy < shards ? (Math.floor(at / replicationFactor) + copy) % shards : NO_SHARD;
  }
  return copies;
}

/** Of each vshard its shards in ascending order, those that are not there last. */
export function ascending(copies: Uint16Array, replicationFactor: number): Uint16Array {
  const places = copies.slice();
  for (let at = 0; at < places.length; at += replicationFactor) places.subarray(at, at + replicationFactor).sort();
  return places;
}

function checkCopies(copies: Uint16Array, shards: number, vshard: number): void {
  let ended = false;
  for (const [at, shard] of copies.entries()) {
    if (shard === NO_SHARD && at > 0) {
      ended = true;
      continue;
    }
    const valid = shard < shards && !ended && copies.indexOf(shard) === at;
    if (!valid)
      throw invalidArgument(
        "create topology",
        `copies of vshard ${vshard}`,
        `distinct shards below ${shards}, none of them after a gap`,
        shard,
      );
  }
}

function groupCopies(
  copies: Uint16Array,
  vshards: number,
  replicationFactor: number,
  groupOf: Uint16Array,
): ReplicaGroup[] {
  const byCopies = new Map<string, { copies: Uint16Array; vshards: number[]; index: number }>();
  for (let vshard = 0; vshard < vshards; vshard++) {
    const list = copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor);
    const end = list.indexOf(NO_SHARD);
    const held = end < 0 ? list : list.subarray(0, end);
    const key = held.join();
    const group = byCopies.get(key) ?? { copies: held, vshards: [], index: byCopies.size };
    byCopies.set(key, group);
    group.vshards.push(vshard);
    groupOf[vshard] = group.index;
  }
  return [...byCopies.values()].map((group) => ({ ...group, vshards: Uint16Array.from(group.vshards) }));
}

function requireLength(name: string, list: { readonly length: number }, length: number): void {
  if (list.length !== length) throw invalidArgument("create topology", `${name}.length`, `${length}`, list.length);
}

function corrupt(reason: string): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot decode topology as ${reason}`);
}
