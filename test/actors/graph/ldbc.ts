/**
 * The two example graphs of LDBC Graphalytics with all expected outputs, written down, so that they are tested everywhere; the other
 * twelve where the data folder is. Source: LDBC Graphalytics, Apache-2.0.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { VertexKey } from "../../../actors/graph/vertex-key.ts";
import { openGraphFile } from "../../../src/files/graph-file.ts";
import {
  byKey,
  type ReferenceGraph,
  referenceBfs,
  referenceCdlp,
  referenceGraph,
  referenceLcc,
  referencePageRank,
  referenceSssp,
  referenceWcc,
  type WeightedEdge,
} from "../../../src/sim/workloads/graph-reference.ts";
import { ALGORITHMS, type Algorithm, parseOutput } from "./expected-output.ts";

/** Parameters of the algorithms; those that a graph is not for are undefined. */
export interface LdbcParameters {
  readonly source: number | undefined;
  readonly damping: number | undefined;
  readonly iterations: number | undefined;
  readonly cdlpIterations: number | undefined;
}

/** A graph with what the algorithms give on it. */
export interface LdbcGraph extends LdbcParameters {
  readonly name: string;
  readonly directed: boolean;
  readonly vertices: readonly VertexKey[];
  readonly edges: readonly WeightedEdge[];
  readonly expected: ReadonlyMap<Algorithm, ReadonlyMap<VertexKey, number>>;
}

/** Where the data folder is. */
export const GRAPHS: string = join(process.env["SHARDLOOM_DATA"] ?? "../shared/data", "graphs");
export const HAS_GRAPHS: boolean = existsSync(GRAPHS);

/** Names of the graphs in the data folder. */
export function ldbcNames(): string[] {
  if (!HAS_GRAPHS) return [];
  return readdirSync(GRAPHS)
    .filter((name) => name.endsWith(".properties"))
    .map((name) => name.slice(0, -".properties".length));
}

/** Reads a graph of the data folder with the readers of the package. */
export async function readLdbc(name: string): Promise<LdbcGraph> {
  const file = await openGraphFile(join(GRAPHS, `${name}.properties`));
  const vertices: VertexKey[] = [];
  const edges: WeightedEdge[] = [];
  for await (const { keys } of file.vertices()) vertices.push(...keys);
  for await (const { sources, targets, weights } of file.edges()) {
    for (const [index, source] of sources.entries())
      edges.push([source, targets[index] as VertexKey, weights?.[index]]);
  }
  const number = (key: string): number | undefined => {
    const text = file.properties.get(key);
    return text === undefined ? undefined : Number(text);
  };
  const expected = new Map<Algorithm, Map<VertexKey, number>>();
  for (const algorithm of ALGORITHMS) {
    const path = join(GRAPHS, `${name}-${algorithm}`);
    if (existsSync(path)) expected.set(algorithm, parseOutput(readFileSync(path, "utf8")));
  }
  return {
    name,
    directed: file.directed === true,
    vertices,
    edges,
    source: number("bfs.source-vertex") ?? number("sssp.source-vertex"),
    damping: number("pr.damping-factor"),
    iterations: number("pr.num-iterations"),
    cdlpIterations: number("cdlp.max-iterations"),
    expected,
  };
}

/** What our reference gives for an algorithm on a graph. */
export function referenceOutput(algorithm: Algorithm, ldbc: LdbcGraph): ReadonlyMap<VertexKey, VertexKey> {
  const graph: ReferenceGraph = referenceGraph(ldbc.vertices, ldbc.edges, ldbc.directed);
  return byKey<VertexKey>(graph, valuesOf(algorithm, graph, ldbc));
}

function valuesOf(
  algorithm: Algorithm,
  graph: ReferenceGraph,
  { source, damping, iterations, cdlpIterations }: LdbcParameters,
): VertexKey[] {
  switch (algorithm) {
    case "BFS":
      return referenceBfs(graph, needed(source));
    case "CDLP":
      return referenceCdlp(graph, needed(cdlpIterations));
    case "LCC":
      return referenceLcc(graph);
    case "PR":
      return referencePageRank(graph, needed(damping), needed(iterations));
    case "SSSP":
      return referenceSssp(graph, needed(source));
    case "WCC":
      return referenceWcc(graph);
  }
}

