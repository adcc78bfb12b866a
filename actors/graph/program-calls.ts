/**
 * Calls of a user's vertex program, as far as they can go wrong: what they throw, and what they give back.
 *
 * Invariant: whatever a program does, its run ends with one typed error that names the program, the superstep, and the vertex where there is one.
 */
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { VertexProgram } from "./vertex-program.ts";

/**
 * Whether a program says that its run is done.
 *
 * @param sums What was reduced in the superstep, in the order in which the program has named it.
 * @throws {ShardloomError} `ERR_ACTOR_FAILED` when `halt` throws, or says neither.
 */
export function isHalted(program: VertexProgram, sums: readonly number[], superstep: number): boolean {
  if (program.halt === undefined) return false;
  const names = Object.keys(program.aggregate ?? {});
  try {
    const verdict: unknown = program.halt(
      Object.fromEntries(names.map((name, at) => [name, sums[at] as number])),
      superstep,
    );
    refusePromise(verdict);
    if (typeof verdict !== "boolean") throw invalidArgument("halt", "the answer", "true or false", verdict);
    return verdict;
  } catch (error) {
    throw programFailed(program, { superstep }, error);
  }
}

/** @throws {ShardloomError} `ERR_UNKNOWN_ACTOR`. */
export function programNamed(programs: ReadonlyMap<string, VertexProgram>, name: string): VertexProgram {
  const program = programs.get(name);
  if (program !== undefined) return program;
  throw new ShardloomError(
    "ERR_UNKNOWN_ACTOR",
    `Cannot run vertex program ${JSON.stringify(name)} as no module that the cluster was started with exports it`,
    { details: { program: name } },
  );
}

/** A program's calls are over when they return: what comes later would be lost. */
export function refusePromise(returned: unknown): void {
  if (typeof returned !== "object" || returned === null || !("then" in returned)) return;
  Promise.resolve(returned).catch(() => undefined); // it fails all the same
  throw invalidArgument("go on", "what is returned", "no promise", returned);
}

/** @param at Where; without a vertex it was `halt`. */
export function programFailed(
  { name }: VertexProgram,
  at: { readonly vertex?: string | number; readonly superstep: number },
  error: unknown,
): ShardloomError {
  const { vertex, superstep } = at;
  const place = vertex === undefined ? "in halt after" : `at vertex ${JSON.stringify(vertex)} in`;
  const reason = error instanceof Error ? error.message : typeof error === "string" ? error : describeValue(error);
  return new ShardloomError(
    "ERR_ACTOR_FAILED",
    `Cannot run vertex program ${name} as it threw ${place} superstep ${superstep}: ${reason}`,
    { details: { program: name, ...at }, cause: error },
  );
}
