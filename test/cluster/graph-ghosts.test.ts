/** Ghosts on real threads: owners know who refers to their vertices, whatever changes and whichever worker is lost; sweeps, bounds, bad input. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { hashOfKey, ownerOfHash } from "../../actors/graph/vertex-key.ts";
import { createRmat } from "../../bench/macro/graph-data.ts";
import type { Cluster, GraphOptions, VertexKey } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";

type Graph = Awaited<ReturnType<Cluster["graph"]>>;

const SHARDS = 3;
const isLong = process.env["SHARDLOOM_LONG"] === "1";
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

/** A graph with three vertices on each shard, each with an edge to all of the other shards. */
async function tripartite(options: GraphOptions): Promise<{ graph: Graph; of: (shard: number) => VertexKey[] }> {
  const graph = await cluster.graph(`ghosts-${graphs++}`, {
    vertexProperties: { size: "number", name: "text" },
    ...options,
  });
  const keys = Array.from({ length: 200 }, (_, at): VertexKey => (at % 2 === 0 ? at : `v${at}`));
  const of = (shard: number): VertexKey[] => keys.filter((key) => shardOf(key) === shard).slice(0, 3);
  const all = [0, 1, 2].flatMap(of);
  await graph.addVertices(all);
  await graph.setProperties(all, {
    size: all.map((_, at) => at),
    name: all.map((key) => (key === all[4] ? null : `the ${key}`)),
  });
  const pairs = all.flatMap((source) => all.map((target) => ({ source, target })));
  await graph.addEdges(pairs.filter(({ source, target }) => shardOf(source) !== shardOf(target)));
  return { graph, of };
}

/** Hits and misses of one shard, and ghosts that it has without edges. */
async function uses(graph: Graph, shard: number): Promise<number[]> {
  const { hits, misses, cached } = (await graph.ghosts())[shard] as Awaited<ReturnType<Graph["ghosts"]>>[number];
  return [hits, misses, cached];
}

it("tell what the other ends of edges carry, as long as their owners have the workers that told it", async () => {
  const { graph, of } = await tripartite({ ghosts: { ttlMs: 1e9 } });
  const ask = async (names: string[], direction?: "in"): Promise<unknown[]> => {
    const [list] = await graph.neighbours(of(0).slice(0, 1), direction, { vertexProperties: names });
    const keys = [...of(1), ...of(2)];
    expect(new Set(list?.keys)).toEqual(new Set(keys));
    const values = keys.map((key) => list?.vertexProperties?.[list.keys.indexOf(key)]);
    return values;
  };
  const wanted = await graph.properties([...of(1), ...of(2)]);
  expect(wanted[1]).toEqual({ size: 4 });
  expect(await ask(["size", "name"])).toEqual(wanted);
  expect(await uses(graph, 0)).toEqual([0, 6, 0]);
  expect(await ask(["name"], "in")).toEqual(wanted.map((values) => ({ ...values, size: undefined })));
  expect(await ask(["size", "name"])).toEqual(wanted);
  expect(await uses(graph, 0)).toEqual([12, 6, 0]);
  // A change is not seen before the ghost is too old, or its owner has a new worker.
  const [far] = of(1) as [VertexKey];
  await graph.setProperties([far, ...of(2).slice(0, 1)], { size: [100, 200] });
  expect(await ask(["size", "name"])).toEqual(wanted);
  await kill(1);
  await eventually(
    "all shards serve",
    () =>
      graph.status().then(
        () => true,
        () => false,
      ),
    60_000,
  );
  const [hits = 0, misses = 0] = await uses(graph, 0);
  const now = wanted.map((values, at) => (at === 0 ? { ...values, size: 100 } : values));
  expect(await ask(["size", "name"])).toEqual(now);
  const [hitsThen = 0, missesThen = 0] = await uses(graph, 0);
  expect(missesThen - misses).toBeGreaterThanOrEqual(3); // more when it was asked again, as it did not know the new worker yet
  expect(hitsThen - hits).toBe(missesThen - misses);
  expect(await ask(["size", "name"])).toEqual(now);
  expect(await uses(graph, 0)).toEqual([hitsThen + 6, missesThen, 0]);
}, 120_000);

