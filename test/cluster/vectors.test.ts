import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, Metadata, SearchResult, VectorCollection, VectorDocument } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { saboteur } from "../support/actors.ts";
import { keyOnShard, randomVector, startTestCluster } from "../support/cluster.ts";
import { holdStarts } from "../support/gate.ts";
import { hold } from "../support/holds.ts";

const DIMENSIONS = 6;

/** `count` documents with ids `${prefix}0`…, whose first component is their number. */
function documents(count: number, prefix = "d"): VectorDocument[] {
  return Array.from({ length: count }, (_, at) => ({
    id: `${prefix}${at}`,
    vector: Float32Array.from({ length: DIMENSIONS }, (_, component) => (component === 0 ? at : 0)),
    payload: { at, even: at % 2 === 0, tags: [`t${at % 3}`] },
  }));
}

const origin = new Float32Array(DIMENSIONS);

describe("a collection of vectors", () => {
  let cluster: Cluster;
  let number = 0;
  const fresh = (name = `fresh-${number++}`): Promise<VectorCollection> =>
    cluster.vectors(name, { dimensions: DIMENSIONS, metric: "l2" });
  beforeAll(async () => {
    cluster = await startTestCluster({ maxHandlerMs: 60_000 });
  });
  afterAll(() => cluster.close());

  it("stores one document, an array, an iterable and an async iterable, and tells what was new", async () => {
    const docs = await fresh();
    const all = documents(40);
    expect(await docs.upsert(all[0] as VectorDocument)).toEqual({ written: 1, inserted: 1 });
    expect(await docs.upsert(all.slice(0, 10))).toEqual({ written: 10, inserted: 9 });
    expect(await docs.upsert(new Set(all.slice(10, 20)))).toEqual({ written: 10, inserted: 10 });
    async function* later(): AsyncGenerator<VectorDocument> {
      for (const document of all.slice(20)) yield await Promise.resolve(document);
    }
    expect(await docs.upsert(later())).toEqual({ written: 20, inserted: 20 });
    expect(await docs.upsert([])).toEqual({ written: 0, inserted: 0 });
    expect(await docs.count()).toBe(40);
    for (const { id, vector, payload } of all) expect(await docs.get(id)).toMatchObject({ id, vector, payload });
  });

  it("reports progress that only grows, once per batch, and ends at the whole", async () => {
    const docs = await fresh();
    const seen: number[] = [];
    const progress = await docs.upsert(documents(1_000).values(), {
      batchSize: 64,
      onProgress: ({ written }) => seen.push(written),
    });
    expect(progress).toEqual({ written: 1_000, inserted: 1_000 });
    expect(seen.at(-1)).toBe(1_000);
    expect(seen).toHaveLength(Math.ceil(1_000 / 64));
    expect([...seen].sort((a, b) => a - b)).toEqual(seen);
  });

  it("lets the later of two documents of a stream win, and copies what the source reuses", async () => {
    const docs = await fresh();
    const vector = new Float32Array(DIMENSIONS);
    const payload = { round: 0 };
    function* reused(): Generator<VectorDocument> {
      for (let round = 0; round < 300; round++) {
        vector.fill(round);
        payload.round = round;
        yield { id: round % 7, vector, payload };
      }
    }
    expect(await docs.upsert(reused(), { batchSize: 3 })).toEqual({ written: 300, inserted: 7 });
    for (let id = 0; id < 7; id++) {
      const last = 299 - ((299 - id) % 7);
      expect(await docs.get(id)).toMatchObject({
        vector: new Float32Array(DIMENSIONS).fill(last),
        payload: { round: last },
      });
    }
  });

  it("gets many in the order of their ids, with and without vector and payload", async () => {
    const docs = await fresh();
    await docs.upsert(documents(5));
    const stored = await docs.getMany(["d4", "nobody", "d0", "d4"], { includeVector: false });
    expect(stored.map((document) => document?.payload?.["at"])).toEqual([4, undefined, 0, 4]);
    expect(stored[0]).not.toHaveProperty("vector");
    expect(await docs.get("d1", { includePayload: false })).not.toHaveProperty("payload");
    expect(await docs.get("nobody")).toBeUndefined();
    expect(await docs.getMany([])).toEqual([]);
  });

  it("deletes one and several, and counts those that were there", async () => {
    const docs = await fresh();
    await docs.upsert(documents(10));
    expect(await docs.delete("d0")).toBe(1);
    expect(await docs.delete(["d0", "d1", "d2", "nobody"])).toBe(2);
    expect(await docs.count()).toBe(7);
    expect((await docs.search(origin, { k: 1 })).hits[0]?.id).toBe("d3");
  });

  it('keeps 1 and "1", 0 and -0, and ids of any script apart or together as it says', async () => {
    const docs = await fresh();
    const vector = new Float32Array(DIMENSIONS);
    const ids = [1, "1", 0, "é", "日本", "😀", "x".repeat(512), Number.MAX_VALUE, -1.5];
    expect(await docs.upsert(ids.map((id) => ({ id, vector })))).toEqual({ written: ids.length, inserted: ids.length });
    expect((await docs.search(vector, { k: 20 })).hits.map((hit) => hit.id)).toEqual([
      -1.5,
      0,
      1,
      Number.MAX_VALUE,
      "1",
      "x".repeat(512),
      "é",
      "日本",
      "😀",
    ]);
    expect(await docs.get(-0)).toBeDefined();
  });

  it("searches in the total order, with filter, exactly, with vectors, and with k beyond the collection", async () => {
    const docs = await fresh();
    await docs.upsert(documents(50));
    const ids = async (options: object): Promise<unknown[]> =>
      (await docs.search(origin, options)).hits.map((hit) => hit.id);
    expect(await ids({ k: 3 })).toEqual(["d0", "d1", "d2"]);
    expect(await ids({ k: 3, exact: true, filter: { even: false } })).toEqual(["d1", "d3", "d5"]);
    expect(await ids({ k: 2, filter: { at: { gte: 40 }, tags: "t1" } })).toEqual(["d40", "d43"]);
    expect(await ids({ k: 65_536 })).toHaveLength(50);
    expect(await ids({ filter: { at: -1 } })).toEqual([]);
    const { hits } = await docs.search(origin, { k: 1, includeVector: true, includePayload: false });
    expect(hits).toEqual([{ id: "d0", score: 0, version: expect.any(Number), vector: origin }]);
  });

  it("gives back payloads as they were", async () => {
    const docs = await fresh();
    const payload: Metadata = {
      text: "é",
      none: null,
      list: [1, [2.5, "x"]],
      nested: { deep: { yes: true } },
      big: 2n ** 60n,
      nan: Number.NaN,
      "": 0,
    };
    await docs.upsert({ id: "p", vector: origin, payload });
    expect((await docs.get("p"))?.payload).toEqual(payload);
    expect((await docs.search(origin, { k: 1 })).hits[0]?.payload).toEqual(payload);
  });

  it("opens twice as one, refuses other options, and ends every handle when it is dropped", async () => {
    const [first, second] = await Promise.all([fresh("twice"), fresh("twice")]);
    await first.upsert(documents(3));
    expect(await second.count()).toBe(3);
    expect(await (await cluster.vectors("twice")).count()).toBe(3);
    await expect(cluster.vectors("twice", { dimensions: DIMENSIONS + 1, metric: "l2" })).rejects.toMatchObject({
      code: "ERR_COLLECTION_MISMATCH",
      details: { name: "dimensions", value: DIMENSIONS + 1 },
    });
    expect(await cluster.dropVectors("twice")).toBe(true);
    expect(await cluster.dropVectors("twice")).toBe(false);
    await expect(first.count()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION", details: { name: "twice" } });
    await expect(first.upsert(documents(1))).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    expect(() => first.region("d0")).toThrow(/dropped/);
    await expect(cluster.vectors("twice")).rejects.toMatchObject({
      code: "ERR_UNKNOWN_COLLECTION",
      details: { name: "twice" },
    });
    expect(await (await fresh("twice")).count()).toBe(0);
  });

  it("ends a search at its deadline and when its signal fires", async () => {
    const docs = await fresh();
    await docs.upsert(documents(10));
    await expect(docs.search(origin, { signal: AbortSignal.abort("why") })).rejects.toMatchObject({
      code: "ERR_ABORTED",
      cause: "why",
    });
    const held = await hold(cluster, 1, 20_000);
    await expect(docs.search(origin, { timeoutMs: 30 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    const controller = new AbortController();
    const search = docs.search(origin, { signal: controller.signal });
    setImmediate(() => controller.abort());
    await expect(search).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await held.release();
    expect((await docs.search(origin, { k: 10 })).hits).toHaveLength(10);
  });

  it("tells how complete an answer is when a shard is blocked, and never calls a part the whole", async () => {
    const docs = await fresh();
    await docs.upsert(documents(40));
    const whole = await docs.search(origin, { k: 40 });
    expect(whole.completeness).toMatchObject({ planned: 2, answered: 2, complete: true });
    const held = await hold(cluster, 0, 20_000);
    const part = await docs.search(origin, { k: 40, gather: "best-effort", timeoutMs: 1_000 });
    expect(part.completeness).toMatchObject({ planned: 2, answered: 1, timedOut: 1, complete: false });
    expect(part.completeness.outcomes[0]).toMatchObject({
      shard: 0,
      status: "timed-out",
      error: { code: "ERR_TIMEOUT" },
    });
    const onOne = whole.hits.filter((hit) => cluster.shardOfId(hit.id) === 1);
    expect(part.hits).toEqual(onOne);
    expect(part.completeness.outcomes[1]).toMatchObject({ shard: 1, status: "answered", count: onOne.length });
    await held.release();
  });
});

describe("a collection with a dead shard", () => {
  it("waits for its successor, answers in part when that is enough, and fails typed when in a hurry", async () => {
    const actors = ["actors", "start-trouble"].map((name) => new URL(`../support/${name}.js`, import.meta.url));
    const cluster = await startTestCluster({ actors, requestTimeoutMs: 20_000 });
    const letStart = holdStarts();
    try {
      const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2" });
      await docs.upsert(documents(40));
      const key = keyOnShard(cluster, saboteur, 0);
      const restarted = new Promise((resolve) => cluster.once("worker-restarted", resolve));
      const exit = cluster
        .actor(saboteur, key)
        .exit(1)
        .catch(() => undefined);
      // Sent before the death, so that they meet it in the dead worker's ring.
      const waiting = docs.search(origin, { k: 40 });
      const [strict, lenient] = await Promise.allSettled([
        docs.search(origin, { unavailable: "fail", timeoutMs: 20 }),
        docs.search(origin, { k: 40, gather: "best-effort", timeoutMs: 1_000 }),
      ]);
      letStart();
      const [patient] = await Promise.allSettled([waiting]);
      await exit;
      // Asked again of the worker that takes the shard over: every row is there.
      expect(patient).toMatchObject({ status: "fulfilled", value: { completeness: { complete: true } } });
      expect((patient as PromiseFulfilledResult<SearchResult>).value.hits).toHaveLength(40);
      expect(strict).toMatchObject({ status: "rejected" });
      expect(["ERR_WORKER_LOST", "ERR_TIMEOUT", "ERR_UNAVAILABLE"]).toContain(
        (strict as PromiseRejectedResult).reason.code,
      );
      expect(lenient).toMatchObject({
        status: "fulfilled",
        value: { completeness: { planned: 2, answered: 1, complete: false } },
      });
      await restarted;
      expect((await docs.search(origin, { k: 40 })).hits).toHaveLength(40);
    } finally {
      letStart();
      await cluster.close();
    }
  });
});

describe("answers and the number of shards", () => {
  it("equal the naive model, ties at the k-th place included, for 1 to 4 shards and any order of insertion", async () => {
    const seed = Number(process.env["SEED"] ?? 41);
    for (const workers of [1, 2, 3, 4]) {
      const cluster = await startTestCluster({ workers, memoryBytes: 64 * 1024 * 1024, requestTimeoutMs: 20_000 });
      try {
        await compareWithModel(cluster, seed, `seed ${seed}, ${workers} shards`);
      } finally {
        await cluster.close();
      }
    }
  });
});

/** Random writes of vectors from a small grid, so that most scores are shared by several documents; then searches. */
async function compareWithModel(cluster: Cluster, seed: number, where: string): Promise<void> {
  const random = createSeededRandom(seed);
  const below = (limit: number): number => random.u32() % limit;
  const model = new Map<string | number, { vector: Float32Array; payload: { group: number } }>();
  const docs = await cluster.vectors("model", { dimensions: 2, metric: "l2" });
  for (let round = 0; round < 12; round++) {
    const batch = new Map<string | number, VectorDocument>();
    for (let at = below(40); at >= 0; at--) {
      const id = below(3) === 0 ? `s${below(60)}` : below(60);
      batch.set(id, { id, vector: Float32Array.of(below(4), below(4)), payload: { group: below(3) } });
    }
    const shuffled = [...batch.values()].sort(() => (cluster.topology.shards % 2 === 0 ? 1 : -1));
    await docs.upsert(shuffled);
    for (const document of shuffled) model.set(document.id, document as never);
    const doomed = [...model.keys()].filter(() => below(5) === 0);
    expect(await docs.delete(doomed), where).toBe(doomed.length);
    for (const id of doomed) model.delete(id);
    expect(await docs.count(), where).toBe(model.size);
    for (let query = 0; query < 6; query++) {
      const vector = Float32Array.of(below(4), below(4));
      const k = 1 + below(30);
      const group = below(2) === 0 ? below(3) : undefined;
      const { hits } = await docs.search(vector, {
        k,
        exact: query % 2 === 0,
        ...(group === undefined ? {} : { filter: { group } }),
      });
      const expected = [...model]
        .filter(([, document]) => group === undefined || document.payload.group === group)
        .map(([id, document]) => ({
          id,
          score: (document.vector[0]! - vector[0]!) ** 2 + (document.vector[1]! - vector[1]!) ** 2,
        }))
        .sort(
          (a, b) =>
            a.score - b.score ||
            (typeof a.id === typeof b.id ? (a.id < b.id ? -1 : 1) : typeof a.id === "number" ? -1 : 1),
        );
      expect(
        hits.map(({ id, score }) => ({ id, score })),
        where,
      ).toEqual(expected.slice(0, k));
      const scan = docs.reader().scanExact(vector, k);
      if (group === undefined)
        expect(
          scan.hits.map(({ id, score }) => ({ id, score })),
          where,
        ).toEqual(expected.slice(0, k));
    }
  }
  const vector = randomVector(random, 2);
  await expect(docs.search(vector, { k: 0 }), where).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
}
