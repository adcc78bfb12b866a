/**
 * Writes that are sent again: any one while its shard says that it did not do it, as it may not serve the vshard yet; one with a key also while it
 * is in doubt, as its shard tells repetitions from new writes, so that asking twice is the same as asking once.
 *
 * Invariant: a write without a key is sent again only when nothing of it was done. Every repetition of one in doubt takes a token from the retry budget, as retries of reads do, and all end by the deadline of the call. The
 * error of the last attempt is the call's.
 */
import { ShardloomError } from "../src/errors.ts";
import { fullJitterMs, type RetryBudget } from "../src/routing/retry-budget.ts";
import type { Clock } from "../src/runtime/clock.ts";
import type { Random } from "../src/runtime/random.ts";
import type { Scheduler } from "../src/runtime/scheduler.ts";
import type { TopologySnapshot } from "../src/topology/snapshot.ts";
import type { TopologySource } from "../src/topology/topology-source.ts";
import { abortError, type CallOptions, onAbort } from "./call-options.ts";

/** What repetitions need of their thread. */
export interface KeyedCallContext {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly topology: TopologySource;
  readonly retries: RetryBudget;
}

/** Requests for one write, the first included. A shard may be without a worker for a second and more. */
const MAX_ATTEMPTS = 12;
/** Pause before a write is sent again that was not done, in ms. */
const NOT_DONE_PAUSE_MS = 10;
/** Range of the first pause before the next attempt, in ms; it doubles with every one. */
const PAUSE_BASE_MS = 20;
const PAUSE_LIMIT_MS = 500;
/** Part of the time that is left which one attempt gets, if that is not less than the least: the answer may have been lost on its way. */
const ATTEMPT_SHARE = 0.5;
const MIN_ATTEMPT_MS = 1_000;
/** What will not be otherwise in a moment, or is the caller's to deal with. */
const FINAL: ReadonlySet<string> = new Set(["ERR_STALE_EPOCH", "ERR_OUT_OF_MEMORY", "ERR_REGION_TABLE_FULL"]);

/** Sends a write, and again as long as its shard says that it may not serve the vshard yet, and there is time. */
export async function repeatUndone<T>(
  { clock, scheduler }: Pick<KeyedCallContext, "clock" | "scheduler">,
  deadlineAtMs: number,
  options: CallOptions,
  send: (attempt: number, options: CallOptions) => Promise<T>,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await send(attempt, attempt === 0 ? options : { ...options, timeoutMs: deadlineAtMs - clock.nowMs() });
    } catch (error) {
      const isUndone =
        ShardloomError.is(error) && error.code === "ERR_UNAVAILABLE" && error.details["written"] === false;
      if (!isUndone || clock.nowMs() + 2 * NOT_DONE_PAUSE_MS >= deadlineAtMs) throw error;
      await pause(scheduler, NOT_DONE_PAUSE_MS, options.signal);
      if (clock.nowMs() >= deadlineAtMs) throw error; // the pause was longer than it should have been
    }
  }
}

/**
 * Sends a write until it is answered or refused.
 *
 * @throws {ShardloomError} `ERR_STALE_EPOCH` when there is a newer map than the write was grouped with: perhaps another shard has its
 *   vshards by now.
 */
export async function repeatKeyed<T>(
  context: KeyedCallContext,
  snapshot: TopologySnapshot,
  shard: number,
  deadlineAtMs: number,
  options: CallOptions,
  send: (attempt: number, options: CallOptions) => Promise<T>,
): Promise<T> {
  const { clock, random, topology, retries } = context;
  retries.deposit();
  for (let attempt = 0; ; attempt++) {
    const leftMs = deadlineAtMs - clock.nowMs();
    const shareMs = Math.max(MIN_ATTEMPT_MS, leftMs * ATTEMPT_SHARE);
    const timeoutMs = attempt + 1 < MAX_ATTEMPTS ? Math.min(leftMs, shareMs) : leftMs;
    try {
      return await send(attempt, { ...options, timeoutMs: Math.max(Number.MIN_VALUE, timeoutMs) });
    } catch (error) {
      const pauseMs = fullJitterMs(random, PAUSE_BASE_MS, PAUSE_LIMIT_MS, attempt);
      const nowMs = clock.nowMs();
      const over = attempt + 1 >= MAX_ATTEMPTS || nowMs + pauseMs >= deadlineAtMs;
      if (!ShardloomError.is(error) || !error.retryable || FINAL.has(error.code) || over) throw error;
      if (!retries.take(1, nowMs)) throw error;
      await pause(context.scheduler, pauseMs, options.signal);
      if (topology.current().mapEpoch > snapshot.mapEpoch) throw movedOn(shard, snapshot, error);
    }
  }
}

function pause(scheduler: Scheduler, delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(abortError(signal));
    let unlisten: (() => void) | undefined;
    const timer = scheduler.timer(delayMs, () => {
      unlisten?.();
      resolve();
    });
    if (signal !== undefined)
      unlisten = onAbort(signal, (error) => {
        timer.cancel();
        reject(error);
      });
  });
}

function movedOn(shard: number, { topologyEpoch }: TopologySnapshot, cause: ShardloomError): ShardloomError {
  return new ShardloomError(
    "ERR_STALE_EPOCH",
    `Cannot repeat write to shard ${shard} as it must be grouped with the newest topology: it has that of epoch ${topologyEpoch}`,
    { cause, details: { shard, topologyEpoch } },
  );
}
