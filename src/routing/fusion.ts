/**
 * Hybrid ranking: several rankings of the same documents (text scores, vector distances) blended into one.
 *
 * Invariant: the output is in the total order (fused score descending, id), each id once; the same lists in the same order of
 * sources give the same output bit by bit. A document that a source did not return gets nothing from it, and a source of
 * weight 0 proposes no documents.
 * Source: reciprocal rank fusion by Cormack, Clarke and Büttcher, SIGIR 2009 (k0 = 60); weighted blending is CombSUM over normalised
 * scores, Fox and Shaw, TREC-2. **Divergence**: ties within a source have ranks of their own, by id.
 */
import { invalidArgument } from "../errors.ts";
import { mergeRanked } from "./merge.ts";
import { compareRanked, type RankDirection, type Ranked, signOf } from "./ranked.ts";

/** One ranking. */
export interface FusionSource<T extends Ranked = Ranked> {
  /** Sorted by (score, id) in the source's direction. Of one id in it, the highest version stands. */
  readonly hits: readonly T[];
  /** Whether small scores are better (distances), or large ones. */
  readonly direction: RankDirection;
  /** How much it counts against the others, finite and ≥ 0; not all may be 0. @default 1 */
  readonly weight?: number;
}

/** How {@link fuseByRank} blends. */
export interface RankFusionOptions {
  /** At most so many hits, an integer ≥ 0. */
  readonly k: number;
  /** Flattens the difference between first ranks; finite, ≥ 0. @default 60 */
  readonly k0?: number;
}

/** How {@link fuseByScore} blends. */
export interface ScoreFusionOptions {
  /** At most so many hits, an integer ≥ 0. */
  readonly k: number;
  /**
   * `min-max`: a source's best score becomes 1 and its worst 0; all equal become 1. `max`: scores are divided by the source's
   * largest; distances count as 1 less that. `max` needs scores ≥ 0, and keeps how far the worst is from the best.
   * @default "min-max"
   */
  readonly normalize?: "min-max" | "max";
}

/** What one source said about a fused hit. */
export interface SourceHit<T extends Ranked = Ranked> {
  /** Place in the source's ranking, from 1. */
  readonly rank: number;
  /** The source's own score. */
  readonly score: number;
  /** What this source added to the fused score. */
  readonly share: number;
  readonly hit: T;
}

/** One document of the blended ranking. */
export interface FusedHit<T extends Ranked = Ranked> {
  readonly id: string | number;
  /** Larger is better. */
  readonly score: number;
  /** In the order of the sources given; undefined where a source did not return the document. */
  readonly sources: readonly (SourceHit<T> | undefined)[];
}

const ACTION = "fuse rankings";
const DEFAULT_K0 = 60;

/**
 * Blends by ranks alone: a document's score is the sum of `weight / (k0 + rank)` over the sources that returned it.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for bad weights, `k`, `k0` or directions; `ERR_CORRUPT` for a NaN score or a list
 *   that is not sorted.
 */
export function fuseByRank<T extends Ranked>(
  sources: readonly FusionSource<T>[],
  options: RankFusionOptions,
): FusedHit<T>[] {
  const k0 = options.k0 ?? DEFAULT_K0;
  if (!(k0 >= 0 && k0 < Number.POSITIVE_INFINITY)) throw invalidArgument(ACTION, "k0", "a finite number ≥ 0", k0);
  const weights = checkedWeights(sources);
  return fuse(sources, options.k, weights, (hits, weight) => hits.map((_, at) => weight / (k0 + at + 1)));
}

/**
 * Blends normalised scores: a document's score is the weighted mean, in `[0, 1]`, of its normalised scores, 0 where a
 * source did not return it. An infinite score counts as 1 at the good end and as 0 at the bad one.
 *
 * @throws {ShardloomError} As {@link fuseByRank}; also `ERR_INVALID_ARGUMENT` for a negative score under `max`.
 */
