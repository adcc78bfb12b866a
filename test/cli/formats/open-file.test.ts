/**
 * Vector file readers: what they read, how they tell formats apart, and every way in which a file can be bad.
 * Real input: MNIST, where the data folder is present.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { openVectorFile, VECTOR_FORMATS } from "../../../src/cli/formats/open-file.ts";
import { MAX_DIMENSIONS, type VectorFormat } from "../../../src/cli/formats/vector-file.ts";
import { ShardloomError } from "../../../src/errors.ts";
import {
  doubles,
  floats,
  fvecsBytes,
  idxBytes,
  int32,
  longs,
  npyBytes,
  readAll,
  temporaryFiles,
} from "./vector-files.ts";

const write = temporaryFiles();

const ROWS = [
  [1, 2, 3],
  [4, 5, 6],
];
const VALUES = ROWS.flat();
const EXPECTED = ROWS.map((row, id) => ({ id, vector: Float32Array.from(row) }));
const JSON_LINES = ROWS.map((vector) => `${JSON.stringify({ vector })}\n`).join("");

/** The same two rows in every format. */
const SAMPLES: readonly (readonly [name: string, format: VectorFormat, bytes: Buffer])[] = [
  ["a-ubyte", "idx", idxBytes([2, 3, 1], VALUES)],
  ["a.fvecs", "fvecs", fvecsBytes(ROWS)],
  ["a.bvecs", "bvecs", Buffer.concat(ROWS.map((row) => Buffer.concat([int32(3), Buffer.from(row)])))],
  ["a.ivecs", "ivecs", Buffer.concat(ROWS.flatMap((row) => [int32(3), ...row.map(int32)]))],
  ["f4.npy", "npy", npyBytes("(2, 3)", floats(VALUES))],
  ["f8.npy", "npy", npyBytes("(2, 3)", doubles(VALUES), { descr: "<f8", version: 2 })],
  ["u1.npy", "npy", npyBytes("(2L, 3L, 1L)", Buffer.from(VALUES), { descr: "|u1", version: 3 })],
  ["i8.npy", "npy", npyBytes("(2, 3)", longs(VALUES), { descr: "<i8" })],
  ["a.jsonl", "json-lines", Buffer.from(JSON_LINES)],
];

test.each([
  ["<i4", Buffer.concat(VALUES.map(int32))],
  ["<u4", Buffer.concat(VALUES.map(int32))],
  ["<u8", longs(VALUES)],
])("npy of %s reads as its numbers", async (descr, values) => {
  expect(await readAll(write("integers.npy", npyBytes("(2, 3)", values, { descr })))).toEqual(EXPECTED);
});

async function failure(promise: Promise<unknown>): Promise<ShardloomError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!ShardloomError.is(error)) throw new Error(`expected a ShardloomError, got ${String(error)}`);
  return error;
}

describe.each(SAMPLES)("%s", (name, format, bytes) => {
  test("reads plain and compressed, by its name, its bytes or an option", async () => {
    expect(await readAll(write(name, bytes))).toEqual(EXPECTED);
    expect(await readAll(write(`${name}.gz`, gzipSync(bytes)))).toEqual(EXPECTED);
    expect(await readAll(write(`misnamed-${name}`, gzipSync(bytes)))).toEqual(EXPECTED);
    expect(await readAll(write("nameless", bytes), { format })).toEqual(EXPECTED);
  });

  test("declares its shape and its progress", async () => {
    const file = await openVectorFile(write(name, bytes));
    expect(file).toMatchObject({ format, dimensions: 3, byteLength: bytes.length });
    expect(file.count).toBe(format === "json-lines" ? undefined : 2);
    expect(file.element).toBe(format === "idx" || format === "bvecs" || name === "u1.npy" ? "u8" : "f32");
    expect(file.bytesRead()).toBe(0);
    for await (const _ of file.rows());
    expect(file.bytesRead()).toBe(bytes.length);
    // A file may be read again.
    let again = 0;
    for await (const row of file.rows()) again += row.vector.length;
    expect(again).toBe(VALUES.length);
  });

  test("is cut short at every byte", async () => {
    const boundary = format.endsWith("vecs") ? [bytes.length / 2] : format === "json-lines" ? rowEnds(bytes) : [];
    for (let length = 0; length < bytes.length; length += 1) {
      const path = write(`cut-${name}`, bytes.subarray(0, length));
      if (boundary.includes(length)) expect((await readAll(path, { format })).length).toBeGreaterThan(0);
      else expect(await failure(readAll(path, { format })), `at ${length}`).toMatchObject({ code: "ERR_TRUNCATED" });
    }
  });

  test("is cut short at every byte of its compressed form", async () => {
    const compressed = gzipSync(bytes);
    for (let length = 2; length < compressed.length; length += 1) {
      const error = await failure(readAll(write("cut.gz", compressed.subarray(0, length)), { format }));
      expect(error, `at ${length}`).toMatchObject({ code: "ERR_TRUNCATED" });
    }
  });

  test("with any one byte changed ends in rows or a typed error", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), async (at, value) => {
        const changed = Buffer.from(bytes);
        changed[at] = value;
        const path = write(`fuzz-${name}`, changed);
        const rows = await readAll(path).catch((error: unknown) => error);
        if (Array.isArray(rows)) expect(rows.length).toBeGreaterThan(0);
        else expect(rows).toSatisfy(ShardloomError.is);
        if (ShardloomError.is(rows)) expect(rows.code).not.toBe("ERR_INTERNAL");
      }),
      { numRuns: 100 },
    );
  });

  test("is not read as another format", async () => {
    const path = write(name, bytes);
    for (const other of VECTOR_FORMATS.filter((candidate) => candidate !== format)) {
      // The three that look alike can only fail on what follows from it.
      const codes = ["ERR_UNSUPPORTED_FORMAT", "ERR_CORRUPT", "ERR_TRUNCATED", "ERR_DIMENSION_MISMATCH"];
      const rows = await readAll(path, { format: other }).catch((error: unknown) => error);
      if (format.endsWith("vecs") && other.endsWith("vecs") && Array.isArray(rows)) continue;
      expect(rows).toSatisfy(ShardloomError.is);
      expect(codes).toContain((rows as ShardloomError).code);
    }
  });
});

