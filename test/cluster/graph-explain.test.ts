/** Questions about graphs that say how they were answered. */
import { expect, it } from "vitest";
import type { GraphExplanation, RunExplanation } from "../../src/index.ts";
import { startTestCluster } from "../support/cluster.ts";
import { codeOf } from "../support/copies.ts";
import { largest } from "../support/vertex-programs.ts";

const SIZE = 400;
const PROGRAMS_URL = new URL("../support/vertex-programs.js", import.meta.url);

it("a question about a graph says whom it asked, how often, and what that took", async () => {
  await using cluster = await startTestCluster({ workers: 3 });
  const graph = await cluster.graph("ring", {});
  const edges = Array.from({ length: SIZE }, (_, source) => ({ source, target: (source + 1) % SIZE }));
  await graph.addEdges(edges, { createMissing: true });
  await graph.neighbours([0]); // builds the adjacency, which is asked for once
  const check = (explanation: GraphExplanation | undefined): GraphExplanation => {
    if (explanation === undefined) throw new Error("it was not explained");
    const { plan, outcomes, attempts, bytes, totalUs, hedges } = explanation;
    expect(plan).toEqual({ kind: "graph", topologyEpoch: cluster.topology.topologyEpoch, shards: 3 });
    expect(attempts).toBe(outcomes.reduce((sum, outcome) => sum + outcome.attempts, 0));
    expect(bytes).toBe(outcomes.reduce((sum, outcome) => sum + outcome.bytes, 0));
    expect(hedges).toBe(0);
    for (const outcome of outcomes) {
      expect(outcome.answered).toBe(outcome.attempts);
      expect(outcome.bytesSent).toBeGreaterThan(8 * outcome.attempts);
      expect(outcome.bytes).toBeGreaterThan(8 * outcome.attempts);
      expect(outcome.serviceUs).toBeGreaterThan(0);
      expect(outcome.totalServiceUs).toBeGreaterThanOrEqual(outcome.serviceUs);
      expect(outcome.totalQueueUs).toBeGreaterThanOrEqual(outcome.queueUs);
      expect(totalUs).toBeGreaterThan(outcome.serviceUs);
    }
    return explanation;
  };
  const hops = await graph.kHop([0], { hops: 4, explain: true });
  expect(hops.depths.size).toBe(5);
  const near = check(hops.explain);
  // A ring: one vertex a round. The start is asked for first, to see that it is there, or as part of the first hop.
  expect(near.rounds).toBeGreaterThanOrEqual(4);
  expect(near.attempts).toBe(near.rounds);
  expect(near.repeats).toBe(0);
  expect((await graph.kHop([0], { hops: 4 })).explain).toBeUndefined();
  const path = await graph.shortestPath(0, 9, { explain: true });
  expect(path.distance).toBe(9);
  expect(check(path.explain).rounds).toBeGreaterThanOrEqual(9);
  let told: GraphExplanation | undefined;
  const explain = (explanation: GraphExplanation): void => {
    told = explanation;
  };
  const lists = await graph.neighbours([1, 2, 3, 4, 5, 6, 7, 8], "out", { explain });
  expect(lists.map((list) => list?.keys)).toEqual([[2], [3], [4], [5], [6], [7], [8], [9]]);
  expect(check(told)).toMatchObject({ rounds: 1, attempts: 3 });
  const beside = await graph.neighbours([1, 2, 3], "both", { explain: true });
  expect(beside.value.map((list) => list?.keys.length)).toEqual([2, 2, 2]);
  expect(check(beside.explain).rounds).toBe(1);
  const { triangles, explain: counted } = await graph.countTriangles({ explain: true });
  expect(triangles).toBe(0);
  expect(check(counted).outcomes.map(({ shard }) => shard)).toEqual([0, 1, 2]);
  const fork = {
    edges: [
      { from: "a", to: "b" },
      { from: "b", to: "c" },
    ],
  };
  const found = await graph.findMotif(fork, { maxMatches: 10, explain });
  expect(found.matches).toHaveLength(10);
  expect(check(found.explain)).toBe(told);
  const wrong = graph.kHop([0], { hops: 1, explain: "yes" as never });
  expect(await wrong.then(() => "ok", codeOf)).toBe("ERR_INVALID_ARGUMENT");
});

it("vertices and their properties say how they were read, also when reading ends early", async () => {
  await using cluster = await startTestCluster({ workers: 2 });
  const graph = await cluster.graph("pairs", { vertexProperties: { kind: "text" } });
  const keys = Array.from({ length: 10_000 }, (_, key) => key);
  await graph.addVertices(keys);
  await graph.setProperties([1, 2], { kind: ["port", "town"] });
  await graph.addEdges([{ source: 1, target: 2 }]);
  const stream = graph.vertices({ explain: true });
  expect(stream.explain?.attempts).toBe(0);
  let count = 0;
  for await (const _ of stream) if (++count === 1) expect(stream.explain?.attempts).toBe(1);
  expect(count).toBe(keys.length);
  expect(stream.explain).toMatchObject({ plan: { kind: "graph", shards: 2 }, rounds: 4, repeats: 0, attempts: 4 });
  expect(stream.explain?.outcomes.map(({ shard, answered, bytes }) => [shard, answered, bytes > 5_000])).toEqual([
    [0, 2, true],
    [1, 2, true],
  ]);
  const told: GraphExplanation[] = [];
  const explain = (explanation: GraphExplanation): number => told.push(explanation);
  for await (const _ of graph.vertices({ explain })) break;
  expect(told.splice(0).map(({ attempts }) => attempts)).toEqual([1]);
  expect(graph.vertices().explain).toBeUndefined();
  const { value, explain: read } = await graph.properties([1, 2], ["kind"], { explain: true });
  expect(value).toEqual([{ kind: "port" }, { kind: "town" }]);
  expect(read.attempts).toBe(read.outcomes.length);
  // What a search for a pattern reads of vertices counts too.
  const motif = { edges: [{ from: "a", to: "b" }], where: { a: { kind: "port" } } };
  const picked = await graph.findMotif(motif, { explain: true });
  expect(picked.matches).toEqual([{ a: 1, b: 2 }]);
  expect(picked.explain?.attempts, "4 for keys, and 10,000 properties of 1024 vertices a message").toBeGreaterThan(
    4 + 10,
  );
});

