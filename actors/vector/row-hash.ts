/**
 * Hashes of rows by what they hold, wherever they lie: of whole documents, for copies to be compared, and of what an index sees of them.
 *
 * Invariant: equal documents have equal hashes in every shard and process. Numbers of rows and addresses of records do not enter.
 */
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import type { Kernels } from "../../native-bridge/kernels.ts";
import { RECORD_HEADER_BYTES, RECORD_ID_WORD, RECORD_PAYLOAD_BYTES } from "../../src/store/collection-layout.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";
import type { VectorStore } from "./vector-store.ts";

const TWO_32 = 2 ** 32;

/** The sum of the hashes of a vshard's documents, modulo 2^64: collection, id, version, payload, vector. */
export function hashVshard(kernels: Kernels, collectionId: number, store: VectorStore, vshard: number): bigint {
  const { i32, u32 } = store.root.arena;
  const vectorBytes = store.dimensions * 4;
  kernels.beginHash();
  kernels.setHashHead(0, collectionId);
  kernels.setHashHead(3, store.dimensions);
  for (let row = 0; row < store.rowsUsed; row++) {
    const record = store.recordOf(row);
    if (record === 0 || store.vshardOf(row) !== vshard) continue;
    const idWord = i32[(record >>> 2) + RECORD_ID_WORD] as number;
    const payloadBytes = u32[(record >>> 2) + RECORD_PAYLOAD_BYTES] as number;
    const version = store.versionOf(row);
    kernels.setHashHead(1, idWord);
    kernels.setHashHead(2, payloadBytes);
    kernels.setHashHead(4, version | 0);
    kernels.setHashHead(5, Math.floor(version / TWO_32));
    const content = record + RECORD_HEADER_BYTES;
    kernels.addDocument(content, idLengthOf(idWord) + payloadBytes, store.cellOf(row) + CELL_HEADER_BYTES, vectorBytes);
  }
  return (BigInt(kernels.hashHigh) << 32n) | BigInt(kernels.hashLow);
}

/** Hashes of rows by id and vector, which is what an index depends on. Shape: `Uint32Array[2 × rows]`, low word first. */
export function hashIndexed(kernels: Kernels, store: VectorStore, rows: Int32Array): Uint32Array {
  const { i32 } = store.root.arena;
  const hashes = new Uint32Array(2 * rows.length);
  kernels.beginHash();
  for (let at = 0; at < rows.length; at++) {
    const row = rows[at] as number;
    const record = store.recordOf(row);
    const idWord = i32[(record >>> 2) + RECORD_ID_WORD] as number;
    kernels.setHashHead(0, idWord);
    kernels.hashDocument(
      record + RECORD_HEADER_BYTES,
      idLengthOf(idWord),
      store.cellOf(row) + CELL_HEADER_BYTES,
      store.dimensions * 4,
    );
    hashes[2 * at] = kernels.hashLow;
    hashes[2 * at + 1] = kernels.hashHigh;
  }
  return hashes;
}
