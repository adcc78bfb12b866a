/** Report of one bench: the JSON object that STYLE.md gives, and the same as a table. */
import { execFileSync } from "node:child_process";
import { availableParallelism, cpus } from "node:os";
import type { BenchMode, BenchReport } from "./harness.ts";

/** Adds machine, commit and mode to what a bench returned. */
export function toJson(bench: string, mode: BenchMode, seed: number, report: BenchReport): Record<string, unknown> {
  return {
    bench,
    commit: commitOf(),
    node: process.version,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    mode,
    seed,
    rows: report.rows,
    goals: report.goals,
    notes: report.notes,
  };
}

/** The table for people. A missed goal says MISSED; it does not fail the run. */
export function toTable(bench: string, report: BenchReport): string {
  const lines = [`\n${bench}`];
  const rows = report.rows.map((row) => [
    row.case,
    row.side,
    format(row.median),
    format(row.p99),
    row.unit,
    row.note ?? "",
  ]);
  lines.push(...align([["case", "side", "median", "p99", "unit", ""], ...rows]));
  if (report.goals.length > 0) {
    lines.push("");
    const goals = report.goals.map((goal) => [
      goal.id,
      format(goal.ratio),
      `${goal.sense === "max" ? "<=" : ">="} ${goal.limit}`,
      goal.ok ? "ok" : "MISSED",
      goal.what,
      goal.note ?? "",
    ]);
    lines.push(...align([["goal", "value", "limit", "", "what", ""], ...goals]));
  }
  for (const note of report.notes) lines.push(`note: ${note}`);
  return lines.join("\n");
}

function align(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ")}`.trimEnd());
}

function format(value: number): string {
  return Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "-";
}

function commitOf(): string {
  try {
    return execFileSync("git", ["rev-parse", "--short", "HEAD"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  } catch {
    return "unknown"; // not a checkout: an installed package has no commit to name
  }
}
