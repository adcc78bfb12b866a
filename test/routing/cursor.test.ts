import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { decodeCursor, encodeCursor, fingerprintOf, type PageCursor } from "../../src/routing/cursor.ts";
import { mergeRanked, type Ranked } from "../../src/routing/merge.ts";
import { hashBytes } from "../../src/topology/stable-hash.ts";

const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const cursor: fc.Arbitrary<PageCursor> = fc.record({
  id: fc.oneof(fc.double({ noNaN: true }), fc.integer(), fc.string({ unit: "binary" }), fc.string(), lone()),
  score: fc.double({ noNaN: true }),
  direction: fc.constantFrom("ascending" as const, "descending" as const),
  topologyEpoch: u32,
  fingerprint: u32,
});

/** Strings of any code units, lone surrogates among them. */
function lone(): fc.Arbitrary<string> {
  return fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 9 }).map((units) => String.fromCharCode(...units));
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return ShardloomError.is(error) ? error.code : `not ours: ${String(error)}`;
  }
  return "no error";
}

/** A cursor whose bytes were changed by somebody who knows the checksum. */
function forge(text: string, change: (bytes: Buffer) => void): string {
  const bytes = Buffer.from(text, "base64url");
  change(bytes);
  bytes.writeUInt32LE(hashBytes(bytes, 0, bytes.length - 4), bytes.length - 4);
  return bytes.toString("base64url");
}

const sample: PageCursor = { id: "a", score: 1.5, direction: "ascending", topologyEpoch: 7, fingerprint: 9 };

describe("a page cursor", () => {
  it("survives the round trip bit by bit, as URL-safe text", () => {
    fc.assert(
      fc.property(cursor, (given) => {
        const text = encodeCursor(given);
        expect(text).toMatch(/^[A-Za-z0-9_-]+$/);
        expect(encodeURIComponent(text)).toBe(text);
        const read = decodeCursor(text, given);
        expect(read).toEqual(given);
        expect(Object.is(read.score, given.score) && Object.is(read.id, given.id)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it("keeps its form: a cursor in somebody's bookmark stays readable", () => {
    expect(encodeCursor(sample)).toBe("AQIHAAAACQAAAAAAAAAAAPg_YURs2co");
    expect(decodeCursor("AQIHAAAACQAAAAAAAAAAAPg_YURs2co", sample)).toEqual(sample);
  });

  it("continues a merge exactly where the page ended", () => {
    const list = Array.from(
      { length: 25 },
      (_, at): Ranked => ({ id: `d${at % 5}${at}`, score: 1 / (1 + (at >> 2)), version: 1 }),
    );
    const direction = "descending" as const;
    list.sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1));
    const pages: Ranked[] = [];
    let text: string | undefined;
    do {
      const after = text === undefined ? undefined : decodeCursor(text, { direction, fingerprint: 3 });
      const page = mergeRanked([list], 4, { direction, after });
      pages.push(...page);
      const last = page.at(-1);
      text = last === undefined ? undefined : encodeCursor({ ...last, direction, topologyEpoch: 1, fingerprint: 3 });
    } while (text !== undefined);
    expect(pages).toEqual(list);
  });

  it("refuses garbage of every kind, typed", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.base64String(), fc.string({ unit: "binary", maxLength: 60 })), (text) => {
        expect(codeOf(() => decodeCursor(text, sample))).toBe("ERR_INVALID_ARGUMENT");
      }),
    );
    for (const value of [undefined, null, 7, {}, "", "A".repeat(100_000)])
      expect(codeOf(() => decodeCursor(value as never, sample))).toBe("ERR_INVALID_ARGUMENT");
    expect(() => decodeCursor("xyz", sample)).toThrow(
      'Cannot continue after cursor as cursor must be one that a page of results gave, unchanged: current value is "xyz"',
    );
  });

  it("refuses any change of one character, and any cut or addition", () => {
    fc.assert(
      fc.property(cursor, fc.nat(), fc.constantFrom(...Array.from("AZaz09-_=+/ ")), (given, where, other) => {
        const text = encodeCursor(given);
        const at = where % text.length;
        const refused = (changed: string): void => {
          if (changed !== text) expect(codeOf(() => decodeCursor(changed, given))).toBe("ERR_INVALID_ARGUMENT");
        };
        refused(text.slice(0, at) + other + text.slice(at + 1));
        refused(text.slice(0, at));
        refused(text + other);
        refused(other + text);
      }),
    );
  });

  it("refuses another version, another query and another direction, each by its rule", () => {
    const text = encodeCursor(sample);
    const newer = forge(text, (bytes) => bytes.writeUInt8(2, 0));
    expect(codeOf(() => decodeCursor(newer, sample))).toBe("ERR_VERSION_MISMATCH");
    expect(() => decodeCursor(newer, sample)).toThrow(/version must be 1: current value is 2/);
    expect(() => decodeCursor(text, { ...sample, fingerprint: 10 })).toThrow(
      /must be that of a page of the same query/,
    );
    expect(() => decodeCursor(text, { ...sample, direction: "descending" })).toThrow(/page in descending order/);
  });

  it("refuses what has a right checksum and is still no cursor", () => {
    const text = encodeCursor(sample);
    const wide = encodeCursor({ ...sample, id: "\u0100" });
    const forged = [
      forge(text, (bytes) => bytes.writeDoubleLE(Number.NaN, 10)),
      forge(text, (bytes) => bytes.writeUInt8(0x82, 1)),
      forge(text, (bytes) => bytes.writeUInt8(0, 1)), // a number of one byte
      forge(wide, (bytes) => bytes.writeUInt16LE(0x41, 18)), // wide units where narrow ones do
      forge(encodeCursor({ ...sample, id: 1 }), (bytes) => bytes.writeDoubleLE(Number.NaN, 18)),
    ];
    for (const bad of forged) expect(codeOf(() => decodeCursor(bad, sample))).toBe("ERR_INVALID_ARGUMENT");
  });

  it("is not made of what has no place in a ranking", () => {
    const bad: Partial<Record<keyof PageCursor, unknown>>[] = [
      { score: Number.NaN },
      { score: "1" },
      { id: Number.NaN },
      { id: undefined },
      { id: "x".repeat(4097) },
      { direction: "up" },
      { topologyEpoch: -1 },
      { topologyEpoch: 2 ** 32 },
      { fingerprint: 0.5 },
    ];
    for (const change of bad)
      expect(codeOf(() => encodeCursor({ ...sample, ...change } as PageCursor))).toBe("ERR_INVALID_ARGUMENT");
    const longest = { ...sample, id: "\u4e00".repeat(4096) };
    expect(decodeCursor(encodeCursor(longest), sample)).toEqual(longest);
  });
});

describe("fingerprintOf()", () => {
  it("differs with content, order, division and kind of the parts", () => {
    const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
    const variants = [[], [""], ["ab"], ["a", "b"], ["b", "a"], ["", "ab"], [bytes("ab")], [bytes("a"), "b"]];
    const prints = variants.map((parts) => fingerprintOf(parts));
    expect(new Set(prints).size).toBe(variants.length);
    expect(fingerprintOf(["a", bytes("b")])).toBe(fingerprintOf(["a", bytes("b")]));
    expect(prints.every((print) => Number.isInteger(print) && print >= 0 && print < 2 ** 32)).toBe(true);
  });
});
