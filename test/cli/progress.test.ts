/** Progress: a bar on a terminal, a line per tenth elsewhere, silence under `--json`. */
import { describe, expect, test } from "vitest";
import { createProgress, type Progress } from "../../src/cli/progress.ts";

function start({
  isTTY = false,
  json = false,
  total = 1000,
}: {
  isTTY?: boolean;
  json?: boolean;
  total?: number | undefined;
}): {
  progress: Progress;
  written: string[];
  clock: { nowMs: number };
} {
  const written: string[] = [];
  const clock = { nowMs: 0 };
  const progress = createProgress({
    label: "indexing",
    unit: "rows",
    total: total === 0 ? undefined : total,
    output: { json, notes: { isTTY, write: (text: string) => written.push(text) } },
    nowMs: () => clock.nowMs,
  });
  return { progress, written, clock };
}

describe("createProgress", () => {
  test("writes one line per tenth where there is no terminal", () => {
    const { progress, written, clock } = start({});
    for (let done = 1; done <= 1000; done += 1) progress.update(done);
    clock.nowMs = 500;
    progress.finish();
    progress.finish();
    expect(written).toHaveLength(10);
    expect(written[0]).toBe("indexing 10 % (100 of 1,000 rows)\n");
    expect(written[9]).toBe("indexing done: 1,000 of 1,000 rows in 500 ms, 2,000/s\n");
  });

  test("writes one line for a jump over many tenths, and none for a step back", () => {
    const { progress, written } = start({});
    progress.update(750);
    progress.update(10);
    progress.update(760);
    expect(written).toEqual(["indexing 70 % (750 of 1,000 rows)\n"]);
  });

  test("writes when the count doubles where the total is unknown", () => {
    const { progress, written } = start({ total: 0 });
    for (let done = 1; done <= 5000; done += 1) progress.update(done);
    expect(written).toEqual(["indexing (1,000 rows)\n", "indexing (2,000 rows)\n", "indexing (4,000 rows)\n"]);
  });

  test("draws a bar on a terminal, at most every 50 ms, and ends with a line", () => {
    const { progress, written, clock } = start({ isTTY: true });
    for (let done = 1; done <= 1000; done += 1) {
      clock.nowMs += 1;
      progress.update(done);
    }
    progress.finish();
    expect(written.length).toBeGreaterThan(10);
    expect(written.length).toBeLessThan(25);
    expect(written[10]).toMatch(/2Kindexing \[█+·+\] \d+ % \d+ of 1,000 rows$/);
    expect(written.at(-1)).toMatch(/indexing done: .*\n$/);
  });

  test("says that it stopped, once", () => {
    const { progress, written } = start({});
    progress.update(50);
    progress.fail();
    progress.update(900);
    progress.finish();
    expect(written).toEqual(["indexing stopped: 50 of 1,000 rows in 0 ns\n"]);
  });

  test("is silent under --json", () => {
    const { progress, written } = start({ json: true, isTTY: true });
    progress.update(500);
    progress.finish();
    expect(written).toEqual([]);
  });
});
