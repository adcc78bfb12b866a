/** The vector engine against a naive model: a Map of documents, sorted by float64 distances. */
import { describe, expect, test } from "vitest";
import { METRIC_NAMES } from "../../../actors/vector/vector-options.ts";
import { PLAN } from "../../../actors/vector/vector-replies.ts";
import { INCLUDE } from "../../../actors/vector/vector-requests.ts";
import type { VectorId } from "../../../src/store/id-codec.ts";
import { Bed, type Document, pack, plainDistance, randomFrom } from "./support.ts";

const LANGS = ["en", "de", "fr"];

function makeDocument(id: VectorId, dimensions: number, next: () => number, grid = false): Document {
  const vector = Array.from({ length: dimensions }, () => (grid ? Math.floor(next() * 9) - 4 : next() * 2 - 1));
  const payload = {
    lang: LANGS[Math.floor(next() * 3)],
    year: 2000 + Math.floor(next() * 30),
    tags: [Math.floor(next() * 5)],
    text: "x".repeat(Math.floor(next() * 60)),
  };
  return next() < 0.1 ? { id, vector } : { id, vector, payload };
}

function expected(
  model: Map<VectorId, Document>,
  metric: string,
  query: ArrayLike<number>,
  k: number,
  admits: (d: Document) => boolean = () => true,
) {
  return [...model.values()]
    .filter(admits)
    .map((d) => plainDistance(metric, d.vector, query))
    .sort((a, b) => a - b)
    .slice(0, k);
}

/** Same scores in the same order, and every hit's score is really its document's. Ties may be in another order. */
function assertHits(
  hits: readonly { id: VectorId; score: number }[],
  model: Map<VectorId, Document>,
  metric: string,
  query: ArrayLike<number>,
  scores: number[],
): void {
  expect(hits.length).toBe(scores.length);
  expect(new Set(hits.map((hit) => hit.id)).size).toBe(hits.length);
  for (const [index, hit] of hits.entries()) {
    expect(Math.abs(hit.score - (scores[index] as number))).toBeLessThan(1e-4);
    const document = model.get(hit.id) as Document;
    expect(Math.abs(hit.score - plainDistance(metric, document.vector, query))).toBeLessThan(1e-4);
  }
}

