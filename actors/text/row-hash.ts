/**
 * Hashes of documents by what they hold, wherever they lie: whole, for copies to be compared, and by what an index sees of them.
 *
 * Invariant: equal documents have equal hashes in every shard and process. Numbers of rows and addresses of records do not enter.
 */
import type { Kernels } from "../../native-bridge/kernels.ts";
import type { DocumentStore } from "../../src/store/document-store.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";

const TWO_32 = 2 ** 32;

/** The sum of the hashes of a vshard's documents, modulo 2^64: collection, id, version, body. */
export function hashVshard(kernels: Kernels, collectionId: number, store: DocumentStore, vshard: number): bigint {
  kernels.beginHash();
  kernels.setHashHead(0, collectionId);
  for (let row = 0; row < store.rowsUsed; row++) {
    if (store.recordOf(row) === 0 || store.vshardOf(row) !== vshard) continue;
    const idWord = store.idWordOf(row);
    const version = store.versionOf(row);
    kernels.setHashHead(1, idWord);
    kernels.setHashHead(2, store.bodyBytes(row));
    kernels.setHashHead(4, version | 0);
    kernels.setHashHead(5, Math.floor(version / TWO_32));
    kernels.addDocument(store.idOffset(row), idLengthOf(idWord) + store.bodyBytes(row), 0, 0);
  }
  return (BigInt(kernels.hashHigh) << 32n) | BigInt(kernels.hashLow);
}

/** Hashes of rows by id and body, which is what an index depends on; 0 for a row below 0. Shape: `Uint32Array[2 × rows]`, low word first. */
export function hashIndexed(kernels: Kernels, store: DocumentStore, rows: ArrayLike<number>): Uint32Array {
  const hashes = new Uint32Array(2 * rows.length);
  kernels.beginHash();
  for (let at = 0; at < rows.length; at++) {
    const row = rows[at] as number;
    if (row < 0) continue;
    const idWord = store.idWordOf(row);
    kernels.setHashHead(0, idWord);
    kernels.setHashHead(1, store.bodyBytes(row));
    kernels.hashDocument(store.idOffset(row), idLengthOf(idWord) + store.bodyBytes(row), 0, 0);
    hashes[2 * at] = kernels.hashLow;
    hashes[2 * at + 1] = kernels.hashHigh;
  }
  return hashes;
}
