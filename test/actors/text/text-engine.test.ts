/** One text shard against a naive model: writes, deletions, purges, pages, recovery, and damaged requests. */
import { describe, expect, test } from "vitest";
import { INCLUDE, searchRequestBytes, writeSearchRequest } from "../../../actors/text/search-request.ts";
import { resolveTextOptions } from "../../../actors/text/text-options.ts";
import { readSearchReply } from "../../../actors/text/text-replies.ts";
import { decodeMetadata } from "../../../src/store/metadata-codec.ts";
import { TEXT_SEARCH, TEXT_UPSERT } from "../../../src/wire/message-types.ts";
import { dieAt } from "../../native-bridge/memory-support.ts";
import { randomFrom, wireMemory } from "../vector/support.ts";
import { Model, randomDocument, randomQuery, sameHits, TextBed } from "./support.ts";

const OPTIONS = { fields: { title: 2, body: 1 }, positions: true } as const;
const FIELDS = ["body", "title"];

function check(bed: TextBed, model: Model, random: () => number, queries = 12): number {
  let found = 0;
  for (let at = 0; at < queries; at++) {
    const query = randomQuery(random, true);
    const settings = { k: 20, all: random() < 0.3, prefix: random() < 0.3 };
    const expected = model.search(query, settings);
    found += expected.length;
    expect(sameHits(bed.search(query, settings).hits, expected, 20), query).toBeUndefined();
  }
  expect(bed.count()).toBe(model.documents.size);
  return found;
}

