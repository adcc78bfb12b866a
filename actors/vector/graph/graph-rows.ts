/**
 * The graph of a node as an index of one shard's rows: what a search of the whole graph finds, as far as it is the shard's.
 *
 * All shards of a node search the same graph, each for its own rows; what is nearest of all that they give is what one search of the graph finds. So
 * a shard gives as many as are its own, be it none, at the price of as many searches as the node has shards. What it cannot know is whether the
 * others' candidates are hits: they may wait with another vector, pass no filter, or be copies that somebody else is asked for. So it says how far it
 * has looked: what it did not give is farther away than that. Whoever joins the answers has all that these searches find when the last hit is no
 * farther than any of them has looked, see {@link isWithin}.
 * Invariant: a row is given only while the document that was linked is in it and no newer one waits to be linked. Rows are candidates: by their codes.
 */
import { INCARNATION } from "../../../native-bridge/cell-layout.ts";
import { MAX_EF } from "../../../native-bridge/graph-kernels.ts";
import { firstRowOf, rowsInChunk } from "../../../src/store/collection-layout.ts";
import type { RowBitmap } from "../row-bitmap.ts";
import { isExactCode, type ResolvedVectorOptions } from "../vector-options.ts";
import type { VectorStore } from "../vector-store.ts";
import { GraphCode, rankedAgain } from "./graph-code.ts";
import { unlessFull } from "./graph-errors.ts";
import type { GraphIndex } from "./graph-index.ts";
import type { Candidate } from "./label-search.ts";

/** How far a search has looked that gave all rows of its shard, and one of which only that is known that there are more. */
export const EVERYWHERE: number = Number.POSITIVE_INFINITY;
const UNTOLD = Number.MAX_VALUE;
/** Candidates beyond those that are wanted: some are not there any more. */
const SPARE = 16;
/** By how much the distance of a code and that of its vector may differ, summed up in another order: this part of it, and this. */
const ROUNDING = { part: 1e-5, least: 2 ** -22 } as const;

/** What finds rows near a query. */
export interface RowIndex {
  /** Candidates of the last search, best first. */
  readonly rows: Int32Array;
  readonly size: number;
  /** Candidates of the last search, whatever shard they are of. @default all are the shard's */
  readonly total?: number;
  /** Distance up to which the last search gave all rows that wait for nothing, as far as the graph leads to them. @default {@link EVERYWHERE} */
  readonly reach?: number;
  /** @returns how many rows were found: `wanted`, or less; −1: it cannot be searched now */
  search(query: Float32Array, wanted: number): number;
}

/**
 * Rows that a shard has to have for an answer of `limit` that is not scanned for: all, when the index is the shard's own; else its part of what the
 * node is to have. Infinite: the graph did not lead to enough.
 *
 * @param margin Candidates that are to pass, for each that is wanted; 0: all do.
 */
export function leastOf({ total, reach }: RowIndex, found: number, limit: number, margin: number): number {
  if (total === undefined) return limit;
  if (reach === EVERYWHERE) return 0;
  return total < limit ? Number.POSITIVE_INFINITY : Math.min(limit, Math.ceil((margin * limit * found) / total));
}

/**
 * Whether nothing is missing among joined hits that the searches behind them find.
 *
 * @param last Score of the last of the hits that were wanted; undefined: there are fewer.
 * @param reach The least of the shards.
 */
export function isWithin(last: number | undefined, reach: number): boolean {
  const slack = ROUNDING.part * Math.abs(reach) + ROUNDING.least;
  return reach === EVERYWHERE || (last !== undefined && last <= reach + slack);
}

export class GraphRows implements RowIndex {
  rows: Int32Array = new Int32Array(64);
  total = 0;
  reach: number = EVERYWHERE;
  readonly #graph: GraphIndex;
  readonly #store: VectorStore;
  readonly #options: ResolvedVectorOptions;
  readonly #code: GraphCode;
  readonly #shard: number;
  readonly #waiting: Pick<RowBitmap, "has" | "count">;

  /** @param waiting Rows that wait to be linked: they are looked at otherwise. */
  constructor(
    graph: GraphIndex,
    store: VectorStore,
    options: ResolvedVectorOptions,
    shard: number,
    waiting: Pick<RowBitmap, "has" | "count">,
  ) {
    this.#graph = graph;
    this.#store = store;
    this.#options = options;
    this.#code = new GraphCode(options);
    this.#shard = shard;
    this.#waiting = waiting;
  }

  get size(): number {
    return this.#graph.size;
  }

  search(query: Float32Array, wanted: number): number {
    this.total = 0;
    this.reach = -EVERYWHERE;
    if (wanted > MAX_EF || !this.#code.encode(query)) return -1;
    const kept = Math.min(MAX_EF, Math.max(this.#options.expansionSearch, rankedAgain(this.#options, wanted) + SPARE));
    const run = (): Candidate[] | undefined => this.#graph.search().run(this.#code.bytes, undefined, [], kept, kept);
    const candidates = unlessFull(run, undefined); // the rows can be scanned without any more memory
    if (candidates === undefined) return -1;
    if (this.rows.length < candidates.length) this.rows = new Int32Array(2 * candidates.length);
    const { i32 } = this.#store.root.arena;
    let found = 0;
    for (const { shard, address, incarnation } of candidates) {
      if (shard !== this.#shard) continue;
      const row = this.#rowAt(address);
      const isThere = row >= 0 && this.#store.recordOf(row) !== 0 && i32[(address >>> 2) + INCARNATION] === incarnation;
      if (isThere && !this.#waiting.has(row)) this.rows[found++] = row;
    }
    this.total = candidates.length;
    const last = candidates.at(-1);
    if (found + this.#waiting.count >= this.#store.count) this.reach = EVERYWHERE;
    else if (last !== undefined) this.reach = isExactCode(this.#options) ? last.distance : UNTOLD;
    return found;
  }

  #rowAt(address: number): number {
    const { geometry, rowsUsed } = this.#store;
    for (let chunk = 0, first = 0; first < rowsUsed; first = firstRowOf(geometry, ++chunk)) {
      const within = address - this.#store.cellOf(first);
      if (within < 0 || within >= rowsInChunk(geometry, chunk) * geometry.stride) continue;
      return first + Math.floor(within / geometry.stride);
    }
    return -1;
  }
}
