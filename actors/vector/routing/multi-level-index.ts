/**
 * The multi-level index: vectors in small balanced leaves, the leaves' centroids in clusters, and so on, until the top is small.
 *
 * Invariant: every member of a level is in exactly one *own* cluster of the level above, which keeps its size cap, and may stand
 * in some more whose border it is near (closure.ts). Every cluster has one node; clusters above the leaves have a second one,
 * since they are a few per cent of the data and without them whole regions would be out of reach.
 * Clusters are spread over nodes by hash, not by place, so that no node is hot.
 * Source: SPIRE (arXiv 2512.17264): one density at every level, near-data reads, one round trip a level.
 */
import type { MetricCode } from "../../../native-bridge/kernels.ts";
import { invalidArgument } from "../../../src/errors.ts";
import { type ClosureOptions, chooseGroups } from "./closure.ts";
import { type CodeHost, type CodeTable, groupingMetric, type VectorSource } from "./code-table.ts";
import { CANDIDATES, clusterLeaves, type LeafClustering } from "./leaf-clustering.ts";
import { SLICE_VECTORS, type Steps, within } from "./steps.ts";
import { TopList } from "./top-list.ts";

export interface MultiLevelOptions {
  /** Nodes to spread over. */
  readonly nodes: number;
  readonly seed: number;
  /** Clusters a member, of every level, in (0, 0.5]. @default 0.05 */
  readonly density?: number;
  /** Levels are added until the highest has no more clusters than this. @default 256 */
  readonly mostAtTop?: number;
  /** @default slack 0.2, copies 4 */
  readonly closure?: ClosureOptions;
  /** Rounds of k-means. @default 6 */
  readonly rounds?: number;
  /** Node of a cluster. @default by hash */
  readonly placement?: (level: number, cluster: number) => number;
}

/** One level: clusters over the members of the level below, which for level 0 are the vectors. */
export interface ClusterLevel {
  /** Centroid of each cluster. */
  readonly centroids: CodeTable;
  /** Members of cluster c: `members[starts[c] .. starts[c + 1])`, its own before its copies. */
  readonly starts: Int32Array;
  readonly members: Int32Array;
  /** Own cluster of each member. */
  readonly clusterOf: Int32Array;
  readonly nodeOf: Int32Array;
  /** Node of the second copy; −1 where there is none. */
  readonly secondOf: Int32Array;
}

export interface MultiLevelIndex {
  readonly nodes: number;
  /** Vectors. */
  readonly count: number;
  /** Of the vectors; the centroids of an inner product are grouped by another (see `groupingMetric`), but ranked by this. */
  readonly metric: MetricCode;
  /** Leaves first, top last. */
  readonly levels: readonly ClusterLevel[];
  /** Vectors that k-means did not look at, in ascending order: fit to calibrate with. */
  readonly unseen: Int32Array;
}

type Resolved = Required<Omit<MultiLevelOptions, "placement">> & Pick<MultiLevelOptions, "placement">;

const DEFAULTS = { density: 0.05, mostAtTop: 256, closure: { slack: 0.2, copies: 4 }, rounds: 6 } as const;
const LARGEST_DENSITY = 0.5;
const SAMPLE_PER_CLUSTER = 16;
/** Share of the work that is the lowest level. */
const LEAF_SHARE = 0.9;
/** Share of a level's work that is clustering. */
const CLUSTER_SHARE = 0.95;

/**
 * Builds the index.
 *
 * @returns Steps that end in the index, which {@link closeIndex} gives back.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`.
 */
export function* buildMultiLevel(
  host: CodeHost,
  vectors: VectorSource,
  options: MultiLevelOptions,
): Steps<MultiLevelIndex> {
  const resolved: Resolved = { ...DEFAULTS, ...options };
  checkOptions(vectors, resolved);
  const levels: ClusterLevel[] = [];
  const seen = new Set<number>();
  let whole = false;
  try {
    for (let below: VectorSource = vectors; ; ) {
      const clusters = Math.max(1, Math.round(below.count * resolved.density));
      const from = levels.length === 0 ? 0 : LEAF_SHARE;
      const level = yield* within(
        buildLevel(host, below, clusters, levels.length, resolved),
        from,
        from === 0 ? LEAF_SHARE : 1,
      );
      if (levels.length === 0) for (const number of level.sample) seen.add(number);
      levels.push(level);
      if (clusters <= resolved.mostAtTop) break;
      below = level.centroids;
    }
    whole = true;
    const unseen = Int32Array.from({ length: vectors.count }, (_, i) => i).filter((i) => !seen.has(i));
    return { nodes: resolved.nodes, count: vectors.count, metric: vectors.metric, levels, unseen };
  } finally {
    if (!whole) for (const { centroids } of levels) centroids.close();
  }
}

/**
 * Levels over leaves that are there already: one at least, and more until the highest has no more clusters than `mostAtTop`. Clusters are as many as the
 * density says, but not fewer than the square root of what they are over: with few leaves groups of twenty would be most of them.
 *
 * @returns Steps that end in the levels, lowest first; their centroids belong to the caller.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`.
 */
