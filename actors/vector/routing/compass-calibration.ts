/**
 * What Compass learns from training vectors: for several depths, how neighbours spread over leaves and what a threshold brings.
 *
 * The depth of a search is k over the filter's selectivity: the k nearest of the vectors that pass are about the k / selectivity
 * nearest of all, thinned out. So one calibration serves every k and every filter.
 *
 * Invariant: calibration ranks leaves as the router does, with its budget, so that what the router misses is in the curves.
 * Training queries are vectors of the collection that k-means did not look at; each is left out of its own leaf: the centroid
 * that stands for the leaf without it is n / (n − 1) times as far.
 */
import { METRIC, type MetricCode } from "../../../native-bridge/kernels.ts";
import { invalidArgument } from "../../../src/errors.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { fitShareModel, type RankedQuery, type RecallCurve, recallCurve, type ShareModel } from "./adaptive-probing.ts";
import type { Code, CodeTable, VectorSource } from "./code-table.ts";
import { shuffleFront } from "./lloyd.ts";
import { SLICE_QUERIES, type Steps, within } from "./steps.ts";
import { TopList } from "./top-list.ts";

/** A vector whose true neighbours are known. */
export interface TrainingQuery {
  readonly vector: Code;
  /** Leaf that the vector itself is in. */
  readonly ownLeaf: number;
  /** Leaves of its true neighbours, itself not among them, nearest first. */
  readonly neighbourLeaves: Int32Array;
}

/** Plain data; belongs to one table of centroids. */
export interface DepthCalibration {
  /** How much the ranking may cost, as a number of {@link EFFORTS}. */
  readonly effort: number;
  /** Neighbours asked for. */
  readonly depth: number;
  readonly model: ShareModel;
  readonly shardCurve: RecallCurve;
  readonly leafCurve: RecallCurve;
}

/** In ascending order of effort, then of depth. */
export type CompassCalibration = readonly DepthCalibration[];

/** Distances of a ranking as multiples of √leaves, and the targets up to which each is enough to choose shards or leaves. */
export const EFFORTS = [
  { budget: 5.5, shardsUpTo: 0.99, leavesUpTo: 0.95 },
  { budget: 10, shardsUpTo: 1, leavesUpTo: 1 },
] as const;
const DEPTHS: readonly number[] = [1, 3, 10, 20, 50, 100, 200, 500, 1000];
const DEFAULT_QUERIES = 1000;
/** Neighbours deeper than this share of the vectors say nothing of locality. */
const DEEPEST_SHARE = 0.05;

export interface TrainingOptions {
  readonly seed: number;
  /** Training queries. @default 1000, or all vectors when there are fewer */
  readonly queries?: number;
  /** Neighbours of each. @default 1000, at most 5 % of the vectors */
  readonly depth?: number;
  /** Vectors that k-means looked at; they are taken only when there are too few others. */
  readonly seen?: ReadonlySet<number>;
}

/**
 * Finds the true neighbours of training queries by scanning all vectors.
 *
 * Cost: queries × vectors distances. A collection with a graph had better ask the graph.
 */
export function* trainingQueries(
  vectors: CodeTable,
  leafOf: Int32Array,
  options: TrainingOptions,
): Steps<TrainingQuery[]> {
  if (vectors.count < 2) throw invalidArgument("calibrate routing", "vectors.count", "at least 2", vectors.count);
  const { seed, seen } = options;
  const depth = Math.max(1, Math.min(options.depth ?? Number.POSITIVE_INFINITY, deepest(vectors.count)));
  const numbers = Int32Array.from({ length: vectors.count }, (_, i) => i);
  const unseen = numbers.filter((i) => seen?.has(i) !== true);
  const wanted = Math.min(vectors.count, options.queries ?? DEFAULT_QUERIES);
  const pool = unseen.length >= wanted ? unseen : numbers;
  shuffleFront(pool, wanted, createSeededRandom(seed));
  const top = new TopList(depth + 1);
  const queries: TrainingQuery[] = [];
  for (let i = 0; i < wanted; i++) {
    yield i / wanted;
    const own = pool[i] as number;
    const vector = vectors.vector(own).slice();
    vectors.nearest(vector, top);
    const neighbours = top.ids.subarray(0, top.count).filter((id) => id !== own);
    queries.push({
      vector,
      ownLeaf: leafOf[own] as number,
      neighbourLeaves: neighbours.subarray(0, depth).map((id) => leafOf[id] as number),
    });
  }
  return queries;
}

