/**
 * Layout of one shard's part of a collection in the arena: root, shadow, row chunks, records, directory.
 *
 * ```
 *  root       one cell, registered: header | words below | row chunk table | heap chunk table; then, unregistered, the shadow
 *  row        cell of `stride` bytes: user0 record address (0 = free) | user1, user2 version low, high | user3 vshard |
 *             user4 inverse norm (f32 bits; 0 unless cosine) | payload f32[dimensions]
 *  record     u32 total bytes | u32 idWord | u32 payload bytes | u32 hash, id bytes, payload bytes, padding to 8
 *  directory  slots of u32 hash | u32 row + 1 (0 = empty, 0xFFFFFFFF = deleted), open addressing, linear probing
 *  chunk entry u32 address (0 = empty) | u32 length | f64 rkey
 * ```
 *
 * Row chunks double from `2^baseShift` rows until they reach about 16 MiB, so that row → address is arithmetic, small
 * collections stay small, and a full arena needs few of the region table's slots. Rows and chunks never move.
 */
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";

export const ROOT_MAGIC = 0x54524f56; // "VORT"
/** In its place once nothing is left of the collection but the root's own block. */
export const ROOT_GONE = 0x45_4e_4f_47;

// Words of the root's payload. Those marked * change without the seqlock, by single atomic stores.
export const ROOT_MAGIC_WORD = 0;
export const ROOT_STRUCTURE = 1; // * grows with every change of the tables below
export const ROOT_COLLECTION = 2;
export const ROOT_DIMENSIONS = 3;
export const ROOT_METRIC = 4;
export const ROOT_STRIDE = 5;
export const ROOT_BASE_SHIFT = 6;
export const ROOT_DOUBLINGS = 7;
export const ROOT_ROW_CHUNKS = 8;
export const ROOT_ROWS_USED = 9; // * rows at or above were never used
export const ROOT_LIVE = 10; // *
export const ROOT_SEQUENCE_BLOCK = 11; // * versions below this × SEQUENCE_BLOCK may have been given out
export const ROOT_DIRECTORY = 12; // u32 address | u32 byte length | f64 rkey: a chunk entry
export const ROOT_AUXILIARY = 16; // AUXILIARY_BLOCKS × (u32 address | u32 length): private blocks to free after a crash
export const AUXILIARY_BLOCKS = 10;
export const ROOT_DROPPED = 40; // * 1 from the moment a drop has begun
export const ROOT_PENDING = 41; // u32 address | u32 byte length: bitmap of the rows that no index has yet, where others may read it; 0 = none
export const ROOT_ROW_TABLE = 64;
/** Versions are set aside in blocks, so that a successor never gives one out again. */
export const SEQUENCE_BLOCK = 1024;
export const MAX_ROW_CHUNKS = 320;
export const ROOT_HEAP_TABLE: number = ROOT_ROW_TABLE + MAX_ROW_CHUNKS * 4;
export const MAX_HEAP_CHUNKS = 1024;
export const CHUNK_ENTRY_WORDS = 4;
export const ROOT_PAYLOAD_WORDS: number = ROOT_HEAP_TABLE + MAX_HEAP_CHUNKS * CHUNK_ENTRY_WORDS;
export const ROOT_BYTES: number = CELL_HEADER_BYTES + ROOT_PAYLOAD_WORDS * 4;

/** Shadow: i32 state | row | record address | version low | version high | vshard | norm bits | 0, f32[dimensions]. */
export const SHADOW_HEADER_BYTES = 32;
/** States of the shadow: nothing; "write this row again from here"; "only its record address". */
export const SHADOW = { EMPTY: 0, UPDATE: 1, REPOINT: 2 } as const;

export const RECORD_HEADER_BYTES = 16;
export const RECORD_TOTAL = 0;
export const RECORD_ID_WORD = 1;
export const RECORD_PAYLOAD_BYTES = 2;
export const RECORD_HASH = 3;

export const DIRECTORY_SLOT_WORDS = 2;
export const DIRECTORY_DELETED = -1;

/** Largest row chunk, unless a single base chunk is larger already. */
export const MAX_CHUNK_BYTES: number = 16 * 1024 * 1024;
const BASE_CHUNK_BYTES = 1024 * 1024;

/** Bytes from one row's cell to the next. */
export function rowStride(dimensions: number): number {
  return (CELL_HEADER_BYTES + dimensions * 4 + 15) & ~15;
}

/** Sizes of the row chunks of a collection. */
export interface RowGeometry {
  readonly stride: number;
  readonly baseShift: number;
  readonly doublings: number;
}

export function rowGeometry(dimensions: number): RowGeometry {
  const stride = rowStride(dimensions);
  const baseShift = Math.max(2, Math.min(8, 31 - Math.clz32(Math.floor(BASE_CHUNK_BYTES / stride))));
  const doublings = Math.max(0, 31 - Math.clz32(Math.floor(MAX_CHUNK_BYTES / (stride << baseShift))));
  return { stride, baseShift, doublings };
}

/** Rows of the chunk with this number. */
export function rowsInChunk(g: RowGeometry, chunk: number): number {
  return 1 << (g.baseShift + Math.min(chunk, g.doublings));
}

/** First row of a chunk. */
export function firstRowOf(g: RowGeometry, chunk: number): number {
  const doubled = Math.min(chunk, g.doublings);
  return ((1 << doubled) - 1) * (1 << g.baseShift) + (chunk - doubled) * (1 << (g.baseShift + g.doublings));
}

/** Chunk that a row is in. */
export function chunkOfRow(g: RowGeometry, row: number): number {
  const chunk = 31 - Math.clz32((row >>> g.baseShift) + 1);
  if (chunk < g.doublings) return chunk;
  return g.doublings + ((row - firstRowOf(g, g.doublings)) >>> (g.baseShift + g.doublings));
}

/** Bytes of a record. */
export function recordBytes(idLength: number, payloadBytes: number): number {
  return (RECORD_HEADER_BYTES + idLength + payloadBytes + 7) & ~7;
}

/** Finds the next slot with this hash from probe number `from` on. Returns the probe number, or −1 at the first empty slot. */
export function seekDirectory(i32: Int32Array, address: number, slots: number, hash: number, from: number): number {
  const base = address >>> 2;
  const wanted = hash | 0;
  for (let probe = from; probe < slots; probe++) {
    const word = base + ((hash + probe) & (slots - 1)) * DIRECTORY_SLOT_WORDS;
    const row = Atomics.load(i32, word + 1); // acquires the hash
    if (row === 0) return -1;
    if (row !== DIRECTORY_DELETED && i32[word] === wanted) return probe;
  }
  return -1;
}

/** Word of the slot at a probe number; its row + 1 is in the next word. */
export function directoryWord(address: number, slots: number, hash: number, probe: number): number {
  return (address >>> 2) + ((hash + probe) & (slots - 1)) * DIRECTORY_SLOT_WORDS;
}
