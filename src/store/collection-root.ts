/**
 * The root of one shard's part of a collection: the single registered cell from which everything else is found.
 *
 * Invariant: tables change only under the root's seqlock, after which `structure` has grown; an entry's bytes are written
 * before anything refers to it, so a worker that dies here leaves a root that is valid before or after the change.
 * Counters (rows used, live rows) change outside the seqlock by single atomic stores: readers' cached tables stay valid.
 * Owner thread only; one-sided readers use vector-reader.ts.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { beginWrite, endWrite, isOdd } from "../../native-bridge/cell.ts";
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import { ACCESS, type AdoptedRegion, type RegionRef, type RegionTable } from "../../native-bridge/region-table.ts";
import { ShardloomError } from "../errors.ts";
import {
  AUXILIARY_BLOCKS,
  CHUNK_ENTRY_WORDS,
  MAX_HEAP_CHUNKS,
  MAX_ROW_CHUNKS,
  ROOT_AUXILIARY,
  ROOT_BASE_SHIFT,
  ROOT_BYTES,
  ROOT_COLLECTION,
  ROOT_DIMENSIONS,
  ROOT_DIRECTORY,
  ROOT_DOUBLINGS,
  ROOT_DROPPED,
  ROOT_GONE,
  ROOT_HEAP_TABLE,
  ROOT_LIVE,
  ROOT_MAGIC,
  ROOT_MAGIC_WORD,
  ROOT_METRIC,
  ROOT_ROW_TABLE,
  ROOT_ROWS_USED,
  ROOT_STRIDE,
  ROOT_STRUCTURE,
  type RowGeometry,
  SHADOW_HEADER_BYTES,
} from "./collection-layout.ts";

/** A registered range that a table of the root names. */
export interface Chunk {
  readonly address: number;
  readonly length: number;
  rkey: number;
}

/** The regions of a dead worker by address; recovery takes out what it finds an owner for. */
export type Adopted = Map<number, AdoptedRegion>;

/** A private block of the root's list. */
export interface Auxiliary {
  readonly index: number;
  readonly address: number;
  readonly byteLength: number;
}

export class CollectionRoot {
  readonly arena: Arena;
  readonly regions: RegionTable;
  readonly ref: RegionRef;
  readonly geometry: RowGeometry;
  /** Byte offset of the shadow, behind the registered cell. */
  readonly shadow: number;
  readonly #byteLength: number;

  private constructor(arena: Arena, regions: RegionTable, ref: RegionRef, geometry: RowGeometry) {
    this.arena = arena;
    this.regions = regions;
    this.ref = ref;
    this.geometry = geometry;
    this.shadow = ref.address + ROOT_BYTES;
    this.#byteLength = ROOT_BYTES + SHADOW_HEADER_BYTES + geometry.stride;
  }

  static create(
    arena: Arena,
    regions: RegionTable,
    collectionId: number,
    dimensions: number,
    metric: number,
    geometry: RowGeometry,
  ): CollectionRoot {
    const byteLength = ROOT_BYTES + SHADOW_HEADER_BYTES + geometry.stride;
    const address = arena.allocate(byteLength);
    const word = (address + CELL_HEADER_BYTES) >>> 2;
    const { i32 } = arena;
    i32[word + ROOT_COLLECTION] = collectionId;
    i32[word + ROOT_DIMENSIONS] = dimensions;
    i32[word + ROOT_METRIC] = metric;
    i32[word + ROOT_STRIDE] = geometry.stride;
    i32[word + ROOT_BASE_SHIFT] = geometry.baseShift;
    i32[word + ROOT_DOUBLINGS] = geometry.doublings;
    Atomics.store(i32, word + ROOT_MAGIC_WORD, ROOT_MAGIC); // publishes
    try {
      return new CollectionRoot(arena, regions, register(regions, address, ROOT_BYTES, ROOT_BYTES), geometry);
    } catch (error) {
      arena.free(address, byteLength);
      throw error;
    }
  }

