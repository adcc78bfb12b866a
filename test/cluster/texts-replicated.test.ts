/** Texts with copies over real threads: replicas answer with the same scores, sessions see their writes, killed copies end equal. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, TextCollection, TextDocument, TextHit } from "../../src/index.ts";
import { type Document, Model, randomDocument, randomQuery, sameHits } from "../actors/text/support.ts";
import { randomFrom } from "../actors/vector/support.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { kill } from "../support/copies.ts";

const FIELDS = ["body", "title"];
const OPTIONS = { fields: { title: 2, body: 1 }, positions: true } as const;
const WORKERS = 3;
const SHARDS = [0, 1, 2];

function start(): Promise<Cluster> {
  return startTestCluster({ workers: WORKERS, replicationFactor: 2, vshards: 32, requestTimeoutMs: 20_000 });
}

/** The primary's answer for all documents, and that of each other copy: with a shard drained, the others answer for it. */
async function copiesOf(cluster: Cluster, texts: TextCollection, ids: readonly number[]): Promise<unknown[][]> {
  const read = async (options: Parameters<TextCollection["getMany"]>[1]): Promise<unknown[]> => [
    await texts.getMany(ids, options),
    await texts.count(options),
  ];
  const copies = [await read({ consistency: "strong" })];
  for (const shard of SHARDS) {
    expect(cluster.drain(shard)).toBe(true);
    try {
      const { explain } = await texts.search("any", { consistency: "eventual", hedge: false, explain: true });
      for (const { plan } of [explain, explain?.statistics].flatMap((phase) => phase ?? []))
        expect(plan.targets.map((target) => target.shard)).not.toContain(shard);
      copies.push(await read({ consistency: "eventual", hedge: false }));
    } finally {
      cluster.resume(shard);
    }
  }
  return copies;
}

/** Resolves when all copies hold exactly these documents, with equal versions. */
async function equalCopies(
  cluster: Cluster,
  texts: TextCollection,
  model: Model,
  ids: readonly number[],
): Promise<void> {
  const expected = ids.map((id) => {
    const document = model.documents.get(id);
    return document === undefined ? undefined : { fields: document.fields, payload: document.payload };
  });
  let copies: unknown[][] = [];
  const level = async (): Promise<boolean> => {
    copies = await copiesOf(cluster, texts, ids);
    const first = JSON.stringify(copies[0]);
    return copies.every((copy) => JSON.stringify(copy) === first);
  };
  await eventually("the copies being equal", level, 20_000).catch((error: unknown) => {
    for (const copy of copies) expect(copy).toEqual(copies[0]); // says where they differ
    throw error;
  });
  const [stored, count] = copies[0] as [(Document | undefined)[], number];
  expect(stored.map((document) => document && { fields: document.fields, payload: document.payload })).toEqual(
    expected,
  );
  expect(count).toBe(model.documents.size);
}

function compare(hits: readonly TextHit[], model: Model, query: string, k: number, settings: object = {}): void {
  expect(sameHits(hits, model.search(query, { k, ...settings }), k), query).toBeUndefined();
}

