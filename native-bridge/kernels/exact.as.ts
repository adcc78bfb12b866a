/**
 * Distances summed in f64, for the rows at which f32 sums overflow or vanish: components beyond about 1e18 or below 1e-15.
 *
 * No square or product of two finite f32 overflows or vanishes in f64, so these are right for every finite vector. Plain loops:
 * they run for extreme rows only. No data segment, no heap, no global state, as in distance.as.ts.
 */

import { loadOne } from "./lanes.as";

export function l2Exact<A, B>(a: usize, b: usize, dimensions: i32): f64 {
  let sum: f64 = 0;
  for (let i: usize = 0, end = <usize>dimensions; i < end; i++) {
    const d = <f64>loadOne<A>(a + i * sizeof<A>()) - <f64>loadOne<B>(b + i * sizeof<B>());
    sum += d * d;
  }
  return sum;
}

export function dotExact<A, B>(a: usize, b: usize, dimensions: i32): f64 {
  let sum: f64 = 0;
  for (let i: usize = 0, end = <usize>dimensions; i < end; i++) {
    sum += <f64>loadOne<A>(a + i * sizeof<A>()) * <f64>loadOne<B>(b + i * sizeof<B>());
  }
  return sum;
}

/** Cosine of the angle; 0 when a vector is zero. */
export function cosineExact<A, B>(a: usize, b: usize, dimensions: i32): f64 {
  const norms = sqrt(dotExact<A, A>(a, a, dimensions)) * sqrt(dotExact<B, B>(b, b, dimensions));
  return norms > 0 ? dotExact<A, B>(a, b, dimensions) / norms : 0;
}
