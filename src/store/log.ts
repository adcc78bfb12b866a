/**
 * Append-only logs: `VshardLog`, what was written to one vshard, in order, to be applied again by other copies; and `ShardLog`, what a
 * shard has done to all its vshards, in order, to be done again by its successor after a crash.
 *
 * Invariant: LSNs begin at 1, rise by 1 with every entry and are never given out twice; an entry never changes. A log may forget
 * its oldest entries (`truncateBelow`, or a limit of its own): `first` says what it still has.
 *
 * Methods answer at once or with a promise. A log in memory answers at once, and says so in its own types; one on a disk or behind a
 * network gives promises, and who writes to it applies an entry when its append has settled. Only `head` and `first` are always
 * known at once: the log's owner is its only writer, so it knows what it has appended.
 */
import type { ShardloomError } from "../errors.ts";

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

/** What an entry of a shard's log stands for. */
export const LOG_ENTRY = {
  /** An effect with the LSN that it has in its vshard. */
  EFFECT: 1,
  /** From here on, until `RESTORE_END`, effects on the vshard tell all that it is to hold. `lsn`: which no row of it is behind, or -1. */
  RESTORE_BEGIN: 2,
  /** One part of what is being restored; `lsn` says nothing. */
  RESTORE_PART: 3,
  /** The vshard is whole, as of `lsn`. */
  RESTORE_END: 4,
} as const;
export type LogEntryKind = (typeof LOG_ENTRY)[keyof typeof LOG_ENTRY];

/** Body of a `RESTORE_END`: the LSN from which on the vshard is whole. */
export function encodeEndLsn(endLsn: number): Uint8Array {
  return new Uint8Array(Float64Array.of(endLsn).buffer);
}

/** What {@link encodeEndLsn} gave; 0 for anything shorter. */
export function decodeEndLsn(body: Uint8Array): number {
  return body.length < 8 ? 0 : new DataView(body.buffer, body.byteOffset, 8).getFloat64(0, true);
}

/** One entry of a shard's log. Bodies, keys and results are kept: nobody writes to them any more. */
export interface ShardLogEntry {
  readonly kind: LogEntryKind;
  readonly vshard: number;
  /** In the vshard. */
  readonly lsn: number;
  /** Epoch of the lease under which the vshard's primary wrote it; 0 where there are no leases. */
  readonly leaseEpoch: number;
  /** Message type whose effect it is; 0 for the other kinds. */
  readonly type: number;
  readonly collection: number;
  readonly body: Uint8Array;
  /** What makes a repetition of the write known; `""` when it has none. At most {@link MAX_IDEMPOTENCY_KEY_BYTES} as UTF-8. */
  readonly idempotencyKey: string;
  /** The answer that a repetition gets; empty without a key. */
  readonly result: Uint8Array;
}

/**
 * What an acknowledged write survives: `fsync` the loss of power, `os` the death of the process, `memory` that of its worker (the log is
 * written all the same, a little later).
 */
export type Durability = "fsync" | "os" | "memory";
export const DURABILITIES: readonly Durability[] = ["fsync", "os", "memory"];

/** Longest key of an idempotent write, as UTF-8. */
export const MAX_IDEMPOTENCY_KEY_BYTES = 256;

/** What one append wrote: all of its entries are there after a crash, or none. */
export interface LogFrame {
  /** Counts the frames of a log, from 1. */
  readonly position: number;
  readonly entries: readonly ShardLogEntry[];
}

/** Conditions of an append. */
export interface ShardAppendOptions {
  /** The log's head must be this: a writer that another one has overtaken is refused. */
  readonly expectedHead?: number;
  /** Refused when the log has been fenced with a higher one. @default the highest that it knows */
  readonly leaseEpoch?: number;
  /** Nobody waits for the frame to be durable: it may be written a little later, with others. @default false */
  readonly lazy?: boolean;
}

/**
 * The log of one shard: frames in the order of their positions. One writer.
 *
 * `append` puts a frame in line at once; frames that wait together become durable together, and `durable` follows. A frame that could not
 * be made durable stays in line and is tried again: meanwhile `failure` says why, and further appends are refused with it.
 */
export interface ShardLog {
  /** Position of the last frame that was appended. */
  readonly head: number;
  /** Up to this position frames survive what the log's durability promises. */
  readonly durable: number;
  /** Position of the oldest frame that can still be read; `head + 1` when there is none. */
  readonly first: number;
  /** The highest lease epoch that the log was fenced with. */
  readonly leaseEpoch: number;
  /** Why frames in line cannot be made durable at present. */
  readonly failure: ShardloomError | undefined;
  /** Called whenever `durable` has risen, or `failure` has come or gone; set by the log's owner. */
  onChange: (() => void) | undefined;
  /**
   * Throws what {@link append} would throw for a frame of about so many bytes; it costs no disk access.
   *
   * @throws {ShardloomError} `ERR_DISK_FULL`, `ERR_READ_ONLY`, `ERR_IO`, `ERR_CLOSED`, `ERR_RECORD_TOO_LARGE`.
   */
  assertRoom(bytes: number): void;
  /**
   * @returns the frame's position
   * @throws {ShardloomError} As {@link assertRoom}, and `ERR_STALE_EPOCH` when a condition does not hold: then nothing was appended.
   */
  append(entries: readonly ShardLogEntry[], options?: ShardAppendOptions): number;
  /** Raises the lease epoch, durably: appends under a lower one are refused from here on. */
  fence(leaseEpoch: number): Promise<void>;
  /** Resolves when everything that was appended before is durable. @throws {ShardloomError} Why it cannot become so at present. */
  flush(): Promise<void>;
  /**
   * Durable frames from a position on, in order; at least one when there is one, and then as many as `limitBytes` allows.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` with `details.position` and, where it can be told, `details.lsn` and `details.vshard`.
   */
  read(from: number, limitBytes: number): Promise<readonly LogFrame[]>;
  /** Forgets frames below a position; those that share a segment with later ones stay. */
  truncateBelow(position: number): Promise<void>;
  /** Makes everything durable that can be, and closes. */
  close(): Promise<void>;
}
