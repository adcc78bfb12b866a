/**
 * G10 of bench `vector-search`: searches of graphs of shards, in those shards alone that Compass chooses, told by counters.
 *
 * Each of 8 shards has a graph of its own over the leaves that were packed on it. A query searches the shard with the highest share with `ef`
 * candidates, the others with half as many, from the medoids of the leaves that the plan names. The recall target that goes best with these
 * searches is chosen on vectors of the base, which do not count as their own neighbours; queries only measure.
 * Computations include those of the router.
 */
import type { Compass } from "../../actors/vector/routing/compass.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, sized, toRow } from "../harness/harness.ts";
import { countFound, type PartReport, RECALL } from "./vector-search-curve.ts";
import { exactNearest, K, type VectorSet, Vectors } from "./vector-search-data.ts";
import { type Counted, distancesAt, searchedDirectly } from "./vector-search-direct.ts";
import { buildGraph, PlainSearch } from "./vector-search-graph.ts";
import { graphOf, type Placement } from "./vector-search-placement.ts";
import { describeShards, startCompass, type Tables } from "./vector-search-tables.ts";

const SHARDS = 8;
const TARGETS: readonly number[] = [0.98, 0.99, 0.995, 0.998];
/** Leaves of a shard whose medoids a search begins at. */
const ENTRIES = 2;

interface Shard {
  readonly search: PlainSearch;
  /** Vertex of each row that the shard has. */
  readonly vertexOf: ReadonlyMap<number, number>;
}

/** Queries and their true neighbours. */
interface Asked {
  readonly count: number;
  readonly codeOf: (query: number) => Uint8Array | Float32Array;
  readonly truth: Int32Array;
  /** Row of the query itself, or −1. */
  readonly ownOf: (query: number) => number;
}

class Routed {
  readonly #compass: Compass;
  readonly #tables: Tables;
  readonly #shards: readonly Shard[];

  constructor(compass: Compass, tables: Tables, shards: readonly Shard[]) {
    this.#compass = compass;
    this.#tables = tables;
    this.#shards = shards;
  }

  /** What searches with a target took, for each setting. */
  curve(asked: Asked, target: number, efs: readonly number[]): Counted[] {
    return efs.map((ef) => {
      let found = 0;
      let computed = 0;
      for (let query = 0; query < asked.count; query++) {
        const result = this.#search(asked.codeOf(query), asked.ownOf(query), target, ef);
        found += countFound(asked.truth, query, result.rows);
        computed += result.computed;
      }
      return { ef, recall: found / (asked.count * K), distances: computed / asked.count };
    });
  }

  #search(
    code: Uint8Array | Float32Array,
    own: number,
    target: number,
    ef: number,
  ): { rows: number[]; computed: number } {
    const plan = this.#compass.selectShards(code, { k: K, recallTarget: target });
    const all: { row: number; distance: number }[] = [];
    let { computed } = plan;
    for (const [at, { shard, leaves }] of plan.shards.entries()) {
      const { search, vertexOf } = this.#shards[shard] as Shard;
      const entries = [...leaves.subarray(0, ENTRIES)].flatMap((leaf) => {
        const vertex = vertexOf.get(this.#tables.merged.medoids[leaf] as number);
        return vertex === undefined ? [] : [vertex];
      });
      const result = search.search(code, at === 0 ? ef : Math.max(1, Math.ceil(ef / 2)), entries);
      computed += result.computed;
      for (const [hit, row] of result.rows.entries())
        if (row !== own) all.push({ row, distance: result.distances[hit] as number });
    }
    all.sort((a, b) => a.distance - b.distance || a.row - b.row);
    return { rows: all.slice(0, K).map(({ row }) => row), computed };
  }
}

/** Rows, curves and the verdict on G10. */
export async function measureRouted(context: BenchContext, set: VectorSet, place: Placement): Promise<PartReport> {
  const { mode, seed, goals, log } = context;
  const efs = sized(mode, [10, 24], [12, 18, 26, 38, 56], [10, 14, 20, 28, 40, 56]);
  const tables = describeShards(place, SHARDS);
  const compass = startCompass(place, tables, mode);
  const shards: Shard[] = [];
  for (let shard = 0; shard < SHARDS; shard++) {
    const all = Int32Array.from({ length: set.base.count }, (_, row) => row);
    const rows = all.filter((row) => tables.merged.shardOf[tables.leafOf[row] as number] === shard);
    const graph = await buildGraph(place.table, rows, seed);
    const vertexOf = new Map(Array.from(rows, (row, vertex) => [row, vertex]));
    shards.push({ search: new PlainSearch(graph, place.table), vertexOf });
  }
  log("vector-search: graphs of shards built");
  const routed = new Routed(compass, tables, shards);
  const training = trainingOf(set, place, sized(mode, 40, 300, 1_000));
  const cost = (target: number): number => {
    const distances = distancesAt(routed.curve(training, target, efs), RECALL);
    return Number.isNaN(distances) ? Number.POSITIVE_INFINITY : distances;
  };
  const costs = TARGETS.map((target) => ({ target, cost: cost(target) }));
  const { target } = costs.reduce((a, b) => (b.cost < a.cost ? b : a));
  const count = set.queries.count;
  const asked = { count, codeOf: (query: number) => place.queries.vector(query), truth: set.truth, ownOf: () => -1 };
  const curve = routed.curve(asked, target, efs);
  const order = Array.from({ length: count }, (_, query) => query);
  const single = searchedDirectly([await graphOf(place)], place, set, efs, order);
  compass.close();
  return {
    rows: curve.map(({ ef, recall, distances }) =>
      toRow(`routed ef ${ef}`, `${SHARDS} shards`, "distances/query", [distances], `recall ${recall.toFixed(4)}`),
    ),
    goals: [judge(goals, "G10", distancesAt(curve, RECALL) / distancesAt(single, RECALL))],
    notes: [
      `routed: target ${target}, chosen on ${training.count} vectors of the base; computations include the router's`,
    ],
    curves: [{ name: `compass, ${SHARDS} shards`, points: curve }],
  };
}

/** Vectors of the base that k-means did not look at, if there are any, as queries. */
function trainingOf({ base, bytes }: VectorSet, { clustering, base: codes }: Placement, wanted: number): Asked {
  const seen = new Set(clustering.sample);
  const all = Array.from({ length: base.count }, (_, row) => row);
  const unseen = all.filter((row) => !seen.has(row));
  const pool = unseen.length >= wanted ? unseen : all;
  const step = Math.floor(pool.length / wanted);
  const rows = Array.from({ length: wanted }, (_, at) => pool[at * step] as number);
  const values = new Float32Array(wanted * base.dimensions);
  for (const [at, row] of rows.entries()) values.set(base.at(row), at * base.dimensions);
  const ownOf = (query: number): number => rows[query] as number;
  const truth = exactNearest(base, new Vectors(values, base.dimensions), bytes, K, ownOf);
  return { count: wanted, codeOf: (query) => codes.vector(ownOf(query)), truth, ownOf };
}
