/**
 * Learns, for each level of a multi-level index, how many of its ranked clusters hold the neighbours of training vectors.
 *
 * Invariant: a level is ranked as a search ranks it, from the clusters that a generous search of the level above reads; a
 * neighbour counts at the first cluster that has it. The leaf of a training vector is taken as it would be without the vector:
 * n / (n − 1) times as far. Above the leaves a vector's weight in a centroid is too small to matter.
 */
import type { MetricCode } from "../../../native-bridge/kernels.ts";
import { invalidArgument } from "../../../src/errors.ts";
import {
  expectedShare,
  fitShareModel,
  gapOf,
  type RankedQuery,
  recallCurve,
  type ShareModel,
  thresholdFor,
} from "./adaptive-probing.ts";
import type { Code, CodeTable } from "./code-table.ts";
import { leaveOut } from "./compass-calibration.ts";
import type { ClusterLevel, MultiLevelIndex } from "./multi-level-index.ts";
import type { LevelCalibration, MultiLevelCalibration, SearchCalibration } from "./multi-level-search.ts";
import { SLICE_QUERIES, type Steps, within } from "./steps.ts";
import { TopList } from "./top-list.ts";

/** A vector of the index and its true neighbours, nearest first, itself not among them. */
export interface NeighbourQuery {
  readonly number: number;
  readonly vector: Code;
  readonly neighbours: Int32Array;
}

const DEPTHS: readonly number[] = [1, 10, 100];
const WIDTH = 192;
/** Recall with which upper levels are searched while the ones below are calibrated. */
const GENEROUS = 0.999;

/** Finds true neighbours by scanning all vectors: numbers × vectors distances. */
export function* neighbourQueries(vectors: CodeTable, numbers: Int32Array, depth: number): Steps<NeighbourQuery[]> {
  const top = new TopList(depth + 1);
  const queries: NeighbourQuery[] = [];
  for (const number of numbers) {
    yield queries.length / numbers.length;
    const vector = vectors.vector(number).slice();
    vectors.nearest(vector, top);
    const neighbours = top.ids.subarray(0, top.count).filter((id) => id !== number);
    queries.push({ number, vector, neighbours: neighbours.slice(0, depth) });
  }
  return queries;
}

/**
 * Calibrates for one neighbour, for ten, and so on up to as many as are known of every query.
 *
 * @param sizes Vectors of each leaf, where the index does not have all of them. @default as the index has them
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` without queries that have neighbours.
 */
export function* calibrateMultiLevel(
  index: MultiLevelIndex,
  queries: readonly NeighbourQuery[],
  sizes: Int32Array = sizesOf(index),
): Steps<MultiLevelCalibration> {
  const known = queries.reduce((least, { neighbours }) => Math.min(least, neighbours.length), Number.POSITIVE_INFINITY);
  if (queries.length === 0 || known === 0)
    throw invalidArgument("calibrate multi-level index", "queries", "queries with neighbours", queries.length);
  const holders = index.levels.map(holdersOf);
  const depths = [...DEPTHS.filter((depth) => depth < known), known];
  const calibrations: SearchCalibration[] = [];
  for (const depth of depths) {
    const own = queries.map((query) => ({ ...query, neighbours: query.neighbours.subarray(0, depth) }));
    const done = calibrations.length;
    const levels = yield* within(
      calibrateDepth(index, holders, sizes, own),
      done / depths.length,
      (done + 1) / depths.length,
    );
    calibrations.push({ depth, levels });
  }
  return calibrations;
}

function sizesOf({ levels }: MultiLevelIndex): Int32Array {
  const leaves = levels[0] as ClusterLevel;
  const sizes = new Int32Array(leaves.centroids.count);
  for (const leaf of leaves.clusterOf) sizes[leaf] = (sizes[leaf] as number) + 1;
  return sizes;
}