function needed(value: number | undefined): number {
  if (value === undefined) throw new Error("the graph does not say a parameter");
  return value;
}

function written(
  name: string,
  directed: boolean,
  source: number,
  vertices: string,
  edges: string,
  outputs: Record<Algorithm, string>,
): LdbcGraph {
  return {
    name,
    directed,
    vertices: vertices.split(" ").map(Number),
    edges: edges.split("\n").map((line) => line.split(" ").map(Number) as unknown as WeightedEdge),
    source,
    damping: 0.85,
    iterations: 2,
    cdlpIterations: 2,
    expected: new Map(ALGORITHMS.map((algorithm) => [algorithm, parseOutput(outputs[algorithm])])),
  };
}

/** LDBC's two examples: every algorithm, with weights. */
export const EXAMPLES: readonly LdbcGraph[] = [
  written(
    "example-directed",
    true,
    1,
    "1 2 3 4 5 6 7 8 9 10",
    `1 3 0.5
1 5 0.3
2 4 0.1
2 5 0.3
2 10 0.12
3 1 0.53
3 5 0.62
3 8 0.21
3 10 0.52
5 3 0.69
5 4 0.53
5 8 0.1
6 3 0.23
6 4 0.39
7 4 0.83
8 1 0.39
9 4 0.69`,
    {
      BFS: `1 0
2 9223372036854775807
3 1
4 2
5 1
6 9223372036854775807
7 9223372036854775807
8 2
9 9223372036854775807
10 2`,
      CDLP: `1 1
2 2
3 3
4 4
5 1
6 1
7 2
8 3
9 2
10 1`,
      LCC: `1 6.666666666666666e-01
2 1.666666666666667e-01
3 1.500000000000000e-01
4 5.000000000000000e-02
5 2.500000000000000e-01
6 0.000000000000000e+00
7 0.000000000000000e+00
8 8.333333333333334e-01
9 0.000000000000000e+00
10 0.000000000000000e+00`,
      PR: `1 1.477629166666667e-01
2 4.753375000000000e-02
3 1.550469444444444e-01
4 1.597573611111111e-01
5 1.462400000000000e-01
6 4.753375000000000e-02
7 4.753375000000000e-02
8 1.135740277777778e-01
9 4.753375000000000e-02
10 8.748375000000001e-02`,
      SSSP: `1 0.000000000000000e+00
2 infinity
3 5.000000000000000e-01
4 8.300000000000001e-01
5 3.000000000000000e-01
6 infinity
7 infinity
8 4.000000000000000e-01
9 infinity
10 1.020000000000000e+00`,
      WCC: `1 1
2 1
3 1
4 1
5 1
6 1
7 1
8 1
9 1
10 1`,
    },
  ),
  written(
    "example-undirected",
    false,
    2,
    "2 3 4 5 6 7 8 9 10",
    `2 3 0.9
2 4 0.69
3 4 0.13
3 5 0.5
3 8 0.32
5 6 0.63
5 8 0.12
6 7 0.53
6 8 0.64
6 9 0.23
6 10 0.63
7 9 0.36`,
    {
      BFS: `2 0
3 1
4 1
5 2
6 3
7 4
8 2
9 4
10 4`,
      CDLP: `2 2
3 3
4 2
5 2
6 6
7 5
8 2
9 5
10 5`,
      LCC: `2 1.000000000000000e+00
3 3.333333333333333e-01
4 1.000000000000000e+00
5 6.666666666666666e-01
6 2.000000000000000e-01
7 1.000000000000000e+00
8 6.666666666666666e-01
9 1.000000000000000e+00
10 0.000000000000000e+00`,
      PR: `2 9.084490740740739e-02
3 1.424089506172839e-01
4 9.084490740740739e-02
5 1.249891975308642e-01
6 1.686172839506173e-01
7 9.749537037037037e-02
8 1.249891975308642e-01
9 9.749537037037037e-02
10 6.231481481481481e-02`,
      SSSP: `2 0.000000000000000e+00
3 8.200000000000000e-01
4 6.899999999999999e-01
5 1.260000000000000e+00
6 1.780000000000000e+00
7 2.310000000000000e+00
8 1.140000000000000e+00
9 2.010000000000000e+00
10 2.410000000000000e+00`,
      WCC: `2 2
3 2
4 2
5 2
6 2
7 2
8 2
9 2
10 2`,
    },
  ),
];
