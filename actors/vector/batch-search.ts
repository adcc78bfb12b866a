/**
 * One-sided searches for many queries that advance in rounds: what all of them need next is read once, by one posted list to each shard.
 *
 * The steps: `begin` looks at the roots of the shards and reads the rows that wait to be linked; `advance` searches the graph in copies of its
 * vertices (graph-mirror.ts) and fetches those that are missing, until no search misses any; `finish` reads the rows of what was found, each once
 * for all queries that found it. Other work of this thread may come between two calls.
 * Invariant: a hit is from its row in one version under a good key, read after the batch began. Where a query met anything but what a search by
 * itself meets when nobody writes (a row that had gone, too few hits, memory that cannot be read), it has no result here: it is searched alone.
 * One thread only.
 */
import { INCARNATION, USER0 } from "../../native-bridge/cell-layout.ts";
import { ELEMENT, type Kernels } from "../../native-bridge/kernels.ts";
import { STATUS } from "../../native-bridge/status.ts";
import { OPCODE } from "../../native-bridge/verbs.ts";
import { ShardloomError } from "../../src/errors.ts";
import { compareIds } from "../../src/routing/merge.ts";
import { RECORD_HEADER_BYTES, RECORD_ID_WORD } from "../../src/store/collection-layout.ts";
import { idLengthOf, isIdWord, readId } from "../../src/store/id-codec.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import type { ScanOptions } from "./exact-scan.ts";
import { GraphCode, rankedAgain } from "./graph/graph-code.ts";
import { GraphMirror, type VertexDocument } from "./graph/graph-mirror.ts";
import { EVERYWHERE, isWithin } from "./graph/graph-rows.ts";
import { GraphView } from "./graph/graph-view.ts";
import type { OneSidedSource } from "./one-sided-result.ts";
import { withoutTwins } from "./one-sided-result.ts";
import { SPARE } from "./one-sided-search.ts";
import { type ListCounts, PostedLists } from "./posted-lists.ts";
import type { Compass } from "./routing/compass.ts";
import type { RowReader } from "./row-reader.ts";
import type { MutableRef } from "./shard-view.ts";
import type { LeafView } from "./strategy/leaf-view.ts";
import { isExactCode, type ResolvedVectorOptions } from "./vector-options.ts";
import type { SearchHit } from "./vector-replies.ts";

/** What a thread searches a batch with. */
export interface BatchParts {
  readonly rows: RowReader;
  readonly kernels: Kernels;
  readonly options: ResolvedVectorOptions;
  readonly leaves: LeafView;
  readonly source: () => OneSidedSource;
}

/** Options of a batch: without a filter. */
export interface BatchOptions extends ScanOptions {
  readonly ef?: number;
}

interface BatchQuery {
  readonly vector: Float32Array;
  code: Uint8Array;
  entries: readonly number[];
  /** What the graph led to, nearest first; undefined while it is searched. */
  documents: readonly VertexDocument[] | undefined;
  /** How far away what the graph led to was looked for. */
  reach: number;
  readonly hits: SearchHit[];
  isAlone: boolean;
}

/** A row to be read, and who wants it. */
interface WantedRow {
  readonly shard: number;
  /** Undefined: whichever document is there, for all queries. */
  readonly incarnation: number | undefined;
  readonly queries: readonly BatchQuery[];
}

/** What looks at all shards saw. */
interface ShardLooks {
  status: number;
  /** Rows that wait to be linked, of each shard. */
  readonly waiting: number[][];
  readonly live: number[];
}

const NO_HITS: Map<number, SearchHit[]> = new Map();
/** Searches between two pauses. */
const SLICE = 128;
/** Rows that wait to be linked, more of which are better searched for one query after the other. */
const MOST_WAITING = 256;
/** The same times queries: each is scored for every query, and kept. */
const MOST_SCORES = 1_048_576;
/** A peer of its own: who holds what the shards share. */
const HOLDER = -1;

export class BatchSearch {
  /** Rounds in which vertices were fetched. */
  rounds = 0;
  /** Distances computed for all queries, those of searches that were done again included. */
  distances = 0;
  /** Why queries have to be searched alone: memory could not be read, or had for copies; or too many rows wait to be linked. */
  failure: "memory" | "waiting" | undefined;
  readonly #parts: BatchParts;
  readonly #queries: readonly BatchQuery[];
  readonly #k: number;
  readonly #options: BatchOptions;
  readonly #lists: PostedLists;
  readonly #view: GraphView;
  readonly #ref: MutableRef = { address: 0, rkey: 0, length: 0 };
  /** Rows that have been read as waiting, by address. */
  readonly #waited: Set<number> = new Set();
  #source: OneSidedSource;
  #mirror: GraphMirror | undefined;
  #landmarks: ReadonlyMap<number, readonly number[]> = new Map();
  #live = 0;
  #next = 0;

