/** The two phases of a search over two shards that answer for less than they are asked: both stay with one population. */
import { describe, expect, test } from "vitest";
import { searchTexts } from "../../../actors/text/client-search.ts";
import { TEXT_SEARCH, TEXT_STATS } from "../../../src/wire/message-types.ts";
import { randomFrom } from "../vector/support.ts";
import { ALL, FakeShards } from "./fake-shards.ts";
import { Model, randomDocument, sameHits, TextBed, vshardOfId } from "./support.ts";

const OPTIONS = { fields: { title: 2, body: 1 } } as const;
const QUERY = "the run apple";

/** Two shards that hold everything; the first is asked for the lower half of the vshards, the second for the upper. */
function staged(smallReplies = false) {
  const beds = [new TextBed(OPTIONS), new TextBed(OPTIONS)];
  const shards = new FakeShards(beds, (vshard) => (vshard < 8 ? 0 : 1), smallReplies);
  const random = randomFrom(13);
  const documents = Array.from({ length: 150 }, (_, id) => randomDocument(random, id, ["body", "title"]));
  for (const bed of beds) bed.upsert(documents);
  /** What a shard that holds only these vshards would find. */
  const only = (vshards: readonly number[]): ReturnType<Model["search"]> => {
    const model = new Model(OPTIONS);
    for (const document of documents) if (vshards.includes(vshardOfId(document.id))) model.put(document);
    return model.search(QUERY);
  };
  return { shards, parts: shards.parts(), only };
}

describe("a search in two phases", () => {
  test("asks for all vshards twice, and finds what one shard would", async () => {
    const { shards, parts, only } = staged();
    const { hits, completeness } = await searchTexts(parts, QUERY, { k: 500 });
    expect(shards.asked.map(({ type, vshards }) => [type, vshards])).toEqual([
      [TEXT_STATS, ALL],
      [TEXT_SEARCH, ALL],
    ]);
    expect(sameHits(hits, only(ALL), 500)).toBeUndefined();
    expect(hits.length).toBeGreaterThan(50);
    expect(completeness).toMatchObject({ complete: true, planned: 2, vshards: { planned: 16, answered: 16 } });
  });

  test("searches only what gave statistics when shards refuse some vshards, and counts the others as missing", async () => {
    const { shards, parts, only } = staged();
    shards.refused.set(TEXT_STATS, [2, 13, 14, 15]);
    const { hits, completeness } = await searchTexts(parts, QUERY, { k: 500, gather: "best-effort" });
    const there = ALL.filter((vshard) => ![2, 13, 14, 15].includes(vshard));
    expect(shards.asked[1]?.vshards).toEqual(there);
    expect(sameHits(hits, only(there), 500)).toBeUndefined();
    expect(completeness).toMatchObject({ complete: false, stale: 2, answered: 2 });
    expect(completeness.vshards).toEqual({ planned: 16, answered: 12 });
  });

  test("tells of what only the second phase left out", async () => {
    const { shards, parts } = staged();
    shards.refused.set(TEXT_SEARCH, [5]);
    const { hits, completeness } = await searchTexts(parts, QUERY, { k: 500, gather: "best-effort" });
    expect(hits.some(({ id }) => vshardOfId(id) === 5)).toBe(false);
    expect(completeness).toMatchObject({ complete: false, answered: 1, vshards: { planned: 16, answered: 15 } });
    shards.refused.set(TEXT_STATS, [6]);
    const again = await searchTexts(parts, QUERY, { k: 500, gather: "best-effort" });
    expect(again.completeness.vshards).toEqual({ planned: 16, answered: 14 });
  });

  test("reads further pages of a partial answer for what the first one covered", async () => {
    const { shards, parts } = staged(true);
    shards.refused.set(TEXT_SEARCH, [5, 11]);
    const { hits } = await searchTexts(parts, QUERY, { k: 500, gather: "best-effort" });
    expect(hits.length).toBeGreaterThan(40);
    expect(new Set(hits.map(({ id }) => id)).size).toBe(hits.length);
    expect(hits.some(({ id }) => [5, 11].includes(vshardOfId(id)))).toBe(false);
  });

  test.each([
    ["all", 1_000, 900, "all"],
    ["best-effort", 500, 900, "best-effort"],
    ["quorum", 1_000, 900, "quorum"],
  ] as const)("under %s has one deadline for both", async (gather, firstMs, secondMs, second) => {
    const { shards, parts } = staged();
    await searchTexts(parts, QUERY, { gather });
    expect(shards.asked.map(({ options }) => options.timeoutMs)).toEqual([firstMs, secondMs]);
    expect(shards.asked[1]?.options.gather).toBe(second);
  });

  test("needs all of the quorum again that gave statistics", async () => {
    const { shards, parts } = staged();
    shards.refused.set(TEXT_STATS, [1]);
    await searchTexts(parts, QUERY, { gather: { quorum: 1 } });
    expect(shards.asked[1]?.options.gather).toBe("all");
  });
});
