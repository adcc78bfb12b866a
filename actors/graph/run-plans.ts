/**
 * What is run: the built-in algorithms and vertex programs as plans, from options that were checked.
 *
 * Invariant: a plan that is made can only fail for what the graph holds; bad options end here, in a typed error that names them.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { checkedTimeout, checkSignal } from "../call-options.ts";
import { PAGE_RANK_SUMS } from "./algorithms.ts";
import { isHalted } from "./program-calls.ts";
import type { RunPlan } from "./run-driver.ts";
import type { BuildReply } from "./run-messages.ts";
import type { RunOptions } from "./run-options.ts";
import { LEAST_IDLE_MS } from "./run-times.ts";
import type { Totals } from "./run-totals.ts";
import { checkKey, hashOfKey, ownerOfHash, type VertexKey } from "./vertex-key.ts";
import { isVertexProgram, type VertexProgram } from "./vertex-program.ts";

/** Most iterations that a run may be asked for. */
const MAX_ITERATIONS = 100_000;
/** Most vertices of a personalised PageRank. */
const MAX_SOURCES = 4096;
/** How far the ranks of all vertices may add up to something other than 1. */
const MASS_TOLERANCE = 1e-6;
const DEFAULT_DAMPING = 0.85;
const DEFAULT_ITERATIONS = 20;

/** Options of `Graph.pageRank`. */
export interface PageRankOptions extends RunOptions {
  /** In `[0, 1]`. @default 0.85 */
  readonly damping?: number;
  /** @default 20, or at most 100000 with a tolerance */
  readonly iterations?: number;
  /** Ends when the ranks change by less than this in all, in an iteration. @default none */
  readonly tolerance?: number;
  /** Personalised: walks begin at these vertices, and jump to them instead of anywhere; 1 to 4096. @default all vertices */
  readonly sources?: readonly VertexKey[];
}

/** Options of searches from a vertex. */
export interface SourceOptions extends RunOptions {
  readonly source: VertexKey;
}

