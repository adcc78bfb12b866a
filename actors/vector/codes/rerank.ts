/**
 * Ranks candidates again by their exact distances.
 *
 * Invariant: the answer is in the total order (score, id), so it depends neither on the order of the candidates nor on their codes.
 * Cost: one exact distance a candidate, and a sort of the candidates.
 */
import { compareRanked } from "../../../src/routing/ranked.ts";
import type { VectorId } from "../../../src/store/id-codec.ts";
import type { VectorCode } from "./vector-code.ts";

/** Candidates beyond the share that the code recommends: of a few hits, a few more. */
const SPARE = 8;

/** A candidate with its exact distance. */
export interface Reranked<C> {
  readonly candidate: C;
  readonly id: VectorId;
  readonly score: number;
}

/** How many candidates to gather by distances of codes, for k hits. */
export function candidatesFor(code: VectorCode, k: number): number {
  return code.exact ? k : Math.ceil(k * code.overfetch) + SPARE;
}

/** @param exactScore The candidate's exact distance; NaN when it is gone meanwhile, which drops it. @returns At most k, best first. */
export function rerank<C extends { readonly id: VectorId }>(
  candidates: readonly C[],
  k: number,
  exactScore: (candidate: C) => number,
): Reranked<C>[] {
  const ranked: Reranked<C>[] = [];
  for (const candidate of candidates) {
    const score = exactScore(candidate);
    if (!Number.isNaN(score)) ranked.push({ candidate, id: candidate.id, score });
  }
  return ranked.sort((a, b) => compareRanked(a, b)).slice(0, k);
}
