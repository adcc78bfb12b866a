/** Vertices that are removed, on real threads: what is left is the graph that never had them, whatever runs over it. */
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hashOfKey, ownerOfHash } from "../../actors/graph/vertex-key.ts";
import { createRmat } from "../../bench/macro/graph-data.ts";
import type { Cluster, GraphResult, VertexKey } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import {
  byKey,
  type ReferenceGraph,
  referenceBfs,
  referenceCdlp,
  referenceGraph,
  referenceLcc,
  referencePageRank,
  referenceSssp,
  referenceTriangles,
  referenceWcc,
  type WeightedEdge,
} from "../../src/sim/workloads/graph-reference.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { loseWorkers } from "../support/graphs.ts";
import { hold } from "../support/holds.ts";

type Graph = Awaited<ReturnType<Cluster["graph"]>>;
type Exchange = "push" | "pull";

const SEED = Number(process.env["SEED"] ?? 8);

function drawn(seed: number): { keys: number[]; edges: WeightedEdge[] } {
  const { vertices, sources, targets, weights } = createRmat({ scale: 7, edgeFactor: 6, seed, weighted: true });
  return {
    keys: Array.from({ length: vertices }, (_, key) => key),
    edges: Array.from(sources, (source, at) => [source, targets[at] as number, weights?.[at]]),
  };
}

async function add(graph: Graph, edges: readonly WeightedEdge[]): Promise<void> {
  await graph.addEdges(edges.map(([source, target, weight = 1]) => ({ source, target, weight })));
}

async function take(running: Promise<GraphResult>): Promise<Map<VertexKey, number>> {
  const result = await running;
  const map = await result.toMap();
  await result.close();
  return map;
}

function isClose(found: ReadonlyMap<VertexKey, number>, expected: ReadonlyMap<VertexKey, number>): void {
  expect(new Set(found.keys())).toEqual(new Set(expected.keys()));
  for (const [key, value] of expected)
    if (found.get(key) !== value) expect(found.get(key), `${key}`).toBeCloseTo(value, 9);
}

async function compare(graph: Graph, reference: ReferenceGraph, exchange: Exchange): Promise<void> {
  const [source] = reference.keys as [VertexKey];
  const ranks = await graph.pageRank({ iterations: 12, exchange });
  expect(ranks.vertices).toBe(reference.keys.length);
  isClose(await ranks.toMap(), byKey(reference, referencePageRank(reference, 0.85, 12)));
  await ranks.close();
  isClose(await take(graph.bfs({ source, exchange })), byKey(reference, referenceBfs(reference, source)));
  isClose(await take(graph.sssp({ source, exchange })), byKey(reference, referenceSssp(reference, source)));
  isClose(await take(graph.lcc({ exchange })), byKey(reference, referenceLcc(reference)));
  const labels = byKey(reference, referenceCdlp(reference, 4)) as Map<VertexKey, number>;
  isClose(await take(graph.cdlp({ iterations: 4, exchange })), labels);
  const least = byKey(
    reference,
    referenceWcc(reference).map((index) => reference.keys[index] as number),
  );
  isClose(await take(graph.wcc({ exchange })), least);
}

describe.each([1, 3, 7])("on %i shards, seed %#", (workers) => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await startTestCluster({ workers });
  }, 180_000);
  afterAll(() => cluster.close());

  it.each([true, false])(
    "what is left is as if the others had never been; directed: %s",
    async (directed) => {
      const random = createSeededRandom(SEED + workers);
      const { keys, edges } = drawn(SEED + workers);
      const graph = await cluster.graph(`left-${directed}`, { directed, weighted: true });
      await graph.addVertices(keys);
      await add(graph, edges.slice(0, 300));
      await take(graph.wcc()); // builds what is there
      await add(graph, edges.slice(300));
      const gone = new Set<VertexKey>(keys.filter(() => random.float() < 0.3));
      expect(gone.size).toBeGreaterThan(20);
      expect(await graph.removeVertices([...gone, 70_000] as VertexKey[])).toBe(gone.size);
      expect(await graph.removeVertices([...gone] as VertexKey[])).toBe(0);
      const left = keys.filter((key) => !gone.has(key));
      const kept = edges.filter(([source, target]) => !gone.has(source) && !gone.has(target));
      const reference = referenceGraph(left, kept, directed);
      for (const exchange of ["push", "pull"] as const) await compare(graph, reference, exchange);

      expect((await graph.status()).reduce((sum, { vertices }) => sum + vertices, 0)).toBe(left.length);
      expect((await graph.status()).reduce((sum, shard) => sum + shard.edges, 0)).toBe(kept.length);
      expect((await graph.countTriangles()).triangles).toBe(referenceTriangles(reference));
      const [first] = gone;
      expect(await graph.neighbours([first as VertexKey])).toEqual([undefined]);
      const search = graph.bfs({ source: first as VertexKey });
      await expect(search).rejects.toMatchObject({ code: "ERR_UNKNOWN_VERTEX" });
      const edge = graph.addEdges([{ source: left[0] as number, target: first as VertexKey }]);
      await expect(edge).rejects.toMatchObject({ code: "ERR_UNKNOWN_VERTEX", details: { end: "target" } });

      // Keys that are added again are new vertices; more of them than tables have room for.
      const again = [...gone].slice(0, 10) as number[];
      await graph.addVertices([...again, ...Array.from({ length: 2_000 }, (_, at) => 1_000 + at)]);
      await graph.addEdges(again.map((target) => ({ source: left[0] as number, target, weight: 2 })));
      const more = referenceGraph(
        [...left, ...again, ...Array.from({ length: 2_000 }, (_, at) => 1_000 + at)].sort((a, b) => a - b),
        [...kept, ...again.map((target): WeightedEdge => [left[0] as number, target, 2])],
        directed,
      );
      await compare(graph, more, "pull");
    },
    180_000,
  );
});

