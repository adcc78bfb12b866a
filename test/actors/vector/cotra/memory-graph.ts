/** A graph over plain typed arrays, its views by shard, and what a search did to it, recorded for auditing. */
import { type GraphView, NO_PARTITION, NOT_EXPOSED } from "../../../../actors/vector/cotra/graph-view.ts";
import type { Random } from "../../../../src/runtime/random.ts";

/** Shape: vectors `Uint8Array[count * dimensions]`; links `Int32Array[count * (maxDegree + 1)]`, the degree first. */
export interface MemoryGraph {
  readonly count: number;
  readonly dimensions: number;
  readonly maxDegree: number;
  readonly vectors: Uint8Array;
  readonly links: Int32Array;
  readonly partitions: Uint16Array;
}

/** What happened to the vertices of a graph. */
export interface GraphTrace {
  /** How often each vertex was computed. */
  readonly computed: Map<number, number>;
  readonly expanded: Set<number>;
}

export function l2(graph: MemoryGraph, query: Uint8Array, vertex: number): number {
  const { vectors, dimensions } = graph;
  const base = vertex * dimensions;
  let sum = 0;
  for (let d = 0; d < dimensions; d++) {
    const difference = (query[d] as number) - (vectors[base + d] as number);
    sum += difference * difference;
  }
  return sum;
}

/** A shard's view. `exposed`: whether other partitions can be read one-sidedly. */
export class MemoryView implements GraphView {
  readonly self: number;
  readonly codeBytes: number;
  readonly adjacencyBytes: number;
  readonly maxDegree: number;
  readonly #graph: MemoryGraph;
  readonly #exposed: (partition: number) => boolean;
  readonly #trace: GraphTrace | undefined;

  constructor(graph: MemoryGraph, self: number, exposed: (partition: number) => boolean, trace?: GraphTrace) {
    this.self = self;
    this.#graph = graph;
    this.#exposed = exposed;
    this.#trace = trace;
    this.codeBytes = graph.dimensions;
    this.maxDegree = graph.maxDegree;
    this.adjacencyBytes = (graph.maxDegree + 1) * 4;
  }

  partitionOf(vertex: number): number {
    return vertex >= 0 && vertex < this.#graph.count ? (this.#graph.partitions[vertex] as number) : NO_PARTITION;
  }

  neighbours(vertex: number, out: Int32Array): number {
    if (this.partitionOf(vertex) !== this.self) throw new Error(`vertex ${vertex} is not local to ${this.self}`);
    return this.#copyLinks(vertex, out);
  }

  distances(query: Uint8Array, vertices: Int32Array, count: number, out: Float64Array): void {
    for (let at = 0; at < count; at++) {
      const vertex = vertices[at] as number;
      if (this.partitionOf(vertex) !== this.self) throw new Error(`vertex ${vertex} is not local to ${this.self}`);
      out[at] = this.#distance(query, vertex);
    }
  }

  pull(query: Uint8Array, partition: number, vertices: Int32Array, count: number, out: Float64Array): number {
    if (!this.#exposed(partition)) return NOT_EXPOSED;
    for (let at = 0; at < count; at++) {
      const vertex = vertices[at] as number;
      if (this.partitionOf(vertex) !== partition || partition === this.self) throw new Error(`bad pull of ${vertex}`);
      out[at] = this.#distance(query, vertex);
    }
    return count;
  }

  pullNeighbours(vertex: number, out: Int32Array): number {
    const partition = this.partitionOf(vertex);
    if (partition === this.self || partition === NO_PARTITION) throw new Error(`bad read of ${vertex}`);
    return this.#exposed(partition) ? this.#copyLinks(vertex, out) : NOT_EXPOSED;
  }

  #distance(query: Uint8Array, vertex: number): number {
    const { computed } = this.#trace ?? {};
    computed?.set(vertex, (computed.get(vertex) ?? 0) + 1);
    return l2(this.#graph, query, vertex);
  }

  #copyLinks(vertex: number, out: Int32Array): number {
    this.#trace?.expanded.add(vertex);
    const { links, maxDegree } = this.#graph;
    const base = vertex * (maxDegree + 1);
    const degree = links[base] as number;
    for (let at = 0; at < degree; at++) out[at] = links[base + 1 + at] as number;
    return degree;
  }
}

/** How a random graph is made. */
export interface RandomGraphOptions {
  readonly count: number;
  readonly shards: number;
  readonly degree: number;
  /** Whether vertices go to the shard of the nearest of `shards` centres rather than to a random one. */
  readonly clustered: boolean;
  /** Share of links that hold garbage: out of range, negative, the vertex itself, another link again. */
  readonly garbage: number;
}

const DIMENSIONS = 4;

/** Random points; links to the nearest, thinned so that neighbours are not close to each other, and one to a random vertex. */
export function randomGraph(random: Random, options: RandomGraphOptions): MemoryGraph {
  const { count, shards, degree, clustered, garbage } = options;
  const int = (below: number): number => Math.floor(random.float() * below);
  const vectors = Uint8Array.from({ length: count * DIMENSIONS }, () => int(256));
  const partitions = new Uint16Array(count);
  const links = new Int32Array(count * (degree + 1));
  const graph: MemoryGraph = { count, dimensions: DIMENSIONS, maxDegree: degree, vectors, links, partitions };
  const centres = Array.from({ length: shards }, () => int(count));
  const vectorOf = (vertex: number): Uint8Array => vectors.subarray(vertex * DIMENSIONS, (vertex + 1) * DIMENSIONS);
  for (let vertex = 0; vertex < count; vertex++) {
    const to = centres.map((centre) => l2(graph, vectorOf(vertex), centre));
    partitions[vertex] = clustered ? to.indexOf(Math.min(...to)) : int(shards);
    const kept = thinned(graph, vertex, degree - 1);
    if (count > 1) kept.push(int(count));
    links[vertex * (degree + 1)] = kept.length;
    kept.forEach((link, at) => {
      links[vertex * (degree + 1) + 1 + at] =
        random.float() < garbage ? ([vertex, kept[0], -1 - int(1000), count + int(1e9)][int(4)] as number) : link;
    });
  }
  return graph;
}

/** The nearest neighbours, each closer to the vertex than to any kept before it: the relative neighbourhood rule. */
function thinned(graph: MemoryGraph, vertex: number, most: number): number[] {
  const { vectors, dimensions, count } = graph;
  const vectorOf = (other: number): Uint8Array => vectors.subarray(other * dimensions, (other + 1) * dimensions);
  const ranked = Array.from({ length: count }, (_, other) => ({ other, d: l2(graph, vectorOf(vertex), other) }))
    .filter(({ other }) => other !== vertex)
    .sort((a, b) => a.d - b.d || a.other - b.other);
  const kept: number[] = [];
  for (const { other, d } of ranked) {
    if (kept.length >= most) break;
    if (kept.every((earlier) => l2(graph, vectorOf(earlier), other) >= d)) kept.push(other);
  }
  return kept;
}
