/** Graphs on real threads: loading, changing, reading results, bad input, cancellation. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, GraphBatch, RunProgress } from "../../src/index.ts";
import {
  byKey as byKeys,
  referenceCdlp,
  referenceGraph,
  referencePageRank,
  type WeightedEdge,
} from "../../src/sim/workloads/graph-reference.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startTestCluster({ workers: 3 });
});
afterAll(() => cluster.close());

const byKey = (a: readonly unknown[], b: readonly unknown[]): number => Number(a[0]) - Number(b[0]);
const sorted = (list: { readonly keys: readonly unknown[] } | undefined): number[] =>
  Array.from(list?.keys ?? [], Number).sort((a, b) => a - b);
let graphs = 0;
const freshGraph = (options = {}): ReturnType<Cluster["graph"]> => cluster.graph(`graph-${graphs++}`, options);
const edge = (
  source: number | string,
  target: number | string,
): { source: number | string; target: number | string } => ({
  source,
  target,
});

describe("loading", () => {
  it("takes batches of an async iterable, and tells how far it is", async () => {
    const graph = await freshGraph();
    const progress: number[] = [];
    async function* batches(): AsyncGenerator<GraphBatch> {
      for (let from = 0; from < 500; from += 100) {
        const keys = Array.from({ length: 100 }, (_, at) => from + at);
        yield { vertices: keys, edges: keys.map((key) => edge(key, from)) };
        await Promise.resolve();
      }
    }
    const loaded = await graph.load(batches(), { onProgress: ({ edges }) => progress.push(edges) });
    expect(loaded).toEqual({ vertices: 500, edges: 500 });
    expect(progress).toEqual([100, 200, 300, 400, 500]);
    const status = await graph.status();
    expect(status.reduce((sum, { vertices }) => sum + vertices, 0)).toBe(500);
    expect(status.reduce((sum, { edges }) => sum + edges, 0)).toBe(500);
    expect(status.every(({ vertices }) => vertices > 100)).toBe(true);
  });

  it("takes batches of columns, as readers of files give them", async () => {
    const graph = await freshGraph({ weighted: true });
    const loaded = await graph.load([
      { keys: [1, 2, "x"] },
      { sources: Float64Array.of(1, 2), targets: [2, 1], weights: Float64Array.of(0.5, 3) },
      { sources: [2, "x"], targets: ["x", 1], weights: undefined },
    ]);
    expect(loaded).toEqual({ vertices: 3, edges: 4 });
    expect(await (await graph.sssp({ source: 1 })).get("x")).toBe(1.5);
    const uneven = graph.addEdges({ sources: [1, 2], targets: [1] });
    await expect(uneven).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(graph.load([undefined as never])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });

  it("makes the ends of edges when it may, with keys that are text", async () => {
    const graph = await freshGraph({ directed: false });
    await graph.addEdges([edge("ä", "b"), edge("b", "c"), edge("d", "e"), edge(1, "1")], { createMissing: true });
    await graph.addEdges([edge("c", "ä")], { createMissing: true });
    const found = await (await graph.wcc()).toMap();
    expect(found.size).toBe(7);
    expect(found.get("ä")).toBe(found.get("c"));
    expect(found.get("d")).toBe(found.get("e"));
    expect(found.get(1)).toBe(found.get("1"));
    expect(new Set(found.values()).size).toBe(3);
    await expect(graph.cdlp()).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    expect(await (await graph.bfs({ source: "ä" })).get("c")).toBe(1);
  });

  it("sees what was added between two runs, and keeps the first one's result as it was", async () => {
    const graph = await freshGraph();
    await graph.load([{ vertices: [0, 1, 2], edges: [edge(0, 1)] }]);
    const before = await graph.bfs({ source: 0 });
    await graph.load([{ vertices: [3], edges: [edge(1, 2), edge(2, 3)] }]);
    const after = await graph.bfs({ source: 0 });
    expect([...(await after.toMap())].sort(byKey)).toEqual([
      [0, 0],
      [1, 1],
      [2, 2],
      [3, 3],
    ]);
    expect([...(await before.toMap())].sort(byKey)).toEqual([
      [0, 0],
      [1, 1],
      [2, Number.POSITIVE_INFINITY],
    ]);
    expect(await before.get(3)).toBeUndefined();
    await before.close();
    await expect(before.get(0)).rejects.toMatchObject({ code: "ERR_CLOSED" });
  });

  it.each([true, false])("removes all edges between two vertices; directed: %s", async (directed) => {
    const graph = await freshGraph({ directed });
    const keys = Array.from({ length: 20 }, (_, at) => at);
    const ring = keys.map((key) => edge(key, (key + 1) % 20));
    await graph.load([{ vertices: keys, edges: [...ring, edge(4, 5), edge(4, 5)] }]);
    expect(await graph.removeEdges([directed ? edge(4, 5) : edge(5, 4)])).toBe(3);
    expect(await graph.removeEdges([edge(4, 5)])).toBe(0);
    const found = await (await graph.bfs({ source: 0 })).toMap();
    expect(found.get(5)).toBe(directed ? Number.POSITIVE_INFINITY : 15);
    await graph.addEdges([edge(4, 5)]);
    expect(await (await graph.bfs({ source: 0 })).get(5)).toBe(5);
  });

  it("counts parallel edges and loops as PageRank does", async () => {
    const graph = await freshGraph();
    await graph.load([{ vertices: [0, 1, 2], edges: [edge(0, 1), edge(0, 1), edge(0, 2), edge(1, 1)] }]);
    for (const exchange of ["push", "pull"] as const) {
      const found = await (await graph.pageRank({ iterations: 1, damping: 0.5, exchange })).toMap();
      const shared = 1 / 6 + 1 / 18;
      expect(found.get(0)).toBeCloseTo(shared, 12);
      expect(found.get(1)).toBeCloseTo(shared + 1 / 9 + 1 / 6, 12);
      expect(found.get(2)).toBeCloseTo(shared + 1 / 18, 12);
    }
  });
});

it.each(["push", "pull"] as const)(
  "a loop of an undirected graph is one edge of its vertex, by %s",
  async (exchange) => {
    const graph = await freshGraph({ directed: false });
    const edges = [edge(1, 2), edge(2, 2), edge(2, 3), edge(3, 3), edge(3, 3), edge(4, 4)];
    await graph.addEdges(edges, { createMissing: true });
    const pairs = edges.map(({ source, target }): WeightedEdge => [source, target]);
    const reference = referenceGraph([1, 2, 3, 4], pairs, false);
    const ranks = await (await graph.pageRank({ iterations: 7, exchange })).toMap();
    for (const [key, rank] of byKeys(reference, referencePageRank(reference, 0.85, 7)))
      expect(ranks.get(key)).toBeCloseTo(rank, 12);
    const labels = await (await graph.cdlp({ iterations: 3, exchange })).toMap();
    expect(labels).toEqual(byKeys(reference, referenceCdlp(reference, 3)));
    expect((await graph.neighbours([2, 3, 4])).map(sorted)).toEqual([[1, 2, 3], [2, 3, 3], [4]]);
    expect(await graph.removeEdges([edge(3, 3)])).toBe(2);
  },
);

describe("neighbours", () => {
  it("are those of every edge, in either direction, however many there are", async () => {
    const graph = await freshGraph({ weighted: true });
    const keys = Array.from({ length: 9_000 }, (_, at) => at);
    await graph.addVertices(keys);
    await graph.addEdges({ sources: keys.map(() => 1), targets: keys, weights: keys.map((key) => key / 2) });
    await graph.addEdges([edge("a", 1)], { createMissing: true });
    const [hub, none, leaf] = await graph.neighbours([1, 77_777, 5]);
    expect(hub?.keys.length).toBe(9_000);
    expect(sorted(hub)).toEqual(keys);
    expect(hub?.keys.every((key, at) => hub.weights?.[at] === (key as number) / 2)).toBe(true);
    expect(none).toBeUndefined();
    expect(leaf?.keys).toEqual([]);
    const [before, after] = await graph.neighbours([1, 5], "in");
    expect(new Set(before?.keys)).toEqual(new Set([1, "a"]));
    expect(after?.keys).toEqual([1]);
    expect((await graph.neighbours([1], "both"))[0]?.keys.length).toBe(9_002);
    await graph.removeEdges([edge("a", 1)]);
    expect((await graph.neighbours([1], "in"))[0]?.keys).toEqual([1]);
    await expect(graph.neighbours([-1])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });

  it("of an undirected graph are the same in all directions", async () => {
    const graph = await freshGraph({ directed: false });
    await graph.addEdges([edge(1, 2), edge(3, 1), edge(1, 2)], { createMissing: true });
    for (const direction of ["out", "in", "both"] as const)
      expect(sorted((await graph.neighbours([1], direction))[0])).toEqual([2, 2, 3]);
  });
});

describe("runs", () => {
  it("tell every superstep, and end at a tolerance", async () => {
    const graph = await freshGraph();
    const keys = Array.from({ length: 50 }, (_, at) => at);
    await graph.load([{ vertices: keys, edges: keys.map((key) => edge(key, (key * 7) % 20)) }]);
    const seen: RunProgress[] = [];
    const result = await graph.pageRank({ tolerance: 1e-9, onProgress: (progress) => seen.push(progress) });
    expect(seen.map(({ superstep }) => superstep)).toEqual(seen.map((_, at) => at));
    expect(seen.at(-1)?.delta).toBeLessThan(1e-9);
    expect(seen.at(-2)?.delta).toBeGreaterThan(1e-9);
    expect(result.supersteps).toBe(seen.length);
  });

  it.each(["push", "pull"] as const)("give walks from some vertices their ranks, by %s", async (exchange) => {
    const graph = await freshGraph();
    // 0 and 3 each lead to 1, which leads to 2, which leads nowhere: walks begin again at 0 or 3.
    await graph.addEdges([edge(0, 1), edge(3, 1), edge(1, 2)], { createMissing: true });
    const options = { sources: [0, 3], damping: 0.5, tolerance: 1e-14, exchange };
    const found = await (await graph.pageRank(options)).toMap();
    // r0 = r3 = s, r1 = s, r2 = s / 2: 3.5 s = 1.
    for (const [key, parts] of [
      [0, 1],
      [3, 1],
      [1, 1],
      [2, 0.5],
    ] as const)
      expect(found.get(key)).toBeCloseTo(parts / 3.5, 12);
    await expect(graph.pageRank({ sources: [9] })).rejects.toMatchObject({ code: "ERR_UNKNOWN_VERTEX" });
    await expect(graph.pageRank({ sources: [] })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });

  it("run on an empty graph", async () => {
    const graph = await freshGraph();
    expect((await (await graph.pageRank()).toMap()).size).toBe(0);
    expect((await (await graph.lcc()).toMap()).size).toBe(0);
  });

  it("change from push to pull and back with the frontier", async () => {
    const graph = await freshGraph({ directed: false });
    const keys = Array.from({ length: 300 }, (_, at) => at);
    const star = keys.slice(2, 200).map((key) => edge(1, key));
    const tail = keys.slice(200).map((key) => edge(key - 1, key));
    await graph.load([{ vertices: keys, edges: [edge(0, 1), ...star, ...tail] }]);
    const seen: string[] = [];
    const found = await (await graph.bfs({ source: 0, onProgress: ({ exchange }) => seen.push(exchange) })).toMap();
    expect(found.get(2)).toBe(2);
    expect(found.get(299)).toBe(102);
    expect(seen.slice(0, 4)).toEqual(["none", "push", "pull", "pull"]);
    expect(seen.at(-1)).toBe("push");
  });

  it("end when they are cancelled, and leave nothing behind", async () => {
    const graph = await freshGraph();
    const keys = Array.from({ length: 200 }, (_, at) => at);
    await graph.load([{ vertices: keys, edges: keys.map((key) => edge(key, (key + 1) % 200)) }]);
    const abort = new AbortController();
    const onProgress = ({ superstep }: RunProgress): void => {
      if (superstep === 3) abort.abort(new Error("enough"));
    };
    const run = graph.pageRank({ iterations: 1000, signal: abort.signal, onProgress });
    await expect(run).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expect(graph.pageRank({ iterations: 100_000, timeoutMs: 50 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    expect((await graph.status()).map(({ runs }) => runs)).toEqual([0, 0, 0]);
    await graph.addVertices([1000]); // refused while a run is open
    expect((await graph.wcc()).vertices).toBe(201);
  });

  it("go on beside each other", async () => {
    const graph = await freshGraph();
    const keys = Array.from({ length: 100 }, (_, at) => at);
    await graph.load([{ vertices: keys, edges: keys.map((key) => edge(key, (key + 1) % 100)) }]);
    const results = await Promise.all([
      graph.bfs({ source: 0, exchange: "push" }),
      graph.wcc({ exchange: "pull" }),
      graph.pageRank({ iterations: 30 }),
      graph.bfs({ source: 50, exchange: "pull" }),
    ]);
    const [near, components, , far] = await Promise.all(results.map((result) => result.toMap()));
    expect(near?.get(99)).toBe(99);
    expect(far?.get(49)).toBe(99);
    expect(new Set(components?.values()).size).toBe(1);
  });
});

describe("bad input", () => {
  it("is refused with what is wrong, and the graph stays usable", async () => {
    const graph = await freshGraph({ weighted: true });
    await graph.load([{ vertices: [1, 2, 3], edges: [{ source: 1, target: 2, weight: 2 }] }]);
    await expect(graph.addEdges([edge(1, 9)])).rejects.toMatchObject({
      code: "ERR_UNKNOWN_VERTEX",
      details: { vertex: 9, end: "target" },
    });
    await expect(graph.addEdges([edge(8, 1)])).rejects.toMatchObject({
      code: "ERR_UNKNOWN_VERTEX",
      details: { vertex: 8 },
    });
    await expect(graph.addVertices([4, 1])).rejects.toMatchObject({ code: "ERR_DUPLICATE_ID", details: { key: 1 } });
    await expect(graph.addVertices([5, 5])).rejects.toMatchObject({ code: "ERR_DUPLICATE_ID", details: { key: 5 } });
    // The place is that in the whole list, whatever part of it a shard was sent.
    const more = Array.from({ length: 12 }, (_, at) => 100 + at);
    await expect(graph.addVertices([...more, 1])).rejects.toMatchObject({ details: { key: 1, at: 12 } });
    const far = graph.addEdges([...more.map(() => edge(2, 3)), edge(3, 2), edge(1, 99)]);
    await expect(far).rejects.toMatchObject({ details: { vertex: 99, at: 13 } });
    await graph.removeEdges([edge(2, 3), edge(3, 2)]);
    for (const bad of [{ timeoutMs: 0 }, { timeoutMs: -1 }, { signal: 5 as never }])
      await expect(graph.wcc(bad)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(graph.addVertices([-1])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(graph.addVertices([1.5])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(graph.addVertices([""])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(graph.bfs({ source: 77 })).rejects.toMatchObject({
      code: "ERR_UNKNOWN_VERTEX",
      details: { vertex: 77 },
    });
    await expect(graph.pageRank({ damping: Number.NaN })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(graph.pageRank({ iterations: 100_001 })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    const heavy = graph.addEdges([{ source: 1, target: 2, weight: Number.NaN }]);
    await expect(heavy).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await graph.addEdges([{ source: 2, target: 3, weight: -1 }]);
    await expect(graph.sssp({ source: 1 })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      details: { vertex: 2, weight: -1 },
    });
    await graph.removeEdges([edge(2, 3)]);
    await graph.addEdges([{ source: 2, target: 3, weight: 0.5 }]);
    expect(await (await graph.sssp({ source: 1 })).get(3)).toBe(2.5);
    const plain = await freshGraph();
    await plain.addVertices([1, 2]);
    await expect(plain.addEdges([{ source: 1, target: 2, weight: 1 }])).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
    await expect(plain.sssp({ source: 1 })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(cluster.graph(plain.name, { directed: false })).rejects.toMatchObject({
      code: "ERR_COLLECTION_MISMATCH",
    });
  });

  it("ends a load where it stands, and says how far that is", async () => {
    const graph = await freshGraph();
    const load = graph.load([{ vertices: [1, 2], edges: [edge(1, 2)] }, { edges: [edge(2, 1), edge(2, 3)] }]);
    await expect(load).rejects.toMatchObject({
      code: "ERR_UNKNOWN_VERTEX",
      details: { vertex: 3, loaded: { vertices: 2, edges: 1 } },
    });
    expect((await graph.wcc()).vertices).toBe(2);
  });

  it("frees the memory of runs that could not begin", async () => {
    const graph = await freshGraph();
    await graph.load([{ vertices: [1, 2], edges: [edge(1, 2)] }]);
    const search = (): Promise<void> =>
      expect(graph.bfs({ source: 3 })).rejects.toMatchObject({ code: "ERR_UNKNOWN_VERTEX" });
    await search();
    await graph.bfs({ source: 1 });
    const { usedBytes } = cluster.arena.stats();
    for (let run = 0; run < 4; run++) await search();
    await eventually("all is free again", () => cluster.arena.stats().usedBytes <= usedBytes);
  });

  it("knows nothing of a graph that was dropped, and frees its memory", async () => {
    const used = async (): Promise<number> => cluster.arena.stats().usedBytes;
    const before = await used();
    const graph = await cluster.graph("gone");
    await graph.load([{ vertices: [1, 2], edges: [edge(1, 2)] }]);
    const result = await graph.pageRank();
    expect(await used()).toBeGreaterThan(before);
    expect(await cluster.dropGraph("gone")).toBe(true);
    expect(await used()).toBe(before);
    await expect(graph.wcc()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    await expect(result.get(1)).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    expect(await cluster.dropGraph("gone")).toBe(false);
  });
});

it("refuses what memory has no room for, and goes on with what it has", async () => {
  const small = await startTestCluster({ workers: 2, memoryBytes: 8 * 1024 * 1024 });
  try {
    const graph = await small.graph("small");
    const keys = Array.from({ length: 2_000 }, (_, at) => at);
    await graph.load([{ vertices: keys, edges: { sources: keys, targets: keys.map((key) => (key + 1) % 2_000) } }]);
    const many = Array.from({ length: 400_000 }, (_, at) => 10_000 + at);
    await expect(graph.addVertices(many)).rejects.toMatchObject({ code: "ERR_OUT_OF_MEMORY" });
    const heavy = async (): Promise<never> => {
      for (;;) await graph.addEdges({ sources: keys, targets: keys });
    };
    await expect(heavy()).rejects.toMatchObject({ code: "ERR_OUT_OF_MEMORY" });
    await expect(graph.pageRank()).rejects.toMatchObject({ code: "ERR_OUT_OF_MEMORY" });
    await expect(graph.addEdges([edge(1, 999_999_999)])).rejects.toMatchObject({ code: "ERR_UNKNOWN_VERTEX" });
    expect((await graph.status()).map(({ runs }) => runs)).toEqual([0, 0]);
    expect(await small.dropGraph("small")).toBe(true);
    const next = await small.graph("small");
    await next.load([{ vertices: keys, edges: { sources: keys, targets: keys.map((key) => (key + 1) % 2_000) } }]);
    expect(new Set((await (await next.wcc()).toMap()).values()).size).toBe(1);
  } finally {
    await small.close();
  }
});
