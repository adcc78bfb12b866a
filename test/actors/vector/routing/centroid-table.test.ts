/** The shared table as bytes, and merged. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  describeLeaves,
  leavesWithin,
  mergeCentroids,
  type ShardCentroids,
} from "../../../../actors/vector/routing/centroid-table.ts";
import {
  decodeCentroids,
  encodeCentroids,
  encodedBytes,
} from "../../../../actors/vector/routing/centroid-table-codec.ts";
import { clusterLeaves } from "../../../../actors/vector/routing/leaf-clustering.ts";
import { runSteps } from "../../../../actors/vector/routing/steps.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { crc32 } from "../../../../src/runtime/checksum.ts";
import { plainDistance } from "../../../native-bridge/kernels-support.ts";
import { columnsOf, makeHost, SEED, SPACE, seeded, synthetic } from "./support.ts";

function table(shard: number, leaves: number, version = 1, offset = shard): ShardCentroids {
  return { ...columnsOf(leaves, seeded(offset)), space: SPACE, shard, epoch: 1, version };
}

/** Makes the checksum right again after a change. */
function resealed(bytes: Uint8Array): Uint8Array {
  new DataView(bytes.buffer).setUint32(12, crc32(bytes.subarray(16)), true);
  return bytes;
}

describe("bytes", () => {
  test("property: what is encoded decodes to the same, for both elements", () => {
    const cases = fc.record({
      leaves: fc.integer({ min: 0, max: 30 }),
      shard: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
      epoch: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
      version: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
      element: fc.constantFrom(ELEMENT.F32, ELEMENT.U8),
      metric: fc.constantFrom(...Object.values(METRIC)),
      seed: fc.integer(),
    });
    fc.assert(
      fc.property(cases, ({ leaves, shard, epoch, version, element, metric, seed }) => {
        const space = { ...SPACE, element, metric };
        const made = { ...columnsOf(leaves, seeded(seed), space), space, shard, epoch, version };
        const bytes = encodeCentroids(made);
        expect(bytes).toHaveLength(encodedBytes(space, leaves));
        const padded = new Uint8Array(bytes.length + 3); // at an odd offset of a larger buffer
        padded.set(bytes, 3);
        expect(decodeCentroids(padded.subarray(3))).toEqual(made);
      }),
      { seed: SEED },
    );
  });

  test("property: any single changed byte, and any missing end, is refused by a typed error", () => {
    const bytes = encodeCentroids(table(3, 5));
    const codes = ["ERR_CORRUPT", "ERR_TRUNCATED", "ERR_VERSION_MISMATCH"];
    for (let at = 0; at < bytes.length; at++) {
      const broken = bytes.slice();
      broken[at] = (broken[at] as number) ^ (1 << (at % 8));
      expect(() => decodeCentroids(broken), `byte ${at}`).toThrow(
        expect.objectContaining({ code: expect.toSatisfy((code: string) => codes.includes(code)) }),
      );
      expect(() => decodeCentroids(bytes.subarray(0, at))).toThrow(expect.objectContaining({ code: "ERR_TRUNCATED" }));
    }
  });

  test("another version of the format is named", () => {
    const bytes = encodeCentroids(table(3, 5));
    bytes[4] = 2;
    expect(() => decodeCentroids(resealed(bytes))).toThrow(
      expect.objectContaining({ code: "ERR_VERSION_MISMATCH", details: { version: 2, wanted: 1 } }),
    );
  });

  test.each([
    ["an unknown metric", 16, 9],
    ["an unknown element", 20, 50],
    ["no dimensions", 24, 0],
    ["code bytes of another size", 28, 7],
    ["a negative shard", 32, -1],
    ["more leaves than fit", 36, 6],
    ["so many leaves that sizes overflow", 36, 0x7fff_ffff],
    ["a negative count", 64, -5],
  ])("%s under a right checksum is corrupt", (_, at, value) => {
    const bytes = encodeCentroids(table(3, 5));
    new DataView(bytes.buffer).setInt32(at, value, true);
    expect(() => decodeCentroids(resealed(bytes))).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
  });

  test("a NaN in a radius, a centroid or a stamp is corrupt", () => {
    const space = { ...SPACE, element: ELEMENT.F32 };
    const made = { ...columnsOf(5, seeded(1), space), space, shard: 1, epoch: 1, version: 1 };
    const wrong: Partial<ShardCentroids>[] = [
      { radii: made.radii.map((radius, i) => (i === 4 ? Number.NaN : radius)) },
      { radii90: made.radii.map((radius) => radius * 2) },
      { codes: (made.codes as Float32Array).map((value, i) => (i === 7 ? Number.NEGATIVE_INFINITY : value)) },
      { epoch: Number.NaN },
      { version: -1 },
    ];
    for (const change of wrong)
      expect(() => decodeCentroids(encodeCentroids({ ...made, ...change }))).toThrow(
        expect.objectContaining({ code: "ERR_CORRUPT" }),
      );
  });
});

