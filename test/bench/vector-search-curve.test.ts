/** What bench `vector-search` reads off its curves, draws, and asks. */
import { expect, test } from "vitest";
import { costAt, countFound } from "../../bench/macro/vector-search-curve.ts";
import { drawCharts } from "../../bench/macro/vector-search-plot.ts";
import { zipfOrder } from "../../bench/macro/vector-search-zipf.ts";

const point = (recall: number, qps: number): { recall: number; qps: number } => ({ recall, qps });
const at = (recall: number, ...points: { recall: number; qps: number }[]): number =>
  costAt(points, recall, ({ qps }) => qps);

test("a cost is read between the points around a recall, along log(1 - recall)", () => {
  expect(at(0.99, point(0.9, 1000), point(0.999, 10))).toBeCloseTo(100, 6);
  expect(at(0.99, point(0.999, 10), point(0.95, 400), point(0.99, 70), point(0.9, 1000))).toBeCloseTo(70, 6);
  expect(at(0.99, point(0.98, 5), point(0.99, 7), point(0.99, 6))).toBe(6);
});

test("a recall that no point reaches has no cost, one that all exceed has that of the least", () => {
  expect(at(0.99, point(0.9, 1000), point(0.98, 10))).toBeNaN();
  expect(at(0.99, point(0.999, 10), point(0.995, 20))).toBe(20);
  expect(at(0.99, point(1, 10), point(0.9, 20))).toBeGreaterThan(10);
});

test("found rows count once for their own query", () => {
  const truth = Int32Array.from({ length: 20 }, (_, row) => row);
  expect(countFound(truth, 0, [0, 1, 9, 10, 11])).toBe(3);
  expect(countFound(truth, 1, [0, 1, 9, 10, 19])).toBe(2);
});

test("a Zipf stream asks the first place about twice as often as the second", () => {
  const order = zipfOrder(100, (query) => query % 10, 20_000, 3);
  const counts = Array.from({ length: 10 }, (_, place) => order.filter((query) => query % 10 === place).length);
  counts.sort((a, b) => b - a);
  const total = Array.from({ length: 10 }, (_, rank) => 1 / (rank + 1)).reduce((sum, share) => sum + share, 0);
  for (const [rank, count] of counts.entries())
    expect(Math.abs(count / 20_000 - 1 / (rank + 1) / total), `rank ${rank}`).toBeLessThan(0.012);
});

test("plots hold every curve with what it was measured for, and no number that is none", () => {
  const svg = drawCharts("some <data> & more", [
    { name: "timed", points: [point(0.9, 900), point(0.99, 300), point(1, 100)] },
    { name: "counted", points: [{ recall: 0.95, distances: 250 }] },
  ]);
  expect(svg.match(/<polyline/g)).toHaveLength(2);
  expect(svg.match(/<circle/g)).toHaveLength(4);
  expect(svg).toContain("some &#60;data&#62; &#38; more");
  expect(svg).not.toMatch(/NaN|Infinity|undefined/);
});
