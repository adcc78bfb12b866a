/**
 * Shrinking: a failing run becomes the smallest one found that fails by the same rule: few faults, few operations, round numbers.
 *
 * Invariant: what is returned was run and broke the rule that the input broke, and is never larger than the input. Which candidates are tried,
 * and in which order, depends on their outcomes alone; only the wall limit, which ends the search early, depends on the machine.
 * Source: Zeller and Hildebrandt (see ddmin.ts); "same rule" is their caution against ending with another failure (section 2).
 * **Divergence**: after the lists, numbers are made smaller and rounder, as Hypothesis and fast-check do.
 */
import { invalidArgument } from "../errors.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import { type Scheduler, systemScheduler } from "../runtime/scheduler.ts";
import { ddmin, type FirstFailing, shortestPrefix } from "./ddmin.ts";
import type { Fault } from "./fault-types.ts";
import type { Violation } from "./history-types.ts";
import {
  compactProcesses,
  earlier,
  fewerNodes,
  keepTimes,
  reaimed,
  shorterPauses,
  simplerFault,
  simplerOperation,
} from "./simplify.ts";
import type { Operation } from "./workload-types.ts";

/** What a run is made of, as far as shrinking may change it. */
export interface Scenario {
  readonly nodes: number;
  readonly faults: readonly Fault[];
  readonly operations: readonly Operation[];
}

/** The part of a run's result that shrinking looks at. */
export interface Verdict {
  readonly violations: readonly Violation[];
}

/** Runs a scenario in a fresh world. A rejection means that it could not be judged, except by abort: that ends the search. */
export type RunScenario = (scenario: Scenario, options: { readonly signal: AbortSignal }) => Promise<Verdict>;

export interface ShrinkProgress {
  readonly runs: number;
  readonly nodes: number;
  readonly faults: number;
  readonly operations: number;
  /** Candidates that could not be judged, as their run threw. */
  readonly unresolved: number;
}

export interface ShrinkOptions {
  /** Ends the search; the best scenario so far is returned. */
  readonly signal?: AbortSignal;
  /** Real time after which the best scenario so far is returned, in ms: `>= 0`. @default 60000 */
  readonly wallLimitMs?: number;
  /** Runs after which the best scenario so far is returned: `>= 1`. @default 2000 */
  readonly maxRuns?: number;
  /** Candidates run at a time; more than one changes how long it takes, never what comes out: `>= 1`. @default 1 */
  readonly concurrency?: number;
  readonly onProgress?: (progress: ShrinkProgress) => void;
  /** Of the real world, as shrinking is outside of any simulated one. @default systemClock */
  readonly clock?: Clock;
  /** @default systemScheduler */
  readonly scheduler?: Scheduler;
}

export interface ShrinkResult extends Scenario {
  /** What the scenario broke when it last ran. */
  readonly violation: Violation;
  /** Worlds run, the first repeat of the input included. */
  readonly runs: number;
  readonly unresolved: number;
  /** False when the search was ended by its limit, its signal or the number of runs: smaller ones may exist. */
  readonly isMinimal: boolean;
  readonly wallMs: number;
}

const DEFAULT_WALL_LIMIT_MS = 60_000;
const DEFAULT_MAX_RUNS = 2_000;

/** The search was ended: by time, number of runs, or signal. */
class SearchEnded extends Error {}

/**
 * Shrinks a failing run.
 *
 * Shape: `failing` as it was run, with the name of the rule that it broke; rules are compared by name.
 * Cost: 20 to some hundred runs for 1,000 operations and 100 faults; outcomes are remembered, so that no scenario runs twice.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when `failing`, run again, does not break `rule`, or an option is out of range; what the run
 * throws when `failing` itself cannot be run.
 *
 * @example
 * const small = await shrink((scenario) => runAgain(scenario), { nodes: 3, faults, operations, rule: violation.rule });
 */
export async function shrink(
  run: RunScenario,
  failing: Scenario & { readonly rule: string },
  options: ShrinkOptions = {},
): Promise<ShrinkResult> {
  const limits = resolveLimits(options);
  const search = new Search(run, failing, limits, options);
  try {
    await search.confirm(failing);
    const isMinimal = await search.minimise();
    return search.result(isMinimal);
  } finally {
    search.close();
  }
}

interface Limits {
  readonly wallLimitMs: number;
  readonly maxRuns: number;
  readonly concurrency: number;
}

