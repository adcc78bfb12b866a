/**
 * G10 and G11 of bench `vector-search`: searches by Compass of 8 shards, and by the multi-level index of 16, asked through the collection; the
 * searches' own accounts tell the codes that were read, those of the router and of all levels included, and the rounds.
 *
 * The recall target that goes best with Compass's searches is chosen on vectors of the base, which do not count as their own neighbours; queries only
 * measure. Curves of all strategies are of the same 8 shards.
 */
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchMode, type BenchReport, sized } from "../harness/harness.ts";
import { rowsOf } from "./vector-search-collaborate.ts";
import { type Curve, costAt, must, type PartReport, RECALL } from "./vector-search-curve.ts";
import type { VectorSet } from "./vector-search-data.ts";
import {
  type Asked,
  queriesOf,
  type Setting,
  type Sharded,
  searchAll,
  searchAlone,
  shardsOf,
  type Taken,
  trainingOf,
} from "./vector-search-shards.ts";

const SHARDS = 8;
const LEVEL_SHARDS = 16;
const TARGETS: readonly number[] = [0.98, 0.99, 0.995];
/** By mode: a smoke run has time for two. */
function spireSettings(mode: BenchMode): Setting[] {
  const targets = sized<readonly number[]>(
    mode,
    [0.9, 0.995],
    [0.9, 0.95, 0.98, 0.99, 0.995],
    [0.9, 0.95, 0.98, 0.99, 0.995],
  );
  return targets.map((recall): Setting => ({ by: "spire", recall }));
}

/** Distances a query at a recall, by interpolation. */
export function distancesOf(taken: readonly Taken[], recall: number = RECALL): number {
  return costAt(taken, recall, ({ distances }) => distances);
}

async function searchEach(site: Sharded, asked: Asked, settings: readonly Setting[]): Promise<Taken[]> {
  const taken: Taken[] = [];
  for (const setting of settings) taken.push(await searchAll(site, asked, setting));
  return taken;
}

/** Rows, curves and the verdict on G10. */
export async function measureRouted(context: BenchContext, set: VectorSet): Promise<PartReport> {
  const { mode, goals, log } = context;
  const efs = sized(mode, [18, 80], [18, 26, 38, 56], [18, 22, 28, 40, 56, 80]);
  const site = await shardsOf(context, set, SHARDS);
  const training = trainingOf(set, sized(mode, 40, 200, 1_000));
  const compass = (recall: number): Setting[] => efs.map((ef) => ({ by: "compass", ef, recall }));
  const targets = sized(mode, [0.999], TARGETS, TARGETS);
  const costs = new Map<number, number>();
  for (const target of targets) {
    const distances = distancesOf(await searchEach(site, training, compass(target)));
    costs.set(target, Number.isNaN(distances) ? Number.POSITIVE_INFINITY : distances);
  }
  const target = targets.reduce((a, b) => ((costs.get(b) as number) < (costs.get(a) as number) ? b : a));
  const asked = queriesOf(set);
  const routed = await searchEach(site, asked, compass(target));
  log("vector-search: searched by Compass");
  const spire = await searchEach(site, asked, spireSettings(context.mode));
  const scatter = await searchEach(site, asked, [{ by: "scatter" }]); // exact, so there are no settings
  const single = searchAlone(site, asked, sized(mode, [10, 80], [10, 14, 20, 30, 44], [10, 14, 20, 28, 40, 56]));
  log("vector-search: searched by SPIRE, by scatter and alone");
  return {
    rows: [routed, spire, scatter, single].flatMap((taken) => rowsOf(site.shards, taken)),
    goals: [judge(goals, "G10", distancesOf(routed) / distancesOf(single))],
    notes: [
      `routed: target ${target}, chosen on ${training.queries.count} vectors of the base; codes read include the router's and its entries`,
    ],
    curves: [
      { name: `one-sided, ${SHARDS} shards`, points: single },
      { name: `compass, ${SHARDS} shards`, points: routed },
      { name: `spire, ${SHARDS} shards`, points: spire },
      { name: `scatter, ${SHARDS} shards`, points: scatter.map(({ recall, qps }) => ({ recall, qps })) },
    ],
  };
}

/** Rows, curve and the verdict on G11. */
export async function measureLevels(
  context: BenchContext,
  set: VectorSet,
): Promise<BenchReport & { readonly curve: Curve }> {
  const { goals } = context;
  const site = await shardsOf(context, set, LEVEL_SHARDS, true);
  const taken = await searchEach(site, queriesOf(set), spireSettings(context.mode));
  must(
    taken.every(({ distances }) => distances > 0),
    "searches by levels read nothing",
  );
  const rounds = Math.max(...taken.map((one) => one.rounds));
  const read = (100 * distancesOf(taken)) / set.base.count;
  return {
    rows: rowsOf(site.shards, taken),
    goals: [judge(goals, "G11", rounds <= 2 ? read : Number.NaN, `${rounds} dependent rounds at most`)],
    notes: ["levels: codes read are those of all levels, the highest too, as shards told them"],
    curve: { name: `spire by levels, ${LEVEL_SHARDS} shards`, points: taken },
  };
}
