/**
 * Answers that wait: for copies to have a write, and for the shard's log to have it durably. Each is sent once, or fails when its time is over.
 *
 * Invariant: every answer ends exactly once. One that waits for the log waits in the order of positions, and fails with the log's failure: what
 * it speaks of is in doubt then, as the frame stays in line.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Scheduler, Timer } from "../../src/runtime/scheduler.ts";
import type { ShardLog } from "../../src/store/log.ts";
import type { HeldReply } from "../engine.ts";
import { answer, expire, type WaitingWrite } from "./owned-vshard.ts";

/** What waiting needs. */
export interface WaitingAnswersOptions {
  readonly scheduler: Scheduler;
  readonly nowMs: () => number;
  /** Undefined: nothing is kept on disk. */
  readonly log: ShardLog | undefined;
  /** Whether the node may acknowledge writes. @default always */
  readonly lease?: { readonly isValid: boolean };
  /** Some answers were given up: whoever lists them may forget them. */
  readonly onExpired: () => void;
}

/** Part of the time left, and most of it, that is kept for an ERR_QUORUM to reach the caller before he gives up. */
const ANSWER_SHARE = 0.1;
const ANSWER_MS = 50;

export class WaitingAnswers {
  readonly #options: WaitingAnswersOptions;
  readonly #all: Set<WaitingWrite> = new Set();
  /** Those that wait for the log, by position. */
  #logged: { readonly position: number; readonly waiting: WaitingWrite }[] = [];
  #timer: Timer | undefined;
  #timerAtMs: number = Number.POSITIVE_INFINITY;

  constructor(options: WaitingAnswersOptions) {
    this.#options = options;
  }

  /** Notes an answer that is owed. @param deadlineAtMs When the caller gives up; 0: never. */
  add(kind: WaitingWrite["kind"], acks: number, held: HeldReply, body: Uint8Array, deadlineAtMs: number): WaitingWrite {
    const left = deadlineAtMs - this.#options.nowMs();
    const answerByMs =
      deadlineAtMs === 0
        ? Number.POSITIVE_INFINITY
        : deadlineAtMs - Math.min(ANSWER_MS, Math.max(0, left) * ANSWER_SHARE);
    const waiting: WaitingWrite = {
      kind,
      acks,
      held: this.#noting(held, () => waiting),
      body,
      answerByMs,
      open: 0,
      unlogged: 0,
    };
    this.#all.add(waiting);
    this.#alarm(answerByMs);
    return waiting;
  }

  /** Lets an answer wait until the log has a position durably. @returns false when it has failed, as the log has */
  untilDurable(waiting: WaitingWrite, position: number): boolean {
    const { log } = this.#options;
    if (log === undefined || log.durable >= position) return true;
    if (log.failure !== undefined) {
      this.fail(waiting, log.failure);
      return false;
    }
    waiting.open++;
    waiting.unlogged = 1;
    this.#logged.push({ position, waiting });
    return true;
  }

  /** The log has come further, or has failed. */
  logChanged(): void {
    const { log } = this.#options;
    if (log === undefined) return;
    const { failure, durable } = log;
    let done = 0;
    while (done < this.#logged.length) {
      const { position, waiting } = this.#logged[done] as { position: number; waiting: WaitingWrite };
      if (position > durable && failure === undefined) break;
      done++;
      if (waiting.open <= 0) continue;
      if (position <= durable) {
        waiting.unlogged = 0;
        if (--waiting.open === 0) answer(waiting);
      } else if (failure !== undefined) {
        this.fail(waiting, failure);
      }
    }
    if (done > 0) this.#logged = this.#logged.slice(done);
  }

  /** Fails what is open. */
  close(): void {
    this.#timer?.cancel();
    for (const waiting of this.#all)
      if (waiting.open > 0)
        waiting.held.fail(new ShardloomError("ERR_CLOSED", "Cannot wait for copies as the shard is closed"));
    this.#all.clear();
    this.#logged = [];
  }

  /** Fails an answer as what it speaks of cannot be kept. */
  fail(waiting: WaitingWrite, failure: ShardloomError): void {
    waiting.open = 0;
    waiting.held.fail(waiting.kind === "write" ? writeFailed(failure) : readFailed(failure));
  }

  /** Takes an answered one off the list. */
  #noting(held: HeldReply, waiting: () => WaitingWrite): HeldReply {
    return {
      get cancelled() {
        return held.cancelled;
      },
      send: (lengthBytes, fill) => {
        const { kind, acks } = waiting();
        this.#all.delete(waiting());
        if (kind === "write" && this.#options.lease?.isValid === false) held.fail(leaseLapsed(acks));
        else held.send(lengthBytes, fill);
      },
      fail: (error) => {
        this.#all.delete(waiting());
        held.fail(error);
      },
    };
  }

  #alarm(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    const { scheduler, nowMs } = this.#options;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = scheduler.timer(Math.max(0, atMs - nowMs()), () => this.#expire());
  }

  #expire(): void {
    const nowMs = this.#options.nowMs();
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    let next = Number.POSITIVE_INFINITY;
    for (const waiting of [...this.#all]) {
      if (waiting.answerByMs <= nowMs) expire(waiting);
      else next = Math.min(next, waiting.answerByMs);
    }
    this.#logged = this.#logged.filter(({ waiting }) => waiting.open > 0);
    this.#options.onExpired();
    if (next !== Number.POSITIVE_INFINITY) this.#alarm(next);
  }
}

/** What a write ends with that has its copies when the lease is over: its primary may not be one any more. */
function leaseLapsed(acks: number): ShardloomError {
  const rule = "the lease of its node must be good";
  return new ShardloomError("ERR_QUORUM", `Cannot acknowledge write as ${rule}: it is over`, { details: { acks } });
}

function writeFailed(failure: ShardloomError): ShardloomError {
  return new ShardloomError(
    failure.code,
    `Cannot say of write whether it is kept as the shard's log failed: ${failure.message}`,
    {
      details: { ...failure.details, inDoubt: true },
      cause: failure,
    },
  );
}

function readFailed(failure: ShardloomError): ShardloomError {
  return new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot answer strong read as what it shows is not in the shard's log yet: ${failure.message}`,
    { cause: failure },
  );
}

/** What a shard has in memory is not in its log, which does not take it yet: nobody may count on it. */
export function notLogged(shard: number): ShardloomError {
  return new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot count on what shard ${shard} has as its log must have it: it does not take it yet`,
    { details: { shard } },
  );
}
