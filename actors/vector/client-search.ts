/**
 * A search from a client: one request to every shard, answers merged in the total order (score, id).
 *
 * Invariant: everything is checked before anything is sent, here and in searches that go other ways, by the one check that is here. A shard whose
 * answer does not fit one reply is asked for the rest, page by page; pages of one answer come from one state of the shard, or the answer is begun again. Where shards
 * search the graph of their node, and the last hit that is wanted lies farther away than one of them has looked, all are asked again and scan: what a
 * shard leaves out then ranks behind all hits, as far as the graph leads to it.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { mergeRanked } from "../../src/routing/merge.ts";
import type { PlanTarget } from "../../src/routing/plan.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import { decodeMetadata } from "../../src/store/metadata-codec.ts";
import { VECTOR_SEARCH } from "../../src/wire/message-types.ts";
import { abortError, type ReadOptions } from "../call-options.ts";
import { checkExplain, ReadAccount } from "../explained-value.ts";
import type { Explanation, ReadResult, ReadScope } from "../planned-read.ts";
import type { SearchFallback } from "../search-fallback.ts";
import type { ShardAccount } from "../shard-account.ts";
import type { SearchOptions, SearchResult, VectorCollectionParts, VectorHit } from "./client-collection.ts";
import { encodeFilter } from "./filter.ts";
import { EVERYWHERE, isWithin } from "./graph/graph-rows.ts";
import { cursorOf, firstWanted, hitsOf, nextWanted, pageOf } from "./search-pages.ts";
import { SCATTER } from "./strategy/vector-strategy.ts";
import { assertEf, assertK } from "./vector-checks.ts";
import { PLAN_NAMES, type QueryHits, readSearchReply, type SearchHit } from "./vector-replies.ts";
import {
  INCLUDE,
  SEARCH_EXACT,
  SEARCH_GRAPH,
  type SearchRequest,
  searchRequestBytes,
  writeSearchRequest,
} from "./vector-requests.ts";

/** How often an answer in pages is begun again because its shard was written to meanwhile. */
const PAGING_ATTEMPTS = 8;
export const DEFAULT_K = 10;
/** Failures after which another copy may have the rest of an answer. */
const LOST: ReadonlySet<string> = new Set([
  "ERR_WORKER_LOST",
  "ERR_HANDLER_HUNG",
  "ERR_NATIVE_QUARANTINED",
  "ERR_STALE_EPOCH",
  "ERR_STALE_REPLICA",
]);

const FLAGS = ["exact", "includePayload", "includeVector"] as const;

/** Options of a search whose strategy is chosen: what is left is for the shards. */
export type ShardSearchOptions = Omit<SearchOptions, "by" | "strategy" | "recall"> &
  ReadOptions & {
    /** In a collection with a graph: whether each shard searches that of its node for its own documents. @default they scan */
    readonly viaGraph?: boolean;
  };

/** What a shard has found, and how far it has looked. */
type WholeAnswer = Pick<QueryHits, "hits" | "reach">;

/** One shard's first reply, and what it was asked for. */
interface ShardAnswer {
  readonly target: PlanTarget;
  readonly page: QueryHits;
}

/**
 * Checks what a search is asked for with, whatever becomes of it, so that all strategies refuse the same in the same words. Filters are checked where they
 * are compiled, before anything is read.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_ABORTED` when the signal has fired.
 */
export function checkSearch({ coordinator }: VectorCollectionParts, options: ShardSearchOptions): void {
  const { k = DEFAULT_K, ef = 0, explain, signal } = options;
  assertK(k);
  assertEf(ef);
  for (const name of FLAGS) {
    const value: unknown = options[name];
    if (value !== undefined && typeof value !== "boolean")
      throw invalidArgument("search", name, "true or false", value);
  }
  checkExplain("search", explain);
  coordinator.checkRead(options);
  if (signal?.aborted === true) throw abortError(signal);
}

/**
 * @param query Checked, and nobody else's, as are the options.
 * @param instead Why this is done in place of another strategy.
 */
