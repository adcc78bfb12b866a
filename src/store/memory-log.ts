/**
 * A vshard's log in this thread's memory, bounded in entries and bytes: at a limit it forgets its oldest entries.
 *
 * Invariant: entries lie in a ring by LSN, so that reading from an LSN looks at nothing else. The newest entry is always kept, however
 * large it is. The log is gone with its thread; whoever needs more than it has takes a snapshot of the vshard.
 */
import { ShardloomError } from "../errors.ts";
import type { LogEntry, LogRecord, VshardLog } from "./log.ts";

/** Limits of one log. */
export interface MemoryLogOptions {
  /** LSN above which the log begins. @default 0 */
  readonly head?: number;
  /** Entries kept, at least 1. @default 4096 */
  readonly maxEntries?: number;
  /** Bytes of bodies kept. @default 4 MiB */
  readonly maxBytes?: number;
}

const MAX_ENTRIES = 4096;
const MAX_BYTES: number = 4 * 1024 * 1024;
const FIRST_SLOTS = 8;

export class MemoryLog implements VshardLog {
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  /** Entry with LSN l in slot l mod its length, a power of two that grows up to what `maxEntries` needs. */
  #slots: (LogEntry | undefined)[] = [];
  #head: number;
  #first: number;
  #bytes = 0;

  constructor(options: MemoryLogOptions = {}) {
    this.#head = options.head ?? 0;
    this.#first = this.#head + 1;
    this.#maxEntries = options.maxEntries ?? MAX_ENTRIES;
    this.#maxBytes = options.maxBytes ?? MAX_BYTES;
  }

  get head(): number {
    return this.#head;
  }

  get first(): number {
    return this.#first;
  }

  /** Bytes of bodies that are kept. */
  get byteLength(): number {
    return this.#bytes;
  }

  append(record: LogRecord, atMs: number, expectedHead: number = this.#head): number {
    if (expectedHead !== this.#head) {
      throw new ShardloomError(
        "ERR_STALE_EPOCH",
        `Cannot append to log as its head must be ${expectedHead}: current value is ${this.#head}`,
        { details: { expectedHead, head: this.#head } },
      );
    }
    const { type, collection, body } = record;
    const lsn = this.#head + 1;
    if (this.#head - this.#first + 1 === this.#slots.length) this.#grow();
    this.#slots[lsn % this.#slots.length] = { lsn, type, collection, body, atMs };
    this.#head = lsn;
    this.#bytes += body.length;
    while (this.#first < lsn && (lsn - this.#first >= this.#maxEntries || this.#bytes > this.#maxBytes)) this.#forget();
    return lsn;
  }

  /** The entry with an LSN, when the log has it. */
  at(lsn: number): LogEntry | undefined {
    return lsn < this.#first || lsn > this.#head ? undefined : this.#slots[lsn % this.#slots.length];
  }

  read(from: number, limit: number, limitBytes: number = Number.POSITIVE_INFINITY): readonly LogEntry[] {
    const entries: LogEntry[] = [];
    let bytes = 0;
    for (let lsn = from; entries.length < limit; lsn++) {
      const entry = this.at(lsn);
      if (entry === undefined) break;
      bytes += entry.body.length;
      if (entries.length > 0 && bytes > limitBytes) break;
      entries.push(entry);
    }
    return entries;
  }

  truncateBelow(lsn: number): void {
    while (this.#first < lsn && this.#first <= this.#head) this.#forget();
  }

  #forget(): void {
    const slot = this.#first++ % this.#slots.length;
    this.#bytes -= (this.#slots[slot] as LogEntry).body.length;
    this.#slots[slot] = undefined;
  }

  #grow(): void {
    const slots = new Array<LogEntry | undefined>(Math.max(FIRST_SLOTS, this.#slots.length * 2)).fill(undefined);
    for (let lsn = this.#first; lsn <= this.#head; lsn++) slots[lsn % slots.length] = this.at(lsn);
    this.#slots = slots;
  }
}
