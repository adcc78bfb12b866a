/**
 * The root of a graph: the one registered cell from which any thread of the node finds shape, chunks, entry vertices and writers.
 *
 * Invariant: everything changes by single atomic words, so no lock is ever held here and a thread that dies leaves a root that is
 * valid before or after each step. A chunk's key and partition are there before its address, `structure` grows after every change.
 * The worker that created the root owns its region; chunks are registered by the partitions that they belong to. A partition's
 * memory is freed only after every writer was seen outside an insertion since the chunk left the table.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { repairOdd } from "../../../native-bridge/cell.ts";
import { CELL_HEADER_BYTES } from "../../../native-bridge/cell-layout.ts";
import type { AdoptedRegion, RegionRef, RegionTable } from "../../../native-bridge/region-table.ts";
import { ShardloomError } from "../../../src/errors.ts";
import {
  CHUNK_CHANGES,
  CHUNK_LABEL,
  CHUNK_RKEY,
  chunkLabelWord,
  GRAPH_CHUNK_SHIFT,
  GRAPH_CHUNK_TABLE,
  GRAPH_CHUNK_WORDS,
  GRAPH_CHUNKS,
  GRAPH_CODE_BYTES,
  GRAPH_CODE_OFFSET,
  GRAPH_COLLECTION,
  GRAPH_DEGREE,
  GRAPH_DIMENSIONS,
  GRAPH_ELEMENT,
  GRAPH_MAGIC,
  GRAPH_MAGIC_WORD,
  GRAPH_MAX_CHUNKS,
  GRAPH_METRIC,
  GRAPH_PARTITIONS,
  GRAPH_STRIDE,
  GRAPH_STRUCTURE,
  GRAPH_TOKENS,
  GRAPH_VERSION,
  GRAPH_VERSION_WORD,
  GRAPH_WRITERS,
  type GraphGeometry,
  type GraphShape,
  graphChunkBytes,
  graphGeometry,
  graphRootBytes,
  labelOfChunk,
  MAX_PARTITIONS,
  MAX_WRITERS,
  PARTITION_DELETED,
  PARTITION_LIVE,
  PARTITION_WORDS,
  PASSES_BEGUN,
  PASSES_ENDED,
  partitionOfChunk,
  WRITER_ACTIVE,
  WRITER_OWNER,
  WRITER_TOKEN,
  WRITER_WORDS,
} from "../../../src/store/graph-layout.ts";
import { checkPartition, geometryAt, noRoot, registerChunk, registerRoot } from "./graph-registration.ts";
import { freeScratch } from "./graph-scratch.ts";
import { freeOldLeaves } from "./leaf-memory.ts";

/** A registered range of vertices. */
export interface GraphChunk {
  readonly number: number;
  /** Shard that computes for its vertices. */
  readonly label: number;
  readonly address: number;
  readonly length: number;
  readonly rkey: number;
}

/** Loads to wait for a writer to leave its insertion: more than a second. */
const QUIESCE_LOADS = 500_000_000;
const LOADS_PER_CLOCK_READ = 4096;
const DEFAULT_QUIESCE_MS = 1000;

export class GraphRoot {
  readonly arena: Arena;
  readonly regions: RegionTable;
  readonly ref: RegionRef;
  readonly geometry: GraphGeometry;
  readonly #first: number;