function rowEnds(bytes: Buffer): number[] {
  const text = bytes.toString();
  return Array.from(text.matchAll(/\n/g), ({ index }) => [index, index + 1]).flat();
}

describe("bad values name the file, the row and the value", () => {
  test.each([
    [
      "nan.fvecs",
      fvecsBytes([
        [1, 2],
        [3, Number.NaN],
      ]),
      Number.NaN,
    ],
    ["inf.npy", npyBytes("(2, 2)", floats([1, 2, 3, Number.NEGATIVE_INFINITY])), Number.NEGATIVE_INFINITY],
    ["large.npy", npyBytes("(2, 2)", doubles([1, 2, 3, 1e300]), { descr: "<f8" }), 1e300],
    ["inf.jsonl", '{"vector":[1,2]}\n{"vector":[3,1e999]}\n', Number.POSITIVE_INFINITY],
  ])("%s", async (name, bytes, value) => {
    const path = write(name, bytes);
    const error = await failure(readAll(path));
    expect(error).toMatchObject({ code: "ERR_NOT_FINITE", details: { file: path, row: 1, component: 1, value } });
    expect(error.message).toContain(`${path} at row 1`);
  });

  test("NaN as lax JSON writers put it", async () => {
    const error = await failure(readAll(write("nan.jsonl", '{"vector":[1,2]}\n{"vector":[3,NaN]}\n')));
    expect(error).toMatchObject({ code: "ERR_NOT_FINITE", details: { row: 1, value: Number.NaN } });
  });

  test.each([
    [
      "mixed.fvecs",
      fvecsBytes([
        [1, 2, 3],
        [4, 5],
        [6, 7, 8, 9],
      ]),
    ],
    ["mixed.jsonl", '{"vector":[1,2,3]}\n\n{"vector":[1,2]}'],
  ])("another number of components: %s", async (name, bytes) => {
    const error = await failure(readAll(write(name, bytes)));
    expect(error).toMatchObject({ code: "ERR_DIMENSION_MISMATCH", details: { row: 1, value: 2, dimensions: 3 } });
  });

  test("a row whose count cannot be one", async () => {
    const error = await failure(
      readAll(write("wild.fvecs", Buffer.concat([fvecsBytes(ROWS), int32(-5), floats([1, 2, 3])]))),
    );
    expect(error).toMatchObject({ code: "ERR_CORRUPT", details: { row: 2, value: -5 } });
  });

  test.each([
    ["large.ivecs", Buffer.concat([int32(1), int32(2 ** 24 + 1)])],
    ["large-i4.npy", npyBytes("(1, 1)", int32(2 ** 24 + 1), { descr: "<i4" })],
    ["large-i8.npy", npyBytes("(1, 1)", longs([2 ** 24 + 1]), { descr: "<i8" })],
  ])("integers that are not exact as f32: %s", async (name, bytes) => {
    const error = await failure(readAll(write(name, bytes)));
    expect(error).toMatchObject({ code: "ERR_UNSUPPORTED_FORMAT", details: { row: 0, value: 2 ** 24 + 1 } });
  });

  test.each([
    ['{"vector":[1,"2"]}', "2"],
    ['{"vector":[1,null]}', null],
    ['{"vector":"1,2"}', "1,2"],
    ['{"id":1.5,"vector":[1]}', 1.5],
    ['{"id":{},"vector":[1]}', {}],
    ['{"vector":[1],"payload":3}', 3],
    ['{"vector":[]}', 0],
    ['{"vec":[1]}', undefined],
    ["[1,2]", [1, 2]],
    ["nonsense", "nonsense"],
  ])("JSON line %s", async (line, value) => {
    const path = write("bad.jsonl", `{"id":"a","vector":[1]}\n${line}\n`);
    expect(await failure(readAll(path))).toMatchObject({ code: "ERR_CORRUPT", details: { file: path, row: 1, value } });
  });
});

