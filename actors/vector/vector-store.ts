/**
 * The rows of one shard's part of a collection, in registered regions that outlive the worker.
 *
 * Invariant: once `put` returned, the row is readable by any thread and survives this thread's death at any later point.
 * The record address is written last and cleared first, so a row that has one is whole, and one that has none is free; an
 * update is first written whole to the shadow, from which recovery finishes it. Recovery may die and be repeated.
 * `reserve` takes all memory of a batch beforehand: `put` and `remove` cannot fail. Addresses of rows never move.
 * Owner thread only, except through vector-reader.ts.
 */
import { beginWrite, bumpIncarnation, endWrite, repairOdd } from "../../native-bridge/cell.ts";
import { CELL_HEADER_BYTES, USER0, USER1, USER2, USER3, USER4 } from "../../native-bridge/cell-layout.ts";
import { ELEMENT, METRIC } from "../../native-bridge/kernels.ts";
import { ShardloomError } from "../../src/errors.ts";
import {
  chunkOfRow,
  firstRowOf,
  MAX_ROW_CHUNKS,
  RECORD_HASH,
  RECORD_HEADER_BYTES,
  RECORD_ID_WORD,
  ROOT_LIVE,
  ROOT_ROW_CHUNKS,
  ROOT_ROW_TABLE,
  ROOT_ROWS_USED,
  ROOT_SEQUENCE_BLOCK,
  type RowGeometry,
  rowGeometry,
  rowsInChunk,
  SEQUENCE_BLOCK,
} from "../../src/store/collection-layout.ts";
import { type Adopted, type Chunk, CollectionRoot } from "../../src/store/collection-root.ts";
import { Directory, type DirectoryEntries } from "../../src/store/directory.ts";
import { idLengthOf, readId, sameIdBytes, type VectorId } from "../../src/store/id-codec.ts";
import { RecordHeap } from "../../src/store/record-heap.ts";
import { Shadow } from "../../src/store/shadow.ts";
import type { EngineContext } from "../engine.ts";
import { metricCode, type ResolvedVectorOptions } from "./vector-options.ts";

const TWO_32 = 2 ** 32;

export class VectorStore {
  readonly root: CollectionRoot;
  readonly heap: RecordHeap;
  readonly directory: Directory;
  readonly dimensions: number;
  readonly metric: number;
  readonly geometry: RowGeometry;
  /** Set by `put`: whether the last one replaced an acknowledged row. */
  replaced = false;
  readonly #context: EngineContext;
  readonly #shadow: Shadow;
  readonly #chunks: Chunk[] = [];
  #capacity = 0;
  #freeRows: number[] = [];
  #rowsUsed = 0;
  #live = 0;
  /** Grows with every write, and is never below a version that was seen. */
  #sequence = 0;
  /** Versions below this have been set aside. */
  #sequenceLimit = 0;
  /** Version of the last write. */
  #version = 0;
  #compactionRow = 0;

  private constructor(context: EngineContext, options: ResolvedVectorOptions, root: CollectionRoot) {
    this.#context = context;
    this.root = root;
    this.geometry = root.geometry;
    this.heap = new RecordHeap(root);
    this.#shadow = new Shadow(root, options.dimensions);
    this.directory = new Directory(root);
    this.dimensions = options.dimensions;
    this.metric = metricCode(options.metric);
  }

  static create(context: EngineContext, collectionId: number, options: ResolvedVectorOptions): VectorStore {
    const { arena, regions } = context;
    const { dimensions } = options;
    const root = CollectionRoot.create(
      arena,
      regions,
      collectionId,
      dimensions,
      metricCode(options.metric),
      rowGeometry(dimensions),
    );
    return new VectorStore(context, options, root);
  }

