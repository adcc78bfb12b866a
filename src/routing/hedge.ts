/**
 * When a request is slow enough to be asked of a second copy as well.
 *
 * Invariant: hedges are at most `ratio` of the requests that are none, apart from the few tokens of the start; a shard
 * whose latencies are not known yet is not hedged.
 * Source: Dean and Barroso, "The Tail at Scale" (CACM 2013), hedged requests after the 95th percentile.
 */
import type { RetryBudget } from "./retry-budget.ts";

/** When to hedge: after the shard's observed p95, after a given time in ms, or never. */
export type HedgePolicy = "p95" | "off" | number;

/** What the hedging of one thread knows of latencies. */
export interface LatencySource {
  /** An observed quantile of a shard's latencies, in us; infinity, 0 or NaN while too little is known. */
  quantileUs(shard: number, q: number): number;
  /** The same of all shards together. */
  allQuantileUs(q: number): number;
}

const QUANTILE = 0.95;
/** Multiple of a shard's median that is not late, whatever the others do. */
const USUAL_TIMES = 1.5;
/** Requests to a shard between two looks at its quantile, which costs more than a request may. */
const LOOK_EVERY = 32;
/** Below it a timer is not exact enough to be worth its wake-up. */
const SHORTEST_MS = 1;

/** The hedging of one client thread. */
export class Hedger {
  readonly budget: RetryBudget;
  readonly #latencies: LatencySource;
  readonly #delayMs: number[] = [];
  readonly #untilLook: number[] = [];

  constructor(latencies: LatencySource, budget: RetryBudget) {
    this.#latencies = latencies;
    this.budget = budget;
  }

  /** How long to wait for a shard before its request is hedged, in ms; infinity: for ever. */
  delayMs(shard: number, policy: HedgePolicy): number {
    if (policy === "off") return Number.POSITIVE_INFINITY;
    if (policy !== "p95") return policy;
    const left = this.#untilLook[shard] ?? 0;
    if (left > 0) {
      this.#untilLook[shard] = left - 1;
      return this.#delayMs[shard] as number;
    }
    const observedMs = this.#lateUs(shard) / 1000;
    const delayMs = observedMs > 0 ? Math.max(SHORTEST_MS, observedMs) : Number.POSITIVE_INFINITY;
    this.#untilLook[shard] = LOOK_EVERY;
    this.#delayMs[shard] = delayMs;
    return delayMs;
  }

  /**
   * From when an answer of a shard is late. A shard that stalls now and then holds up what comes behind, until its own p95 is the
   * stall: then that of all shards counts, but never what is usual for this one.
   */
  #lateUs(shard: number): number {
    const latencies = this.#latencies;
    const usualUs = USUAL_TIMES * latencies.quantileUs(shard, 0.5);
    return Math.min(latencies.quantileUs(shard, QUANTILE), Math.max(latencies.allQuantileUs(QUANTILE), usualUs));
  }
}
