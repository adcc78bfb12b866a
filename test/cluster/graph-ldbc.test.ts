/** The example and validation graphs of LDBC Graphalytics on real threads, for several numbers of shards and both ways of exchange. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Cluster } from "../../src/index.ts";
import { differences, loadLdbc, runLdbc } from "../support/graphs.ts";
import { LDBC_GRAPHS } from "../support/ldbc-graphs.ts";

const LONG: boolean = process.env["SHARDLOOM_LONG"] === "1";

/** What is chosen by density is one of the two in each superstep: one number of shards is enough for it. */
const EXCHANGES = (workers: number): readonly ("push" | "pull" | "auto")[] =>
  workers === 3 ? ["push", "pull", "auto"] : ["push", "pull"];

describe.each([1, 2, 3, 7, 16])("on %i shards", (workers) => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({ workers, memoryBytes: 256 * 1024 * 1024, startTimeoutMs: 60_000 });
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
});
