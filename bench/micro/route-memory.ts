/**
 * C1: the heap bytes that planning takes, against those that the plans themselves are. What is allocated is the growth of the
 * heap while plans are made and dropped and nothing is collected; what a plan is, the growth that is left after a collection
 * when all are kept. Runs in a child process, so that nothing else allocates; also a program:
 * `node --expose-gc --min-semi-space-size=64 dist/bench/micro/route-memory.js PLANS`.
 */
import { execFileSync } from "node:child_process";
import { PerformanceObserver } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { checkReadOptions, type Plan, type PlanRequest } from "../../src/routing/plan.ts";
import { busyPlanner, OWN_COPIES, planTopology, requireWhole } from "./route-plan.ts";

export interface PlanHeap {
  readonly plans: number;
  /** Bytes taken per plan. */
  readonly allocated: number;
  /** Bytes of one plan that is kept. */
  readonly kept: number;
  /** Collections while bytes were counted; more than none would hide some. */
  readonly collections: number;
}

const SEMI_SPACE_MIB = 64;
const WARM_UP_PLANS = 50_000;
const PASSES = 5;

/** Measures in a child process. */
export function measurePlanHeap(plans: number): PlanHeap {
  const flags = [`--min-semi-space-size=${SEMI_SPACE_MIB}`, `--max-semi-space-size=${SEMI_SPACE_MIB}`, "--expose-gc"];
  const output = execFileSync(process.execPath, [...flags, fileURLToPath(import.meta.url), String(plans)], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 60_000,
  });
  return JSON.parse(output) as PlanHeap;
}

async function main(plans: number): Promise<void> {
  const collect = (globalThis as { gc?: () => void }).gc;
  if (collect === undefined) throw new Error("run with --expose-gc");
  const planner = busyPlanner(1);
  const request: PlanRequest = { kind: "scatter", snapshot: planTopology(OWN_COPIES), rules: checkReadOptions() };
  const keep = new Array<Plan | undefined>(plans).fill(undefined);
  const make = (count: number, mask: number): void => {
    for (let plan = 0; plan < count; plan++) keep[plan & mask] = planner.plan(request);
  };
  const growth = (count: number, mask: number, end: () => void): number => {
    collect();
    const before = process.memoryUsage().heapUsed;
    make(count, mask);
    end();
    return (process.memoryUsage().heapUsed - before) / count;
  };
  make(WARM_UP_PLANS, 0); // compiles
  growth(plans, 0, () => undefined);
  let collections = 0;
  const observer = new PerformanceObserver((list) => {
    // Asked for ones have the flag "forced".
    for (const entry of list.getEntries())
      if (((entry as { detail?: { flags?: number } }).detail?.flags ?? 0) === 0) collections++;
  });
  observer.observe({ entryTypes: ["gc"] });
  // The least of some passes: what the engine itself does meanwhile, as compiling, is in some; what a plan takes is in all.
  let allocated = Number.POSITIVE_INFINITY;
  for (let pass = 0; pass < PASSES; pass++)
    allocated = Math.min(
      allocated,
      growth(plans, 0, () => undefined),
    );
  await new Promise((resolve) => setTimeout(resolve, 20)); // the observer is told a turn later
  observer.disconnect();
  keep.fill(undefined);
  const kept = growth(plans, 0xffff_ffff, collect);
  requireWhole(keep[plans - 1], 64);
  process.stdout.write(JSON.stringify({ plans, allocated, kept, collections } satisfies PlanHeap));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(Number(process.argv[2]));
