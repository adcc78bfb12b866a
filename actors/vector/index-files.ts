/**
 * The index of one collection on its shard's disk, so that a shard that starts again need not build it anew.
 *
 * Two files: `vector-<collection>.usearch`, which usearch writes and reads by itself, and `vector-<collection>.rows`, which has the size and
 * the checksum of the other one, the options, and for each key the hash of id and vector.
 *
 * Invariant: a key is given to the row that holds the same id and vector now, wherever that lies; keys of which there is none stay without,
 * and rows without a key wait to be indexed. So an index of any age is right, or is not taken. usearch never sees a file whose
 * checksum has not been compared, as a damaged one can end the process.
 */
import type { Kernels } from "../../native-bridge/kernels.ts";
import { ShardloomError } from "../../src/errors.ts";
import { matchHashes } from "../../src/store/hash-join.ts";
import { checksumOf, readIndexFile, TEMPORARY, writeIndexFile } from "../../src/store/index-file.ts";
import type { EngineContext, IndexStorage, LoadedIndex } from "../engine.ts";
import { hashIndexed } from "./row-hash.ts";
import type { ShardCollection } from "./shard-collection.ts";
import { VectorIndex } from "./vector-index.ts";
import type { VectorStore } from "./vector-store.ts";

/** An index of which less than this share is still true is built anew. */
const LEAST_SHARE = 0.5;

/** Keys count up from 0; files of older versions do not say so, and theirs do not. */
const KEYS = "counted";

/** What the file of rows means. */
interface IndexMeaning {
  /** Of the collection: an index that was built with others is not taken. */
  readonly options: string;
  /** Size and CRC-32 of the file of usearch. */
  readonly bytes: number;
  readonly crc: number;
}

/** Saves the index of a collection, if it has one that has changed since it was saved or loaded. */
export async function saveIndex(
  collection: ShardCollection,
  context: EngineContext,
  { disk, directory }: IndexStorage,
): Promise<void> {
  const { index, store } = collection;
  if (index === undefined || index.changes === index.savedChanges) return;
  const name = `vector-${collection.id}`;
  const temporary = `${name}.usearch${TEMPORARY}`;
  const { changes } = index;
  // In one turn: what the index and the rows hold at the same moment. It may take as long as a native call.
  const { keys, hashes } = context.native(() => {
    guarded("save", collection, () => index.save(`${context.indexDirectory}/${temporary}`));
    const { rows, keys } = index.entries();
    return { keys, hashes: hashIndexed(context.kernels, store, rows) };
  });
  const path = `${directory}/${temporary}`;
  const file = await disk.open(path, "write");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  const meaning: IndexMeaning = { options: optionsOf(collection), ...(await checksumOf(disk, path)) };
  // Until the second file has followed the pair does not fit, and would not be taken.
  await disk.rename(path, `${directory}/${name}.usearch`);
  await writeIndexFile(disk, directory, `${name}.rows`, { meaning, sections: [bytesOf(keys), bytesOf(hashes)] });
  index.savedChanges = changes;
}

/**
 * Gives a collection the index that was saved of it, if there is one that fits. It may be called at any time, best before the first search.
 *
 * @param isOpen Whether the collection is still open, after waiting for the disk.
 */
export async function loadIndex(
  collection: ShardCollection,
  context: EngineContext,
  { disk, directory }: IndexStorage,
  isOpen: () => boolean,
): Promise<LoadedIndex> {
  const name = `vector-${collection.id}`;
  const none = { collection: collection.id, loaded: 0 };
  try {
    const { meaning, sections } = await readIndexFile<IndexMeaning>(disk, directory, `${name}.rows`);
    if (meaning.options !== optionsOf(collection)) return none;
    const { bytes, crc } = await checksumOf(disk, `${directory}/${name}.usearch`);
    if (bytes !== meaning.bytes || crc !== meaning.crc) throw damaged(`${directory}/${name}.usearch`);
    if (!isOpen()) return none;
    const keys = new Int32Array(wordsOf(sections[0]));
    const hashes = new Uint32Array(wordsOf(sections[1]));
    const rows = context.native(() => matchRows(context.kernels, collection.store, hashes));
    const loaded = rows.reduce((count, row) => (row < 0 ? count : count + 1), 0);
    if (rows.length !== keys.length || loaded === 0 || loaded < LEAST_SHARE * keys.length) return none;
    const index = new VectorIndex(collection.options, context.native);
    guarded("load", collection, () => index.load(`${context.indexDirectory}/${name}.usearch`, keys, rows));
    if (loaded === keys.length) index.savedChanges = index.changes;
    collection.adoptIndex(index);
    return { collection: collection.id, loaded };
  } catch (error) {
    if (!ShardloomError.is(error) || error.code === "ERR_NATIVE_QUARANTINED") throw error;
    return error.code === "ERR_NO_FILE" ? none : { ...none, error };
  }
}

/** For each hash, low word first, the row that has it; −1 where none does. */
function matchRows(kernels: Kernels, store: VectorStore, wanted: Uint32Array): Int32Array {
  const live: number[] = [];
  for (let row = 0; row < store.rowsUsed; row++) if (store.recordOf(row) !== 0) live.push(row);
  const places = matchHashes(hashIndexed(kernels, store, Int32Array.from(live)), wanted);
  return places.map((place) => (place < 0 ? -1 : (live[place] as number)));
}

/** What the graph depends on, and how its keys are given: those of another kind are not taken. */
function optionsOf({ options }: ShardCollection): string {
  const { dimensions, metric, quantization, connectivity, expansionAdd } = options;
  return JSON.stringify([KEYS, dimensions, metric, quantization, connectivity, expansionAdd]);
}

/** Errors of usearch have no code. */
function guarded(operation: string, { id }: ShardCollection, run: () => void): void {
  try {
    run();
  } catch (cause) {
    if (ShardloomError.is(cause)) throw cause;
    throw new ShardloomError("ERR_IO", `Cannot ${operation} index of collection ${id} as usearch failed: ${cause}`, {
      details: { collection: id },
      cause,
    });
  }
}

function damaged(path: string): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot load index ${path} as its checksum must be that of its rows`, {
    details: { path },
  });
}

function bytesOf(words: Int32Array | Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

function wordsOf(section: Uint8Array | undefined): ArrayBuffer {
  return (section ?? new Uint8Array()).slice().buffer;
}
