/** The kernels bench at smoke size: every side computes what the others do; its times mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

test("bench kernels --smoke writes rows for every element, dimension, place and side", () => {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
  try {
    const file = join(folder, "kernels.json");
    execFileSync(process.execPath, [MAIN, "kernels", "--smoke", "--json", file], { encoding: "utf8", timeout: 60_000 });
    const { rows } = JSON.parse(readFileSync(file, "utf8")) as {
      rows: { case: string; side: string; samples: number[]; median: number }[];
    };
    const names = new Set(rows.map((row) => `${row.case} ${row.side}`));
    expect(names.size).toBe(rows.length);
    expect(rows.length).toBe(6 * 2 * 2 * 3 + 4);
    for (const row of rows) {
      expect(row.samples.length).toBeGreaterThan(0);
      expect(row.median).toBeGreaterThan(0);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 90_000);
