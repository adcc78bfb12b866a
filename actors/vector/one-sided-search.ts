/**
 * The nearest documents of all shards of a node, found by this thread alone in their memory: through the graph, and for the rows that wait
 * to be linked by a scan. No message is sent; the owners may be busy, blocked or dead.
 *
 * Invariant: every hit was read from its row in one version under a good key: what is deleted is never among them, what was updated has its
 * new score. Waiting rows are looked at before the graph is searched, and a row leaves them only after it was linked, so none is missed on its
 * way. What cannot be read ends in a status, with no hits: the caller asks the shards. One thread only: it shares its verbs and kernels.
 */
import { CELL_HEADER_BYTES, INCARNATION, USER1 } from "../../native-bridge/cell-layout.ts";
import { ELEMENT, type Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS } from "../../native-bridge/status.ts";
import { compareIds } from "../../src/routing/merge.ts";
import { firstRowOf, RECORD_HEADER_BYTES, RECORD_ID_WORD, rowsInChunk } from "../../src/store/collection-layout.ts";
import { idLengthOf, isIdWord, readId } from "../../src/store/id-codec.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import { failureOf, passesAt, searchPassing, withTies } from "./filtered-search.ts";
import { GraphCode, rankedAgain } from "./graph/graph-code.ts";
import { type DocumentReader, MOVED } from "./graph/graph-documents.ts";
import { GraphSearch, type GraphSearchResult } from "./graph/graph-search.ts";
import type { Candidate } from "./graph/label-search.ts";
import { type PassingVertices, versionBits } from "./graph/passing-vertices.ts";
import { KnownDistances } from "./known-distances.ts";
import {
  type BehindVertex,
  type FoundVertices,
  none,
  type OneSidedOptions,
  type OneSidedResult,
  type OneSidedSource,
  TOO_FEW,
  type WaitingRows,
  withoutPayload,
  withoutTwins,
} from "./one-sided-result.ts";
import { PassingSets } from "./passing-sets.ts";
import { Prefetch } from "./prefetch.ts";
import { NOT_FOUND, type RowReader } from "./row-reader.ts";
import type { ShardView } from "./shard-view.ts";
import { LeafView } from "./strategy/leaf-view.ts";
import { isExactCode, type ResolvedVectorOptions } from "./vector-options.ts";
import type { SearchHit } from "./vector-replies.ts";

/** Scans of a shard's waiting rows while its tables change. */
const SCAN_ATTEMPTS = 5;
/** Documents that are read beyond k, as some are gone then, and some are as near as the last. */
export const SPARE = 8;

export class OneSidedSearch implements DocumentReader {
  distance = 0;
  readonly #rows: RowReader;
  readonly #kernels: Kernels;
  readonly #prefetch: Prefetch;
  readonly #options: ResolvedVectorOptions;
  readonly #graph: GraphSearch;
  readonly #code: GraphCode;
  readonly #leaves: LeafView;
  readonly #passing: PassingSets;
  readonly #known: KnownDistances;
  #bytes = 0;
  /** Whether the row that was read last is of the version that its vertex tells. */
  #isSame = false;
  #source: OneSidedSource | undefined;
  #wanted: OneSidedOptions = {};
  /** Which documents passed the filter when they were looked at. */
  #among: PassingVertices | undefined;
  #query: Float32Array = new Float32Array(0);
  /** Documents that were read, by the address of their row. */
  #found: Map<number, SearchHit> = new Map();

  /** @param nowMs Monotonic. @default every hit is scored by its row */
  constructor(rows: RowReader, kernels: Kernels, options: ResolvedVectorOptions, nowMs?: () => number) {
    this.#rows = rows;
    this.#kernels = kernels;
    this.#prefetch = new Prefetch(rows.arena);
    this.#options = options;
    this.#code = new GraphCode(options);
    this.#graph = new GraphSearch(rows.arena, rows.verbs, kernels.module, this);
    this.#leaves = new LeafView({ arena: rows.arena, kernels }, rows.verbs, this.#graph.view);
    this.#passing = new PassingSets(rows.arena);
    this.#known = new KnownDistances(options, nowMs);
  }

  /** @param query Finite, and as long as the collection has dimensions. */
  run(query: Float32Array, k: number, options: OneSidedOptions, source: OneSidedSource): OneSidedResult {
    return this.#known.whileGood(this.#known.now(), () => this.#run(query, k, options, source));
  }

