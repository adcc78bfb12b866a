/**
 * One upsert request: checked whole, then written.
 *
 * Invariant: `read` changes nothing and takes all memory; `write` cannot fail. Within a batch an id may occur once.
 */
import { describeValue, ShardloomError } from "../../src/errors.ts";
import { recordBytes } from "../../src/store/collection-layout.ts";
import { idLengthOf, readId, sameIdBytes } from "../../src/store/id-codec.ts";
import { TEXT_UPSERT } from "../../src/wire/message-types.ts";
import type { EngineRequest, WriteEffects } from "../engine.ts";
import { isBody } from "./document-body.ts";
import { EffectBodies } from "./effect-bodies.ts";
import { corrupt, UPSERT_HEADER, UpsertCursor } from "./text-requests.ts";
import type { TextShard } from "./text-shard.ts";

const LEFT_OUT = -2;

export class UpsertBatch {
  /** New ids of what was read. */
  newRows = 0;
  readonly #cursor: UpsertCursor = new UpsertCursor();
  #request!: EngineRequest;
  #shard!: TextShard;
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

  /** @throws {ShardloomError} for the first thing that is wrong with the batch. */
  read(request: EngineRequest, find: (collectionId: number) => TextShard): void {
    const cursor = this.#cursor.open(request);
    const shard = find(cursor.collectionId);
    this.#request = request;
    this.#shard = shard;
    this.#rows.length = this.#idOffsets.length = this.#idWords.length = this.#previous.length = 0;
    this.#byHash.clear();
    this.newRows = 0;
    let heapBytes = 0;
    const keyed = request.effects?.keyed;
    for (let item = 0; cursor.next(); item++) {
      if (!isBody(request.bytes, cursor.bodyOffset, cursor.bodyBytes, shard.options.fields.length))
        throw corrupt("upsert", "body of item", item);
      this.#checkDuplicate(item);
      if (keyed?.repeats(cursor.vshard) === true) {
        this.#rows.push(LEFT_OUT);
        continue;
      }
      const row = shard.store.find(cursor.hash, request.bytes, cursor.idOffset, cursor.idWord);
      keyed?.note(cursor.vshard, row < 0);
      if (row < 0) this.newRows++;
      this.#rows.push(row);
      heapBytes += recordBytes(idLengthOf(cursor.idWord), cursor.bodyBytes);
    }
    if (this.count > 0) shard.store.reserve(this.newRows, heapBytes);
  }

  /** Tells what the batch will write, before `write`: every document with the version that it will get. */
  tell(effects: WriteEffects): void {
    const cursor = this.#cursor.rewind();
    let version = this.#shard.store.lastVersion;
    const bodies = new EffectBodies(cursor.collectionId, UPSERT_HEADER, effects.maxBodyBytes);
    for (let item = 0; cursor.next(); item++)
      if (this.#rows[item] !== LEFT_OUT) bodies.add(cursor.vshard, cursor.itemOffset, cursor.itemEnd, ++version);
    bodies.tell(TEXT_UPSERT, this.#request, effects);
    effects.publish();
  }

  write(): void {
    const cursor = this.#cursor.rewind();
    for (let item = 0; cursor.next(); item++) {
      if (this.#rows[item] === LEFT_OUT) continue;
      this.#shard.put(
        this.#rows[item] as number,
        this.#request.bytes,
        cursor.idOffset,
        cursor.idWord,
        cursor.bodyOffset,
        cursor.bodyBytes,
        cursor.hash,
        cursor.vshard,
      );
    }
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
      const id = readId(bytes, idOffset, idWord);
      throw new ShardloomError(
        "ERR_DUPLICATE_ID",
        `Cannot upsert as an id may occur once in a batch: current value is ${describeValue(id)}`,
        { details: { id, first: other, second: item } },
      );
    }
    this.#byHash.set(hash, item);
    this.#idOffsets.push(idOffset);
    this.#idWords.push(idWord);
  }
}