function* calibrateDepth(
  index: MultiLevelIndex,
  holders: readonly number[][][],
  sizes: Int32Array,
  queries: readonly NeighbourQuery[],
): Steps<LevelCalibration[]> {
  const { metric, levels } = index;
  const done: LevelCalibration[] = [];
  // Clusters that each query ranks at the level at hand; at the top all of them.
  let reached: (Int32Array | undefined)[] = queries.map(() => undefined);
  for (let level = levels.length - 1; level >= 0; level--) {
    const ranked: RankedQuery[] = [];
    const from = 1 - (level + 1) / levels.length;
    for (const [i, query] of queries.entries()) {
      if (i % SLICE_QUERIES === 0) yield from;
      ranked.push(rankLevel(index, holders, level, query, sizes, reached[i]));
    }
    const half = from + 0.5 / levels.length;
    const model = yield* within(fitShareModel(metric, ranked), from, half);
    const curve = yield* within(
      recallCurve(model, metric, ranked, (cluster) => cluster),
      half,
      from + 1 / levels.length,
    );
    done.unshift({ model, curve });
    if (level === 0) break;
    const threshold = thresholdFor(curve, GENEROUS);
    reached = [];
    for (const [i, query] of ranked.entries()) {
      if (i % SLICE_QUERIES === 0) yield from + 1 / levels.length;
      reached.push(membersOf(levels[level] as ClusterLevel, chosen(query, model, metric, threshold)));
    }
  }
  return done;
}

/** The ranked clusters that a search would read. */
function chosen(query: RankedQuery, model: ShareModel, metric: MetricCode, threshold: number): Int32Array {
  const best = query.distances[0] as number;
  return query.leaves.filter(
    (_, i) => i === 0 || expectedShare(model, gapOf(metric, query.distances[i] as number, best), i) >= threshold,
  );
}

/** Clusters of each member: the inverse of a level's lists. */
function holdersOf(level: ClusterLevel): number[][] {
  const holders: number[][] = Array.from({ length: level.clusterOf.length }, () => []);
  for (let cluster = 0; cluster + 1 < level.starts.length; cluster++)
    for (let at = level.starts[cluster] as number; at < (level.starts[cluster + 1] as number); at++)
      holders[level.members[at] as number]?.push(cluster);
  return holders;
}

function membersOf(level: ClusterLevel, clusters: Int32Array): Int32Array {
  const members = new Set<number>();
  for (const cluster of clusters)
    for (let at = level.starts[cluster] as number; at < (level.starts[cluster + 1] as number); at++)
      members.add(level.members[at] as number);
  return Int32Array.from(members);
}

function rankLevel(
  index: MultiLevelIndex,
  holders: readonly number[][][],
  level: number,
  query: NeighbourQuery,
  sizes: Int32Array,
  among: Int32Array | undefined,
): RankedQuery {
  const { centroids, clusterOf, starts } = index.levels[level] as ClusterLevel;
  const ranked = new TopList(WIDTH);
  centroids.begin(query.vector, index.metric);
  const own = level === 0 ? (clusterOf[query.number] as number) : -1;
  const clusters = among ?? Int32Array.from({ length: starts.length - 1 }, (_, cluster) => cluster);
  for (const cluster of clusters) {
    const distance = centroids.score(cluster);
    if (cluster !== own) ranked.offer(cluster, distance);
    else if (sizes[cluster] !== 1)
      ranked.offer(cluster, leaveOut(index.metric, query.vector, distance, sizes[cluster] as number));
  }
  const place = new Map<number, number>();
  for (let i = 0; i < ranked.count; i++) place.set(ranked.ids[i] as number, i);
  const shares = new Float64Array(ranked.count);
  const first = new Int32Array(query.neighbours.length);
  query.neighbours.forEach((neighbour, i) => {
    let at = Number.POSITIVE_INFINITY;
    for (const cluster of upTo(holders, level, neighbour)) at = Math.min(at, place.get(cluster) ?? at);
    first[i] = Number.isFinite(at) ? (ranked.ids[at] as number) : -1;
    if (Number.isFinite(at)) shares[at] = (shares[at] as number) + 1 / query.neighbours.length;
  });
  const { ids, distances, count } = ranked;
  return { leaves: ids.slice(0, count), distances: distances.slice(0, count), shares, neighbours: first };
}

/** Clusters of a level through which a vector can be reached. */
function upTo(holders: readonly number[][][], level: number, vector: number): Set<number> {
  let reached = new Set([vector]);
  for (let at = 0; at <= level; at++) {
    const next = new Set<number>();
    for (const member of reached) for (const cluster of holders[at]?.[member] ?? []) next.add(cluster);
    reached = next;
  }
  return reached;
}