function deepest(count: number): number {
  const deep = Math.min(DEPTHS.at(-1) as number, Math.floor(count * DEEPEST_SHARE));
  return Math.min(count - 1, Math.max(10, deep));
}

/** What calibration needs of the router that it calibrates. */
export interface CalibratedRouter extends Pick<VectorSource, "metric"> {
  /** Ranks leaves for a search of that depth; the list is valid until the next call. */
  rank(query: Code, depth: number, effort: number): TopList;
  leafCount(leaf: number): number;
  shardOf(leaf: number): number;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` without queries. */
export function* calibrateCompass(
  router: CalibratedRouter,
  queries: readonly TrainingQuery[],
): Steps<CompassCalibration> {
  const known = queries.reduce(
    (least, query) => Math.min(least, query.neighbourLeaves.length),
    Number.POSITIVE_INFINITY,
  );
  if (queries.length === 0 || known === 0)
    throw invalidArgument("calibrate routing", "queries", "queries with neighbours", queries.length);
  const depths = DEPTHS.filter((depth) => depth < known);
  depths.push(known);
  const calibrations: DepthCalibration[] = [];
  const all = EFFORTS.flatMap((_, effort) => depths.map((depth) => ({ effort, depth })));
  for (const { effort, depth } of all) {
    const done = (part: number): number => (calibrations.length + part) / all.length;
    const ranked: RankedQuery[] = [];
    for (const [number, query] of queries.entries()) {
      if (number % SLICE_QUERIES === 0) yield done((0.25 * number) / queries.length);
      ranked.push(rankTraining(router, query, depth, effort));
    }
    const { metric } = router;
    const model = yield* within(fitShareModel(metric, ranked), done(0.25), done(0.5));
    const byShard = recallCurve(model, metric, ranked, (leaf) => router.shardOf(leaf));
    const shardCurve = yield* within(byShard, done(0.5), done(0.75));
    const leafCurve = yield* within(
      recallCurve(model, metric, ranked, (leaf) => leaf),
      done(0.75),
      done(1),
    );
    calibrations.push({ effort, depth, model, shardCurve, leafCurve });
  }
  return calibrations;
}

function rankTraining(router: CalibratedRouter, query: TrainingQuery, depth: number, effort: number): RankedQuery {
  const found = router.rank(query.vector, depth, effort);
  const ranked = new TopList(Math.max(1, found.count));
  for (let i = 0; i < found.count; i++) {
    const leaf = found.ids[i] as number;
    const distance = found.distances[i] as number;
    if (leaf !== query.ownLeaf) ranked.offer(leaf, distance);
    else if (router.leafCount(leaf) > 1)
      ranked.offer(leaf, leaveOut(router.metric, query.vector, distance, router.leafCount(leaf)));
  }
  const places = new Map<number, number>();
  for (let i = 0; i < ranked.count; i++) places.set(ranked.ids[i] as number, i);
  const shares = new Float64Array(ranked.count);
  const neighbours = query.neighbourLeaves.subarray(0, depth);
  for (const leaf of neighbours) {
    const place = places.get(leaf);
    if (place !== undefined) shares[place] = (shares[place] as number) + 1 / depth;
  }
  const { ids, distances, count } = ranked;
  return { leaves: ids.slice(0, count), distances: distances.slice(0, count), shares, neighbours };
}

/**
 * Distance of a vector to the mean of its leaf's other members, from that to the mean of all: n / (n − 1) times as far.
 *
 * Exact for l2 and inner product; near enough for cosine, where 1 − cosine is half the square of the distance between directions.
 */
export function leaveOut(metric: MetricCode, vector: Code, distance: number, count: number): number {
  if (metric !== METRIC.INNER_PRODUCT) return Math.max(0, distance) * (count / (count - 1)) ** 2;
  let square = 0;
  for (let i = 0; i < vector.length; i++) square += (vector[i] as number) ** 2;
  return 1 - (count * (1 - distance) - square) / (count - 1);
}
