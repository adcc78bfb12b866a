/**
 * k-means for very many groups, from the top down: vectors into a few parts, each part into a few, and so on until the parts are the groups.
 *
 * Invariant: the outcome depends on the vectors, the options and the random source alone. Children of a part are neighbours in their table. A look-up goes
 * down by the nearest parts of each level ({@link BEAM} of them), so it can miss a group whose parts are all farther; what it gives are true distances.
 * Cost: (rounds + 1) × branches distances a vector and level for the tree, and beam × branches a level for each look-up: it grows like n · log n.
 * Measured on MNIST (60,000, 3,000 groups): a third of the distances that rounds of Lloyd over all groups take through a router.
 */
import type { Random } from "../../../src/runtime/random.ts";
import { CodeMeans } from "./code-means.ts";
import { type Code, type CodeHost, CodeTable, groupingMetric, type VectorSource } from "./code-table.ts";
import { lloyd, type NearestFinder, shuffleFront, spaceOf } from "./lloyd.ts";
import { SLICE_GROUPS, SLICE_VECTORS, type Steps, within } from "./steps.ts";
import { TopList } from "./top-list.ts";

export interface TreeOptions {
  readonly groups: number;
  /** Of k-means, for each part. */
  readonly rounds: number;
  readonly random: Random;
}

/** Parts that a part is split into. */
const BRANCHES = 16;
/** Parts of a level whose children are looked at. */
const BEAM = 8;
/** Vectors, a branch, that a split into parts looks at; into groups it looks at all. */
const SPLIT_SAMPLE = 64;
/** Rounds over all groups after the tree, which even out the borders between its parts. */
const POLISH_ROUNDS = 2;
/** Members of a part against the mean of its siblings: else the parts below one crowd would have too many children. */
const MOST_SHARE = 1.5;
const TREE_SHARE = 0.4;

/** A part of the sample, and how many groups it is to become. */
interface Part {
  readonly members: Int32Array;
  readonly groups: number;
}

/** Centroids of one level; children of number i of the level above: `[starts[i], starts[i + 1])`. */
interface TreeLevel {
  readonly table: CodeTable;
  readonly starts: Int32Array;
}

export class CentroidTree implements NearestFinder {
  readonly #levels: readonly TreeLevel[];
  readonly #beam: TopList = new TopList(BEAM);

  constructor(levels: readonly TreeLevel[]) {
    this.#levels = levels;
  }

