import { describe, expect, test } from "vitest";
import {
  initializeRing,
  MAX_CAPACITY_BYTES,
  maxPayloadBytesOf,
  openRing,
  RING_HEADER_BYTES,
  recordBytes,
  ringByteLength,
  typeWord,
} from "../../native-bridge/ring-layout.ts";

describe("ring-layout", () => {
  test("ringByteLength() is the header plus the capacity, in multiples of 128", () => {
    expect(ringByteLength(64)).toBe(RING_HEADER_BYTES + 128);
    expect(ringByteLength(1024)).toBe(RING_HEADER_BYTES + 1024);
    expect(ringByteLength(MAX_CAPACITY_BYTES) % 128).toBe(0);
  });

  test.each([0, 1, 63, 32, 1000, 96, -64, 64.5, Number.NaN, 2 ** 31, Number.POSITIVE_INFINITY])(
    "capacity %s is refused in the house grammar",
    (capacityBytes) => {
      expect(() => initializeRing(new SharedArrayBuffer(4096), 0, capacityBytes)).toThrow(
        expect.objectContaining({
          code: "ERR_INVALID_ARGUMENT",
          message: `Cannot create ring as capacityBytes must be a power of two in [64, 1073741824]: current value is ${capacityBytes}`,
        }),
      );
    },
  );

  test("offsets that are not line-aligned and buffers that are too small are refused", () => {
    expect(() => initializeRing(new SharedArrayBuffer(4096), 64, 1024)).toThrow(/byteOffset must be a multiple of 128/);
    expect(() => initializeRing(new SharedArrayBuffer(1024), 0, 1024)).toThrow(
      /buffer.byteLength must be at least 1408/,
    );
    expect(() => initializeRing(new SharedArrayBuffer(4096), -128, 1024)).toThrow(/byteOffset/);
  });

  test("opening memory without a ring throws ERR_CORRUPT", () => {
    expect(() => openRing(new SharedArrayBuffer(4096), 0)).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
  });

  test("records are padded to 8 and a payload with its wrap padding fits an empty ring", () => {
    expect([0, 1, 8, 9, 64].map(recordBytes)).toEqual([8, 16, 16, 24, 72]);
    for (let bits = 6; bits <= 30; bits++) {
      const capacity = 2 ** bits;
      expect(2 * recordBytes(maxPayloadBytesOf(capacity))).toBeLessThanOrEqual(capacity);
    }
  });

  test("typeWord() changes with type, length and position", () => {
    const word = typeWord(7, 64, 1024);
    expect(word >>> 16).toBe(7);
    expect(typeWord(0xffff, 64, 1024) >>> 16).toBe(0xffff);
    expect(new Set([word, typeWord(8, 64, 1024), typeWord(7, 72, 1024), typeWord(7, 64, 1024 + 2 ** 20)]).size).toBe(4);
  });
});
