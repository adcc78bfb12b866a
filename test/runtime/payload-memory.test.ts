/** Memory that payloads share: nobody's bytes are another's, and words may be laid over them. */
import { describe, expect, it } from "vitest";
import { payloadCopy, payloadMemory } from "../../src/runtime/payload-memory.ts";

describe("memory of payloads", () => {
  it("is nobody else's, whatever lengths are asked for, also across slabs", () => {
    const lengths = Array.from({ length: 500 }, (_, at) => (at * 37) % 3_000);
    const all = lengths.map((length, at) => payloadMemory(length).fill(at & 0xff));
    all.forEach((bytes, at) => {
      expect(bytes.length).toBe(lengths[at]);
      expect(bytes.every((byte) => byte === (at & 0xff))).toBe(true);
    });
    expect(new Set(all.map(({ buffer }) => buffer)).size).toBeLessThan(all.length);
  });

  it("begins where words may begin, with room for its last word", () => {
    for (const length of [0, 1, 7, 8, 9, 2_047, 2_048, 2_049, 70_001]) {
      const { buffer, byteOffset } = payloadMemory(length);
      expect(byteOffset % 8).toBe(0);
      expect(new Float64Array(buffer, byteOffset, Math.ceil(length / 8)).length).toBe(Math.ceil(length / 8));
    }
  });

  it("takes copies that do not change with what they are of", () => {
    const bytes = new Uint8Array([1, 2, 3]);
    const copy = payloadCopy(bytes);
    bytes.fill(9);
    expect([...copy]).toEqual([1, 2, 3]);
  });
});
