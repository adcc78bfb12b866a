/**
 * Learns the levels above freshly clustered leaves: clusters the leaves' centroids, and calibrates every level with the leaves' training queries.
 *
 * Invariant: what is given is plain data; nothing stays in the arena. Clusters go to shards by hash, so that no shard is hot, and each has a second
 * shard to read it: the node's memory is shared, so a second one costs nothing.
 */
import type { CodeHost } from "../routing/code-table.ts";
import { newCode } from "../routing/code-table.ts";
import type { TrainingQuery } from "../routing/compass-calibration.ts";
import type { LeafClustering } from "../routing/leaf-clustering.ts";
import type { LevelTable, UpperLevel } from "../routing/levels-codec.ts";
import { calibrateMultiLevel, type NeighbourQuery } from "../routing/multi-level-calibration.ts";
import { type ClusterLevel, levelsAbove, type MultiLevelIndex } from "../routing/multi-level-index.ts";
import { type Steps, within } from "../routing/steps.ts";

/** Leaves of the levels, against the vectors. */
export const LEVEL_DENSITY = 0.05;

/** @param shards That have vertices, in order. */
export function* trainLevels(
  host: CodeHost,
  clustering: LeafClustering,
  queries: readonly TrainingQuery[],
  shards: readonly number[],
  seed: number,
): Steps<LevelTable> {
  const { centroids, counts } = clustering;
  const upper = yield* within(levelsAbove(host, centroids, { nodes: shards.length, seed }), 0, 0.5);
  try {
    const { leaves, asked } = leavesOf(clustering, queries);
    const index: MultiLevelIndex = {
      nodes: shards.length,
      count: leaves.clusterOf.length,
      metric: centroids.metric,
      levels: [leaves, ...upper],
      unseen: new Int32Array(0),
    };
    const calibration = asked.length === 0 ? [] : yield* within(calibrateMultiLevel(index, asked, counts), 0.5, 1);
    return { upper: upper.map((level) => toUpper(level, shards)), calibration };
  } finally {
    for (const level of upper) level.centroids.close();
  }
}

/** The leaves as a level that has the queries and their neighbours for members, each by itself, and the queries by those numbers. */
function leavesOf(
  { centroids }: LeafClustering,
  queries: readonly TrainingQuery[],
): { readonly leaves: ClusterLevel; readonly asked: NeighbourQuery[] } {
  const lists: number[][] = Array.from({ length: centroids.count }, () => []);
  const clusterOf: number[] = [];
  const add = (leaf: number): number => {
    const number = clusterOf.push(leaf) - 1;
    lists[leaf]?.push(number);
    return number;
  };
  const asked = queries.map(({ vector, ownLeaf, neighbourLeaves }) => {
    const number = add(ownLeaf);
    return { number, vector, neighbours: neighbourLeaves.map(add) };
  });
  const starts = new Int32Array(centroids.count + 1);
  lists.forEach((list, leaf) => {
    starts[leaf + 1] = (starts[leaf] as number) + list.length;
  });
  const nobody = new Int32Array(centroids.count).fill(-1);
  const leaves = {
    ...{ centroids, starts, members: Int32Array.from(lists.flat()), clusterOf: Int32Array.from(clusterOf) },
    ...{ nodeOf: nobody, secondOf: nobody },
  };
  return { leaves, asked };
}

function toUpper(
  { centroids, starts, members, nodeOf, secondOf }: ClusterLevel,
  shards: readonly number[],
): UpperLevel {
  const codes = newCode(centroids, centroids.count);
  for (let at = 0; at < centroids.count; at++) codes.set(centroids.vector(at), at * centroids.dimensions);
  const shard = (node: number): number => shards[node] ?? -1;
  return { codes, starts, members, shardOf: nodeOf.map(shard), secondOf: secondOf.map(shard) };
}
