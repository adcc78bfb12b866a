/**
 * Programs for the schedule explorer, what to explore of them, and what comes out.
 *
 * Invariant: resolved options are whole and in range, so that nothing behind them checks again.
 */
import { describeValue, invalidArgument } from "../../errors.ts";
import type { MemoryModel } from "./machine.ts";
import type { ThreadHandle } from "./thread-tree.ts";

export type { MemoryModel } from "./machine.ts";
export type { ThreadHandle } from "./thread-tree.ts";

/** A body of one logical thread: code under test, run synchronously. Its result must be plain data. */
export type ThreadBody<S> = (shared: S, thread: ThreadHandle) => unknown;

/** A few threads over shared memory. */
export interface ExploredProgram<S> {
  /**
   * Makes the shared buffers, natively. Must do the same each time. Views of shared memory do not belong into what it
   * returns: each body makes its own, as a thread would.
   */
  readonly setup: () => S;
  /** One to eight bodies. What they change outside of shared memory they must have made themselves. */
  readonly threads: readonly ThreadBody<S>[];
  /**
   * Called once for each way in which memory and the results of the bodies can end; throws if that is wrong. May read and
   * write shared memory by views of its own, also by code under test; what it writes is undone.
   */
  readonly check: (outcome: { readonly shared: S; readonly results: readonly unknown[] }) => void;
  /** Sequential consistency, or x86's total store order. @default "sc" */
  readonly memory?: MemoryModel;
  /** Whether a wait with a finite timeout may time out at any moment; else none ever does, and lost wake-ups show. @default false */
  readonly timeouts?: boolean;
  /** Accesses after which a thread counts as endless, which is a violation. @default 20000 */
  readonly maxAccesses?: number;
}

/** Limits of an exhaustive search; what they cut off makes the result incomplete. */
export interface ExploreBound {
  /** Switches away from a thread that could have gone on. @default no limit */
  readonly preemptions?: number;
  /** Walks from a state to the end or to a known state. @default no limit */
  readonly schedules?: number;
}

/** Probabilistic concurrency testing: random priorities with `depth - 1` random changes. */
export interface PctStrategy {
  /** Ordering constraints that a bug may need, at least 1. */
  readonly depth: number;
  readonly seed: number;
  readonly schedules: number;
}

export interface ExploreOptions<S> extends ExploredProgram<S> {
  readonly bound?: ExploreBound;
  /** @default "exhaustive" */
  readonly strategy?: "exhaustive" | { readonly pct: PctStrategy };
}

/** A schedule that ends wrongly. */
export interface Violation {
  readonly message: string;
  /** For `replaySchedule`: accesses by thread (a, b, …), flushed stores (A, B, …), timeouts (a!), run-length encoded. */
  readonly schedule: string;
  /** The accesses that concern more than one thread, in order, with their place in the compiled code. */
  readonly trace: readonly string[];
}

export interface ExploreResult {
  /**
   * Schedules covered: of an exhaustive search the number of different orders of conflicting accesses (above 2^53 rounded),
   * else of the schedules run.
   */
  readonly schedules: number;
  /** Whether every schedule was covered. */
  readonly complete: boolean;
  /** Accesses performed. */
  readonly steps: number;
  /** Different states met by an exhaustive search; 0 for others. */
  readonly states: number;
  readonly violation?: Violation;
}

export interface ResolvedProgram<S> extends Required<ExploredProgram<S>> {
  readonly preemptions: number;
  readonly maxSchedules: number;
  readonly pct: PctStrategy | undefined;
}

const ACTION = "explore schedules";
const MAX_THREADS = 8;
const DEFAULT_MAX_ACCESSES = 20_000;

/** Fills and checks. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the field */
export function resolveExploreOptions<S>(options: ExploreOptions<S>): ResolvedProgram<S> {
  const { setup, threads, check, memory = "sc", timeouts = false, maxAccesses = DEFAULT_MAX_ACCESSES } = options;
  if (typeof setup !== "function") throw invalidArgument(ACTION, "setup", "a function", setup);
  if (typeof check !== "function") throw invalidArgument(ACTION, "check", "a function", check);
  if (!Array.isArray(threads) || threads.length < 1 || threads.length > MAX_THREADS)
    throw invalidArgument(ACTION, "threads", `an array of 1 to ${MAX_THREADS} functions`, threads);
  const stranger: unknown = threads.find((body) => typeof body !== "function");
  if (stranger !== undefined) throw invalidArgument(ACTION, "threads", "functions", stranger);
  if (threads.some((body) => body.constructor.name !== "Function"))
    throw invalidArgument(ACTION, "threads", "synchronous functions (thread.await stands for await)", "an async one");
  if (memory !== "sc" && memory !== "tso") throw invalidArgument(ACTION, "memory", '"sc" or "tso"', memory);
  if (typeof timeouts !== "boolean") throw invalidArgument(ACTION, "timeouts", "a boolean", timeouts);
  const { preemptions = Number.POSITIVE_INFINITY, schedules = Number.POSITIVE_INFINITY } = options.bound ?? {};
  checkCount("maxAccesses", maxAccesses, 1);
  if (preemptions !== Number.POSITIVE_INFINITY) checkCount("bound.preemptions", preemptions, 0);
  if (schedules !== Number.POSITIVE_INFINITY) checkCount("bound.schedules", schedules, 1);
  const pct = pctOf(options.strategy ?? "exhaustive");
  return { setup, threads, check, memory, timeouts, maxAccesses, preemptions, maxSchedules: schedules, pct };
}

function pctOf(strategy: ExploreOptions<unknown>["strategy"]): PctStrategy | undefined {
  if (strategy === "exhaustive" || strategy === undefined) return undefined;
  if (typeof strategy !== "object" || strategy === null || typeof strategy.pct !== "object")
    throw invalidArgument(ACTION, "strategy", '"exhaustive" or { pct }', strategy);
  const { depth, seed, schedules } = strategy.pct;
  checkCount("strategy.pct.depth", depth, 1);
  checkCount("strategy.pct.schedules", schedules, 1);
  if (!Number.isSafeInteger(seed)) throw invalidArgument(ACTION, "strategy.pct.seed", "an integer", seed);
  return { depth, seed, schedules };
}

function checkCount(name: string, value: unknown, least: number): void {
  if (!Number.isSafeInteger(value) || (value as number) < least)
    throw invalidArgument(ACTION, name, `an integer, at least ${least}`, value);
}

/** A thrown value in one line. */
export function describeError(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : describeValue(error);
}
