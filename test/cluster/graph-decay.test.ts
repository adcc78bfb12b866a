/** What edges carry, and weights that decay, on real threads: alone, on the ticks of a barrier, and while workers are lost. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, GraphOptions, VertexKey } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";

type Graph = Awaited<ReturnType<Cluster["graph"]>>;

let cluster: Cluster;
let graphs = 0;
beforeAll(async () => {
  cluster = await startTestCluster({ workers: 3 });
});
afterAll(() => cluster.close());

const KEYS = Array.from({ length: 40 }, (_, key) => key);
const weightOf = (key: number): number => 2 ** (key % 8);

/** A ring whose edges weigh 1 to 128. */
async function ringOf(options: GraphOptions = {}): Promise<Graph> {
  const graph = await cluster.graph(`decay-${graphs++}`, { weighted: true, ...options });
  await graph.addVertices(KEYS);
  await graph.addEdges(KEYS.map((key) => ({ source: key, target: (key + 1) % 40, weight: weightOf(key) })));
  return graph;
}

/** Weights of the edges that leave each vertex. */
async function weights(graph: Graph, keys: readonly VertexKey[] = KEYS): Promise<number[][]> {
  return (await graph.neighbours(keys)).map((list) => [...(list?.weights ?? [])]);
}

async function kill(shard: number): Promise<void> {
  const killed = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard)).exit(1, { priority: "control" });
  await killed.catch(() => undefined);
}

const ascending = (list: readonly number[]): number[] => [...list].sort((a, b) => a - b);

