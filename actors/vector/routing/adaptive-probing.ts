/**
 * How many of the ranked leaves a query must look into: a model of where neighbours are, and a threshold for each recall target.
 *
 * The share of the true neighbours that leaf i holds is taken as `logistic(w0 + w1 · gap + w2 · ln(1 + rank))`, with gap = √d_i − √d_1
 * (plain d_i − d_1 for inner product) in units of the training queries' mean gap. Leaves, or shards by the sum over their leaves, are
 * visited as long as their share reaches a threshold. For a *mean* recall that is the cheapest rule there is: every visit that is
 * made is worth more than every visit that is not.
 *
 * Invariant: at the threshold chosen the training queries reached the target (between two measured thresholds: by interpolation), and
 * a higher target never has a higher threshold.
 * Source: after Mohoney et al., "Quake", OSDI 2025 (adaptive partition scanning). **Divergence**: Quake takes the share from
 * the cap of a hypersphere in `dimensions`, which under-probes real data by 20 points; even with the effective dimension calibrated (16 to
 * 64 tried) it visits 2.6 of 16 shards on MNIST where this visits 1.95 at the same recall of .99, and 5 against 3.2 at .999.
 */

import { METRIC, type MetricCode } from "../../../native-bridge/kernels.ts";
import { invalidArgument } from "../../../src/errors.ts";
import { SLICE_QUERIES, type Steps, within } from "./steps.ts";
import type { TopList } from "./top-list.ts";

/** Plain numbers, to be kept with the table that they were calibrated for. */
export interface ShareModel {
  readonly weights: readonly [number, number, number];
  /** Gap that counts as 1. */
  readonly gapUnit: number;
}

/** Recall over the training queries for falling thresholds. */
export interface RecallCurve {
  /** Descending. */
  readonly thresholds: readonly number[];
  /** Ascending, in [0, 1]. */
  readonly recalls: readonly number[];
}

/** One training query with its ranked leaves. */
export interface RankedQuery {
  readonly leaves: Int32Array;
  /** Ascending, one per leaf. */
  readonly distances: Float64Array;
  /** Share of the true neighbours that each leaf holds, each neighbour counted at its first leaf. */
  readonly shares: Float64Array;
  /** First leaf of each true neighbour, ranked or not. */
  readonly neighbours: Int32Array;
}

const ITERATIONS = 25;
/** Queries a slice whose gradients are added up. */
const SLICE_WEIGHED = 32;
const RIDGE = 1e-6;
const CONVERGED = 1e-7;
const MOST_STEP = 2;
/** Exponents beyond this make no difference to a share. */
const MOST_LOGIT = 30;
const THRESHOLDS = 96;
const HIGHEST_THRESHOLD = 0.9;
const LOWEST_THRESHOLD = 1e-5;

/** Gap of a distance to the best one, in the units in which the model is linear. */
export function gapOf(metric: MetricCode, distance: number, best: number): number {
  return metric === METRIC.INNER_PRODUCT
    ? distance - best
    : Math.sqrt(Math.max(0, distance)) - Math.sqrt(Math.max(0, best));
}

/** Share of the neighbours to be expected in the leaf of that rank (from 0) and gap. */
export function expectedShare(model: ShareModel, gap: number, rank: number): number {
  const [w0, w1, w2] = model.weights;
  return logistic(w0 + (w1 * gap) / model.gapUnit + w2 * Math.log1p(rank));
}

/** Expected shares of ranked leaves. @param into As long as `ranked.count`. */
export function expectedShares(model: ShareModel, metric: MetricCode, ranked: TopList, into: Float64Array): void {
  const best = ranked.distances[0] as number;
  for (let i = 0; i < ranked.count; i++)
    into[i] = expectedShare(model, gapOf(metric, ranked.distances[i] as number, best), i);
}

/**
 * Fits the model by iteratively reweighted least squares.
 *
 * @param queries At least one, each with at least one leaf.
 * @returns Steps of a part of an iteration each.
 */
export function* fitShareModel(metric: MetricCode, queries: readonly RankedQuery[]): Steps<ShareModel> {
  let gaps = 0;
  let leaves = 0;
  for (const { distances } of queries) {
    for (const distance of distances) gaps += gapOf(metric, distance, distances[0] as number);
    leaves += distances.length;
  }
  if (leaves === 0) throw invalidArgument("calibrate probing", "queries", "queries with leaves", queries.length);
  const gapUnit = gaps > 0 ? gaps / leaves : 1;
  let weights: [number, number, number] = [0, -1, -1];
  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    const newton = newtonStep({ weights, gapUnit }, metric, queries);
    const step = yield* within(newton, iteration / ITERATIONS, (iteration + 1) / ITERATIONS);
    const size = Math.max(...step.map(Math.abs));
    const part = Math.min(1, MOST_STEP / size); // where the data are separable, Newton's steps know no end
    weights = [weights[0] + part * step[0], weights[1] + part * step[1], weights[2] + part * step[2]];
    if (size < CONVERGED) break;
  }
  return { weights, gapUnit };
}

/**
 * The recall at each threshold, for visits of leaves or of groups of leaves.
 *
 * @param groupOf Group of a leaf: what is visited as a whole. The best group is always visited.
 */
