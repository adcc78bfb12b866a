/** Options of searches that make no sense are refused by every strategy in the same words, before anything is sent or read. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Cluster, type SearchOptions, ShardloomError, type VectorCollection } from "../../src/index.ts";
import { startTestCluster } from "../support/cluster.ts";

const DIMENSIONS = 4;
const STRATEGIES = ["scatter", "one-sided", "compass", "spire", "cotra", "auto"] as const;
const zero = new Float32Array(DIMENSIONS);
const untyped = (value: unknown): never => value as never;

describe("options of a search", () => {
  let cluster: Cluster;
  let docs: VectorCollection;
  let plain: VectorCollection;
  beforeAll(async () => {
    cluster = await startTestCluster();
    docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided" });
    plain = await cluster.vectors("plain", { dimensions: DIMENSIONS, metric: "l2" });
  });
  afterAll(() => cluster.close());

  /** What a call is refused with, as one line. */
  async function refusalOf(call: () => Promise<unknown>): Promise<string> {
    try {
      await call();
      return "no refusal";
    } catch (error) {
      expect(error).toBeInstanceOf(ShardloomError);
      const { code, message, details } = error as ShardloomError;
      return `${code} ${String(details["name"])}: ${message}`;
    }
  }

  it.each<[string, string, unknown[]]>([
    ["k", "k", [0, 1.5, 65_537, "3", null]],
    ["ef", "ef", [-1, 1.5, 65_537, "3", null]],
    ["exact", "exact", ["yes", 1, null]],
    ["includePayload", "includePayload", ["no", 0, null]],
    ["includeVector", "includeVector", ["no", 0, null]],
    ["gather", "gather", ["most", "", 1, true, null]],
    ["gather", "quorum", [{}, { quorum: 0 }, { quorum: 3 }, { quorum: 1.5 }, { quorum: "1" }]],
    ["priority", "priority", ["high", 1, "", null]],
    ["tenant", "tenant", ["", 7, "x".repeat(257), null]],
    ["hedge", "hedge", ["no", 1, null]],
    ["maxAttempts", "maxAttempts", [0, -1, 1.5, "2", null]],
    ["maxConcurrentShards", "maxConcurrentShards", [0, -1, Number.NaN]],
    ["signal", "signal", [{}, null, 1, "abort"]],
    ["timeoutMs", "timeoutMs", [0, -1, Number.NaN, Infinity, "100"]],
    ["consistency", "consistency", ["Strong", "", 1]],
    ["unavailable", "unavailable", ["ignore", "", true]],
    ["maxStalenessMs", "maxStalenessMs", [-1, Number.NaN, "5"]],
    ["session", "session", ["s1.", 7, {}]],
    ["filter", "filter", [7, { a: { near: 1 } }]],
  ])("%s: a bad %s is refused by every strategy, and by a batch, also of nothing", async (option, name, values) => {
    const before = cluster.routerStats();
    for (const value of values) {
      const options = { [option]: value } as SearchOptions;
      const words = await refusalOf(() => plain.search(zero, options));
      expect(words, `${option}: ${String(value)}`).toMatch(/^ERR_INVALID_ARGUMENT /);
      expect(words).toContain(name);
      for (const by of STRATEGIES)
        expect(await refusalOf(() => docs.search(zero, { ...options, by })), `${by}, ${String(value)}`).toBe(words);
      for (const vectors of [[zero], []])
        expect(await refusalOf(() => docs.searchMany(vectors, options)), "searchMany").toBe(words);
    }
    expect(cluster.routerStats().requests).toBe(before.requests);
  });

  it("an explanation, a vector and a signal that has fired, too", async () => {
    const bad: [Float32Array, SearchOptions][] = [
      [zero, { explain: untyped("yes") }],
      [new Float32Array(3), {}],
      [zero.map(() => Number.NaN), {}],
      [zero, { signal: AbortSignal.abort() }],
    ];
    for (const [vector, options] of bad) {
      const words = await refusalOf(() => plain.search(vector, options));
      expect(words).toMatch(/^ERR_/);
      for (const by of STRATEGIES)
        expect(await refusalOf(() => docs.search(vector, { ...options, by })), by).toBe(words);
    }
  });

  it("a recall is refused by what goes by ef, and ef by what goes by recall", async () => {
    const refusal = (collection: VectorCollection, options: SearchOptions): Promise<string> =>
      refusalOf(() => collection.search(zero, options));
    for (const by of ["one-sided", "cotra"] as const)
      for (const recall of [0.9, 1])
        expect(await refusal(docs, { by, recall })).toContain(
          `recall must be left out with strategy ${by}, which goes`,
        );
    expect(await refusal(plain, { recall: 0.9 })).toContain(
      "recall must be 1, for an exact search, or left out with strategy scatter, which goes by ef: current value is 0.9",
    );
    expect(await refusal(docs, { by: "spire", ef: 10 })).toContain(
      "ef must be left out with strategy spire, which goes by recall: current value is 10",
    );
    const spire = await cluster.vectors("spire", { dimensions: DIMENSIONS, metric: "l2", strategy: "spire" });
    expect(await refusal(spire, { ef: 10 })).toContain("ef must be left out");
    // What finds all finds any share; 0 stands for what the collection has; and others may be named.
    const fine: [VectorCollection, SearchOptions][] = [
      [plain, { recall: 1 }],
      [plain, { recall: 0.9, exact: true }],
      [docs, { recall: 0.9, by: "scatter" }],
      [spire, { ef: 0 }],
      [spire, { ef: 10, by: "compass", recall: 0.9 }],
      [spire, { ef: 10, by: "auto" }],
    ];
    for (const [collection, options] of fine) expect(await refusal(collection, options)).toBe("no refusal");
  });
});
