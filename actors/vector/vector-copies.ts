/**
 * What copies of vectors are made of: applies the effects of other shards' writes, and tells a vshard's rows part by part.
 *
 * Invariant: effects are checked and memory is taken before the first row changes, as for requests. A row that an effect writes has the
 * version that it has on its primary; this shard's own versions stay above all that it has seen.
 */
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import type { Kernels } from "../../native-bridge/kernels.ts";
import { ShardloomError } from "../../src/errors.ts";
import {
  RECORD_HASH,
  RECORD_HEADER_BYTES,
  RECORD_ID_WORD,
  RECORD_PAYLOAD_BYTES,
  recordBytes,
} from "../../src/store/collection-layout.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";
import { VECTOR_DELETE, VECTOR_UPSERT } from "../../src/wire/message-types.ts";
import type { DroppedCollections } from "../dropped-collections.ts";
import type { EngineRequest, ReceivedEffect, ReplicatedEngine, SnapshotPart, WriteEffects } from "../engine.ts";
import { DeleteBodies } from "./effect-bodies.ts";
import { hashVshard } from "./row-hash.ts";
import type { ShardCollection } from "./shard-collection.ts";
import { IdsCursor, UPSERT_HEADER, UPSERT_ITEM_HEADER, UpsertCursor } from "./vector-requests.ts";
import type { VectorStore } from "./vector-store.ts";

/** Bytes of one part of a snapshot, unless one row alone is larger. */
const PART_BYTES: number = 64 * 1024;

/** Tells which of the ids a delete will remove, after it has checked them all. */
export function tellDeletes(
  collection: ShardCollection,
  ids: IdsCursor,
  request: EngineRequest,
  effects: WriteEffects,
): void {
  const { store } = collection;
  const bodies = new DeleteBodies(collection.id, effects.maxBodyBytes);
  const { keyed } = effects;
  while (ids.next()) {
    effects.touch(ids.hash);
    const vshard = keyed?.vshardOf(ids.hash) ?? 0;
    if (keyed?.repeats(vshard) === true) continue;
    const row = store.find(ids.hash, request.bytes, ids.idOffset, ids.idWord);
    keyed?.note(vshard, row >= 0);
    if (row >= 0) bodies.add(store.vshardOf(row), request, ids.entryOffset, ids.entryEnd, store.lastVersion + 1);
  }
  bodies.tell(VECTOR_DELETE, effects);
  effects.publish();
}

/** The copies in the collections of one shard. */
export class VectorCopies implements ReplicatedEngine {
  readonly types: readonly number[] = [VECTOR_UPSERT, VECTOR_DELETE];
  readonly #collections: ReadonlyMap<number, ShardCollection>;
  readonly #upserts: UpsertCursor = new UpsertCursor();
  readonly #ids: IdsCursor = new IdsCursor();
  /** By vshard that is being restored: rows of each collection that no effect has written yet. */
  readonly #unwritten: Map<number, Map<ShardCollection, Set<number>>> = new Map();

  readonly #dropped: DroppedCollections;
  readonly #kernels: Kernels;

  constructor(collections: ReadonlyMap<number, ShardCollection>, dropped: DroppedCollections, kernels: Kernels) {
    this.#collections = collections;
    this.#dropped = dropped;
    this.#kernels = kernels;
  }

  has(collectionId: number): boolean {
    return this.#collections.has(collectionId);
  }