  /** @param queries Checked. */
  constructor(parts: BatchParts, queries: readonly Float32Array[], k: number, options: BatchOptions) {
    this.#parts = parts;
    this.#k = k;
    this.#options = options;
    this.#lists = new PostedLists(parts.rows.arena);
    this.#view = new GraphView(parts.rows.arena, parts.rows.verbs);
    this.#source = parts.source();
    this.#queries = queries.map((vector) => ({
      ...{
        vector,
        code: new Uint8Array(0),
        entries: [],
        documents: undefined,
        reach: EVERYWHERE,
        hits: [],
        isAlone: false,
      },
    }));
  }

  get counts(): Readonly<ListCounts> {
    return this.#lists.counts;
  }

  /** @returns a status; when it is not SUCCESS there is no more to be done here */
  begin(): number {
    const { graph } = this.#source;
    if (graph === undefined) return STATUS.INVALID_RKEY;
    let viewed: number = STATUS.INVALID_RKEY;
    let compass: Compass | undefined;
    const visit = (): void => {
      viewed = this.#view.refresh(graph);
      compass = this.#parts.leaves.router(graph);
      this.#view.readEntries();
      this.#landmarks = this.#parts.leaves.landmarks();
    };
    this.#lists.add(HOLDER, HOLDER, { opcode: OPCODE.VISIT, ref: graph, visit });
    const looks = this.#look();
    this.#post(looks, NO_HITS);
    if (looks.status !== STATUS.SUCCESS || viewed !== STATUS.SUCCESS) return looks.status || viewed;
    if (!this.#readWaiting(looks)) return STATUS.RETRY_EXCEEDED;
    const entered = this.#enter(compass);
    if (entered !== STATUS.SUCCESS) return entered;
    return this.#guard(() => {
      const { rows: reader, kernels } = this.#parts;
      this.#mirror = new GraphMirror(reader.arena, kernels.module, this.#view, this.#lists);
      return STATUS.SUCCESS;
    });
  }

  /** A slice of the work. @returns whether all of the graph's part is done */
  advance(): boolean {
    const mirror = this.#mirror as GraphMirror;
    const k = rankedAgain(this.#parts.options, this.#k);
    const ef = Math.max(this.#k, this.#options.ef || this.#parts.options.expansionSearch, k);
    const status = this.#guard(() => {
      for (let done = 0; this.#next < this.#queries.length && done < SLICE; this.#next++) {
        const query = this.#queries[this.#next] as BatchQuery;
        if (query.documents !== undefined || query.isAlone) continue;
        done++;
        const found = mirror.search(query.code, query.entries, ef);
        this.distances += mirror.distances;
        if (found >= 0 && mirror.isTorn) query.isAlone = true;
        else if (found >= 0) this.#take(query, found, ef, Math.min(k + SPARE, ef));
      }
      if (this.#next < this.#queries.length) return STATUS.SUCCESS;
      this.#next = 0;
      if (this.#open === 0) return STATUS.SUCCESS;
      this.rounds++;
      return mirror.fetch();
    });
    if (status !== STATUS.SUCCESS) {
      this.failure = "memory";
      for (const query of this.#queries) query.isAlone ||= query.documents === undefined;
    }
    return this.#open === 0;
  }

  /** @returns for each query its hits, ascending by (score, id); undefined: it has to be searched alone */
  finish(): (readonly SearchHit[] | undefined)[] {
    this.#source = this.#parts.source();
    const rows = new Map<number, WantedRow>();
    for (const query of this.#queries) {
      for (const { address, incarnation, shard } of query.isAlone ? [] : (query.documents ?? [])) {
        const row = rows.get(address);
        if (row === undefined) rows.set(address, { shard, incarnation, queries: [query] });
        else if (row.incarnation === incarnation) {
          (row.queries as BatchQuery[]).push(query);
          this.#lists.counts.deduplicated++;
        } else query.isAlone = true;
      }
    }
    const found = this.#addRows(rows);
    // Behind them in the same lists: rows that were written meanwhile, as what the graph led to before may be among them.
    const looks = this.#look();
    this.#post(looks, found);
    this.#takeRows(rows, found);
    const isWhole = looks.status === STATUS.SUCCESS && this.#readWaiting(looks);
    if (!isWhole) this.failure ??= "memory";
    return this.#queries.map((query) => (isWhole ? this.#result(query) : undefined));
  }

  /** Gives memory back. */
  close(): void {
    this.#mirror?.close();
    this.#mirror = undefined;
  }

  get #open(): number {
    return this.#queries.reduce(
      (sum, { documents, isAlone }) => sum + (documents === undefined && !isAlone ? 1 : 0),
      0,
    );
  }

  /** A full arena ends a batch, not its searches. */
  #guard(act: () => number): number {
    try {
      return act();
    } catch (error) {
      if (ShardloomError.is(error) && error.code === "ERR_OUT_OF_MEMORY") return STATUS.LOCAL_LENGTH_ERROR;
      throw error;
    }
  }

  /** Adds a look at each shard to the lists: it makes its view current, and finds the rows that wait to be linked. */
  #look(): ShardLooks {
    const { views, rootOf } = this.#source;
    const looks: ShardLooks = { status: STATUS.SUCCESS, waiting: views.map(() => []), live: views.map(() => 0) };
    for (const [shard, view] of views.entries()) {
      const ref = rootOf(shard);
      const visit = (): void => {
        const status = view.refresh(ref);
        const used = view.rowsUsedNow();
        const isReady = status === STATUS.SUCCESS && used >= 0 && view.pending !== 0;
        if (!isReady) looks.status = status === STATUS.SUCCESS ? STATUS.INVALID_RKEY : status;
        looks.live[shard] = Math.max(0, view.liveNow());
        looks.waiting[shard] = isReady ? this.#bitsAt(view.pending, Math.min(view.pendingBytes * 8, used)) : [];
      };
      if (ref === undefined) looks.status = STATUS.INVALID_RKEY;
      else this.#lists.add(shard, HOLDER - 1 - shard, { opcode: OPCODE.VISIT, ref, visit });
    }
    return looks;
  }

  /** Posts looks and rows; what was not read is not found. */
  #post(looks: ShardLooks, found: Map<number, SearchHit[]>): void {
    this.#lists.post((id, status) => {
      if (status === STATUS.SUCCESS) return;
      if (id < 0) looks.status = status;
      else found.delete(id);
    });
  }

  /** Reads the rows that wait, but for those that were read. @returns whether it could be done */
  #readWaiting({ waiting, live }: ShardLooks): boolean {
    this.#live = live.reduce((sum, count) => sum + count, 0);
    const rows = new Map<number, WantedRow>();
    for (const [shard, numbers] of waiting.entries()) {
      for (const row of numbers) {
        if (this.#source.views[shard]?.cellRef(row, this.#ref) !== true || this.#waited.has(this.#ref.address))
          continue;
        this.#waited.add(this.#ref.address);
        rows.set(this.#ref.address, { shard, incarnation: undefined, queries: this.#queries });
      }
    }
    if (rows.size > MOST_WAITING || rows.size * this.#queries.length > MOST_SCORES) {
      this.failure = "waiting";
      return false;
    }
    const found = this.#addRows(rows);
    const looks: ShardLooks = { status: STATUS.SUCCESS, waiting: [], live: [] };
    this.#post(looks, found);
    this.#takeRows(rows, found);
    return true;
  }

  #bitsAt(address: number, count: number): number[] {
    const bits: number[] = [];
    for (let first = 0; first < count; first += 32) {
      let word = Atomics.load(this.#parts.rows.arena.i32, (address >>> 2) + (first >>> 5));
      for (; word !== 0 && bits.length <= MOST_WAITING; word &= word - 1) {
        const row = first + 31 - Math.clz32(word & -word);
        if (row < count) bits.push(row);
      }
    }
    return bits;
  }

  /** Codes of the queries, and where each begins. */
  #enter(compass: Compass | undefined): number {
    const { options, leaves } = this.#parts;
    const code = new GraphCode(options);
    const spent = { distances: 0 };
    const begins: Int32Array[] = [];
    const medoids = new Map<number, Int32Array>();
    for (const query of this.#queries) {
      if (!code.encode(query.vector)) return STATUS.INVALID_RKEY;
      query.code = code.bytes.slice();
      if (compass === undefined) continue;
      const { ids, count } = leaves.nearest(compass, code.components, spent);
      begins.push(ids.slice(0, count));
      for (const leaf of ids.subarray(0, count)) {
        const ref = this.#lists.wants(leaf) ? leaves.medoidRef(leaf) : undefined;
        if (ref === undefined) continue;
        const local = new Int32Array(1);
        medoids.set(leaf, local);
        this.#lists.add(HOLDER, leaf, { opcode: OPCODE.READ, ref, local: new Uint8Array(local.buffer) });
      }
    }
    this.distances += spent.distances;
    this.#lists.post(() => undefined); // what was not read is zero, and no medoid
    for (const [at, query] of this.#queries.entries()) {
      const own = [...(begins[at] ?? [])]
        .map((leaf) => (medoids.get(leaf)?.[0] ?? 0) - 1)
        .filter((vertex) => vertex >= 0);
      const landmarks = [...(begins[at] ?? [])].flatMap((leaf) => this.#landmarks.get(leaf) ?? []);
      query.entries = own.length === 0 ? this.#view.entries : [...own, ...landmarks];
    }
    return STATUS.SUCCESS;
  }

  /** The documents that a search would read: so many of the nearest, each row once. */
  #take(query: BatchQuery, found: number, ef: number, most: number): void {
    const documents = new Map<number, VertexDocument>();
    if (found === ef) query.reach = this.#mirror?.distanceOf(most - 1) ?? 0;
    for (let at = 0; at < found && documents.size < most; at++) {
      const document = this.#mirror?.documentOf(at);
      if (document !== undefined && !documents.has(document.address)) documents.set(document.address, document);
    }
    query.documents = [...documents.values()];
  }

  /** Adds rows to the lists, each once, to be scored for those who want them. @returns hits by address, in the order of the queries */
  #addRows(rows: ReadonlyMap<number, WantedRow>): Map<number, SearchHit[]> {
    const found = new Map<number, SearchHit[]>();
    for (const [address, wanted] of rows) {
      const view = this.#source.views[wanted.shard];
      if (view?.cellRef(view.rowAt(address), this.#ref) !== true) continue;
      const visit = (): void => {
        found.delete(address);
        const hits = this.#hitsAt(address, wanted);
        if (hits !== undefined) found.set(address, hits);
      };
      this.#lists.add(wanted.shard, address, { opcode: OPCODE.VISIT, ref: { ...this.#ref }, visit });
    }
    return found;
  }

  #takeRows(rows: ReadonlyMap<number, WantedRow>, found: ReadonlyMap<number, SearchHit[]>): void {
    for (const [address, { incarnation, queries }] of rows) {
      const hits = found.get(address);
      for (const [at, query] of queries.entries()) {
        if (hits !== undefined) query.hits.push(hits[at] as SearchHit);
        else if (incarnation !== undefined) query.isAlone = true; // it has gone, or cannot be read now
      }
    }
  }

  /** What a row holds, as a hit of each query; under the checks of its visit. Undefined: not the document that was meant. */
  #hitsAt(cell: number, { shard, incarnation, queries }: WantedRow): SearchHit[] | undefined {
    const { rows, kernels } = this.#parts;
    const { includeVector = false, includePayload = false } = this.#options;
    const { i32, u32, bytes } = rows.arena;
    const view = this.#source.views[shard];
    const record = u32[(cell >>> 2) + USER0] as number;
    if (view === undefined || record === 0 || !rows.inside(record, RECORD_HEADER_BYTES)) return undefined;
    if (incarnation !== undefined && i32[(cell >>> 2) + INCARNATION] !== incarnation) return undefined;
    const idWord = i32[(record >>> 2) + RECORD_ID_WORD] as number;
    if (!isIdWord(idWord) || !rows.inside(record, RECORD_HEADER_BYTES + idLengthOf(idWord))) return undefined;
    const id = readId(bytes, record + RECORD_HEADER_BYTES, idWord);
    if (this.#source.shardOf(hashId(id)) !== shard) return undefined;
    return queries.map(({ vector }) => {
      kernels.beginScan(view.metric, ELEMENT.F32, vector, 1);
      const score = kernels.scoreCell(cell);
      return { score, id, ...rows.copyStored(cell, record, view.dimensions, includeVector, includePayload) };
    });
  }

  #result({ hits, isAlone, documents, reach }: BatchQuery): readonly SearchHit[] | undefined {
    if (isAlone || documents === undefined) return undefined;
    const nearest = withoutTwins(hits.sort((a, b) => a.score - b.score || compareIds(a.id, b.id))).slice(0, this.#k);
    const last = nearest[this.#k - 1];
    if (last === undefined) return nearest.length >= this.#live ? nearest : undefined;
    return !isExactCode(this.#parts.options) || isWithin(last.score, reach) ? nearest : undefined; // else some have moved away
  }
}