  /**
   * Takes over the root of a dead worker, whose region is taken out of those that were adopted.
   *
   * @returns Undefined when the collection was dropped, or its drop has begun: {@link dropUnclaimed} does the rest.
   * @throws {ShardloomError} `ERR_CORRUPT` when the address holds no root of this collection and shape.
   */
  static adopt(
    arena: Arena,
    regions: RegionTable,
    address: number,
    adopted: Adopted,
    collectionId: number,
    dimensions: number,
    metric: number,
    geometry: RowGeometry,
  ): CollectionRoot | undefined {
    const word = (address + CELL_HEADER_BYTES) >>> 2;
    const { i32 } = arena;
    const magic = i32[word + ROOT_MAGIC_WORD];
    const matches =
      address >= arena.heapByteOffset &&
      address % 64 === 0 &&
      (magic === ROOT_MAGIC || magic === ROOT_GONE) &&
      i32[word + ROOT_COLLECTION] === collectionId &&
      i32[word + ROOT_DIMENSIONS] === dimensions &&
      i32[word + ROOT_METRIC] === metric &&
      i32[word + ROOT_STRIDE] === geometry.stride;
    if (!matches) {
      throw new ShardloomError(
        "ERR_CORRUPT",
        `Cannot recover collection ${collectionId} as its root address must hold its root: current value is ${address}`,
        {
          details: { collectionId, rootAddress: address },
        },
      );
    }
    if (magic === ROOT_GONE || i32[word + ROOT_DROPPED] === 1) return undefined;
    if (isOdd(i32, address)) endWrite(i32, address); // valid before or after the change, see the invariant
    const { rkey } = claim(adopted, address) ?? register(regions, address, ROOT_BYTES, ROOT_BYTES);
    return new CollectionRoot(arena, regions, { address, rkey, length: ROOT_BYTES }, geometry);
  }

  /**
   * After the collections of a dead worker were recovered: frees what is left of its regions. Those are collections that it
   * died creating or dropping, or that were dropped while it was dead, and chunks that no root named yet or any more.
   */
  static dropUnclaimed(arena: Arena, regions: RegionTable, adopted: Adopted): void {
    for (const region of [...adopted.values()]) {
      if (region.cellStrideBytes !== ROOT_BYTES || region.length !== ROOT_BYTES) continue;
      const word = (region.address + CELL_HEADER_BYTES) >>> 2;
      const [stride, baseShift, doublings] = [ROOT_STRIDE, ROOT_BASE_SHIFT, ROOT_DOUBLINGS].map(
        (index) => arena.i32[word + index] as number,
      ) as [number, number, number];
      adopted.delete(region.address);
      new CollectionRoot(arena, regions, region, { stride, baseShift, doublings }).#drop(adopted);
    }
    for (const region of adopted.values()) {
      regions.deregister(region);
      arena.free(region.address, region.length);
    }
    adopted.clear();
  }

  /** Absolute word index of a word of the payload. */
  word(index: number): number {
    return ((this.ref.address + CELL_HEADER_BYTES) >>> 2) + index;
  }

  get(index: number): number {
    return this.arena.u32[this.word(index)] as number;
  }

  /** One of the words that change outside the seqlock. */
  store(index: number, value: number): void {
    Atomics.store(this.arena.i32, this.word(index), value); // publishes
  }

  get rowsUsed(): number {
    return this.get(ROOT_ROWS_USED);
  }

  get live(): number {
    return this.get(ROOT_LIVE);
  }

  /** Changes the tables under the seqlock. */
  change(edit: (u32: Uint32Array, f64: Float64Array) => void): void {
    const { arena } = this;
    if (!beginWrite(arena.i32, this.ref.address)) {
      throw new ShardloomError("ERR_INTERNAL", "Cannot change collection root as another thread holds its cell");
    }
    edit(arena.u32, arena.f64);
    Atomics.add(arena.i32, this.word(ROOT_STRUCTURE), 1);
    endWrite(arena.i32, this.ref.address);
  }

  /** Allocates and registers a range for a table. @param stride Cell stride, or 0. */
  allocateChunk(byteLength: number, stride: number): Chunk {
    const address = this.arena.allocate(byteLength);
    try {
      const { rkey } = register(this.regions, address, byteLength, stride);
      return { address, length: byteLength, rkey };
    } catch (error) {
      this.arena.free(address, byteLength);
      throw error;
    }
  }

  /** Takes a range back that no table names any more. */
  freeChunk(chunk: Chunk): void {
    this.regions.deregister(chunk);
    this.arena.free(chunk.address, chunk.length);
  }

  /** The entry at `index` of a table, or undefined when it is empty. */
  readEntry(table: number, index: number): Chunk | undefined {
    const word = this.word(table + index * CHUNK_ENTRY_WORDS);
    const address = this.arena.u32[word] as number;
    if (address === 0) return undefined;
    return { address, length: this.arena.u32[word + 1] as number, rkey: this.arena.f64[(word + 2) >>> 1] as number };
  }

  /** Puts a chunk, or nothing, in an entry of a table. `also` runs under the same seqlock. */
  writeEntry(table: number, index: number, chunk: Chunk | undefined, also?: (u32: Uint32Array) => void): void {
    const word = this.word(table + index * CHUNK_ENTRY_WORDS);
    this.change((u32, f64) => {
      if (chunk === undefined) u32[word] = 0;
      else {
        u32[word + 1] = chunk.length;
        f64[(word + 2) >>> 1] = chunk.rkey;
        u32[word] = chunk.address;
      }
      also?.(u32);
    });
  }

