/** k-hop neighbourhoods, shortest paths and triangles against the reference algorithms; their bounds, and what they refuse. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { kHop } from "../../../../actors/graph/traversal/k-hop.ts";
import { shortestPath } from "../../../../actors/graph/traversal/shortest-path.ts";
import { countTriangles } from "../../../../actors/graph/traversal/triangle-count.ts";
import type { VertexKey } from "../../../../actors/graph/vertex-key.ts";
import { createRmat } from "../../../../bench/macro/graph-data.ts";
import {
  byKey,
  type ReferenceGraph,
  referenceBfs,
  referenceGraph,
  referenceSssp,
  referenceTriangles,
  type WeightedEdge,
} from "../../../../src/sim/workloads/graph-reference.ts";
import { same } from "../same.ts";
import { adjacencyOf, smallGraph } from "./adjacency.ts";

const batchSize = fc.integer({ min: 1, max: 12 });
const key = fc.nat(6);

function rmat(scale: number, directed: boolean): ReferenceGraph {
  const { vertices, sources, targets, weights } = createRmat({ scale, edgeFactor: 8, seed: 7, weighted: true });
  const edges = Array.from(sources, (source, edge): WeightedEdge => [source, targets[edge] as number, weights?.[edge]]);
  return referenceGraph(
    Array.from({ length: vertices }, (_, index) => index),
    edges,
    directed,
  );
}

/** Sum of the least weights along a path; infinite where two do not follow each other. */
function weightOf(graph: ReferenceGraph, path: readonly VertexKey[], weighted: boolean): number {
  let sum = 0;
  for (let at = 1; at < path.length; at++) {
    const from = graph.indexes.get(path[at - 1] as VertexKey) as number;
    const to = graph.indexes.get(path[at] as VertexKey) as number;
    const weights = (graph.out[from] as number[]).flatMap((other, edge) =>
      other === to ? [weighted ? (graph.outWeights[from]?.[edge] as number) : 1] : [],
    );
    sum += Math.min(...weights);
  }
  return sum;
}

