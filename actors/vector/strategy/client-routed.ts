/**
 * A search that a strategy sends to some of the shards: this thread chooses them, they search what they compute for, and this thread reads the
 * candidates' documents in their rows.
 *
 * Invariant: rows that wait to be linked are looked at before anybody is asked, so a document is found from its acknowledgement on; every hit was read
 * from its row, so what is deleted is none. A shard that does not answer is either said to be missing, where the caller allows that, or the search is
 * done by this thread alone.
 */
import { STATUS } from "../../../native-bridge/status.ts";
import { type ErrorCode, ShardloomError } from "../../../src/errors.ts";
import { type Completeness, Gather, plainOutcome } from "../../../src/routing/gather.ts";
import type { ReplyFrame } from "../../../src/routing/requester.ts";
import { VSHARD_LISTED } from "../../../src/wire/envelope-layout.ts";
import { abortError } from "../../call-options.ts";
import type { Reading } from "../../planned-read.ts";
import type { SearchFallback } from "../../search-fallback.ts";
import type { SearchResult, VectorCollectionParts } from "../client-collection.ts";
import { explainedSearch } from "../client-explain.ts";
import { checkedSearch, obstacle, searchInstead, searchOneSided, staleness } from "../client-one-sided.ts";
import { DEFAULT_K, type ShardSearchOptions, searchVectors, toHit } from "../client-search.ts";
import { unlessFull } from "../graph/graph-errors.ts";
import { NO_ROOM, TOO_FEW } from "../one-sided-result.ts";
import { payloadFilter } from "../payload-filter.ts";
import { learnsLeaves } from "../vector-options.ts";
import { type NearReply, readNearReply } from "./near-messages.ts";
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
  ERR_OUT_OF_MEMORY: "memory",
};
/** Seen of the memory where there is none left to look at it with. */
const NOTHING = { waiting: undefined, router: undefined };
/** Part of the time left that shards get: what remains is for doing without them. */
const SHARE_OF_TIME = 0.75;

/** @throws {ShardloomError} As every search. */
export async function searchRouted(
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: ShardSearchOptions,
  recall: number,
  strategy: AskingStrategy<RoutedQuery>,
): Promise<SearchResult> {
  const { filter, ...unfiltered } = options;
  const query = checkedSearch(parts, vector, options);
  const reason = obstacle(parts, query, unfiltered);
  if (reason !== undefined) return searchInstead(parts, vector, options, reason);
  if (!learnsLeaves(parts.options))
    return searchOneSided(parts, vector, options, parts.options.metric === "inner-product" ? "metric" : "code");
  const accepted = filter === undefined ? undefined : payloadFilter(filter);
  const startedMs = parts.coordinator.nowMs();
  const { k = DEFAULT_K, ef = 0, includePayload = true, includeVector = false } = options;
  const wants = { includePayload, includeVector, ...(accepted === undefined ? {} : { filter: accepted }) };
  const { name: by } = strategy;
  const halves = parts.reader().halves(query, k, wants, strategy);
  const look = () => ({ waiting: halves.scanWaiting(), router: halves.leaves.router(halves.graph) });
  const { waiting, router } = unlessFull(look, NOTHING);
  if (waiting?.status !== STATUS.SUCCESS || waiting.code === undefined)
    return searchVectors(parts, vector, options, "memory");
  if (router === undefined || halves.graph === undefined) return searchOneSided(parts, vector, options, "training");
  const selectivity = accepted === undefined ? 1 : halves.selectivity(accepted.accepts);
  const wanted = accepted === undefined ? k + SPARE : Math.ceil((OVER_FETCH * (k + SPARE)) / selectivity);
  if (selectivity < LEAST_SELECTIVITY || wanted > MOST_WANTED) return searchOneSided(parts, vector, options, "filter");
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
    timeoutMs: Math.max(0.001, (parts.coordinator.deadlineAtMs(options) - parts.coordinator.nowMs()) * SHARE_OF_TIME),
  };
  const selected = strategy.selectShards(asked, shardsOf(parts));
  let gathered: { readonly answers: readonly NearReply[]; readonly completeness: Completeness };
  try {
    gathered = await ask(parts, strategy, asked, selected, options);
  } catch (error) {
    if (options.signal?.aborted === true) throw abortError(options.signal);
    return instead(parts, vector, options, ShardloomError.from(error));
  }
  parts.assertOpen();
  const { answers, completeness } = gathered;
  const candidates = answers.flatMap((answer) => answer.candidates);
  const { hits, status } = unlessFull(() => halves.finish(waiting, candidates, !completeness.complete), NO_ROOM);
  if (status !== STATUS.SUCCESS) return searchVectors(parts, vector, options, status === TOO_FEW ? "reach" : "memory");
  const { vshards } = parts.coordinator.snapshot;
  const reading = readingOf(asked, selected.length, answers);
  return {
    hits: hits.map(toHit),
    completeness: { ...completeness, vshards: { planned: vshards, answered: completeness.complete ? vshards : 0 } },
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

function readingOf({ spent }: RoutedQuery, asked: number, answers: readonly NearReply[]): Reading {
  return {
    codes: answers.reduce((sum, { distances }) => sum + distances, spent.distances),
    rounds: answers.reduce((most, { rounds }) => Math.max(most, rounds), 0),
    messages: answers.reduce((sum, { messages }) => sum + messages, asked),
    bytes: answers.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/** The answer without a shard that does not answer. */
function instead(
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: ShardSearchOptions,
  error: ShardloomError,
): Promise<SearchResult> {
  if (error.code === "ERR_CLOSED" || error.code === "ERR_UNKNOWN_COLLECTION") throw error;
  return searchOneSided(parts, vector, options, REASONS[error.code] ?? "shard");
}

/** Sends each chosen shard its message. @throws {ShardloomError} when fewer answer than the caller's policy asks for. */
function ask(
  { coordinator }: VectorCollectionParts,
  strategy: AskingStrategy<RoutedQuery>,
  query: RoutedQuery,
  selected: readonly SelectedShard[],
  options: ShardSearchOptions,
): Promise<{ readonly answers: readonly NearReply[]; readonly completeness: Completeness }> {
  const gather = new Gather<NearReply>(selected.length, options.gather ?? "all");
  const { signal, priority, tenant } = options;
  const limits = {
    timeoutMs: query.timeoutMs,
    ...(signal === undefined ? {} : { signal }),
    ...(priority === undefined ? {} : { priority }),
    ...(tenant === undefined ? {} : { tenant }),
  };
  for (const [index, shard] of selected.entries()) {
    const message = strategy.directMessage(shard, query);
    const startedMs = coordinator.nowMs();
    const latencyUs = (): number => (coordinator.nowMs() - startedMs) * 1000;
    const took = { queueUs: 0, serviceUs: 0, bytes: 0 };
    const read = (frame: ReplyFrame): NearReply => {
      took.queueUs = frame.queueUs;
      took.serviceUs = frame.serviceUs;
      took.bytes = frame.length;
      return readNearReply(frame, frame.offset);
    };
    coordinator.ask(shard.shard, message.type, VSHARD_LISTED, message.payload, read, limits).then(
      (reply) => {
        const outcome = plainOutcome(shard.shard, reply.candidates.length);
        gather.end(index, { ...outcome, ...took, latencyUs: latencyUs() }, [reply]);
      },
      (error: unknown) => {
        const outcome = plainOutcome(shard.shard, 0, ShardloomError.from(error));
        gather.end(index, { ...outcome, latencyUs: latencyUs() }, []);
      },
    );
  }
  return gather.promise;
}