describe("a shard", () => {
  test("equals the model through upserts, updates, deletions and purges", () => {
    const seed = Number(process.env["SEED"] ?? 1);
    console.log(`text-engine: SEED=${seed}`);
    const random = randomFrom(seed);
    const bed = new TextBed(OPTIONS);
    const model = new Model(OPTIONS);
    let found = 0;
    for (let round = 0; round < 40; round++) {
      const ids = new Set(Array.from({ length: 1 + Math.floor(random() * 60) }, () => Math.floor(random() * 150)));
      const batch = [...ids].map((id) => randomDocument(random, id, FIELDS));
      const inserted = batch.filter(({ id }) => !model.documents.has(id)).length;
      expect(bed.upsert(batch)).toEqual({ count: batch.length, inserted });
      for (const document of batch) model.put(document);
      const gone = Array.from({ length: Math.floor(random() * 20) }, () => Math.floor(random() * 150));
      const there = new Set(gone.filter((id) => model.documents.has(id)));
      expect(bed.delete(gone)).toBe(there.size);
      for (const id of gone) model.documents.delete(id);
      if (random() < 0.7) bed.engine.background?.(random() < 0.5 ? 0 : 20); // a purge may be half done
      found += check(bed, model, random);
    }
    expect(found).toBeGreaterThan(500);
  });

  test("gives memory back: terms and document numbers of the dead are used again", () => {
    const bed = new TextBed({ positions: true }, 16 * 1024 * 1024);
    const write = (round: number): void => {
      const text = (at: number): string => `common r${round}w${at} r${round}x${at % 7} common`;
      bed.upsert(Array.from({ length: 300 }, (_, at) => ({ id: at, fields: { text: text(at) } })));
      bed.settle();
    };
    write(0);
    for (let round = 1; round < 5; round++) write(round);
    const early = bed.status();
    for (let round = 5; round < 40; round++) write(round);
    const late = bed.status();
    expect(late.terms).toBeLessThanOrEqual(early.terms + 320);
    expect(late.terms).toBeLessThan(1000);
    expect(late.indexBytes).toBeLessThanOrEqual(early.indexBytes * 2);
    expect(late).toMatchObject({ documents: 300, unindexed: 0, occurrences: 1200 });
    expect(bed.search("common", { k: 500 }).hits).toHaveLength(300);
    expect(bed.search("r38w5 r39w5 r39x5").hits[0]?.id).toBe(5);
    expect(bed.search('"common r39w9 r39x2"').hits.map(({ id }) => id)).toEqual([9]);
  });

  test("returns what was stored, with hits whole, only payloads, or neither", () => {
    const bed = new TextBed(OPTIONS);
    bed.upsert([
      { id: "a", fields: { title: "Größe", body: "one two" }, payload: { n: 1, s: "x".repeat(100) } },
      { id: 7, fields: { body: "two" } },
    ]);
    expect(bed.get(["a", "b", 7]).map((entry) => entry?.version)).toEqual([1, undefined, 2]);
    const [plain] = bed.search("groesse größe").hits;
    expect(plain).toEqual({ id: "a", score: plain?.score, version: 1 });
    const [first, second] = bed.search("two", { flags: INCLUDE.PAYLOAD }).hits;
    expect(second?.id).toBe("a");
    expect(first?.body).toBeUndefined();
    expect(decodeMetadata(second?.body as Uint8Array)).toEqual({ n: 1, s: "x".repeat(100) });
    const [whole] = bed.search("one", { flags: INCLUDE.FIELDS }).hits;
    expect(whole?.body).toEqual(bed.get(["a"])[0]?.body);
  });

  test("tells which parts of the query each hit matched", () => {
    const bed = new TextBed(OPTIONS);
    const model = new Model(OPTIONS);
    const random = randomFrom(3);
    for (let id = 0; id < 40; id++) model.put(randomDocument(random, id, FIELDS));
    bed.upsert([...model.documents.values()]);
    for (let at = 0; at < 30; at++) {
      const query = randomQuery(random, true);
      const expected = new Map(model.search(query).map(({ id, terms }) => [id, terms]));
      for (const { id, matched } of bed.search(query, { k: 40, flags: INCLUDE.TERMS }).hits)
        expect([...(matched as Uint8Array).entries()].flatMap(([clause, is]) => (is === 1 ? [clause] : []))).toEqual(
          expected.get(id),
        );
    }
  });

  test("breaks ties by id, numbers first, whatever the order of the writes", () => {
    const ids = ["z", "y", "x", "w", "v", 3, 1, 2, -5, "10", "9"];
    for (const order of [ids, [...ids].reverse()]) {
      const bed = new TextBed({});
      for (const id of order) bed.upsert([{ id, fields: { text: "same words" } }]);
      const all = [-5, 1, 2, 3, "10", "9", "v", "w", "x", "y", "z"];
      for (const k of [1, 4, 11, 50])
        expect(bed.search("words", { k }).hits.map(({ id }) => id)).toEqual(all.slice(0, k));
    }
  });

  test("answers in pages when one reply cannot hold all", () => {
    const bed = new TextBed({}, 128 * 1024 * 1024);
    const payload = { filler: "p".repeat(20_000) };
    for (let id = 0; id < 120; id++) bed.upsert([{ id, fields: { text: "word" }, payload }]);
    const first = bed.search("word", { k: 120, flags: INCLUDE.PAYLOAD });
    expect(first.left).toBeGreaterThan(0);
    const rest = bed.search("word", { k: 120, flags: INCLUDE.PAYLOAD, skip: first.hits.length });
    const last = bed.search("word", { k: 120, flags: INCLUDE.PAYLOAD, skip: first.hits.length + rest.hits.length });
    expect([...first.hits, ...rest.hits, ...last.hits].map(({ id }) => id)).toEqual(
      Array.from({ length: 120 }, (_, id) => id),
    );
    expect(last.lastVersion).toBe(first.lastVersion);
  });

  test("refuses another collection's options, duplicates in a batch, and what is not open", () => {
    const bed = new TextBed(OPTIONS);
    expect(() => bed.open(resolveTextOptions({}))).toThrowError(
      expect.objectContaining({ code: "ERR_COLLECTION_MISMATCH" }),
    );
    expect(bed.open()).toBe(bed.root);
    const twice = [1, 2, 1].map((id) => ({ id, fields: { body: "x" } }));
    expect(() => bed.upsert(twice)).toThrowError(expect.objectContaining({ code: "ERR_DUPLICATE_ID" }));
    expect(bed.count()).toBe(0);
    expect(bed.drop()).toBe(1);
    expect(bed.drop()).toBe(0);
    expect(() => bed.count()).toThrowError(expect.objectContaining({ code: "ERR_UNKNOWN_COLLECTION" }));
  });

  test("a full arena refuses a batch whole and goes on serving", () => {
    const bed = new TextBed({}, 2 * 1024 * 1024);
    bed.upsert([{ id: "first", fields: { text: "kept" } }]);
    const big = Array.from({ length: 40 }, (_, id) => ({ id, fields: { text: `word ${"y".repeat(60_000)}` } }));
    expect(() => bed.upsert(big)).toThrowError(expect.objectContaining({ code: "ERR_OUT_OF_MEMORY" }));
    expect(bed.count()).toBe(1);
    expect(bed.search("kept").hits).toHaveLength(1);
    expect(bed.search("word").hits).toEqual([]);
  });
});

