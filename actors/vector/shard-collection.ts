/**
 * One shard's part of a collection: the rows, the index over them, and the plan of a search.
 *
 * Invariant: every row is either in the index or in `pending`; a search answers from both, so a row is found from the
 * moment it is acknowledged. Scores are computed by the kernel from the stored vector on every path, so a hit has the same
 * score whichever way it was found. With a filter, never fewer than k hits come back when k rows match: what the index
 * does not give, the exact scan of the matching rows does.
 */

import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import { ELEMENT } from "../../native-bridge/kernels.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { EngineContext } from "../engine.ts";
import { type CachedFilter, FilterCache } from "./filter-cache.ts";
import { rankHits } from "./rank-hits.ts";
import { RowBitmap } from "./row-bitmap.ts";
import { INDEX_BATCH_ROWS, VectorIndex } from "./vector-index.ts";
import { componentLimit, firstBeyond, type ResolvedVectorOptions } from "./vector-options.ts";
import { PLAN } from "./vector-replies.ts";
import type { VectorStore } from "./vector-store.ts";

/** Distances that finding one candidate in the index costs, about; decides between index and filtered scan. */
const SCAN_PER_CANDIDATE = 20;
/** Pending rows up to which a filtered search through the index looks at them one by one. */
const MAX_PENDING_PROBES = 4096;
/** Candidates beyond what the selectivity asks for. */
const OVER_FETCH = 1.2;
/** A filter that matches less than this is not worth trying on index candidates. */
const LOOSE_SELECTIVITY = 0.05;

/** Hits of the queries of one request, back to back. */
export class SearchResult {
  rows: Int32Array = new Int32Array(256);
  scores: Float64Array = new Float64Array(256);
  /** Hits in `rows`. */
  count = 0;

  push(row: number, score: number): void {
    if (this.count === this.rows.length) {
      const rows = new Int32Array(this.count * 2);
      const scores = new Float64Array(this.count * 2);
      rows.set(this.rows);
      scores.set(this.scores);
      this.rows = rows;
      this.scores = scores;
    }
    this.rows[this.count] = row;
    this.scores[this.count++] = score;
  }
}

export class ShardCollection {
  readonly id: number;
  readonly options: ResolvedVectorOptions;
  readonly store: VectorStore;
  readonly filters: FilterCache;
  /** Set by `search`. */
  lastPlan: number = PLAN.SCAN;
  lastScored = 0;
  readonly #context: EngineContext;
  /** Beyond it the index would take a component of a query for an infinity. */
  readonly #componentLimit: number;
  readonly #pending: RowBitmap;
  #index: VectorIndex | undefined;
  #cursor = 0;
  readonly #batch: Int32Array = new Int32Array(INDEX_BATCH_ROWS);

  constructor(context: EngineContext, id: number, options: ResolvedVectorOptions, store: VectorStore) {
    this.#context = context;
    this.id = id;
    this.options = options;
    this.store = store;
    this.#componentLimit = componentLimit(options);
    this.filters = new FilterCache(store);
    this.#pending = RowBitmap.inherit(store.root, store.rowsUsed);
    for (let row = 0; row < store.rowsUsed; row++) if (store.recordOf(row) !== 0) this.#pending.add(row);
  }

  get indexed(): number {
    return this.#index?.size ?? 0;
  }

  /** Rows that wait for the index; 0 while the shard is small enough to go without. */
  get unindexed(): number {
    return this.#wantsIndex() ? this.#pending.count : 0;
  }

  /** Takes the memory that a batch with `newRows` new rows needs besides the store's. */
  reserve(newRows: number): void {
    this.#pending.ensure(this.store.rowsUsed + newRows);
    this.filters.reserve(this.store.rowsUsed + newRows);
  }

