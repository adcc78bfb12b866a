/**
 * One thread's instance of the graph kernels, with the scratch range in which a search or an insertion happens.
 *
 * Invariant: an instance writes inside its own scratch, and through `insert`, `move` and `repair` lists, tree words and the root's name. The
 * table of chunks that all addresses are formed from is the thread's own copy, so damaged shared memory cannot lead the kernels elsewhere.
 * The scratch has room for what is asked of it, or the call throws and everything is as it was: chunks, entries, and the range they are in.
 * One thread only. Results stay valid until the next call that begins a search.
 */
import { invalidArgument } from "../src/errors.ts";
import {
  type GraphExports,
  type GraphGeometry,
  type GraphInsertOptions,
  type GraphSearchOptions,
  type KnownVertex,
  WORD,
  writeLoads,
} from "./graph-control.ts";
import type { KernelArena, METRIC } from "./kernels.ts";

export type { GraphInsertOptions, GraphSearchOptions, KnownVertex } from "./graph-control.ts";

/** A chunk as the kernels see it. */
export interface KernelChunk {
  /** Byte offset of the first vertex; 0 = none. */
  readonly address: number;
  readonly partition: number;
  /** Byte offset of the stamp of its region's table entry, and the value that stands for the region; 0 = not to be checked. */
  readonly stampAddress: number;
  readonly stamp: number;
}

/** Why a search ended before it was done, as bits. */
export const STOPPED = { BUDGET: 1, ASIDE_FULL: 2 } as const;

export const MAX_EF = 65_536;
const MAX_ENTRIES = 65_536;
const ASIDE_CAPACITY = 16_384;
/** Candidates of a repair: neighbours, and neighbours of those that are gone. */
const REPAIR_CANDIDATES = 256;
const LOCK_ATTEMPTS = 4096;
const ENTRY_BYTES = 16;
const CONTROL_BYTES = 256;
/** Owners of scratch are int32: a thread that searches graphs, or collaborates, has another range under its number plus one of these. */
export const SCRATCH_OF = { SEARCH: 0x2000_0000, COLLABORATE: 0x6000_0000 } as const;

/** Sizes that a scratch range is laid out for. */
interface Room {
  readonly ef: number;
  readonly entries: number;
  readonly chunks: number;
  readonly partitions: number;
}

export class GraphKernels {
  readonly geometry: GraphGeometry;
  readonly #arena: KernelArena;
  readonly #owner: number | undefined;
  readonly #exports: GraphExports;
  readonly #i32: Int32Array;
  readonly #f32: Float32Array;
  readonly #f64: Float64Array;
  readonly #bytes: Uint8Array;
  /** What the range has room for: set by who laid it out, never before. */
  #room: Room = { ef: 256, entries: 64, chunks: 0, partitions: 1 };
  #chunks: readonly KernelChunk[] = [];
  #entries: readonly number[] = [];
  #scratch = 0;
  #scratchBytes = 0;
  #word = 0;
  #results = 0;
  #resultCount = 0;

  /** @param owner Number of the thread plus one of SCRATCH_OF; when given, its successor takes the scratch over instead of leaking it. */
  constructor(module: WebAssembly.Module, arena: KernelArena, geometry: GraphGeometry, owner?: number) {
    this.#arena = arena;
    this.#owner = arena.allocateScratch === undefined || arena.freeScratch === undefined ? undefined : owner;
    this.geometry = geometry;
    const { buffer } = arena.memory;
    this.#i32 = new Int32Array(buffer);
    this.#f32 = new Float32Array(buffer);
    this.#f64 = new Float64Array(buffer);
    this.#bytes = new Uint8Array(buffer);
    const instance = new WebAssembly.Instance(module, { env: { memory: arena.memory } });
    this.#exports = instance.exports as unknown as GraphExports;
    this.#layOut(this.#room);
  }

  /**
   * Sets what vertex ids lead to. Numbers without a chunk have address 0.
   *
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`: it is what was set before.
   */
  setChunks(chunks: readonly KernelChunk[], partitions: number): void {
    const { chunks: room } = this.#room;
    if (chunks.length > room || partitions > this.#room.partitions)
      this.#layOut({
        ...this.#room,
        chunks: Math.max(chunks.length, chunks.length > room ? Math.ceil(room * 1.5) : room),
        partitions: Math.max(partitions, this.#room.partitions),
      });
    this.#chunks = [...chunks];
    this.#writeChunks();
  }

