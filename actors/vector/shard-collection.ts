/**
 * One shard's part of a collection: the rows, the index over them, and the plan of a search.
 *
 * Invariant: every row is either in the index or in `pending`; a search answers from both, so a row is found from the
 * moment it is acknowledged. Scores are computed by the kernel from the stored vector on every path, so a hit has the same
 * score whichever way it was found. With a filter, never fewer than k hits come back when k rows match: what the index
 * does not give, the exact scan of the matching rows does. In the graph of the node a shard gives its own of what is nearest, which may be none; how
 * far it looked is told with that (`graph/graph-rows.ts`), and who asked all shards asks again where that was not far enough.
 */

import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import { ELEMENT } from "../../native-bridge/kernels.ts";
import { ShardloomError } from "../../src/errors.ts";
import { ROOT_PENDING } from "../../src/store/collection-layout.ts";
import type { EngineContext } from "../engine.ts";
import { type CachedFilter, FilterCache } from "./filter-cache.ts";
import { unlessFull } from "./graph/graph-errors.ts";
import type { GraphIndex } from "./graph/graph-index.ts";
import { EVERYWHERE, GraphRows, leastOf, type RowIndex } from "./graph/graph-rows.ts";
import { rankHits } from "./rank-hits.ts";
import { RowBitmap } from "./row-bitmap.ts";
import type { SearchResult } from "./search-result.ts";
import { INDEX_BATCH_ROWS, VectorIndex } from "./vector-index.ts";
import { componentLimit, firstBeyond, type ResolvedVectorOptions, tailRowsOf, usesGraph } from "./vector-options.ts";
import { PLAN } from "./vector-replies.ts";
import type { VectorStore } from "./vector-store.ts";

/** Distances that finding one candidate in the index costs, about; decides between index and filtered scan. */
const SCAN_PER_CANDIDATE = 20;
/** Pending rows up to which a filtered search through the index looks at them one by one. */
const MAX_PENDING_PROBES = 4096;
/** Longest that one write indexes: with an index so slow that this is not enough, what waits is bounded by the pace of writes alone. */
const MAX_PAY_MS = 250;
/** Weight of the last batch in what a row is taken to cost the index. */
const ROW_MS_SHARE = 0.25;
/** Candidates beyond what the selectivity asks for. */
const OVER_FETCH = 1.2;
/** A filter that matches less than this is not worth trying on index candidates. */
const LOOSE_SELECTIVITY = 0.05;