describe("k-hop", () => {
  test("gives every vertex within k edges with its depth", async () => {
    await fc.assert(
      fc.asyncProperty(
        smallGraph,
        key,
        fc.nat(5),
        batchSize,
        fc.boolean(),
        async (graph, start, hops, size, isLater) => {
          const adjacency = adjacencyOf(graph, isLater);
          const { depths, truncated } = await kHop(adjacency, [start], { hops, batchSize: size });
          const expected = [...byKey(graph, referenceBfs(graph, start))].filter(([, depth]) => depth <= hops);
          same(depths, new Map(expected));
          same(truncated, undefined);
          same(Math.max(...adjacency.asked) <= size, true);
          const order = [...depths.values()];
          same(
            order,
            [...order].sort((a, b) => a - b),
          );
        },
      ),
    );
  });

  test("from several starts, against and with the edges", async () => {
    const graph = referenceGraph(
      ["a", "b", "c", "d"],
      [
        ["a", "b"],
        ["b", "c"],
        ["d", "c"],
      ],
      true,
    );
    const run = async (starts: string[], direction: "out" | "in" | "both"): Promise<[VertexKey, number][]> => [
      ...(await kHop(adjacencyOf(graph), starts, { hops: 1, direction })).depths,
    ];
    expect(await run(["a", "d"], "out")).toEqual([
      ["a", 0],
      ["d", 0],
      ["b", 1],
      ["c", 1],
    ]);
    expect(await run(["c"], "in")).toEqual([
      ["c", 0],
      ["b", 1],
      ["d", 1],
    ]);
    expect(await run(["b"], "both")).toEqual([
      ["b", 0],
      ["c", 1],
      ["a", 1],
    ]);
  });

  test("cuts the end off at a bound, and says which", async () => {
    const graph = rmat(8, true);
    const start = graph.keys.find((_, index) => (graph.out[index]?.length ?? 0) > 20) as VertexKey;
    const all = await kHop(adjacencyOf(graph), [start], { hops: 9, batchSize: 3 });
    expect(all.truncated).toBeUndefined();
    const total = all.depths.size;
    expect(total).toBeGreaterThan(100);
    for (const maxVertices of [1, 2, 50, total - 1, total]) {
      const { depths, truncated } = await kHop(adjacencyOf(graph), [start], { hops: 9, batchSize: 3, maxVertices });
      expect([...depths]).toEqual([...all.depths].slice(0, maxVertices));
      expect(truncated).toEqual(maxVertices === total ? undefined : { by: "vertices", limit: maxVertices });
    }
    const few = await kHop(adjacencyOf(graph), [start], { hops: 9, batchSize: 1, maxEdges: 30 });
    expect(few.truncated).toEqual({ by: "edges", limit: 30 });
    expect([...few.depths]).toEqual([...all.depths].slice(0, few.depths.size));
    expect((await kHop(adjacencyOf(graph), [start], { hops: 9, maxEdges: all.edges + 1 })).truncated).toBeUndefined();
  });

  test("refuses a start that is not there, and bad bounds, and stops when it is told to", async () => {
    const adjacency = adjacencyOf(referenceGraph([1, 2], [[1, 2]], true));
    await expect(kHop(adjacency, [1, "x"], { hops: 1 })).rejects.toMatchObject({
      code: "ERR_UNKNOWN_VERTEX",
      message: 'Cannot search graph as start must be a vertex of the graph: current value is "x"',
      details: { vertex: "x" },
    });
    for (const options of [
      { hops: -1 },
      { hops: 1, maxVertices: 0 },
      { hops: 1, batchSize: 1.5 },
      { hops: 1, maxEdges: Number.NaN },
    ]) {
      await expect(kHop(adjacency, [1], options)).rejects.toThrow(/must be an integer of at least/);
    }
    await expect(kHop(adjacency, [1], { hops: 1, signal: AbortSignal.abort("why") })).rejects.toMatchObject({
      code: "ERR_ABORTED",
      cause: "why",
    });
  });
});

