/** Values survive the codec, and what would not is refused with its path. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { findUnencodable, MAX_DEPTH } from "../../src/wire/encodable.ts";
import { createValueCodec } from "../../src/wire/value-codec.ts";

const codec = createValueCodec();

/** Text that UTF-8 can hold. */
const text = fc.string({ unit: "grapheme", maxLength: 80 });
const number = fc
  .oneof(fc.integer(), fc.double(), fc.maxSafeInteger())
  .map((value) => (Object.is(value, -0) ? 0 : value));
const bytes = fc.uint8Array({ maxLength: 300 });
const leaf = fc.oneof(
  text,
  number,
  fc.boolean(),
  fc.constant(null),
  fc.constant(undefined),
  fc.bigInt(),
  fc.bigInt({ min: -(2n ** 200n), max: 2n ** 200n }),
  fc.date(),
  bytes,
  fc.float32Array(),
  fc.float64Array(),
  fc.int16Array(),
  fc.bigInt64Array(),
  fc.uint8ClampedArray(),
  bytes.map((array) => array.slice().buffer),
);
const key = text.filter((name) => name !== "__proto__" && name !== "constructor");
const { value: anyValue } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: "small" },
    leaf,
    fc.array(tie("value"), { maxLength: 20 }),
    fc.dictionary(key, tie("value"), { maxKeys: 10, noNullPrototype: true }),
    fc.array(fc.tuple(tie("value"), tie("value")), { maxLength: 6 }).map((entries) => new Map(entries)),
    fc.array(tie("value"), { maxLength: 6 }).map((entries) => new Set(entries)),
  ),
}));

