/** Text and vectors of the same documents together, and what a cluster tells of itself. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Cluster, hybridSearch, type TextCollection, type VectorCollection } from "../../src/index.ts";
import { startTestCluster } from "../support/cluster.ts";

const TOPICS = ["tea", "coffee", "rings", "actors", "shards"];

describe("hybrid search", () => {
  let cluster: Cluster;
  let texts: TextCollection;
  let vectors: VectorCollection;

  beforeAll(async () => {
    cluster = await startTestCluster({ workers: 2 });
    texts = await cluster.text("notes", { language: "english" });
    vectors = await cluster.vectors("notes", { dimensions: 2, metric: "l2" });
    const documents = Array.from({ length: 100 }, (_, id) => {
      const topic = TOPICS[id % TOPICS.length] as string;
      return { id, text: `note ${id} about ${topic} ${id % 10 === 0 ? `${topic} ${topic}` : ""}` };
    });
    await texts.upsert(documents);
    await vectors.upsert(documents.map(({ id }) => ({ id, vector: [id, 0], payload: { even: id % 2 === 0 } })));
  });

  afterAll(async () => {
    await cluster.close();
  });

  it("ranks first what both find, by rank and by score, and tells where each hit came from", async () => {
    for (const fusion of ["rank", "score"] as const) {
      const { hits, completeness } = await hybridSearch(
        texts,
        vectors,
        { text: "tea", vector: [10, 0] },
        { fusion, k: 5 },
      );
      // 10 is about tea three times over, and the nearest vector.
      expect(hits[0]).toMatchObject({ id: 10, text: { hit: { id: 10 } }, vector: { rank: 1 } });
      expect(hits).toHaveLength(5);
      for (const [at, { score }] of hits.entries())
        expect(score).toBeLessThanOrEqual(hits[Math.max(0, at - 1)]?.score ?? Number.NaN);
      expect(completeness.text.complete && completeness.vector.complete).toBe(true);
    }
  });

  it("is the text ranking or the vector ranking when the other counts nothing", async () => {
    const query = { text: "coffee", vector: [50, 0] };
    const byText = await hybridSearch(texts, vectors, query, { weights: { vector: 0 }, k: 10 });
    expect(byText.hits.map(({ id }) => id)).toEqual((await texts.search("coffee", { k: 10 })).hits.map(({ id }) => id));
    const byVector = await hybridSearch(texts, vectors, query, {
      weights: { text: 0 },
      k: 10,
      vector: { filter: { even: true } },
    });
    const nearest = await vectors.search([50, 0], { k: 10, filter: { even: true } });
    expect(byVector.hits.map(({ id }) => id)).toEqual(nearest.hits.map(({ id }) => id));
  });

  it("states the staleness of the staler search", async () => {
    const aged = <T extends TextCollection | VectorCollection>(of: T, stalenessMs: number): T =>
      ({
        search: async (...given: never[]) => ({
          ...(await (of.search as (...args: never[]) => Promise<object>).apply(of, given)),
          stalenessMs,
        }),
      }) as unknown as T;
    const query = { text: "tea", vector: [1, 0] };
    expect((await hybridSearch(texts, vectors, query)).stalenessMs).toBe(0);
    for (const [text, vector] of [
      [30, 7],
      [7, 30],
    ] as const)
      expect((await hybridSearch(aged(texts, text), aged(vectors, vector), query)).stalenessMs).toBe(30);
  });

  it("refuses bad options before anything is sent, and ends whole when one search fails", async () => {
    const query = { text: "tea", vector: [1, 0] };
    const sent = cluster.routerStats().requests;
    for (const options of [
      { k: 0 },
      { k: 10, candidates: 5 },
      { fusion: "best" as "rank" },
      { weights: { text: -1 } },
      { weights: { text: 0, vector: 0 } },
      { k0: Number.NaN },
      { fusion: "score" as const, normalize: "none" as "max" },
    ]) {
      await expect(hybridSearch(texts, vectors, query, options), JSON.stringify(options)).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
      });
    }
    expect(cluster.routerStats().requests).toBe(sent);
    await expect(hybridSearch(texts, vectors, { text: "tea", vector: [1] })).rejects.toMatchObject({
      code: "ERR_DIMENSION_MISMATCH",
    });
    const signal = AbortSignal.abort();
    await expect(hybridSearch(texts, vectors, query, { signal })).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });

  it("counts documents, bytes, members and ticks for the whole cluster", async () => {
    const barrier = await cluster.barrier("days", { phases: ["work"], members: ["a"] });
    await barrier.arrive("a", "work");
    const graph = await cluster.graph("roads", { directed: true });
    await graph.addVertices([1, 2, 3]);
    await graph.addEdges([
      { source: 1, target: 2 },
      { source: 2, target: 3 },
      { source: 3, target: 1 },
      { source: 1, target: 3 },
    ]);
    const stats = await cluster.clusterStats();
    expect(stats).toMatchObject({
      nodes: 1,
      healthyNodes: 1,
      shards: 2,
      onlineShards: 2,
      health: "green",
      quorum: true,
      collections: 3,
      documents: 200,
      vertices: 3,
      edges: 4,
      missing: [],
    });
    expect(stats.bytes).toBeGreaterThan(10_000);
    const shards = cluster.members().filter(({ kind }) => kind === "shard");
    expect(shards.reduce((sum, { metrics }) => sum + (metrics["documents"] ?? 0), 0)).toBe(200);
    expect(stats.ticks["days"], "of one phase, all have arrived").toBe(1);
    await barrier.close();
    await cluster.dropGraph("roads");
    const router = cluster.routerStats();
    expect(router.reads.scatter).toBeGreaterThan(0);
    expect(router.writes).toBeGreaterThan(0);
    expect(router.shards.map(({ state, breaker }) => [state, breaker])).toEqual([
      ["up", "closed"],
      ["up", "closed"],
    ]);
    expect(router.shards.every(({ latencyUs, inFlight }) => latencyUs > 0 && inFlight === 0)).toBe(true);
    expect(router.admission).toMatchObject({ inFlight: 0, queued: 0 });
  });

  it("explains a search: plan, shards, times and bytes", async () => {
    const { explain } = await vectors.search([1, 0], { k: 3, explain: true });
    expect(explain?.plan).toMatchObject({
      kind: "scatter",
      strategy: "scatter",
      copies: "power-of-two",
      consistency: "strong",
      unavailable: [],
    });
    expect(explain?.plan.targets.flatMap(({ vshards }) => vshards)).toHaveLength(cluster.topology.vshards);
    expect(explain?.outcomes).toHaveLength(2);
    for (const outcome of explain?.outcomes ?? []) {
      expect(outcome).toMatchObject({ status: "answered", attempts: 1, hedges: 0 });
      expect(outcome.serviceUs).toBeGreaterThan(0);
      expect(outcome.bytes).toBeGreaterThan(0);
      expect(outcome.latencyUs).toBeGreaterThanOrEqual(outcome.serviceUs);
    }
    expect(explain?.totalUs).toBeGreaterThan(explain?.planUs ?? Number.NaN);
    let told = 0;
    await vectors.get(1, { explain: ({ plan }) => (told += plan.targets.length) });
    await vectors.count({ explain: ({ plan }) => (told += plan.targets.length) });
    expect(told).toBe(3); // one shard, then both
    const both = await hybridSearch(texts, vectors, { text: "tea", vector: [1, 0] }, { explain: true });
    expect(both.explain?.vector.outcomes).toHaveLength(2);
    expect(both.explain?.text.outcomes).toHaveLength(2);
    const byText = await texts.search("tea", { explain: true });
    expect(byText.explain?.statistics?.outcomes).toHaveLength(2);
  });
});
