/** The tool chain's own checks: the closing line of the CI script, and that every test process knows the run's seed. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

function count(report: unknown): { status: number | null; lastLine: string | undefined; before: string } {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-count-"));
  try {
    const file = join(folder, "report.json");
    if (report !== undefined) writeFileSync(file, JSON.stringify(report));
    const { status, stdout } = spawnSync(process.execPath, [".ci/count.mjs", file], { encoding: "utf8" });
    const lines = stdout.trimEnd().split("\n");
    return { status, lastLine: lines.at(-1), before: lines.slice(0, -1).join("\n") };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const passedFile = { name: join(process.cwd(), "a.js"), status: "passed", assertionResults: [{ status: "passed" }] };

describe("closing line", () => {
  test("counts passed tests and succeeds", () => {
    const report = { numPassedTests: 3, numFailedTests: 0, testResults: [passedFile] };
    expect(count(report)).toEqual({ status: 0, lastLine: "3 passed, 0 failed", before: "" });
  });

  test("fails on failed tests, and names them", () => {
    const one = {
      status: "failed",
      fullName: "log keeps",
      failureMessages: ["\u001b[31mexpected 1\u001b[39m\nat b.js"],
    };
    const failed = { name: join(process.cwd(), "b.js"), status: "failed", assertionResults: [one] };
    const report = { numPassedTests: 3, numFailedTests: 1, testResults: [passedFile, failed] };
    const before = "failed: b.js > log keeps\n  expected 1\n  at b.js";
    expect(count(report)).toEqual({ status: 1, lastLine: "3 passed, 1 failed", before });
  });

  test("fails on a file that could not be loaded, and names it", () => {
    const broken = {
      name: join(process.cwd(), "c.js"),
      status: "failed",
      message: "no such file",
      assertionResults: [],
    };
    const report = { numPassedTests: 3, numFailedTests: 0, testResults: [passedFile, broken] };
    const before = "failed: c.js > the file itself\n  no such file";
    expect(count(report)).toEqual({ status: 1, lastLine: "3 passed, 1 failed", before });
  });

  test("fails when nothing ran or there is no report", () => {
    expect(count({ numPassedTests: 0, numFailedTests: 0, testResults: [] }).status).toBe(1);
    expect(count(undefined)).toMatchObject({ status: 1, lastLine: "0 passed, 1 failed" });
  });
});

test("the seed of the run reaches every test process and fast-check", () => {
  expect(process.env["SEED"]).toMatch(/^\d+$/);
  expect(fc.readConfigureGlobal().seed).toBe(Number(process.env["SEED"]));
});
