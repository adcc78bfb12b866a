/**
 * Recently used filters of a shard, compiled, and, once one was evaluated over all rows, with the set of rows that match. A filter is
 * a predicate on payloads, a set of vshards, or both.
 *
 * Invariant: a set in the cache is exact at every moment: each write evaluates the cached filters on the new payload.
 * A filter that was not used during many writes loses its place, so a bulk load does not pay for it for long.
 */

import { RECORD_HEADER_BYTES, RECORD_ID_WORD, RECORD_PAYLOAD_BYTES } from "../../src/store/collection-layout.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";
import { decodePayload, filterFromBytes, type Predicate } from "./filter.ts";
import { RowBitmap } from "./row-bitmap.ts";
import type { VectorStore } from "./vector-store.ts";

/** Filters kept; each may hold one bit per row. */
export const MAX_CACHED_FILTERS = 8;
/** Writes after which an unused filter is dropped. */
const WRITES_WITHOUT_USE = 4096;
const SAMPLE_ROWS = 256;

export interface CachedFilter {
  /** Undefined: every payload. */
  readonly predicate: Predicate | undefined;
  /** 1 for each vshard whose rows may match; undefined: all of them. */
  readonly vshards: Uint8Array | undefined;
  /** Rows that match; undefined until somebody needed all of them. */
  rows: RowBitmap | undefined;
  writesSinceUse: number;
  /** Payloads that searches looked at because the set was not there; when they add up to all rows, the set pays. */
  probes: number;
  /** Estimated share of matching rows, and how many writes it is old. */
  share: number | undefined;
  shareAge: number;
}

export class FilterCache {
  readonly #store: VectorStore;
  /** In order of use, the least recent first. */
  readonly #entries: Map<string, CachedFilter> = new Map();
  /** Numbers of sets of vshards, which are known by identity. */
  readonly #setNumbers: WeakMap<Uint8Array, number> = new WeakMap();
  #nextSet = 1;

  constructor(store: VectorStore) {
    this.#store = store;
  }

  /**
   * @param vshards See {@link EngineRequest.vshards}.
   * @throws {ShardloomError} when the bytes are no filter.
   */
  get(bytes: Uint8Array | undefined, vshards?: Uint8Array): CachedFilter {
    const key = this.#keyOf(bytes, vshards);
    const found = this.#entries.get(key);
    const entry: CachedFilter = found ?? {
      predicate: bytes === undefined ? undefined : filterFromBytes(bytes),
      vshards,
      rows: undefined,
      writesSinceUse: 0,
      probes: 0,
      share: undefined,
      shareAge: 0,
    };
    entry.writesSinceUse = 0;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (this.#entries.size > MAX_CACHED_FILTERS) this.#evict(this.#entries.keys().next().value as string);
    return entry;
  }

  /** All rows that match, evaluated now or kept up to date since. */
  rowsOf(entry: CachedFilter): RowBitmap {
    if (entry.rows !== undefined) return entry.rows;
    const rows = RowBitmap.create(this.#store.root, this.#store.rowsUsed);
    for (let row = 0; row < this.#store.rowsUsed; row++) {
      if (this.matches(entry, row)) rows.add(row);
    }
    entry.rows = rows;
    return rows;
  }

  /** Whether a used row matches. Free rows never do. */
  matches(entry: CachedFilter, row: number): boolean {
    const record = this.#store.recordOf(row);
    if (record === 0 || !this.#isIn(entry, row)) return false;
    return entry.predicate === undefined || entry.predicate(payloadOf(this.#store, record));
  }

  #isIn({ vshards }: CachedFilter, row: number): boolean {
    return vshards === undefined || vshards[this.#store.vshardOf(row)] === 1;
  }

  #keyOf(bytes: Uint8Array | undefined, vshards: Uint8Array | undefined): string {
    const text = bytes === undefined ? "" : Buffer.from(bytes).toString("latin1");
    if (vshards === undefined) return text;
    let number = this.#setNumbers.get(vshards);
    if (number === undefined) {
      number = this.#nextSet++;
      this.#setNumbers.set(vshards, number);
    }
    return `${number}\u{100}${text}`; // no latin1 text has that character
  }

  /** Share of the rows that match, from an evenly spaced sample that may be a little old; exact when all are known. */
  selectivity(entry: CachedFilter): number {
    if (entry.rows !== undefined) return entry.rows.count / Math.max(1, this.#store.count);
    if (entry.share === undefined || entry.shareAge > Math.max(SAMPLE_ROWS, this.#store.count / 8)) {
      entry.share = this.#sample(entry);
      entry.shareAge = 0;
    }
    return entry.share;
  }

  #sample(entry: CachedFilter): number {
    let seen = 0;
    let matching = 0;
    const step = Math.max(1, Math.floor(this.#store.rowsUsed / SAMPLE_ROWS));
    for (let row = step >> 1; row < this.#store.rowsUsed; row += step) {
      if (this.#store.recordOf(row) === 0) continue;
      seen++;
      if (this.matches(entry, row)) matching++;
    }
    return seen === 0 ? 0 : matching / seen;
  }

  /** Makes room before a batch is written. @throws {ShardloomError} `ERR_OUT_OF_MEMORY`. */
  reserve(rows: number): void {
    for (const entry of this.#entries.values()) entry.rows?.ensure(rows);
  }

  /** A row was written or removed. */
  onWrite(row: number): void {
    if (this.#entries.size === 0) return;
    const record = this.#store.recordOf(row);
    let payload: unknown;
    let decoded = false;
    for (const [key, entry] of this.#entries) {
      if (++entry.writesSinceUse > WRITES_WITHOUT_USE) this.#evict(key);
      entry.shareAge++;
      if (entry.rows === undefined) continue;
      const { predicate } = entry;
      if (record === 0 || !this.#isIn(entry, row)) {
        entry.rows.delete(row);
        continue;
      }
      if (!decoded && predicate !== undefined) {
        payload = payloadOf(this.#store, record);
        decoded = true;
      }
      entry.rows.set(row, predicate === undefined || predicate(payload));
    }
  }

  free(): void {
    for (const key of [...this.#entries.keys()]) this.#evict(key);
  }

  #evict(key: string): void {
    const entry = this.#entries.get(key);
    entry?.rows?.free();
    if (entry !== undefined) entry.rows = undefined;
    this.#entries.delete(key);
  }
}

/** The decoded payload of a record. Bytes that are no msgpack count as no payload: one bad document must not fail a search. */
function payloadOf(store: VectorStore, record: number): unknown {
  const { bytes, u32 } = store.root.arena;
  const word = record >>> 2;
  const start = record + RECORD_HEADER_BYTES + idLengthOf(u32[word + RECORD_ID_WORD] as number);
  try {
    return decodePayload(bytes, start, u32[word + RECORD_PAYLOAD_BYTES] as number);
  } catch {
    return undefined; // see above
  }
}
