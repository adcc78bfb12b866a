/**
 * How much extra work an executor may make: a bucket of tokens that requests fill and retries (or hedges) empty.
 *
 * Invariant: over any stretch of time, tokens taken ≤ `burst` + `ratio` × requests + `perSecond` × seconds. A cluster that
 * fails everything is therefore asked at most `1 + ratio` times as much as one that answers, apart from the small floor.
 * Source: Finagle, RetryBudget. Divergence: a cap on the tokens stands for the window, so nothing expires by a timer.
 */
import { invalidArgument } from "../errors.ts";
import type { Random } from "../runtime/random.ts";

/** The limits of one budget. */
export interface BudgetLimits {
  /** Tokens that one request brings, in `[0, 1]`. */
  readonly ratio: number;
  /** Tokens that come by themselves in a second, so that a client with few requests may retry too; ≥ 0. */
  readonly perSecond: number;
  /** Most tokens that are kept, ≥ 1. */
  readonly burst: number;
  /** Tokens that are there at the beginning. @default burst */
  readonly initial?: number;
}

/** One thread's budget. */
export class RetryBudget {
  readonly #limits: BudgetLimits;
  #tokens: number;
  #seenMs: number;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for limits out of range. */
  constructor(limits: BudgetLimits, nowMs: number) {
    const { ratio, perSecond, burst, initial = burst } = limits;
    if (!(ratio >= 0 && ratio <= 1)) throw invalidArgument("create budget", "ratio", "between 0 and 1", ratio);
    if (!(perSecond >= 0 && perSecond < Infinity))
      throw invalidArgument("create budget", "perSecond", "a finite number ≥ 0", perSecond);
    if (!(burst >= 1 && burst < Infinity))
      throw invalidArgument("create budget", "burst", "a finite number ≥ 1", burst);
    if (!(initial >= 0 && initial <= burst))
      throw invalidArgument("create budget", "initial", `between 0 and ${burst}`, initial);
    this.#limits = limits;
    this.#tokens = initial;
    this.#seenMs = nowMs;
  }

  /** Whole tokens that {@link take} could give now, as of its last look at the clock. */
  get available(): number {
    return Math.floor(this.#tokens);
  }

  /** A request that is no retry was sent. */
  deposit(): void {
    const { ratio, burst } = this.#limits;
    this.#tokens = Math.min(burst, this.#tokens + ratio);
  }

  /** Takes `count` tokens, or none. @returns whether they were there */
  take(count: number, nowMs: number): boolean {
    const { perSecond, burst } = this.#limits;
    this.#tokens = Math.min(burst, this.#tokens + (perSecond * Math.max(0, nowMs - this.#seenMs)) / 1000);
    this.#seenMs = nowMs;
    if (this.#tokens < count) return false;
    this.#tokens -= count;
    return true;
  }
}

/**
 * The pause before a retry that goes to the same shard again: uniform in `[0, min(cap, base × 2^retry))`.
 *
 * Source: Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015), full jitter.
 *
 * @param retry Earlier retries, ≥ 0.
 */
export function fullJitterMs(random: Random, baseMs: number, capMs: number, retry: number): number {
  return random.float() * Math.min(capMs, baseMs * 2 ** retry);
}
