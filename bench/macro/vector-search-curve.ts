/**
 * What searches cost at which recall: the curves of bench `vector-search`, and what is read off them.
 *
 * Invariant: two sides are compared at equal recall, by interpolation between measured points, never at equal settings. A recall that no
 * point reaches gives NaN, which is a missed goal; one that even the cheapest point exceeds gives that point's cost, which is too much: the
 * notes name such curves, as it flatters what they are compared with.
 */
import type { BenchReport } from "../harness/harness.ts";
import { K } from "./vector-search-data.ts";

/** At which sides are compared, unless a goal says otherwise. */
export const RECALL = 0.99;

/** One setting of one side. */
export interface Point {
  readonly recall: number;
  /** Queries a second of one thread; undefined where only counters were measured. */
  readonly qps?: number | undefined;
  /** Distances computed a query. */
  readonly distances?: number | undefined;
}

/** One side of a plot. */
export interface Curve {
  readonly name: string;
  readonly points: readonly Point[];
}

/** What a part of the bench brings. */
export interface PartReport extends BenchReport {
  readonly curves: readonly Curve[];
}

/** The cost at a recall, by what `cost` says of a point: interpolated along log(1 − recall). */
export function costAt<P extends Point>(points: readonly P[], recall: number, cost: (point: P) => number): number {
  const sorted = [...points].sort((a, b) => a.recall - b.recall || cost(a) - cost(b));
  const above = sorted.findIndex((point) => point.recall >= recall);
  if (above < 0) return Number.NaN;
  const high = sorted[above] as P;
  const low = sorted[above - 1];
  if (low === undefined || high.recall === low.recall) return cost(high);
  const depth = (value: number): number => Math.log(1 - Math.min(value, 0.99999));
  const share = (depth(recall) - depth(low.recall)) / (depth(high.recall) - depth(low.recall));
  return cost(low) * (cost(high) / cost(low)) ** share;
}

/** Notes on curves that begin above a recall. */
export function onlyAbove(curves: readonly Curve[], recall: number): string[] {
  return curves
    .filter(({ points }) => points.every((point) => point.recall > recall))
    .map(
      ({ name }) =>
        `ABOVE: ${name} was measured above recall ${recall} alone; at ${recall} it costs less than was taken`,
    );
}

/** How many of the found rows are among the {@link K} nearest of a query. */
export function countFound(truth: Int32Array, query: number, found: Iterable<number>): number {
  const nearest = truth.subarray(query * K, (query + 1) * K);
  let count = 0;
  for (const row of found) if (nearest.includes(row)) count++;
  return count;
}

/** A bench that did not do what it claims fails. */
export function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(`vector-search bench: ${what}`);
}
