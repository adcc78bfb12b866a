/**
 * C1: the time of one plan. Every sample is one plan, timed by itself, so that the p99 is that of plans.
 *
 * Invariant: a case whose plans do not cover every vshard exactly once, or that spread over too few shards, fails the bench.
 */
import { type Consistency, checkReadOptions, type Plan, type PlanRequest, STRATEGIES } from "../../src/routing/plan.ts";
import { Planner } from "../../src/routing/planner.ts";
import { ReplicaLoads } from "../../src/routing/replica-loads.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { createSnapshot, type TopologySnapshot } from "../../src/topology/snapshot.ts";
import type { BenchCase } from "../harness/harness.ts";

const SHARDS = 16;
const VSHARDS = 64;
const COPIES = 3;
const PLANS_A_SAMPLE = 200;

/** The map of C1: no two vshards have the same copies in the same order, so every one is a replica group. */
export const OWN_COPIES = "64 vshards, copies of their own";
const SHARED_COPIES = "64 vshards in 16 groups";

/** 64 vshards with 3 copies each over 16 shards. */
export function planTopology(name: typeof OWN_COPIES | typeof SHARED_COPIES): TopologySnapshot {
  const copies = new Uint16Array(VSHARDS * COPIES);
  for (let vshard = 0; vshard < VSHARDS; vshard++) {
    const round = name === OWN_COPIES ? Math.floor(vshard / SHARDS) : 0;
    copies.set([vshard % SHARDS, (vshard + 1 + round) % SHARDS, (vshard + 6 + 2 * round) % SHARDS], vshard * COPIES);
  }
  return createSnapshot({ shards: SHARDS, vshards: VSHARDS, replicationFactor: COPIES, copies });
}

/** A planner in the middle of its work: shards differ in latency and in requests in flight. */
export function busyPlanner(seed: number): Planner {
  const random = createSeededRandom(seed);
  const loads = new ReplicaLoads(SHARDS);
  for (let request = 0; request < 2_000; request++) {
    const shard = request % SHARDS;
    loads.begin(shard);
    loads.end(shard, 100 + (random.u32() % 100), true);
  }
  for (let shard = 0; shard < SHARDS; shard++) for (let left = random.u32() % 4; left > 0; left--) loads.begin(shard);
  const sample = { lagMs: 3, sampledAtMs: Number.POSITIVE_INFINITY };
  const lag = { lag: () => sample, appliedLsn: () => 1 };
  return new Planner({ random, clock: systemClock, loads, lag, localShard: 3 });
}

/** The whole scatter under every strategy, and what else is planned. */
export function planCases(seed: number): BenchCase[] {
  const own = planTopology(OWN_COPIES);
  const shared = planTopology(SHARED_COPIES);
  const session = { lsnOf: () => 1 };
  const withConsistency = (consistency: Consistency): PlanRequest => ({
    kind: "scatter",
    snapshot: own,
    rules: checkReadOptions({ consistency, session }),
  });
  const random = createSeededRandom(seed);
  const vshards = Array.from({ length: 1_000 }, () => random.u32() % VSHARDS);
  const rules = checkReadOptions();
  return [
    ...STRATEGIES.map((strategy) =>
      planCase(OWN_COPIES, strategy, seed, { kind: "scatter", snapshot: own, rules: checkReadOptions({ strategy }) }),
    ),
    planCase(SHARED_COPIES, "power-of-two", seed, { kind: "scatter", snapshot: shared, rules }),
    planCase(OWN_COPIES, "bounded-staleness", seed, withConsistency("bounded-staleness")),
    planCase(OWN_COPIES, "session", seed, withConsistency("session")),
    planCase("batch of 1000 ids", "power-of-two", seed, { kind: "batch", snapshot: own, rules, vshards }),
    planCase("point", "power-of-two", seed, { kind: "point", snapshot: own, rules, vshard: 17 }),
  ];
}

function planCase(name: string, side: string, seed: number, request: PlanRequest): BenchCase {
  const planner = busyPlanner(seed);
  const wanted = request.kind === "point" ? 1 : VSHARDS;
  let last: Plan | undefined;
  return {
    name,
    side,
    unit: "us/plan",
    run: () => {
      const samples: number[] = [];
      for (let plan = 0; plan < PLANS_A_SAMPLE; plan++) {
        const beforeMs = performance.now();
        last = planner.plan(request);
        samples.push((performance.now() - beforeMs) * 1_000);
      }
      return samples;
    },
    validate: () => requireWhole(last, wanted),
  };
}

/** @throws Error when a plan leaves a vshard out, has one twice, or goes to fewer shards than a spread scatter must. */
export function requireWhole(plan: Plan | undefined, wanted: number): void {
  const planned = plan?.targets.flatMap((target) => [...target.vshards]) ?? [];
  const enough = Math.min(wanted, SHARDS / 2);
  if (new Set(planned).size !== wanted || planned.length !== wanted || (plan?.targets.length ?? 0) < enough)
    throw new Error(`void: ${planned.length} vshards in ${plan?.targets.length ?? 0} targets, not ${wanted}`);
}