  /**
   * Sets where searches begin; the array must not change afterwards. Ids that lead nowhere are skipped and counted as damage.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`: it is what was set before.
   */
  setEntries(entries: readonly number[]): void {
    if (entries === this.#entries) return;
    if (entries.length > MAX_ENTRIES)
      throw invalidArgument("search graph", "entries.length", `at most ${MAX_ENTRIES}`, entries.length);
    const { entries: room } = this.#room;
    if (entries.length > room)
      this.#layOut({ ...this.#room, entries: Math.min(MAX_ENTRIES, Math.max(entries.length, 2 * room)) });
    this.#entries = entries;
    this.#writeEntries();
  }

  /**
   * Searches for the vertices whose codes are nearest to a code.
   *
   * @param code `codeBytes` bytes, in any buffer; under another `searchElement` what that takes a query for.
   * @param inverseNorm For cosine: 1 / |query|. @default computed from the code
   * @returns How many were found, at most `ef`; see {@link resultVertex}.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`.
   */
  search(code: Uint8Array, options: GraphSearchOptions, inverseNorm?: number): number {
    const { element, codeBytes } = this.geometry;
    const searchElement = options.searchElement ?? element;
    if (searchElement === element ? code.byteLength !== codeBytes : code.byteLength > this.#queryBytes)
      throw invalidArgument("search graph", "code.byteLength", `${codeBytes}`, code.byteLength);
    this.#prepare(options.ef, searchElement);
    const word = this.#word;
    const query = this.#queryOffset();
    this.#bytes.set(code, query);
    this.#i32[word + WORD.QUERY] = query;
    this.#f32[word + WORD.QUERY_NORM] = inverseNorm ?? this.#norm(searchElement, query);
    this.#i32[word + WORD.FILTER] = options.filter ?? 0;
    this.#i32[word + WORD.FILTER_BITS] = options.filterBits ?? 0;
    this.#i32[word + WORD.LIMIT_DISTANCES] = options.limitDistances ?? 0;
    const reads = this.#readsOffset();
    if (options.countReads === true) this.#i32.fill(0, reads >>> 2, (reads >>> 2) + this.#room.partitions);
    this.#i32[word + WORD.READS] = options.countReads === true ? reads : 0;
    this.#writeKnown(options.known ?? [], options.ef);
    this.#resultCount = this.#exports.graphSearch(this.#scratch);
    return this.#resultCount;
  }

  /**
   * Links a vertex whose record is written. Any number of threads at once.
   *
   * @returns Its degree; −1 when its lock could not be had, or none of a parent's, or the id leads nowhere.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`.
   */
  insert(vertex: number, options: GraphInsertOptions): number {
    const record = this.addressOf(vertex);
    if (record === 0) return -1;
    this.#prepare(options.efConstruction, this.geometry.element);
    const word = this.#word;
    this.#i32[word + WORD.QUERY] = record + this.geometry.codeOffset;
    this.#f32[word + WORD.QUERY_NORM] = this.#f32[(record + 28) >>> 2] as number;
    this.#i32[word + WORD.FILTER] = 0;
    this.#i32[word + WORD.LIMIT_DISTANCES] = 0;
    this.#i32[word + WORD.READS] = 0;
    this.#link(options);
    this.#resultCount = 0;
    return this.#exports.graphInsert(this.#scratch, vertex);
  }

  /** Mends the list of a vertex. 1: changed, 0: nothing to do, −1: its lock could not be had. */
  repair(vertex: number, options: GraphInsertOptions): number {
    this.#link(options);
    return this.#exports.graphRepair(this.#scratch, vertex);
  }

  /** Gives a vertex's list to a copy that nobody knows of, and leads there who comes to it. False: a lock could not be had, an id leads nowhere. */
  move(vertex: number, copy: number, options: GraphInsertOptions): boolean {
    this.#link(options);
    return this.#exports.graphMove(this.#scratch, vertex, copy) !== 0;
  }

  /** The neighbour of a vertex that is nearest to it and not deleted, or −1. */
  nearestNeighbour(vertex: number): number {
    return this.#exports.graphNearest(this.#scratch, vertex);
  }

  /** Byte offset of a vertex, 0 when its id leads nowhere. */
  addressOf(vertex: number): number {
    const { chunkShift, stride } = this.geometry;
    const base = this.#chunks[vertex >>> chunkShift]?.address ?? 0;
    return base === 0 ? 0 : base + (vertex & ((1 << chunkShift) - 1)) * stride;
  }

  /** First chunk whose region is not the one any more that `setChunks` named, or −1. An acquire: to be called after a search. */
  changedChunk(): number {
    return this.#exports.graphCheckChunks(this.#scratch);
  }

  resultDistance(index: number): number {
    return this.#f64[(this.#results >>> 3) + index * 2] as number;
  }

  resultVertex(index: number): number {
    return this.#i32[(this.#results >>> 2) + index * 4 + 2] as number;
  }

  /** Distance of the nearest that the last search or insertion found; infinite: there was none. */
  get nearestDistance(): number {
    return this.#count(WORD.RESULT_COUNT) === 0 ? Number.POSITIVE_INFINITY : this.resultDistance(0);
  }

  /** Of the last search or insertion. */
  get distances(): number {
    return this.#count(WORD.DISTANCES);
  }

  get expansions(): number {
    return this.#count(WORD.EXPANSIONS);
  }

  /** Ids that lead nowhere, impossible degrees, codes without a distance, met in the last search. */
  get damaged(): number {
    return this.#count(WORD.DAMAGED);
  }

  /** Free vertices that the last search was led to. */
  get dangling(): number {
    return this.#count(WORD.DANGLING);
  }

  /** Bits of {@link STOPPED}. */
  get stopped(): number {
    return this.#count(WORD.STOPPED);
  }

  /** Edges back that were left out, of all insertions so far. */
  get skippedEdges(): number {
    return this.#count(WORD.SKIPPED_EDGES);
  }

  /** Lists that were full and had to be thinned, of all insertions so far. */
  get listsPruned(): number {
    return this.#count(WORD.LISTS_PRUNED);
  }

  /** Vertex reads of the last search from one partition; only when they were asked for. */
  readsOf(partition: number): number {
    const reads = this.#count(WORD.READS);
    return reads === 0 || partition >= this.#room.partitions ? 0 : (this.#i32[(reads >>> 2) + partition] as number);
  }

  /** Partitions that the last search read from; only when that was asked for. */
  get partitionsTouched(): number {
    let touched = 0;
    for (let partition = 0; partition < this.#room.partitions; partition++) if (this.readsOf(partition) > 0) touched++;
    return touched;
  }

  /** Gives the scratch range back. The instance must not be used after. */
  close(): void {
    if (this.#scratchBytes === 0) return;
    if (this.#owner !== undefined) this.#arena.freeScratch?.(this.#owner);
    else this.#arena.free(this.#scratch, this.#scratchBytes);
    this.#scratchBytes = 0;
  }

  #count(word: number): number {
    return this.#i32[this.#word + word] as number;
  }

  #norm(element: number, query: number): number {
    const cosine: (typeof METRIC)["COSINE"] = 1;
    const { metric, dimensions } = this.geometry;
    return metric === cosine ? this.#exports.inverseNorm(element, query, dimensions) : 0;
  }

  #link(options: GraphInsertOptions): void {
    this.#f32[this.#word + WORD.ALPHA] = options.alpha;
    this.#i32[this.#word + WORD.TOKEN] = options.token;
    this.#i32[this.#word + WORD.TREE_ROOT] = options.treeRoot ?? 0;
  }

  #prepare(ef: number, searchElement: number): void {
    if (!Number.isInteger(ef) || ef < 1 || ef > MAX_EF)
      throw invalidArgument("search graph", "ef", `an integer in [1, ${MAX_EF}]`, ef);
    if (ef > this.#room.ef) this.#layOut({ ...this.#room, ef: Math.min(MAX_EF, Math.max(ef, this.#room.ef * 2)) });
    this.#i32[this.#word + WORD.EF] = ef;
    this.#i32[this.#word + WORD.QUERY_ELEMENT] = searchElement;
  }

  /** Room for a query: its code may be f32 where the vertices' is not. */
  get #queryBytes(): number {
    return padded(Math.max(this.geometry.codeBytes, this.geometry.dimensions * 4));
  }

  #queryOffset(): number {
    return this.#scratch + CONTROL_BYTES;
  }

