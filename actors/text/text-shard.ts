/**
 * One shard's part of a text collection: the documents in registered memory, and the index over them.
 *
 * Invariant: an acknowledged document is in the store and in the index, or, in a worker that took over from a dead one, waits
 * to be indexed again; until none waits `ready` is false and searches must wait. Sums are always over live documents.
 */
import type { DocumentStore } from "../../src/store/document-store.ts";
import type { EngineContext } from "../engine.ts";
import { Analyser } from "./analyser.ts";
import { readTexts } from "./document-body.ts";
import type { PostingLists } from "./postings.ts";
import type { FoundDocuments } from "./reply-writer.ts";
import { INCLUDE, type TextSearch } from "./search-request.ts";
import { TextIndex } from "./text-index.ts";
import type { ResolvedTextOptions } from "./text-options.ts";
import type { TextShardStatus } from "./text-replies.ts";
import { TextScorer, type TextStatistics, type VshardMask } from "./text-scorer.ts";
import { TopDocuments } from "./top-documents.ts";

/** Rows between two looks at the clock while indexing again. */
const REBUILD_STEP = 16;

export class TextShard {
  readonly id: number;
  readonly options: ResolvedTextOptions;
  readonly store: DocumentStore;
  readonly index: TextIndex;
  /** `index.changes` when the index was last saved; −1 = never. Set by who saves. */
  savedChanges = -1;
  readonly #context: EngineContext;
  readonly #scorer: TextScorer;
  readonly #top: TopDocuments;
  /** Documents of each vshard. */
  readonly #documentsIn: Map<number, number> = new Map();
  readonly #texts: (string | undefined)[] = [];
  /** Rows from here on may have to be indexed again. */
  #rebuildRow: number;
  #rebuildEnd: number;
  /** Until the first slice of `background`: documents are only stored, as a saved index may have them. */
  #loading: boolean;

  /**
   * A store that is not empty is indexed in `background`. The language's stemmer must be loaded.
   *
   * @param loading The documents are being loaded: none is indexed before `background` or {@link adoptIndex}.
   */
  constructor(
    context: EngineContext,
    id: number,
    options: ResolvedTextOptions,
    store: DocumentStore,
    loading: boolean = false,
  ) {
    this.#loading = loading;
    this.#context = context;
    this.id = id;
    this.options = options;
    this.store = store;
    this.index = new TextIndex(options.fields.length, options.positions, new Analyser(options));
    this.#scorer = new TextScorer(this.index, options.k1, options.b);
    this.#top = new TopDocuments((row) => store.idOf(row));
    this.#rebuildRow = 0;
    this.#rebuildEnd = store.rowsUsed;
    for (let row = 0; row < store.rowsUsed; row++) if (store.recordOf(row) !== 0) this.#countIn(store.vshardOf(row), 1);
  }

  /** Whether every document is in the index. */
  get ready(): boolean {
    return this.#rebuildRow >= this.#rebuildEnd;
  }

