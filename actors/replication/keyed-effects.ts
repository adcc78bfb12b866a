/**
 * One write with a key on its way through its handler: which of its vshards have seen it, and what it does to the others.
 *
 * A repetition may be split over other shards than the first request was: each vshard remembers what was done to it alone, and the answer
 * adds that up.
 *
 * Invariant: a vshard takes the whole of a write's part or nothing of it, and its key with it: items of one vshard stand in one request, and
 * its rows and the key are one effect.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import {
  idempotentEffect,
  type KeyEntry,
  MAX_KEY_ENTRY_BYTES,
  type WriteResult,
} from "../../src/store/idempotent-effect.ts";
import { IDEMPOTENT_WRITE } from "../../src/wire/message-types.ts";
import type { KeyedWrite } from "../engine.ts";
import type { IdempotencyTable, WriteName } from "./idempotency-table.ts";
import type { PendingEffect } from "./replicated-write.ts";

export interface KeyedEffectsOptions {
  readonly table: IdempotencyTable;
  readonly name: WriteName;
  readonly nowMs: () => number;
  readonly vshardOf: (hash: number) => number;
  /** @throws {ShardloomError} When the vshard cannot be written here. */
  readonly assertWritable: (vshard: number) => void;
}

interface Tally {
  /** What the write did when it came first. */
  readonly before: WriteResult | undefined;
  items: number;
  changed: number;
}

const NOTHING: Uint8Array = new Uint8Array(0);

export class KeyedEffects implements KeyedWrite {
  /** What the key takes of each effect. */
  readonly overheadBytes: number = MAX_KEY_ENTRY_BYTES;
  readonly #options: KeyedEffectsOptions;
  readonly #tallies: Map<number, Tally> = new Map();
  #entries: readonly { readonly vshard: number; readonly entry: KeyEntry }[] = [];

  constructor(options: KeyedEffectsOptions) {
    this.#options = options;
  }

  repeats(vshard: number): boolean {
    const tally = this.#tally(vshard);
    tally.items++;
    return tally.before !== undefined;
  }

  hasSeen(vshard: number): boolean {
    return this.#tallies.get(vshard)?.before !== undefined;
  }

  note(vshard: number, changes: boolean): void {
    if (changes) this.#tally(vshard).changed++;
  }

  get changedBefore(): number {
    let sum = 0;
    for (const { before } of this.#tallies.values()) sum += before?.changed ?? 0;
    return sum;
  }

  vshardOf(hash: number): number {
    return this.#options.vshardOf(hash);
  }

  /** Vshards that have seen the write. */
  get seen(): number[] {
    return [...this.#tallies].flatMap(([vshard, { before }]) => (before === undefined ? [] : [vshard]));
  }

  /**
   * The effects with the key in each, one for every vshard that has not seen it, changed or not; takes all memory.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the key was another write's, `ERR_RECORD_TOO_LARGE` when a vshard gets more than
   *   one effect holds, `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL`.
   */
  prepare(effects: readonly PendingEffect[]): readonly PendingEffect[] {
    const { table, name, nowMs, assertWritable } = this.#options;
    const bodies = new Map<number, Uint8Array>();
    for (const { vshard, body } of effects) {
      if (bodies.has(vshard)) throw tooMuch(vshard);
      bodies.set(vshard, body);
    }
    const timeMs = nowMs();
    const entries: { vshard: number; entry: KeyEntry }[] = [];
    for (const [vshard, { before, items, changed }] of this.#tallies) {
      assertWritable(vshard);
      if (before === undefined) entries.push({ vshard, entry: { ...name, items, changed, timeMs } });
      else if (before.items !== items) throw otherWrite(name, vshard);
    }
    const keyed = entries.map(({ vshard, entry }) => ({
      vshard,
      type: IDEMPOTENT_WRITE,
      collection: name.collection,
      body: idempotentEffect(entry, bodies.get(vshard) ?? NOTHING),
    }));
    if (keyed.length > 0) {
      table.prepare();
      table.intent.prepare(keyed);
    }
    this.#entries = entries;
    return keyed;
  }

  /** The effects have their LSNs: the write happens. */
  begin(): void {
    if (this.#entries.length > 0) this.#options.table.intent.commit();
  }

  /** It does not: the log has refused it. */
  cancel(): void {
    this.#options.table.intent.clear();
    this.#entries = [];
  }

  /** The rows are as the write leaves them. */
  end(): void {
    const { table } = this.#options;
    for (const { vshard, entry } of this.#entries) table.record(vshard, entry);
    if (this.#entries.length > 0) table.intent.clear();
    this.#entries = [];
  }

  #tally(vshard: number): Tally {
    let tally = this.#tallies.get(vshard);
    if (tally === undefined) {
      const { table, name } = this.#options;
      tally = { before: table.find(vshard, name), items: 0, changed: 0 };
      this.#tallies.set(vshard, tally);
    }
    return tally;
  }
}

function otherWrite({ key }: WriteName, vshard: number): ShardloomError {
  const error = invalidArgument("write", "idempotencyKey", "new, or that of the same write", key);
  return new ShardloomError(error.code, error.message, { details: { ...error.details, vshard } });
}

function tooMuch(vshard: number): ShardloomError {
  return new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot write with idempotencyKey as what one vshard gets must be one effect: vshard ${vshard} gets more`,
    { details: { vshard } },
  );
}
