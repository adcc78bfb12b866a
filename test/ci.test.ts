/** The tool chain's own checks: the closing line of the CI script, and that every test process knows the run's seed. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

function count(report: unknown): { status: number | null; lastLine: string | undefined } {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-count-"));
  try {
    const file = join(folder, "report.json");
    if (report !== undefined) writeFileSync(file, JSON.stringify(report));
    const { status, stdout } = spawnSync(process.execPath, [".ci/count.mjs", file], { encoding: "utf8" });
    return { status, lastLine: stdout.trimEnd().split("\n").at(-1) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const passedFile = { status: "passed", assertionResults: [{ status: "passed" }] };

describe("closing line", () => {
  test("counts passed tests and succeeds", () => {
    const report = { numPassedTests: 3, numFailedTests: 0, testResults: [passedFile] };
    expect(count(report)).toEqual({ status: 0, lastLine: "3 passed, 0 failed" });
  });

  test("fails on failed tests", () => {
    const failed = { status: "failed", assertionResults: [{ status: "failed" }] };
    const report = { numPassedTests: 3, numFailedTests: 1, testResults: [passedFile, failed] };
    expect(count(report)).toEqual({ status: 1, lastLine: "3 passed, 1 failed" });
  });

  test("fails on a file that could not be loaded", () => {
    const broken = { status: "failed", assertionResults: [] };
    const report = { numPassedTests: 3, numFailedTests: 0, testResults: [passedFile, broken] };
    expect(count(report)).toEqual({ status: 1, lastLine: "3 passed, 1 failed" });
  });

  test("fails when nothing ran or there is no report", () => {
    expect(count({ numPassedTests: 0, numFailedTests: 0, testResults: [] }).status).toBe(1);
    expect(count(undefined)).toEqual({ status: 1, lastLine: "0 passed, 1 failed" });
  });
});

test("the seed of the run reaches every test process and fast-check", () => {
  expect(process.env["SEED"]).toMatch(/^\d+$/);
  expect(fc.readConfigureGlobal().seed).toBe(Number(process.env["SEED"]));
});
