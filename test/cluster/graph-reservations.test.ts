/** Edges whose ends are reserved, on real threads: what was checked is still there when it is acted upon, whoever removes vertices meanwhile. */
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, expect, it } from "vitest";
import { hashOfKey, ownerOfHash } from "../../actors/graph/vertex-key.ts";
import { VertexReservations } from "../../actors/graph/vertex-reservations.ts";
import type { Cluster, EdgeReservation, VertexKey } from "../../src/index.ts";
import { ShardloomError } from "../../src/index.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { codeOf } from "../support/copies.ts";
import { loseWorkers } from "../support/graphs.ts";

type Graph = Awaited<ReturnType<Cluster["graph"]>>;

const SHARDS = 3;
let cluster: Cluster;
beforeAll(async () => {
  cluster = await startTestCluster({ workers: SHARDS });
});
afterAll(() => cluster.close());

async function withKeys(name: string, keys: readonly VertexKey[]): Promise<Graph> {
  const graph = await cluster.graph(name, { weighted: true });
  await graph.addVertices(keys);
  return graph;
}

/** Reserves an edge as soon as both ends are there. */
async function reserved(graph: Graph, source: number, target: number): Promise<EdgeReservation> {
  for (;;) {
    try {
      return await graph.reserveEdges([{ source, target, weight: 2 }], { holdMs: 60_000 });
    } catch (error) {
      if (!ShardloomError.is(error) || error.code !== "ERR_UNKNOWN_VERTEX") throw error;
    }
  }
}

it("every edge that was reserved is added, whatever another thread removes meanwhile", async () => {
  const keys = Array.from({ length: 8 }, (_, key) => key);
  expect(new Set(keys.map((key) => ownerOfHash(hashOfKey(key), SHARDS))).size).toBe(SHARDS);
  const graph = await withKeys("race", [...keys, 100]);
  const { transferList, ...port } = await cluster.port();
  const worker = new Worker(new URL("./graph-removals.worker.js", import.meta.url), {
    workerData: { port, graph: graph.name, keys },
    transferList: [...transferList],
  });
  let rounds = 0;
  let ended = false;
  let failure: unknown;
  worker.on("message", (message: number | "ended") => {
    if (message === "ended") ended = true;
    else rounds = message;
  });
  worker.on("error", (error) => {
    failure = error;
  });
  await eventually("vertices come and go", () => rounds > 0 || failure !== undefined);
  const from = rounds;
  for (let at = 0; at < 60; at++) {
    const edge = await reserved(graph, keys[at % 8] as number, keys[(at * 3 + 1) % 8] as number);
    for (let turn = 0; turn < 3; turn++) await graph.status(); // time for the other thread to ask for what it wants
    expect(await edge.commit()).toBe(1);
  }
  worker.postMessage("stop");
  await eventually("the other thread has stopped", () => ended || failure !== undefined, 60_000);
  await worker.terminate();
  expect(failure).toBeUndefined();
  expect(rounds - from).toBeGreaterThan(10);
  const known = new Set<VertexKey>();
  for await (const key of graph.vertices()) known.add(key);
  expect(known).toEqual(new Set([...keys, 100]));
  const lists = await graph.neighbours(keys);
  expect(lists.every((list) => list?.keys.every((key) => known.has(key)))).toBe(true);
}, 120_000);

it("a removal waits until the edges are there, and takes them with it", async () => {
  const graph = await withKeys("waits", [1, 2, "a", "b"]);
  const list = [
    { source: 1, target: 2, weight: 3 },
    { source: "a", target: "b" },
  ];
  const edges = await graph.reserveEdges(list, { holdMs: 60_000 });
  expect(edges.edges).toBe(2);
  let removed = false;
  const removal = graph.removeVertices([2]).then((count) => {
    removed = true;
    return count;
  });
  // Others are not in its way; who wants the same vertices waits behind it.
  expect(await graph.removeVertices(["c"])).toBe(0);
  const given = await graph.removeVertices(["b"], { timeoutMs: 60 }).catch(codeOf);
  expect(["ERR_OVERLOADED", "ERR_TIMEOUT"]).toContain(given); // the time may be over while it asks
  expect(removed).toBe(false);
  expect((await graph.neighbours([1]))[0]?.keys).toEqual([]);
  expect(await edges.commit()).toBe(2);
  expect(await removal).toBe(1);
  expect((await graph.neighbours([1, "a", 2])).map((list) => list?.keys)).toEqual([[], ["b"], undefined]);
  await expect(edges.commit()).rejects.toMatchObject({ code: "ERR_CLOSED" });
  {
    await using held = await graph.reserveEdges({ sources: [1], targets: ["a"] }, { holdMs: 60_000 });
    expect(["ERR_OVERLOADED", "ERR_TIMEOUT"]).toContain(
      await graph.removeVertices([1], { timeoutMs: 20 }).catch(codeOf),
    );
    expect(held.edges).toBe(1);
  }
  expect(await graph.removeVertices([1])).toBe(1);
});

