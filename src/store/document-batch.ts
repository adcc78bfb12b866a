/**
 * The steps of one transaction on documents, and what they make of the environment's meta record.
 *
 * Invariant: number and sum of checksums of all records follow every record that is put or removed, so that they are right when the
 * transaction is; what was kept here is worth nothing when it fails.
 */
import {
  addChecksum,
  checksumOf,
  type DocumentsMeta,
  documentKey,
  documentPlace,
  documentsRange,
  encodeDocument,
  encodeJson,
  type IdempotencyRecord,
  idempotencyKey,
  idempotencyRange,
  isBefore,
  type LogPlace,
  META_KEY,
  placeOf,
  type VshardRecord,
  vshardKey,
  vshardRange,
} from "./document-layout.ts";

/** Idempotency keys that are kept for one shard; the oldest go first. */
export const KEPT_KEYS = 65_536;

/** What one effect does to one document. */
export interface DocumentChange {
  readonly collection: number;
  readonly vshard: number;
  /** Word and bytes of the document's id. */
  readonly idWord: number;
  readonly id: Uint8Array;
  readonly type: number;
  readonly version: number;
  /** The body of an effect of that type that writes exactly this document; undefined: it is removed. */
  readonly body: Uint8Array | undefined;
}

/** One step of a batch, in the order of the log. */
export type DocumentStep =
  | { readonly step: "document"; readonly place: LogPlace; readonly change: DocumentChange }
  | { readonly step: "vshard"; readonly vshard: number; readonly record: VshardRecord }
  /** Removes the documents of a vshard that no entry from `before` on has written. */
  | { readonly step: "sweep"; readonly vshard: number; readonly before: LogPlace }
  | { readonly step: "key"; readonly record: IdempotencyRecord }
  /** A record of another environment, as it is there. */
  | { readonly step: "record"; readonly key: Buffer; readonly value: Buffer };

interface KeyRange {
  readonly start?: Buffer;
  readonly end?: Buffer;
  readonly limit?: number;
}

/** Records in the order of their keys. What is read sees what the same transaction has written. */
export interface RecordStore {
  /** A value that is valid until the next call. */
  getBinaryFast(key: Buffer): Buffer | undefined;
  putSync(key: Buffer, value: Buffer): unknown;
  removeSync(key: Buffer): unknown;
  getKeys(range: KeyRange): Iterable<Buffer>;
  getRange(range: KeyRange): Iterable<{ key: Buffer; value: Buffer }>;
}

/** The steps of one transaction, and what they make of the environment's meta record. */
export class DocumentBatch {
  meta: DocumentsMeta;
  keys: number;
  readonly #database: RecordStore;
  #records: number;
  #sum: number;

  constructor(database: RecordStore, meta: DocumentsMeta, keys: number) {
    this.#database = database;
    this.meta = meta;
    this.keys = keys;
    this.#records = meta.records;
    this.#sum = meta.sum;
  }

  take(step: DocumentStep): void {
    if (step.step === "document") this.#change(step.place, step.change);
    else if (step.step === "vshard") this.#putJson(vshardKey(step.vshard), step.record);
    else if (step.step === "sweep") this.#sweep(step.vshard, step.before);
    else if (step.step === "record") this.#put(step.key, step.value);
    else {
      const { result, ...record } = step.record;
      if (this.#putJson(idempotencyKey(record), { ...record, result: Buffer.from(result).toString("base64") }))
        this.keys++;
    }
  }

  end(): void {
    for (const key of this.#oldestKeys()) {
      this.remove(key);
      this.keys--;
    }
    this.meta = { ...this.meta, records: this.#records, sum: this.#sum };
    this.#database.putSync(META_KEY, encodeJson(META_KEY, this.meta));
  }

  remove(key: Buffer): void {
    const old = this.#database.getBinaryFast(key);
    if (old === undefined) return;
    this.#records--;
    this.#sum = addChecksum(this.#sum, checksumOf(old), -1);
    this.#database.removeSync(key);
  }

  #change(place: LogPlace, { collection, vshard, idWord, id, type, version, body }: DocumentChange): void {
    const key = documentKey(collection, vshard, idWord, id);
    if (body === undefined) this.remove(key);
    else this.#put(key, encodeDocument(key, { type, version, place, body }));
  }

  #sweep(vshard: number, before: LogPlace): void {
    const stale: Buffer[] = [];
    for (let from = 0; from <= 0xffffffff; ) {
      const [key] = [...this.#database.getKeys({ ...documentsRange(from), limit: 1 })];
      if (key === undefined) break;
      const { collection } = placeOf(key);
      for (const entry of this.#database.getRange(vshardRange(collection, vshard)))
        if (isBefore(documentPlace(entry.value), before)) stale.push(entry.key);
      from = collection + 1;
    }
    for (const key of stale) this.remove(key);
  }

  #oldestKeys(): Buffer[] {
    if (this.keys <= KEPT_KEYS) return [];
    return [...this.#database.getKeys({ ...idempotencyRange(), limit: this.keys - KEPT_KEYS })];
  }

  #putJson(key: Buffer, json: unknown): boolean {
    return this.#put(key, encodeJson(key, json));
  }

  /** Whether there was none before. */
  #put(key: Buffer, value: Buffer): boolean {
    const old = this.#database.getBinaryFast(key);
    if (old === undefined) this.#records++;
    else this.#sum = addChecksum(this.#sum, checksumOf(old), -1);
    this.#sum = addChecksum(this.#sum, checksumOf(value), 1);
    this.#database.putSync(key, value);
    return old === undefined;
  }
}