function resolveLimits(options: ShrinkOptions): Limits {
  const { wallLimitMs = DEFAULT_WALL_LIMIT_MS, maxRuns = DEFAULT_MAX_RUNS, concurrency = 1 } = options;
  if (!(wallLimitMs >= 0))
    throw invalidArgument("shrink run", "wallLimitMs", "a number of ms of 0 or more", wallLimitMs);
  for (const [name, value] of Object.entries({ maxRuns, concurrency })) {
    if (!Number.isSafeInteger(value) || value < 1)
      throw invalidArgument("shrink run", name, "a positive integer", value);
  }
  return { wallLimitMs, maxRuns, concurrency };
}

/** One search: what was tried, and the best so far. */
class Search {
  readonly #run: RunScenario;
  readonly #rule: string;
  readonly #limits: Limits;
  readonly #options: ShrinkOptions;
  readonly #clock: Clock;
  readonly #startMs: number;
  readonly #stop: AbortController = new AbortController();
  readonly #cancelTimer: () => void;
  /** By {@link Search.#key}: what a scenario that was run breaks of the rule. */
  readonly #outcomes: Map<string, Violation | undefined> = new Map();
  readonly #idsByText: Map<string, number> = new Map();
  readonly #idsByObject: WeakMap<object, number> = new WeakMap();
  #best: Scenario;
  #violation: Violation | undefined;
  #runs = 0;
  #unresolved = 0;

