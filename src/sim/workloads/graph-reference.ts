/**
 * The algorithms of LDBC Graphalytics, plainly: what sharded runs are held against.
 *
 * Single-threaded, over arrays of arrays, for graphs of up to some 100,000 edges. Definitions are those of "The LDBC Graphalytics
 * Benchmark" (arXiv:2011.15028), section 2.3. Its graphs have no parallel edges and no loops; where ours do: PageRank and CDLP count
 * parallel edges one by one, LCC once; a loop is one neighbour of its vertex in a direction (so one, when undirected), and none for LCC.
 * Every function gives `values[i]` of vertex `i`; {@link byKey} turns these into a map.
 */
import type { VertexKey } from "../../../actors/graph/vertex-key.ts";

/** Distance and depth of a vertex that cannot be reached. */
export const UNREACHED: number = Number.POSITIVE_INFINITY;

export interface ReferenceGraph {
  readonly directed: boolean;
  readonly keys: readonly VertexKey[];
  readonly indexes: ReadonlyMap<VertexKey, number>;
  /** `out[v]`: ends of the edges that leave `v`; of an undirected graph, all its neighbours. */
  readonly out: readonly (readonly number[])[];
  /** `outWeights[v][i]` is the weight of the edge to `out[v][i]`; 1 without weights. */
  readonly outWeights: readonly (readonly number[])[];
  /** Of an undirected graph the same as `out`. */
  readonly in: readonly (readonly number[])[];
}

export type WeightedEdge = readonly [source: VertexKey, target: VertexKey, weight?: number | undefined];

/** @throws if an end of an edge is no vertex, or a vertex comes twice */
export function referenceGraph(
  keys: readonly VertexKey[],
  edges: Iterable<WeightedEdge>,
  directed: boolean,
): ReferenceGraph {
  const indexes = new Map(keys.map((key, index) => [key, index]));
  if (indexes.size !== keys.length) throw new Error("a vertex comes twice");
  const lists = <T>(): T[][] => keys.map(() => []);
  const out = lists<number>();
  const outWeights = lists<number>();
  const into = directed ? lists<number>() : out;
  const link = (from: number, to: number, weight: number): void => {
    out[from]?.push(to);
    outWeights[from]?.push(weight);
  };
  for (const [source, target, weight = 1] of edges) {
    const from = indexes.get(source);
    const to = indexes.get(target);
    if (from === undefined || to === undefined)
      throw new Error(`edge ${source} ${target} has an end that is no vertex`);
    link(from, to, weight);
    if (directed) into[to]?.push(from);
    else if (from !== to) link(to, from, weight);
  }
  return { directed, keys, indexes, out, outWeights, in: into };
}

export function byKey<T>(graph: ReferenceGraph, values: ArrayLike<T>): Map<VertexKey, T> {
  return new Map(graph.keys.map((key, index) => [key, values[index] as T]));
}

/** Fewest edges from the source along their direction. */
export function referenceBfs(graph: ReferenceGraph, source: VertexKey): number[] {
  const depths = graph.keys.map(() => UNREACHED);
  const start = indexOf(graph, source);
  depths[start] = 0;
  let frontier = [start];
  for (let depth = 1; frontier.length > 0; depth++) {
    const next: number[] = [];
    for (const vertex of frontier) {
      for (const other of graph.out[vertex] as readonly number[]) {
        if (depths[other] !== UNREACHED) continue;
        depths[other] = depth;
        next.push(other);
      }
    }
    frontier = next;
  }
  return depths;
}

/** PageRank after exactly that many iterations; what dangling vertices have goes to all in equal parts. The values sum to 1. */
export function referencePageRank(graph: ReferenceGraph, damping: number, iterations: number): number[] {
  const count = graph.keys.length;
  let ranks = graph.keys.map(() => 1 / count);
  for (let iteration = 0; iteration < iterations; iteration++) {
    const dangling = ranks.reduce((sum, rank, vertex) => (graph.out[vertex]?.length === 0 ? sum + rank : sum), 0);
    const before = ranks;
    ranks = before.map((_, vertex) => {
      let sum = 0;
      for (const other of graph.in[vertex] as readonly number[]) {
        sum += (before[other] as number) / (graph.out[other] as readonly number[]).length;
      }
      return (1 - damping) / count + damping * (sum + dangling / count);
    });
  }
  return ranks;
}

