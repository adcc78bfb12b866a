/** Searches of bench `vector-search` that go through one graph, or through one of each shard, in this thread; counted. */
import { costAt, countFound, type Point, RECALL } from "./vector-search-curve.ts";
import { K, type VectorSet } from "./vector-search-data.ts";
import { type PlainGraph, PlainSearch } from "./vector-search-graph.ts";
import type { Placement } from "./vector-search-placement.ts";

/** What a search with one setting took. */
export interface Counted extends Point {
  readonly ef: number;
  readonly distances: number;
}

/** Curve of one search a query in each of some graphs, from one entry of each or from all, whichever is cheaper. */
export function searchedDirectly(
  graphs: readonly PlainGraph[],
  { table, queries }: Placement,
  set: VectorSet,
  efs: readonly number[],
  order: readonly number[],
): Counted[] {
  const curves = [1, Number.POSITIVE_INFINITY].map((entries) => {
    const searches = graphs.map((graph) => ({
      search: new PlainSearch(graph, table),
      from: graph.entries.slice(0, entries),
    }));
    return efs.map((ef): Counted => {
      let found = 0;
      let computed = 0;
      for (const query of order) {
        const results = searches.map(({ search, from }) => search.search(queries.vector(query), ef, from));
        const all = results.flatMap(({ rows, distances }) =>
          Array.from(rows.subarray(0, K), (row, at) => ({ row, distance: distances[at] as number })),
        );
        all.sort((a, b) => a.distance - b.distance || a.row - b.row);
        found += countFound(
          set.truth,
          query,
          all.slice(0, K).map(({ row }) => row),
        );
        for (const result of results) computed += result.computed;
      }
      return { ef, recall: found / (order.length * K), distances: computed / order.length };
    });
  });
  const cost = (curve: readonly Counted[]): number => distancesAt(curve, RECALL);
  return curves.reduce((a, b) => (cost(b) < cost(a) ? b : a));
}

/** Distances at a recall, by interpolation. */
export function distancesAt(points: readonly Counted[], recall: number): number {
  return costAt(points, recall, ({ distances }) => distances);
}
