/** Distances of every element type against plain TypeScript: all metrics, dimensions, alignments, extreme values. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compileKernels, ELEMENT, type ElementCode, Kernels, METRIC } from "../../native-bridge/kernels.ts";
import {
  drawVector,
  ELEMENTS,
  FLAVOURS,
  fromHalf,
  isExact,
  METRICS,
  makeArena,
  plain,
  random,
  TOLERANCE,
  type Vector,
} from "./kernels-support.ts";

const AREA = 16_384;
const DIMENSIONS = [...Array.from({ length: 70 }, (_, i) => i + 1), 127, 128, 784, 1536];

class Bed {
  readonly arena = makeArena();
  readonly kernels = new Kernels(compileKernels(), this.arena);
  readonly bytes = new Uint8Array(this.arena.memory.buffer);
  readonly left = this.arena.allocate(AREA);
  readonly right = this.arena.allocate(AREA);

  /** The distance of two vectors that start at any offset; what stands around them is garbage. */
  distance(metric: number, element: ElementCode, record: Vector, query: Vector, shifts: readonly number[]): number {
    const [left = 0, right = 0] = shifts;
    this.bytes.fill(0xff, this.left, this.left + record.bytes.length + 64);
    this.bytes.fill(0xa5, this.right, this.right + query.bytes.length + 64);
    this.bytes.set(record.bytes, this.left + left);
    this.bytes.set(query.bytes, this.right + right);
    return this.kernels.distance(metric, element, this.left + left, this.right + right, record.values.length);
  }
}

function check(metric: number, element: ElementCode, record: Vector, query: Vector, got: number): void {
  const { distance, scale } = plain(metric, record.values, query.values);
  if (isExact(element, metric)) expect(got).toBe(distance);
  else expect(Math.abs(got - distance)).toBeLessThanOrEqual(TOLERANCE * scale);
}

