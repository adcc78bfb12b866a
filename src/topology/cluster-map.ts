/**
 * The record that decides which shard is the primary of which vshard, as it is kept in a lease store: what differs from the placement that
 * all nodes compute, and which life of each node takes part.
 *
 * Invariant: a version names one map, and grows with every change of it. A vshard's term is the version at which its primary became it, or at which
 * the primary's node began its life if that was later: no two primaries, and no two lives of one, have the same. The set of a vshard's copies never
 * changes here, only their order.
 */
import { ShardloomError } from "../errors.ts";
import { MAX_MAP_VERSION } from "./snapshot.ts";

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
}

/** The record. */
export interface ClusterMap {
  readonly version: number;
  readonly lives: Readonly<Record<string, NodeLife>>;
  readonly moved: Readonly<Record<number, MovedVshard>>;
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

/** The map when vshards have other primaries, which hold copies of them. @param copies Of each, the new primary first */
export function withMoved(map: ClusterMap, copies: ReadonlyMap<number, readonly number[]>): ClusterMap {
  const version = nextVersion(map, 1);
  const moved: Record<number, MovedVshard> = { ...map.moved };
  for (const [vshard, list] of copies) moved[vshard] = { term: version, copies: list };
  return { ...map, version, moved };
}

/**
 * Copies and terms of all vshards.
 *
 * @param placed Copies by the placement. Shape: `Uint16Array[vshards × replicationFactor]`
 * @param nodeOf The node of a shard.
 */
export function resolveMap(
  map: ClusterMap,
  placed: Uint16Array,
  replicationFactor: number,
  nodeOf: (shard: number) => string,
): { readonly copies: Uint16Array; readonly terms: Uint32Array } {
  const copies = placed.slice();
  const terms = new Uint32Array(copies.length / replicationFactor);
  for (let vshard = 0; vshard < terms.length; vshard++) {
    const moved = map.moved[vshard];
    if (moved !== undefined) copies.set(moved.copies.slice(0, replicationFactor), vshard * replicationFactor);
    const life = map.lives[nodeOf(copies[vshard * replicationFactor] as number)];
    terms[vshard] = Math.max(1, moved?.term ?? 1, life?.term ?? 1);
  }
  return { copies, terms };
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