describe("a damaged request", () => {
  test("ends in a typed error or an answer, and reads nothing outside of itself", () => {
    const random = randomFrom(Number(process.env["SEED"] ?? 5));
    const bed = new TextBed(OPTIONS);
    for (let id = 0; id < 20; id++) bed.upsert([randomDocument(random, id, FIELDS)]);
    const search = bed.query('the "of a" run', { prefix: true });
    const bytes = searchRequestBytes(search);
    let refused = 0;
    for (let round = 0; round < 3000; round++) {
      const memory = wireMemory(bytes);
      writeSearchRequest(memory, 0, search);
      for (let flips = 1 + Math.floor(random() * 3); flips > 0; flips--)
        memory.i32[Math.floor(random() * memory.i32.length)] = Math.floor(
          random() < 0.5 ? random() * 64 - 8 : random() * 2 ** 32,
        );
      const length = random() < 0.2 ? Math.floor(random() * bytes) & ~7 : bytes;
      try {
        bed.send(TEXT_SEARCH, { ...memory, offset: 0, length }, readSearchReply);
      } catch (error) {
        refused++;
        expect(["ERR_CORRUPT", "ERR_INVALID_ARGUMENT", "ERR_UNKNOWN_COLLECTION"]).toContain(
          (error as { code: string }).code,
        );
      }
    }
    expect(refused).toBeGreaterThan(500);
    expect(bed.search("the").hits.length).toBeGreaterThan(0); // nothing was left behind in the tables
  });

  test("a body that does not fit its fields is refused before anything is written", () => {
    const bed = new TextBed({});
    const memory = wireMemory(64);
    memory.i32.set([1, 1, 1, 8, 77, 3], 0); // collection, count, id of 1 byte, body of 8, hash, vshard
    memory.bytes[24] = 0x61;
    memory.bytes.set([200, 0, 0, 0], 25); // a text of 200 bytes in a body of 8
    expect(() => bed.send(TEXT_UPSERT, { ...memory, offset: 0, length: 40 }, () => undefined)).toThrowError(
      expect.objectContaining({ code: "ERR_CORRUPT" }),
    );
    expect(bed.count()).toBe(0);
  });
});

