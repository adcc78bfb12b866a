/**
 * Which writes with a key each vshard of a shard has seen, and what they did: so that one that is sent again is not done again.
 *
 * A key is known for {@link KEY_LIFETIME_MS}, while it is among the newest {@link MAX_KEYS} of its vshard, and while the journal of the
 * shard has room for it (4 MiB, some 40,000 keys). Primaries take keys in with their writes, copies with the effects of these.
 *
 * Invariant: what the table knows stands in the journal, and the other way round: a worker that replaces a dead one knows the same.
 * Owner thread only.
 */
import type { Adopted } from "../../src/store/collection-root.ts";
import type { KeyEntry } from "../../src/store/idempotent-effect.ts";
import { type JournalOptions, KeyJournal } from "./key-journal.ts";
import { WriteIntent } from "./write-intent.ts";

/** How long a key is known, in ms. */
export const KEY_LIFETIME_MS: number = 10 * 60 * 1000;
/** Keys of one vshard that are known at most. */
export const MAX_KEYS = 4096;

/** What names a write: the same key for another operation, collection or part of a call is another write. */
export type WriteName = Pick<KeyEntry, "type" | "collection" | "part" | "key">;

export interface IdempotencyTableOptions extends Omit<JournalOptions, "onForget"> {
  readonly nowMs: () => number;
  /** @default {@link KEY_LIFETIME_MS} */
  readonly lifetimeMs?: number;
  /** @default {@link MAX_KEYS} */
  readonly maxKeys?: number;
}

/** By name, oldest first. */
type Keys = Map<string, KeyEntry>;

export class IdempotencyTable {
  /** What the write at hand is about to do. */
  readonly intent: WriteIntent;
  readonly #options: IdempotencyTableOptions;
  readonly #vshards: Map<number, Keys> = new Map();
  readonly #journal: KeyJournal;

  /** @param adopted What a dead worker had: its keys are taken over. */
  constructor(options: IdempotencyTableOptions, adopted?: Adopted) {
    this.#options = options;
    this.intent = new WriteIntent(options, adopted);
    const onForget = (vshard: number, entry: KeyEntry): void => this.#forget(vshard, entry);
    this.#journal = new KeyJournal({ ...options, onForget }, adopted);
    for (const { vshard, entry } of this.#journal.records()) {
      if (entry === undefined) this.#vshards.delete(vshard);
      else this.#index(vshard, entry);
    }
  }

  /** Keys that are known, also such as are over time. */
  get size(): number {
    let size = 0;
    for (const keys of this.#vshards.values()) size += keys.size;
    return size;
  }

  /** Bytes of the arena that its keys take. */
  get byteLength(): number {
    return this.#journal.byteLength;
  }

  find(vshard: number, name: WriteName): KeyEntry | undefined {
    const entry = this.#vshards.get(vshard)?.get(nameOf(name));
    return entry !== undefined && this.#isAlive(entry) ? entry : undefined;
  }

  /** Takes memory for the first key. @throws {ShardloomError} `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL` */
  prepare(): void {
    this.#journal.prepare();
  }

  /** Takes a key in; its time is that of this host. One that is known stays as it is. */
  record(vshard: number, entry: KeyEntry): void {
    const known = this.#vshards.get(vshard)?.get(nameOf(entry));
    if (known !== undefined && known.timeMs >= entry.timeMs) return;
    this.#journal.prepare();
    this.#journal.append(vshard, entry);
    this.#index(vshard, entry);
  }

  /** What is known of a vshard, oldest first. */
  keysOf(vshard: number): KeyEntry[] {
    return [...(this.#vshards.get(vshard)?.values() ?? [])].filter((entry) => this.#isAlive(entry));
  }

  /** Forgets all keys of a vshard but these. */
  retain(vshard: number, kept: readonly KeyEntry[]): void {
    const names = new Set(kept.map(nameOf));
    if ([...(this.#vshards.get(vshard)?.keys() ?? [])].every((name) => names.has(name))) return;
    this.#journal.append(vshard, undefined);
    this.#vshards.delete(vshard);
    for (const entry of kept) this.record(vshard, entry);
  }

  #index(vshard: number, entry: KeyEntry): void {
    const keys: Keys = this.#vshards.get(vshard) ?? new Map();
    this.#vshards.set(vshard, keys);
    const name = nameOf(entry);
    keys.delete(name); // to the end of the order
    keys.set(name, entry);
    const { maxKeys = MAX_KEYS } = this.#options;
    for (const [oldest, known] of keys) {
      if (keys.size <= maxKeys && this.#isAlive(known)) break;
      keys.delete(oldest);
    }
  }

  #isAlive({ timeMs }: KeyEntry): boolean {
    const { nowMs, lifetimeMs = KEY_LIFETIME_MS } = this.#options;
    return nowMs() - timeMs < lifetimeMs;
  }

  #forget(vshard: number, entry: KeyEntry): void {
    const keys = this.#vshards.get(vshard);
    const known = keys?.get(nameOf(entry));
    if (known === undefined || known.timeMs > entry.timeMs) return; // it was taken in again since
    keys?.delete(nameOf(entry));
    if (keys?.size === 0) this.#vshards.delete(vshard);
  }
}

function nameOf({ type, collection, part, key }: WriteName): string {
  return `${type} ${collection} ${part} ${key}`;
}
