/** Searches by `cotra`: the shards of a node search its graph together, over real threads. */
import { once } from "node:events";
import { afterEach, describe, expect, it } from "vitest";
import { graphShapeOf } from "../../actors/vector/graph/graph-code.ts";
import type {
  Cluster,
  ClusterOptions,
  Collaboration,
  VectorCollection,
  VectorCollectionOptions,
  VectorHit,
} from "../../src/index.ts";
import { RegionTable } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { graphGeometry, VERTEX_DEGREE } from "../../src/store/graph-layout.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";
import { hold } from "../support/holds.ts";

const DIMENSIONS = 16;
const seed = Number(process.env["SEED"] ?? 1);
const ONE_SIDED: VectorCollectionOptions = { dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided" };

let cluster: Cluster;
afterEach(() => cluster.close());

async function start(options: ClusterOptions = {}): Promise<Cluster> {
  cluster = await startTestCluster({ workers: 3, requestTimeoutMs: 20_000, ...options });
  return cluster;
}

/** Vectors around some centres, as real ones are. */
function clustered(count: number, random = createSeededRandom(seed)): Float32Array[] {
  const centres = Array.from({ length: 20 }, () => Array.from({ length: DIMENSIONS }, () => random.float()));
  return Array.from({ length: count }, () => {
    const centre = centres[Math.floor(random.float() * centres.length)] as number[];
    return Float32Array.from(centre, (x) => x + (random.float() - 0.5) * 0.4);
  });
}

function toDocuments(vectors: readonly Float32Array[], first = 0): { id: number; vector: Float32Array }[] {
  return vectors.map((vector, at) => ({ id: first + at, vector }));
}

const idsOf = (hits: readonly VectorHit[]): unknown[] => hits.map(({ id }) => id);

async function recallOf(
  docs: VectorCollection,
  queries: readonly Float32Array[],
  by: "cotra" | "one-sided",
): Promise<number> {
  let found = 0;
  for (const query of queries) {
    let near = await docs.search(query, { ef: 100, by });
    while (near.fallback === "memory") near = await docs.search(query, { ef: 100, by }); // a chunk goes to another place
    expect([near.by, near.fallback, near.completeness.complete]).toEqual([by, undefined, true]);
    const truth = new Map(
      (await docs.search(query, { by: "scatter", exact: true })).hits.map((hit) => [hit.id, hit.score]),
    );
    for (const { id, score } of near.hits) {
      if (!truth.has(id)) continue;
      expect(score, "scores are exact").toBe(truth.get(id));
      found++;
    }
    expect(near.hits).toHaveLength(truth.size);
  }
  return found / (10 * queries.length);
}

describe("a collaborative search", () => {
  it.each(["l2", "cosine", "inner-product"] as const)("finds what exact searches find, by %s", async (metric) => {
    await start();
    const docs = await cluster.vectors("docs", { ...ONE_SIDED, metric });
    await docs.upsert(toDocuments(clustered(800)));
    const queries = clustered(40, createSeededRandom(seed + 1));
    expect(await recallOf(docs, queries, "cotra"), "while documents wait to be linked").toBeGreaterThan(0.9);
    await docs.indexed();
    expect(await recallOf(docs, queries, "cotra")).toBeGreaterThan(0.9);
  });

  it("finds what one-sided searches find, and says what it took", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    await docs.upsert(toDocuments(clustered(1_000)));
    await docs.indexed();
    let [same, pulled, pushes] = [0, 0, 0];
    const taking = new Set<number>();
    for (const query of clustered(50, createSeededRandom(seed + 2))) {
      const near = await docs.search(query, { by: "cotra", ef: 64, explain: true });
      const alone = await docs.search(query, { by: "one-sided", ef: 64 });
      const found = new Set(idsOf(near.hits));
      same += idsOf(alone.hits).filter((id) => found.has(id)).length;
      const told = near.explain?.collaboration as Collaboration;
      expect(told.computations).toBeGreaterThan(64);
      expect(told.pulled + told.pushes).toBeLessThan(told.computations);
      pulled += told.pulled;
      pushes += told.pushes;
      expect(told.bytes, "a query went to every shard").toBeGreaterThan(DIMENSIONS * 4 * 2);
      expect(told.messages).toBeGreaterThan(0);
      expect([near.by, near.explain?.plan.strategy]).toEqual(["cotra", "cotra"]);
      const [outcome, ...others] = near.explain?.outcomes ?? [];
      expect([outcome?.status, outcome?.attempts, outcome?.count, others]).toEqual(["answered", 1, 10, []]);
      expect(outcome?.latencyUs).toBeGreaterThan(0);
      expect(near.explain?.bytes).toBe(told.bytes + (outcome?.bytes ?? Number.NaN));
      for (const { shard } of near.explain?.plan.targets ?? []) taking.add(shard);
    }
    expect(same / 500).toBeGreaterThan(0.95);
    expect(pushes, "vertices of shards that were no primaries").toBeGreaterThan(0);
    const random = createSeededRandom(seed + 3);
    await eventually("one such vertex alone is read", async () => {
      const near = await docs.search(clustered(1, random)[0] as Float32Array, { by: "cotra", explain: true });
      pulled += near.explain?.collaboration?.pulled ?? 0;
      return pulled > 0;
    });
    // Where the clusters of documents lie is chance: a shard may have none that is near any query.
    expect(taking.size, "shards that were primaries").toBeGreaterThan(1);
  });

  it("finds bytes, on one shard as on several", async () => {
    for (const workers of [1, 4]) {
      await start({ workers });
      const docs = await cluster.vectors("docs", { ...ONE_SIDED, quantization: "u8" });
      const bytes = clustered(600).map((vector) => vector.map((x) => Math.min(255, Math.max(0, Math.round(x * 180)))));
      await docs.upsert(toDocuments(bytes));
      await docs.indexed();
      expect(await recallOf(docs, bytes.slice(0, 20), "cotra")).toBeGreaterThan(0.95);
      const odd = await docs.search(new Float32Array(DIMENSIONS).fill(1.5), { by: "cotra" });
      expect([odd.by, odd.fallback, odd.hits.length]).toEqual(["scatter", "query", 10]);
      await cluster.close();
    }
  });

  it("goes another way where it could not give what is asked for, and says why", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(300);
    await docs.upsert(vectors.map((vector, id) => ({ id, vector, payload: { even: id % 2 === 0 } })));
    await docs.indexed();
    const query = vectors[0] as Float32Array;
    const even = await docs.search(query, { by: "cotra", filter: { even: true }, k: 300 });
    expect([even.by, even.fallback, even.hits.length], "the shards cannot know that this is all").toEqual([
      "one-sided",
      "reach",
      150,
    ]);
    const evenTen = await docs.search(query, { by: "cotra", filter: { even: true } });
    const truth = await docs.search(query, { by: "scatter", exact: true, filter: { even: true } });
    expect([evenTen.by, evenTen.fallback]).toEqual(["cotra", undefined]);
    expect(idsOf(evenTen.hits)).toEqual(idsOf(truth.hits));
    const one = await docs.search(query, { by: "cotra", filter: { even: { in: [] } } });
    expect([one.by, one.fallback, one.hits.length]).toEqual(["one-sided", "filter", 0]);
    const exact = await docs.search(query, { by: "cotra", exact: true });
    expect([exact.by, exact.fallback]).toEqual(["scatter", "exact"]);
    const large = await docs.search(query, { by: "cotra", ef: 5_000 });
    expect([large.by, large.fallback, large.hits.length]).toEqual(["one-sided", "size", 10]);
    const all = await docs.search(query, { by: "cotra", k: 400 });
    expect([all.by, all.hits.length], "there are no more").toEqual(["cotra", 300]);
    const plain = await cluster.vectors("plain", { ...ONE_SIDED, strategy: "scatter" });
    for (const [name, options] of [
      ["by", { by: "all" as "cotra" }],
      ["k", { by: "cotra", k: 0 }],
      ["timeoutMs", { by: "cotra", timeoutMs: -1 }],
    ] as const)
      await expect(docs.search(query, options)).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
        details: { name },
      });
    await expect(plain.search(query, { by: "cotra" })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(docs.search(new Float32Array(3), { by: "cotra" })).rejects.toMatchObject({
      code: "ERR_DIMENSION_MISMATCH",
    });
  });

  it("sees at once what was written, replaced and deleted, while shards link and repair", async () => {
    await start({ requestTimeoutMs: 60_000 }); // a search that comes late goes another way
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const random = createSeededRandom(seed);
    const live = new Map<number, Float32Array>();
    const ways: string[] = [];
    for (let round = 0; round < 20; round++) {
      const batch = new Map(clustered(40, random).map((vector) => [Math.floor(random.float() * 500), vector] as const));
      await docs.upsert([...batch].map(([id, vector]) => ({ id, vector })));
      for (const [id, vector] of batch) live.set(id, vector);
      const gone = [...live.keys()].filter(() => random.float() < 0.06);
      if (gone.length > 0) await docs.delete(gone);
      for (const id of gone) live.delete(id);
      for (const [id, vector] of [...batch].filter(([id]) => live.has(id)).slice(0, 8)) {
        const { hits, fallback } = await docs.search(vector, { by: "cotra", k: 1, ef: 100 });
        expect([hits[0]?.id, hits[0]?.score], fallback ?? "cotra").toEqual([id, 0]);
        ways.push(fallback ?? "cotra");
      }
      const { hits } = await docs.search(clustered(1, random)[0] as Float32Array, { by: "cotra", k: 20 });
      for (const { id } of hits) expect(live.has(id as number), `SEED=${seed}, round ${round}`).toBe(true);
      expect(new Set(idsOf(hits)).size).toBe(Math.min(20, live.size));
    }
    // A chunk that goes to another place under a search sends it another way: the busier the machine, the more of them.
    expect(ways.filter((way) => way !== "cotra" && way !== "memory")).toEqual([]);
    expect(ways).toContain("cotra");
  });

  it("serves many at once, also over rings that are always full", async () => {
    await start({ meshRingBytes: 16 * 1024, workers: 4 });
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(700);
    await docs.upsert(toDocuments(vectors));
    await docs.indexed();
    const results = await Promise.all(
      Array.from({ length: 200 }, (_, at) =>
        docs.search(vectors[at] as Float32Array, { by: "cotra", timeoutMs: 60_000 }),
      ),
    );
    const missed = results.filter(({ hits }, at) => hits[0]?.id !== at).length;
    expect(missed).toBeLessThan(5);
    for (const { by, fallback, hits } of results) expect([by, fallback, hits.length]).toEqual(["cotra", undefined, 10]);
  });

  it("has workers without work take over that of the one which all queries need", async () => {
    const dimensions = 256;
    await start({ workers: 3 });
    const docs = await cluster.vectors("docs", { ...ONE_SIDED, dimensions });
    const random = createSeededRandom(seed + 7);
    const around = (centre: number): Float32Array =>
      Float32Array.from({ length: dimensions }, () => centre + random.float() * 0.5);
    // Each shard has a cluster of its own: ids are chosen so.
    const documents = Array.from({ length: 900 }, (_, at) => ({ shard: at % 3, vector: around(at % 3) }));
    let id = 0;
    const stored = documents.map(({ shard, vector }) => {
      do id++;
      while (cluster.shardOfId(id) !== shard);
      return { id, vector };
    });
    await docs.upsert(stored);
    await docs.indexed();
    // A few queries are most of the stream.
    const popular = stored.filter((_, at) => at % 3 === 0);
    let [stolen, computations, searches, found] = [0, 0, 0, 0];
    for (let round = 0; round < 20 && stolen === 0; round++) {
      const asked = Array.from({ length: 120 }, () => popular[Math.floor(popular.length * random.float() ** 4)]);
      const results = await Promise.all(
        asked.map((one) =>
          docs.search((one as (typeof stored)[0]).vector, { by: "cotra", explain: true, timeoutMs: 20_000 }),
        ),
      );
      searches += results.length;
      for (const [at, { hits, by, explain }] of results.entries()) {
        expect([by, hits.length]).toEqual(["cotra", 10]);
        if (hits[0]?.id === asked[at]?.id && hits[0]?.score === 0) found++;
        stolen += explain?.collaboration?.stolen ?? 0;
        computations += explain?.collaboration?.computations ?? 0;
      }
    }
    expect(stolen).toBeGreaterThan(0);
    expect(stolen).toBeLessThan(computations);
    expect(found / searches).toBeGreaterThan(0.99);
  });

  it("with copies: counts each document once", async () => {
    await start({ replicationFactor: 2 });
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(300);
    await docs.upsert(toDocuments(vectors), { acks: 2 });
    await docs.indexed();
    const strong = await docs.search(vectors[0] as Float32Array, { by: "cotra" });
    expect([strong.by, strong.fallback]).toEqual(["scatter", "consistency"]);
    for (const [id, vector] of vectors.slice(0, 30).entries()) {
      const { hits, by } = await docs.search(vector, { by: "cotra", consistency: "eventual", ef: 100 });
      expect([by, hits[0]?.id, hits.length, new Set(idsOf(hits)).size]).toEqual(["cotra", id, 10, 10]);
    }
  });
});

