/** The ring bench at smoke size: every part works; its figures mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

test("bench ring --smoke writes rows with samples and a verdict for every goal", () => {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
  try {
    const file = join(folder, "ring.json");
    const table = execFileSync(process.execPath, [MAIN, "ring", "--smoke", "--json", file], {
      encoding: "utf8",
      timeout: 110_000,
    });
    const report = JSON.parse(readFileSync(file, "utf8")) as {
      mode: string;
      rows: { samples: number[]; median: number }[];
      goals: { id: string; ratio: number }[];
    };
    expect(report.mode).toBe("smoke");
    expect(report.rows.length).toBeGreaterThan(20);
    for (const row of report.rows) {
      expect(row.samples.length).toBeGreaterThan(0);
      expect(row.median).toBeGreaterThan(0);
    }
    const ids = report.goals.map((goal) => goal.id);
    expect(ids).toEqual(expect.arrayContaining(["R3", "R4", "R4b", "R5", "R6", "R6b"]));
    for (const id of ids) expect(table).toContain(id);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 120_000);

test("an unknown bench is refused", () => {
  expect(() => execFileSync(process.execPath, [MAIN, "nothing"], { stdio: "pipe" })).toThrow(/usage: bench/);
});
