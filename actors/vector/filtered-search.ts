/**
 * The nearest of the documents that pass a filter: searched in the graph, or scanned where that costs less.
 *
 * Invariant: exact as to the filter: what is a hit passed it when its row was read. Fewer hits than were wanted are all that pass, as what passes is
 * scanned whole then, and nothing was linked meanwhile; or there is a status, and none.
 */
import { INCARNATION, USER1 } from "../../native-bridge/cell-layout.ts";
import type { Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS } from "../../native-bridge/status.ts";
import { EVERYWHERE, isWithin } from "./graph/graph-rows.ts";
import type { GraphSearch, GraphSearchResult } from "./graph/graph-search.ts";
import { FAILS, type PassesAt, type PassingVertices, versionBits } from "./graph/passing-vertices.ts";
import { NOT_KNOWN, none, type OneSidedResult, TOO_FEW } from "./one-sided-result.ts";
import type { PassingSets } from "./passing-sets.ts";
import type { PayloadFilter } from "./payload-filter.ts";
import { NOT_FOUND, type RowReader } from "./row-reader.ts";
import type { ShardView } from "./shard-view.ts";

/** Distances of a search of the graph, about: so many, and so many for each candidate. */
const SEARCH_DISTANCES = 200;
const CANDIDATE_DISTANCES = 6;
/**
 * Those of a scan in the time of one of them: of copies that lie side by side, and of codes where they are. Measured with vectors of the base as
 * queries, MNIST's first 20,000 as u8, ef 10 to 64, filters that pass 3 % to 50 %: both took the same time at 4 to 5.5 for copies.
 */
const SCANNED = { copies: 4.5, inPlace: 2.5 } as const;
/** Scans of what passes, each for more of it, as documents had gone or moved. */
const PASSING_ATTEMPTS = 4;

/** What a thread searches with. */
export interface FilteredParts {
  readonly graph: GraphSearch;
  readonly kernels: Kernels;
  readonly sets: PassingSets;
}

export interface FilteredQuery {
  readonly query: Float32Array;
  readonly code: Uint8Array;
  readonly k: number;
  readonly ef: number;
  /** Documents that are read of those that are nearest by their codes, more than k, as some are gone then. */
  readonly ranked: number;
  /** Whether codes tell the documents' distances: then no more are read than are hits, or as near as the last. */
  readonly isExact: boolean;
  /** Of the filter. */
  readonly key: string;
  readonly root: RegionRef | undefined;
  /** Documents that there are, about. */
  readonly live: number;
}

/** What is done for the search, which keeps the hits that are read. */
export interface FilteredSteps {
  /** What is known of the documents that pass, before any is read. */
  begin(among: PassingVertices): void;
  search(among: PassingVertices): GraphSearchResult;
  /** The hits so far, k at most. */
  result(): OneSidedResult;
  readonly passes: PassesAt;
}

/** @param scanned Distances that were computed before. */
export function searchPassing(
  { graph, kernels, sets }: FilteredParts,
  { query, code, k, ef, ranked, isExact, key, root, live }: FilteredQuery,
  { begin, search, result, passes }: FilteredSteps,
  scanned: number,
): OneSidedResult {
  let distances = scanned;
  const status = graph.refresh(root);
  if (status !== STATUS.SUCCESS) return none(status, distances);
  const among = sets.of(key, graph.view, passes);
  if (among === undefined) return none(NOT_KNOWN, distances);
  begin(among);
  const searched = SEARCH_DISTANCES + (CANDIDATE_DISTANCES * ef * live) / Math.max(1, among.count);
  if (among.count > (among.scan.lacksRoom ? SCANNED.inPlace : SCANNED.copies) * searched) {
    const found = search(among);
    distances += found.distances;
    const failed = failureOf(found);
    if (failed !== STATUS.SUCCESS) return none(failed, distances);
    const { hits, bytes } = result();
    if (hits.length === k) return { hits, status, distances, bytes };
  }
  for (let attempt = 0, most = ranked; attempt < PASSING_ATTEMPTS; attempt++, most *= 4) {
    const nearest = among.nearest(graph.view, kernels, code, most);
    distances += among.count;
    if (nearest === undefined) return none(STATUS.REGION_REVOKED, distances);
    const { vertices } = nearest;
    // Again all of them, as documents had gone, or had moved away from the vertices that are the nearest.
    const read = !isExact ? ranked : attempt === 0 ? withTies(nearest.distances, k) : vertices.length;
    const failed = failureOf(graph.rank(root, query, vertices, read));
    if (failed !== STATUS.SUCCESS) return none(failed, distances);
    const { hits, bytes } = result();
    const isWhole = vertices.length === among.count && among.isCurrent(graph.view);
    const reach = isWhole && read >= vertices.length ? EVERYWHERE : (nearest.distances[read - 1] ?? 0);
    const isNearest = hits.length === k && (!isExact || isWithin(hits[k - 1]?.score, reach));
    if (isNearest || (isWhole && hits.length < k)) return { hits, status, distances, bytes };
  }
  return none(TOO_FEW, distances);
}

/** Whether documents of vertices pass, by their rows. */
export function passesAt(
  rows: RowReader,
  views: readonly ShardView[],
  { accepts }: { readonly accepts: PayloadFilter["accepts"] },
): PassesAt {
  return (address, incarnation, shard) => {
    const view = views[shard];
    const row = view?.rowAt(address) ?? -1;
    if (view === undefined || row < 0) return undefined;
    let payload: Uint8Array | undefined;
    let version = 0;
    let isOther = false;
    const status = rows.read(view, row, (cell, record) => {
      isOther = rows.arena.i32[(cell >>> 2) + INCARNATION] !== incarnation;
      version = versionBits(rows.arena.i32[(cell >>> 2) + USER1] as number);
      payload = isOther ? undefined : rows.copyStored(cell, record, 0, false, true).payload;
    });
    if (status === NOT_FOUND || (status === STATUS.SUCCESS && isOther)) return FAILS; // it is gone
    if (status !== STATUS.SUCCESS) return undefined;
    return accepts(payload) ? version : FAILS;
  };
}

/** How many are hits, if all are there still, or as near as the last. */
export function withTies(distances: ArrayLike<number>, k: number): number {
  let count = Math.min(k, distances.length);
  while (count < distances.length && distances[count] === distances[k - 1]) count++;
  return count;
}

/** Why a search is no answer; SUCCESS: it is one. */
export function failureOf({ status, unread }: GraphSearchResult): number {
  return status === STATUS.SUCCESS && unread > 0 ? STATUS.RETRY_EXCEEDED : status;
}
