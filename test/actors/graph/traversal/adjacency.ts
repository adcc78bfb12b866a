/** An adjacency over a reference graph, which answers at once or later and counts what it was asked; and random small graphs. */
import fc from "fast-check";
import type { Adjacency, Direction, Neighbours } from "../../../../actors/graph/traversal/adjacency.ts";
import type { VertexKey } from "../../../../actors/graph/vertex-key.ts";
import {
  type ReferenceGraph,
  referenceGraph,
  type WeightedEdge,
} from "../../../../src/sim/workloads/graph-reference.ts";

export interface CountedAdjacency extends Adjacency {
  /** Vertices of each question. */
  readonly asked: number[];
}

/** @param propertiesOf Of a vertex; asked for those of none, it has none. */
export function adjacencyOf(
  graph: ReferenceGraph,
  isLater = false,
  propertiesOf: (key: VertexKey) => Readonly<Record<string, string | number>> = () => ({}),
): CountedAdjacency {
  const asked: number[] = [];
  const listOf = (key: VertexKey, direction: Direction): Neighbours | undefined => {
    const index = graph.indexes.get(key);
    if (index === undefined) return undefined;
    const out = graph.out[index] as readonly number[];
    const into = graph.directed ? (graph.in[index] as readonly number[]) : [];
    const others = direction === "out" || !graph.directed ? out : direction === "in" ? into : [...out, ...into];
    const keys = others.map((other) => graph.keys[other] as VertexKey);
    return direction === "out"
      ? { keys, weights: Float64Array.from(graph.outWeights[index] as readonly number[]) }
      : { keys };
  };
  return {
    asked,
    neighbours(vertices, direction) {
      asked.push(vertices.length);
      const lists = vertices.map((key) => listOf(key, direction));
      return isLater ? Promise.resolve(lists) : lists;
    },
    properties: (vertices) => vertices.map((key) => (graph.indexes.has(key) ? propertiesOf(key) : undefined)),
  };
}

const end = fc.nat(9);

/** Up to ten vertices, three of them named by strings; loops and parallel edges among the edges. */
export const smallGraph: fc.Arbitrary<ReferenceGraph> = fc
  .tuple(fc.array(fc.tuple(end, end, fc.nat(4)), { maxLength: 30, size: "max" }), fc.boolean())
  .map(([edges, directed]) => {
    const name = (index: number): VertexKey => (index >= 7 ? `v${index}` : index);
    const named = edges.map(([a, b, weight]): WeightedEdge => [name(a), name(b), weight]);
    return referenceGraph(
      Array.from({ length: 10 }, (_, index) => name(index)),
      named,
      directed,
    );
  });
