/** Workers lost in the middle of runs: the run goes on from what was saved, or from the beginning, and gives the same. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Cluster, GraphEdge, RunProgress } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";

const LONG: boolean = process.env["SHARDLOOM_LONG"] === "1";
const VERTICES = 1_500;
let cluster: Cluster;
let graph: Awaited<ReturnType<Cluster["graph"]>>;

/** A ring with chords, so that a search takes many supersteps, and some vertices without edges. */
function edgesOf(): GraphEdge[] {
  const edges: GraphEdge[] = [];
  for (let key = 0; key < VERTICES - 100; key++) {
    edges.push({ source: key, target: (key + 1) % (VERTICES - 100) });
    if (key % 3 === 0) edges.push({ source: key, target: (key * 7 + 3) % (VERTICES - 100) });
    if (key % 5 === 0) edges.push({ source: key, target: (key + 40) % (VERTICES - 100) });
  }
  return edges;
}

async function start(): Promise<void> {
  cluster = await startTestCluster({ workers: 3 });
  graph = await cluster.graph("failures");
  await graph.load([{ vertices: Array.from({ length: VERTICES }, (_, key) => key) }, { edges: edgesOf() }]);
}

beforeAll(start);
afterAll(() => cluster.close());

async function kill(shard: number): Promise<void> {
  await cluster
    .actor(saboteur, keyOnShard(cluster, saboteur, shard))
    .exit(1, { priority: "control" })
    .catch(() => undefined);
}

const allServe = (): Promise<void> =>
  eventually("all shards serving", async () =>
    graph.status().then(
      () => true,
      () => false,
    ),
  );

async function withKills(
  at: readonly (readonly [superstep: number, shard: number])[],
  run: (
    onProgress: (progress: RunProgress) => void,
  ) => Promise<{ toMap(): Promise<Map<unknown, number>>; attempts: number; close(): Promise<void> }>,
): Promise<{ found: Map<unknown, number>; attempts: number; steps: number[] }> {
  const left = [...at];
  const steps: number[] = [];
  const result = await run(({ superstep }) => {
    steps.push(superstep);
    if (left[0]?.[0] === superstep) void kill(left.shift()?.[1] as number);
  });
  await allServe();
  expect(left).toEqual([]);
  const found = await result.toMap();
  await result.close();
  return { found, attempts: result.attempts, steps };
}

it.each(["push", "pull"] as const)("PageRank by %s gives the same when workers are lost", async (exchange) => {
  const options = { iterations: 40, exchange, checkpointEvery: 5 };
  const expected = await (await graph.pageRank(options)).toMap();
  const kills = [
    [3, 1],
    [18, 0],
  ] as const;
  const { found, attempts, steps } = await withKills(kills, (onProgress) => graph.pageRank({ ...options, onProgress }));
  expect(attempts).toBeGreaterThanOrEqual(3);
  expect(found.size).toBe(VERTICES);
  for (const [key, value] of expected) expect(Math.abs((found.get(key) as number) - value)).toBeLessThan(1e-12);
  expect(steps.length).toBeLessThan(41 + 2 * 16); // it did not begin anew each time
  expect(steps.at(-1)).toBe(40);
});

it.each(["push", "pull", "auto"] as const)("a search by %s gives the same when workers are lost", async (exchange) => {
  const expected = await (await graph.bfs({ source: 1, exchange })).toMap();
  const kills = [
    [2, 2],
    [9, 1],
  ] as const;
  const { found, attempts } = await withKills(kills, (onProgress) =>
    graph.bfs({ source: 1, exchange, onProgress, checkpointEvery: 4 }),
  );
  expect(attempts).toBeGreaterThanOrEqual(3);
  expect(found).toEqual(expected);
});

it("begins anew without checkpoints", async () => {
  const expected = await (await graph.wcc()).toMap();
  const { found, steps } = await withKills([[5, 0]], (onProgress) => graph.wcc({ onProgress, checkpointEvery: 0 }));
  expect(found).toEqual(expected);
  expect(steps.filter((step) => step === 0).length).toBeGreaterThanOrEqual(2);
});

it("keeps vertices, edges and results when a worker is lost between runs", async () => {
  const before = await graph.cdlp({ iterations: 3 });
  const expected = await before.toMap();
  await graph.addEdges([{ source: 0, target: VERTICES - 1 }]);
  for (const shard of [0, 2]) {
    await kill(shard);
    await allServe();
  }
  expect(await before.toMap()).toEqual(expected);
  expect((await graph.status()).reduce((sum, { edges }) => sum + edges, 0)).toBe(edgesOf().length + 1);
  await graph.addEdges([{ source: VERTICES - 1, target: VERTICES - 2 }]);
  const found = await (await graph.bfs({ source: 0 })).toMap();
  expect(found.get(VERTICES - 2)).toBe(2);
});

it("leaves no memory behind, however runs ended", async () => {
  const used = (): number => cluster.arena.stats().usedBytes;
  const run = async (): Promise<void> => (await graph.pageRank({ iterations: 3 })).close();
  await run();
  const before = used();
  for (let at = 0; at < 5; at++) await run();
  expect(used()).toBe(before);
  const { steps } = await withKills([[4, 1]], (onProgress) => graph.wcc({ onProgress }));
  expect(steps.length).toBeGreaterThan(5);
  expect(await cluster.dropGraph("failures")).toBe(true);
  const empty = used();
  expect(empty).toBeLessThan(before);
  graph = await cluster.graph("failures");
  expect(await cluster.dropGraph("failures")).toBe(true);
  expect(used()).toBe(empty);
});

it.skipIf(!LONG).each(["push", "pull"] as const)(
  "gives the same by %s whichever superstep a worker is lost in",
  async (exchange) => {
    await cluster.close(); // shards whose workers die again and again are given up
    await start();
    const options = { iterations: 9, exchange, checkpointEvery: 3 };
    const whole = await graph.pageRank(options);
    const expected = await whole.toMap();
    await whole.close();
    for (let superstep = 0; superstep < 9; superstep++) {
      const run = (onProgress: (progress: RunProgress) => void): ReturnType<typeof graph.pageRank> =>
        graph.pageRank({ ...options, onProgress });
      const { found } = await withKills([[superstep, superstep % 3]], run);
      for (const [key, value] of expected) expect(Math.abs((found.get(key) as number) - value)).toBeLessThan(1e-12);
      expect(found.size).toBe(expected.size);
    }
  },
  120_000,
);
