/** Shards that are removed from under graphs, on real threads: what they had is on the others, with every edge, whoever changes it meanwhile. */
import { expect, it } from "vitest";
import { type Cluster, type ClusterOptions, connect, ShardloomError, type VertexKey } from "../../src/index.ts";
import { eventually } from "../support/cluster.ts";
import { codeOf, kill, startCopies, stateOf, whenState } from "../support/copies.ts";
import { contentsOf, type Graph, keyOf, loadedGraph, totalOf } from "../support/graph-contents.ts";

function start(options: ClusterOptions = {}): Promise<Cluster> {
  return startCopies({ replicationFactor: 2, ...options });
}

/** Edges between shards, as owners know them. */
async function references(graph: Graph): Promise<{ held: number; shards: Set<number> }> {
  const keys: VertexKey[] = [];
  for await (const key of graph.vertices()) keys.push(key);
  const lists = (await graph.holders(keys)).flatMap((list) => list ?? []);
  return {
    held: lists.reduce((sum, holder) => sum + holder.references, 0),
    shards: new Set(lists.map(({ shard }) => shard)),
  };
}

it.each([true, false])(
  "what a graph had on a removed shard is on the others; directed: %s",
  async (directed) => {
    await using cluster = await start();
    const graph = await loadedGraph(cluster, "roads", { directed });
    const { number } = await graph.decay({ rate: 0.5 });
    const before = await contentsOf(graph);
    const counts = await totalOf(graph);
    await using other = await connect(await cluster.port());
    const elsewhere = await other.graph("roads");
    const [, had] = await graph.status();
    const result = await graph.wcc();
    const { graphs } = await cluster.remove(1);
    expect(graphs).toEqual([{ name: "roads", vertices: had?.vertices, edges: had?.edges }]);
    expect(had?.edges).toBeGreaterThan(50);
    await graph.decay({ rate: 0.5, number }); // it was done before
    expect(await contentsOf(graph)).toEqual(before);
    expect(await graph.status()).toHaveLength(2);
    expect(await totalOf(graph)).toEqual(counts);
    const ranks = await graph.pageRank({ exchange: "push" });
    expect([...(await ranks.toMap()).values()].reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
    expect(ranks).toMatchObject(counts);
    // Nobody has ghosts for the shard that is gone, and those of the others are right.
    await eventually("owners know their holders", async () => {
      const wanted = (await graph.ghosts()).reduce((sum, status) => sum + status.references, 0);
      const { held, shards } = await references(graph);
      return wanted > 0 && held === wanted && [...shards].every((shard) => shard === 0 || shard === 2);
    });
    await expect(result.get(1)).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION", message: /was moved/ });
    await result.close();
    // Who has a handle through a port opens it anew.
    await expect(elsewhere.status()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    expect(await contentsOf(await other.graph("roads"))).toEqual(before);
    // It goes on as any other, under its name and beside new ones.
    expect(await (await cluster.graph("roads")).addVertices([5_000, "new"])).toBe(2);
    expect(await graph.addEdges([{ source: 5_000, target: "new", weight: 3 }])).toBe(1);
    expect((await graph.neighbours(["new"], "in"))[0]?.keys).toEqual([5_000]);
    await kill(cluster, 2);
    expect((await graph.neighbours([5_000]))[0]?.weights).toEqual(Float64Array.of(3));
    const more = await cluster.graph("more");
    await more.load([{ edges: { sources: [1, 2, 3, 4], targets: [2, 3, 4, 1] } }], { createMissing: true });
    expect((await more.wcc()).vertices).toBe(4);
    expect(await cluster.dropGraph("roads")).toBe(true);
    await expect(graph.status()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
  },
  60_000,
);

it("every edge that was acknowledged while its shard was removed is there, once", async () => {
  await using cluster = await start();
  const graph = await loadedGraph(cluster, "roads");
  const { edges } = await totalOf(graph);
  const codes = new Set<string>();
  let added = 0;
  let running = true;
  const writer = (async () => {
    for (let at = 0; running; at++) {
      try {
        added += await graph.addEdges([{ source: keyOf(1 + (at % 4)), target: keyOf(10 + (at % 7)), weight: 1 }]);
      } catch (error) {
        codes.add(codeOf(error));
      }
    }
  })();
  try {
    await eventually("some edges", () => added > 20);
    await cluster.remove(2);
    const then = added;
    await eventually("edges are added to what was moved", () => added > then + 20);
  } finally {
    running = false;
    await writer;
  }
  codes.delete("ERR_UNKNOWN_COLLECTION"); // who had waited for the graph that was there before
  expect([...codes]).toEqual([]);
  expect((await totalOf(graph)).edges).toBe(edges + added);
}, 60_000);

it("weights decay once in every tick, also in one in which their graph is moved", async () => {
  await using cluster = await start();
  const graph = await loadedGraph(cluster, "roads");
  await graph.addVertices(["from", "to"]);
  await graph.addEdges([{ source: "from", target: "to", weight: 1 }]);
  const barrier = await cluster.barrier("ticks", { phases: ["decay"], members: ["watcher"] });
  let ticks = 0;
  const decaying = await graph.decayOnTicks(barrier, { rate: 0.5, onDecay: () => ticks++ });
  let running = true;
  const ticker = (async () => {
    for (let round = 0; running; round++) await barrier.arrive("watcher", "decay", { round });
  })();
  try {
    await eventually("it decays", () => ticks > 3);
    expect((await cluster.remove(2)).graphs).toHaveLength(1);
    const then = ticks;
    await eventually("it decays where it is now", () => ticks > then + 3);
  } finally {
    running = false;
    await ticker;
  }
  await decaying.stop();
  expect((await graph.neighbours(["from"]))[0]?.weights?.[0]).toBe(0.5 ** ticks);
}, 60_000);

it("a graph that runs compute over stays where it is, and so does its shard", async () => {
  await using cluster = await start();
  const graph = await loadedGraph(cluster, "roads");
  const before = await contentsOf(graph);
  const ended = new AbortController();
  let supersteps = 0;
  const running = graph.pageRank({
    iterations: 100_000,
    signal: ended.signal,
    onProgress: () => {
      supersteps++;
    },
  });
  await eventually("it runs", () => supersteps > 0);
  const refused = await cluster.remove(1, { timeoutMs: 3_000 }).catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: "ERR_OVERLOADED" });
  expect(stateOf(cluster, 1)).toBe("up");
  const then = supersteps;
  await eventually("it goes on", () => supersteps > then);
  const removal = cluster.remove(1);
  await whenState(cluster, 1, "draining");
  ended.abort();
  await expect(running).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect((await removal).graphs).toHaveLength(1);
  expect(await contentsOf(graph)).toEqual(before);
}, 60_000);

it("a graph is as it was when a worker is lost while it is moved, and can be moved then", async () => {
  await using cluster = await start();
  const graph = await loadedGraph(cluster, "roads");
  // Long texts: the copy takes some hundred messages to each shard, and what kills one of them is before all but the first.
  const long = Array.from({ length: 1_000 }, (_, at) => 100_000 + at);
  await graph.addVertices(long);
  await graph.setProperties(long, { name: long.map((key) => String(key).repeat(650)) });
  const before = await contentsOf(graph);
  const removal = cluster.remove(1, { timeoutMs: 60_000 }).then(
    () => undefined,
    (error: unknown) => error,
  );
  await eventually("nothing may be changed", () =>
    graph.addVertices([70_000], { createMissing: true, timeoutMs: 20 }).then(
      () => false,
      (error: unknown) => ShardloomError.is(error) && error.code === "ERR_OVERLOADED",
    ),
  );
  const killed = kill(cluster, 2);
  expect(await removal).toBeInstanceOf(ShardloomError);
  await killed;
  await whenState(cluster, 2, "up");
  await eventually("it can be changed", () =>
    graph.removeVertices([70_000]).then(
      () => true,
      () => false,
    ),
  );
  expect(await contentsOf(graph)).toEqual(before);
  expect((await cluster.remove(1, { timeoutMs: 60_000 })).graphs).toHaveLength(1);
  expect(await contentsOf(graph)).toEqual(before);
}, 180_000);
