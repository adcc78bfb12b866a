/**
 * What `shardloom sim` says of its runs: one object for programs, tables for people.
 *
 * Invariant: both say the same, of the result alone.
 */

import type { Fault } from "../sim/fault-types.ts";
import type { Violation } from "../sim/history-types.ts";
import { repeatCommand } from "../sim/repeat-command.ts";
import type { ShrunkRun } from "../sim/shrink-run.ts";
import type { Operation, WorkloadRef } from "../sim/workload-types.ts";
import type { RunResult, WorldOptions } from "../sim/world-types.ts";
import { formatTable, type TableColumn, truncate } from "./table.ts";
import { formatCount, formatSeconds } from "./units.ts";

/** A run as it is reported. */
export interface ReportedRun {
  readonly result: RunResult;
  /** Of the result, and that a second run had another trace. */
  readonly violations: readonly Violation[];
  readonly isVerified: boolean;
  readonly world: WorldOptions;
  readonly workload: WorkloadRef;
}

/** Violations that are listed; further ones are counted. */
const MAX_LISTED = 5;
/** Faults and operations of a shrunk run that are listed. */
const MAX_ROWS = 40;

export function reportObject(run: ReportedRun, shrunk?: ShrunkRun): Record<string, unknown> {
  const { result, violations } = run;
  const small = shrunk === undefined ? undefined : shrunkObject(shrunk);
  return {
    seed: result.seed,
    traceHash: result.traceHash,
    verified: run.isVerified,
    events: result.events,
    eventsPerSecond: Math.round(perSecond(result.events, result.wallMs)),
    simulatedMs: result.simulatedMs,
    wallMs: result.wallMs,
    timesRealTime: timesRealTime(result),
    faults: result.faultsByKind,
    faultCount: result.faults.length,
    operations: endsOf(result),
    verdict: violations.length === 0 ? "passed" : "failed",
    violations: violations.map(({ rule, message }) => ({ rule, message })),
    repeat: repeatCommand(run.world, run.workload),
    ...(small === undefined ? {} : { shrunk: small }),
  };
}

function shrunkObject({ nodes, faults, operations, violation, runs, isMinimal, wallMs, test }: ShrunkRun): unknown {
  const { rule, message } = violation;
  return { nodes, faults, operations, violation: { rule, message }, runs, isMinimal, wallMs, test };
}

/** One run: everything, a line for each. */
export function reportTable(run: ReportedRun, columns: number): string {
  const { result } = run;
  const { ok, fail, info } = endsOf(result);
  const kinds = Object.entries(result.faultsByKind).map(([kind, count]) => `${kind} ${formatCount(count)}`);
  const rows: [string, string][] = [
    ["seed", String(result.seed)],
    ["trace hash", `${result.traceHash}${run.isVerified ? ", twice" : ""}`],
    ["simulated", `${formatSeconds(result.simulatedMs / 1000)} on ${result.nodes.length} nodes`],
    ["took", `${formatSeconds(result.wallMs / 1000)}, ${rounded(timesRealTime(result))} × real time`],
    ["events", `${formatCount(result.events)}, ${formatCount(Math.round(perSecond(result.events, result.wallMs)))}/s`],
    ["faults", result.faults.length === 0 ? "none" : `${formatCount(result.faults.length)}: ${kinds.join(", ")}`],
    ["operations", `${formatCount(ok)} ok, ${formatCount(fail)} fail, ${formatCount(info)} info`],
    ["verdict", verdictText(run)],
  ];
  return formatTable([{ title: "what" }, { title: "value" }], rows, { columns: Math.max(columns, 200) });
}

