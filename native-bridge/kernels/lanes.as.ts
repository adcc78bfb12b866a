/**
 * Four components at a time as f32 lanes, whatever their type: f32, or f16 as `u16`.
 *
 * Invariant: every finite f16 becomes exactly its f32. No data segment, no heap, no global state, as in distance.as.ts.
 * The module is built twice; the build with relaxed SIMD fuses product and sum (one rounding instead of two), where the machine can.
 * Source: Giesen, "half to float done quic", 2012 (exponent and mantissa moved into place, then one product corrects the bias).
 */

/** Bits of 2^(127 - 15), which moves the exponent of an f16 in the bits of an f32 to where it belongs. */
const BIAS_BITS: i32 = 0x77800000;
/** Sign, exponent and mantissa of a sign-extended f16 that was shifted left by 13. */
const KEPT_BITS: i32 = 0x8fffe000;

/*
 * Both are made from the dimension, whose sign no compiler knows to be 0: as plain constants V8 makes them anew at each use, which
 * doubles the time of a loop (784 components: 187 against 402 ns).
 */

// @ts-ignore: decorator
@inline
export function keptBits(dimensions: i32): v128 {
  return i32x4.splat(KEPT_BITS | (dimensions >> 31));
}

// @ts-ignore: decorator
@inline
export function halfBias(dimensions: i32): v128 {
  return i32x4.splat(BIAS_BITS | (dimensions >> 31));
}

/** @param kept As {@link keptBits} gives it. @param bias As {@link halfBias} gives it. Both are for f16. */
// @ts-ignore: decorator
@inline
export function loadFour<T>(at: usize, kept: v128, bias: v128): v128 {
  if (sizeof<T>() == 2) return f32x4.mul(v128.and(i32x4.shl(v128.load_ext<i16>(at), 13), kept), bias);
  else return v128.load(at);
}

/** What four components of a record lack of those of a query. A product with a power of two is exact, so that a fused one changes nothing. */
// @ts-ignore: decorator
@inline
export function differences<A, B>(a: usize, b: usize, kept: v128, bias: v128): v128 {
  const query = loadFour<B>(b, kept, bias);
  if (ASC_FEATURE_RELAXED_SIMD && sizeof<A>() == 2)
    return f32x4.relaxed_nmadd(v128.and(i32x4.shl(v128.load_ext<i16>(a), 13), kept), bias, query);
  else return f32x4.sub(query, loadFour<A>(a, kept, bias));
}

// @ts-ignore: decorator
@inline
export function loadOne<T>(at: usize): f32 {
  if (sizeof<T>() == 2) return reinterpret<f32>((<i32>load<i16>(at) << 13) & KEPT_BITS) * reinterpret<f32>(BIAS_BITS);
  else return load<f32>(at);
}

// @ts-ignore: decorator
@inline
export function addProduct(sum: v128, a: v128, b: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, sum);
  else return f32x4.add(sum, f32x4.mul(a, b));
}

// @ts-ignore: decorator
@inline
export function foldF32(v: v128): f64 {
  const low = f64x2.promote_low_f32x4(v);
  const high = f64x2.promote_low_f32x4(i8x16.shuffle(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
  const sum = f64x2.add(low, high);
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

// @ts-ignore: decorator
@inline
export function foldI32(v: v128): f64 {
  return <f64>i32x4.extract_lane(v, 0) + <f64>i32x4.extract_lane(v, 1) + <f64>i32x4.extract_lane(v, 2) + <f64>i32x4.extract_lane(v, 3);
}