  /** Of the groups. Belongs to the tree. */
  get centroids(): CodeTable {
    return (this.#levels.at(-1) as TreeLevel).table;
  }

  nearest(query: Code, top: TopList): void {
    let from: ArrayLike<number> = [0];
    let count = 1;
    for (const [depth, { table, starts }] of this.#levels.entries()) {
      const into = depth === this.#levels.length - 1 ? top : this.#beam;
      table.nearestOf(query, from, count, starts, into);
      from = into === top ? from : into.ids.slice(0, into.count);
      count = into.count;
    }
  }

  close(): void {
    for (const { table } of this.#levels) table.close();
  }
}

/** @param sample Numbers of the vectors to group, at least as many as groups. */
export function* treeMeans(
  host: CodeHost,
  source: VectorSource,
  sample: Int32Array,
  options: TreeOptions,
): Steps<CentroidTree> {
  const levels: TreeLevel[] = [];
  let whole = false;
  try {
    let parts: Part[] = [{ members: sample.slice(), groups: options.groups }];
    const depth = Math.max(1, Math.ceil(Math.log(options.groups) / Math.log(BRANCHES) - 1e-9));
    for (let level = 0; level < depth; level++) {
      const [from, to] = [(TREE_SHARE * level) / depth, (TREE_SHARE * (level + 1)) / depth];
      const split = yield* within(splitParts(host, source, parts, depth - level, options), from, to);
      levels.push(split.level);
      parts = split.parts;
    }
    const tree = new CentroidTree(levels);
    yield* within(polish(source, sample, tree), TREE_SHARE, 1);
    whole = true;
    return tree;
  } finally {
    if (!whole) for (const { table } of levels) table.close();
  }
}

/** Every part into its children. @param depth Levels that there are to be from here on, this one included. */
function* splitParts(
  host: CodeHost,
  source: VectorSource,
  parts: readonly Part[],
  depth: number,
  options: TreeOptions,
): Steps<{ level: TreeLevel; parts: Part[] }> {
  // So many at most that the children have no more groups than the levels below have room for.
  const wanted = parts.map(({ groups }) => (depth === 1 ? groups : Math.ceil(groups / BRANCHES ** (depth - 1))));
  const starts = new Int32Array(parts.length + 1);
  for (const [at, count] of wanted.entries()) starts[at + 1] = (starts[at] as number) + count;
  const space = { ...spaceOf(source), metric: groupingMetric(source.metric) };
  const table = new CodeTable(host, space, starts[parts.length] as number);
  const children: Part[] = [];
  let whole = false;
  try {
    for (const [at, part] of parts.entries()) {
      const count = wanted[at] as number;
      const centres = yield* within(
        centresOf(host, source, part, count, depth === 1, options),
        at / parts.length,
        (at + 0.5) / parts.length,
      );
      try {
        for (let child = 0; child < count; child++) table.set((starts[at] as number) + child, centres.vector(child));
        if (depth > 1)
          children.push(
            ...(yield* within(divide(source, part, centres), (at + 0.5) / parts.length, (at + 1) / parts.length)),
          );
      } finally {
        centres.close();
      }
    }
    whole = true;
    return { level: { table, starts }, parts: children };
  } finally {
    if (!whole) table.close();
  }
}

function* centresOf(
  host: CodeHost,
  source: VectorSource,
  { members }: Part,
  count: number,
  isLast: boolean,
  { rounds, random }: TreeOptions,
): Steps<CodeTable> {
  const size = isLast ? members.length : Math.min(members.length, SPLIT_SAMPLE * count);
  shuffleFront(members, size, random);
  return yield* lloyd(host, source, members.subarray(0, size), { groups: count, rounds, random });
}

/** The members of a part to the nearest of its children that has room, and to each of these as many groups as it has members for. */
function* divide(source: VectorSource, { members, groups }: Part, centres: CodeTable): Steps<Part[]> {
  const lists: number[][] = Array.from({ length: centres.count }, () => []);
  const top = new TopList(centres.count);
  const capacity = Math.ceil((MOST_SHARE * members.length) / centres.count);
  for (const [at, member] of members.entries()) {
    if (at % SLICE_VECTORS === 0) yield at / members.length;
    centres.nearest(source.vector(member), top);
    const nearest = top.ids.find((child) => (lists[child] as number[]).length < capacity) as number;
    lists[nearest]?.push(member);
  }
  fillEmptyLists(lists);
  const shares = sharesOf(
    lists.map((list) => list.length),
    groups,
  );
  return lists.map((list, at) => ({ members: Int32Array.from(list), groups: shares[at] as number }));
}

function fillEmptyLists(lists: number[][]): void {
  for (const list of lists) {
    if (list.length > 0) continue;
    const largest = lists.reduce((most, other) => (other.length > most.length ? other : most));
    list.push(largest.pop() as number);
  }
}

/** So many of `groups` to each, at least one and no more than it has members, in proportion. */
function sharesOf(sizes: readonly number[], groups: number): number[] {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const shares = sizes.map((size) => Math.min(size, Math.max(1, Math.floor((size * groups) / total))));
  let left = groups - shares.reduce((sum, share) => sum + share, 0);
  const per = (at: number): number => (sizes[at] as number) / (shares[at] as number);
  const order = [...sizes.keys()];
  for (; left !== 0; left -= Math.sign(left)) {
    const fit = order.filter((at) => (left > 0 ? per(at) > 1 : (shares[at] as number) > 1));
    const at = fit.reduce((best, other) => ((per(other) - per(best)) * left > 0 ? other : best), fit[0] as number);
    shares[at] = (shares[at] as number) + Math.sign(left);
  }
  return shares;
}

/** Rounds of Lloyd over all groups, by look-ups from the top. A group that nobody chooses stays where it is. */
function* polish(source: VectorSource, sample: Int32Array, tree: CentroidTree): Steps<void> {
  const { centroids } = tree;
  const means = new CodeMeans(spaceOf(centroids), centroids.count);
  const top = new TopList(1);
  for (let round = 0; round < POLISH_ROUNDS; round++) {
    means.clear();
    for (const [at, number] of sample.entries()) {
      if (at % SLICE_VECTORS === 0) yield (round + (0.95 * at) / sample.length) / POLISH_ROUNDS;
      const code = source.vector(number);
      tree.nearest(code, top);
      means.add(top.ids[0] as number, code);
    }
    for (let group = 0; group < centroids.count; group++) {
      if (group % SLICE_GROUPS === 0) yield (round + 0.95 + (0.05 * group) / centroids.count) / POLISH_ROUNDS;
      if (means.count(group) > 0) centroids.set(group, means.mean(group));
    }
  }
}
