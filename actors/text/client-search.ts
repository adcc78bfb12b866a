/**
 * A search from a client, in two phases: statistics of the query's terms are added up over all vshards, then the documents are
 * scored with the sums, and the answers are merged in the total order (score descending, id ascending).
 *
 * Invariant: the sums are those of the vshards that are searched: the second phase asks for the vshards that gave statistics and
 * for no others, whichever copies answer; what is left out in either phase is in the completeness record with its error. One
 * shard needs no first phase. A shard whose answer does not fit one reply is asked for the rest, page by page, from
 * one state of the shard. Both phases and all pages end under one deadline.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { type Completeness, type ShardOutcome, summarize } from "../../src/routing/gather.ts";
import { mergeRanked } from "../../src/routing/merge.ts";
import type { PlanTarget } from "../../src/routing/plan.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import { decodeMetadata } from "../../src/store/metadata-codec.ts";
import { TEXT_SEARCH, TEXT_STATS } from "../../src/wire/message-types.ts";
import { readRoutedReply } from "../../src/wire/routed-codec.ts";
import type { ReadOptions } from "../call-options.ts";
import { checkExplain, withPages } from "../explained-value.ts";
import type { ReadResult, ReadScope } from "../planned-read.ts";
import { ShardAccount } from "../shard-account.ts";
import type { TextCollectionParts, TextHit, TextSearchOptions, TextSearchResult } from "./client-collection.ts";
import { payloadStart, textsOf } from "./document-body.ts";
import { pageCursor, pageStart } from "./search-pages.ts";
import { INCLUDE, searchRequestBytes, type TextSearch, writeSearchRequest } from "./search-request.ts";
import { checkBoost } from "./text-options.ts";
import { parseQuery, type TextQuery } from "./text-query.ts";
import { readSearchReply, readStatsReply, type ShardHit, type ShardHits } from "./text-replies.ts";
import { SCORING, type TextStatistics } from "./text-scorer.ts";

const DEFAULT_K = 10;
/** Most documents of one search, those before `offset` included. */
const MAX_K = 65_536;
/** How often an answer in pages is begun again because its shard was written to meanwhile. */
const PAGING_ATTEMPTS = 8;
/** Where missing answers are allowed, the first phase leaves this share of the time to the second. */
const SECOND_SHARE = 0.5;
const ALL = { kind: "scatter" } as const;

/** One shard's first reply, and the vshards that it answers for. */
interface ShardAnswer {
  readonly target: PlanTarget;
  readonly page: ShardHits;
}

/** Statistics, and the vshards that they are of. */
interface ShardStatistics {
  readonly vshards: Uint16Array;
  readonly statistics: TextStatistics;
}

export async function searchTexts(
  parts: TextCollectionParts,
  query: string,
  { explain, ...unexplained }: TextSearchOptions,
): Promise<TextSearchResult> {
  const wanted = checkExplain("search", explain);
  const result = await searchPhases(parts, query, wanted ? { ...unexplained, explain: true } : unexplained);
  if (typeof explain === "function" && result.explain !== undefined) explain(result.explain);
  return result;
}

async function searchPhases(
  parts: TextCollectionParts,
  query: string,
  options: TextSearchOptions,
): Promise<TextSearchResult> {
  const { coordinator } = parts;
  const search = toSearch(parts, query, options);
  const deadlineAtMs = coordinator.deadlineAtMs(options);
  if (coordinator.snapshot.shards === 1)
    return answer(parts, search, options, deadlineAtMs, await searchOn(parts, ALL, search, options));
  const first = await statisticsOf(parts, search, firstPhase(options, deadlineAtMs - coordinator.nowMs()));
  const rest = { ...options, timeoutMs: Math.max(0.001, deadlineAtMs - coordinator.nowMs()) };
  const whole = { ...search, statistics: sum(first.answers) };
  const { complete } = first.completeness;
  const scope = complete ? ALL : { ...ALL, vshards: first.answers.flatMap(({ vshards }) => [...vshards]) };
  const found = await searchOn(parts, scope, whole, complete ? rest : secondPhase(rest));
  return answer(parts, whole, options, deadlineAtMs, withStatistics(found, first));
}

