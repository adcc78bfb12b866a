/**
 * Runs of workloads in worlds that are made as needed and used again: what shrinking, tests and the command share.
 *
 * Invariant: a world runs one workload at a time; a run depends on its options alone, so that a used world is as good as a new one, without the
 * cost of another thread that loads everything.
 */
import { createWorld, type World } from "./create-world.ts";
import type { WorkloadRef } from "./workload-types.ts";
import type { RunOptions, RunResult, WorldOptions } from "./world-types.ts";

/** Makes a world, or takes an idle one of the same options, and runs a workload in it once. */
export type RunWorld = (world: WorldOptions, workload: WorkloadRef, run: RunOptions) => Promise<RunResult>;

export interface WorldRunner extends AsyncDisposable {
  readonly run: RunWorld;
}

/** Idle worlds that are kept; each has a thread. */
const MAX_IDLE = 2;

/** Creates a runner; disposing of it ends the threads of its worlds. */
export function createWorldRunner(): WorldRunner {
  const idle: { readonly key: string; readonly world: World }[] = [];
  const busy = new Set<World>();
  const take = (key: string, options: WorldOptions): World => {
    const at = idle.findIndex((entry) => entry.key === key);
    const [entry] = at < 0 ? [] : idle.splice(at, 1);
    return entry?.world ?? createWorld(options);
  };
  return {
    run: async (options, workload, run) => {
      const { seed = 1, ...others } = options;
      const key = JSON.stringify(others);
      const world = take(key, others);
      busy.add(world);
      let isGood = false;
      try {
        const result = await world.run(workload, { seed, ...run });
        isGood = true;
        return result;
      } finally {
        // A world whose run was given up may still be busy with it.
        if (!busy.delete(world) || !isGood) await world.close();
        else idle.push({ key, world });
        if (idle.length > MAX_IDLE) await idle.shift()?.world.close();
      }
    },
    [Symbol.asyncDispose]: async () => {
      const worlds = [...busy, ...idle.splice(0).map(({ world }) => world)];
      busy.clear();
      await Promise.all(worlds.map((world) => world.close()));
    },
  };
}
