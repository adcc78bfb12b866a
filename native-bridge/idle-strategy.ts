/**
 * AdaptiveSpin: how long a thread polls for work before it parks.
 *
 * Two measurements decide, both from the recent past: how long waits lasted (polling can only pay if work arrives within
 * the budget), and whether waits in which it polled ended sooner than waits in which it parked at once (on a machine with
 * too few free cores they do not: the poller holds the core that its peer needs). Averages are of the logarithm, so that
 * one preemption of 4 ms does not outweigh a hundred fast answers. The losing side is probed now and then.
 * Source: Karlin et al., "Empirical Studies of Competitive Spinning for a Shared-Memory Multiprocessor", SOSP 1991.
 * Divergence: no cooperation of the scheduler; preemption is inferred from the time that a batch of polls took.
 */
import { invalidArgument } from "../src/errors.ts";
import type { Doorbell } from "./doorbell.ts";

export interface AdaptiveSpinOptions {
  /** Monotonic clock in µs. */
  readonly nowUs: () => number;
  /** Longest polling phase of one wait, in µs; 0 parks at once. @default 200 */
  readonly maxSpinUs?: number;
}

/** What an AdaptiveSpin did so far. */
export interface SpinCounters {
  /** Waits that ended while polling. */
  readonly hits: number;
  /** Waits in which polling ran out and the caller parked. */
  readonly misses: number;
  /** Waits in which the caller parked without polling. */
  readonly parks: number;
  /** Polling phases in which the thread was seen to have lost its core. */
  readonly preemptions: number;
}

/** What a waiting thread asks of its strategy; {@link AdaptiveSpin} is ours. */
export interface SpinPolicy {
  spin(predicate: () => boolean): boolean;
  woke(): void;
}

const DEFAULT_MAX_SPIN_US = 200;
/** Polls before the clock is read at all: covers a peer that is answering right now. */
const FREE_POLLS = 64;
/** The same after a wait that polling did not end: a caller that goes on running may hold the core its peer wakes on. */
const FEW_POLLS = 4;
/** Polls between two looks at the clock. */
const BATCH_POLLS = 32;
/** Turns of nothing between two polls: a poll takes the line from the writer, so the longer the wait the rarer they are. */
const REST_TURNS = 96;
/** A batch takes about 2 µs; one that takes this long was interrupted by another thread. */
const PREEMPTED_US = 150;
/** Polled waits between two probes of parking. */
const PROBE_PARK_EVERY = 512;
/** Parked waits between two probes of polling: doubles while probes show no gain. */
const FIRST_PROBE_SPIN = 16;
const LAST_PROBE_SPIN = 256;
/** Probes of polling come in a row: they show a gain only if the peer, which adapts too, polls in the same waits. */
const PROBE_SPIN_WAITS = 6;
/** Polling must win by this much (log2 of the ratio of wait times) to be worth its CPU. */
const MARGIN_LOG2 = 0.25;
/** A hit before the clock was read lasted some 0.5 µs. */
const FREE_HIT_LOG2 = -1;
const UNKNOWN = Number.NaN;

/** One per waiting thread. */
export class AdaptiveSpin implements SpinPolicy {
  readonly #nowUs: () => number;
  readonly #maxSpinUs: number;
  /** Average wait in µs, outliers clipped. */
  #expectedUs: number = 0;
  #spunLog2: number = UNKNOWN;
  #parkedLog2: number = UNKNOWN;
  #waitStartUs: number = UNKNOWN;
  #spunThisWait: boolean = false;
  #parkNext: boolean = false;
  /** Parked waits until polling is tried again; below 0 while it is. And polled waits since parking was tried. */
  #untilProbe: number = FIRST_PROBE_SPIN;
  #probeEvery: number = FIRST_PROBE_SPIN;
  #spinsInARow: number = 0;
  #freePolls: number = FREE_POLLS;
  /** Hits before the clock was read, not yet part of the averages. */
  #freeHits: number = 0;
  #hits: number = 0;
  #misses: number = 0;
  #parks: number = 0;
  #preemptions: number = 0;
  /** Keeps the resting loop from being a loop without effect. */
  #sink: number = 0;

  constructor(options: AdaptiveSpinOptions) {
    const maxSpinUs = options.maxSpinUs ?? DEFAULT_MAX_SPIN_US;
    if (!(maxSpinUs >= 0 && maxSpinUs <= 1_000_000))
      throw invalidArgument("create spin", "maxSpinUs", "a number in [0, 1000000]", maxSpinUs);
    this.#nowUs = options.nowUs;
    this.#maxSpinUs = maxSpinUs;
  }

