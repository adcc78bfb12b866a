/** Traversals on real threads: against a plain reference on LDBC's and random graphs, their bounds, and how they end. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createRmat } from "../../bench/macro/graph-data.ts";
import type { Cluster, Motif, MotifMatch, VertexKey } from "../../src/index.ts";
import {
  byKey,
  type ReferenceGraph,
  referenceBfs,
  referenceGraph,
  referenceSssp,
  referenceTriangles,
  type WeightedEdge,
} from "../../src/sim/workloads/graph-reference.ts";
import { EXAMPLES, HAS_GRAPHS, ldbcNames, readLdbc } from "../actors/graph/ldbc.ts";
import { saboteur } from "../support/actors.ts";
import { keyOnShard, startTestCluster } from "../support/cluster.ts";

type Graph = Awaited<ReturnType<Cluster["graph"]>>;

interface Input {
  readonly name: string;
  readonly directed: boolean;
  readonly vertices: readonly VertexKey[];
  readonly edges: readonly WeightedEdge[];
}

function randomGraph(name: string, directed: boolean, seed: number): Input {
  const { vertices, sources, targets, weights } = createRmat({ scale: 7, edgeFactor: 4, seed, weighted: true });
  // Some keys are text, so that a shard has both kinds.
  const key = (vertex: number): VertexKey => (vertex % 5 === 0 ? `v${vertex}` : vertex);
  return {
    name,
    directed,
    vertices: Array.from({ length: vertices }, (_, vertex) => key(vertex)),
    edges: Array.from(sources, (source, at) => [key(source), key(targets[at] as number), weights?.[at]]),
  };
}

async function load(cluster: Cluster, { name, directed, vertices, edges }: Input): Promise<Graph> {
  const weighted = edges.some(([, , weight]) => weight !== undefined);
  const graph = await cluster.graph(name, { directed, weighted });
  await graph.addVertices(vertices);
  await graph.addEdges({
    sources: edges.map(([source]) => source),
    targets: edges.map(([, target]) => target),
    weights: weighted ? edges.map(([, , weight = 1]) => weight) : undefined,
  });
  return graph;
}

const TRIANGLE: Motif = {
  edges: [
    { from: "a", to: "b" },
    { from: "b", to: "c" },
    { from: "c", to: "a" },
  ],
};
const FORK: Motif = {
  edges: [
    { from: "a", to: "b" },
    { from: "a", to: "c" },
    { from: "b", to: "c" },
  ],
};

/** Directed cycles of three vertices, and forks whose ends are joined, by trying all. */
function countMotifs({ out, keys }: ReferenceGraph): { cycles: number; forks: number } {
  const sets = out.map((list) => new Set(list));
  let [cycles, forks] = [0, 0];
  for (const a of keys.keys())
    for (const b of sets[a] as Set<number>)
      for (const c of sets[b] as Set<number>) {
        if (a === b || b === c || a === c) continue;
        if (sets[c]?.has(a) === true) cycles++;
        if (sets[a]?.has(c) === true) forks++;
      }
  return { cycles: cycles / 3, forks };
}

/** Every edge of the motif is an edge of the graph, between different vertices. */
function isMatch({ out, indexes }: ReferenceGraph, { edges }: Motif, match: MotifMatch): boolean {
  const at = (name: string): number => indexes.get(match[name] as VertexKey) as number;
  const isDistinct = new Set(Object.values(match)).size === Object.keys(match).length;
  return isDistinct && edges.every(({ from, to }) => out[at(from)]?.includes(at(to)) === true);
}

