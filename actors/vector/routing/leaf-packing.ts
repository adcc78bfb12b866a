/**
 * Leaves into partitions of bounded size, so that leaves whose vectors are neighbours share one.
 *
 * Invariant: every leaf is in exactly one partition, no partition holds more vectors than `capacity`, none is without vectors where there are
 * as many leaves that have some, and the outcome depends on the input and the seed alone. `capacity` is 1.05 of the mean, or the mean and one largest leaf where that is more: the least
 * that a greedy placement always meets.
 * From several seeds: greedy by margin with rounds of Lloyd over the leaf centroids, then refine-packing.ts; the least cut wins.
 * Source: notes on leaf packing (greedy by margin, 8 rounds, best of 4 seeds; of 16 there is 5 % less cut).
 */
import { invalidArgument } from "../../../src/errors.ts";
import { createSeededRandom, type Random } from "../../../src/runtime/random.ts";
import { CodeMeans } from "./code-means.ts";
import { type CodeHost, CodeTable } from "./code-table.ts";
import type { LeafAffinity } from "./leaf-affinity.ts";
import type { LeafClustering } from "./leaf-clustering.ts";
import { shuffleFront, spaceOf } from "./lloyd.ts";
import { cutOf, refinePacking } from "./refine-packing.ts";
import { SLICE_GROUPS, SLICE_MEANS, type Steps, within } from "./steps.ts";

export interface PackingOptions {
  /** Partitions to fill, in [1, leaves]. */
  readonly partitions: number;
  readonly seed: number;
  /** Most vectors of a partition, as a multiple of the mean, at least 1. @default 1.05 */
  readonly slack?: number;
  /** Placements tried, of which the best is taken. @default 16 */
  readonly attempts?: number;
}

export interface LeafPacking {
  /** Partition of each leaf. */
  readonly partitionOf: Int32Array;
  /** Vectors of each partition. */
  readonly loads: Int32Array;
  readonly capacity: number;
  /** Share of the affinity that crosses partitions, in [0, 1]. */
  readonly cut: number;
}

