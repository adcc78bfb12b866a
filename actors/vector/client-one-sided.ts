/**
 * A search that the calling thread does by itself, in the memory of its node's shards; where that would not give what was asked for, the shards
 * are asked, and the answer says why.
 *
 * Invariant: when in doubt the search goes by messages, and has the time that is left.
 */

import { STATUS } from "../../native-bridge/status.ts";
import type { Completeness } from "../../src/routing/gather.ts";
import { abortError } from "../call-options.ts";
import type { SearchFallback } from "../search-fallback.ts";
import type { SearchResult, VectorCollectionParts } from "./client-collection.ts";
import { explainedSearch } from "./client-explain.ts";
import { DEFAULT_K, type ShardSearchOptions, searchVectors, toHit } from "./client-search.ts";
import { unlessFull } from "./graph/graph-errors.ts";
import { NO_ROOM, NOT_KNOWN, TOO_FEW } from "./one-sided-result.ts";
import { payloadFilter } from "./payload-filter.ts";
import { ONE_SIDED } from "./strategy/vector-strategy.ts";
import { componentLimit, firstBeyond, firstUncoded } from "./vector-options.ts";
import type { SearchHit } from "./vector-replies.ts";

/** Of a deadline that has passed: what is asked then ends in a timeout. */
const LEAST_MS = 0.001;

/**
 * @param query Checked, as are the options.
 * @param instead Why this is done in place of another strategy.
 * @throws {ShardloomError} As a search by messages.
 */
export async function searchOneSided(
  parts: VectorCollectionParts,
  query: Float32Array,
  options: ShardSearchOptions,
  instead?: SearchFallback,
): Promise<SearchResult> {
  const { k = DEFAULT_K, ef = 0, includePayload = true, includeVector = false } = options;
  const startedMs = parts.coordinator.nowMs();
  if (options.signal?.aborted === true) throw abortError(options.signal);
  const { filter, ...plain } = options;
  const reason = obstacle(parts, query, plain);
  const accepted = filter === undefined ? {} : { filter: payloadFilter(filter) };
  if (reason !== undefined) return searchInstead(parts, query, options, reason, instead);
  const wanted = { includePayload, includeVector, ...accepted, ...(ef === 0 ? {} : { ef }) };
  const { hits, status } = unlessFull(() => parts.reader().search(query, k, wanted), NO_ROOM);
  if (status !== STATUS.SUCCESS) {
    const fallback = instead ?? (status === TOO_FEW ? "reach" : status === NOT_KNOWN ? "filter" : "memory");
    return searchVectors(parts, query, options, fallback);
  }
  return {
    ...oneSidedAnswer(parts, hits),
    ...(instead === undefined ? {} : { fallback: instead }),
    ...explainedSearch(parts, options, {
      ...{ by: ONE_SIDED.name, fallback: instead, startedMs },
      count: hits.length,
      stalenessMs: staleness(parts),
    }),
  };
}

/**
 * The answer of the shards where memory has none: exact, but on several nodes, and where it may lack nothing that a primary has; there each shard
 * searches its node's graph for what is its own and asked of it.
 *
 * @param told What the answer says. @default the reason
 */
export function searchInstead(
  parts: VectorCollectionParts,
  query: Float32Array,
  options: ShardSearchOptions,
  reason: SearchFallback,
  told: SearchFallback = reason,
): Promise<SearchResult> {
  const asked = reason === "nodes" || reason === "consistency" ? { ...options, viaGraph: true } : options;
  return searchVectors(parts, query, asked, told);
}

/** The options of a search that is begun again in another way: it has until the same deadline. */
export function withTimeLeft(
  { coordinator }: VectorCollectionParts,
  options: ShardSearchOptions,
  deadlineAtMs: number,
): ShardSearchOptions {
  return { ...options, timeoutMs: Math.max(LEAST_MS, deadlineAtMs - coordinator.nowMs()) };
}

/** An answer that is from the memory of the shards. */
export function oneSidedAnswer(parts: VectorCollectionParts, hits: readonly SearchHit[]): SearchResult {
  const completeness = whole(parts, hits.length);
  return { hits: hits.map(toHit), completeness, stalenessMs: staleness(parts), by: ONE_SIDED.name };
}

/** What the memory of the shards cannot answer. */
export function obstacle(
  { options: collection, coordinator, reader }: VectorCollectionParts,
  query: Float32Array,
  options: ShardSearchOptions,
): SearchFallback | undefined {
  if (options.filter !== undefined) return "filter";
  if (options.exact === true) return "exact";
  if (reader().isPartial) return "nodes";
  // With copies the primary may have been deposed, which only the shards know for certain.
  const hasCopies = coordinator.snapshot.replicationFactor > 1;
  if (hasCopies && coordinator.rules(options).consistency !== "eventual") return "consistency";
  const isBeyond = firstBeyond(query, 0, query.length, componentLimit(collection)) >= 0;
  return isBeyond || firstUncoded(collection, query) !== undefined ? "query" : undefined;
}

export function staleness({ coordinator }: VectorCollectionParts): number {
  return coordinator.snapshot.replicationFactor > 1 ? Number.POSITIVE_INFINITY : 0;
}

/** All vshards, answered in one part that no shard was asked for. */
export function whole({ coordinator }: VectorCollectionParts, count: number): Completeness {
  const { vshards } = coordinator.snapshot;
  return {
    planned: 1,
    answered: 1,
    empty: count === 0 ? 1 : 0,
    failed: 0,
    timedOut: 0,
    unavailable: 0,
    stale: 0,
    complete: true,
    vshards: { planned: vshards, answered: vshards },
    outcomes: [],
  };
}