  /**
   * Takes over what a dead worker left: finishes the update it was in, frees rows and records it had not finished, and
   * rebuilds the directory. Takes no memory and no region that the dead worker did not have. Cost: two passes over the rows.
   *
   * @param adopted All regions that were taken over from the dead worker; this store's are taken out.
   * @returns Undefined when the collection was dropped, or the worker died while it dropped it.
   */
  static recover(
    context: EngineContext,
    collectionId: number,
    options: ResolvedVectorOptions,
    rootAddress: number,
    adopted: Adopted,
  ): VectorStore | undefined {
    const { arena, regions } = context;
    const { dimensions } = options;
    const root = CollectionRoot.adopt(
      arena,
      regions,
      rootAddress,
      adopted,
      collectionId,
      dimensions,
      metricCode(options.metric),
      rowGeometry(dimensions),
    );
    if (root === undefined) return undefined;
    const store = new VectorStore(context, options, root);
    store.#recover(adopted);
    return store;
  }

  get count(): number {
    return this.#live;
  }

  /** Rows at or above this were never used. */
  get rowsUsed(): number {
    return this.#rowsUsed;
  }

  get lastVersion(): number {
    return this.#sequence;
  }

  get vectorBytes(): number {
    return this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  /** Byte offset of a row's cell. */
  cellOf(row: number): number {
    const chunk = chunkOfRow(this.geometry, row);
    return (this.#chunks[chunk] as Chunk).address + (row - firstRowOf(this.geometry, chunk)) * this.geometry.stride;
  }

  /** Byte offset of a row's record; 0 = the row is free. */
  recordOf(row: number): number {
    return this.root.arena.u32[(this.cellOf(row) >>> 2) + USER0] as number;
  }

  /** The vector of a row: a view that ends with the next write to it. */
  vectorOf(row: number): Float32Array {
    const first = (this.cellOf(row) + CELL_HEADER_BYTES) >>> 2;
    return this.root.arena.f32.subarray(first, first + this.dimensions);
  }

  /** The id of a used row. */
  idOf(row: number): VectorId {
    const { bytes, i32 } = this.root.arena;
    const record = this.recordOf(row);
    return readId(bytes, record + RECORD_HEADER_BYTES, i32[(record >>> 2) + RECORD_ID_WORD] as number);
  }

  /** The vshard of a used row. */
  vshardOf(row: number): number {
    return this.root.arena.i32[(this.cellOf(row) >>> 2) + USER3] as number;
  }

  versionOf(row: number): number {
    const word = this.cellOf(row) >>> 2;
    return (this.root.arena.u32[word + USER2] as number) * TWO_32 + (this.root.arena.u32[word + USER1] as number);
  }

  /** The row of an id, given as bytes with their hash, or −1. */
  find(hash: number, bytes: Uint8Array, idOffset: number, idWord: number): number {
    const { arena } = this.root;
    for (let probe = this.directory.seek(hash, 0); probe >= 0; probe = this.directory.seek(hash, probe + 1)) {
      const row = this.directory.rowAt(hash, probe);
      const record = this.recordOf(row);
      if (record === 0 || arena.i32[(record >>> 2) + RECORD_ID_WORD] !== idWord) continue;
      if (sameIdBytes(arena.bytes, record + RECORD_HEADER_BYTES, bytes, idOffset, idLengthOf(idWord))) return row;
    }
    return -1;
  }

  /** Takes all memory that a batch needs: rows, records, directory. Throws before anything is written. */
  reserve(newRows: number, recordBytesTotal: number): void {
    while (this.#freeRows.length + this.#capacity - this.#rowsUsed < newRows) this.#addChunk();
    this.heap.reserve(recordBytesTotal);
    this.directory.reserve(newRows, this.#live, this.#entries);
  }

  /**
   * Writes one document into reserved space: a new row, or over `row` when that is not −1.
   *
   * @param source Views of the memory that vector, id and payload are in, by byte offset.
   * @param version Version of a write that was made elsewhere. @default the next one of this shard
   * @returns The row.
   */
  put(
    row: number,
    source: { readonly bytes: Uint8Array; readonly f32: Float32Array },
    vectorOffset: number,
    idOffset: number,
    idWord: number,
    payloadOffset: number,
    payloadBytes: number,
    hash: number,
    vshard: number,
    version: number = this.#sequence + 1,
  ): number {
    const record = this.heap.append(source.bytes, idOffset, idWord, payloadOffset, payloadBytes, hash);
    const vector = source.f32.subarray(vectorOffset >>> 2, (vectorOffset >>> 2) + this.dimensions);
    this.#takeVersion(version);
    this.replaced = row >= 0;
    if (row >= 0) {
      this.#update(row, record, vector, vshard);
      return row;
    }
    const fresh = this.#takeRow();
    const cell = this.cellOf(fresh);
    const { i32 } = this.root.arena;
    beginWrite(i32, cell);
    bumpIncarnation(i32, cell);
    this.root.arena.f32.set(vector, (cell + CELL_HEADER_BYTES) >>> 2);
    this.#writeHeader(cell >>> 2, record, vshard, this.#norm(cell + CELL_HEADER_BYTES));
    endWrite(i32, cell);
    this.directory.insert(hash, fresh);
    this.root.store(ROOT_LIVE, ++this.#live);
    return fresh;
  }

  /**
   * Frees a row. Readers see it gone at once, and references to it are stale.
   *
   * @param version As for {@link put}.
   */
  remove(row: number, version: number = this.#sequence + 1): void {
    const { i32 } = this.root.arena;
    const cell = this.cellOf(row);
    const record = this.recordOf(row);
    const hash = this.root.arena.u32[(record >>> 2) + RECORD_HASH] as number;
    beginWrite(i32, cell);
    bumpIncarnation(i32, cell); // references made for the document that was here fail from now on
    i32[(cell >>> 2) + USER0] = 0;
    bumpIncarnation(i32, cell);
    endWrite(i32, cell);
    this.directory.remove(hash, row);
    this.heap.release(record);
    this.#freeRows.push(row);
    this.root.store(ROOT_LIVE, --this.#live);
    this.#takeVersion(version);
  }

  /** Offers every used row, or those of the kernels' bitmap, to the scan that was begun. */
  scan(): void {
    const { kernels } = this.#context;
    for (let chunk = 0; chunk < this.#chunks.length; chunk++) {
      const first = firstRowOf(this.geometry, chunk);
      const rows = Math.min(rowsInChunk(this.geometry, chunk), this.#rowsUsed - first);
      if (rows <= 0) return;
      kernels.scanCells((this.#chunks[chunk] as Chunk).address, this.geometry.stride, 0, rows, first);
    }
  }

  /** One slice of compaction of the records; true when more is left. */
  compact(deadlineMs: number): boolean {
    if (!this.heap.needsCompaction()) return false;
    if (!this.heap.compacting) {
      this.heap.startCompaction();
      this.#compactionRow = 0;
    }
    while (this.#compactionRow < this.#rowsUsed) {
      const end = Math.min(this.#rowsUsed, this.#compactionRow + 64);
      for (; this.#compactionRow < end; this.#compactionRow++) this.#moveRecord(this.#compactionRow);
      if (this.#context.nowMs() >= deadlineMs) break;
    }
    if (this.#compactionRow < this.#rowsUsed) return true;
    this.heap.endCompaction();
    return false;
  }

  /** Deregisters and frees everything; the collection is gone. */
  drop(): void {
    this.root.drop();
    this.#chunks.length = 0;
  }

  readonly #entries: DirectoryEntries = (insert) => {
    for (let row = 0; row < this.#rowsUsed; row++) {
      const record = this.recordOf(row);
      if (record !== 0) insert(this.root.arena.u32[(record >>> 2) + RECORD_HASH] as number, row);
    }
  };

  #addChunk(): void {
    const index = this.#chunks.length;
    if (index === MAX_ROW_CHUNKS) {
      throw new ShardloomError(
        "ERR_OUT_OF_MEMORY",
        `Cannot store vectors as a collection's shard holds at most ${MAX_ROW_CHUNKS} row chunks`,
      );
    }
    const rows = rowsInChunk(this.geometry, index);
    const chunk = this.root.allocateChunk(rows * this.geometry.stride, this.geometry.stride);
    const countWord = this.root.word(ROOT_ROW_CHUNKS);
    this.root.writeEntry(ROOT_ROW_TABLE, index, chunk, (u32) => {
      u32[countWord] = index + 1;
    });
    this.#chunks.push(chunk);
    this.#capacity += rows;
  }

  #takeRow(): number {
    const reused = this.#freeRows.pop();
    if (reused !== undefined) return reused;
    const row = this.#rowsUsed++;
    this.root.store(ROOT_ROWS_USED, this.#rowsUsed); // before the row is written: recovery looks at it
    return row;
  }

  #update(row: number, record: number, vector: Float32Array, vshard: number): void {
    const previous = this.recordOf(row);
    const { vectorOffset } = this.#shadow;
    this.root.arena.f32.set(vector, vectorOffset >>> 2);
    this.#shadow.announceUpdate(row, record, this.#version, vshard, this.#norm(vectorOffset));
    this.#shadow.apply(this.cellOf(row));
    this.heap.release(previous);
  }

  #moveRecord(row: number): void {
    const from = this.recordOf(row);
    if (from === 0 || !this.heap.isVictim(from)) return;
    this.#shadow.announceRepoint(row, this.heap.copy(from));
    this.#shadow.apply(this.cellOf(row));
    this.heap.release(from);
  }

  #takeVersion(version: number): void {
    this.#version = version;
    this.#sequence = Math.max(this.#sequence + 1, version); // it grows also by an old write: the state is another one
    if (this.#sequence <= this.#sequenceLimit) return;
    const blocks = Math.ceil(this.#sequence / SEQUENCE_BLOCK);
    this.root.store(ROOT_SEQUENCE_BLOCK, blocks);
    this.#sequenceLimit = blocks * SEQUENCE_BLOCK;
  }

  /** Only cosine needs norms; they are taken once, in float64. */
  #norm(vectorOffset: number): number {
    if (this.metric !== METRIC.COSINE) return 0;
    return this.#context.kernels.inverseNorm(ELEMENT.F32, vectorOffset, this.dimensions);
  }

  #writeHeader(cellWord: number, record: number, vshard: number, norm: number): void {
    const { i32, f32 } = this.root.arena;
    i32[cellWord + USER1] = this.#version | 0;
    i32[cellWord + USER2] = Math.floor(this.#version / TWO_32);
    i32[cellWord + USER3] = vshard;
    f32[cellWord + USER4] = norm;
    Atomics.store(i32, cellWord + USER0, record); // last: from here the row is whole
  }

  #recover(adopted: Adopted): void {
    const { root, geometry } = this;
    for (let index = 0; index < root.get(ROOT_ROW_CHUNKS); index++) {
      const chunk = root.adoptEntry(ROOT_ROW_TABLE, index, geometry.stride, adopted);
      if (chunk === undefined)
        throw new ShardloomError("ERR_CORRUPT", `Cannot recover collection as row chunk ${index} must be in its root`);
      this.#chunks.push(chunk);
      this.#capacity += rowsInChunk(geometry, index);
    }
    this.#rowsUsed = Math.min(root.rowsUsed, this.#capacity);
    this.heap.adopt(adopted);
    const announced = this.#shadow.announcedRow();
    if (announced >= 0) this.#shadow.apply(this.cellOf(announced));
    for (let row = this.#rowsUsed - 1; row >= 0; row--) this.#recoverRow(row);
    this.heap.endAdopt();
    root.store(ROOT_LIVE, this.#live);
    this.#sequence = Math.max(this.#sequence, root.get(ROOT_SEQUENCE_BLOCK) * SEQUENCE_BLOCK);
    this.directory.adopt(adopted, this.#entries);
  }

  #recoverRow(row: number): void {
    const { i32 } = this.root.arena;
    const cell = this.cellOf(row);
    const record = this.recordOf(row);
    repairOdd(i32, cell); // whole or free, see the invariant
    if (record === 0) {
      this.#freeRows.push(row);
      return;
    }
    if (!this.heap.adoptRecord(record)) {
      throw new ShardloomError(
        "ERR_CORRUPT",
        `Cannot recover collection as the record of row ${row} must lie in its heap: current value is ${record}`,
      );
    }
    this.#live++;
    this.#sequence = Math.max(this.#sequence, this.versionOf(row));
  }
}
