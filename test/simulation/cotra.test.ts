/**
 * Collaborative searches in simulated worlds: workers die, are slow, or leave a torn cell at any moment, and each search that calls itself
 * complete has every document that was acknowledged, none that was deleted, and says which way it went.
 *
 * With SHARDLOOM_LONG=1 many more seeds. `SEED` is the first one.
 */
import { expect, test } from "vitest";
import { createWorld } from "../../src/sim/create-world.ts";
import type { FaultRates } from "../../src/sim/fault-types.ts";
import { repeatCommand } from "../../src/sim/repeat-command.ts";
import { searchWorkload } from "../../src/sim/workloads/search-workload.ts";

const SEED: number = Number(process.env["SEED"] ?? 1);
const SEEDS: number = process.env["SHARDLOOM_LONG"] === "1" ? 1_000 : 2;
/** Seeds beyond those, until a fault has hit: by these rates one of some 150 pairs of so short runs has none. */
const MORE_SEEDS = 16;

const SCENES: Readonly<Record<string, FaultRates>> = {
  "nothing goes wrong": {},
  "workers die": { "worker-crash": 40, "region-torn": 10 },
  "workers are slow": { "worker-slow": 60, "worker-crash": 10 },
};

test.each(Object.entries(SCENES))(
  "searches are whole while %s",
  { timeout: SEEDS > 2 ? 900_000 : 120_000 },
  async (_, faults) => {
    const options = {
      nodes: 1,
      shardsPerNode: 4,
      replicationFactor: 1,
      vshards: 8,
      durationMs: 3_000,
      faults,
    } as const;
    const workload = searchWorkload({ clients: 6, documents: 90, perSecond: 25, timeoutMs: 1_500, by: "cotra" });
    const ways = new Map<string, number>();
    const isFaulty = Object.keys(faults).length > 0;
    let runs = 0;
    let hits = 0;
    await using world = createWorld(options);
    for (; runs < SEEDS || (isFaulty && hits === 0 && runs < SEEDS + MORE_SEEDS); runs++) {
      const seed = SEED + runs;
      const run = await world.run(workload, { seed });
      expect(run.violations, repeatCommand({ ...options, seed }, workload)).toEqual([]);
      hits += run.faults.length;
      for (const { type, f, value } of run.history) {
        if (type !== "ok" || f !== "search") continue;
        const { by, fallback } = value as { readonly by: string; readonly fallback: string | null };
        const way = fallback ?? by;
        ways.set(way, (ways.get(way) ?? 0) + 1);
      }
    }
    expect(ways.get("cotra")).toBeGreaterThan(runs * 10);
    expect(hits > 0).toBe(isFaulty);
  },
);
