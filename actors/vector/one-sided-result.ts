/**
 * What a one-sided search comes to: hits, or why there are none.
 *
 * Invariant: a status other than SUCCESS comes without hits.
 */
import type { VectorId } from "../../src/store/id-codec.ts";
import type { SearchHit } from "./vector-replies.ts";

/** Status of a search that found fewer documents than there are, and than were wanted: the graph does not lead to them. */
export const TOO_FEW = -2;
/** Status of a search with a filter, while it is not known which documents pass. */
export const NOT_KNOWN = -3;

/** What a one-sided search found, and what it took. */
export interface OneSidedResult {
  /** Ascending by (score, id). */
  readonly hits: readonly SearchHit[];
  /** SUCCESS, or why the answer has to come from the shards, {@link TOO_FEW} included; then there are no hits. */
  readonly status: number;
  /** Distances computed, of waiting rows too. */
  readonly distances: number;
}

/** A document that moved to another row meanwhile was found twice: the newer version counts. */
export function withoutTwins(hits: readonly SearchHit[]): SearchHit[] {
  const newest = new Map<VectorId, SearchHit>();
  for (const hit of hits) {
    const other = newest.get(hit.id);
    if (other === undefined || other.version < hit.version) newest.set(hit.id, hit);
  }
  return newest.size === hits.length ? [...hits] : hits.filter((hit) => newest.get(hit.id) === hit);
}

export function withoutPayload({ payload: _, ...hit }: SearchHit): SearchHit {
  return hit;
}

export function none(status: number, distances: number): OneSidedResult {
  return { hits: [], status, distances };
}