  #run(query: Float32Array, k: number, options: OneSidedOptions, source: OneSidedSource): OneSidedResult {
    const { status, distances: scanned } = this.#beginWith(query, k, options, source);
    let distances = scanned;
    if (status !== STATUS.SUCCESS) return none(status, distances);
    const ef = Math.max(k, options.ef || this.#options.expansionSearch);
    const { filter } = options;
    if (filter !== undefined) {
      const among = {
        begin: (passing: PassingVertices) => {
          this.#among = passing;
        },
        search: (passing: PassingVertices) => this.#searchGraph(query, k, ef, source, passing),
        result: () => this.#result(k, distances, true),
        passes: passesAt(this.#rows, source.views, filter),
      };
      const parts = { graph: this.#graph, kernels: this.#kernels, sets: this.#passing };
      const wanted = {
        ...{ query, code: this.#code.bytes, k, ef, key: filter.key, root: source.graph, live: this.#live() },
        ranked: rankedAgain(this.#options, k) + SPARE,
        isExact: isExactCode(this.#options),
      };
      return searchPassing(parts, wanted, among, distances);
    }
    const found = this.#searchGraph(query, k, ef, source);
    distances += found.distances;
    const failed = failureOf(found);
    return failed === STATUS.SUCCESS ? this.#result(k, distances) : none(failed, distances);
  }

  /** @param among Only these are results. @default all */
  #searchGraph(
    query: Float32Array,
    k: number,
    ef: number,
    source: OneSidedSource,
    among?: PassingVertices,
  ): GraphSearchResult {
    const kept = Math.max(ef, rankedAgain(this.#options, k));
    const spent = { distances: 0 };
    const entries = this.#leaves.entries(source.graph, this.#code.components, spent);
    const limits = {
      ef: kept,
      ...(isExactCode(this.#options) ? {} : { rerank: Math.min(rankedAgain(this.#options, k) + SPARE, kept) }),
      ...(entries.length === 0 ? {} : { entries }),
      ...(among === undefined ? {} : { filter: among.address, filterBits: among.bits }),
    };
    const found = this.#graph.search(source.graph, { code: this.#code.bytes, vector: query }, k, limits);
    return { ...found, distances: found.distances + spent.distances };
  }

  /** The first half of a search whose second half is done by shards: finds the rows that wait to be linked. */
  scanWaiting(query: Float32Array, k: number, options: OneSidedOptions, source: OneSidedSource): WaitingRows {
    const atMs = this.#known.now();
    const { status, distances } = this.#beginWith(query, k, options, source);
    this.#graph.refresh(source.graph);
    const { generation } = this.#graph.view;
    const code = this.#code.encode(query) ? this.#code.components.slice() : undefined;
    const bytes =
      code === undefined ? new Uint8Array(0) : new Uint8Array(code.buffer, code.byteOffset, code.byteLength);
    return { status, found: new Map(this.#found), distances, code, bytes, atMs, generation };
  }

  /**
   * The end of such a search: reads the candidates' documents, nearest first, as many as are wanted.
   *
   * @param partial Whether fewer hits than there are documents will do.
   */
  finish(
    query: Float32Array,
    k: number,
    options: OneSidedOptions,
    source: OneSidedSource,
    waiting: WaitingRows,
    candidates: readonly Candidate[],
    partial: boolean,
  ): OneSidedResult {
    this.#known.stop();
    const order = [...candidates].sort((a, b) => a.distance - b.distance || a.vertex - b.vertex);
    return this.#end(query, k, options, source, waiting, partial, () => this.#scoreAll(query, k, order));
  }

  /** {@link finish} where vertices are known instead of candidates. @param found Nearest first */
  rank(
    query: Float32Array,
    k: number,
    options: OneSidedOptions,
    source: OneSidedSource,
    waiting: WaitingRows,
    { vertices, distances }: FoundVertices,
  ): OneSidedResult {
    const most = isExactCode(this.#options) ? withTies(distances, k) : rankedAgain(this.#options, k) + SPARE;
    const score = (): number => {
      const isSame = this.#graph.refresh(source.graph) === STATUS.SUCCESS;
      const known = isSame && this.#graph.view.generation === waiting.generation ? distances : undefined;
      return failureOf(this.#graph.rank(source.graph, query, vertices, most, known));
    };
    return this.#known.whileGood(waiting.atMs, () => this.#end(query, k, options, source, waiting, false, score));
  }

  /**
   * Joins the waiting rows that were found with what was found in the graph. Where that is less than was wanted, what was written meanwhile is looked at
   * and what was found before is read again: only then all that was found is all that there is.
   *
   * @param score Reads what was found in the graph.
   */
  #end(
    query: Float32Array,
    k: number,
    options: OneSidedOptions,
    source: OneSidedSource,
    waiting: WaitingRows,
    partial: boolean,
    score: () => number,
  ): OneSidedResult {
    this.#enter(query, options, source);
    for (const [address, hit] of waiting.found) this.#found.set(address, hit);
    for (const [shard, view] of source.views.entries()) {
      const status = view.refresh(source.rootOf(shard));
      if (status !== STATUS.SUCCESS) return none(status, waiting.distances);
    }
    const found = score();
    if (found !== STATUS.SUCCESS) return none(found, waiting.distances);
    const result = this.#result(k, waiting.distances, partial);
    if (!partial && this.#known.hideOthers(k) && result.hits.length < this.#live())
      return none(TOO_FEW, waiting.distances);
    if (partial || result.hits.length === k) return result;
    const { status, distances } = this.#beginWith(query, k, options, source);
    if (status !== STATUS.SUCCESS) return none(status, distances);
    this.begin(query);
    for (const address of waiting.found.keys()) {
      for (const [shard, view] of source.views.entries()) {
        const row = view.rowAt(address);
        if (row >= 0) this.#read(view, shard, row);
      }
    }
    const again = score();
    return again === STATUS.SUCCESS ? this.#result(k, distances) : none(again, distances);
  }

  /** Reads the candidates' documents, as many as are wanted. */
  #scoreAll(query: Float32Array, k: number, order: readonly Candidate[]): number {
    this.begin(query);
    let good = 0;
    for (let next = 0; next < order.length && good < k + SPARE; ) {
      const end = Math.min(order.length, next + k + SPARE - good);
      for (let at = next; at < end; at++) this.expect((order[at] as Candidate).address, (order[at] as Candidate).shard);
      for (let at = next; at < end; at++) this.expectRecord((order[at] as Candidate).address);
      for (; next < end; next++) {
        const { address, incarnation, shard, distance } = order[next] as Candidate;
        const status = this.score(address, incarnation, shard, -1, 0, distance);
        if (status === STATUS.SUCCESS) good++;
        else if (status !== NOT_FOUND && status !== STATUS.STALE_CELL && status !== MOVED) return status;
      }
    }
    return STATUS.SUCCESS;
  }

  /** Tells whether the graph could be read ever since; undefined when it cannot be now. */
  watch(root: RegionRef | undefined): (() => boolean) | undefined {
    return this.#graph.view.watch(root);
  }

  /** Leaves of the graph, as this thread knows them. */
  get leaves(): LeafView {
    return this.#leaves;
  }

  #beginWith(
    query: Float32Array,
    k: number,
    options: OneSidedOptions,
    source: OneSidedSource,
  ): { readonly status: number; readonly distances: number } {
    this.#enter(query, options, source);
    let distances = 0;
    if (source.graph === undefined || !this.#code.encode(query)) return { status: STATUS.INVALID_RKEY, distances };
    for (let shard = 0; shard < source.views.length; shard++) {
      const status = this.#scanWaiting(shard, k);
      distances += this.#kernels.scoredCount;
      if (status !== STATUS.SUCCESS) return { status, distances };
    }
    return { status: STATUS.SUCCESS, distances };
  }

  #enter(query: Float32Array, wanted: OneSidedOptions, source: OneSidedSource): void {
    this.#source = source;
    this.#wanted = wanted;
    this.#query = query;
    this.#found.clear();
    this.#bytes = 0;
    this.#among = undefined;
  }

  #result(k: number, distances: number, partial = false): OneSidedResult {
    const hits = [...this.#found.values()].sort((a, b) => a.score - b.score || compareIds(a.id, b.id));
    const nearest = withoutTwins(hits).slice(0, k);
    const isWhole = partial || nearest.length === k || nearest.length >= this.#live();
    return isWhole
      ? { hits: nearest, status: STATUS.SUCCESS, distances, bytes: this.#bytes }
      : none(TOO_FEW, distances);
  }

  begin(query: Float32Array): void {
    this.#known.begin();
    this.#kernels.beginScan(this.#source?.views[0]?.metric ?? 0, ELEMENT.F32, query, 1);
  }

  expect(address: number, shard: number): void {
    const view = this.#source?.views[shard];
    if (view === undefined || view.rowAt(address) < 0) return;
    this.#prefetch.range(address, this.#known.areOn ? CELL_HEADER_BYTES : view.geometry.stride);
  }

  expectRecord(address: number): void {
    this.#prefetch.recordOf(address);
  }

  score(...[address, incarnation, shard, vertex, version, distance]: Parameters<DocumentReader["score"]>): number {
    const view = this.#source?.views[shard];
    const row = view === undefined ? -1 : view.rowAt(address);
    if (view === undefined || row < 0) return NOT_FOUND;
    this.#bytes += CELL_HEADER_BYTES;
    const status = this.#read(view, shard, row, { incarnation, vertex, version, distance });
    return status === STATUS.SUCCESS && this.#known.hasMoved(this.#isSame, this.distance, distance) ? MOVED : status;
  }

  /** Gives the scratch range back. */
  close(): void {
    this.#graph.close();
    this.#leaves.close();
    this.#passing.close();
  }

  /** Documents of all shards, of which copies count again. */
  #live(): number {
    return (this.#source?.views ?? []).reduce((sum, view) => sum + Math.max(0, view.liveNow()), 0);
  }

  #scanWaiting(shard: number, k: number): number {
    const { views, rootOf } = this.#source as OneSidedSource;
    const view = views[shard] as ShardView;
    let status: number = STATUS.RETRY_EXCEEDED;
    for (let attempt = 0; attempt < SCAN_ATTEMPTS; attempt++) {
      status = view.refresh(rootOf(shard));
      if (status !== STATUS.SUCCESS) return status;
      status = this.#scanOnce(view, shard, k);
      if (status === STATUS.SUCCESS && view.isCurrent()) return status;
    }
    return status === STATUS.SUCCESS ? STATUS.RETRY_EXCEEDED : status;
  }

  #scanOnce(view: ShardView, shard: number, k: number): number {
    const rowsUsed = view.rowsUsedNow();
    if (rowsUsed < 0) return STATUS.REGION_REVOKED;
    if (view.pending === 0) return STATUS.INVALID_RKEY; // the shard has no part of the graph yet
    const kernels = this.#kernels;
    const rows = Math.min(rowsUsed, view.pendingBytes * 8);
    for (let kept = k + SPARE; ; kept *= 2) {
      kernels.beginScan(view.metric, ELEMENT.F32, this.#query, Math.min(kept, rows + 1), { bitmap: view.pending });
      for (let chunk = 0; chunk < view.chunkAddresses.length; chunk++) {
        const first = firstRowOf(view.geometry, chunk);
        const count = Math.min(rowsInChunk(view.geometry, chunk), rows - first);
        if (count > 0) kernels.scanCells(view.chunkAddresses[chunk] as number, view.geometry.stride, 0, count, first);
      }
      if (kernels.unreadCount > 0) return STATUS.RETRY_EXCEEDED;
      const count = kernels.endScan();
      let good = 0;
      for (let hit = 0; hit < count; hit++) {
        const status = this.#read(view, shard, kernels.hitRow(hit));
        if (status === STATUS.SUCCESS) good++;
        else if (status !== NOT_FOUND) return status;
      }
      if (good >= k || count < Math.min(kept, rows + 1) || count === rows + 1) return STATUS.SUCCESS;
    }
  }

  /** Reads a row and keeps what it holds, under the scan that was begun. */
  #read(view: ShardView, shard: number, row: number, behind?: BehindVertex): number {
    const { arena } = this.#rows;
    const { filter, includeVector = false, includePayload = false } = this.#wanted;
    let [isAsked, bytes] = [false, 0];
    let hit: SearchHit | undefined;
    let address = 0;
    const status = this.#rows.read(view, row, (cell, record) => {
      hit = undefined;
      address = cell;
      if (behind !== undefined && arena.i32[(cell >>> 2) + INCARNATION] !== behind.incarnation) return;
      const idWord = arena.i32[(record >>> 2) + RECORD_ID_WORD] as number;
      if (!isIdWord(idWord) || !this.#rows.inside(record, RECORD_HEADER_BYTES + idLengthOf(idWord))) return;
      const id = readId(arena.bytes, record + RECORD_HEADER_BYTES, idWord);
      const word = arena.i32[(cell >>> 2) + USER1] as number;
      isAsked = filter !== undefined && this.#among?.passed(behind?.vertex ?? -1, versionBits(word)) !== true;
      this.#isSame = behind?.version === word;
      const isKnown = behind?.version === word && this.#known.has(behind.version, behind.distance);
      const score = isKnown ? behind.distance : this.#kernels.scoreCell(cell);
      const vectorBytes = isKnown && !includeVector ? 0 : 4 * view.dimensions;
      bytes = CELL_HEADER_BYTES + vectorBytes + RECORD_HEADER_BYTES + idLengthOf(idWord);
      hit = {
        score,
        id,
        ...this.#rows.copyStored(cell, record, view.dimensions, includeVector, includePayload || isAsked),
      };
    });
    this.#bytes += bytes + (hit?.payload?.length ?? 0);
    if (status !== STATUS.SUCCESS) return status;
    if (hit === undefined || this.#source?.shardOf(hashId(hit.id)) !== shard) return NOT_FOUND;
    if (isAsked && filter?.accepts(hit.payload) === false) return NOT_FOUND;
    this.distance = hit.score;
    this.#found.set(address, isAsked && !includePayload ? withoutPayload(hit) : hit);
    return STATUS.SUCCESS;
  }
}