  /**
   * Polls for as long as that is worth it. After `false` the caller parks, and calls woke() when its wait is over.
   *
   * @param predicate Cheap and without effect; made once, not a call.
   * @returns Whether the predicate held.
   */
  spin(predicate: () => boolean): boolean {
    for (let poll = 0; poll < this.#freePolls; poll++) {
      if (predicate()) {
        this.#freePolls = FREE_POLLS;
        this.#freeHits++;
        return true;
      }
      this.#rest(poll >> 1);
    }
    if (this.#freeHits > 0) this.#foldFreeHits();
    this.#freePolls = FEW_POLLS;
    const startUs = this.#nowUs();
    this.#waitStartUs = startUs;
    const budgetUs = this.#budgetUs();
    this.#spunThisWait = budgetUs > 0;
    if (budgetUs <= 0) {
      this.#parks++;
      return false;
    }
    let lastUs = startUs;
    let preempted = false;
    for (;;) {
      for (let poll = 0; poll < BATCH_POLLS; poll++) {
        if (predicate()) {
          this.#hits++;
          this.#freePolls = FREE_POLLS;
          const waitUs = this.#nowUs() - startUs;
          // A probe that beat parking is repeated at once: a change for the better is learnt in a few waits.
          if (Math.log2(waitUs + 0.25) < this.#parkedLog2 - MARGIN_LOG2) {
            this.#untilProbe = 0;
            this.#probeEvery = FIRST_PROBE_SPIN;
          }
          this.#observe(waitUs);
          if (preempted) this.#notePreemption();
          return true;
        }
        this.#rest(REST_TURNS);
      }
      const nowUs = this.#nowUs();
      if (nowUs - lastUs > PREEMPTED_US) preempted = true;
      if (nowUs - startUs >= budgetUs) break;
      lastUs = nowUs;
    }
    if (preempted) this.#notePreemption();
    this.#misses++;
    this.#parkNext = true; // the next wait shows what parking would have cost
    return false;
  }

  /** Ends a wait that went on after spin() returned false, however it ended. A second call does nothing. */
  woke(): void {
    if (Number.isNaN(this.#waitStartUs)) return;
    this.#observe(this.#nowUs() - this.#waitStartUs);
  }

  counters(): SpinCounters {
    return {
      hits: this.#hits + this.#freeHits,
      misses: this.#misses,
      parks: this.#parks,
      preemptions: this.#preemptions,
    };
  }

  /** Touches no shared memory for a moment; some 0.3 ns a turn. */
  #rest(turns: number): void {
    for (let turn = 0; turn < turns; turn++) this.#sink = (this.#sink + turn) | 0;
  }

  #budgetUs(): number {
    const maxSpinUs = this.#maxSpinUs;
    if (this.#expectedUs > 2 * maxSpinUs) return 0;
    if (this.#parkNext && this.#untilProbe >= 0) {
      this.#parkNext = false;
      return 0;
    }
    const budgetUs = Math.min(maxSpinUs, 3 * this.#expectedUs + 10);
    const spinWins = !(this.#spunLog2 >= this.#parkedLog2 - MARGIN_LOG2); // also while one of them is unknown
    if (spinWins) {
      this.#spinsInARow++;
      if (this.#spinsInARow < PROBE_PARK_EVERY) return budgetUs;
      this.#spinsInARow = 0;
      return 0;
    }
    this.#untilProbe--;
    if (this.#untilProbe >= 0) return 0;
    this.#parkNext = false;
    if (this.#untilProbe <= -PROBE_SPIN_WAITS) {
      this.#untilProbe = this.#probeEvery;
      this.#probeEvery = Math.min(2 * this.#probeEvery, LAST_PROBE_SPIN);
    }
    return budgetUs;
  }

  #observe(waitUs: number): void {
    this.#waitStartUs = UNKNOWN;
    this.#expectedUs += (Math.min(waitUs, 4 * this.#maxSpinUs) - this.#expectedUs) / 8;
    const log2 = Math.log2(waitUs + 0.25);
    if (this.#spunThisWait) this.#spunLog2 = blend(this.#spunLog2, log2);
    else this.#parkedLog2 = blend(this.#parkedLog2, log2);
  }

  /** Fast answers count as polled waits, or the averages would know of the slow ones only. */
  #foldFreeHits(): void {
    const hits = Math.min(this.#freeHits, 64);
    this.#hits += this.#freeHits;
    this.#freeHits = 0;
    this.#expectedUs *= (7 / 8) ** hits;
    const kept = Number.isNaN(this.#spunLog2) ? 0 : (this.#spunLog2 - FREE_HIT_LOG2) * (3 / 4) ** hits;
    this.#spunLog2 = FREE_HIT_LOG2 + kept;
  }

  #notePreemption(): void {
    this.#preemptions++;
    this.#parkNext = true;
  }
}

function blend(average: number, value: number): number {
  return Number.isNaN(average) ? value : average + (value - average) / 4;
}

/** The longest time that a thread may block its event loop at once, in ms. */
export const PARK_SLICE_MS = 20;

/**
 * Blocks the calling thread until `predicate` holds: polls as `spin` says, then parks at `bell` in slices.
 * For threads without an event loop to serve; the data plane's own loop composes the same parts itself.
 *
 * @returns Whether the predicate held before `timeoutMs` was over.
 */
export function waitUntil(
  predicate: () => boolean,
  bell: Doorbell,
  spin: SpinPolicy,
  nowUs: () => number,
  timeoutMs: number,
): boolean {
  if (spin.spin(predicate)) return true;
  const deadlineUs = nowUs() + timeoutMs * 1000;
  let held = false;
  for (;;) {
    const ticket = bell.prepareWait();
    held = predicate();
    const leftMs = (deadlineUs - nowUs()) / 1000;
    if (held || leftMs <= 0) {
      bell.cancelWait();
      break;
    }
    bell.wait(ticket, Math.min(PARK_SLICE_MS, leftMs));
  }
  spin.woke();
  return held;
}
