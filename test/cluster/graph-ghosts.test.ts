/** Ghosts on real threads: owners know who refers to their vertices, whatever changes and whichever worker is lost; sweeps, bounds, bad input. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { hashOfKey, ownerOfHash } from "../../actors/graph/vertex-key.ts";
import { createRmat } from "../../bench/macro/graph-data.ts";
import type { Cluster, GraphOptions, VertexKey } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";

type Graph = Awaited<ReturnType<Cluster["graph"]>>;

const SHARDS = 3;
let cluster: Cluster;
let graphs = 0;
beforeAll(async () => {
  cluster = await startTestCluster({ workers: SHARDS });
});
afterAll(() => cluster.close());

const shardOf = (key: VertexKey): number => ownerOfHash(hashOfKey(key), SHARDS);

interface Model {
  readonly graph: Graph;
  readonly keys: Set<VertexKey>;
  edges: [VertexKey, VertexKey][];
}

async function drawn(options: GraphOptions): Promise<Model> {
  const graph = await cluster.graph(`ghosts-${graphs++}`, options);
  const { vertices, sources, targets } = createRmat({ scale: 6, edgeFactor: 4, seed: 5, multigraph: true });
  const name = (vertex: number): VertexKey => (vertex % 4 === 0 ? `v${vertex}` : vertex);
  const keys = Array.from({ length: vertices }, (_, vertex) => name(vertex));
  const edges = Array.from(sources, (source, at): [VertexKey, VertexKey] => [
    name(source),
    name(targets[at] as number),
  ]);
  await graph.addVertices(keys);
  await graph.addEdges({ sources: edges.map(([source]) => source), targets: edges.map(([, target]) => target) });
  return { graph, keys: new Set(keys), edges };
}

/** What the owners must know: edges from other shards, by vertex and shard. */
function expected({ keys, edges }: Model): Map<VertexKey, Map<number, number>> {
  const holders = new Map([...keys].map((key) => [key, new Map<number, number>()]));
  for (const [source, target] of edges) {
    const from = shardOf(source);
    if (from !== shardOf(target)) holders.get(target)?.set(from, (holders.get(target)?.get(from) ?? 0) + 1);
  }
  return holders;
}

async function known({ graph, keys }: Model): Promise<Map<VertexKey, Map<number, number>>> {
  const list = [...keys];
  const holders = await graph.holders(list);
  return new Map(
    list.map((key, at) => [key, new Map(holders[at]?.map(({ shard, references }) => [shard, references]))]),
  );
}

const text = (holders: Map<VertexKey, Map<number, number>>): string =>
  JSON.stringify([...holders].map(([key, map]) => [key, [...map].sort(([a], [b]) => a - b)]));

/** Every owner comes to know exactly who refers to its vertices. */
async function settles(model: Model, what: string): Promise<void> {
  const { graph } = model;
  await graph.neighbours([0]); // builds
  const wanted = expected(model);
  await eventually(what, async () => text(await known(model)) === text(wanted), 60_000);
  const status = await graph.ghosts();
  const edges = [...wanted.values()].flatMap((map) => [...map.values()]);
  expect(status.reduce((sum, { references }) => sum + references, 0)).toBe(edges.reduce((a, b) => a + b, 0));
  expect(status.reduce((sum, { ghosts }) => sum + ghosts, 0)).toBe(edges.length);
  expect(status.reduce((sum, { held }) => sum + held, 0)).toBe(
    [...wanted.values()].filter(({ size }) => size > 0).length,
  );
}

async function kill(shard: number): Promise<void> {
  const killed = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard)).exit(1, { priority: "control" });
  await killed.catch(() => undefined);
}