  /** After `store.put`: the row's vector is new. */
  onPut(row: number, replaced: boolean): void {
    if (replaced && !this.#pending.has(row)) this.#unindex(row);
    this.#pending.add(row);
    this.filters.onWrite(row);
  }

  /** @param version Version of a write that was made elsewhere. @default the next one of this shard */
  remove(row: number, version?: number): void {
    if (!this.#pending.has(row)) this.#unindex(row);
    this.#pending.delete(row);
    this.store.remove(row, version);
    this.filters.onWrite(row);
  }

  /** One slice of indexing, then of compaction; true when more is left. */
  background(budgetMs: number): boolean {
    const deadline = this.#context.nowMs() + budgetMs;
    while (this.#wantsIndex() && this.#pending.count > 0) {
      this.#indexBatch();
      if (this.#context.nowMs() >= deadline) return true;
    }
    return this.store.compact(deadline);
  }

  /** Rows that match a filter, of a set of vshards. */
  count(filter: Uint8Array | undefined, vshards?: Uint8Array): number {
    if (filter === undefined && vshards === undefined) return this.store.count;
    return this.filters.rowsOf(this.filters.get(filter, vshards)).count;
  }

  /** Appends the at most k best rows to `out`, in the total order (score, id). */
  search(
    query: Float32Array,
    k: number,
    ef: number,
    exact: boolean,
    filter: Uint8Array | undefined,
    out: SearchResult,
    vshards?: Uint8Array,
  ): number {
    const before = out.count;
    const limit = Math.min(k, this.store.count);
    this.lastScored = 0;
    if (limit === 0) this.lastPlan = PLAN.SCAN;
    else if (filter === undefined && vshards === undefined) this.#searchAll(query, limit, ef, exact, out);
    else this.#searchFiltered(query, limit, ef, exact, this.filters.get(filter, vshards), out);
    return out.count - before;
  }

  free(): void {
    this.filters.free();
    this.#pending.free();
    this.#index = undefined;
  }

  #wantsIndex(): boolean {
    return this.#index !== undefined || this.store.count > this.options.scanRows;
  }

  #useIndex(query: Float32Array): VectorIndex | undefined {
    const large = this.store.count > this.options.scanRows && this.indexed > 0;
    return large && firstBeyond(query, 0, query.length, this.#componentLimit) < 0 ? this.#index : undefined;
  }

  /**
   * Ranks the rows that `offer` gives to the scan and appends the first `limit`. One more row than that is kept, to see a tie
   * at the limit: then `offer` runs again with a larger heap until all rows of that score are known.
   *
   * @returns Whether at least `least` rows were offered; nothing is appended otherwise.
   */
  #rank(
    query: Float32Array,
    limit: number,
    least: number,
    bitmap: number,
    plan: number,
    out: SearchResult,
    offer: () => void,
  ): boolean {
    const { kernels } = this.#context;
    const most = this.store.count + 1;
    let count: number;
    for (let kept = Math.min(limit + 1, most); ; kept = Math.min(2 * kept, most)) {
      kernels.beginScan(this.store.metric, ELEMENT.F32, query, kept, { bitmap });
      offer();
      count = kernels.endScan();
      if (count < least) return false;
      if (count < kept || kernels.hitDistance(limit - 1) !== kernels.hitDistance(count - 1)) break;
    }
    rankHits(kernels, (row) => this.store.idOf(row), count, limit, out);
    this.lastPlan = plan;
    this.lastScored = kernels.scoredCount;
    return true;
  }

  #scanRows(query: Float32Array, limit: number, rows: RowBitmap | undefined, out: SearchResult): void {
    if (rows !== undefined && rows.count === 0) {
      this.lastPlan = PLAN.FILTERED_SCAN;
      return;
    }
    this.#rank(query, limit, 0, rows?.address ?? 0, rows === undefined ? PLAN.SCAN : PLAN.FILTERED_SCAN, out, () =>
      this.store.scan(),
    );
  }

  #searchAll(query: Float32Array, limit: number, ef: number, exact: boolean, out: SearchResult): void {
    const index = exact || limit * SCAN_PER_CANDIDATE > this.store.count ? undefined : this.#useIndex(query);
    if (index === undefined) {
      this.#scanRows(query, limit, undefined, out);
      return;
    }
    const found = index.search(query, Math.max(limit, ef));
    if (found + this.#pending.count < limit) {
      // the graph did not reach enough rows
      this.#scanRows(query, limit, undefined, out);
      return;
    }
    this.#rank(query, limit, 0, this.#pending.address, PLAN.INDEX, out, () => {
      for (let i = 0; i < found; i++) this.#offer(index.rows[i] as number);
      if (this.#pending.count > 0) this.store.scan();
    });
  }

  #searchFiltered(
    query: Float32Array,
    limit: number,
    ef: number,
    exact: boolean,
    filter: CachedFilter,
    out: SearchResult,
  ): void {
    const index = exact || this.#pending.count > MAX_PENDING_PROBES ? undefined : this.#useIndex(query);
    const share = index === undefined ? 0 : this.filters.selectivity(filter);
    const candidates = Math.ceil(
      (OVER_FETCH * Math.max(limit, ef, this.options.expansionSearch)) / Math.max(share, 1e-9),
    );
    const worthwhile = share >= LOOSE_SELECTIVITY && share * this.store.count > SCAN_PER_CANDIDATE * candidates;
    if (index !== undefined && worthwhile) {
      if (filter.rows === undefined && filter.probes > this.store.rowsUsed) this.filters.rowsOf(filter);
      for (let wanted = candidates; wanted * 2 < index.size; wanted *= 2) {
        if (this.#tryIndex(index, query, limit, wanted, filter, out)) return;
      }
    }
    this.#scanRows(query, limit, this.filters.rowsOf(filter), out);
  }

  /** Filters `wanted` candidates of the index and all pending rows. False when fewer than `limit` match. */
  #tryIndex(
    index: VectorIndex,
    query: Float32Array,
    limit: number,
    wanted: number,
    filter: CachedFilter,
    out: SearchResult,
  ): boolean {
    const found = index.search(query, wanted);
    return this.#rank(query, limit, limit, 0, PLAN.FILTERED_INDEX, out, () => {
      for (let i = 0; i < found; i++) this.#offerMatching(index.rows[i] as number, filter);
      for (let row = this.#pending.next(0); row >= 0; row = this.#pending.next(row + 1))
        this.#offerMatching(row, filter);
    });
  }

  #offerMatching(row: number, filter: CachedFilter): void {
    if (filter.rows === undefined) filter.probes++;
    if (filter.rows === undefined ? this.filters.matches(filter, row) : filter.rows.has(row)) this.#offer(row);
  }

  #offer(row: number): void {
    this.#context.kernels.offerCell(this.store.cellOf(row), row);
  }

  #unindex(row: number): void {
    try {
      this.#index?.remove(row);
    } catch (error) {
      this.#giveUpIndex(error);
    }
  }

  /**
   * Should usearch fail, the index is given up and built again: writes must not fail by it, and the worker must not die.
   * That the thread was quarantined meanwhile is another matter: the memory behind `pending` is its successor's by then.
   */
  #giveUpIndex(error: unknown): void {
    if (ShardloomError.is(error) && error.code === "ERR_NATIVE_QUARANTINED") throw error;
    this.#buildAnew();
  }

  /** Drops the index: all rows wait for the next one, and are scanned exactly until it has them. */
  #buildAnew(): void {
    this.#index = undefined;
    for (let row = 0; row < this.store.rowsUsed; row++) if (this.store.recordOf(row) !== 0) this.#pending.add(row);
  }

  #indexBatch(): void {
    if (this.#index?.worn === true) this.#buildAnew();
    this.#index ??= new VectorIndex(this.options, this.#context.native);
    const { dimensions } = this.options;
    const { f32 } = this.store.root.arena;
    let count = 0;
    let row = this.#pending.next(this.#cursor);
    if (row < 0) row = this.#pending.next(0);
    while (row >= 0 && count < INDEX_BATCH_ROWS) {
      const start = (this.store.cellOf(row) + CELL_HEADER_BYTES) >>> 2;
      this.#index.staging.set(f32.subarray(start, start + dimensions), count * dimensions);
      this.#batch[count++] = row;
      row = this.#pending.next(row + 1);
    }
    this.#cursor = Math.max(0, row);
    try {
      this.#index.add(this.#batch, count);
    } catch (error) {
      this.#giveUpIndex(error); // it may have taken a part of the batch
      return;
    }
    for (let i = 0; i < count; i++) this.#pending.delete(this.#batch[i] as number);
  }
}
