/**
 * Lloyd's k-means over a sample, kept from degenerating: empty and tiny groups are moved into groups that are too large.
 *
 * Invariant: the outcome depends on the vectors, the options and the random source alone; every group that it returns had a
 * member in the last round or was placed on a vector of the sample.
 * Cost: rounds × sample × groups distances; for many groups see tree-means.ts.
 */
import type { Random } from "../../../src/runtime/random.ts";
import { CodeMeans } from "./code-means.ts";
import {
  type Code,
  type CodeHost,
  type CodeSpace,
  CodeTable,
  groupingMetric,
  type VectorSource,
} from "./code-table.ts";
import { SLICE_VECTORS, type Steps } from "./steps.ts";
import { TopList } from "./top-list.ts";

/** Finds the codes of a table that are nearest to a query. */
export interface NearestFinder {
  nearest(query: Code, top: TopList): void;
  close(): void;
}

export interface LloydOptions {
  readonly groups: number;
  readonly rounds: number;
  readonly random: Random;
  /** Members of the sample from which on a group is split. @default no limit */
  readonly capacity?: number;
}

/** Above so many groups, centres begin at random vectors. */
const MOST_SPREAD_GROUPS = 512 + 256;
/** Vectors, a group, among which spread centres are drawn. */
const POOL_PER_GROUP = 8;
/** Centres a slice. */
const SLICE_CENTRES = 8;
/** Share of the work that is the choice of centres. */
const SEED_SHARE = 0.05;
/** A group below this share of the mean size is worth more elsewhere. */
const TINY_SHARE = 0.1;
/** At most this share of the groups moves in one round. */
const MOVED_SHARE = 0.125;

/**
 * @param sample Numbers of the vectors to group, at least as many as groups.
 * @returns A table of the centroids, which the caller closes.
 */
export function* lloyd(
  host: CodeHost,
  source: VectorSource,
  sample: Int32Array,
  options: LloydOptions,
): Steps<CodeTable> {
  const { groups, rounds, random } = options;
  const space: CodeSpace = { ...spaceOf(source), metric: groupingMetric(source.metric) };
  const means = new CodeMeans(space, groups);
  const groupOf = new Int32Array(sample.length);
  const table = new CodeTable(host, space, groups);
  let whole = false;
  try {
    yield* seedCentres(host, source, sample, table, random);
    for (let round = 0; round < rounds; round++) {
      means.clear();
      const done = SEED_SHARE + ((1 - SEED_SHARE) * round) / rounds;
      for (const share of assignSample(source, sample, table, means, groupOf))
        yield done + ((1 - SEED_SHARE) * share) / rounds;
      for (let group = 0; group < groups; group++) if (means.count(group) > 0) table.set(group, means.mean(group));
      if (round < rounds - 1) moveGroups(source, sample, table, means, groupOf, options);
    }
    moveEmpty(source, sample, table, means, groupOf, random);
    whole = true;
    return table;
  } finally {
    if (!whole) table.close();
  }
}

/**
 * Draws the first centres, each with a chance that grows with the squared distance to those drawn before.
 *
 * Source: Arthur and Vassilvitskii, "k-means++", SODA 2007. Divergence: over a pool, and at random for very many groups.
 */
function* seedCentres(
  host: CodeHost,
  source: VectorSource,
  sample: Int32Array,
  table: CodeTable,
  random: Random,
): Steps<void> {
  const groups = table.count;
  const size = Math.min(sample.length, groups * POOL_PER_GROUP);
  shuffleFront(sample, size, random);
  if (groups > MOST_SPREAD_GROUPS) {
    for (let group = 0; group < groups; group++) table.set(group, source.vector(sample[group] as number));
    return;
  }
  const pool = new CodeTable(host, table, size);
  try {
    for (let i = 0; i < size; i++) pool.set(i, source.vector(sample[i] as number));
    const nearest = new Float64Array(size).fill(Number.POSITIVE_INFINITY);
    let next = 0;
    for (let group = 0; group < groups; group++) {
      table.set(group, pool.vector(next));
      pool.begin(pool.vector(next));
      let total = 0;
      for (let i = 0; i < size; i++) {
        const distance = Math.max(0, Math.min(nearest[i] as number, pool.score(i)));
        nearest[i] = distance;
        total += distance;
      }
      next = total > 0 ? drawn(nearest, random.float() * total) : random.u32() % size;
      if (group % SLICE_CENTRES === 0) yield (SEED_SHARE * group) / groups;
    }
  } finally {
    pool.close();
  }
}

