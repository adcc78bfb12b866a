/** Workers lost in the middle of runs: the run goes on from what was saved, or from the beginning, and gives the same. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Cluster, GraphEdge, RunProgress } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";

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

beforeAll(async () => {
  cluster = await startTestCluster({ workers: 3 });
  graph = await cluster.graph("failures");
  await graph.load([{ vertices: Array.from({ length: VERTICES }, (_, key) => key) }, { edges: edgesOf() }]);
});
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

it.each([
  ["push", 1],
  ["pull", 64],
] as const)(
  "PageRank by %s gives the same when workers are lost, %i ordered at once",
  async (exchange, superstepsAtOnce) => {
    const options = { iterations: 40, exchange, superstepsAtOnce, checkpointEvery: 5 };
    const expected = await (await graph.pageRank(options)).toMap();
    const kills = [
      [3, 1],
      [18, 0],
    ] as const;
    const told: RunProgress[] = [];
    const { found, attempts, steps } = await withKills(kills, (onProgress) =>
      graph.pageRank({
        ...options,
        onProgress: (progress) => {
          told.push(progress);
          onProgress(progress);
        },
      }),
    );
    expect(attempts).toBeGreaterThanOrEqual(3);
    expect(found.size).toBe(VERTICES);
    for (const [key, value] of expected) expect(Math.abs((found.get(key) as number) - value)).toBeLessThan(1e-12);
    // It went on each time behind the last superstep that was told, and so acknowledged by all, as one that is saved.
    const resumed = told.flatMap(({ attempt, superstep }, at) =>
      at > 0 && attempt > (told[at - 1] as RunProgress).attempt
        ? [{ from: superstep, before: steps[at - 1] as number }]
        : [],
    );
    expect(resumed.length).toBeGreaterThanOrEqual(2);
    for (const { from, before } of resumed) expect(from).toBe(before < 5 ? 0 : before - (before % 5) + 1);
    expect(resumed.at(-1)?.from).toBeGreaterThan(15);
    expect(steps.at(-1)).toBe(40);
  },
);

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
