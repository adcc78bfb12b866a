/**
 * G7, G9 and G17, and with vector-search-routed.ts and vector-search-down.ts G10, G11 and G18, part `routing` of bench `vector-search`: which shards and leaves queries are sent to, told by counters alone.
 *
 * Leaves are packed on 16 shards; each shard describes its own, and the tables together are the router (Compass). A recall ceiling is the
 * share of the true neighbours that lie in the visited shards, whatever is searched there. Leaves and calibration are those that a collection's
 * trainer would make: as many samples, rounds and training vectors, whose neighbours a scan finds rather than the graph.
 * Against it: shards ranked by one centroid each, over the same placement and over shards that are balanced k-means clusters, and a fixed
 * number of leaves for every query. All at equal recall, by interpolation.
 */
import { CodeMeans } from "../../actors/vector/routing/code-means.ts";
import { CodeTable } from "../../actors/vector/routing/code-table.ts";
import type { Compass } from "../../actors/vector/routing/compass.ts";
import { clusterLeaves } from "../../actors/vector/routing/leaf-clustering.ts";
import { runSteps } from "../../actors/vector/routing/steps.ts";
import { TopList } from "../../actors/vector/routing/top-list.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, toRow } from "../harness/harness.ts";
import { costAt, must, type PartReport } from "./vector-search-curve.ts";
import { K, type VectorSet } from "./vector-search-data.ts";
import { measureDown } from "./vector-search-down.ts";
import { type Placement, placeVectors } from "./vector-search-placement.ts";
import { measureLevels, measureRouted } from "./vector-search-routed.ts";
import { describeShards, startCompass, type Tables } from "./vector-search-tables.ts";

const SHARDS = 16;
const TARGETS: readonly number[] = [0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999];
/** Targets that achieved recalls are held against. */
const HELD: readonly number[] = [0.9, 0.95, 0.99];
const MOST_TABLE_SHARE = 0.01;
const BALANCE = 1.05;
/** Leaves that the fixed side visits at most. */
const MOST_LEAVES = 128;

/** What one way costs at one recall. */
interface Visit {
  readonly recall: number;
  readonly cost: number;
}

interface Routed {
  readonly target: number;
  readonly shards: Visit;
  readonly leaves: Visit;
  /** Distances to choose shards, and leaves. */
  readonly computed: readonly [number, number];
  /** Share of the queries whose shards or leaves were not chosen adaptively, as calibration had too few vectors for the target. */
  readonly others: number;
}

/** Shards and leaves that Compass chooses for a target, over all queries. */
function route(compass: Compass, { merged, leafOf }: Tables, place: Placement, set: VectorSet, target: number): Routed {
  const { queries } = place;
  const sums = { shards: 0, held: 0, read: 0, found: 0, forShards: 0, forLeaves: 0, others: 0 };
  for (let query = 0; query < queries.count; query++) {
    const options = { k: K, recallTarget: target };
    const plan = compass.selectShards(queries.vector(query), options);
    const leafPlan = compass.selectLeaves(queries.vector(query), options);
    if (plan.rule !== "adaptive" || leafPlan.rule !== "adaptive") sums.others++;
    const shards = new Set(plan.shards.map(({ shard }) => shard));
    const leaves = new Set(leafPlan.leaves);
    sums.shards += shards.size;
    sums.forShards += plan.computed;
    sums.forLeaves += leafPlan.computed;
    for (const leaf of leaves) sums.read += merged.counts[leaf] as number;
    for (const row of set.truth.subarray(query * K, (query + 1) * K)) {
      const leaf = leafOf[row] as number;
      if (leaves.has(leaf)) sums.found++;
      if (shards.has(merged.shardOf[leaf] as number)) sums.held++;
    }
  }
  const neighbours = queries.count * K;
  return {
    target,
    shards: { recall: sums.held / neighbours, cost: sums.shards / queries.count },
    leaves: { recall: sums.found / neighbours, cost: sums.read / queries.count },
    computed: [sums.forShards / queries.count, sums.forLeaves / queries.count],
    others: sums.others / queries.count,
  };
}

/** What visiting the nearest groups costs, for every number of them: cost is the number, or the vectors in them. */
function nearestFirst(
  centroids: CodeTable,
  { queries }: Placement,
  set: VectorSet,
  groupOf: (row: number) => number,
  most: number,
  sizeOf: (group: number) => number,
): Visit[] {
  const top = new TopList(Math.min(most, centroids.count));
  const found = new Float64Array(top.limit);
  const cost = new Float64Array(top.limit);
  for (let query = 0; query < queries.count; query++) {
    centroids.nearest(queries.vector(query), top);
    for (const row of set.truth.subarray(query * K, (query + 1) * K)) {
      const rank = top.ids.indexOf(groupOf(row));
      if (rank >= 0) found[rank] = (found[rank] as number) + 1;
    }
    for (let rank = 0; rank < top.limit; rank++)
      cost[rank] = (cost[rank] as number) + sizeOf(top.ids[rank] as number) / queries.count;
  }
  let recall = 0;
  let sum = 0;
  return Array.from(found, (count, rank) => {
    recall += count / (queries.count * K);
    sum += cost[rank] as number;
    return { recall, cost: sum };
  });
}

