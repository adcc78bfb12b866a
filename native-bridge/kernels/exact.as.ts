/**
 * Distances summed in f64, for the rows at which f32 sums overflow or vanish: components beyond about 1e18 or below 1e-15.
 *
 * No square or product of two finite f32 overflows or vanishes in f64, so these are right for every finite vector. Plain loops:
 * they run for extreme rows only. No data segment, no heap, no global state, as in distance.as.ts.
 */

export function l2Exact(a: usize, b: usize, dimensions: i32): f64 {
  let sum: f64 = 0;
  for (let i: usize = 0, end = <usize>dimensions << 2; i < end; i += 4) {
    const d = <f64>load<f32>(a + i) - <f64>load<f32>(b + i);
    sum += d * d;
  }
  return sum;
}

export function dotExact(a: usize, b: usize, dimensions: i32): f64 {
  let sum: f64 = 0;
  for (let i: usize = 0, end = <usize>dimensions << 2; i < end; i += 4) {
    sum += <f64>load<f32>(a + i) * <f64>load<f32>(b + i);
  }
  return sum;
}

/** Cosine of the angle; 0 when a vector is zero. */
export function cosineExact(a: usize, b: usize, dimensions: i32): f64 {
  const norms = sqrt(dotExact(a, a, dimensions)) * sqrt(dotExact(b, b, dimensions));
  return norms > 0 ? dotExact(a, b, dimensions) / norms : 0;
}
