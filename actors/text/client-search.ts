/**
 * A search from a client, in two phases: statistics of the query's terms are added up over all shards, then every shard
 * scores its documents with the sums, and the answers are merged in the total order (score descending, id ascending).
 *
 * Invariant: both phases ask the same shards, so the sums are those of the documents that are searched; a shard that gave no
 * statistics is not searched, and is in the completeness record with its error. One shard needs no first phase. A shard
 * whose answer does not fit one reply is asked for the rest, page by page, from one state of the shard.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { Completeness, OutcomeStatus } from "../../src/routing/gather.ts";
import { mergeRanked, type Ranked } from "../../src/routing/merge.ts";
import type { PlanTarget } from "../../src/routing/plan.ts";
import type { Payload } from "../../src/routing/requester.ts";
import { decodeMetadata } from "../../src/store/metadata-codec.ts";
import { TEXT_SEARCH, TEXT_STATS } from "../../src/wire/message-types.ts";
import type { ReadScope } from "../coordinator.ts";
import type { ReadResult } from "../planned-read.ts";
import type { TextCollectionParts, TextHit, TextSearchOptions, TextSearchResult } from "./client-collection.ts";
import { payloadStart, textsOf } from "./document-body.ts";
import { INCLUDE, searchRequestBytes, type TextSearch, writeSearchRequest } from "./search-request.ts";
import { checkBoost } from "./text-options.ts";
import { parseQuery, type TextQuery } from "./text-query.ts";
import { readSearchReply, readStatsReply, type ShardHit, type ShardHits } from "./text-replies.ts";
import { isOneShard, toReadOptions, WHOLE } from "./text-routing.ts";
import { SCORING, type TextStatistics } from "./text-scorer.ts";

const DEFAULT_K = 10;
/** Most documents of one search, those before `offset` included. */
const MAX_K = 65_536;
/** How often an answer in pages is begun again because its shard was written to meanwhile. */
const PAGING_ATTEMPTS = 8;

interface ShardAnswer {
  readonly target: PlanTarget;
  readonly page: ShardHits;
}

interface ShardStatistics {
  readonly target: PlanTarget;
  readonly statistics: TextStatistics;
}

/** A hit as {@link mergeRanked} wants it: smaller scores first. */
interface RankedHit extends Ranked {
  readonly hit: ShardHit;
}

export async function searchTexts(
  parts: TextCollectionParts,
  query: string,
  options: TextSearchOptions,
): Promise<TextSearchResult> {
  const { coordinator } = parts;
  const search = toSearch(parts, query, options);
  const deadlineAtMs = coordinator.deadlineAtMs(options);
  if (isOneShard(parts))
    return answer(parts, search, options, deadlineAtMs, await searchOn(parts, WHOLE, search, options));
  // Where missing answers are allowed, waiting for one must leave time for the second phase.
  const share = (options.gather ?? "all") === "all" ? 1 : 0.5;
  const firstMs = Math.max(0.001, share * (deadlineAtMs - coordinator.nowMs()));
  const first = await statisticsOf(parts, search, { ...options, timeoutMs: firstMs });
  const rest = { ...options, timeoutMs: Math.max(0.001, deadlineAtMs - coordinator.nowMs()) };
  const whole = { ...search, statistics: sum(first.answers.map(({ statistics }) => statistics)) };
  const found = await searchOn(parts, scopeOf(first), whole, rest);
  const completeness = both(first.completeness, found.completeness);
  return answer(parts, whole, options, deadlineAtMs, { ...found, completeness });
}

