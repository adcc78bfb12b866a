/**
 * The record that decides which shard is the primary of which vshard, as it is kept in a lease store: what differs from the placement that
 * all nodes compute, and which life of each node takes part.
 *
 * Invariant: a version names one map, and grows with every change of it. A vshard's term is the version at which its primary became it, or at which
 * the primary's node began its life if that was later: no two primaries, and no two lives of one, have the same. The set of a vshard's copies only
 * changes when one of their shards is removed, whose place another one takes; otherwise their order does.
 */
import { ShardloomError } from "../errors.ts";
import { ascending, MAX_MAP_VERSION, NO_SHARD, type TopologySnapshot } from "./snapshot.ts";

/** A node that takes part. */
export interface NodeLife {
  readonly incarnation: number;
  /** Of the lease under which it has registered last. */
  readonly leaseEpoch: number;
  /** Version of the map since which this life takes part. */
  readonly term: number;
}

/** A vshard whose primary is not the one of the placement. */
export interface MovedVshard {
  readonly term: number;
  /** Its copies, the primary first. */
  readonly copies: readonly number[];
  /** The same shards by place. @default ascending */
  readonly places?: readonly number[];
}

/** The record. */
export interface ClusterMap {
  readonly version: number;
  readonly lives: Readonly<Record<string, NodeLife>>;
  readonly moved: Readonly<Record<number, MovedVshard>>;
  /** Shards that were removed: they hold nothing, and never will again. @default none */
  readonly removed?: readonly number[];
  /** Nodes that are being removed: they give away what they are primary of, and go on as copies. @default none */
  readonly leaving?: readonly string[];
  /** Who wrote it, unique: tells a writer in doubt whether it was he. */
  readonly writer: string;
}

/** Key of the record. */
export const MAP_KEY = "map";

/** @param version Above all that earlier processes can have used, where nothing keeps the record. @default 1 */
export function firstMap(version: number = 1): ClusterMap {
  return { version, lives: {}, moved: {}, writer: "" };
}

/** The map when a node takes part under a lease. A new life has all that it is primary of in a new term, unless it is the very first. */
export function withLife(map: ClusterMap, node: string, incarnation: number, leaseEpoch: number): ClusterMap {
  const known = map.lives[node];
  const isSame = known?.incarnation === incarnation;
  const isFirst = known === undefined && incarnation === 1 && map.version === 1;
  const version = isSame || isFirst ? map.version : nextVersion(map, incarnation);
  const term = isSame ? known.term : version;
  return { ...map, version, lives: { ...map.lives, [node]: { incarnation, leaseEpoch, term } } };
}

/** As {@link withLife}; undefined when that life takes part so, or its node was removed: it may hold its lease, and is primary of nothing. */
export function withMember(
  map: ClusterMap,
  node: string,
  shards: readonly number[],
  incarnation: number,
  leaseEpoch: number,
): ClusterMap | undefined {
  const life = map.lives[node];
  const isIn = life?.incarnation === incarnation && life.leaseEpoch === leaseEpoch;
  return isIn || isNodeRemoved(map, shards) ? undefined : withLife(map, node, incarnation, leaseEpoch);
}

/** The map when vshards have other primaries, which hold copies of them. @param copies Of each, the new primary first */
export function withMoved(map: ClusterMap, copies: ReadonlyMap<number, readonly number[]>): ClusterMap {
  const version = nextVersion(map, 1);
  const moved: Record<number, MovedVshard> = { ...map.moved };
  for (const [vshard, list] of copies) moved[vshard] = { ...moved[vshard], term: version, copies: list };
  return { ...map, version, moved };
}

/**
 * Who is to hold the copies of shards that are removed: of each vshard of which they have some, as many of the planned holders that hold none yet, or
 * fewer where there are not enough.
 *
 * @param planned Copies by a placement without these shards. Shape as `copies` of the snapshot
 */
export function followersOf(
  { copies, replicationFactor, vshards }: TopologySnapshot,
  planned: Uint16Array,
  shards: readonly number[],
): Map<number, number[]> {
  const followers = new Map<number, number[]>();
  for (let vshard = 0; vshard < vshards; vshard++) {
    const of = (list: Uint16Array): number[] => [
      ...list.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor),
    ];
    const held = of(copies);
    const leaving = held.filter((holder) => shards.includes(holder)).length;
    const free = of(planned).filter((other) => other !== NO_SHARD && !held.includes(other));
    if (leaving > 0) followers.set(vshard, free.slice(0, leaving));
  }
  return followers;
}

