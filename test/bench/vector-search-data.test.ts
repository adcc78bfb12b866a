/** The vectors of bench vector-search: every format of base, queries and truth, and what is refused. */
import { expect, test } from "vitest";
import { loadVectorSet, type VectorSet } from "../../bench/macro/vector-search-data.ts";
import { floats, fvecsBytes, idxBytes, int32, longs, npyBytes, temporaryFiles } from "../cli/formats/vector-files.ts";

const write = temporaryFiles();
const K = 10;
const ROWS = Array.from({ length: 50 }, (_, row) => [row * 4, 255 - row, (row * 7) % 256]);
const QUERIES = ROWS.slice(40, 45).map(([a = 0, b = 0, c = 0]) => [a + 1, b, c]);

function load(inputs: Record<string, string>): Promise<VectorSet> {
  return loadVectorSet({ mode: "smoke", seed: 1, inputs, goals: [], log: () => undefined });
}

/** The nearest of each query, as rows. */
const NEAREST = QUERIES.map((query) =>
  ROWS.map((row, at) => ({ at, distance: row.reduce((sum, x, i) => sum + (x - (query[i] as number)) ** 2, 0) }))
    .sort((a, b) => a.distance - b.distance || a.at - b.at)
    .slice(0, K)
    .map(({ at }) => at),
);

test.each([
  ["idx", "train-a-ubyte", "t10k-a-ubyte", (rows: number[][]) => idxBytes([rows.length, 3], rows.flat())],
  ["fvecs", "a_base.fvecs", "a_query.fvecs", fvecsBytes],
  ["npy", "train.npy", "test.npy", (rows: number[][]) => npyBytes(`(${rows.length}, 3)`, floats(rows.flat()))],
])("%s: base, and the queries beside it", async (_, base, queries, bytesOf) => {
  write(queries, bytesOf(QUERIES));
  const set = await load({ data: write(base, bytesOf(ROWS)) });
  expect([set.base.count, set.queries.count, set.bytes]).toEqual([50, 5, true]);
  expect(Array.from(set.queries.at(1))).toEqual(QUERIES[1]);
  expect(Array.from(set.truth), "by a scan").toEqual(NEAREST.flat());
});

test.each([
  ["ivecs", "t.ivecs", Buffer.concat(NEAREST.flatMap((row) => [int32(K), ...row.map(int32)]))],
  ["bare int32", "t.i32", Buffer.concat(NEAREST.flat().map(int32))],
  ["npy of int32", "t4.npy", npyBytes("(5, 10)", Buffer.concat(NEAREST.flat().map(int32)), { descr: "<i4" })],
  ["npy of int64", "t8.npy", npyBytes("(5, 10)", longs(NEAREST.flat()), { descr: "<i8" })],
  ["npy of uint32", "tu.npy", npyBytes("(5, 10)", Buffer.concat(NEAREST.flat().map(int32)), { descr: "<u4" })],
])("a truth as %s is what is gone by", async (_, name, bytes) => {
  const data = write("base.fvecs", fvecsBytes(ROWS));
  const queries = write("asked.fvecs", fvecsBytes(QUERIES));
  const set = await load({ data, queries, truth: write(name, bytes) });
  expect(Array.from(set.truth)).toEqual(NEAREST.flat());
});

test("without a file of queries the last rows are, and are not in the base; a truth needs its queries", async () => {
  const data = write("alone.fvecs", fvecsBytes(ROWS));
  const set = await load({ data });
  expect([set.base.count, set.queries.count, Array.from(set.queries.at(4))]).toEqual([45, 5, ROWS[49]]);
  expect(set.name).toContain("the 5 after them as queries");
  expect(Math.max(...set.truth)).toBeLessThan(45);
  const truth = write("alone.ivecs", Buffer.concat(NEAREST.flatMap((row) => [int32(K), ...row.map(int32)])));
  await expect(load({ data, truth })).rejects.toThrow(/give them as --queries FILE/);
  await expect(load({ data: write("few.fvecs", fvecsBytes(ROWS.slice(0, 9))) })).rejects.toThrow(/--queries FILE/);
  const queries = write("asked.fvecs", fvecsBytes(QUERIES));
  await expect(
    load({ data, queries, truth: write("short.ivecs", Buffer.concat([int32(1), int32(1)])) }),
  ).rejects.toThrow(/10 neighbours of each of 5/);
});