  private constructor(arena: Arena, regions: RegionTable, ref: RegionRef, geometry: GraphGeometry) {
    this.arena = arena;
    this.regions = regions;
    this.ref = ref;
    this.geometry = geometry;
    this.#first = (ref.address + CELL_HEADER_BYTES) >>> 2;
  }

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL`. */
  static create(arena: Arena, regions: RegionTable, collectionId: number, shape: GraphShape): GraphRoot {
    const geometry = graphGeometry(shape);
    const byteLength = graphRootBytes(geometry);
    const address = arena.allocate(byteLength);
    const first = (address + CELL_HEADER_BYTES) >>> 2;
    const { i32 } = arena;
    i32[first + GRAPH_VERSION_WORD] = GRAPH_VERSION;
    i32[first + GRAPH_COLLECTION] = collectionId;
    i32[first + GRAPH_DIMENSIONS] = geometry.dimensions;
    i32[first + GRAPH_ELEMENT] = geometry.element;
    i32[first + GRAPH_METRIC] = geometry.metric;
    i32[first + GRAPH_DEGREE] = geometry.degree;
    i32[first + GRAPH_CHUNK_SHIFT] = geometry.chunkShift;
    i32[first + GRAPH_STRIDE] = geometry.stride;
    i32[first + GRAPH_CODE_OFFSET] = geometry.codeOffset;
    i32[first + GRAPH_CODE_BYTES] = geometry.codeBytes;
    i32[first + GRAPH_MAX_CHUNKS] = geometry.maxChunks;
    Atomics.store(i32, first + GRAPH_MAGIC_WORD, GRAPH_MAGIC); // publishes
    try {
      return new GraphRoot(arena, regions, registerRoot(regions, address, byteLength), geometry);
    } catch (error) {
      arena.free(address, byteLength);
      throw error;
    }
  }

  /**
   * The root as seen by another thread of the node, which may then own partitions and open a writer.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` when the reference names no root of this version.
   */
  static open(arena: Arena, regions: RegionTable, ref: RegionRef): GraphRoot {
    return new GraphRoot(arena, regions, ref, geometryAt(arena, ref.address));
  }

  /**
   * Takes over the root of a dead worker, whose region is taken out of those that were adopted.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` when the address holds no root of this collection.
   */
  static adopt(
    arena: Arena,
    regions: RegionTable,
    address: number,
    adopted: Map<number, AdoptedRegion>,
    collectionId: number,
  ): GraphRoot {
    const geometry = geometryAt(arena, address);
    if (arena.i32[((address + CELL_HEADER_BYTES) >>> 2) + GRAPH_COLLECTION] !== collectionId) throw noRoot(address);
    repairOdd(arena.i32, address); // nobody writes under its version
    const byteLength = graphRootBytes(geometry);
    const region = adopted.get(address) ?? registerRoot(regions, address, byteLength);
    adopted.delete(address);
    return new GraphRoot(arena, regions, { address, rkey: region.rkey, length: byteLength }, geometry);
  }

