/**
 * One-sided access to a collection from any thread: no message, no wake-up, the owners may be blocked or dead.
 *
 * Invariant: everything returned was validated: the row's cell version and its region's key are checked after the bytes were
 * taken, id and vector under one version. A read that cannot be validated ends in a status, never in data.
 * One thread only: it shares its verbs and kernels.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES, INCARNATION } from "../../native-bridge/cell-layout.ts";
import type { Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS, statusName } from "../../native-bridge/status.ts";
import type { Verbs } from "../../native-bridge/verbs.ts";
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import {
  directoryWord,
  RECORD_HEADER_BYTES,
  RECORD_ID_WORD,
  seekDirectory,
} from "../../src/store/collection-layout.ts";
import {
  ID_NUMBER,
  idKindOf,
  idLengthOf,
  idWordOf,
  MAX_ID_BYTES,
  sameIdBytes,
  type VectorId,
  writeId,
} from "../../src/store/id-codec.ts";
import { hashBytes } from "../../src/topology/stable-hash.ts";
import { type BatchOptions, BatchSearch } from "./batch-search.ts";
import { ExactScan, type ScanOptions, type ScanResult } from "./exact-scan.ts";
import type { Candidate } from "./graph/label-search.ts";
import type {
  FoundVertices,
  OneSidedOptions,
  OneSidedResult,
  OneSidedSource,
  WaitingRows,
} from "./one-sided-result.ts";
import { OneSidedSearch } from "./one-sided-search.ts";
import type { Accepts } from "./payload-filter.ts";
import { ATTEMPTS, NOT_FOUND, RowReader } from "./row-reader.ts";
import { ShardView } from "./shard-view.ts";
import type { LeafView } from "./strategy/leaf-view.ts";
import { estimateSelectivity } from "./strategy/selectivity.ts";
import { ONE_SIDED, type ShardDescriptor, type VectorStrategy } from "./strategy/vector-strategy.ts";
import { assertEf, assertK, checkedQuery } from "./vector-checks.ts";
import type { ResolvedVectorOptions } from "./vector-options.ts";
import type { StoredVector } from "./vector-replies.ts";

export type { ScanOptions, ScanResult } from "./exact-scan.ts";
export type { OneSidedOptions, OneSidedResult } from "./one-sided-result.ts";
export { NOT_FOUND } from "./row-reader.ts";

/** Where the reader finds the shards. */
export interface VectorReaderSource {
  /** Current root of each shard, undefined while it has none. Asked again when a key was revoked. */
  readonly roots: () => readonly (RegionRef | undefined)[];
  /** Shard of an id, by its hashId. */
  readonly shardOf: (hash: number) => number;
  /** Monotonic, that of the shards. @default searches read every document's vector */
  readonly nowMs?: () => number;
  /** For `search`: the collection's options, and the root of the graph over all shards, undefined while there is none. */
  readonly graph?: { readonly options: ResolvedVectorOptions; readonly root: () => RegionRef | undefined };
  /** Whether shards of other nodes have a part of the collection. @default none has */
  readonly elsewhere?: () => boolean;
}

/** A strategy whose searches read memory here. */
type Exposing = Required<Pick<VectorStrategy, "exposedRegion">>;

/** What a search that the shards take part in needs of its own thread. */
export interface SearchHalves {
  readonly graph: RegionRef | undefined;
  readonly leaves: LeafView;
  /** Tells whether the graph could be read ever since; undefined when it cannot be now. */
  watch(): (() => boolean) | undefined;
  /** To be done before the shards are asked. */
  scanWaiting(): WaitingRows;
  /** Share of the documents that pass, about; after `scanWaiting`. */
  selectivity(accepts: Accepts): number;
  finish(waiting: WaitingRows, candidates: readonly Candidate[], partial: boolean): OneSidedResult;
  /** The same of vertices. */
  rank(waiting: WaitingRows, found: FoundVertices): OneSidedResult;
}

export class VectorReader {
  /** Version of the document that the last successful `get` copied. */
  version = 0;
  readonly #arena: Arena;
  readonly #rows: RowReader;
  readonly #kernels: Kernels | undefined;
  readonly #source: VectorReaderSource;
  readonly #views: ShardView[] = [];
  readonly #id: Uint8Array = new Uint8Array(MAX_ID_BYTES);
  #scan: ExactScan | undefined;
  #search: OneSidedSearch | undefined;
  /** Of the search that is under way, which ends before another begins. */
  #query: Float32Array = new Float32Array(0);
  #lastShard = -1;

  /** @param kernels This thread's kernels, for `scanExact`; a thread that only gets can do without. */
  constructor(arena: Arena, verbs: Verbs, kernels: Kernels | undefined, source: VectorReaderSource) {
    this.#arena = arena;
    this.#rows = new RowReader(arena, verbs);
    this.#kernels = kernels;
    this.#source = source;
  }

