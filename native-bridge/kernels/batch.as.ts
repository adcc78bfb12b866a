/**
 * Distances of many records to one query: the neighbours of a vertex, the candidates of a list.
 *
 * Records go in fours (floats as two pairs) that share the loads of the query and miss the cache together, while the first lines of the
 * next four are on their way; what is left goes one by one. Measured on random records of 370 MB, ns a record against single calls:
 * 784 × u8 160 : 330, 784 × f32 500 : 750, 128 × f32 90 : 150; in cache 784 × u8 39 : 61.
 * Invariant: a distance has the same bits as that of `distance`, wherever in a batch it is computed.
 * Nothing is validated: a record that changes while it is read gives some distance, so callers re-rank what they keep.
 */

import { hammingFour } from "./bits.as";
import { dotBytesFour, l2BytesFour } from "./bytes.as";
import { dotFloatsPair, l2FloatsPair } from "./floats.as";
import {
  distanceWithNorms,
  ELEMENT_B1,
  ELEMENT_F16,
  ELEMENT_F32,
  ELEMENT_I8,
  ELEMENT_U8,
  finishBits,
  finishBytes,
  finishFloats,
  METRIC_COSINE,
  METRIC_L2,
} from "./metric.as";

/** Where the inverse norm stands in the header of a record (`user4` of a cell). */
const INVERSE_NORM: usize = 28;

// @ts-ignore: decorator
@inline
function normOf(metric: i32, record: usize): f32 {
  return metric == METRIC_COSINE ? load<f32>(record, INVERSE_NORM) : 0;
}

// @ts-ignore: decorator
@inline
function fourFloats<A, B>(metric: i32, dimensions: i32, query: usize, norm: f32, r0: usize, r1: usize, r2: usize, r3: usize, code: usize, out: usize): void {
  if (metric == METRIC_L2) {
    l2FloatsPair<A, B>(r0 + code, r1 + code, query, dimensions, out);
    l2FloatsPair<A, B>(r2 + code, r3 + code, query, dimensions, out + 16);
  } else {
    dotFloatsPair<A, B>(r0 + code, r1 + code, query, dimensions, out);
    dotFloatsPair<A, B>(r2 + code, r3 + code, query, dimensions, out + 16);
  }
  store<f64>(out, finishFloats<A, B>(metric, load<f64>(out), r0 + code, query, dimensions, normOf(metric, r0), norm));
  store<f64>(out, finishFloats<A, B>(metric, load<f64>(out, 8), r1 + code, query, dimensions, normOf(metric, r1), norm), 8);
  store<f64>(out, finishFloats<A, B>(metric, load<f64>(out, 16), r2 + code, query, dimensions, normOf(metric, r2), norm), 16);
  store<f64>(out, finishFloats<A, B>(metric, load<f64>(out, 24), r3 + code, query, dimensions, normOf(metric, r3), norm), 24);
}

// @ts-ignore: decorator
@inline
function fourBytes<T>(metric: i32, dimensions: i32, query: usize, norm: f32, r0: usize, r1: usize, r2: usize, r3: usize, code: usize, out: usize): void {
  if (metric == METRIC_L2) {
    l2BytesFour<T>(r0 + code, r1 + code, r2 + code, r3 + code, query, dimensions, out);
    return;
  }
  dotBytesFour<T>(r0 + code, r1 + code, r2 + code, r3 + code, query, dimensions, out);
  store<f64>(out, finishBytes(metric, load<f64>(out), normOf(metric, r0), norm));
  store<f64>(out, finishBytes(metric, load<f64>(out, 8), normOf(metric, r1), norm), 8);
  store<f64>(out, finishBytes(metric, load<f64>(out, 16), normOf(metric, r2), norm), 16);
  store<f64>(out, finishBytes(metric, load<f64>(out, 24), normOf(metric, r3), norm), 24);
}

