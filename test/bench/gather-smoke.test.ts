/** The gather bench at smoke size: every part works; its figures mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

test("bench gather --smoke writes rows with samples and a verdict on C3", () => {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
  try {
    const file = join(folder, "gather.json");
    execFileSync(process.execPath, [MAIN, "gather", "--smoke", "--json", file], { stdio: "pipe", timeout: 110_000 });
    const { rows, goals } = JSON.parse(readFileSync(file, "utf8")) as {
      rows: { samples: number[]; median: number }[];
      goals: { id: string; ratio: number }[];
    };
    expect(rows.length).toBeGreaterThanOrEqual(6);
    for (const row of rows) expect(row.median).toBeGreaterThan(0);
    expect(goals.map(({ id }) => id)).toEqual(expect.arrayContaining(["C3", "C3b"]));
    for (const { ratio } of goals) expect(ratio).toBeGreaterThan(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 120_000);
