/** The hashed-feature embedding: stable bits, unit length, and nearness of texts that share words. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EMBEDDING_DIMENSIONS, embed, stableHash } from "../../src/cli/embedding.ts";

const GOLDEN_HASHES = [2872998923, 2543542336, 3362576538];
const GOLDEN_VECTOR = `0.178387 0.000000 -0.105036 0.703878 -0.129279 -0.028646 0.001364 0.185208
  0.000000 -0.101997 -0.040302 -0.034103 0.267054 0.162328 0.035777 -0.545642`.split(/\s+/);

function similarity(a: string, b: string): number {
  const other = embed(b);
  return embed(a).reduce((sum, value, index) => sum + value * (other[index] ?? 0), 0);
}

describe("embed", () => {
  test("has golden hashes and a golden vector, since stored vectors must stay valid", () => {
    expect([stableHash(""), stableHash("thread"), stableHash("ünïcode")]).toEqual(GOLDEN_HASHES);
    expect(Array.from(embed("A pool of worker threads", 16), (value) => value.toFixed(6))).toEqual(GOLDEN_VECTOR);
  });

  test("is of length 1 and finite for any text with a word, zeros otherwise", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 300 }), (text) => {
        const vector = embed(text);
        const length = Math.hypot(...vector);
        expect(vector).toHaveLength(EMBEDDING_DIMENSIONS);
        if (length !== 0) expect(length).toBeCloseTo(1, 5);
        expect(embed(text)).toEqual(vector);
      }),
    );
    expect(Math.hypot(...embed("thread"))).toBeCloseTo(1, 5);
    for (const text of ["", " \n", "!?", "42"]) expect(embed(text).every((value) => value === 0)).toBe(true);
  });

  test.each([
    ["serialize a value", "serialization of values", "draw a circle on a canvas"],
    ["SharedArrayBuffer", "a shared array buffer", "an array of strings"],
    ["thread pool", "pool of worker threads", "swimming in water"],
    ["colour of the output", "Colors your Output", "count of the input"],
    ["optimise a query", "query optimization", "sanitise a string"],
  ])("%s is nearer to %s than to %s", (text, near, far) => {
    expect(similarity(text, near)).toBeGreaterThan(similarity(text, far) + 0.1);
  });

  test("grammar words hardly count", () => {
    expect(similarity("the parser of it", "this is for all of the others")).toBeLessThan(0.3);
    expect(similarity("the parser of it", "parser")).toBeGreaterThan(0.9);
  });

  test("rejects dimensions out of range", () => {
    for (const dimensions of [0, 15, 4097, 1.5, Number.NaN]) {
      expect(() => embed("text", dimensions)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
    }
  });
});
