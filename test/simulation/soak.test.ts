/**
 * Soaks of simulated clusters: every workload under swarms of faults finds nothing, and every seed gives one trace (D2).
 *
 * With SHARDLOOM_LONG=1 also D4: a day of cluster time in five minutes of two cores. What was reached is printed and demanded.
 */
import { availableParallelism } from "node:os";
import { expect, test } from "vitest";
import { answeredOf, SOAKED, type SoakRun, type SoakTotals, soak } from "../../bench/macro/sim-soak.ts";
import { createWorld } from "../../src/sim/create-world.ts";
import type { Fault } from "../../src/sim/fault-types.ts";
import { registerWorkload } from "../../src/sim/workloads/register-workload.ts";

const SEED: number = Number(process.env["SEED"] ?? 1);
const LONG: boolean = process.env["SHARDLOOM_LONG"] === "1";
const NODES = 5;
const SEEDS: readonly number[] = [0, 1].map((offset) => (SEED + offset) >>> 0);
/** Of the long soak, in ms. */
const FIVE_MINUTES = 300_000;

const nameOf = ({ name, seed }: SoakRun): string => `${name}, seed ${seed}`;

/** What a run found, or undefined. */
function foundBy(run: SoakRun): string | undefined {
  const [first] = run.result.violations;
  return first === undefined ? undefined : `${nameOf(run)}: ${first.rule}: ${first.message}`;
}

function show(totals: SoakTotals): string {
  const { runs, clusterHours, operations, faults, events, wallMs, leastRate } = totals;
  const seconds = Math.round(wallMs / 1_000);
  return `${runs} runs, ${clusterHours.toFixed(2)} cluster-hours, ${operations} operations answered (at least ${leastRate.toFixed(2)} a node and second), ${faults} faults, ${events} events in ${seconds} s`;
}

test("every workload passes under swarms, and each seed gives one trace hash in two worlds, whatever ran before", async () => {
  const plan = { world: { nodes: NODES, durationMs: 15_000, faults: "swarm" as const }, lanes: 1, budgetMs: 3_600_000 };
  const [forwards, backwards]: [SoakRun[], SoakRun[]] = [[], []];
  const [totals] = await Promise.all([
    soak({ ...plan, seeds: SEEDS }, (run) => forwards.push(run)),
    soak({ ...plan, seeds: SEEDS.toReversed() }, (run) => backwards.push(run)),
  ]);
  console.log(show(totals));
  expect(forwards.map(foundBy).filter((found) => found !== undefined)).toEqual([]);
  const hashes = (runs: readonly SoakRun[]): Record<string, string> =>
    Object.fromEntries(runs.map((run) => [nameOf(run), run.result.traceHash]));
  expect(hashes(backwards)).toEqual(hashes(forwards));
  // Every run did something, and no two did the same.
  expect(new Set(Object.values(hashes(forwards))).size).toBe(SEEDS.length * Object.keys(SOAKED).length);
  // Some barrier may not be met in so short a time, but most are, and of each workload something is answered.
  for (const name of Object.keys(SOAKED)) {
    const entries = forwards.filter((run) => run.name === name).flatMap(({ result }) => result.history);
    expect(entries.filter(({ type }) => type === "ok").length, name).toBeGreaterThan(0);
  }
  expect(totals.faults).toBeGreaterThan(0);
}, 120_000);

test("what was to be done on a node that is down does not count as done", async () => {
  await using world = createWorld({ nodes: 3, durationMs: 10_000 });
  const down: Fault = { kind: "crash", atMs: 0, durationMs: 20_000, targets: ["n1"], size: 0 };
  const load = registerWorkload({ clients: 3, perSecond: 4, consistency: "eventual" });
  const [whole, part] = [await world.run(load), await world.run(load, { replay: { faults: [down] } })];
  expect(part.operations).toEqual(whole.operations);
  // What the end of the load came before was never begun.
  expect(answeredOf(whole)).toBe(whole.history.filter(({ type }) => type === "invoke").length);
  expect(answeredOf(whole)).toBeGreaterThan(whole.operations.length * 0.8);
  // A third of them is of the node that is down; writes that need it for a while are answered late, or not.
  expect(answeredOf(part)).toBeLessThanOrEqual((whole.operations.length * 2) / 3);
  expect(answeredOf(part)).toBeGreaterThan(0);
});

test.runIf(LONG)("a day of five nodes under faults in five minutes (D4)", async () => {
  const found: string[] = [];
  const totals = await soak(
    {
      world: { nodes: NODES, durationMs: 1_800_000, faults: "swarm" },
      seeds: Array.from({ length: 1_000 }, (_, index) => (SEED + 100 + index) >>> 0),
      lanes: Math.min(2, availableParallelism()),
      budgetMs: FIVE_MINUTES,
    },
    (run) => {
      const violation = foundBy(run);
      if (violation !== undefined) found.push(violation);
    },
  );
  console.log(show(totals));
  expect(found).toEqual([]);
  expect(totals.leastRate).toBeGreaterThanOrEqual(1);
  expect(totals.faults).toBeGreaterThanOrEqual(100_000);
  expect(totals.clusterHours).toBeGreaterThanOrEqual(24);
});
