/**
 * `shardloom sim`: runs a workload on a simulated cluster full of faults, checks it, and cuts a failure down.
 *
 * Invariant: the exit code is 0 only when all runs were made and none broke a rule. What was done is reported however it ends; only the first
 * failing run is shrunk and drawn, as one is what a person looks at.
 */
import { existsSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, resolve } from "node:path";
import { ShardloomError } from "../errors.ts";
import type { Violation } from "../sim/history-types.ts";
import { createWorldRunner, type RunWorld } from "../sim/run-world.ts";
import { type ShrunkRun, shrinkRun } from "../sim/shrink-run.ts";
import { timelineHtml } from "../sim/timeline.ts";
import type { WorkloadRef } from "../sim/workload-types.ts";
import type { RunOptions, RunProgress, WorldOptions } from "../sim/world-types.ts";
import { type Command, type CommandContext, EXIT, UsageError } from "./command.ts";
import { createProgress, type Progress } from "./progress.ts";
import { parseWorkload, SIM_OPTIONS, worldOptionsOf } from "./sim-options.ts";
import { type ReportedRun, reportObject, reportTable, runsTable, shrunkLines, violationLines } from "./sim-report.ts";
import { formatCount } from "./units.ts";

/** Events of the trace that a timeline is drawn from; the latest ones. */
const TIMELINE_EVENTS = 400_000;
/** Failing seeds whose violations are listed; the table has all of them. */
const MAX_LISTED = 5;
const U32 = 2 ** 32;

/** One call of the command. */
interface Session {
  readonly context: CommandContext;
  readonly world: WorldOptions;
  readonly workload: WorkloadRef;
  readonly run: RunWorld;
  readonly runs: number;
  readonly done: ReportedRun[];
  readonly progress: Progress;
}

/** @param run Makes worlds and runs them, in tests. @default a runner for each call */
export function createSimCommand(run?: RunWorld): Command {
  return {
    name: "sim",
    summary: "Run a cluster in simulated time under faults, check what clients were told, shrink what fails",
    usage: "[options]",
    options: SIM_OPTIONS,
    run: async (context) => {
      await using runner = createWorldRunner();
      return await runCommand(context, run ?? runner.run);
    },
  };
}

export const sim: Command = createSimCommand();

async function runCommand(context: CommandContext, run: RunWorld): Promise<number> {
  const { output, signal } = context;
  const runs = context.number("runs") ?? 1;
  const world = worldOptionsOf(context);
  checkUse(context);
  const workload = parseWorkload(context);
  const seconds = (world.minutes ?? 1) * 60;
  const progress =
    runs === 1
      ? createProgress({ label: "simulating", total: seconds, unit: "simulated seconds", output })
      : createProgress({ label: "simulating", total: runs, unit: "runs", output });
  const session: Session = { context, world, workload, run, runs, done: [], progress };
  try {
    await runSeeds(session);
    progress.finish();
  } catch (error) {
    progress.fail();
    if (!signal.aborted) {
      if (runs > 1) reportRuns(session);
      throw error;
    }
    return interrupted(session);
  }
  return conclude(session);
}

/** Found out before hours of simulation rather than after them. */
function checkUse(context: CommandContext): void {
  const isShrinking = context.flag("shrink") || context.text("test") !== undefined;
  if (context.text("rule") !== undefined && !isShrinking)
    throw new UsageError("--rule must come with --shrink or --test: it says which failure to cut down");
  for (const name of ["test", "html", "history"]) {
    const path = context.text(name);
    if (path === undefined) continue;
    if (path === "" || !existsSync(dirname(resolve(path))))
      throw new UsageError(`--${name} must be a file in a folder that exists: current value is ${path || "empty"}`);
  }
}

async function runSeeds(session: Session): Promise<void> {
  const { context, world, runs, done, progress } = session;
  const first = context.number("seed") ?? 1;
  for (let index = 0; index < runs; index++) {
    const seed = (first + index) % U32;
    const onProgress = (at: RunProgress): void => {
      const step = runs === 1 ? Math.floor(at.simulatedMs / 1000) : index;
      progress.update(step, `${runs === 1 ? "" : `seed ${seed}, `}${progressNote(at)}`);
    };
    done.push(await runSeed(session, { ...world, seed }, onProgress));
    progress.update(runs === 1 ? Number.POSITIVE_INFINITY : index + 1);
  }
}

async function runSeed(
  { context, workload, run }: Session,
  world: WorldOptions,
  onProgress: (progress: RunProgress) => void,
): Promise<ReportedRun> {
  const options: RunOptions = { signal: context.signal, onProgress };
  const traced = context.text("html") === undefined ? world : { ...world, keepTrace: TIMELINE_EVENTS };
  const result = await run(traced, workload, options);
  const violations: Violation[] = [...result.violations];
  const isVerified = context.flag("verify");
  if (isVerified) {
    const again = await run(world, workload, options);
    if (again.traceHash !== result.traceHash) {
      const message = `${result.traceHash} and ${again.traceHash}: something outside of the world decides`;
      violations.push({ rule: "same seed, same trace", message, entries: [] });
    }
  }
  return { result, violations, isVerified, world, workload };
}

