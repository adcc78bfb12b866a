/** The benches search, text and embed at smoke size: every part works; their figures mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

interface Report {
  readonly rows: readonly { readonly case: string; readonly samples: readonly number[] }[];
  readonly goals: readonly { readonly id: string; readonly ratio: number }[];
}

test.each([
  ["search", ["V2"]],
  ["text", ["C5", "C5b"]],
  ["embed", ["E1a", "E1b", "E1c", "E2", "E2b"]],
])(
  "bench %s --smoke writes rows with samples and a verdict for every goal",
  (name, goals) => {
    const folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
    try {
      const file = join(folder, "report.json");
      execFileSync(process.execPath, [MAIN, name, "--smoke", "--json", file], { stdio: "pipe", timeout: 110_000 });
      const report = JSON.parse(readFileSync(file, "utf8")) as Report;
      expect(report.goals.map((goal) => goal.id)).toEqual(goals);
      for (const goal of report.goals) expect(goal.ratio).not.toBeNaN();
      expect(report.rows.length).toBeGreaterThan(4);
      for (const row of report.rows) expect(row.samples.length, row.case).toBeGreaterThan(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  120_000,
);
