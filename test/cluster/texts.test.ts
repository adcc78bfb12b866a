/** Texts over real threads: the public API, workers that die, and input that must be refused. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, TextCollection, TextDocument } from "../../src/index.ts";
import { Model, randomDocument, randomQuery, sameHits } from "../actors/text/support.ts";
import { randomFrom } from "../actors/vector/support.ts";
import { saboteur } from "../support/actors.ts";
import { keyOnShard, startTestCluster } from "../support/cluster.ts";
import { hold } from "../support/holds.ts";

const FIELDS = ["body", "title"];
const OPTIONS = { fields: { title: 2, body: 1 }, positions: true } as const;

/** Kills the worker of a shard and waits for the next. */
async function kill(cluster: Cluster, shard: number): Promise<void> {
  const next = new Promise((resolve) => cluster.once("worker-restarted", resolve));
  const doomed = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard)).exit(1);
  await doomed.catch(() => undefined);
  await next;
}

describe("a collection of texts", () => {
  let cluster: Cluster;
  let number = 0;
  const fresh = (options: Parameters<Cluster["text"]>[1] = {}): Promise<TextCollection> =>
    cluster.text(`fresh-${number++}`, options);
  beforeAll(async () => {
    cluster = await startTestCluster();
  });
  afterAll(() => cluster.close());

  it("stores, gets, counts, deletes, and finds what was acknowledged", async () => {
    const texts = await fresh(OPTIONS);
    expect(await texts.upsert({ id: "a", fields: { title: "Über Hunde" }, payload: { n: 1 } })).toEqual({
      written: 1,
      inserted: 1,
    });
    const more: TextDocument[] = Array.from({ length: 60 }, (_, id) => ({ id, fields: { body: `word${id} common` } }));
    expect(await texts.upsert(more)).toEqual({ written: 60, inserted: 60 });
    expect(await texts.upsert([{ id: 5, fields: { body: "changed common" } }])).toEqual({ written: 1, inserted: 0 });
    expect(await texts.count()).toBe(61);
    expect(await texts.get("a")).toMatchObject({ id: "a", fields: { title: "Über Hunde" }, payload: { n: 1 } });
    expect(await texts.get("a", { includeFields: false, includePayload: false })).toEqual({
      id: "a",
      version: expect.any(Number),
    });
    expect((await texts.getMany([59, "none", 0])).map((document) => document?.id)).toEqual([59, undefined, 0]);
    expect((await texts.search("word5")).hits).toEqual([]);
    const { hits, completeness } = await texts.search("changed hunde", { includeTerms: true, includeFields: true });
    expect(completeness).toMatchObject({ planned: 2, answered: 2, complete: true });
    expect(hits.map(({ id, terms }) => [id, terms])).toEqual([
      ["a", ["hunde"]],
      [5, ["changed"]],
    ]);
    expect(hits[0]).toMatchObject({ fields: { title: "Über Hunde" }, payload: { n: 1 } });
    expect(await texts.delete([5, "a", "none"])).toBe(2);
    expect((await texts.search("changed hunde")).hits).toEqual([]);
    expect((await texts.search("common", { k: 100 })).hits).toHaveLength(59);
    const status = await texts.status();
    expect(status).toHaveLength(2);
    expect(status.reduce((sum, shard) => sum + shard.documents, 0)).toBe(59);
  });

  it("takes one text for the field text, and a stream batch by batch", async () => {
    const texts = await fresh({ language: "english", stopWords: "language" });
    async function* source(): AsyncGenerator<TextDocument> {
      for (let id = 0; id < 1000; id++) yield await Promise.resolve({ id, text: `The runners are running ${id % 10}` });
    }
    const seen: number[] = [];
    const progress = await texts.upsert(source(), { batchSize: 100, onProgress: ({ written }) => seen.push(written) });
    expect(progress).toEqual({ written: 1000, inserted: 1000 });
    expect(seen).toHaveLength(10);
    expect((await texts.search("run 7", { operator: "and", k: 200 })).hits).toHaveLength(100);
  });

  it("answers as one shard would, page by page as well", async () => {
    const texts = await fresh(OPTIONS);
    const model = new Model(OPTIONS);
    const random = randomFrom(Number(process.env["SEED"] ?? 1));
    for (let id = 0; id < 300; id++) model.put(randomDocument(random, id, FIELDS));
    await texts.upsert([...model.documents.values()]);
    for (let at = 0; at < 60; at++) {
      const query = randomQuery(random, true);
      const settings = { all: random() < 0.3, prefix: random() < 0.3, k: 25 };
      const operator = settings.all ? "and" : "or";
      const expected = model.search(query, settings);
      const { hits } = await texts.search(query, { k: 25, prefix: settings.prefix, operator });
      expect(sameHits(hits, expected, 25), query).toBeUndefined();
      const later = await texts.search(query, { k: 10, offset: 10, prefix: settings.prefix, operator });
      expect(later.hits).toEqual(hits.slice(10, 20));
    }
  });

  it("answers in several replies when one is too small", async () => {
    const texts = await fresh();
    const payload = { filler: "p".repeat(50_000) };
    await texts.upsert(Array.from({ length: 100 }, (_, id) => ({ id, text: "word", payload })).values());
    const { hits } = await texts.search("word", { k: 100 });
    expect(hits.map(({ id }) => id)).toEqual(Array.from({ length: 100 }, (_, id) => id));
    expect(hits.every((hit) => JSON.stringify(hit.payload) === JSON.stringify(payload))).toBe(true);
    expect(await texts.getMany(hits.map(({ id }) => id))).toHaveLength(100);
  });

  it("is shared by handles of one name, and refused with other options", async () => {
    await cluster.text("shared", OPTIONS);
    const again = await cluster.text("shared");
    expect(again.options.fields).toEqual(FIELDS);
    await expect(cluster.text("shared", {})).rejects.toMatchObject({ code: "ERR_COLLECTION_MISMATCH" });
    await expect(cluster.text("unknown")).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    await expect(cluster.text("no", { language: "klingon" })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    expect((await cluster.info()).collections).toContain("shared");
    expect(await cluster.dropText("shared")).toBe(true);
    expect(await cluster.dropText("shared")).toBe(false);
    await expect(again.count()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
  });

  it("gives all memory back when it is dropped", async () => {
    const used = async (): Promise<unknown> => {
      const { memory, regions } = await cluster.info();
      return { bytes: memory.usedBytes, regions };
    };
    const before = await used();
    const texts = await cluster.text("dropped", OPTIONS);
    await texts.upsert(Array.from({ length: 500 }, (_, id) => ({ id, fields: { body: `w${id}` } })));
    expect(await used()).not.toEqual(before);
    await cluster.dropText("dropped");
    expect(await used()).toEqual(before);
  });

  it.each<[string, unknown, string]>([
    ["no object", 5, "ERR_INVALID_ARGUMENT"],
    ["no text", { id: 1 }, "ERR_INVALID_ARGUMENT"],
    ["both fields and text", { id: 1, text: "x", fields: { text: "x" } }, "ERR_INVALID_ARGUMENT"],
    ["an unknown field", { id: 1, fields: { other: "x" } }, "ERR_INVALID_ARGUMENT"],
    ["a field that is no string", { id: 1, fields: { text: 5 } }, "ERR_INVALID_ARGUMENT"],
    ["no id", { text: "x" }, "ERR_INVALID_ARGUMENT"],
    ["an id that is no number", { id: Number.NaN, text: "x" }, "ERR_INVALID_ARGUMENT"],
    ["a payload that is no plain data", { id: 1, text: "x", payload: { at: new Date(0) } }, "ERR_INVALID_ARGUMENT"],
    ["an id of 513 bytes", { id: "x".repeat(513), text: "x" }, "ERR_INVALID_ARGUMENT"],
    ["a payload over 64 KiB", { id: 1, text: "x", payload: { text: "x".repeat(65_536) } }, "ERR_RECORD_TOO_LARGE"],
    ["a text too large for a request", { id: 1, text: "x".repeat(8 * 1024 * 1024) }, "ERR_RECORD_TOO_LARGE"],
  ])("refuses a batch with %s, and writes nothing of it", async (_name, document, code) => {
    const texts = await fresh();
    const batch = [{ id: "good", text: "good" }, document] as TextDocument[];
    await expect(texts.upsert(batch)).rejects.toMatchObject({ code });
    expect(await texts.count()).toBe(0);
    await expect(
      texts.upsert([
        { id: 1, text: "a" },
        { id: 1, text: "b" },
      ]),
    ).rejects.toMatchObject({ code: "ERR_DUPLICATE_ID" });
  });

  it("tells the limits of ids and of batches, in every call that has them", async () => {
    const texts = await fresh();
    const long = "x".repeat(513);
    for (const call of [
      texts.get(long),
      texts.getMany([long]),
      texts.delete(long),
      texts.upsert({ id: long, text: "x" }),
    ])
      await expect(call).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT", details: { value: 513, limit: 512 } });
    const ids = Array.from({ length: 65_537 }, (_, id) => id);
    const batch = ids.map((id) => ({ id, text: "x" }));
    for (const call of [texts.getMany(ids), texts.delete(ids), texts.upsert(batch)])
      await expect(call).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
        details: { value: 65_537, limit: 65_536 },
      });
    expect(await texts.count()).toBe(0);
  });

  it.each<[string, unknown, object]>([
    ["query", "", {}],
    ["query", "...", {}],
    ["query", 5, {}],
    ["query", '"a phrase"', {}],
    ["k", "x", { k: 0 }],
    ["k", "x", { k: 65_537 }],
    ["k", "x", { k: 1.5 }],
    ["k", "x", { k: 65_536, offset: 1 }],
    ["offset", "x", { offset: -1 }],
    ["scoring", "x", { scoring: "cosine" }],
    ["operator", "x", { operator: "not" }],
    ["field", "x", { fields: ["other"] }],
    ["fields", "x", { fields: [] }],
    ["boost of field text", "x", { fields: { text: -1 } }],
    ["timeoutMs", "x", { timeoutMs: -1 }],
  ])("refuses a search with a wrong %s: %j %j", async (name, query, options) => {
    const texts = await fresh();
    await texts.upsert({ id: 1, text: "x" });
    await expect(texts.search(query as string, options)).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      details: { name },
    });
  });
});