/** The index at which the running sum of weights passes a value. */
function drawn(weights: Float64Array, value: number): number {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    sum += weights[i] as number;
    if (sum > value) return i;
  }
  return weights.length - 1;
}

export function spaceOf(space: CodeSpace): CodeSpace {
  return { dimensions: space.dimensions, metric: space.metric, element: space.element };
}

/** Brings `count` random members to the front of a list. */
export function shuffleFront(list: Int32Array, count: number, random: Random): void {
  for (let i = 0; i < count; i++) {
    const j = i + (random.u32() % (list.length - i));
    const kept = list[i] as number;
    list[i] = list[j] as number;
    list[j] = kept;
  }
}

function* assignSample(
  source: VectorSource,
  sample: Int32Array,
  table: CodeTable,
  means: CodeMeans,
  groupOf: Int32Array,
): Steps<void> {
  const top = new TopList(1);
  for (let i = 0; i < sample.length; i++) {
    if (i % SLICE_VECTORS === 0) yield i / sample.length;
    const code = source.vector(sample[i] as number);
    table.nearest(code, top);
    groupOf[i] = top.ids[0] as number;
    means.add(top.ids[0] as number, code);
  }
}

/** Moves the smallest groups onto members of those that are too large, as long as that evens sizes out. */
function moveGroups(
  source: VectorSource,
  sample: Int32Array,
  table: CodeTable,
  means: CodeMeans,
  groupOf: Int32Array,
  options: LloydOptions,
): void {
  const { groups, random, capacity = Number.POSITIVE_INFINITY } = options;
  const sizes = Int32Array.from({ length: groups }, (_, group) => means.count(group));
  const order = Int32Array.from(sizes, (_, group) => group).sort(
    (a, b) => (sizes[a] as number) - (sizes[b] as number) || a - b,
  );
  const tiny = (sample.length / groups) * TINY_SHARE;
  const members = membersByGroup(groupOf, groups);
  const most = Math.max(1, Math.floor(groups * MOVED_SHARE));
  for (let moved = 0; moved < most; moved++) {
    const small = order[moved] as number;
    let large = 0;
    for (let group = 1; group < groups; group++) if ((sizes[group] as number) > (sizes[large] as number)) large = group;
    const worthIt = (sizes[small] as number) <= tiny || (sizes[large] as number) > capacity;
    if (!worthIt || (sizes[large] as number) < 2 || large === small) return;
    const crowd = members[large] as number[];
    table.set(small, source.vector(sample[crowd[random.u32() % crowd.length] as number] as number));
    sizes[large] = (sizes[large] as number) >> 1;
    sizes[small] = (sizes[small] as number) + (sizes[large] as number);
  }
}

/** After the last round an empty group takes the place of one member of the largest. */
function moveEmpty(
  source: VectorSource,
  sample: Int32Array,
  table: CodeTable,
  means: CodeMeans,
  groupOf: Int32Array,
  random: Random,
): void {
  const members = membersByGroup(groupOf, table.count);
  const largest = [...members].sort((a, b) => b.length - a.length);
  for (let group = 0, next = 0; group < table.count; group++) {
    if (means.count(group) > 0) continue;
    const crowd = largest[next++ % largest.length] as number[];
    table.set(group, source.vector(sample[crowd[random.u32() % crowd.length] as number] as number));
  }
}

function membersByGroup(groupOf: Int32Array, groups: number): number[][] {
  const members: number[][] = Array.from({ length: groups }, () => []);
  for (let i = 0; i < groupOf.length; i++) members[groupOf[i] as number]?.push(i);
  return members;
}
