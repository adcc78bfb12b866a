/**
 * All planted defects that simulated worlds must find, and the run that looks for one.
 *
 * Invariant: a mutant is found when a rule that it names is broken, in one of a bounded number of worlds with fresh seeds. What is looked
 * for in is a copy of the compiled program, loaded apart from it but for what does not know of the patched part.
 */
import type { WorkloadRef } from "../../../src/sim/workload-types.ts";
import type { RunResult } from "../../../src/sim/world-types.ts";
import { type MutatedCopy, mutatedPart, unmutated } from "../../support/mutated.ts";
import { DURABLE_MUTANTS } from "./durable-mutants.ts";
import { GRAPH_MUTANTS } from "./graph-mutants.ts";
import { LEASE_MUTANTS } from "./lease-mutants.ts";
import { LOG_MUTANTS } from "./log-mutants.ts";
import { MESSAGE_MUTANTS } from "./message-mutants.ts";
import type { Mutant } from "./mutant.ts";
import { PROMOTION_MUTANTS } from "./promotion-mutants.ts";
import { REPLICATION_MUTANTS } from "./replication-mutants.ts";
import { SCENES, type Scene, type SceneName } from "./scenes.ts";
import type { WorldThread } from "./world-thread.ts";

export const MUTANTS: readonly Mutant[] = [
  ...REPLICATION_MUTANTS,
  ...PROMOTION_MUTANTS,
  ...LEASE_MUTANTS,
  ...MESSAGE_MUTANTS,
  ...LOG_MUTANTS,
  ...DURABLE_MUTANTS,
  ...GRAPH_MUTANTS,
];

const production: Pick<MutatedCopy, "url"> = unmutated();

/** What the search for a mutant has come to. */
export interface Search {
  /** The seed of the world that found it; undefined: none did. */
  readonly seed: number | undefined;
  /** Rules that were broken there. */
  readonly rules: readonly string[];
  readonly worlds: number;
  readonly wallMs: number;
}

/** Looks for a mutant in worlds with these seeds, until one finds it. */
export async function search(mutant: Mutant, seeds: readonly number[], thread: WorldThread): Promise<Search> {
  const copy = mutatedPart(mutant.patches);
  let wallMs = 0;
  try {
    const run = await openScene(copy, mutant.scene, thread);
    for (const [at, seed] of seeds.entries()) {
      const result = await run(seed);
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
export async function runProduction(name: SceneName, seeds: readonly number[], thread: WorldThread): Promise<string[]> {
  const run = await openScene(production, name, thread);
  const broken: string[] = [];
  for (const seed of seeds) {
    const { violations, history } = await run(seed);
    if (!history.some(({ type }) => type === "ok")) broken.push(`${name}, seed ${seed}: no operation was answered`);
    broken.push(...violations.map(({ rule, message }) => `${name}, seed ${seed}: ${rule}: ${message}`));
  }
  return broken;
}

/** @returns what runs a program in a scene */
async function openScene(
  copy: Pick<MutatedCopy, "url">,
  name: SceneName,
  thread: WorldThread,
): Promise<(seed: number) => Promise<RunResult>> {
  const { module, export: exported, options, world, script }: Scene = SCENES[name];
  const made = (await import(production.url(module))) as Record<string, (options: object) => WorkloadRef>;
  const reference = (made[exported] as (options: object) => WorkloadRef)(options);
  const workload = { ...reference, module: copy.url(module) };
  const program = copy.url("src/sim/world-host");
  if (copy.url !== production.url && program === production.url("src/sim/world-host"))
    throw new Error(`nothing that a world runs leads to what is patched: ${program}`);
  return (seed) => thread.run(program, workload, { ...world, seed }, script && { faults: script });
}
