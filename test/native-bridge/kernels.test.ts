/** The WASM kernels against plain float64 JavaScript, and the scan against a sort. */

import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { compileKernels, ELEMENT, Kernels, METRIC } from "../../native-bridge/kernels.ts";
import { makeArena, plainDistance, random } from "./kernels-support.ts";

const MODULE = compileKernels();

const METRICS = Object.values(METRIC);

describe("distance", () => {
  test.each([...METRICS])("metric %i equals float64 for f32 and u8, dimensions 1 to 70, any alignment", (metric) => {
    const arena = makeArena(256);
    const kernels = new Kernels(MODULE, arena);
    const bytes = new Uint8Array(arena.memory.buffer);
    const next = random(7 + metric);
    const area = arena.allocate(4096);
    let checked = 0;
    for (let dimensions = 1; dimensions <= 70; dimensions++) {
      for (let shift = 0; shift < 16; shift++) {
        const a = Float32Array.from({ length: dimensions }, () => next() * 2 - 1);
        const b = Float32Array.from({ length: dimensions }, () => next() * 2 - 1);
        const left = area + shift;
        const right = area + 2048 + ((shift * 7) & 15);
        bytes.fill(0xff, area, area + 4096); // what lies behind the vector must not matter
        bytes.set(new Uint8Array(a.buffer), left);
        bytes.set(new Uint8Array(b.buffer), right);
        expect(kernels.distance(metric, ELEMENT.F32, left, right, dimensions)).toBeCloseTo(
          plainDistance(metric, a, b),
          4,
        );
        const p = Uint8Array.from({ length: dimensions }, () => next() * 256);
        const q = Uint8Array.from({ length: dimensions }, () => next() * 256);
        bytes.set(p, left);
        bytes.set(q, right);
        const got = kernels.distance(metric, ELEMENT.U8, left, right, dimensions);
        if (metric === METRIC.COSINE) expect(got).toBeCloseTo(plainDistance(metric, p, q), 5);
        else expect(got).toBe(plainDistance(metric, p, q));
        checked++;
      }
    }
    expect(checked).toBe(70 * 16);
  });

  test("integer data is exact at 784 dimensions of 0 or 255", () => {
    const arena = makeArena(256);
    const kernels = new Kernels(MODULE, arena);
    const f32 = new Float32Array(arena.memory.buffer);
    const a = arena.allocate(784 * 4);
    const b = arena.allocate(784 * 4);
    const next = random(3);
    for (let i = 0; i < 784; i++) {
      f32[(a >> 2) + i] = Math.floor(next() * 256);
      f32[(b >> 2) + i] = Math.floor(next() * 256);
    }
    const expected = plainDistance(
      METRIC.L2,
      f32.subarray(a >> 2, (a >> 2) + 784),
      f32.subarray(b >> 2, (b >> 2) + 784),
    );
    expect(kernels.distance(METRIC.L2, ELEMENT.F32, a, b, 784)).toBe(expected);
  });

  test("a zero vector is at cosine distance 1 of everything, also of itself, and has inverse norm 0", () => {
    const arena = makeArena(256);
    const kernels = new Kernels(MODULE, arena);
    const f32 = new Float32Array(arena.memory.buffer);
    const zero = arena.allocate(64);
    const one = arena.allocate(64);
    f32[one >> 2] = 3;
    expect(kernels.distance(METRIC.COSINE, ELEMENT.F32, zero, one, 5)).toBe(1);
    expect(kernels.distance(METRIC.COSINE, ELEMENT.F32, zero, zero, 5)).toBe(1);
    expect(kernels.distance(METRIC.COSINE, ELEMENT.F32, one, one, 5)).toBe(0);
    expect(kernels.inverseNorm(ELEMENT.F32, zero, 5)).toBe(0);
    expect(kernels.inverseNorm(ELEMENT.F32, one, 5)).toBeCloseTo(1 / 3, 7);
  });

  test("huge components neither overflow the norm nor give NaN", () => {
    const arena = makeArena(256);
    const kernels = new Kernels(MODULE, arena);
    const f32 = new Float32Array(arena.memory.buffer);
    const a = arena.allocate(64);
    const b = arena.allocate(64);
    f32.set([3e38, 3e38], a >> 2);
    f32.set([3e38, -3e38], b >> 2);
    expect(kernels.inverseNorm(ELEMENT.F32, a, 2)).toBeGreaterThan(0);
    for (const metric of METRICS) expect(kernels.distance(metric, ELEMENT.F32, a, b, 2)).not.toBeNaN();
  });
});