it("whose time is over, or whose worker was lost, adds nothing", async () => {
  const graph = await withKeys("over", [1, 2, 3, 4]);
  const short = await graph.reserveEdges([{ source: 1, target: 2 }], { holdMs: 20 });
  expect(await graph.removeVertices([2])).toBe(1); // waits for the time
  await expect(short.commit()).rejects.toMatchObject({ code: "ERR_TIMEOUT", details: { edges: 0 } });
  const held = await graph.reserveEdges([{ source: 3, target: 4 }], { holdMs: 60_000 });
  await loseWorkers(cluster, graph, [ownerOfHash(hashOfKey(4), SHARDS)]);
  await expect(held.commit()).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
  expect((await graph.status()).reduce((sum, { edges }) => sum + edges, 0)).toBe(0);
  expect(await graph.removeVertices([1, 3, 4])).toBe(3); // nothing of it holds them
});

it("edges that cannot be are refused, and nothing is held", async () => {
  const graph = await withKeys("refused", [1, 2, 3]);
  const list = [
    { source: 1, target: 2 },
    { source: 3, target: "no" },
  ];
  const unknown = { code: "ERR_UNKNOWN_VERTEX", details: { vertex: "no", end: "target", at: 1 } };
  await expect(graph.reserveEdges(list)).rejects.toMatchObject(unknown);
  const bad = { code: "ERR_INVALID_ARGUMENT" };
  await expect(graph.reserveEdges([{ source: 1, target: -2 }])).rejects.toMatchObject(bad);
  await expect(graph.reserveEdges([{ source: 1, target: 2, weight: Number.NaN }])).rejects.toMatchObject(bad);
  for (const holdMs of [0, Number.NaN, 60_001])
    await expect(graph.reserveEdges([{ source: 1, target: 2 }], { holdMs })).rejects.toMatchObject(bad);
  expect(await graph.removeVertices([1, 2, 3])).toBe(3);
});

it("who waits to remove a vertex comes before who would reserve it next", () => {
  let nowMs = 0;
  const reservations = new VertexReservations(() => nowMs, { find: (key) => (key === "gone" ? -1 : 0) });
  const hold = (keys: VertexKey[]): number =>
    reservations.answer({ collection: 1, act: "hold", keys, holdMs: 100 }).reservation;
  const act = (kind: "renew" | "release", reservation: number): number =>
    reservations.answer({ collection: 1, act: kind, reservation }).reservation;
  expect(reservations.answer({ collection: 1, act: "hold", keys: ["a", "gone"], holdMs: 1 }).missing).toBe(1);
  const first = hold(["a", "b"]);
  const second = hold(["b"]);
  expect(() => reservations.assertFree(["b", "c"])).toThrow("is reserved for an edge");
  for (const key of ["b", "c"]) expect(() => hold([key])).toThrow("is about to be removed");
  expect(act("release", first)).toBe(first);
  expect(() => reservations.assertFree(["b"])).toThrow("is reserved");
  nowMs = 99;
  expect(act("renew", second)).toBe(second);
  nowMs = 198;
  expect(() => reservations.assertFree(["b"])).toThrow("is reserved");
  nowMs = 199;
  expect(act("renew", second)).toBe(0);
  reservations.assertFree(["b", "c"]);
  expect(hold(["b", "c"])).toBeGreaterThan(second);
  // Who has given up keeps nobody from it for long.
  expect(() => reservations.assertFree(["b", "d"])).toThrow("is reserved");
  expect(() => hold(["d"])).toThrow("is about to be removed");
  nowMs = 1_000;
  expect(hold(["d"])).toBeGreaterThan(0);
  expect(() => hold(Array.from({ length: 65_536 }, (_, key) => key))).toThrow("at most 65536");
});