/**
 * The map without some shards. Terms stay where primaries do; what one of them is primary of is its follower's in a new term.
 *
 * @param snapshot With this map.
 * @param followers As {@link followersOf} gives them: as many as there are copies to hold.
 */
export function withRemoved(
  map: ClusterMap,
  snapshot: TopologySnapshot,
  shards: readonly number[],
  followers: ReadonlyMap<number, readonly number[]>,
): ClusterMap {
  const { copies, places, terms, owners, replicationFactor } = snapshot;
  const version = nextVersion(map, 1);
  const moved: Record<number, MovedVshard> = { ...map.moved };
  for (const [vshard, list] of followers) {
    const from = vshard * replicationFactor;
    const held = [...places.subarray(from, from + replicationFactor)];
    const leaving = held.filter((holder) => shards.includes(holder));
    const replaced = (holder: number): number => {
      const at = leaving.indexOf(holder);
      return at < 0 ? holder : (list[at] as number);
    };
    const term = shards.includes(owners[vshard] as number) ? version : (terms[vshard] as number);
    const next = [...copies.subarray(from, from + replicationFactor)].map(replaced);
    moved[vshard] = { term, copies: next, places: held.map(replaced) };
  }
  return { ...map, version, moved, removed: [...(map.removed ?? []), ...shards] };
}

/** The map in which a node is being removed, or is not any more. */
export function withLeaving(map: ClusterMap, node: string, leaves: boolean): ClusterMap {
  const others = (map.leaving ?? []).filter((each) => each !== node);
  return { ...map, version: nextVersion(map, 1), leaving: leaves ? [...others, node] : others };
}

/** Whether a node was removed whose shards these are. */
export function isNodeRemoved(map: ClusterMap | undefined, shards: readonly number[]): boolean {
  return shards.length > 0 && shards.every((shard) => map?.removed?.includes(shard) === true);
}

/** @throws {ShardloomError} `ERR_UNTRUSTED` when a node was removed. @param shards Its own */
export function assertMember(map: ClusterMap | undefined, node: string, shards: readonly number[]): void {
  if (!isNodeRemoved(map, shards)) return;
  const reason = "it was removed from its cluster: others have what it kept, and its directory is of no use any more";
  throw new ShardloomError("ERR_UNTRUSTED", `Cannot go on as node ${node} as ${reason}`, {
    details: { node, removed: true },
  });
}

/**
 * Copies, by rank and by place, and terms of all vshards.
 *
 * @param placed Copies by the placement. Shape: `Uint16Array[vshards × replicationFactor]`
 * @param nodeOf The node of a shard.
 */
export function resolveMap(
  map: ClusterMap,
  placed: Uint16Array,
  replicationFactor: number,
  nodeOf: (shard: number) => string,
): Pick<TopologySnapshot, "copies" | "places" | "given" | "terms"> {
  const copies = placed.slice();
  const first = ascending(placed, replicationFactor);
  const places = first.slice();
  const terms = new Uint32Array(copies.length / replicationFactor);
  for (let vshard = 0; vshard < terms.length; vshard++) {
    const moved = map.moved[vshard];
    if (moved !== undefined) copies.set(moved.copies.slice(0, replicationFactor), vshard * replicationFactor);
    if (moved?.places !== undefined) places.set(moved.places.slice(0, replicationFactor), vshard * replicationFactor);
    const life = map.lives[nodeOf(copies[vshard * replicationFactor] as number)];
    terms[vshard] = Math.max(1, moved?.term ?? 1, life?.term ?? 1);
  }
  return { copies, places, given: Uint8Array.from(places, (shard, at) => Number(shard !== first[at])), terms };
}

export function encodeMap(map: ClusterMap): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(map));
}

/** @throws {ShardloomError} `ERR_CORRUPT` when the bytes are no record. */
export function decodeMap(bytes: Uint8Array): ClusterMap {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new ShardloomError("ERR_CORRUPT", "Cannot read map as its bytes must be JSON", { cause: error });
  }
  const map = (typeof value === "object" && value !== null ? value : {}) as Partial<ClusterMap>;
  const isMap = Number.isInteger(map.version) && typeof map.lives === "object" && typeof map.moved === "object";
  if (!isMap) throw new ShardloomError("ERR_CORRUPT", "Cannot read map as it must have version, lives and moved");
  return map as ClusterMap;
}

function nextVersion({ version }: ClusterMap, least: number): number {
  const next = Math.max(version + 1, least);
  if (next <= MAX_MAP_VERSION) return next;
  throw new ShardloomError(
    "ERR_INTERNAL",
    `Cannot change map as its version must be at most ${MAX_MAP_VERSION}: ${next}`,
  );
}
