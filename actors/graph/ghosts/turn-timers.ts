/**
 * Timers of an engine whose thread has none of its own: they run in its turns.
 *
 * Invariant: a timer runs once, not before it is due, or never when it was cancelled; those that are due run in the order of their times.
 */
import type { Cancel } from "../../../src/runtime/scheduler.ts";

interface Timer {
  readonly atMs: number;
  readonly callback: () => void;
}

export class TurnTimers {
  readonly #nowMs: () => number;
  #timers: Timer[] = [];

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  after(delayMs: number, callback: () => void): Cancel {
    const timer: Timer = { atMs: this.#nowMs() + delayMs, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** When the next is due; infinity: there is none. */
  get dueAtMs(): number {
    return this.#timers.reduce((least, { atMs }) => Math.min(least, atMs), Number.POSITIVE_INFINITY);
  }

  /** Runs what is due. @returns whether anything was */
  run(nowMs: number): boolean {
    if (this.dueAtMs > nowMs) return false;
    const due = this.#timers.filter(({ atMs }) => atMs <= nowMs).sort((a, b) => a.atMs - b.atMs);
    this.#timers = this.#timers.filter(({ atMs }) => atMs > nowMs);
    for (const { callback } of due) callback();
    return true;
  }
}
