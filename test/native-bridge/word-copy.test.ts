/** Copies: every alignment and length, and every NaN pattern through interpreter, baseline and optimized code. */
import { describe, expect, it } from "vitest";
import { copyDoubles, copyIn, copyOut, LocalBuffer } from "../../native-bridge/word-copy.ts";
import { generator, memory, seedOf } from "./memory-support.ts";

describe("copyOut and copyIn", () => {
  it("move exactly the range, at any alignment and length", () => {
    const { arena } = memory(1);
    const base = arena.allocate(8192);
    const random = generator(seedOf("word-copy"));
    for (let trial = 0; trial < 20_000; trial++) {
      const address = base + 64 + (random() % 32);
      const length = random() % (trial % 20 === 0 ? 3000 : 200);
      const at = random() % 24;
      const view = new Uint8Array(new ArrayBuffer(3300), random() % 16, 3200);
      for (let byte = 0; byte < length + 64; byte++) {
        arena.bytes[base + 32 + byte] = random();
        view[byte] = random();
      }
      const local = new LocalBuffer();
      local.bind(view);
      const arenaBefore = arena.bytes.slice(base, base + 8192);
      const viewBefore = view.slice();
      const outward = (trial & 1) === 0;
      if (outward) copyOut(arena, address, local, at, length);
      else copyIn(arena, address, local, at, length);
      if (outward) viewBefore.set(arenaBefore.subarray(address - base, address - base + length), at);
      else arenaBefore.set(viewBefore.subarray(at, at + length), address - base);
      if (
        Buffer.compare(view, viewBefore) !== 0 ||
        Buffer.compare(arena.bytes.subarray(base, base + 8192), arenaBefore) !== 0
      ) {
        throw new Error(`wrong copy: address ${address - base}, at ${at}, length ${length}, outward ${outward}`);
      }
    }
  });

  it("refuse what is no typed array", () => {
    for (const bad of [undefined, null, {}, new DataView(new ArrayBuffer(8)), new ArrayBuffer(8)]) {
      expect(() => new LocalBuffer().bind(bad as never)).toThrow(
        expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
      );
    }
  });
});

describe("copyDoubles", () => {
  it("keeps the bits of signalling, quiet and negative NaNs in every tier", () => {
    const patterns = [
      0x7ff0_0000, 0x7ff4_0000, 0x7ff7_ffff, 0x7ff8_0000, 0x7fff_ffff, 0xfff0_0000, 0xfff7_ffff, 0xffff_ffff,
      0x7ff0_0001, 0x8000_0000, 1,
    ];
    const source = new Float64Array(64);
    const target = new Float64Array(64);
    const words = new Uint32Array(source.buffer);
    const random = generator(5);
    let checked = 0;
    const check = (): void => {
      checked++;
      target.fill(0);
      copyDoubles(source, 0, target, 0, 63); // 15 unrolled turns and 3 single ones
      const copied = new Uint32Array(target.buffer);
      for (let word = 0; word < 126; word++)
        if (copied[word] !== words[word])
          throw new Error(`word ${word}: ${words[word]!.toString(16)} became ${copied[word]!.toString(16)}`);
    };
    for (let round = 0; round < 20_000; round++) {
      for (let double = 0; double < 64; double++) {
        words[double * 2] = random();
        words[double * 2 + 1] = patterns[random() % patterns.length]!;
      }
      check(); // cold at first, optimized in the end
    }
    expect(checked).toBe(20_000);
  });
});