export class ShardCollection {
  readonly id: number;
  readonly options: ResolvedVectorOptions;
  readonly store: VectorStore;
  readonly filters: FilterCache;
  /** Set by `search`. */
  lastPlan: number = PLAN.SCAN;
  lastScored = 0;
  lastReach: number = EVERYWHERE;
  readonly #context: EngineContext;
  /** Beyond it the index would take a component of a query for an infinity. */
  readonly #componentLimit: number;
  readonly #pending: RowBitmap;
  #index: VectorIndex | undefined;
  /** In place of an index of its own, where the strategy needs the graph. */
  #graph: GraphIndex | undefined;
  #graphRows: GraphRows | undefined;
  #cursor = 0;
  readonly #batch: Int32Array = new Int32Array(INDEX_BATCH_ROWS);
  /** What adding one row to the index took of late. */
  #rowMs = 0;

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
    return this.#graph?.size ?? this.#index?.size ?? 0;
  }

  /** Rows that wait for the index; 0 while the shard is small enough to go without. */
  get unindexed(): number {
    return this.#wantsIndex() ? this.#pending.count : 0;
  }

  /** Documents of the graph that are not where they are to be, see {@link GraphIndex.unplaced}. */
  get unplaced(): number {
    return this.#graph?.unplaced(this.#pending.count === 0) ?? 0;
  }

  /** The index, while there is one. */
  get index(): VectorIndex | undefined {
    return this.#index;
  }

  /** The shard's part of the node's graph, once it has it. */
  get graph(): GraphIndex | undefined {
    return this.#graph;
  }

  /** Takes the shard's part of the node's graph. From here on others may read which rows wait to be linked. @param rows Those that are in it. */
  takeGraph(graph: GraphIndex, rows: readonly number[]): void {
    this.#graph = graph;
    this.#graphRows = new GraphRows(graph, this.store, this.options, this.#context.workerIndex, this.#pending);
    for (const row of rows) this.#pending.delete(row);
    this.#pending.tell(ROOT_PENDING);
  }

  /** Frees the shard's part of the graph: the collection is gone. */
  dropGraph(): void {
    this.#graph?.drop();
    this.#graph = undefined;
  }

  /** Takes an index of these rows in place of its own. What it lacks waits to be indexed. */
  adoptIndex(index: VectorIndex): void {
    this.#buildAnew();
    this.#index = index;
    for (const row of index.entries().rows) this.#pending.delete(row);
  }

  /**
   * Before a write of so many rows: while too many wait, its writer indexes as many as it adds. So writes go at the pace of the index, and a
   * tail that had grown for other reasons (the index is built anew) grows no further.
   */
  payFor(rows: number): void {
    if (this.unindexed + rows <= tailRowsOf(this.options)) return;
    const deadline = this.#context.nowMs() + MAX_PAY_MS;
    for (let left = rows; left > 0 && this.#pending.count > 0; left -= INDEX_BATCH_ROWS) {
      this.#indexBatch(left);
      if (this.#context.nowMs() >= deadline) return;
    }
  }

  /** Takes the memory that a batch with `newRows` new rows needs besides the store's. */
  reserve(newRows: number): void {
    const { address } = this.#pending;
    this.#pending.ensure(this.store.rowsUsed + newRows);
    if (this.#graph !== undefined && this.#pending.address !== address) this.#pending.tell(ROOT_PENDING);
    this.filters.reserve(this.store.rowsUsed + newRows);
  }

  /** After `store.put`: the row's vector is new. */
  onPut(row: number, replaced: boolean): void {
    if (replaced && !this.#pending.has(row)) this.#index?.remove(row);
    this.#pending.add(row);
    this.filters.onWrite(row);
  }

  /** @param version Version of a write that was made elsewhere. @default the next one of this shard */
  remove(row: number, version?: number): void {
    if (!this.#pending.has(row)) this.#index?.remove(row);
    this.#pending.delete(row);
    this.#graph?.remove(row);
    this.store.remove(row, version);
    this.filters.onWrite(row);
  }

  /** One slice of indexing, then of repair and compaction, which may make the room that the index lacks; true when more is left. */
  background(budgetMs: number): boolean {
    const deadline = this.#context.nowMs() + budgetMs;
    const graph = this.#graph;
    if (graph !== undefined && unlessFull(() => graph.arrange(deadline, this.#pending.count === 0), false)) return true;
    if (unlessFull(() => this.#indexUntil(deadline), false)) return true;
    const repairs = graph !== undefined && unlessFull(() => graph.background(deadline), false);
    return this.store.compact(deadline) || repairs;
  }

  /** A batch has no more rows than there is time for, or one. @returns whether the time is over */
  #indexUntil(deadline: number): boolean {
    let nowMs = this.#context.nowMs();
    while (this.#wantsIndex() && this.#pending.count > 0) {
      const beganMs = nowMs;
      const rows = this.#indexBatch((deadline - nowMs) / this.#rowMs);
      nowMs = this.#context.nowMs();
      this.#rowMs += ((nowMs - beganMs) / Math.max(1, rows) - this.#rowMs) * ROW_MS_SHARE;
      if (nowMs >= deadline) return true;
      if (rows === 0 && this.#graph !== undefined) break; // it waits for another shard's part: next time
    }
    return false;
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
    this.lastReach = EVERYWHERE;
    if (limit === 0) this.lastPlan = PLAN.SCAN;
    else if (filter === undefined && vshards === undefined) this.#searchAll(query, limit, ef, exact, out);
    else this.#searchFiltered(query, limit, ef, exact, this.filters.get(filter, vshards), out);
    return out.count - before;
  }

  free(): void {
    this.#graph?.close();
    this.#graph = undefined;
    this.filters.free();
    this.#pending.free();
    this.#index = undefined;
  }

  #wantsIndex(): boolean {
    if (usesGraph(this.options)) return this.#graph !== undefined;
    return this.#index !== undefined || this.store.count > this.options.scanRows;
  }

  #useIndex(query: Float32Array): RowIndex | undefined {
    const isLarge = this.store.count > this.options.scanRows && this.indexed > 0;
    if (!isLarge || firstBeyond(query, 0, query.length, this.#componentLimit) >= 0) return undefined;
    return this.#index ?? this.#graphRows;
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
    if (found < 0 || found + this.#pending.count < leastOf(index, found, limit, 0)) {
      this.#scanRows(query, limit, undefined, out); // the graph cannot be searched now, or did not lead to enough
      return;
    }
    this.lastReach = index.reach ?? EVERYWHERE;
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

  /** Filters `wanted` candidates of the index and all pending rows. False when fewer match than have to. */
  #tryIndex(
    index: RowIndex,
    query: Float32Array,
    limit: number,
    wanted: number,
    filter: CachedFilter,
    out: SearchResult,
  ): boolean {
    const found = index.search(query, wanted);
    if (found < 0) return false;
    const least = leastOf(index, found, limit, OVER_FETCH);
    const offer = (): void => {
      for (let i = 0; i < found; i++) this.#offerMatching(index.rows[i] as number, filter);
      for (let row = this.#pending.next(0); row >= 0; row = this.#pending.next(row + 1))
        this.#offerMatching(row, filter);
    };
    if (found + this.#pending.count < least || !this.#rank(query, limit, least, 0, PLAN.FILTERED_INDEX, out, offer))
      return false;
    this.lastReach = index.reach ?? EVERYWHERE;
    return true;
  }

  #offerMatching(row: number, filter: CachedFilter): void {
    if (filter.rows === undefined) filter.probes++;
    if (filter.rows === undefined ? this.filters.matches(filter, row) : filter.rows.has(row)) this.#offer(row);
  }

  #offer(row: number): void {
    this.#context.kernels.offerCell(this.store.cellOf(row), row);
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

  /** @param most Rows, if not more than a whole batch; one at least. @returns how many it took */
  #indexBatch(most: number = INDEX_BATCH_ROWS): number {
    if (this.#graph !== undefined) return this.#linkBatch(this.#graph, most);
    if (this.#index?.worn === true) this.#buildAnew();
    this.#index ??= new VectorIndex(this.options, this.#context.native);
    const { dimensions } = this.options;
    const { f32 } = this.store.root.arena;
    const limit = Math.min(INDEX_BATCH_ROWS, Math.max(1, Math.floor(most)));
    let count = 0;
    let row = this.#pending.next(this.#cursor);
    if (row < 0) row = this.#pending.next(0);
    while (row >= 0 && count < limit) {
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
      return 0;
    }
    for (let i = 0; i < count; i++) this.#pending.delete(this.#batch[i] as number);
    return count;
  }

  /** As {@link #indexBatch}, into the node's graph. A row is linked before it counts as such, so that searches never miss it. */
  #linkBatch(graph: GraphIndex, most: number): number {
    const limit = Math.min(INDEX_BATCH_ROWS, Math.max(1, Math.floor(most)));
    let count = 0;
    let row = this.#pending.next(this.#cursor);
    if (row < 0) row = this.#pending.next(0);
    for (; row >= 0 && count < limit; row = this.#pending.next(row + 1)) {
      if (!graph.add(row)) break;
      this.#pending.delete(row);
      count++;
    }
    this.#cursor = Math.max(0, row);
    return count;
  }
}
