/**
 * Randomness as a parameter: one seeded generator for whatever must repeat, one from the platform for keys.
 *
 * Invariant: the same seed gives the same sequence on every machine and Node version (int32 arithmetic only).
 * Source: Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators" (xoshiro128**); the state is filled by
 * SplitMix32. The seeded one is not for secrets: region keys come from {@link systemRandom}.
 */

/** A source of random numbers. */
export interface Random {
  /** A uniform integer in `[0, 2^32)`. */
  u32(): number;
  /** A uniform number in `[0, 1)` with 32 random bits. */
  float(): number;
}

const U32_RANGE = 2 ** 32;

/**
 * Creates a repeatable generator.
 *
 * Cost: no allocation a number.
 *
 * @param seed Any number; its low 32 bits count.
 */
export function createSeededRandom(seed: number): Random {
  const state = seedState(seed);
  const u32 = (): number => {
    const s1 = state[1] as number;
    const result = Math.imul(rotateLeft(Math.imul(s1, 5), 7), 9) >>> 0;
    const shifted = s1 << 9;
    state[2] = (state[2] as number) ^ (state[0] as number);
    state[3] = (state[3] as number) ^ s1;
    state[1] = s1 ^ state[2];
    state[0] = (state[0] as number) ^ state[3];
    state[2] = state[2] ^ shifted;
    state[3] = rotateLeft(state[3], 11);
    return result;
  };
  return { u32, float: () => u32() / U32_RANGE };
}

/** Numbers fetched from the platform at once, as each fetch is a call out of JavaScript. */
const SYSTEM_BATCH = 256;

/** The platform's generator, fit for keys that must not be guessed. One per thread. */
export const systemRandom: Random = createSystemRandom();

function createSystemRandom(): Random {
  const batch = new Uint32Array(SYSTEM_BATCH);
  let used = SYSTEM_BATCH;
  const u32 = (): number => {
    if (used === SYSTEM_BATCH) {
      crypto.getRandomValues(batch);
      used = 0;
    }
    const value = batch[used] as number;
    batch[used++] = 0; // a number handed out is not kept
    return value;
  };
  return { u32, float: () => u32() / U32_RANGE };
}

/** Four words by SplitMix32, never all zero, as xoshiro would stay there. */
function seedState(seed: number): Int32Array {
  const state = new Int32Array(4);
  let word = seed | 0;
  for (let index = 0; index < 4; index++) {
    word = (word + 0x9e3779b9) | 0;
    let mixed = word ^ (word >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    state[index] = mixed ^ (mixed >>> 15);
  }
  if (state[0] === 0 && state[1] === 0 && state[2] === 0 && state[3] === 0) state[0] = 1;
  return state;
}

function rotateLeft(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}