describe.each([...METRIC_NAMES])("metric %s", (metric) => {
  test.each([1, 2, 3])("random upserts, updates, deletes and exact searches equal the model (seed %i)", (seed) => {
    const next = randomFrom(seed * 77);
    const dimensions = [3, 16, 37][seed % 3] as number;
    const bed = new Bed();
    bed.open({ dimensions, metric, scanRows: 50 });
    const model = new Map<VectorId, Document>();
    const pickId = (): VectorId => {
      const n = Math.floor(next() * 300);
      return n % 3 === 0 ? n : n % 3 === 1 ? `id-${n}` : `größe/${n}/${"y".repeat(n % 40)}`;
    };
    let compared = 0;
    for (let step = 0; step < 150; step++) {
      const roll = next();
      if (roll < 0.45) {
        const batch = new Map<VectorId, Document>();
        for (let i = Math.floor(next() * 20); i >= 0; i--) {
          const id = pickId();
          batch.set(id, makeDocument(id, dimensions, next));
        }
        const fresh = [...batch.keys()].filter((id) => !model.has(id)).length;
        const reply = bed.upsert(dimensions, [...batch.values()]);
        expect(reply.inserted).toBe(fresh);
        expect(reply.count).toBe(batch.size);
        for (const [id, document] of batch) model.set(id, document);
      } else if (roll < 0.6) {
        const ids = [...new Set(Array.from({ length: 8 }, pickId))];
        const reply = bed.delete(ids);
        expect(reply.found).toEqual(ids.map((id) => model.has(id)));
        for (const id of ids) model.delete(id);
      } else if (roll < 0.7) {
        const ids = [...new Set(Array.from({ length: 10 }, pickId))];
        for (const [index, stored] of bed.get(ids).entries()) {
          const document = model.get(ids[index] as VectorId);
          if (document === undefined) expect(stored).toBeUndefined();
          else {
            expect([...(stored?.vector ?? [])]).toEqual(Array.from(document.vector, Math.fround));
            if (document.payload === undefined) expect(stored?.payload).toBeUndefined();
            else expect([...(stored?.payload ?? [])]).toEqual([...pack(document.payload)]);
          }
        }
      } else if (roll < 0.8) bed.engine.background?.(1);
      else {
        const query = Array.from({ length: dimensions }, () => next() * 2 - 1);
        const k = 1 + Math.floor(next() * 30);
        const scores = expected(model, metric, query, k);
        assertHits(bed.search(query, k, { exact: true }).hits, model, metric, query, scores);
        const filter = { lang: "en", year: { gte: 2005, lt: 2025 } };
        const admits = (d: Document): boolean => {
          const p = d.payload as { lang: string; year: number } | undefined;
          return p !== undefined && p.lang === "en" && p.year >= 2005 && p.year < 2025;
        };
        const filtered = expected(model, metric, query, k, admits);
        assertHits(bed.search(query, k, { exact: true, filter }).hits, model, metric, query, filtered);
        expect(bed.search(query, k, { filter }).hits.length).toBe(filtered.length);
        expect(bed.search(query, k).hits.length).toBe(scores.length);
        expect(bed.count(filter)).toBe([...model.values()].filter(admits).length);
        compared++;
      }
      expect(bed.count()).toBe(model.size);
    }
    expect(compared).toBeGreaterThan(10);
  });

  test("recall of the index is at least 0.95, with the same scores as the scan, and it is really used", () => {
    const next = randomFrom(5);
    const dimensions = 24;
    const bed = new Bed();
    bed.open({ dimensions, metric, scanRows: 100 });
    const documents = Array.from({ length: 3000 }, (_, i) => makeDocument(i, dimensions, next));
    for (let i = 0; i < documents.length; i += 500) bed.upsert(dimensions, documents.slice(i, i + 500));
    expect(bed.status().unindexed).toBe(3000);
    const half = bed.search(documents[7]?.vector as number[], 1); // nothing indexed yet: scanned
    expect(half.plan).toBe(PLAN.SCAN);
    while (bed.status().unindexed > 1000) bed.engine.background?.(5);
    let found = 0;
    let wanted = 0;
    const measure = (queries: number): void => {
      for (let q = 0; q < queries; q++) {
        const query = Array.from({ length: dimensions }, () => next() * 2 - 1);
        const truth = bed.search(query, 10, { exact: true });
        const answer = bed.search(query, 10, { ef: 128 });
        expect(answer.plan).toBe(PLAN.INDEX);
        const score = new Map(truth.hits.map((hit) => [hit.id, hit.score]));
        for (const hit of answer.hits) {
          if (!score.has(hit.id)) continue;
          found++;
          expect(hit.score).toBe(score.get(hit.id));
        }
        wanted += truth.hits.length;
      }
    };
    measure(40); // a part is in the index, a part is scanned
    bed.settle();
    expect(bed.status()).toMatchObject({ indexed: 3000, unindexed: 0 });
    measure(60);
    expect(wanted).toBe(1000);
    expect(found / wanted).toBeGreaterThanOrEqual(0.95);
    // Updates and deletes leave the index at once.
    bed.delete([0, 1, 2]);
    bed.upsert(dimensions, [makeDocument(3, dimensions, next), makeDocument(4, dimensions, next)]);
    expect(bed.status()).toMatchObject({ indexed: 2995, unindexed: 2, rows: 2997 });
    for (const hit of bed.search(documents[0]?.vector as number[], 50).hits) expect([0, 1, 2]).not.toContain(hit.id);
    bed.settle();
    expect(bed.status().indexed).toBe(2997);
  });
});

