/** Searches for many vectors at once: rounds of posted lists, each to one of three workers, that give what single searches give. */
import { once } from "node:events";
import { afterEach, expect, it, vi } from "vitest";
import type { Slices } from "../../actors/vector/slices.ts";
import { STATUS } from "../../native-bridge/status.ts";
import type {
  BatchSearchOptions,
  BatchStats,
  Cluster,
  VectorCollection,
  VectorCollectionOptions,
  VectorHit,
} from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";

const DIMENSIONS = 16;
const WORKERS = 3;
const DOCUMENTS = 1_200;
/** Places of vertices that are read although nobody is there, and what is read besides. */
const PAGES_ROOM = 800;
/** Copies of vertices are taken from the arena in pieces that are larger. */
const LEAST_COPIES = 65_536;
const seed = Number(process.env["SEED"] ?? 1);

let cluster: Cluster;
afterEach(() => cluster.close());

function clustered(count: number, random = createSeededRandom(seed)): Float32Array[] {
  const centres = Array.from({ length: 20 }, () => Array.from({ length: DIMENSIONS }, () => random.float()));
  return Array.from({ length: count }, () => {
    const centre = centres[Math.floor(random.float() * centres.length)] as number[];
    return Float32Array.from(centre, (x) => x + (random.float() - 0.5) * 0.4);
  });
}

async function open(options: Partial<VectorCollectionOptions> = {}): Promise<VectorCollection> {
  cluster = await startTestCluster({ workers: WORKERS, requestTimeoutMs: 20_000 });
  return cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided", ...options });
}

async function fill(docs: VectorCollection): Promise<Float32Array[]> {
  const vectors = clustered(DOCUMENTS);
  await docs.upsert(vectors.map((vector, id) => ({ id, vector, payload: { even: id % 2 === 0 } })));
  await docs.indexed({ timeoutMs: 60_000 });
  return vectors;
}

/** Does work at once. @returns what comes of it, in how many slices, and the largest share that one of them had of what is counted */
function inOneGo<T>(work: Slices<T>, count: () => number = () => 0): { value: T; slices: number; share: number } {
  const first = count();
  for (let slices = 1, before = first, most = 0; ; slices++) {
    const slice = work.next();
    most = Math.max(most, count() - before);
    before = count();
    if (slice.done === true) return { value: slice.value, slices, share: most / (before - first) };
  }
}

const told = (hits: readonly VectorHit[]): unknown[] =>
  hits.map(({ id, score, version, payload }) => [id, score, version, payload]);

/** Compares a batch with searches one by one. */
async function expectSame(
  docs: VectorCollection,
  queries: readonly Float32Array[],
  options: BatchSearchOptions,
): Promise<BatchStats> {
  const { results, batch } = await docs.searchMany(queries, options);
  for (const [at, query] of queries.entries()) {
    const single = await docs.search(query, options);
    expect(told(results[at]?.hits ?? []), `query ${at}`).toEqual(told(single.hits));
    expect(results[at]?.hits[0]?.vector).toEqual(single.hits[0]?.vector);
    expect(results[at]).toMatchObject({ by: single.by, completeness: { complete: true }, stalenessMs: 0 });
  }
  return batch;
}

it.each(["l2", "cosine"] as const)("finds what single searches find, by %s, with few lists for all", async (metric) => {
  const docs = await open({ metric });
  await fill(docs);
  const queries = clustered(200, createSeededRandom(seed + 1));
  // Vertices go for a while after documents were brought to their leaves, and who is led to one is searched for alone.
  await eventually("the graph rests", async () => (await docs.searchMany(queries, { ef: 100 })).batch.alone === 0);
  for (const options of [{}, { k: 3, ef: 100, includeVector: true }, { k: 30, includePayload: false }]) {
    let batch = await expectSame(docs, queries, options);
    await eventually("the graph rests", async () => {
      if (batch.alone > 0) batch = await expectSame(docs, queries, options);
      return batch.alone === 0;
    });
    expect(batch.reason).toBeUndefined();
    // At first the root, and the medoids of leaves; a list to each worker when it begins, in each round, and when it ends.
    expect(batch.lists).toBeLessThanOrEqual(2 + WORKERS * (batch.rounds + 2));
    expect(batch.rounds).toBeGreaterThan(0);
    // Each vertex and each document is read once at the most, though two hundred searches read hundreds each.
    expect(batch.requests).toBeLessThan(3 * DOCUMENTS + PAGES_ROOM);
    expect(batch.deduplicated).toBeGreaterThan(batch.requests);
  }
  const few = await docs.searchMany(queries.slice(0, 1));
  expect(few.batch.lists, "one query needs about as many").toBeLessThanOrEqual(2 + WORKERS * (few.batch.rounds + 2));
});

