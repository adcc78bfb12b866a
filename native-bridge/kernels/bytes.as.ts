/**
 * Squared distance and dot product of byte vectors, `T` = `u8` or `i8`: exact, as lanes of i32 hold 65,536 products of bytes.
 *
 * No data segment, no heap, no global state, as in distance.as.ts.
 * Measured (784 bytes, x64): difference as the larger less the smaller byte, widened once, beats widening both (44 against 47 ns a
 * vector); steps of 32 and 64 bytes gain nothing; products widened by extmul lose (73 ns), as V8 has no instruction for them. Four
 * records at once share the widened query: 37 ns in cache, and 73 against 116 ns out of it, as four misses are under way together.
 *
 * Relaxed SIMD has nothing for these: its dot product is defined only where one side is within 0..127, which bytes and their differences are
 * not; taken apart into two such halves it costs as many instructions as are here.
 */

import { foldI32 } from "./lanes.as";

// @ts-ignore: decorator
@inline
function squaresOf(x: v128): v128 {
  return i32x4.dot_i16x8_s(x, x);
}

/** |x − y| per byte, unsigned. */
// @ts-ignore: decorator
@inline
function apart<T>(x: v128, y: v128): v128 {
  return v128.sub<u8>(v128.max<T>(x, y), v128.min<T>(x, y));
}

// @ts-ignore: decorator
@inline
function stepL2<T>(sum: v128, at: usize, low: v128, high: v128): v128 {
  const first = squaresOf(i16x8.sub(v128.load_ext<T>(at), low));
  return i32x4.add(i32x4.add(sum, first), squaresOf(i16x8.sub(v128.load_ext<T>(at, 8), high)));
}

// @ts-ignore: decorator
@inline
function stepDot<T>(sum: v128, at: usize, low: v128, high: v128): v128 {
  const first = i32x4.dot_i16x8_s(v128.load_ext<T>(at), low);
  return i32x4.add(i32x4.add(sum, first), i32x4.dot_i16x8_s(v128.load_ext<T>(at, 8), high));
}

/** Sums over the last components, fewer than 16: they stay far below 2^31. */
// @ts-ignore: decorator
@inline
function tailL2<T>(left: usize, right: usize, from: i32, to: i32): i32 {
  let sum = 0;
  for (let i = from; i < to; i++) {
    const d = <i32>load<T>(left + <usize>i) - <i32>load<T>(right + <usize>i);
    sum += d * d;
  }
  return sum;
}

// @ts-ignore: decorator
@inline
function tailDot<T>(left: usize, right: usize, from: i32, to: i32): i32 {
  let sum = 0;
  for (let i = from; i < to; i++) sum += <i32>load<T>(left + <usize>i) * <i32>load<T>(right + <usize>i);
  return sum;
}

export function l2Bytes<T>(left: usize, right: usize, dimensions: i32): f64 {
  let a = left;
  let b = right;
  let s0 = i32x4.splat(0);
  let s1 = i32x4.splat(0);
  const whole = dimensions & ~15;
  for (const end = left + <usize>whole; a < end; a += 16, b += 16) {
    const d = apart<T>(v128.load(a), v128.load(b));
    s0 = i32x4.add(s0, squaresOf(i16x8.extend_low_i8x16_u(d)));
    s1 = i32x4.add(s1, squaresOf(i16x8.extend_high_i8x16_u(d)));
  }
  return foldI32(s0) + foldI32(s1) + <f64>tailL2<T>(left, right, whole, dimensions);
}

export function dotBytes<T>(left: usize, right: usize, dimensions: i32): f64 {
  let a = left;
  let b = right;
  let s0 = i32x4.splat(0);
  let s1 = i32x4.splat(0);
  const whole = dimensions & ~15;
  for (const end = left + <usize>whole; a < end; a += 16, b += 16) {
    s0 = i32x4.add(s0, i32x4.dot_i16x8_s(v128.load_ext<T>(a), v128.load_ext<T>(b)));
    s1 = i32x4.add(s1, i32x4.dot_i16x8_s(v128.load_ext<T>(a, 8), v128.load_ext<T>(b, 8)));
  }
  return foldI32(s0) + foldI32(s1) + <f64>tailDot<T>(left, right, whole, dimensions);
}

/** Squared distances of four records to one query, as f64 at `out` and after it. */
export function l2BytesFour<T>(r0: usize, r1: usize, r2: usize, r3: usize, query: usize, dimensions: i32, out: usize): void {
  let s0 = i32x4.splat(0);
  let s1 = i32x4.splat(0);
  let s2 = i32x4.splat(0);
  let s3 = i32x4.splat(0);
  const whole = dimensions & ~15;
  for (let i: usize = 0, end = <usize>whole; i < end; i += 16) {
    const low = v128.load_ext<T>(query + i);
    const high = v128.load_ext<T>(query + i, 8);
    s0 = stepL2<T>(s0, r0 + i, low, high);
    s1 = stepL2<T>(s1, r1 + i, low, high);
    s2 = stepL2<T>(s2, r2 + i, low, high);
    s3 = stepL2<T>(s3, r3 + i, low, high);
  }
  store<f64>(out, foldI32(s0) + <f64>tailL2<T>(r0, query, whole, dimensions));
  store<f64>(out, foldI32(s1) + <f64>tailL2<T>(r1, query, whole, dimensions), 8);
  store<f64>(out, foldI32(s2) + <f64>tailL2<T>(r2, query, whole, dimensions), 16);
  store<f64>(out, foldI32(s3) + <f64>tailL2<T>(r3, query, whole, dimensions), 24);
}

/** Dot products of four records with one query, as f64 at `out` and after it. */
export function dotBytesFour<T>(r0: usize, r1: usize, r2: usize, r3: usize, query: usize, dimensions: i32, out: usize): void {
  let s0 = i32x4.splat(0);
  let s1 = i32x4.splat(0);
  let s2 = i32x4.splat(0);
  let s3 = i32x4.splat(0);
  const whole = dimensions & ~15;
  for (let i: usize = 0, end = <usize>whole; i < end; i += 16) {
    const low = v128.load_ext<T>(query + i);
    const high = v128.load_ext<T>(query + i, 8);
    s0 = stepDot<T>(s0, r0 + i, low, high);
    s1 = stepDot<T>(s1, r1 + i, low, high);
    s2 = stepDot<T>(s2, r2 + i, low, high);
    s3 = stepDot<T>(s3, r3 + i, low, high);
  }
  store<f64>(out, foldI32(s0) + <f64>tailDot<T>(r0, query, whole, dimensions));
  store<f64>(out, foldI32(s1) + <f64>tailDot<T>(r1, query, whole, dimensions), 8);
  store<f64>(out, foldI32(s2) + <f64>tailDot<T>(r2, query, whole, dimensions), 16);
  store<f64>(out, foldI32(s3) + <f64>tailDot<T>(r3, query, whole, dimensions), 24);
}
