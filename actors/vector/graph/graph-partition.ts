/**
 * One partition of a graph: takes, deletes and frees vertices. Owner thread only; their lists are everybody's, under locks.
 *
 * Life of a slot: free -> taken (document set, degree 0) -> linked -> deleted (tombstone) -> free again. A deleted vertex is a
 * way but no result; it is freed once every partition has ended a pass of repair that began after it was deleted, so no list that
 * was written before leads to it. A freed slot is not taken for a grace time, which outlasts any search that may still hold its
 * id: one that takes a code's distance for its document's checks how long it took (known-distances.ts). Otherwise nothing depends on either: a
 * search that meets a slot's next document scores it by that document's row.
 * Incarnation: grows when a slot is taken and when it is freed, under the cell's version, so a reference made to what was
 * there before ends in STALE_CELL.
 * Invariant: the document's address is written last and cleared first, so a vertex that has one has its code. After a crash
 * vertices without the LINKED flag are handed out to be linked again.
 * Source: FreshDiskANN (Singh et al., 2021), section 5.2, lazy deletes and consolidation.
 */
import { beginWrite, bumpIncarnation, endWrite, repairOdd } from "../../../native-bridge/cell.ts";
import { USER0, USER1, USER2, USER3, USER4 } from "../../../native-bridge/cell-layout.ts";
import { METRIC } from "../../../native-bridge/kernels.ts";
import type { AdoptedRegion } from "../../../native-bridge/region-table.ts";
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import {
  ENTRIES_PER_PARTITION,
  GRAPH_TREE_ROOT,
  leafOfFlags,
  PARTITION_DELETED,
  PARTITION_ENTRIES,
  PARTITION_LIVE,
  PASSES_BEGUN,
  PASSES_ENDED,
  placeFlags,
  VERTEX_DEGREE,
  VERTEX_FLAG,
  VERTEX_FLAG_BITS,
  versionOfFlags,
  vertexLock,
  vertexTreeWord,
} from "../../../src/store/graph-layout.ts";
import { GRACE_MS, GraphDeletions } from "./graph-deletions.ts";
import type { GraphRoot } from "./graph-root.ts";
import { GraphSlots } from "./graph-slots.ts";
import { dropLandmarks, replaceLandmark } from "./landmarks.ts";
import { forgetPlaced } from "./leaf-table.ts";

/** The document that a vertex stands for. */
export interface GraphDocument {
  /** Byte offset of its row's cell; never 0. */
  readonly address: number;
  /** Incarnation of that cell. */
  readonly incarnation: number;
  readonly shard: number;
  /** Low word of the version whose vector the code is. @default 0: not told */
  readonly version?: number;
}

/** Where a vertex is placed: what is near it in the same place. */
export interface VertexPlace {
  /** Shard that computes for it. */
  readonly label: number;
  readonly leaf: number;
  /** Of the leaf table. */
  readonly version: number;
}

/** Options of a partition. */
export interface GraphPartitionOptions {
  /** Milliseconds that a freed slot rests before it is taken again. @default {@link GRACE_MS} */
  readonly graceMs?: number;
  readonly nowMs: () => number;
}

/** Vertices between two looks at the clock in a pass. */
const SLICE = 64;

export class GraphPartition {
  readonly root: GraphRoot;
  readonly number: number;
  readonly #words: number;
  readonly #nowMs: () => number;
  readonly #deletions: GraphDeletions;
  readonly #slots: GraphSlots;
  #live = 0;
  /** Where the search for an entry vertex goes on, so that deleting in order stays cheap. */
  #entryCursor = 0;
  #pass: { readonly retry: number[]; next: number } | undefined;

  private constructor(root: GraphRoot, number: number, options: GraphPartitionOptions) {
    this.root = root;
    this.number = number;
    this.#words = root.partition(number);
    this.#slots = new GraphSlots(root, number);
    this.#nowMs = options.nowMs;
    this.#deletions = new GraphDeletions(root, options.nowMs, options.graceMs ?? GRACE_MS);
  }

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
  static create(root: GraphRoot, number: number, options: GraphPartitionOptions): GraphPartition {
    return new GraphPartition(root, number, options);
  }

