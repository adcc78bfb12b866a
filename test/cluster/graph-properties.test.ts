/** Properties of vertices on real threads: set, read, taken away, seen by programs, kept when workers are lost, refused when they are wrong. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Cluster, Motif } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { ACTORS_URL, startTestCluster } from "../support/cluster.ts";
import { loseWorkers } from "../support/graphs.ts";
import { worth } from "../support/vertex-programs.ts";

const SEED = Number(process.env["SEED"] ?? 12);
const KINDS = { value: "number", kind: "text", name: "text" } as const;
let cluster: Cluster;
beforeAll(async () => {
  const programs = new URL("../support/vertex-programs.js", import.meta.url);
  cluster = await startTestCluster({ workers: 3, actors: [ACTORS_URL, programs] });
});
afterAll(() => cluster.close());

it(`are what was set last, as a map has it (SEED=${SEED})`, async () => {
  const random = createSeededRandom(SEED);
  const pick = (below: number): number => Math.floor(random.float() * below);
  const graph = await cluster.graph("model", { vertexProperties: KINDS });
  const keys = Array.from({ length: 700 }, (_, at) => (at % 3 === 0 ? `k${at}` : at));
  await graph.addVertices(keys);
  const model = new Map<string | number, Record<string, string | number>>(keys.map((key) => [key, {}]));
  const texts = ["", "ß", "counts", "x".repeat(4096), "日本".repeat(300)];
  for (let round = 0; round < 12; round++) {
    const some = [...new Set(Array.from({ length: 200 }, () => keys[pick(700)] as string | number))];
    const value = some.map(() =>
      random.float() < 0.2 ? null : random.float() < 0.2 ? undefined : random.float() * 1e9,
    );
    const name = some.map(() => (random.float() < 0.2 ? null : (texts[pick(texts.length)] as string)));
    expect(await graph.setProperties(some, { value, name })).toBe(some.length);
    for (const [at, key] of some.entries()) {
      const has = model.get(key) as Record<string, string | number>;
      for (const [property, given] of Object.entries({ value: value[at], name: name[at] })) {
        if (given === null) delete has[property];
        else if (given !== undefined) has[property] = given;
      }
    }
  }
  expect(await graph.properties(keys)).toEqual(keys.map((key) => model.get(key)));
  const names = await graph.properties(["nobody", ...keys.slice(0, 50)], ["name"]);
  expect(names[0]).toBeUndefined();
  const expected = keys.slice(0, 50).map((key) => model.get(key)?.["name"]);
  expect(names.slice(1).map((found) => found?.["name"])).toEqual(expected);

  await loseWorkers(cluster, graph, [0, 1, 2]);
  expect(await graph.properties(keys)).toEqual(keys.map((key) => model.get(key)));
  await graph.setProperties([1], { name: ["again"] });
  expect((await graph.properties([1], ["name"]))[0]).toEqual({ name: "again" });
}, 180_000);

it("come with batches, are seen by vertex programs, and go with their vertices", async () => {
  const graph = await cluster.graph("seen", { vertexProperties: KINDS });
  await graph.load([
    { vertices: [1, 2], properties: { value: [10, 20], kind: ["counts", null] } },
    { keys: [3, 4], properties: { kind: ["counts", "counts"] } },
    { sources: [1, 2, 1, 2], targets: [2, 3, 3, 4] },
  ]);
  const found = await (await graph.run<number>(worth)).toMap();
  expect(Object.fromEntries(found)).toEqual({ 1: 0, 2: 0, 3: 30, 4: 20 });
  await graph.removeVertices([2]);
  expect(await graph.properties([1, 2])).toEqual([{ value: 10, kind: "counts" }, undefined]);
  await graph.addVertices([2]);
  expect(await graph.properties([2])).toEqual([{}]);
});

it("are refused whole when one of them is wrong", async () => {
  const graph = await cluster.graph("wrong", { vertexProperties: KINDS });
  await graph.addVertices([1, 2]);
  await graph.setProperties([1, 2], { value: [1, 2] });
  const bad = { code: "ERR_INVALID_ARGUMENT" };
  await expect(graph.setProperties([1, 2], { value: [5, Number.NaN] })).rejects.toMatchObject(bad);
  await expect(graph.setProperties([1, 2], { value: [5, "six"] })).rejects.toMatchObject(bad);
  await expect(graph.setProperties([1, 2], { value: [5] })).rejects.toMatchObject(bad);
  await expect(graph.setProperties([1, 2], { kind: [5, "x"] })).rejects.toMatchObject(bad);
  await expect(graph.setProperties([1, 2], { kind: ["x", "y".repeat(4097)] })).rejects.toMatchObject(bad);
  await expect(graph.setProperties([1, 2], { age: [5, 6] })).rejects.toMatchObject(bad);
  await expect(graph.properties([1], ["age"])).rejects.toMatchObject(bad);
  const unknown = { code: "ERR_UNKNOWN_VERTEX", details: { vertex: 9 } };
  await expect(graph.setProperties([9], { value: [5] })).rejects.toMatchObject(unknown);
  expect(await graph.properties([1, 2])).toEqual([{ value: 1 }, { value: 2 }]);
  await expect(cluster.graph("wrong", { vertexProperties: { value: "number" } })).rejects.toMatchObject({
    code: "ERR_COLLECTION_MISMATCH",
    details: { name: "vertexProperties" },
  });
});

it("leave no memory behind", async () => {
  const used = (): number => cluster.arena.stats().usedBytes;
  const before = used();
  const graph = await cluster.graph("room", { vertexProperties: KINDS, edgeProperties: ["a"], weighted: true });
  const keys = Array.from({ length: 3_000 }, (_, key) => key);
  await graph.addVertices(keys);
  await graph.setProperties(keys, { value: keys, name: keys.map((key) => `name of ${key}`) });
  expect(used() - before).toBeGreaterThan(3_000 * 30);
  await cluster.dropGraph("room");
  expect(used()).toBe(before);
});

it("say which vertices may stand for those of a motif", async () => {
  const graph = await cluster.graph("typed", { vertexProperties: KINDS });
  // Two shops, each with an order of three customers; what a customer is worth is his number.
  const customers = [1, 2, 3, 4, 5, 6];
  await graph.load([
    { vertices: ["s1", "s2"], properties: { kind: ["shop", "shop"] } },
    { vertices: customers, properties: { kind: customers.map(() => "customer"), value: customers } },
    { vertices: ["nobody"] },
    { sources: [...customers, "nobody"], targets: ["s1", "s1", "s1", "s2", "s2", "s2", "s2"] },
  ]);
  const motif = {
    edges: [
      { from: "a", to: "shop" },
      { from: "b", to: "shop" },
    ],
  };
  const found = async (where: NonNullable<Motif["where"]>): Promise<string[]> => {
    const { matches } = await graph.findMotif({ ...motif, where });
    return matches.map(({ a, b, shop }) => `${a} ${b} ${shop}`).sort();
  };
  expect(await found({})).toHaveLength(3 + 6);
  expect(await found({ a: { kind: "customer" }, b: { kind: "customer" } })).toHaveLength(6);
  expect(await found({ a: { value: { atLeast: 5 } }, b: { value: { atMost: 4 } } })).toEqual(["5 4 s2", "6 4 s2"]);
  expect(await found({ shop: { kind: ["customer", "x"] } })).toEqual([]);
  const wrong: readonly [Record<string, unknown>, RegExp][] = [
    [{ size: 1 }, /a property of a must be one of value, kind, name: current value is "size"/],
    [{ value: "1" }, /value of a must be a number/],
    [{ value: { above: 1 } }, /value of a must be a number, some of them, or \{ atLeast, atMost \}/],
    [{ kind: { atLeast: 1 } }, /kind of a must be text, some of them/],
    [{ kind: [] }, /kind of a must be text/],
  ];
  for (const [conditions, message] of wrong) {
    const asked = found({ a: conditions as never });
    await expect(asked).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringMatching(message),
    });
  }
});
