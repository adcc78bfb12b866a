/** Runs whose client is gone, and results that nobody closes: the graph does not stay theirs. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Cluster, GraphResult } from "../../src/index.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startTestCluster({ workers: 3 });
});
afterAll(() => cluster.close());

async function ringOf(name: string, length: number): ReturnType<Cluster["graph"]> {
  const graph = await cluster.graph(name);
  const keys = Array.from({ length }, (_, key) => key);
  await graph.load([{ vertices: keys, edges: { sources: keys, targets: keys.map((key) => (key + 1) % length) } }]);
  return graph;
}

it("a run whose thread has ended is ended too, once it was not asked about for long enough", async () => {
  const graph = await ringOf("abandoned", 2_000);
  const { transferList, ...port } = await cluster.port();
  const worker = new Worker(new URL("./graph-client.worker.js", import.meta.url), {
    workerData: { port, graph: "abandoned" },
    transferList: [...transferList],
  });
  await once(worker, "message");
  // While it is there nothing can be added, however long it computes.
  await expect(graph.addVertices([5_000])).rejects.toMatchObject({ code: "ERR_OVERLOADED" });
  const beganMs = performance.now();
  while (performance.now() - beganMs < 5_000) await once(worker, "message");
  await expect(graph.addVertices([5_000])).rejects.toMatchObject({ code: "ERR_OVERLOADED" });
  const used = cluster.arena.stats().usedBytes;
  await worker.terminate();
  await eventually(
    "the graph is free again",
    async () => (await graph.status()).every(({ runs }) => runs === 0),
    60_000,
  );
  expect(cluster.arena.stats().usedBytes).toBeLessThan(used);
  await graph.addVertices([5_000]);
  expect((await graph.wcc()).vertices).toBe(2_001);
}, 120_000);

it("results give way when there is no place left and nobody looks at them", async () => {
  const graph = await ringOf("results", 30);
  const results: GraphResult[] = [];
  for (let at = 0; at < 16; at++)
    results.push(await graph.bfs({ source: at, resultIdleMs: at === 3 ? 5_000 : 600_000 }));
  const [looked, , , idle] = results as [GraphResult, GraphResult, GraphResult, GraphResult];
  expect(await idle.get(3)).toBe(0);
  await expect(graph.wcc()).rejects.toMatchObject({ code: "ERR_OVERLOADED" });
  const isRun = (): Promise<boolean> =>
    graph.wcc().then(
      () => true,
      () => false,
    );
  await eventually("a place is free", isRun, 60_000);
  await expect(idle.toMap()).rejects.toMatchObject({ code: "ERR_CLOSED" });
  expect(await looked.get(5)).toBe(5);
  await expect(graph.wcc()).rejects.toMatchObject({ code: "ERR_OVERLOADED", details: { limit: 16 } });
}, 120_000);

it("limits that are none are refused", async () => {
  const graph = await ringOf("limits", 3);
  for (const options of [{ idleMs: 999 }, { idleMs: Number.NaN }, { resultIdleMs: Number.POSITIVE_INFINITY }])
    await expect(graph.wcc(options)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
});
