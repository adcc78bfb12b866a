/** Distributed scores equal single-node scores, for any corpus, any sharding, and shards that hold more than they are asked for. */
import { describe, expect, test } from "vitest";
import { searchTexts } from "../../../actors/text/client-search.ts";
import { randomFrom } from "../vector/support.ts";
import { FakeShards } from "./fake-shards.ts";
import {
  type Document,
  Model,
  type QueryOptions,
  randomDocument,
  randomQuery,
  SCORING,
  sameHits,
  TextBed,
  VSHARDS,
  vshardOfId,
} from "./support.ts";

const ROUNDS = process.env["SHARDLOOM_LONG"] === "1" ? 300 : 24;
const QUERIES = 25;
/** How a query is refused that has no term left. */
const NO_TERM = { code: "ERR_INVALID_ARGUMENT" };
const FIELDS = ["body", "tags", "title"];

interface Placed {
  readonly beds: readonly TextBed[];
  /** Shards that hold each vshard. */
  readonly copies: readonly (readonly number[])[];
}

function place(
  random: () => number,
  options: ConstructorParameters<typeof TextBed>[0],
  documents: readonly Document[],
): Placed {
  const shards = 1 + Math.floor(random() * 8);
  const replicas = 1 + Math.floor(random() * Math.min(3, shards));
  const copies = Array.from({ length: VSHARDS }, () => {
    const first = Math.floor(random() * shards);
    return Array.from({ length: replicas }, (_, at) => (first + at) % shards);
  });
  const beds = Array.from({ length: shards }, () => new TextBed(options, 4 * 1024 * 1024));
  for (const [shard, bed] of beds.entries())
    bed.upsert(documents.filter(({ id }) => (copies[vshardOfId(id)] as number[]).includes(shard)));
  return { beds, copies };
}

/** What the formulas give; undefined for a query of nothing but stop words. */
function expectedOf(model: Model, query: string, settings: QueryOptions): ReturnType<Model["search"]> | undefined {
  try {
    return model.search(query, settings);
  } catch (error) {
    expect(error).toMatchObject(NO_TERM);
    return undefined;
  }
}

/** What a client finds that asks one copy of every vshard. */
async function distributed(random: () => number, { beds, copies }: Placed, query: string, options: QueryOptions) {
  const asked = copies.map((shards) => shards[Math.floor(random() * shards.length)] as number);
  const shards = new FakeShards(beds, (vshard) => asked[vshard] as number);
  const parts = shards.parts();
  const { boosts, k = 10 } = options;
  const named = boosts?.flatMap((boost, at) =>
    boost > 0 ? [[parts.options.fields[at] as string, boost] as const] : [],
  );
  const { hits } = await searchTexts(parts, query, {
    k,
    scoring: options.scoring === SCORING.TF_IDF ? "tf-idf" : "bm25",
    operator: options.all === true ? "and" : "or",
    prefix: options.prefix === true,
    includePayload: false,
    ...(named === undefined ? {} : { fields: Object.fromEntries(named) }),
  });
  return hits.map(({ id, score }) => ({ id, score }));
}

describe("scores", () => {
  test("are those of one shard that holds everything, and those of the formulas, however documents are placed", async () => {
    const seed = Number(process.env["SEED"] ?? 1);
    console.log(`text-sharding: SEED=${seed}`);
    let found = 0;
    let several = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const random = randomFrom(seed * 1000 + round);
      const positions = random() < 0.6;
      const options = {
        fields: random() < 0.4 ? { title: 1 } : { title: 2.5, body: 1, tags: 0.3 },
        positions,
        language: "none",
        stopWords: random() < 0.3 ? ["the", "of"] : ("none" as const),
        ...(random() < 0.3 ? { k1: random() < 0.5 ? 0 : 2, b: random() < 0.5 ? 0 : 1 } : {}),
      };
      const documents = Array.from({ length: Math.floor(random() * 120) }, (_, at) =>
        randomDocument(random, random() < 0.5 ? at : `d${at}`, "body" in options.fields ? FIELDS : ["title"]),
      );
      const single = new TextBed(options, 4 * 1024 * 1024);
      single.upsert(documents);
      const model = new Model(options);
      for (const document of documents) model.put(document);
      const placed = place(random, options, documents);
      if (placed.beds.length > 1) several++;
      for (let at = 0; at < QUERIES; at++) {
        const query = randomQuery(random, positions);
        const boosts = single.options.boosts.map((boost) => (random() < 0.3 ? 0 : boost));
        const settings: QueryOptions = {
          k: 1 + Math.floor(random() * (random() < 0.5 ? 5 : 200)),
          scoring: random() < 0.7 ? SCORING.BM25 : SCORING.TF_IDF,
          all: random() < 0.3,
          prefix: random() < 0.3,
          ...(random() < 0.3 && boosts.some((boost) => boost > 0) ? { boosts } : {}),
        };
        const context = JSON.stringify({ seed, round, query, settings });
        const expected = expectedOf(model, query, settings);
        if (expected === undefined) {
          await expect(distributed(random, placed, query, settings), context).rejects.toMatchObject(NO_TERM);
          continue;
        }
        found += expected.length;
        const alone = single.search(query, settings).hits;
        expect(sameHits(alone, expected, settings.k ?? 10), context).toBeUndefined();
        const apart = await distributed(random, placed, query, settings);
        // Not only close: sums of integers and one order of additions make the same bits.
        expect(apart, context).toEqual(alone.map(({ id, score }) => ({ id, score })));
      }
    }
    expect(several).toBeGreaterThan(ROUNDS / 2);
    expect(found).toBeGreaterThan(ROUNDS * QUERIES);
  });

  test("of a shard asked for all its vshards are the same with and without a mask", () => {
    const random = randomFrom(7);
    const bed = new TextBed({ positions: true });
    bed.upsert(Array.from({ length: 60 }, (_, at) => randomDocument(random, at, ["text"])));
    const mask = new Uint8Array(VSHARDS).fill(1);
    for (const query of ["the run", '"the of"', "apple"]) {
      expect(bed.statistics(query, { mask })).toEqual(bed.statistics(query));
      expect(bed.search(query, { mask })).toEqual(bed.search(query));
    }
    expect(bed.count(mask)).toBe(60);
    const some = new Uint8Array(VSHARDS).fill(1, 3, 9);
    const ids = Array.from({ length: 60 }, (_, at) => at);
    const got = bed.get(ids, some).map((stored) => stored !== undefined);
    expect(got).toEqual(ids.map((id) => some[vshardOfId(id)] === 1));
    const none = new Uint8Array(VSHARDS);
    expect(bed.search("the run", { mask: none }).hits).toEqual([]);
    expect(bed.statistics("the run", { mask: none })).toMatchObject({ documents: 0 });
    expect(bed.count(none)).toBe(0);
  });

  test("are finite and positive with statistics that are older than the documents", () => {
    const bed = new TextBed({ k1: 0, b: 1 });
    bed.upsert([
      { id: 1, fields: { text: "new word" } },
      { id: 2, fields: { text: "word" } },
    ]);
    const statistics = { documents: 0, lengths: new Float64Array(2), frequencies: new Float64Array(2) };
    for (const scoring of [SCORING.BM25, SCORING.TF_IDF]) {
      const { hits } = bed.search("new word", { statistics, scoring });
      expect(hits).toHaveLength(2);
      for (const { score } of hits) expect(score > 0 && Number.isFinite(score)).toBe(true);
    }
  });
});
