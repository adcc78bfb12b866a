/**
 * On several numbers of shards and by both ways of exchange, on real threads: the example and validation graphs of LDBC Graphalytics give what is
 * expected, and graphs that are drawn give what one shard does, bit for bit where nothing is rounded.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hashOfKey } from "../../actors/graph/vertex-key.ts";
import { createRmat } from "../../bench/macro/graph-data.ts";
import { Cluster, type GraphResult, type VertexKey } from "../../src/index.ts";
import { differences, loadLdbc, runLdbc } from "../support/graphs.ts";
import { LDBC_GRAPHS } from "../support/ldbc-graphs.ts";

type Graph = Awaited<ReturnType<Cluster["graph"]>>;
type Exchange = "push" | "pull" | "auto";
type Values = ReadonlyMap<VertexKey, number>;

const LONG: boolean = process.env["SHARDLOOM_LONG"] === "1";
const SEED = Number(process.env["SEED"] ?? 10);

/** What is chosen by density is one of the two in each superstep: one number of shards is enough for it. */
const EXCHANGES = (workers: number): readonly Exchange[] =>
  workers === 3 ? ["push", "pull", "auto"] : ["push", "pull"];

const start = (workers: number): Promise<Cluster> =>
  Cluster.start({ workers, memoryBytes: 256 * 1024 * 1024, startTimeoutMs: 60_000 });

/** Sums are rounded, in an order that depends on the sharding. */
const ROUNDED: ReadonlySet<string> = new Set(["pageRank", "lcc", "sssp"]);

/** With loops and parallel edges, and with vertices that have no edge. */
const DRAWN = createRmat({ scale: 9, edgeFactor: 6, seed: SEED, weighted: true, multigraph: true });
const source = DRAWN.sources[0] as number;

const RUNS: Readonly<Record<string, (graph: Graph, exchange: Exchange) => Promise<GraphResult>>> = {
  pageRank: (graph, exchange) => graph.pageRank({ iterations: 12, exchange }),
  bfs: (graph, exchange) => graph.bfs({ source, exchange }),
  sssp: (graph, exchange) => graph.sssp({ source, exchange }),
  wcc: (graph, exchange) => graph.wcc({ exchange }),
  cdlp: (graph, exchange) => graph.cdlp({ iterations: 6, exchange }),
  lcc: (graph, exchange) => graph.lcc({ exchange }),
};

async function loadDrawn(cluster: Cluster): Promise<Graph> {
  const { vertices, sources, targets, weights } = DRAWN;
  const graph = await cluster.graph("drawn", { weighted: true });
  await graph.addVertices(Array.from({ length: vertices }, (_, key) => key));
  await graph.addEdges({ sources, targets, weights: weights as Float64Array });
  return graph;
}

/** Text that has the hash of other text; each is a component of its own, half of them with more text and a number. */
const SAME_HASH: readonly (readonly [string, string])[] = Array.from({ length: 6 }, (_, at) => [
  `v${85_494 + at}`,
  `v${134_500 + at}`,
]);

async function loadNames(cluster: Cluster): Promise<Graph> {
  const graph = await cluster.graph("names");
  const edges: { source: VertexKey; target: VertexKey }[] = [];
  for (const [at, pair] of SAME_HASH.slice(0, 3).entries())
    for (const [side, source] of pair.entries())
      for (const target of [`${at}-${side}`, `${at}+${side}`, 10 * at + side]) edges.push({ source, target });
  await graph.addVertices(SAME_HASH.flat());
  await graph.addEdges(edges, { createMissing: true });
  return graph;
}

async function valuesOf(running: Promise<GraphResult>): Promise<Values> {
  const result = await running;
  const values = (await result.toMap()) as Values;
  await result.close();
  return values;
}

/** What one shard gives, of each run and of the names. */
let alone: { readonly runs: ReadonlyMap<string, Values>; readonly names: Values };

beforeAll(async () => {
  const cluster = await start(1);
  try {
    const graph = await loadDrawn(cluster);
    const runs = new Map<string, Values>();
    for (const [name, run] of Object.entries(RUNS)) runs.set(name, await valuesOf(run(graph, "auto")));
    alone = { runs, names: await valuesOf((await loadNames(cluster)).wcc()) };
  } finally {
    await cluster.close();
  }
}, 60_000);

function compare(name: string, exchange: Exchange, found: Values): void {
  const expected = alone.runs.get(name) as Values;
  const what = `${name} by ${exchange}`;
  if (!ROUNDED.has(name)) {
    expect(found, what).toEqual(expected);
    return;
  }
  expect(new Set(found.keys()), what).toEqual(new Set(expected.keys()));
  const isSame = (one: number, other: number): boolean =>
    one === other || Math.abs(one - other) <= 1e-9 * Math.abs(other);
  expect(
    [...expected].filter(([key, value]) => !isSame(found.get(key) as number, value)),
    name,
  ).toEqual([]);
}

describe.each([1, 2, 3, 7, 16])("on %i shards", (workers) => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await start(workers);
  }, 60_000);
  afterAll(() => cluster.close());

  // Threads are many more than cores on 16 shards: a short run has the examples there, of which each has all algorithms.
  const graphs = LDBC_GRAPHS.filter(({ name }) => workers < 16 || LONG || name.startsWith("example"));

  it.each(graphs)("gives what is expected of $name", async (graph) => {
    const loaded = await loadLdbc(cluster, graph.name, graph);
    const wrong: string[] = [];
    for (const [algorithm, { params, output }] of Object.entries(graph.expected)) {
      for (const exchange of EXCHANGES(workers)) {
        const found = await runLdbc(loaded, algorithm, params, exchange);
        wrong.push(...differences(algorithm, output, found).map((line) => `${algorithm} by ${exchange}: ${line}`));
      }
    }
    expect(wrong).toEqual([]);
    expect(Object.keys(graph.expected).length).toBeGreaterThan(0);
    await cluster.dropGraph(graph.name);
  });

  it("gives what one shard gives of a drawn graph", async () => {
    const graph = await loadDrawn(cluster);
    for (const [name, run] of Object.entries(RUNS))
      for (const exchange of EXCHANGES(workers)) compare(name, exchange, await valuesOf(run(graph, exchange)));
    await cluster.dropGraph(graph.name);
  }, 60_000);

  it("names components as one shard does where keys are text", async () => {
    const graph = await loadNames(cluster);
    for (const exchange of EXCHANGES(workers)) expect(await valuesOf(graph.wcc({ exchange }))).toEqual(alone.names);
    for (const [one, other] of SAME_HASH) {
      expect(hashOfKey(one)).toBe(hashOfKey(other));
      expect(alone.names.get(one)).not.toBe(alone.names.get(other));
    }
    expect(new Set(alone.names.values()).size).toBe(2 * SAME_HASH.length);
    await cluster.dropGraph(graph.name);
  });
});