  apply(effect: ReceivedEffect): void {
    const collection = this.#collections.get(effect.collection);
    if (collection === undefined) {
      if (this.#dropped.has(effect.collection)) return;
      throw this.#dropped.unknown(effect.collection); // it is not open yet
    }
    if (effect.type === VECTOR_UPSERT) this.#upsert(collection, effect);
    else this.#delete(collection, effect);
  }

  snapshot(vshard: number, maxBodyBytes: number): () => SnapshotPart | undefined {
    const collections = [...this.#collections.values()];
    const limit = Math.min(maxBodyBytes, PART_BYTES);
    let row = 0;
    return () => {
      for (let collection = collections[0]; collection !== undefined; collection = collections[0]) {
        // One that was dropped meanwhile has no rows to tell.
        const rows =
          this.#collections.get(collection.id) === collection ? nextRows(collection, vshard, row, limit) : [];
        const last = rows.at(-1);
        if (last !== undefined) {
          row = last + 1;
          return { type: VECTOR_UPSERT, collection: collection.id, body: encodeRows(collection, rows) };
        }
        collections.shift();
        row = 0;
      }
      return undefined;
    };
  }

  beginRestore(vshard: number): void {
    const unwritten = new Map<ShardCollection, Set<number>>();
    for (const collection of this.#collections.values()) {
      const rows = new Set<number>();
      const { store } = collection;
      for (let row = 0; row < store.rowsUsed; row++)
        if (store.recordOf(row) !== 0 && store.vshardOf(row) === vshard) rows.add(row);
      if (rows.size > 0) unwritten.set(collection, rows);
    }
    this.#unwritten.set(vshard, unwritten);
  }

  endRestore(vshard: number): void {
    for (const [collection, rows] of this.#unwritten.get(vshard) ?? []) {
      if (this.#collections.get(collection.id) !== collection) continue;
      for (const row of rows) collection.remove(row);
    }
    this.#unwritten.delete(vshard);
  }

  contentHash(vshard: number): bigint {
    let sum = 0n;
    for (const { id, store } of this.#collections.values()) sum += hashVshard(this.#kernels, id, store, vshard);
    return BigInt.asUintN(64, sum);
  }

  #upsert(collection: ShardCollection, effect: ReceivedEffect): void {
    const cursor = this.#upserts.open(effect);
    const { store } = collection;
    if (cursor.dimensions !== store.dimensions) throw corrupt("dimensions", cursor.dimensions);
    const rows: number[] = [];
    let newRows = 0;
    let heapBytes = 0;
    let end = effect.offset + UPSERT_HEADER;
    while (cursor.next()) {
      const row = store.find(cursor.hash, effect.bytes, cursor.idOffset, cursor.idWord);
      if (row < 0) newRows++;
      rows.push(row);
      heapBytes += recordBytes(idLengthOf(cursor.idWord), cursor.payloadBytes);
      end = cursor.itemEnd;
    }
    if (end + 8 * rows.length > effect.offset + effect.length) throw corrupt("length", effect.length);
    collection.reserve(newRows);
    store.reserve(newRows, heapBytes);
    const unwritten = this.#unwritten.get(effect.vshard)?.get(collection);
    // What restores a vshard, or the shard itself before it serves, is to be there soon; the primary waits for other effects.
    if (collection.index !== undefined && !this.#unwritten.has(effect.vshard)) collection.payFor(rows.length);
    cursor.rewind();
    for (let item = 0; cursor.next(); item++) {
      const row = store.put(
        rows[item] as number,
        effect,
        cursor.vectorOffset,
        cursor.idOffset,
        cursor.idWord,
        cursor.payloadOffset,
        cursor.payloadBytes,
        cursor.hash,
        cursor.vshard,
        effect.f64[(end >>> 3) + item],
      );
      collection.onPut(row, store.replaced);
      unwritten?.delete(row);
    }
  }

  #delete(collection: ShardCollection, effect: ReceivedEffect): void {
    const ids = this.#ids.open(effect);
    while (ids.next()); // checks every id before the first is removed
    const version = effect.f64[((effect.offset + effect.length) >>> 3) - 1] as number;
    ids.open(effect);
    while (ids.next()) {
      const row = collection.store.find(ids.hash, effect.bytes, ids.idOffset, ids.idWord);
      if (row >= 0) collection.remove(row, version);
    }
  }
}

/** Rows of a vshard from `from` on, as many as one part holds; at least one if there is one. */
function nextRows({ store }: ShardCollection, vshard: number, from: number, limit: number): number[] {
  const rows: number[] = [];
  let bytes = UPSERT_HEADER;
  for (let row = from; row < store.rowsUsed; row++) {
    if (store.recordOf(row) === 0 || store.vshardOf(row) !== vshard) continue;
    bytes += rowBytes(store, row) + 8;
    if (rows.length > 0 && bytes > limit) break;
    rows.push(row);
  }
  return rows;
}

/** Bytes of a row as an item of an upsert. */
function rowBytes(store: VectorStore, row: number): number {
  const { u32 } = store.root.arena;
  const record = store.recordOf(row) >>> 2;
  const id = idLengthOf(u32[record + RECORD_ID_WORD] as number);
  return (UPSERT_ITEM_HEADER + store.dimensions * 4 + id + (u32[record + RECORD_PAYLOAD_BYTES] as number) + 7) & ~7;
}

function encodeRows({ id, store }: ShardCollection, rows: readonly number[]): Uint8Array {
  const itemBytes = rows.reduce((sum, row) => sum + rowBytes(store, row), 0);
  const body = new Uint8Array(UPSERT_HEADER + itemBytes + 8 * rows.length);
  const i32 = new Int32Array(body.buffer);
  const f32 = new Float32Array(body.buffer);
  const { arena } = store.root;
  i32.set([id, rows.length, store.dimensions]);
  let at = UPSERT_HEADER;
  for (const row of rows) {
    const record = store.recordOf(row);
    const word = record >>> 2;
    const idWord = arena.i32[word + RECORD_ID_WORD] as number;
    const payloadBytes = arena.i32[word + RECORD_PAYLOAD_BYTES] as number;
    i32.set([idWord, payloadBytes, arena.i32[word + RECORD_HASH] as number, store.vshardOf(row)], at >>> 2);
    const vector = (store.cellOf(row) + CELL_HEADER_BYTES) >>> 2;
    f32.set(arena.f32.subarray(vector, vector + store.dimensions), (at + UPSERT_ITEM_HEADER) >>> 2);
    const idAt = at + UPSERT_ITEM_HEADER + 4 * store.dimensions;
    const from = record + RECORD_HEADER_BYTES;
    body.set(arena.bytes.subarray(from, from + idLengthOf(idWord) + payloadBytes), idAt);
    at += rowBytes(store, row);
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
