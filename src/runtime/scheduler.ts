/**
 * "Later" as a parameter: the real scheduler and one whose time only a test moves.
 *
 * Invariant: a cancelled callback never runs, and callbacks due at the same time run in the order they were
 * scheduled. The virtual one runs everything that a callback set off (its microtasks too) before the next callback, so a
 * run depends on nothing but the calls made.
 * Source: the test clocks of Effect (TestClock.adjust) and turmoil. Divergence: no time zones, no wall clock.
 */

import { invalidArgument } from "../errors.ts";
import { type Clock, createManualClock } from "./clock.ts";

/** Takes a scheduled callback back; harmless when it has already run. */
export type Cancel = () => void;

/** A timer that may also stop keeping the process alive. */
export interface Timer {
  cancel(): void;
  ref(): void;
  unref(): void;
}

/** Runs callbacks later, on the thread that asked. */
export interface Scheduler {
  /** Runs the callback when the current stack has unwound, before any timer. */
  defer(callback: () => void): void;
  /** Runs the callback after the event loop has turned once: timers, I/O and messages that are due come first. */
  turn(callback: () => void): void;
  /** Like {@link Scheduler.after}, for callers that need to say whether the process should wait for it. */
  timer(delayMs: number, callback: () => void): Timer;
  /**
   * Runs the callback once after a delay.
   *
   * @param delayMs Milliseconds, ≥ 0; 0 still lets the event loop turn once.
   */
  after(delayMs: number, callback: () => void): Cancel;
}

/** Longest delay that the platform's timers keep; longer ones would fire at once. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

const SETTLED: Promise<void> = Promise.resolve();

/** The platform's scheduler. Its timers keep the process alive: they stand for open work. */
export const systemScheduler: Scheduler = {
  // A reaction, as Node's queueMicrotask makes an AsyncResource for each callback: five times the cost.
  defer: (callback) => {
    void SETTLED.then(callback);
  },
  turn: (callback) => {
    setImmediate(callback);
  },
  timer: (delayMs, callback) => {
    const timer = setTimeout(callback, Math.min(delayMs, LONGEST_DELAY_MS));
    return { cancel: () => clearTimeout(timer), ref: () => timer.ref(), unref: () => timer.unref() };
  },
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, Math.min(delayMs, LONGEST_DELAY_MS));
    return () => clearTimeout(timer);
  },
};

/** What a promise resolves to, or undefined when it has not within the time; its rejection passes through. */
export async function withinMs<T>(scheduler: Scheduler, timeoutMs: number, work: Promise<T>): Promise<T | undefined> {
  let timer: Timer | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = scheduler.timer(timeoutMs, () => resolve(undefined));
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    timer?.cancel();
  }
}

/** Resolves after a while. */
export function sleep(scheduler: Scheduler, delayMs: number): Promise<void> {
  return new Promise((resolve) => scheduler.timer(delayMs, resolve));
}

/** Resolves after the event loop has turned once. */
export function nextTurn(scheduler: Scheduler): Promise<void> {
  return new Promise((resolve) => scheduler.turn(resolve));
}

/** A clock and a scheduler that move together, and only when told. */
export interface VirtualTime {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** Moves time forward and runs what falls due, each callback with all its consequences. */
  advance(durationMs: number): Promise<void>;
  /** Runs what is due now and lets every microtask finish. */
  settle(): Promise<void>;
  /** Number of callbacks that wait for their time. */
  pending(): number;
}

interface Entry {
  readonly atMs: number;
  readonly order: number;
  readonly callback: () => void;
}

/** Creates a virtual clock and scheduler, starting at `startMs`. */
export function createVirtualTime(startMs = 0): VirtualTime {
  const clock = createManualClock(startMs);
  const timers: Entry[] = []; // sorted: the next one is last
  let order = 0;

  const scheduler: Scheduler = {
    defer: (callback) => queueMicrotask(callback),
    after: (delayMs, callback) => {
      if (!(delayMs >= 0)) throw invalidArgument("schedule", "delayMs", "a number ≥ 0", delayMs);
      const timer: Entry = { atMs: clock.nowMs() + delayMs, order: order++, callback };
      timers.splice(insertionIndex(timers, timer), 0, timer);
      return () => {
        const index = timers.indexOf(timer);
        if (index >= 0) timers.splice(index, 1);
      };
    },
    turn: (callback) => {
      scheduler.after(0, callback);
    },
    timer: (delayMs, callback) => {
      const cancel = scheduler.after(delayMs, callback);
      return { cancel, ref: () => undefined, unref: () => undefined };
    },
  };

  const runUntil = async (untilMs: number): Promise<void> => {
    await flushMicrotasks();
    for (let next = timers.at(-1); next !== undefined && next.atMs <= untilMs; next = timers.at(-1)) {
      timers.pop();
      clock.setMs(next.atMs);
      next.callback();
      await flushMicrotasks();
    }
    clock.setMs(untilMs);
  };

  return {
    clock,
    scheduler,
    advance: (durationMs) => runUntil(clock.nowMs() + durationMs),
    settle: () => runUntil(clock.nowMs()),
    pending: () => timers.length,
  };
}

/** Index at which a timer keeps the list sorted by time, then order, descending. */
function insertionIndex(timers: readonly Entry[], timer: Entry): number {
  let index = timers.length;
  while (index > 0 && (timers[index - 1] as Entry).atMs <= timer.atMs) index--;
  return index;
}

/** One turn of the event loop: every microtask, and those they queue, has run when it resolves. */
function flushMicrotasks(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
