/** The bench barrier at smoke size: every part works; its figures mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

test("bench barrier --smoke writes rows with samples and a verdict for both goals", () => {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
  try {
    const file = join(folder, "barrier.json");
    execFileSync(process.execPath, [MAIN, "barrier", "--smoke", "--json", file], { stdio: "pipe", timeout: 110_000 });
    const report = JSON.parse(readFileSync(file, "utf8")) as {
      rows: { samples: number[]; median: number }[];
      goals: { id: string; ratio: number }[];
    };
    expect(report.goals.map(({ id }) => id)).toEqual(["C4", "C4b"]);
    expect(report.rows).toHaveLength(3);
    for (const row of report.rows) expect(row.median).toBeGreaterThan(0);
    for (const goal of report.goals) expect(goal.ratio).toBeGreaterThan(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 120_000);
