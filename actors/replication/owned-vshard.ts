/**
 * A vshard whose primary this shard is: its log, how far its copies are known to be, and the writes that wait for them.
 *
 * Invariant: a write waits in `waiters` until enough copies have its LSN or its time is over, and is answered once. The log keeps what a
 * copy that is being followed still lacks, within its limits.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { MemoryLog } from "../../src/store/memory-log.ts";
import type { HeldReply } from "../engine.ts";

/** An answer that waits for copies. */
export interface WaitingWrite {
  readonly acks: number;
  readonly held: HeldReply;
  readonly body: Uint8Array;
  /** When it is answered in any case; infinity: never. */
  readonly answerByMs: number;
  /** Vshards that have too few copies of it yet. */
  open: number;
}

interface Waiter {
  readonly lsn: number;
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

export class OwnedVshard {
  readonly vshard: number;
  readonly log: MemoryLog;
  /** By the shard that holds the copy; the primary's own is not among them. */
  readonly copies: Map<number, KnownCopy> = new Map();
  #waiters: Waiter[] = [];

  constructor(vshard: number, log: MemoryLog) {
    this.vshard = vshard;
    this.log = log;
  }

  /** Waits for copies of an LSN. */
  wait(lsn: number, write: WaitingWrite): void {
    if (this.#count(lsn) >= write.acks) return;
    write.open++;
    this.#waiters.push({ lsn, write });
  }

  /** A copy has come further: answers the writes that now have enough copies. */
  onAcked(): void {
    let acked = Number.POSITIVE_INFINITY;
    for (const copy of this.copies.values()) acked = Math.min(acked, copy.acked);
    if (this.copies.size > 0 && acked > 0) this.log.truncateBelow(acked + 1);
    if (this.#waiters.length === 0) return;
    const waiting = this.#waiters;
    this.#waiters = waiting.filter(({ lsn, write }) => write.open > 0 && this.#count(lsn) < write.acks);
    if (this.#waiters.length === waiting.length) return;
    const left = new Set(this.#waiters);
    for (const waiter of waiting) if (!left.has(waiter)) settle(waiter.write);
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

/** Ends a write that too few copies have in time: the primary has it, so it is in doubt. */
export function expire(write: WaitingWrite): void {
  const missing = write.open;
  write.open = 0;
  write.held.fail(
    new ShardloomError(
      "ERR_QUORUM",
      `Cannot acknowledge write as ${write.acks} copies must have it: ${missing} of its vshards have fewer in time`,
      { details: { acks: write.acks, vshards: missing } },
    ),
  );
}