describe("edges carry", () => {
  it("numbers by name, in both directions, also where none were given, or a worker was lost", async () => {
    const options = { edgeProperties: ["since", "trust"], weighted: true };
    const graph = await cluster.graph("carried", options);
    await graph.addEdges(
      [
        { source: "a", target: "b", weight: 3, properties: { since: 1999, trust: 0.5 } },
        { source: "a", target: "c", properties: { trust: 0.25 } },
        { source: "b", target: "c" },
      ],
      { createMissing: true },
    );
    const [before] = await graph.neighbours(["b"], "in");
    expect(before).toMatchObject({ keys: ["a"], weights: Float64Array.of(3) });
    expect(before?.properties).toEqual({ since: Float64Array.of(1999), trust: Float64Array.of(0.5) });
    await graph.addEdges({
      sources: ["c", "c"],
      targets: ["a", "b"],
      properties: { since: Float64Array.of(2020, Number.NaN) },
    });
    await graph.removeVertices(["b"]);
    await graph.decay({ rate: 0.5 });
    for (const shard of [0, 1, 2]) await kill(shard);
    await eventually(
      "all shards serve",
      () =>
        graph.status().then(
          () => true,
          () => false,
        ),
      60_000,
    );
    const [a, b, c] = await graph.neighbours(["a", "b", "c"]);
    expect(a?.keys).toEqual(["c"]);
    expect(a?.weights).toEqual(Float64Array.of(0.5));
    expect(a?.properties).toEqual({ since: Float64Array.of(Number.NaN), trust: Float64Array.of(0.25) });
    expect(b).toBeUndefined();
    expect(c?.keys).toEqual(["a"]);
    expect(c?.properties?.["since"]).toEqual(Float64Array.of(2020));
    const around = (await graph.neighbours(["a"], "both"))[0];
    expect(new Set(around?.properties?.["since"])).toEqual(new Set([2020, Number.NaN]));
  }, 180_000);

  it.each([true, false])(
    "other numbers when they are set, all between two vertices; directed: %s",
    async (directed) => {
      const graph = await cluster.graph(`set-${directed}`, { directed, weighted: true, edgeProperties: ["since"] });
      await graph.addVertices([1, 2, 3, 4]);
      const properties = { since: 7 };
      await graph.addEdges([
        { source: 1, target: 2, weight: 5, properties },
        { source: 1, target: 2, weight: 6, properties },
        { source: 2, target: 3, weight: 7, properties },
        { source: 3, target: 3, weight: 8, properties },
      ]);
      const [source, target]: [number, number] = directed ? [1, 2] : [2, 1];
      expect(await graph.setEdges([{ source, target, weight: 0.5 }])).toBe(2);
      expect(await graph.setEdges([{ source: 3, target: 3, properties: { since: 9 } }])).toBe(1);
      expect(await graph.setEdges([{ source: 4, target: 1, weight: 1 }])).toBe(0);
      const both = await graph.setEdges({
        sources: [2, 1],
        targets: [3, 2],
        weights: [Number.NaN, 0.25],
        properties: { since: [8, Number.NaN] },
      });
      expect(both).toBe(3);
      const [one, two, three] = await graph.neighbours([1, 2, 3]);
      expect(one).toEqual({
        keys: [2, 2],
        weights: Float64Array.of(0.25, 0.25),
        properties: { since: Float64Array.of(7, 7) },
      });
      const forth = two?.keys.indexOf(3) ?? -1;
      expect([two?.weights?.[forth], two?.properties?.["since"]?.[forth]]).toEqual([7, 8]);
      const loop = three?.keys.indexOf(3) ?? -1;
      expect([three?.weights?.[loop], three?.properties?.["since"]?.[loop]]).toEqual([8, 9]);
      const distance = await (await graph.sssp({ source: 1 })).get(3);
      expect(distance).toBe(7.25);
      const unknown = { code: "ERR_UNKNOWN_VERTEX", details: { vertex: 9 } };
      await expect(graph.setEdges([{ source: 1, target: 9, weight: 1 }])).rejects.toMatchObject(unknown);
      const bad = { code: "ERR_INVALID_ARGUMENT" };
      const endless = graph.setEdges([{ source: 1, target: 2, weight: Number.POSITIVE_INFINITY }]);
      await expect(endless).rejects.toMatchObject(bad);
      const undone = graph.addEdges({ sources: [1], targets: [2], weights: [Number.NaN] });
      await expect(undone).rejects.toMatchObject(bad);
    },
  );

  it("nothing else than what the graph was created with", async () => {
    const graph = await cluster.graph("strict", { edgeProperties: ["since"] });
    await graph.addVertices([1, 2]);
    const bad = { code: "ERR_INVALID_ARGUMENT" };
    const add = (properties: Record<string, number>): Promise<number> =>
      graph.addEdges([{ source: 1, target: 2, properties }]);
    await expect(add({ until: 1 })).rejects.toMatchObject(bad);
    await expect(add({ since: Number.NaN })).rejects.toMatchObject(bad);
    await expect(add({ since: "x" as never })).rejects.toMatchObject(bad);
    const uneven = graph.addEdges({ sources: [1], targets: [2], properties: { since: [1, 2] } });
    await expect(uneven).rejects.toMatchObject(bad);
    await expect(cluster.graph("strict", {})).rejects.toMatchObject({ code: "ERR_COLLECTION_MISMATCH" });
    await expect(cluster.graph("new", { edgeProperties: ["a", "a"] })).rejects.toMatchObject(bad);
    await expect(cluster.graph("new", { vertexProperties: { a: "date" as never } })).rejects.toMatchObject(bad);
    expect((await graph.neighbours([1]))[0]?.keys).toEqual([]);
  });
});

