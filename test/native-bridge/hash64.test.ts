/** The hash of documents: XXH64 by its golden vectors and by a plain implementation, and a sum that knows no order. */
import { expect, test } from "vitest";
import { compileKernels, HASH_HEAD_WORDS, Kernels } from "../../native-bridge/kernels.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const MASK = (1n << 64n) - 1n;
const [P1, P2, P3, P4, P5] = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
] as const;

const rotate = (value: bigint, bits: bigint): bigint => ((value << bits) | (value >> (64n - bits))) & MASK;
const round = (sum: bigint, word: bigint): bigint => (rotate((sum + word * P2) & MASK, 31n) * P1) & MASK;

/** The specification, word by word. */
function xxh64(bytes: Uint8Array, seed: bigint): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  let hash = (seed + P5) & MASK;
  if (bytes.length >= 32) {
    const lanes = [seed + P1 + P2, seed + P2, seed, seed - P1].map((lane) => lane & MASK);
    for (; at + 32 <= bytes.length; at += 32)
      for (let lane = 0; lane < 4; lane++)
        lanes[lane] = round(lanes[lane] as bigint, view.getBigUint64(at + lane * 8, true));
    const turns = [1n, 7n, 12n, 18n] as const;
    hash = lanes.reduce((sum, lane, index) => sum + rotate(lane, turns[index] as bigint), 0n) & MASK;
    for (const lane of lanes) hash = ((hash ^ round(0n, lane)) * P1 + P4) & MASK;
  }
  hash = (hash + BigInt(bytes.length)) & MASK;
  for (; at + 8 <= bytes.length; at += 8)
    hash = (rotate(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * P1 + P4) & MASK;
  if (at + 4 <= bytes.length) {
    hash = (rotate(hash ^ ((BigInt(view.getUint32(at, true)) * P1) & MASK), 23n) * P2 + P3) & MASK;
    at += 4;
  }
  for (; at < bytes.length; at++) hash = (rotate(hash ^ ((BigInt(bytes[at] as number) * P5) & MASK), 11n) * P1) & MASK;
  hash = ((hash ^ (hash >> 33n)) * P2) & MASK;
  hash = ((hash ^ (hash >> 29n)) * P3) & MASK;
  return hash ^ (hash >> 32n);
}

function makeKernels(): { kernels: Kernels; bytes: Uint8Array } {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 4, shared: true });
  const kernels = new Kernels(compileKernels(), { memory, allocate: () => 64, free: () => undefined }, 4_096);
  return { kernels, bytes: new Uint8Array(memory.buffer) };
}

const hashOf = (kernels: Kernels): bigint => (BigInt(kernels.hashHigh) << 32n) | BigInt(kernels.hashLow);

test("the plain implementation has the specification's golden values", () => {
  expect(xxh64(new Uint8Array(), 0n)).toBe(0xef46db3751d8e999n);
  expect(xxh64(new TextEncoder().encode("abc"), 0n)).toBe(0x44bc2cf5ad770999n);
});

test(`a document's hash is XXH64 of head and both ranges, of any length and place, seed ${SEED}`, () => {
  const random = createSeededRandom(SEED);
  const { kernels, bytes } = makeKernels();
  for (let at = 65_536; at < 2 * 65_536; at++) bytes[at] = random.u32();
  for (let length = 0; length < 140; length++) {
    const a = 65_536 + (random.u32() % 1_000);
    const b = 65_536 + (random.u32() % 1_000);
    const other = random.u32() % 140;
    const head = Int32Array.from({ length: HASH_HEAD_WORDS }, () => random.u32() | 0);
    kernels.beginHash();
    for (const [index, word] of head.entries()) kernels.setHashHead(index, word);
    kernels.hashDocument(a, length, b, other);
    const first = xxh64(new Uint8Array(head.buffer), 0n);
    const expected = xxh64(bytes.slice(b, b + other), xxh64(bytes.slice(a, a + length), first));
    expect(hashOf(kernels)).toBe(expected);
  }
});

test("a sum has every document in it, modulo 2^64", () => {
  const { kernels, bytes } = makeKernels();
  for (let at = 65_536; at < 66_536; at++) bytes[at] = at;
  let expected = 0n;
  for (let document = 0; document < 40; document++) {
    kernels.beginHash();
    kernels.hashDocument(65_536 + document, 20, 65_700, document);
    expected = (expected + hashOf(kernels)) & MASK;
  }
  kernels.beginHash();
  for (let document = 39; document >= 0; document--) kernels.addDocument(65_536 + document, 20, 65_700, document);
  expect(hashOf(kernels)).toBe(expected);
  expect(expected).not.toBe(0n);
});
