/**
 * Bench `sim`: simulated clusters. Repeats of seeds (D2), speed (D3), a soak (D4), shrinking (D5), checkers (D6, see sim-checkers.ts).
 *
 * Worlds run alone, but for the soak, which has two, one for each core. D7 (mutants found) is the test `test/simulation/mutants`: that asks
 * which of them were found, and time says nothing there.
 */
import { createWorld } from "../../src/sim/create-world.ts";
import { shrinkRun } from "../../src/sim/shrink-run.ts";
import { registerWorkload } from "../../src/sim/workloads/register-workload.ts";
import type { RunResult, WorldOptions } from "../../src/sim/world-types.ts";
import { judge } from "../harness/goals.ts";
import { type Bench, type BenchContext, type BenchReport, median, sized, toRow } from "../harness/harness.ts";
import { measureCheckers } from "./sim-checkers.ts";
import { plantedWorkload } from "./sim-planted.ts";
import { SOAKED, soak } from "./sim-soak.ts";

const NODES = 5;
const LANES = 2;
/** Wall time of D4, in ms. */
const SOAK_MS = 300_000;

function demandPassed(what: string, { verdict, violations, seed }: RunResult): void {
  if (verdict !== "passed") throw new Error(`${what}, seed ${seed}: ${violations[0]?.rule}: ${violations[0]?.message}`);
}

/** D2: every seed once in each of two worlds, in opposite orders, so that what one run leaves to the next would show. */
async function measureRepeats({ mode, seed, goals, log }: BenchContext): Promise<BenchReport> {
  const seeds = Array.from({ length: sized(mode, 3, 20, 100) }, (_, index) => seed + index);
  const durationMs = sized(mode, 1_000, 10_000, 20_000);
  const refs = Object.values(SOAKED);
  const options: WorldOptions = { nodes: NODES, durationMs, faults: "swarm" };
  await using first = createWorld(options);
  await using second = createWorld(options);
  const hashes = new Map<number, string>();
  const samples: number[] = [];
  let differ = 0;
  for (const one of seeds) {
    const result = await first.run(refs[one % refs.length] as (typeof refs)[number], { seed: one });
    demandPassed("D2", result);
    hashes.set(one, result.traceHash);
    samples.push(result.wallMs);
  }
  for (const one of seeds.toReversed()) {
    const { traceHash } = await second.run(refs[one % refs.length] as (typeof refs)[number], { seed: one });
    if (traceHash !== hashes.get(one)) differ++;
  }
  if (new Set(hashes.values()).size !== seeds.length)
    throw new Error("two seeds gave one trace hash: it hashes nothing");
  log(`repeats: ${differ} of ${seeds.length} seeds differ`);
  return {
    rows: [toRow(`${durationMs / 1_000} simulated s, swarm`, "shardloom", "ms", samples)],
    goals: [judge(goals, "D2", differ, `${seeds.length} seeds over ${refs.length} workloads`)],
    notes: [],
  };
}

/** D3, D3b and D3c: registers, no faults. */
async function measureSpeed({ mode, seed, goals, log }: BenchContext): Promise<BenchReport> {
  const rounds = sized(mode, 1, 3, 7);
  const load = async (name: string, durationMs: number, clients: number, perSecond: number) => {
    await using world = createWorld({ nodes: NODES, durationMs });
    const ref = registerWorkload({ clients, perSecond, keys: 100 });
    const [ratios, rates]: [number[], number[]] = [[], []];
    for (let round = -1; round < rounds; round++) {
      const result = await world.run(ref, { seed: seed + round + 1 });
      demandPassed(name, result);
      if (result.history.length < 2) throw new Error(`${name}: nothing was asked`);
      if (round < 0) continue; // warms up
      ratios.push(result.simulatedMs / result.wallMs);
      rates.push((result.events / result.wallMs) * 1_000);
    }
    log(`${name}: ${median(ratios).toFixed(1)} x real time, ${Math.round(median(rates))} events/s`);
    return {
      ratios,
      rates,
      rows: [toRow(name, "shardloom", "x", ratios), toRow(name, "shardloom", "events/s", rates)],
    };
  };
  const low = await load("low load", sized(mode, 2_000, 300_000, 3_600_000), NODES, sized(mode, 1, 0.02, 0.02));
  const full = await load("full load", sized(mode, 500, 5_000, 30_000), 10 * NODES, 20);
  return {
    rows: [...low.rows, ...full.rows],
    goals: [
      judge(goals, "D3", median(low.ratios)),
      judge(goals, "D3b", median(full.ratios)),
      judge(goals, "D3c", median(full.rates)),
    ],
    notes: [
      `${NODES} nodes, registers, strong reads, no faults; simulated time from start to judgement over the world's wall time`,
      "low load: an operation a node every 50 s; full load: 50 clients with 20 operations a second each",
    ],
  };
}