describe("a shortest path", () => {
  test("is one, and none is shorter, by edges and by weight", async () => {
    await fc.assert(
      fc.asyncProperty(smallGraph, key, key, batchSize, fc.boolean(), async (graph, from, to, size, weighted) => {
        const distances = weighted ? referenceSssp(graph, from) : referenceBfs(graph, from);
        const expected = distances[graph.indexes.get(to) as number] as number;
        const result = await shortestPath(adjacencyOf(graph, true), from, to, { weighted, batchSize: size });
        same(result.distance, expected);
        same(result.truncated, undefined);
        same(result.path === undefined, expected === Number.POSITIVE_INFINITY);
        if (result.path === undefined) return;
        same([result.path[0], result.path.at(-1)], [from, to]);
        same(weightOf(graph, result.path, weighted), expected);
        same(new Set(result.path).size, result.path.length);
      }),
      { numRuns: 500 },
    );
  });

  test("is found in a large graph, reading less of it than a search from one end", async () => {
    const graph = rmat(11, false);
    const from = graph.keys.find((_, index) => graph.out[index]?.length === 1) as VertexKey;
    const depths = referenceBfs(graph, from);
    const distances = referenceSssp(graph, from);
    const deepest = Math.max(...depths.filter(Number.isFinite));
    const to = graph.keys[depths.indexOf(deepest)] as VertexKey;
    const { path, distance, edges } = await shortestPath(adjacencyOf(graph), from, to);
    expect(distance).toBe(deepest);
    expect(path).toHaveLength(deepest + 1);
    expect(edges).toBeLessThan((await kHop(adjacencyOf(graph), [from], { hops: deepest })).edges);
    for (const size of [1, 64]) {
      const light = await shortestPath(adjacencyOf(graph), from, to, { weighted: true, batchSize: size });
      expect(light.distance).toBeCloseTo(distances[graph.indexes.get(to) as number] as number, 10);
      expect(light.distance).toBeCloseTo(weightOf(graph, light.path ?? [], true), 10);
    }
  });

  test("says when a bound ended the search; what it has then is a path", async () => {
    const graph = rmat(8, false);
    const [from, to] = graph.keys.filter((_, index) => graph.out[index]?.length === 2) as [VertexKey, VertexKey];
    for (const weighted of [false, true]) {
      const none = await shortestPath(adjacencyOf(graph), from, to, { weighted, maxEdges: 1, batchSize: 1 });
      expect(none).toMatchObject({ path: undefined, distance: Infinity, truncated: { by: "edges", limit: 1 } });
    }
    const detour = referenceGraph(
      ["a", "b", "z"],
      [
        ["a", "z", 10],
        ["a", "b", 1],
        ["b", "z", 1],
      ],
      true,
    );
    const run = (maxEdges: number) =>
      shortestPath(adjacencyOf(detour), "a", "z", { weighted: true, maxEdges, batchSize: 1 });
    expect(await run(2)).toEqual({ path: ["a", "z"], distance: 10, edges: 2, truncated: { by: "edges", limit: 2 } });
    expect(await run(3)).toEqual({ path: ["a", "b", "z"], distance: 2, edges: 3, truncated: undefined });
  });

  test("refuses ends that are not there, and weights below 0, with the vertex", async () => {
    const adjacency = adjacencyOf(
      referenceGraph(
        [1, 2, 3],
        [
          [1, 2, 1],
          [2, 3, -0.5],
        ],
        true,
      ),
    );
    await expect(shortestPath(adjacency, 9, 1)).rejects.toThrow(
      "from must be a vertex of the graph: current value is 9",
    );
    await expect(shortestPath(adjacency, 1, 9)).rejects.toThrow("to must be a vertex of the graph: current value is 9");
    await expect(shortestPath(adjacency, 1, 3, { weighted: true })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: "Cannot search graph as the weight of edge 2 3 must be at least 0: current value is -0.5",
      details: { vertex: 2, target: 3 },
    });
    expect((await shortestPath(adjacency, 3, 1)).path).toBeUndefined();
    expect(await shortestPath(adjacency, 2, 2, { weighted: true })).toMatchObject({ path: [2], distance: 0 });
    expect((await shortestPath(adjacency, 3, 1, { direction: "in" })).path).toEqual([3, 2, 1]);
  });
});

describe("triangles", () => {
  test("are counted once each, whatever the batches", async () => {
    await fc.assert(
      fc.asyncProperty(smallGraph, batchSize, fc.boolean(), async (graph, size, isLater) => {
        const result = await countTriangles(adjacencyOf(graph, isLater), graph.keys, { batchSize: size });
        same([result.triangles, result.vertices, result.truncated], [referenceTriangles(graph), 10, undefined]);
        // The sum over any division is the count.
        let sum = 0;
        for (const part of [graph.keys.slice(0, 3), graph.keys.slice(3)])
          sum += (await countTriangles(adjacencyOf(graph), part)).triangles;
        same(sum, result.triangles);
      }),
    );
  });

  test("of a larger graph, with a bound", async () => {
    const graph = rmat(8, true);
    const all = await countTriangles(adjacencyOf(graph), graph.keys, { batchSize: 50 });
    expect(all.triangles).toBe(referenceTriangles(graph));
    expect(all.triangles).toBeGreaterThan(1000);
    // What follows several vertices of a batch is read once for all of them.
    const single = await countTriangles(adjacencyOf(graph), graph.keys, { batchSize: 1 });
    expect(single.triangles).toBe(all.triangles);
    expect(all.edges * 2).toBeLessThan(single.edges);
    const maxEdges = all.edges >> 1;
    const cut = await countTriangles(adjacencyOf(graph), graph.keys, { batchSize: 50, maxEdges });
    expect(cut.truncated).toEqual({ by: "edges", limit: maxEdges });
    expect(cut.vertices).toBeGreaterThan(0);
    const first = await countTriangles(adjacencyOf(graph), graph.keys.slice(0, cut.vertices));
    expect(first.triangles).toBe(cut.triangles);
  });
});
