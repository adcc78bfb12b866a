/** Searches by Compass over real threads: few shards are asked, and the answer is as good as was asked for, whatever happens meanwhile. */
import { once } from "node:events";
import { afterEach, describe, expect, it, vi } from "vitest";
import type {
  Cluster,
  ClusterOptions,
  SearchOptions,
  SearchResult,
  VectorCollection,
  VectorCollectionOptions,
} from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { clustered, DIMENSIONS, foundOf, queriesOf } from "../support/clustered.ts";
import { doom, hold } from "../support/holds.ts";

const WORKERS = 4;
const VSHARDS = 64;
const DOCUMENTS = 3_000;
const seed = Number(process.env["SEED"] ?? 1);
const COMPASS: VectorCollectionOptions = { dimensions: DIMENSIONS, metric: "l2", strategy: "compass" };

vi.setConfig({ testTimeout: 120_000 });

let cluster: Cluster;
afterEach(() => cluster.close());

async function start(options: ClusterOptions = {}): Promise<Cluster> {
  cluster = await startTestCluster({
    workers: WORKERS,
    vshards: VSHARDS,
    requestTimeoutMs: 20_000,
    maxHandlerMs: 60_000,
    ...options,
  });
  return cluster;
}

async function fill(options: VectorCollectionOptions = COMPASS, count = DOCUMENTS): Promise<VectorCollection> {
  const docs = await cluster.vectors("docs", options);
  await docs.upsert(clustered(count).map((vector, id) => ({ id, vector, payload: { third: id % 3, id } })));
  await docs.indexed({ timeoutMs: 60_000 });
  return docs;
}

/** The shards that searches ask. */
async function plansOf(
  docs: VectorCollection,
  queries: readonly Float32Array[],
  recall: number,
): Promise<Map<Float32Array, Set<number>>> {
  const plans = new Map<Float32Array, Set<number>>();
  for (const query of queries) {
    const { completeness } = await byCompass(docs, query, { recall });
    plans.set(query, new Set(completeness.outcomes.map(({ shard }) => shard)));
  }
  return plans;
}

