/**
 * The index of one collection on its shard's disk, so that a shard that starts again need not analyse every text anew. One file,
 * `text-<collection>.postings`: the hash of id and body of each document, lengths of fields, terms and posting lists.
 *
 * Invariant: a saved document is taken for the row that holds the same id and body now; entries of others are dead, and documents that were
 * not saved are indexed in the background. An index that was made by another analysis, or for other options, is not taken, as
 * removing a document must find the terms that adding it gave.
 */
import { ShardloomError } from "../../src/errors.ts";
import { matchHashes } from "../../src/store/hash-join.ts";
import { readIndexFile, writeIndexFile } from "../../src/store/index-file.ts";
import type { EngineContext, IndexStorage, LoadedIndex } from "../engine.ts";
import { analysisOf } from "./analyser.ts";
import type { PostingLists } from "./postings.ts";
import { hashIndexed } from "./row-hash.ts";
import type { TextShard } from "./text-shard.ts";

/** An index of which less than this share is still true is built anew. */
const LEAST_SHARE = 0.5;

interface PostingsMeaning {
  /** Of the collection, and of the analysis that made its terms. */
  readonly analysis: string;
}

/** Saves the index of a collection, if it is whole and has changed since it was saved or loaded. Copies it first, in one turn. */
export async function saveIndex(
  shard: TextShard,
  context: EngineContext,
  { disk, directory }: IndexStorage,
): Promise<void> {
  const { index, store, id } = shard;
  if (!shard.ready || index.limit === 0 || index.changes === shard.savedChanges) return;
  const { changes } = index;
  // In one turn, which may take as long as a native call.
  const { hashes, lengths, lists } = context.native(() => ({
    hashes: hashIndexed(context.kernels, store, index.rows()),
    lengths: index.lengths.slice(0, index.limit * index.fields),
    lists: index.postings.dump(),
  }));
  const { texts, entryWords, entries, positionWords, positions } = lists;
  const sizes = Uint32Array.from(texts, (text) => text.length);
  const encoded = new TextEncoder().encode(texts.join(""));
  const words = [hashes, lengths, sizes, entryWords, entries, positionWords, positions];
  const sections = [...words.map((list) => new Uint8Array(list.buffer, list.byteOffset, list.byteLength)), encoded];
  const meaning: PostingsMeaning = { analysis: analysisOf(shard.options) };
  await writeIndexFile(disk, directory, fileOf(id), { meaning, sections });
  shard.savedChanges = changes;
}

/**
 * Gives a collection none of whose documents is indexed yet the index that was saved of it, if there is one that fits.
 *
 * @param isOpen Whether the collection is still open, after waiting for the disk.
 */
export async function loadIndex(
  shard: TextShard,
  context: EngineContext,
  { disk, directory }: IndexStorage,
  isOpen: () => boolean,
): Promise<LoadedIndex> {
  const none = { collection: shard.id, loaded: 0 };
  try {
    const { meaning, sections } = await readIndexFile<PostingsMeaning>(disk, directory, fileOf(shard.id));
    if (meaning.analysis !== analysisOf(shard.options) || !isOpen() || !shard.awaitsIndex) return none;
    const [hashes, lengths, sizes, entryWords, entries, positionWords, positions] = sections.map(wordsOf);
    const rows = context.native(() => matchRows(shard, context, hashes as Uint32Array));
    const loaded = rows.reduce((count, row) => (row < 0 ? count : count + 1), 0);
    if (loaded === 0 || loaded < LEAST_SHARE * rows.length) return none;
    shard.adoptIndex(
      rows,
      lengths as Uint32Array,
      {
        texts: split(new TextDecoder().decode(sections[7]), sizes as Uint32Array),
        entryWords,
        entries: signed(entries),
        positionWords,
        positions: signed(positions),
      } as PostingLists,
    );
    if (shard.ready && loaded === rows.length) shard.savedChanges = shard.index.changes;
    return { ...none, loaded };
  } catch (error) {
    if (!ShardloomError.is(error) || error.code === "ERR_NATIVE_QUARANTINED") throw error;
    return error.code === "ERR_NO_FILE" ? none : { ...none, error };
  }
}

/** For each saved document its row now; −1 where there is none. */
function matchRows({ store }: TextShard, context: EngineContext, hashes: Uint32Array): Int32Array {
  const live: number[] = [];
  for (let row = 0; row < store.rowsUsed; row++) if (store.recordOf(row) !== 0) live.push(row);
  const places = matchHashes(hashIndexed(context.kernels, store, live), hashes);
  return places.map((place) => (place < 0 ? -1 : (live[place] as number)));
}

function split(text: string, sizes: Uint32Array): string[] {
  const texts: string[] = [];
  let at = 0;
  for (const size of sizes) {
    texts.push(text.slice(at, at + size));
    at += size;
  }
  return texts;
}

function wordsOf(section: Uint8Array): Uint32Array {
  return new Uint32Array(section.buffer, section.byteOffset, section.byteLength >>> 2);
}

function signed(words: Uint32Array | undefined): Int32Array | undefined {
  return words && new Int32Array(words.buffer, words.byteOffset, words.length);
}

function fileOf(collection: number): string {
  return `text-${collection}.postings`;
}