/** Personalised PageRank: teleports, and what dangling vertices have, go to the sources in equal parts. */
export function referencePersonalisedPageRank(
  graph: ReferenceGraph,
  sources: readonly VertexKey[],
  damping: number,
  iterations: number,
): number[] {
  const home = graph.keys.map(() => 0);
  for (const source of sources) home[indexOf(graph, source)] = 1 / sources.length;
  let ranks = [...home];
  for (let iteration = 0; iteration < iterations; iteration++) {
    const next = graph.keys.map(() => 0);
    let loose = 0;
    for (const [vertex, rank] of ranks.entries()) {
      const targets = graph.out[vertex] as readonly number[];
      if (targets.length === 0) loose += rank;
      for (const target of targets) next[target] = (next[target] as number) + rank / targets.length;
    }
    ranks = next.map((sum, vertex) => damping * sum + (1 - damping + damping * loose) * (home[vertex] as number));
  }
  return ranks;
}

/** The least index in the component of each vertex; directions do not count. */
export function referenceWcc(graph: ReferenceGraph): number[] {
  const labels = graph.keys.map(() => -1);
  for (const start of graph.keys.keys()) {
    if (labels[start] !== -1) continue;
    labels[start] = start;
    const stack = [start];
    for (let vertex = stack.pop(); vertex !== undefined; vertex = stack.pop()) {
      for (const other of [...(graph.out[vertex] as readonly number[]), ...(graph.in[vertex] as readonly number[])]) {
        if (labels[other] !== -1) continue;
        labels[other] = start;
        stack.push(other);
      }
    }
  }
  return labels;
}

/** Labels are keys. Each takes the most frequent label around it, the least of these; in a directed graph both directions count. */
export function referenceCdlp(graph: ReferenceGraph, iterations: number): VertexKey[] {
  let labels = [...graph.keys];
  for (let iteration = 0; iteration < iterations; iteration++) {
    const before = labels;
    labels = before.map((own, vertex) => {
      const counts = new Map<VertexKey, number>();
      for (const list of graph.directed ? [graph.out, graph.in] : [graph.out]) {
        for (const other of list[vertex] as readonly number[]) {
          const label = before[other] as VertexKey;
          counts.set(label, (counts.get(label) ?? 0) + 1);
        }
      }
      let best = own;
      let most = 0;
      for (const [label, count] of counts) {
        if (count < most || (count === most && compareKeys(label, best) > 0)) continue;
        best = label;
        most = count;
      }
      return best;
    });
  }
  return labels;
}

/** Numbers before strings, numbers by value, strings by UTF-16 unit. */
export function compareKeys(a: VertexKey, b: VertexKey): number {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Edges among the neighbours (of either direction) of a vertex, of those that there could be; an undirected edge counts as two. */
export function referenceLcc(graph: ReferenceGraph): number[] {
  const outSets = graph.out.map((targets) => new Set(targets));
  return graph.keys.map((_, vertex) => {
    const around = new Set([...(graph.out[vertex] as readonly number[]), ...(graph.in[vertex] as readonly number[])]);
    around.delete(vertex);
    if (around.size < 2) return 0;
    let edges = 0;
    for (const from of around)
      for (const to of outSets[from] as Set<number>) if (to !== from && around.has(to)) edges++;
    return edges / (around.size * (around.size - 1));
  });
}

/** Least sum of weights from the source along the edges' direction. Weights ≥ 0. */
export function referenceSssp(graph: ReferenceGraph, source: VertexKey): number[] {
  const distances = graph.keys.map(() => UNREACHED);
  const start = indexOf(graph, source);
  distances[start] = 0;
  const waiting = new Set([start]);
  for (const vertex of waiting) {
    waiting.delete(vertex); // a set gives what is added again once more
    const base = distances[vertex] as number;
    for (const [index, other] of (graph.out[vertex] as readonly number[]).entries()) {
      const distance = base + (graph.outWeights[vertex]?.[index] as number);
      if (distance >= (distances[other] as number)) continue;
      distances[other] = distance;
      waiting.add(other);
    }
  }
  return distances;
}

/** Triples of vertices with an edge between each two; directions do not count. */
export function referenceTriangles(graph: ReferenceGraph): number {
  const around = graph.keys.map((_, v) => new Set([...(graph.out[v] as number[]), ...(graph.in[v] as number[])]));
  let count = 0;
  for (const [a, others] of around.entries()) {
    for (const b of others) if (b > a) for (const c of others) if (c > b && around[b]?.has(c) === true) count++;
  }
  return count;
}

function indexOf(graph: ReferenceGraph, key: VertexKey): number {
  const index = graph.indexes.get(key);
  if (index === undefined) throw new Error(`${key} is no vertex`);
  return index;
}