describe.each(ELEMENTS)("%s", (_name, element) => {
  test.each([...METRICS])("metric %i equals float64 in every dimension, at any alignment", (metric) => {
    const bed = new Bed();
    const next = random(100 * element + metric);
    let checked = 0;
    for (const dimensions of DIMENSIONS)
      for (const flavour of FLAVOURS) {
        const shifts = [Math.floor(next() * 16), Math.floor(next() * 16)];
        const record = drawVector(element, dimensions, next, flavour);
        const query = drawVector(element, dimensions, next, flavour === "zero" ? "uniform" : flavour, true);
        check(metric, element, record, query, bed.distance(metric, element, record, query, shifts));
        checked++;
      }
    expect(checked).toBe(DIMENSIONS.length * FLAVOURS.length);
  });

  test("any two vectors of any dimension: a property", () => {
    const bed = new Bed();
    const flavour = fc.constantFrom(...FLAVOURS);
    fc.assert(
      fc.property(
        fc.constantFrom(...METRICS),
        fc.integer({ min: 1, max: 2_000 }),
        fc.nat(),
        fc.tuple(flavour, flavour),
        fc.array(fc.nat(15), { minLength: 2, maxLength: 2 }),
        (metric, dimensions, seed, flavours, shifts) => {
          const next = random(seed);
          const record = drawVector(element, dimensions, next, flavours[0]);
          const query = drawVector(element, dimensions, next, flavours[1], true);
          check(metric, element, record, query, bed.distance(metric, element, record, query, shifts));
        },
      ),
      { numRuns: 300 },
    );
  });

  test("a vector is at distance 0 of itself", () => {
    const bed = new Bed();
    const next = random(element);
    for (const dimensions of [1, 7, 64, 100, 784]) {
      const record = drawVector(element, dimensions, next);
      const values = Float32Array.from(record.values);
      const query =
        element === ELEMENT.F16_F32 ? { bytes: new Uint8Array(values.buffer), values: record.values } : record;
      expect(bed.distance(METRIC.L2, element, record, query, [3, 5])).toBe(0);
      expect(bed.distance(METRIC.COSINE, element, record, query, [3, 5])).toBeLessThan(1e-6);
    }
  });

  test("a zero vector is at cosine distance 1 and has inverse norm 0", () => {
    if (element === ELEMENT.B1) return; // no vector of ±1 is zero
    const bed = new Bed();
    const zero = drawVector(element, 20, random(1), "zero");
    const other = drawVector(element, 20, random(2), "uniform", true);
    expect(bed.distance(METRIC.COSINE, element, zero, other, [0, 0])).toBe(1);
    const queryZero = drawVector(element, 20, random(1), "zero", true);
    expect(bed.distance(METRIC.COSINE, element, zero, queryZero, [0, 0])).toBe(1);
    expect(bed.kernels.inverseNorm(element, bed.right, 20)).toBe(0);
  });

  test("inverse norms", () => {
    const bed = new Bed();
    for (const dimensions of [1, 5, 16, 33, 784]) {
      const query = drawVector(element, dimensions, random(dimensions), "uniform", true);
      bed.bytes.set(query.bytes, bed.right + 1);
      const wanted = 1 / Math.hypot(...query.values);
      expect(bed.kernels.inverseNorm(element, bed.right + 1, dimensions) / wanted).toBeCloseTo(1, 6);
    }
  });

  test("a scan ranks cells as a sort of all distances does", () => {
    const { arena, kernels, bytes } = new Bed();
    const next = random(9 + element);
    const [dimensions, count] = [45, 100];
    const words = new Int32Array(arena.memory.buffer);
    const floats = new Float32Array(arena.memory.buffer);
    const query = drawVector(element, dimensions, next, "uniform", true);
    const cells = arena.allocate(count * 256);
    const expected: [number, number][] = [];
    for (const metric of METRICS) {
      expected.length = 0;
      for (let row = 0; row < count; row++) {
        const cell = cells + row * 256;
        const record = drawVector(element, dimensions, next);
        bytes.set(record.bytes, cell + 32);
        words[(cell >> 2) + 3] = 1;
        const own = element === ELEMENT.F16_F32 ? ELEMENT.F16 : element;
        floats[(cell >> 2) + 7] = kernels.inverseNorm(own, cell + 32, dimensions);
        expected.push([plain(metric, record.values, query.values).distance, row]);
      }
      expected.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
      kernels.beginScan(metric, element, typed(element, query), 10, { dimensions });
      kernels.scanCells(cells, 256, 0, count);
      expect(kernels.endScan()).toBe(10);
      for (let hit = 0; hit < 10; hit++) {
        const [distance = 0, row] = expected[hit] ?? [];
        expect(Math.abs(kernels.hitDistance(hit) - distance)).toBeLessThanOrEqual(1e-4 * (1 + Math.abs(distance)));
        if (isExact(element, metric)) expect([kernels.hitDistance(hit), kernels.hitRow(hit)]).toEqual([distance, row]);
      }
    }
  });
});

/** The query as `beginScan` takes it. */
function typed(element: ElementCode, { bytes }: Vector): Float32Array | Uint8Array | Int8Array | Uint16Array {
  const { buffer } = bytes;
  if (element === ELEMENT.F32 || element === ELEMENT.F16_F32) return new Float32Array(buffer);
  if (element === ELEMENT.F16) return new Uint16Array(buffer);
  return element === ELEMENT.I8 ? new Int8Array(buffer) : bytes;
}

