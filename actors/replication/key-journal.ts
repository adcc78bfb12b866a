/**
 * The keys that a shard knows, oldest first, in the arena: what outlives its worker.
 *
 * ```
 *  block   header (marked-block.ts; own words: first, end, in units of 8 bytes, wrapping), records in a ring of 2^n bytes
 *  record  i32 units | i32 vshard, key (store/idempotent-effect.ts); vshard -1: filler up to the end; units 1: what was known of the
 *          vshard before is void
 * ```
 *
 * Invariant: `end` moves after a record was written, `first` before one is overwritten, each with one atomic store: who adopts the block
 * finds whole records, wherever its owner died. It grows until {@link JournalOptions.maxBytes}, or the arena has no more; then the oldest
 * keys are forgotten.
 * Owner thread only.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Adopted } from "../../src/store/collection-root.ts";
import { type KeyEntry, keyEntryBytes, readKeyEntry, writeKeyEntry } from "../../src/store/idempotent-effect.ts";
import {
  BLOCK_HEADER_BYTES,
  BLOCK_KIND,
  type BlockSource,
  createBlock,
  FIRST_OWN_WORD,
  findBlock,
  freeBlock,
  type MarkedBlock,
} from "./marked-block.ts";

export interface JournalOptions extends BlockSource {
  /** A key is forgotten to make room. */
  readonly onForget: (vshard: number, entry: KeyEntry) => void;
  /** Bytes of records, a power of two. @default 4 MiB */
  readonly maxBytes?: number | undefined;
  /** Bytes to begin with, a power of two. @default 16 KiB */
  readonly minBytes?: number | undefined;
}

/** One record; without an entry all keys of the vshard before it are void. */
export interface JournalRecord {
  readonly vshard: number;
  readonly entry: KeyEntry | undefined;
}

const MAX_BYTES: number = 4 * 1024 * 1024;
const MIN_BYTES: number = 16 * 1024;
const RECORD_HEADER = 8;
const FILLER = -1;

export class KeyJournal {
  readonly #options: JournalOptions;
  #block: MarkedBlock | undefined;
  #first = 0;
  #end = 0;
  /** Units of the ring, less one. */
  #mask = 0;
  /** The arena had no room to grow: not tried again. */
  #full = false;

  /** @param adopted What a dead worker had: its journal is taken over. */
  constructor(options: JournalOptions, adopted?: Adopted) {
    this.#options = options;
    const block = adopted && findBlock(options, BLOCK_KIND.KEYS, adopted);
    if (block === undefined) return;
    this.#take(block);
    const { i32 } = options.arena;
    this.#first = Atomics.load(i32, (block.address >>> 2) + FIRST_OWN_WORD) >>> 0;
    this.#end = Atomics.load(i32, (block.address >>> 2) + FIRST_OWN_WORD + 1) >>> 0;
  }

  /** Bytes of the arena that it takes. */
  get byteLength(): number {
    return this.#block?.byteLength ?? 0;
  }

  /** All records, oldest first. */
  *records(): Generator<JournalRecord> {
    for (let at = this.#first; at !== this.#end; ) {
      const { units, vshard, entry } = this.#read(at);
      if (vshard !== FILLER) yield { vshard, entry };
      at = (at + units) >>> 0;
    }
  }

