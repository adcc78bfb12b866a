/**
 * Components of one bit: a set bit stands for +1, a clear one for −1. Component i is bit `i & 7` of byte `i >> 3`.
 *
 * With h bits that differ, of d: squared distance 4h, dot product d − 2h, cosine 1 − 2h/d; so every metric ranks by h, and no norm is
 * ever read. Bits beyond the last component do not count. Words of 64 bits go through the machine's popcount.
 * No data segment, no heap, no global state, as in distance.as.ts.
 */

/** Bits that differ in the last bits, fewer than 64. */
// @ts-ignore: decorator
@inline
function tailBits(left: usize, right: usize, dimensions: i32): i32 {
  let count = 0;
  let at = <usize>(dimensions >> 6) << 3;
  for (const end = <usize>(dimensions >> 3); at < end; at++) count += popcnt<i32>(<i32>load<u8>(left + at) ^ <i32>load<u8>(right + at));
  const rest = dimensions & 7;
  if (rest != 0) count += popcnt<i32>((<i32>load<u8>(left + at) ^ <i32>load<u8>(right + at)) & ((1 << rest) - 1));
  return count;
}

/** Bits that differ. */
export function hamming(left: usize, right: usize, dimensions: i32): i32 {
  let count: i64 = 0;
  for (let i: usize = 0, end = <usize>(dimensions >> 6) << 3; i < end; i += 8) {
    count += popcnt<i64>(load<i64>(left + i) ^ load<i64>(right + i));
  }
  return <i32>count + tailBits(left, right, dimensions);
}

/** Bits by which four records differ from one query, as f64 at `out` and after it. */
export function hammingFour(r0: usize, r1: usize, r2: usize, r3: usize, query: usize, dimensions: i32, out: usize): void {
  let c0: i64 = 0;
  let c1: i64 = 0;
  let c2: i64 = 0;
  let c3: i64 = 0;
  for (let i: usize = 0, end = <usize>(dimensions >> 6) << 3; i < end; i += 8) {
    const q = load<i64>(query + i);
    c0 += popcnt<i64>(load<i64>(r0 + i) ^ q);
    c1 += popcnt<i64>(load<i64>(r1 + i) ^ q);
    c2 += popcnt<i64>(load<i64>(r2 + i) ^ q);
    c3 += popcnt<i64>(load<i64>(r3 + i) ^ q);
  }
  store<f64>(out, <f64>(<i32>c0 + tailBits(r0, query, dimensions)));
  store<f64>(out, <f64>(<i32>c1 + tailBits(r1, query, dimensions)), 8);
  store<f64>(out, <f64>(<i32>c2 + tailBits(r2, query, dimensions)), 16);
  store<f64>(out, <f64>(<i32>c3 + tailBits(r3, query, dimensions)), 24);
}