  constructor(run: RunScenario, failing: Scenario & { readonly rule: string }, limits: Limits, options: ShrinkOptions) {
    this.#run = run;
    this.#rule = failing.rule;
    this.#limits = limits;
    this.#options = options;
    this.#best = plain(failing);
    this.#clock = options.clock ?? systemClock;
    this.#startMs = this.#clock.nowMs();
    this.#cancelTimer = (options.scheduler ?? systemScheduler).after(limits.wallLimitMs, this.#abort);
    options.signal?.addEventListener("abort", this.#abort, { once: true });
    if (options.signal?.aborted === true) this.#abort();
  }

  close(): void {
    this.#cancelTimer();
    this.#options.signal?.removeEventListener("abort", this.#abort);
  }

  /** Runs the input once more: what cannot be repeated cannot be shrunk. It has all the time it needs. */
  async confirm(failing: Scenario): Promise<void> {
    const { signal } = this.#options;
    this.#runs = 1;
    const { violations } = await this.#run(this.#best, { signal: signal ?? new AbortController().signal });
    this.#violation = violations.find(({ rule }) => rule === this.#rule);
    this.#outcomes.set(this.#key(failing), this.#violation);
    if (this.#violation !== undefined) return;
    const found = violations.length === 0 ? "a run that passes" : `a run that breaks ${violations[0]?.rule}`;
    throw invalidArgument("shrink run", "failing", `a run that breaks "${this.#rule}" again when repeated`, found);
  }

  /** @returns whether nothing smaller is left to try */
  async minimise(): Promise<boolean> {
    try {
      await this.#cutLists();
      for (;;) {
        const before = this.#best;
        await this.#simplify();
        if (this.#best === before) return true;
        await this.#cutLists();
      }
    } catch (error) {
      if (error instanceof SearchEnded) return false;
      throw error;
    }
  }

  result(isMinimal: boolean): ShrinkResult {
    return {
      ...this.#best,
      violation: this.#violation as Violation,
      runs: this.#runs,
      unresolved: this.#unresolved,
      isMinimal,
      wallMs: this.#clock.nowMs() - this.#startMs,
    };
  }

  readonly #abort = (): void => {
    this.#stop.abort();
  };

  /** Operations first, as fewer of them make every later run shorter; then faults; again while it helps. */
  async #cutLists(): Promise<void> {
    await shortestPrefix(this.#best.operations, this.#ofOperations());
    for (;;) {
      const before = this.#best;
      // Whole kinds and processes first: they are what one can leave out without disturbing the rest.
      await this.#ddminGroups(
        this.#best.faults,
        ({ kind }) => kind,
        (faults) => ({ ...this.#best, faults }),
      );
      await ddmin(this.#best.faults, (lists) => this.#first(map(lists, (faults) => ({ ...this.#best, faults }))));
      await this.#ddminGroups(
        this.#best.operations,
        ({ process }) => process,
        (operations) => ({ ...this.#best, operations }),
      );
      await this.#first(reaimed(this.#best));
      await ddmin(this.#best.operations, this.#ofOperations());
      if (this.#best === before) return;
    }
  }

  /** Leaves out all parts with one mark, or several. */
  async #ddminGroups<T>(
    parts: readonly T[],
    markOf: (part: T) => string | number,
    scenarioOf: (kept: readonly T[]) => Scenario,
  ): Promise<void> {
    const partsOf = (marks: readonly (string | number)[]): readonly T[] => {
      const kept = new Set(marks);
      return parts.filter((part) => kept.has(markOf(part)));
    };
    const marks = [...new Set(parts.map(markOf))];
    await ddmin(marks, (lists) => this.#first(map(lists, (kept) => scenarioOf(partsOf(kept)))));
  }

  /** Parts of the operations as they are now, at their times. */
  #ofOperations(): FirstFailing<Operation> {
    const all = this.#best.operations;
    return (lists) => this.#first(map(lists, (kept) => ({ ...this.#best, operations: keepTimes(all, kept) })));
  }

  /** Fewer nodes, then simpler numbers; faults last, as there are few. Each until nothing simpler fails. */
  async #simplify(): Promise<void> {
    await this.#first(fewerNodes(this.#best));
    await this.#first(compactProcesses(this.#best));
    while ((await this.#first(earlier(this.#best))) >= 0);
    while ((await this.#first(shorterPauses(this.#best))) >= 0);
    for (let index = 0; index < this.#best.operations.length; index++) {
      while ((await this.#first(simplerOperation(this.#best, index))) >= 0);
    }
    for (let index = 0; index < this.#best.faults.length; index++) {
      while ((await this.#first(simplerFault(this.#best, index))) >= 0);
    }
  }

  /** Runs candidates in order, some at a time, and keeps the first that breaks the rule. @returns its index, or -1 */
  async #first(candidates: Iterable<Scenario>): Promise<number> {
    const { concurrency } = this.#limits;
    let batch: Scenario[] = [];
    let start = 0;
    const runBatch = async (): Promise<number> => {
      const outcomes = await Promise.all(batch.map((scenario) => this.#outcome(scenario)));
      for (const [at, outcome] of outcomes.entries()) {
        if (outcome === "ended") throw new SearchEnded();
        if (outcome === undefined) continue;
        this.#best = batch[at] as Scenario;
        this.#violation = outcome;
        this.#report();
        return start + at;
      }
      start += batch.length;
      batch = [];
      return -1;
    };
    for (const candidate of candidates) {
      if (batch.push(candidate) < concurrency) continue;
      const found = await runBatch();
      if (found >= 0) return found;
    }
    return runBatch();
  }

  /** What a scenario breaks of the rule, or undefined; a run that throws breaks nothing that can be told. */
  async #outcome(scenario: Scenario): Promise<Violation | "ended" | undefined> {
    const key = this.#key(scenario);
    if (this.#outcomes.has(key)) return this.#outcomes.get(key);
    const { signal } = this.#stop;
    if (signal.aborted || this.#runs >= this.#limits.maxRuns) return "ended";
    this.#runs++;
    let violation: Violation | undefined;
    try {
      const { violations } = await this.#run(scenario, { signal });
      violation = violations.find(({ rule }) => rule === this.#rule);
    } catch {
      // Delta debugging's third outcome: a cut may leave a scenario that makes no sense. It is counted and not kept.
      if (signal.aborted) return "ended";
      this.#unresolved++;
    }
    this.#outcomes.set(key, violation);
    this.#report();
    return violation;
  }

  #report(): void {
    const { nodes, faults, operations } = this.#best;
    this.#options.onProgress?.({
      runs: this.#runs,
      nodes,
      faults: faults.length,
      operations: operations.length,
      unresolved: this.#unresolved,
    });
  }

  /** One text for each scenario: the numbers of its parts, which are the same for equal parts. */
  #key({ nodes, faults, operations }: Scenario): string {
    const list = (parts: readonly object[]): string => parts.map((part) => this.#idOf(part)).join();
    return `${nodes}|${list(faults)}|${list(operations)}`;
  }

  #idOf(part: object): number {
    const known = this.#idsByObject.get(part);
    if (known !== undefined) return known;
    const text = JSON.stringify(part);
    const id = this.#idsByText.get(text) ?? this.#idsByText.size;
    this.#idsByText.set(text, id);
    this.#idsByObject.set(part, id);
    return id;
  }
}

function* map<T, U>(items: Iterable<T>, change: (item: T) => U): Generator<U> {
  for (const item of items) yield change(item);
}

function plain({ nodes, faults, operations }: Scenario): Scenario {
  return { nodes, faults, operations };
}
