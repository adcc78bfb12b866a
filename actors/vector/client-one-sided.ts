/**
 * A search that the calling thread does by itself, in the memory of its node's shards; where that would not give what was asked for, the shards
 * are asked, and the answer says why.
 *
 * Invariant: what a search by messages refuses is refused here in the same words, as it goes the same way when in doubt.
 */

import { STATUS } from "../../native-bridge/status.ts";
import type { Completeness } from "../../src/routing/gather.ts";
import { abortError } from "../call-options.ts";
import { checkExplain } from "../explained-value.ts";
import type { SearchFallback } from "../search-fallback.ts";
import type { SearchResult, VectorCollectionParts } from "./client-collection.ts";
import { explainedSearch } from "./client-explain.ts";
import { DEFAULT_K, type ShardSearchOptions, searchVectors, toHit } from "./client-search.ts";
import { unlessFull } from "./graph/graph-errors.ts";
import { NO_ROOM, NOT_KNOWN, TOO_FEW } from "./one-sided-result.ts";
import { payloadFilter } from "./payload-filter.ts";
import { assertEf, assertK, checkedQuery } from "./vector-checks.ts";
import { componentLimit, firstBeyond, firstUncoded } from "./vector-options.ts";
import type { SearchHit } from "./vector-replies.ts";

/**
 * @param instead Why this is done in place of another strategy.
 * @throws {ShardloomError} As a search by messages.
 */
export async function searchOneSided(
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: ShardSearchOptions,
  instead?: SearchFallback,
): Promise<SearchResult> {
  const { k = DEFAULT_K, ef = 0, includePayload = true, includeVector = false } = options;
  const startedMs = parts.coordinator.nowMs();
  const query = checkedSearch(parts, vector, options);
  const { filter, ...plain } = options;
  const reason = obstacle(parts, query, plain);
  const accepted = filter === undefined ? {} : { filter: payloadFilter(filter) };
  if (reason !== undefined) return searchInstead(parts, vector, options, reason, instead);
  const wanted = { includePayload, includeVector, ...accepted, ...(ef === 0 ? {} : { ef }) };
  const { hits, status } = unlessFull(() => parts.reader().search(query, k, wanted), NO_ROOM);
  if (status !== STATUS.SUCCESS) {
    const fallback = instead ?? (status === TOO_FEW ? "reach" : status === NOT_KNOWN ? "filter" : "memory");
    return searchVectors(parts, vector, options, fallback);
  }
  return {
    ...oneSidedAnswer(parts, hits),
    ...(instead === undefined ? {} : { fallback: instead }),
    ...explainedSearch(parts, options, {
      ...{ by: "one-sided", fallback: instead, startedMs },
      count: hits.length,
      stalenessMs: staleness(parts),
    }),
  };
}

/**
 * The answer of the shards where memory has none: exact, but on several nodes, where each shard searches its node's graph for what is its own.
 *
 * @param told What the answer says. @default the reason
 */
export function searchInstead(
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: ShardSearchOptions,
  reason: SearchFallback,
  told: SearchFallback = reason,
): Promise<SearchResult> {
  const asked = reason === "nodes" ? { ...options, viaGraph: true } : options;
  return searchVectors(parts, vector, asked, told);
}

/** An answer that is from the memory of the shards. */
export function oneSidedAnswer(parts: VectorCollectionParts, hits: readonly SearchHit[]): SearchResult {
  const completeness = whole(parts, hits.length);
  return { hits: hits.map(toHit), completeness, stalenessMs: staleness(parts), by: "one-sided" };
}

/** Checks what a search by messages would refuse. @returns a copy of the query */
export function checkedSearch(
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: ShardSearchOptions,
): Float32Array {
  assertK(options.k ?? DEFAULT_K);
  assertEf(options.ef ?? 0);
  const query = checkedQuery(parts.options.dimensions, vector);
  checkExplain("search", options.explain);
  parts.coordinator.rules(options);
  parts.coordinator.deadlineAtMs(options); // refuses one that is none
  if (options.signal?.aborted === true) throw abortError(options.signal);
  return query;
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
