/** Vertex programs of users on real threads: the same answers as the built-in algorithms, and what becomes of programs that misbehave. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, GraphEdge, RunProgress } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { ACTORS_URL, keyOnShard, startTestCluster } from "../support/cluster.ts";
import { loadLdbc } from "../support/graphs.ts";
import { LDBC_GRAPHS, type LdbcGraph } from "../support/ldbc-graphs.ts";
import {
  endless,
  largest,
  looper,
  ranks,
  rounds,
  thrower,
  wakingByLeast,
  wakingByMost,
  wakingBySum,
  wakingByWeights,
} from "../support/vertex-programs.ts";

const PROGRAMS_URL = new URL("../support/vertex-programs.js", import.meta.url);
const example = LDBC_GRAPHS.find(({ name }) => name === "test-pr-directed") as LdbcGraph;
let cluster: Cluster;
let graph: Awaited<ReturnType<Cluster["graph"]>>;

beforeAll(async () => {
  cluster = await startTestCluster({ workers: 3, actors: [ACTORS_URL, PROGRAMS_URL] });
  graph = await loadLdbc(cluster, "programs", example);
});
afterAll(() => cluster.close());

describe.each(["push", "pull", "auto"] as const)("a program that halts, by %s", (exchange) => {
  it.each([
    ["itself", ranks],
    ["its name", "ranks"],
  ])("is PageRank, given %s", async (_, program) => {
    await using found = await graph.run(program as typeof ranks, { damping: 0.85 }, { exchange });
    await using builtIn = await graph.pageRank({ damping: 0.85, iterations: 10, exchange });
    const expected = await builtIn.toMap();
    let compared = 0;
    for await (const { key, value } of found) {
      expect(Math.abs(value - (expected.get(key) as number))).toBeLessThan(1e-12);
      compared++;
    }
    expect(compared).toBe(50);
    expect(found.supersteps).toBe(11);
  });

  it("halts when run by its name as when it is given, superstep for superstep", async () => {
    const run = async (program: typeof rounds | "rounds") => {
      const told: RunProgress[] = [];
      const options = { exchange, onProgress: (progress: RunProgress) => void told.push(progress) };
      await using result = await graph.run(program as typeof rounds, {}, options);
      return { supersteps: result.supersteps, sums: result.sums, values: await result.toMap(), told };
    };
    const given = await run(rounds);
    expect(await run("rounds")).toEqual(given);
    expect(given).toMatchObject({ supersteps: 5, sums: [4, 200] });
    expect(given.values.get(1)).toEqual({ rounds: 4, seen: 150 });
    expect(given.told.map(({ superstep, active }) => [superstep, active])).toEqual(
      [0, 1, 2, 3, 4].map((at) => [at, 50]),
    );
  });
});

it.each(["push", "pull"] as const)("gives every field of a program's state, by %s", async (exchange) => {
  const result = await graph.run<{ largest: number; changes: number }>("largest", {}, { exchange });
  const values = await result.toMap();
  expect(values.size).toBe(50);
  const edges = example.edges.split("|").map((line) => line.split(" ").map(Number) as [number, number]);
  let changed = 0;
  for (const [source, target] of edges)
    expect(values.get(target)?.largest).toBeGreaterThanOrEqual(values.get(source)?.largest as number);
  for (const [key, { largest: found, changes }] of values) {
    expect(found).toBeGreaterThanOrEqual(key as number);
    expect(changes > 0).toBe(found > (key as number));
    changed += changes;
  }
  expect(changed).toBeGreaterThan(0);
  expect(await result.get(1)).toEqual(values.get(1));
  expect(largest.name).toBe("largest");
});

describe.each(["push", "pull"] as const)("a program that goes wrong, by %s", (exchange) => {
  afterEach(async () => {
    expect((await graph.status()).map(({ runs }) => runs)).toEqual([0, 0, 0]);
  });
  afterAll(async () => {
    await using components = await graph.wcc({ exchange });
    expect((await components.toMap()).size).toBe(50);
  });

  it.each([
    ["throw", 0, "planted"],
    ["throw", 1, "planted"],
    ["throw", 3, "planted"],
    ["text", 1, "planted"],
    ["symbol", 1, "Symbol(planted)"],
    ["bare", 1, "an object of no class"],
    ["lost", 2, "Cannot go on as planted"],
    ["promise", 0, "Cannot go on as what is returned must be no promise: current value is an object of Promise"],
    ["promise", 1, "Cannot go on as what is returned must be no promise: current value is an object of Promise"],
    ["field", 1, 'Cannot use state as field must be one of nothing: current value is "missing"'],
    ["sum", 2, "Cannot aggregate as wrongs must be a number: current value is NaN"],
    ["value", 0, "Cannot send as value must be a number: current value is NaN"],
    ["state", 1, 'Cannot set as nothing must be a number: current value is "1"'],
  ])("names the vertex: %s in superstep %i", async (wrong, superstep, reason) => {
    const attempts: number[] = [];
    const options = { exchange, onProgress: ({ attempt }: RunProgress) => void attempts.push(attempt) };
    await expect(graph.run(thrower, { at: 7, superstep, wrong }, options)).rejects.toMatchObject({
      code: "ERR_ACTOR_FAILED",
      message: `Cannot run vertex program thrower as it threw at vertex 7 in superstep ${superstep}: ${reason}`,
      details: { program: "thrower", vertex: 7, superstep },
    });
    expect(attempts).toEqual(Array.from({ length: superstep }, () => 1));
  });

  it.each([
    ["halt", "planted after 1"],
    ["late halt", "Cannot go on as what is returned must be no promise: current value is an object of Promise"],
    ["odd halt", 'Cannot halt as the answer must be true or false: current value is "yes"'],
  ])("names the superstep: %s", async (wrong, reason) => {
    for (const program of [thrower, thrower.name])
      await expect(
        graph.run(program as typeof thrower, { at: 7, superstep: 1, wrong }, { exchange }),
      ).rejects.toMatchObject({
        code: "ERR_ACTOR_FAILED",
        message: `Cannot run vertex program thrower as it threw in halt after superstep 1: ${reason}`,
        details: { program: "thrower", superstep: 1 },
      });
  });
});

it.each(["push", "pull"] as const)("wakes who was sent something, whatever it adds up to, by %s", async (exchange) => {
  const small = await cluster.graph(`waking-${exchange}`, { weighted: true });
  const edge = (source: number, target: number, weight: number): GraphEdge => ({ source, target, weight });
  const edges = [
    edge(1, 3, 2),
    edge(2, 3, 2),
    edge(4, 5, 1),
    edge(1, 6, 0),
    edge(2, 7, 0),
    edge(5, 8, 1),
    edge(9, 1, 1),
  ];
  await small.load([{ edges }], { createMissing: true });
  const infinity = Number.POSITIVE_INFINITY;
  for (const [program, sent, woken] of [
    [wakingBySum, { 1: 1, 2: -1, 4: -0 }, { 3: 0, 5: 0, 6: 1, 7: -1 }],
    [wakingByWeights, { 1: 1, 2: -1, 4: 0 }, { 3: 0, 5: 0, 6: 0, 7: 0 }],
    [wakingByLeast, { 1: 1, 2: infinity, 4: -infinity }, { 3: 1, 5: -infinity, 6: 1 }],
    [wakingByMost, { 1: 1, 2: -1, 4: -infinity }, { 3: 2, 6: 0, 7: 0 }],
  ] as const) {
    await using result = await small.run(program, sent, { exchange });
    const found: Record<number, number> = {};
    for await (const { key, value } of result) {
      if (value.woken > 0) found[key as number] = value.by;
      expect([value.woken, result.supersteps], `${program.name}, vertex ${key}`).toEqual([key in woken ? 1 : 0, 2]);
    }
    expect(found, program.name).toEqual(woken);
  }
  await cluster.dropGraph(small.name);
});

it("halts a program run by its name although the shard that says so was lost", async () => {
  const lose = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 0));
  let killed: Promise<unknown> | undefined;
  const onProgress = ({ superstep, attempt }: RunProgress): void => {
    if (superstep === 20 && attempt === 1) killed = lose.exit(1, { priority: "control" }).catch(() => undefined);
  };
  await using result = await graph.run<number>("patient", {}, { onProgress });
  await killed;
  expect(result.attempts).toBeGreaterThan(1);
  expect(result.supersteps).toBe(201);
  expect([...new Set((await result.toMap()).values())]).toEqual([200]);
});

it("ends a program that does not end, at its bound", async () => {
  await expect(graph.run(endless)).rejects.toMatchObject({ code: "ERR_OVERLOADED", details: { limit: 50 } });
  expect((await graph.status()).map(({ runs }) => runs)).toEqual([0, 0, 0]);
});

it("refuses programs that no module exports, and values that are none", async () => {
  await expect(graph.run("missing")).rejects.toMatchObject({ code: "ERR_UNKNOWN_ACTOR" });
  await expect(graph.run({ name: "plain" } as never)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
});

it("ends a program that holds its thread, and the graph is there again", async () => {
  const own = await startTestCluster({ maxHandlerMs: 1_000, actors: [PROGRAMS_URL] });
  try {
    const held = await loadLdbc(own, "held", example);
    await expect(held.run(looper, { at: 3 })).rejects.toMatchObject({ code: "ERR_HANDLER_HUNG" });
    const result = await held.bfs({ source: 1 });
    expect(result.vertices).toBe(50);
    expect((await held.status()).map(({ runs }) => runs)).toEqual([0, 0]);
  } finally {
    await own.close();
  }
});
