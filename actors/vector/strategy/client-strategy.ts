/**
 * Begins a search by the strategy that it names, or its collection.
 *
 * Invariant: options and vector are checked here, before a strategy is asked for anything, so in the same words for all of them; a strategy that cannot
 * give what is asked for hands over to a plainer one, and the result says which answered and why.
 */
import { invalidArgument } from "../../../src/errors.ts";
import { STRATEGIES, type Strategy } from "../../../src/routing/plan.ts";
import type { SearchOptions, SearchResult, VectorCollectionParts } from "../client-collection.ts";
import { searchCotra } from "../client-cotra.ts";
import { searchOneSided } from "../client-one-sided.ts";
import { checkSearch, type ShardSearchOptions, searchVectors } from "../client-search.ts";
import { checkedQuery } from "../vector-checks.ts";
import {
  checkedRecall,
  type ResolvedVectorOptions,
  STRATEGY_NAMES,
  type StrategyName,
  usesGraph,
} from "../vector-options.ts";
import { searchRouted } from "./client-routed.ts";
import { COMPASS } from "./compass-strategy.ts";
import { SPIRE } from "./spire-strategy.ts";

/** All but `auto`, which is one of them. */
type OwnName = Exclude<StrategyName, "auto">;

/** @param query Checked, as are the options. */
type Search = (
  parts: VectorCollectionParts,
  query: Float32Array,
  options: ShardSearchOptions,
  recall: number,
) => Promise<SearchResult>;

/** How each strategy is carried out. */
const SEARCHES: Readonly<Record<OwnName, Search>> = {
  scatter: (parts, query, options) => searchVectors(parts, query, options),
  "one-sided": (parts, query, options) => searchOneSided(parts, query, options),
  compass: (parts, query, options, recall) => searchRouted(parts, query, options, recall, COMPASS),
  spire: (parts, query, options, recall) => searchRouted(parts, query, options, recall, SPIRE),
  cotra: searchCotra,
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
  const name = chosen === "auto" ? fitting(options) : chosen;
  let asked: ShardSearchOptions = copies === undefined ? rest : { ...rest, strategy: copies };
  checkSearch(parts, asked);
  checkAim(name, parts.options, options);
  if (name === "scatter" && options.recall === 1) asked = { ...asked, exact: true };
  return SEARCHES[name](parts, checkedQuery(parts.options.dimensions, vector), asked, recall);
}

/**
 * Refuses what the strategy does not go by, `recall` or `ef`, instead of doing something else without a word. Where scatter is exact it finds all, and so
 * whatever share is asked for.
 */
function checkAim(name: OwnName, collection: ResolvedVectorOptions, { recall, ef = 0, exact }: SearchOptions): void {
  if (name === "spire" && ef !== 0)
    throw invalidArgument("search", "ef", `left out with strategy ${name}, which goes by recall`, ef);
  if (recall === undefined || name === "compass" || name === "spire") return;
  if (name === "scatter" && (recall === 1 || exact === true || usesGraph(collection))) return;
  const rule = name === "scatter" ? "1, for an exact search, or left out" : "left out";
  throw invalidArgument("search", "recall", `${rule} with strategy ${name}, which goes by ef`, recall);
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