export function* levelsAbove(host: CodeHost, leaves: CodeTable, options: MultiLevelOptions): Steps<ClusterLevel[]> {
  const resolved: Resolved = { ...DEFAULTS, ...options };
  checkOptions(leaves, resolved);
  const levels: ClusterLevel[] = [];
  let whole = false;
  try {
    for (let below = leaves; ; ) {
      const clusters = Math.max(Math.round(below.count * resolved.density), Math.ceil(Math.sqrt(below.count)));
      const [from, to] = levels.length === 0 ? [0, LEAF_SHARE] : [LEAF_SHARE, 1];
      const level = yield* within(buildLevel(host, below, clusters, levels.length + 1, resolved), from, to);
      levels.push(level);
      if (clusters <= resolved.mostAtTop) break;
      below = level.centroids;
    }
    whole = true;
    return levels;
  } finally {
    if (!whole) for (const { centroids } of levels) centroids.close();
  }
}

export function closeIndex(index: MultiLevelIndex): void {
  for (const { centroids } of index.levels) centroids.close();
}

function checkOptions(vectors: VectorSource, options: Resolved): void {
  const { nodes, density, mostAtTop, closure } = options;
  const action = "build multi-level index";
  if (vectors.count < 1) throw invalidArgument(action, "vectors.count", "at least 1", vectors.count);
  if (!Number.isInteger(nodes) || nodes < 1) throw invalidArgument(action, "nodes", "a positive integer", nodes);
  if (!(density > 0 && density <= LARGEST_DENSITY))
    throw invalidArgument(action, "density", `in (0, ${LARGEST_DENSITY}]`, density);
  if (!Number.isInteger(mostAtTop) || mostAtTop < 1)
    throw invalidArgument(action, "mostAtTop", "a positive integer", mostAtTop);
  if (!(closure.slack >= 0) || !Number.isInteger(closure.copies) || closure.copies < 1)
    throw invalidArgument(action, "closure", "a slack of at least 0 and at least one copy", closure);
}

function* buildLevel(
  host: CodeHost,
  below: VectorSource,
  clusters: number,
  level: number,
  options: Resolved,
): Steps<ClusterLevel & Pick<LeafClustering, "sample">> {
  const { seed, rounds, closure, nodes } = options;
  const nodeOf = placeClusters(level, clusters, options); // first, as what it refuses must not cost a clustering
  const sampleCount = SAMPLE_PER_CLUSTER * clusters;
  const clusterOptions = { leaves: clusters, seed: seed + level, rounds, sampleCount };
  const clustering = yield* within(clusterLeaves(host, below, clusterOptions), 0, CLUSTER_SHARE);
  const lists = yield* within(closedClusters(below, clustering, closure), CLUSTER_SHARE, 1);
  const starts = new Int32Array(clusters + 1);
  lists.forEach((list, cluster) => {
    starts[cluster + 1] = (starts[cluster] as number) + list.length;
  });
  const hasSecond = level > 0 && nodes > 1;
  const secondOf = nodeOf.map((node, cluster) =>
    hasSecond ? (node + 1 + (spread(level + 1, cluster) % (nodes - 1))) % nodes : -1,
  );
  const members = Int32Array.from(lists.flat());
  const { centroids, leafOf: clusterOf, sample } = clustering;
  return { centroids, starts, members, clusterOf, nodeOf, secondOf, sample };
}

function placeClusters(level: number, clusters: number, options: Resolved): Int32Array {
  const { nodes, placement = (at: number, cluster: number) => spread(at, cluster) % nodes } = options;
  const nodeOf = new Int32Array(clusters);
  for (let cluster = 0; cluster < clusters; cluster++) {
    const node = placement(level, cluster);
    if (!Number.isInteger(node) || node < 0 || node >= nodes)
      throw invalidArgument("build multi-level index", "placement", `a node in [0, ${nodes})`, node);
    nodeOf[cluster] = node;
  }
  return nodeOf;
}

/** As {@link closeClusters}; gives the centroids back when it is given up. */
function* closedClusters(below: VectorSource, clustering: LeafClustering, closure: ClosureOptions): Steps<number[][]> {
  let whole = false;
  try {
    const lists = yield* closeClusters(below, clustering, closure);
    whole = true;
    return lists;
  } finally {
    if (!whole) clustering.centroids.close();
  }
}

/** Members of each cluster: its own in ascending order, then the copies of others'. */
function* closeClusters(below: VectorSource, clustering: LeafClustering, closure: ClosureOptions): Steps<number[][]> {
  const { centroids, leafOf, candidates, leaves } = clustering;
  const lists: number[][] = Array.from({ length: leaves }, () => []);
  for (let i = 0; i < leafOf.length; i++) lists[leafOf[i] as number]?.push(i);
  const near = new TopList(CANDIDATES + 1);
  const chosen = new Int32Array(closure.copies);
  for (let i = 0; i < leafOf.length && closure.copies > 1; i++) {
    if (i % SLICE_VECTORS === 0) yield i / leafOf.length;
    const own = leafOf[i] as number;
    near.clear();
    centroids.begin(below.vector(i), groupingMetric(below.metric));
    near.offer(own, centroids.score(own));
    for (let j = 0; j < CANDIDATES; j++) {
      const candidate = candidates[i * CANDIDATES + j] as number;
      if (candidate >= 0 && candidate !== own) near.offer(candidate, centroids.score(candidate));
    }
    const count = chooseGroups(centroids, near, closure, chosen);
    for (let j = 0, left = closure.copies - 1; j < count && left > 0; j++) {
      if (chosen[j] === own) continue;
      lists[chosen[j] as number]?.push(i);
      left--;
    }
  }
  return lists;
}

/** A mix of level and cluster, in [0, 2^32). */
function spread(level: number, cluster: number): number {
  let word = Math.imul(cluster + 1, 0x9e3779b1) ^ Math.imul(level + 1, 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
  return (word ^ (word >>> 15)) >>> 0;
}
