/** The durable bench at smoke size: every part works; its figures mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const GOALS: readonly string[] = ["L1", "L1b", "L2", "L2b", "L3", "L3b", "L3c", "L3d", "L4", "L5", "L5b"];
/** Goals that tell of a loss, which may be none; and one that is 0 when a busy machine left nothing to compare with. */
const LOSSES: readonly string[] = ["L3b", "L3d", "L4"];
const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

test("bench durable --smoke writes rows with samples and verdicts on every goal", () => {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
  try {
    const file = join(folder, "durable.json");
    execFileSync(process.execPath, [MAIN, "durable", "--smoke", "--json", file], { stdio: "pipe", timeout: 110_000 });
    const { rows, goals } = JSON.parse(readFileSync(file, "utf8")) as {
      rows: { samples: number[]; median: number }[];
      goals: { id: string; ratio: number }[];
    };
    expect(rows.length).toBeGreaterThanOrEqual(12);
    for (const row of rows) expect(row.median).toBeGreaterThan(0);
    expect(goals.map(({ id }) => id)).toEqual(GOALS);
    // Nothing need be lost of the recall, nor a quorum be slower.
    for (const { id, ratio } of goals) expect(ratio, id).toBeGreaterThan(LOSSES.includes(id) ? -2 : 0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 120_000);