/** D4: swarms of faults over all workloads, in two worlds. What is shorter than five minutes is scaled, and says so. */
async function measureSoak({ mode, seed, goals, log }: BenchContext): Promise<BenchReport> {
  const minutes = sized(mode, 0.02, 1, 30);
  const budgetMs = sized(mode, 3_000, 30_000, SOAK_MS);
  const rates: number[] = [];
  const totals = await soak(
    {
      world: { nodes: NODES, durationMs: minutes * 60_000, faults: "swarm" },
      seeds: Array.from({ length: sized(mode, 1, 50, 1_000) }, (_, index) => seed + index),
      lanes: LANES,
      budgetMs,
    },
    ({ name, result }) => {
      demandPassed(name, result);
      rates.push(result.simulatedMs / result.wallMs);
    },
  );
  const scale = SOAK_MS / totals.wallMs;
  const scaled = mode === "full" ? "not scaled" : `scaled from ${(totals.wallMs / 1_000).toFixed(0)} s`;
  log(
    `soak: ${totals.clusterHours.toFixed(2)} cluster-hours, ${totals.faults} faults, ${totals.operations} operations answered`,
  );
  return {
    rows: [toRow(`soak, ${minutes} simulated minutes a run`, "shardloom", "x", rates)],
    goals: [
      judge(goals, "D4", totals.clusterHours * scale, `${scaled}; ${totals.runs} runs in ${LANES} worlds`),
      judge(goals, "D4b", totals.faults * scale, scaled),
      judge(goals, "D4c", totals.leastRate),
    ],
    notes: [],
  };
}

/** D5 and D5b: runs of a client with a planted bug, found by swarms. */
async function measureShrinking({ mode, seed, goals, log }: BenchContext): Promise<BenchReport> {
  const wanted = sized(mode, 1, 3, 9);
  const ref = plantedWorkload({ keys: 3, timeoutMs: 1_000 });
  const options: WorldOptions = { nodes: NODES, durationMs: sized(mode, 10_000, 60_000, 120_000), faults: "swarm" };
  const limits = { wallLimitMs: sized(mode, 5_000, 120_000, 300_000) };
  const [faults, before, seconds, runs]: [number[], number[], number[], number[]] = [[], [], [], []];
  await using world = createWorld(options);
  for (let tried = 0; faults.length < wanted; tried++) {
    if (tried === 100) throw new Error(`100 swarms found the planted bug ${faults.length} times`);
    const failed = await world.run(ref, { seed: seed + tried });
    if (failed.verdict === "passed") continue;
    const small = await shrinkRun(options, ref, failed, limits);
    before.push(failed.faults.length);
    faults.push(small.faults.length);
    seconds.push(small.wallMs / 1_000);
    runs.push(small.runs);
    log(`shrunk seed ${failed.seed}: ${failed.faults.length} faults to ${small.faults.length} in ${small.runs} runs`);
  }
  return {
    rows: [
      toRow("planted runs, before", "shardloom", "faults", before),
      toRow("planted runs, shrunk", "shardloom", "faults", faults),
      toRow("shrinking", "shardloom", "s", seconds),
      toRow("shrinking", "shardloom", "runs", runs),
    ],
    goals: [judge(goals, "D5", median(faults)), judge(goals, "D5b", median(seconds))],
    notes: ["D5: strong reads answered from a cache when they fail, found by swarms, shrunk one candidate at a time"],
  };
}

export const bench: Bench = {
  name: "sim",
  async run(context): Promise<BenchReport> {
    const parts: BenchReport[] = [];
    for (const measure of [measureRepeats, measureSpeed, measureSoak, measureShrinking, measureCheckers])
      parts.push(await measure(context));
    return {
      rows: parts.flatMap(({ rows }) => rows),
      goals: parts.flatMap(({ goals }) => goals),
      notes: [...parts.flatMap(({ notes }) => notes), "D7 is test/simulation/mutants"],
    };
  },
};
