/** Searches by levels of centroids over real threads: in collections with such an index, through the same search as ever. */
import { once } from "node:events";
import { afterEach, describe, expect, it, vi } from "vitest";
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import type {
  Cluster,
  IndexedOptions,
  SearchResult,
  VectorCollection,
  VectorCollectionOptions,
} from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { GRAPH_LEAVES, GRAPH_LEAVES_READY, GRAPH_LEAVES_VERSION } from "../../src/store/graph-layout.ts";
import { LEAF_VERSION } from "../../src/store/leaf-layout.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { clustered, DIMENSIONS, foundOf, queriesOf } from "../support/clustered.ts";
import { graphRootOf } from "../support/graph-regions.ts";
import { doom, type Hold, hold } from "../support/holds.ts";

const WORKERS = 3;
const DOCUMENTS = 1_500;
const seed = Number(process.env["SEED"] ?? 1);
const LEVELS: VectorCollectionOptions = { dimensions: DIMENSIONS, metric: "l2", strategy: "spire", index: "levels" };
/** What may stand in for a search by levels while vertices are on their way, or a shard is away. */
const INSTEAD = ["training", "version", "shard", "memory", "reach"];

vi.setConfig({ testTimeout: 120_000 });

let cluster: Cluster;
afterEach(() => cluster.close());

type Progress = Parameters<NonNullable<IndexedOptions["onProgress"]>>[0];

/** @param told Gets the progress until it is indexed. */
async function fill(options: VectorCollectionOptions = LEVELS, told: Progress[] = []): Promise<VectorCollection> {
  cluster = await startTestCluster({ workers: WORKERS, requestTimeoutMs: 20_000, maxHandlerMs: 60_000 });
  const docs = await cluster.vectors("docs", options);
  await docs.upsert(clustered(DOCUMENTS).map((vector, id) => ({ id, vector, payload: { third: id % 3 } })));
  await known(docs, told);
  return docs;
}

/** Waits until the levels are learnt, all vertices are where they are to be, and all shards know what stands highest. */
async function known(docs: VectorCollection, told: Progress[] = []): Promise<void> {
  await docs.indexed({ timeoutMs: 60_000, onProgress: (progress) => told.push(progress) });
  await eventually("all shards know the levels", async () => {
    const status = await docs.status();
    return status.length === WORKERS && status.every(({ knownShards }) => knownShards === WORKERS);
  });
}

interface Outcome {
  readonly recall: number;
  /** Mean of the codes that were read. */
  readonly codes: number;
  /** Of all searches: who answered, and why if not levels. */
  readonly ways: ReadonlySet<string>;
  readonly rounds: ReadonlySet<number>;
}

async function searchAll(docs: VectorCollection, recall: number, filter?: { third: number }): Promise<Outcome> {
  const queries = queriesOf(40);
  const ways = new Set<string>();
  const rounds = new Set<number>();
  let [found, codes] = [0, 0];
  for (const query of queries) {
    const options = filter === undefined ? {} : { filter };
    const near = await docs.search(query, { ...options, recall });
    ways.add(wayOf(near));
    if (near.reading !== undefined) rounds.add(near.reading.rounds);
    codes += near.reading?.codes ?? 0;
    found += await foundOf(docs, query, near.hits, filter);
  }
  return { recall: found / (10 * queries.length), codes: codes / queries.length, ways, rounds };
}

/** First word of the root of a collection's graph. */
function rootWord(docs: VectorCollection): number {
  return (graphRootOf(docs).address + CELL_HEADER_BYTES) >>> 2;
}

const wayOf = ({ by, fallback }: SearchResult): string => `${by} ${fallback}`;

