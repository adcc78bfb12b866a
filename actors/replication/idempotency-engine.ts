/**
 * Keys of idempotent writes as something that has copies: logs, copies, snapshots and recovery carry them as they carry rows.
 *
 * The effect of a write with a key is one effect, with the effect on the rows inside (store/idempotent-effect.ts): applying it hands that on
 * to the engine of the rows, and takes the key in. Whoever has the one has the other.
 *
 * Invariant: applying an effect once or several times makes no difference, in the order of LSNs; a vshard that was restored knows the keys
 * that it was told, and no others.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Adopted } from "../../src/store/collection-root.ts";
import {
  type KeyEntry,
  keyEntryBytes,
  readKeyEntry,
  viewsOf,
  writeKeyEntry,
} from "../../src/store/idempotent-effect.ts";
import { IDEMPOTENCY_KEYS, IDEMPOTENT_WRITE } from "../../src/wire/message-types.ts";
import type { Engine, EngineContext, ReceivedEffect, ReplicatedEngine, SnapshotPart } from "../engine.ts";
import { IdempotencyTable } from "./idempotency-table.ts";

/** Bytes of one part of a snapshot, if a message holds so many. */
const PART_BYTES: number = 32 * 1024;

/** No collection has this id. */
const NO_COLLECTION = 0;

export interface IdempotencyEngine extends Engine {
  readonly replicated: ReplicatedEngine;
  readonly table: IdempotencyTable;
  /**
   * Does what a dead worker was about to do: once, when the engines of the rows have theirs back and before anything is served.
   *
   * @returns effects that were done
   */
  redo(): number;
}

/**
 * @param engines Those whose writes may have keys; asked for when they are there.
 * @param adopted The dead worker's regions by address; what is the keys' is taken out.
 */
export function createIdempotencyEngine(
  context: Pick<EngineContext, "arena" | "regions" | "nowMs">,
  engines: () => readonly ReplicatedEngine[],
  adopted?: Adopted,
): IdempotencyEngine {
  const { arena, regions, nowMs } = context;
  const table = new IdempotencyTable({ arena, regions, nowMs }, adopted);
  const replicated = new KeyCopies(table, engines, nowMs);
  return {
    handlers: new Map(),
    replicated,
    table,
    redo() {
      let done = 0;
      try {
        for (const effect of table.intent.left()) {
          replicated.apply(effect);
          done++;
        }
      } catch (error) {
        // Its collection was dropped, or there is no memory: then nobody has been told that the write was done, and no key says so.
        if (!ShardloomError.is(error)) throw error;
      }
      table.intent.clear();
      return done;
    },
    close: () => undefined,
  };
}

class KeyCopies implements ReplicatedEngine {
  readonly types: readonly number[] = [IDEMPOTENT_WRITE, IDEMPOTENCY_KEYS];
  readonly #table: IdempotencyTable;
  readonly #engines: () => readonly ReplicatedEngine[];
  readonly #nowMs: () => number;
  /** By vshard that is being restored: the keys that it was told. */
  readonly #told: Map<number, KeyEntry[]> = new Map();

  constructor(table: IdempotencyTable, engines: () => readonly ReplicatedEngine[], nowMs: () => number) {
    this.#table = table;
    this.#engines = engines;
    this.#nowMs = nowMs;
  }

  /** Keys that are told without a write are of no collection. */
  has(collection: number): boolean {
    return collection === NO_COLLECTION || this.#engines().some((engine) => engine.has(collection));
  }

  apply(effect: ReceivedEffect): void {
    if (effect.type === IDEMPOTENT_WRITE) this.#write(effect);
    else this.#keys(effect);
  }

  #write(effect: ReceivedEffect): void {
    const end = effect.offset + effect.length;
    const { end: offset, ...entry } = readKeyEntry(effect, effect.offset, end);
    const engine = this.#engines().find(({ types }) => types.includes(entry.type));
    if (engine === undefined)
      throw new ShardloomError("ERR_UNKNOWN_MESSAGE", `Cannot apply effect as type ${entry.type} has no engine`);
    if (end > offset) engine.apply({ ...effect, type: entry.type, offset, length: end - offset });
    this.#take(effect.vshard, { ...entry, timeMs: this.#nowMs() });
  }

  #keys(effect: ReceivedEffect): void {
    const limit = effect.offset + effect.length;
    for (let at = effect.offset; at < limit; ) {
      const { end, ...entry } = readKeyEntry(effect, at, limit);
      this.#take(effect.vshard, { ...entry, timeMs: this.#nowMs() - Math.max(0, entry.timeMs) });
      at = end;
    }
  }

  #take(vshard: number, entry: KeyEntry): void {
    this.#table.record(vshard, entry);
    this.#told.get(vshard)?.push(entry);
  }

  snapshot(vshard: number, maxBodyBytes: number): () => SnapshotPart | undefined {
    let left: KeyEntry[] | undefined;
    const limit = Math.min(maxBodyBytes, PART_BYTES);
    return () => {
      left ??= this.#table.keysOf(vshard);
      if (left.length === 0) return undefined;
      let bytes = 0;
      let count = 0;
      for (const entry of left) {
        if (count > 0 && bytes + keyEntryBytes(entry) > limit) break;
        bytes += keyEntryBytes(entry);
        count++;
      }
      const memory = viewsOf(new Uint8Array(bytes));
      const nowMs = this.#nowMs();
      let at = 0;
      for (const entry of left.splice(0, count))
        at = writeKeyEntry(memory, at, { ...entry, timeMs: Math.max(0, nowMs - entry.timeMs) });
      return { type: IDEMPOTENCY_KEYS, collection: NO_COLLECTION, body: memory.bytes };
    };
  }

  /** Every copy forgets keys in its own time: which it knows is not of what the vshard holds. */
  contentHash(): bigint {
    return 0n;
  }

  beginRestore(vshard: number): void {
    this.#told.set(vshard, []);
  }

  endRestore(vshard: number): void {
    const told = this.#told.get(vshard);
    this.#told.delete(vshard);
    if (told !== undefined) this.#table.retain(vshard, told);
  }
}