it("follow from the edges, as these come and go", async () => {
  const model = await drawn({ ghosts: true });
  const { graph } = model;
  expect([...expected(model).values()].filter(({ size }) => size > 1).length).toBeGreaterThan(10);
  await settles(model, "owners know their holders");

  const more: [VertexKey, VertexKey][] = model.edges.slice(0, 40).map(([source, target]) => [target, source]);
  await graph.addEdges(more.map(([source, target]) => ({ source, target })));
  model.edges.push(...more);
  await settles(model, "owners know of new edges");

  const cut = model.edges.filter((_, at) => at % 3 === 0);
  await graph.removeEdges(cut.map(([source, target]) => ({ source, target })));
  const isCut = new Set(cut.map((edge) => JSON.stringify(edge)));
  model.edges = model.edges.filter((edge) => !isCut.has(JSON.stringify(edge)));
  await settles(model, "owners know of removed edges");

  const gone = [...model.keys].filter((_, at) => at % 5 === 0);
  await graph.removeVertices(gone);
  for (const key of gone) model.keys.delete(key);
  model.edges = model.edges.filter(([source, target]) => model.keys.has(source) && model.keys.has(target));
  await settles(model, "owners know of removed vertices");
  expect(await graph.holders(gone.slice(0, 1))).toEqual([undefined]);
}, 180_000);

it("are told again when a worker was lost, its own and those of the others", async () => {
  const model = await drawn({ ghosts: { ttlMs: 600 } });
  await settles(model, "owners know their holders");
  for (const shard of [1, 0, 2]) {
    await kill(shard);
    await eventually(
      "all shards serve",
      () =>
        model.graph.status().then(
          () => true,
          () => false,
        ),
      60_000,
    );
    await settles(model, `owners know their holders after shard ${shard} was lost`);
  }
}, 180_000);

it("are checked with their owners, not faster than they may be, and found to be gone", async () => {
  const model = await drawn({ ghosts: { ttlMs: 300, checksPerSecond: 200 } });
  await settles(model, "owners know their holders");
  const beganMs = performance.now();
  const before = await model.graph.ghosts();
  const checks = async (): Promise<number[]> =>
    (await model.graph.ghosts()).map(({ verified }, shard) => verified - (before[shard]?.verified ?? 0));
  await eventually("all shards ask", async () => (await checks()).every((count) => count >= 40));
  const found = await checks();
  const elapsedMs = performance.now() - beganMs;
  // A sweep's share (100 ms of it) may have been saved up.
  for (const count of found) expect(count).toBeLessThanOrEqual(0.2 * (elapsedMs + 100) + 1);

  // Nobody builds or asks: only the sweep tells that vertices are gone.
  const counts = expected(model);
  const gone = [...model.keys].filter((key) => (counts.get(key)?.size ?? 0) === 2).slice(0, 3);
  expect(gone.length).toBe(3);
  await model.graph.removeVertices(gone);
  await eventually(
    "the sweep finds them",
    async () => (await model.graph.ghosts()).reduce((sum, status) => sum + status.gone, 0) === 6,
  );
}, 180_000);

it("are as many as they may be; edges beyond have none", async () => {
  const model = await drawn({ ghosts: { capacity: 5 } });
  await model.graph.neighbours([1]);
  const status = await model.graph.ghosts();
  expect(status.map(({ ghosts }) => ghosts)).toEqual([5, 5, 5]);
  for (const { unheld } of status) expect(unheld).toBeGreaterThan(0);
  expect((await model.graph.wcc()).edges).toBe(model.edges.length);
  await cluster.dropGraph(model.graph.name);
  await expect(model.graph.ghosts()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
});

it("are refused where there are none, and with options that are none", async () => {
  const bad = { code: "ERR_INVALID_ARGUMENT" };
  const plain = await cluster.graph("plain");
  await plain.addVertices([1]);
  await expect(plain.ghosts()).rejects.toMatchObject(bad);
  await expect(plain.holders([1])).rejects.toMatchObject(bad);
  await expect(cluster.graph("bad", { ghosts: { capacity: 0 } })).rejects.toMatchObject(bad);
  await expect(cluster.graph("bad", { ghosts: { ttlMs: Number.NaN } })).rejects.toMatchObject(bad);
  await expect(cluster.graph("bad", { ghosts: "yes" as never })).rejects.toMatchObject(bad);
  const mismatch = { code: "ERR_COLLECTION_MISMATCH", details: { name: "ghosts" } };
  await expect(cluster.graph("plain", { ghosts: true })).rejects.toMatchObject(mismatch);
});