/** Options of `Graph.cdlp`. */
export interface CommunityOptions extends RunOptions {
  /** @default 10 */
  readonly iterations?: number;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
export function pageRankPlan(options: PageRankOptions): RunPlan {
  const { damping = DEFAULT_DAMPING, tolerance, sources } = options;
  const iterations = options.iterations ?? (tolerance === undefined ? DEFAULT_ITERATIONS : MAX_ITERATIONS);
  checkNumber("damping", damping, 0, 1);
  checkIterations(iterations);
  if (sources !== undefined) checkSources(sources);
  if (tolerance !== undefined) checkNumber("tolerance", tolerance, 0, Number.MAX_VALUE);
  return {
    ...BUILT_IN,
    algorithm: "pageRank",
    params: () => ({ damping, sources }),
    dense: true,
    limit: iterations,
    rounds: iterations,
    until: tolerance === undefined ? undefined : { sum: PAGE_RANK_SUMS.delta, below: tolerance },
    done: ({ superstep, sums }) =>
      superstep >= iterations ||
      (tolerance !== undefined && superstep > 0 && (sums[PAGE_RANK_SUMS.delta] as number) < tolerance),
    check: checkMass,
    delta: ({ superstep, sums }) => (superstep === 0 ? undefined : sums[PAGE_RANK_SUMS.delta]),
  };
}

export function componentsPlan(): RunPlan {
  return { ...BUILT_IN, algorithm: "wcc", params: (shards) => ({ numeric: allNumeric(shards) }) };
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
export function searchPlan(algorithm: "bfs" | "sssp", options: SourceOptions, shards: number): RunPlan {
  const source = checkKey(`run ${algorithm}`, "source", options?.source);
  const owner = ownerOfHash(hashOfKey(source), shards);
  return { ...BUILT_IN, algorithm, params: () => ({ source, owner }), firstOnly: algorithm === "bfs" };
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
export function communitiesPlan({ iterations = 10 }: CommunityOptions): RunPlan {
  checkIterations(iterations);
  return {
    ...BUILT_IN,
    algorithm: "cdlp",
    params: (shards) => ({ numeric: allNumeric(shards) }),
    dense: true,
    limit: iterations,
    rounds: iterations,
    done: ({ superstep }) => superstep >= iterations,
    delta: ({ sums }) => sums[0],
  };
}

export function clusteringPlan(): RunPlan {
  const done = ({ superstep }: Totals): boolean => superstep >= 1;
  return { ...BUILT_IN, algorithm: "lcc", params: () => ({}), dense: true, limit: 1, done };
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
export function programPlan(program: VertexProgram | string, params: Readonly<Record<string, unknown>>): RunPlan {
  if (typeof program !== "string" && !isVertexProgram(program))
    throw invalidArgument("run vertex program", "program", "one made with defineVertexProgram, or its name", program);
  return {
    ...BUILT_IN,
    algorithm: typeof program === "string" ? program : program.name,
    program: true,
    params: () => params,
    asks: typeof program === "string",
    done: ({ active, sums, superstep }) =>
      active === 0 || (typeof program !== "string" && isHalted(program, sums, superstep)),
  };
}

/** What algorithms have in common that end when nothing is sent any more. */
const BUILT_IN = {
  program: false,
  dense: false,
  limit: Number.MAX_SAFE_INTEGER,
  done: ({ active }: Totals) => active === 0,
} as const;

function allNumeric(shards: readonly BuildReply[]): boolean {
  return shards.every(({ numeric }) => numeric);
}

function checkMass({ sums, superstep }: Totals, vertices: number): void {
  const mass = sums[PAGE_RANK_SUMS.mass] as number;
  if (vertices === 0 || Math.abs(mass - 1) <= MASS_TOLERANCE) return;
  throw new ShardloomError(
    "ERR_INTERNAL",
    `Cannot accept superstep ${superstep} as the ranks must add up to 1: current value is ${mass}`,
    { details: { superstep, mass } },
  );
}

function checkNumber(name: string, value: number, least: number, most: number): void {
  if (typeof value === "number" && value >= least && value <= most) return;
  throw invalidArgument("run algorithm", name, `a number between ${least} and ${most}`, value);
}

function checkSources(sources: readonly VertexKey[]): void {
  if (!Array.isArray(sources) || sources.length < 1 || sources.length > MAX_SOURCES)
    throw invalidArgument("run pageRank", "sources", `1 to ${MAX_SOURCES} vertices`, sources);
  for (const [at, source] of sources.entries()) checkKey("run pageRank", "source", source, at);
}

function checkIterations(iterations: number): void {
  if (Number.isInteger(iterations) && iterations >= 0 && iterations <= MAX_ITERATIONS) return;
  throw invalidArgument("run algorithm", "iterations", `an integer between 0 and ${MAX_ITERATIONS}`, iterations);
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
export function checkRunOptions(options: RunOptions): void {
  const {
    exchange,
    checkpointEvery = 0,
    superstepsAtOnce = 1,
    superstepTimeoutMs = 1,
    timeoutMs = 1,
    signal,
  } = options;
  checkedTimeout(timeoutMs);
  checkSignal(signal);
  if (exchange !== undefined && !["auto", "push", "pull"].includes(exchange))
    throw invalidArgument("run algorithm", "exchange", '"auto", "push" or "pull"', exchange);
  if (!Number.isInteger(checkpointEvery) || checkpointEvery < 0)
    throw invalidArgument("run algorithm", "checkpointEvery", "an integer, at least 0", checkpointEvery);
  if (!Number.isInteger(superstepsAtOnce) || superstepsAtOnce < 1)
    throw invalidArgument("run algorithm", "superstepsAtOnce", "an integer, at least 1", superstepsAtOnce);
  if (!(superstepTimeoutMs > 0))
    throw invalidArgument("run algorithm", "superstepTimeoutMs", "above 0", superstepTimeoutMs);
  for (const name of ["idleMs", "resultIdleMs"] as const) {
    const value = options[name];
    if (value !== undefined && !(value >= LEAST_IDLE_MS && value < Number.POSITIVE_INFINITY))
      throw invalidArgument("run algorithm", name, `a finite number of at least ${LEAST_IDLE_MS}`, value);
  }
}