/** A search that Compass has answered: a chunk that goes to another place under one sends it another way. */
async function byCompass(docs: VectorCollection, query: Float32Array, options: SearchOptions): Promise<SearchResult> {
  const instead = new Map<string, number>();
  for (const deadline = performance.now() + 20_000; ; ) {
    const near = await docs.search(query, options);
    if (near.by === "compass") return near;
    const way = `${near.by}, as ${near.fallback}`;
    instead.set(way, (instead.get(way) ?? 0) + 1);
    if (performance.now() > deadline) throw new Error(`no answer by compass but ${JSON.stringify([...instead])}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Share of the true ten nearest that searches find, and shards asked in the mean. */
async function measure(
  docs: VectorCollection,
  recall: number,
  filter?: { third: number },
): Promise<{ found: number; shards: number }> {
  const queries = queriesOf(60);
  let [found, shards] = [0, 0];
  for (const query of queries) {
    const options = filter === undefined ? {} : { filter };
    const near = await byCompass(docs, query, { ...options, recall, ef: 200 });
    expect([near.fallback, near.completeness.complete]).toEqual([undefined, true]);
    shards += near.completeness.planned;
    expect(new Set(near.completeness.outcomes.map(({ shard }) => shard)).size).toBe(near.completeness.planned);
    found += await foundOf(docs, query, near.hits, filter);
  }
  return { found: found / (10 * queries.length), shards: shards / queries.length };
}

describe("a search by compass", () => {
  it.each(["l2", "cosine"] as const)("finds its share with few shards asked, by %s", async (metric) => {
    await start();
    const docs = await fill({ ...COMPASS, metric });
    const loose = await measure(docs, 0.8);
    const tight = await measure(docs, 0.97);
    expect(loose.found).toBeGreaterThan(0.76); // means of few queries
    expect(tight.found).toBeGreaterThan(0.93);
    expect(loose.shards).toBeLessThanOrEqual(tight.shards);
    expect(tight.shards, "of 4").toBeLessThan(3);
  });

  it("asks one shard first, and the others from where that one's candidates lead", async () => {
    await start();
    const docs = await fill();
    let [found, wanted, followed] = [0, 0, 0];
    for (const query of queriesOf(30)) {
      for (const k of [10, 100]) {
        const { by, reading, completeness, hits } = await docs.search(query, { k, recall: 0.97 });
        if (by !== "compass") continue; // a chunk has gone to another place meanwhile
        const { planned } = completeness;
        if (planned < WORKERS) expect(reading?.rounds).toBe(planned > 1 ? 1 : 0); // of all it may have wanted everything
        if (reading?.rounds === 1) followed++;
        const exact = await docs.search(query, { k, by: "scatter", exact: true });
        const truth = new Set(exact.hits.map(({ id }) => id));
        found += hits.filter(({ id }) => truth.has(id)).length;
        wanted += k;
      }
    }
    expect(followed, "more neighbours than a cluster has").toBeGreaterThan(10);
    expect(found / wanted).toBeGreaterThan(0.93);
    // Who wants everything has all of them search by themselves.
    await eventually("all are asked", async () => {
      const { by, reading, completeness } = await docs.search(queriesOf(1)[0] as Float32Array, { recall: 1 });
      if (by === "compass") expect([reading?.rounds, completeness.planned]).toEqual([0, WORKERS]);
      return by === "compass";
    });
  });

  it("asks the others without the first where that does not answer", async () => {
    await start();
    const docs = await fill();
    const options = { k: 100, recall: 0.97, ef: 200 };
    const led = new Map<Float32Array, number>();
    for (const query of queriesOf(60)) {
      const { by, reading, completeness } = await docs.search(query, options);
      if (by !== "compass" || reading?.rounds !== 1) continue;
      const [first] = [...completeness.outcomes].sort((a, b) => a.latencyUs - b.latencyUs); // the others are asked after it
      led.set(query, first?.shard as number);
    }
    const leads = [...led.values()];
    const count = (shard: number): number => leads.filter((lead) => lead === shard).length;
    const held = leads.reduce((most, shard) => (count(shard) > count(most) ? shard : most), leads[0] as number);
    const queries = [...led].flatMap(([query, lead]) => (lead === held ? [query] : []));
    expect(queries.length).toBeGreaterThan(0);
    const still = await hold(cluster, held, 60_000);
    const limits = { ...options, gather: "best-effort", timeoutMs: 4_000 } as const;
    const answers = await Promise.all(queries.map((query) => docs.search(query, limits)));
    const own = answers.filter(({ by }) => by === "compass");
    expect(own.length).toBeGreaterThan(0);
    for (const { hits, completeness } of own) {
      expect(hits.length).toBeGreaterThan(0);
      const lost = completeness.outcomes.filter(({ status }) => status !== "answered" && status !== "empty");
      expect(lost.map(({ shard }) => shard)).toEqual([held]);
      expect(["ERR_TIMEOUT", "ERR_OVERLOADED"], "it is not admitted to wait for nothing").toContain(
        lost[0]?.error?.code,
      );
    }
    const [query] = queries as [Float32Array];
    await eventually("one of them is enough", async () => {
      const { by, completeness } = await docs.search(query, { ...options, gather: { quorum: 1 } });
      return by === "compass" && !completeness.complete && completeness.answered > 0;
    });
    expect(still.isOn).toBe(true);
    await still.release();
  });

  it("has no leaves by inner product: this thread searches, and the answer says so", async () => {
    await start();
    const docs = await cluster.vectors("products", { ...COMPASS, metric: "inner-product" });
    await docs.upsert(clustered(1_500).map((vector, id) => ({ id, vector })));
    await docs.indexed({ timeoutMs: 60_000 });
    for (const query of queriesOf(5)) {
      const { by, fallback, hits } = await docs.search(query);
      expect([by, fallback, hits.length]).toEqual(["one-sided", "metric", 10]);
    }
    const filtered = await docs.search(queriesOf(1)[0] as Float32Array, { filter: { third: 1 } });
    expect([filtered.by, filtered.fallback]).toEqual(["one-sided", "metric"]);
  });

  it("keeps a filter exactly, and this thread scans what passes where that is little", async () => {
    await start();
    const docs = await fill();
    expect((await measure(docs, 0.95, { third: 1 })).found).toBeGreaterThan(0.9);
    const [query] = queriesOf(1) as [Float32Array];
    for (const by of ["scatter", "one-sided"]) {
      const few = await docs.search(query, { filter: { id: { lt: 12 } }, k: 20 });
      expect([few.by, few.fallback, few.hits.length], "it looks at some more each time").toEqual([by, "filter", 12]);
    }
  });

  it("asks nobody but the shards it chose: the others may be held", async () => {
    await start();
    const docs = await fill();
    const queries = queriesOf(40);
    const plans = await plansOf(docs, queries, 0.8);
    const held = [0, 1, 2, 3].find(
      (shard) => [...plans.values()].filter((plan) => !plan.has(shard)).length >= 5,
    ) as number;
    // A quorum of more shards than were chosen is all of those.
    const few = queries.filter((query) => (plans.get(query)?.size ?? WORKERS) < WORKERS - 1);
    expect(few.length).toBeGreaterThan(0);
    for (const query of few) {
      const { completeness } = await byCompass(docs, query, { recall: 0.8, gather: { quorum: WORKERS - 1 } });
      expect(completeness.complete).toBe(true);
      expect(completeness.vshards).toEqual({ planned: VSHARDS, answered: VSHARDS });
    }
    const still = await hold(cluster, held, 30_000);
    for (const query of queries.filter((query) => !plans.get(query)?.has(held))) {
      const { hits } = await byCompass(docs, query, { recall: 0.8 });
      expect(hits).toHaveLength(10);
    }
    const blocked = queries.find((query) => plans.get(query)?.has(held)) as Float32Array;
    const without = await docs.search(blocked, { recall: 0.8, timeoutMs: 2_000 });
    expect([without.by, without.fallback, without.hits.length], "this thread does it alone").toEqual([
      "one-sided",
      "shard",
      10,
    ]);
    // For all there is, all are asked.
    const partial = await docs.search(blocked, { recall: 1, timeoutMs: 1_000, gather: "best-effort" });
    expect([partial.by, partial.fallback, partial.hits.length]).toEqual(["compass", undefined, 10]);
    expect(partial.completeness).toMatchObject({
      complete: false,
      planned: WORKERS,
      answered: WORKERS - 1,
      timedOut: 1,
      vshards: { planned: VSHARDS, answered: (VSHARDS / WORKERS) * (WORKERS - 1) },
    });
    expect(partial.completeness.outcomes.find(({ shard }) => shard === held)?.error?.code).toBe("ERR_TIMEOUT");
    // Once enough have answered the held one is given up, not waited for.
    for (const gather of ["quorum", { quorum: WORKERS - 1 }] as const) {
      const enough = await docs.search(blocked, { recall: 1, gather });
      expect([enough.by, enough.fallback, enough.hits.length]).toEqual(["compass", undefined, 10]);
      expect(enough.completeness).toMatchObject({ complete: false, planned: WORKERS });
      const { error } = enough.completeness.outcomes.find(({ shard }) => shard === held) ?? {};
      expect(error).toMatchObject({ code: "ERR_ABORTED", details: { reason: "quorum" } });
    }
    // Who gives up gets no part of it.
    const stop = new AbortController();
    const stopped = docs.search(blocked, { recall: 1, gather: "best-effort", signal: stop.signal });
    await docs.search(queries.find((query) => !plans.get(query)?.has(held)) as Float32Array, { recall: 0.8 });
    stop.abort();
    await expect(stopped).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(still.isOn).toBe(true);
    await still.release();
  });

  it("sees at once what is inserted, replaced and deleted, also while vertices are on their way", async () => {
    await start();
    const docs = await fill(COMPASS, 1_500);
    const random = createSeededRandom(seed + 5);
    const live = new Set(Array.from({ length: 1_500 }, (_, id) => id));
    // Found by the strategy, where the document's own shard was not asked.
    let elsewhere = 0;
    for (let round = 0; round < 40 || elsewhere < 20; round++) {
      const batch = clustered(30, random).map((vector) => ({ id: Math.floor(random.float() * 3_000), vector }));
      const unique = [...new Map(batch.map((document) => [document.id, document])).values()];
      await docs.upsert(unique);
      for (const { id } of unique) live.add(id);
      const gone = [...live].filter(() => random.float() < 0.01);
      await docs.delete(gone);
      for (const id of gone) live.delete(id);
      for (const { id, vector } of unique.filter(({ id }) => live.has(id)).slice(0, 5)) {
        const { hits, by, completeness } = await docs.search(vector, { k: 1, ef: 100, recall: 0.99 });
        expect(hits[0]).toMatchObject({ id, score: 0 });
        const own = cluster.shardOfId(id);
        if (by === "compass" && completeness.outcomes.every(({ shard }) => shard !== own)) elsewhere++;
      }
      const { hits } = await docs.search(clustered(1, random)[0] as Float32Array, { k: 20 });
      expect(new Set(hits.map(({ id }) => id)).size).toBe(20);
      for (const { id } of hits) expect(live.has(id as number)).toBe(true);
    }
    await docs.indexed({ timeoutMs: 60_000 });
    let missed = 0;
    const some = [...live].slice(0, 300);
    for (const stored of await docs.getMany(some))
      if (
        (await docs.search(stored?.vector as Float32Array, { k: 1, ef: 100, recall: 0.99 })).hits[0]?.id !== stored?.id
      )
        missed++;
    expect(missed / some.length).toBeLessThan(0.02);
  });

  it("answers whole while workers die in the middle of searches, and is itself again after", async () => {
    await start();
    const docs = await fill();
    const queries = queriesOf(20);
    const killed = new Set<number>();
    for (let kill = 0; kill < 2; kill++) {
      const plans = await plansOf(docs, queries, 0.97);
      const asking = (shard: number): number => [...plans.values()].filter((plan) => plan.has(shard)).length;
      const shard = [0, 1, 2, 3].filter((each) => !killed.has(each)).sort((a, b) => asking(b) - asking(a))[0] as number;
      killed.add(shard);
      const underWay = queries.filter((query) => plans.get(query)?.has(shard));
      expect(underWay.length).toBeGreaterThan(0);
      const restarted = once(cluster, "worker-restarted");
      const doomed = await doom(cluster, shard, 30_000);
      const searches = underWay.map((query) => docs.search(query, { recall: 1 }));
      expect(doomed.isOn, "it has been asked, and has not answered").toBe(true);
      const more = [...underWay, ...queries].map((query) => docs.search(query, { recall: 0.97 })); // it may follow, and be asked when it is back
      await doomed.release();
      for (const { by, fallback } of await Promise.all(searches)) {
        expect(["one-sided", "scatter"], "never by the strategy").toContain(by);
        expect(["shard", "memory"], "it does not answer, or what it wrote waits for its next worker").toContain(
          fallback,
        );
      }
      for (const { hits, completeness } of await Promise.all([...searches, ...more])) {
        expect(hits).toHaveLength(10);
        expect(completeness.complete).toBe(true);
      }
      await restarted;
      await eventually("all shards are asked again", async () => {
        const answers = await Promise.all(queries.map((query) => docs.search(query, { recall: 1 })));
        return answers.every(({ by }) => by === "compass");
      });
    }
    await docs.indexed({ timeoutMs: 60_000 });
    expect((await measure(docs, 0.95)).found).toBeGreaterThan(0.9);
  });

  it("of a small or young collection is answered otherwise, and says so", async () => {
    await start();
    const docs = await cluster.vectors("docs", COMPASS);
    await docs.upsert(clustered(100).map((vector, id) => ({ id, vector })));
    const [query] = queriesOf(1) as [Float32Array];
    const young = await docs.search(query);
    expect([young.by, young.fallback, young.hits.length]).toEqual(["one-sided", "training", 10]);
    const exact = await docs.search(query, { exact: true });
    expect([exact.by, exact.fallback]).toEqual(["scatter", "exact"]);
    await expect(docs.search(query, { k: 0 })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(docs.search(new Float32Array(3))).rejects.toMatchObject({ code: "ERR_DIMENSION_MISMATCH" });
    await expect(docs.search(query, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expect(docs.search(query, { filter: { a: { near: 1 } } })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
  });
});
