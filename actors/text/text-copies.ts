/**
 * What copies of texts are made of: applies the effects of other shards' writes, and tells a vshard's documents part by part.
 *
 * Invariant: effects are checked and memory is taken before the first document changes, as for requests. A document that an
 * effect writes has the version that it has on its primary; this shard's own versions stay above all that it has seen.
 */
import type { Kernels } from "../../native-bridge/kernels.ts";
import { ShardloomError } from "../../src/errors.ts";
import { RECORD_HASH, recordBytes } from "../../src/store/collection-layout.ts";
import type { DocumentStore } from "../../src/store/document-store.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";
import { TEXT_DELETE, TEXT_UPSERT } from "../../src/wire/message-types.ts";
import type { DroppedCollections } from "../dropped-collections.ts";
import type { ReceivedEffect, ReplicatedEngine, SnapshotPart } from "../engine.ts";
import { isBody } from "./document-body.ts";
import { hashVshard } from "./row-hash.ts";
import { align, IdsCursor, UPSERT_HEADER, UPSERT_ITEM_HEADER, UpsertCursor } from "./text-requests.ts";
import type { TextShard } from "./text-shard.ts";

/** Bytes of one part of a snapshot, unless one document alone is larger. */
const PART_BYTES: number = 64 * 1024;
const VERSION_BYTES = 8;

/** The copies in the collections of one shard. */
export class TextCopies implements ReplicatedEngine {
  readonly types: readonly number[] = [TEXT_UPSERT, TEXT_DELETE];
  readonly #find: (collectionId: number) => TextShard | undefined;
  readonly #all: () => readonly TextShard[];
  readonly #upserts: UpsertCursor = new UpsertCursor();
  readonly #ids: IdsCursor = new IdsCursor();
  /** By vshard that is being restored: rows of each collection that no effect has written yet. */
  readonly #unwritten: Map<number, Map<TextShard, Set<number>>> = new Map();

  readonly #dropped: DroppedCollections;
  readonly #kernels: Kernels;

  /** @param find An open collection. @param all All of them. */
  constructor(
    find: (collectionId: number) => TextShard | undefined,
    all: () => readonly TextShard[],
    dropped: DroppedCollections,
    kernels: Kernels,
  ) {
    this.#find = find;
    this.#all = all;
    this.#dropped = dropped;
    this.#kernels = kernels;
  }

  has(collectionId: number): boolean {
    return this.#find(collectionId) !== undefined;
  }