describe("a successor", () => {
  test("has every document at once, indexes them in slices, and lets searches wait until the answer is whole", () => {
    const random = randomFrom(11);
    const bed = new TextBed(OPTIONS);
    const model = new Model(OPTIONS);
    for (let id = 0; id < 400; id++) model.put(randomDocument(random, id, FIELDS));
    bed.upsert([...model.documents.values()]);
    bed.delete([3, 4, 5]);
    for (const id of [3, 4, 5]) model.documents.delete(id);
    const next = new TextBed(OPTIONS, 0, bed);
    expect(next.count()).toBe(397);
    expect(next.status()).toMatchObject({ documents: 397, unindexed: 397 });
    const waiting = next.hold("the run", { k: 20 });
    const abandoned = next.hold("apple", {});
    abandoned.cancelled = true;
    expect(waiting.result).toBeUndefined();
    expect(next.status().waiting).toBe(2);
    next.engine.background?.(0); // one slice
    expect(next.status().unindexed).toBeLessThan(397);
    expect(next.status().unindexed).toBeGreaterThan(0);
    // Writes go on meanwhile, to documents that are indexed again and to such that are not.
    const written = [0, 1, 399, 398, 500].map((id) => randomDocument(random, id, FIELDS));
    next.upsert(written);
    for (const document of written) model.put(document);
    next.delete([2, 397]);
    for (const id of [2, 397]) model.documents.delete(id);
    next.settle();
    const { bytes } = waiting.result as { bytes: Uint8Array };
    const memory = { ...wireMemory(bytes.length) };
    memory.bytes.set(bytes);
    const { hits } = readSearchReply(memory, 0, bytes.length);
    expect(sameHits(hits, model.search("the run"), 20)).toBeUndefined();
    expect(abandoned.result).toMatchObject({ error: { code: "ERR_ABORTED" } });
    expect(next.status()).toMatchObject({ unindexed: 0, waiting: 0 });
    expect(check(next, model, random, 30)).toBeGreaterThan(0);
  });

  test("fails who waits when the collection is dropped or the shard closed", () => {
    const make = (): TextBed => {
      const bed = new TextBed({});
      bed.upsert([{ id: 1, fields: { text: "x" } }]);
      return new TextBed({}, 0, bed);
    };
    const dropped = make();
    const first = dropped.hold("x");
    dropped.drop();
    expect(first.result).toMatchObject({ error: { code: "ERR_UNKNOWN_COLLECTION" } });
    const closed = make();
    const second = closed.hold("x");
    closed.engine.close();
    expect(second.result).toMatchObject({ error: { code: "ERR_CLOSED" } });
  });

  test("loses nothing acknowledged, wherever in a write its predecessor died, and wherever it dies itself", () => {
    const document = (id: number, value: number) => ({
      id,
      fields: { text: `id${id} value${value} ${"p".repeat((value * 7) % 90)}` },
    });
    const operations: [(bed: TextBed) => void, Map<number, number | undefined>][] = [
      [
        (bed) => void bed.upsert([document(2, 500), document(30, 501), document(3, 502)]),
        new Map([
          [2, 500],
          [30, 501],
          [3, 502],
        ]),
      ],
      [
        (bed) => void bed.delete([2, 4, 19]),
        new Map([
          [2, undefined],
          [4, undefined],
          [19, undefined],
        ]),
      ],
    ];
    for (const [act, after] of operations) {
      let deaths = 0;
      for (let n = 0; ; n++) {
        const bed = new TextBed({}, 2 * 1024 * 1024);
        bed.upsert(Array.from({ length: 20 }, (_, id) => document(id, 100 + id)));
        if (!dieAt(n, () => act(bed))) break;
        deaths++;
        let next = bed;
        dieAt((n * 13) % 120, () => {
          next = new TextBed({}, 0, bed);
        });
        next = new TextBed({}, 0, bed);
        next.settle();
        for (let id = 0; id <= 30; id++) {
          const values = [100, 500, 501, 502].map((from) => (from === 100 ? 100 + id : from));
          const found = values.filter((value) => next.search(`id${id} value${value}`, { all: true }).hits.length > 0);
          expect(found.length).toBe(next.get([id])[0] === undefined ? 0 : 1);
          const before = id < 20 ? 100 + id : undefined;
          if (found[0] !== before) expect([...after.entries()]).toContainEqual([id, found[0]]);
        }
        act(next); // it still works
        for (const [id, value] of after)
          expect(next.search(`id${id} value${value ?? 100 + id}`, { all: true }).hits.length).toBe(
            value === undefined ? 0 : 1,
          );
      }
      expect(deaths).toBeGreaterThan(10);
    }
  });

  test("needs no more memory than its predecessor, and a drop gives all of it back", () => {
    const bed = new TextBed({});
    const used = (): number => bed.memoryUsed();
    const random = randomFrom(2);
    const empty = (() => {
      const other = new TextBed({});
      other.drop();
      return other.memoryUsed();
    })();
    for (let id = 0; id < 500; id++) bed.upsert([randomDocument(random, id, ["text"])]);
    const before = used();
    const next = new TextBed({}, 0, bed);
    next.settle();
    expect(next.memoryUsed()).toBeLessThanOrEqual(before);
    next.drop();
    expect(next.memoryUsed()).toBe(empty);
  });
});
