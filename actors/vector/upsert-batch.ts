/**
 * One upsert request: checked whole, then written.
 *
 * Invariant: `read` changes nothing and takes all memory; `write` cannot fail. Within a batch an id may occur once. Memory that
 * a reserve-only request took stays the shard's, for the writes that follow.
 */
import { describeValue, ShardloomError } from "../../src/errors.ts";
import { recordBytes } from "../../src/store/collection-layout.ts";
import { idLengthOf, readId, sameIdBytes } from "../../src/store/id-codec.ts";
import { VECTOR_UPSERT } from "../../src/wire/message-types.ts";
import type { EngineRequest, WriteEffects } from "../engine.ts";
import { UpsertBodies } from "./effect-bodies.ts";
import type { ShardCollection } from "./shard-collection.ts";
import { componentLimit, firstBeyond, firstUncoded } from "./vector-options.ts";
import { UpsertCursor } from "./vector-requests.ts";

const LEFT_OUT = -2;

export class UpsertBatch {
  /** Version of the first item that is written; the i-th of them has this plus i. */
  firstVersion = 0;
  /** New ids, and bytes of records, of what was read. */
  newRows = 0;
  heapBytes = 0;
  readonly #cursor: UpsertCursor = new UpsertCursor();
  #request!: EngineRequest;
  #collection!: ShardCollection;
  /** Row of each item, −1 = new, −2 = left out as its vshard has seen the write. */
  readonly #rows: number[] = [];
  readonly #idOffsets: number[] = [];
  readonly #idWords: number[] = [];
  /** Last item with this id hash, and for each item the one before it. */
  readonly #byHash: Map<number, number> = new Map();
  readonly #previous: number[] = [];

  get count(): number {
    return this.#cursor.count;
  }

  /** Whether the request only reserves memory. */
  get reserveOnly(): boolean {
    return this.#cursor.reserve !== undefined;
  }

  /** @throws {ShardloomError} for the first thing that is wrong with the batch, with the offending value. */
  read(request: EngineRequest, find: (collectionId: number) => ShardCollection): void {
    const cursor = this.#cursor.open(request);
    const collection = find(cursor.collectionId);
    const { store } = collection;
    if (cursor.dimensions !== store.dimensions) {
      throw new ShardloomError(
        "ERR_DIMENSION_MISMATCH",
        `Cannot upsert as vectors must have ${store.dimensions} components: current value is ${cursor.dimensions}`,
        {
          details: { expected: store.dimensions, value: cursor.dimensions },
        },
      );
    }
    this.#request = request;
    this.#collection = collection;
    this.#rows.length = this.#idOffsets.length = this.#idWords.length = this.#previous.length = 0;
    this.#byHash.clear();
    this.newRows = 0;
    this.heapBytes = 0;
    const limit = componentLimit(collection.options);
    const keyed = this.reserveOnly ? undefined : request.effects?.keyed;
    for (let item = 0; cursor.next(); item++) {
      this.#checkFinite(item);
      this.#checkRange(item, limit);
      this.#checkCode(item);
      this.#checkDuplicate(item);
      if (keyed?.repeats(cursor.vshard) === true) {
        this.#rows.push(LEFT_OUT);
        continue;
      }
      const row = store.find(cursor.hash, request.bytes, cursor.idOffset, cursor.idWord);
      keyed?.note(cursor.vshard, row < 0);
      if (row < 0) this.newRows++;
      this.#rows.push(row);
      this.heapBytes += recordBytes(idLengthOf(cursor.idWord), cursor.payloadBytes);
    }
    if (this.count === 0) return;
    const before = cursor.reserve;
    const rows = this.newRows + (before?.rows ?? 0);
    collection.reserve(rows);
    store.reserve(rows, this.heapBytes + (before?.bytes ?? 0));
  }

  /** Has the writer index rows that wait, while they are too many. Before `tell`: from there on nothing may fail. */
  pay(): void {
    this.#collection.payFor(this.count);
  }

