/**
 * Carries out plans: what one client thread shares between its calls (budgets, breakers, hedging, due times) and the way
 * in.
 *
 * A call is an {@link Execution}; see there for what happens to a part that fails. Here is what holds over all calls.
 *
 * Invariant: every call settles exactly once, by its deadline (as its requester sees it) at the latest; when it has
 * settled, no request, timer or listener of it is left.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import { type BreakerOptions, Breakers } from "./breaker.ts";
import { DueQueue } from "./due-queue.ts";
import { Execution } from "./execution.ts";
import type { CallLimits, ExecutionCall } from "./execution-call.ts";
import { createExecutorStats, type ExecutorStats } from "./executor-stats.ts";
import type { Gathered } from "./gather.ts";
import { Hedger } from "./hedge.ts";
import { type BudgetLimits, RetryBudget } from "./retry-budget.ts";

/** Where an executor tells how requests went, and learns how long they take. See `ReplicaLoads`. */
export interface LoadBook {
  begin(shard: number): void;
  end(shard: number, latencyUs: number, ok: boolean): void;
  /** A request was given up: it would have taken `elapsedUs` or more. */
  cancel(shard: number, elapsedUs: number): void;
  /** An observed quantile of a shard's latencies, in us; infinity while too little is known. */
  quantileUs(shard: number, q: number): number;
  allQuantileUs(q: number): number;
}

/** What an executor needs from its thread. */
export interface ExecutorOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly loads: LoadBook;
  /** What calls may do that do not say so themselves. */
  readonly limits?: Partial<CallLimits>;
  /** @default 0.2 of the requests, 10 a second, up to 256 kept, 100 at the beginning */
  readonly retries?: BudgetLimits;
  /** @default 0.09 of the requests, none by themselves, up to 32 kept, 2 at the beginning */
  readonly hedges?: BudgetLimits;
  readonly breaker?: BreakerOptions;
}

const RETRIES: BudgetLimits = { ratio: 0.2, perSecond: 10, burst: 256, initial: 100 };
const HEDGES: BudgetLimits = { ratio: 0.09, perSecond: 0, burst: 32, initial: 2 };
const LIMITS: CallLimits = { maxConcurrentShards: 64, maxAttempts: 3, minAttemptMs: 5, hedgeAfter: "p95" };

/** What the calls of one thread share. */
export interface ExecutorState {
  readonly clock: Clock;
  readonly random: Random;
  readonly loads: LoadBook;
  readonly due: DueQueue;
  readonly breakers: Breakers;
  readonly retries: RetryBudget;
  readonly hedger: Hedger;
  readonly stats: ExecutorStats;
}

/** Executes the plans of one client thread. */
export class Executor {
  readonly #state: ExecutorState;
  readonly #limits: CallLimits;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a limit out of range. */
  constructor(options: ExecutorOptions) {
    const { clock, scheduler, random, loads } = options;
    const nowMs = clock.nowMs();
    checkLimits(options.limits ?? {});
    this.#limits = { ...LIMITS, ...options.limits };
    this.#state = {
      clock,
      random,
      loads,
      due: new DueQueue(clock, scheduler),
      breakers: new Breakers(random, options.breaker),
      retries: new RetryBudget(options.retries ?? RETRIES, nowMs),
      hedger: new Hedger(loads, new RetryBudget(options.hedges ?? HEDGES, nowMs)),
      stats: createExecutorStats(),
    };
  }

  /** The breakers, for planners that pass over shards that do not answer. */
  get breakers(): Breakers {
    return this.#state.breakers;
  }

  /** What extra requests are paid from, also those that others make. */
  get retries(): RetryBudget {
    return this.#state.retries;
  }

  /** A snapshot of the counters. */
  get stats(): ExecutorStats {
    return { ...this.#state.stats, breakersOpened: this.#state.breakers.opened };
  }

  /** Hedges, pauses and looks that wait for their time. */
  get waiting(): number {
    return this.#state.due.size;
  }

  /**
   * Sends what the call's plan says and gathers the answers.
   *
   * @returns a rejection with the first definite error (policy `all`), with that which made a quorum impossible, with the
   *   first of all errors when nobody answered, or with `ERR_UNAVAILABLE` / `ERR_STALE_REPLICA` (the plan has vshards
   *   without a copy), `ERR_TIMEOUT`, `ERR_ABORTED`, `ERR_INVALID_ARGUMENT`.
   */
  execute<T>(call: ExecutionCall<T>): Promise<Gathered<T>> {
    this.#state.stats.calls++;
    try {
      let limits = this.#limits;
      if (call.limits !== undefined) {
        checkLimits(call.limits);
        limits = { ...limits, ...call.limits };
      }
      return new Execution(this.#state, call, limits).run();
    } catch (error) {
      return Promise.reject(ShardloomError.from(error));
    }
  }

  /** Ends what waits for its time with `ERR_CLOSED`; what is under way ends with its requester. */
  close(): void {
    this.#state.due.close();
  }
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a limit out of range. */
export function checkLimits(limits: Partial<CallLimits>): void {
  const { maxConcurrentShards, maxAttempts, minAttemptMs, hedgeAfter } = { ...LIMITS, ...limits };
  requireCount("maxConcurrentShards", maxConcurrentShards);
  requireCount("maxAttempts", maxAttempts);
  if (!(minAttemptMs >= 0 && minAttemptMs < Infinity))
    throw invalidArgument("execute plan", "minAttemptMs", "a finite number ≥ 0", minAttemptMs);
  if (hedgeAfter !== "p95" && hedgeAfter !== "off" && !(typeof hedgeAfter === "number" && hedgeAfter >= 0))
    throw invalidArgument("execute plan", "hedgeAfter", '"p95", "off" or a number of milliseconds ≥ 0', hedgeAfter);
}

function requireCount(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1) throw invalidArgument("execute plan", name, "an integer ≥ 1", value);
}
