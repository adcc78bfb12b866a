/**
 * One distance: from metric and element to the kernel that computes it.
 *
 * Smaller is closer for every metric: squared Euclidean, 1 − cosine in [0, 2], 1 − dot product. Where f32 overflows or vanishes the
 * distance is computed again in f64 (exact.as.ts), so it is right for every finite vector.
 * Invariant: a distance depends on nothing but its arguments; batch.as.ts gives the same bits.
 * Divergence: a zero vector has cosine distance 1 from everything, itself included (usearch says 0 for two zero vectors).
 */

import { hamming } from "./bits.as";
import { dotBytes, l2Bytes } from "./bytes.as";
import { cosineExact, dotExact, l2Exact } from "./exact.as";
import { dotFloats, l2Floats } from "./floats.as";

// Codes of kernels.ts. `a` is the record, `b` the query, which differ for F16_F32 only: f16 record, f32 query.
export const METRIC_L2: i32 = 0;
export const METRIC_COSINE: i32 = 1;
export const ELEMENT_F32: i32 = 0;
export const ELEMENT_U8: i32 = 1;
export const ELEMENT_F16: i32 = 2;
export const ELEMENT_I8: i32 = 3;
export const ELEMENT_B1: i32 = 4;
export const ELEMENT_F16_F32: i32 = 5;

/** Sums between these lost nothing to overflow, and next to nothing to numbers too small for f32. False for NaN. */
const SMALLEST: f64 = 1e-30;
const LARGEST: f64 = 1e30;
/** Smallest inverse norm that f32 holds with all its digits. */
const SMALLEST_NORM: f32 = 1.1754944e-38;

// @ts-ignore: decorator
@inline
function fromCosine(cosine: f64): f64 {
  return min<f64>(2, max<f64>(0, 1 - cosine));
}

/** Turns the sum of a float kernel (squares for L2, products otherwise) into the distance. */
// @ts-ignore: decorator
@inline
export function finishFloats<A, B>(metric: i32, sum: f64, a: usize, b: usize, dimensions: i32, normA: f32, normB: f32): f64 {
  if (metric == METRIC_L2) return sum > SMALLEST && sum < LARGEST ? sum : l2Exact<A, B>(a, b, dimensions);
  if (metric == METRIC_COSINE) {
    const norms = <f64>normA * <f64>normB;
    if (norms == 0) return 1;
    // |a| |b| bounds the sum and its terms.
    const plain = norms > SMALLEST && norms < LARGEST && normA > SMALLEST_NORM && normB > SMALLEST_NORM;
    return fromCosine(plain ? sum * norms : cosineExact<A, B>(a, b, dimensions));
  }
  return 1 - (abs(sum) < LARGEST ? sum : dotExact<A, B>(a, b, dimensions));
}

/** Turns the exact sum of a kernel of bytes into the distance. */
// @ts-ignore: decorator
@inline
export function finishBytes(metric: i32, sum: f64, normA: f32, normB: f32): f64 {
  if (metric == METRIC_L2) return sum;
  return metric == METRIC_COSINE ? fromCosine(sum * <f64>normA * <f64>normB) : 1 - sum;
}

/** Turns the number of bits that differ into the distance of the vectors of ±1. */
// @ts-ignore: decorator
@inline
export function finishBits(metric: i32, differing: f64, dimensions: i32): f64 {
  if (metric == METRIC_L2) return 4 * differing;
  return metric == METRIC_COSINE ? (2 * differing) / <f64>dimensions : 1 - (<f64>dimensions - 2 * differing);
}

// @ts-ignore: decorator
@inline
function floats<A, B>(metric: i32, a: usize, b: usize, dimensions: i32, normA: f32, normB: f32, bound: f64): f64 {
  const sum = metric == METRIC_L2 ? l2Floats<A, B>(a, b, dimensions, bound) : dotFloats<A, B>(a, b, dimensions);
  return finishFloats<A, B>(metric, sum, a, b, dimensions, normA, normB);
}

// @ts-ignore: decorator
@inline
function bytes<T>(metric: i32, a: usize, b: usize, dimensions: i32, normA: f32, normB: f32): f64 {
  const sum = metric == METRIC_L2 ? l2Bytes<T>(a, b, dimensions) : dotBytes<T>(a, b, dimensions);
  return finishBytes(metric, sum, normA, normB);
}

function smallElements(metric: i32, element: i32, a: usize, b: usize, dimensions: i32, normA: f32, normB: f32, bound: f64): f64 {
  if (element == ELEMENT_U8) return bytes<u8>(metric, a, b, dimensions, normA, normB);
  if (element == ELEMENT_F16) return floats<u16, u16>(metric, a, b, dimensions, normA, normB, bound);
  if (element == ELEMENT_I8) return bytes<i8>(metric, a, b, dimensions, normA, normB);
  if (element == ELEMENT_B1) return finishBits(metric, <f64>hamming(a, b, dimensions), dimensions);
  return floats<u16, f32>(metric, a, b, dimensions, normA, normB, bound);
}

/** Distance of a record and a query whose inverse norms are known; only cosine looks at them. */
// @ts-ignore: decorator
@inline
export function distanceWithNorms(metric: i32, element: i32, a: usize, b: usize, dimensions: i32, normA: f32, normB: f32): f64 {
  return distanceWithin(metric, element, a, b, dimensions, normA, normB, Infinity);
}

/** The same; or, where it is above `bound`, anything above it: squares of floats are summed no further then. */
// @ts-ignore: decorator
@inline
export function distanceWithin(metric: i32, element: i32, a: usize, b: usize, dimensions: i32, normA: f32, normB: f32, bound: f64): f64 {
  if (element == ELEMENT_F32) return floats<f32, f32>(metric, a, b, dimensions, normA, normB, bound);
  return smallElements(metric, element, a, b, dimensions, normA, normB, bound);
}

/**
 * 1 / |a|, or 0 for the zero vector. Squares are summed in f64, so that no finite vector overflows. `a` is a record, or a query of the
 * record's type; for F16_F32 it is the f32 query.
 */
export function inverseNorm(element: i32, a: usize, dimensions: i32): f32 {
  let sum: f64 = 0;
  if (element == ELEMENT_F32 || element == ELEMENT_F16_F32) sum = dotExact<f32, f32>(a, a, dimensions);
  else if (element == ELEMENT_U8) sum = dotBytes<u8>(a, a, dimensions);
  else if (element == ELEMENT_F16) sum = dotExact<u16, u16>(a, a, dimensions);
  else if (element == ELEMENT_I8) sum = dotBytes<i8>(a, a, dimensions);
  else sum = <f64>dimensions;
  return sum > 0 ? <f32>(1 / sqrt(sum)) : 0;
}

/** Distance of two vectors at byte offsets of the memory. Smaller is closer for every metric. */
export function distance(metric: i32, element: i32, a: usize, b: usize, dimensions: i32): f64 {
  let normA: f32 = 0, normB: f32 = 0;
  if (metric == METRIC_COSINE) normA = inverseNorm(element == ELEMENT_F16_F32 ? ELEMENT_F16 : element, a, dimensions);
  if (metric == METRIC_COSINE) normB = inverseNorm(element, b, dimensions);
  return distanceWithNorms(metric, element, a, b, dimensions, normA, normB);
}
