/**
 * float16 (IEEE 754 binary16) as the 16 bits that the kernels read.
 *
 * Invariant: a float32 within ±65504 becomes the nearest float16, ties to even; float16 to number is exact. Node 20 has no
 * `Float16Array`; the kernels know neither infinity nor NaN, so nothing here makes them.
 */

/** Largest finite float16. */
export const MAX_HALF = 65_504;

const word = new Float32Array(1);
const bits = new Uint32Array(word.buffer);

/** @param value Finite and within ±{@link MAX_HALF}, which the caller has seen to. */
export function toHalf(value: number): number {
  word[0] = value;
  const all = bits[0] as number;
  const sign = (all >>> 16) & 0x8000;
  const magnitude = all & 0x7fffffff;
  if (magnitude >= 0x38800000) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  // Below 2^-14: a multiple of 2^-24.
  const exponent = magnitude >>> 23;
  if (exponent < 102) return sign;
  const shift = 126 - exponent;
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const quotient = mantissa >>> shift;
  const rest = mantissa - quotient * 2 ** shift;
  const half = 2 ** (shift - 1);
  return sign | (quotient + (rest > half || (rest === half && (quotient & 1) === 1) ? 1 : 0));
}

export function fromHalf(half: number): number {
  const exponent = (half >>> 10) & 31;
  const fraction = half & 1023;
  const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}
