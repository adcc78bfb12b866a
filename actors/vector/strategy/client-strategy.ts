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
import { COMPASS } from "./compass-strategy.ts";
import { COTRA } from "./cotra-strategy.ts";
import { SPIRE } from "./spire-strategy.ts";
import { ONE_SIDED, type RoutedQuery, SCATTER, type VectorStrategy } from "./vector-strategy.ts";

type Search = (
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: ShardSearchOptions,
  recall: number,
) => Promise<SearchResult>;

/** By name; all but `auto`, which is one of them. */
const STRATEGY_OF: Readonly<Record<Exclude<StrategyName, "auto">, VectorStrategy<RoutedQuery>>> = {
  scatter: SCATTER,
  "one-sided": ONE_SIDED,
  compass: COMPASS,
  spire: SPIRE,
  cotra: COTRA,
};
/** Those that choose how far to look by how much is to be found; the others go by `ef`. */
const BY_RECALL = { compass: COMPASS, spire: SPIRE };

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
  const name = chosen === "auto" ? fitting(options) : chosen;
  if (options.recall !== undefined && (name === "one-sided" || name === "cotra"))
    throw invalidArgument("search", "recall", `left out with strategy ${name}, which goes by ef`, options.recall);
  const search = searchOf(STRATEGY_OF[name]);
  return search(parts, vector, copies === undefined ? rest : { ...rest, strategy: copies }, recall);
}

/** How a strategy is carried out, by what it leaves out. */
function searchOf(strategy: VectorStrategy<RoutedQuery>): Search {
  const { selectShards, directMessage, name } = strategy;
  if (selectShards === undefined) return (parts, vector, options) => searchVectors(parts, vector, options);
  if (directMessage === undefined) return (parts, vector, options) => searchOneSided(parts, vector, options);
  if (name !== "compass" && name !== "spire") return searchCotra;
  return (parts, vector, options, recall) => searchRouted(parts, vector, options, recall, BY_RECALL[name]);
}

/** Names of the ways to choose between copies, and of those to find documents, are different words. */
function isCopyStrategy(name: SearchOptions["strategy"]): name is Strategy | undefined {
  return name === undefined || STRATEGIES.some((strategy) => strategy === name);
}

/**
 * Who is asked to find documents at once, and for what: what has to be exact, the shards, each for its own documents; what has a filter, or says how
 * much is to be found, the shards near the query, which read the vectors that it costs more of; anything else this thread, as a message costs more
 * than a search.
 */
function fitting({ exact = false, filter, recall }: SearchOptions): "scatter" | "one-sided" | "compass" {
  if (exact) return "scatter";
  return filter === undefined && recall === undefined ? "one-sided" : "compass";
}
