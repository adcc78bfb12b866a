/** Distances of many records at once: the same bits as one by one, for every element, metric, count and place. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compileKernels, ELEMENT, type ElementCode, Kernels, METRIC } from "../../native-bridge/kernels.ts";
import { drawVector, ELEMENTS, METRICS, makeArena, random } from "./kernels-support.ts";

interface Batch {
  readonly metric: number;
  readonly dimensions: number;
  readonly records: number;
  readonly ids: readonly number[];
  readonly seed: number;
  readonly offsetInRecord: number;
  readonly padding: number;
}

const batches = fc.record<Batch>({
  metric: fc.constantFrom(...METRICS),
  dimensions: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.constantFrom(128, 784, 1536)),
  records: fc.constant(20),
  ids: fc.array(fc.nat(19), { maxLength: 41 }),
  seed: fc.nat(),
  offsetInRecord: fc.integer({ min: 32, max: 80 }),
  padding: fc.nat(40),
});

const GUARD = -12_345.5;

/** Runs both forms of the batch, and the single calls. */
function run(element: ElementCode, batch: Batch): { single: number[]; byNumber: number[]; byAddress: number[] } {
  const { metric, dimensions, records, ids, offsetInRecord, padding } = batch;
  const arena = makeArena();
  const kernels = new Kernels(compileKernels(), arena);
  const memory = new DataView(arena.memory.buffer);
  const bytes = new Uint8Array(arena.memory.buffer);
  const next = random(batch.seed);
  const flavours = ["uniform", "huge", "sparse", "zero", "extreme"] as const;
  const recordElement = element === ELEMENT.F16_F32 ? ELEMENT.F16 : element;
  const queryVector = drawVector(element, dimensions, next, batch.seed % 3 === 0 ? "huge" : "uniform", true);
  const stride = offsetInRecord + queryVector.bytes.length + padding;
  const base = arena.allocate(stride * records + 16) + (batch.seed & 15);
  const query = arena.allocate(queryVector.bytes.length + 16) + ((batch.seed >> 4) & 15);
  bytes.set(queryVector.bytes, query);
  const norm = kernels.inverseNorm(element, query, dimensions);
  for (let r = 0; r < records; r++) {
    const code = base + r * stride + offsetInRecord;
    bytes.fill(0xee, base + r * stride, code);
    bytes.set(drawVector(element, dimensions, next, flavours[r % 5]).bytes, code);
    memory.setFloat32(base + r * stride + 28, kernels.inverseNorm(recordElement, code, dimensions), true);
  }
  const [numbers, addresses] = [arena.allocate(256), arena.allocate(256)];
  const outs = [arena.allocate(512), arena.allocate(512)] as const;
  ids.forEach((id, i) => {
    memory.setInt32(numbers + 4 * i, id, true);
    memory.setUint32(addresses + 4 * i, base + id * stride, true);
  });
  const out = new Float64Array(arena.memory.buffer);
  for (const at of outs) out[(at >> 3) + ids.length] = GUARD;
  const distances = kernels.distances.bind(kernels, metric, element, dimensions, query, norm);
  distances(base, stride, offsetInRecord, numbers, ids.length, outs[0]);
  kernels.distancesAt(metric, element, dimensions, query, norm, offsetInRecord, addresses, ids.length, outs[1]);
  for (const at of outs) expect(out[(at >> 3) + ids.length]).toBe(GUARD); // nothing is written behind the last
  const read = (at: number): number[] => [...out.subarray(at >> 3, (at >> 3) + ids.length)];
  const single = ids.map((id) =>
    kernels.distance(metric, element, base + id * stride + offsetInRecord, query, dimensions),
  );
  return { single, byNumber: read(outs[0]), byAddress: read(outs[1]) };
}

describe.each(ELEMENTS)("%s", (_name, element) => {
  test("a batch gives the bits of single calls", () => {
    let most = 0;
    fc.assert(
      fc.property(batches, (batch) => {
        const { single, byNumber, byAddress } = run(element, batch);
        expect(byNumber).toEqual(single);
        expect(byAddress).toEqual(single);
        most = Math.max(most, single.length);
      }),
      { numRuns: 150 },
    );
    expect(most).toBeGreaterThan(8);
  });

  test("every count from none to 17, in every metric", () => {
    for (const metric of METRICS)
      for (let count = 0; count <= 17; count++) {
        const ids = Array.from({ length: count }, (_, i) => (i * 7) % 20);
        const got = run(element, {
          metric,
          dimensions: 37,
          records: 20,
          ids,
          seed: 3 * count + 1,
          offsetInRecord: 32,
          padding: 3,
        });
        expect(got.byNumber).toEqual(got.single);
        expect(got.byAddress).toEqual(got.single);
        expect(new Set(got.single).size).toBeGreaterThanOrEqual(Math.min(count, 2)); // they are not all the same
      }
  });

  test("nothing is read behind the last record, which may end where the memory does", () => {
    const arena = makeArena(1);
    const kernels = new Kernels(compileKernels(), arena, 1024);
    const bytes = new Uint8Array(arena.memory.buffer);
    const [ids, out] = [arena.allocate(64), arena.allocate(128)];
    new Int32Array(arena.memory.buffer, ids, 12).fill(1);
    for (let dimensions = 1; dimensions <= 70; dimensions++) {
      const code = drawVector(element, dimensions, random(dimensions)).bytes;
      const stride = 32 + code.length;
      const base = 65_536 - 2 * stride; // record 1 is the last
      bytes.set(code, 65_536 - code.length);
      const query = arena.memory.buffer.byteLength - 2048;
      for (const metric of METRICS)
        expect(() =>
          kernels.distances(metric, element, dimensions, query, 1, base, stride, 32, ids, 12, out),
        ).not.toThrow();
      expect(() => kernels.distance(METRIC.L2, element, 65_536 - code.length, query, dimensions)).not.toThrow();
    }
    const beyond = (): void => kernels.distances(METRIC.L2, element, 70, 64, 1, 65_530, 16, 32, ids, 12, out);
    expect(beyond).toThrow(); // the check can fail
  });
});
