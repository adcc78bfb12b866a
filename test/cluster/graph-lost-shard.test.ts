/** Shards that were given up under graphs, on real threads: what is answered then, and graphs that go on without what they had there. */
import { afterEach, expect, it } from "vitest";
import { hashOfKey, ownerOfHash } from "../../actors/graph/vertex-key.ts";
import { type Cluster, type ClusterOptions, ShardloomError, type VertexKey } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { ACTORS_URL, eventually, keyOnShard } from "../support/cluster.ts";
import { kill, startCopies, stateOf } from "../support/copies.ts";
import { contentsOf, type Graph, type GraphContents, loadedGraph, totalOf } from "../support/graph-contents.ts";

const TROUBLE = new URL("../support/start-trouble.js", import.meta.url);
const LOST = 1;
const isLong = process.env["SHARDLOOM_LONG"] === "1";

afterEach(() => {
  delete process.env["SHARDLOOM_TEST_START"];
});

function start(options: ClusterOptions = {}): Promise<Cluster> {
  return startCopies({ replicationFactor: 2, actors: [ACTORS_URL, TROUBLE], ...options });
}

/** Ends the worker of a shard, and those that follow it, until it is given up: they do not start, or each dies when it serves. */
async function giveUp(cluster: Cluster, shard: number, isServing = false): Promise<void> {
  let isDown = false;
  cluster.once("worker-down", () => {
    isDown = true;
  });
  if (isServing) {
    const victim = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard));
    while (!isDown) await victim.exit(1, { timeoutMs: 10_000 }).catch(() => undefined);
  } else {
    process.env["SHARDLOOM_TEST_START"] = "fail";
    void kill(cluster, shard);
    await eventually(`shard ${shard} is given up`, () => isDown, 60_000);
    delete process.env["SHARDLOOM_TEST_START"];
  }
  expect(stateOf(cluster, shard)).toBe("down");
}

const isLost = (key: VertexKey): boolean => ownerOfHash(hashOfKey(key), 3) === LOST;

/** What is left of a graph without the vertices of a shard. */
function without({ keys, out, in: back, properties }: GraphContents): Omit<GraphContents, "distances"> {
  const stays = <T>(_: T, at: number): boolean => !isLost(keys[at] as VertexKey);
  const lists = (all: readonly string[][]): string[][] =>
    all.filter(stays).map((list) => list.filter((edge) => !isLost((JSON.parse(edge) as [VertexKey])[0])));
  return {
    keys: keys.filter(stays),
    out: lists(out),
    in: lists(back),
    properties: properties.filter(stays),
  };
}

async function refusal(call: Promise<unknown>): Promise<ShardloomError> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!ShardloomError.is(error)) throw new Error("it was not refused", { cause: error });
  return error;
}

async function keysOf(graph: Graph): Promise<VertexKey[]> {
  const keys: VertexKey[] = [];
  for await (const key of graph.vertices()) keys.push(key);
  return keys;
}

/** Calls that need every shard, or one vertex of the one that was given up. */
function callsOf(graph: Graph, cluster: Cluster, lost: VertexKey): Record<string, () => Promise<unknown>> {
  const [source, target] = [lost, lost];
  return {
    status: () => graph.status(),
    neighbours: () => graph.neighbours([lost]),
    vertices: () => keysOf(graph),
    properties: () => graph.properties([lost]),
    setProperties: () => graph.setProperties([lost], { size: [1] }),
    addVertices: () => graph.addVertices([lost], { createMissing: true }),
    addEdges: () => graph.addEdges([{ source, target }]),
    removeEdges: () => graph.removeEdges([{ source, target }]),
    reserveEdges: () => graph.reserveEdges([{ source, target }]),
    removeVertices: () => graph.removeVertices([lost]),
    decay: () => graph.decay({ rate: 0.5 }),
    ghosts: () => graph.ghosts(),
    holders: () => graph.holders([lost]),
    pageRank: () => graph.pageRank({ iterations: 3 }),
    wcc: () => graph.wcc(),
    kHop: () => graph.kHop([lost], { hops: 2 }),
    open: () => cluster.graph("another", {}),
  };
}