/** Shards ranked by the mean of their vectors. */
function byOneCentroid(place: Placement, set: VectorSet, shardOf: (row: number) => number): Visit[] {
  const means = new CodeMeans(place.space, SHARDS);
  for (let row = 0; row < place.base.count; row++) means.add(shardOf(row), place.base.vector(row));
  const centroids = new CodeTable(place.host, place.space, SHARDS);
  for (let shard = 0; shard < SHARDS; shard++) centroids.set(shard, means.mean(shard));
  const visits = nearestFirst(centroids, place, set, shardOf, SHARDS, () => 1);
  centroids.close();
  return visits;
}

const costOf = (visits: readonly Visit[], recall: number): number => costAt(visits, recall, ({ cost }) => cost);

/** Rows and the verdicts on G7, G9, G11, G17 and G18. */
export async function measureRouting(context: BenchContext, set: VectorSet): Promise<PartReport> {
  const { mode, seed, goals, log } = context;
  const place = placeVectors(set, seed);
  const tables = describeShards(place, SHARDS);
  const { merged, leafOf } = tables;
  must(tables.share <= MOST_TABLE_SHARE || mode === "smoke", `tables take ${tables.share} of the data`);
  const compass = startCompass(place, tables);
  log("vector-search: compass calibrated");
  const routed = TARGETS.map((target) => route(compass, tables, place, set, target));
  const fixed = new CodeTable(place.host, place.space, merged.counts.length);
  const { dimensions } = place.space;
  for (let leaf = 0; leaf < fixed.count; leaf++)
    fixed.set(leaf, merged.codes.subarray(leaf * dimensions, (leaf + 1) * dimensions));
  const rowLeaf = (row: number): number => leafOf[row] as number;
  const probes = nearestFirst(fixed, place, set, rowLeaf, MOST_LEAVES, (leaf) => merged.counts[leaf] as number);
  const samePlacement = byOneCentroid(place, set, (row) => merged.shardOf[rowLeaf(row)] as number);
  const capacity = Math.ceil((BALANCE * place.base.count) / SHARDS);
  const balanced = runSteps(clusterLeaves(place.host, place.base, { leaves: SHARDS, seed, capacity }));
  const kMeans = byOneCentroid(place, set, (row) => balanced.leafOf[row] as number);
  compass.close();
  fixed.close();
  balanced.centroids.close();
  log("vector-search: routed");
  const searched = await measureRouted(context, set);
  const levels = await measureLevels(context, set);
  const down = await measureDown(context, set);

  const shardVisits = routed.map(({ shards }) => shards);
  const held = routed.filter(({ target }) => HELD.includes(target));
  const errors = held.map(({ target, leaves }) => 100 * (leaves.recall - target));
  const reads = held.map(({ leaves }) => leaves.cost / costOf(probes, leaves.recall));
  const [same, other] = [samePlacement, kMeans].map((visits) => costOf(visits, 0.99)) as [number, number];
  const shared = costOf(shardVisits, 0.99);
  const list = (values: readonly number[], digits: number): string =>
    values.map((value) => value.toFixed(digits)).join(", ");
  return {
    rows: [
      ...routed.flatMap(({ target, shards, leaves, computed, others }) => [
        toRow(
          `target ${target}`,
          "compass",
          `shards of ${SHARDS}`,
          [shards.cost],
          `ceiling ${shards.recall.toFixed(4)}, ${computed[0].toFixed(0)} distances`,
        ),
        toRow(
          `target ${target}`,
          "leaves",
          "vectors read",
          [leaves.cost],
          `recall ${leaves.recall.toFixed(4)}, ${computed[1].toFixed(0)} distances${others > 0 ? `, ${(100 * others).toFixed(0)} % not adaptive` : ""}`,
        ),
      ]),
      toRow("ceiling 0.99", "one centroid a shard", `shards of ${SHARDS}`, [same], "same placement"),
      toRow("ceiling 0.99", "one centroid a shard, k-means shards", `shards of ${SHARDS}`, [other]),
      ...searched.rows,
      ...levels.rows,
      ...down.rows,
    ],
    goals: [
      judge(goals, "G7", shared),
      judge(goals, "G7b", costOf(shardVisits, 0.999)),
      judge(
        goals,
        "G9",
        Math.min(same, other) / shared,
        `of the better of two ways without; tables are ${(100 * tables.share).toFixed(2)} % of the data`,
      ),
      ...searched.goals,
      ...levels.goals,
      judge(goals, "G17", Math.max(...errors.map(Math.abs)), `achieved less target: ${list(errors, 2)}`),
      judge(goals, "G17b", Math.max(...reads), `at ${HELD.join(", ")}: ${list(reads, 3)}`),
      ...down.goals,
    ],
    notes: [
      `routing: ${merged.counts.length} leaves; calibrated on vectors of the base; routing's own distances are in the rows, not in vectors read`,
      ...searched.notes,
      ...levels.notes,
      ...down.notes,
    ],
    curves: [...searched.curves, levels.curve],
  };
}
