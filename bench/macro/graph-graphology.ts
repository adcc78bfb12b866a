/**
 * PageRank by graphology-metrics: as anybody would call it, which is one call with the index of the graph that it makes each time; and its
 * iterations alone, as the index takes longer than they do: the difference of two calls, one with many more of them.
 *
 * It has no option for a number of iterations; it stops after the first that changes less than a tolerance. The tolerance is therefore put
 * between the change that the last wanted iteration makes and that of the one before, so that it stops exactly there, having succeeded.
 */
import { MultiDirectedGraph } from "graphology";
import pagerankModule from "graphology-metrics/centrality/pagerank.js";
import { areRanks, type PageRankInput, type PageRankSide } from "./graph-page-rank.ts";

interface PageRankOptions {
  readonly alpha: number;
  readonly maxIterations: number;
  /** Mean change of a vertex below which it stops. */
  readonly tolerance: number;
  readonly getEdgeWeight: null;
}

// Its types are those of an ES module, but Node gives what module.exports is.
const pagerank = pagerankModule as unknown as (
  graph: MultiDirectedGraph,
  options: PageRankOptions,
) => Record<string, number>;

/** Iterations that one call makes more than the other, where the iterations alone are measured. */
const MORE_ITERATIONS = 100;

/** One whole call. */
export function openGraphology(input: PageRankInput): PageRankSide {
  const { damping, iterations, changes } = input;
  const graph = graphOf(input);
  const tolerance = toleranceBetween(changes, iterations) / graph.order;
  let ranks: Record<string, number> = {};
  return {
    run: () => {
      const startedMs = performance.now();
      ranks = pagerank(graph, { alpha: damping, maxIterations: iterations, tolerance, getEdgeWeight: null });
      return (performance.now() - startedMs) * 1e6;
    },
    isRight: () => areRanks(input, (vertex) => ranks[vertex] ?? Number.NaN),
  };
}

/** The iterations alone. A difference below 0, on a busy machine, counts as a nanosecond: that flatters graphology. */
export function openGraphologyLoop(input: PageRankInput): PageRankSide {
  const graph = graphOf(input);
  const timeOf = (maxIterations: number): number => {
    const startedMs = performance.now();
    try {
      // Nothing changes less than 0, so all iterations are made and the call ends in an error.
      pagerank(graph, { alpha: input.damping, maxIterations, tolerance: 0, getEdgeWeight: null });
    } catch (error) {
      if (/failed to converge/.test(String(error))) return (performance.now() - startedMs) * 1e6;
      throw error;
    }
    throw new Error("graphology converged on what cannot converge");
  };
  return {
    run: () => (Math.max(1, timeOf(1 + MORE_ITERATIONS) - timeOf(1)) * input.iterations) / MORE_ITERATIONS,
    isRight: () => {
      const call = openGraphology(input);
      void call.run();
      return call.isRight();
    },
  };
}

function graphOf({ graph: columns }: PageRankInput): MultiDirectedGraph {
  const graph = new MultiDirectedGraph();
  for (let vertex = 0; vertex < columns.vertices; vertex++) graph.addNode(vertex);
  for (const [edge, source] of columns.sources.entries()) graph.addEdge(source, columns.targets[edge]);
  return graph;
}

/** @throws if the last iteration does not change less than all before: then it would stop elsewhere */
function toleranceBetween(changes: Float64Array, iterations: number): number {
  const last = changes[iterations - 1] as number;
  const before = Math.min(...changes.subarray(0, iterations - 1));
  if (!(last < before)) throw new Error(`iteration ${iterations} changes ${last}, one before it ${before}`);
  return Math.sqrt(last * before);
}