it.each([true, false])(
  "a graph goes on without what it had on a shard that was given up; directed: %s",
  async (directed) => {
    await using cluster = await start();
    const graph = await loadedGraph(cluster, "roads", { directed });
    const before = await contentsOf(graph);
    const lost = before.keys.find(isLost) as VertexKey;
    const kept = before.keys.find((key) => !isLost(key)) as VertexKey;
    const { number } = await graph.decay({ rate: 0 });
    // These are not built in yet.
    await graph.addEdges([
      { source: lost, target: kept },
      { source: kept, target: lost },
    ]);
    const counts = await totalOf(graph);
    const had = (await graph.status())[LOST];
    await giveUp(cluster, LOST);

    const codes: Record<string, string> = {};
    await Promise.all(
      Object.entries(callsOf(graph, cluster, lost)).map(async ([name, call]) => {
        codes[name] = (await refusal(call())).code;
      }),
    );
    // What its last worker has died of.
    expect(new Set(Object.values(codes)), JSON.stringify(codes)).toEqual(new Set(["ERR_MODULE_NOT_LOADED"]));
    expect(await graph.properties([kept])).toEqual([before.properties[before.keys.indexOf(kept)]]);

    // What would be lost is said, and nothing is changed; the copies are elsewhere as soon as others have taken over.
    await eventually("others have its vshards", () => !cluster.topology.owners.includes(LOST));
    let refused = await refusal(cluster.remove(LOST));
    await eventually("all of them have level copies", async () => {
      if (refused.details["vshards"] !== undefined) refused = await refusal(cluster.remove(LOST));
      return refused.details["vshards"] === undefined;
    });
    expect(refused).toMatchObject({
      code: "ERR_UNAVAILABLE",
      message: /"roads" .* takes force|takes force: .*"roads"/,
    });
    const left = { name: "roads", vertices: had?.vertices, edges: had?.edges };
    expect(refused.details["graphs"]).toEqual([left]);
    expect(stateOf(cluster, LOST)).toBe("down");
    expect((await refusal(cluster.remove(LOST, { force: "yes" as never }))).code).toBe("ERR_INVALID_ARGUMENT");

    const { graphs } = await cluster.remove(LOST, { force: true, timeoutMs: 60_000 });
    const { distances: _, ...now } = await contentsOf(graph, kept);
    expect(now).toEqual(without(before));
    const stays = await totalOf(graph);
    const gone = { vertices: counts.vertices - stays.vertices, edges: counts.edges - stays.edges };
    expect(graphs).toEqual([{ ...left, lost: gone }]);
    expect(gone.vertices).toBe(before.keys.filter(isLost).length);
    expect(gone.edges).toBeGreaterThan((had?.edges ?? 0) + 50);
    expect(await graph.status()).toHaveLength(2);

    // It goes on as any other.
    await graph.decay({ rate: 0.5, number }); // it was done before
    expect((await contentsOf(graph, kept)).out).toEqual(now.out);
    expect(await graph.addVertices([lost])).toBe(1);
    expect(await graph.addEdges([{ source: kept, target: lost, weight: 2 }])).toBe(1);
    expect((await graph.wcc()).vertices).toBe(stays.vertices + 1);
    await eventually("owners know their holders", async () => {
      const status = await graph.ghosts();
      return status.every(({ untold, ghosts }) => untold === 0 && ghosts > 0);
    });
    expect((await graph.neighbours([lost], "in"))[0]?.keys).toContain(kept);
    expect(await (await cluster.graph("another", {})).addVertices([1, 2, 3, 4])).toBe(4);
  },
  180_000,
);

it.each(isLong ? [true, false] : [false])(
  "a graph that has lost a shard can be dropped, also where there is one copy; served: %s",
  async (isServing) => {
    await using cluster = await start({ replicationFactor: 1 });
    const graph = await loadedGraph(cluster, "roads");
    const docs = await cluster.vectors("docs", { dimensions: 4 });
    await giveUp(cluster, LOST, isServing);
    expect((await refusal(graph.status())).code).toBe(isServing ? "ERR_WORKER_LOST" : "ERR_MODULE_NOT_LOADED");
    expect((await refusal(cluster.remove(LOST, { force: true }))).message).toContain("must have another copy");
    expect(await cluster.dropGraph("roads")).toBe(true);
    expect(await cluster.dropGraph("roads")).toBe(false);
    expect((await refusal(graph.status())).code).toBe("ERR_UNKNOWN_COLLECTION");
    expect(await cluster.dropVectors("docs")).toBe(true);
    expect((await refusal(docs.count())).code).toBe("ERR_UNKNOWN_COLLECTION");
  },
  180_000,
);
