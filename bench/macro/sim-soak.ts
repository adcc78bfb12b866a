/**
 * Soaks: many runs of many workloads, in some worlds side by side, added up. Bench `sim` and the test of soaks run them.
 *
 * Invariant: which runs there are, and what each does, depends on the plan alone; lanes only share out the wall time.
 */
import { createWorld, type World } from "../../src/sim/create-world.ts";
import type { WorkloadRef } from "../../src/sim/workload-types.ts";
import { actorWorkload } from "../../src/sim/workloads/actor-workload.ts";
import { barrierWorkload } from "../../src/sim/workloads/barrier-workload.ts";
import { listAppendWorkload } from "../../src/sim/workloads/list-append-workload.ts";
import { logWorkload } from "../../src/sim/workloads/log-workload.ts";
import { natsWorkload } from "../../src/sim/workloads/nats-workload.ts";
import { registerWorkload } from "../../src/sim/workloads/register-workload.ts";
import { searchWorkload } from "../../src/sim/workloads/search-workload.ts";
import type { RunResult, WorldOptions } from "../../src/sim/world-types.ts";

/** More than one operation a node and second, as clients that wait for a dead node begin none. */
const CLIENT = { processesPerNode: 1, ratePerSecond: 1.6 };
const LOAD = { clients: 5, perSecond: 1.6 };

/** Every workload, with so many clients that at least one operation for each node and simulated second is answered. */
export const SOAKED: Readonly<Record<string, WorkloadRef>> = {
  "register strong": registerWorkload(LOAD),
  "register session": registerWorkload({ ...LOAD, keys: 20, consistency: "session" }),
  "register bounded-staleness": registerWorkload({ ...LOAD, keys: 20, consistency: "bounded-staleness" }),
  "register eventual": registerWorkload({ ...LOAD, keys: 20, consistency: "eventual" }),
  actors: actorWorkload(LOAD),
  "list-append": listAppendWorkload(LOAD),
  search: searchWorkload({ ...LOAD, documents: 20 }),
  barrier: barrierWorkload({ clients: 25, perSecond: 2 }),
  log: logWorkload(CLIENT),
  nats: natsWorkload(CLIENT),
};

/** What else worlds are, by seed: whether nodes keep their data, others take over what a lost one had, a minority stays cut off at last. */
const VARIANTS: readonly WorldOptions[] = [
  {},
  { durability: "fsync" },
  { leases: true, heal: "majority" },
  { durability: "fsync", leases: true },
  { heal: "majority" },
  { durability: "os" },
];

/** What a world of this seed is, besides what the plan says. */
export function variantOf(seed: number): WorldOptions {
  return VARIANTS[seed % VARIANTS.length] as WorldOptions;
}

/** One run of a soak. */
export interface SoakRun {
  readonly name: string;
  readonly seed: number;
  readonly result: RunResult;
}

export interface SoakPlan {
  readonly world: WorldOptions;
  /** Seeds of each workload. */
  readonly seeds: readonly number[];
  /** Worlds at a time. */
  readonly lanes: number;
  /** Real time after which no further run begins, in ms. */
  readonly budgetMs: number;
}

export interface SoakTotals {
  readonly runs: number;
  /** Simulated hours of whole clusters. */
  readonly clusterHours: number;
  /** Operations of clients that were answered: what was to be done and never begun, refused or left in doubt does not count. */
  readonly operations: number;
  readonly faults: number;
  readonly events: number;
  readonly wallMs: number;
  /** Answered operations for each node and second of all simulated time, of the workload with the fewest over all its runs. */
  readonly leastRate: number;
}

/** Runs every workload with every seed, until the budget is spent. @param onRun called after each run, with its result */
export async function soak(plan: SoakPlan, onRun: (run: SoakRun) => void): Promise<SoakTotals> {
  const started = performance.now();
  const waiting = plan.seeds.flatMap((seed) => Object.entries(SOAKED).map(([name, ref]) => ({ name, ref, seed })));
  const byWorkload = new Map<string, { answered: number; nodeSeconds: number }>();
  let [runs, simulatedMs, operations, faults, events] = [0, 0, 0, 0, 0];
  const lane = async (): Promise<void> => {
    let open: { readonly variant: WorldOptions; readonly world: World } | undefined;
    try {
      while (performance.now() - started < plan.budgetMs) {
        const next = waiting.shift();
        if (next === undefined) return;
        const variant = variantOf(next.seed);
        if (open?.variant !== variant) {
          await open?.world.close();
          open = { variant, world: createWorld({ ...plan.world, ...variant }) };
        }
        const { world } = open;
        const result = await world.run(next.ref, { seed: next.seed });
        onRun({ name: next.name, seed: next.seed, result });
        const answered = answeredOf(result);
        const sums = byWorkload.get(next.name) ?? { answered: 0, nodeSeconds: 0 };
        sums.answered += answered;
        sums.nodeSeconds += (world.options.nodes * result.simulatedMs) / 1_000;
        byWorkload.set(next.name, sums);
        runs++;
        simulatedMs += result.simulatedMs;
        operations += answered;
        faults += result.faults.length;
        events += result.events;
      }
    } finally {
      await open?.world.close();
    }
  };
  await Promise.all(Array.from({ length: plan.lanes }, lane));
  const wallMs = performance.now() - started;
  const rates = [...byWorkload.values()].map(({ answered, nodeSeconds }) => answered / nodeSeconds);
  const leastRate = Math.min(...rates);
  return { runs, clusterHours: simulatedMs / 3_600_000, operations, faults, events, wallMs, leastRate };
}

/** Operations of a run that were answered. */
export function answeredOf({ history }: Pick<RunResult, "history">): number {
  return history.reduce((sum, { type }) => sum + (type === "ok" ? 1 : 0), 0);
}