describe("bad headers", () => {
  test.each([
    ["labels", idxBytes([3], [1, 2, 3]), "ERR_UNSUPPORTED_FORMAT", 1],
    ["floats", idxBytes([1, 1], [0, 0, 0, 0], 0x0d), "ERR_UNSUPPORTED_FORMAT", 0x0d02],
    ["no width", idxBytes([1, 0], []), "ERR_CORRUPT", 0],
    ["wide", idxBytes([1, 65_536, 2], []), "ERR_CORRUPT", 131_072],
    ["too long", idxBytes([1, 2], [1, 2, 3]), "ERR_CORRUPT", 15],
    ["version", npyBytes("(1, 1)", floats([1]), { version: 4 }), "ERR_UNSUPPORTED_FORMAT", 4],
    ["big-endian", npyBytes("(1, 1)", floats([1]), { descr: ">f4" }), "ERR_UNSUPPORTED_FORMAT", ">f4"],
    ["objects", npyBytes("(1, 1)", floats([1]), { descr: "|O" }), "ERR_UNSUPPORTED_FORMAT", "|O"],
    ["Fortran", npyBytes("(1, 1)", floats([1]), { fortran: "True" }), "ERR_UNSUPPORTED_FORMAT", true],
    ["one axis", npyBytes("(3,)", floats([1, 2, 3])), "ERR_UNSUPPORTED_FORMAT", "(3,)"],
    ["shape", npyBytes("(1, -3)", floats([1, 2, 3])), "ERR_CORRUPT", "(1, -3)"],
    ["huge shape", npyBytes("(1, 99999999999999999999)", floats([1])), "ERR_CORRUPT", "(1, 99999999999999999999)"],
    ["nothing known", Buffer.from("PK\x03\x04 and so on"), "ERR_UNSUPPORTED_FORMAT", "50 4b 03 04 20 61 6e 64"],
    ["empty", Buffer.alloc(0), "ERR_TRUNCATED", 0],
    ["spaces.jsonl", Buffer.from("{ "), "ERR_TRUNCATED", "{ "],
  ])("%s", async (name, bytes, code, value) => {
    const path = write(name, bytes);
    const error = await failure(openVectorFile(path));
    expect(error).toMatchObject({ code, details: { file: path, value } });
    expect(error.message).toContain(path);
  });

  test("a name that the bytes contradict", async () => {
    for (const name of ["a.npy", "a-ubyte", "b.jsonl"]) {
      expect(await failure(openVectorFile(write(name, fvecsBytes(ROWS))))).toMatchObject({
        code: "ERR_UNSUPPORTED_FORMAT",
      });
    }
  });

  test("counts that no file could hold allocate nothing", async () => {
    const huge = 2 ** 32 - 1;
    const samples: readonly (readonly [VectorFormat, Buffer])[] = [
      ["idx", idxBytes([huge, 200, 200], [1, 2, 3])],
      ["npy", npyBytes(`(${Number.MAX_SAFE_INTEGER}, ${MAX_DIMENSIONS})`, floats([1]))],
      ["fvecs", int32(MAX_DIMENSIONS)],
    ];
    for (const [format, bytes] of samples) {
      const before = process.memoryUsage();
      expect(await failure(readAll(write("huge", bytes), { format }))).toMatchObject({ code: "ERR_TRUNCATED" });
      expect(await failure(readAll(write("huge.gz", gzipSync(bytes)), { format }))).toMatchObject({
        code: "ERR_TRUNCATED",
      });
      const after = process.memoryUsage();
      expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(8 * 2 ** 20);
    }
    expect(await failure(readAll(write("int.fvecs", int32(2 ** 31 - 1)), { format: "fvecs" }))).toMatchObject({
      code: "ERR_CORRUPT",
    });
    const header = Buffer.concat([Buffer.from("\x93NUMPY\x02\x00", "latin1"), int32(2 ** 31 - 1)]);
    expect(await failure(readAll(write("header.npy", header)))).toMatchObject({ code: "ERR_CORRUPT" });
  });

  test("a path that is no file, and a format that is none", async () => {
    for (const path of ["does-not-exist", "src"]) {
      expect(await failure(openVectorFile(path))).toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    }
    const path = write("a.fvecs", fvecsBytes(ROWS));
    const format = "csv" as VectorFormat;
    expect(await failure(openVectorFile(path, { format }))).toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      details: { value: "csv" },
    });
  });

  test("a gzip stream that does not decode", async () => {
    const compressed = gzipSync(
      idxBytes(
        [40, 50],
        Array.from({ length: 2000 }, (_, index) => (index * 7919) % 251),
      ),
    );
    compressed.fill(0xff, 100, 200);
    expect(await failure(readAll(write("bad.gz", compressed)))).toMatchObject({ code: "ERR_CORRUPT" });
  });
});

