/**
 * Simulated runs as tests: one test for each seed, which runs twice, and which on failure says how to repeat and shrinks itself.
 *
 * Invariant: the seeds are known before the tests run, and the only thing read from outside is the variable `SEED`. No test runner is
 * imported: whatever has a `test(name, body, timeoutMs)` will do, given as option or found as a global.
 */
import { AssertionError } from "node:assert";
import { invalidArgument, ShardloomError } from "../errors.ts";
import { quoted, repeatCommand } from "./repeat-command.ts";
import { createWorldRunner, type RunWorld } from "./run-world.ts";
import { type ShrunkRun, shrinkRun } from "./shrink-run.ts";
import type { WorkloadRef } from "./workload-types.ts";
import type { RunResult, WorldOptions } from "./world-types.ts";

/** What is used of a test runner: `test` of vitest or jest. */
export type RegisterTest = (name: string, body: (context?: unknown) => Promise<void>, timeoutMs: number) => unknown;

export interface SimulateOptions extends Omit<WorldOptions, "seed" | "keepTrace"> {
  /**
   * How many seeds: from `SEED` of the environment on, or from 1. Or the seeds themselves, which `SEED` replaces by one.
   * @default 10
   */
  readonly seeds?: number | readonly number[];
  /** Runs each seed twice and compares the hashes of their traces. @default true */
  readonly verify?: boolean;
  /** Real time for shrinking a failure, in ms; 0 leaves it as it is. @default 60000 */
  readonly shrinkMs?: number;
  /** Real time for each seed besides shrinking, in ms: `> 0`. @default 120000 */
  readonly timeoutMs?: number;
  /** Registers a test. @default the global `test` or `it` */
  readonly test?: RegisterTest;
  /** Makes a world and runs it. @default the simulator's */
  readonly run?: RunWorld;
}

const DEFAULT_SEEDS = 10;
const DEFAULT_SHRINK_MS = 60_000;
const DEFAULT_TIMEOUT_MS = 120_000;
/** Violations of one run that a failure lists; the first one is the one to look at. */
const MAX_LISTED = 5;

/** One seed of a `simulate`. */
interface SeedTest {
  readonly name: string;
  readonly world: WorldOptions;
  readonly workload: WorkloadRef;
  readonly verify: boolean;
  readonly shrinkMs: number;
  /** Undefined for the simulator's. */
  readonly run: RunWorld | undefined;
}

/**
 * Registers a test for each seed: *name, seed 7*.
 *
 * A test fails when the run breaks a rule, and when a second run with the same seed has another trace. Its message has the violations, the
 * commands that repeat exactly this, and the shrunk run as a test file.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for seeds that are none, or without a function to register tests with.
 *
 * @example
 * simulate("no money is lost", { nodes: 3, faults: "all", test }, { module: import.meta.resolve("./bank.js"), export: "bank", options: {} });
 */
export function simulate(name: string, options: SimulateOptions, workload: WorkloadRef): void {
  const {
    seeds,
    verify = true,
    shrinkMs = DEFAULT_SHRINK_MS,
    timeoutMs = DEFAULT_TIMEOUT_MS,
    test,
    run,
    ...world
  } = options;
  const register = test ?? globalTest();
  for (const seed of seedsOf(seeds, process.env["SEED"])) {
    const title = `${name}, seed ${seed}`;
    const seedTest = { name: title, world: { ...world, seed }, workload, verify, shrinkMs, run };
    register(title, (context) => runSeed(seedTest, pathOf(context)), timeoutMs + shrinkMs);
  }
}

function globalTest(): RegisterTest {
  const { test, it } = globalThis as { test?: unknown; it?: unknown };
  const register = test ?? it;
  if (typeof register === "function") return register as RegisterTest;
  throw invalidArgument("simulate", "test", "the function that registers tests, where it is no global", register);
}

function seedsOf(option: SimulateOptions["seeds"] = DEFAULT_SEEDS, given: string | undefined): readonly number[] {
  const first = given === undefined ? undefined : Number(given);
  if (first !== undefined) checkSeed("SEED", first);
  if (typeof option === "number") {
    if (!Number.isSafeInteger(option) || option < 1)
      throw invalidArgument("simulate", "seeds", "a positive integer", option);
    return Array.from({ length: option }, (_, index) => ((first ?? 1) + index) % 2 ** 32);
  }
  if (option.length === 0) throw invalidArgument("simulate", "seeds", "at least one", option);
  for (const seed of option) checkSeed("seeds", seed);
  return first === undefined ? option : [first];
}

function checkSeed(name: string, seed: number): void {
  if (Number.isSafeInteger(seed) && seed >= 0 && seed < 2 ** 32) return;
  throw invalidArgument("simulate", name, "an integer in [0, 2^32)", seed);
}

async function runSeed(test: SeedTest, path: string): Promise<void> {
  await using runner = createWorldRunner();
  const run = test.run ?? runner.run;
  const result = await run(test.world, test.workload, {});
  if (test.verify) {
    const again = await run(test.world, test.workload, {});
    if (again.traceHash !== result.traceHash) throw failure(test, path, [twoTraces(result, again)]);
  }
  if (result.violations.length === 0) return;
  const lines = result.violations.slice(0, MAX_LISTED).map(({ rule, message }) => `${rule}: ${message}`);
  const more = result.violations.length - lines.length;
  if (more > 0) lines.push(`and ${more} more`);
  if (test.shrinkMs > 0) lines.push("", ...(await shrunk(test, result, run)));
  throw failure(test, path, lines);
}

function twoTraces(one: RunResult, other: RunResult): string {
  const events = one.events === other.events ? `${one.events} events` : `${one.events} and ${other.events} events`;
  return `same seed, two traces: ${one.traceHash} and ${other.traceHash} (${events}); something outside of the world decides`;
}

async function shrunk(test: SeedTest, result: RunResult, run: RunWorld): Promise<string[]> {
  let small: ShrunkRun;
  try {
    small = await shrinkRun(test.world, test.workload, result, { wallLimitMs: test.shrinkMs, run });
  } catch (error) {
    // The failure itself matters more than that it could not be made smaller.
    return [`It could not be shrunk: ${ShardloomError.from(error).message}`];
  }
  const from = `${result.faults.length} faults and ${result.operations.length} operations`;
  const end = small.isMinimal ? "" : ", when the time was up";
  return [
    `Shrunk from ${from} to ${small.faults.length} and ${small.operations.length} in ${small.runs} runs${end}. As a test:`,
    "",
    small.test,
  ];
}

function failure(test: SeedTest, path: string, lines: readonly string[]): AssertionError {
  const { seed } = test.world;
  const commands = [
    `SEED=${seed} npx vitest run${path === "" ? "" : ` ${quoted(path)}`} -t ${quoted(`${escaped(test.name)}$`)}`,
    repeatCommand(test.world, test.workload),
  ];
  const message = [`seed ${seed}`, ...lines, "", "Repeat with either of:", ...commands.map((line) => `  ${line}`)];
  return new AssertionError({ message: message.join("\n") });
}

/** A text as the regular expression that matches it alone. */
function escaped(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}

/** The file of the running test, as vitest tells it; "" elsewhere. */
function pathOf(context: unknown): string {
  const name = (context as { task?: { file?: { name?: unknown } } } | undefined)?.task?.file?.name;
  return typeof name === "string" ? name : "";
}
