/**
 * A search that the shards of this node do together, each over its own part of the graph: one of them is asked, and this thread ranks what
 * they found by the documents' rows.
 *
 * Invariant: an answer is whole, or there is none and a reason: then the caller searches another way. The shards get half of the time
 * that there is, so that there is time for that. A search in whose course a region of the graph changed hands gives none. Rows that wait to be
 * linked are looked at here, before the shards are asked.
 */
import { STATUS } from "../../native-bridge/status.ts";
import { type ErrorCode, ShardloomError } from "../../src/errors.ts";
import type { ReplyFrame } from "../../src/routing/requester.ts";
import { VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import type { CallOptions } from "../call-options.ts";
import type { Explanation } from "../planned-read.ts";
import type { SearchFallback } from "../search-fallback.ts";
import { ShardAccount } from "../shard-account.ts";
import type { SearchResult, VectorCollectionParts } from "./client-collection.ts";
import { explainedSearch } from "./client-explain.ts";
import { obstacle, searchInstead, searchOneSided, staleness, whole, withTimeLeft } from "./client-one-sided.ts";
import { DEFAULT_K, type ShardSearchOptions, toHit } from "./client-search.ts";
import { readOutcome } from "./cotra/collaborate-codec.ts";
import type { CotraOutcome } from "./cotra/cotra-origin.ts";
import { createTally, sumOf } from "./cotra/cotra-tally.ts";
import { rankedAgain } from "./graph/graph-code.ts";
import { unlessFull } from "./graph/graph-errors.ts";
import type { OneSidedOptions } from "./one-sided-result.ts";
import { NO_ROOM, TOO_FEW } from "./one-sided-result.ts";
import { payloadFilter } from "./payload-filter.ts";
import { COTRA } from "./strategy/cotra-strategy.ts";
import type { StrategyQuery } from "./strategy/vector-strategy.ts";
import type { SearchHit } from "./vector-replies.ts";

/** Candidates that are kept at most: their number has to fit messages between workers. */
const MAX_EF = 4096;
/** Vertices that shards tell, a hit: some stand for documents that have gone. */
const OVER_FETCH = 2;
const SPARE = 8;
/** The same with a filter, over the share that passes; of one that lets less pass this thread looks at what passes. */
const FILTERED_OVER_FETCH = 1.3;
const LEAST_SELECTIVITY = 0.02;
/** Searches of one query, each with twice the candidates, as documents had gone. */
const ATTEMPTS = 3;
/** Of the time of a search the share that shards have, and of that the share that their origin tells them. */
const SHARE = 0.5;
const TOLD_SHARE = 0.8;

const REASONS: Partial<Record<ErrorCode, SearchFallback>> = {
  ERR_WORKER_LOST: "lost",
  ERR_HANDLER_HUNG: "lost",
  ERR_NATIVE_QUARANTINED: "lost",
  ERR_TIMEOUT: "late",
  ERR_OVERLOADED: "overloaded",
  ERR_RECORD_TOO_LARGE: "size",
};

/** What a search found together, or why another way has to be gone. */
type CollaborativeAnswer =
  | { readonly hits: readonly SearchHit[]; readonly explain?: Explanation }
  | { readonly fallback: SearchFallback };

/** @param query Checked, as are the options. @throws {ShardloomError} As every search. */
export async function searchCotra(
  parts: VectorCollectionParts,
  query: Float32Array,
  options: ShardSearchOptions,
  recall: number,
): Promise<SearchResult> {
  const { filter, ...plain } = options;
  const deadlineAtMs = parts.coordinator.deadlineAtMs(options);
  const reason = obstacle(parts, query, plain);
  if (reason !== undefined) return searchInstead(parts, query, options, reason);
  const { k = DEFAULT_K, ef = 0, includePayload = true, includeVector = false } = options;
  const accepted = filter === undefined ? {} : { filter: payloadFilter(filter) };
  const wanted = { includePayload, includeVector, ...accepted, ...(ef === 0 ? {} : { ef }) };
  const found = await searchTogether(parts, query, k, wanted, options, recall);
  if ("fallback" in found)
    return searchOneSided(parts, query, withTimeLeft(parts, options, deadlineAtMs), found.fallback);
  const { hits, ...rest } = found;
  return {
    ...rest,
    hits: hits.map(toHit),
    completeness: whole(parts, hits.length),
    stalenessMs: staleness(parts),
    by: COTRA.name,
  };
}

/**
 * @param query As long as the collection has dimensions, and with a code.
 * @throws {ShardloomError} `ERR_ABORTED`, `ERR_TIMEOUT` when no time is left.
 */
async function searchTogether(
  parts: VectorCollectionParts,
  query: Float32Array,
  k: number,
  wanted: OneSidedOptions,
  options: ShardSearchOptions,
  recallTarget: number,
): Promise<CollaborativeAnswer> {
  const { coordinator, options: collection } = parts;
  const startedMs = coordinator.nowMs();
  const asked = new ShardAccount();
  const deadlineAtMs = coordinator.deadlineAtMs(options);
  const reader = parts.reader();
  let tally = createTally();
  let ef = Math.max(rankedAgain(collection, k), wanted.ef || collection.expansionSearch);
  let selectivity = 1;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++, ef *= 2) {
    if (ef > MAX_EF) return { fallback: "size" };
    const halves = reader.halves(query, k, wanted, COTRA);
    const waiting = unlessFull(() => halves.scanWaiting(), undefined);
    const intact = halves.watch();
    if (waiting?.status !== STATUS.SUCCESS || waiting.code === undefined || intact === undefined)
      return { fallback: "memory" };
    if (wanted.filter !== undefined && attempt === 0) {
      selectivity = halves.selectivity(wanted.filter.accepts);
      ef = Math.max(ef, Math.ceil((FILTERED_OVER_FETCH * (rankedAgain(collection, k) + SPARE)) / selectivity));
      if (selectivity < LEAST_SELECTIVITY || ef > MAX_EF) return { fallback: "filter" };
    }
    const hasAll = attempt > 0 || wanted.filter !== undefined;
    const most = Math.min(ef, hasAll ? ef : OVER_FETCH * (rankedAgain(collection, k) + SPARE));
    const outcome = await ask(
      parts,
      {
        ...{ collectionId: parts.collectionId, code: waiting.code, bytes: waiting.bytes, k, ef, wanted: most },
        ...{ filter: options.filter, selectivity, recallTarget },
      },
      deadlineAtMs,
      options,
      asked,
    );
    if (typeof outcome === "string") return { fallback: outcome };
    const { vertices } = outcome.hits;
    tally = sumOf(tally, outcome.tally);
    tally.computations += waiting.distances;
    // Shards read what they compute for wherever it lies: what led them counts only if all of it could be read all the time.
    if (!intact()) return { fallback: "memory" };
    const { hits, status, bytes } = unlessFull(() => halves.rank(waiting, outcome.hits), NO_ROOM);
    tally.bytes += bytes;
    if (status === STATUS.SUCCESS) {
      const { primaries } = outcome;
      const course = {
        by: COTRA.name,
        startedMs,
        count: hits.length,
        shards: primaries,
        asked,
        stalenessMs: staleness(parts),
      } as const;
      const collaboration = { ...tally, shards: primaries.length };
      return { hits, ...explainedSearch(parts, options, { ...course, collaboration }) };
    }
    // Vertices of documents that have gone took the place of others, unless there were no more.
    if (status !== TOO_FEW) return { fallback: "memory" };
    if (vertices.length < most) return { fallback: "reach" };
  }
  return { fallback: "reach" };
}