async function compareAll(graph: Graph, input: Input): Promise<void> {
  const reference = referenceGraph(input.vertices, input.edges, input.directed);
  const backwards = referenceGraph(
    input.vertices,
    input.edges.map(([source, target, weight]) => [target, source, weight]),
    input.directed,
  );
  const found: VertexKey[] = [];
  for await (const key of graph.vertices()) found.push(key);
  expect(new Set(found)).toEqual(new Set(input.vertices));
  expect(found.length).toBe(input.vertices.length);

  const starts = [0, 0.4, 0.9].map((part) => input.vertices[Math.floor(part * input.vertices.length)] as VertexKey);
  for (const start of starts) {
    const depths = byKey(reference, referenceBfs(reference, start));
    for (const hops of [0, 1, 2, input.vertices.length]) {
      const { depths: reached, truncated } = await graph.kHop([start], { hops, batchSize: 7 });
      expect(truncated).toBeUndefined();
      expect(new Map(reached)).toEqual(new Map([...depths].filter(([, depth]) => depth <= hops)));
    }
    const before = byKey(backwards, referenceBfs(backwards, start));
    const into = await graph.kHop([start], { hops: 2, direction: "in" });
    expect(new Map(into.depths)).toEqual(new Map([...before].filter(([, depth]) => depth <= 2)));

    const weights = byKey(reference, referenceSssp(reference, start));
    for (const end of starts) {
      const fewest = await graph.shortestPath(start, end);
      expect(fewest.distance).toBe(depths.get(end));
      expect(fewest.path?.length ?? Number.POSITIVE_INFINITY).toBe((depths.get(end) as number) + 1);
      if (!graph.weighted) continue;
      const least = await graph.shortestPath(start, end, { weighted: true, batchSize: 4 });
      expect(least.distance).toBeCloseTo(weights.get(end) as number, 9);
      if (least.path !== undefined) expect([least.path[0], least.path.at(-1)]).toEqual([start, end]);
    }
  }

  const triangles = await graph.countTriangles({ batchSize: 16 });
  expect(triangles).toMatchObject({ triangles: referenceTriangles(reference), vertices: input.vertices.length });
  const { cycles, forks } = countMotifs(reference);
  const [asCycles, asForks] = [await graph.findMotif(TRIANGLE), await graph.findMotif(FORK, { batchSize: 9 })];
  expect(asCycles.matches.every((match) => isMatch(reference, TRIANGLE, match))).toBe(true);
  expect(asForks.matches.every((match) => isMatch(reference, FORK, match))).toBe(true);
  expect([asCycles.matches.length, asForks.matches.length]).toEqual([cycles, forks]);
}

describe.each([1, 3, 7])("on %i shards, traversals give what a plain reference gives", (workers) => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await startTestCluster({ workers });
  }, 180_000);
  afterAll(() => cluster.close());

  it.each([randomGraph("random-directed", true, 3), randomGraph("random-undirected", false, 4), ...EXAMPLES])(
    "of $name",
    async (input) => {
      await compareAll(await load(cluster, input), input);
    },
    180_000,
  );

  it.skipIf(!HAS_GRAPHS)(
    "of LDBC's validation graphs",
    async () => {
      const names = ldbcNames().filter((name) => name.startsWith("test-"));
      expect(names.length).toBeGreaterThan(5);
      for (const name of names) {
        const input = await readLdbc(name);
        await compareAll(await load(cluster, input), input);
        await cluster.dropGraph(name);
      }
    },
    120_000,
  );
});

