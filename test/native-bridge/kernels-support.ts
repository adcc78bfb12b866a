/** Vectors of every element type, their components in float64, and the distances that plain TypeScript gives them. */
import { ELEMENT, type ElementCode, METRIC } from "../../native-bridge/kernels.ts";

export const METRICS = Object.values(METRIC);
export const ELEMENTS = Object.entries(ELEMENT) as [string, ElementCode][];
/** What sums in f32 lanes may be off by, relative to the sum of the terms' magnitudes. */
export const TOLERANCE = 1e-5;

/** A bump allocator is all that the kernels need of an arena. */
export function makeArena(pages = 64): { memory: WebAssembly.Memory; allocate(n: number): number; free(): void } {
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  let next = 64;
  return {
    memory,
    allocate(n) {
      const at = next;
      next += (n + 63) & ~63;
      if (next > pages * 65_536) throw new Error("test arena is full");
      return at;
    },
    free() {},
  };
}

/** mulberry32 */
export function random(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The distance of two vectors in f64, without the kernels. */
export function plainDistance(metric: number, a: ArrayLike<number>, b: ArrayLike<number>): number {
  let l2 = 0;
  let dot = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i] as number;
    const y = b[i] as number;
    l2 += (x - y) ** 2;
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  if (metric === METRIC.L2) return l2;
  if (metric === METRIC.INNER_PRODUCT) return 1 - dot;
  return aa === 0 || bb === 0 ? 1 : 1 - dot / Math.sqrt(aa * bb);
}

/** IEEE 754 binary16 from its definition. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}

export interface Vector {
  readonly bytes: Uint8Array;
  /** The components in float64. */
  readonly values: readonly number[];
}

function vector(array: Uint8Array | Int8Array | Uint16Array | Float32Array, values: readonly number[]): Vector {
  return { bytes: new Uint8Array(array.buffer), values };
}

/** How the components of a vector are drawn. */
export const FLAVOURS = ["uniform", "extreme", "zero", "sparse"] as const;
/** `huge`: floats of any magnitude, whose squares f32 cannot hold; sums of them are compared by `plain` only within one magnitude. */
export type Flavour = (typeof FLAVOURS)[number] | "huge";

type Drawn = (next: () => number) => number;
const HALF_EXTREMES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0xfbff];
const DRAWN: Readonly<Record<"half" | "u8" | "i8" | "f32", Readonly<Record<"uniform" | "extreme", Drawn>>>> = {
  half: {
    uniform: (next) => (next() < 0.5 ? 0x8000 : 0) | Math.floor(next() * 0x7c00),
    extreme: (next) => HALF_EXTREMES[Math.floor(next() * HALF_EXTREMES.length)] as number,
  },
  u8: { uniform: (next) => Math.floor(next() * 256), extreme: (next) => (next() < 0.5 ? 0 : 255) },
  i8: { uniform: (next) => Math.floor(next() * 256) - 128, extreme: (next) => (next() < 0.5 ? -128 : 127) },
  f32: { uniform: (next) => next() * 2 - 1, extreme: (next) => (next() - 0.5) * 10 ** (next() * 12 - 6) },
};

/** A vector of the record's type; `asQuery`, of the query's. */
export function drawVector(
  element: ElementCode,
  dimensions: number,
  next: () => number,
  flavour: Flavour = "uniform",
  asQuery = false,
): Vector {
  const draw = (kind: keyof typeof DRAWN): number[] =>
    Array.from({ length: dimensions }, () => {
      if (flavour === "zero" || (flavour === "sparse" && next() < 0.9)) return 0;
      return DRAWN[kind][flavour === "extreme" ? "extreme" : "uniform"](next);
    });
  if (element === ELEMENT.U8) {
    const drawn = draw("u8");
    return vector(Uint8Array.from(drawn), drawn);
  }
  if (element === ELEMENT.I8) {
    const drawn = draw("i8");
    return vector(Int8Array.from(drawn), drawn);
  }
  if (element === ELEMENT.F16 || (element === ELEMENT.F16_F32 && !asQuery)) {
    const drawn = draw("half");
    return vector(Uint16Array.from(drawn), drawn.map(fromHalf));
  }
  if (element !== ELEMENT.B1) {
    const drawn = Float32Array.from(draw("f32"), (x) => (flavour === "huge" ? x * 10 ** (next() * 70 - 32) : x));
    return vector(drawn, [...drawn]);
  }
  // The bits beyond the last component are garbage on purpose.
  const bytes = Uint8Array.from({ length: (dimensions + 7) >> 3 }, () =>
    flavour === "zero" ? 0 : Math.floor(next() * 256),
  );
  const values = Array.from({ length: dimensions }, (_, i) => (((bytes[i >> 3] as number) >> (i & 7)) & 1 ? 1 : -1));
  return { bytes, values };
}

/** The distance, and the magnitude that its tolerance is relative to. */
export function plain(metric: number, a: readonly number[], b: readonly number[]): { distance: number; scale: number } {
  let l2 = 0;
  let dot = 0;
  let magnitude = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i] as number;
    const y = b[i] as number;
    l2 += (x - y) ** 2;
    dot += x * y;
    magnitude += Math.abs(x * y);
    aa += x * x;
    bb += y * y;
  }
  if (metric === METRIC.L2) return { distance: l2, scale: l2 };
  if (metric === METRIC.INNER_PRODUCT) return { distance: 1 - dot, scale: 1 + magnitude };
  return { distance: aa === 0 || bb === 0 ? 1 : 1 - dot / Math.sqrt(aa * bb), scale: 1 };
}

/** Whether distances are whole numbers, hence exact. */
export function isExact(element: ElementCode, metric: number): boolean {
  return metric !== METRIC.COSINE && (element === ELEMENT.U8 || element === ELEMENT.I8 || element === ELEMENT.B1);
}
