/**
 * Decodes the root of a shard's rows, rows and records out of bytes that were copied from somewhere, as collection-layout.ts documents them.
 *
 * Invariant: lengths are checked against the bytes that there are, and what is no root of a collection that is open is none.
 */
import { CELL_HEADER_BYTES, INCARNATION, USER0, USER1, USER2 } from "../../native-bridge/cell-layout.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import {
  CHUNK_ENTRY_WORDS,
  MAX_HEAP_CHUNKS,
  MAX_ROW_CHUNKS,
  RECORD_HEADER_BYTES,
  RECORD_ID_WORD,
  ROOT_BASE_SHIFT,
  ROOT_BYTES,
  ROOT_DIMENSIONS,
  ROOT_DOUBLINGS,
  ROOT_DROPPED,
  ROOT_HEAP_TABLE,
  ROOT_MAGIC,
  ROOT_MAGIC_WORD,
  ROOT_ROW_CHUNKS,
  ROOT_ROW_TABLE,
  ROOT_STRIDE,
  type RowGeometry,
  rowsInChunk,
} from "./collection-layout.ts";
import { idLengthOf, isIdWord, MAX_ID_BYTES, readId, type VectorId } from "./id-codec.ts";

/** Where the rows and records of a shard are. */
export interface RowTables {
  readonly dimensions: number;
  readonly geometry: RowGeometry;
  readonly rows: readonly RegionRef[];
  readonly records: readonly RegionRef[];
}

/** One row, as it was in one version of its cell. */
export interface DecodedRow {
  /** Version of the cell, which changes with every write, and which of the documents it has held this is. */
  readonly cellVersion: string;
  readonly incarnation: number;
  /** Address of its record; 0: the row is free. */
  readonly record: number;
  /** Of the document. */
  readonly version: number;
}

/** The longest id with its record's header. */
const LONGEST_HEAD_BYTES = RECORD_HEADER_BYTES + MAX_ID_BYTES;
const TWO_32 = 2 ** 32;

/** @param bytes A whole root, header included. */
export function decodeRowTables(bytes: Uint8Array): RowTables | undefined {
  if (bytes.length !== ROOT_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (index: number): number => view.getUint32(CELL_HEADER_BYTES + index * 4, true);
  if (word(ROOT_MAGIC_WORD) !== ROOT_MAGIC || word(ROOT_DROPPED) === 1) return undefined;
  const entry = (table: number, index: number): RegionRef => {
    const first = table + index * CHUNK_ENTRY_WORDS;
    const rkey = view.getFloat64(CELL_HEADER_BYTES + (first + 2) * 4, true);
    return { address: word(first), rkey, length: word(first + 1) };
  };
  const rows = Math.min(word(ROOT_ROW_CHUNKS), MAX_ROW_CHUNKS);
  const records = Array.from({ length: MAX_HEAP_CHUNKS }, (_, index) => entry(ROOT_HEAP_TABLE, index));
  return {
    dimensions: word(ROOT_DIMENSIONS),
    geometry: { stride: word(ROOT_STRIDE), baseShift: word(ROOT_BASE_SHIFT), doublings: word(ROOT_DOUBLINGS) },
    rows: Array.from({ length: rows }, (_, index) => entry(ROOT_ROW_TABLE, index)),
    records: records.filter(({ address }) => address !== 0),
  };
}

/** The cell that begins at an address; undefined when no row does. */
export function rowRefAt({ geometry, rows }: RowTables, address: number): RegionRef | undefined {
  const { stride } = geometry;
  for (const [chunk, { address: first, rkey }] of rows.entries()) {
    const within = address - first;
    if (within < 0 || within >= rowsInChunk(geometry, chunk) * stride) continue;
    return within % stride === 0 ? { address, rkey, length: stride } : undefined;
  }
  return undefined;
}

/** What has to be read of a record for its id; undefined when no registered memory has it. */
export function recordHeadAt({ records }: RowTables, address: number): RegionRef | undefined {
  const chunk = records.find((each) => address >= each.address && address < each.address + each.length);
  if (chunk === undefined) return undefined;
  return { address, rkey: chunk.rkey, length: Math.min(LONGEST_HEAD_BYTES, chunk.address + chunk.length - address) };
}

/** @param bytes At least the header of a cell. */
export function decodeRow(bytes: Uint8Array): DecodedRow {
  const view = new DataView(bytes.buffer, bytes.byteOffset, CELL_HEADER_BYTES);
  const word = (index: number): number => view.getUint32(index * 4, true);
  return {
    cellVersion: `${word(1)} ${word(0)}`,
    incarnation: word(INCARNATION),
    record: word(USER0),
    version: word(USER2) * TWO_32 + word(USER1),
  };
}

/** The id in a record; undefined when these are not the bytes of one. */
export function decodeRecordId(bytes: Uint8Array): VectorId | undefined {
  if (bytes.length < RECORD_HEADER_BYTES) return undefined;
  const idWord = new DataView(bytes.buffer, bytes.byteOffset).getInt32(RECORD_ID_WORD * 4, true);
  if (!isIdWord(idWord) || RECORD_HEADER_BYTES + idLengthOf(idWord) > bytes.length) return undefined;
  return readId(bytes, RECORD_HEADER_BYTES, idWord);
}
