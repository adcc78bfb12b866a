/**
 * The documents of one shard's part of a collection, in registered regions that outlive the worker.
 *
 * A document is an id and a body of bytes, which the engine gives a meaning; its row is a cell without a payload that
 * names the record, the version and the vshard (layout in collection-layout.ts).
 *
 * Invariant: once `put` returned, the document survives this thread's death at any later point. The record address is
 * written last and cleared first, so a row that has one is whole, and one that has none is free; an update is announced in
 * the shadow first, from which recovery finishes it. Recovery may die and be repeated. `reserve` takes all memory of a
 * batch beforehand: `put` and `remove` cannot fail. Rows never move. Owner thread only.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { beginWrite, bumpIncarnation, endWrite, repairOdd } from "../../native-bridge/cell.ts";
import { USER0, USER1, USER2, USER3 } from "../../native-bridge/cell-layout.ts";
import type { RegionTable } from "../../native-bridge/region-table.ts";
import { ShardloomError } from "../errors.ts";
import {
  chunkOfRow,
  firstRowOf,
  MAX_ROW_CHUNKS,
  RECORD_HASH,
  RECORD_HEADER_BYTES,
  RECORD_ID_WORD,
  RECORD_PAYLOAD_BYTES,
  ROOT_LIVE,
  ROOT_ROW_CHUNKS,
  ROOT_ROW_TABLE,
  ROOT_ROWS_USED,
  ROOT_SEQUENCE_BLOCK,
  type RowGeometry,
  rowGeometry,
  rowsInChunk,
  SEQUENCE_BLOCK,
} from "./collection-layout.ts";
import { type Adopted, type Chunk, CollectionRoot } from "./collection-root.ts";
import { Directory, type DirectoryEntries } from "./directory.ts";
import { type DocumentId, idLengthOf, readId, sameIdBytes } from "./id-codec.ts";
import { RecordHeap } from "./record-heap.ts";
import { Shadow } from "./shadow.ts";

/** What a store needs from its thread. */
export interface StoreContext {
  readonly arena: Arena;
  readonly regions: RegionTable;
  readonly nowMs: () => number;
}

const TWO_32 = 2 ** 32;
/** A registered cell has a payload; this one is not used. */
const CELL_WORDS = 1;
/** Rows between two looks at the clock while compacting. */
const COMPACTION_STEP = 64;

export class DocumentStore {
  readonly root: CollectionRoot;
  readonly heap: RecordHeap;
  readonly directory: Directory;
  readonly #geometry: RowGeometry;
  readonly #nowMs: () => number;
  readonly #shadow: Shadow;
  readonly #chunks: Chunk[] = [];
  #capacity = 0;
  #freeRows: number[] = [];
  #rowsUsed = 0;
  #live = 0;
  /** Grows with every write, and is never below a version that was seen. */
  #sequence = 0;
  /** Versions up to this have been set aside. */
  #sequenceLimit = 0;
  #compactionRow = 0;

  private constructor(context: StoreContext, root: CollectionRoot) {
    this.root = root;
    this.#nowMs = context.nowMs;
    this.#geometry = root.geometry;
    this.heap = new RecordHeap(root);
    this.#shadow = new Shadow(root, 0);
    this.directory = new Directory(root);
  }

  /** @param shape A word that a successor's must equal: what the bodies' layout depends on. */
  static create(context: StoreContext, collectionId: number, shape: number): DocumentStore {
    const { arena, regions } = context;
    return new DocumentStore(
      context,
      CollectionRoot.create(arena, regions, collectionId, 0, shape, rowGeometry(CELL_WORDS)),
    );
  }

