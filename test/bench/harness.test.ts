import { describe, expect, test } from "vitest";
import { judge, readGoals } from "../../bench/harness/goals.ts";
import { type BenchCase, interleave, quantile, ratioOf } from "../../bench/harness/harness.ts";
import { toTable } from "../../bench/harness/report.ts";

function countingCase(side: string, log: string[], valid: () => boolean): BenchCase {
  return {
    name: "case",
    side,
    unit: "ns/op",
    run: () => {
      log.push(side);
      return log.length;
    },
    validate: () => {
      if (!valid()) throw new Error(`void: ${side}`);
    },
    close: () => {
      log.push(`close ${side}`);
    },
  };
}

describe("bench harness", () => {
  test("sides alternate, and the warm-up round is not counted", async () => {
    const log: string[] = [];
    const rows = await interleave([countingCase("a", log, () => true), countingCase("b", log, () => true)], 3);
    expect(log).toEqual(["a", "b", "a", "b", "a", "b", "a", "b", "close a", "close b"]);
    expect(rows.map((row) => row.samples)).toEqual([
      [3, 5, 7],
      [4, 6, 8],
    ]);
    expect(ratioOf(rows, "case", "a", "b")).toBeCloseTo(5 / 6);
    expect(ratioOf(rows, "case", "a", "nobody")).toBeNaN();
  });

  test("a case that did not do its work fails the bench, and everything is closed", async () => {
    const log: string[] = [];
    await expect(interleave([countingCase("a", log, () => false)], 3)).rejects.toThrow("void: a");
    expect(log.at(-1)).toBe("close a");
  });

  test("quantiles are by nearest rank", () => {
    expect([quantile([3, 1, 2], 0.5), quantile([1], 0.99), quantile([], 0.5)]).toEqual([2, 1, Number.NaN]);
  });

  test("goals have unique ids; a missed goal is said to be missed, NaN is a miss, an unknown id throws", () => {
    const goals = readGoals();
    expect(new Set(goals.map((goal) => goal.id)).size).toBe(goals.length);
    for (const id of [
      "R1",
      "R2",
      "R3",
      "R4",
      "R5",
      "R6",
      "A2",
      "A2b",
      "A3a",
      "A3b",
      "A3c",
      "A3d",
      "M1",
      "M2",
      "M3",
      "M4",
      "V2",
      "E1a",
      "E1b",
      "E1c",
      "A5a",
      "A5b",
      "A5c",
    ]) {
      expect(goals.some((goal) => goal.id === id)).toBe(true);
    }
    expect(judge(goals, "R1", 2).ok).toBe(true);
    expect(judge(goals, "R1", 2.01).ok).toBe(false);
    expect(judge(goals, "A2", 6.9).ok).toBe(false);
    expect(judge(goals, "A2", Number.NaN).ok).toBe(false);
    expect(() => judge(goals, "R99", 1)).toThrow(/no such id/);
    expect(toTable("ring", { rows: [], goals: [judge(goals, "R1", 3)], notes: [] })).toContain("MISSED");
  });
});
