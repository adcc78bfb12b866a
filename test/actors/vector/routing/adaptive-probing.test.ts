/** The model of where neighbours are, and its thresholds. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  expectedShare,
  fitShareModel,
  gapOf,
  type RankedQuery,
  recallCurve,
  thresholdFor,
} from "../../../../actors/vector/routing/adaptive-probing.ts";
import { runSteps } from "../../../../actors/vector/routing/steps.ts";
import { METRIC } from "../../../../native-bridge/kernels.ts";
import { SEED, seeded } from "./support.ts";

/** Queries whose neighbours follow a model exactly, but for chance. */
function drawn(count: number, weights: readonly [number, number, number], offset: number): RankedQuery[] {
  const random = seeded(offset);
  return Array.from({ length: count }, () => {
    const gaps = Array.from({ length: 12 }, () => random.float() * 8).sort((a, b) => a - b);
    gaps[0] = 0;
    const distances = Float64Array.from(gaps, (gap) => (5 + gap) ** 2);
    const chances = gaps.map((gap, i) => expectedShare({ weights, gapUnit: 1 }, gap, i));
    const shares = new Float64Array(12);
    const neighbours = Int32Array.from({ length: 10 }, () => {
      const leaf = chances.findIndex((chance) => random.float() < chance);
      if (leaf >= 0) shares[leaf] = (shares[leaf] as number) + 0.1;
      return leaf;
    });
    return { leaves: Int32Array.from(gaps, (_, i) => i), distances, shares, neighbours };
  });
}

describe("model", () => {
  test("shares that follow a logistic law of the gap are found again", () => {
    const random = seeded(1);
    const queries = Array.from({ length: 400 }, (): RankedQuery => {
      const gaps = Float64Array.from({ length: 10 }, (_, i) => (i === 0 ? 0 : random.float() * 4)).sort();
      const shares = gaps.map((gap, i) => expectedShare({ weights: [0.5, -2, -0.7], gapUnit: 1 }, gap, i));
      return {
        leaves: new Int32Array(10),
        distances: gaps.map((gap) => (3 + gap) ** 2),
        shares,
        neighbours: new Int32Array(0),
      };
    });
    const { weights, gapUnit } = runSteps(fitShareModel(METRIC.L2, queries));
    expect(weights[0]).toBeCloseTo(0.5, 3);
    expect(weights[1] / gapUnit).toBeCloseTo(-2, 3);
    expect(weights[2]).toBeCloseTo(-0.7, 3);
  });

  test("stays finite where the data decide nothing, or everything", () => {
    const flat = (shares: number[], distances = [4, 4, 4]): RankedQuery => ({
      leaves: Int32Array.of(0, 1, 2),
      distances: Float64Array.from(distances),
      shares: Float64Array.from(shares),
      neighbours: Int32Array.of(0),
    });
    for (const query of [
      flat([1, 0, 0]),
      flat([0, 0, 0]),
      flat([1, 1, 1]),
      flat([1, 0, 0], [0, 9, 1e30]),
      flat([0, 0, 1], [1, 2, 3]),
    ]) {
      const model = runSteps(fitShareModel(METRIC.L2, Array(50).fill(query)));
      expect(model.weights.every(Number.isFinite)).toBe(true);
      expect(model.gapUnit).toBeGreaterThan(0);
    }
    expect(() => runSteps(fitShareModel(METRIC.L2, []))).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
  });

  test("gaps are lengths, but for inner product, where distances may be negative", () => {
    expect(gapOf(METRIC.L2, 25, 9)).toBe(2);
    expect(gapOf(METRIC.COSINE, 0.25, 0.04)).toBeCloseTo(0.3);
    expect(gapOf(METRIC.INNER_PRODUCT, -5, -9)).toBe(4);
    expect(gapOf(METRIC.L2, -1e-9, 0)).toBe(0);
  });
});

describe("thresholds", () => {
  test("a threshold from one half of the queries reaches its target on the other half", () => {
    const weights = [1.5, -1, -0.5] as const;
    const model = runSteps(fitShareModel(METRIC.L2, drawn(600, weights, 2)));
    let compared = 0;
    const [train, other] = [drawn(600, weights, 3), drawn(600, weights, 4)];
    for (const groupOf of [(leaf: number) => leaf, (leaf: number) => leaf % 4]) {
      const curve = runSteps(recallCurve(model, METRIC.L2, train, groupOf));
      const check = runSteps(recallCurve(model, METRIC.L2, other, groupOf));
      for (const target of [0.6, 0.7, 0.8, 0.9]) {
        // The best is visited always; below what that brings, and above what all bring, there is nothing to choose.
        if ((curve.recalls.at(-1) as number) < target || (curve.recalls[0] as number) > target) continue;
        compared++;
        const threshold = thresholdFor(curve, target);
        const at = check.thresholds.findIndex((value) => value <= threshold);
        expect(Math.abs((check.recalls[at] as number) - target)).toBeLessThan(0.04);
      }
    }
    expect(compared).toBeGreaterThan(1);
  });

  test("property: recall rises as thresholds fall, and a higher target never has a higher threshold", () => {
    const targets = fc.array(fc.double({ min: 0.01, max: 1, noNaN: true }), { minLength: 2, maxLength: 8 });
    fc.assert(
      fc.property(fc.nat(1000), targets, (offset, unsorted) => {
        const queries = drawn(5, [1, -1, -1], offset);
        const curve = runSteps(
          recallCurve(runSteps(fitShareModel(METRIC.L2, queries)), METRIC.L2, queries, (leaf) => leaf),
        );
        for (let i = 1; i < curve.recalls.length; i++)
          expect(curve.recalls[i] as number).toBeGreaterThanOrEqual(curve.recalls[i - 1] as number);
        const thresholds = unsorted.sort((a, b) => a - b).map((target) => thresholdFor(curve, target));
        for (let i = 1; i < thresholds.length; i++)
          expect(thresholds[i] as number).toBeLessThanOrEqual(thresholds[i - 1] as number);
      }),
      { seed: SEED, numRuns: 60 },
    );
  });

  test("a target that was never reached, and a target of 1, let everything in", () => {
    const curve = { thresholds: [0.5, 0.1], recalls: [0.6, 0.8] };
    expect(thresholdFor(curve, 0.9)).toBe(0);
    expect(thresholdFor(curve, 1)).toBe(0);
    expect(thresholdFor(curve, 0.8)).toBeCloseTo(0.1);
    expect(thresholdFor(curve, 0.3)).toBe(0.5);
  });

  test.each([0, -1, 1.0001, Number.NaN, Number.POSITIVE_INFINITY])("a target of %f is refused", (target) => {
    expect(() => thresholdFor({ thresholds: [1], recalls: [1] }, target)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining("recallTarget") }),
    );
  });
});