function toSearch(parts: TextCollectionParts, query: string, options: TextSearchOptions): TextSearch {
  const { k = DEFAULT_K, offset = 0, scoring = "bm25", operator = "or", prefix = false } = options;
  const { collectionId, analyser } = parts;
  if (!Number.isInteger(offset) || offset < 0 || offset >= MAX_K)
    throw invalidArgument("search", "offset", `an integer in [0, ${MAX_K - 1}]`, offset);
  if (!Number.isInteger(k) || k < 1 || k > MAX_K - offset)
    throw invalidArgument("search", "k", `an integer in [1, ${MAX_K - offset}]`, k);
  if (scoring !== "bm25" && scoring !== "tf-idf")
    throw invalidArgument("search", "scoring", `"bm25" or "tf-idf"`, scoring);
  if (operator !== "or" && operator !== "and") throw invalidArgument("search", "operator", `"or" or "and"`, operator);
  const flags =
    (options.includePayload === false ? 0 : INCLUDE.PAYLOAD) |
    (options.includeFields === true ? INCLUDE.FIELDS : 0) |
    (options.includeTerms === true ? INCLUDE.TERMS : 0);
  const settings = {
    scoring: scoring === "bm25" ? SCORING.BM25 : SCORING.TF_IDF,
    all: operator === "and",
    boosts: boostsOf(parts, options.fields),
  };
  const parsed = parseQuery(query, analyser, parts.options.positions, prefix);
  return { collectionId, k: k + offset, flags, skip: 0, settings, query: parsed };
}

function boostsOf({ options }: TextCollectionParts, fields: TextSearchOptions["fields"]): readonly number[] {
  if (fields === undefined) return options.boosts;
  if (typeof fields !== "object" || fields === null)
    throw invalidArgument("search", "fields", "an array of names or an object of boosts", fields);
  const boosts: number[] = options.boosts.map(() => 0);
  const given: [unknown, unknown][] = Array.isArray(fields)
    ? (fields as readonly unknown[]).map((name) => [name, undefined])
    : Object.entries(fields);
  if (given.length === 0) throw invalidArgument("search", "fields", "at least one field", 0);
  for (const [name, boost] of given) {
    const at = options.fields.indexOf(name as string);
    if (at < 0) throw invalidArgument("search", "field", `one of ${options.fields.join(", ")}`, name);
    boosts[at] = boost === undefined ? (options.boosts[at] as number) : checkBoost("search", name as string, boost);
  }
  return boosts;
}

function statisticsOf(
  { coordinator }: TextCollectionParts,
  search: TextSearch,
  options: TextSearchOptions,
): Promise<ReadResult<ShardStatistics>> {
  const body = toPayload({ ...search, query: { terms: search.query.terms, clauses: [] } });
  return coordinator.read<ShardStatistics>(
    WHOLE,
    {
      type: TEXT_STATS,
      body: () => body,
      decode: (frame, offset, length, target) => ({ target, statistics: readStatsReply(frame, offset, length) }),
      count: ({ statistics }) => statistics.documents,
    },
    toReadOptions(options),
  );
}

/** The vshards that gave statistics. */
function scopeOf({ answers, completeness }: ReadResult<ShardStatistics>): ReadScope {
  if (completeness.complete) return WHOLE;
  return { kind: "scatter", vshards: answers.flatMap(({ target }) => [...target.vshards]) };
}

function searchOn(
  { coordinator }: TextCollectionParts,
  scope: ReadScope,
  search: TextSearch,
  options: TextSearchOptions,
): Promise<ReadResult<ShardAnswer>> {
  const body = toPayload(search);
  return coordinator.read<ShardAnswer>(
    scope,
    {
      type: TEXT_SEARCH,
      body: () => body,
      decode: (frame, offset, length, target) => ({ target, page: readSearchReply(frame, offset, length) }),
      count: ({ page }) => page.hits.length + page.left,
    },
    toReadOptions(options),
  );
}

function toPayload(search: TextSearch): Payload {
  return {
    byteLength: searchRequestBytes(search),
    write: (target, offset) => writeSearchRequest(target, offset, search),
  };
}

/** Sums of integers: exact in any order. */
function sum(parts: readonly TextStatistics[]): TextStatistics {
  const [first] = parts as readonly [TextStatistics];
  const total: TextStatistics = {
    documents: 0,
    lengths: new Float64Array(first.lengths.length),
    frequencies: new Float64Array(first.frequencies.length),
  };
  for (const part of parts) {
    total.documents += part.documents;
    for (const [at, length] of part.lengths.entries()) total.lengths[at] = (total.lengths[at] as number) + length;
    for (const [at, count] of part.frequencies.entries())
      total.frequencies[at] = (total.frequencies[at] as number) + count;
  }
  return total;
}

