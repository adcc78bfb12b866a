/**
 * Squared distance and dot product of byte vectors: exact, as lanes of i32 hold 65,536 products of bytes.
 *
 * No data segment, no heap, no global state, as in distance.as.ts.
 */

// @ts-ignore: decorator
@inline
function foldI32(v: v128): f64 {
  return <f64>i32x4.extract_lane(v, 0) + <f64>i32x4.extract_lane(v, 1) + <f64>i32x4.extract_lane(v, 2) + <f64>i32x4.extract_lane(v, 3);
}

export function l2U8(left: usize, right: usize, dimensions: i32): f64 {
  let a = left;
  let b = right;
  let s0 = i32x4.splat(0);
  let s1 = i32x4.splat(0);
  let end = a + ((<usize>dimensions) >> 4 << 4);
  while (a < end) {
    const x = v128.load(a);
    const y = v128.load(b);
    const low = i16x8.sub(i16x8.extend_low_i8x16_u(x), i16x8.extend_low_i8x16_u(y));
    const high = i16x8.sub(i16x8.extend_high_i8x16_u(x), i16x8.extend_high_i8x16_u(y));
    s0 = i32x4.add(s0, i32x4.dot_i16x8_s(low, low));
    s1 = i32x4.add(s1, i32x4.dot_i16x8_s(high, high));
    a += 16;
    b += 16;
  }
  let sum = foldI32(s0) + foldI32(s1);
  end = left + <usize>dimensions;
  while (a < end) {
    const d = <i32>load<u8>(a) - <i32>load<u8>(b);
    sum += <f64>(d * d);
    a++;
    b++;
  }
  return sum;
}

export function dotU8(left: usize, right: usize, dimensions: i32): f64 {
  let a = left;
  let b = right;
  let s0 = i32x4.splat(0);
  let s1 = i32x4.splat(0);
  let end = a + ((<usize>dimensions) >> 4 << 4);
  while (a < end) {
    const x = v128.load(a);
    const y = v128.load(b);
    s0 = i32x4.add(s0, i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(x), i16x8.extend_low_i8x16_u(y)));
    s1 = i32x4.add(s1, i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(x), i16x8.extend_high_i8x16_u(y)));
    a += 16;
    b += 16;
  }
  let sum = foldI32(s0) + foldI32(s1);
  end = left + <usize>dimensions;
  while (a < end) {
    sum += <f64>(<i32>load<u8>(a) * <i32>load<u8>(b));
    a++;
    b++;
  }
  return sum;
}
