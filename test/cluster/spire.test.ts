/** Searches by SPIRE over real threads: shards know each other's leaves, and read those that count where they are. */
import { once } from "node:events";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Cluster, ClusterOptions, VectorCollection, VectorCollectionOptions } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { clustered, DIMENSIONS, foundOf, queriesOf } from "../support/clustered.ts";
import { doom, hold } from "../support/holds.ts";

const WORKERS = 3;
const DOCUMENTS = 2_500;
const seed = Number(process.env["SEED"] ?? 1);
const SPIRE: VectorCollectionOptions = { dimensions: DIMENSIONS, metric: "l2", strategy: "spire" };

vi.setConfig({ testTimeout: 120_000 });

let cluster: Cluster;
afterEach(() => cluster.close());

async function start(options: ClusterOptions = {}): Promise<Cluster> {
  cluster = await startTestCluster({ workers: WORKERS, requestTimeoutMs: 20_000, maxHandlerMs: 60_000, ...options });
  return cluster;
}

async function fill(options: VectorCollectionOptions = SPIRE, count = DOCUMENTS): Promise<VectorCollection> {
  const docs = await cluster.vectors("docs", options);
  await docs.upsert(clustered(count).map((vector, id) => ({ id, vector, payload: { third: id % 3 } })));
  await docs.indexed({ timeoutMs: 60_000 });
  await known(docs);
  return docs;
}

/** Waits until the shards have exchanged their tables. */
async function known(docs: VectorCollection): Promise<void> {
  await eventually("all shards know all leaves", async () => {
    const status = await docs.status();
    return status.length === WORKERS && status.every(({ knownShards }) => knownShards === WORKERS);
  });
}

async function recallOf(docs: VectorCollection, recall: number, filter?: { third: number }): Promise<number> {
  const queries = queriesOf(60);
  let [found, fellBack] = [0, 0];
  for (const query of queries) {
    const options = filter === undefined ? {} : { filter };
    const near = await docs.search(query, { ...options, recall });
    // Leaves near a query may have too few that pass a filter: then the shards answer, and the search says so.
    if (filter !== undefined && near.fallback === "reach") fellBack++;
    else expect([near.by, near.fallback, near.completeness.planned]).toEqual(["spire", undefined, 1]);
    found += await foundOf(docs, query, near.hits, filter);
  }
  expect(fellBack).toBeLessThan(queries.length / 6);
  return found / (10 * queries.length);
}

describe("a search by spire", () => {
  it.each(["l2", "cosine"] as const)("finds its share, by %s", async (metric) => {
    await start();
    const docs = await fill({ ...SPIRE, metric });
    const loose = await recallOf(docs, 0.8);
    const tight = await recallOf(docs, 0.98);
    expect(loose).toBeGreaterThan(0.76); // means of few queries
    expect(tight).toBeGreaterThan(0.93);
    expect(tight).toBeGreaterThanOrEqual(loose);
  });

  it("finds bytes, and keeps a filter exactly", async () => {
    await start();
    const docs = await fill();
    expect(await recallOf(docs, 0.95, { third: 2 })).toBeGreaterThan(0.9);
    const bytes = await cluster.vectors("bytes", { ...SPIRE, quantization: "u8" });
    const vectors = clustered(1_500).map((vector) =>
      vector.map((x) => Math.min(255, Math.max(0, Math.round(x * 150 + 50)))),
    );
    await bytes.upsert(vectors.map((vector, id) => ({ id, vector })));
    await bytes.indexed({ timeoutMs: 60_000 });
    await eventually("leaves are known", async () => (await bytes.search(vectors[0] as Float32Array)).by === "spire");
    for (const vector of vectors.slice(0, 30)) {
      const { by, fallback, hits } = await bytes.search(vector, { k: 1, recall: 0.99 });
      expect([by, fallback, hits[0]?.score]).toEqual(["spire", undefined, 0]);
    }
  });

  it("sees at once what is inserted, replaced and deleted", async () => {
    await start();
    const docs = await fill();
    const random = createSeededRandom(seed + 5);
    const live = new Set(Array.from({ length: DOCUMENTS }, (_, id) => id));
    // Found by the strategy, where another shard was asked than the document's own.
    let elsewhere = 0;
    for (let round = 0; round < 25 || elsewhere < 20; round++) {
      const batch = clustered(20, random).map((vector) => ({ id: Math.floor(random.float() * 3_000), vector }));
      const unique = [...new Map(batch.map((document) => [document.id, document])).values()];
      await docs.upsert(unique);
      for (const { id } of unique) live.add(id);
      const gone = [...live].filter(() => random.float() < 0.01);
      await docs.delete(gone);
      for (const id of gone) live.delete(id);
      for (const { id, vector } of unique.filter(({ id }) => live.has(id)).slice(0, 5)) {
        const { hits, by, completeness } = await docs.search(vector, { k: 1, recall: 0.99 });
        expect(hits[0]).toMatchObject({ id, score: 0 });
        if (by === "spire" && completeness.outcomes.every(({ shard }) => shard !== cluster.shardOfId(id))) elsewhere++;
      }
      const { hits } = await docs.search(clustered(1, random)[0] as Float32Array, { k: 20 });
      expect(new Set(hits.map(({ id }) => id)).size).toBe(20);
      for (const { id } of hits) expect(live.has(id as number)).toBe(true);
    }
  });

  it("goes on when workers are lost: another strategy answers meanwhile, and the next worker learns the leaves from its peers", async () => {
    await start();
    const docs = await fill();
    const queries = queriesOf(20);
    // For all there is nearly every search needs every shard: whoever is asked asks the others.
    for (const shard of [0, 1]) {
      const restarted = once(cluster, "worker-restarted");
      const doomed = await doom(cluster, shard, 30_000);
      const searches = queries.map((query) => docs.search(query, { recall: 1 }));
      expect(doomed.isOn, "it has been asked, and has not answered").toBe(true);
      await doomed.release();
      const more = queries.map((query) => docs.search(query));
      const ways = (await Promise.all(searches)).map(({ by, fallback }) => `${by} ${fallback}`);
      const expected = ["one-sided shard", "scatter shard", "one-sided memory", "scatter memory", "spire undefined"];
      for (const way of ways) expect(expected).toContain(way);
      expect(
        ways.some((way) => way.endsWith(" shard")),
        "some have asked who died",
      ).toBe(true);
      for (const { hits, completeness } of await Promise.all([...searches, ...more]))
        expect([hits.length, completeness.complete]).toEqual([10, true]);
      await restarted;
      await known(docs);
    }
    expect(await recallOf(docs, 0.95)).toBeGreaterThan(0.9);
  });

  it("does without a shard that does not answer, in time", async () => {
    await start();
    const docs = await fill();
    // One that is needed for certain.
    const [asked] = (await docs.search(queriesOf(1)[0] as Float32Array, { recall: 0.98 })).completeness.outcomes;
    const held = await hold(cluster, asked?.shard as number, 30_000);
    const answers = new Set<string>();
    const searches = queriesOf(12).map((query) => docs.search(query, { recall: 0.98, timeoutMs: 3_000 }));
    for (const { by, fallback, hits } of await Promise.all(searches)) {
      answers.add(`${by} ${fallback}`);
      expect(hits).toHaveLength(10);
    }
    expect(answers).toContain("one-sided shard");
    for (const answer of answers) expect(["spire undefined", "one-sided shard"]).toContain(answer);
    expect(held.isOn).toBe(true);
    await held.release();
  });
});