/** What was planned is what the first phase asked; parts that failed in either phase gave no answer. */
function both(first: Completeness, second: Completeness): Completeness {
  if (first.complete) return second;
  const failed = first.outcomes.filter(({ error }) => error !== undefined);
  const also = (status: OutcomeStatus): number => failed.filter((outcome) => outcome.status === status).length;
  return {
    ...second,
    planned: second.planned + failed.length,
    failed: second.failed + also("failed"),
    timedOut: second.timedOut + also("timed-out"),
    unavailable: second.unavailable + also("unavailable"),
    stale: second.stale + also("stale"),
    complete: false,
    vshards: { planned: first.vshards.planned, answered: second.vshards.answered },
    outcomes: [...failed, ...second.outcomes].sort((a, b) => a.shard - b.shard),
  };
}

async function answer(
  parts: TextCollectionParts,
  search: TextSearch,
  options: TextSearchOptions,
  deadlineAtMs: number,
  { answers, completeness, explain }: ReadResult<ShardAnswer>,
): Promise<TextSearchResult> {
  const lists: (readonly ShardHit[])[] = [];
  for (const { target, page } of answers)
    lists.push(page.left === 0 ? page.hits : await readPages(parts, target, search, page, deadlineAtMs, options));
  const merged =
    lists.length === 1
      ? (lists[0] as readonly ShardHit[])
      : mergeRanked(lists.map(toRanked), search.k).map(({ hit }) => hit);
  const offset = options.offset ?? 0;
  const hits = offset === 0 ? merged : merged.slice(offset);
  return {
    hits: hits.map((hit) => toHit(parts, search, hit)),
    completeness,
    ...(explain === undefined ? {} : { explain }),
  };
}

function toRanked(hits: readonly ShardHit[]): RankedHit[] {
  return hits.map((hit) => ({ id: hit.id, score: -hit.score, version: hit.version, hit }));
}

/** The whole answer of one shard, whose first reply had no room for all of it. */
async function readPages(
  { coordinator }: TextCollectionParts,
  target: PlanTarget,
  search: TextSearch,
  first: ShardHits,
  deadlineAtMs: number,
  options: TextSearchOptions,
): Promise<readonly ShardHit[]> {
  let hits: ShardHit[] = [...first.hits];
  let { left, lastVersion } = first;
  for (let attempt = 0; attempt < PAGING_ATTEMPTS; ) {
    if (left === 0) return hits;
    const timeoutMs = Math.max(0.001, deadlineAtMs - coordinator.nowMs());
    const body = toPayload({ ...search, skip: hits.length });
    const page = await coordinator.readOn(target, TEXT_SEARCH, body, readSearchReply, {
      ...toReadOptions(options),
      timeoutMs,
    });
    if (page.lastVersion === lastVersion) {
      for (const hit of page.hits) hits.push(hit);
      left = page.left;
    } else {
      attempt++;
      hits = [];
      left = 1;
      lastVersion = page.lastVersion;
    }
  }
  throw new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot search as shard ${target.shard} was written to during each of ${PAGING_ATTEMPTS} attempts to read an answer of several replies`,
    { details: { shard: target.shard, k: search.k } },
  );
}

function toHit({ options }: TextCollectionParts, { flags, query }: TextSearch, hit: ShardHit): TextHit {
  const { id, score, version, body, matched } = hit;
  if (body === undefined && matched === undefined) return { id, score, version };
  const { fields } = options;
  const withFields = (flags & INCLUDE.FIELDS) !== 0;
  const payload = withFields ? body?.subarray(payloadStart(body, 0, fields.length)) : body;
  return {
    id,
    score,
    version,
    ...(withFields && body !== undefined ? { fields: textsOf(fields, body) } : {}),
    ...(payload === undefined || payload.length === 0 || !(flags & INCLUDE.PAYLOAD)
      ? {}
      : { payload: decodeMetadata(payload) }),
    ...(matched === undefined ? {} : { terms: namesOf(query, matched) }),
  };
}

function namesOf({ clauses, terms }: TextQuery, matched: Uint8Array): string[] {
  return clauses.flatMap((clause, at) => {
    if (matched[at] !== 1) return [];
    const names = clause.terms.map((index) => {
      const { term, prefix } = terms[index] as TextQuery["terms"][number];
      return prefix === "" ? term : `${prefix}*`;
    });
    return [names.length === 1 ? (names[0] as string) : `"${names.join(" ")}"`];
  });
}