describe("removed vertices", () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await startTestCluster({ workers: 3, maxHandlerMs: 30_000 });
  });
  afterAll(() => cluster.close());
  const ring = async (name: string, keys: readonly VertexKey[]): Promise<Graph> => {
    const graph = await cluster.graph(name);
    await graph.addVertices(keys);
    await graph.addEdges({ sources: keys, targets: keys.map((_, at) => keys[(at + 1) % keys.length] as VertexKey) });
    return graph;
  };

  it("stay in results that had them, and a list that is refused changes nothing", async () => {
    const graph = await ring("results", ["a", "b", "c", 4, 5]);
    const before = await graph.bfs({ source: "a" });
    expect(await graph.removeVertices(["b", "b"])).toBe(1);
    const after = await graph.bfs({ source: "a" });
    expect((await before.toMap()).get("b")).toBe(1);
    expect(await before.get("b")).toBeUndefined();
    expect(Object.fromEntries(await after.toMap())).toEqual({ a: 0, c: Infinity, 4: Infinity, 5: Infinity });
    // One shard takes back what it has given anew.
    await expect(graph.addVertices(["b", "x1", "x2", "x3", "x4", "a"])).rejects.toMatchObject({
      code: "ERR_DUPLICATE_ID",
    });
    const known = async (): Promise<VertexKey[]> => {
      const keys: VertexKey[] = [];
      for await (const key of graph.vertices()) keys.push(key);
      return keys;
    };
    const left = await known();
    expect(left.length).toBe(new Set(left).size);
    await graph.removeVertices(["b", "x1", "x2", "x3", "x4"]);
    await graph.addVertices(["b"]);
    expect(new Set(await known())).toEqual(new Set(["a", "b", "c", 4, 5]));
    expect(await graph.neighbours(["b"])).toEqual([{ keys: [], weights: undefined }]);
    await graph.addEdges([{ source: "a", target: "b" }]);
    expect(await (await graph.bfs({ source: "a" })).get("b")).toBe(1);
    await expect(graph.removeVertices([-1])).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });

  it("are gone also when workers are lost, and cannot go while a run computes", async () => {
    const keys = Array.from({ length: 300 }, (_, key) => key);
    const graph = await ring("lost", keys);
    await take(graph.wcc());
    await graph.removeVertices([7, 8, 9, 200]);
    await loseWorkers(cluster, graph, [0, 1, 2]);
    const found = await take(graph.bfs({ source: 10 }));
    expect(found.size).toBe(296);
    expect([found.get(199), found.get(201), found.get(6)]).toEqual([189, Infinity, Infinity]);
    const refusals: unknown[] = [];
    const ranks = await graph.pageRank({
      iterations: 30,
      onProgress: () => void graph.removeVertices([50]).catch((error: unknown) => refusals.push(error)),
    });
    expect(refusals.length).toBeGreaterThan(0);
    for (const refusal of refusals) expect(refusal).toMatchObject({ code: "ERR_OVERLOADED" });
    const sum = [...(await ranks.toMap()).values()].reduce((a, b) => a + b, 0);
    expect(sum).toBeCloseTo(1, 9);
  }, 180_000);

  it("are seen by a shard that was built before their own shard had heard of the run", async () => {
    const keys = Array.from({ length: 60 }, (_, key) => key);
    const graph = await ring("late", keys);
    await take(graph.wcc());
    const shardOf = (key: VertexKey): number => ownerOfHash(hashOfKey(key), 3);
    const gone = keys.find((key) => shardOf(key) !== shardOf((key + 59) % 60)) as number;
    // The removal and the run's first message wait for the same shard; the others answer the run at once.
    const held = await hold(cluster, shardOf(gone), 10_000);
    const removed = graph.removeVertices([gone]);
    const running = graph.pageRank({ iterations: 5 });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await held.release();
    const ranks = await running;
    expect(await removed).toBe(1);
    expect(ranks.vertices).toBe(59);
    expect(ranks.attempts).toBeGreaterThan(1);
    expect(ranks.edges).toBe(58);
    expect([...(await ranks.toMap()).values()].reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
  });

  it("a superstep ends at its deadline when a shard does not answer, and the graph goes on", async () => {
    const graph = await ring("deadline", [1, 2, 3, 4, 5, 6]);
    let supersteps = 0;
    const running = graph.pageRank({ iterations: 100_000, superstepTimeoutMs: 250, onProgress: () => supersteps++ });
    const ended = running.catch((error: unknown) => error);
    await eventually("it runs", () => supersteps > 0);
    await hold(cluster, 1, 1_200);
    expect(await ended).toMatchObject({ code: "ERR_TIMEOUT", details: { type: "graph.superstep" } });
    expect(await graph.addVertices([7])).toBe(1);
    expect((await graph.wcc()).vertices).toBe(7);
  }, 60_000);

  it("leave no edge behind that was added at the same time", async () => {
    const keys = Array.from({ length: 90 }, (_, key) => key);
    const graph = await ring("race", keys);
    const random = createSeededRandom(SEED);
    const pick = (): number => Math.floor(random.float() * 90);
    const work: Promise<unknown>[] = [];
    const gone = new Set<number>();
    let refused = 0;
    for (let round = 0; round < 60; round++) {
      const edges = Array.from({ length: 20 }, () => ({ source: pick(), target: pick() }));
      for (const edge of edges)
        work.push(
          graph.addEdges([edge]).catch((error: unknown) => {
            expect(error).toMatchObject({ code: "ERR_UNKNOWN_VERTEX" });
            refused++;
          }),
        );
      const key = pick();
      gone.add(key);
      work.push(graph.removeVertices([key]));
      if (round % 20 === 19) work.push(graph.neighbours([0]));
    }
    await Promise.all(work);
    expect(refused).toBeGreaterThan(0);
    const left = keys.filter((key) => !gone.has(key));
    expect(left.length).toBeGreaterThan(10);
    const lists = await graph.neighbours(left);
    expect(lists.every((list) => list?.keys.every((key) => !gone.has(key as number)))).toBe(true);
    expect(lists.some((list) => (list?.keys.length ?? 0) > 1)).toBe(true);
    const ranks = await graph.pageRank();
    expect(ranks.vertices).toBe(left.length);
    expect([...(await ranks.toMap()).values()].reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
  }, 180_000);

  it.each([false, true])(
    "leave none behind that another thread adds meanwhile; ends are made: %s",
    async (creates) => {
      const keys = Array.from({ length: 24 }, (_, key) => key);
      const graph = await ring(`threads-${creates}`, keys);
      const { transferList, ...port } = await cluster.port();
      const worker = new Worker(new URL("./graph-edges.worker.js", import.meta.url), {
        workerData: { port, graph: graph.name, keys: keys.length, creates },
        transferList: [...transferList],
      });
      let counts = { added: 0, refused: 0 };
      let ended = false;
      let failure: unknown;
      worker.on("message", (message: typeof counts | "ended") => {
        if (message === "ended") ended = true;
        else counts = message;
      });
      worker.on("error", (error) => {
        failure = error;
      });
      const enough = (): boolean => counts.added > 200 && (creates || counts.refused > 20);
      for (let round = 0; failure === undefined && (round < 100 || !enough()) && round < 20_000; round++) {
        const key = keys[(round * 11) % keys.length] as number;
        await graph.removeVertices([key]);
        await graph.addVertices([key], { createMissing: true });
      }
      worker.postMessage("stop");
      await eventually("the other thread has stopped", () => ended || failure !== undefined, 60_000);
      await worker.terminate();
      expect(failure).toBeUndefined();
      expect(enough()).toBe(true);
      const known = new Set<VertexKey>();
      for await (const key of graph.vertices()) known.add(key);
      expect(known.size).toBe(keys.length);
      const ends = async (direction: "out" | "in"): Promise<VertexKey[]> =>
        (await graph.neighbours(keys, direction)).flatMap((list) => list?.keys ?? []);
      const out = await ends("out");
      expect(out.every((key) => known.has(key))).toBe(true);
      expect((await ends("in")).length).toBe(out.length);
      expect((await graph.status()).reduce((sum, { edges }) => sum + edges, 0)).toBe(out.length);
      expect([...(await take(graph.pageRank())).values()].reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
    },
    120_000,
  );
});