/** Many runs: one line for each. */
export function runsTable(runs: readonly ReportedRun[], columns: number): string {
  const right = (title: string): TableColumn => ({ title, align: "right" });
  const rows = runs.map((run) => {
    const { result } = run;
    const { ok, fail, info } = endsOf(result);
    return [
      result.seed,
      result.traceHash,
      formatCount(result.events),
      formatCount(Math.round(perSecond(result.events, result.wallMs))),
      rounded(timesRealTime(result)),
      formatCount(result.faults.length),
      `${formatCount(ok)}/${formatCount(fail)}/${formatCount(info)}`,
      verdictText(run),
    ];
  });
  return formatTable(
    [
      right("seed"),
      { title: "trace hash" },
      right("events"),
      right("events/s"),
      right("× real time"),
      right("faults"),
      right("ok/fail/info"),
      { title: "verdict" },
    ],
    rows,
    { columns },
  );
}

/** What was broken, and the command that breaks it again. */
export function violationLines(run: ReportedRun): string[] {
  const listed = run.violations.slice(0, MAX_LISTED).map(({ rule, message }) => `  ${rule}: ${message}`);
  const more = run.violations.length - listed.length;
  return [
    `Seed ${run.result.seed} breaks:`,
    ...listed,
    ...(more > 0 ? [`  and ${formatCount(more)} more`] : []),
    `Repeat: ${repeatCommand(run.world, run.workload)}`,
  ];
}

/** What is left of a run after shrinking. */
export function shrunkLines(shrunk: ShrunkRun, from: RunResult, columns: number): string[] {
  const end = shrunk.isMinimal ? "nothing can be left out" : "the time was up";
  const width = Math.max(40, columns - 2);
  return [
    `Shrunk from ${counts(from.faults.length, from.operations.length)} to ${counts(shrunk.faults.length, shrunk.operations.length)} on ${shrunk.nodes} ${shrunk.nodes === 1 ? "node" : "nodes"}`,
    `in ${formatCount(shrunk.runs)} runs and ${formatSeconds(shrunk.wallMs / 1000)}; ${end}.`,
    ...listed(shrunk.faults.map(faultLine), width),
    ...listed(shrunk.operations.map(operationLine), width),
    `  ${shrunk.violation.rule}: ${shrunk.violation.message}`,
  ];
}

function counts(faults: number, operations: number): string {
  return `${formatCount(faults)} ${faults === 1 ? "fault" : "faults"} and ${formatCount(operations)} ${operations === 1 ? "operation" : "operations"}`;
}

function listed(lines: readonly string[], width: number): string[] {
  const shown = lines.slice(0, MAX_ROWS).map((line) => `  ${truncate(line, width)}`);
  return lines.length > MAX_ROWS ? [...shown, `  and ${formatCount(lines.length - MAX_ROWS)} more`] : shown;
}

function faultLine(fault: Fault): string {
  const size = fault.size === 0 ? "" : `, size ${rounded(fault.size)}`;
  if (!("atMs" in fault)) return `${fault.kind} at ${fault.site}, number ${fault.ordinal}${size}`;
  const duration = fault.durationMs === 0 ? "" : ` for ${rounded(fault.durationMs)} ms`;
  return `${fault.kind} of ${fault.targets.join(", ")} at ${rounded(fault.atMs)} ms${duration}${size}`;
}

function operationLine({ process, f, value, afterMs }: Operation): string {
  return `process ${process}: ${f} ${JSON.stringify(value)}${afterMs === 0 ? "" : ` after ${rounded(afterMs)} ms`}`;
}

function verdictText({ violations }: ReportedRun): string {
  if (violations.length === 0) return "passed";
  const rules = [...new Set(violations.map(({ rule }) => rule))];
  return `FAILED: ${rules.join(", ")}`;
}

function endsOf({ history }: RunResult): { ok: number; fail: number; info: number } {
  const ends = { ok: 0, fail: 0, info: 0 };
  for (const { type } of history) if (type !== "invoke") ends[type]++;
  return ends;
}

function timesRealTime({ simulatedMs, wallMs }: RunResult): number {
  return wallMs > 0 ? Number((simulatedMs / wallMs).toPrecision(3)) : 0;
}

function perSecond(count: number, wallMs: number): number {
  return wallMs > 0 ? (count * 1000) / wallMs : 0;
}

function rounded(value: number): string {
  return formatCount(Number(value.toPrecision(3)));
}
