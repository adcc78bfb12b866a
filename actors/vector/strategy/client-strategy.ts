/**
 * Begins a search by the strategy that it names, or its collection.
 *
 * Invariant: options are checked before a strategy is asked for anything, in the same words for all of them; a strategy that cannot give what is
 * asked for hands over to a plainer one, and the result says which answered and why.
 */
import { invalidArgument } from "../../../src/errors.ts";
import { STRATEGIES, type Strategy } from "../../../src/routing/plan.ts";
import type { SearchOptions, SearchResult, VectorCollectionParts } from "../client-collection.ts";
import { searchCotra } from "../client-cotra.ts";
import { searchOneSided } from "../client-one-sided.ts";
import { type ShardSearchOptions, searchVectors } from "../client-search.ts";
import { checkedRecall, STRATEGY_NAMES, type StrategyName, usesGraph } from "../vector-options.ts";
import { searchRouted } from "./client-routed.ts";

type Search = (
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: ShardSearchOptions,
  recall: number,
) => Promise<SearchResult>;

const SEARCHES: Readonly<Record<StrategyName, Search>> = {
  scatter: (parts, vector, options) => searchVectors(parts, vector, options),
  "one-sided": (parts, vector, options) => searchOneSided(parts, vector, options),
  compass: (parts, vector, options, recall) => searchRouted(parts, vector, options, recall, "compass"),
  spire: (parts, vector, options, recall) => searchRouted(parts, vector, options, recall, "spire"),
  cotra: searchCotra,
  auto: searchAuto,
};

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a strategy that the collection has no graph for, and as every search. */
export async function searchBy(
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: SearchOptions,
): Promise<SearchResult> {
  const { recall = parts.options.recall, strategy, by, ...rest } = options;
  checkedRecall("search", recall);
  if (by !== undefined && !STRATEGY_NAMES.includes(by))
    throw invalidArgument("search", "by", `one of ${STRATEGY_NAMES.join(", ")}`, by);
  const [named, copies] = isCopyStrategy(strategy) ? [undefined, strategy] : [strategy, undefined];
  if (named !== undefined && !STRATEGY_NAMES.includes(named))
    throw invalidArgument("search", "strategy", `one of ${[...STRATEGY_NAMES, ...STRATEGIES].join(", ")}`, named);
  if (named !== undefined && by !== undefined && named !== by)
    throw invalidArgument("search", "by", `"${named}", which is its strategy, or left out`, by);
  const chosen = by ?? named ?? parts.options.strategy;
  if (chosen !== "scatter" && !usesGraph(parts.options)) {
    const name = by === undefined ? "strategy" : "by";
    throw invalidArgument("search", name, '"scatter", as the collection was opened with strategy scatter', chosen);
  }
  if (chosen !== "scatter" && options.after !== undefined)
    throw invalidArgument(
      "search",
      "after",
      `left out with strategy ${chosen}, as only scatter gives pages`,
      options.after,
    );
  return SEARCHES[chosen](parts, vector, copies === undefined ? rest : { ...rest, strategy: copies }, recall);
}

/** Names of the ways to choose between copies, and of those to find documents, are different words. */
function isCopyStrategy(name: SearchOptions["strategy"]): name is Strategy | undefined {
  return name === undefined || STRATEGIES.some((strategy) => strategy === name);
}

/**
 * Who is asked to find documents at once, and for what: what has to be exact, the shards, each for its own documents; what has a filter,
 * the shards near the query, which read the vectors that the filter costs more of; anything else this thread, as a message costs more than a search.
 */
function searchAuto(
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: ShardSearchOptions,
  recall: number,
): Promise<SearchResult> {
  const { exact = false, filter } = options;
  if (exact) return searchVectors(parts, vector, options);
  return filter === undefined
    ? searchOneSided(parts, vector, options)
    : searchRouted(parts, vector, options, recall, "compass");
}
