/** Questions about graphs that say how they were answered. */
import { expect, it } from "vitest";
import type { GraphExplanation } from "../../src/index.ts";
import { startTestCluster } from "../support/cluster.ts";
import { codeOf } from "../support/copies.ts";

const SIZE = 400;

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
