/**
 * Durable shards under failover: histories of reads and writes are linearizable, whatever crashes, and in the end, when the power of all
 * nodes has failed once more, everything acknowledged is there, copies are equal, and the index has what the documents are.
 *
 * With SHARDLOOM_LONG=1 at least 10,000 seeds of four simulated seconds in at most 20 minutes of two cores; else a few dozen. What hit is
 * printed and demanded: a world in which nothing goes wrong proves nothing. `SEED` is the first seed.
 */
import { availableParallelism } from "node:os";
import { expect, test } from "vitest";
import { createWorld } from "../../src/sim/create-world.ts";
import type { FaultKind, FaultRates } from "../../src/sim/fault-types.ts";
import { repeatCommand } from "../../src/sim/repeat-command.ts";
import type { WorkloadRef } from "../../src/sim/workload-types.ts";
import { registerWorkload } from "../../src/sim/workloads/register-workload.ts";
import { searchWorkload } from "../../src/sim/workloads/search-workload.ts";
import type { RunResult, WorldOptions } from "../../src/sim/world-types.ts";

const SEED: number = Number(process.env["SEED"] ?? 1);
const LONG: boolean = process.env["SHARDLOOM_LONG"] === "1";
const LANES: number = Math.min(2, availableParallelism());
const DURATION_MS = 4_000;
/** Seeds of all scenes together. */
const SEEDS: number = LONG ? 10_000 : 40;
/** Of the long run. */
const TWENTY_MINUTES = 1_200_000;
const SHORT_WALL_MS = 600_000;

/** What becomes of what was not synced when power fails. */
const UNSYNCED: FaultRates = { "disk-lost-write": 0.5, "disk-torn": 0.3 };

interface Scene {
  readonly faults: FaultRates;
  readonly workload: WorkloadRef;
  /** @default 3 */
  readonly nodes?: number;
}

/** Scenes: a part of all seeds each. Rates are of faults a minute, and a run lasts four seconds. */
const SCENES: Readonly<Record<string, Scene>> = {
  "nodes crash": {
    faults: { ...UNSYNCED, crash: 45, "node-kill": 30, "cluster-crash": 10 },
    workload: registerWorkload({ clients: 6, keys: 3, perSecond: 6, timeoutMs: 1_500 }),
  },
  "workers crash": {
    faults: { ...UNSYNCED, "worker-crash": 25, "worker-io-crash": 0.003, crash: 15, "region-torn": 10 },
    workload: registerWorkload({ clients: 6, keys: 3, perSecond: 6, timeoutMs: 1_500 }),
  },
  "disks fail": {
    faults: {
      ...UNSYNCED,
      crash: 30,
      "node-kill": 15,
      "worker-crash": 15,
      "disk-full": 20,
      "disk-read-only": 20,
      "disk-slow": 30,
      "disk-sync-failed": 0.02,
    },
    workload: registerWorkload({ clients: 6, keys: 3, perSecond: 6, timeoutMs: 1_500 }),
  },
  "disks damage": {
    faults: { ...UNSYNCED, crash: 45, "node-kill": 15, "disk-bit-rot": 0.02, "disk-misdirected": 0.002 },
    workload: registerWorkload({ clients: 6, keys: 6, perSecond: 6, timeoutMs: 1_500 }),
  },
  "networks fail": {
    faults: {
      ...UNSYNCED,
      crash: 30,
      "cluster-crash": 5,
      "worker-crash": 15,
      partition: 20,
      "partition-one-way": 10,
      clog: 40,
      pause: 20,
      delay: 0.1,
      drop: 0.05,
      "clock-step": 10,
      "clock-drift": 10,
    },
    workload: registerWorkload({ clients: 6, keys: 3, perSecond: 6, timeoutMs: 1_500 }),
  },
  "texts crash": {
    faults: { ...UNSYNCED, crash: 30, "node-kill": 20, "cluster-crash": 10, "worker-crash": 20, clog: 20 },
    workload: registerWorkload({ clients: 6, keys: 3, perSecond: 6, timeoutMs: 1_500, engine: "text" }),
  },
  "one node": {
    faults: { ...UNSYNCED, crash: 30, "node-kill": 20, "worker-crash": 20, "worker-io-crash": 0.004 },
    workload: registerWorkload({ clients: 6, keys: 6, perSecond: 6, timeoutMs: 1_500 }),
    nodes: 1,
  },
  "searches crash": {
    faults: { ...UNSYNCED, crash: 30, "node-kill": 20, "cluster-crash": 10, "worker-crash": 20, clog: 20 },
    workload: searchWorkload({ clients: 6, documents: 18, perSecond: 6, timeoutMs: 1_500 }),
  },
};