describe("filters", () => {
  test("never fewer than k when k match, for selective and loose filters, through every plan", () => {
    const next = randomFrom(9);
    const dimensions = 12;
    const bed = new Bed();
    bed.open({ dimensions, metric: "l2", scanRows: 200 });
    const model = new Map<VectorId, Document>();
    for (let i = 0; i < 6000; i++) {
      const vector = Array.from({ length: dimensions }, () => next());
      // `side` depends on the vector: the index's neighbourhood of a query has almost none of the other side.
      model.set(i, {
        id: i,
        vector,
        payload: { n: i, mod: i % 100, side: (vector[0] as number) < 0.5 ? "left" : "right" },
      });
    }
    const documents = [...model.values()];
    for (let i = 0; i < documents.length; i += 1000) bed.upsert(dimensions, documents.slice(i, i + 1000));
    bed.settle();
    const cases: [unknown, (p: { n: number; mod: number; side: string }) => boolean][] = [
      [{ mod: 3 }, (p) => p.mod === 3],
      [{ mod: { lt: 60 } }, (p) => p.mod < 60],
      [{ mod: { gte: 2 } }, (p) => p.mod >= 2],
      [{ side: "left" }, (p) => p.side === "left"],
      [{ n: { in: [5, 17, 4000, 9999] } }, (p) => [5, 17, 4000].includes(p.n)],
      [{ or: [{ mod: 1 }, { not: { side: "right" } }] }, (p) => p.mod === 1 || p.side !== "right"],
      [{ n: -1 }, () => false],
    ];
    const plans = new Set<number>();
    let found = 0;
    let wanted = 0;
    for (const round of [0, 1]) {
      for (const [filter, admits] of cases) {
        for (const k of [1, 10, 200]) {
          const query = Array.from({ length: dimensions }, () => next());
          query[0] = round === 0 ? 0.95 : (query[0] as number);
          const scores = expected(model, "l2", query, k, (d) => admits(d.payload as never));
          const answer = bed.search(query, k, { filter });
          plans.add(answer.plan);
          expect(answer.hits.length).toBe(scores.length);
          for (const hit of answer.hits) expect(admits((model.get(hit.id) as Document).payload as never)).toBe(true);
          found += answer.hits.filter((hit) => hit.score <= (scores.at(-1) as number) + 1e-9).length;
          wanted += scores.length;
          assertHits(bed.search(query, k, { filter, exact: true }).hits, model, "l2", query, scores);
        }
      }
    }
    expect(plans).toEqual(new Set([PLAN.FILTERED_SCAN, PLAN.FILTERED_INDEX]));
    expect(found / wanted).toBeGreaterThan(0.95);
  });

  test.each([
    [{ year: { between: [1, 2] } }, "between"],
    [{ year: { gte: [1] } }, "year.gte"],
    [{ year: { in: 3 } }, "year.in"],
    [{ year: {} }, "year"],
    [{ and: { a: 1 } }, "and"],
    [[1, 2], "filter"],
  ])("a bad filter %j is refused, naming %s", (filter, name) => {
    const bed = new Bed();
    bed.open({ dimensions: 2 });
    bed.upsert(2, [{ id: 1, vector: [1, 2] }]);
    expect(() => bed.search([1, 2], 1, { filter })).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(name) }),
    );
    expect(bed.search([1, 2], 1).hits.length).toBe(1);
  });
});

