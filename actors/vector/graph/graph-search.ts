/**
 * Search of the whole graph by one thread, in place: the way with the highest throughput, as no message is sent.
 *
 * Invariant: every hit was read from its document's row under that row's version and key, so a deleted document is never a hit and
 * an updated one has its new distance; which documents are read is approximate. When a chunk's region changed hands during
 * a search the search is done again, and when it cannot be read the status says so and there are no hits: the caller asks the
 * shards instead. One thread only: it shares its verbs.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { USER0, USER1, USER2, USER3, USER4 } from "../../../native-bridge/cell-layout.ts";
import { GraphKernels, type GraphSearchOptions, MAX_EF, SCRATCH_OF } from "../../../native-bridge/graph-kernels.ts";
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import type { Verbs } from "../../../native-bridge/verbs.ts";
import { invalidArgument } from "../../../src/errors.ts";
import { VERTEX_FLAG } from "../../../src/store/graph-layout.ts";
import { NOT_FOUND } from "../row-reader.ts";
import { type DocumentReader, MOVED } from "./graph-documents.ts";
import { GraphView } from "./graph-view.ts";

/** A query in both its forms. */
export interface GraphQuery {
  /** As the vertices' codes are made, or as `searchElement` says. */
  readonly code: Uint8Array;
  /** As documents are compared. */
  readonly vector: Float32Array;
  /** For cosine: 1 / |code|. @default computed */
  readonly inverseNorm?: number;
}

/** How to search. */
export interface GraphSearchLimits {
  /** Vertices kept while searching; at least k. More find more. @default 64 */
  readonly ef?: number;
  /** Hits whose documents are read, at least k: more than k where codes are not exact. @default k, and those that are as near as the last */
  readonly rerank?: number;
  /** Where the search begins. @default the partitions' entry vertices */
  readonly entries?: readonly number[];
  /** As in {@link GraphSearchOptions}. */
  readonly filter?: number;
  readonly filterBits?: number;
  readonly limitDistances?: number;
  readonly countReads?: boolean;
  readonly searchElement?: number;
}

/** A document that was found. */
export interface GraphHit {
  readonly vertex: number;
  readonly address: number;
  readonly incarnation: number;
  readonly shard: number;
  readonly distance: number;
}

/** What a search found, and what it took. */
export interface GraphSearchResult {
  /** SUCCESS, or why the graph cannot be searched from here. */
  readonly status: number;
  /** Nearest first, ties by vertex. */
  readonly hits: readonly GraphHit[];
  readonly distances: number;
  readonly expansions: number;
  /** Ids that led nowhere and codes that gave no number. */
  readonly damaged: number;
  readonly dangling: number;
  /** Vertices whose document was not there any more, or lies farther away now: its vertex for that waits to be linked. */
  readonly stale: number;
  /** Documents that could not be read now: they may belong among the hits. */
  readonly unread: number;
  /** Bits of STOPPED. */
  readonly stopped: number;
  /** Reads by partition, when they were counted. */
  readonly reads: readonly number[];
}

/** A vertex's document, and what is known of it before its row is read. */
interface VertexDocument extends GraphHit {
  /** Low word of the version whose vector is the code; 0: not known, or the distance is not. */
  readonly version: number;
}

const DEFAULT_EF = 64;
/** Searches of one query while chunks change hands. */
const ATTEMPTS = 4;

interface Tally {
  distances: number;
  expansions: number;
  stale: number;
  unread: number;
}

export class GraphSearch {
  readonly #arena: Arena;
  readonly #verbs: Verbs;
  readonly #module: WebAssembly.Module;
  readonly #documents: DocumentReader;
  readonly #scratch: number | undefined;
  readonly #view: GraphView;
  readonly #ref = { address: 0, rkey: 0, length: 0 };
  #kernels: GraphKernels | undefined;
  #generation = -1;

  /** @param owner Number of this thread; when given, a successor under the same number takes its scratch over. */
  constructor(arena: Arena, verbs: Verbs, module: WebAssembly.Module, documents: DocumentReader, owner?: number) {
    this.#arena = arena;
    this.#verbs = verbs;
    this.#module = module;
    this.#documents = documents;
    this.#scratch = owner === undefined ? undefined : SCRATCH_OF.SEARCH + owner;
    this.#view = new GraphView(arena, verbs);
  }

  /** Makes what this thread knows of the graph current. @returns a status */
  refresh(root: RegionRef | undefined): number {
    return this.#view.refresh(root);
  }

  get view(): GraphView {
    return this.#view;
  }

  /** Partition that could not be read when the last status was not SUCCESS, or −1. */
  get lostPartition(): number {
    return this.#view.lostPartition;
  }

