/**
 * What a one-sided search is given, and what it comes to: hits, or why there are none.
 *
 * Invariant: a status other than SUCCESS comes without hits.
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS } from "../../native-bridge/status.ts";
import type { VectorId } from "../../src/store/id-codec.ts";
import type { ScanOptions } from "./exact-scan.ts";
import type { PayloadFilter } from "./payload-filter.ts";
import type { Code } from "./routing/code-table.ts";
import type { ShardView } from "./shard-view.ts";
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
  /** Of the documents that were read: headers of vertices, rows and records. */
  readonly bytes: number;
}

/** How to search one-sidedly. */
export interface OneSidedOptions extends ScanOptions {
  /** Candidates that are kept on the way, at least k: more find more. @default 0, the collection's `expansionSearch` */
  readonly ef?: number;
  /** Documents that are no hits are left out by their payloads. @default none is */
  readonly filter?: PayloadFilter;
}

/** Vertices that others found, nearest first, and the distances of their codes. */
export interface FoundVertices {
  readonly vertices: Int32Array;
  readonly distances: Float32Array;
}

/** The vertex that led to a row. */
export interface BehindVertex {
  readonly vertex: number;
  readonly incarnation: number;
  readonly version: number;
  readonly distance: number;
}

/** Waiting rows near a query, as they were found before the graph is searched by others. */
export interface WaitingRows {
  readonly status: number;
  /** Hits by the address of their row. */
  readonly found: ReadonlyMap<number, SearchHit>;
  readonly distances: number;
  /** The query's code; undefined: it has none. */
  readonly code: Code | undefined;
  readonly bytes: Uint8Array;
  /** When they were looked at, and which chunks there were then. */
  readonly atMs: number;
  readonly generation: number;
}

/** Where the parts of the collection are, asked anew for every search. */
export interface OneSidedSource {
  readonly views: readonly ShardView[];
  readonly rootOf: (shard: number) => RegionRef | undefined;
  readonly graph: RegionRef | undefined;
  /** The shard whose row of an id counts, by the id's hash. */
  readonly shardOf: (hash: number) => number;
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
  return { hits: [], status, distances, bytes: 0 };
}

/** Of a search that this thread has no memory left for, while the shards may have theirs. */
export const NO_ROOM: OneSidedResult = none(STATUS.LOCAL_LENGTH_ERROR, 0);
