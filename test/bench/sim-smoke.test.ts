/** The bench of simulated clusters at smoke size: every part works; its figures mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

test("bench sim --smoke writes rows with samples and verdicts on D2 to D6", () => {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
  try {
    const file = join(folder, "sim.json");
    execFileSync(process.execPath, [MAIN, "sim", "--smoke", "--json", file], { stdio: "pipe", timeout: 110_000 });
    const { rows, goals } = JSON.parse(readFileSync(file, "utf8")) as {
      rows: { samples: number[]; median: number }[];
      goals: { id: string; ratio: number; ok: boolean }[];
    };
    expect(rows.length).toBeGreaterThanOrEqual(11);
    for (const { samples } of rows) expect(samples.length).toBeGreaterThan(0);
    const ids = ["D2", "D3", "D3b", "D3c", "D4", "D4b", "D4c", "D5", "D5b", "D6", "D6b"];
    expect(goals.map(({ id }) => id)).toEqual(ids);
    // What does not depend on the machine must hold at any size.
    for (const id of ["D2", "D6b"]) expect(goals.find((goal) => goal.id === id)?.ok).toBe(true);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 120_000);
