/**
 * Regions of a graph that are revoked between searches and in the middle of them, over real threads: every strategy answers whole and right, by
 * itself or by another way that the result names.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { Cluster, SearchResult, StrategyName, VectorCollection } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { clustered, DIMENSIONS } from "../support/clustered.ts";
import { GraphRegions, graphRootOf } from "../support/graph-regions.ts";
import type { RevokingData } from "../support/revoking.worker.ts";

const seed = Number(process.env["SEED"] ?? 1);
const WORKERS = 3;
const DOCUMENTS = 1_200;
const QUERIES = 24;
const BY_RECALL: readonly string[] = ["compass", "spire"];
const STRATEGIES = ["one-sided", "compass", "spire", "cotra", "auto"] as const;

vi.setConfig({ testTimeout: 360_000 });

/** A stored vector, and the documents that are nearest to it. */
interface Question {
  readonly id: number;
  readonly vector: Float32Array;
  readonly truth: ReadonlyMap<unknown, number>;
}

let cluster: Cluster;
let docs: VectorCollection;
const questions: Question[] = [];

/** Documents whose leaves all shards know, and what to ask for. */
beforeAll(async () => {
  cluster = await startTestCluster({ workers: WORKERS, requestTimeoutMs: 60_000, maxHandlerMs: 60_000 });
  docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2", strategy: "compass" });
  const vectors = clustered(DOCUMENTS);
  await docs.upsert(vectors.map((vector, id) => ({ id, vector })));
  await docs.indexed({ timeoutMs: 60_000 });
  await eventually("all shards know all leaves", async () =>
    (await docs.status()).every(({ knownShards }) => knownShards === WORKERS),
  );
  for (let id = 0; id < DOCUMENTS; id += DOCUMENTS / QUERIES) {
    const vector = vectors[id] as Float32Array;
    const { hits } = await docs.search(vector, { exact: true });
    questions.push({ id, vector, truth: new Map(hits.map((hit) => [hit.id, hit.score])) });
  }
});
afterAll(() => cluster.close());

const wayOf = ({ by, fallback }: SearchResult): string => `${by} ${fallback ?? ""}`.trim();

/** Searches for what is stored: ten documents in order, each with its true score, the vector's own first. @returns the way, and how many are right */
async function ask(by: StrategyName, question: Question): Promise<{ way: string; found: number }> {
  const result = await docs.search(question.vector, {
    by,
    ...(by !== "spire" && { ef: 100 }),
    ...(BY_RECALL.includes(by) && { recall: 0.98 }),
  });
  const { hits, completeness } = result;
  expect([hits.length, completeness.complete], by).toEqual([10, true]);
  expect(hits[0], `${by}: ${wayOf(result)}`).toMatchObject({ id: question.id, score: 0 });
  expect(new Set(hits.map(({ id }) => id)).size).toBe(10);
  for (const [at, { score }] of hits.entries()) expect(score).toBeGreaterThanOrEqual(hits[at - 1]?.score ?? 0);
  const right = hits.filter(({ id }) => question.truth.has(id));
  for (const { id, score } of right) expect(score).toBe(question.truth.get(id));
  return { way: wayOf(result), found: right.length };
}

/** What answers in place of a strategy. */
const own = (by: StrategyName): string => (by === "auto" ? "one-sided" : by);

describe("regions of a graph that are revoked", () => {
  it("between searches: all shards answer and the result says so, and each strategy again once they are registered anew", async () => {
    const regions = new GraphRegions(cluster.arena, graphRootOf(docs), 1, () => 7);
    const ways = async (by: StrategyName): Promise<string[]> => {
      const answers = await Promise.all(questions.map((question) => ask(by, question)));
      return [...new Set(answers.map(({ way }) => way))];
    };
    for (const by of STRATEGIES) expect(await ways(by), by).toEqual([own(by)]);
    expect(regions.revoke()).toBeGreaterThan(0);
    for (const by of STRATEGIES) expect(await ways(by), by).toEqual(["scatter memory"]);
    regions.restore();
    for (const by of STRATEGIES) expect(await ways(by), by).toEqual([own(by)]);
  });

  it("in the middle of searches, again and again: whole and right answers, by the strategy or another way that is named", async () => {
    const control = new SharedArrayBuffer(8);
    const told = new Int32Array(control);
    const data: RevokingData = { memory: cluster.arena.memory, root: graphRootOf(docs), shard: 1, seed, control };
    const revoking = new Worker(new URL("../support/revoking.worker.js", import.meta.url), { workerData: data });
    const ended = once(revoking, "message");
    ended.catch(() => undefined); // its error is thrown below
    const random = createSeededRandom(seed);
    try {
      await eventually("regions are revoked", () => Atomics.load(told, 1) > 0);
      for (const by of STRATEGIES) {
        const ways = new Map<string, number>();
        let [found, searches] = [0, 0];
        // Several at a time, so that some are under way among the shards whenever keys go.
        const isOver = (): boolean => searches >= 60 && (ways.get(own(by)) ?? 0) >= 5 && ways.size > 1;
        await eventually(
          `some searches by ${by} lose their regions, and some do not`,
          async () => {
            const some = Array.from({ length: 6 }, () => questions[Math.floor(random.float() * QUERIES)] as Question);
            for (const { way, found: right } of await Promise.all(some.map((question) => ask(by, question)))) {
              ways.set(way, (ways.get(way) ?? 0) + 1);
              found += right;
              searches++;
            }
            return isOver();
          },
          60_000,
        );
        expect(found / (10 * searches), by).toBeGreaterThan(0.9);
        for (const way of ways.keys()) expect([own(by), "one-sided memory", "scatter memory"], by).toContain(way);
      }
    } finally {
      Atomics.store(told, 0, 1);
    }
    expect(await ended).toEqual(["over"]);
    for (const by of STRATEGIES) expect((await ask(by, questions[0] as Question)).way).toBe(own(by));
  });
});