  /** Tells what the batch will write, before `write`: every item with the version that it will get. */
  tell(effects: WriteEffects): void {
    const cursor = this.#cursor.rewind();
    const { store } = this.#collection;
    const bodies = new UpsertBodies(cursor.collectionId, cursor.dimensions, effects.maxBodyBytes);
    let version = store.lastVersion;
    for (let item = 0; cursor.next(); item++)
      if (this.#rows[item] !== LEFT_OUT)
        bodies.add(cursor.vshard, this.#request, cursor.itemOffset, cursor.itemEnd, ++version);
    bodies.tell(VECTOR_UPSERT, effects);
  }

  /** @returns How many ids were new. */
  write(): number {
    const cursor = this.#cursor.rewind();
    const { store } = this.#collection;
    let inserted = 0;
    this.firstVersion = store.lastVersion + 1;
    for (let item = 0; cursor.next(); item++) {
      if (this.#rows[item] === LEFT_OUT) continue;
      const row = store.put(
        this.#rows[item] as number,
        this.#request,
        cursor.vectorOffset,
        cursor.idOffset,
        cursor.idWord,
        cursor.payloadOffset,
        cursor.payloadBytes,
        cursor.hash,
        cursor.vshard,
      );
      this.#collection.onPut(row, store.replaced);
      if (!store.replaced) inserted++;
    }
    return inserted;
  }

  #checkFinite(item: number): void {
    const { f32 } = this.#request;
    const first = this.#cursor.vectorOffset >>> 2;
    const end = first + this.#cursor.dimensions;
    let sum = 0;
    for (let i = first; i < end; i++) sum += (f32[i] as number) * 0; // 0 unless one of them is not finite
    if (sum === 0) return;
    for (let i = first; i < end; i++) {
      const value = f32[i] as number;
      if (Number.isFinite(value)) continue;
      throw new ShardloomError(
        "ERR_NOT_FINITE",
        `Cannot upsert as component ${i - first} of item ${item} must be finite: current value is ${value}`,
        {
          details: { item, component: i - first, value: String(value), id: this.#id() },
        },
      );
    }
  }

  #checkRange(item: number, limit: number): void {
    const { f32 } = this.#request;
    const first = this.#cursor.vectorOffset >>> 2;
    const at = firstBeyond(f32, first, first + this.#cursor.dimensions, limit);
    if (at < 0) return;
    const value = f32[at] as number;
    throw new ShardloomError(
      "ERR_INVALID_ARGUMENT",
      `Cannot upsert as component ${at - first} of item ${item} must be within ±${limit} with f16: current value is ${value}`,
      { details: { item, component: at - first, value, limit, id: this.#id() } },
    );
  }

  #checkCode(item: number): void {
    const first = this.#cursor.vectorOffset >>> 2;
    const vector = this.#request.f32.subarray(first, first + this.#cursor.dimensions);
    const uncoded = firstUncoded(this.#collection.options, vector);
    if (uncoded === undefined) return;
    const component = uncoded.at;
    const value = vector[component] as number;
    throw new ShardloomError(
      "ERR_INVALID_ARGUMENT",
      `Cannot upsert as component ${component} of item ${item} must be ${uncoded.rule}: current value is ${value}`,
      { details: { item, component, value, id: this.#id() } },
    );
  }

  #checkDuplicate(item: number): void {
    const { hash, idOffset, idWord } = this.#cursor;
    const { bytes } = this.#request;
    let other = this.#byHash.get(hash) ?? -1;
    this.#previous.push(other);
    for (; other >= 0; other = this.#previous[other] as number) {
      if (
        this.#idWords[other] !== idWord ||
        !sameIdBytes(bytes, this.#idOffsets[other] as number, bytes, idOffset, idLengthOf(idWord))
      )
        continue;
      const id = this.#id();
      throw new ShardloomError(
        "ERR_DUPLICATE_ID",
        `Cannot upsert as an id may occur once in a batch: current value is ${describeValue(id)}`,
        {
          details: { id, first: other, second: item },
        },
      );
    }
    this.#byHash.set(hash, item);
    this.#idOffsets.push(idOffset);
    this.#idWords.push(idWord);
  }

  #id(): string | number {
    return readId(this.#request.bytes, this.#cursor.idOffset, this.#cursor.idWord);
  }
}
