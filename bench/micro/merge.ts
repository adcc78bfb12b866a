/**
 * C2, a part of bench `gather`: merging 16 answers of 100 hits each into the first 10.
 *
 * Invariant: both sides give the same ten; every sample merges SETS different sets of lists, so that no branch is learnt by heart.
 * Baselines, like against like: the merge that finds newer versions behind the cut against concatenating, sorting by the same
 * total order and deduping by id and version; the merge that is told of disjoint ids against concatenating, sorting and cutting. The
 * goal takes the worst of the two and of two kinds of ids; the note says how the first compares with the barest baseline.
 */
import { compareRanked, mergeRanked, type Ranked } from "../../src/routing/merge.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { judge } from "../harness/goals.ts";
import { type BenchCase, type BenchContext, type BenchReport, interleave, ratioOf, sized } from "../harness/harness.ts";

const LISTS = 16;
const HITS = 100;
const K = 10;
const SETS = 16;
const SIDE = "shardloom";
const SORT = "concatenate and sort";
const DEDUPE = "concatenate, sort, dedupe";
const DISJOINT = "shardloom, disjoint";

type Lists = readonly (readonly Ranked[])[];

/** Lists with no id in two of them, as the shards of one collection give them. */
function makeSets(random: Random, strings: boolean): Lists[] {
  let next = 0;
  const hit = (): Ranked => {
    const number = next++ * 7919;
    // A flat string, as decoding a reply makes it: not one joined of two.
    const id = strings ? Buffer.from(`document-${number}`).toString("utf8") : number;
    return { id, score: random.float(), version: random.u32() % 1000 };
  };
  const list = (): Ranked[] => Array.from({ length: HITS }, hit).sort((a, b) => compareRanked(a, b));
  return Array.from({ length: SETS }, () => Array.from({ length: LISTS }, list));
}

function concatenate(lists: Lists): Ranked[] {
  const none: Ranked[] = [];
  return none.concat(...lists);
}

function concatenateAndSort(lists: Lists): Ranked[] {
  return concatenate(lists)
    .sort((a, b) => compareRanked(a, b))
    .slice(0, K);
}

function concatenateAndDedupe(lists: Lists): Ranked[] {
  const all = concatenate(lists).sort((a, b) => compareRanked(a, b));
  const best = new Map<string | number, Ranked>();
  for (const entry of all) {
    const other = best.get(entry.id);
    if (other === undefined || entry.version > other.version) best.set(entry.id, entry);
  }
  const merged: Ranked[] = [];
  for (const entry of all) {
    if (best.get(entry.id) === entry && merged.push(entry) === K) break;
  }
  return merged;
}

function mergeCase(name: string, side: string, sets: readonly Lists[], merge: (lists: Lists) => Ranked[]): BenchCase {
  return {
    name,
    side,
    unit: "us/merge",
    run: () => {
      const startedMs = performance.now();
      let hits = 0;
      for (const lists of sets) hits += merge(lists).length;
      const tookMs = performance.now() - startedMs;
      if (hits !== SETS * K) throw new Error(`merge bench: ${side} gave ${hits} hits, not ${SETS * K}`);
      return (tookMs * 1000) / SETS;
    },
    validate: () => {
      for (const lists of sets) {
        const wanted = concatenateAndDedupe(lists);
        if (merge(lists).some((entry, at) => entry !== wanted[at]))
          throw new Error(`merge bench: ${side} merged wrongly`);
      }
    },
  };
}

/** Rows and the verdict on C2. */
export async function measureMerge(context: BenchContext): Promise<BenchReport> {
  const random = createSeededRandom(context.seed);
  const kinds = ["number ids", "string ids"].map((kind) => `merge ${LISTS} x ${HITS} to ${K}, ${kind}`);
  const cases = kinds.flatMap((name, index) => {
    const sets = makeSets(random, index === 1);
    return [
      mergeCase(name, SIDE, sets, (lists) => mergeRanked(lists, K)),
      mergeCase(name, SORT, sets, concatenateAndSort),
      mergeCase(name, DEDUPE, sets, concatenateAndDedupe),
      mergeCase(name, DISJOINT, sets, (lists) => mergeRanked(lists, K, { disjoint: true })),
    ];
  });
  const rows = await interleave(cases, sized(context.mode, 5, 101, 501));
  const faster = (side: string, baseline: string): number =>
    Math.min(...kinds.map((name) => 1 / ratioOf(rows, name, side, baseline)));
  const worst = Math.min(faster(SIDE, DEDUPE), faster(DISJOINT, SORT));
  const note = `like against like; ${faster(SIDE, SORT).toFixed(1)} times faster than a baseline that does not dedupe`;
  return { rows, goals: [judge(context.goals, "C2", worst, note)], notes: [] };
}
