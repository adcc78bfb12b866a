/**
 * Pages of vector searches: a cursor says where one ended, and the next is what ranks behind that.
 *
 * An index cannot begin in the middle of a ranking, so the shards are asked for more and more of the nearest, twice as many each time, until
 * a whole page lies behind the position. Invariant: a page is taken from the nearest of all shards together, so that nothing which ranks
 * before its last hit is left out; a cursor continues only a search of the same collection, query and filter.
 */
import { decodeCursor, encodeCursor, fingerprintOf } from "../../src/routing/cursor.ts";
import { compareRanked, type RankPosition } from "../../src/routing/ranked.ts";
import { MAX_K } from "./vector-checks.ts";
import type { SearchRequest } from "./vector-requests.ts";

const DIRECTION = "ascending";

/** How a search is cut into pages. */
export interface SearchPage {
  readonly name: string;
  readonly request: SearchRequest;
  /** Where the page before ended. */
  readonly after: RankPosition | undefined;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for whatever is no cursor of this search. */
export function pageOf(name: string, request: SearchRequest, cursor: string | undefined): SearchPage {
  if (cursor === undefined) return { name, request, after: undefined };
  const { id, score } = decodeCursor(cursor, { direction: DIRECTION, fingerprint: fingerprint(name, request) });
  return { name, request, after: { id, score } };
}

/** How many of the nearest are asked for at first. */
export function firstWanted({ request, after }: SearchPage): number {
  return after === undefined ? request.k : more(request.k);
}

/** How many of the nearest are asked for next; undefined when the page is whole, or there are no more. */
export function nextWanted(
  { request }: SearchPage,
  found: number,
  nearest: number,
  wanted: number,
): number | undefined {
  return found === request.k || nearest < wanted || wanted === MAX_K ? undefined : more(wanted);
}

function more(wanted: number): number {
  return Math.min(MAX_K, 2 * wanted);
}

/** The page out of the nearest of all shards. */
export function hitsOf<Hit extends RankPosition>(
  { request, after }: SearchPage,
  nearest: readonly Hit[],
): readonly Hit[] {
  if (after === undefined) return nearest;
  return nearest.filter((hit) => hit.id !== after.id && compareRanked(hit, after) > 0).slice(0, request.k);
}

/** The cursor behind the last hit of a page. */
export function cursorOf({ name, request }: SearchPage, { id, score }: RankPosition, topologyEpoch: number): string {
  return encodeCursor({ id, score, direction: DIRECTION, topologyEpoch, fingerprint: fingerprint(name, request) });
}

function fingerprint(name: string, { queries, filter }: SearchRequest): number {
  const bytes = new Uint8Array(queries.buffer, queries.byteOffset, queries.byteLength);
  return fingerprintOf(["vector", name, bytes, filter ?? ""]);
}