it("gives back the memory of its copies, also when it ends early", async () => {
  const docs = await open();
  const queries = clustered(600, createSeededRandom(seed + 2));
  await fill(docs);
  await docs.searchMany(queries);
  await docs.search(queries[0] as Float32Array);
  const most = cluster.arena.stats().usedBytes + LEAST_COPIES;
  await docs.searchMany(queries);
  const stop = new AbortController();
  const stopped = docs.searchMany(queries, { signal: stop.signal });
  stop.abort();
  await expect(stopped).rejects.toMatchObject({ code: "ERR_ABORTED" });
  await expect(docs.searchMany(queries, { timeoutMs: 0.001 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
  await eventually("copies were given back", () => cluster.arena.stats().usedBytes < most);
});

it("sees at once what was written, replaced and deleted, while the shards link", async () => {
  const docs = await open();
  const random = createSeededRandom(seed + 3);
  const live = new Map<number, Float32Array>();
  let inBatches = 0;
  for (let round = 0; round < 15; round++) {
    const written = new Map(clustered(40, random).map((vector) => [Math.floor(random.float() * 600), vector] as const));
    await docs.upsert([...written].map(([id, vector]) => ({ id, vector })));
    for (const [id, vector] of written) live.set(id, vector);
    const gone = [...live.keys()].filter(() => random.float() < 0.05);
    if (gone.length > 0) await docs.delete(gone);
    for (const id of gone) live.delete(id);
    const asked = [...written].filter(([id]) => live.has(id));
    const { results, batch } = await docs.searchMany(
      asked.map(([, vector]) => vector),
      { k: 5, ef: 100 },
    );
    inBatches += results.length - batch.alone;
    for (const [at, [id]] of asked.entries()) expect(results[at]?.hits[0]).toMatchObject({ id, score: 0 });
    for (const { hits } of results) {
      expect(hits).toHaveLength(Math.min(5, live.size));
      for (const hit of hits) expect(live.has(hit.id as number)).toBe(true);
    }
  }
  expect(inBatches).toBeGreaterThan(0);
});

it("answers whole while documents are inserted", async () => {
  const docs = await open();
  const vectors = await fill(docs);
  const others = clustered(300, createSeededRandom(seed + 4));
  let isDone = false;
  const inserting = (async () => {
    for (let at = 0; at < others.length; at += 10)
      await docs.upsert(others.slice(at, at + 10).map((vector, of) => ({ id: DOCUMENTS + at + of, vector })));
    isDone = true;
  })();
  while (!isDone) {
    const { results } = await docs.searchMany(vectors.slice(0, 300), { k: 1, ef: 100 });
    for (const { hits } of results) expect(hits[0]?.score).toBe(0);
  }
  await inserting;
  // What waits to be linked, for more queries than one request scores.
  const last = clustered(200, createSeededRandom(seed + 6));
  await docs.upsert(last.map((vector, at) => ({ id: DOCUMENTS + 300 + at, vector })));
  const { results } = await docs.searchMany([...last, ...vectors.slice(0, 400)], { k: 1, ef: 100 });
  for (const [at, { hits }] of results.entries())
    expect(hits[0]).toMatchObject({ id: at < 200 ? DOCUMENTS + 300 + at : at - 200, score: 0 });
});

it("answers every query when an owner is killed in the middle", async () => {
  const docs = await open();
  const vectors = await fill(docs);
  const batch = docs.reader().batch(vectors.slice(0, 300), 1, { ef: 100 });
  expect(inOneGo(batch.begin()).value).toBe(STATUS.SUCCESS);
  const searching = batch.search();
  while (batch.rounds === 0) expect(searching.next().done).toBe(false); // until it fetches for the first time
  const restarted = once(cluster, "worker-restarted");
  const asked = docs.searchMany(vectors.slice(0, 300), { k: 1, ef: 100 });
  await cluster
    .actor(saboteur, keyOnShard(cluster, saboteur, 0))
    .exit(1)
    .catch(() => undefined);
  const { results, batch: stats } = await asked;
  for (const { hits, completeness } of results) expect([hits[0]?.score, completeness.complete]).toEqual([0, true]);
  expect(stats.alone > 0).toBe(stats.reason !== undefined);
  await restarted;
  inOneGo(searching);
  expect(batch.failure, "keys of the dead worker open nothing").toBe("memory");
  expect(inOneGo(batch.finish()).value.every((hits) => hits === undefined)).toBe(true);
  batch.close();
  await eventually(
    "memory can be read again",
    async () => (await docs.searchMany([vectors[0] as Float32Array])).batch.alone === 0,
  );
});

it("searches alone for what a batch cannot answer, and says why", async () => {
  const docs = await open();
  await fill(docs);
  const queries = clustered(20, createSeededRandom(seed + 5));
  expect(await expectSame(docs, queries, { filter: { even: true }, ef: 100 })).toMatchObject({
    ...{ alone: 20, lists: 0, reason: "filter" },
  });
  expect(await expectSame(docs, queries, { exact: true })).toMatchObject({ alone: 20, lists: 0, reason: "exact" });
  expect(await docs.searchMany([])).toMatchObject({ results: [], batch: { alone: 0, lists: 0 } });
});

it("lets other work come in between, also where queries are searched alone", async () => {
  const docs = await open();
  const vectors = await fill(docs);
  const filter = { even: true };
  await eventually(
    "what passes is known",
    async () => (await docs.search(vectors[0] as Float32Array, { filter })).by === "one-sided",
  );
  const searches = vi.spyOn(docs.reader(), "search");
  const many = Array.from({ length: 20_000 }, (_, at) => vectors[at % DOCUMENTS] as Float32Array);
  const stopped = docs.searchMany(many, { filter, signal: AbortSignal.timeout(50) });
  await expect(stopped).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect(searches.mock.calls.length).toBeLessThan(many.length);
  searches.mockRestore();
  const batch = docs.reader().batch(many.slice(0, DOCUMENTS), 10, { ef: 100 });
  const begun = inOneGo(batch.begin());
  const searched = inOneGo(batch.search(), () => batch.distances + batch.counts.requests);
  const finished = inOneGo(batch.finish(), () => batch.counts.requests);
  batch.close();
  expect([begun.value, batch.failure, finished.value.length]).toEqual([STATUS.SUCCESS, undefined, DOCUMENTS]);
  expect(begun.slices).toBeGreaterThan(DOCUMENTS / 20);
  expect(Math.max(searched.share, finished.share), "of no part much is done in one slice").toBeLessThan(0.1);
});

it("refuses what no search takes, before anything is read", async () => {
  const docs = await open();
  const zeros = new Float32Array(DIMENSIONS);
  const invalid = (name: string): object => ({ code: "ERR_INVALID_ARGUMENT", details: { name } });
  await expect(docs.searchMany([zeros, new Float32Array(3)])).rejects.toMatchObject({ code: "ERR_DIMENSION_MISMATCH" });
  await expect(docs.searchMany([zeros.map(() => Number.NaN)])).rejects.toMatchObject({ code: "ERR_NOT_FINITE" });
  await expect(docs.searchMany([undefined as never])).rejects.toMatchObject({ code: "ERR_DIMENSION_MISMATCH" });
  await expect(docs.searchMany(zeros as never)).rejects.toMatchObject(invalid("vectors"));
  await expect(docs.searchMany([zeros], { k: 0 })).rejects.toMatchObject(invalid("k"));
  await expect(docs.searchMany([], { k: 0 })).rejects.toMatchObject(invalid("k"));
  await expect(docs.searchMany([zeros], { ef: -1 })).rejects.toMatchObject(invalid("ef"));
  await expect(docs.searchMany([zeros], { timeoutMs: -1 })).rejects.toMatchObject(invalid("timeoutMs"));
  await expect(docs.searchMany([zeros], { signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: "ERR_ABORTED",
  });
  await expect(docs.searchMany([zeros], { by: "cotra" } as object)).rejects.toMatchObject(invalid("by"));
  await expect(docs.searchMany(Array(17).fill(zeros), { k: 65_536 })).rejects.toMatchObject(invalid("vectors.length"));
  const plain = await cluster.vectors("plain", { dimensions: DIMENSIONS });
  await expect(plain.searchMany([zeros])).rejects.toMatchObject(invalid("strategy"));
});
