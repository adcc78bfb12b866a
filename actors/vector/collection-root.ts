/**
 * The root of one shard's part of a collection: the single registered cell from which everything else is found.
 *
 * Invariant: tables change only under the root's seqlock, after which `structure` has grown; an entry's bytes are written
 * before anything refers to it, so a worker that dies here leaves a root that is valid before or after the change.
 * Counters (rows used, live rows) change outside the seqlock by single atomic stores: readers' cached tables stay valid.
 * Owner thread only; one-sided readers use vector-reader.ts.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { beginWrite, endWrite } from "../../native-bridge/cell.ts";
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import { ACCESS, type AdoptedRegion, type RegionRef, type RegionTable } from "../../native-bridge/region-table.ts";
import { ShardloomError } from "../../src/errors.ts";
import {
  AUXILIARY_BLOCKS, CHUNK_ENTRY_WORDS, ROOT_AUXILIARY, ROOT_BASE_SHIFT, ROOT_BYTES, ROOT_COLLECTION, ROOT_DIMENSIONS,
  ROOT_DOUBLINGS, ROOT_LIVE, ROOT_MAGIC, ROOT_MAGIC_WORD, ROOT_METRIC, ROOT_ROWS_USED, ROOT_STRIDE, ROOT_STRUCTURE,
  type RowGeometry, SHADOW_HEADER_BYTES,
} from "./vector-layout.ts";

/** A registered range that a table of the root names. */
export interface Chunk {
  readonly address: number;
  readonly length: number;
  rkey: number;
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

  static create(arena: Arena, regions: RegionTable, collectionId: number, dimensions: number, metric: number, geometry: RowGeometry): CollectionRoot {
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
   * Takes over the root of a dead worker.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` when the address holds no root of this collection and shape.
   */
  static adopt(arena: Arena, regions: RegionTable, adopted: AdoptedRegion | undefined, collectionId: number, dimensions: number, metric: number, geometry: RowGeometry): CollectionRoot {
    const word = ((adopted?.address ?? 0) + CELL_HEADER_BYTES) >>> 2;
    const { i32 } = arena;
    const matches =
      adopted !== undefined && adopted.length === ROOT_BYTES && i32[word + ROOT_MAGIC_WORD] === ROOT_MAGIC &&
      i32[word + ROOT_COLLECTION] === collectionId && i32[word + ROOT_DIMENSIONS] === dimensions &&
      i32[word + ROOT_METRIC] === metric && i32[word + ROOT_STRIDE] === geometry.stride;
    if (!matches) {
      throw new ShardloomError("ERR_CORRUPT", `Cannot recover collection ${collectionId} as its root address must hold its root: current value is ${adopted?.address}`, {
        details: { collectionId, rootAddress: adopted?.address },
      });
    }
    const root = new CollectionRoot(arena, regions, { address: adopted.address, rkey: adopted.rkey, length: adopted.length }, geometry);
    for (let index = 0; index < AUXILIARY_BLOCKS; index++) root.freeAuxiliary(index);
    return root;
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

  /** Allocates a private block that a successor frees if this worker dies. Returns its index and address. */
  allocateAuxiliary(byteLength: number): { index: number; address: number } {
    for (let index = 0; index < AUXILIARY_BLOCKS; index++) {
      const word = this.word(ROOT_AUXILIARY + index * 2);
      if (this.arena.u32[word] !== 0) continue;
      const address = this.arena.allocate(byteLength);
      this.arena.u32[word + 1] = byteLength;
      this.arena.u32[word] = address;
      return { index, address };
    }
    throw new ShardloomError("ERR_INTERNAL", `Cannot allocate bitmap as all ${AUXILIARY_BLOCKS} auxiliary blocks are in use`);
  }

  freeAuxiliary(index: number): void {
    const word = this.word(ROOT_AUXILIARY + index * 2);
    const address = this.arena.u32[word] as number;
    if (address === 0) return;
    this.arena.u32[word] = 0;
    this.arena.free(address, this.arena.u32[word + 1] as number);
  }

  /** Deregisters and frees the root itself, last of all. */
  free(): void {
    for (let index = 0; index < AUXILIARY_BLOCKS; index++) this.freeAuxiliary(index);
    this.regions.deregister(this.ref);
    this.arena.i32[this.word(ROOT_MAGIC_WORD)] = 0;
    this.arena.free(this.ref.address, this.#byteLength);
  }
}

function register(regions: RegionTable, byteOffset: number, byteLength: number, stride: number): RegionRef {
  return regions.register({ byteOffset, byteLength, access: ACCESS.READ, ...(stride > 0 ? { cellStrideBytes: stride } : {}) });
}