  /**
   * Takes over what a dead worker left, whose writer was closed before: its chunks under their new keys, vertices it died
   * writing, locks it died holding.
   *
   * @param adopted All regions that were taken over; this partition's are taken out.
   * @returns With the vertices that are taken but not linked.
   */
  static adopt(
    root: GraphRoot,
    number: number,
    adopted: Map<number, AdoptedRegion>,
    options: GraphPartitionOptions,
  ): { readonly partition: GraphPartition; readonly unlinked: number[] } {
    const partition = new GraphPartition(root, number, options);
    for (const chunk of root.adoptChunks(number, adopted)) partition.#slots.add(chunk);
    return { partition, unlinked: partition.#recover() };
  }

  /** Vertices that are taken and not deleted. */
  get count(): number {
    return this.#live;
  }

  /** Deleted vertices that are not free yet. */
  get deletedCount(): number {
    return this.#deletions.count;
  }

  /** Bytes of all chunks. */
  get bytes(): number {
    return this.#slots.bytes;
  }

  /**
   * Takes a slot for a document and writes header and code. The vertex is found by searches once it was linked.
   *
   * @param code `codeBytes` bytes.
   * @param inverseNorm For cosine.
   * @param place @default none: among this shard's, in no leaf
   * @returns The vertex.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL`.
   */
  take(document: GraphDocument, code: Uint8Array, inverseNorm: number = 0, place?: VertexPlace): number {
    const { geometry, arena } = this.root;
    if (code.byteLength !== geometry.codeBytes)
      throw invalidArgument("take vertex", "code.byteLength", `${geometry.codeBytes}`, code.byteLength);
    if (!Number.isInteger(document.address) || document.address < arena.heapByteOffset)
      throw invalidArgument("take vertex", "document.address", "a byte offset in the arena's heap", document.address);
    const vertex = this.#slots.take(place?.label ?? this.number, () => this.#deletions.takeRested());
    const record = this.addressOf(vertex);
    const word = record >>> 2;
    const { i32, f32, bytes } = arena;
    this.#hold(record);
    bumpIncarnation(i32, record);
    bytes.set(code, record + geometry.codeOffset);
    i32[word + USER1] = document.incarnation;
    i32[word + USER2] = document.shard;
    i32[word + USER3] = place === undefined ? 0 : placeFlags(place.leaf, place.version);
    if (geometry.metric === METRIC.COSINE) f32[word + USER4] = inverseNorm;
    else i32[word + USER4] = document.version ?? 0;
    Atomics.store(i32, word + VERTEX_DEGREE / 4, 0);
    const tree = (record + vertexTreeWord(geometry)) >>> 2;
    Atomics.store(i32, tree, 0); // its parent first: without one it has no place
    Atomics.store(i32, tree + 1, 0);
    Atomics.store(i32, word + USER0, document.address); // last: from here the vertex is whole
    endWrite(i32, record);
    this.#countLive(1);
    return vertex;
  }

  /** Notes that a vertex was linked: it is not handed out again after a crash, and searches may begin at it. */
  markLinked(vertex: number): void {
    this.#addFlag(vertex, VERTEX_FLAG.LINKED);
    const { root } = this;
    root.touchChunk(vertex >>> root.geometry.chunkShift);
    for (let index = 0; index < ENTRIES_PER_PARTITION; index++) {
      const word = this.#words + PARTITION_ENTRIES + index;
      if (root.get(word) !== 0) continue;
      root.set(word, vertex + 1);
      return;
    }
  }

  /** Deletes a vertex: from now on it is no result. False when it is free or deleted already. */
  delete(vertex: number): boolean {
    if (!this.isLive(vertex)) return false;
    this.#addFlag(vertex, VERTEX_FLAG.TOMBSTONE);
    this.#countLive(-1);
    this.root.add(this.#words + PARTITION_DELETED, 1);
    this.#replaceEntry(vertex);
    this.#deletions.add([vertex]);
    return true;
  }

  /** Says in which leaf a vertex is that has the label already. */
  restamp(vertex: number, place: VertexPlace): void {
    const word = (this.addressOf(vertex) >>> 2) + USER3;
    const { arena } = this.root;
    const bits = Atomics.load(arena.i32, word) & VERTEX_FLAG_BITS;
    Atomics.store(arena.i32, word, bits | placeFlags(place.leaf, place.version)); // publishes
    this.root.touchChunk(vertex >>> this.root.geometry.chunkShift);
  }

  /** Label, leaf and version of a vertex; version 0: it has no leaf. */
  placeOf(vertex: number): VertexPlace {
    const flags = this.#flags(vertex);
    return { label: this.#slots.labelOf(vertex), leaf: leafOfFlags(flags), version: versionOfFlags(flags) };
  }

  /** Whether a vertex of this partition is taken and not deleted. */
  isLive(vertex: number): boolean {
    return this.#isUsed(vertex) && (this.#flags(vertex) & VERTEX_FLAG.TOMBSTONE) === 0;
  }

  /** Whether a vertex of this partition is deleted, and not free yet. */
  isDeleted(vertex: number): boolean {
    return this.#isUsed(vertex) && (this.#flags(vertex) & VERTEX_FLAG.TOMBSTONE) !== 0;
  }

  addressOf(vertex: number): number {
    return this.#slots.addressOf(vertex);
  }

  /** Calls back for each vertex that is taken, deleted or not. */
  forEach(visit: (vertex: number) => void): void {
    for (const vertex of this.#slots) if (this.#isUsed(vertex)) visit(vertex);
  }

  /**
   * One slice of a pass of repair over the partition's vertices, begun when none is under way; what no list leads to any more is freed when it ends.
   *
   * @param repair Mends a list: `GraphWriter.repair`.
   * @returns Whether the pass has ended.
   */
  sweep(repair: (vertex: number) => number, deadlineMs: number): boolean {
    if (this.#pass === undefined) {
      this.#pass = { retry: [], next: 0 };
      this.root.add(this.#words + PASSES_BEGUN, 1);
    }
    const pass = this.#pass;
    const total = this.#slots.count;
    while (pass.next < total) {
      const end = Math.min(total, pass.next + SLICE);
      for (; pass.next < end; pass.next++) this.#mend(this.#slots.at(pass.next), repair, pass.retry);
      if (this.#nowMs() >= deadlineMs) return false;
    }
    for (const vertex of pass.retry.splice(0)) this.#mend(vertex, repair, pass.retry);
    if (pass.retry.length > 0) return false;
    this.#pass = undefined;
    this.root.add(this.#words + PASSES_ENDED, 1);
    this.freeDeleted();
    return true;
  }

  /** Has a pass that is under way look at all vertices again. @returns the number of the first that ends having looked at all from now on */
  freshPass(): number {
    if (this.#pass !== undefined) this.#pass.next = 0;
    return (this.root.get(this.#words + PASSES_BEGUN) + (this.#pass === undefined ? 1 : 0)) | 0;
  }

  /** Frees what was deleted long enough ago. Returns how many. Other partitions' passes count: call it now and then. */
  freeDeleted(): number {
    let freed = 0;
    for (let ended = this.#deletions.takeEnded(); ended !== undefined; ended = this.#deletions.takeEnded()) {
      for (const vertex of ended) this.#release(vertex);
      freed += ended.length;
    }
    return freed;
  }

  /** Clears the locks of writers that were closed. Returns how many. After the death of any thread that linked. */
  repairLocks(): number {
    let cleared = 0;
    for (const vertex of this.#slots) if (this.#repairLock(vertex)) cleared++;
    return cleared;
  }

  /** Frees all chunks. @throws {ShardloomError} `ERR_TIMEOUT` when a writer does not leave its insertion. */
  drop(): void {
    for (let index = 0; index < ENTRIES_PER_PARTITION; index++)
      this.root.set(this.#words + PARTITION_ENTRIES + index, 0);
    const root = this.root.get(GRAPH_TREE_ROOT);
    if (root !== 0 && this.addressOf(root - 1) !== 0) this.#leaveRoot(root - 1);
    dropLandmarks(this.root, (vertex) => this.addressOf(vertex) !== 0);
    const chunks = this.#slots.clear();
    forgetPlaced(this.root, this.number);
    this.#countLive(-this.#live);
    this.root.set(this.#words + PARTITION_DELETED, 0);
    this.#deletions.clear();
    this.#pass = undefined;
    this.root.freeChunks(chunks, this.#nowMs);
  }

  #release(vertex: number): void {
    const { i32 } = this.root.arena;
    const record = this.addressOf(vertex);
    this.#hold(record);
    Atomics.store(i32, (record >>> 2) + USER0, 0); // first: from here the vertex is free
    this.#leaveRoot(vertex); // nothing hangs on it any more
    replaceLandmark(this.root, vertex, () => -1);
    bumpIncarnation(i32, record);
    endWrite(i32, record);
    this.root.touchChunk(vertex >>> this.root.geometry.chunkShift);
    this.root.add(this.#words + PARTITION_DELETED, -1);
  }

  /** The next vertex that finds nothing is the root of the tree. */
  #leaveRoot(vertex: number): void {
    Atomics.compareExchange(this.root.arena.i32, this.root.wordOf(GRAPH_TREE_ROOT), vertex + 1, 0);
  }

  #countLive(change: number): void {
    this.#live += change;
    this.root.set(this.#words + PARTITION_LIVE, this.#live);
  }

  #replaceEntry(vertex: number): void {
    const { root } = this;
    for (let index = 0; index < ENTRIES_PER_PARTITION; index++) {
      const word = this.#words + PARTITION_ENTRIES + index;
      if (root.get(word) === vertex + 1) root.set(word, this.#otherEntry() + 1);
    }
  }

  /** A linked vertex that is not deleted and no entry yet, or −1. */
  #otherEntry(): number {
    const taken = new Set<number>();
    for (let index = 0; index < ENTRIES_PER_PARTITION; index++)
      taken.add(this.root.get(this.#words + PARTITION_ENTRIES + index) - 1);
    const total = this.#slots.count;
    for (let step = 0; step < total; step++, this.#entryCursor++) {
      const vertex = this.#slots.at(this.#entryCursor % total);
      const linked = (this.#flags(vertex) & VERTEX_FLAG_BITS) === VERTEX_FLAG.LINKED;
      if (linked && this.#isUsed(vertex) && !taken.has(vertex)) return vertex;
    }
    return -1;
  }

  #mend(vertex: number, repair: (vertex: number) => number, retry: number[]): void {
    if (!this.isLive(vertex)) return;
    if (repair(vertex) >= 0) return;
    this.#repairLock(vertex);
    retry.push(vertex);
  }

  #repairLock(vertex: number): boolean {
    const { arena, geometry } = this.root;
    const record = this.addressOf(vertex);
    const word = (record + vertexLock(geometry)) >>> 2;
    const token = Atomics.load(arena.i32, word);
    if (token === 0 || this.root.holds(token)) return false;
    // Its list is whole: ids are single words, and a degree that counts an old one leads to a vertex that was a neighbour.
    const degree = Atomics.load(arena.i32, (record + VERTEX_DEGREE) >>> 2);
    if (degree < 0 || degree > geometry.degree) Atomics.store(arena.i32, (record + VERTEX_DEGREE) >>> 2, 0);
    return Atomics.compareExchange(arena.i32, word, token, 0) === token; // publishes the list
  }

  #recover(): number[] {
    const { arena } = this.root;
    const unlinked: number[] = [];
    const resting: number[] = [];
    const deleted: number[] = [];
    for (const vertex of this.#slots) {
      const record = this.addressOf(vertex);
      repairOdd(arena.i32, record); // its document is written last and cleared first
      this.#repairLock(vertex);
      if (!this.#isUsed(vertex)) resting.push(vertex);
      else if (this.isDeleted(vertex)) deleted.push(vertex);
      else {
        this.#live++;
        if ((this.#flags(vertex) & VERTEX_FLAG.LINKED) === 0) unlinked.push(vertex);
      }
    }
    this.root.set(this.#words + PARTITION_LIVE, this.#live);
    this.root.set(this.#words + PARTITION_DELETED, deleted.length);
    this.#deletions.add(deleted);
    this.#deletions.rest(resting.reverse());
    forgetPlaced(this.root, this.number);
    // Whoever died in a pass will not end it: the next one, which begins later, takes its number.
    this.root.set(this.#words + PASSES_BEGUN, this.root.get(this.#words + PASSES_ENDED));
    return unlinked;
  }

  #flags(vertex: number): number {
    return this.root.arena.i32[(this.addressOf(vertex) >>> 2) + USER3] as number;
  }

  #addFlag(vertex: number, flag: number): void {
    Atomics.or(this.root.arena.i32, (this.addressOf(vertex) >>> 2) + USER3, flag); // publishes
  }

  #isUsed(vertex: number): boolean {
    const record = this.addressOf(vertex);
    return record !== 0 && Atomics.load(this.root.arena.i32, (record >>> 2) + USER0) !== 0;
  }

  #hold(record: number): void {
    if (beginWrite(this.root.arena.i32, record)) return;
    const details = { partition: this.number, record };
    throw new ShardloomError("ERR_INTERNAL", "Cannot write vertex as another thread holds its cell", { details });
  }
}
