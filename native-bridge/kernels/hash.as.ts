/**
 * xxHash64 over bytes in the arena, and sums of such hashes over documents.
 *
 * No data segment, no heap, no global state, as in distance.as.ts. Any offset and length will do.
 * Source: Collet, xxHash fast digest algorithm, specification 0.1.1, XXH64.
 */

const PRIME_1: u64 = 0x9e3779b185ebca87;
const PRIME_2: u64 = 0xc2b2ae3d27d4eb4f;
const PRIME_3: u64 = 0x165667b19e3779f9;
const PRIME_4: u64 = 0x85ebca77c2b2ae63;
const PRIME_5: u64 = 0x27d4eb2f165667c5;

// @ts-ignore: decorator
@inline
function round(accumulator: u64, word: u64): u64 {
  return rotl<u64>(accumulator + word * PRIME_2, 31) * PRIME_1;
}

// @ts-ignore: decorator
@inline
function merge(hash: u64, lane: u64): u64 {
  return (hash ^ round(0, lane)) * PRIME_1 + PRIME_4;
}

/** XXH64 of `length` bytes. */
export function hash64(seed: u64, start: usize, length: usize): u64 {
  let at = start;
  const end = start + length;
  let hash: u64;
  if (length >= 32) {
    let a = seed + PRIME_1 + PRIME_2;
    let b = seed + PRIME_2;
    let c = seed;
    let d = seed - PRIME_1;
    for (const last = end - 32; at <= last; at += 32) {
      a = round(a, load<u64>(at));
      b = round(b, load<u64>(at + 8));
      c = round(c, load<u64>(at + 16));
      d = round(d, load<u64>(at + 24));
    }
    hash = rotl<u64>(a, 1) + rotl<u64>(b, 7) + rotl<u64>(c, 12) + rotl<u64>(d, 18);
    hash = merge(merge(merge(merge(hash, a), b), c), d);
  } else {
    hash = seed + PRIME_5;
  }
  hash += <u64>length;
  for (; at + 8 <= end; at += 8) hash = rotl<u64>(hash ^ round(0, load<u64>(at)), 27) * PRIME_1 + PRIME_4;
  if (at + 4 <= end) {
    hash = rotl<u64>(hash ^ (<u64>load<u32>(at) * PRIME_1), 23) * PRIME_2 + PRIME_3;
    at += 4;
  }
  for (; at < end; at++) hash = rotl<u64>(hash ^ (<u64>load<u8>(at) * PRIME_5), 11) * PRIME_1;
  hash = (hash ^ (hash >> 33)) * PRIME_2;
  hash = (hash ^ (hash >> 29)) * PRIME_3;
  return hash ^ (hash >> 32);
}

/**
 * Writes the hash of a document to `out`: of its head (words of the caller's choice, with the lengths that keep the two ranges apart),
 * then of two ranges. `out` and `head` may lie anywhere in the caller's scratch.
 */
export function hashDocument(out: usize, head: usize, headBytes: usize, a: usize, aBytes: usize, b: usize, bBytes: usize): void {
  store<u64>(out, hash64(hash64(hash64(0, head, headBytes), a, aBytes), b, bBytes));
}

/** As {@link hashDocument}, but adds the hash to what `sum` holds, modulo 2^64. */
export function addDocument(sum: usize, head: usize, headBytes: usize, a: usize, aBytes: usize, b: usize, bBytes: usize): void {
  store<u64>(sum, load<u64>(sum) + hash64(hash64(hash64(0, head, headBytes), a, aBytes), b, bBytes));
}