function progressNote({ phase, events, faults, operations }: RunProgress): string {
  return `${phase}, ${formatCount(events)} events, ${formatCount(faults)} faults, ${formatCount(operations)} operations`;
}

/** After all runs: the first failure shrunk, files, tables. */
async function conclude(session: Session): Promise<number> {
  const { context, done } = session;
  const { output } = context;
  const rule = context.text("rule");
  const failing =
    done.find(({ result }) => result.violations.some((violation) => violation.rule === rule)) ??
    done.find(({ violations }) => violations.length > 0);
  if (!output.json) reportRuns(session);
  const wantsShrunk = context.flag("shrink") || context.text("test") !== undefined;
  let shrunk: ShrunkRun | undefined;
  try {
    if (wantsShrunk && failing !== undefined) shrunk = await shrinkFirst(session, failing);
  } finally {
    for (const run of done) output.object(reportObject(run, run === failing ? shrunk : undefined));
  }
  if (failing !== undefined && shrunk !== undefined) {
    output.line();
    for (const line of shrunkLines(shrunk, failing.result, output.columns)) output.line(line);
  }
  await writeFiles(session, failing ?? (done.at(-1) as ReportedRun), shrunk);
  return failing === undefined ? EXIT.OK : EXIT.FAILURE;
}

function reportRuns({ context, runs, done }: Session): void {
  const { output } = context;
  const [first] = done;
  if (first === undefined) return;
  output.line(runs === 1 ? reportTable(first, output.columns) : runsTable(done, output.columns));
  const failing = done.filter(({ violations }) => violations.length > 0);
  for (const run of failing.slice(0, MAX_LISTED)) {
    output.line();
    for (const line of violationLines(run)) output.line(line);
  }
  if (failing.length > MAX_LISTED) output.line(`and ${formatCount(failing.length - MAX_LISTED)} more seeds`);
}

async function shrinkFirst(session: Session, failing: ReportedRun): Promise<ShrunkRun | undefined> {
  const { context, run, workload } = session;
  const { output, signal } = context;
  const test = context.text("test");
  const rule = context.text("rule");
  if (rule !== undefined && failing.result.violations.every((violation) => violation.rule !== rule)) {
    output.notes.write(`Not shrunk: no run breaks the rule ${JSON.stringify(rule)}.\n`);
    return undefined;
  }
  // What only a second run showed is no rule that a single run can break.
  if (failing.result.violations.length === 0) {
    output.line("Not shrunk: a trace that does not repeat has no run to cut down.");
    return undefined;
  }
  const progress = createProgress({ label: "shrinking", total: undefined, unit: "runs", output });
  try {
    const shrunk = await shrinkRun(failing.world, workload, failing.result, {
      run,
      signal,
      concurrency: availableParallelism(),
      wallLimitMs: (context.number("shrink-seconds") ?? 60) * 1000,
      ...(test === undefined ? {} : { testPath: resolve(test) }),
      ...(rule === undefined ? {} : { rule }),
      onProgress: ({ runs, faults, operations }) =>
        progress.update(runs, `${formatCount(faults)} faults and ${formatCount(operations)} operations left`),
    });
    progress.finish();
    return shrunk;
  } catch (error) {
    progress.fail();
    throw error;
  }
}

async function writeFiles(
  { context, run, workload }: Session,
  subject: ReportedRun,
  shrunk?: ShrunkRun,
): Promise<void> {
  const { output } = context;
  const [test, html, history] = ["test", "html", "history"].map((name) => context.text(name));
  if (test !== undefined && shrunk !== undefined) write(test, shrunk.test, "the test", output.line);
  let { result } = subject;
  if (shrunk !== undefined && (html ?? history) !== undefined && !context.signal.aborted) {
    const { nodes, faults, operations } = shrunk;
    const world = { ...subject.world, nodes, keepTrace: TIMELINE_EVENTS };
    result = await run(world, workload, { signal: context.signal, replay: { faults, operations } });
  }
  if (html !== undefined) write(html, timelineHtml(result), "the timeline", output.line);
  if (history !== undefined) {
    const lines = result.history.map((entry) => `${JSON.stringify(entry)}\n`);
    write(history, lines.join(""), "the history", output.line);
  }
}

function write(path: string, text: string, what: string, line: (text: string) => void): void {
  try {
    writeFileSync(path, text);
  } catch (cause) {
    throw new ShardloomError("ERR_INVALID_ARGUMENT", `Cannot write ${what} to ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
  line(`Wrote ${what} to ${path}.`);
}

/** After the first SIGINT: what was done until then. */
function interrupted(session: Session): number {
  const { context, runs, done } = session;
  const { output } = context;
  reportRuns(session);
  for (const run of done) output.object(reportObject(run));
  output.object({ interrupted: true, runs: done.length, of: runs });
  output.line(`Interrupted after ${formatCount(done.length)} of ${formatCount(runs)} ${runs === 1 ? "run" : "runs"}.`);
  return EXIT.FAILURE;
}
