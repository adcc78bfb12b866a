/**
 * A search that a strategy sends to some of the shards: this thread chooses them, they search what they compute for, and this thread reads the
 * candidates' documents in their rows.
 *
 * Invariant: rows that wait to be linked are looked at before anybody is asked, so a document is found from its acknowledgement on; every hit was read
 * from its row, so what is deleted is none. A shard that does not answer is either said to be missing, where the caller allows that, or the search is
 * done by this thread alone, in the time that is left. When a search has ended none of its requests is left.
 */
import { STATUS } from "../../../native-bridge/status.ts";
import { type ErrorCode, ShardloomError } from "../../../src/errors.ts";
import { type Completeness, Gather, type Gathered, type GatherPolicy } from "../../../src/routing/gather.ts";
import { abortError } from "../../call-options.ts";
import type { Reading } from "../../planned-read.ts";
import type { SearchFallback } from "../../search-fallback.ts";
import type { SearchResult, VectorCollectionParts } from "../client-collection.ts";
import { explainedSearch } from "../client-explain.ts";
import { obstacle, searchInstead, searchOneSided, staleness, withTimeLeft } from "../client-one-sided.ts";
import { DEFAULT_K, type ShardSearchOptions, searchVectors, toHit } from "../client-search.ts";
import { unlessFull } from "../graph/graph-errors.ts";
import { NO_ROOM, TOO_FEW } from "../one-sided-result.ts";
import { payloadFilter } from "../payload-filter.ts";
import { learnsLeaves, type StrategyName } from "../vector-options.ts";
import type { SearchHit } from "../vector-replies.ts";
import { askSelected, LEAST_MS } from "./ask-selected.ts";
import type { NearReply } from "./near-messages.ts";
import type { AskingStrategy, RoutedQuery, SelectedShard, ShardDescriptor } from "./vector-strategy.ts";

/** Documents that are asked for beyond k, as some are gone then, and more where a filter lets few pass. */
const SPARE = 8;
const OVER_FETCH = 1.3;
/** Of a filter that lets less pass this thread scans what passes. */
const LEAST_SELECTIVITY = 0.02;
const MOST_WANTED = 4_096;
/** Why it is done without a shard, where that is not that it does not answer. */
const REASONS: Partial<Record<ErrorCode, SearchFallback>> = {
  ERR_VERSION_MISMATCH: "version",
  ERR_REGION_ACCESS: "memory",
  ERR_RECORD_TOO_LARGE: "size",
  ERR_OUT_OF_MEMORY: "memory",
};
/** Seen of the memory where there is none left to look at it with. */
const NOTHING = { waiting: undefined, router: undefined };
/** Part of the time left that shards get: what remains is for doing without them. */
const SHARE_OF_TIME = 0.75;

/** @param query Checked, as are the options. @throws {ShardloomError} As every search. */
export async function searchRouted(
  parts: VectorCollectionParts,
  query: Float32Array,
  options: ShardSearchOptions,
  recall: number,
  strategy: AskingStrategy<RoutedQuery>,
): Promise<SearchResult> {
  const { filter, ...unfiltered } = options;
  const reason = obstacle(parts, query, unfiltered);
  if (reason !== undefined) return searchInstead(parts, query, options, reason);
  if (!learnsLeaves(parts.options))
    return searchOneSided(parts, query, options, parts.options.metric === "inner-product" ? "metric" : "code");
  const accepted = filter === undefined ? undefined : payloadFilter(filter);
  const startedMs = parts.coordinator.nowMs();
  const deadlineAtMs = parts.coordinator.deadlineAtMs(options);
  const left = (): ShardSearchOptions => withTimeLeft(parts, options, deadlineAtMs);
  const { k = DEFAULT_K, ef = 0, includePayload = true, includeVector = false } = options;
  if (k + SPARE > MOST_WANTED) return searchOneSided(parts, query, options, "size");
  const wants = { includePayload, includeVector, ...(accepted === undefined ? {} : { filter: accepted }) };
  const halves = parts.reader().halves(query, k, wants, strategy);
  const look = () => ({ waiting: halves.scanWaiting(), router: halves.leaves.router(halves.graph) });
  const { waiting, router } = unlessFull(look, NOTHING);
  if (waiting?.status !== STATUS.SUCCESS || waiting.code === undefined)
    return searchVectors(parts, query, options, "memory");
  if (router === undefined || halves.graph === undefined) return searchOneSided(parts, query, options, "training");
  const selectivity = accepted === undefined ? 1 : halves.selectivity(accepted.accepts);
  const wanted = accepted === undefined ? k + SPARE : Math.ceil((OVER_FETCH * (k + SPARE)) / selectivity);
  if (selectivity < LEAST_SELECTIVITY || wanted > MOST_WANTED) return searchOneSided(parts, query, options, "filter");
  const { entriesOf } = halves.leaves;
  const asked: RoutedQuery = {
    collectionId: parts.collectionId,
    leaves: { router, entriesOf: entriesOf.bind(halves.leaves) },
    index: parts.options.index,
    spent: { distances: waiting.distances },
    code: waiting.code,
    bytes: waiting.bytes,
    k,
    ef: Math.max(wanted, ef || parts.options.expansionSearch),
    ...{ wanted, filter, selectivity },
    recallTarget: recall,
    timeoutMs: Math.max(LEAST_MS, (deadlineAtMs - parts.coordinator.nowMs()) * SHARE_OF_TIME),
  };
  const selected = strategy.selectShards(asked, shardsOf(parts));
  if (selected.length === 0) return searchOneSided(parts, query, options, "shard");
  const gather = new Gather<NearReply>(selected.length, within(selected.length, options.gather));
  let gathered: Gathered<NearReply>;
  try {
    gathered = await askSelected(parts.coordinator, { strategy, query: asked, selected, options }, gather);
  } catch (error) {
    if (options.signal?.aborted === true) throw abortError(options.signal);
    return instead(parts, query, left(), ShardloomError.from(error));
  }
  parts.assertOpen();
  const candidates = gathered.answers.flatMap((answer) => answer.candidates);
  const { hits, status } = unlessFull(
    () => halves.finish(waiting, candidates, !gathered.completeness.complete),
    NO_ROOM,
  );
  if (status !== STATUS.SUCCESS) return searchVectors(parts, query, left(), status === TOO_FEW ? "reach" : "memory");
  return resultOf(parts, options, hits, { by: strategy.name, startedMs, asked, selected, gathered });
}

