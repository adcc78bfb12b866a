/**
 * One-sided searches for many queries that advance in rounds: what all of them need next is read once, by one posted list to each shard.
 *
 * The steps: `begin` looks at the roots of the shards and reads the rows that wait to be linked; `search` searches the graph in copies of its
 * vertices (graph-mirror.ts) and fetches those that are missing, until no search misses any; `finish` reads the rows of what was found, each once
 * for all queries that found it (batch-rows.ts). All are done in slices, between which other work of this thread may come.
 * Invariant: a hit is from its row in one version under a good key, read after the batch began. Where a query met anything but what a search by
 * itself meets when nobody writes (a row that had gone, too few hits, memory that cannot be read), it has no result here: it is searched alone.
 * One thread only.
 */
import type { Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS } from "../../native-bridge/status.ts";
import { OPCODE } from "../../native-bridge/verbs.ts";
import { ShardloomError } from "../../src/errors.ts";
import { compareIds } from "../../src/routing/merge.ts";
import { BatchRows, type FoundRows, type WantedRow } from "./batch-rows.ts";
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
import type { Slices } from "./slices.ts";
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

/** What looks at all shards saw. */
interface ShardLooks {
  status: number;
  /** Rows that wait to be linked, of each shard. */
  readonly waiting: number[][];
  readonly live: number[];
}