describe("extreme magnitudes", () => {
  const magnitudes = [1e-44, 1e-38, 1e-30, 1e-22, 1e-15, 1e-7, 1, 1e7, 1e15, 1e19, 1e25, 1e30, 3e38];

  test.each([...METRICS])(
    "metric %i equals float64 for every pair of them, mixed or alone, in a scan as well",
    (metric) => {
      const arena = makeArena(256);
      const kernels = new Kernels(MODULE, arena);
      const i32 = new Int32Array(arena.memory.buffer);
      const f32 = new Float32Array(arena.memory.buffer);
      const next = random(11);
      const cell = arena.allocate(512);
      const query = arena.allocate(512);
      for (const of of magnitudes)
        for (const other of magnitudes)
          for (const dimensions of [1, 3, 4, 16, 37, 70]) {
            const vector = (scale: number, mixed: number): Float32Array =>
              Float32Array.from({ length: dimensions }, () => (next() * 2 - 1) * (next() < 0.5 ? scale : mixed));
            for (const [a, b] of [
              [vector(of, of), vector(other, other)],
              [vector(of, other), vector(other, of)],
              [vector(of, of), vector(of, of)],
            ] as const) {
              f32.set(a, (cell + 32) >> 2);
              f32.set(b, query >> 2);
              const wanted = plainDistance(metric, a, b);
              const scale =
                metric === METRIC.L2
                  ? wanted
                  : metric === METRIC.COSINE
                    ? 1
                    : 1 + a.reduce((sum, x, at) => sum + Math.abs(x * (b[at] as number)), 0);
              const what = `${of} and ${other}, ${dimensions} dimensions`;
              const distance = kernels.distance(metric, ELEMENT.F32, cell + 32, query, dimensions);
              expect(Math.abs(distance - wanted), what).toBeLessThanOrEqual(1e-5 * scale);
              i32[(cell >> 2) + 3] = 64;
              f32[(cell >> 2) + 7] = kernels.inverseNorm(ELEMENT.F32, cell + 32, dimensions);
              kernels.beginScan(metric, ELEMENT.F32, b, 1);
              expect(kernels.scanCells(cell, 512, 0, 1)).toBe(1);
              kernels.endScan();
              expect(Math.abs(kernels.hitDistance(0) - wanted), what).toBeLessThanOrEqual(1e-5 * scale);
            }
          }
    },
  );
});

interface Rows {
  readonly arena: ReturnType<typeof makeArena>;
  readonly kernels: Kernels;
  readonly i32: Int32Array;
  readonly f32: Float32Array;
  readonly cells: number;
  readonly stride: number;
  readonly vectors: Float32Array[];
}

function makeRows(count: number, dimensions: number, seed: number, grid = false): Rows {
  const arena = makeArena(256);
  const kernels = new Kernels(MODULE, arena);
  const stride = (32 + dimensions * 4 + 15) & ~15;
  const cells = arena.allocate(count * stride);
  const i32 = new Int32Array(arena.memory.buffer);
  const f32 = new Float32Array(arena.memory.buffer);
  const next = random(seed);
  const vectors: Float32Array[] = [];
  for (let row = 0; row < count; row++) {
    const vector = Float32Array.from({ length: dimensions }, () => (grid ? Math.floor(next() * 3) : next() * 2 - 1));
    vectors.push(vector);
    const cell = cells + row * stride;
    i32[(cell >> 2) + 3] = 1; // user0: not free
    f32.set(vector, (cell + 32) >> 2);
    f32[(cell >> 2) + 7] = kernels.inverseNorm(ELEMENT.F32, cell + 32, dimensions);
  }
  return { arena, kernels, i32, f32, cells, stride, vectors };
}

function hitsOf(kernels: Kernels, count: number): [number, number][] {
  return Array.from({ length: count }, (_, index) => [kernels.hitDistance(index), kernels.hitRow(index)]);
}

function sorted(pairs: [number, number][], k: number): [number, number][] {
  return pairs.sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, k);
}