describe("what goes wrong", () => {
  it("a worker that dies: every search under way ends whole, and names why it went another way", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(500);
    await docs.upsert(toDocuments(vectors));
    await docs.indexed();
    const reasons = new Map<string, number>();
    let missed = 0;
    let asked = 0;
    let running = true;
    const client = async (from: number): Promise<void> => {
      for (let at = from; running; at = (at + 7) % vectors.length) {
        const { hits, by, fallback } = await docs.search(vectors[at] as Float32Array, {
          by: "cotra",
          ef: 100,
          timeoutMs: 20_000,
        });
        asked++;
        expect(hits).toHaveLength(10);
        if (hits[0]?.id !== at) missed++;
        expect(by === "cotra").toBe(fallback === undefined);
        const reason = fallback ?? by;
        reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
      }
    };
    const clients = Array.from({ length: 12 }, (_, at) => client(at));
    for (const shard of [0, 2, 1]) {
      await eventually(
        "searches go on",
        async () => (await docs.search(vectors[0] as Float32Array, { by: "cotra" })).by === "cotra",
      );
      const restarted = once(cluster, "worker-restarted");
      const before = asked;
      await cluster
        .actor(saboteur, keyOnShard(cluster, saboteur, shard))
        .exit(1)
        .catch(() => undefined);
      await restarted;
      await eventually("searches ended meanwhile", () => asked > before + 12);
    }
    await eventually(
      "searches go on",
      async () => (await docs.search(vectors[0] as Float32Array, { by: "cotra" })).by === "cotra",
    );
    running = false;
    await Promise.all(clients);
    expect(missed / asked).toBeLessThan(0.02);
    const { cotra = 0, lost = 0, memory = 0, late = 0, ...others } = Object.fromEntries(reasons);
    expect(others).toEqual({});
    expect(cotra).toBeGreaterThan(0);
    expect(lost + memory + late, "some were under way").toBeGreaterThan(0);
  });

  it("a worker that is held: searches that need it go another way in time", async () => {
    await start({ maxHandlerMs: 60_000 });
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(400);
    await docs.upsert(toDocuments(vectors));
    await docs.indexed();
    const held = await hold(cluster, 1, 30_000);
    const ways = new Set<string>();
    const searches = vectors
      .slice(0, 4)
      .map((vector) => docs.search(vector, { by: "cotra", timeoutMs: 3_000, ef: 100 }));
    for (const [id, { hits, by, fallback }] of (await Promise.all(searches)).entries()) {
      expect(hits[0]?.id).toBe(id);
      ways.add(`${by} ${fallback}`);
    }
    expect([...ways]).toEqual(["one-sided late"]);
    await held.release();
    await eventually(
      "it searches again",
      async () => (await docs.search(vectors[0] as Float32Array, { by: "cotra" })).by === "cotra",
    );
  });

  it("a search that is called off ends at once, and leaves nothing behind", async () => {
    await start({ maxHandlerMs: 60_000 });
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(300);
    await docs.upsert(toDocuments(vectors));
    await docs.indexed();
    await expect(
      docs.search(vectors[0] as Float32Array, { by: "cotra", signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({ code: "ERR_ABORTED" });
    const held = await hold(cluster, 1, 30_000);
    const controller = new AbortController();
    const called = Array.from({ length: 30 }, () =>
      docs.search(vectors[5] as Float32Array, { by: "cotra", signal: controller.signal, timeoutMs: 20_000 }),
    );
    setTimeout(() => controller.abort(), 50);
    for (const outcome of await Promise.allSettled(called))
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "ERR_ABORTED" } });
    expect(held.isOn).toBe(true);
    await held.release();
    const after = await docs.search(vectors[5] as Float32Array, { by: "cotra", k: 1 });
    expect([after.by, after.hits[0]?.id]).toEqual(["cotra", 5]);
  });

  it("lists of neighbours that hold anything, and regions that were revoked: whole answers, or another way", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(400);
    await docs.upsert(toDocuments(vectors));
    await docs.indexed();
    const { stride, degree } = graphGeometry(graphShapeOf(docs.options));
    const chunksOf = (shard: number): ReturnType<RegionTable["list"]> =>
      new RegionTable(cluster.arena, shard, () => 0).list(shard).filter((chunk) => chunk.cellStrideBytes === stride);
    const random = createSeededRandom(seed + 5);
    const { i32 } = cluster.arena;
    for (const { ref } of [0, 1, 2].flatMap(chunksOf)) {
      for (let at = ref.address; at < ref.address + ref.length; at += stride) {
        const first = (at + VERTEX_DEGREE) >>> 2;
        if (random.float() < 0.1) i32[first] = [-1, 1_000_000, degree + 1][Math.floor(random.float() * 3)] as number;
        for (let link = 1; link <= degree; link++)
          if (random.float() < 0.2) i32[first + link] = Math.floor((random.float() - 0.3) * 2 ** 31);
      }
    }
    let found = 0;
    for (const [id, vector] of vectors.slice(0, 100).entries()) {
      const { hits } = await docs.search(vector, { by: "cotra", ef: 200 });
      expect(hits).toHaveLength(10);
      if (hits[0]?.id === id) found++;
    }
    expect(found).toBeGreaterThan(80);
    for (const { ref } of chunksOf(1)) new RegionTable(cluster.arena, 1, () => 0).deregister(ref);
    for (const vector of vectors.slice(0, 20)) {
      const { hits, by, fallback } = await docs.search(vector, { by: "cotra" });
      expect([by, fallback, hits[0]?.score, hits.length]).toEqual(["scatter", "memory", 0, 10]);
    }
  });

  it("a collection that is dropped under searches ends them", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(400);
    await docs.upsert(toDocuments(vectors));
    await docs.indexed();
    const searches = Array.from({ length: 100 }, (_, at) => docs.search(vectors[at] as Float32Array, { by: "cotra" }));
    const ended = Promise.allSettled(searches);
    await cluster.dropVectors("docs");
    for (const outcome of await ended) {
      if (outcome.status === "fulfilled") expect(outcome.value.hits).toHaveLength(10);
      else expect(outcome.reason).toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    }
    const again = await cluster.vectors("docs", ONE_SIDED);
    await again.upsert(toDocuments(vectors));
    await again.indexed();
    const { hits, by } = await again.search(vectors[7] as Float32Array, { by: "cotra", ef: 100 });
    expect([by, hits[0]?.id]).toEqual(["cotra", 7]);
  });
});