describe("traversals", () => {
  const RING = 400;
  let cluster: Cluster;
  let ring: Graph;
  beforeAll(async () => {
    cluster = await startTestCluster({ workers: 3 });
    const keys = Array.from({ length: RING }, (_, key) => key);
    ring = await cluster.graph("ring", { weighted: true });
    await ring.addVertices(keys);
    await ring.addEdges({ sources: keys, targets: keys.map((key) => (key + 1) % RING) });
  });
  afterAll(() => cluster.close());

  it("say when a bound has cut them short, and which", async () => {
    const vertices = await ring.kHop([0], { hops: RING, maxVertices: 10 });
    expect([vertices.depths.size, vertices.truncated]).toEqual([10, { by: "vertices", limit: 10 }]);
    expect((await ring.kHop([0], { hops: RING, maxEdges: 20 })).truncated).toEqual({ by: "edges", limit: 20 });
    const path = await ring.shortestPath(0, 200, { maxEdges: 30 });
    expect([path.path, path.truncated]).toEqual([undefined, { by: "edges", limit: 30 }]);
    const pairs = await ring.findMotif({ edges: [{ from: "a", to: "b" }] }, { maxMatches: 7 });
    expect([pairs.matches.length, pairs.truncated]).toEqual([7, { by: "matches", limit: 7 }]);
    const steps = await ring.findMotif({ edges: [{ from: "a", to: "b" }] }, { maxSteps: 50 });
    expect(steps.truncated).toEqual({ by: "steps", limit: 50 });
    const counted = await ring.countTriangles({ maxEdges: 100, batchSize: 10 });
    expect(counted).toMatchObject({ triangles: 0, truncated: { by: "edges", limit: 100 } });
    expect(counted.vertices).toBeLessThan(RING);
  });

  it("begin where they are told, and see what has changed since", async () => {
    const both = await ring.kHop([0, 200], { hops: 1 });
    expect([...both.depths].map(([key]) => key)).toEqual([0, 200, 1, 201]);
    const anchored = await ring.findMotif({
      edges: [
        { from: "a", to: "b" },
        { from: "b", to: "c" },
      ],
      anchors: { b: 5 },
    });
    expect(anchored.matches).toEqual([{ a: 4, b: 5, c: 6 }]);
    const before = await ring.shortestPath(0, 300);
    expect(before.distance).toBe(300);
    await ring.addEdges([{ source: 0, target: 299, weight: 1000 }]);
    expect((await ring.shortestPath(0, 300)).path).toEqual([0, 299, 300]);
    expect((await ring.shortestPath(0, 300, { weighted: true })).distance).toBe(300);
    expect((await ring.countTriangles({ vertices: [298, 299, 0] })).vertices).toBe(3);
    await ring.removeEdges([{ source: 0, target: 299 }]);
    expect((await ring.shortestPath(0, 300)).distance).toBe(300);
  });

  it("refuse what they cannot do, with what is wrong", async () => {
    const unknown = { code: "ERR_UNKNOWN_VERTEX", details: { vertex: 9999 } };
    const bad = { code: "ERR_INVALID_ARGUMENT" };
    await expect(ring.kHop([0, 9999], { hops: 1 })).rejects.toMatchObject(unknown);
    await expect(ring.shortestPath(0, 9999)).rejects.toMatchObject(unknown);
    await expect(ring.shortestPath(9999, 0)).rejects.toMatchObject(unknown);
    await expect(ring.countTriangles({ vertices: [9999] })).rejects.toMatchObject(unknown);
    const anchors = { a: 9999 };
    await expect(ring.findMotif({ ...TRIANGLE, anchors })).rejects.toMatchObject(unknown);
    await expect(ring.kHop([], { hops: 1 })).rejects.toMatchObject(bad);
    await expect(ring.kHop([-1], { hops: 1 })).rejects.toMatchObject(bad);
    await expect(ring.kHop([0], { hops: -1 })).rejects.toMatchObject(bad);
    await expect(ring.kHop([0], { hops: 1, batchSize: 0 })).rejects.toMatchObject(bad);
    await expect(ring.kHop([0], { hops: 1, timeoutMs: 0 })).rejects.toMatchObject(bad);
    await expect(ring.findMotif({ edges: [] })).rejects.toMatchObject(bad);
    await ring.addEdges([{ source: 7, target: 8, weight: -2 }]);
    const negative = ring.shortestPath(6, 9, { weighted: true });
    await expect(negative).rejects.toMatchObject({ ...bad, details: { vertex: 7, target: 8, value: -2 } });
    await ring.removeEdges([{ source: 7, target: 8 }]);
    await ring.addEdges([{ source: 7, target: 8 }]);
    const plain = await cluster.graph("plain");
    await plain.addVertices([1, 2]);
    await expect(plain.shortestPath(1, 2, { weighted: true })).rejects.toMatchObject(bad);
  });

  it("end when they are cancelled or take too long, and a lost worker does not end them", async () => {
    const abort = new AbortController();
    const walk = ring.kHop([0], { hops: RING, signal: abort.signal });
    setImmediate(() => abort.abort(new Error("enough")));
    await expect(walk).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expect(ring.kHop([0], { hops: RING, timeoutMs: 3 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    await expect(ring.countTriangles({ timeoutMs: 1e-6 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });

    const expected = await ring.countTriangles();
    const [whole, counted] = [ring.kHop([0], { hops: RING }), ring.countTriangles()];
    const killed = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 1)).exit(1, { priority: "control" });
    await killed.catch(() => undefined);
    const { depths } = await whole;
    expect([...depths]).toEqual(Array.from({ length: RING }, (_, key) => [key, key]));
    expect(await counted).toEqual(expected);
    expect((await ring.status()).map(({ runs }) => runs)).toEqual([0, 0, 0]);
  }, 180_000);

  it("of a graph that was dropped are refused", async () => {
    const gone = await cluster.graph("gone");
    await gone.addVertices([1]);
    await cluster.dropGraph("gone");
    await expect(gone.kHop([1], { hops: 1 })).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    await expect(gone.findMotif(TRIANGLE)).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
  });
});
