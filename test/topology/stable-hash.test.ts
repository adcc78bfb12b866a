import { describe, expect, it } from "vitest";
import { hashBytes, hashId, hashString } from "../../src/topology/stable-hash.ts";

describe("stable hash", () => {
  it("equals the golden vectors of XXH32", () => {
    expect(hashString("")).toBe(0x02cc5d05);
    expect(hashString("a")).toBe(0x550d7456);
    expect(hashString("abc")).toBe(0x32d153ff);
    expect(hashString("Nobody inspects the spammish repetition")).toBe(0xe2293b2f);
    expect(hashString("", 0x9e3779b1)).toBe(0x36b78ae7);
  });

  it("hashes any byte range as it hashes its copy", () => {
    const bytes = Uint8Array.from({ length: 64 }, (_, at) => (at * 37) & 255);
    for (let start = 0; start < 16; start++) {
      for (let end = start; end <= 64; end++) {
        expect(hashBytes(bytes, start, end)).toBe(hashBytes(bytes.slice(start, end), 0, end - start));
      }
    }
  });

  it("tells a number from its decimal string, and takes -0 as 0", () => {
    expect(hashId(1)).not.toBe(hashId("1"));
    expect(hashId(-0)).toBe(hashId(0));
  });

  it("spreads sequential ids evenly over 64 vshards (chi-square)", () => {
    const counts = new Array<number>(64).fill(0);
    for (let at = 0; at < 64_000; at++) {
      const vshard = hashId(at) & 63;
      counts[vshard] = (counts[vshard] as number) + 1;
    }
    const chi = counts.reduce((sum, count) => sum + (count - 1000) ** 2 / 1000, 0);
    expect(chi).toBeLessThan(110); // 63 degrees of freedom: p < 0.0003 beyond
  });
});