describe("weights decay", () => {
  it.each([true, false])("by a part, and what is too small goes; directed: %s", async (directed) => {
    const graph = await ringOf({ directed });
    await graph.addEdges([{ source: 0, target: 1, weight: -64 }]);
    const { number, edges, pruned } = await graph.decay({ rate: 0.75, pruneBelow: 1 });
    // 1/4 and 1/2 are too small, 1 is not.
    expect({ number, edges, pruned }).toEqual({ number: 1, edges: 31, pruned: 10 });
    const left = await weights(graph);
    const out = (key: number): number[] => {
      const own = weightOf(key) >= 4 ? [weightOf(key) / 4] : [];
      if (directed) return key === 0 ? [-16] : own;
      const before = (key + 39) % 40;
      const back = weightOf(before) >= 4 ? [weightOf(before) / 4] : [];
      return [...own, ...back, ...(key < 2 ? [-16] : [])];
    };
    expect(left.map(ascending)).toEqual(KEYS.map((key) => ascending(out(key))));
    expect((await graph.status()).map(({ decays }) => decays)).toEqual([1, 1, 1]);
    expect(await graph.decay({ rate: 1, pruneBelow: 1e-300 })).toEqual({ number: 2, edges: 0, pruned: 31 });
    await graph.addEdges([{ source: 3, target: 4, weight: 8 }]);
    expect(await (await graph.sssp({ source: 3 })).get(4)).toBe(8);
  });

  it("once for each number, whoever asks again and whichever worker is lost", async () => {
    const graph = await ringOf();
    for (let number = 1; number <= 6; number++) {
      const decays = [
        graph.decay({ rate: 0.5, number, timeoutMs: 120_000 }),
        kill(number % 3),
        graph.decay({ rate: 0.5, number, timeoutMs: 120_000 }),
      ];
      await Promise.all(decays);
    }
    await expect(graph.decay({ rate: 0.5, number: 3 })).resolves.toMatchObject({ number: 3, edges: 40, pruned: 0 });
    expect(await weights(graph)).toEqual(KEYS.map((key) => [weightOf(key) / 64]));
  }, 180_000);

  it("when runs have ended, and not without weights", async () => {
    const graph = await ringOf();
    let decay: Promise<unknown> | undefined;
    const onProgress = ({ superstep }: { readonly superstep: number }): void => {
      if (superstep === 2) decay = graph.decay({ rate: 0.5 });
    };
    const found = await (await graph.sssp({ source: 0, onProgress })).toMap();
    expect(found.get(8)).toBe(255);
    await decay;
    expect(await (await graph.sssp({ source: 0 })).get(8)).toBe(127.5);
    const bad = { code: "ERR_INVALID_ARGUMENT" };
    await expect(graph.decay({ rate: 1.5 })).rejects.toMatchObject(bad);
    await expect(graph.decay({ rate: 0.5, pruneBelow: -1 })).rejects.toMatchObject(bad);
    await expect(graph.decay({ rate: 0.5, number: 0 })).rejects.toMatchObject(bad);
    const plain = await cluster.graph("weightless");
    await expect(plain.decay({ rate: 0.5 })).rejects.toMatchObject(bad);
  });

  it("on the ticks of a barrier, in their phase", async () => {
    const graph = await ringOf();
    const barrier = await cluster.barrier("ticks", { phases: ["act", "decay", "look"], members: ["watcher"] });
    await expect(graph.decayOnTicks(barrier, { rate: 0.5, phase: "rest" })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
    const told: number[] = [];
    const decaying = await graph.decayOnTicks(barrier, {
      rate: 0.5,
      pruneBelow: 1,
      onDecay: ({ pruned }, tick) => told.push(tick, pruned),
    });
    let strongest = 128;
    const seen: number[] = [];
    for (let tick = 0; tick < decaying.since + 3; tick++) {
      // All is as it was until everybody has acted.
      if (tick >= decaying.since) seen.push(Math.max(...(await weights(graph)).flat()) / strongest);
      await barrier.arrive("watcher", "act", { round: tick });
      if (tick >= decaying.since) strongest /= 2;
      await barrier.arrive("watcher", "decay", { round: tick });
      if (tick >= decaying.since) seen.push(Math.max(...(await weights(graph)).flat()) / strongest);
      await barrier.arrive("watcher", "look", { round: tick });
    }
    const { since } = decaying;
    expect(told.slice(0, 6)).toEqual([since, 5, since + 1, 5, since + 2, 5]);
    expect(seen).toEqual([1, 1, 1, 1, 1, 1]);
    await decaying.stop();
    await decaying.done;
    expect((await barrier.state()).members).not.toContain(`graph/${graph.name}`);
    const before = await weights(graph);
    await barrier.close();
    expect(await weights(graph)).toEqual(before);
  }, 180_000);

  it("no more when the graph is gone: the barrier loses its member", async () => {
    const graph = await ringOf();
    const barrier = await cluster.barrier("loser", {
      phases: ["decay"],
      members: ["other"],
      lossPolicy: "shrink",
      minMembers: 1,
    });
    const decaying = await graph.decayOnTicks(barrier, { rate: 0.5 });
    await cluster.dropGraph(graph.name);
    for (let tick = 0; tick <= decaying.since; tick++) await barrier.arrive("other", "decay", { round: tick });
    await expect(decaying.done).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    expect((await barrier.state()).lost).toBe(1);
    await barrier.close();
  }, 180_000);
});