  /**
   * After a crash: gives the entry its region's new key, and takes the region out of those that were adopted. One that is
   * not among them is registered again.
   */
  adoptEntry(table: number, index: number, stride: number, adopted: Adopted): Chunk | undefined {
    const chunk = this.readEntry(table, index);
    if (chunk === undefined) return undefined;
    chunk.rkey = (claim(adopted, chunk.address) ?? register(this.regions, chunk.address, chunk.length, stride)).rkey;
    this.writeEntry(table, index, chunk);
    return chunk;
  }

  /**
   * For the first auxiliary block of an owner: a dead worker's is taken over, zeroed, if one is large enough; the others are
   * freed. So a recovery needs no memory that the dead worker did not have.
   */
  inheritAuxiliary(byteLength: number): Auxiliary {
    let inherited: Auxiliary | undefined;
    for (let index = 0; index < AUXILIARY_BLOCKS; index++) {
      const word = this.word(ROOT_AUXILIARY + index * 2);
      const address = this.arena.u32[word] as number;
      const length = this.arena.u32[word + 1] as number;
      if (address === 0) continue;
      if (inherited !== undefined || length < byteLength) this.freeAuxiliary(index);
      else inherited = { index, address, byteLength: length };
    }
    if (inherited === undefined) return this.allocateAuxiliary(byteLength);
    this.arena.bytes.fill(0, inherited.address, inherited.address + inherited.byteLength);
    return inherited;
  }

  /** Allocates a private block that a successor inherits or frees if this worker dies. */
  allocateAuxiliary(byteLength: number): Auxiliary {
    for (let index = 0; index < AUXILIARY_BLOCKS; index++) {
      const word = this.word(ROOT_AUXILIARY + index * 2);
      if (this.arena.u32[word] !== 0) continue;
      const address = this.arena.allocate(byteLength);
      this.arena.u32[word + 1] = byteLength;
      this.arena.u32[word] = address;
      return { index, address, byteLength };
    }
    throw new ShardloomError(
      "ERR_INTERNAL",
      `Cannot allocate bitmap as all ${AUXILIARY_BLOCKS} auxiliary blocks are in use`,
    );
  }

  freeAuxiliary(index: number): void {
    const word = this.word(ROOT_AUXILIARY + index * 2);
    const address = this.arena.u32[word] as number;
    if (address === 0) return;
    this.arena.u32[word] = 0;
    this.arena.free(address, this.arena.u32[word + 1] as number);
  }

  /** Deregisters and frees everything that the tables name, then the root. Marked first, so that a successor finishes it. */
  drop(): void {
    this.change((u32) => {
      u32[this.word(ROOT_DROPPED)] = 1;
    });
    this.#drop(undefined);
  }

  /** @param adopted After a crash, the regions that are left; undefined when the tables have the keys. */
  #drop(adopted: Adopted | undefined): void {
    const deregister = (chunk: Chunk): void => {
      const region = adopted === undefined ? chunk : claim(adopted, chunk.address);
      if (region !== undefined) this.regions.deregister(region);
    };
    // All rows first: one-sided readers follow a row into the heap and trust what is there while the row's key is good.
    for (let index = 0; index < MAX_ROW_CHUNKS; index++) {
      const chunk = this.readEntry(ROOT_ROW_TABLE, index);
      if (chunk !== undefined) deregister(chunk);
    }
    const free = (table: number, index: number): void => {
      const chunk = this.readEntry(table, index);
      if (chunk === undefined) return;
      this.writeEntry(table, index, undefined);
      if (table !== ROOT_ROW_TABLE) deregister(chunk);
      this.arena.free(chunk.address, chunk.length);
    };
    for (let index = 0; index < MAX_ROW_CHUNKS; index++) free(ROOT_ROW_TABLE, index);
    for (let index = 0; index < MAX_HEAP_CHUNKS; index++) free(ROOT_HEAP_TABLE, index);
    free(ROOT_DIRECTORY, 0);
    for (let index = 0; index < AUXILIARY_BLOCKS; index++) this.freeAuxiliary(index);
    this.store(ROOT_MAGIC_WORD, ROOT_GONE);
    this.regions.deregister(this.ref);
    this.arena.free(this.ref.address, this.#byteLength);
  }
}

function claim(adopted: Adopted, address: number): AdoptedRegion | undefined {
  const region = adopted.get(address);
  adopted.delete(address);
  return region;
}

function register(regions: RegionTable, byteOffset: number, byteLength: number, stride: number): RegionRef {
  return regions.register({
    byteOffset,
    byteLength,
    access: ACCESS.READ,
    ...(stride > 0 ? { cellStrideBytes: stride } : {}),
  });
}
