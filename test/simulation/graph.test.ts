/**
 * Graphs in simulated worlds: workers die in any superstep, sleep through wakes, are slow or stand still, whole nodes start again, and every
 * answer is that of a plain algorithm over what the graph must hold.
 *
 * A short run looks at two scenes: the first, and one of the others in turns; with SHARDLOOM_LONG=1 all, with many seeds. `SEED` is the first one.
 */
import { expect, test } from "vitest";
import { createWorld } from "../../src/sim/create-world.ts";
import type { FaultRates } from "../../src/sim/fault-types.ts";
import { repeatCommand } from "../../src/sim/repeat-command.ts";
import type { GraphQuestion } from "../../src/sim/workloads/graph-model.ts";
import type { GraphAnswer } from "../../src/sim/workloads/graph-rules.ts";
import { graphWorkload } from "../../src/sim/workloads/graph-workload.ts";

const SEED: number = Number(process.env["SEED"] ?? 1);
const LONG: boolean = process.env["SHARDLOOM_LONG"] === "1";
const SEEDS: number = LONG ? 200 : 2;
/** Most worlds of a short run, if in none of them a program was asked for, or a worker died beyond the first supersteps. */
const MORE_SEEDS = 15;

const SCENES: Readonly<Record<string, FaultRates>> = {
  "workers die": { "worker-crash": 120, "wake-dropped": 0.002 },
  "workers are slow": { "worker-crash": 60, "worker-slow": 120, "wake-spurious": 0.01 },
  "nodes die": { crash: 60, "worker-crash": 40, pause: 30 },
  "memory is torn": { "region-torn": 60, "ring-corrupt": 0.0005, "worker-crash": 30 },
};

const [first, ...others] = Object.entries(SCENES) as [[string, FaultRates], ...[string, FaultRates][]];
const scenes = LONG ? [first, ...others] : [first, others[SEED % others.length] as [string, FaultRates]];

test.each(scenes)("all answers are right while %s", { timeout: LONG ? 1_200_000 : 120_000 }, async (name, faults) => {
  const options = { nodes: 1, shardsPerNode: 3, replicationFactor: 1, vshards: 8, durationMs: 4_000, faults } as const;
  const workload = graphWorkload({ clients: 6, perSecond: 6 });
  /** Supersteps in which a worker was lost, and at which runs went on. */
  const broken = new Set<number>();
  const resumed = new Set<number>();
  let [worlds, answers, programs] = [0, 0, 0];
  await using world = createWorld(options);
  const isSeen = (): boolean =>
    programs > 0 && (name !== first[0] || (Math.max(...broken) > (LONG ? 10 : 1) && Math.max(...resumed) > 1));
  for (; worlds < SEEDS || (worlds < MORE_SEEDS && !isSeen()); worlds++) {
    const seed = SEED + worlds;
    const { violations, history } = await world.run(workload, { seed });
    expect(violations, repeatCommand({ ...options, seed }, workload)).toEqual([]);
    for (const { type, f, value } of history) {
      if (type === "invoke" && (value as Partial<GraphQuestion>).name === "program") programs++;
      if (type !== "ok" || f !== "ask") continue;
      answers++;
      for (const superstep of (value as GraphAnswer).broken ?? []) broken.add(superstep);
      for (const { from } of (value as GraphAnswer).resumed ?? []) resumed.add(from);
    }
  }
  expect(answers).toBeGreaterThan(worlds * 2);
  const seen = `${programs} programs, broken in ${[...broken].join(", ")}, went on at ${[...resumed].join(", ")}`;
  expect(isSeen(), seen).toBe(true);
});