export async function searchVectors(
  parts: VectorCollectionParts,
  query: Float32Array,
  options: ShardSearchOptions,
  instead?: SearchFallback,
): Promise<SearchResult> {
  const { explain, after, ...unexplained } = options;
  const { coordinator } = parts;
  let request = toRequest(parts, query, options);
  const page = pageOf(parts.name, request, after);
  const deadlineAtMs = coordinator.deadlineAtMs(options);
  const account = ReadAccount.of(coordinator, options);
  const reads = account === undefined ? unexplained : { ...unexplained, explain: account.take };
  for (let wanted: number | undefined = firstWanted(page); ; ) {
    const nearest: SearchRequest = { ...request, k: wanted };
    const timeoutMs = Math.max(0.001, deadlineAtMs - coordinator.nowMs());
    const result = await readFirst(parts, { kind: "scatter" }, nearest, { ...reads, timeoutMs });
    const whole = await readWhole(parts, result.answers, nearest, deadlineAtMs, reads, 0, account?.pages);
    const lists = whole.map(({ hits }) => hits);
    const merged = mergeRanked(lists, wanted, { disjoint: true });
    const reach = whole.reduce((least, each) => Math.min(least, each.reach), EVERYWHERE);
    if (!isWithin(merged[wanted - 1]?.score, reach)) {
      request = withoutGraph(request);
      continue;
    }
    const found = hitsOf(page, merged);
    wanted = nextWanted(page, found.length, merged.length, wanted);
    if (wanted !== undefined) continue;
    const { completeness, stalenessMs } = result;
    const fallback = instead === undefined ? {} : { fallback: instead };
    const told = account === undefined ? undefined : ofScatter(account.finish(), fallback, result.answers);
    if (typeof explain === "function" && told !== undefined) explain(told);
    const answer = { hits: found.map(toHit), completeness, stalenessMs, by: SCATTER.name, ...fallback };
    const explained: SearchResult = told === undefined ? answer : { ...answer, explain: told };
    const last = found[request.k - 1];
    if (last === undefined) return explained;
    const { id, score } = last; // not the hit, so that nothing else of it is kept
    return {
      ...explained,
      /** Made when it is looked at, as few searches go on: it costs a few us. */
      get cursor() {
        return cursorOf(page, { id, score }, coordinator.snapshot.topologyEpoch);
      },
    };
  }
}

function ofScatter(
  account: Explanation,
  fallback: { readonly fallback?: SearchFallback },
  answers: readonly ShardAnswer[],
): Explanation {
  const ways = answers.map(({ target: { shard }, page }) => ({
    shard,
    plan: PLAN_NAMES[page.plan] ?? "scan",
    scored: page.scored,
  }));
  return { ...account, plan: { ...account.plan, strategy: SCATTER.name }, ...fallback, ways };
}

function withoutGraph(request: SearchRequest): SearchRequest {
  return { ...request, flags: request.flags & ~SEARCH_GRAPH };
}

/** The first reply of every shard that a plan asks. */
function readFirst(
  { coordinator }: VectorCollectionParts,
  scope: ReadScope,
  request: SearchRequest,
  options: ReadOptions,
): Promise<ReadResult<ShardAnswer>> {
  const body = toPayload(request, 0);
  return coordinator.read<ShardAnswer>(
    scope,
    {
      type: VECTOR_SEARCH,
      body: () => body,
      decode: (frame, offset, length, _, answered) => ({ target: answered, page: readPage(frame, offset, length) }),
      count: ({ page }) => page.hits.length + page.left,
    },
    options,
  );
}

