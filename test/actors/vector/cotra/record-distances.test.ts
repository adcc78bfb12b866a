/** Distances of records with scratch and without: a worker whose arena is full computes the same. */
import { expect, test } from "vitest";
import { MOST_RECORDS, RecordDistances } from "../../../../actors/vector/cotra/record-distances.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { USER4 } from "../../../../native-bridge/cell-layout.ts";
import { ELEMENT, type ElementCode, Kernels, METRIC } from "../../../../native-bridge/kernels.ts";
import { ShardloomError } from "../../../../src/errors.ts";
import { graphGeometry } from "../../../../src/store/graph-layout.ts";
import { generator, seedOf } from "../../../native-bridge/memory-support.ts";
import { MODULE } from "../graph/graph-support.ts";

const DIMENSIONS = 72;
const BYTES_OF = {
  F32: DIMENSIONS * 4,
  U8: DIMENSIONS,
  F16: DIMENSIONS * 2,
  I8: DIMENSIONS,
  B1: DIMENSIONS / 8,
} as const;

test.each(Object.keys(BYTES_OF) as (keyof typeof BYTES_OF)[])("codes of %s are told by records alone", (name) => {
  const random = generator(seedOf(`record distances ${name}`));
  const arena = new Arena(createArena({ capacityBytes: 4 * 1024 * 1024 }));
  const kernels = new Kernels(MODULE, arena);
  const element: ElementCode = ELEMENT[name];
  const codeBytes = BYTES_OF[name];
  const code = (): Uint8Array => {
    const whole = Array.from({ length: DIMENSIONS }, () => 1 + (random() % 120));
    if (name === "F32") return new Uint8Array(Float32Array.from(whole, (value) => value / 7).buffer);
    if (name === "F16") return new Uint8Array(Uint16Array.from(whole, (value) => 0x3800 + 8 * value).buffer);
    return Uint8Array.from(whole.slice(0, codeBytes));
  };
  for (const metric of name === "B1" ? [METRIC.COSINE] : Object.values(METRIC)) {
    const geometry = graphGeometry({ dimensions: DIMENSIONS, element, metric, codeBytes });
    const first = arena.allocate(geometry.stride * MOST_RECORDS);
    const records = Uint32Array.from({ length: MOST_RECORDS }, (_, at) => first + at * geometry.stride);
    for (const record of records) {
      arena.bytes.set(code(), record + geometry.codeOffset);
      if (metric === METRIC.COSINE)
        arena.f32[(record >>> 2) + USER4] = kernels.inverseNorm(element, record + geometry.codeOffset, DIMENSIONS);
    }
    const full = new Arena(arena.memory);
    full.allocateScratch = () => {
      throw new ShardloomError("ERR_OUT_OF_MEMORY", "Cannot allocate scratch as a test lets it fail");
    };
    const [withScratch, without] = [arena, full].map((of, worker) => new RecordDistances(of, kernels, worker));
    for (const query of [code(), code()]) {
      const [expected, told] = [new Float64Array(MOST_RECORDS), new Float64Array(MOST_RECORDS)];
      withScratch?.compute(geometry, query, records, MOST_RECORDS, expected);
      without?.compute(geometry, query, records, MOST_RECORDS, told);
      const largest = Math.max(...expected.map(Math.abs));
      expect(largest).toBeGreaterThan(0);
      for (const [at, distance] of told.entries())
        expect(Math.abs(distance - (expected[at] as number)), `metric ${metric}, record ${at}`).toBeLessThanOrEqual(
          1e-6 * largest,
        );
    }
    withScratch?.close();
    without?.close();
  }
});