it("tell that for as long as they may, and are no more than they may be", async () => {
  const { graph, of } = await tripartite({ ghosts: { ttlMs: 300, capacity: 2 }, directed: true });
  // Ghosts with references take all the room: what is read is kept for two vertices.
  const ask = async (): Promise<(number | string | undefined)[]> => {
    const [list] = await graph.neighbours(of(0).slice(0, 1), "out", { vertexProperties: ["size"] });
    return [...of(1), ...of(2)].map((key) => list?.vertexProperties?.[list.keys.indexOf(key)]?.["size"]);
  };
  expect(await ask()).toEqual([3, 4, 5, 6, 7, 8]);
  await ask();
  const [{ ghosts, hits, cached, misses }] = (await graph.ghosts()) as [Awaited<ReturnType<Graph["ghosts"]>>[number]];
  expect({ ghosts, cached, asked: hits + misses }).toEqual({ ghosts: 2, cached: 0, asked: 12 });
  expect(hits).toBeLessThanOrEqual(2);
  await graph.setProperties([...of(1), ...of(2)], { size: [10, 11, 12, 13, 14, 15] });
  await eventually("new values are seen", async () => (await ask()).join() === "10,11,12,13,14,15");

  // Without references they are a cache: the one used longest ago goes.
  const back = await tripartite({ ghosts: { capacity: 4, ttlMs: 1e9 } });
  const [own] = back.of(0) as [VertexKey];
  await back.graph.removeEdges(
    back.of(0).flatMap((source) => [1, 2].flatMap((shard) => back.of(shard).map((target) => ({ source, target })))),
  );
  const [list] = await back.graph.neighbours([own], "in", { vertexProperties: ["size"] });
  expect(new Set(list?.keys)).toEqual(new Set([...back.of(1), ...back.of(2)]));
  expect((await back.graph.ghosts())[0]).toMatchObject({ ghosts: 0, cached: 4, evicted: 2, misses: 6 });
});

it("without them what the other ends carry is as it is now", async () => {
  const { graph, of } = await tripartite({ directed: false });
  const sizes = async (): Promise<unknown> =>
    (await graph.neighbours([...of(0), "stranger"], "out", { vertexProperties: ["size"] })).map((list) =>
      list?.vertexProperties?.map((values) => values?.["size"]).sort(),
    );
  expect(await sizes()).toEqual([...of(0).map(() => [3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8]), undefined]);
  await graph.setProperties(of(2), { size: [0, null, 0] });
  expect(await sizes()).toEqual([...of(0).map(() => [0, 0, 0, 0, 3, 3, 4, 4, 5, 5, undefined, undefined]), undefined]);
  const bad = { code: "ERR_INVALID_ARGUMENT" };
  await expect(graph.neighbours(of(0), "out", { vertexProperties: ["weight"] })).rejects.toMatchObject(bad);
  await expect(graph.neighbours(of(0), "out", { vertexProperties: "size" as never })).rejects.toMatchObject(bad);
});

it.each(isLong ? [65_536, 2 ** 18] : [40_000])(
  "of %i of very many vertices, no worker is taken for a hung one",
  async (capacity) => {
    const count = isLong ? 400_000 : 110_000;
    await using many = await startTestCluster({ workers: 2 });
    expect(many.options.maxHandlerMs).toBe(1_000);
    let lost = 0;
    many.on("worker-lost", () => lost++);
    const graph = await many.graph("many", { ghosts: { capacity } });
    const owner = (key: number): number => ownerOfHash(hashOfKey(key), 2);
    const keys = Array.from({ length: count }, (_, at) => at);
    const parts = [0, 1].map((shard) => keys.filter((key) => owner(key) === shard));
    const each = Math.min(...parts.map(({ length }) => length));
    const [zero, one] = parts.map((part) => part.slice(0, each)) as [number[], number[]];
    const edges = { sources: [...zero, ...one], targets: [...one, ...zero] };
    await graph.load([{ edges }], { createMissing: true });
    await graph.neighbours([0]);
    const status = await graph.ghosts();
    const total = (of: (one: (typeof status)[number]) => number): number =>
      status.reduce((sum, one) => sum + of(one), 0);
    expect(total(({ ghosts, unheld }) => ghosts + unheld)).toBe(2 * each);
    await eventually("owners know", async () => (await graph.ghosts()).every(({ untold }) => untold === 0), 120_000);
    expect((await graph.ghosts()).reduce((sum, { held }) => sum + held, 0)).toBe(total(({ ghosts }) => ghosts));
    await graph.removeEdges([{ source: zero[0] as number, target: one[0] as number }]);
    expect(lost).toBe(0);
    if (!isLong) return;
    // Who follows a worker counts all of them anew, and is told all of them again.
    await many
      .actor(saboteur, keyOnShard(many, saboteur, 1))
      .exit(1)
      .catch(() => undefined);
    await eventually(
      "all is known again",
      async () => {
        const again = await graph
          .neighbours([0])
          .then(() => graph.ghosts())
          .catch(() => []);
        const known = (of: (one: (typeof again)[number]) => number): number =>
          again.reduce((sum, one) => sum + of(one), 0);
        return (
          again.length === 2 &&
          known(({ untold }) => untold) === 0 &&
          known(({ held }) => held) === known(({ ghosts }) => ghosts)
        );
      },
      120_000,
    );
    expect(lost).toBe(1);
  },
  240_000,
);

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