describe("bad input leaves nothing behind", () => {
  const bed = new Bed({ capacityBytes: 4 * 1024 * 1024 });
  bed.open({ dimensions: 4, metric: "l2" });
  bed.upsert(4, [{ id: "kept", vector: [1, 2, 3, 4] }]);
  const good = { id: "new", vector: [0, 0, 0, 0] };

  test.each<[string, () => unknown, object]>([
    [
      "NaN",
      () => bed.upsert(4, [good, { id: "x", vector: [1, Number.NaN, 0, 0] }]),
      { code: "ERR_NOT_FINITE", details: { item: 1, component: 1, value: "NaN", id: "x" } },
    ],
    [
      "a number beyond f32",
      () => bed.upsert(4, [good, { id: "x", vector: [1, 0, 0, 1e39] }]),
      { code: "ERR_NOT_FINITE" },
    ],
    [
      "duplicate ids",
      () => bed.upsert(4, [good, { id: 7, vector: [0, 0, 0, 1] }, { id: 7, vector: [0, 0, 0, 2] }]),
      { code: "ERR_DUPLICATE_ID", details: { id: 7, first: 1, second: 2 } },
    ],
    [
      "wrong dimensions",
      () => bed.upsert(3, [{ id: "new", vector: [1, 2, 3] }]),
      { code: "ERR_DIMENSION_MISMATCH", details: { expected: 4, value: 3 } },
    ],
    [
      "unknown collection",
      () => bed.upsert(4, [good], 99),
      { code: "ERR_UNKNOWN_COLLECTION", details: { collectionId: 99, dropped: false }, retryable: true },
    ],
    ["k = 0", () => bed.search([1, 2, 3, 4], 0), { code: "ERR_INVALID_ARGUMENT", details: { name: "k", value: 0 } }],
    ["k < 0", () => bed.search([1, 2, 3, 4], -3), { code: "ERR_INVALID_ARGUMENT", details: { name: "k", value: -3 } }],
    ["query of other dimensions", () => bed.search([1, 2, 3], 1), { code: "ERR_DIMENSION_MISMATCH" }],
    ["infinite query", () => bed.search([1, 2, 3, Number.POSITIVE_INFINITY], 1), { code: "ERR_NOT_FINITE" }],
    ["another shape at open", () => bed.open({ dimensions: 5, metric: "l2" }), { code: "ERR_COLLECTION_MISMATCH" }],
    ["another metric at open", () => bed.open({ dimensions: 4 }), { code: "ERR_COLLECTION_MISMATCH" }],
    ["0 dimensions", () => bed.open({ dimensions: 0 }, 5), { code: "ERR_INVALID_ARGUMENT" }],
    ["an empty id", () => bed.upsert(4, [{ id: "", vector: [1, 2, 3, 4] }]), { code: "ERR_INVALID_ARGUMENT" }],
    [
      "a batch beyond the arena",
      () =>
        bed.upsert(
          4,
          Array.from({ length: 8 }, (_, i) => ({ id: i, vector: [1, 2, 3, 4], payload: "x".repeat(600_000) })),
        ),
      { code: "ERR_OUT_OF_MEMORY" },
    ],
  ])("%s", (_name, act, error) => {
    expect(act).toThrow(expect.objectContaining(error));
    expect(bed.count()).toBe(1);
    expect(bed.search([1, 2, 3, 4], 10).hits.map((hit) => hit.id)).toEqual(["kept"]);
    expect(bed.get(["new"])).toEqual([undefined]);
  });
});