describe("scanCells", () => {
  test.each([...METRICS])("metric %i equals sorting all distances, for many k, with ties by row", (metric) => {
    const rows = makeRows(333, 5, 11, true);
    const { kernels } = rows;
    const query = Float32Array.of(1, 0, 2, 1, 1);
    const all = rows.vectors.map((vector, row): [number, number] => [plainDistance(metric, vector, query), row]);
    for (const k of [1, 2, 3, 10, 100, 332, 333, 500]) {
      kernels.beginScan(metric, ELEMENT.F32, query, k);
      kernels.scanCells(rows.cells, rows.stride, 0, 100);
      kernels.scanCells(rows.cells, rows.stride, 100, 333); // a second range shares the heap
      const count = kernels.endScan();
      expect(count).toBe(Math.min(k, 333));
      expect(kernels.scoredCount).toBe(333);
      expect(kernels.unreadCount).toBe(0);
      const got = hitsOf(kernels, count);
      const expected = sorted([...all], k);
      if (metric === METRIC.COSINE) {
        for (let i = 0; i < count; i++) expect(got[i]?.[0]).toBeCloseTo(expected[i]?.[0] as number, 5);
      } else expect(got).toEqual(expected);
    }
  });

  test("free rows, masked rows and rows outside the bitmap are skipped; rowBase shifts rows and bitmap", () => {
    const rows = makeRows(100, 9, 5);
    const { kernels, i32 } = rows;
    const bitmap = rows.arena.allocate(64);
    const admitted: [number, number][] = [];
    const query = rows.vectors[42] as Float32Array;
    for (let row = 0; row < 100; row++) {
      const cell = (rows.cells + row * rows.stride) >> 2;
      if (row % 5 === 0) i32[cell + 3] = 0;
      if (row % 7 === 0) i32[cell + 6] = 0x40000000;
      const word = (bitmap >> 2) + ((row + 37) >> 5);
      if (row % 2 === 0) i32[word] = (i32[word] as number) | (1 << ((row + 37) & 31));
      if (row % 5 !== 0 && row % 7 !== 0 && row % 2 === 0)
        admitted.push([plainDistance(METRIC.L2, rows.vectors[row] as Float32Array, query), row + 37]);
    }
    kernels.beginScan(METRIC.L2, ELEMENT.F32, query, 100, { bitmap, skipMask: 0x40000000 });
    kernels.scanCells(rows.cells, rows.stride, 0, 100, 37);
    const got = hitsOf(kernels, kernels.endScan());
    expect(got.map((hit) => hit[1])).toEqual(sorted(admitted, 100).map((hit) => hit[1]));
    expect(got.length).toBeGreaterThan(20);
  });

  test.each([0, 16, 37, 128])("few rows of a long bitmap are found wherever they are; rows begin at %i", (base) => {
    const count = 700;
    const rows = makeRows(count, 4, 3);
    const { kernels, i32 } = rows;
    const bitmap = rows.arena.allocate(128);
    const next = random(base + 1);
    const query = rows.vectors[0] as Float32Array;
    for (let round = 0; round < 40; round++) {
      i32.fill(0, bitmap >> 2, (bitmap >> 2) + 32);
      // The last row is always one: what is passed over at once must end before it.
      const wanted = new Set([count - 1, ...Array.from({ length: round % 5 }, () => Math.floor(next() * count))]);
      for (const row of wanted) {
        const word = (bitmap >> 2) + ((row + base) >> 5);
        i32[word] = (i32[word] as number) | (1 << ((row + base) & 31));
      }
      kernels.beginScan(METRIC.L2, ELEMENT.F32, query, count, { bitmap });
      kernels.scanCells(rows.cells, rows.stride, 0, count, base);
      const got = hitsOf(kernels, kernels.endScan()).map(([, row]) => row - base);
      expect(new Set(got)).toEqual(wanted);
    }
  });

  test("a row that stays odd is reported as unread, the others are answered", () => {
    const rows = makeRows(50, 4, 9);
    const { kernels, i32 } = rows;
    i32[(rows.cells + 17 * rows.stride) >> 2] = 3;
    kernels.beginScan(METRIC.L2, ELEMENT.F32, rows.vectors[17] as Float32Array, 50);
    kernels.scanCells(rows.cells, rows.stride, 0, 50);
    expect(kernels.endScan()).toBe(49);
    expect(kernels.unreadCount).toBe(1);
    expect(kernels.unreadRow(0)).toBe(17);
    expect(kernels.offerCell(rows.cells + 17 * rows.stride, 17)).toBe(-1);
    i32[(rows.cells + 17 * rows.stride) >> 2] = 4;
    expect(kernels.offerCell(rows.cells + 17 * rows.stride, 17)).toBe(1);
    expect(kernels.endScan()).toBe(50);
  });

  test("u8 rows", () => {
    const rows = makeRows(64, 33, 1);
    const { kernels } = rows;
    const bytes = new Uint8Array(rows.arena.memory.buffer);
    const next = random(77);
    const query = Uint8Array.from({ length: 33 }, () => next() * 256);
    const all: [number, number][] = [];
    for (let row = 0; row < 64; row++) {
      const vector = Uint8Array.from({ length: 33 }, () => next() * 256);
      bytes.set(vector, rows.cells + row * rows.stride + 32);
      all.push([plainDistance(METRIC.L2, vector, query), row]);
    }
    kernels.beginScan(METRIC.L2, ELEMENT.U8, query, 10);
    kernels.scanCells(rows.cells, rows.stride, 0, 64);
    expect(hitsOf(kernels, kernels.endScan())).toEqual(sorted(all, 10));
  });

  test("scratch grows for a large k", () => {
    const rows = makeRows(10, 4, 2);
    const before = rows.kernels.scratchBytes;
    rows.kernels.beginScan(METRIC.L2, ELEMENT.F32, rows.vectors[0] as Float32Array, 100_000);
    expect(rows.kernels.scratchBytes).toBeGreaterThan(before);
    rows.kernels.scanCells(rows.cells, rows.stride, 0, 10);
    expect(rows.kernels.endScan()).toBe(10);
  });

  test.each([0, -1, 1.5, Number.NaN])("k = %d is refused with its value", (k) => {
    const rows = makeRows(1, 4, 2);
    expect(() => rows.kernels.beginScan(METRIC.L2, ELEMENT.F32, rows.vectors[0] as Float32Array, k)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
  });

  test.each([
    ["a writer on another thread never makes the scan accept a torn row", true],
    ["a writer that skips the versions does: the check can fail", false],
  ])("%s", async (_name, versioned) => {
    // The writer keeps all components of a row equal. A torn row would have two values, hence a distance that no
    // single value gives: the query is (0, 1), and (v, v) is at v² + (v − 1)², always odd for integers.
    const dimensions = 256;
    const rows = makeRows(8, dimensions, 3);
    const { kernels, i32, f32 } = rows;
    for (let row = 0; row < 8; row++)
      f32.fill(
        0,
        (rows.cells + row * rows.stride + 32) >> 2,
        (rows.cells + row * rows.stride + 32 + dimensions * 4) >> 2,
      );
    const stop = rows.arena.allocate(64) >> 2;
    const source = `
      const { workerData: d } = require("node:worker_threads");
      const i32 = new Int32Array(d.buffer), f32 = new Float32Array(d.buffer);
      let writes = 0;
      for (let v = 1; Atomics.load(i32, d.stop) === 0; v = (v + 1) % 100) {
        for (let row = 0; row < 8; row++) {
          const cell = (d.cells + row * d.stride) >> 2;
          if (d.versioned) Atomics.add(i32, cell, 1);
          for (let i = 0; i < ${dimensions}; i++) f32[cell + 8 + i] = v;
          if (d.versioned) Atomics.add(i32, cell, 1);
        }
        Atomics.store(i32, d.stop + 1, ++writes);
      }`;
    const worker = new Worker(source, {
      eval: true,
      workerData: { buffer: rows.arena.memory.buffer, cells: rows.cells, stride: rows.stride, stop, versioned },
    });
    const query = new Float32Array(dimensions);
    query[dimensions - 1] = 1;
    let torn = 0;
    let seen = 0;
    const values = new Set<number>();
    const legal = new Set(Array.from({ length: 100 }, (_, v) => (dimensions - 1) * v * v + (v - 1) ** 2));
    const beganMs = performance.now();
    const isEnough = (): boolean =>
      seen > 1_000 && values.size > 10 && Atomics.load(i32, stop + 1) > 100 && (versioned || torn > 0);
    for (let ms = 0; ms < 300 || (!isEnough() && ms < 30_000); ms = performance.now() - beganMs) {
      kernels.beginScan(METRIC.L2, ELEMENT.F32, query, 8);
      kernels.scanCells(rows.cells, rows.stride, 0, 8);
      const count = kernels.endScan();
      for (let i = 0; i < count; i++) {
        const d = kernels.hitDistance(i);
        values.add(d);
        seen++;
        if (!legal.has(d)) torn++;
      }
    }
    Atomics.store(i32, stop, 1);
    await new Promise((resolve) => worker.once("exit", resolve));
    if (versioned) expect(torn).toBe(0);
    else expect(torn).toBeGreaterThan(0);
    expect(seen).toBeGreaterThan(1_000);
    expect(values.size).toBeGreaterThan(10); // the writer was really running beside the scan
    expect(Atomics.load(i32, stop + 1)).toBeGreaterThan(100);
  });
});
