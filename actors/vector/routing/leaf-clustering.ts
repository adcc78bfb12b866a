/**
 * Vectors into many small leaves of bounded size: balanced k-means on a sample, then one assignment under a hard cap.
 *
 * Invariant: every vector is in exactly one leaf, no leaf has more than `capacity` vectors, none is empty while there are vectors
 * enough, and the outcome depends on the vectors, the options and the seed alone (for floats also on the build of the kernels).
 * The cap is kept by regret: vectors that lose most when their nearest leaf is full choose first.
 * Inner product is grouped as squared Euclidean distance (see `groupingMetric`).
 * Source: Chen et al., "SPANN", NeurIPS 2021 (balanced posting lists). Divergence: Lloyd with moved centroids instead of a penalty.
 */
import { invalidArgument } from "../../../src/errors.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { CodeMeans } from "./code-means.ts";
import { type Code, type CodeHost, CodeTable, groupingMetric, type VectorSource } from "./code-table.ts";
import { type LloydOptions, lloyd, type NearestFinder, shuffleFront, spaceOf } from "./lloyd.ts";
import { SLICE_GROUPS, SLICE_MEANS, SLICE_VECTORS, type Steps, within } from "./steps.ts";
import { TopList } from "./top-list.ts";
import { treeMeans } from "./tree-means.ts";

export interface ClusteringOptions {
  /** Leaves to make, in [1, count]. */
  readonly leaves: number;
  readonly seed: number;
  /** Vectors a leaf may hold; leaves × capacity must reach count. @default twice the mean, rounded up */
  readonly capacity?: number;
  /** Rounds of k-means. @default 8 */
  readonly rounds?: number;
  /** Vectors that k-means looks at. @default 48 a leaf */
  readonly sampleCount?: number;
}

export interface LeafClustering {
  readonly leaves: number;
  readonly capacity: number;
  /** Leaf of each vector. */
  readonly leafOf: Int32Array;
  /** Distance of each vector to its leaf's centroid, under the grouping metric. */
  readonly distances: Float32Array;
  /** Vectors of each leaf. */
  readonly counts: Int32Array;
  /** Means of the leaves' members, in the arena; the caller closes them. */
  readonly centroids: CodeTable;
  /** The nearest leaves of each vector before the cap, {@link CANDIDATES} a vector, best first; −1 where there are fewer. */
  readonly candidates: Int32Array;
  /** Vectors that k-means looked at. All others are fit to calibrate with. */
  readonly sample: Int32Array;
}

const DEFAULT_ROUNDS = 8;
const SAMPLE_PER_LEAF = 48;
const CAPACITY_FACTOR = 2;
/** Nearest leaves kept of each vector. */
export const CANDIDATES = 4;
/** More leaves than this are clustered from the top down. */
const FLAT_LEAVES = 1024;
const LLOYD_SHARE = 0.6;
const FOUND_SHARE = 0.9;
const ASSIGN_SHARE = 0.95;

/**
 * @returns Steps that end in the clustering; given up between steps, they leave nothing in the arena.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`.
 */
export function* clusterLeaves(
  host: CodeHost,
  source: VectorSource,
  clustering: ClusteringOptions,
): Steps<LeafClustering> {
  const resolved = resolveClusteringOptions(source.count, clustering);
  const { leaves, capacity } = resolved;
  const random = createSeededRandom(resolved.seed);
  const sample = Int32Array.from({ length: source.count }, (_, i) => i);
  const sampleCount = Math.min(source.count, Math.max(leaves, resolved.sampleCount));
  shuffleFront(sample, sampleCount, random);
  const options = {
    groups: leaves,
    rounds: resolved.rounds,
    random,
    capacity: Math.max(1, (capacity * sampleCount) / source.count),
  };
  const means = firstCentroids(host, source, sample.subarray(0, sampleCount), options);
  const first = yield* within(means, 0, LLOYD_SHARE);
  try {
    const found = yield* within(findCandidates(source, first.finder, leaves), LLOYD_SHARE, FOUND_SHARE);
    const assigning = assignUnderCap(source, first.centroids, found, capacity);
    const leafOf = yield* within(assigning, FOUND_SHARE, ASSIGN_SHARE);
    const described = yield* within(finish(host, source, leafOf, leaves), ASSIGN_SHARE, 1);
    const candidates = found.ids;
    return { ...described, leaves, capacity, leafOf, candidates, sample: sample.slice(0, sampleCount) };
  } finally {
    first.finder.close();
  }
}

/** What k-means found, and what looks it up; the finder closes both. */
interface FirstCentroids {
  readonly centroids: CodeTable;
  readonly finder: NearestFinder;
}

/** Of few leaves at once, of many from the top down. */
function* firstCentroids(
  host: CodeHost,
  source: VectorSource,
  sample: Int32Array,
  options: LloydOptions,
): Steps<FirstCentroids> {
  if (options.groups > FLAT_LEAVES) {
    const tree = yield* treeMeans(host, source, sample, options);
    return { centroids: tree.centroids, finder: tree };
  }
  const centroids = yield* lloyd(host, source, sample, options);
  return { centroids, finder: centroids };
}

interface Candidates {
  readonly ids: Int32Array;
  readonly distances: Float32Array;
  /** Per vector. */
  readonly width: number;
}

