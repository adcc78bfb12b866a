/**
 * One-sided searches for many vectors in one call: in rounds, with one posted list of reads to each shard for all of them (batch-search.ts).
 *
 * Invariant: each result is what a search by `one-sided` for its vector gives. What the batch cannot answer is searched for by itself, which
 * goes to the shards when in doubt, and the batch says how many those were and why. Everything is checked before the first read. A signal, the
 * deadline, and the collection's end count between two slices of the work.
 */
import { STATUS } from "../../native-bridge/status.ts";
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { assertBatch } from "../../src/store/bulk-load.ts";
import { abortError, type ReadOptions } from "../call-options.ts";
import type { SearchFallback } from "../search-fallback.ts";
import type { BatchSearch } from "./batch-search.ts";
import type { SearchOptions, SearchResult, VectorCollectionParts } from "./client-collection.ts";
import { obstacle, oneSidedAnswer, searchOneSided, withTimeLeft } from "./client-one-sided.ts";
import { checkSearch, DEFAULT_K } from "./client-search.ts";
import { isFull } from "./graph/graph-errors.ts";
import { payloadFilter } from "./payload-filter.ts";
import { inSlices, Pauses, type Slices } from "./slices.ts";
import { checkedQuery, MAX_HITS } from "./vector-checks.ts";
import { usesGraph } from "./vector-options.ts";
import type { SearchHit } from "./vector-replies.ts";

/** Options of a batch: those of a search by `one-sided`. */
export type BatchSearchOptions = Omit<SearchOptions, "after" | "by" | "explain" | "recall" | "strategy"> &
  Omit<ReadOptions, "explain" | "strategy">;

/** What a batch took. */
export interface BatchStats {
  /** Lists of reads that were posted, each to one shard: round trips. */
  readonly lists: number;
  /** Reads in them. */
  readonly requests: number;
  /** Reads that were not made, as another query of the batch had asked for the same in the same round. */
  readonly deduplicated: number;
  readonly bytes: number;
  /** Rounds in which vertices of the graph were read. */
  readonly rounds: number;
  /** Distances computed in the graph for all queries. */
  readonly distances: number;
  /** Queries that were searched for by themselves. */
  readonly alone: number;
  /** Why they were: a reason of {@link SearchFallback}, of the last of them; `changed`: documents changed meanwhile; `waiting`: many wait to be linked. */
  readonly reason?: SearchFallback | "changed" | "waiting";
}

/** Results in the order of the vectors. */
export interface BatchSearchResult {
  readonly results: readonly SearchResult[];
  readonly batch: BatchStats;
}

const NOT_HERE = ["after", "by", "explain", "recall", "strategy"] as const;
const NONE = { lists: 0, requests: 0, deduplicated: 0, bytes: 0, rounds: 0, distances: 0 };

/** @throws {ShardloomError} As a search; `ERR_INVALID_ARGUMENT` for more than 65,536 vectors or 1,048,576 hits, and of a collection without a graph. */
export async function searchBatch(
  parts: VectorCollectionParts,
  vectors: readonly ArrayLike<number>[],
  options: BatchSearchOptions = {},
): Promise<BatchSearchResult> {
  if (!Array.isArray(vectors)) throw invalidArgument("search", "vectors", "an array of vectors", vectors);
  assertBatch("search", "vectors", vectors);
  if (!usesGraph(parts.options))
    throw invalidArgument("search many", "strategy", "one with a graph", parts.options.strategy);
  for (const name of NOT_HERE) {
    const value = (options as SearchOptions)[name];
    if (value !== undefined) throw invalidArgument("search many", name, "left out", value);
  }
  checkSearch(parts, options);
  if (options.filter !== undefined) payloadFilter(options.filter);
  const { k = DEFAULT_K, ef = 0, includePayload = true, includeVector = false } = options;
  const most = Math.floor(MAX_HITS / k);
  if (vectors.length > most)
    throw invalidArgument("search many", "vectors.length", `at most ${most} for ${k} hits each`, vectors.length);
  const deadlineAtMs = parts.coordinator.deadlineAtMs(options);
  const { dimensions } = parts.options;
  const queries = Array.from(vectors, (vector: ArrayLike<number>) => checkedQuery(dimensions, vector));
  const reasons = queries.map((query) => obstacle(parts, query, options));
  const fit = queries.filter((_, at) => reasons[at] === undefined);
  let reason: BatchStats["reason"] = reasons.findLast((each) => each !== undefined);
  let counts = NONE;
  let found: readonly (readonly SearchHit[] | undefined)[] = [];
  const pauses = new Pauses(parts.coordinator, () => check(parts, options, deadlineAtMs));
  if (fit.length > 0) {
    const batch = parts.reader().batch(fit, k, { includePayload, includeVector, ef });
    try {
      found = await inSlices(searchTogether(batch), pauses);
      if (found.length === 0) reason = batch.failure ?? "memory";
      else if (found.includes(undefined)) reason = batch.failure ?? "changed";
      counts = { ...batch.counts, rounds: batch.rounds, distances: batch.distances };
    } finally {
      batch.close();
    }
  }
  const results: SearchResult[] = [];
  let alone = 0;
  let next = 0;
  for (const [at, query] of queries.entries()) {
    // A search that is answered one-sidedly settles without the event loop, which would not turn before the last of them.
    if (pauses.areDue()) await pauses.take();
    const hits = reasons[at] === undefined ? found[next++] : undefined;
    if (hits !== undefined) {
      results.push(oneSidedAnswer(parts, hits));
      continue;
    }
    alone++;
    check(parts, options, deadlineAtMs);
    results.push(await searchOneSided(parts, query, withTimeLeft(parts, options, deadlineAtMs)));
  }
  return { results, batch: { ...counts, alone, ...(reason === undefined ? {} : { reason }) } };
}

/** @returns hits by query; none at all when the memory of the shards cannot be read, or there is none left to search in */
function* searchTogether(batch: BatchSearch): Slices<readonly (readonly SearchHit[] | undefined)[]> {
  try {
    if ((yield* batch.begin()) !== STATUS.SUCCESS) return [];
    yield* batch.search();
    return yield* batch.finish();
  } catch (error) {
    if (!isFull(error)) throw error;
    return [];
  }
}

function check(
  { coordinator, assertOpen }: VectorCollectionParts,
  { signal }: BatchSearchOptions,
  deadlineAtMs: number,
): void {
  if (signal?.aborted === true) throw abortError(signal);
  assertOpen();
  if (coordinator.nowMs() <= deadlineAtMs) return;
  throw new ShardloomError("ERR_TIMEOUT", "Cannot search for a batch of vectors as its deadline has passed", {
    details: { lateMs: coordinator.nowMs() - deadlineAtMs },
  });
}
