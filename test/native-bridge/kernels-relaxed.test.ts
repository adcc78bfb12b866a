/** The build with relaxed SIMD against the portable one, and how one of the two is chosen. */
import { setFlagsFromString } from "node:v8";
import { describe, expect, test } from "vitest";
import { compileKernels, ELEMENT, type ElementCode, Kernels, METRIC } from "../../native-bridge/kernels.ts";
import {
  drawVector,
  ELEMENTS,
  FLAVOURS,
  isExact,
  METRICS,
  makeArena,
  plain,
  random,
  TOLERANCE,
} from "./kernels-support.ts";

// Node 20 has the instructions behind a flag; it is set before any module is compiled.
if (process.versions.node.startsWith("20.")) setFlagsFromString("--experimental-wasm-relaxed-simd");

const arena = makeArena();
const portable = new Kernels(compileKernels("portable"), arena);
const fastest = new Kernels(compileKernels("fastest"), arena);
const bytes = new Uint8Array(arena.memory.buffer);
const [left, right] = [arena.allocate(16_384), arena.allocate(16_384)];

test("the default is the fastest build, compiled once, and it is another than the portable one", () => {
  expect(compileKernels()).toBe(compileKernels("fastest"));
  expect(compileKernels("portable")).toBe(compileKernels("portable"));
  expect(compileKernels("fastest")).not.toBe(compileKernels("portable"));
});

function both(metric: number, element: ElementCode, dimensions: number): [number, number] {
  return [
    portable.distance(metric, element, left, right, dimensions),
    fastest.distance(metric, element, left, right, dimensions),
  ];
}

describe.each(ELEMENTS)("%s", (_name, element) => {
  test.each([...METRICS])("metric %i: integers are equal, floats within the tolerance of float64", (metric) => {
    const next = random(31 * element + metric);
    for (const dimensions of [...Array.from({ length: 70 }, (_, i) => i + 1), 128, 784, 1536])
      for (const flavour of FLAVOURS) {
        const record = drawVector(element, dimensions, next, flavour);
        const query = drawVector(element, dimensions, next, "uniform", true);
        bytes.set(record.bytes, left);
        bytes.set(query.bytes, right);
        const [slow, fast] = both(metric, element, dimensions);
        if (isExact(element, metric)) expect(fast).toBe(slow);
        const { distance, scale } = plain(metric, record.values, query.values);
        expect(Math.abs(fast - distance)).toBeLessThanOrEqual(TOLERANCE * scale);
      }
  });
});

test("whole numbers in f32 stay exact: 784 bytes, squared distance and dot product", () => {
  const next = random(5);
  const f32 = new Float32Array(arena.memory.buffer);
  for (let i = 0; i < 784; i++) {
    f32[(left >> 2) + i] = Math.floor(next() * 256);
    f32[(right >> 2) + i] = Math.floor(next() * 256);
  }
  for (const metric of [METRIC.L2, METRIC.INNER_PRODUCT]) {
    const values = (at: number): number[] => [...f32.subarray(at >> 2, (at >> 2) + 784)];
    const { distance } = plain(metric, values(left), values(right));
    expect(both(metric, ELEMENT.F32, 784)).toEqual([distance, distance]);
  }
});

test("the two builds do differ in the last bits of floats: the comparison compares something", () => {
  const next = random(8);
  let different = 0;
  for (let round = 0; round < 50; round++) {
    bytes.set(drawVector(ELEMENT.F32, 784, next).bytes, left);
    bytes.set(drawVector(ELEMENT.F32, 784, next).bytes, right);
    const [slow, fast] = both(METRIC.L2, ELEMENT.F32, 784);
    if (slow !== fast) different++;
  }
  // A machine without fused products rounds as the portable build does; all 64-bit ones of the last ten years have them.
  expect(different).toBeGreaterThan(0);
});
