/**
 * PageRank by several sides over one graph: what each is given, what it must give back, and the loop that all are held against.
 *
 * Every run makes exactly `iterations` iterations from equal ranks, and must give the ranks of the plain loop within a relative 1e-9.
 */
import { type Csr, createRmat, type EdgeColumns, toCsr } from "./graph-data.ts";

/** What every side computes. */
export interface PageRankInput {
  /** Of the graph. */
  readonly name: string;
  readonly graph: EdgeColumns;
  /** The graph by source: where edges lead to. */
  readonly out: Csr;
  readonly damping: number;
  readonly iterations: number;
  /** `Float64Array[vertices]`: the ranks after the last iteration, by the plain loop. */
  readonly expected: Float64Array;
  /** `changes[i]`: sum of the absolute differences that iteration `i + 1` made. */
  readonly changes: Float64Array;
}

/** One way to compute it. Loading the graph is over when it is opened. */
export interface PageRankSide {
  /** Runs all iterations once. @returns Nanoseconds of the whole run */
  run(): Promise<number> | number;
  /** Whether the last run gave the expected ranks. */
  isRight(): boolean;
  close?(): Promise<void> | void;
}

/** Opens a side; undefined, with a reason logged, where it cannot run. */
export type OpenPageRankSide = (
  input: PageRankInput,
  log: (line: string) => void,
) => Promise<PageRankSide | undefined> | PageRankSide | undefined;

const DAMPING = 0.85;
const TOLERANCE = 1e-9;

/** Makes the input: an R-MAT graph, and its ranks by the plain loop. */
export function pageRankInput(scale: number, seed: number, iterations: number): PageRankInput {
  return pageRankInputOf(`rmat${scale}`, createRmat({ scale, seed }), iterations);
}

/** The same of any graph. */
export function pageRankInputOf(name: string, graph: EdgeColumns, iterations: number): PageRankInput {
  const out = toCsr(graph);
  return { name, graph, out, damping: DAMPING, iterations, ...plainPageRank(out, DAMPING, iterations) };
}

/** The definition of LDBC Graphalytics as one loop over edges. */
export function plainPageRank(
  { vertices, offsets, targets }: Csr,
  damping: number,
  iterations: number,
): { expected: Float64Array; changes: Float64Array } {
  let ranks = new Float64Array(vertices).fill(1 / vertices);
  let next = new Float64Array(vertices);
  const changes = new Float64Array(iterations);
  for (let iteration = 0; iteration < iterations; iteration++) {
    let dangling = 0;
    for (let v = 0; v < vertices; v++) if (offsets[v] === offsets[v + 1]) dangling += ranks[v] as number;
    next.fill((1 - damping) / vertices + (damping * dangling) / vertices);
    for (let v = 0; v < vertices; v++) {
      const end = offsets[v + 1] as number;
      const start = offsets[v] as number;
      const share = (damping * (ranks[v] as number)) / (end - start);
      for (let e = start; e < end; e++) {
        const target = targets[e] as number;
        next[target] = (next[target] as number) + share;
      }
    }
    let change = 0;
    for (let v = 0; v < vertices; v++) change += Math.abs((next[v] as number) - (ranks[v] as number));
    changes[iteration] = change;
    [ranks, next] = [next, ranks];
  }
  return { expected: ranks, changes };
}

/** Whether ranks, by vertex, are those expected. */
export function areRanks({ expected }: PageRankInput, rankOf: (vertex: number) => number): boolean {
  return expected.every((rank, vertex) => Math.abs(rankOf(vertex) - rank) <= TOLERANCE * rank);
}