/** The whole answers. A shard that is lost, or may answer no more, between two replies is planned for anew: another copy may answer. */
async function readWhole(
  parts: VectorCollectionParts,
  answers: readonly ShardAnswer[],
  request: SearchRequest,
  deadlineAtMs: number,
  options: ReadOptions,
  replans: number,
  pages: ShardAccount | undefined,
): Promise<WholeAnswer[]> {
  const lists: WholeAnswer[] = [];
  for (const { target, page } of answers) {
    try {
      const isWhole = page.left === 0;
      lists.push(isWhole ? page : await readPages(parts, target, request, page, deadlineAtMs, options, pages));
    } catch (error) {
      const timeoutMs = deadlineAtMs - parts.coordinator.nowMs();
      const lost = ShardloomError.is(error) && LOST.has(error.code);
      if (!lost || replans >= PAGING_ATTEMPTS || timeoutMs <= 0) throw error;
      // What was said to be complete stays so.
      const rest: ReadOptions = { ...options, timeoutMs, gather: "all", unavailable: waitOrFail(options) };
      const again = await readFirst(parts, { kind: "scatter", vshards: target.vshards }, request, rest);
      lists.push(...(await readWhole(parts, again.answers, request, deadlineAtMs, options, replans + 1, pages)));
    }
  }
  return lists;
}

function waitOrFail({ unavailable }: ReadOptions): "wait" | "fail" {
  return unavailable === undefined || unavailable === "wait" ? "wait" : "fail";
}

function toRequest(
  { collectionId, options: { dimensions } }: VectorCollectionParts,
  queries: Float32Array,
  options: ShardSearchOptions,
): SearchRequest {
  const { k = DEFAULT_K, ef = 0 } = options;
  const flags =
    (options.includePayload === false ? 0 : INCLUDE.PAYLOAD) |
    (options.includeVector === true ? INCLUDE.VECTOR : 0) |
    (options.exact === true ? SEARCH_EXACT : 0) |
    (options.viaGraph === true ? SEARCH_GRAPH : 0);
  const filter = options.filter === undefined ? undefined : encodeFilter(options.filter);
  return { collectionId, k, ef, flags, queries, dimensions, filter };
}

function toPayload(request: SearchRequest, skip: number): Payload {
  const page = skip === 0 ? request : { ...request, skip };
  return {
    byteLength: searchRequestBytes(request),
    write: (target, offset) => writeSearchRequest(target, offset, page),
  };
}

function readPage(frame: ReplyFrame, offset: number, length: number): QueryHits {
  const [page] = readSearchReply(frame, offset, length);
  if (page === undefined)
    throw new ShardloomError(
      "ERR_CORRUPT",
      "Cannot decode search reply as it must answer one query: current value is 0",
    );
  return page;
}

/** The whole answer of one shard, whose first reply had no room for all of it. */
async function readPages(
  parts: VectorCollectionParts,
  target: PlanTarget,
  request: SearchRequest,
  first: QueryHits,
  deadlineAtMs: number,
  options: ReadOptions,
  pages: ShardAccount | undefined,
): Promise<WholeAnswer> {
  const { coordinator } = parts;
  let hits: SearchHit[] = [...first.hits];
  let { left, lastVersion, reach } = first;
  let asked = request;
  for (let attempt = 0; attempt < PAGING_ATTEMPTS; ) {
    if (left === 0) return { hits, reach };
    const timeoutMs = Math.max(0.001, deadlineAtMs - coordinator.nowMs());
    const body = toPayload(asked, hits.length);
    const decode = pages?.counting(target.shard, body.byteLength, readPage) ?? readPage;
    const page = await coordinator.readOn(target, VECTOR_SEARCH, body, decode, { ...options, timeoutMs });
    if (page.lastVersion === lastVersion && page.reach === reach) {
      for (const hit of page.hits) hits.push(hit);
      left = page.left;
    } else {
      attempt++;
      hits = [];
      left = 1;
      lastVersion = page.lastVersion;
      reach = EVERYWHERE;
      asked = withoutGraph(request); // a graph is written to by other shards too
    }
  }
  throw new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot search as shard ${target.shard} was written to during each of ${PAGING_ATTEMPTS} attempts to read an answer of several replies`,
    {
      details: { shard: target.shard, k: request.k },
    },
  );
}

export function toHit(hit: SearchHit): VectorHit {
  const { id, score, version, vector, payload } = hit;
  if (vector === undefined && payload === undefined) return { id, score, version };
  return {
    id,
    score,
    version,
    ...(vector === undefined ? {} : { vector }),
    ...(payload === undefined ? {} : { payload: decodeMetadata(payload) }),
  };
}