  #readsOffset(): number {
    return this.#queryOffset() + this.#queryBytes * 3;
  }

  /** Takes a range with this room, and writes the control block anew. When there is none, everything is as it was. */
  #layOut(room: Room): void {
    const { degree, chunkShift } = this.geometry;
    const { ef, entries, chunks, partitions } = room;
    let end = CONTROL_BYTES + this.#queryBytes * 3; // the query, then the query widened
    const take = (bytes: number): number => {
      const at = end;
      end += padded(bytes);
      return at;
    };
    take(partitions * 4);
    const at: [number, number][] = [
      [WORD.RESULTS, take(ef * ENTRY_BYTES)],
      [WORD.ASIDE, take(ASIDE_CAPACITY * ENTRY_BYTES)],
      [WORD.BATCH, take(degree * 8)],
      [WORD.KEPT, take(degree * 8)],
      [WORD.CANDIDATES, take(Math.max(REPAIR_CANDIDATES, degree + 1) * ENTRY_BYTES)],
      [WORD.ENTRIES, take(entries * 4)],
      [WORD.CHUNK_TABLE, take(chunks * 16)],
      [WORD.VISITED, take(chunks << chunkShift)],
      [WORD.WIDE, CONTROL_BYTES + this.#queryBytes],
    ];
    this.#reserve(end);
    this.#room = room;
    const i32 = this.#i32;
    const word = this.#word;
    for (const [index, offset] of at) i32[word + index] = this.#scratch + offset;
    const { metric, element, dimensions, stride, codeOffset } = this.geometry;
    i32[word + WORD.METRIC] = metric;
    i32[word + WORD.ELEMENT] = element;
    i32[word + WORD.QUERY_ELEMENT] = element;
    i32[word + WORD.DIMENSIONS] = dimensions;
    i32[word + WORD.STRIDE] = stride;
    i32[word + WORD.CODE] = codeOffset;
    i32[word + WORD.DEGREE] = degree;
    i32[word + WORD.CHUNK_SHIFT] = chunkShift;
    i32[word + WORD.PARTITIONS] = partitions;
    i32[word + WORD.ASIDE_CAPACITY] = ASIDE_CAPACITY;
    i32[word + WORD.CANDIDATE_CAPACITY] = Math.max(REPAIR_CANDIDATES, degree + 1);
    i32[word + WORD.LOCK_ATTEMPTS] = LOCK_ATTEMPTS;
    writeLoads(this.geometry, i32, word);
    this.#results = (i32[word + WORD.RESULTS] as number) >>> 0;
    this.#writeChunks();
    this.#writeEntries();
  }

  #writeChunks(): void {
    const u32 = this.#i32;
    let row = ((u32[this.#word + WORD.CHUNK_TABLE] as number) >>> 0) >>> 2;
    for (const { address, partition, stampAddress, stamp } of this.#chunks) {
      u32[row] = address;
      u32[row + 1] = partition;
      u32[row + 2] = stampAddress;
      u32[row + 3] = stamp;
      row += 4;
    }
    u32[this.#word + WORD.CHUNKS] = this.#chunks.length;
  }

  #writeKnown(known: readonly KnownVertex[], ef: number): void {
    const count = Math.min(known.length, ef);
    for (let index = 0; index < count; index++) {
      const { vertex, distance } = known[index] as KnownVertex;
      this.#f64[(this.#results >>> 3) + index * 2] = distance;
      this.#i32.set([vertex, 1], (this.#results >>> 2) + index * 4 + 2); // 1: expanded
    }
    this.#i32[this.#word + WORD.KNOWN] = count;
  }

  #writeEntries(): void {
    this.#i32.set(this.#entries, ((this.#i32[this.#word + WORD.ENTRIES] as number) >>> 0) >>> 2);
    this.#i32[this.#word + WORD.ENTRY_COUNT] = this.#entries.length;
  }

  /** A range of zeros, so that nothing counts as visited. The words of counters over the lifetime are carried over. */
  #reserve(byteLength: number): void {
    const old = this.#word;
    const kept = [WORD.SKIPPED_EDGES, WORD.LISTS_PRUNED].map((index) => [index, this.#i32[old + index] ?? 0] as const);
    const before = this.#scratch;
    const beforeBytes = this.#scratchBytes;
    if (this.#owner === undefined) this.#scratch = this.#arena.allocate(byteLength);
    else this.#scratch = this.#arena.allocateScratch?.(this.#owner, byteLength) as number;
    if (this.#owner === undefined && beforeBytes > 0) this.#arena.free(before, beforeBytes);
    this.#scratchBytes = byteLength;
    this.#word = this.#scratch >>> 2;
    if (beforeBytes > 0) for (const [index, value] of kept) this.#i32[this.#word + index] = value;
    else for (const [index] of kept) this.#i32[this.#word + index] = 0;
  }
}

function padded(bytes: number): number {
  return (bytes + 15) & ~15;
}
