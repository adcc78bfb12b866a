/**
 * The hash that places ids and actor keys on vshards: xxHash32 over UTF-8 or over a tagged float64.
 *
 * Invariant: values never change between versions (golden vectors in `test/topology/stable-hash.test.ts`), as
 * placement is part of what is stored. A number and its decimal string hash differently: they are different ids.
 * Source: Collet, xxHash fast digest algorithm, specification 0.1.1, XXH32.
 */

const PRIME_1 = 0x9e3779b1 | 0;
const PRIME_2 = 0x85ebca77 | 0;
const PRIME_3 = 0xc2b2ae3d | 0;
const PRIME_4 = 0x27d4eb2f | 0;
const PRIME_5 = 0x165667b1 | 0;

const encoder = new TextEncoder();
let scratch = new Uint8Array(256);
const float = new Float64Array(1);
const floatBytes = new Uint8Array(float.buffer);

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

function wordAt(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  );
}

function lane(accumulator: number, word: number): number {
  return Math.imul(rotate((accumulator + Math.imul(word, PRIME_2)) | 0, 13), PRIME_1);
}

/**
 * XXH32 of `bytes[start, end)`.
 *
 * @returns An unsigned 32-bit integer.
 */
export function hashBytes(bytes: Uint8Array, start: number, end: number, seed = 0): number {
  const length = end - start;
  let at = start;
  let hash: number;
  if (length >= 16) {
    let a = (seed + PRIME_1 + PRIME_2) | 0;
    let b = (seed + PRIME_2) | 0;
    let c = seed | 0;
    let d = (seed - PRIME_1) | 0;
    for (const last = end - 16; at <= last; at += 16) {
      a = lane(a, wordAt(bytes, at));
      b = lane(b, wordAt(bytes, at + 4));
      c = lane(c, wordAt(bytes, at + 8));
      d = lane(d, wordAt(bytes, at + 12));
    }
    hash = (rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18)) | 0;
  } else {
    hash = (seed + PRIME_5) | 0;
  }
  hash = (hash + length) | 0;
  for (; at + 4 <= end; at += 4) {
    hash = Math.imul(rotate((hash + Math.imul(wordAt(bytes, at), PRIME_3)) | 0, 17), PRIME_4);
  }
  for (; at < end; at++) {
    hash = Math.imul(rotate((hash + Math.imul(bytes[at] as number, PRIME_5)) | 0, 11), PRIME_1);
  }
  hash = Math.imul(hash ^ (hash >>> 15), PRIME_2);
  hash = Math.imul(hash ^ (hash >>> 13), PRIME_3);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Hash of a string's UTF-8 bytes. */
export function hashString(text: string, seed = 0): number {
  if (text.length * 3 > scratch.length) scratch = new Uint8Array(text.length * 4);
  const { written } = encoder.encodeInto(text, scratch);
  return hashBytes(scratch, 0, written, seed);
}

/** Hash of an id: strings by their UTF-8 bytes, numbers by their float64 bytes under another seed. */
export function hashId(id: string | number): number {
  if (typeof id === "string") return hashString(id);
  float[0] = id === 0 ? 0 : id;
  return hashBytes(floatBytes, 0, 8, 1);
}