  /** @throws {ShardloomError} `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL` when there is not even room for a first block. */
  prepare(): void {
    if (this.#block !== undefined) return;
    const { minBytes = MIN_BYTES } = this.#options;
    this.#take(createBlock(this.#options, BLOCK_KIND.KEYS, BLOCK_HEADER_BYTES + minBytes, 1));
  }

  /** Adds a key, or without one makes all that is known of the vshard void. After `prepare` it cannot fail. */
  append(vshard: number, entry: KeyEntry | undefined): void {
    const bytes = RECORD_HEADER + (entry === undefined ? 0 : keyEntryBytes(entry));
    this.#makeRoom(bytes >>> 3);
    const at = this.#placeOf(this.#end);
    const { arena } = this.#options;
    arena.i32.set([bytes >>> 3, vshard], at >>> 2);
    if (entry !== undefined) writeKeyEntry(arena, at + RECORD_HEADER, entry);
    this.#setEnd((this.#end + (bytes >>> 3)) >>> 0);
  }

  /** The next record fits behind the last one, in one piece. */
  #makeRoom(units: number): void {
    for (;;) {
      const place = this.#end & this.#mask;
      const toEnd = this.#mask + 1 - place;
      const wanted = units <= toEnd ? units : toEnd + units;
      const free = this.#mask + 1 - ((this.#end - this.#first) >>> 0);
      if (wanted > free) {
        if (!this.#grow()) this.#forget();
        continue;
      }
      if (units <= toEnd) return;
      this.#options.arena.i32.set([toEnd, FILLER], this.#placeOf(this.#end) >>> 2);
      this.#setEnd((this.#end + toEnd) >>> 0);
      return;
    }
  }

  #forget(): void {
    const { units, vshard, entry } = this.#read(this.#first);
    this.#first = (this.#first + units) >>> 0;
    Atomics.store(this.#options.arena.i32, this.#ownWord(0), this.#first | 0); // before the record is overwritten
    if (entry !== undefined) this.#options.onForget(vshard, entry);
  }

  #setEnd(end: number): void {
    this.#end = end;
    Atomics.store(this.#options.arena.i32, this.#ownWord(1), end | 0); // publishes the record
  }

  /** @returns false when it is as large as it may become */
  #grow(): boolean {
    const old = this.#block as MarkedBlock;
    const { maxBytes = MAX_BYTES, arena } = this.#options;
    const bytes = 8 * (this.#mask + 1);
    if (this.#full || bytes >= maxBytes) return false;
    const records = [...this.records()];
    let end = 0;
    try {
      const block = createBlock(
        this.#options,
        BLOCK_KIND.KEYS,
        BLOCK_HEADER_BYTES + 2 * bytes,
        old.generation + 1,
        (address) => {
          for (const { vshard, entry } of records) {
            const at = address + BLOCK_HEADER_BYTES + 8 * end;
            const units = (RECORD_HEADER + (entry === undefined ? 0 : keyEntryBytes(entry))) >>> 3;
            arena.i32.set([units, vshard], at >>> 2);
            if (entry !== undefined) writeKeyEntry(arena, at + RECORD_HEADER, entry);
            end += units;
          }
          arena.i32[(address >>> 2) + FIRST_OWN_WORD + 1] = end;
        },
      );
      this.#take(block);
    } catch (error) {
      if (!ShardloomError.is(error)) throw error;
      this.#full = true;
      return false;
    }
    this.#first = 0;
    this.#end = end;
    freeBlock(this.#options, old);
    return true;
  }

  #take(block: MarkedBlock): void {
    this.#block = block;
    this.#mask = ((block.byteLength - BLOCK_HEADER_BYTES) >>> 3) - 1;
  }

  #read(unit: number): { units: number; vshard: number; entry: KeyEntry | undefined } {
    const { arena } = this.#options;
    const at = this.#placeOf(unit);
    const units = arena.i32[at >>> 2] as number;
    const vshard = arena.i32[(at >>> 2) + 1] as number;
    if (units < 1 || units > this.#mask + 1)
      throw new ShardloomError("ERR_CORRUPT", `Cannot read idempotency keys as record ${unit} has ${units} units`);
    const isKey = vshard !== FILLER && units > 1;
    return { units, vshard, entry: isKey ? readKeyEntry(arena, at + RECORD_HEADER, at + 8 * units) : undefined };
  }

  #placeOf(unit: number): number {
    return (this.#block as MarkedBlock).address + BLOCK_HEADER_BYTES + 8 * (unit & this.#mask);
  }

  #ownWord(index: number): number {
    return ((this.#block as MarkedBlock).address >>> 2) + FIRST_OWN_WORD + index;
  }
}
