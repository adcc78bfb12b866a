/**
 * Cursors of text searches: where a page ended, and of which query.
 *
 * Invariant: a cursor continues only a search that ranks as the one that gave it: same collection, terms, phrases, boosts,
 * scoring and operator. What comes back with a hit, and how many hits a page has, may differ.
 */
import { decodeCursor, encodeCursor, fingerprintOf } from "../../src/routing/cursor.ts";
import type { RankPosition } from "../../src/routing/ranked.ts";
import type { TextCollectionParts } from "./client-collection.ts";
import type { TextSearch } from "./search-request.ts";

/** The cursor behind the last hit of a page. */
export function pageCursor(parts: TextCollectionParts, search: TextSearch, { id, score }: RankPosition): string {
  const { topologyEpoch } = parts.coordinator.snapshot;
  return encodeCursor({ id, score, direction: "descending", topologyEpoch, fingerprint: fingerprint(parts, search) });
}

/**
 * The position after which a page begins.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for whatever is no cursor of this search.
 */
export function pageStart(parts: TextCollectionParts, search: TextSearch, cursor: string): RankPosition {
  const { id, score } = decodeCursor(cursor, { direction: "descending", fingerprint: fingerprint(parts, search) });
  return { id, score };
}

function fingerprint({ name }: TextCollectionParts, { settings, query }: TextSearch): number {
  const { scoring, all, boosts } = settings;
  return fingerprintOf(["text", name, JSON.stringify([scoring, all, Array.from(boosts), query])]);
}