describe("texts with copies", () => {
  let cluster: Cluster;
  let texts: TextCollection;
  const model = new Model(OPTIONS);
  const random = randomFrom(Number(process.env["SEED"] ?? 1));
  beforeAll(async () => {
    cluster = await start();
    texts = await cluster.text("texts", OPTIONS);
    for (let id = 0; id < 400; id++) model.put(randomDocument(random, id, FIELDS));
    await texts.upsert([...model.documents.values()], { acks: "all" });
  });
  afterAll(() => cluster.close());

  it("are found on replicas, with the scores of one shard that holds everything", async () => {
    const strategies = ["round-robin", "random", "power-of-two", "least-connections", "primary-only"] as const;
    let replicas = 0;
    let several = 0;
    for (let at = 0; at < 60; at++) {
      const query = randomQuery(random, true);
      const strategy = strategies[at % strategies.length] as (typeof strategies)[number];
      const operator = random() < 0.3 ? "and" : "or";
      const options = { k: 50, strategy, operator, consistency: "eventual", explain: true } as const;
      const { hits, completeness, explain } = await texts.search(query, options);
      compare(hits, model, query, 50, { all: operator === "and" });
      expect(completeness).toMatchObject({ complete: true, vshards: { planned: 32, answered: 32 } });
      expect(explain?.statistics?.plan.targets.length).toBeGreaterThan(1);
      const targets = explain?.plan.targets ?? [];
      const owned = targets.every(({ shard, vshards }) =>
        vshards.every((vshard) => cluster.topology.owners[vshard] === shard),
      );
      if (!owned) replicas++;
      if (strategy === "primary-only") expect(owned).toBe(true);
      if (hits.length > 1) several++;
    }
    expect(replicas).toBeGreaterThan(10);
    expect(several).toBeGreaterThan(20);
  });

  it("are the same on every copy, and got from any", async () => {
    await equalCopies(cluster, texts, model, [...Array(420).keys()]);
    expect(await texts.count({ consistency: "strong" })).toBe(400);
    const status = await texts.status();
    expect(status.reduce((sum, { documents }) => sum + documents, 0)).toBe(800);
  });

  it("come page by page by cursor, each once, as in one answer", async () => {
    const query = "the run apple";
    const { hits: all, cursor: end } = await texts.search(query, { k: 1_000 });
    expect(end).toBeUndefined();
    expect(all.length).toBeGreaterThan(50);
    const pages: TextHit[] = [];
    let after: string | undefined;
    let count = 0;
    do {
      const page = await texts.search(query, { k: 7 + (count++ % 3), ...(after === undefined ? {} : { after }) });
      pages.push(...page.hits);
      after = page.cursor;
    } while (after !== undefined);
    expect(pages).toEqual(all);
    const { cursor = "" } = await texts.search(query, { k: 3 });
    const refused = { code: "ERR_INVALID_ARGUMENT" };
    await expect(texts.search("another", { after: cursor })).rejects.toMatchObject(refused);
    await expect(texts.search(query, { after: cursor, operator: "and" })).rejects.toMatchObject(refused);
    await expect(texts.search(query, { after: cursor, fields: ["title"] })).rejects.toMatchObject(refused);
    await expect(texts.search(query, { after: cursor, offset: 1 })).rejects.toMatchObject(refused);
    await expect(texts.search(query, { after: `${cursor.slice(0, -1)}-` })).rejects.toMatchObject(refused);
  });

  it("sees its own writes in a session, whichever copy answers", async () => {
    const own = await cluster.text("session", {});
    const session = cluster.session();
    const model = new Map<number, string>();
    for (let round = 0; round < 120; round++) {
      const id = round % 40;
      const text = `word${round} always`;
      model.set(id, text);
      await own.upsert({ id, text }, { session, acks: "one" });
      const { hits } = await own.search(`word${round}`, { session, strategy: "random" });
      expect(hits.map((hit) => hit.id)).toEqual([id]);
      expect((await own.get(id, { session, strategy: "random" }))?.fields).toEqual({ text });
      expect(await own.count({ session, strategy: "random" })).toBe(model.size);
      if (round % 3 === 0) {
        model.delete(id);
        expect(await own.delete(id, { session, acks: "one" })).toBe(1);
        expect((await own.search(`word${round}`, { session, strategy: "random" })).hits).toEqual([]);
        expect((await own.search("always", { session, k: 100, strategy: "random" })).hits).toHaveLength(model.size);
      }
    }
  });

  it("refuses more acknowledgements than there are copies, and writes nothing", async () => {
    await expect(texts.upsert({ id: "x", fields: { body: "x" } }, { acks: 3 })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
    expect(await texts.get("x", { consistency: "strong" })).toBeUndefined();
  });
});

describe("texts with copies and workers that die", () => {
  it("are each found once, by searches under way as well, when a worker is killed", async () => {
    const cluster = await start();
    try {
      const texts = await cluster.text("texts", OPTIONS);
      const model = new Model(OPTIONS);
      const random = randomFrom(21);
      for (let id = 0; id < 600; id++) {
        const document = randomDocument(random, id, FIELDS);
        model.put({ ...document, fields: { ...document.fields, title: `common ${document.fields["title"] ?? ""}` } });
      }
      await texts.upsert([...model.documents.values()], { acks: "all" });
      let running = true;
      let searches = 0;
      const searcher = async (lane: number): Promise<void> => {
        while (running) {
          const query = lane === 0 ? "common" : `common ${["the", "run", "apple"][lane % 3]}`;
          const { hits, completeness } = await texts.search(query, { k: 1_000 });
          expect(new Set(hits.map(({ id }) => id)).size).toBe(600);
          expect(hits).toHaveLength(600);
          expect(completeness.complete).toBe(true);
          compare(hits, model, query, 1_000);
          searches++;
        }
      };
      const searchers = Promise.all([0, 1, 2, 3].map(searcher));
      for (const shard of [0, 2, 1]) {
        const before = searches;
        await kill(cluster, shard);
        await eventually("searches after the kill", () => searches > before + 8);
      }
      running = false;
      await searchers;
    } finally {
      await cluster.close();
    }
  });

  it("end equal after replicas and primaries were killed under writes and deletions", async () => {
    const cluster = await start();
    try {
      const texts = await cluster.text("texts", OPTIONS);
      const model = new Model(OPTIONS);
      const random = randomFrom(22);
      const ids = [...Array(500).keys()];
      const write = async (documents: readonly TextDocument[]): Promise<void> => {
        // A write that fails with its worker is in doubt; the next attempt leaves what the model has.
        for (let attempt = 0; ; attempt++) {
          try {
            await texts.upsert(documents, { acks: "quorum" });
            return;
          } catch (error) {
            if (attempt === 20) throw error;
          }
        }
      };
      const remove = async (list: readonly number[]): Promise<void> => {
        for (let attempt = 0; ; attempt++) {
          try {
            await texts.delete(list, { acks: "quorum" });
            return;
          } catch (error) {
            if (attempt === 20) throw error;
          }
        }
      };
      const change = async (count: number): Promise<void> => {
        const chosen = new Set(Array.from({ length: count }, () => Math.floor(random() * ids.length)));
        const documents = [...chosen].map((id) => randomDocument(random, id, FIELDS));
        for (const document of documents) model.put(document);
        await write(documents);
        const gone = Array.from({ length: count >> 2 }, () => Math.floor(random() * ids.length));
        for (const id of gone) model.documents.delete(id);
        await remove(gone);
      };
      await change(600);
      for (const shard of [1, 0, 2, 1]) {
        const killed = kill(cluster, shard);
        for (let round = 0; round < 12; round++) await change(30);
        await killed;
        await change(30);
        await equalCopies(cluster, texts, model, ids);
        for (let at = 0; at < 5; at++) {
          const query = randomQuery(random, true);
          compare((await texts.search(query, { k: 40 })).hits, model, query, 40);
        }
      }
    } finally {
      await cluster.close();
    }
  });
});
