/**
 * LDBC's expected outputs: reads them, and says how an answer differs from them.
 *
 * BFS and CDLP must be equal, WCC up to renaming, PageRank, LCC and SSSP within a relative 1e-4 (README of the data). A difference is a
 * sentence; no difference is an empty list. A vertex that is missing, or is there and should not be, is one as well.
 */
import type { VertexKey } from "../../../actors/graph/vertex-key.ts";
import { UNREACHED } from "../../../src/sim/workloads/graph-reference.ts";

export const ALGORITHMS = ["BFS", "CDLP", "LCC", "PR", "SSSP", "WCC"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];
export type Output = ReadonlyMap<VertexKey, VertexKey>;

const TOLERANCE = 1e-4;
/** What LDBC writes for the depth of a vertex that BFS does not reach. */
const MAX_INT64 = "9223372036854775807";
const MOST_DIFFERENCES = 10;

/** Reads lines `id value`. @throws if a line is anything else */
export function parseOutput(text: string): Map<VertexKey, number> {
  const values = new Map<VertexKey, number>();
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue;
    const [id, value, ...rest] = line.trim().split(/\s+/);
    const number = value === "infinity" || value === MAX_INT64 ? UNREACHED : Number(value);
    if (rest.length > 0 || Number.isNaN(number) || values.has(Number(id))) throw new Error(`bad line: ${line}`);
    values.set(Number(id), number);
  }
  return values;
}

/** How `actual` differs from `expected`: at most {@link MOST_DIFFERENCES} sentences. */
export function compareOutput(
  algorithm: Algorithm,
  expected: Output,
  actual: Output,
  tolerance: number = TOLERANCE,
): string[] {
  const differences: string[] = [];
  const forward = new Map<VertexKey, VertexKey>();
  const back = new Map<VertexKey, VertexKey>();
  const isSame = (wanted: VertexKey, value: VertexKey): boolean => {
    switch (algorithm) {
      case "BFS":
      case "CDLP":
        return wanted === value;
      case "WCC": {
        if (!forward.has(wanted) && !back.has(value)) {
          forward.set(wanted, value);
          back.set(value, wanted);
        }
        return forward.get(wanted) === value && back.get(value) === wanted;
      }
      default:
        return isClose(Number(wanted), typeof value === "number" ? value : Number.NaN, tolerance);
    }
  };
  for (const [key, wanted] of expected) {
    const value = actual.get(key);
    if (value === undefined) differences.push(`${key} is missing`);
    else if (!isSame(wanted, value)) differences.push(`${key} has ${value} instead of ${wanted}`);
  }
  for (const key of actual.keys()) if (!expected.has(key)) differences.push(`${key} should not be there`);
  return differences.slice(0, MOST_DIFFERENCES);
}

function isClose(wanted: number, value: number, tolerance: number): boolean {
  return wanted === value || (Number.isFinite(wanted) && Math.abs(value - wanted) <= tolerance * Math.abs(wanted));
}
