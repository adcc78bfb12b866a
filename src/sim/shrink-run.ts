/**
 * Shrinks the run of a world: makes the worlds that {@link shrink} asks for, each a replay of faults and operations.
 *
 * Invariant: all candidates have the seed, options and workload of the run that failed; only its faults, operations and number of nodes change.
 */
import { invalidArgument } from "../errors.ts";
import { emitTest } from "./emit-test.ts";
import { createWorldRunner, type RunWorld } from "./run-world.ts";
import { type ShrinkOptions, type ShrinkResult, shrink } from "./shrink.ts";
import type { WorkloadRef } from "./workload-types.ts";
import type { RunResult, WorldOptions } from "./world-types.ts";

export interface ShrinkRunOptions extends ShrinkOptions {
  /** Which of the rules that the run broke. @default the first */
  readonly rule?: string;
  /** Where the test will be written; see {@link emitTest}. */
  readonly testPath?: string;
  /** Makes worlds and runs them. @default a runner of its own */
  readonly run?: RunWorld;
}

export interface ShrunkRun extends ShrinkResult {
  /** A test file of vitest that repeats it. */
  readonly test: string;
}

/** A candidate that takes longer than the run by this factor, and than this time, has lost its way. */
const SLOWER = 5;
const LEAST_WALL_LIMIT_MS = 10_000;

/**
 * Shrinks a failed run to few faults and operations that break the same rule.
 *
 * @param world The options that the run had.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the run did not fail, or does not fail in the same way when it is repeated.
 *
 * @example
 * const result = await world.run(workload);
 * if (result.verdict === "failed") writeFileSync("found.test.ts", (await shrinkRun(options, workload, result)).test);
 */
export async function shrinkRun(
  world: WorldOptions,
  workload: WorkloadRef,
  failed: RunResult,
  options: ShrinkRunOptions = {},
): Promise<ShrunkRun> {
  const rule = options.rule ?? failed.violations[0]?.rule;
  if (rule === undefined) throw invalidArgument("shrink run", "verdict", '"failed"', failed.verdict);
  await using runner = createWorldRunner();
  const run = options.run ?? runner.run;
  const { keepTrace: _, ...untraced } = { ...world, seed: failed.seed };
  const wallLimitMs = Math.min(
    world.wallLimitMs ?? Number.POSITIVE_INFINITY,
    Math.max(LEAST_WALL_LIMIT_MS, Math.ceil(failed.wallMs * SLOWER)),
  );
  const small = await shrink(
    ({ nodes, faults, operations }, { signal }) =>
      run({ ...untraced, nodes, wallLimitMs }, workload, { signal, replay: { faults, operations } }),
    { nodes: failed.nodes.length, faults: failed.faults, operations: failed.operations, rule },
    options,
  );
  const { nodes, faults, operations, violation } = small;
  const where = options.testPath === undefined ? {} : { path: options.testPath };
  const text = emitTest({ world: { ...untraced, nodes }, workload, faults, operations, violation, ...where });
  return { ...small, test: text };
}