  /** Whether other nodes have a part of the collection, which is not found here. */
  get isPartial(): boolean {
    return this.#source.elsewhere?.() === true;
  }

  /**
   * Reference to the vector of an id, for verbs. It stays valid through updates; once the id is deleted, reads end in
   * STALE_CELL; when its shard moves to another worker, in REGION_REVOKED.
   *
   * @returns Undefined when the id is unknown or its shard cannot be read now.
   */
  region(id: VectorId): RegionRef | undefined {
    let found: RegionRef | undefined;
    const status = this.#locate(id, (cell, _record, view) => {
      const generation = this.#arena.i32[(cell >>> 2) + INCARNATION] as number;
      found = { address: cell + CELL_HEADER_BYTES, rkey: this.#rows.ref.rkey, length: view.dimensions * 4, generation };
    });
    return status === STATUS.SUCCESS ? found : undefined;
  }

  /**
   * Copies the vector of an id to `target`.
   *
   * @returns A status of the verbs, or {@link NOT_FOUND}. LOCAL_LENGTH_ERROR when the target is too short.
   */
  get(id: VectorId, target: Float32Array, targetOffset: number = 0): number {
    let short = false;
    const status = this.#locate(id, (cell, _record, view) => {
      const first = (cell + CELL_HEADER_BYTES) >>> 2;
      short = targetOffset + view.dimensions > target.length;
      if (!short) target.set(this.#arena.f32.subarray(first, first + view.dimensions), targetOffset);
      this.version = this.#rows.versionOf(cell);
    });
    return status === STATUS.SUCCESS && short ? STATUS.LOCAL_LENGTH_ERROR : status;
  }

  /**
   * The whole document of an id: vector and metadata of one version.
   *
   * @throws {ShardloomError} `ERR_REGION_ACCESS` with the status when it cannot be read; ask the shard instead.
   */
  document(id: VectorId): StoredVector | undefined {
    let found: StoredVector | undefined;
    const status = this.#locate(id, (cell, record, view) => {
      found = this.#rows.copyStored(cell, record, view.dimensions, true, true);
    });
    if (status === NOT_FOUND) return undefined;
    if (status !== STATUS.SUCCESS) throw accessError("read document", status);
    return found;
  }

  /**
   * Exact nearest neighbours over all shards, computed on this thread in place.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE`; `ERR_OUT_OF_MEMORY` as {@link search}.
   */
  scanExact(query: Float32Array, k: number, options: ScanOptions = {}): ScanResult {
    if (this.#kernels === undefined) throw invalidArgument("scan", "kernels", "given to the reader", undefined);
    this.#scan ??= new ExactScan(this.#rows, this.#kernels);
    const views = this.#source.roots().map((_, shard) => this.#view(shard));
    const rootOf = (shard: number): RegionRef | undefined => this.#source.roots()[shard];
    return this.#scan.run(query, k, options, views, rootOf, (hash) => this.#source.shardOf(hash));
  }

  /**
   * The nearest documents of all shards, found on this thread in their memory through the collection's graph: with its strategy `one-sided`.
   *
   * Cost: about as much as in an index of one thread; the caller does all of it.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE`; `ERR_OUT_OF_MEMORY` when the arena has no room for
   *   what this thread searches in: a reader does not ask shards, a search of the collection does then.
   */
  search(query: Float32Array, k: number, options: OneSidedOptions = {}): OneSidedResult {
    const { search, options: resolved } = this.#graphSearch();
    assertK(k);
    assertEf(options.ef ?? 0);
    const { dimensions } = resolved;
    if (this.#query.length !== dimensions) this.#query = new Float32Array(dimensions);
    return search.run(checkedQuery(dimensions, query, this.#query), k, options, this.#searchSource(ONE_SIDED));
  }

  /** Searches for many queries at once, which were checked; to be closed. */
  batch(queries: readonly Float32Array[], k: number, options: BatchOptions): BatchSearch {
    const { search, options: resolved } = this.#graphSearch();
    const parts = { rows: this.#rows, kernels: this.#kernels as Kernels, options: resolved, leaves: search.leaves };
    return new BatchSearch({ ...parts, source: () => this.#searchSource(ONE_SIDED) }, queries, k, options);
  }

  /** Gives back the memory that searches work in. */
  close(): void {
    this.#search?.close();
    this.#search = undefined;
  }

  /** The halves of a search that the shards take part in, for one query that was checked. */
  halves(query: Float32Array, k: number, options: OneSidedOptions, strategy: Exposing): SearchHalves {
    const { search } = this.#graphSearch();
    const source = this.#searchSource(strategy);
    return {
      graph: source.graph,
      leaves: search.leaves,
      watch: () => search.watch(source.graph),
      scanWaiting: () => search.scanWaiting(query, k, options, source),
      selectivity: (accepts) => estimateSelectivity(this.#rows, source.views, accepts),
      rank: (waiting, found) => search.rank(query, k, options, this.#searchSource(strategy), waiting, found),
      finish: (waiting, candidates, partial) =>
        search.finish(query, k, options, this.#searchSource(strategy), waiting, candidates, partial),
    };
  }

  /** The shards that can be read from here and fulfil a condition, each time with another one of them first. */
  shardsInTurn(condition: (shard: number) => boolean): ShardDescriptor[] {
    const roots = this.#source.roots();
    const there = [...roots.keys()].filter((shard) => roots[shard] !== undefined && condition(shard));
    const first = Math.max(
      0,
      there.findIndex((shard) => shard > this.#lastShard),
    );
    this.#lastShard = there[first] ?? -1;
    return [...there.slice(first), ...there.slice(0, first)].map((shard) => ({ shard }));
  }

  #graphSearch(): { readonly search: OneSidedSearch; readonly options: ResolvedVectorOptions } {
    const { graph } = this.#source;
    if (this.#kernels === undefined) throw invalidArgument("search", "kernels", "given to the reader", undefined);
    if (graph === undefined) throw invalidArgument("search", "graph", "given to the reader", undefined);
    this.#search ??= new OneSidedSearch(this.#rows, this.#kernels, graph.options, this.#source.nowMs);
    return { search: this.#search, options: graph.options };
  }

  #searchSource({ exposedRegion }: Exposing): OneSidedSource {
    const { roots, graph, shardOf } = this.#source;
    return {
      views: roots().map((_, shard) => this.#view(shard)),
      rootOf: (shard) => roots()[shard],
      graph: exposedRegion({ graph: graph?.root() }),
      shardOf: (hash) => shardOf(hash),
    };
  }

  /** Finds an id in its shard's directory and visits its row, validated. `visit` may run several times. */
  #locate(id: VectorId, visit: (cell: number, record: number, view: ShardView) => void): number {
    const idWord = idWordOf(id);
    writeId(this.#id, 0, id, idWord);
    const hash = hashBytes(this.#id, 0, idLengthOf(idWord), idKindOf(idWord) === ID_NUMBER ? 1 : 0); // = hashId(id)
    const shard = this.#source.shardOf(hash);
    const view = this.#view(shard);
    let status: number = STATUS.RETRY_EXCEEDED;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const root = this.#source.roots()[shard];
      // A cached view is tried first: what it finds is validated by the row's own key and version, and a miss is checked.
      if (attempt > 0 || root === undefined || view.root?.rkey !== root.rkey) {
        const refreshed = view.refresh(root);
        if (refreshed !== STATUS.SUCCESS) return refreshed;
      }
      status = this.#probe(view, hash, idWord, visit);
      if (status === NOT_FOUND && view.isCurrent()) return NOT_FOUND;
      if (status === STATUS.SUCCESS || status === STATUS.RETRY_EXCEEDED) return status;
    }
    return status === NOT_FOUND ? STATUS.RETRY_EXCEEDED : status;
  }

  #probe(
    view: ShardView,
    hash: number,
    idWord: number,
    visit: (cell: number, record: number, view: ShardView) => void,
  ): number {
    const { i32, bytes } = this.#arena;
    const { directory, directorySlots: slots } = view;
    let unread = false;
    for (
      let probe = seekDirectory(i32, directory, slots, hash, 0);
      probe >= 0;
      probe = seekDirectory(i32, directory, slots, hash, probe + 1)
    ) {
      const row = (i32[directoryWord(directory, slots, hash, probe) + 1] as number) - 1;
      let matches = false;
      const status = this.#rows.read(view, row, (cell, record) => {
        matches =
          i32[(record >>> 2) + RECORD_ID_WORD] === idWord &&
          this.#rows.inside(record, RECORD_HEADER_BYTES + idLengthOf(idWord)) &&
          sameIdBytes(bytes, record + RECORD_HEADER_BYTES, this.#id, 0, idLengthOf(idWord));
        if (matches) visit(cell, record, view);
      });
      if (status === STATUS.RETRY_EXCEEDED) unread = true;
      else if (status !== STATUS.SUCCESS && status !== NOT_FOUND) return status;
      else if (matches && status === STATUS.SUCCESS) return STATUS.SUCCESS;
    }
    return unread ? STATUS.RETRY_EXCEEDED : NOT_FOUND;
  }

  #view(shard: number): ShardView {
    let view = this.#views[shard];
    if (view === undefined) {
      view = new ShardView(this.#rows.verbs);
      this.#views[shard] = view;
    }
    return view;
  }
}

function accessError(action: string, status: number): ShardloomError {
  return new ShardloomError(
    "ERR_REGION_ACCESS",
    `Cannot ${action} as its row must be readable: status is ${statusName(status)}`,
    {
      details: { status: statusName(status) },
      retryable: status === STATUS.RETRY_EXCEEDED || status === STATUS.REGION_REVOKED,
    },
  );
}