/** How a search went that shards have answered. */
interface Course {
  readonly by: StrategyName;
  readonly startedMs: number;
  readonly asked: RoutedQuery;
  readonly selected: readonly SelectedShard[];
  readonly gathered: Gathered<NearReply>;
}

function resultOf(
  parts: VectorCollectionParts,
  options: ShardSearchOptions,
  hits: readonly SearchHit[],
  { by, startedMs, asked, selected, gathered: { answers, completeness } }: Course,
): SearchResult {
  const reading = readingOf(asked, selected, answers, completeness);
  return {
    hits: hits.map(toHit),
    completeness,
    stalenessMs: staleness(parts),
    by,
    reading,
    ...explainedSearch(parts, options, {
      ...{ by, startedMs, count: hits.length, stalenessMs: staleness(parts), reading },
      ...{ shards: selected.map(({ shard }) => shard), outcomes: completeness.outcomes },
    }),
  };
}

/** All shards, those that can be asked first, in an order that takes turns. */
function shardsOf({ coordinator, reader }: VectorCollectionParts): ShardDescriptor[] {
  const first = reader().shardsInTurn((at) => !coordinator.requester(at).lost);
  const there = new Set(first.map(({ shard }) => shard));
  return [...first, ...coordinator.shards.filter((shard) => !there.has(shard)).map((shard) => ({ shard }))];
}

function readingOf(
  { spent }: RoutedQuery,
  selected: readonly SelectedShard[],
  answers: readonly NearReply[],
  { outcomes }: Completeness,
): Reading {
  const followers = new Set(selected.flatMap((shard) => shard.followers ?? []));
  const followed = outcomes.some(({ shard, attempts }) => attempts > 0 && followers.has(shard)) ? 1 : 0;
  return {
    codes: answers.reduce((sum, { distances }) => sum + distances, spent.distances),
    rounds: answers.reduce((most, { rounds }) => Math.max(most, rounds), followed),
    messages: answers.reduce(
      (sum, { messages }) => sum + messages,
      outcomes.reduce((sum, { attempts }) => sum + attempts, 0),
    ),
    bytes: answers.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/** The answer without a shard that does not answer. What the caller had wrong was refused before, so no refusal of a shard is the caller's. */
function instead(
  parts: VectorCollectionParts,
  query: Float32Array,
  options: ShardSearchOptions,
  error: ShardloomError,
): Promise<SearchResult> {
  if (error.code === "ERR_CLOSED" || error.code === "ERR_UNKNOWN_COLLECTION") throw error;
  return searchOneSided(parts, query, options, REASONS[error.code] ?? "shard");
}

/** As many as are to answer, of the shards that were chosen: where fewer were, those are enough. */
function within(chosen: number, policy: GatherPolicy = "all"): GatherPolicy {
  return typeof policy === "object" ? { quorum: Math.min(policy.quorum, chosen) } : policy;
}
