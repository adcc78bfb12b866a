/** The checksum: piece by piece as in one, also when a piece is empty. */
import { expect, test } from "vitest";
import { crc32 } from "../../src/runtime/checksum.ts";

test("has the standard's check value, and text counts as UTF-8", () => {
  expect(crc32("123456789")).toBe(0xcbf43926);
  expect(crc32("é")).toBe(crc32(Uint8Array.of(0xc3, 0xa9)));
});

test("goes on from what came before, whatever kind of empty piece is in between", () => {
  const before = crc32("1234");
  const empty = [new Uint8Array(), new Uint8Array(new Uint32Array().buffer), new Uint8Array(8).subarray(8), ""];
  for (const piece of empty) expect(crc32(piece, before)).toBe(before);
  expect(crc32("56789", before)).toBe(0xcbf43926);
});