describe("a search by levels", () => {
  it("is learnt with progress; finds its share in two rounds, reading the less the less is wanted, keeps filters exactly, and tells what it read", async () => {
    const progress: Progress[] = [];
    const docs = await fill(LEVELS, progress);
    expect(progress.at(-1)).toEqual({ rows: DOCUMENTS, indexed: DOCUMENTS, learnt: 1 });
    expect(progress.some(({ learnt }) => learnt > 0 && learnt < 1)).toBe(true);
    for (const [at, { rows, indexed, learnt }] of progress.entries()) {
      const before = progress[at - 1] ?? { indexed: 0, learnt: 1 };
      expect([rows, indexed >= before.indexed, indexed <= rows]).toEqual([DOCUMENTS, true, true]);
      // From the begin of a learning on; 1 is told where none is under way.
      if (before.learnt < 1) expect(learnt).toBeGreaterThanOrEqual(before.learnt);
      expect(learnt >= 0 && learnt <= 1).toBe(true);
    }
    const loose = await searchAll(docs, 0.8);
    const tight = await searchAll(docs, 0.98);
    const all = await searchAll(docs, 1);
    expect([[...tight.ways], [...tight.rounds]]).toEqual([["spire undefined"], [2]]);
    expect(loose.recall).toBeGreaterThan(0.72); // means of few queries
    expect(tight.recall).toBeGreaterThan(0.92);
    expect(all.recall).toBe(1);
    expect(loose.codes).toBeLessThan(tight.codes);
    expect(tight.codes).toBeLessThan(DOCUMENTS / 5);
    expect(all.codes, "all leaves").toBeGreaterThanOrEqual(DOCUMENTS);
    const filtered = await searchAll(docs, 0.98, { third: 2 });
    expect(filtered.recall).toBeGreaterThan(0.9);
    expect(filtered.ways).toContain("spire undefined");

    const told: unknown[] = [];
    const query = queriesOf(1)[0] as Float32Array;
    const { by, explain, reading } = await docs.search(query, { explain: (account) => told.push(account) });
    expect([by, explain?.plan.strategy, explain?.reading, told]).toEqual(["spire", "spire", reading, [explain]]);
    expect(reading?.codes).toBeGreaterThan(0);
  });

  it("sees at once what is inserted and deleted, also while the levels are learnt anew", async () => {
    const docs = await fill();
    const random = createSeededRandom(seed + 5);
    const live = new Set(Array.from({ length: DOCUMENTS }, (_, id) => id));
    const ways = new Set<string>();
    let [found, looked, elsewhere] = [0, 0, 0];
    const version = cluster.arena.i32[rootWord(docs) + GRAPH_LEAVES_VERSION] as number;
    // More than half as many again: the levels are learnt once more meanwhile.
    for (let next = DOCUMENTS; next < 1.7 * DOCUMENTS; next += 100) {
      const batch = clustered(100, random).map((vector, at) => ({ id: next + at, vector, payload: { third: 0 } }));
      await docs.upsert(batch);
      for (const { id } of batch) live.add(id);
      const gone = [...live].filter(() => random.float() < 0.003);
      await docs.delete(gone);
      for (const id of gone) live.delete(id);
      for (const { id, vector } of batch.filter(({ id }) => live.has(id)).slice(0, 4)) {
        const near = await docs.search(vector, { k: 5, recall: 0.99 });
        ways.add(wayOf(near));
        if (near.hits[0]?.id === id) found++;
        const asked = near.completeness.outcomes.map(({ shard }) => shard);
        if (near.by === "spire" && near.hits[0]?.id === id && !asked.includes(cluster.shardOfId(id))) elsewhere++;
        looked++;
        const all = await docs.search(vector, { k: 5, recall: 1 });
        expect(all.hits[0]).toMatchObject({ id, score: 0 });
        for (const hit of [...near.hits, ...all.hits]) expect(live.has(hit.id as number)).toBe(true);
      }
    }
    for (const way of ways) expect(["spire undefined", ...INSTEAD.flatMap(standIns)]).toContain(way);
    expect(elsewhere, "found by levels, where another shard was asked than the document's own").toBeGreaterThan(0);
    expect(found / looked).toBeGreaterThan(0.85);
    await known(docs);
    expect(cluster.arena.i32[rootWord(docs) + GRAPH_LEAVES_VERSION]).toBeGreaterThan(version);
    const after = await searchAll(docs, 0.98);
    expect([[...after.ways], [...after.rounds]]).toEqual([["spire undefined"], [2]]);
    expect(after.recall).toBeGreaterThan(0.92);
  });

  it("does without a shard that does not answer, in time, and goes on when one is lost", async () => {
    const docs = await fill();
    // One that is needed for certain.
    const [asked] = (await docs.search(queriesOf(1)[0] as Float32Array, { recall: 0.98 })).completeness.outcomes;
    const held = await hold(cluster, asked?.shard as number, 30_000);
    const late = queriesOf(10).map((query) => docs.search(query, { recall: 0.98, timeoutMs: 3_000 }));
    const answers = await Promise.all(late);
    const ways = new Set(answers.map(wayOf));
    for (const { hits, completeness } of answers) expect([hits.length, completeness.complete]).toEqual([10, true]);
    expect(ways).toContain("one-sided shard");
    for (const way of ways) expect(["spire undefined", "one-sided shard"]).toContain(way);
    expect(held.isOn).toBe(true);
    await held.release();

    const restarted = once(cluster, "worker-restarted");
    const doomed = await doom(cluster, 0, 30_000);
    // For all there is every shard is needed.
    const searches = queriesOf(10).map((query) => docs.search(query, { recall: 1 }));
    expect(doomed.isOn, "it has been asked, and has not answered").toBe(true);
    await doomed.release();
    const more = queriesOf(10).map((query) => docs.search(query));
    for (const near of await Promise.all(searches))
      expect(["shard", "memory"].flatMap(standIns), "never by levels").toContain(wayOf(near));
    for (const { hits, completeness } of await Promise.all([...searches, ...more]))
      expect([hits.length, completeness.complete]).toEqual([10, true]);
    await restarted;
    await known(docs);
    const after = await searchAll(docs, 0.98);
    expect([[...after.ways], [...after.rounds]]).toEqual([["spire undefined"], [2]]);
    expect(after.recall).toBeGreaterThan(0.92);
  });

  it("goes another way while what shards know is of another version than the table, and by levels again once they have told each other", async () => {
    const docs = await fill();
    const { i32, u32 } = cluster.arena;
    const first = rootWord(docs);
    // Held, so that they hear of the searches before they look at the table again.
    const holds = await Promise.all([0, 1, 2].map((shard) => hold(cluster, shard, 30_000)));
    const version = i32[first + GRAPH_LEAVES_VERSION] as number;
    const table = ((u32[first + GRAPH_LEAVES] as number) + CELL_HEADER_BYTES) >>> 2;
    i32[table + LEAF_VERSION] = version + 1;
    i32[first + GRAPH_LEAVES_READY] = version + 1;
    i32[first + GRAPH_LEAVES_VERSION] = version + 1;
    const queries = queriesOf(20);
    const searches = queries.map((query) => docs.search(query, { recall: 0.98 }));
    const [one, ...others] = holds as [Hold, Hold, Hold];
    await one.release();
    // What the first knows of the others' clusters is of the version before, as those are held still.
    expect(wayOf(await Promise.race(searches))).toBe("one-sided version");
    expect(others.every(({ isOn }) => isOn)).toBe(true);
    await Promise.all(others.map((held) => held.release()));
    const answers = await Promise.all(searches);
    for (const near of answers) {
      expect([near.hits.length, near.completeness.complete]).toEqual([10, true]);
      expect(["spire undefined", ...INSTEAD.flatMap(standIns)]).toContain(wayOf(near));
    }
    await known(docs);
    await eventually("levels answer", async () => {
      const near = await docs.search(queries[0] as Float32Array, { recall: 0.98 });
      return wayOf(near) === "spire undefined";
    });
    const after = await searchAll(docs, 0.98);
    expect(after.ways).toContain("spire undefined");
    expect(after.recall).toBeGreaterThan(0.92);
  });

  it("is refused typed where there can be no levels, and with another index than the collection has", async () => {
    cluster = await startTestCluster({ workers: 1 });
    for (const odd of [
      { index: "tree" as "levels" },
      { strategy: "scatter" },
      { metric: "inner-product" },
      { quantization: "i8" },
    ] as const)
      await expect(cluster.vectors("odd", { ...LEVELS, ...odd })).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
        details: { name: "index" },
      });
    await cluster.vectors("docs", LEVELS);
    await expect(cluster.vectors("docs", { ...LEVELS, index: "leaves" })).rejects.toMatchObject({
      code: "ERR_COLLECTION_MISMATCH",
      details: { name: "index" },
    });
  });
});

function standIns(why: string): string[] {
  return [`one-sided ${why}`, `scatter ${why}`];
}
