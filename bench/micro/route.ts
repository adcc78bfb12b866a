/** Bench `route`: goal C1 of the planner, C6 of the strategies at work. Each goal's cases are in a file of their own. */

import { type GoalResult, judge } from "../harness/goals.ts";
import {
  type Bench,
  type BenchContext,
  type BenchReport,
  type BenchRow,
  interleave,
  sized,
  toRow,
} from "../harness/harness.ts";
import { measureReplicas } from "../macro/route-replicas.ts";
import { measurePlanHeap } from "./route-memory.ts";
import { OWN_COPIES, planCases } from "./route-plan.ts";

/** What the heap's own counting may be off by. */
const HEAP_ERROR_BYTES = 16;

/** C1: the slowest strategy counts, and none counts when planning allocates more than the plans. */
function planningGoal(context: BenchContext, rows: BenchRow[]): GoalResult {
  context.log("route: heap");
  const { plans, allocated, kept, collections } = measurePlanHeap(5_000);
  rows.push(toRow("heap taken", "power-of-two", "bytes/plan", [allocated]));
  rows.push(toRow("heap of the plan itself", "power-of-two", "bytes/plan", [kept]));
  const scatters = rows.filter((row) => row.case === OWN_COPIES);
  const slowest = scatters.reduce((worst, row) => (row.median > worst.median ? row : worst));
  const isLean = collections === 0 && allocated - kept <= HEAP_ERROR_BYTES;
  const note =
    `slowest: ${slowest.side}, p99 ${slowest.p99.toFixed(1)} us; ${(allocated - kept).toFixed(1)} bytes a plan beyond the ` +
    `plan's own ${kept.toFixed(0)}, over ${plans} plans, ${collections} collections`;
  return judge(context.goals, "C1", isLean ? slowest.median : Number.NaN, note);
}

async function run(context: BenchContext): Promise<BenchReport> {
  const rows: BenchRow[] = [];
  const goals: GoalResult[] = [];
  context.log("route: plans");
  rows.push(...(await interleave(planCases(context.seed), sized(context.mode, 5, 101, 401))));
  goals.push(planningGoal(context, rows));
  context.log("route: replicas");
  const replicas = await measureReplicas(context);
  rows.push(...replicas.rows);
  goals.push(replicas.goal);
  return { rows, goals, notes: ["C1: one thread; every sample is one plan, the clock's own 0.05 us included"] };
}

export const bench: Bench = { name: "route", run };