export function* recallCurve(
  model: ShareModel,
  metric: MetricCode,
  queries: readonly RankedQuery[],
  groupOf: (leaf: number) => number,
): Steps<RecallCurve> {
  const thresholds = Array.from(
    { length: THRESHOLDS },
    (_, i) => HIGHEST_THRESHOLD * (LOWEST_THRESHOLD / HIGHEST_THRESHOLD) ** (i / (THRESHOLDS - 1)),
  );
  const sums = new Float64Array(THRESHOLDS);
  for (const [number, query] of queries.entries()) {
    if (number % SLICE_QUERIES === 0) yield number / queries.length;
    const expected = new Map<number, number>();
    const held = new Map<number, number>();
    query.leaves.forEach((leaf, i) => {
      const group = groupOf(leaf);
      const share = expectedShare(model, gapOf(metric, query.distances[i] as number, query.distances[0] as number), i);
      expected.set(group, (expected.get(group) ?? 0) + share);
    });
    // A group that is visited answers for all of it, also for leaves that were not ranked.
    for (const leaf of query.neighbours) {
      const group = groupOf(leaf);
      held.set(group, (held.get(group) ?? 0) + 1 / query.neighbours.length);
    }
    const best = Math.max(...expected.values());
    for (const [group, share] of expected) {
      const hits = held.get(group);
      if (hits === undefined) continue;
      for (let t = THRESHOLDS - 1; t >= 0 && (share >= (thresholds[t] as number) || share === best); t--)
        sums[t] = (sums[t] as number) + hits;
    }
  }
  return { thresholds, recalls: Array.from(sums, (sum) => Math.min(1, sum / queries.length)) };
}

/**
 * The highest threshold at which the training queries reached the target, between two points by interpolation.
 *
 * @returns 0, every leaf that was ranked, when they never reached it.
 */
export function thresholdFor(curve: RecallCurve, recallTarget: number): number {
  checkRecallTarget(recallTarget);
  const { thresholds, recalls } = curve;
  const at = recalls.findIndex((recall) => recall >= recallTarget);
  if (at < 0 || recallTarget === 1) return 0;
  if (at === 0) return thresholds[0] as number;
  const below = recalls[at - 1] as number;
  const part = (recallTarget - below) / ((recalls[at] as number) - below);
  return (thresholds[at - 1] as number) * ((thresholds[at] as number) / (thresholds[at - 1] as number)) ** part;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
export function checkRecallTarget(recallTarget: number): void {
  if (!(recallTarget > 0 && recallTarget <= 1))
    throw invalidArgument("choose shards", "recallTarget", "a number in (0, 1]", recallTarget);
}

function logistic(x: number): number {
  return 1 / (1 + Math.exp(-Math.min(MOST_LOGIT, Math.max(-MOST_LOGIT, x))));
}

function* newtonStep(
  model: ShareModel,
  metric: MetricCode,
  queries: readonly RankedQuery[],
): Steps<[number, number, number]> {
  const gradient = [0, 0, 0];
  const hessian = [RIDGE, 0, 0, 0, RIDGE, 0, 0, 0, RIDGE];
  const x = [1, 0, 0];
  for (const [number, { distances, shares }] of queries.entries()) {
    if (number % SLICE_WEIGHED === 0) yield number / queries.length;
    for (let i = 0; i < distances.length; i++) {
      const gap = gapOf(metric, distances[i] as number, distances[0] as number);
      const p = expectedShare(model, gap, i);
      const spread = p * (1 - p);
      x[1] = gap / model.gapUnit;
      x[2] = Math.log1p(i);
      for (let a = 0; a < 3; a++) {
        gradient[a] = (gradient[a] as number) + (x[a] as number) * ((shares[i] as number) - p);
        for (let b = 0; b < 3; b++)
          hessian[a * 3 + b] = (hessian[a * 3 + b] as number) + (x[a] as number) * (x[b] as number) * spread;
      }
    }
  }
  // A ridge on the weights themselves keeps what the data do not determine (all gaps zero, perfect separation) finite.
  for (let a = 0; a < 3; a++) gradient[a] = (gradient[a] as number) - RIDGE * (model.weights[a] as number);
  return solve3(hessian, gradient);
}

/** Solves a symmetric positive definite system of three by elimination. */
function solve3(matrix: readonly number[], right: readonly number[]): [number, number, number] {
  const m = [...matrix];
  const r = [...right];
  for (let k = 0; k < 3; k++) {
    for (let row = k + 1; row < 3; row++) {
      const factor = (m[row * 3 + k] as number) / (m[k * 3 + k] as number);
      for (let column = k; column < 3; column++)
        m[row * 3 + column] = (m[row * 3 + column] as number) - factor * (m[k * 3 + column] as number);
      r[row] = (r[row] as number) - factor * (r[k] as number);
    }
  }
  const z = (r[2] as number) / (m[8] as number);
  const y = ((r[1] as number) - (m[5] as number) * z) / (m[4] as number);
  const x = ((r[0] as number) - (m[1] as number) * y - (m[2] as number) * z) / (m[0] as number);
  return [x, y, z];
}
