/** Vertex programs of users on real threads: the same answers as the built-in algorithms, and what becomes of programs that misbehave. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Cluster } from "../../src/index.ts";
import { startTestCluster } from "../support/cluster.ts";
import { loadLdbc } from "../support/graphs.ts";
import { LDBC_GRAPHS, type LdbcGraph } from "../support/ldbc-graphs.ts";
import { endless, largest, looper, ranks, thrower } from "../support/vertex-programs.ts";

const PROGRAMS_URL = new URL("../support/vertex-programs.js", import.meta.url);
const example = LDBC_GRAPHS.find(({ name }) => name === "test-pr-directed") as LdbcGraph;
let cluster: Cluster;
let graph: Awaited<ReturnType<Cluster["graph"]>>;

beforeAll(async () => {
  cluster = await startTestCluster({ workers: 3, actors: [PROGRAMS_URL] });
  graph = await loadLdbc(cluster, "programs", example);
});
afterAll(() => cluster.close());

it.each(["push", "pull", "auto"] as const)("runs PageRank as a program, by %s", async (exchange) => {
  const program = await graph.run<number>(ranks, { damping: 0.85 }, { exchange });
  const builtIn = await graph.pageRank({ damping: 0.85, iterations: 10, exchange });
  const expected = await builtIn.toMap();
  let compared = 0;
  for await (const { key, value } of program) {
    expect(Math.abs(value - (expected.get(key) as number))).toBeLessThan(1e-12);
    compared++;
  }
  expect(compared).toBe(50);
  expect(program.supersteps).toBe(11);
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

it("names the vertex at which a program throws, and serves on", async () => {
  await expect(graph.run(thrower, { at: 7 })).rejects.toMatchObject({
    code: "ERR_ACTOR_FAILED",
    details: { program: "thrower", vertex: 7, superstep: 2 },
  });
  expect((await graph.wcc()).vertices).toBe(50);
  expect((await graph.status()).map(({ runs }) => runs)).toEqual([0, 0, 0]);
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
