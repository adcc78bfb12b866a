/**
 * The immutable, epoch-numbered view of one cluster that a plan uses whole: which shard owns which vshard.
 *
 * Invariant: a snapshot never changes after it is made; a change of the map is a new snapshot with a higher
 * `topologyEpoch`, and every envelope carries the epoch of the snapshot that it was planned with.
 */
import { invalidArgument } from "../errors.ts";
import { hashId, hashString } from "./stable-hash.ts";

/** Which shard owns which vshard, at one epoch. Plain data, so that it crosses threads by structured clone. */
export interface TopologySnapshot {
  readonly topologyEpoch: number;
  /** Number of shard actors (= data-plane workers on one host). */
  readonly shards: number;
  /** Number of vshards, a power of two. */
  readonly vshards: number;
  /** Shape: `Uint16Array[vshards]`, the owning shard of each vshard. */
  readonly owners: Uint16Array;
}

/**
 * Spreads vshards over shards round robin, so that each owns `vshards / shards` of them, give or take one.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when `vshards` is no power of two in `[1, 32768]` or less than `shards`.
 */
export function createSnapshot(options: { shards: number; vshards: number; topologyEpoch?: number }): TopologySnapshot {
  const { shards, vshards, topologyEpoch = 1 } = options;
  if (!Number.isInteger(vshards) || vshards < 1 || vshards > 32_768 || (vshards & (vshards - 1)) !== 0) {
    throw invalidArgument("create topology", "vshards", "a power of two between 1 and 32768", vshards);
  }
  if (!Number.isInteger(shards) || shards < 1 || shards > vshards) {
    throw invalidArgument("create topology", "shards", `an integer between 1 and ${vshards} (vshards)`, shards);
  }
  const owners = new Uint16Array(vshards);
  for (let vshard = 0; vshard < vshards; vshard++) owners[vshard] = vshard % shards;
  return { topologyEpoch, shards, vshards, owners };
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

/** The shard that owns a vshard. */
export function ownerOf(snapshot: TopologySnapshot, vshard: number): number {
  return snapshot.owners[vshard] as number;
}
