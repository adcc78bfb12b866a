/** Bench `ask`: goals A2, A3, A5 and M4: messages between threads beside postMessage, Comlink and Erlang. */
import type { Bench, BenchContext, BenchReport } from "../harness/harness.ts";
import { Baseline } from "./ask-baseline.ts";
import { latency } from "./ask-latency.ts";
import { oneWay } from "./ask-oneway.ts";
import { startCluster } from "./ask-side.ts";
import { start } from "./start.ts";

async function run(context: BenchContext): Promise<BenchReport> {
  const notes = [
    "wake strategy: adaptive spin, then Atomics.wait slices on workers and Atomics.waitAsync on the caller; the budget stands with each row",
  ];
  const baseline = new Baseline();
  const usual = await startCluster();
  try {
    await baseline.online();
    const oneWays = await oneWay(context, usual, baseline, notes);
    const polling = await startCluster({ spinLimitUs: 1_000 });
    try {
      const trips = await latency(context, { usual, polling }, baseline);
      const starts = start(context);
      return {
        rows: [...oneWays.rows, ...trips.rows, ...starts.rows],
        goals: [...oneWays.goals, ...trips.goals, ...starts.goals],
        notes,
      };
    } finally {
      await polling.close();
    }
  } finally {
    await usual.close();
    await baseline.close();
  }
}

export const bench: Bench = { name: "ask", run };