describe("texts and workers that die", () => {
  it("are all there and found with the same scores when workers are replaced, beside vectors", async () => {
    const cluster = await startTestCluster();
    try {
      const random = randomFrom(4);
      const model = new Model({ ...OPTIONS, language: "none" });
      for (let id = 0; id < 3000; id++) model.put(randomDocument(random, id, FIELDS));
      const texts = await cluster.text("texts", OPTIONS);
      const vectors = await cluster.vectors("vectors", { dimensions: 4 });
      const german = await cluster.text("german", { language: "german" });
      await texts.upsert(model.documents.values());
      await vectors.upsert(Array.from({ length: 100 }, (_, id) => ({ id, vector: [id, 1, 2, 3] })));
      await german.upsert([
        { id: 1, text: "Häuser" },
        { id: 2, text: "nichts" },
      ]);
      const queries = Array.from({ length: 10 }, () => randomQuery(random, true));
      const before = await Promise.all(queries.map((query) => texts.search(query)));
      for (const shard of [0, 1, 0]) {
        await kill(cluster, shard);
        const after = await Promise.all(queries.map((query) => texts.search(query))); // some wait for the index
        expect(after.map(({ hits }) => hits)).toEqual(before.map(({ hits }) => hits));
        expect(await texts.count()).toBe(3000);
        expect(await vectors.count()).toBe(100);
        expect((await german.search("Haus")).hits.map(({ id }) => id)).toEqual([1]);
        expect(await texts.upsert({ id: 7, fields: model.documents.get(7)?.fields ?? {} })).toMatchObject({
          inserted: 0,
        });
      }
      const { regions } = await cluster.info();
      expect(await cluster.dropText("texts")).toBe(true);
      expect((await cluster.info()).regions).toBeLessThan(regions);
      expect((await german.search("Haus")).hits).toHaveLength(1);
    } finally {
      await cluster.close();
    }
  });

  it("a search that a shard does not answer fails in time, or says who is missing and scores what is there", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 60_000 });
    try {
      const texts = await cluster.text("texts", OPTIONS);
      const random = randomFrom(6);
      const documents = Array.from({ length: 200 }, (_, id) => randomDocument(random, id, FIELDS));
      await texts.upsert(documents);
      const there = new Model(OPTIONS);
      for (const document of documents) if (cluster.shardOfId(document.id) === 0) there.put(document);
      const query = "the run apple";
      const whole = await texts.search(query, { k: 200 });
      const held = await hold(cluster, 1, 30_000);
      await expect(texts.search(query, { timeoutMs: 100 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
      const startedMs = performance.now();
      const allowed = { timeoutMs: 1_500, gather: "best-effort", k: 200, explain: true } as const;
      const { hits, completeness, explain } = await texts.search(query, allowed);
      expect(performance.now() - startedMs).toBeLessThan(10_000);
      expect(completeness).toMatchObject({ planned: 2, answered: 1, timedOut: 1, complete: false });
      const own = cluster.topology.owners.filter((owner) => owner === 0).length;
      expect(completeness.vshards).toEqual({ planned: cluster.topology.vshards, answered: own });
      expect(explain?.plan.targets.map(({ shard }) => shard)).toEqual([0]);
      expect(explain?.statistics?.plan.targets.map(({ shard }) => shard).sort()).toEqual([0, 1]);
      // Scores of the documents that are there, as if there were no others.
      expect(hits.length).toBeGreaterThan(20);
      expect(sameHits(hits, there.search(query), 200)).toBeUndefined();
      const quorum = await texts.search(query, { ...allowed, gather: { quorum: 1 } });
      expect(quorum.hits).toEqual(hits);
      expect(quorum.completeness).toMatchObject({ answered: 1, complete: false, vshards: { answered: own } });
      await held.release();
      expect((await texts.search(query, { k: 200 })).hits).toEqual(whole.hits);
    } finally {
      await cluster.close();
    }
  });
});
