/** The route bench at smoke size: every part works, and no plan allocates beyond itself; its times mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

test("bench route --smoke writes rows with samples and a verdict for C1", () => {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
  try {
    const file = join(folder, "route.json");
    execFileSync(process.execPath, [MAIN, "route", "--smoke", "--json", file], { encoding: "utf8", timeout: 60_000 });
    const report = JSON.parse(readFileSync(file, "utf8")) as {
      rows: { samples: number[]; median: number }[];
      goals: { id: string; ratio: number | null; note: string }[];
    };
    expect(report.rows.length).toBeGreaterThan(10);
    for (const row of report.rows) {
      expect(row.samples.length).toBeGreaterThan(0);
      expect(row.median).toBeGreaterThan(0);
    }
    const goal = report.goals.find(({ id }) => id === "C1");
    expect(goal?.ratio, goal?.note).toBeGreaterThan(0); // NaN, and so null, when a plan allocates more than itself
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 90_000);