  /**
   * Takes over what a dead worker left: finishes the update it was in, frees rows and records it had not finished, and
   * rebuilds the directory. Takes no memory and no region that the dead worker did not have. Cost: two passes over the rows.
   *
   * @param adopted All regions that were taken over from the dead worker; this store's are taken out.
   * @returns Undefined when the collection was dropped, or the worker died while it dropped it.
   * @throws {ShardloomError} `ERR_CORRUPT` when the address holds no root of this collection.
   */
  static recover(
    context: StoreContext,
    collectionId: number,
    shape: number,
    rootAddress: number,
    adopted: Adopted,
  ): DocumentStore | undefined {
    const { arena, regions } = context;
    const root = CollectionRoot.adopt(
      arena,
      regions,
      rootAddress,
      adopted,
      collectionId,
      0,
      shape,
      rowGeometry(CELL_WORDS),
    );
    if (root === undefined) return undefined;
    const store = new DocumentStore(context, root);
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

  /** Bytes of the row chunks. */
  get rowBytes(): number {
    return this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  /** Byte offset of a row's record; 0 = the row is free. */
  recordOf(row: number): number {
    return this.root.arena.u32[(this.#cellOf(row) >>> 2) + USER0] as number;
  }

  /** The id of a used row. */
  idOf(row: number): DocumentId {
    const { bytes } = this.root.arena;
    return readId(bytes, this.recordOf(row) + RECORD_HEADER_BYTES, this.idWordOf(row));
  }

  /** Id word of a used row; the id's bytes are at {@link idOffset}. */
  idWordOf(row: number): number {
    return this.root.arena.i32[(this.recordOf(row) >>> 2) + RECORD_ID_WORD] as number;
  }

  idOffset(row: number): number {
    return this.recordOf(row) + RECORD_HEADER_BYTES;
  }

  versionOf(row: number): number {
    const word = this.#cellOf(row) >>> 2;
    return (this.root.arena.u32[word + USER2] as number) * TWO_32 + (this.root.arena.u32[word + USER1] as number);
  }

  vshardOf(row: number): number {
    return this.root.arena.i32[(this.#cellOf(row) >>> 2) + USER3] as number;
  }

  /** Byte offset of a used row's body; it has no alignment. */
  bodyOffset(row: number): number {
    return this.idOffset(row) + idLengthOf(this.idWordOf(row));
  }

  bodyBytes(row: number): number {
    return this.root.arena.i32[(this.recordOf(row) >>> 2) + RECORD_PAYLOAD_BYTES] as number;
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
   * @param bytes Memory that id and body are in, by byte offset.
   * @param version Version of a write that was made elsewhere. @default the next one of this shard
   * @returns The row.
   */
  put(
    row: number,
    bytes: Uint8Array,
    idOffset: number,
    idWord: number,
    bodyOffset: number,
    bodyBytes: number,
    hash: number,
    vshard: number,
    version: number = this.#sequence + 1,
  ): number {
    const record = this.heap.append(bytes, idOffset, idWord, bodyOffset, bodyBytes, hash);
    this.#takeVersion(version);
    if (row >= 0) {
      const previous = this.recordOf(row);
      this.#shadow.announceUpdate(row, record, version, vshard, 0);
      this.#shadow.apply(this.#cellOf(row));
      this.heap.release(previous);
      return row;
    }
    const fresh = this.#takeRow();
    this.#writeCell(this.#cellOf(fresh), record, version, vshard);
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
    const { i32, u32 } = this.root.arena;
    const cell = this.#cellOf(row);
    const record = this.recordOf(row);
    const hash = u32[(record >>> 2) + RECORD_HASH] as number;
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

  /** One slice of compaction of the records; true when more is left. */
  compact(deadlineMs: number): boolean {
    if (!this.heap.needsCompaction()) return false;
    if (!this.heap.compacting) {
      this.heap.startCompaction();
      this.#compactionRow = 0;
    }
    while (this.#compactionRow < this.#rowsUsed) {
      const end = Math.min(this.#rowsUsed, this.#compactionRow + COMPACTION_STEP);
      for (; this.#compactionRow < end; this.#compactionRow++) this.#moveRecord(this.#compactionRow);
      if (this.#nowMs() >= deadlineMs) break;
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

  #cellOf(row: number): number {
    const chunk = chunkOfRow(this.#geometry, row);
    return (this.#chunks[chunk] as Chunk).address + (row - firstRowOf(this.#geometry, chunk)) * this.#geometry.stride;
  }

  #addChunk(): void {
    const index = this.#chunks.length;
    if (index === MAX_ROW_CHUNKS) {
      throw new ShardloomError(
        "ERR_OUT_OF_MEMORY",
        `Cannot store documents as a collection's shard holds at most ${MAX_ROW_CHUNKS} row chunks`,
      );
    }
    const rows = rowsInChunk(this.#geometry, index);
    const chunk = this.root.allocateChunk(rows * this.#geometry.stride, this.#geometry.stride);
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

  #writeCell(cell: number, record: number, version: number, vshard: number): void {
    const { i32 } = this.root.arena;
    const word = cell >>> 2;
    beginWrite(i32, cell);
    bumpIncarnation(i32, cell);
    i32[word + USER1] = version | 0;
    i32[word + USER2] = Math.floor(version / TWO_32);
    i32[word + USER3] = vshard;
    Atomics.store(i32, word + USER0, record); // last: from here the row is whole
    endWrite(i32, cell);
  }

  #moveRecord(row: number): void {
    const from = this.recordOf(row);
    if (from === 0 || !this.heap.isVictim(from)) return;
    this.#shadow.announceRepoint(row, this.heap.copy(from));
    this.#shadow.apply(this.#cellOf(row));
    this.heap.release(from);
  }

  #takeVersion(version: number): void {
    this.#sequence = Math.max(this.#sequence + 1, version); // it grows also by an old write: the state is another one
    if (this.#sequence <= this.#sequenceLimit) return;
    const blocks = Math.ceil(this.#sequence / SEQUENCE_BLOCK);
    this.root.store(ROOT_SEQUENCE_BLOCK, blocks);
    this.#sequenceLimit = blocks * SEQUENCE_BLOCK;
  }

  #recover(adopted: Adopted): void {
    const root = this.root;
    const geometry = this.#geometry;
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
    if (announced >= 0) this.#shadow.apply(this.#cellOf(announced));
    for (let row = this.#rowsUsed - 1; row >= 0; row--) this.#recoverRow(row);
    this.heap.endAdopt();
    root.store(ROOT_LIVE, this.#live);
    this.#sequence = Math.max(this.#sequence, root.get(ROOT_SEQUENCE_BLOCK) * SEQUENCE_BLOCK);
    this.directory.adopt(adopted, this.#entries);
  }

  #recoverRow(row: number): void {
    const record = this.recordOf(row);
    repairOdd(this.root.arena.i32, this.#cellOf(row)); // whole or free, see the invariant
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
