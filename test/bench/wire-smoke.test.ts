/** The wire bench at smoke size: every part but the rolling restart works; its figures mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const GOALS: readonly string[] = ["W1", "W1b", "W2", "W3", "W3b", "W3c", "W4", "W4b", "W5"];
const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

test("bench wire --smoke writes rows with samples and verdicts on goals W1 to W5", () => {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
  try {
    const file = join(folder, "wire.json");
    execFileSync(process.execPath, [MAIN, "wire", "--smoke", "--json", file], { stdio: "pipe", timeout: 110_000 });
    const { rows, goals } = JSON.parse(readFileSync(file, "utf8")) as {
      rows: { samples: number[]; median: number }[];
      goals: { id: string; ratio: number }[];
    };
    expect(rows.length).toBeGreaterThanOrEqual(18);
    for (const row of rows) expect(row.median).toBeGreaterThan(0);
    expect(goals.map(({ id }) => id)).toEqual(expect.arrayContaining([...GOALS]));
    for (const { id, ratio } of goals) expect(ratio, id).toBeGreaterThan(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 120_000);
