/**
 * Calls of a workload, so that whatever goes wrong in one is told as the workload's, with its name and what it was doing.
 *
 * Invariant: an error of the system under test is an answer, not a failure of the workload; anything else that a workload throws ends the run.
 */
import { describeValue, ShardloomError } from "../errors.ts";
import type { Random } from "../runtime/random.ts";
import type { Violation } from "./history-types.ts";
import type { Operation, Workload, WorldView } from "./workload-types.ts";

/** Made by {@link workloadFailed}. @param doing "generate", "invoke write of process 3", ... */
export function workloadFailed(name: string, doing: string, cause: unknown): ShardloomError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return new ShardloomError("ERR_WORKLOAD_FAILED", `Cannot ${doing} as workload ${name} failed: ${message}`, {
    details: { workload: name, doing },
    cause,
  });
}

/**
 * Makes a workload by its factory.
 *
 * @throws {ShardloomError} `ERR_WORKLOAD_FAILED`
 */
export function makeWorkload(
  exported: Record<string, unknown>,
  ref: { module: string; export: string; options: unknown },
): Workload {
  const factory = exported[ref.export];
  const name = `${ref.export} of ${ref.module}`;
  if (typeof factory !== "function")
    throw workloadFailed(name, "make workload", new Error(`${ref.export} is ${describeValue(factory)}, no function`));
  let made: unknown;
  try {
    made = (factory as (options: unknown) => unknown)(ref.options);
  } catch (error) {
    throw workloadFailed(name, "make workload", error);
  }
  if (!isWorkload(made))
    throw workloadFailed(name, "make workload", new Error(`it made ${describeValue(made)}, no workload`));
  return made;
}

function isWorkload(made: unknown): made is Workload {
  if (typeof made !== "object" || made === null) return false;
  const { name, generate, invoke, check } = made as Partial<Workload>;
  return (
    typeof name === "string" &&
    typeof generate === "function" &&
    typeof invoke === "function" &&
    typeof check === "function"
  );
}

/**
 * All operations of a run.
 *
 * @param given Those of a replay, which are run instead.
 * @throws {ShardloomError} `ERR_WORKLOAD_FAILED` also for operations that are none.
 */
export function operationsOf(
  workload: Workload,
  random: Random,
  shape: { readonly nodes: number; readonly durationMs: number },
  given?: readonly Operation[],
): readonly Operation[] {
  // Drawn for a replay too: a workload may remember what it is told here, the number of nodes say.
  const drawn = checked(workload, "generate operations", () => workload.generate(random, shape));
  return given === undefined ? drawn : checked(workload, "replay operations", () => given);
}

function checked(workload: Workload, doing: string, operations: () => readonly Operation[]): readonly Operation[] {
  try {
    const found = operations();
    checkOperations(found);
    return found;
  } catch (error) {
    throw workloadFailed(workload.name, doing, error);
  }
}

/** @throws {TypeError} naming the first operation that is none. */
function checkOperations(operations: readonly Operation[]): void {
  if (!Array.isArray(operations)) throw new TypeError(`operations are ${describeValue(operations)}, no array`);
  for (const [at, { process, f, afterMs }] of (operations as readonly Operation[]).entries()) {
    const place = `operation ${at} has`;
    if (!Number.isSafeInteger(process) || process < 0)
      throw new TypeError(`${place} process ${describeValue(process)}`);
    if (typeof f !== "string" || f === "") throw new TypeError(`${place} f ${describeValue(f)}`);
    if (!Number.isFinite(afterMs) || afterMs < 0) throw new TypeError(`${place} afterMs ${describeValue(afterMs)}`);
  }
}

/** Errors of ours that tell of a workload's own defects. */
const OF_THE_WORKLOAD: ReadonlySet<string> = new Set(["ERR_INVALID_ARGUMENT", "ERR_CORRUPT", "ERR_SIMULATION_ESCAPE"]);

/** What a workload says of the finished run. That the cluster does not answer its last reads is a violation. */
export async function checkRun(workload: Workload, view: WorldView): Promise<readonly Violation[]> {
  try {
    const found = await workload.check(view);
    if (!Array.isArray(found)) throw new TypeError(`check gave ${describeValue(found)}, no array of violations`);
    for (const [at, violation] of found.entries()) checkViolation(at, violation);
    return found as readonly Violation[];
  } catch (error) {
    if (!ShardloomError.is(error) || OF_THE_WORKLOAD.has(error.code))
      throw workloadFailed(workload.name, "check run", error);
    const message = `the last reads of workload ${workload.name} ended with ${error.code}: ${error.message}`;
    return [{ rule: "answers after everything healed", message, entries: [] }];
  }
}

function checkViolation(at: number, violation: unknown): void {
  const place = `violation ${at} of check`;
  if (typeof violation !== "object" || violation === null)
    throw new TypeError(`${place} is ${describeValue(violation)}, no object`);
  const { rule, message, entries } = violation as Partial<Violation>;
  if (typeof rule !== "string" || rule === "") throw new TypeError(`${place} has rule ${describeValue(rule)}, no name`);
  if (typeof message !== "string") throw new TypeError(`${place} has message ${describeValue(message)}, no text`);
  if (!Array.isArray(entries))
    throw new TypeError(`${place} has entries ${describeValue(entries)}, no array of entries of the history`);
}
