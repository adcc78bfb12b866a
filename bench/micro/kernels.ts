/**
 * Bench `kernels`: nanoseconds a distance, for each element type, one by one against in batches, and the two builds of the kernels.
 *
 * Invariant: all sides compute the same distances of the same records, which validate() compares with plain TypeScript; sides interleave.
 * Two placements: few records, that stay in the cache, and many in random order, whose misses a batch overlaps. Sides: `calls` (one
 * call into WebAssembly a distance), `batch` (32 records a call, a graph's neighbours), `fastest` (the same, relaxed SIMD where this
 * Node has it), and `TypeScript` (f32 alone: what there is without kernels).
 */
import { compileKernels, ELEMENT, type ElementCode, Kernels, METRIC } from "../../native-bridge/kernels.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { type Bench, type BenchCase, type BenchContext, interleave, ratioOf, sized } from "../harness/harness.ts";

const DIMENSIONS = [128, 784];
const BATCH = 32;
const BATCHES = 64;
const COUNT = BATCH * BATCHES;
const FEW = 256;
const HEADER = 32;
const PLACES = ["in cache", "out of cache"] as const;

const BYTES: Readonly<Record<keyof typeof ELEMENT, number>> = { F32: 4, U8: 1, F16: 2, I8: 1, B1: 1 / 8, F16_F32: 2 };

/** Memory for the largest set of records, and the kernels of both builds over it. */
class Bed {
  readonly memory: WebAssembly.Memory;
  readonly bytes: Uint8Array;
  readonly f32: Float32Array;
  readonly i32: Int32Array;
  readonly f64: Float64Array;
  readonly portable: Kernels;
  readonly fastest: Kernels;
  readonly query: number;
  readonly ids: number;
  readonly out: number;
  readonly base: number;
  readonly bytesForRecords: number;
  #next = 64;

  constructor(megabytes: number) {
    this.bytesForRecords = megabytes << 20;
    const pages = megabytes * 16 + 16;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const { buffer } = this.memory;
    this.bytes = new Uint8Array(buffer);
    this.f32 = new Float32Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.f64 = new Float64Array(buffer);
    const arena = { memory: this.memory, allocate: (n: number) => this.#allocate(n), free: () => undefined };
    this.portable = new Kernels(compileKernels("portable"), arena, 1024);
    this.fastest = new Kernels(compileKernels("fastest"), arena, 1024);
    this.query = this.#allocate(4096);
    this.ids = this.#allocate(COUNT * 4);
    this.out = this.#allocate(COUNT * 8);
    this.base = this.#next;
  }

  #allocate(byteLength: number): number {
    const at = this.#next;
    this.#next += (byteLength + 63) & ~63;
    return at;
  }

  /** Bytes that are modest numbers in every element type. */
  fill(random: Random): void {
    for (let at = this.query; at < this.base + this.bytesForRecords; at += 4) {
      // Exponents of f16 near 1 in both halves, hence of f32 too; as bytes they differ enough.
      this.i32[at >> 2] = (random.u32() & 0x83ff83ff) | 0x38003800;
    }
  }
}

function casesOf(bed: Bed, context: BenchContext): BenchCase[] {
  const random = createSeededRandom(context.seed);
  bed.fill(random);
  return (Object.keys(ELEMENT) as (keyof typeof ELEMENT)[]).flatMap((name) =>
    DIMENSIONS.flatMap((dimensions) =>
      PLACES.flatMap((place) => casesFor(bed, name, dimensions, place === "in cache", random)),
    ),
  );
}

function casesFor(bed: Bed, name: keyof typeof ELEMENT, dimensions: number, few: boolean, random: Random): BenchCase[] {
  const element: ElementCode = ELEMENT[name];
  const stride = (HEADER + Math.ceil(dimensions * BYTES[name]) + 15) & ~15;
  const records = few ? FEW : Math.floor(bed.bytesForRecords / stride);
  const ids = new Int32Array(COUNT);
  // Others every time: those of the sample before are in the cache now.
  const draw = (): void => {
    for (let at = 0; at < COUNT; at++) ids[at] = random.u32() % records;
    bed.i32.set(ids, bed.ids >> 2);
  };
  const record = (at: number): number => bed.base + (ids[at] as number) * stride + HEADER;
  const batches = (kernels: Kernels): void => {
    for (let at = 0; at < COUNT; at += BATCH) {
      const [from, to] = [bed.ids + at * 4, bed.out + at * 8];
      kernels.distances(METRIC.L2, element, dimensions, bed.query, 0, bed.base, stride, HEADER, from, BATCH, to);
    }
  };
  const sides: Record<string, () => void> = {
    calls() {
      for (let at = 0; at < COUNT; at++)
        bed.f64[(bed.out >> 3) + at] = bed.portable.distance(METRIC.L2, element, record(at), bed.query, dimensions);
    },
    batch: () => batches(bed.portable),
    fastest: () => batches(bed.fastest),
  };
  if (element === ELEMENT.F32)
    sides["TypeScript"] = () => {
      for (let at = 0; at < COUNT; at++)
        bed.f64[(bed.out >> 3) + at] = plain(bed.f32, record(at) >> 2, bed.query >> 2, dimensions);
    };
  const title = `${name.toLowerCase()} x ${dimensions}, ${few ? "in" : "out of"} cache`;
  return Object.entries(sides).map(([side, compute]) => ({
    name: title,
    side,
    unit: "ns/distance",
    run: () => {
      draw();
      const startedMs = performance.now();
      compute();
      return ((performance.now() - startedMs) * 1e6) / COUNT;
    },
    validate: () => {
      draw();
      bed.f64.fill(Number.NaN, bed.out >> 3, (bed.out >> 3) + COUNT);
      compute();
      for (let at = 0; at < COUNT; at++) {
        const got = bed.f64[(bed.out >> 3) + at] as number;
        const wanted = bed.portable.distance(METRIC.L2, element, record(at), bed.query, dimensions);
        if (!(wanted > 0) || Math.abs(got - wanted) > 1e-5 * wanted)
          throw new Error(`kernels bench: ${side} of ${title} gave ${got}, not ${wanted}`);
      }
    },
  }));
}

function plain(f32: Float32Array, a: number, b: number, dimensions: number): number {
  let sum = 0;
  for (let i = 0; i < dimensions; i++) {
    const d = (f32[a + i] as number) - (f32[b + i] as number);
    sum += d * d;
  }
  return sum;
}

export const bench: Bench = {
  name: "kernels",
  async run(context) {
    const bed = new Bed(sized(context.mode, 2, 128, 384));
    const cases = casesOf(bed, context);
    const rows = await interleave(cases, sized(context.mode, 2, 31, 101));
    const ratio = (name: string): string => (1 / ratioOf(rows, name, "batch", "calls")).toFixed(2);
    const names = [...new Set(cases.map(({ name }) => name))];
    const same = compileKernels("portable") === compileKernels("fastest");
    return {
      rows,
      goals: [],
      notes: [
        `batch against calls: ${names.map((name) => `${name} ${ratio(name)}`).join("; ")}`,
        same ? "this Node has no relaxed SIMD: fastest is portable" : "fastest uses relaxed SIMD",
      ],
    };
  },
};