function toSearch(parts: TextCollectionParts, query: string, options: TextSearchOptions): TextSearch {
  const { k = DEFAULT_K, offset = 0, scoring = "bm25", operator = "or", prefix = false, after } = options;
  const { collectionId, analyser } = parts;
  if (after !== undefined && offset !== 0) throw invalidArgument("search", "offset", "0 with a cursor", offset);
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
  const search: TextSearch = { collectionId, k: k + offset, flags, skip: 0, settings, query: parsed };
  return after === undefined ? search : { ...search, after: pageStart(parts, search, after) };
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

/** The first phase must leave time for the second when it may end with its deadline. */
function firstPhase(options: TextSearchOptions, leftMs: number): TextSearchOptions {
  const share = options.gather === "best-effort" ? 1 - SECOND_SHARE : 1;
  return { ...options, timeoutMs: Math.max(0.001, share * leftMs) };
}

/** Of a quorum that gave statistics everybody is needed again. */
function secondPhase(options: TextSearchOptions): TextSearchOptions {
  return options.gather === "best-effort" ? options : { ...options, gather: "all" };
}

function statisticsOf(
  { coordinator }: TextCollectionParts,
  search: TextSearch,
  options: ReadOptions,
): Promise<ReadResult<ShardStatistics>> {
  const body = toPayload({ ...search, query: { terms: search.query.terms, clauses: [] } });
  return coordinator.read<ShardStatistics>(
    ALL,
    {
      type: TEXT_STATS,
      body: () => body,
      decode: (frame, offset, length, target) => ({
        vshards: answered(frame, target).vshards,
        statistics: readStatsReply(frame, offset, length),
      }),
      count: ({ statistics }) => statistics.documents,
    },
    options,
  );
}

function searchOn(
  { coordinator }: TextCollectionParts,
  scope: ReadScope,
  search: TextSearch,
  options: ReadOptions,
): Promise<ReadResult<ShardAnswer>> {
  const body = toPayload(search);
  return coordinator.read<ShardAnswer>(
    scope,
    {
      type: TEXT_SEARCH,
      body: () => body,
      decode: (frame, offset, length, target) => ({
        target: answered(frame, target),
        page: readSearchReply(frame, offset, length),
      }),
      count: ({ page }) => page.hits.length + page.left,
    },
    options,
  );
}

/** What a reply answers for: its target, less what the shard has refused. */
function answered(frame: ReplyFrame, target: PlanTarget): PlanTarget {
  const { refused } = readRoutedReply(frame, frame.offset, frame.length);
  if (refused.length === 0) return target;
  const missing = new Set(refused.map(({ vshard }) => vshard));
  return { shard: target.shard, vshards: target.vshards.filter((vshard) => !missing.has(vshard)), whole: false };
}

function toPayload(search: TextSearch): Payload {
  return {
    byteLength: searchRequestBytes(search),
    write: (target, offset) => writeSearchRequest(target, offset, search),
  };
}

/** Sums of integers: exact in any order. */
function sum(parts: readonly ShardStatistics[]): TextStatistics {
  const [first] = parts as readonly [ShardStatistics];
  const total: TextStatistics = {
    documents: 0,
    lengths: new Float64Array(first.statistics.lengths.length),
    frequencies: new Float64Array(first.statistics.frequencies.length),
  };
  for (const { statistics } of parts) {
    total.documents += statistics.documents;
    addTo(total.lengths, statistics.lengths);
    addTo(total.frequencies, statistics.frequencies);
  }
  return total;
}

function addTo(sums: Float64Array, values: Float64Array): void {
  for (let at = 0; at < sums.length; at++) sums[at] = (sums[at] as number) + (values[at] as number);
}

/** A part that gave statistics for some of its vshards stands for the others here: those went on to the second phase. */
function both(first: Completeness, second: Completeness): Completeness {
  const missing = first.outcomes
    .filter(({ error }) => error !== undefined)
    .map((outcome): ShardOutcome => {
      const { vshards, vshardsAnswered } = outcome;
      return { ...outcome, servedBy: [], count: 0, vshards: vshards - vshardsAnswered, vshardsAnswered: 0 };
    });
  return summarize([...missing, ...second.outcomes]);
}

function withStatistics(found: ReadResult<ShardAnswer>, first: ReadResult<ShardStatistics>): Answered {
  const { answers, explain } = found;
  const stalenessMs = Math.max(first.stalenessMs, found.stalenessMs);
  const completeness = first.completeness.complete ? found.completeness : both(first.completeness, found.completeness);
  if (explain === undefined || first.explain === undefined) return { answers, completeness, stalenessMs };
  return { answers, completeness, stalenessMs, explain: { ...explain, statistics: first.explain } };
}

/** What the shards gave, and the account of both phases. */
interface Answered extends Pick<TextSearchResult, "completeness" | "stalenessMs" | "explain"> {
  readonly answers: readonly ShardAnswer[];
}

async function answer(
  parts: TextCollectionParts,
  search: TextSearch,
  options: TextSearchOptions,
  deadlineAtMs: number,
  { answers, completeness, stalenessMs, explain }: Answered,
): Promise<TextSearchResult> {
  const lists: (readonly ShardHit[])[] = [];
  const pages = new ShardAccount();
  const startedMs = parts.coordinator.nowMs();
  for (const { target, page } of answers) {
    const isWhole = page.left === 0;
    lists.push(isWhole ? page.hits : await readPages(parts, target, search, page, deadlineAtMs, options, pages));
  }
  const merged =
    lists.length === 1
      ? (lists[0] as readonly ShardHit[])
      : mergeRanked(lists, search.k, { direction: "descending", disjoint: true });
  const pagesUs = (parts.coordinator.nowMs() - startedMs) * 1000;
  const offset = options.offset ?? 0;
  const hits = (offset === 0 ? merged : merged.slice(offset)).map((hit) => toHit(parts, search, hit));
  const last = merged.length === search.k ? merged.at(-1) : undefined;
  return {
    hits,
    completeness,
    stalenessMs,
    ...(last === undefined ? {} : { cursor: pageCursor(parts, search, last) }),
    ...(explain === undefined ? {} : { explain: withPages(explain, pages, explain.totalUs + pagesUs) }),
  };
}

/** The whole answer of one shard, whose first reply had no room for all of it. */
async function readPages(
  { coordinator }: TextCollectionParts,
  target: PlanTarget,
  search: TextSearch,
  first: ShardHits,
  deadlineAtMs: number,
  options: ReadOptions,
  pages: ShardAccount,
): Promise<readonly ShardHit[]> {
  let hits: ShardHit[] = [...first.hits];
  let { left, lastVersion } = first;
  for (let attempt = 0; attempt < PAGING_ATTEMPTS; ) {
    if (left === 0) return hits;
    const timeoutMs = Math.max(0.001, deadlineAtMs - coordinator.nowMs());
    const body = toPayload({ ...search, skip: hits.length });
    const decode = pages.counting(target.shard, body.byteLength, readSearchReply);
    const page = await coordinator.readOn(target, TEXT_SEARCH, body, decode, { ...options, timeoutMs });
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
