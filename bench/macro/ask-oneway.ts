/** A2 and A2b: one-way messages, counted by their receiver, beside postMessage and Erlang. */
import type { Cluster } from "../../src/index.ts";
import { type GoalResult, judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, median, sized, toRow } from "../harness/harness.ts";
import type { Baseline } from "./ask-baseline.ts";
import { compileErlang } from "./ask-erlang.ts";
import { flood, floodAcross } from "./ask-side.ts";

/** Rounds before the first that counts: the compiler's own threads need time on a busy machine. */
const WARM_ROUNDS = 8;

/** Measures A2, A2b and R4b. */
export async function oneWay(
  context: BenchContext,
  cluster: Cluster,
  baseline: Baseline,
  notes: string[],
): Promise<{ rows: BenchRow[]; goals: GoalResult[] }> {
  const { mode, goals } = context;
  const messages = sized(mode, 20_000, 200_000, 300_000);
  const posts = sized(mode, 10_000, 30_000, 100_000);
  const rounds = sized(mode, 2, 7, 15);
  const erlang = compileErlang((line) => notes.push(line));
  const samples: Record<string, number[]> = {
    main: [],
    mainPost: [],
    across: [],
    acrossPost: [],
    beam: [],
    beamTrip: [],
  };
  const add = (name: string, value: number): unknown => samples[name]?.push(value);
  try {
    for (let warm = 0; warm < WARM_ROUNDS; warm++) {
      await flood(cluster, messages);
      await floodAcross(cluster, messages);
      await baseline.flood(posts);
      await baseline.floodAcross(posts);
    }
    const before = load(cluster);
    for (let round = 0; round < rounds; round++) {
      add("main", ((await flood(cluster, messages)) * 1e6) / messages);
      add("mainPost", ((await baseline.flood(posts)) * 1e6) / posts);
      add("across", ((await floodAcross(cluster, messages)) * 1e6) / messages);
      add("acrossPost", ((await baseline.floodAcross(posts)) * 1e6) / posts);
      const beam = erlang?.run(messages);
      if (beam !== undefined) {
        add("beam", beam.oneWayNs);
        add("beamTrip", beam.roundTripNs);
      }
    }
    const wakes = (load(cluster) - before) / (2 * rounds * messages);
    const m = (name: string): number => median(samples[name] as number[]);
    const note = "64 B envelope header + 64 B body, spin budget 50 us";
    const rows = [
      toRow("tell main to worker", "shardloom", "ns/message", samples["main"] as number[], note),
      toRow("tell main to worker", "postMessage", "ns/message", samples["mainPost"] as number[], "{ sku, quantity }"),
      toRow("tell worker to worker", "shardloom", "ns/message", samples["across"] as number[], note),
      toRow(
        "tell worker to worker",
        "postMessage",
        "ns/message",
        samples["acrossPost"] as number[],
        "{ sku, quantity }",
      ),
    ];
    const results = [
      judge(
        goals,
        "A2",
        Math.min(m("mainPost") / m("main"), m("acrossPost") / m("across")),
        "the worse of main to worker and worker to worker",
      ),
      judge(goals, "R4b", wakes, "at the load of these tells, both workers' doorbells"),
    ];
    if (erlang !== undefined) {
      rows.push(
        toRow(
          "send across schedulers",
          "erlang",
          "ns/message",
          samples["beam"] as number[],
          "64 B binary, processes on two schedulers",
        ),
      );
      rows.push(
        toRow("round trip across schedulers", "erlang", "ns", samples["beamTrip"] as number[], "default busy wait"),
      );
      results.push(judge(goals, "A2b", m("beam") / m("across")));
    }
    return { rows, goals: results };
  } finally {
    erlang?.dispose();
  }
}

/** Times that the workers' doorbells woke them. */
function load(cluster: Cluster): number {
  return cluster.heartbeats().reduce((sum, { wakes }) => sum + wakes, 0);
}
