/**
 * The deadlines of a barrier: one for the tick, one for the phase, and one timer for all of them.
 *
 * Invariant: a deadline is absolute; only the beginning of a tick or phase sets it. The timer is never later than the earlier
 * deadline. It may be earlier, left over from a tick that is done: then it looks and is set again, so that a barrier that
 * does a hundred thousand ticks a second sets it once per deadline, not once per tick.
 */
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";

const NEVER = Number.POSITIVE_INFINITY;

/** What deadlines are made of. */
export interface BarrierClockOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** In ms; `Infinity`: none. */
  readonly tickMs: number;
  readonly phaseMs: number;
  /** Called at or after a deadline, and at other times: it has to look. */
  readonly onRing: (nowMs: number) => void;
}

/** The deadlines of one barrier. */
export class BarrierClock {
  /** When the members that have not arrived are late; `Infinity` when nothing is measured. */
  deadlineAtMs: number = NEVER;
  readonly #options: BarrierClockOptions;
  readonly #timed: boolean;
  #tickAtMs: number = NEVER;
  #timer: Timer | undefined;
  #timerAtMs: number = NEVER;

  constructor(options: BarrierClockOptions) {
    this.#options = options;
    this.#timed = options.tickMs < NEVER || options.phaseMs < NEVER;
  }

  /** A tick begins, and its first phase with it. */
  startTick(): void {
    if (!this.#timed) return;
    const nowMs = this.#options.clock.nowMs();
    this.#tickAtMs = nowMs + this.#options.tickMs;
    this.#start(nowMs);
  }

  startPhase(): void {
    if (this.#timed) this.#start(this.#options.clock.nowMs());
  }

  /** Nothing is measured until the next tick. */
  stop(): void {
    this.#tickAtMs = NEVER;
    this.deadlineAtMs = NEVER;
  }

  close(): void {
    this.stop();
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #start(nowMs: number): void {
    this.deadlineAtMs = Math.min(this.#tickAtMs, nowMs + this.#options.phaseMs);
    this.#watch(nowMs);
  }

  #watch(nowMs: number): void {
    if (this.deadlineAtMs === NEVER || (this.#timer !== undefined && this.#timerAtMs <= this.deadlineAtMs)) return;
    this.#timer?.cancel();
    this.#timerAtMs = this.deadlineAtMs;
    this.#timer = this.#options.scheduler.timer(Math.max(0, this.deadlineAtMs - nowMs), () => {
      this.#timer = undefined;
      const rungAtMs = this.#options.clock.nowMs();
      this.#options.onRing(rungAtMs);
      this.#watch(rungAtMs);
    });
  }
}
