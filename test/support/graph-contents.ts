/** What tests of graphs that are moved share: a graph with everything that one can have, and all that can be asked of it. */
import { createRmat } from "../../bench/macro/graph-data.ts";
import type { Cluster, GraphOptions, VertexKey } from "../../src/index.ts";

export type Graph = Awaited<ReturnType<Cluster["graph"]>>;

const OPTIONS: GraphOptions = {
  weighted: true,
  edgeProperties: ["length"],
  vertexProperties: { size: "number", name: "text" },
  ghosts: true,
};

/** Keys of both kinds. */
export const keyOf = (vertex: number): VertexKey => (vertex % 3 === 0 ? `v${vertex}` : vertex);

/** With loops, parallel edges, keys of both kinds, vertices and edges that carry something and some that do not, and removed ones. */
export async function loadedGraph(cluster: Cluster, name: string, options: GraphOptions = {}): Promise<Graph> {
  const graph = await cluster.graph(name, { ...OPTIONS, ...options });
  const { vertices, sources, targets } = createRmat({ scale: 8, edgeFactor: 4, seed: 3, multigraph: true });
  const keys = Array.from({ length: vertices }, (_, vertex) => keyOf(vertex));
  await graph.addVertices(keys);
  await graph.setProperties(keys, {
    size: keys.map((_, at) => (at % 4 === 0 ? null : at)),
    name: keys.map((key, at) => (at % 5 === 0 ? null : `the ${key}`)),
  });
  const edges = Array.from(sources, (source, at) => ({
    source: keyOf(source),
    target: keyOf(targets[at] as number),
    weight: 1 + (at % 7),
    ...(at % 2 === 0 ? { properties: { length: at } } : {}),
  }));
  await graph.addEdges([...edges, { source: 1, target: 1 }, { source: keyOf(3), target: keyOf(3), weight: 2 }]);
  await graph.removeVertices([keyOf(5), keyOf(9)]);
  await graph.neighbours([1]); // builds, so that edges of removed vertices count no more
  return graph;
}

/** What {@link contentsOf} reads. */
export interface GraphContents {
  readonly keys: readonly VertexKey[];
  /** Of each vertex its neighbours with what the edges carry, as text, sorted. */
  readonly out: readonly string[][];
  readonly in: readonly string[][];
  readonly properties: readonly unknown[];
  readonly distances: readonly (number | undefined)[];
}

/** All that can be asked of a graph, whatever shards it lies on. @param source Where distances begin */
export async function contentsOf(graph: Graph, source: VertexKey = 1): Promise<GraphContents> {
  const keys: VertexKey[] = [];
  for await (const key of graph.vertices()) keys.push(key);
  keys.sort((a, b) => (String(a) < String(b) ? -1 : 1));
  const edges = async (direction: "out" | "in"): Promise<string[][]> =>
    (await graph.neighbours(keys, direction)).map((list) =>
      (list?.keys ?? [])
        .map((key, at) => JSON.stringify([key, list?.weights?.[at], list?.properties?.["length"]?.[at]]))
        .sort(),
    );
  const search = await graph.sssp({ source });
  const distances = await search.toMap();
  await search.close();
  return {
    keys,
    out: await edges("out"),
    in: await edges("in"),
    properties: await graph.properties(keys),
    distances: keys.map((key) => distances.get(key)),
  };
}

/** Vertices and edges of all shards. */
export async function totalOf(graph: Graph): Promise<{ vertices: number; edges: number }> {
  const shards = await graph.status();
  return {
    vertices: shards.reduce((sum, { vertices }) => sum + vertices, 0),
    edges: shards.reduce((sum, { edges }) => sum + edges, 0),
  };
}