describe("f16", () => {
  test("every one of the 63,488 finite numbers is taken for what it is", () => {
    const bed = new Bed();
    const zero = { bytes: new Uint8Array(4), values: [0] };
    const one = { bytes: new Uint8Array(Float32Array.of(1).buffer), values: [1] };
    let checked = 0;
    for (let bits = 0; bits < 0x10000; bits++) {
      if ((bits & 0x7c00) === 0x7c00) continue;
      const value = fromHalf(bits);
      const record = { bytes: new Uint8Array(Uint16Array.of(bits).buffer), values: [value] };
      // As the one component (scalar code), and as 16 of them (vector code).
      const got = 1 - bed.distance(METRIC.INNER_PRODUCT, ELEMENT.F16_F32, record, one, [0, 0]);
      if (Math.abs(got - value) > 1e-16) expect.fail(`${bits.toString(16)} is ${got}, not ${value}`);
      checked++;
    }
    expect(checked).toBe(63_488);
    expect(bed.distance(METRIC.L2, ELEMENT.F16_F32, { bytes: new Uint8Array(2), values: [0] }, zero, [0, 0])).toBe(0);
  });

  test("lanes of four as well: squared distance to zero of 16 equal numbers", () => {
    const bed = new Bed();
    const zero = { bytes: new Uint8Array(64), values: Array.from({ length: 16 }, () => 0) };
    for (let bits = 0; bits < 0x7c00; bits++) {
      const value = fromHalf(bits);
      const record = { bytes: new Uint8Array(new Uint16Array(16).fill(bits).buffer), values: zero.values };
      const got = bed.distance(METRIC.L2, ELEMENT.F16_F32, record, zero, [0, 0]);
      const wanted = 16 * value * value;
      if (Math.abs(got - wanted) > 1e-7 * wanted) expect.fail(`${bits.toString(16)}: ${got}, not ${wanted}`);
    }
  });

  test("a query beyond what f32 can square does not overflow", () => {
    const bed = new Bed();
    const record = drawVector(ELEMENT.F16_F32, 40, random(1));
    const values = Array.from({ length: 40 }, (_, i) => Math.fround((i % 3) * 1e38));
    const query = { bytes: new Uint8Array(Float32Array.from(values).buffer), values };
    for (const metric of METRICS)
      check(metric, ELEMENT.F16_F32, record, query, bed.distance(metric, ELEMENT.F16_F32, record, query, [0, 0]));
  });
});

test.each(["U8", "I8"] as const)("%s of the largest dimension and the farthest bytes overflows no lane", (name) => {
  const arena = makeArena();
  const kernels = new Kernels(compileKernels(), arena);
  const bytes = new Uint8Array(arena.memory.buffer);
  const [a, b] = [arena.allocate(65_536), arena.allocate(65_536)];
  const [low, high] = name === "U8" ? [0, 255] : [-128, 127];
  bytes.fill(low, a, a + 65_536).fill(high, b, b + 65_536);
  expect(kernels.distance(METRIC.L2, ELEMENT[name], a, b, 65_536)).toBe(65_536 * 255 ** 2);
  expect(kernels.distance(METRIC.INNER_PRODUCT, ELEMENT[name], b, b, 65_536)).toBe(1 - 65_536 * high ** 2);
  expect(kernels.distance(METRIC.INNER_PRODUCT, ELEMENT[name], a, a, 65_536)).toBe(1 - 65_536 * low ** 2);
});

describe("b1", () => {
  test("bits beyond the last component do not count, bits before it do", () => {
    const bed = new Bed();
    for (let dimensions = 1; dimensions <= 200; dimensions++) {
      const bytes = (dimensions + 7) >> 3;
      const values = Array.from({ length: dimensions }, () => 0);
      const set = { bytes: new Uint8Array(bytes).fill(0xff), values };
      const clear = { bytes: new Uint8Array(bytes), values };
      expect(bed.distance(METRIC.L2, ELEMENT.B1, set, clear, [1, 2])).toBe(4 * dimensions);
      expect(bed.distance(METRIC.COSINE, ELEMENT.B1, set, clear, [1, 2])).toBe(2);
      expect(bed.distance(METRIC.INNER_PRODUCT, ELEMENT.B1, set, set, [1, 2])).toBe(1 - dimensions);
    }
  });

  test("a scan takes eight components a byte unless it is told how many", () => {
    const { arena, kernels, bytes } = new Bed();
    const cells = arena.allocate(64);
    new Int32Array(arena.memory.buffer)[(cells >> 2) + 3] = 1;
    bytes[cells + 33] = 0xff;
    for (const [dimensions, wanted] of [
      [undefined, 32],
      [11, 12],
    ] as const) {
      kernels.beginScan(METRIC.L2, ELEMENT.B1, new Uint8Array(2), 1, dimensions === undefined ? {} : { dimensions });
      kernels.scanCells(cells, 64, 0, 1);
      kernels.endScan();
      expect(kernels.hitDistance(0)).toBe(wanted);
    }
  });
});
