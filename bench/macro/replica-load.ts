/**
 * Open-loop load on a `ReplicaStage`: calls begin when they are due, whatever became of the earlier ones.
 *
 * Invariant: a sample is the time from the begin of a call to its answer; every call is answered whole, or the bench
 * fails. Arrivals are a Poisson process from a seed, so that all sides of a comparison get the same ones.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Executor } from "../../src/routing/executor.ts";
import type { ExecutorStats } from "../../src/routing/executor-stats.ts";
import type { HedgePolicy } from "../../src/routing/hedge.ts";
import { checkReadOptions, type PlanRequest, type PlanTarget, type Strategy } from "../../src/routing/plan.ts";
import { Planner } from "../../src/routing/planner.ts";
import { ReplicaLoads } from "../../src/routing/replica-loads.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { type BenchCase, type BenchRow, median, quantile, toRow } from "../harness/harness.ts";
import type { ReplicaStage } from "./replica-stage.ts";

/** One side: how calls are planned and hedged, and how long shards take. */
export interface Side {
  readonly name: string;
  readonly side: string;
  readonly strategy: Strategy;
  readonly hedgeAfter: HedgePolicy;
  readonly serviceUs: (shard: number, random: Random) => number;
  /** One vshard a call, or all of them. */
  readonly kind: "point" | "scatter";
}

/** How much load, and for how long. */
export interface Load {
  readonly calls: number;
  readonly perSecond: number;
  readonly seed: number;
}

const TIMEOUT_MS = 20_000;

/** The p99s of a side's rounds as a row. */
export function p99Row({ name, side, p99s }: LoadedSide): BenchRow {
  return toRow(`${name}: p99 of a round`, side, "ms", p99s);
}

/**
 * p99 of one side over that of another, round by round; their median, so that a minute in which somebody else has the
 * cores does not decide.
 */
export function p99Ratio(side: LoadedSide | undefined, baseline: LoadedSide | undefined): number {
  const theirs = baseline?.p99s ?? [];
  return median((side?.p99s ?? []).map((p99, round) => p99 / (theirs[round] ?? Number.NaN)));
}

/** One side as a case of the harness; samples are milliseconds. */
export class LoadedSide implements BenchCase {
  readonly name: string;
  readonly side: string;
  readonly unit = "ms";
  readonly #stage: ReplicaStage;
  readonly #given: Side;
  readonly #load: Load;
  readonly #executor: Executor;
  readonly #planner: Planner;
  readonly #p99s: number[] = [];
  #rounds = 0;
  #whole = 0;
  #calls = 0;

  constructor(stage: ReplicaStage, given: Side, load: Load) {
    this.name = given.name;
    this.side = given.side;
    this.#stage = stage;
    this.#given = given;
    this.#load = load;
    const loads = new ReplicaLoads(stage.snapshot.shards);
    const random = createSeededRandom(load.seed);
    this.#planner = new Planner({ random, clock: systemClock, loads });
    const limits = { hedgeAfter: given.hedgeAfter };
    this.#executor = new Executor({ clock: systemClock, scheduler: systemScheduler, random, loads, limits });
  }

  get stats(): ExecutorStats {
    return this.#executor.stats;
  }

  /** p99 of each round, in ms, without the first, which warms up. */
  get p99s(): readonly number[] {
    return this.#p99s.slice(1);
  }

  async run(): Promise<number[]> {
    const { calls, perSecond, seed } = this.#load;
    // Another seed each round, the same for all sides of it.
    const random = createSeededRandom(seed + this.#rounds++);
    const services = createSeededRandom(seed + 1_000_000 + this.#rounds);
    const samples: number[] = [];
    const open: Promise<void>[] = [];
    const startedMs = systemClock.nowMs();
    let dueMs = startedMs;
    for (let call = 0; call < calls; call++) {
      dueMs += (-Math.log(1 - random.float()) * 1000) / perSecond;
      const aheadMs = dueMs - systemClock.nowMs();
      if (aheadMs > 0) await sleep(aheadMs);
      open.push(this.#ask(random, services, samples));
    }
    await Promise.all(open);
    this.#p99s.push(quantile(samples, 0.99));
    return samples;
  }

  validate(): void {
    const { shards } = this.#stage.snapshot;
    if (this.#whole === 0 || this.#whole !== this.#calls)
      throw new Error(`${this.name}, ${this.side}: ${this.#whole} of ${this.#calls} calls were answered whole`);
    for (let shard = 0; shard < shards; shard++)
      if (this.#stage.served(shard) === 0) throw new Error(`${this.name}, ${this.side}: shard ${shard} served nothing`);
  }

  close(): void {
    this.#executor.close();
  }

  async #ask(random: Random, services: Random, samples: number[]): Promise<void> {
    const { strategy, kind, serviceUs } = this.#given;
    const { snapshot } = this.#stage;
    const rules = checkReadOptions({ strategy });
    const vshard = random.u32() % snapshot.vshards;
    const request: PlanRequest = kind === "point" ? { kind, snapshot, rules, vshard } : { kind, snapshot, rules };
    this.#calls++;
    const startedMs = systemClock.nowMs();
    const plan = this.#planner.plan(request);
    const wanted = plan.targets.reduce((sum, { vshards }) => sum + vshards.length, 0);
    const service = ({ shard }: PlanTarget): number => serviceUs(shard, services);
    const { answers, completeness } = await this.#executor.execute(this.#stage.call(plan, TIMEOUT_MS, service));
    samples.push(systemClock.nowMs() - startedMs);
    const answered = new Set(answers.flatMap(({ vshards }) => vshards)).size;
    if (completeness.complete && answered === wanted && completeness.vshards.answered === wanted) this.#whole++;
  }
}