it("a run says of every superstep what each shard did, and how values came", async () => {
  await using cluster = await startTestCluster({ workers: 2, actors: [PROGRAMS_URL] });
  const graph = await cluster.graph("path", {});
  await graph.addEdges(
    Array.from({ length: 20 }, (_, source) => ({ source, target: source + 1 })),
    { createMissing: true },
  );
  const check = (explanation: RunExplanation | undefined): RunExplanation => {
    if (explanation === undefined) throw new Error("it was not explained");
    const { plan, supersteps, outcomes, attempts, bytes, hedges, totalUs } = explanation;
    expect(plan).toMatchObject({ kind: "run", topologyEpoch: cluster.topology.topologyEpoch, shards: 2 });
    expect(attempts).toBe(outcomes.reduce((sum, outcome) => sum + outcome.attempts, 0));
    expect(bytes).toBe(outcomes.reduce((sum, outcome) => sum + outcome.bytes, 0));
    expect(hedges).toBe(0);
    // To build, to begin, each order of supersteps, to keep the result.
    const orders = supersteps.filter(({ superstep, orderedWith }) => superstep === orderedWith).length;
    for (const outcome of outcomes) expect([outcome.attempts, outcome.answered]).toEqual(new Array(2).fill(orders + 3));
    expect(supersteps.map(({ superstep, attempt }) => [superstep, attempt])).toEqual(
      supersteps.map((_, at) => [at, 1]),
    );
    for (const { superstep, orderedWith, shards, totalUs: took } of supersteps) {
      expect(shards.map(({ shard }) => shard)).toEqual([0, 1]);
      const ordered = superstep === orderedWith;
      for (const { serviceUs, bytesSent, bytes: answered } of shards)
        expect([serviceUs > 0, bytesSent > 0, answered > 0, took >= serviceUs - 1]).toEqual([
          true,
          ordered,
          ordered,
          true,
        ]);
      expect(totalUs).toBeGreaterThanOrEqual(took);
    }
    return explanation;
  };
  const progress: number[] = [];
  await using depths = await graph.bfs({
    source: 0,
    exchange: "push",
    checkpointEvery: 5,
    explain: true,
    onProgress: ({ messages }) => progress.push(messages),
  });
  const { plan, supersteps, pushedBytes } = check(depths.explain);
  expect(plan).toMatchObject({ algorithm: "bfs", exchange: "push", checkpointEvery: 5 });
  expect(supersteps).toHaveLength(depths.supersteps);
  expect(supersteps.every(({ superstep, orderedWith }) => superstep === orderedWith)).toBe(true);
  expect(supersteps.map(({ shards }) => shards.reduce((sum, { sent }) => sum + sent, 0))).toEqual(progress);
  expect(supersteps.map(({ shards }) => shards.reduce((sum, { received }) => sum + received, 0))).toEqual(progress);
  expect(supersteps.map(({ exchange }) => exchange)).toEqual([
    "none",
    ...new Array(supersteps.length - 1).fill("push"),
  ]);
  expect(supersteps.flatMap(({ saved, superstep }) => (saved ? [superstep] : []))).toEqual([5, 10, 15, 20]);
  expect(supersteps[0]?.shards.map((shard) => shard.pushedBytes)).toEqual([0, 0]);
  expect(pushedBytes, "each shard tells the other in each superstep").toBeGreaterThan(2 * 8 * (supersteps.length - 1));
  await using ranks = await graph.pageRank({ iterations: 3, sources: [0], explain: true });
  const pulled = check(ranks.explain);
  expect(pulled.supersteps.slice(1).every(({ exchange }) => exchange === "pull")).toBe(true);
  expect([pulled.pushedBytes, pulled.plan.exchange]).toEqual([0, "auto"]);
  const told: RunExplanation[] = [];
  await using program = await graph.run(largest, {}, { explain: (explanation) => told.push(explanation) });
  expect(told).toEqual([program.explain]);
  expect(check(program.explain).plan.algorithm).toBe("largest");
  const thrower = (): never => {
    throw new Error("of the caller");
  };
  await expect(graph.wcc({ explain: thrower })).rejects.toThrow("of the caller");
  await using silent = await graph.wcc();
  expect(silent.explain).toBeUndefined();
  expect(await graph.lcc({ explain: 1 as never }).then(() => "ok", codeOf)).toBe("ERR_INVALID_ARGUMENT");
});
