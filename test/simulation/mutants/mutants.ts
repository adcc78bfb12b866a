/**
 * All planted defects that simulated worlds must find, and the run that looks for one.
 *
 * Invariant: a mutant is found when a rule that it names is broken, in one of a bounded number of worlds with fresh seeds. What is looked
 * for in is a copy of the compiled program, loaded apart from it.
 */
import type { WorkloadRef } from "../../../src/sim/workload-types.ts";
import type { RunOptions, RunResult, WorldOptions } from "../../../src/sim/world-types.ts";
import { type MutatedCopy, mutatedCopy, unmutated } from "../../support/mutated.ts";
import { DURABLE_MUTANTS } from "./durable-mutants.ts";
import { GRAPH_MUTANTS } from "./graph-mutants.ts";
import { LEASE_MUTANTS } from "./lease-mutants.ts";
import { LOG_MUTANTS } from "./log-mutants.ts";
import { MESSAGE_MUTANTS } from "./message-mutants.ts";
import type { Mutant } from "./mutant.ts";
import { PROMOTION_MUTANTS } from "./promotion-mutants.ts";
import { REPLICATION_MUTANTS } from "./replication-mutants.ts";
import { SCENES, type Scene, type SceneName } from "./scenes.ts";

export const MUTANTS: readonly Mutant[] = [
  ...REPLICATION_MUTANTS,
  ...PROMOTION_MUTANTS,
  ...LEASE_MUTANTS,
  ...MESSAGE_MUTANTS,
  ...LOG_MUTANTS,
  ...DURABLE_MUTANTS,
  ...GRAPH_MUTANTS,
];

/** What the search for a mutant has come to. */
export interface Search {
  /** The seed of the world that found it; undefined: none did. */
  readonly seed: number | undefined;
  /** Rules that were broken there. */
  readonly rules: readonly string[];
  readonly worlds: number;
  readonly wallMs: number;
}

interface World {
  run(workload: WorkloadRef, options: RunOptions): Promise<RunResult>;
  close(): Promise<void>;
}

/** Looks for a mutant in worlds with these seeds, until one finds it. */
export async function search(mutant: Mutant, seeds: readonly number[]): Promise<Search> {
  const copy = mutatedCopy(mutant.patches);
  let wallMs = 0;
  try {
    await using scene = await openScene(copy, mutant.scene);
    for (const [at, seed] of seeds.entries()) {
      const result = await scene.run(seed);
      wallMs += result.wallMs;
      const rules = [...new Set(result.violations.map(({ rule }) => rule))];
      if (rules.some((rule) => mutant.rules.includes(rule))) return { seed, rules, worlds: at + 1, wallMs };
    }
    return { seed: undefined, rules: [], worlds: seeds.length, wallMs };
  } finally {
    copy.remove();
  }
}

/** Runs production in a scene, once with each seed. @returns what it broke, in words, and where nobody was answered */
export async function runProduction(name: SceneName, seeds: readonly number[]): Promise<string[]> {
  await using scene = await openScene(unmutated(), name);
  const broken: string[] = [];
  for (const seed of seeds) {
    const { violations, history } = await scene.run(seed);
    if (!history.some(({ type }) => type === "ok")) broken.push(`${name}, seed ${seed}: no operation was answered`);
    broken.push(...violations.map(({ rule, message }) => `${name}, seed ${seed}: ${rule}: ${message}`));
  }
  return broken;
}

/** A scene's world, on one thread for all runs: most of a short run would be the loading of another. */
interface OpenScene extends AsyncDisposable {
  run(seed: number): Promise<RunResult>;
}

async function openScene(copy: Pick<MutatedCopy, "url">, name: SceneName): Promise<OpenScene> {
  const scene: Scene = SCENES[name];
  const { createWorld } = (await import(copy.url("src/sim/create-world"))) as {
    createWorld: (options: WorldOptions) => World;
  };
  const module = (await import(copy.url(scene.module))) as Record<string, (options: object) => WorkloadRef>;
  const workload = (module[scene.export] as (options: object) => WorkloadRef)(scene.options);
  const world = createWorld(scene.world);
  const script = scene.script === undefined ? {} : { replay: { faults: scene.script } };
  return {
    run: (seed) => world.run(workload, { seed, ...script }),
    [Symbol.asyncDispose]: () => world.close(),
  };
}