describe("collections", () => {
  test("numbers and strings, −0, long and unusual ids are told apart and come back as given", () => {
    const bed = new Bed();
    bed.open({ dimensions: 1, metric: "l2" });
    const ids: VectorId[] = [
      1,
      "1",
      1.5,
      -7,
      2 ** 53,
      Number.MAX_VALUE,
      "é",
      "e\u0301",
      "𝄞",
      " ",
      "\0",
      "z".repeat(512),
    ];
    bed.upsert(
      1,
      ids.map((id, index) => ({ id, vector: [index] })),
    );
    expect(bed.count()).toBe(ids.length);
    expect(bed.search([0], 100).hits.map((hit) => hit.id)).toEqual(ids);
    bed.upsert(1, [{ id: 0, vector: [50] }]);
    expect(bed.get([-0])[0]?.vector).toEqual(Float32Array.of(50));
  });

  test("several queries in one envelope, with vectors and payloads", () => {
    const bed = new Bed();
    bed.open({ dimensions: 3, metric: "l2" });
    bed.upsert(
      3,
      [0, 1, 2, 3].map((n) => ({ id: n, vector: [n, 0, 0], payload: { n } })),
    );
    const replies = bed.searchAll(
      [
        [0, 0, 0],
        [3, 0, 0],
        [1.2, 0, 0],
      ],
      2,
      { includePayload: true, includeVector: true },
    );
    expect(replies.map((reply) => reply.hits.map((hit) => hit.id))).toEqual([
      [0, 1],
      [3, 2],
      [1, 2],
    ]);
    expect(replies[1]?.hits[0]).toMatchObject({
      score: 0,
      version: 4,
      vector: Float32Array.of(3, 0, 0),
      payload: pack({ n: 3 }),
    });
    const bare = bed.search([0, 0, 0], 1).hits[0];
    expect(bare).toEqual({ score: 0, id: 0, version: 1 });
  });

  test("updates and deletes reuse records and rows: memory stays bounded, compaction keeps every document", () => {
    const next = randomFrom(4);
    const bed = new Bed({ capacityBytes: 32 * 1024 * 1024 });
    bed.open({ dimensions: 8 });
    const texts = new Map<number, string>();
    for (let round = 0; round < 400; round++) {
      const documents = Array.from({ length: 50 }, (_, i) => {
        const text = `${round}-${"t".repeat(Math.floor(next() * 2000))}`;
        texts.set(i + (round % 4) * 50, text);
        return { id: i + (round % 4) * 50, vector: Array.from({ length: 8 }, next), payload: text };
      });
      bed.upsert(8, documents);
      bed.engine.background?.(round % 3 === 0 ? 0 : 2);
    }
    bed.settle();
    const status = bed.status();
    expect(status.rows).toBe(200);
    expect(status.heapBytes).toBeLessThan(4 * 1024 * 1024); // 20 MB were written
    const ids = [...texts.keys()];
    for (const [index, stored] of bed.get(ids, INCLUDE.PAYLOAD).entries()) {
      expect([...(stored?.payload ?? [])]).toEqual([...pack(texts.get(ids[index] as number))]);
    }
  });

  test("drop gives all memory and regions back", () => {
    const bed = new Bed();
    const { arena, regions } = bed.context;
    const used = arena.stats().usedBytes;
    for (let round = 0; round < 3; round++) {
      const collection = round + 1;
      bed.open({ dimensions: 16, scanRows: 100 }, collection);
      for (let i = 0; i < 2000; i += 500)
        bed.upsert(
          16,
          Array.from({ length: 500 }, (_, j) => ({
            id: i + j,
            vector: new Float32Array(16).fill(j + 1),
            payload: { j },
          })),
          collection,
        );
      bed.searchAll([new Float32Array(16).fill(1)], 3, { filter: { j: 3 } }, collection);
      bed.settle();
      expect(bed.drop(collection)).toBe(1);
      expect(bed.drop(collection)).toBe(0);
      const gone = expect.objectContaining({ code: "ERR_UNKNOWN_COLLECTION", retryable: false });
      expect(() => bed.count(undefined, collection)).toThrow(gone);
      expect(() => bed.open({ dimensions: 16, scanRows: 100 }, collection)).toThrow(gone);
    }
    expect(regions.list(0)).toEqual([]);
    expect(arena.stats().usedBytes).toBe(used);
  });

  test("zero vectors under cosine are found, at distance 1, also through the index", () => {
    const bed = new Bed();
    bed.open({ dimensions: 4, scanRows: 10 });
    bed.upsert(
      4,
      Array.from({ length: 40 }, (_, i) => ({ id: i, vector: i % 10 === 0 ? [0, 0, 0, 0] : [1, i, 2, 3] })),
    );
    bed.settle();
    const { hits } = bed.search([1, 2, 3, 4], 40);
    expect(hits.length).toBe(40);
    expect(hits.slice(-4).map((hit) => hit.score)).toEqual([1, 1, 1, 1]);
    expect(bed.search([0, 0, 0, 0], 3).hits.map((hit) => hit.score)).toEqual([1, 1, 1]);
  });
});