describe("value codec", () => {
  it("gives back an equal value (property)", () => {
    fc.assert(
      fc.property(anyValue, (value) => {
        expect(codec.decode(codec.encode(value))).toStrictEqual(value);
      }),
      { numRuns: 2000 },
    );
  });

  it("gives back records of the frozen table, also beside others", () => {
    const frozen = createValueCodec({ structures: [["id", "score"], ["name"]] });
    const value = [{ id: "a", score: 1 }, { name: "x" }, { other: { id: 1, score: 2 } }, { name: "y" }];
    for (let round = 0; round < 5; round++) expect(frozen.decode(frozen.encode(value))).toStrictEqual(value);
    expect(frozen.encode(value[0]).length).toBeLessThan(codec.encode(value[0]).length);
    const twin = createValueCodec({ structures: [["id", "score"], ["name"]] });
    expect(twin.structuresHash).toBe(frozen.structuresHash);
    expect(twin.decode(frozen.encode(value))).toStrictEqual(value);
    expect(codec.structuresHash).not.toBe(frozen.structuresHash);
  });

  it("does not learn structures from the traffic", () => {
    const sender = createValueCodec();
    const sizes = new Set(Array.from({ length: 100 }, () => sender.encode({ first: 1, second: 2 }).length));
    expect(sizes.size).toBe(1);
    for (let shape = 0; shape < 500; shape++) sender.encode({ [`key${shape}`]: shape });
    expect(createValueCodec().decode(sender.encode({ first: 1, key3: 2 }))).toStrictEqual({ first: 1, key3: 2 });
  });

  it("carries many shapes in one message", () => {
    const value = Array.from({ length: 300 }, (_, index) => ({ [`k${index % 150}`]: { [`n${index}`]: index } }));
    expect(codec.decode(codec.encode(value))).toStrictEqual(value);
  });

  it("writes in place at an offset, into shared memory too, or not at all", () => {
    const shared = new Uint8Array(new SharedArrayBuffer(4096));
    for (const value of [{ a: 1 }, "x".repeat(1000), new Float32Array(200).fill(0.5)]) {
      shared.fill(0xee);
      const byteLength = codec.encodeInto(value, shared, 24);
      expect(byteLength).toBe(codec.encode(value).length);
      expect(shared[23]).toBe(0xee);
      expect(shared[24 + byteLength]).toBe(0xee);
      expect(codec.decode(shared, 24, byteLength)).toStrictEqual(value);
    }
    shared.fill(0xee);
    expect(codec.encodeInto("x".repeat(100), shared, 4000)).toBe(-102);
    expect(shared.every((byte) => byte === 0xee)).toBe(true);
  });

  it("keeps nothing of the bytes it read", () => {
    const value = {
      raw: new Uint8Array([1, 2, 3]),
      buffer: Buffer.from("abc"),
      floats: new Float32Array([1, 2]),
      text: "hello, a text of some length",
    };
    const encoded = codec.encode(value);
    const decoded = codec.decode(encoded);
    expect(decoded).toStrictEqual(value);
    encoded.fill(0);
    codec.decode(codec.encode({ raw: new Uint8Array([9, 9, 9]), floats: new Float32Array([7, 7]) }));
    expect(decoded).toStrictEqual(value);
    expect(Object.keys(encoded)).not.toContain("dataView");
  });

  it("carries messages larger than its scratch and lets go of it", () => {
    const value = { big: new Float64Array(150_000).fill(1.5), text: "ä".repeat(700_000) };
    expect(codec.decode(codec.encode(value))).toStrictEqual(value);
    expect(codec.decode(codec.encode(1))).toBe(1);
  });

  it.each<[string, () => unknown, string]>([
    ["a function", () => ({ a: [1, { run: () => 1 }] }), "value.a[1].run"],
    ["a symbol", () => new Map([["k", Symbol("s")]]), "value.values()[0]"],
    ["a promise", () => ({ "odd key": Promise.resolve() }), 'value["odd key"]'],
    ["shared memory", () => [new SharedArrayBuffer(8)], "value[0]"],
    ["a WeakMap", () => new WeakMap(), "value"],
    ["a subclass of Map", () => new (class Table extends Map {})(), "value"],
    ["a subclass of a typed array", () => new (class Bytes extends Uint8Array {})(2), "value"],
    ["an own __proto__", () => JSON.parse('{"a":{"__proto__":1}}') as unknown, "value.a.__proto__"],
    ["a URL", () => new Set([new URL("file:///x")]), "value.values()[0]"],
  ])("refuses %s and names its path", (_what, make, path) => {
    const error = catchError(() => codec.encode(make()));
    expect(error).toMatchObject({ code: "ERR_INVALID_ARGUMENT", details: { path } });
    expect(codec.decode(codec.encode({ still: "works" }))).toEqual({ still: "works" });
  });

  it("refuses cycles and bottomless nesting", () => {
    const cycle: Record<string, unknown> = {};
    cycle["self"] = { back: cycle };
    expect(catchError(() => codec.encode(cycle))).toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    const nest = (depth: number): unknown => (depth === 0 ? 1 : [nest(depth - 1)]);
    expect(findUnencodable(nest(MAX_DEPTH))).toBeUndefined();
    expect(findUnencodable(nest(MAX_DEPTH + 1))?.what).toContain(`${MAX_DEPTH}`);
    expect(codec.decode(codec.encode(nest(MAX_DEPTH)))).toStrictEqual(nest(MAX_DEPTH));
  });

  it("ends typed on any bytes, cut or changed (property)", () => {
    const flips = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 });
    fc.assert(
      fc.property(anyValue, flips, fc.nat(), (value, changes, cut) => {
        const encoded = codec.encode(value);
        for (const [at, byte] of changes) encoded[at % encoded.length] = byte;
        const length = cut % 3 === 0 ? cut % encoded.length : encoded.length;
        try {
          codec.decode(encoded, 0, length);
        } catch (error) {
          if (!ShardloomError.is(error) || error.code !== "ERR_CORRUPT") throw error;
        }
        return true;
      }),
      { numRuns: 5000 },
    );
    expect(codec.decode(codec.encode([1, 2]))).toEqual([1, 2]);
  });

  it.each([
    [0, 0],
    [-1, 2],
    [0, 9],
    [7, 4],
    [Number.NaN, 1],
  ])("refuses the range %d + %d of 8 bytes", (byteOffset, byteLength) => {
    expect(catchError(() => codec.decode(new Uint8Array(8), byteOffset, byteLength))).toMatchObject({
      code: "ERR_CORRUPT",
    });
  });

  it("refuses more structures than fit", () => {
    expect(catchError(() => createValueCodec({ structures: Array.from({ length: 33 }, () => ["a"]) }))).toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
  });
});

function catchError(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return expect.unreachable("should have thrown");
}