function resolveClusteringOptions(count: number, options: ClusteringOptions): Required<ClusteringOptions> {
  const { leaves, seed } = options;
  if (!Number.isInteger(leaves) || leaves < 1 || leaves > count)
    throw invalidArgument("cluster vectors", "leaves", `an integer in [1, ${count}], the number of vectors`, leaves);
  if (!Number.isInteger(seed)) throw invalidArgument("cluster vectors", "seed", "an integer", seed);
  const capacity = options.capacity ?? Math.ceil((CAPACITY_FACTOR * count) / leaves);
  if (!Number.isInteger(capacity) || capacity * leaves < count)
    throw invalidArgument(
      "cluster vectors",
      "capacity",
      `an integer of at least ${Math.ceil(count / leaves)}`,
      capacity,
    );
  const rounds = options.rounds ?? DEFAULT_ROUNDS;
  if (!Number.isInteger(rounds) || rounds < 1)
    throw invalidArgument("cluster vectors", "rounds", "a positive integer", rounds);
  const sampleCount = options.sampleCount ?? SAMPLE_PER_LEAF * leaves;
  if (!Number.isInteger(sampleCount) || sampleCount < 1)
    throw invalidArgument("cluster vectors", "sampleCount", "a positive integer", sampleCount);
  return { leaves, seed, capacity, rounds, sampleCount };
}

function* findCandidates(source: VectorSource, finder: NearestFinder, leaves: number): Steps<Candidates> {
  const width = CANDIDATES;
  const ids = new Int32Array(source.count * width).fill(-1);
  const distances = new Float32Array(source.count * width).fill(Number.POSITIVE_INFINITY);
  const top = new TopList(Math.min(width, leaves));
  for (let i = 0; i < source.count; i++) {
    if (i % SLICE_VECTORS === 0) yield i / source.count;
    finder.nearest(source.vector(i), top);
    for (let j = 0; j < top.count; j++) {
      ids[i * width + j] = top.ids[j] as number;
      distances[i * width + j] = top.distances[j] as number;
    }
  }
  return { ids, distances, width };
}

/** Each vector to the nearest of its leaves that has room; those that would lose most come first. */
function* assignUnderCap(
  source: VectorSource,
  centroids: CodeTable,
  found: Candidates,
  capacity: number,
): Steps<Int32Array> {
  const { ids, distances, width } = found;
  const counts = new Int32Array(centroids.count);
  const leafOf = new Int32Array(source.count);
  const regret = new Float64Array(source.count);
  for (let i = 0; i < source.count; i++) {
    const second = distances[i * width + 1] as number;
    regret[i] = Number.isFinite(second) ? second - (distances[i * width] as number) : 0;
  }
  const order = Int32Array.from({ length: source.count }, (_, i) => i).sort(
    (a, b) => (regret[b] as number) - (regret[a] as number) || a - b,
  );
  for (const [at, i] of order.entries()) {
    if (at % SLICE_MEANS === 0) yield at / order.length;
    let leaf = -1;
    for (let j = 0; j < width && leaf < 0; j++) {
      const candidate = ids[i * width + j] as number;
      if (candidate >= 0 && (counts[candidate] as number) < capacity) leaf = candidate;
    }
    if (leaf < 0) {
      yield at / order.length; // costs a look at every leaf
      leaf = nearestWithRoom(centroids, source.vector(i), counts, capacity);
    }
    leafOf[i] = leaf;
    counts[leaf] = (counts[leaf] as number) + 1;
  }
  fillEmpty(leafOf, counts, order);
  return leafOf;
}

function nearestWithRoom(centroids: CodeTable, code: Code, counts: Int32Array, capacity: number): number {
  let best = -1;
  let least = Number.POSITIVE_INFINITY;
  centroids.begin(code);
  for (let leaf = 0; leaf < centroids.count; leaf++) {
    if ((counts[leaf] as number) >= capacity) continue;
    const distance = centroids.score(leaf);
    if (best >= 0 && !(distance < least)) continue;
    best = leaf;
    least = distance;
  }
  return best;
}

/** A leaf that nobody chose takes a vector with little to lose from a leaf that has others. */
function fillEmpty(leafOf: Int32Array, counts: Int32Array, order: Int32Array): void {
  let from = order.length - 1;
  for (let leaf = 0; leaf < counts.length; leaf++) {
    if ((counts[leaf] as number) > 0) continue;
    while ((counts[leafOf[order[from] as number] as number] as number) < 2) from--;
    const moved = order[from--] as number;
    const left = leafOf[moved] as number;
    counts[left] = (counts[left] as number) - 1;
    counts[leaf] = 1;
    leafOf[moved] = leaf;
  }
}

/** Means, sizes and distances of the leaves as they came out. */
function* finish(
  host: CodeHost,
  source: VectorSource,
  leafOf: Int32Array,
  leaves: number,
): Steps<Pick<LeafClustering, "centroids" | "counts" | "distances">> {
  const space = { ...spaceOf(source), metric: groupingMetric(source.metric) };
  const means = new CodeMeans(space, leaves);
  for (let i = 0; i < source.count; i++) {
    if (i % SLICE_MEANS === 0) yield (0.5 * i) / source.count;
    means.add(leafOf[i] as number, source.vector(i));
  }
  const counts = Int32Array.from({ length: leaves }, (_, leaf) => means.count(leaf));
  const centroids = new CodeTable(host, space, leaves);
  let whole = false;
  try {
    for (let leaf = 0; leaf < leaves; leaf++) {
      if (leaf % SLICE_GROUPS === 0) yield 0.5;
      centroids.set(leaf, means.mean(leaf));
    }
    const distances = new Float32Array(source.count);
    for (let i = 0; i < source.count; i++) {
      if (i % SLICE_MEANS === 0) yield 0.5 + (0.5 * i) / source.count;
      centroids.begin(source.vector(i));
      distances[i] = centroids.score(leafOf[i] as number);
    }
    whole = true;
    return { centroids, counts, distances };
  } finally {
    if (!whole) centroids.close();
  }
}
