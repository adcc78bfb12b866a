/**
 * The bench harness: cases that are validated, sides that interleave (ABAB…), medians with spread.
 *
 * Invariant: the samples that a ratio compares come from alternating runs of one process run, so that a noisy or
 * throttled machine hits both sides alike. A case whose validate() throws before or after the runs fails the bench.
 * Source: STYLE.md, "Benches".
 */
import type { Goal, GoalResult } from "./goals.ts";

export type BenchMode = "smoke" | "quick" | "full";

/** One side of one comparison. */
export interface BenchCase {
  readonly name: string;
  readonly side: string;
  readonly unit: string;
  /** Makes what run() needs: threads, child processes. */
  setup?(): Promise<void> | void;
  /** One sample in `unit`; an array gives several samples of one operation each. */
  run(): Promise<number | readonly number[]> | number | readonly number[];
  /** Throws unless the case really did its work (a second thread, right sums). Called after a warm-up run, and at the end. */
  validate(): void;
  close?(): Promise<void> | void;
}

/** The samples of one case. */
export interface BenchRow {
  readonly case: string;
  readonly side: string;
  readonly unit: string;
  readonly median: number;
  readonly p99: number;
  readonly samples: readonly number[];
  readonly note?: string;
}

export interface BenchReport {
  readonly rows: readonly BenchRow[];
  readonly goals: readonly GoalResult[];
  /** What was skipped and why, and the wait strategies used. */
  readonly notes: readonly string[];
}

/** What the command line gives to benches that take it. */
export interface BenchInputs {
  /** Vectors to index (bench `graph`: a graph, as the command line takes it), queries, and the true nearest of each query. */
  readonly data?: string | undefined;
  readonly queries?: string | undefined;
  readonly truth?: string | undefined;
  /** Vectors to index at most. */
  readonly rows?: number | undefined;
  /** Where a report with plots is written. */
  readonly html?: string | undefined;
}

export interface BenchContext {
  readonly mode: BenchMode;
  readonly seed: number;
  readonly goals: readonly Goal[];
  readonly inputs: BenchInputs;
  log(line: string): void;
}

/** A bench by name; see the registry in `bench/main.ts`. */
export interface Bench {
  readonly name: string;
  run(context: BenchContext): Promise<BenchReport>;
}

/** Picks a size by mode. */
export function sized<T>(mode: BenchMode, smoke: T, quick: T, full: T): T {
  return mode === "smoke" ? smoke : mode === "quick" ? quick : full;
}

/** The q-quantile of the values, by nearest rank. */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) return Number.NaN;
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] as number;
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Makes the row of one case; keeps at most 200 samples in the row, evenly chosen, after computing over all. */
export function toRow(name: string, side: string, unit: string, samples: readonly number[], note?: string): BenchRow {
  const step = Math.max(1, Math.floor(samples.length / 200));
  const kept = samples.filter((_, index) => index % step === 0).map((sample) => Number(sample.toPrecision(5)));
  return {
    case: name,
    side,
    unit,
    median: median(samples),
    p99: quantile(samples, 0.99),
    samples: kept,
    ...(note === undefined ? {} : { note }),
  };
}

/**
 * Runs all cases in turn, `rounds` times, after one warm-up round that is not counted.
 *
 * @returns One row per case, in order.
 */
export async function interleave(cases: readonly BenchCase[], rounds: number): Promise<BenchRow[]> {
  const samples = cases.map((): number[] => []);
  try {
    for (const one of cases) await one.setup?.();
    for (const one of cases) {
      await one.run();
      one.validate();
    }
    for (let round = 0; round < rounds; round++) {
      for (const [index, one] of cases.entries()) {
        const sample = await one.run();
        if (typeof sample === "number") samples[index]?.push(sample);
        else samples[index]?.push(...sample);
      }
    }
    for (const one of cases) one.validate();
  } finally {
    for (const one of cases) await one.close?.();
  }
  return cases.map((one, index) => toRow(one.name, one.side, one.unit, samples[index] ?? []));
}

/** The median of one row over that of another. */
export function ratioOf(
  rows: readonly BenchRow[],
  name: string,
  side: string,
  baseline: string,
  baselineName: string = name,
): number {
  const ours = rows.find((row) => row.case === name && row.side === side);
  const theirs = rows.find((row) => row.case === baselineName && row.side === baseline);
  return ours === undefined || theirs === undefined ? Number.NaN : ours.median / theirs.median;
}