/** Looks for rows that wait when a batch begins: after a pause others may have come, which leave again before the graph is copied. */
const MOST_LOOKS = 3;
/** Searches of a slice, and queries of one whose part is small. */
const SLICE = 8;
const SLICE_QUERIES = 256;
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
  readonly #rows: BatchRows;
  readonly #view: GraphView;
  readonly #ref: MutableRef = { address: 0, rkey: 0, length: 0 };
  /** Rows that have been read as waiting, by address. */
  readonly #waited: Set<number> = new Set();
  #source: OneSidedSource;
  #mirror: GraphMirror | undefined;
  #landmarks: ReadonlyMap<number, readonly number[]> = new Map();
  #live = 0;

  /** @param queries Checked. */
  constructor(parts: BatchParts, queries: readonly Float32Array[], k: number, options: BatchOptions) {
    this.#parts = parts;
    this.#k = k;
    this.#options = options;
    this.#lists = new PostedLists(parts.rows.arena);
    this.#rows = new BatchRows(parts.rows, parts.kernels, this.#lists, options);
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
  *begin(): Slices<number> {
    const { graph } = this.#source;
    if (graph === undefined) return STATUS.INVALID_RKEY;
    let viewed: number = STATUS.INVALID_RKEY;
    const visit = (): void => {
      viewed = this.#view.refresh(graph);
      this.#parts.leaves.router(graph);
      this.#view.readEntries();
      this.#landmarks = this.#parts.leaves.landmarks();
    };
    this.#lists.add(HOLDER, HOLDER, { opcode: OPCODE.VISIT, ref: graph, visit });
    for (let look = 0, read = 1; read > 0 && look < MOST_LOOKS; look++) {
      const looks = this.#look();
      yield* this.#post(looks);
      if (looks.status !== STATUS.SUCCESS || viewed !== STATUS.SUCCESS) return looks.status || viewed;
      read = yield* this.#readWaiting(looks);
      if (read < 0) return STATUS.RETRY_EXCEEDED;
    }
    const entered = yield* this.#enter(graph);
    if (entered !== STATUS.SUCCESS) return entered;
    try {
      const { rows, kernels } = this.#parts;
      this.#mirror = new GraphMirror(rows.arena, kernels.module, this.#view, this.#lists);
      return STATUS.SUCCESS;
    } catch (error) {
      return fullArena(error);
    }
  }

  /** Does all of the graph's part. */
  *search(): Slices<void> {
    while (this.#queries.some(isOpen)) {
      let status: number;
      try {
        status = yield* this.#round();
      } catch (error) {
        status = fullArena(error);
      }
      if (status === STATUS.SUCCESS) continue;
      this.failure = "memory";
      for (const query of this.#queries) query.isAlone ||= query.documents === undefined;
    }
  }

  /** @returns for each query its hits, ascending by (score, id); undefined: it has to be searched alone */
  *finish(): Slices<(readonly SearchHit[] | undefined)[]> {
    this.#source = this.#parts.source();
    const rows = new Map<number, WantedRow>();
    for (const [at, query] of this.#queries.entries()) {
      for (const { address, incarnation, shard } of query.isAlone ? [] : (query.documents ?? [])) {
        const row = rows.get(address);
        if (row === undefined) rows.set(address, { shard, incarnation, queries: [query] });
        else if (row.incarnation === incarnation) {
          (row.queries as BatchQuery[]).push(query);
          this.#lists.counts.deduplicated++;
        } else query.isAlone = true;
      }
      if (at % SLICE_QUERIES === 0) yield;
    }
    const found = yield* this.#rows.add(rows, this.#source);
    // Behind them in the same lists: rows that were written meanwhile, as what the graph led to before may be among them.
    const looks = this.#look();
    yield* this.#post(looks, found);
    yield* this.#rows.take(rows, found);
    const isWhole = looks.status === STATUS.SUCCESS && (yield* this.#readWaiting(looks)) >= 0;
    if (!isWhole) this.failure ??= "memory";
    const results: (readonly SearchHit[] | undefined)[] = [];
    for (const query of this.#queries) {
      results.push(isWhole ? this.#result(query) : undefined);
      if (results.length % SLICE_QUERIES === 0) yield;
    }
    return results;
  }

  /** Gives memory back. */
  close(): void {
    this.#mirror?.close();
    this.#mirror = undefined;
  }

  /** Searches what is not found yet in the copies that are there, and fetches those that are missing. @returns a status */
  *#round(): Slices<number> {
    const mirror = this.#mirror as GraphMirror;
    const k = rankedAgain(this.#parts.options, this.#k);
    const ef = Math.max(this.#k, this.#options.ef || this.#parts.options.expansionSearch, k);
    let searched = 0;
    for (const query of this.#queries) {
      if (!isOpen(query)) continue;
      const found = mirror.search(query.code, query.entries, ef);
      this.distances += mirror.distances;
      if (found >= 0 && mirror.isTorn) query.isAlone = true;
      else if (found >= 0) this.#take(query, found, ef, Math.min(k + SPARE, ef));
      if (++searched % SLICE === 0) yield;
    }
    if (!this.#queries.some(isOpen)) return STATUS.SUCCESS;
    this.rounds++;
    return yield* mirror.fetch();
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
  *#post(looks: ShardLooks, found?: FoundRows): Slices<void> {
    yield* this.#lists.post((id, status) => {
      if (status === STATUS.SUCCESS) return;
      if (id < 0) looks.status = status;
      else found?.delete(id);
    });
  }

  /** Reads the rows that wait, but for those that were read. @returns how many those are; −1 when it could not be done */
  *#readWaiting({ waiting, live }: ShardLooks): Slices<number> {
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
      return -1;
    }
    const found = yield* this.#rows.add(rows, this.#source);
    yield* this.#post({ status: STATUS.SUCCESS, waiting: [], live: [] }, found);
    yield* this.#rows.take(rows, found);
    return rows.size;
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
  *#enter(graph: RegionRef): Slices<number> {
    const { leaves } = this.#parts;
    const begins = yield* this.#nearestLeaves(graph);
    if (begins === undefined) return STATUS.INVALID_RKEY;
    const medoids = new Map<number, Int32Array>();
    for (const leaf of begins.flatMap((ids) => [...ids])) {
      const ref = this.#lists.wants(leaf) ? leaves.medoidRef(leaf) : undefined;
      if (ref === undefined) continue;
      const local = new Int32Array(1);
      medoids.set(leaf, local);
      this.#lists.add(HOLDER, leaf, { opcode: OPCODE.READ, ref, local: new Uint8Array(local.buffer) });
    }
    yield* this.#lists.post(() => undefined); // what was not read is zero, and no medoid
    for (const [at, query] of this.#queries.entries()) {
      const ids = [...(begins[at] ?? [])];
      const own = ids.map((leaf) => (medoids.get(leaf)?.[0] ?? 0) - 1).filter((vertex) => vertex >= 0);
      const landmarks = ids.flatMap((leaf) => this.#landmarks.get(leaf) ?? []);
      query.entries = own.length === 0 ? this.#view.entries : [...own, ...landmarks];
      if (at % SLICE_QUERIES === 0) yield;
    }
    return STATUS.SUCCESS;
  }

  /** @returns the leaves nearest to each query, none where they are not known; undefined: a query has no code */
  *#nearestLeaves(graph: RegionRef): Slices<Int32Array[] | undefined> {
    const { options, leaves } = this.#parts;
    const code = new GraphCode(options);
    const spent = { distances: 0 };
    const begins: Int32Array[] = [];
    let compass: Compass | undefined;
    for (let at = 0; at < this.#queries.length; at++) {
      if (at % SLICE === 0) {
        if (at > 0) yield;
        // After a pause another search may have taken another table, which ends this router.
        const router = leaves.router(graph);
        if (router !== compass) at = begins.length = 0;
        compass = router;
      }
      const query = this.#queries[at] as BatchQuery;
      if (!code.encode(query.vector)) return undefined;
      query.code = code.bytes.slice();
      if (compass === undefined) continue;
      const { ids, count } = leaves.nearest(compass, code.components, spent);
      begins.push(ids.slice(0, count));
    }
    this.distances += spent.distances;
    return begins;
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

  #result({ hits, isAlone, documents, reach }: BatchQuery): readonly SearchHit[] | undefined {
    if (isAlone || documents === undefined) return undefined;
    const nearest = withoutTwins(hits.sort((a, b) => a.score - b.score || compareIds(a.id, b.id))).slice(0, this.#k);
    const last = nearest[this.#k - 1];
    if (last === undefined) return nearest.length >= this.#live ? nearest : undefined;
    return !isExactCode(this.#parts.options) || isWithin(last.score, reach) ? nearest : undefined; // else some have moved away
  }
}

/** A full arena ends a batch, not its searches. */
function fullArena(error: unknown): number {
  if (ShardloomError.is(error) && error.code === "ERR_OUT_OF_MEMORY") return STATUS.LOCAL_LENGTH_ERROR;
  throw error;
}

function isOpen({ documents, isAlone }: BatchQuery): boolean {
  return documents === undefined && !isAlone;
}
