/** Searches by the strategy `one-sided`: this thread finds the documents of all shards in their memory, through one graph. */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { graphShapeOf } from "../../actors/vector/graph/graph-code.ts";
import type { Cluster, ClusterOptions, VectorCollection, VectorCollectionOptions, VectorHit } from "../../src/index.ts";
import { RegionTable } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { graphGeometry, VERTEX_DEGREE } from "../../src/store/graph-layout.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";
import { hold } from "../support/holds.ts";
import { OwnAnswers } from "../support/own-answers.ts";

const DIMENSIONS = 16;
const seed = Number(process.env["SEED"] ?? 1);
const ONE_SIDED: VectorCollectionOptions = { dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided" };

let cluster: Cluster;
afterEach(() => cluster.close());

async function start(options: ClusterOptions = {}): Promise<Cluster> {
  cluster = await startTestCluster({ requestTimeoutMs: 20_000, ...options });
  return cluster;
}

/** Vectors around some centres, as real ones are. */
function clustered(count: number, scale = 1, random = createSeededRandom(seed)): Float32Array[] {
  const centres = Array.from({ length: 20 }, () => Array.from({ length: DIMENSIONS }, () => random.float() * scale));
  return Array.from({ length: count }, () => {
    const centre = centres[Math.floor(random.float() * centres.length)] as number[];
    return Float32Array.from(centre, (x) => x + (random.float() - 0.5) * 0.4 * scale);
  });
}

function toDocuments(vectors: readonly Float32Array[], first = 0): { id: number; vector: Float32Array }[] {
  return vectors.map((vector, at) => ({ id: first + at, vector }));
}

const unique = (id: number, at: number, ids: readonly number[]): boolean => ids.indexOf(id) === at;
const idsOf = (hits: readonly VectorHit[]): unknown[] => hits.map(({ id }) => id);

/** Share of the true ten nearest that one-sided searches find. */
async function recallOf(
  docs: VectorCollection,
  queries: readonly Float32Array[],
  own: OwnAnswers | undefined = undefined,
): Promise<number> {
  let found = 0;
  for (const query of queries) {
    const near = await (own ?? docs).search(query, { k: 10, ef: 100 });
    expect(near.completeness.complete).toBe(true);
    if (own === undefined) expect([near.by, near.fallback]).toEqual(["one-sided", undefined]);
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

describe("a one-sided search", () => {
  it.each(["l2", "cosine", "inner-product"] as const)(
    "finds what exact searches of the shards find, by %s",
    async (metric) => {
      await start();
      const docs = await cluster.vectors("docs", { ...ONE_SIDED, metric });
      const vectors = clustered(1_500);
      await docs.upsert(toDocuments(vectors));
      const queries = clustered(40, 1, createSeededRandom(seed + 1));
      const own = new OwnAnswers(docs); // while chunks come and go some searches go another way
      expect(await recallOf(docs, queries, own), "while documents wait to be linked").toBeGreaterThan(0.9);
      own.expectSome("while documents wait to be linked");
      await docs.indexed({ timeoutMs: 60_000 });
      expect((await docs.status()).map(({ unindexed }) => unindexed)).toEqual([0, 0]);
      expect(await recallOf(docs, queries)).toBeGreaterThan(0.9);
    },
  );

  it("finds bytes, and refuses what is none", async () => {
    await start();
    const docs = await cluster.vectors("docs", { ...ONE_SIDED, quantization: "u8" });
    const bytes = clustered(800, 180).map((vector) => vector.map((x) => Math.min(255, Math.max(0, Math.round(x)))));
    await docs.upsert(toDocuments(bytes));
    await docs.indexed({ timeoutMs: 60_000 });
    expect(await recallOf(docs, bytes.slice(0, 30))).toBeGreaterThan(0.95);
    const odd = new Float32Array(DIMENSIONS).fill(1.5);
    await expect(docs.upsert({ id: "odd", vector: odd })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      details: { component: 0, value: 1.5, id: "odd" },
    });
    const far = await docs.search(odd, { k: 3 });
    expect([far.by, far.fallback, far.hits.length]).toEqual(["scatter", "query", 3]);
  });

  it("needs no worker: it answers while both are held", async () => {
    await start({ maxHandlerMs: 60_000 });
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(400);
    await docs.upsert(toDocuments(vectors));
    await docs.indexed({ timeoutMs: 60_000 });
    const held = await Promise.all([0, 1].map((shard) => hold(cluster, shard, 30_000)));
    for (const vector of vectors.slice(0, 100)) {
      const { hits, by } = await docs.search(vector, { k: 1 });
      expect([by, hits[0]?.score]).toEqual(["one-sided", 0]);
    }
    expect(held.map(({ isOn }) => isOn)).toEqual([true, true]);
    await Promise.all(held.map((each) => each.release()));
  });

  it("sees at once what was written, replaced and deleted, while the shards link, repair and are searched", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const random = createSeededRandom(seed);
    const live = new Map<number, Float32Array>();
    const own = new OwnAnswers(docs);
    for (let round = 0; round < 40; round++) {
      const batch = new Map(
        clustered(40, 1, random).map((vector) => [Math.floor(random.float() * 600), vector] as const),
      );
      await docs.upsert([...batch].map(([id, vector]) => ({ id, vector })));
      for (const [id, vector] of batch) live.set(id, vector);
      const gone = [...live.keys()].filter(() => random.float() < 0.04);
      if (gone.length > 0) await docs.delete(gone);
      for (const id of gone) live.delete(id);
      for (const [id, vector] of [...batch].filter(([id]) => live.has(id)).slice(0, 8))
        expect((await own.search(vector)).hits[0]).toMatchObject({ id, score: 0 });
      const { hits } = await own.search(clustered(1, 1, random)[0] as Float32Array, { k: 20 });
      for (const { id } of hits) expect(live.has(id as number)).toBe(true);
      expect(new Set(idsOf(hits)).size).toBe(Math.min(20, live.size));
    }
    own.expectSome("while it is written to");
    await docs.indexed({ timeoutMs: 60_000 });
    expect((await docs.status()).reduce((sum, { indexed }) => sum + indexed, 0)).toBe(live.size);
    let missed = 0;
    for (const [id, vector] of live) if ((await own.search(vector)).hits[0]?.id !== id) missed++;
    expect(missed / live.size).toBeLessThan(0.01);
    own.expectSome("of what is there in the end");
  });

  it("keeps a filter exactly, while documents come to pass it, cease to, and go", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const random = createSeededRandom(seed + 9);
    const payloads = new Map<number, { half: boolean; tag: number }>();
    const payloadOf = (): { half: boolean; tag: number } => ({
      half: random.float() < 0.5,
      tag: Math.floor(random.float() * 200),
    });
    const write = async (ids: readonly number[]): Promise<void> => {
      const vectors = clustered(ids.length, 1, random);
      for (const id of ids) payloads.set(id, payloadOf());
      await docs.upsert(
        ids.map((id, at) => ({
          id,
          vector: vectors[at] as Float32Array,
          payload: payloads.get(id) as { half: boolean },
        })),
      );
    };
    const filters = [
      { filter: { half: true }, passes: ({ half }: { half: boolean }) => half },
      { filter: { tag: 7 }, passes: ({ tag }: { tag: number }) => tag === 7 },
      {
        filter: { tag: { lt: 100 }, half: false },
        passes: (p: { half: boolean; tag: number }) => p.tag < 100 && !p.half,
      },
      { filter: { tag: -1 }, passes: () => false },
    ];
    await write(Array.from({ length: 900 }, (_, id) => id));
    await docs.indexed();
    let [found, wanted] = [0, 0];
    for (let round = 0; round < 10; round++) {
      const ids = [...payloads.keys()];
      await write(
        Array.from({ length: 20 }, () => ids[Math.floor(random.float() * ids.length)] as number).filter(unique),
      );
      const gone = ids.filter(() => random.float() < 0.01);
      await docs.delete(gone);
      for (const id of gone) payloads.delete(id);
      const query = clustered(1, 1, random)[0] as Float32Array;
      for (const { filter, passes } of filters) {
        const passing = [...payloads].filter(([, payload]) => passes(payload)).map(([id]) => id);
        const { hits, by } = await docs.search(query, { filter, ef: 100 });
        expect(hits).toHaveLength(Math.min(10, passing.length));
        for (const { id, payload } of hits)
          expect([passing.includes(id as number), payload]).toEqual([true, payloads.get(id as number)]);
        if (by !== "one-sided") continue;
        const truth = new Set(idsOf((await docs.search(query, { filter, exact: true })).hits));
        wanted += truth.size;
        found += hits.filter(({ id }) => truth.has(id)).length;
        if (passing.length < 30) expect(new Set(idsOf(hits)), "few are scanned").toEqual(truth);
      }
    }
    expect(wanted, "most are answered by this thread").toBeGreaterThan(150);
    expect(found / wanted).toBeGreaterThan(0.95);
    await expect(docs.search(new Float32Array(DIMENSIONS), { filter: { half: { near: 1 } } })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
  });

  it("scans copies of what passes when a filter is used again and again, and sees every change at once", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(600);
    const rare = (id: number): { rare: boolean } => ({ rare: id % 30 === 0 });
    await docs.upsert(toDocuments(vectors).map((document) => ({ ...document, payload: rare(document.id) })));
    await docs.indexed({ timeoutMs: 60_000 });
    const [query, far] = [vectors[0] as Float32Array, new Float32Array(DIMENSIONS).fill(9)];
    const search = async (vector = query, k = 10): Promise<unknown[]> => {
      const { hits, by, fallback } = await docs.search(vector, { filter: { rare: true }, k });
      // Where fewer pass than are wanted, and the graph was walked, the shards are asked as well: by its sample a filter may seem to pass more.
      if (hits.length === k || fallback !== "reach") expect(by).toBe("one-sided");
      return idsOf(hits);
    };
    const again = async (): Promise<void> => {
      const truth = idsOf((await docs.search(query, { filter: { rare: true }, exact: true })).hits);
      for (let time = 0; time < 8; time++) expect(await search()).toEqual(truth);
    };
    await again();
    await docs.delete([0]);
    expect(await search(query, 60)).not.toContain(0);
    await docs.indexed();
    await again();
    await docs.upsert({ id: 1, vector: far, payload: { rare: true } });
    expect(await search(far, 1)).toEqual([1]);
    await docs.indexed();
    await again();
    await docs.upsert({ id: 30, vector: vectors[30] as Float32Array, payload: { rare: false } });
    expect(await search(vectors[30], 60)).not.toContain(30);
    await docs.upsert({ id: 60, vector: far.map((x) => -x), payload: { rare: true } });
    expect((await search(vectors[60], 60)).at(-1), "it is far away now").toBe(60);
    await again();
  });

  it("goes to the shards where it could not give what is asked for, and says why", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    await docs.upsert(clustered(50).map((vector, id) => ({ id, vector, payload: { even: id % 2 === 0 } })));
    await docs.indexed();
    const query = clustered(1)[0] as Float32Array;
    const even = await docs.search(query, { filter: { even: true }, k: 50 });
    expect([even.by, even.fallback, even.hits.length]).toEqual(["one-sided", undefined, 25]);
    const exact = await docs.search(query, { exact: true });
    expect([exact.by, exact.fallback]).toEqual(["scatter", "exact"]);
    const explained = await docs.search(query, { explain: true });
    expect([explained.by, explained.fallback]).toEqual(["one-sided", undefined]);
    expect(explained.explain).toMatchObject({
      plan: { strategy: "one-sided", targets: [] },
      attempts: 0,
      outcomes: [],
    });
    const told: unknown[] = [];
    const otherwise = await docs.search(query, { exact: true, explain: (explanation) => told.push(explanation) });
    expect(told).toEqual([otherwise.explain]);
    expect(otherwise.explain?.attempts).toBe(cluster.topology.shards);
    const asked = await docs.search(query, { by: "scatter" });
    expect([asked.by, asked.fallback]).toEqual(["scatter", undefined]);
  });

  it("asks the shards when the graph does not lead to as many documents as are wanted", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    await docs.upsert(toDocuments(clustered(400)));
    await docs.indexed({ timeoutMs: 60_000 });
    const query = clustered(1)[0] as Float32Array;
    expect((await docs.search(query, { k: 300 })).by).toBe("one-sided");
    expect((await docs.search(query, { k: 500 })).hits, "there are no more").toHaveLength(400);
    const { stride } = graphGeometry(graphShapeOf(docs.options));
    const chunks = [0, 1].flatMap((shard) => new RegionTable(cluster.arena, shard, () => 0).list(shard));
    for (const { ref, cellStrideBytes } of chunks.filter((chunk) => chunk.cellStrideBytes === stride))
      for (let at = ref.address; at < ref.address + ref.length; at += cellStrideBytes)
        cluster.arena.i32[(at + VERTEX_DEGREE) >>> 2] = 0; // nobody has neighbours any more
    const { by, fallback, hits } = await docs.search(query, { k: 300 });
    expect([by, fallback, hits.length]).toEqual(["scatter", "reach", 300]);
    expect(docs.reader().search(query, 300)).toMatchObject({ hits: [], status: -2 });
  });

  it("is refused for a collection of another strategy, and so are options that do not go together", async () => {
    await start();
    const plain = await cluster.vectors("plain", { dimensions: DIMENSIONS });
    const invalid = (name: string): object => ({ code: "ERR_INVALID_ARGUMENT", details: { name } });
    await expect(plain.search(new Float32Array(DIMENSIONS), { by: "one-sided" })).rejects.toMatchObject(invalid("by"));
    await expect(plain.search(new Float32Array(DIMENSIONS), { by: "all" as "scatter" })).rejects.toMatchObject(
      invalid("by"),
    );
    for (const [name, options] of [
      ["strategy", { ...ONE_SIDED, strategy: "nearest" as "scatter" }],
      ["quantization", { ...ONE_SIDED, quantization: "b1" }],
      ["quantization", { ...ONE_SIDED, strategy: "scatter", quantization: "u8" }],
    ] as const)
      await expect(cluster.vectors("odd", options)).rejects.toMatchObject(invalid(name));
    const docs = await cluster.vectors("docs", ONE_SIDED);
    await expect(docs.search(new Float32Array(3))).rejects.toMatchObject({ code: "ERR_DIMENSION_MISMATCH" });
    await expect(docs.search(new Float32Array(DIMENSIONS), { k: 0 })).rejects.toMatchObject(invalid("k"));
    const query = new Float32Array(DIMENSIONS);
    await expect(docs.search(query, { consistency: "nearly" as "strong" })).rejects.toMatchObject(
      invalid("consistency"),
    );
    await expect(docs.search(query, { timeoutMs: -1 })).rejects.toMatchObject(invalid("timeoutMs"));
    await expect(docs.search(query, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expect(cluster.vectors("docs", { ...ONE_SIDED, strategy: "scatter" })).rejects.toMatchObject({
      code: "ERR_COLLECTION_MISMATCH",
      details: { name: "strategy" },
    });
  });

  it("finds everything again after a worker has died, also while documents are linked", async () => {
    await start();
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(600);
    await docs.upsert(toDocuments(vectors));
    for (const shard of [0, 1, 0]) {
      const restarted = once(cluster, "worker-restarted");
      await cluster
        .actor(saboteur, keyOnShard(cluster, saboteur, shard))
        .exit(1)
        .catch(() => undefined);
      for (const vector of vectors.slice(0, 20)) {
        const { hits } = await docs.search(vector, { k: 1 }); // by whoever can answer
        expect(hits[0]?.score).toBe(0);
      }
      await restarted;
      await eventually(
        "memory can be read again",
        async () => (await docs.search(vectors[0] as Float32Array)).by === "one-sided",
      );
      await docs.upsert(toDocuments(clustered(50, 1, createSeededRandom(seed + 10 + shard)), 10_000 + shard * 100));
    }
    await docs.indexed({ timeoutMs: 60_000 });
    let missed = 0;
    const own = new OwnAnswers(docs);
    for (const [id, vector] of vectors.entries()) if ((await own.search(vector)).hits[0]?.id !== id) missed++;
    expect(missed / vectors.length).toBeLessThan(0.01);
    own.expectSome("after the deaths");
  });

  it("is there again with the collections of a directory", async () => {
    const directory = await mkdtemp(join(tmpdir(), "shardloom-one-sided-"));
    try {
      const vectors = clustered(300);
      await start({ directory });
      await (await cluster.vectors("docs", ONE_SIDED)).upsert(toDocuments(vectors));
      await cluster.close();
      await start({ directory });
      const docs = await cluster.vectors("docs");
      await docs.indexed({ timeoutMs: 60_000 });
      for (const [id, vector] of vectors.slice(0, 50).entries()) {
        const { by, hits } = await docs.search(vector, { k: 1, ef: 100 });
        expect([by, hits[0]?.id]).toEqual(["one-sided", id]);
      }
    } finally {
      await cluster.close();
      await rm(directory, { recursive: true });
    }
  });

  it("of several collections on the same shards finds in each what is in it", async () => {
    await start();
    const wide = await cluster.vectors("wide", ONE_SIDED);
    const narrow = await cluster.vectors("narrow", { ...ONE_SIDED, dimensions: 3, connectivity: 4 });
    const vectors = clustered(400);
    for (let from = 0; from < 400; from += 50) {
      const part = vectors.slice(from, from + 50);
      await wide.upsert(toDocuments(part, from));
      await narrow.upsert(toDocuments(part, from).map(({ id, vector }) => ({ id, vector: vector.slice(0, 3) })));
    }
    await wide.indexed();
    await narrow.indexed();
    for (const [id, vector] of vectors.entries()) {
      expect((await wide.search(vector, { k: 1, ef: 100 })).hits[0]).toMatchObject({ id, score: 0 });
      expect((await narrow.search(vector.slice(0, 3), { k: 1, ef: 100 })).hits[0]).toMatchObject({ id, score: 0 });
    }
  });

  it("leaves nothing behind when its collection is dropped", async () => {
    await start();
    const used = (): number => cluster.arena.stats().usedBytes;
    let before = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 4; round++) {
      const docs = await cluster.vectors("docs", ONE_SIDED);
      await docs.upsert(toDocuments(clustered(300)).map((each) => ({ ...each, payload: { even: each.id % 2 === 0 } })));
      await docs.indexed({ timeoutMs: 60_000 });
      const zeros = new Float32Array(DIMENSIONS);
      expect((await docs.search(zeros)).by).toBe("one-sided");
      const filter = { even: true };
      await eventually("what passes is known", async () => (await docs.search(zeros, { filter })).by === "one-sided");
      await docs.searchMany([zeros]);
      const during = used();
      const reader = docs.reader();
      await cluster.dropVectors("docs");
      // What threads keep for all collections stays. Workers give back the rest in their own time.
      await eventually("it is given back", () => used() < during && used() <= before);
      before = used();
      expect(reader.search(new Float32Array(DIMENSIONS), 1).hits).toEqual([]);
      expect(used(), "who still has a reader brings nothing back").toBeLessThanOrEqual(before);
      await expect(docs.search(new Float32Array(DIMENSIONS))).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    }
  });

  it("with copies: asks the shards unless any copy will do, and counts each document once", async () => {
    await start({ replicationFactor: 2 });
    const docs = await cluster.vectors("docs", ONE_SIDED);
    const vectors = clustered(300);
    await docs.upsert(toDocuments(vectors), { acks: 2 });
    await docs.indexed({ timeoutMs: 60_000 });
    const strong = await docs.search(vectors[0] as Float32Array);
    expect([strong.by, strong.fallback]).toEqual(["scatter", "consistency"]);
    for (const [id, vector] of vectors.slice(0, 30).entries()) {
      const { hits, by, stalenessMs } = await docs.search(vector, { consistency: "eventual", ef: 100 });
      expect([by, hits[0]?.id, hits.length, new Set(idsOf(hits)).size]).toEqual(["one-sided", id, 10, 10]);
      expect(stalenessMs).toBe(Number.POSITIVE_INFINITY);
    }
  });
});
