/**
 * The append-only log of one vshard: what was written to it, in order, to be applied again by other copies.
 *
 * Invariant: LSNs begin at 1, rise by 1 with every entry and are never given out twice; an entry never changes. A log may forget
 * its oldest entries (`truncateBelow`, or a limit of its own): `first` says what it still has.
 *
 * Methods answer at once or with a promise. A log in memory answers at once, and says so in its own types; one on a disk or behind a
 * network gives promises, and who writes to it applies an entry when its append has settled. Only `head` and `first` are always
 * known at once: the log's owner is its only writer, so it knows what it has appended.
 */

/** What is appended: an effect on one vshard that can be applied again with the same result. */
export interface LogRecord {
  /** Message type whose effect this is; it names the engine. */
  readonly type: number;
  readonly collection: number;
  /** The effect, opaque to the log, at offset 0 of a buffer of its own. Nobody writes to it any more. */
  readonly body: Uint8Array;
}

/** An entry of a log. */
export interface LogEntry extends LogRecord {
  readonly lsn: number;
  /** When it was appended, on the host's monotonic clock. */
  readonly atMs: number;
}

/** What a call gives: at once, or when a disk or a network has answered. */
export type Eventually<T> = T | Promise<T>;

/** The log of one vshard. One writer. */
export interface VshardLog {
  /** LSN of the last entry; the LSN that the log began above, when it has none. */
  readonly head: number;
  /** LSN of the oldest entry that can still be read; `head + 1` when there is none. */
  readonly first: number;
  /**
   * Appends one entry.
   *
   * @param expectedHead When given, the log's head must be this: a writer that another one has overtaken is refused.
   * @returns its LSN
   * @throws {ShardloomError} `ERR_STALE_EPOCH` when the head is another one; then nothing was appended.
   */
  append(record: LogRecord, atMs: number, expectedHead?: number): Eventually<number>;
  /**
   * Entries from an LSN on, in order: at most `limit`, fewer at the end of the log, none when the log no longer has that LSN.
   *
   * @param limitBytes Bodies after which no further entry is added; the first is given whatever its size. @default none
   */
  read(from: number, limit: number, limitBytes?: number): Eventually<readonly LogEntry[]>;
  /** Forgets the entries below an LSN. */
  truncateBelow(lsn: number): Eventually<void>;
}