  apply(effect: ReceivedEffect): void {
    const shard = this.#find(effect.collection);
    if (shard === undefined) {
      if (this.#dropped.has(effect.collection)) return;
      throw this.#dropped.unknown(effect.collection); // it is not open yet
    }
    if (effect.type === TEXT_UPSERT) this.#upsert(shard, effect);
    else this.#delete(shard, effect);
  }

  snapshot(vshard: number, maxBodyBytes: number): () => SnapshotPart | undefined {
    const left = [...this.#all()];
    const limit = Math.min(maxBodyBytes, PART_BYTES);
    let row = 0;
    return () => {
      for (let shard = left[0]; shard !== undefined; shard = left[0]) {
        // One that was dropped meanwhile has no rows to tell.
        const rows = this.#isOpen(shard) ? nextRows(shard.store, vshard, row, limit) : [];
        const last = rows.at(-1);
        if (last !== undefined) {
          row = last + 1;
          return { type: TEXT_UPSERT, collection: shard.id, body: encodeRows(shard, rows) };
        }
        left.shift();
        row = 0;
      }
      return undefined;
    };
  }

  beginRestore(vshard: number): void {
    const unwritten = new Map<TextShard, Set<number>>();
    for (const shard of this.#all()) {
      const rows = new Set<number>();
      const { store } = shard;
      for (let row = 0; row < store.rowsUsed; row++)
        if (store.recordOf(row) !== 0 && store.vshardOf(row) === vshard) rows.add(row);
      if (rows.size > 0) unwritten.set(shard, rows);
    }
    this.#unwritten.set(vshard, unwritten);
  }

  endRestore(vshard: number): void {
    for (const [shard, rows] of this.#unwritten.get(vshard) ?? [])
      if (this.#isOpen(shard)) for (const row of rows) shard.remove(row);
    this.#unwritten.delete(vshard);
  }

  contentHash(vshard: number): bigint {
    let sum = 0n;
    for (const { id, store } of this.#all()) sum += hashVshard(this.#kernels, id, store, vshard);
    return BigInt.asUintN(64, sum);
  }

  #isOpen(shard: TextShard): boolean {
    return this.#find(shard.id) === shard;
  }

  #upsert(shard: TextShard, effect: ReceivedEffect): void {
    const cursor = this.#upserts.open(effect);
    const { store, options } = shard;
    const rows: number[] = [];
    let newRows = 0;
    let heapBytes = 0;
    let end = effect.offset + UPSERT_HEADER;
    while (cursor.next()) {
      if (!isBody(effect.bytes, cursor.bodyOffset, cursor.bodyBytes, options.fields.length))
        throw corrupt("document", rows.length);
      const row = store.find(cursor.hash, effect.bytes, cursor.idOffset, cursor.idWord);
      if (row < 0) newRows++;
      rows.push(row);
      heapBytes += recordBytes(idLengthOf(cursor.idWord), cursor.bodyBytes);
      end = cursor.itemEnd;
    }
    const versions = versionsAt(effect, end, rows.length);
    store.reserve(newRows, heapBytes);
    const unwritten = this.#unwritten.get(effect.vshard)?.get(shard);
    cursor.rewind();
    for (let item = 0; cursor.next(); item++) {
      const row = shard.put(
        rows[item] as number,
        effect.bytes,
        cursor.idOffset,
        cursor.idWord,
        cursor.bodyOffset,
        cursor.bodyBytes,
        cursor.hash,
        cursor.vshard,
        effect.f64[versions + item],
      );
      unwritten?.delete(row);
    }
  }

  #delete(shard: TextShard, effect: ReceivedEffect): void {
    const ids = this.#ids.open(effect);
    let end = effect.offset;
    while (ids.next()) end = ids.entryEnd; // checks every id before the first is removed
    const versions = versionsAt(effect, end, ids.count);
    ids.open(effect);
    for (let entry = 0; ids.next(); entry++) {
      const row = shard.store.find(ids.hash, effect.bytes, ids.idOffset, ids.idWord);
      if (row >= 0) shard.remove(row, effect.f64[versions + entry]);
    }
  }
}

/** Index of the first version in the effect's doubles. */
function versionsAt(effect: ReceivedEffect, end: number, count: number): number {
  if (end + VERSION_BYTES * count > effect.offset + effect.length) throw corrupt("length", effect.length);
  return end >>> 3;
}

/** Rows of a vshard from `from` on, as many as one part holds; at least one if there is one. */
function nextRows(store: DocumentStore, vshard: number, from: number, limit: number): number[] {
  const rows: number[] = [];
  let bytes = UPSERT_HEADER;
  for (let row = from; row < store.rowsUsed; row++) {
    if (store.recordOf(row) === 0 || store.vshardOf(row) !== vshard) continue;
    bytes += itemBytes(store, row) + VERSION_BYTES;
    if (rows.length > 0 && bytes > limit) break;
    rows.push(row);
  }
  return rows;
}

/** Bytes of a document as an item of an upsert. */
function itemBytes(store: DocumentStore, row: number): number {
  return align(UPSERT_ITEM_HEADER + idLengthOf(store.idWordOf(row)) + store.bodyBytes(row));
}

function encodeRows({ id, store }: TextShard, rows: readonly number[]): Uint8Array {
  const items = rows.reduce((sum, row) => sum + itemBytes(store, row), 0);
  const body = new Uint8Array(UPSERT_HEADER + items + VERSION_BYTES * rows.length);
  const i32 = new Int32Array(body.buffer);
  const { arena } = store.root;
  i32.set([id, rows.length]);
  let at = UPSERT_HEADER;
  for (const row of rows) {
    const hash = arena.i32[(store.recordOf(row) >>> 2) + RECORD_HASH] as number;
    i32.set([store.idWordOf(row), store.bodyBytes(row), hash, store.vshardOf(row)], at >>> 2);
    const end = store.bodyOffset(row) + store.bodyBytes(row);
    body.set(arena.bytes.subarray(store.idOffset(row), end), at + UPSERT_ITEM_HEADER);
    at += itemBytes(store, row);
  }
  new Float64Array(body.buffer, at, rows.length).set(rows.map((row) => store.versionOf(row)));
  return body;
}

function corrupt(name: string, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot apply effect as its ${name} must fit its collection: current value is ${value}`,
    { details: { name, value } },
  );
}