  get(index: number): number {
    return Atomics.load(this.arena.i32, this.#first + index);
  }

  set(index: number, value: number): void {
    Atomics.store(this.arena.i32, this.#first + index, value); // publishes
  }

  add(index: number, delta: number): number {
    return Atomics.add(this.arena.i32, this.#first + index, delta);
  }

  /** Word of the arena in which a word of the root is. */
  wordOf(index: number): number {
    return this.#first + index;
  }

  /** Whether the graph was not dropped. */
  get live(): boolean {
    return this.get(GRAPH_MAGIC_WORD) === GRAPH_MAGIC;
  }

  /**
   * Allocates and registers a chunk for a partition of the caller, and gives it a number. Any thread.
   *
   * @param label Shard that computes for its vertices. @default the partition's
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`, also when the chunk table is full; `ERR_REGION_TABLE_FULL`.
   */
  allocateChunk(partition: number, label: number = partition): GraphChunk {
    checkPartition(partition);
    checkPartition(label);
    const { arena, regions, geometry } = this;
    const length = graphChunkBytes(geometry);
    const address = arena.allocate(length);
    let rkey: number;
    try {
      rkey = registerChunk(regions, address, length, geometry.stride);
    } catch (error) {
      arena.free(address, length);
      throw error;
    }
    const number = this.#freeNumber();
    if (number === undefined) {
      regions.deregister({ address, rkey, length });
      arena.free(address, length);
      throw new ShardloomError(
        "ERR_OUT_OF_MEMORY",
        `Cannot grow graph as its root has room for ${geometry.maxChunks} chunks`,
        { details: { maxChunks: geometry.maxChunks } },
      );
    }
    this.#publishChunk(number, chunkLabelWord(label, partition), address, rkey);
    return { number, label, address, length, rkey };
  }

  /** A chunk of the table, or undefined when the number has none. */
  chunk(number: number): (GraphChunk & { readonly partition: number }) | undefined {
    const word = this.#entry(number);
    const address = Atomics.load(this.arena.i32, word) >>> 0; // acquires
    if (address === 0) return undefined;
    const labels = this.arena.u32[word + CHUNK_LABEL] as number;
    const rkey = this.arena.f64[(word + CHUNK_RKEY) >>> 1] as number;
    const [label, partition] = [labelOfChunk(labels), partitionOfChunk(labels)];
    return { number, address, label, partition, rkey, length: graphChunkBytes(this.geometry) };
  }

  /** Says that a vertex of a chunk was linked or freed. */
  touchChunk(number: number): void {
    Atomics.add(this.arena.i32, this.#entry(number) + CHUNK_CHANGES, 1); // publishes
  }

  /** How often that was said so far. */
  changesOf(number: number): number {
    return Atomics.load(this.arena.i32, this.#entry(number) + CHUNK_CHANGES); // acquires
  }

  get chunkCount(): number {
    return Math.min(this.get(GRAPH_CHUNKS), this.geometry.maxChunks);
  }

  /** The chunks of a dead worker's partition, under the keys that they have now. Their regions are taken out of those adopted. */
  adoptChunks(partition: number, adopted: Map<number, AdoptedRegion>): GraphChunk[] {
    const chunks: GraphChunk[] = [];
    for (let number = 0; number < this.chunkCount; number++) {
      const chunk = this.chunk(number);
      if (chunk === undefined || chunk.partition !== partition) continue;
      const region = adopted.get(chunk.address);
      adopted.delete(chunk.address);
      const rkey = region?.rkey ?? registerChunk(this.regions, chunk.address, chunk.length, this.geometry.stride);
      this.#publishChunk(number, chunkLabelWord(chunk.label, partition), chunk.address, rkey);
      chunks.push({ ...chunk, rkey });
    }
    return chunks;
  }

  /**
   * Takes chunks out of the table, waits until no writer can still be writing to them, and frees them.
   *
   * @throws {ShardloomError} `ERR_TIMEOUT` when a writer does not leave its insertion; the memory is then left alone.
   */
  freeChunks(chunks: readonly GraphChunk[], nowMs?: () => number, timeoutMs: number = DEFAULT_QUIESCE_MS): void {
    for (const chunk of chunks) Atomics.store(this.arena.i32, this.#entry(chunk.number), 0);
    this.add(GRAPH_STRUCTURE, 1);
    for (const chunk of chunks) this.regions.deregister(chunk);
    this.quiesce(nowMs, timeoutMs);
    for (const chunk of chunks) this.arena.free(chunk.address, chunk.length);
  }

  /** Waits until each writer was outside an insertion once. @throws {ShardloomError} `ERR_TIMEOUT`. */
  quiesce(nowMs?: () => number, timeoutMs: number = DEFAULT_QUIESCE_MS): void {
    const start = nowMs?.() ?? 0;
    for (let entry = 0; entry < MAX_WRITERS; entry++) {
      const active = GRAPH_WRITERS + entry * WRITER_WORDS + WRITER_ACTIVE;
      for (let loads = 0; this.get(active) !== 0; loads++) {
        const late = nowMs !== undefined && loads % LOADS_PER_CLOCK_READ === 0 && nowMs() - start >= timeoutMs;
        if (!late && loads < QUIESCE_LOADS) continue;
        throw new ShardloomError(
          "ERR_TIMEOUT",
          `Cannot free graph chunks as a writer is inside them for ${timeoutMs} ms`,
          {
            details: { timeoutMs, owner: this.get(active - WRITER_ACTIVE + WRITER_OWNER) - 1 },
          },
        );
      }
    }
  }

  /**
   * Gives a thread a name for its locks. What its predecessor under the same number held counts as abandoned from now on.
   *
   * @returns Word index, in the root, of the writer's entry.
   * @throws {ShardloomError} `ERR_OVERLOADED` when 64 threads have one.
   */
  openWriter(owner: number): number {
    const entry = this.#writer(owner) ?? this.#claimWriter(owner);
    this.set(entry + WRITER_ACTIVE, 0);
    this.set(entry + WRITER_TOKEN, this.add(GRAPH_TOKENS, 1) + 1);
    return entry;
  }

  /** Ends a thread's name: when it closes, or by whoever found it dead. Locks under it may be repaired from now on. */
  closeWriter(owner: number): void {
    const entry = this.#writer(owner);
    if (entry === undefined) return;
    this.set(entry + WRITER_TOKEN, 0);
    this.set(entry + WRITER_ACTIVE, 0);
    this.set(entry + WRITER_OWNER, 0); // publishes the entry as free
  }

  /** Whether a token names a writer that was not closed. */
  holds(token: number): boolean {
    for (let entry = 0; entry < MAX_WRITERS; entry++)
      if (this.get(GRAPH_WRITERS + entry * WRITER_WORDS + WRITER_TOKEN) === token) return true;
    return false;
  }

  /** Word index, in the root, of a partition's words. */
  partition(partition: number): number {
    checkPartition(partition);
    return GRAPH_PARTITIONS + partition * PARTITION_WORDS;
  }

  /** Vertices that are taken and not deleted, and those deleted and not free yet, over all partitions. */
  counts(): { readonly live: number; readonly deleted: number } {
    let [live, deleted] = [0, 0];
    for (let partition = 0; partition < MAX_PARTITIONS; partition++) {
      live += this.get(this.partition(partition) + PARTITION_LIVE);
      deleted += this.get(this.partition(partition) + PARTITION_DELETED);
    }
    return { live, deleted };
  }

  /** For each partition with a chunk, the pass that has to end so that none which began before now is running. */
  passesToAwait(): ReadonlyMap<number, number> {
    const passes = new Map<number, number>();
    for (let number = 0; number < this.chunkCount; number++) {
      const partition = this.chunk(number)?.partition;
      if (partition !== undefined) passes.set(partition, (this.get(this.partition(partition) + PASSES_BEGUN) + 1) | 0);
    }
    return passes;
  }

  /** Whether all those passes have ended. A partition whose chunks are gone is not waited for. */
  passesEnded(passes: ReadonlyMap<number, number>): boolean {
    for (const [partition, pass] of passes)
      if (((this.get(this.partition(partition) + PASSES_ENDED) - pass) | 0) < 0 && this.#hasChunk(partition))
        return false;
    return true;
  }

  /** Shards that have chunks, in order. */
  partitionsWithChunks(): number[] {
    return [...this.passesToAwait().keys()].sort((a, b) => a - b);
  }

  /** Frees the root, after every partition was dropped and every writer closed. Only by its owner. */
  drop(): void {
    this.set(GRAPH_MAGIC_WORD, 0);
    for (let entry = 0; entry < MAX_WRITERS; entry++) freeScratch(this, GRAPH_WRITERS + entry * WRITER_WORDS);
    freeOldLeaves(this);
    this.add(GRAPH_STRUCTURE, 1);
    this.regions.deregister(this.ref);
    this.arena.free(this.ref.address, graphRootBytes(this.geometry));
  }

  #entry(number: number): number {
    return this.#first + GRAPH_CHUNK_TABLE + number * GRAPH_CHUNK_WORDS;
  }

  #freeNumber(): number | undefined {
    for (;;) {
      const number = this.get(GRAPH_CHUNKS);
      if (number >= this.geometry.maxChunks) return undefined;
      const { i32 } = this.arena;
      if (Atomics.compareExchange(i32, this.#first + GRAPH_CHUNKS, number, number + 1) === number) return number;
    }
  }

  #publishChunk(number: number, labels: number, address: number, rkey: number): void {
    const word = this.#entry(number);
    this.arena.u32[word + CHUNK_LABEL] = labels;
    this.arena.f64[(word + CHUNK_RKEY) >>> 1] = rkey;
    Atomics.store(this.arena.i32, word, address); // publishes
    this.add(GRAPH_STRUCTURE, 1);
  }

  #hasChunk(partition: number): boolean {
    for (let number = 0; number < this.chunkCount; number++)
      if (this.chunk(number)?.partition === partition) return true;
    return false;
  }

  #writer(owner: number): number | undefined {
    for (let entry = 0; entry < MAX_WRITERS; entry++) {
      const word = GRAPH_WRITERS + entry * WRITER_WORDS;
      if (this.get(word + WRITER_OWNER) === owner + 1) return word;
    }
    return undefined;
  }

  #claimWriter(owner: number): number {
    const { i32 } = this.arena;
    for (let entry = 0; entry < MAX_WRITERS; entry++) {
      const word = GRAPH_WRITERS + entry * WRITER_WORDS;
      if (Atomics.compareExchange(i32, this.#first + word + WRITER_OWNER, 0, owner + 1) === 0) return word;
    }
    throw new ShardloomError("ERR_OVERLOADED", `Cannot open graph writer as ${MAX_WRITERS} threads have one`, {
      details: { owner },
    });
  }
}
