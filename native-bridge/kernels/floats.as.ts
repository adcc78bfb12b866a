/**
 * Squared distance and dot product of f32 and f16 vectors, also mixed: `A` and `B` are `f32`, or `u16` for f16.
 *
 * Sums are kept in 16 f32 lanes and folded in f64; integer data below 2^24 per lane (MNIST, SIFT) gives exact sums, in either build.
 * Invariant: the pair forms add up in the order of the single forms, so that both give the same bits.
 * No data segment, no heap, no global state, as in distance.as.ts.
 */

import { addProduct, differences, foldF32, halfBias, keptBits, loadFour, loadOne } from "./lanes.as";

/** Components that are summed between two looks at the bound. */
const SLICE: usize = 128;

// @ts-ignore: decorator
@inline
function stepL2<A, B>(sum: v128, a: usize, b: usize, kept: v128, bias: v128): v128 {
  const d = differences<A, B>(a, b, kept, bias);
  return addProduct(sum, d, d);
}

// @ts-ignore: decorator
@inline
function stepDot<A, B>(sum: v128, a: usize, b: usize, kept: v128, bias: v128): v128 {
  return addProduct(sum, loadFour<A>(a, kept, bias), loadFour<B>(b, kept, bias));
}

/** Squared distance; or, once the sum is known to be above `bound`, the sum so far. It only grows, so that no bound changes what is below it. */
export function l2Floats<A, B>(left: usize, right: usize, dimensions: i32, bound: f64): f64 {
  let a = left;
  let b = right;
  const kept = keptBits(dimensions);
  const bias = halfBias(dimensions);
  let s0 = f32x4.splat(0);
  let s1 = f32x4.splat(0);
  let s2 = f32x4.splat(0);
  let s3 = f32x4.splat(0);
  const last = left + (<usize>dimensions >> 4) * (16 * sizeof<A>());
  const slice = bound < Infinity ? SLICE * sizeof<A>() : last - left;
  let end = left;
  while (a < last) {
    end = min(last, a + slice);
    while (a < end) {
      s0 = stepL2<A, B>(s0, a, b, kept, bias);
      s1 = stepL2<A, B>(s1, a + 4 * sizeof<A>(), b + 4 * sizeof<B>(), kept, bias);
      s2 = stepL2<A, B>(s2, a + 8 * sizeof<A>(), b + 8 * sizeof<B>(), kept, bias);
      s3 = stepL2<A, B>(s3, a + 12 * sizeof<A>(), b + 12 * sizeof<B>(), kept, bias);
      a += 16 * sizeof<A>();
      b += 16 * sizeof<B>();
    }
    if (a == last) break;
    const part = foldF32(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
    if (part > bound) return part;
  }
  end = left + (<usize>dimensions >> 2) * (4 * sizeof<A>());
  while (a < end) {
    s0 = stepL2<A, B>(s0, a, b, kept, bias);
    a += 4 * sizeof<A>();
    b += 4 * sizeof<B>();
  }
  let sum = foldF32(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  end = left + <usize>dimensions * sizeof<A>();
  while (a < end) {
    const d = loadOne<A>(a) - loadOne<B>(b);
    sum += <f64>(d * d);
    a += sizeof<A>();
    b += sizeof<B>();
  }
  return sum;
}

export function dotFloats<A, B>(left: usize, right: usize, dimensions: i32): f64 {
  let a = left;
  let b = right;
  const kept = keptBits(dimensions);
  const bias = halfBias(dimensions);
  let s0 = f32x4.splat(0);
  let s1 = f32x4.splat(0);
  let s2 = f32x4.splat(0);
  let s3 = f32x4.splat(0);
  let end = left + (<usize>dimensions >> 4) * (16 * sizeof<A>());
  while (a < end) {
    s0 = stepDot<A, B>(s0, a, b, kept, bias);
    s1 = stepDot<A, B>(s1, a + 4 * sizeof<A>(), b + 4 * sizeof<B>(), kept, bias);
    s2 = stepDot<A, B>(s2, a + 8 * sizeof<A>(), b + 8 * sizeof<B>(), kept, bias);
    s3 = stepDot<A, B>(s3, a + 12 * sizeof<A>(), b + 12 * sizeof<B>(), kept, bias);
    a += 16 * sizeof<A>();
    b += 16 * sizeof<B>();
  }
  end = left + (<usize>dimensions >> 2) * (4 * sizeof<A>());
  while (a < end) {
    s0 = stepDot<A, B>(s0, a, b, kept, bias);
    a += 4 * sizeof<A>();
    b += 4 * sizeof<B>();
  }
  let sum = foldF32(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  end = left + <usize>dimensions * sizeof<A>();
  while (a < end) {
    sum += <f64>(loadOne<A>(a) * loadOne<B>(b));
    a += sizeof<A>();
    b += sizeof<B>();
  }
  return sum;
}

/** Squared distances of two records to one query, as f64 at `out` and `out + 8`. */
export function l2FloatsPair<A, B>(first: usize, second: usize, query: usize, dimensions: i32, out: usize): void {
  let a = first;
  let c = second;
  let b = query;
  const kept = keptBits(dimensions);
  const bias = halfBias(dimensions);
  let s0 = f32x4.splat(0);
  let s1 = f32x4.splat(0);
  let s2 = f32x4.splat(0);
  let s3 = f32x4.splat(0);
  let t0 = f32x4.splat(0);
  let t1 = f32x4.splat(0);
  let t2 = f32x4.splat(0);
  let t3 = f32x4.splat(0);
  let end = first + (<usize>dimensions >> 4) * (16 * sizeof<A>());
  while (a < end) {
    let q = loadFour<B>(b, kept, bias);
    let d = f32x4.sub(loadFour<A>(a, kept, bias), q);
    s0 = addProduct(s0, d, d);
    d = f32x4.sub(loadFour<A>(c, kept, bias), q);
    t0 = addProduct(t0, d, d);
    q = loadFour<B>(b + 4 * sizeof<B>(), kept, bias);
    d = f32x4.sub(loadFour<A>(a + 4 * sizeof<A>(), kept, bias), q);
    s1 = addProduct(s1, d, d);
    d = f32x4.sub(loadFour<A>(c + 4 * sizeof<A>(), kept, bias), q);
    t1 = addProduct(t1, d, d);
    q = loadFour<B>(b + 8 * sizeof<B>(), kept, bias);
    d = f32x4.sub(loadFour<A>(a + 8 * sizeof<A>(), kept, bias), q);
    s2 = addProduct(s2, d, d);
    d = f32x4.sub(loadFour<A>(c + 8 * sizeof<A>(), kept, bias), q);
    t2 = addProduct(t2, d, d);
    q = loadFour<B>(b + 12 * sizeof<B>(), kept, bias);
    d = f32x4.sub(loadFour<A>(a + 12 * sizeof<A>(), kept, bias), q);
    s3 = addProduct(s3, d, d);
    d = f32x4.sub(loadFour<A>(c + 12 * sizeof<A>(), kept, bias), q);
    t3 = addProduct(t3, d, d);
    a += 16 * sizeof<A>();
    c += 16 * sizeof<A>();
    b += 16 * sizeof<B>();
  }
  end = first + (<usize>dimensions >> 2) * (4 * sizeof<A>());
  while (a < end) {
    s0 = stepL2<A, B>(s0, a, b, kept, bias);
    t0 = stepL2<A, B>(t0, c, b, kept, bias);
    a += 4 * sizeof<A>();
    c += 4 * sizeof<A>();
    b += 4 * sizeof<B>();
  }
  let s = foldF32(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  let t = foldF32(f32x4.add(f32x4.add(t0, t1), f32x4.add(t2, t3)));
  end = first + <usize>dimensions * sizeof<A>();
  while (a < end) {
    const q = loadOne<B>(b);
    let d = loadOne<A>(a) - q;
    s += <f64>(d * d);
    d = loadOne<A>(c) - q;
    t += <f64>(d * d);
    a += sizeof<A>();
    c += sizeof<A>();
    b += sizeof<B>();
  }
  store<f64>(out, s);
  store<f64>(out, t, 8);
}

/** Dot products of two records with one query, as f64 at `out` and `out + 8`. */
export function dotFloatsPair<A, B>(first: usize, second: usize, query: usize, dimensions: i32, out: usize): void {
  let a = first;
  let c = second;
  let b = query;
  const kept = keptBits(dimensions);
  const bias = halfBias(dimensions);
  let s0 = f32x4.splat(0);
  let s1 = f32x4.splat(0);
  let s2 = f32x4.splat(0);
  let s3 = f32x4.splat(0);
  let t0 = f32x4.splat(0);
  let t1 = f32x4.splat(0);
  let t2 = f32x4.splat(0);
  let t3 = f32x4.splat(0);
  let end = first + (<usize>dimensions >> 4) * (16 * sizeof<A>());
  while (a < end) {
    let q = loadFour<B>(b, kept, bias);
    s0 = addProduct(s0, loadFour<A>(a, kept, bias), q);
    t0 = addProduct(t0, loadFour<A>(c, kept, bias), q);
    q = loadFour<B>(b + 4 * sizeof<B>(), kept, bias);
    s1 = addProduct(s1, loadFour<A>(a + 4 * sizeof<A>(), kept, bias), q);
    t1 = addProduct(t1, loadFour<A>(c + 4 * sizeof<A>(), kept, bias), q);
    q = loadFour<B>(b + 8 * sizeof<B>(), kept, bias);
    s2 = addProduct(s2, loadFour<A>(a + 8 * sizeof<A>(), kept, bias), q);
    t2 = addProduct(t2, loadFour<A>(c + 8 * sizeof<A>(), kept, bias), q);
    q = loadFour<B>(b + 12 * sizeof<B>(), kept, bias);
    s3 = addProduct(s3, loadFour<A>(a + 12 * sizeof<A>(), kept, bias), q);
    t3 = addProduct(t3, loadFour<A>(c + 12 * sizeof<A>(), kept, bias), q);
    a += 16 * sizeof<A>();
    c += 16 * sizeof<A>();
    b += 16 * sizeof<B>();
  }
  end = first + (<usize>dimensions >> 2) * (4 * sizeof<A>());
  while (a < end) {
    s0 = stepDot<A, B>(s0, a, b, kept, bias);
    t0 = stepDot<A, B>(t0, c, b, kept, bias);
    a += 4 * sizeof<A>();
    c += 4 * sizeof<A>();
    b += 4 * sizeof<B>();
  }
  let s = foldF32(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  let t = foldF32(f32x4.add(f32x4.add(t0, t1), f32x4.add(t2, t3)));
  end = first + <usize>dimensions * sizeof<A>();
  while (a < end) {
    const q = loadOne<B>(b);
    s += <f64>(loadOne<A>(a) * q);
    t += <f64>(loadOne<A>(c) * q);
    a += sizeof<A>();
    c += sizeof<A>();
    b += sizeof<B>();
  }
  store<f64>(out, s);
  store<f64>(out, t, 8);
}