// @ts-ignore: decorator
@inline
function fourBits(metric: i32, dimensions: i32, query: usize, r0: usize, r1: usize, r2: usize, r3: usize, code: usize, out: usize): void {
  hammingFour(r0 + code, r1 + code, r2 + code, r3 + code, query, dimensions, out);
  for (let at = out, end = out + 32; at < end; at += 8) store<f64>(at, finishBits(metric, load<f64>(at), dimensions));
}

/** Distances of the four records at `r0` to `r3`, whose codes stand `code` bytes in, as f64 at `out` and after it. */
function fourDistances(metric: i32, element: i32, dimensions: i32, query: usize, norm: f32, r0: usize, r1: usize, r2: usize, r3: usize, code: usize, out: usize): void {
  if (element == ELEMENT_F32) fourFloats<f32, f32>(metric, dimensions, query, norm, r0, r1, r2, r3, code, out);
  else if (element == ELEMENT_U8) fourBytes<u8>(metric, dimensions, query, norm, r0, r1, r2, r3, code, out);
  else if (element == ELEMENT_F16) fourFloats<u16, u16>(metric, dimensions, query, norm, r0, r1, r2, r3, code, out);
  else if (element == ELEMENT_I8) fourBytes<i8>(metric, dimensions, query, norm, r0, r1, r2, r3, code, out);
  else if (element == ELEMENT_B1) fourBits(metric, dimensions, query, r0, r1, r2, r3, code, out);
  else fourFloats<u16, f32>(metric, dimensions, query, norm, r0, r1, r2, r3, code, out);
}

/** Asks for the first lines of four records. Where that is stored their distances come next; a load that nothing used would be left out. */
// @ts-ignore: decorator
@inline
function touch(r0: usize, r1: usize, r2: usize, r3: usize, out: usize): void {
  store<i32>(out, <i32>load<u8>(r0) | <i32>load<u8>(r1) | <i32>load<u8>(r2) | <i32>load<u8>(r3));
}

// @ts-ignore: decorator
@inline
function addressOf(base: usize, stride: usize, ids: usize, index: i32): usize {
  return base + <usize>load<u32>(ids + (<usize>index << 2)) * stride;
}

/**
 * Distances of `count` records by number (int32 at `ids`), as f64 at `out`: record r stands at `base + r * stride`.
 *
 * @param code Bytes from the start of a record to its code. For cosine the record's inverse norm stands at byte 28.
 */
export function distances(metric: i32, element: i32, dimensions: i32, query: usize, norm: f32, base: usize, stride: usize, code: usize, ids: usize, count: i32, out: usize): void {
  let i = 0;
  const first = base + code;
  for (; i + 4 <= count; i += 4) {
    const at = ids + (<usize>i << 2);
    const to = out + (<usize>i << 3);
    if (i + 8 <= count) {
      touch(addressOf(first, stride, at, 4), addressOf(first, stride, at, 5), addressOf(first, stride, at, 6), addressOf(first, stride, at, 7), to);
    }
    const r0 = addressOf(base, stride, at, 0);
    const r1 = addressOf(base, stride, at, 1);
    const r2 = addressOf(base, stride, at, 2);
    const r3 = addressOf(base, stride, at, 3);
    fourDistances(metric, element, dimensions, query, norm, r0, r1, r2, r3, code, to);
  }
  for (; i < count; i++) {
    const record = addressOf(base, stride, ids, i);
    store<f64>(out + (<usize>i << 3), distanceWithNorms(metric, element, record + code, query, dimensions, normOf(metric, record), norm));
  }
}

/** As {@link distances}, of records whose byte addresses (u32) stand at `records`: for records in several places. */
export function distancesAt(metric: i32, element: i32, dimensions: i32, query: usize, norm: f32, code: usize, records: usize, count: i32, out: usize): void {
  distances(metric, element, dimensions, query, norm, 0, 1, code, records, count, out);
}