  /**
   * Finds documents near a query.
   *
   * @param root The graph's root, as its collection knows it now.
   * @param k Hits wanted, in [1, 65536].
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`.
   */
  search(root: RegionRef | undefined, query: GraphQuery, k: number, limits: GraphSearchLimits = {}): GraphSearchResult {
    if (!Number.isInteger(k) || k < 1 || k > MAX_EF)
      throw invalidArgument("search graph", "k", `an integer in [1, ${MAX_EF}]`, k);
    const tally: Tally = { distances: 0, expansions: 0, stale: 0, unread: 0 };
    let status: number = STATUS.RETRY_EXCEEDED;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      status = this.#refresh(root);
      if (status !== STATUS.SUCCESS) return failed(status, tally);
      const hits = this.#attempt(query, k, limits, tally);
      if (hits !== undefined) return this.#result(hits, tally, limits.countReads === true);
      this.#view.forget();
      status = STATUS.REGION_REVOKED;
    }
    return failed(status, tally);
  }

  /** Finds documents near each of several queries. */
  searchMany(
    root: RegionRef | undefined,
    queries: readonly GraphQuery[],
    k: number,
    limits: GraphSearchLimits = {},
  ): GraphSearchResult[] {
    return queries.map((query) => this.search(root, query, k, limits));
  }

  /**
   * Reads the documents of vertices that somebody else has found.
   *
   * @param vertices Nearest first.
   * @param most Hits wanted.
   * @param distances Of the vertices' codes, as long as chunks are where they were. @default not known
   * @returns Fewer hits than wanted also when documents have gone meanwhile: see `stale`.
   */
  rank(
    root: RegionRef | undefined,
    vector: Float32Array,
    vertices: Int32Array,
    most: number,
    distances?: Float32Array,
  ): GraphSearchResult {
    const tally: Tally = { distances: 0, expansions: 0, stale: 0, unread: 0 };
    let status: number = STATUS.RETRY_EXCEEDED;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      status = this.#view.refresh(root);
      if (status !== STATUS.SUCCESS) return failed(status, tally);
      tally.stale = tally.unread = 0;
      const vertexAt = (at: number): number => vertices[at] as number;
      const hits = this.#rerank(
        vector,
        vertices.length,
        vertexAt,
        (at) => (attempt === 0 ? distances?.[at] : undefined),
        most,
        tally,
      );
      if (hits !== undefined) return { ...failed(STATUS.SUCCESS, tally), hits: hits.sort(byDistance) };
      this.#view.forget();
      status = STATUS.REGION_REVOKED;
    }
    return failed(status, tally);
  }

  /** Gives the scratch range back. */
  close(): void {
    this.#kernels?.close();
    this.#kernels = undefined;
    this.#generation = -1;
  }

  #refresh(root: RegionRef | undefined): number {
    const view = this.#view;
    const status = view.refresh(root);
    if (status !== STATUS.SUCCESS || view.geometry === undefined) return status;
    if (view.generation === this.#generation && this.#kernels !== undefined) return status;
    if (this.#kernels !== undefined && this.#kernels.geometry !== view.geometry && !sameShape(this.#kernels, view))
      this.close();
    this.#kernels ??= new GraphKernels(this.#module, this.#arena, view.geometry, this.#scratch);
    this.#kernels.setChunks(view.chunks, view.partitions);
    this.#generation = view.generation;
    return status;
  }

  /** One search, widened until k documents are there or nothing more is found. Undefined when a chunk changed hands. */
  #attempt(query: GraphQuery, k: number, limits: GraphSearchLimits, tally: Tally): GraphHit[] | undefined {
    const kernels = this.#kernels as GraphKernels;
    const rerank = Math.min(MAX_EF, Math.max(k, limits.rerank ?? k));
    const ranked = limits.rerank === undefined ? (found: number) => this.#withTies(found, k) : () => rerank;
    kernels.setEntries(limits.entries ?? this.#view.readEntries());
    let ef = Math.min(MAX_EF, Math.max(rerank, limits.ef ?? DEFAULT_EF));
    for (;;) {
      const found = kernels.search(query.code, optionsOf(ef, limits), query.inverseNorm);
      tally.distances += kernels.distances;
      tally.expansions += kernels.expansions;
      if (kernels.changedChunk() >= 0) return undefined;
      tally.stale = tally.unread = 0;
      const [vertexAt, distanceAt] = [kernels.resultVertex.bind(kernels), kernels.resultDistance.bind(kernels)];
      const hits = this.#rerank(query.vector, found, vertexAt, distanceAt, ranked(found), tally);
      if (hits === undefined) return undefined;
      // Results that turned out to be gone took the place of others: ask for more.
      const short = hits.length < rerank && tally.stale > 0 && found === ef && ef < MAX_EF && kernels.stopped === 0;
      if (!short) return hits.sort(byDistance).slice(0, k);
      ef = Math.min(MAX_EF, ef * 2);
    }
  }

  /** The k nearest results, and those as near as the last of them. */
  #withTies(found: number, k: number): number {
    const kernels = this.#kernels as GraphKernels;
    let count = Math.min(found, k);
    while (count < found && kernels.resultDistance(count) === kernels.resultDistance(count - 1)) count++;
    return count;
  }

  #rerank(
    query: Float32Array,
    found: number,
    vertexAt: (index: number) => number,
    distanceAt: (index: number) => number | undefined,
    wanted: number,
    tally: Tally,
  ): GraphHit[] | undefined {
    const hits: GraphHit[] = [];
    const seen = new Set<number>();
    const batch: VertexDocument[] = [];
    this.#documents.begin(query);
    for (let next = 0; next < found && hits.length < wanted; ) {
      // As many as are wanted still, all of them expected before the first is scored.
      batch.length = 0;
      for (const end = Math.min(found, next + wanted - hits.length); next < end; next++) {
        const document = this.#documentOf(vertexAt(next), distanceAt(next));
        if (document === undefined) return undefined;
        if (document.address === 0) {
          tally.stale++;
          continue;
        }
        this.#documents.expect?.(document.address, document.shard);
        batch.push(document);
      }
      for (const { address } of batch) this.#documents.expectRecord?.(address);
      for (const { vertex, address, incarnation, shard, version, distance } of batch) {
        // Two vertices may stand for one row: its last document and this one, or this one while it moves to another partition.
        const status = seen.has(address)
          ? NOT_FOUND
          : this.#documents.score(address, incarnation, shard, vertex, version, distance);
        if (status === STATUS.SUCCESS) {
          seen.add(address);
          hits.push({ vertex, address, incarnation, shard, distance: this.#documents.distance });
        } else if (status === NOT_FOUND || status === STATUS.STALE_CELL || status === MOVED) tally.stale++;
        else tally.unread++;
      }
    }
    return hits;
  }

  /** The document of a vertex, address 0 when it has none now. Undefined when its chunk's key is not good any more. */
  #documentOf(vertex: number, distance: number | undefined): VertexDocument | undefined {
    const none = { vertex, address: 0, incarnation: 0, shard: 0, version: 0, distance: Number.NaN };
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (!this.#view.vertexRef(vertex, this.#ref)) return undefined;
      const begun = this.#verbs.beginInPlace(this.#ref);
      if (begun === STATUS.RETRY_EXCEEDED) continue; // it is being taken or freed
      if (begun !== STATUS.SUCCESS) return undefined;
      const word = this.#ref.address >>> 2;
      const { i32, u32 } = this.#arena;
      const address = u32[word + USER0] as number;
      const incarnation = i32[word + USER1] as number;
      const shard = i32[word + USER2] as number;
      const flags = i32[word + USER3] as number;
      const version = distance === undefined ? 0 : (i32[word + USER4] as number);
      const ended = this.#verbs.endInPlace();
      if (ended === STATUS.RETRY_EXCEEDED) continue;
      if (ended !== STATUS.SUCCESS) return undefined;
      return (flags & VERTEX_FLAG.TOMBSTONE) !== 0
        ? none
        : { ...none, address, incarnation, shard, version, distance: distance ?? Number.NaN };
    }
    return none;
  }

  #result(hits: GraphHit[], tally: Tally, counted: boolean): GraphSearchResult {
    const kernels = this.#kernels as GraphKernels;
    const reads: number[] = [];
    for (let partition = 0; counted && partition < this.#view.partitions; partition++)
      reads.push(kernels.readsOf(partition));
    const { damaged, dangling, stopped } = kernels;
    return { status: STATUS.SUCCESS, hits, damaged, dangling, stopped, reads, ...tally };
  }
}

function byDistance(a: GraphHit, b: GraphHit): number {
  return a.distance - b.distance || a.vertex - b.vertex;
}

function failed(status: number, tally: Tally): GraphSearchResult {
  return { status, hits: [], damaged: 0, dangling: 0, stopped: 0, reads: [], ...tally };
}

function optionsOf(ef: number, limits: GraphSearchLimits): GraphSearchOptions {
  const { filter = 0, filterBits = 0, limitDistances = 0, countReads = false, searchElement } = limits;
  const options = { ef, filter, filterBits, limitDistances, countReads };
  return searchElement === undefined ? options : { ...options, searchElement };
}

/** A root that was adopted has the same shape under another key. */
function sameShape(kernels: GraphKernels, view: GraphView): boolean {
  return JSON.stringify(kernels.geometry) === JSON.stringify(view.geometry);
}