  /** Live documents of the mask's vshards. */
  count(mask: VshardMask): number {
    if (mask === undefined) return this.store.count;
    let sum = 0;
    for (const [vshard, count] of this.#documentsIn) if ((mask[vshard] as number) > 0) sum += count;
    return sum;
  }

  /**
   * Stores a document, and indexes it; memory must be reserved.
   *
   * @param row The row of its id, −1 = new.
   * @param version Version of a write that was made elsewhere. @default the next one of this shard
   * @returns its row
   */
  put(
    row: number,
    bytes: Uint8Array,
    idOffset: number,
    idWord: number,
    bodyOffset: number,
    bodyBytes: number,
    hash: number,
    vshard: number,
    version?: number,
  ): number {
    if (row >= 0) this.#unindex(row);
    const written = this.store.put(row, bytes, idOffset, idWord, bodyOffset, bodyBytes, hash, vshard, version);
    this.#countIn(vshard, 1);
    if (this.#loading) this.#rebuildEnd = Math.max(this.#rebuildEnd, written + 1);
    else this.#index(written);
    return written;
  }

  /** Whether no document has been indexed yet, so that {@link adoptIndex} may be called. */
  get awaitsIndex(): boolean {
    return this.index.limit === 0 && this.index.postings.limit === 0;
  }

  /** The documents are loaded, and no index comes: they are indexed in `background`, and others as they come. */
  endLoading(): void {
    this.#loading = false;
  }

  /** Takes a saved index: what it lacks is indexed in `background`. Parameters as those of `TextIndex.adopt`. */
  adoptIndex(rows: Int32Array, lengths: Uint32Array, lists: PostingLists): void {
    const vshards = rows.map((row) => (row < 0 ? 0 : this.store.vshardOf(row)));
    this.index.adopt(rows, vshards, lengths, lists);
    this.endLoading();
    if (this.index.count === this.store.count) this.#rebuildRow = this.#rebuildEnd;
  }

  /** @param version As for {@link put}. */
  remove(row: number, version?: number): void {
    this.#unindex(row);
    this.store.remove(row, version);
  }

  /** One slice of indexing again, of purging the index, of compaction; true when more is left. */
  background(budgetMs: number): boolean {
    const { nowMs } = this.#context;
    const deadlineMs = nowMs() + budgetMs;
    this.endLoading();
    while (!this.ready) {
      const end = Math.min(this.#rebuildEnd, this.#rebuildRow + REBUILD_STEP);
      for (; this.#rebuildRow < end; this.#rebuildRow++) {
        const row = this.#rebuildRow;
        if (this.store.recordOf(row) !== 0 && !this.index.has(row)) this.#index(row);
      }
      if (nowMs() >= deadlineMs) return true;
    }
    if (this.index.purge(deadlineMs, nowMs)) return true;
    return this.store.compact(deadlineMs);
  }

  /** The shard's sums for the terms of a search, over the mask's vshards. Only when `ready`. */
  statistics({ query, settings }: TextSearch, mask: VshardMask): TextStatistics {
    return this.#scorer.statistics(query.terms, settings.boosts, mask, this.count(mask));
  }

  /** The best documents of the mask's vshards. Only when `ready`. Valid until the next search. */
  search(search: TextSearch, mask: VshardMask): FoundDocuments {
    const { query, settings, k, flags } = search;
    const statistics = search.statistics ?? this.statistics(search, mask);
    this.#top.begin(Math.min(k, this.store.count), search.after);
    this.#scorer.search(query, settings, statistics, mask, this.#top);
    this.#top.take();
    const { rows, scores } = this.#top;
    const matched = flags & INCLUDE.TERMS ? this.#scorer.matches(query, settings, statistics, rows) : undefined;
    return { rows, scores, matched, clauses: query.clauses.length };
  }

  status(waiting: number): TextShardStatus {
    const { store, index } = this;
    return {
      documents: store.count,
      unindexed: store.count - index.count,
      terms: index.postings.terms,
      occurrences: index.totals.subarray(0, index.fields).reduce((sum, total) => sum + total, 0),
      lastVersion: store.lastVersion,
      indexBytes: index.postings.byteLength,
      heapBytes: store.heap.totalBytes,
      heapLiveBytes: store.heap.liveBytes,
      rowBytes: store.rowBytes,
      directorySlots: store.directory.slots,
      waiting,
    };
  }

  #index(row: number): void {
    this.#read(row);
    this.index.add(row, this.store.vshardOf(row), this.#texts);
  }

  #unindex(row: number): void {
    this.#countIn(this.store.vshardOf(row), -1);
    if (!this.index.has(row)) return;
    this.#read(row);
    this.index.remove(row, this.#texts);
  }

  #read(row: number): void {
    readTexts(this.store.root.arena.bytes, this.store.bodyOffset(row), this.options.fields.length, this.#texts);
  }

  #countIn(vshard: number, change: number): void {
    this.#documentsIn.set(vshard, (this.#documentsIn.get(vshard) ?? 0) + change);
  }
}
