/**
 * Goals: the committed limits of `bench/goals.json` and the verdict on a measured value.
 *
 * Invariant: no bench carries a limit of its own; an id that is not in the file fails the bench.
 */
import { readFileSync } from "node:fs";

/** One line of `bench/goals.json`. */
export interface Goal {
  readonly id: string;
  readonly issue: number;
  readonly bench: string;
  readonly what: string;
  /** `max`: the value must not exceed the limit; `min`: it must reach it. */
  readonly sense: "max" | "min";
  readonly limit: number;
  readonly stretch?: number;
}

/** A goal with what this run measured; `value` is a ratio unless `what` names a unit. */
export interface GoalResult {
  readonly id: string;
  readonly what: string;
  readonly ratio: number;
  readonly limit: number;
  readonly sense: "max" | "min";
  readonly ok: boolean;
  readonly note?: string;
}

const FILE = new URL("../../../bench/goals.json", import.meta.url);

/** Reads all goals. */
export function readGoals(file: URL = FILE): Goal[] {
  return (JSON.parse(readFileSync(file, "utf8")) as { goals: Goal[] }).goals;
}

/** Holds a value against the limit of a goal. NaN is a miss: nothing was measured. */
export function judge(goals: readonly Goal[], id: string, ratio: number, note?: string): GoalResult {
  const goal = goals.find((candidate) => candidate.id === id);
  if (goal === undefined) throw new Error(`Cannot judge ${id} as bench/goals.json has no such id`);
  const ok = goal.sense === "max" ? ratio <= goal.limit : ratio >= goal.limit;
  const { what, limit, sense } = goal;
  return { id, what, ratio, limit, sense, ok, ...(note === undefined ? {} : { note }) };
}
