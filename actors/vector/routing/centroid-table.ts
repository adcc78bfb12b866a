/**
 * What a shard tells its peers of its vectors: one row per leaf, the leaf's centroid and what a router and a search need of it.
 *
 * Invariant: a table never changes; a newer one with a higher stamp takes its place. Rows of a merged table stand in the order
 * of their shards, so that two threads that hold the same tables number the leaves alike.
 */
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import { type Code, type CodeSpace, codeBytes, newCode, type VectorSource } from "./code-table.ts";
import type { LeafClustering } from "./leaf-clustering.ts";
import { spaceOf } from "./lloyd.ts";

/** Columns of leaves, all of one length. */
export interface LeafColumns {
  /** Centroids, one after the other. */
  readonly codes: Code;
  /** Vectors of each leaf. */
  readonly counts: Int32Array;
  /** Distance of the farthest member to the centroid, under the grouping metric. */
  readonly radii: Float32Array;
  /** The same at the 90th percentile of the members. */
  readonly radii90: Float32Array;
  /** Vertex of the member nearest to the centroid: where a search of the leaf begins. −1: none. */
  readonly medoids: Int32Array;
  /** Partition that holds each leaf. */
  readonly partitions: Int32Array;
}

/** Which of two tables of a shard is newer: by epoch, then version, then, only to be deterministic, checksum. */
export interface TableStamp {
  readonly shard: number;
  /** Of the shard's ownership: every new owner and every restart has a higher one. */
  readonly epoch: number;
  readonly version: number;
}

/** The leaves of one shard. */
export interface ShardCentroids extends TableStamp, LeafColumns {
  readonly space: CodeSpace;
}

/** The leaves of all shards whose tables are known. */
export interface MergedCentroids extends LeafColumns {
  readonly space: CodeSpace;
  /** Shard of each leaf. */
  readonly shardOf: Int32Array;
  /** What was merged, in ascending order of shard. */
  readonly stamps: readonly TableStamp[];
}

/** Bytes of a row besides its centroid. */
export const ROW_BYTES = 20;
const SHARE = 0.01;
const PERCENTILE = 0.9;

/** The most leaves whose table takes no more than a share of the data, at least 1. @param share In (0, 1]. @default 0.01 */
export function leavesWithin(space: CodeSpace, count: number, share: number = SHARE): number {
  if (!(share > 0 && share <= 1)) throw invalidArgument("size centroid table", "share", "in (0, 1]", share);
  const bytes = codeBytes(space);
  return Math.max(1, Math.floor((share * count * bytes) / (bytes + ROW_BYTES)));
}

/** Columns of some leaves of a clustering. */
export interface DescribeOptions {
  /** Leaves to describe, in this order. */
  readonly leaves: Int32Array;
  /** Partition of each leaf of the clustering. */
  readonly partitionOf: Int32Array;
  /** Vertex of a vector of the source. @default its number */
  readonly vertexOf?: (index: number) => number;
}

/** Describes leaves: counts, radii and medoids of their members. Cost: one pass over the vectors, no distance. */
export function describeLeaves(
  source: VectorSource,
  clustering: LeafClustering,
  options: DescribeOptions,
): LeafColumns {
  const { leaves, partitionOf, vertexOf = (index: number) => index } = options;
  const members: number[][] = Array.from({ length: clustering.leaves }, () => []);
  for (let i = 0; i < clustering.leafOf.length; i++) members[clustering.leafOf[i] as number]?.push(i);
  const columns = emptyColumns(spaceOf(source), leaves.length);
  leaves.forEach((leaf, row) => {
    const own = (members[leaf] as number[]).sort(
      (a, b) => (clustering.distances[a] as number) - (clustering.distances[b] as number) || a - b,
    );
    const distanceAt = (at: number): number => clustering.distances[own[at] as number] ?? 0;
    columns.codes.set(clustering.centroids.vector(leaf), row * source.dimensions);
    columns.counts[row] = own.length;
    columns.radii[row] = distanceAt(own.length - 1);
    columns.radii90[row] = distanceAt(Math.max(0, Math.ceil(own.length * PERCENTILE) - 1));
    columns.medoids[row] = own.length === 0 ? -1 : vertexOf(own[0] as number);
    columns.partitions[row] = partitionOf[leaf] as number;
  });
  return columns;
}

export function emptyColumns(space: CodeSpace, leaves: number): LeafColumns {
  return {
    codes: newCode(space, leaves),
    counts: new Int32Array(leaves),
    radii: new Float32Array(leaves),
    radii90: new Float32Array(leaves),
    medoids: new Int32Array(leaves),
    partitions: new Int32Array(leaves),
  };
}

/**
 * Puts the tables of several shards together.
 *
 * @param tables At most one a shard, in any order.
 * @throws {ShardloomError} `ERR_COLLECTION_MISMATCH` when they describe different kinds of vectors; `ERR_INVALID_ARGUMENT` when
 *   there is none, or two of one shard.
 */
export function mergeCentroids(tables: Iterable<ShardCentroids>): MergedCentroids {
  const ordered = [...tables].sort((a, b) => a.shard - b.shard);
  const first = ordered[0];
  if (first === undefined) throw invalidArgument("merge centroid tables", "tables", "at least one", 0);
  const { space } = first;
  const leaves = ordered.reduce((sum, table) => sum + table.counts.length, 0);
  const merged = { ...emptyColumns(space, leaves), shardOf: new Int32Array(leaves) };
  let at = 0;
  ordered.forEach((table, i) => {
    if (i > 0 && ordered[i - 1]?.shard === table.shard)
      throw invalidArgument("merge centroid tables", "tables", "of different shards", table.shard);
    checkSpace(table.space, space);
    merged.codes.set(table.codes, at * space.dimensions);
    merged.counts.set(table.counts, at);
    merged.radii.set(table.radii, at);
    merged.radii90.set(table.radii90, at);
    merged.medoids.set(table.medoids, at);
    merged.partitions.set(table.partitions, at);
    merged.shardOf.fill(table.shard, at, at + table.counts.length);
    at += table.counts.length;
  });
  const stamps = ordered.map(({ shard, epoch, version }) => ({ shard, epoch, version }));
  return { ...merged, space, stamps };
}

/** @throws {ShardloomError} `ERR_COLLECTION_MISMATCH`. */
export function checkSpace(given: CodeSpace, wanted: CodeSpace): void {
  const names = ["dimensions", "metric", "element"] as const;
  const other = names.find((name) => given[name] !== wanted[name]);
  if (other === undefined) return;
  throw new ShardloomError(
    "ERR_COLLECTION_MISMATCH",
    `Cannot use centroid table as its ${other} must be ${wanted[other]}: current value is ${given[other]}`,
    { details: { name: other, value: given[other], wanted: wanted[other] } },
  );
}
