/**
 * A vshard whose primary this shard is: its log, how far its copies are known to be, and the writes that wait for them.
 *
 * Invariant: a write waits in `waiters` until enough copies have its LSN or its time is over, and is answered once. The log keeps what a
 * copy that is being followed still lacks, within its limits.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { MemoryLog } from "../../src/store/memory-log.ts";
import type { HeldReply, SnapshotPart } from "../engine.ts";

/** An answer that waits for copies: that of a write, or that of a strong read of what was written. */
export interface WaitingWrite {
  readonly kind: "write" | "read";
  /** Copies that a write asks for. */
  readonly acks: number;
  readonly held: HeldReply;
  readonly body: Uint8Array;
  /** When it is answered in any case; infinity: never. */
  readonly answerByMs: number;
  /** Vshards that have too few copies of it yet, and one more while the log has not got it. */
  open: number;
  /** 1 while it waits for the log. */
  unlogged: number;
}

interface Waiter {
  readonly lsn: number;
  /** Copies that must have the LSN. */
  readonly acks: number;
  readonly write: WaitingWrite;
}

/** What is known of one copy. */
export interface KnownCopy {
  /** LSN that it has applied; -1: unknown. */
  acked: number;
  /** LSN up to which it has been sent entries. */
  sent: number;
  /** Entries are sent as they come; otherwise its state must be asked for, or a snapshot is on its way. */
  mode: "unknown" | "follow" | "snapshot";
}

/** A snapshot on its way. */
export interface Transfer {
  readonly owned: OwnedVshard;
  readonly number: number;
  readonly startLsn: number;
  readonly next: () => SnapshotPart | undefined;
  sequence: number;
}

export class OwnedVshard {
  readonly vshard: number;
  readonly log: MemoryLog;
  /** By the shard that holds the copy; the primary's own is not among them. */
  readonly copies: Map<number, KnownCopy> = new Map();
  #waiters: Waiter[] = [];
  /** By how many copies must have it, the last LSN that fewer are known to have: who has the last one has those before it. */
  readonly #unsettled: Map<number, number> = new Map();

  /** Last position of the shard's log with an entry of this vshard that may not be durable yet; 0: there is none. */
  undurable = 0;
  /** LSNs that stand for the same content: `from` as it was found, `to` in this life; `to` is 0 when nothing was renumbered. */
  readonly rebase: { readonly from: number; readonly to: number };

  constructor(
    vshard: number,
    log: MemoryLog,
    rebase: { readonly from: number; readonly to: number } = { from: 0, to: 0 },
  ) {
    this.vshard = vshard;
    this.log = log;
    this.rebase = rebase;
  }

  /** Whether everything written here is durable and has the copies that its writes asked for, as far as is known. */
  get isSettled(): boolean {
    return this.#unsettled.size === 0 && this.undurable === 0;
  }

  /** An LSN must have so many copies before strong reads may show it. */
  expect(lsn: number, acks: number): void {
    if (this.#count(lsn) < acks) this.#unsettled.set(acks, lsn);
  }

  /** Waits for copies of an LSN. */
  wait(lsn: number, acks: number, write: WaitingWrite): void {
    if (this.#count(lsn) >= acks) return;
    write.open++;
    this.#waiters.push({ lsn, acks, write });
  }

  /** Waits until all that is written here now has its copies. */
  waitSettled(read: WaitingWrite): void {
    if (this.#unsettled.size === 0) return;
    this.wait(Math.max(...this.#unsettled.values()), Math.max(...this.#unsettled.keys()), read);
  }

  /** A copy has come further: answers the writes that now have enough copies. */
  onAcked(): void {
    let acked = Number.POSITIVE_INFINITY;
    for (const copy of this.copies.values()) acked = Math.min(acked, copy.acked);
    if (this.copies.size > 0 && acked > 0) this.log.truncateBelow(acked + 1);
    for (const [acks, lsn] of this.#unsettled) if (this.#count(lsn) >= acks) this.#unsettled.delete(acks);
    if (this.#waiters.length === 0) return;
    const waiting = this.#waiters;
    this.#waiters = waiting.filter(({ lsn, acks, write }) => write.open > 0 && this.#count(lsn) < acks);
    if (this.#waiters.length === waiting.length) return;
    const left = new Set(this.#waiters);
    for (const waiter of waiting) if (!left.has(waiter)) settle(waiter.write);
  }

  /** The shard is not its primary any more: what waits for copies of it is in doubt. */
  giveUp(): void {
    for (const { write } of this.#waiters.splice(0)) if (write.open > 0) expire(write);
  }

  /** Forgets writes that were answered because their time was over. */
  dropAnswered(): void {
    this.#waiters = this.#waiters.filter(({ write }) => write.open > 0);
  }

  /** Copies that have an LSN, the primary's own counted. */
  #count(lsn: number): number {
    let count = 1;
    for (const { acked } of this.copies.values()) if (acked >= lsn) count++;
    return count;
  }
}

function settle(write: WaitingWrite): void {
  if (write.open <= 0 || --write.open > 0) return;
  answer(write);
}

/** Sends a write's answer. */
export function answer({ held, body }: WaitingWrite): void {
  held.send(body.length, (memory, offset) => memory.bytes.set(body, offset));
}

/**
 * Ends what too few copies have in time. A write is in doubt then, as the primary has it; a read cannot be answered, as what it would show
 * is in doubt.
 */
export function expire(waiting: WaitingWrite): void {
  const missing = waiting.open - waiting.unlogged;
  const logged = waiting.unlogged === 0 ? "" : ", and the shard's log does not have it durably";
  waiting.open = 0;
  waiting.held.fail(
    new ShardloomError(
      waiting.kind === "write" ? "ERR_QUORUM" : "ERR_UNAVAILABLE",
      waiting.kind === "write"
        ? `Cannot acknowledge write as ${waiting.acks} copies must have it: ${missing} of its vshards have fewer in time${logged}`
        : `Cannot answer strong read as what it shows must have its copies: ${missing} of its vshards have too few in time${logged}`,
      { details: { acks: waiting.acks, vshards: missing } },
    ),
  );
}
