/**
 * Hybrid search: a text search and a vector search of the same documents at once, blended into one ranking.
 *
 * Invariant: both searches run under the same deadline and options; when one fails the other is given up. A document belongs to
 * both when it has the same id in both collections.
 */
import type { ReadOptions } from "../actors/call-options.ts";
import { checkExplain } from "../actors/explained-value.ts";
import type { Explanation } from "../actors/planned-read.ts";
import type { TextCollection, TextExplanation, TextHit, TextSearchOptions } from "../actors/text/client-collection.ts";
import type { SearchOptions, VectorCollection, VectorHit } from "../actors/vector/client-collection.ts";
import { invalidArgument } from "./errors.ts";
import { type FusedHit, type FusionSource, fuseByRank, fuseByScore, type SourceHit } from "./routing/fusion.ts";
import type { Completeness } from "./routing/gather.ts";

/** What is looked for. */
export interface HybridQuery {
  readonly text: string;
  /** Finite components, as many as the vector collection has dimensions. */
  readonly vector: ArrayLike<number>;
}

/** How the two rankings are found and blended. Options of every read hold for both searches. */
export interface HybridSearchOptions extends Omit<ReadOptions, "explain"> {
  /** Answers wanted, `1..65536`. @default 10 */
  readonly k?: number;
  /** Answers that each of the searches gives to the blending, at least `k`. @default the larger of 50 and 4 k */
  readonly candidates?: number;
  /** `rank`: reciprocal rank fusion. `score`: the weighted mean of normalised scores. @default "rank" */
  readonly fusion?: "rank" | "score";
  /** How much each ranking counts, finite and at least 0, not both 0. @default 1 each */
  readonly weights?: { readonly text?: number; readonly vector?: number };
  /** For `rank`: flattens the difference between first ranks; finite, at least 0. @default 60 */
  readonly k0?: number;
  /** For `score`. @default "min-max" */
  readonly normalize?: "min-max" | "max";
  /** Only of the text search. */
  readonly text?: Pick<
    TextSearchOptions,
    "scoring" | "fields" | "prefix" | "operator" | "includeFields" | "includeTerms"
  >;
  /** Only of the vector search. */
  readonly vector?: Pick<SearchOptions, "filter" | "exact" | "ef" | "includeVector">;
  /** @default true */
  readonly includePayload?: boolean;
  /** Adds the plans of both searches and what became of them to the result, or gives it to a function. @default false */
  readonly explain?: boolean | ((explanation: HybridExplanation) => void);
}

/** The accounts of both searches. */
export interface HybridExplanation {
  readonly text: TextExplanation;
  readonly vector: Explanation;
}

/** One document of the blended ranking. */
export interface HybridHit {
  readonly id: string | number;
  /** Larger is better. */
  readonly score: number;
  /** Its place in the text search; undefined when it is not among the candidates. */
  readonly text: SourceHit<TextHit> | undefined;
  /** Its place in the vector search. */
  readonly vector: SourceHit<VectorHit> | undefined;
}

/** What a hybrid search found, and how complete each part of it is. */
export interface HybridSearchResult {
  readonly hits: readonly HybridHit[];
  readonly completeness: { readonly text: Completeness; readonly vector: Completeness };
  /** How far the answer may be behind the primaries, in ms, at the most; see the searches that it is made of. */
  readonly stalenessMs: number;
  /** When it was asked for. */
  readonly explain?: HybridExplanation;
}

const ACTION = "search";
const LEAST_CANDIDATES = 50;
const CANDIDATES_PER_HIT = 4;

/**
 * Searches texts and vectors at once and blends the rankings.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for bad options, and those of both searches.
 */
export async function hybridSearch(
  texts: TextCollection,
  vectors: VectorCollection,
  query: HybridQuery,
  options: HybridSearchOptions = {},
): Promise<HybridSearchResult> {
  const { k = 10, fusion = "rank", weights = {}, k0, normalize, text, vector, candidates, ...rest } = options;
  const { explain, ...common } = rest;
  const isExplained = checkExplain(ACTION, explain);
  if (!Number.isInteger(k) || k < 1) throw invalidArgument(ACTION, "k", "an integer of at least 1", k);
  if (fusion !== "rank" && fusion !== "score") throw invalidArgument(ACTION, "fusion", '"rank" or "score"', fusion);
  const wanted = candidates ?? Math.max(LEAST_CANDIDATES, CANDIDATES_PER_HIT * k);
  if (!Number.isInteger(wanted) || wanted < k)
    throw invalidArgument(ACTION, "candidates", `an integer of at least ${k} (k)`, wanted);
  const blend = (lists: readonly FusionSource<TextHit | VectorHit>[]): FusedHit<TextHit | VectorHit>[] =>
    fusion === "rank"
      ? fuseByRank(lists, { k, ...(k0 === undefined ? {} : { k0 }) })
      : fuseByScore(lists, { k, ...(normalize === undefined ? {} : { normalize }) });
  const sources = (of: readonly TextHit[], and: readonly VectorHit[]): FusionSource<TextHit | VectorHit>[] => [
    { hits: of, direction: "descending", weight: weights.text ?? 1 },
    { hits: and, direction: "ascending", weight: weights.vector ?? 1 },
  ];
  blend(sources([], [])); // what is wrong with the options is told before anything is sent
  const failure = new AbortController();
  const signal = common.signal === undefined ? failure.signal : AbortSignal.any([common.signal, failure.signal]);
  const terms = { ...common, k: wanted, signal, explain: isExplained };
  try {
    const [byText, byVector] = await Promise.all([
      texts.search(query.text, { ...text, ...terms }),
      vectors.search(query.vector, { ...vector, ...terms }),
    ]);
    const hits = blend(sources(byText.hits, byVector.hits)).map(({ id, score, sources: [inText, inVector] }) => ({
      id,
      score,
      text: inText,
      vector: inVector,
    }));
    const completeness = { text: byText.completeness, vector: byVector.completeness };
    const stalenessMs = Math.max(byText.stalenessMs, byVector.stalenessMs);
    if (byText.explain === undefined || byVector.explain === undefined) return { hits, completeness, stalenessMs };
    const told = { text: byText.explain, vector: byVector.explain };
    if (typeof explain === "function") explain(told);
    return { hits, completeness, stalenessMs, explain: told };
  } catch (error) {
    failure.abort(error);
    throw error;
  }
}