function worldOf({ faults, nodes = 3 }: Scene): WorldOptions {
  return { nodes, vshards: 4, durability: "fsync", durationMs: DURATION_MS, faults };
}

interface Totals {
  runs: number;
  ok: number;
  starts: number;
  simulatedMs: number;
  readonly faults: Map<FaultKind, number>;
  readonly found: string[];
}

function add(totals: Totals, run: RunResult, repeat: string): void {
  totals.runs++;
  totals.ok += run.history.filter(({ type }) => type === "ok").length;
  totals.starts += run.nodes.reduce((sum, { starts }) => sum + starts, 0);
  totals.simulatedMs += run.simulatedMs;
  for (const { kind } of run.faults) totals.faults.set(kind, (totals.faults.get(kind) ?? 0) + 1);
  const [first] = run.violations;
  if (first !== undefined) totals.found.push(`${first.rule}: ${first.message}\n  ${repeat}`);
}

/** Runs seeds of one scene, one after the other. */
async function runScene(name: string, seeds: readonly number[], totals: Totals): Promise<void> {
  const scene = SCENES[name] as Scene;
  const { workload } = scene;
  const options = worldOf(scene);
  await using world = createWorld(options);
  for (const seed of seeds)
    add(totals, await world.run(workload, { seed }), repeatCommand({ ...options, seed }, workload));
}

test(`histories are linearizable and durable over ${SEEDS} seeds`, {
  timeout: LONG ? 2 * TWENTY_MINUTES : SHORT_WALL_MS,
}, async () => {
  const totals: Totals = { runs: 0, ok: 0, starts: 0, simulatedMs: 0, faults: new Map(), found: [] };
  const names = Object.keys(SCENES);
  const each = Math.ceil(SEEDS / names.length);
  const started = performance.now();
  const waiting = [...names.entries()];
  const lane = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [at, name] = next;
      const first = SEED * 7919 + at * 100_003;
      const seeds = Array.from({ length: each }, (_, index) => (first + index) % 2 ** 32);
      await runScene(name, seeds, totals);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  const wallMs = performance.now() - started;
  const { runs, ok, starts, simulatedMs } = totals;
  const hit = [...totals.faults].map(([kind, count]) => `${kind} ${count}`).join(", ");
  process.stdout.write(
    `SEED=${SEED}: ${runs} runs in ${Math.round(wallMs / 1_000)} s (${((runs * 1_000) / wallMs).toFixed(1)}/s), ` +
      `${(simulatedMs / runs / 1_000).toFixed(1)} simulated s each, ${ok} operations answered, ${starts} starts of nodes; ${hit}\n`,
  );
  expect(totals.found.slice(0, 10)).toEqual([]);
  expect(runs).toBeGreaterThanOrEqual(SEEDS);
  // Each run starts three nodes, fails the power of all in its end, and has some that failed before.
  expect(starts).toBeGreaterThan(6 * runs);
  expect(ok).toBeGreaterThan(20 * runs);
  const kinds = new Set(names.flatMap((name) => Object.keys(SCENES[name]?.faults ?? {}) as FaultKind[]));
  expect([...kinds].filter((kind) => LONG && !totals.faults.has(kind))).toEqual([]);
  if (LONG) expect(wallMs).toBeLessThan(TWENTY_MINUTES);
});
