import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Cluster, ShardloomError, type VectorCollection, type VectorDocument } from "../../src/index.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";

const good = (id: string | number = "new"): VectorDocument => ({ id, vector: [1, 2, 3] });
const untyped = (value: unknown): never => value as never;

/** Twelve documents that no bad call may change: six on each shard, at least one. */
const kept = Array.from({ length: 12 }, (_, id) => ({ id, vector: Float32Array.of(id, 0, 0), payload: { id } }));

describe("bad input to a collection", () => {
  let cluster: Cluster;
  let docs: VectorCollection;
  let before: unknown;
  beforeAll(async () => {
    cluster = await startTestCluster({ requestRingBytes: 64 * 1024, replyRingBytes: 64 * 1024 });
    docs = await cluster.vectors("docs", { dimensions: 3, metric: "l2" });
    await docs.upsert(kept);
  });
  beforeEach(async () => {
    before = await docs.getMany(kept.map(({ id }) => id));
  });
  afterAll(() => cluster.close());

  /** The call fails with this code and details, and nothing was written anywhere. */
  async function refuses(call: () => unknown, expected: object): Promise<void> {
    let caught: unknown;
    try {
      await call();
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(ShardloomError);
    expect(caught).toMatchObject(expected);
    expect((caught as Error).message).toMatch(/^Cannot /);
    expect(await docs.count()).toBe(kept.length);
    expect(await docs.getMany(kept.map(({ id }) => id))).toEqual(before);
    expect((await docs.search([0, 0, 0], { k: 1 })).hits[0]?.id).toBe(0);
  }

  it.each<[string, unknown, object]>([
    [
      "too short",
      { id: "x", vector: [1, 2] },
      { code: "ERR_DIMENSION_MISMATCH", details: { id: "x", dimensions: 3, length: 2 } },
    ],
    ["too long", { id: "x", vector: new Float32Array(4) }, { code: "ERR_DIMENSION_MISMATCH", details: { length: 4 } }],
    ["missing", { id: "x" }, { code: "ERR_DIMENSION_MISMATCH", details: { length: "undefined" } }],
    ["null", { id: "x", vector: null }, { code: "ERR_DIMENSION_MISMATCH" }],
    ["a string", { id: "x", vector: "abc" }, { code: "ERR_DIMENSION_MISMATCH" }],
    [
      "NaN",
      { id: "x", vector: [1, Number.NaN, 3] },
      { code: "ERR_NOT_FINITE", details: { id: "x", component: 1, value: "NaN" } },
    ],
    [
      "infinite",
      { id: "x", vector: [1, 2, -Infinity] },
      { code: "ERR_NOT_FINITE", details: { component: 2, value: "-Infinity" } },
    ],
    [
      "beyond float32",
      { id: "x", vector: [1e39, 2, 3] },
      { code: "ERR_NOT_FINITE", details: { component: 0, value: "1e+39" } },
    ],
    [
      "of float64 beyond float32",
      { id: "x", vector: Float64Array.of(1, 1e300, 3) },
      { code: "ERR_NOT_FINITE", details: { component: 1 } },
    ],
    ["of strings", { id: "x", vector: ["1", 2, 3] }, { code: "ERR_NOT_FINITE", details: { component: 0 } }],
    ["of bigints", { id: "x", vector: [1, 2n, 3] }, { code: "ERR_NOT_FINITE", details: { component: 1 } }],
    ["of typed bigints", { id: "x", vector: BigInt64Array.of(1n, 2n, 3n) }, { code: "ERR_NOT_FINITE" }],
    [
      "sparse",
      { id: "x", vector: Array.from({ length: 3 }).fill(1, 0, 2) },
      { code: "ERR_NOT_FINITE", details: { component: 2, value: "undefined" } },
    ],
  ])("refuses a vector that is %s, alone and within a batch", async (_, document, expected) => {
    await refuses(() => docs.upsert(untyped(document)), expected);
    await refuses(() => docs.upsert([...kept.map(({ id }) => good(id)), untyped(document)]), expected);
    await refuses(() => docs.upsert(new Set([untyped(document)])), expected);
  });

  it.each<[string, unknown, unknown]>([
    ["empty", "", 0],
    ["too long", "é".repeat(257), 514],
    ["NaN", Number.NaN, "NaN"],
    ["infinite", Infinity, undefined],
    ["missing", undefined, "undefined"],
    ["null", null, "null"],
    ["an object", { toString: () => "x" }, undefined],
    ["a bigint", 1n, "1n"],
    ["a lone surrogate", "\ud800", undefined],
  ])("refuses an id that is %s, everywhere", async (_, id, value) => {
    const expected = { code: "ERR_INVALID_ARGUMENT", ...(typeof value === "number" ? { details: { value } } : {}) };
    await refuses(() => docs.upsert([good(1), untyped({ id, vector: [1, 2, 3] })]), expected);
    await refuses(() => docs.get(untyped(id)), expected);
    await refuses(() => docs.delete([1, untyped(id)]), expected);
    await refuses(() => docs.region(untyped(id)), expected);
  });

  it("takes an id of 512 bytes, and tells the limit for one of 513", async () => {
    const id = "x".repeat(512);
    expect(await docs.upsert(good(id))).toEqual({ written: 1, inserted: 1 });
    expect((await docs.get(id))?.id).toBe(id);
    expect(await docs.delete(id)).toBe(1);
    const expected = {
      code: "ERR_INVALID_ARGUMENT",
      message: /in \[1, 512\] bytes: current value is 513$/,
      limit: 512,
    };
    for (const call of [
      () => docs.upsert(good(`${id}y`)),
      () => docs.get(`${id}y`),
      () => docs.getMany([1, `${id}y`]),
      () => docs.delete(`${id}y`),
    ])
      await refuses(call, {
        code: expected.code,
        message: expect.stringMatching(expected.message) as unknown,
        details: { limit: expected.limit },
      });
  });

  it("takes a payload of 64 KiB if a request has room for it, and tells the limit for a larger one", async () => {
    const payload = { text: "x".repeat(65_536) };
    await refuses(() => docs.upsert([good(1), { ...good(), payload }]), {
      code: "ERR_RECORD_TOO_LARGE",
      message: expect.stringMatching(/must take at most 65536 bytes: current value is 655\d\d$/) as unknown,
      details: { id: "new", limit: 65_536 },
    });
  });

  it("refuses more than 65,536 documents or ids in one call, with the limit", async () => {
    const ids = Array.from({ length: 65_537 }, (_, id) => id + 100);
    const expected = {
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringMatching(/must be at most 65536 in one call: current value is 65537$/) as unknown,
      details: { value: 65_537, limit: 65_536 },
    };
    await refuses(() => docs.upsert(ids.map((id) => good(id))), expected);
    await refuses(() => docs.getMany(ids), expected);
    await refuses(() => docs.delete(ids), expected);
    expect(await docs.delete(ids.slice(1))).toBe(0);
  });

  it("refuses an id twice in a batch, also as 0 and -0, with its position", async () => {
    await refuses(() => docs.upsert([good("a"), good("b"), good("a")]), {
      code: "ERR_DUPLICATE_ID",
      details: { id: "a", position: 2 },
    });
    await refuses(() => docs.upsert([good(0), good(-0)]), { code: "ERR_DUPLICATE_ID" });
  });

  it("refuses documents and batches that are none", async () => {
    for (const value of [null, undefined, 7, "text", () => good()])
      await refuses(() => docs.upsert(untyped(value)), { code: "ERR_INVALID_ARGUMENT" });
    const sparse: VectorDocument[] = [];
    sparse[3] = good();
    for (const batch of [[good(1), null], [undefined], sparse])
      await refuses(() => docs.upsert(untyped(batch)), { code: "ERR_INVALID_ARGUMENT" });
    await refuses(() => docs.getMany(untyped("abc")), { code: "ERR_INVALID_ARGUMENT" });
    await refuses(() => docs.delete(untyped(undefined)), { code: "ERR_INVALID_ARGUMENT" });
    for (const batchSize of [0, -1, 1.5, 65_537])
      await refuses(() => docs.upsert([good()].values(), { batchSize }), {
        code: "ERR_INVALID_ARGUMENT",
        details: { value: batchSize },
      });
  });

  it.each<[string, () => unknown, string]>([
    ["an array", () => [1], "payload"],
    ["a string", () => "text", "payload"],
    ["null", () => null, "payload"],
    ["a Map", () => new Map([["a", 1]]), "payload"],
    ["a class instance", () => new URL("file:///"), "payload"],
    ["with a function", () => ({ a: { f() {} } }), "payload.a.f"],
    ["with a date", () => ({ when: new Date() }), "payload.when"],
    ["with bytes", () => ({ list: [1, new Uint8Array(1)] }), "payload.list[1]"],
    ["with a symbol", () => ({ s: Symbol("s") }), "payload.s"],
    ["with a bigint beyond 64 bits", () => ({ n: 2n ** 64n }), "payload.n"],
    ["with __proto__", () => JSON.parse('{"__proto__": 1}') as unknown, "payload.__proto__"],
    [
      "cyclic",
      () => {
        const loop: Record<string, unknown> = {};
        loop["self"] = loop;
        return loop;
      },
      "payload.self",
    ],
  ])("refuses a payload that is %s, naming the part", async (_, make, path) => {
    const expected = { code: "ERR_INVALID_ARGUMENT", details: { path: expect.stringContaining(path), id: "x" } };
    await refuses(() => docs.upsert([good(1), untyped({ ...good("x"), payload: make() })]), expected);
  });

  it.each([0, -1, 1.5, Number.NaN, Infinity, 65_537, "3", 3n])("refuses k = %s", async (k) => {
    await refuses(() => docs.search([0, 0, 0], { k: untyped(k) }), {
      code: "ERR_INVALID_ARGUMENT",
      details: { name: "k" },
    });
  });

  it("refuses other bad searches", async () => {
    await refuses(() => docs.search([0, 0]), { code: "ERR_DIMENSION_MISMATCH", details: { length: 2 } });
    await refuses(() => docs.search([0, Number.NaN, 0]), { code: "ERR_NOT_FINITE", details: { component: 1 } });
    await refuses(() => docs.search(untyped(undefined)), { code: "ERR_DIMENSION_MISMATCH" });
    for (const ef of [-1, 1.5, 65_537])
      await refuses(() => docs.search([0, 0, 0], { ef }), { code: "ERR_INVALID_ARGUMENT", details: { value: ef } });
    for (const timeoutMs of [0, -1, Number.NaN, 2 ** 31])
      await refuses(() => docs.search([0, 0, 0], { timeoutMs }), {
        code: "ERR_INVALID_ARGUMENT",
        details: { name: "timeoutMs" },
      });
  });

  it.each<[string, unknown]>([
    ["an unknown operator", { a: { near: 1 } }],
    ["a bad operand", { a: { gt: true } }],
    ["an empty condition", { a: {} }],
    ["a function", { a: () => 1 }],
    ["a Map", new Map([["a", 1]])],
    ["a date", { a: { gt: new Date() } }],
    ["null", null],
    ["an array", [{ a: 1 }]],
    ["`or` of no list", { or: { a: 1 } }],
    ["a bigint beyond 64 bits", { a: 2n ** 70n }],
  ])("refuses a filter with %s", async (_, filter) => {
    await refuses(() => docs.search([0, 0, 0], { filter: untyped(filter) }), { code: "ERR_INVALID_ARGUMENT" });
    await refuses(() => docs.count({ filter: untyped(filter) }), { code: "ERR_INVALID_ARGUMENT" });
  });

  it("refuses collections that are none", async () => {
    await refuses(() => cluster.vectors("nobody"), { code: "ERR_UNKNOWN_COLLECTION", details: { name: "nobody" } });
    for (const name of ["", "a b", "/", "x".repeat(129), 7, undefined])
      await refuses(() => cluster.vectors(untyped(name), { dimensions: 3 }), { code: "ERR_INVALID_ARGUMENT" });
    for (const options of [
      {},
      { dimensions: 0 },
      { dimensions: 1.5 },
      { dimensions: 3, metric: "hamming" },
      { dimensions: 3, connectivity: 1 },
    ]) {
      await refuses(() => cluster.vectors("other", untyped(options)), { code: "ERR_INVALID_ARGUMENT" });
    }
  });

  it("refuses a document larger than a ring, before anything of its batch is written", async () => {
    const text = "x".repeat(20_000);
    const expected = {
      code: "ERR_RECORD_TOO_LARGE",
      details: { id: "x", limit: expect.any(Number), byteLength: expect.any(Number) },
    };
    await refuses(() => docs.upsert([good(0), good(1), { ...good("x"), payload: { text } }]), expected);
    await refuses(() => docs.search([0, 0, 0], { filter: { text } }), { code: "ERR_RECORD_TOO_LARGE" });
  });

  it("answers a search and a get whose replies are larger than the ring", async () => {
    const big = await cluster.vectors("big", { dimensions: 3, metric: "l2" });
    const text = "y".repeat(5_000);
    await big.upsert(Array.from({ length: 200 }, (_, id) => ({ id, vector: [id, 0, 0], payload: { id, text } })));
    const { hits, completeness } = await big.search([0, 0, 0], { k: 65_536, includeVector: true });
    expect(hits.map((hit) => hit.payload)).toEqual(Array.from({ length: 200 }, (_, id) => ({ id, text })));
    expect(completeness).toMatchObject({ complete: true });
    expect(completeness.outcomes.reduce((sum, outcome) => sum + outcome.count, 0)).toBe(200);
    const ids = Array.from({ length: 5_000 }, (_, id) => id);
    expect((await big.getMany(ids)).filter((document) => document?.payload?.["text"] === text)).toHaveLength(200);
    expect(await big.delete(ids)).toBe(200);
    await cluster.dropVectors("big");
  });
});

describe("a full arena", () => {
  it("refuses a batch whole, on every shard, with ERR_OUT_OF_MEMORY, and serves on", async () => {
    const cluster = await startTestCluster({ workers: 3, memoryBytes: 16 * 1024 * 1024 });
    try {
      const dimensions = 256;
      const docs = await cluster.vectors("docs", { dimensions, metric: "l2" });
      const document = (id: number): VectorDocument => ({
        id,
        vector: new Float32Array(dimensions).fill(id % 97),
        payload: { id },
      });
      let stored = 0;
      let failures = 0;
      for (let round = 0; failures < 3 && round < 400; round++) {
        const batch = Array.from({ length: 100 }, (_, at) => document(stored + at));
        try {
          await docs.upsert([document(0), ...batch.filter(({ id }) => id !== 0)]);
          stored += 100;
        } catch (error) {
          failures++;
          expect(error).toMatchObject({ code: "ERR_OUT_OF_MEMORY", retryable: true });
          expect(await docs.getMany(batch.map(({ id }) => id))).toEqual(batch.map(() => undefined));
        }
        expect(await docs.count()).toBe(stored);
      }
      expect(failures).toBe(3);
      expect(stored).toBeGreaterThan(1_000);
      expect(
        (await docs.search(new Float32Array(dimensions).fill(5), { k: 5, exact: true })).hits.map((hit) => hit.id),
      ).toEqual([5, 102, 199, 296, 393]);
      await docs.delete(Array.from({ length: 500 }, (_, id) => id));
      await docs.upsert(Array.from({ length: 50 }, (_, id) => document(id)));
      expect(await docs.count()).toBe(stored - 450);
    } finally {
      await cluster.close();
    }
  });
});

describe("a bulk load", () => {
  it("asks its source for no more than the batches in flight hold, while a shard does not answer", async () => {
    const cluster = await startTestCluster();
    try {
      const { saboteur } = await import("../support/actors.ts");
      const { keyOnShard } = await import("../support/cluster.ts");
      const docs = await cluster.vectors("docs", { dimensions: 3, metric: "l2" });
      let given = 0;
      async function* endless(): AsyncGenerator<VectorDocument> {
        for (; given < 20_000; given++) yield good(given);
      }
      const blocked = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 0)).block(400);
      const load = docs.upsert(endless(), { batchSize: 100 });
      await blocked;
      const whileBlocked = given;
      expect(whileBlocked).toBeLessThanOrEqual(700);
      expect(await load).toEqual({ written: 20_000, inserted: 20_000 });
    } finally {
      await cluster.close();
    }
  });

  it("stops when its signal fires, also with a source that is stuck, and what it says is written is what is stored", async () => {
    const cluster = await startTestCluster();
    try {
      const docs = await cluster.vectors("docs", { dimensions: 3, metric: "l2" });
      const controller = new AbortController();
      let returned = false;
      async function* source(): AsyncGenerator<VectorDocument> {
        try {
          for (let id = 0; id < 1_234; id++) yield good(id);
          controller.abort("enough");
          await new Promise(() => undefined);
        } finally {
          returned = true;
        }
      }
      const error: unknown = await docs
        .upsert(source(), { batchSize: 50, signal: controller.signal })
        .catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: "ERR_ABORTED", cause: "enough" });
      const { written } = (error as ShardloomError).details as { written: number };
      expect(written).toBeGreaterThanOrEqual(1_000);
      expect(await docs.count()).toBe(written);
      expect(returned).toBe(false); // it hangs in its own await; nothing can be done about that
    } finally {
      await cluster.close();
    }
  });

  it("says how much is written when a document or the source is bad", async () => {
    const cluster = await startTestCluster();
    try {
      const docs = await cluster.vectors("docs", { dimensions: 3, metric: "l2" });
      let closed = 0;
      function* bad(last: () => VectorDocument): Generator<VectorDocument> {
        try {
          for (let id = 0; id < 250; id++) yield good(id);
          yield last();
        } finally {
          closed++;
        }
      }
      const broken = bad(() => ({ id: "bad", vector: [1, 2] }));
      await expect(docs.upsert(broken, { batchSize: 100 })).rejects.toMatchObject({
        code: "ERR_DIMENSION_MISMATCH",
        details: { id: "bad", written: 200 },
      });
      const thrower = bad(() => {
        throw new RangeError("disk on fire");
      });
      await expect(docs.upsert(thrower, { batchSize: 100 })).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
        details: { written: 200 },
        cause: { message: "disk on fire" },
      });
      expect(closed).toBe(2);
      await eventually("the count settles", async () => (await docs.count()) === 200);
    } finally {
      await cluster.close();
    }
  });
});