export function fuseByScore<T extends Ranked>(
  sources: readonly FusionSource<T>[],
  options: ScoreFusionOptions,
): FusedHit<T>[] {
  const normalize = options.normalize ?? "min-max";
  if (normalize !== "min-max" && normalize !== "max")
    throw invalidArgument(ACTION, "normalize", '"min-max" or "max"', normalize);
  const weights = checkedWeights(sources);
  const largest = Math.max(...weights);
  const total = weights.reduce((sum, weight) => sum + weight / largest, 0); // no overflow, whatever the weights are
  return fuse(sources, options.k, weights, (hits, weight, direction) => {
    const normalized = normalize === "max" ? overMax(hits, direction) : overRange(hits, direction);
    return normalized.map((score) => (score * (weight / largest)) / total);
  });
}

function checkedWeights(sources: readonly FusionSource[]): number[] {
  if (sources.length === 0) throw invalidArgument(ACTION, "sources", "at least one ranking", sources);
  const weights = sources.map(({ weight }) => weight ?? 1);
  for (const weight of weights) {
    if (typeof weight !== "number" || !(weight >= 0 && weight < Number.POSITIVE_INFINITY))
      throw invalidArgument(ACTION, "weight", "a finite number ≥ 0", weight);
  }
  if (weights.every((weight) => weight === 0)) throw invalidArgument(ACTION, "the largest weight", "greater than 0", 0);
  return weights;
}

interface Building<T extends Ranked> {
  readonly id: string | number;
  score: number;
  readonly sources: (SourceHit<T> | undefined)[];
}

function fuse<T extends Ranked>(
  sources: readonly FusionSource<T>[],
  k: number,
  weights: readonly number[],
  sharesOf: (hits: readonly T[], weight: number, direction: RankDirection) => readonly number[],
): FusedHit<T>[] {
  if (!Number.isSafeInteger(k) || k < 0) throw invalidArgument(ACTION, "k", "an integer ≥ 0", k);
  const byId = new Map<string | number, Building<T>>();
  const rankings = sources.map((source) => mergeRanked([source.hits], source.hits.length, source));
  for (const [index, hits] of rankings.entries()) {
    const { direction } = sources[index] as FusionSource<T>;
    const weight = weights[index] as number;
    const shares = sharesOf(hits, weight, direction);
    for (const [at, hit] of hits.entries()) {
      let building = byId.get(hit.id);
      if (building === undefined) {
        building = { id: hit.id, score: 0, sources: sources.map(() => undefined) };
        byId.set(hit.id, building);
      }
      const share = shares[at] as number;
      building.score += share;
      building.sources[index] = { rank: at + 1, score: hit.score, share, hit };
    }
  }
  return [...byId.values()]
    .filter((building) => building.sources.some((part, index) => part !== undefined && weights[index] !== 0))
    .sort((a, b) => compareRanked(a, b, -1))
    .slice(0, k);
}

/** Finite smallest and largest score; of none, both are 0. */
function boundsOf(hits: readonly Ranked[]): { min: number; max: number } {
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (const { score } of hits) {
    if (score < min && score !== Number.NEGATIVE_INFINITY) min = score;
    if (score > max && score !== Number.POSITIVE_INFINITY) max = score;
  }
  return min > max ? { min: 0, max: 0 } : { min, max };
}

function overRange(hits: readonly Ranked[], direction: RankDirection): number[] {
  const { min, max } = boundsOf(hits);
  const sign = signOf(ACTION, direction);
  const worst = sign === 1 ? max : min;
  const span = Math.abs(max - min);
  return hits.map(({ score }) => {
    if (!Number.isFinite(score)) return sign * score < 0 ? 1 : 0;
    if (span === 0) return 1;
    // Halves, where the difference of two finite scores is none.
    const part = Number.isFinite(span)
      ? Math.abs(score - worst) / span
      : Math.abs(score / 2 - worst / 2) / Math.abs(max / 2 - min / 2);
    return Math.min(1, part);
  });
}

function overMax(hits: readonly Ranked[], direction: RankDirection): number[] {
  const { max } = boundsOf(hits);
  const ascending = signOf(ACTION, direction) === 1;
  return hits.map(({ score }) => {
    if (score < 0) throw invalidArgument(ACTION, "score", 'a number ≥ 0 to be normalised by "max"', score);
    const part = score === Number.POSITIVE_INFINITY ? 1 : max === 0 ? 0 : score / max;
    return ascending ? 1 - part : part;
  });
}
