/** Searches that name their strategy, over real threads: what answers, what is refused, and what the result says of it. */
import { afterEach, describe, expect, it } from "vitest";
import type { Cluster, ClusterOptions, Explanation, SearchOptions, VectorCollectionOptions } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { eventually, randomVector, startTestCluster } from "../support/cluster.ts";

const DIMENSIONS = 16;
const GRAPH: VectorCollectionOptions = { dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided" };
const zero = new Float32Array(DIMENSIONS);

let cluster: Cluster;
afterEach(() => cluster.close());

async function start(options: ClusterOptions = {}): Promise<Cluster> {
  cluster = await startTestCluster(options);
  return cluster;
}

const invalid = (name: string): object => ({ code: "ERR_INVALID_ARGUMENT", details: { name } });

describe("a search that names its strategy", () => {
  it("is answered by it, by either name of the option, or says why not", async () => {
    await start();
    const docs = await cluster.vectors("docs", GRAPH);
    await docs.upsert(Array.from({ length: 60 }, (_, id) => ({ id, vector: new Float32Array(DIMENSIONS).fill(id) })));
    await docs.indexed();
    for (const strategy of ["scatter", "one-sided"] as const)
      for (const options of [{ strategy }, { by: strategy }, { by: strategy, strategy }]) {
        const { by, fallback, hits } = await docs.search(zero, { k: 3, ...options });
        expect([by, fallback, hits.map(({ id }) => id)]).toEqual([strategy, undefined, [0, 1, 2]]);
      }
    const copies = await docs.search(zero, { k: 1, strategy: "primary-only" });
    expect([copies.by, copies.hits[0]?.id]).toEqual(["one-sided", 0]);
  });

  it("is refused when the strategy is none, has no graph, or the recall is no share", async () => {
    await start();
    const docs = await cluster.vectors("docs", GRAPH);
    const plain = await cluster.vectors("plain", { dimensions: DIMENSIONS });
    const refused: [SearchOptions, string][] = [
      [{ strategy: "nearest" as "compass" }, "strategy"],
      [{ by: "nearest" as "compass" }, "by"],
      [{ by: "round-robin" as "compass" }, "by"],
      [{ by: "compass", strategy: "spire" }, "by"],
      ...[0, -1, 1.01, Number.NaN, "1" as unknown as number].map((recall): [SearchOptions, string] => [
        { recall, strategy: "compass" },
        "recall",
      ]),
      [{ recall: 0 }, "recall"],
    ];
    for (const [options, name] of refused)
      await expect(docs.search(zero, options)).rejects.toMatchObject(invalid(name));
    for (const strategy of ["one-sided", "compass", "spire", "cotra", "auto"] as const)
      await expect(plain.search(zero, { strategy })).rejects.toMatchObject(invalid("strategy"));
    for (const recall of [0, 2, Number.NaN])
      await expect(cluster.vectors("odd", { ...GRAPH, recall })).rejects.toMatchObject(invalid("recall"));
    await expect(cluster.vectors("docs", { ...GRAPH, recall: 0.9 })).rejects.toMatchObject({
      code: "ERR_COLLECTION_MISMATCH",
      details: { name: "recall" },
    });
  });

  it("that leaves it open gets what fits: this thread, the shards near it for a filter, all of them for what is to be exact", async () => {
    await start({ requestTimeoutMs: 20_000, maxHandlerMs: 20_000 });
    const docs = await cluster.vectors("docs", { ...GRAPH, strategy: "auto" });
    const random = createSeededRandom(1);
    const vectors = Array.from({ length: 1_500 }, () =>
      Float32Array.from({ length: DIMENSIONS }, () => random.float()),
    );
    await docs.upsert(vectors.map((vector, id) => ({ id, vector, payload: { odd: id % 2 === 1 } })));
    await docs.indexed({ timeoutMs: 60_000 });
    const query = vectors[1] as Float32Array;
    const answers = {
      plain: await docs.search(query),
      filtered: await docs.search(query, { filter: { odd: true } }),
      sure: await docs.search(query, { recall: 0.99 }),
      exact: await docs.search(query, { exact: true, recall: 0.99 }),
      explained: await docs.search(query, { explain: true }),
    };
    const by = Object.fromEntries(
      Object.entries(answers).map(([name, answer]) => [name, `${answer.by} ${answer.fallback}`]),
    );
    expect(by).toEqual({
      plain: "one-sided undefined",
      filtered: "compass undefined",
      sure: "compass undefined",
      exact: "scatter undefined",
      explained: "one-sided undefined",
    });
    expect(answers.explained.explain?.plan).toMatchObject({ strategy: "one-sided", targets: [] });
    for (const { hits } of Object.values(answers)) expect(hits[0]).toMatchObject({ id: 1, score: 0 });

    const read = (ef?: number): number => docs.reader().search(query, 1, ef === undefined ? {} : { ef }).distances;
    expect(read(2), "ef is instead of the collection's, and may be less").toBeLessThan(read());
    expect(read(500)).toBeGreaterThan(read());

    // Every plan says who answered, and why if that is not who was asked; the same to a function.
    await eventually("all shards know all leaves", async () =>
      (await docs.status()).every(({ knownShards }) => knownShards === 2),
    );
    const copies = "power-of-two";
    for (const [options, plan, fallback] of [
      [{ by: "scatter" }, { strategy: "scatter", copies }, undefined],
      [{ by: "compass" }, { strategy: "compass" }, undefined],
      [{ by: "spire" }, { strategy: "spire" }, undefined],
      [{ by: "cotra" }, { strategy: "cotra" }, undefined],
      [{ by: "one-sided", exact: true }, { strategy: "scatter", copies }, "exact"],
      [{ by: "spire", exact: true }, { strategy: "scatter", copies }, "exact"],
      [{ by: "cotra", exact: true }, { strategy: "scatter", copies }, "exact"],
      [{ by: "cotra", ef: 5_000 }, { strategy: "one-sided" }, "size"],
      [{ by: "compass", k: 4_089 }, { strategy: "one-sided" }, "size"],
      [{ by: "spire", k: 4_089 }, { strategy: "one-sided" }, "size"],
    ] as const) {
      const told: Explanation[] = [];
      const found = await docs.search(query, { ...options, explain: (account) => told.push(account) });
      const name = `${options.by} ${fallback}`;
      const [account] = told as [Explanation];
      expect([told.length, found.explain], name).toEqual([1, account]);
      expect([found.by, found.fallback], name).toEqual([plan.strategy, fallback]);
      const { strategy, copies: chosen } = account.plan;
      expect([strategy, chosen, account.fallback], name).toEqual([
        plan.strategy,
        "copies" in plan ? copies : undefined,
        fallback,
      ]);
      const among = (account.reading?.bytes ?? 0) + (account.collaboration?.bytes ?? 0);
      expect(account.bytes, name).toBe(account.outcomes.reduce((sum, { bytes }) => sum + bytes, among));
      for (const { bytes, latencyUs } of account.outcomes)
        expect([bytes > 0, latencyUs > 0], name).toEqual([true, true]);
    }
    // For all there is both shards are needed: one asks the other.
    const { reading } = await docs.search(query, { by: "spire", recall: 1 });
    expect(reading).toMatchObject({ rounds: 1, messages: 2 });
    expect(reading?.bytes, "a code, and ten candidates of 24 bytes").toBeGreaterThan(4 * DIMENSIONS + 240);
    expect(answers.filtered.hits.every(({ id }) => (id as number) % 2 === 1)).toBe(true);
  });

  it("is exact by scatter for a recall of 1, whatever the shards' indexes find", async () => {
    await start();
    const poor = { connectivity: 2, expansionAdd: 2, expansionSearch: 1, scanRows: 0 };
    const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2", ...poor });
    const random = createSeededRandom(2);
    const next = (): Float32Array => Float32Array.from({ length: DIMENSIONS }, () => random.float());
    await docs.upsert(Array.from({ length: 1_000 }, (_, id) => ({ id, vector: next() })));
    await docs.indexed({ timeoutMs: 60_000 });
    let missed = 0;
    for (let query = 0; query < 40; query++) {
      const vector = next();
      const nearest = async (options: SearchOptions): Promise<unknown> =>
        (await docs.search(vector, { k: 1, ...options })).hits[0]?.id;
      const exact = await nearest({ exact: true });
      expect(await nearest({ recall: 1 })).toBe(exact);
      if ((await nearest({})) !== exact) missed++;
    }
    expect(missed, "else this says nothing").toBeGreaterThan(0);
  });

  it("that leaves it open sees at once what was written, replaced and deleted, whoever answers", async () => {
    await start();
    const docs = await cluster.vectors("docs", { ...GRAPH, strategy: "auto" });
    const random = createSeededRandom(2);
    const next = (): Float32Array => randomVector(random, DIMENSIONS);
    const write = (id: number, vector: Float32Array): Promise<unknown> =>
      docs.upsert({ id, vector, payload: { kept: true } });
    const vectors = Array.from({ length: 600 }, next);
    await docs.upsert(vectors.map((vector, id) => ({ id, vector, payload: { kept: true } })));
    await docs.indexed({ timeoutMs: 60_000 });
    // With a filter or a recall others answer than without.
    const all: readonly SearchOptions[] = [{}, { filter: { kept: true } }, { recall: 0.99 }, { exact: true }];
    const ways = new Set<string>();
    const nearest = async (vector: Float32Array, options: SearchOptions): Promise<unknown> => {
      const { by, hits } = await docs.search(vector, { ...options, k: 1 });
      ways.add(by);
      return hits[0]?.id;
    };
    for (let id = 0; id < 40; id++) {
      const [old, moved, added] = [vectors[id] as Float32Array, next(), next()];
      await write(id, moved);
      await write(1_000 + id, added);
      for (const options of all) {
        expect(await nearest(moved, options)).toBe(id);
        expect(await nearest(added, options)).toBe(1_000 + id);
        expect(await nearest(old, options), Object.keys(options).join()).not.toBe(id);
      }
      await docs.delete([id, 1_000 + id]);
      for (const options of all) {
        expect(await nearest(moved, options)).not.toBe(id);
        expect(await nearest(added, options)).not.toBe(1_000 + id);
      }
    }
    expect([...ways]).toEqual(expect.arrayContaining(["one-sided", "scatter"]));
  });

  it.each(["compass", "spire", "cotra", "auto"] as const)(
    "by %s: a collection may be opened with it, keeps bytes, and refuses bits by l2",
    async (strategy) => {
      await start();
      const docs = await cluster.vectors("docs", { ...GRAPH, strategy, quantization: "u8" });
      await docs.upsert(Array.from({ length: 20 }, (_, id) => ({ id, vector: new Float32Array(DIMENSIONS).fill(id) })));
      expect((await docs.search(zero, { k: 2 })).hits.map(({ id }) => id)).toEqual([0, 1]);
      await expect(cluster.vectors("bits", { ...GRAPH, strategy, quantization: "b1" })).rejects.toMatchObject(
        invalid("quantization"),
      );
    },
  );
});
