/** The two phases of a search over two shards that answer for less than they are asked: both stay with one population. */
import { describe, expect, test } from "vitest";
import type { ReadOptions } from "../../../actors/call-options.ts";
import type { Coordinator, ReadScope } from "../../../actors/coordinator.ts";
import type { ReadQuery, ReadResult } from "../../../actors/planned-read.ts";
import type { TextCollectionParts } from "../../../actors/text/client-collection.ts";
import { searchTexts } from "../../../actors/text/client-search.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { plainOutcome, summarize } from "../../../src/routing/gather.ts";
import type { PlanTarget } from "../../../src/routing/plan.ts";
import type { Payload, ReplyFrame } from "../../../src/routing/requester.ts";
import { TEXT_SEARCH, TEXT_STATS } from "../../../src/wire/message-types.ts";
import { REFUSAL, routedReplyBytes, writeRoutedReply } from "../../../src/wire/routed-codec.ts";
import { randomFrom, wireMemory } from "../vector/support.ts";
import { Model, randomDocument, sameHits, TextBed, VSHARDS, vshardOfId } from "./support.ts";

const OPTIONS = { fields: { title: 2, body: 1 } } as const;
const ALL = Array.from({ length: VSHARDS }, (_, vshard) => vshard);
const QUERY = "the run apple";

interface Asked {
  readonly type: number;
  readonly vshards: readonly number[];
  readonly options: ReadOptions;
}

/** Two shards that hold everything; the first is planned for the lower half of the vshards, the second for the upper. */
class TwoShards {
  readonly snapshot = { shards: 2, topologyEpoch: 1 };
  readonly asked: Asked[] = [];
  readonly beds: readonly TextBed[] = [new TextBed(OPTIONS), new TextBed(OPTIONS)];
  /** vshards that are refused, by message type. */
  readonly refused: Map<number, readonly number[]> = new Map();
  /** The clock; every read takes 100 ms. */
  #nowMs = 1_000;
  readonly #smallReplies: boolean;

  constructor(smallReplies = false) {
    this.#smallReplies = smallReplies;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  deadlineAtMs({ timeoutMs = 1_000 }: ReadOptions): number {
    return this.#nowMs + timeoutMs;
  }

  read<T>(scope: ReadScope, query: ReadQuery<T>, options: ReadOptions): Promise<ReadResult<T>> {
    if (scope.kind !== "scatter") throw new Error("a search is for many vshards");
    const wanted = Array.from(scope.vshards ?? ALL);
    this.asked.push({ type: query.type, vshards: wanted, options });
    this.#nowMs += 100;
    const halves = [wanted.filter((vshard) => vshard < 8), wanted.filter((vshard) => vshard >= 8)];
    const targets = halves.map((half, shard) => ({ shard, vshards: Uint16Array.from(half), whole: half.length === 8 }));
    const parts = targets.filter(({ vshards }) => vshards.length > 0).map((target) => this.#part(query, target));
    const completeness = summarize(parts.map(({ outcome }) => outcome));
    return Promise.resolve({ answers: parts.map(({ answer }) => answer), completeness });
  }

  readOn<T>(
    target: PlanTarget,
    type: number,
    body: Payload,
    decode: (frame: ReplyFrame, offset: number, length: number) => T,
  ): Promise<T> {
    // What was refused before is refused again, and a page must be complete.
    for (const vshard of target.vshards) expect(this.refused.get(type) ?? []).not.toContain(vshard);
    const { frame, prefixBytes } = this.#answer(type, body, target);
    return Promise.resolve(decode(frame, prefixBytes, frame.length - prefixBytes));
  }

  #part<T>(query: ReadQuery<T>, target: PlanTarget) {
    const { frame, prefixBytes, missing } = this.#answer(query.type, query.body(target), target);
    const answer = query.decode(frame, prefixBytes, frame.length - prefixBytes, target, target);
    const error = missing > 0 ? new ShardloomError("ERR_STALE_REPLICA", "Cannot answer for all") : undefined;
    const vshards = target.vshards.length;
    const outcome = { ...plainOutcome(target.shard, query.count(answer), error), vshards };
    return { answer, outcome: { ...outcome, vshardsAnswered: vshards - missing } };
  }

  #answer(type: number, body: Payload, { shard, vshards }: PlanTarget) {
    const refused = [...vshards].filter((vshard) => this.refused.get(type)?.includes(vshard) === true);
    const mask = new Uint8Array(VSHARDS);
    for (const vshard of vshards) if (!refused.includes(vshard)) mask[vshard] = 1;
    const bed = this.beds[shard] as TextBed;
    const write: Payload["write"] = (memory, offset) => body.write(memory, offset);
    bed.replyLimitBytes = this.#smallReplies ? 300 : 2 ** 20;
    const reply = bed.call(type, body.byteLength, write, (m, o, length) => m.bytes.slice(o, o + length), mask);
    const prefixBytes = routedReplyBytes(refused.length, 0);
    const memory = wireMemory(prefixBytes + reply.length);
    const list = refused.map((vshard) => ({ vshard, reason: REFUSAL.SYNCING }));
    writeRoutedReply(memory, 0, list, undefined);
    memory.bytes.set(reply, prefixBytes);
    const frame: ReplyFrame = { ...memory, offset: 0, length: prefixBytes + reply.length, serviceUs: 0, queueUs: 0 };
    return { frame, prefixBytes, missing: refused.length };
  }
}

function staged(smallReplies = false) {
  const shards = new TwoShards(smallReplies);
  const random = randomFrom(13);
  const documents = Array.from({ length: 150 }, (_, id) => randomDocument(random, id, ["body", "title"]));
  for (const bed of shards.beds) bed.upsert(documents);
  const [{ options, analyser }] = shards.beds as [TextBed];
  const parts: TextCollectionParts = {
    name: "texts",
    collectionId: 1,
    options,
    analyser,
    coordinator: shards as unknown as Coordinator,
    assertOpen: () => undefined,
  };
  /** What a shard that holds only these vshards would find. */
  const only = (vshards: readonly number[]): ReturnType<Model["search"]> => {
    const model = new Model(OPTIONS);
    for (const document of documents) if (vshards.includes(vshardOfId(document.id))) model.put(document);
    return model.search(QUERY);
  };
  return { shards, parts, only };
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