/** Has a shard search with the others. @returns Why not, when they did not find all */
async function ask(
  { coordinator, reader }: VectorCollectionParts,
  search: Omit<StrategyQuery, "timeoutMs">,
  deadlineAtMs: number,
  { signal, priority, tenant }: CallOptions,
  asked: ShardAccount,
): Promise<CotraOutcome | SearchFallback> {
  const leftMs = deadlineAtMs - coordinator.nowMs();
  const query = { ...search, timeoutMs: Math.max(1, Math.floor(leftMs * SHARE * TOLD_SHARE)) };
  const [selected] = COTRA.selectShards(
    query,
    reader().shardsInTurn((at) => !coordinator.requester(at).lost),
  );
  if (selected === undefined) return "lost";
  const call: CallOptions = {
    timeoutMs: Math.max(1, leftMs * SHARE),
    ...(signal === undefined ? {} : { signal }),
    ...(priority === undefined ? {} : { priority }),
    ...(tenant === undefined ? {} : { tenant }),
  };
  const { type, payload } = COTRA.directMessage(selected, query);
  const { shard } = selected;
  try {
    const decode = asked.counting(shard, payload.byteLength, readOutcome);
    const read = (frame: ReplyFrame): CotraOutcome => decode(frame, frame.offset, frame.length);
    const outcome = await coordinator.ask(shard, type, VSHARD_LISTED, payload, read, call);
    outcome.tally.bytes += payload.byteLength;
    return outcome.complete ? outcome : (REASONS[outcome.reason ?? "ERR_WORKER_LOST"] ?? "memory");
  } catch (error) {
    const { code } = ShardloomError.from(error);
    const over = code === "ERR_ABORTED" || code === "ERR_INVALID_ARGUMENT" || coordinator.nowMs() >= deadlineAtMs;
    if (over) throw error;
    return REASONS[code] ?? "memory";
  }
}
