/**
 * From vectors to the partition of each: leaves, their packing, and what each partition tells of its leaves.
 *
 * Invariant: leaves are numbered by partition, so that the tables of the partitions, put together in order by `mergeCentroids`,
 * number them exactly as `leafOf` does, when partition p belongs to shard p or the shards hold ascending runs of partitions.
 */
import { describeLeaves, type LeafColumns, leavesWithin } from "./centroid-table.ts";
import type { CodeHost, VectorSource } from "./code-table.ts";
import { leafAffinity } from "./leaf-affinity.ts";
import { clusterLeaves } from "./leaf-clustering.ts";
import { packLeaves } from "./leaf-packing.ts";
import { type Steps, within } from "./steps.ts";

export interface PlacementOptions {
  readonly partitions: number;
  readonly seed: number;
  /** Leaves to make. @default as many as fit a table of 0.9 % of the data, at least one a partition */
  readonly leaves?: number;
  /** Vertex of a vector: what medoids are given as. @default the vector's number */
  readonly vertexOf?: (index: number) => number;
}

export interface Placement {
  /** Leaf of each vector, numbered over all partitions. */
  readonly leafOf: Int32Array;
  /** Partition of each vector. */
  readonly partitionOf: Int32Array;
  /** The leaves of each partition. */
  readonly columns: readonly LeafColumns[];
  /** Share of the ties between leaves that cross partitions. */
  readonly cut: number;
  /** Vectors that k-means looked at; all others are fit to calibrate with. */
  readonly sample: Int32Array;
}

const TABLE_SHARE = 0.009;
const CLUSTER_SHARE = 0.95;
const AFFINITY_SHARE = 0.96;

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`. */
export function* placeVectors(host: CodeHost, source: VectorSource, options: PlacementOptions): Steps<Placement> {
  const { partitions, seed, vertexOf = (index: number) => index } = options;
  const leaves =
    options.leaves ?? Math.min(source.count, Math.max(partitions, leavesWithin(source, source.count, TABLE_SHARE)));
  const clustering = yield* within(clusterLeaves(host, source, { leaves, seed }), 0, CLUSTER_SHARE);
  try {
    const affinity = yield* within(leafAffinity(clustering), CLUSTER_SHARE, AFFINITY_SHARE);
    const packing = packLeaves(host, clustering, affinity, { partitions, seed });
    const { partitionOf, cut } = yield* within(packing, AFFINITY_SHARE, 1);
    const order = Int32Array.from({ length: leaves }, (_, leaf) => leaf).sort(
      (a, b) => (partitionOf[a] as number) - (partitionOf[b] as number) || a - b,
    );
    const newNumber = new Int32Array(leaves);
    order.forEach((leaf, number) => {
      newNumber[leaf] = number;
    });
    const columns = Array.from({ length: partitions }, (_, partition) => {
      const own = order.filter((leaf) => partitionOf[leaf] === partition);
      return describeLeaves(source, clustering, { leaves: own, partitionOf, vertexOf });
    });
    return {
      leafOf: clustering.leafOf.map((leaf) => newNumber[leaf] as number),
      partitionOf: clustering.leafOf.map((leaf) => partitionOf[leaf] as number),
      columns,
      cut,
      sample: clustering.sample,
    };
  } finally {
    clustering.centroids.close();
  }
}
