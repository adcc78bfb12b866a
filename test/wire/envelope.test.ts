import { describe, expect, it } from "vitest";
import { createSeededRandom } from "../../src/runtime/random.ts";
import {
  checkEnvelope,
  ENVELOPE_BAD_LENGTH,
  ENVELOPE_BAD_MAGIC,
  ENVELOPE_BAD_RESERVED,
  ENVELOPE_OK,
  ENVELOPE_TOO_SHORT,
  envelopeFlags,
  envelopeSourceShard,
  envelopeTargetShard,
  envelopeType,
  envelopeVshard,
  envelopeWord,
  writeEnvelope,
} from "../../src/wire/envelope.ts";
import {
  ENVELOPE_BYTES,
  MAGIC_WORD,
  WORD_DEADLINE,
  WORD_LENGTH,
  WORD_MAGIC,
  WORD_RESERVED,
} from "../../src/wire/envelope-layout.ts";
import { assertHandled, MESSAGE_TYPES, messageTypeName } from "../../src/wire/message-types.ts";

const origin = { node: 3, shard: 0xfffe, incarnation: 9 };

function example(payloadBytes: number): Int32Array {
  const words = new Int32Array((ENVELOPE_BYTES + payloadBytes + 64) >> 2);
  writeEnvelope(words, 8, origin, 0xbeef, 3, 2, 77, 0xffff, 0x8001, 5, 1234, -1, payloadBytes);
  return words;
}

describe("envelope", () => {
  it("reads back what was written, also values with the highest bit set", () => {
    const words = example(16);
    expect(checkEnvelope(words, 8, ENVELOPE_BYTES + 16)).toBe(ENVELOPE_OK);
    expect(envelopeType(words, 8)).toBe(0xbeef);
    expect(envelopeFlags(words, 8)).toBe(3);
    expect(envelopeVshard(words, 8)).toBe(0xffff);
    expect(envelopeSourceShard(words, 8)).toBe(0xfffe);
    expect(envelopeTargetShard(words, 8)).toBe(0x8001);
    expect(envelopeWord(words, 8, WORD_DEADLINE)).toBe(1234);
  });

  it("names each fault", () => {
    expect(checkEnvelope(example(16), 8, ENVELOPE_BYTES - 1)).toBe(ENVELOPE_TOO_SHORT);
    expect(checkEnvelope(example(16), 8, ENVELOPE_BYTES + 8)).toBe(ENVELOPE_BAD_LENGTH);
    const magic = example(0);
    magic[2] = MAGIC_WORD + 0x10000;
    expect(checkEnvelope(magic, 8, ENVELOPE_BYTES)).toBe(ENVELOPE_BAD_MAGIC);
    const reserved = example(0);
    reserved[2 + WORD_RESERVED] = 1;
    expect(checkEnvelope(reserved, 8, ENVELOPE_BYTES)).toBe(ENVELOPE_BAD_RESERVED);
  });

  it("accepts a mutated header only if magic, length and reserved words are intact (10^6 mutations)", () => {
    const seed = Number(process.env["SEED"] ?? 20_261_120);
    const random = createSeededRandom(seed);
    const words = example(32);
    const bytes = new Uint8Array(words.buffer);
    let accepted = 0;
    for (let round = 0; round < 1_000_000; round++) {
      const at = 8 + (random.u32() % ENVELOPE_BYTES);
      const before = bytes[at] as number;
      bytes[at] = random.u32() & 255;
      const intact =
        words[2 + WORD_MAGIC] === MAGIC_WORD &&
        words[2 + WORD_LENGTH] === 32 &&
        words[2 + WORD_RESERVED] === 0 &&
        words[3 + WORD_RESERVED] === 0;
      const verdict = checkEnvelope(words, 8, ENVELOPE_BYTES + 32) === ENVELOPE_OK;
      if (verdict !== intact) expect.fail(`seed ${seed}, round ${round}: verdict ${verdict} for byte ${at}`);
      if (verdict) accepted++;
      bytes[at] = before;
    }
    expect(accepted).toBeGreaterThan(100_000);
    expect(accepted).toBeLessThan(900_000);
  });
});

describe("message types", () => {
  it("have distinct numbers, and names for them", () => {
    const ids = Object.values(MESSAGE_TYPES).map((info) => info.id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(messageTypeName(0x0107)).toBe("vector.search");
    expect(messageTypeName(0xabcd)).toBe("0xabcd");
  });

  it("refuse a process that lacks a handler, naming it", () => {
    const all = new Set(Object.values(MESSAGE_TYPES).map((info) => info.id));
    expect(() => assertHandled(all)).not.toThrow();
    all.delete(0x0107);
    expect(() => assertHandled(all)).toThrow(/vector\.search/);
  });
});
