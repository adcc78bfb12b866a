/**
 * The graph of a node as an index of one shard's rows: what a search of the whole graph finds, as far as it is the shard's.
 *
 * All shards of a node search the same graph, each for its own rows; what is nearest of all that they give is what one search of the graph finds. So
 * nothing has to be known of the other shards, at the price of as many searches as the node has shards.
 * Invariant: a row is given only while the document that was linked is in it and no newer one waits to be linked. Rows are candidates: by their codes.
 */
import { INCARNATION } from "../../../native-bridge/cell-layout.ts";
import { firstRowOf, rowsInChunk } from "../../../src/store/collection-layout.ts";
import type { RowBitmap } from "../row-bitmap.ts";
import type { ResolvedVectorOptions } from "../vector-options.ts";
import type { VectorStore } from "../vector-store.ts";
import { GraphCode, rankedAgain } from "./graph-code.ts";
import { unlessFull } from "./graph-errors.ts";
import type { GraphIndex } from "./graph-index.ts";
import type { Candidate } from "./label-search.ts";

/** What finds rows near a query. */
export interface RowIndex {
  /** Candidates of the last search, best first. */
  readonly rows: Int32Array;
  readonly size: number;
  /** @returns how many rows were found: `wanted`, or less; −1: it cannot be searched now */
  search(query: Float32Array, wanted: number): number;
}

export class GraphRows implements RowIndex {
  rows: Int32Array = new Int32Array(64);
  readonly #graph: GraphIndex;
  readonly #store: VectorStore;
  readonly #options: ResolvedVectorOptions;
  readonly #code: GraphCode;
  readonly #shard: number;
  readonly #waiting: Pick<RowBitmap, "has">;

  /** @param waiting Rows that wait to be linked: they are looked at otherwise. */
  constructor(
    graph: GraphIndex,
    store: VectorStore,
    options: ResolvedVectorOptions,
    shard: number,
    waiting: Pick<RowBitmap, "has">,
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
    if (!this.#code.encode(query)) return -1;
    const kept = Math.max(this.#options.expansionSearch, rankedAgain(this.#options, wanted));
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
