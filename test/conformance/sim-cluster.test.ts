/** The suite of clusters, on simulated ones: the same checks as real-cluster.test.ts, from every node of a world. */
import { beforeAll, describe, expect, it } from "vitest";
import { createWorld } from "../../src/sim/create-world.ts";
import type { RunResult } from "../../src/sim/world-types.ts";
import { CLUSTER_CHECKS } from "./cluster.ts";

const workload = (nodeCount: number) => ({
  module: new URL("./cluster-workload.js", import.meta.url).href,
  export: "clusterChecks",
  options: { nodeCount },
});

describe.each([
  { nodes: 1, shardsPerNode: 2, replicationFactor: 2 },
  { nodes: 3, shardsPerNode: 1, replicationFactor: 3 },
])("a simulated cluster of $nodes nodes with $shardsPerNode shards each", (shape) => {
  let result: RunResult;
  beforeAll(async () => {
    await using world = createWorld({ ...shape, seed: Number(process.env["SEED"] ?? 1) % 2 ** 32, durationMs: 1_000 });
    result = await world.run(workload(shape.nodes));
  });

  it.each(Object.keys(CLUSTER_CHECKS))("%s", (name) => {
    const held = result.history.filter(({ type, f, value }) => type === "ok" && f === name && value === "held");
    expect(result.violations.filter(({ rule }) => rule === name)).toEqual([]);
    expect(held.length).toBe(shape.nodes);
  });

  it("breaks no rule of worlds", () => {
    expect(result.violations).toEqual([]);
  });
});