describe("merging", () => {
  test("the order of arrival makes no difference; every leaf names its shard", () => {
    const tables = [table(7, 3), table(2, 4), table(5, 0)];
    const merged = mergeCentroids(tables);
    expect(mergeCentroids([...tables].reverse())).toEqual(merged);
    expect([...merged.shardOf]).toEqual([2, 2, 2, 2, 7, 7, 7]);
    expect(merged.stamps.map(({ shard }) => shard)).toEqual([2, 5, 7]);
    expect([...merged.counts]).toEqual([...(tables[1]?.counts ?? []), ...(tables[0]?.counts ?? [])]);
    expect(merged.codes.subarray(4 * SPACE.dimensions)).toEqual(tables[0]?.codes);
  });

  test("nothing to merge, two tables of a shard, and tables of other vectors are refused", () => {
    expect(() => mergeCentroids([])).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
    expect(() => mergeCentroids([table(1, 2), table(1, 3)])).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
    const other = { ...table(2, 2), space: { ...SPACE, metric: METRIC.COSINE } };
    expect(() => mergeCentroids([table(1, 2), other])).toThrow(
      expect.objectContaining({ code: "ERR_COLLECTION_MISMATCH" }),
    );
  });
});

describe("describing", () => {
  test("counts, radii and medoids are those of the members", () => {
    const host = makeHost();
    const source = synthetic({ count: 500, random: seeded(2) });
    const made = runSteps(clusterLeaves(host, source, { leaves: 12, seed: 1 }));
    const partitionOf = Int32Array.from({ length: 12 }, (_, leaf) => leaf % 3);
    const leaves = Int32Array.of(1, 4, 7, 10);
    const columns = describeLeaves(source, made, { leaves, partitionOf, vertexOf: (i) => i * 2 });
    leaves.forEach((leaf, row) => {
      const members = [...made.leafOf.keys()].filter((i) => made.leafOf[i] === leaf);
      const centroid = made.centroids.vector(leaf);
      const distances = members.map((i) => plainDistance(METRIC.L2, source.vector(i), centroid)).sort((a, b) => a - b);
      expect(columns.counts[row]).toBe(members.length);
      expect(columns.radii[row]).toBe(distances.at(-1));
      const within = distances.filter((distance) => distance <= (columns.radii90[row] as number)).length;
      expect(within).toBeGreaterThanOrEqual(0.9 * members.length);
      expect(within - 1).toBeLessThan(0.9 * members.length);
      const medoid = (columns.medoids[row] as number) / 2;
      expect(made.leafOf[medoid]).toBe(leaf);
      expect(plainDistance(METRIC.L2, source.vector(medoid), centroid)).toBe(distances[0]);
      expect(columns.partitions[row]).toBe(leaf % 3);
    });
  });

  test("the table takes no more than its share of the data", () => {
    for (const dimensions of [3, 24, 784, 2000])
      for (const element of [ELEMENT.U8, ELEMENT.F32]) {
        const space = { dimensions, metric: METRIC.L2, element };
        const leaves = leavesWithin(space, 60_000);
        const data = 60_000 * dimensions * (element === ELEMENT.U8 ? 1 : 4);
        const header = encodedBytes(space, 0);
        expect(encodedBytes(space, leaves) - header).toBeLessThanOrEqual(data * 0.01);
        expect(encodedBytes(space, leaves + 1) - header).toBeGreaterThan(data * 0.01);
      }
    expect(leavesWithin({ ...SPACE, dimensions: 1 }, 1)).toBe(1);
    expect(() => leavesWithin(SPACE, 100, 0)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
  });
});