const DEFAULT_SLACK = 1.05;
const DEFAULT_ATTEMPTS = 16;
const ROUNDS = 8;

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_OUT_OF_MEMORY`. */
export function* packLeaves(
  host: CodeHost,
  clustering: Pick<LeafClustering, "centroids" | "counts">,
  affinity: LeafAffinity,
  options: PackingOptions,
): Steps<LeafPacking> {
  const { centroids, counts } = clustering;
  const { partitions, seed, slack = DEFAULT_SLACK, attempts = DEFAULT_ATTEMPTS } = options;
  if (!Number.isInteger(partitions) || partitions < 1 || partitions > counts.length)
    throw invalidArgument(
      "pack leaves",
      "partitions",
      `an integer in [1, ${counts.length}], the number of leaves`,
      partitions,
    );
  if (!(slack >= 1)) throw invalidArgument("pack leaves", "slack", "a number of at least 1", slack);
  if (!Number.isInteger(attempts) || attempts < 1)
    throw invalidArgument("pack leaves", "attempts", "a positive integer", attempts);
  if (!Number.isInteger(seed)) throw invalidArgument("pack leaves", "seed", "an integer", seed);
  const mean = counts.reduce((sum, count) => sum + count, 0) / partitions;
  const capacity = Math.floor(Math.max(mean * slack, mean + counts.reduce((most, count) => Math.max(most, count), 0)));
  let best: LeafPacking | undefined;
  for (let attempt = 0; attempt < attempts; attempt++) {
    const random = createSeededRandom(seed + attempt);
    const placing = place(host, centroids, counts, partitions, capacity, random);
    const packing = yield* within(placing, attempt / attempts, (attempt + 0.5) / attempts);
    const refining = refinePacking(packing.partitionOf, packing.loads, counts, affinity, capacity);
    yield* within(refining, (attempt + 0.5) / attempts, (attempt + 1) / attempts);
    const cut = cutOf(packing.partitionOf, affinity);
    if (best === undefined || cut < best.cut) best = { ...packing, capacity, cut };
  }
  return best as LeafPacking;
}

function* place(
  host: CodeHost,
  centroids: CodeTable,
  counts: Int32Array,
  partitions: number,
  capacity: number,
  random: Random,
): Steps<{ partitionOf: Int32Array; loads: Int32Array }> {
  const leaves = counts.length;
  const centres = new CodeTable(host, spaceOf(centroids), partitions);
  const means = new CodeMeans(centroids, partitions);
  const partitionOf = new Int32Array(leaves);
  const loads = new Int32Array(partitions);
  try {
    const first = Int32Array.from({ length: leaves }, (_, leaf) => leaf);
    shuffleFront(first, partitions, random);
    for (let p = 0; p < partitions; p++) centres.set(p, centroids.vector(first[p] as number));
    for (let round = 0; round < ROUNDS; round++) {
      yield* within(
        fill(centroids, centres, counts, capacity, partitionOf, loads),
        round / ROUNDS,
        (round + 0.7) / ROUNDS,
      );
      means.clear();
      for (let leaf = 0; leaf < leaves; leaf++) {
        if (leaf % SLICE_MEANS === 0) yield (round + 0.7 + (0.3 * leaf) / leaves) / ROUNDS;
        if ((counts[leaf] as number) > 0) means.add(partitionOf[leaf] as number, centroids.vector(leaf), counts[leaf]);
      }
      for (let p = 0; p < partitions; p++) if (means.count(p) > 0) centres.set(p, means.mean(p));
    }
    return { partitionOf, loads };
  } finally {
    centres.close();
  }
}

/** One greedy round: the leaf that has most to lose chooses first. */
function* fill(
  centroids: CodeTable,
  centres: CodeTable,
  counts: Int32Array,
  capacity: number,
  partitionOf: Int32Array,
  loads: Int32Array,
): Steps<void> {
  const leaves = counts.length;
  const partitions = centres.count;
  const distances = new Float64Array(leaves * partitions);
  const margins = new Float64Array(leaves);
  for (let leaf = 0; leaf < leaves; leaf++) {
    if (leaf % SLICE_GROUPS === 0) yield leaf / leaves;
    let first = Number.POSITIVE_INFINITY;
    let second = Number.POSITIVE_INFINITY;
    centres.begin(centroids.vector(leaf));
    for (let p = 0; p < partitions; p++) {
      const distance = centres.score(p);
      distances[leaf * partitions + p] = distance;
      if (distance < first) {
        second = first;
        first = distance;
      } else if (distance < second) second = distance;
    }
    margins[leaf] = Number.isFinite(second) ? second - first : 0;
  }
  const order = Int32Array.from(margins, (_, leaf) => leaf).sort(
    (a, b) => (margins[b] as number) - (margins[a] as number) || a - b,
  );
  loads.fill(0);
  for (const leaf of order) {
    let chosen = -1;
    for (let p = 0; p < partitions; p++) {
      if ((loads[p] as number) + (counts[leaf] as number) > capacity) continue;
      const nearer = (distances[leaf * partitions + p] as number) < (distances[leaf * partitions + chosen] as number);
      if (chosen < 0 || nearer) chosen = p;
    }
    partitionOf[leaf] = chosen;
    loads[chosen] = (loads[chosen] as number) + (counts[leaf] as number);
  }
  for (let p = 0; p < partitions; p++) if (loads[p] === 0) settle(p, distances, counts, partitionOf, loads);
}

/**
 * Gives a partition without vectors the leaf that is farthest from its own partition's centre, of those that are not alone there: what had room
 * for all may leave a centre behind that nothing is nearest to.
 */
function settle(
  empty: number,
  distances: Float64Array,
  counts: Int32Array,
  partitionOf: Int32Array,
  loads: Int32Array,
): void {
  let farthest = -1;
  let most = Number.NEGATIVE_INFINITY;
  for (let leaf = 0; leaf < counts.length; leaf++) {
    const count = counts[leaf] as number;
    const from = partitionOf[leaf] as number;
    const distance = distances[leaf * loads.length + from] as number;
    if (count === 0 || count === loads[from] || !(distance > most)) continue;
    most = distance;
    farthest = leaf;
  }
  if (farthest < 0) return;
  const from = partitionOf[farthest] as number;
  partitionOf[farthest] = empty;
  loads[from] = (loads[from] as number) - (counts[farthest] as number);
  loads[empty] = counts[farthest] as number;
}