describe("JSON lines", () => {
  test("keep ids and payloads; blank lines, carriage returns, a byte order mark and a missing last line feed are fine", async () => {
    const text = '\uFEFF{"id":"a","vector":[1],"payload":{"lang":"en"}}\r\n\n{"id":7,"vector":[2]}\n{"vector":[3]}';
    expect(await readAll(write("a.jsonl", text))).toEqual([
      { id: "a", vector: Float32Array.of(1), payload: { lang: "en" } },
      { id: 7, vector: Float32Array.of(2) },
      { id: 2, vector: Float32Array.of(3) },
    ]);
  });

  test("may be longer than a block, and have an end", async () => {
    const long = `{"vector":[1],"payload":{"text":"${"ü".repeat(300_000)}"}}\n`;
    const rows = await readAll(write("long.jsonl", long.repeat(3)));
    expect(rows.map(({ payload }) => String(payload?.["text"]).length)).toEqual([300_000, 300_000, 300_000]);
    const endless = `{"vector":[1],"payload":"${"x".repeat(9 * 2 ** 20)}`;
    expect(await failure(readAll(write("endless.jsonl", endless)))).toMatchObject({ code: "ERR_RECORD_TOO_LARGE" });
  });

  test("must be UTF-8", async () => {
    const bytes = Buffer.concat([
      Buffer.from('{"vector":[1],"payload":{"a":"'),
      Buffer.of(0xff, 0xfe),
      Buffer.from('"}}\n'),
    ]);
    expect(await failure(readAll(write("latin.jsonl", bytes)))).toMatchObject({ code: "ERR_CORRUPT" });
  });
});

test("reading is pulled: a consumer that stops early leaves most of the file unread", async () => {
  const rows = Array.from({ length: 20_000 }, (_, row) => [row, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
  const file = await openVectorFile(write("many.fvecs", fvecsBytes(rows)));
  expect(file.count).toBe(rows.length);
  let seen = 0;
  for await (const { id, vector } of file.rows()) {
    expect(vector[0]).toBe(id);
    seen += 1;
    if (seen === 100) break;
  }
  expect(file.bytesRead()).toBeLessThan(file.byteLength / 2);
});

const mnist = join(process.env["SHARDLOOM_DATA"] ?? "../shared/data", "vectors/mnist");
const images = join(mnist, "t10k-images-idx3-ubyte.gz");

test.skipIf(!existsSync(images))(`MNIST (skipped where the data folder has no ${images})`, async () => {
  const file = await openVectorFile(images);
  expect(file).toMatchObject({ format: "idx", dimensions: 784, count: 10_000, element: "u8" });
  const raw = gunzipSync(readFileSync(images)).subarray(16);
  let rows = 0;
  for await (const { id, vector } of file.rows()) {
    if (rows % 997 === 0) expect([...vector]).toEqual([...raw.subarray(rows * 784, (rows + 1) * 784)]);
    expect(id).toBe(rows);
    rows += 1;
  }
  expect(rows).toBe(10_000);
  expect(file.bytesRead()).toBe(file.byteLength);
  const labels = join(mnist, "t10k-labels-idx1-ubyte.gz");
  expect(await failure(openVectorFile(labels))).toMatchObject({
    code: "ERR_UNSUPPORTED_FORMAT",
    details: { value: 1 },
  });
});
