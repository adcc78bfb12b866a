/** Codes of vectors: what comes back, what is refused, how far distances are off, and what a search over codes finds. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createCode, learnCode } from "../../../../actors/vector/codes/code-choice.ts";
import { fromHalf } from "../../../../actors/vector/codes/half.ts";
import { candidatesFor, rerank } from "../../../../actors/vector/codes/rerank.ts";
import { CODE_NAMES, type CodeParameters } from "../../../../actors/vector/codes/vector-code.ts";
import { METRIC } from "../../../../native-bridge/kernels.ts";
import { plainDistance } from "../../../native-bridge/kernels-support.ts";
import { clustered, encodeAll, gaussian, random, recall } from "./support.ts";

const METRICS = Object.entries(METRIC);
const NAMED = METRICS.flatMap(([metricName, metric]) => CODE_NAMES.map((name) => [name, metricName, metric] as const));

describe("every code", () => {
  test.each(NAMED)("%s for %s: parameters survive JSON and encode alike", (name, _metricName, metric) => {
    const next = random(4);
    const vectors = clustered(50, 21, next);
    const parameters = learnCode(name, 21, metric, vectors);
    const code = createCode(parameters);
    const again = createCode(JSON.parse(JSON.stringify(parameters)) as CodeParameters);
    expect(code.parameters).toEqual(again.parameters);
    for (const method of ["encode", "encodeQuery"] as const) {
      const length = method === "encode" ? code.bytesPerVector : code.bytesPerQuery;
      const [left, right] = [new Uint8Array(length + 9).fill(7), new Uint8Array(length + 9).fill(7)];
      for (const vector of vectors) {
        code[method](vector, left, 5);
        again[method](vector, right, 5);
        expect(left).toEqual(right);
        expect([...left.subarray(0, 5), ...left.subarray(5 + length)]).toEqual([7, 7, 7, 7, 7, 7, 7, 7, 7]);
      }
    }
  });

  test.each(CODE_NAMES)("%s refuses other dimensions and what is not finite", (name) => {
    const code = createCode(learnCode(name, 3, METRIC.L2, [Float32Array.of(1, 2, 3)]));
    const bytes = new Uint8Array(64);
    for (const encode of [code.encode, code.encodeQuery]) {
      for (const vector of [[1, 2], [1, 2, 3, 4], []])
        expect(() => encode(Float32Array.from(vector), bytes, 0)).toThrow(
          expect.objectContaining({ code: "ERR_DIMENSION_MISMATCH" }),
        );
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
        expect(() => encode(Float32Array.of(0, bad, 0), bytes, 0)).toThrow(
          expect.objectContaining({ code: "ERR_NOT_FINITE", details: { component: 1, value: String(bad) } }),
        );
    }
    expect(bytes).toEqual(new Uint8Array(64));
  });

  test.each(["i8", "b1"] as const)("%s cannot be learnt from nothing", (name) => {
    expect(() => learnCode(name, 3, METRIC.L2, [])).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
  });

  test("what no code can be made from is refused", () => {
    const shape = { dimensions: 2, metric: METRIC.L2 } as const;
    for (const bad of [
      { ...shape, name: "i8", offset: 0, scale: 0 },
      { ...shape, name: "i8", offset: Number.NaN, scale: 1 },
      { ...shape, name: "b1", mean: [1] },
      { ...shape, name: "pq" },
    ])
      expect(() => createCode(bad as unknown as CodeParameters)).toThrow(
        expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
      );
    expect(() => learnCode("pq" as "u8", 2, METRIC.L2, [])).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
  });
});

describe("auto", () => {
  const shapeOf = (vectors: number[][]): string =>
    learnCode(
      "auto",
      2,
      METRIC.L2,
      vectors.map((vector) => Float32Array.from(vector)),
    ).name;

  test("bytes are kept as bytes, anything else as f16", () => {
    expect(
      shapeOf([
        [0, 255],
        [3, 4],
      ]),
    ).toBe("u8");
    for (const other of [0.5, -1, 256, 254.9999, -0.0001])
      expect(
        shapeOf([
          [0, 255],
          [3, other],
        ]),
      ).toBe("f16");
    expect(shapeOf([])).toBe("f16");
  });
});

describe("u8", () => {
  test("bytes come back, and distances are exact in every metric", () => {
    const next = random(12);
    const vectors = Array.from({ length: 60 }, () => Float32Array.from({ length: 45 }, () => Math.floor(next() * 256)));
    for (const [, metric] of METRICS) {
      const coded = encodeAll("auto", metric, vectors);
      expect([coded.code.parameters.name, coded.code.exact]).toEqual(["u8", true]);
      const query = vectors[7] as Float32Array;
      coded.distancesTo(query).forEach((distance, i) => {
        const wanted = plainDistance(metric, query, vectors[i] as Float32Array);
        if (metric === METRIC.COSINE) expect(distance).toBeCloseTo(wanted, 6);
        else expect(distance).toBe(wanted);
      });
    }
  });

  test("others are rounded and clamped, and said to be", () => {
    const code = createCode({ name: "u8", dimensions: 6, metric: METRIC.L2 });
    const bytes = new Uint8Array(6);
    expect(code.encode(Float32Array.of(0, 1, 2, 253, 254, 255), bytes, 0)).toBe(true);
    expect(code.encode(Float32Array.of(-5, 0.4, 0.6, 254.6, 300, 7), bytes, 0)).toBe(false);
    expect([...bytes]).toEqual([0, 0, 1, 255, 255, 7]);
  });
});

describe("f16", () => {
  const read = (bytes: Uint8Array, i: number): number =>
    fromHalf((bytes[2 * i] as number) | ((bytes[2 * i + 1] as number) << 8));

  test("components are off by at most 2^-11 of themselves; a code says whether they are", () => {
    const code = createCode({ name: "f16", dimensions: 4, metric: METRIC.L2 });
    const bytes = new Uint8Array(8);
    fc.assert(
      fc.property(
        fc.array(fc.float({ min: -65_504, max: 65_504, noNaN: true }), { minLength: 4, maxLength: 4 }),
        (list) => {
          const vector = Float32Array.from(list);
          const same = code.encode(vector, bytes, 0);
          vector.forEach((value, i) => {
            expect(Math.abs(read(bytes, i) - value)).toBeLessThanOrEqual(
              Math.max(Math.abs(value) * 2 ** -11, 2 ** -25),
            );
          });
          expect(same).toBe(vector.every((value, i) => read(bytes, i) === value));
        },
      ),
    );
    expect(code.encode(Float32Array.of(1, -2.5, 0, 65_504), bytes, 0)).toBe(true);
  });

  test("what it cannot hold is refused with its place, unless the scale makes no difference", () => {
    const bytes = new Uint8Array(8);
    const vector = Float32Array.of(0, 65_505, 0, 0);
    for (const metric of [METRIC.L2, METRIC.INNER_PRODUCT])
      expect(() => createCode({ name: "f16", dimensions: 4, metric }).encode(vector, bytes, 0)).toThrow(
        expect.objectContaining({
          code: "ERR_INVALID_ARGUMENT",
          details: { component: 1, value: 65_505, limit: 65_504 },
        }),
      );
    const cosine = createCode({ name: "f16", dimensions: 4, metric: METRIC.COSINE });
    for (const scale of [1e-38, 1, 3e38]) {
      cosine.encode(Float32Array.of(0, scale, 0, 0), bytes, 0);
      expect([read(bytes, 0), read(bytes, 1)]).toEqual([0, 1]);
    }
    cosine.encode(new Float32Array(4), bytes, 0);
    expect([...bytes]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  });
});

describe("i8", () => {
  test("within the sample's range a component is off by at most half a step, beyond it is clamped", () => {
    const sample = [Float32Array.of(-3, 7)];
    const parameters = learnCode("i8", 2, METRIC.L2, sample) as Extract<CodeParameters, { name: "i8" }>;
    expect([parameters.offset, parameters.scale]).toEqual([-3, 10 / 255]);
    const code = createCode(parameters);
    const bytes = new Uint8Array(2);
    const read = (i: number): number => (((bytes[i] as number) << 24) >> 24) + 128;
    fc.assert(
      fc.property(fc.float({ min: -3, max: 7, noNaN: true }), (value) => {
        code.encode(Float32Array.of(value, value), bytes, 0);
        expect(Math.abs(read(0) * parameters.scale + parameters.offset - value)).toBeLessThanOrEqual(
          parameters.scale * 0.5000001,
        );
      }),
    );
    code.encode(Float32Array.of(-1e30, 1e30), bytes, 0);
    expect([read(0), read(1)]).toEqual([0, 255]);
  });

  test("a sample of bytes from 0 to 255 loses nothing; one of equal components does no harm", () => {
    const parameters = learnCode("i8", 2, METRIC.L2, [Float32Array.of(0, 255)]);
    expect(createCode(parameters).encode(Float32Array.of(17, 200), new Uint8Array(2), 0)).toBe(true);
    const flat = createCode(learnCode("i8", 2, METRIC.L2, [Float32Array.of(4, 4)]));
    expect(flat.encode(Float32Array.of(4, 4), new Uint8Array(2), 0)).toBe(true);
    const zero = createCode(learnCode("i8", 2, METRIC.COSINE, [new Float32Array(2)]));
    expect(zero.encode(new Float32Array(2), new Uint8Array(2), 0)).toBe(true);
  });

  test("an outlier does not coarsen the rest", () => {
    const next = random(3);
    const sample = Array.from({ length: 1000 }, () => Float32Array.from({ length: 20 }, () => gaussian(next)));
    (sample[17] as Float32Array)[3] = 1e6;
    for (const [, metric] of METRICS) {
      const { scale } = learnCode("i8", 20, metric, sample) as Extract<CodeParameters, { name: "i8" }>;
      expect(scale).toBeLessThan(0.05);
    }
  });

  test.each(METRICS)("%s: distances of codes, scaled back, are near those of the vectors", (_name, metric) => {
    const next = random(8);
    const vectors = clustered(300, 64, next);
    const coded = encodeAll("i8", metric, vectors);
    let worst = 0;
    for (const query of vectors.slice(0, 20))
      coded.distancesTo(query).forEach((distance, i) => {
        const wanted = plainDistance(metric, query, vectors[i] as Float32Array);
        const scale = metric === METRIC.COSINE ? 1 : Math.hypot(...query) * Math.hypot(...(vectors[i] as Float32Array));
        worst = Math.max(worst, Math.abs(coded.code.distanceOf(distance) - wanted) / scale);
      });
    expect(worst).toBeLessThan(0.03);
    expect(worst).toBeGreaterThan(0);
  });
});

describe("b1", () => {
  test("bits are signs against the mean, and a query equal to a vector is at distance 0", () => {
    const parameters = learnCode("b1", 9, METRIC.L2, [new Float32Array(9).fill(1), new Float32Array(9).fill(3)]);
    expect(parameters).toMatchObject({ mean: [2, 2, 2, 2, 2, 2, 2, 2, 2] });
    const bytes = new Uint8Array(2).fill(0xff);
    createCode(parameters).encode(Float32Array.of(3, 1, 1, 1, 1, 1, 1, 2.5, 2.5), bytes, 0);
    expect([...bytes]).toEqual([0b1000_0001, 1]);
    const vectors = clustered(50, 33, random(2));
    for (const [, metric] of METRICS) {
      const distances = encodeAll("b1", metric, vectors).distancesTo(vectors[5] as Float32Array);
      expect(distances[5]).toBe(metric === METRIC.INNER_PRODUCT ? 1 - 33 : 0);
    }
  });
});

describe("searches that rank again", () => {
  const SEED = Number(process.env["SEED"] ?? 1);
  const next = random(SEED);
  const all = clustered(3_030, 128, next);
  const [vectors, queries] = [all.slice(0, 3_000), all.slice(3_000)];
  const wanted = { f32: 1, f16: 0.99, u8: 0, i8: 0.99, b1: 0.9 } as const;

  test.each(NAMED.filter(([name]) => name !== "u8"))("%s for %s", (name, metricName, metric) => {
    if (name === "b1" && metricName === "INNER_PRODUCT") return; // bits know nothing of length
    const coded = encodeAll(name, metric, vectors);
    expect(recall(coded, metric, vectors, queries, 10)).toBeGreaterThanOrEqual(wanted[name]);
  });
});

describe("rerank", () => {
  const scores = new Map<string | number, number>([
    ["b", 1],
    ["a", 1],
    [5, 1],
    ["near", 0.5],
    ["gone", Number.NaN],
    ["far", 9],
  ]);
  const candidates = [...scores.keys()].map((id) => ({ id }));
  const exact = ({ id }: { id: string | number }): number => scores.get(id) as number;

  test("is in the order of score, then id; what is gone is left out; k cuts", () => {
    const order = ["near", 5, "a", "b", "far"];
    for (const list of [candidates, [...candidates].reverse()]) {
      expect(rerank(list, 10, exact).map(({ id }) => id)).toEqual(order);
      expect(rerank(list, 3, exact).map(({ id, score }) => [id, score])).toEqual([
        ["near", 0.5],
        [5, 1],
        ["a", 1],
      ]);
    }
    expect(rerank([], 3, exact)).toEqual([]);
  });

  test("an exact code needs no more candidates than hits", () => {
    const shape = { dimensions: 2, metric: METRIC.L2 } as const;
    expect(candidatesFor(createCode({ ...shape, name: "u8" }), 10)).toBe(10);
    expect(candidatesFor(createCode({ ...shape, name: "f16" }), 10)).toBeGreaterThan(10);
    expect(candidatesFor(createCode({ ...shape, name: "b1", mean: [0, 0] }), 10)).toBeGreaterThan(100);
  });
});
