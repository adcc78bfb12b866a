/**
 * What a one-sided reader knows of one shard's part of a collection: its root, decoded and cached.
 *
 * Invariant: a view is used only after its `structure` word was read again through the root's key and found unchanged, so
 * chunks and directory it names are the current ones, or became old during the operation, which then validates.
 */
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS } from "../../native-bridge/status.ts";
import type { Verbs } from "../../native-bridge/verbs.ts";
import {
  chunkOfRow,
  DIRECTORY_SLOT_WORDS,
  firstRowOf,
  ROOT_BASE_SHIFT,
  ROOT_BYTES,
  ROOT_DIMENSIONS,
  ROOT_DIRECTORY,
  ROOT_DOUBLINGS,
  ROOT_DROPPED,
  ROOT_LIVE,
  ROOT_MAGIC,
  ROOT_MAGIC_WORD,
  ROOT_METRIC,
  ROOT_PENDING,
  ROOT_ROW_CHUNKS,
  ROOT_ROW_TABLE,
  ROOT_ROWS_USED,
  ROOT_STRIDE,
  ROOT_STRUCTURE,
  type RowGeometry,
  rowsInChunk,
} from "../../src/store/collection-layout.ts";

/** Reference that is filled again and again. */
export interface MutableRef {
  address: number;
  rkey: number;
  length: number;
}

export class ShardView {
  root: RegionRef | undefined;
  dimensions = 0;
  metric = 0;
  geometry: RowGeometry = { stride: 64, baseShift: 2, doublings: 0 };
  directory = 0;
  directorySlots = 0;
  /** Byte offset of the bitmap of rows that no index has yet, and its length; 0 = the shard tells nobody. */
  pending = 0;
  pendingBytes = 0;
  readonly chunkAddresses: number[] = [];
  readonly chunkRkeys: number[] = [];
  #structure = 0;
  readonly #verbs: Verbs;
  readonly #bytes: Uint8Array = new Uint8Array(ROOT_BYTES);
  readonly #u32: Uint32Array = new Uint32Array(this.#bytes.buffer);
  readonly #f64: Float64Array = new Float64Array(this.#bytes.buffer);

  constructor(verbs: Verbs) {
    this.#verbs = verbs;
  }

  /** Makes the view current. @returns A status; INVALID_RKEY also while the shard has no root. */
  refresh(root: RegionRef | undefined): number {
    if (root === undefined) return STATUS.INVALID_RKEY;
    if (this.root?.rkey === root.rkey && this.structureNow() === this.#structure) return STATUS.SUCCESS;
    const status = this.#verbs.read(root, this.#bytes);
    if (status !== STATUS.SUCCESS) return status;
    const word = (index: number): number => this.#u32[CELL_HEADER_BYTES / 4 + index] as number;
    if (word(ROOT_DROPPED) === 1) return STATUS.REGION_REVOKED; // its keys follow
    if (word(ROOT_MAGIC_WORD) !== ROOT_MAGIC) return STATUS.INVALID_RKEY;
    this.root = root;
    this.#structure = word(ROOT_STRUCTURE);
    this.dimensions = word(ROOT_DIMENSIONS);
    this.metric = word(ROOT_METRIC);
    this.geometry = { stride: word(ROOT_STRIDE), baseShift: word(ROOT_BASE_SHIFT), doublings: word(ROOT_DOUBLINGS) };
    this.directory = word(ROOT_DIRECTORY);
    this.directorySlots = this.directory === 0 ? 0 : word(ROOT_DIRECTORY + 1) / (DIRECTORY_SLOT_WORDS * 4);
    this.pending = word(ROOT_PENDING);
    this.pendingBytes = this.pending === 0 ? 0 : word(ROOT_PENDING + 1);
    const chunks = word(ROOT_ROW_CHUNKS);
    this.chunkAddresses.length = this.chunkRkeys.length = chunks;
    for (let chunk = 0; chunk < chunks; chunk++) {
      const entry = ROOT_ROW_TABLE + chunk * 4;
      this.chunkAddresses[chunk] = word(entry);
      this.chunkRkeys[chunk] = this.#f64[(CELL_HEADER_BYTES / 4 + entry + 2) >>> 1] as number;
    }
    return STATUS.SUCCESS;
  }

  /** Whether the tables are still those of the view. */
  isCurrent(): boolean {
    return this.structureNow() === this.#structure;
  }

  /** The structure word now, or −1 when the root cannot be read. */
  structureNow(): number {
    return this.#rootWord(ROOT_STRUCTURE);
  }

  /** Documents of the shard, those that are copies included; −1 when the root cannot be read. */
  liveNow(): number {
    return this.#rootWord(ROOT_LIVE);
  }

  /** Rows at or above this were never used; −1 when the root cannot be read. */
  rowsUsedNow(): number {
    return this.#rootWord(ROOT_ROWS_USED);
  }

  /** Puts the cell of a row in `ref`. False when the view has no such row. */
  cellRef(row: number, ref: MutableRef): boolean {
    if (row < 0) return false;
    const chunk = chunkOfRow(this.geometry, row);
    const address = this.chunkAddresses[chunk];
    if (address === undefined) return false;
    ref.address = address + (row - firstRowOf(this.geometry, chunk)) * this.geometry.stride;
    ref.rkey = this.chunkRkeys[chunk] as number;
    ref.length = this.geometry.stride;
    return true;
  }

  /** The row whose cell begins at an address, or −1. */
  rowAt(address: number): number {
    const { stride } = this.geometry;
    for (let chunk = 0; chunk < this.chunkAddresses.length; chunk++) {
      const within = address - (this.chunkAddresses[chunk] as number);
      if (within < 0 || within >= rowsInChunk(this.geometry, chunk) * stride) continue;
      return within % stride === 0 ? firstRowOf(this.geometry, chunk) + within / stride : -1;
    }
    return -1;
  }

  /** Whether all keys still open their chunks: what was read from them in between was not freed or repaired meanwhile. */
  chunksAlive(): boolean {
    return this.chunkRkeys.every((rkey) => this.#verbs.checkKey(rkey) === STATUS.SUCCESS);
  }

  #rootWord(index: number): number {
    const { root } = this;
    if (root === undefined) return -1;
    return this.#verbs.readWord(root.address + CELL_HEADER_BYTES + index * 4, root.rkey);
  }
}
