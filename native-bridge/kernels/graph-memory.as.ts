/**
 * What search and linking of a graph share: the control block in scratch, records of vertices, distances that stop early.
 *
 * Invariant: whatever the records hold, every address is formed from the thread's own table of chunks, so it lies in one of them.
 * Layouts: src/store/graph-layout.ts (records), graph-kernels.ts (control block).
 */

import { halfBias, keptBits, loadFour, loadOne } from "./lanes.as";
import { distanceWithin, ELEMENT_F16, ELEMENT_F16_F32 } from "./metric.as";

const METRIC_L2: i32 = 0;
export const METRIC_INNER_PRODUCT: i32 = 2;
const ELEMENT_U8: i32 = 1;
/** How distances are computed: by the common kernels, or by those here that stop early. */
const MODE_COMMON: i32 = 0;
const MODE_L2_U8: i32 = 1;
/** By the common kernels, the query as f32: the same distances. */
const MODE_F16: i32 = 2;

// Vertex record, see graph-layout.ts.
export const AT_DOCUMENT: usize = 12;
export const AT_FLAGS: usize = 24;
const AT_NORM: usize = 28;
export const AT_DEGREE: usize = 32;
export const AT_NEIGHBOURS: usize = 36;
export const TOMBSTONE: i32 = 1;

// Control block in scratch, see graph-kernels.ts.
export const METRIC: usize = 0;
const ELEMENT: usize = 4;
const DIMENSIONS: usize = 8;
const STRIDE: usize = 12;
export const CODE: usize = 16;
export const DEGREE: usize = 20;
export const CHUNK_SHIFT: usize = 24;
export const CHUNKS: usize = 28;
export const CHUNK_TABLE: usize = 32;
export const VISITED: usize = 36;
export const EPOCH: usize = 40;
const QUERY: usize = 44;
const QUERY_NORM: usize = 48;
const WIDE: usize = 52;
export const ENTRIES: usize = 56;
export const ENTRY_COUNT: usize = 60;
export const EF: usize = 64;
export const LIMIT_DISTANCES: usize = 68;
export const FILTER: usize = 72;
export const FILTER_BITS: usize = 76;
export const RESULTS: usize = 80;
export const RESULT_COUNT: usize = 84;
export const ASIDE: usize = 88;
export const ASIDE_CAPACITY: usize = 92;
export const ASIDE_COUNT: usize = 96;
export const BATCH: usize = 100;
export const READS: usize = 104;
export const PARTITIONS: usize = 108;
export const DISTANCES: usize = 112;
export const EXPANSIONS: usize = 116;
export const DAMAGED: usize = 120;
export const DANGLING: usize = 124;
export const STOPPED: usize = 128;
export const ALPHA: usize = 132;
export const TOKEN: usize = 136;
export const LOCK_ATTEMPTS: usize = 140;
export const KEPT: usize = 144;
export const CANDIDATES: usize = 148;
export const CANDIDATE_CAPACITY: usize = 152;
export const SKIPPED_EDGES: usize = 156;
export const LISTS_PRUNED: usize = 160;
export const CURSOR: usize = 164;
export const FENCE: usize = 168;
export const GROUP: usize = 172;
const QUERY_ELEMENT: usize = 176;
export const TREE_ROOT: usize = 180;
export const TOUCHED: usize = 184;
export const KNOWN: usize = 188;

export const LINE: usize = 64;

/** Why a search ended early. */
export const STOPPED_BUDGET: i32 = 1;
export const STOPPED_ASIDE_FULL: i32 = 2;

// Row of the chunk table: u32 base address (0 = none) | i32 partition | u32 address of its region's stamp | i32 stamp.
export const CHUNK_SHIFT_BYTES: usize = 4;
export const CHUNK_PARTITION: usize = 4;
export const CHUNK_STAMP_AT: usize = 8;
export const CHUNK_STAMP: usize = 12;

// Entry of results, aside, candidates: f64 distance | i32 vertex | i32 expanded, or (kept) the record.
export const ENTRY: usize = 16;
export const ENTRY_VERTEX: usize = 8;
export const ENTRY_MARK: usize = 12;

export const INFINITY_F64: f64 = Infinity;
/** Vectors are summed in slices of 16 × 16 components between two looks at the bound. */
const SLICE: usize = 256;
/** Above this a sum of squares of bytes does not fit into an i32. */
const MAX_L2_U8_DIMENSIONS: i32 = 33_024;

// @ts-ignore: decorator
@inline
export function bump(c: usize, counter: usize): void {
  store<i32>(c + counter, load<i32>(c + counter) + 1);
}

// @ts-ignore: decorator
@inline
export function recordOf(c: usize, vertex: i32): usize {
  const shift = load<i32>(c, CHUNK_SHIFT);
  const chunk = <usize>(<u32>vertex >> shift);
  if (chunk >= <usize>load<u32>(c, CHUNKS)) return 0;
  const base = <usize>load<u32>(<usize>load<u32>(c, CHUNK_TABLE) + (chunk << CHUNK_SHIFT_BYTES));
  if (base == 0) return 0;
  return base + (<usize>vertex & ((<usize>1 << shift) - 1)) * <usize>load<u32>(c, STRIDE);
}

// @ts-ignore: decorator
@inline
export function modeOf(c: usize): i32 {
  const element = load<i32>(c, ELEMENT);
  if (element != load<i32>(c, QUERY_ELEMENT)) return MODE_COMMON;
  if (element == ELEMENT_F16) return MODE_F16;
  const stops = element == ELEMENT_U8 && load<i32>(c, METRIC) == METRIC_L2;
  return stops && load<i32>(c, DIMENSIONS) <= MAX_L2_U8_DIMENSIONS ? MODE_L2_U8 : MODE_COMMON;
}

// @ts-ignore: decorator
@inline
function foldI32(v: v128): i32 {
  const half = i32x4.add(v, i8x16.shuffle(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
  return i32x4.extract_lane(half, 0) + i32x4.extract_lane(half, 1);
}

/** Widens the query where that is worth it, so that it is not widened again for every vector. */
export function widen(c: usize, mode: i32): void {
  if (mode == MODE_L2_U8) widenBytes(c);
  else if (mode == MODE_F16) widenHalves(c);
}

/** Bytes as 16-bit words. Codes and query are padded with zeros to 16. */
function widenBytes(c: usize): void {
  let from = <usize>load<u32>(c, QUERY);
  let to = <usize>load<u32>(c, WIDE);
  const end = from + <usize>((load<i32>(c, DIMENSIONS) + 15) & ~15);
  while (from < end) {
    v128.store(to, v128.load_ext<u8>(from));
    v128.store(to, v128.load_ext<u8>(from, 8), 16);
    from += 16;
    to += 32;
  }
}

function widenHalves(c: usize): void {
  const dimensions = load<i32>(c, DIMENSIONS);
  const kept = keptBits(dimensions);
  const bias = halfBias(dimensions);
  let from = <usize>load<u32>(c, QUERY);
  let to = <usize>load<u32>(c, WIDE);
  const end = from + (<usize>dimensions << 1);
  for (; from + 8 <= end; from += 8, to += 16) v128.store(to, loadFour<u16>(from, kept, bias));
  for (; from < end; from += 2, to += 4) store<f32>(to, loadOne<u16>(from));
}

// @ts-ignore: decorator
@inline
function squares(sum: v128, wide: usize, code: usize): v128 {
  const d = i16x8.sub(v128.load_ext<u8>(code), v128.load(wide));
  return i32x4.add(sum, i32x4.dot_i16x8_s(d, d));
}

/** Squared distance of the widened query to a code; anything above `bound` once it is known to be above. */
function l2Wide(wide: usize, code: usize, dimensions: i32, bound: i32): i32 {
  let s0 = i32x4.splat(0);
  let s1 = i32x4.splat(0);
  let s2 = i32x4.splat(0);
  let s3 = i32x4.splat(0);
  const end = code + <usize>((dimensions + 15) & ~15);
  while (true) {
    const stop = min(end, code + SLICE);
    const stop32 = code + ((stop - code) & ~31);
    while (code < stop32) {
      s0 = squares(s0, wide, code);
      s1 = squares(s1, wide + 16, code + 8);
      s2 = squares(s2, wide + 32, code + 16);
      s3 = squares(s3, wide + 48, code + 24);
      wide += 64;
      code += 32;
    }
    if (code < stop) {
      s0 = squares(s0, wide, code);
      s1 = squares(s1, wide + 16, code + 8);
      wide += 32;
      code += 16;
    }
    const sum = foldI32(i32x4.add(i32x4.add(s0, s1), i32x4.add(s2, s3)));
    if (code >= end || sum > bound) return sum;
  }
}

/** The same for two codes. */
function l2Pair(a: usize, b: usize, dimensions: i32, bound: i32): i32 {
  let s0 = i32x4.splat(0);
  let s1 = i32x4.splat(0);
  const end = a + <usize>((dimensions + 15) & ~15);
  while (true) {
    const stop = min(end, a + SLICE);
    while (a < stop) {
      const d0 = i16x8.sub(v128.load_ext<u8>(a), v128.load_ext<u8>(b));
      const d1 = i16x8.sub(v128.load_ext<u8>(a, 8), v128.load_ext<u8>(b, 8));
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(d0, d0));
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(d1, d1));
      a += 16;
      b += 16;
    }
    const sum = foldI32(i32x4.add(s0, s1));
    if (a >= end || sum > bound) return sum;
  }
}

// @ts-ignore: decorator
@inline
function clampBound(bound: f64): i32 {
  return bound < 2147483647 ? <i32>bound : 2147483647;
}

/** Distance of the query to a record; when it is above `bound`, anything above it. */
// @ts-ignore: decorator
@inline
export function score(c: usize, mode: i32, record: usize, bound: f64): f64 {
  const code = record + <usize>load<u32>(c, CODE);
  if (mode == MODE_L2_U8) return <f64>l2Wide(<usize>load<u32>(c, WIDE), code, load<i32>(c, DIMENSIONS), clampBound(bound));
  const isHalf = mode == MODE_F16;
  return distanceWithin(
    load<i32>(c, METRIC),
    isHalf ? ELEMENT_F16_F32 : load<i32>(c, QUERY_ELEMENT),
    code,
    <usize>(isHalf ? load<u32>(c, WIDE) : load<u32>(c, QUERY)),
    load<i32>(c, DIMENSIONS),
    load<f32>(record, AT_NORM),
    load<f32>(c, QUERY_NORM),
    bound,
  );
}

/** Distance of two records, likewise. */
// @ts-ignore: decorator
@inline
export function pairDistance(c: usize, mode: i32, a: usize, b: usize, bound: f64): f64 {
  const code = <usize>load<u32>(c, CODE);
  if (mode == MODE_L2_U8) return <f64>l2Pair(a + code, b + code, load<i32>(c, DIMENSIONS), clampBound(bound));
  return distanceWithin(
    load<i32>(c, METRIC),
    load<i32>(c, ELEMENT),
    a + code,
    b + code,
    load<i32>(c, DIMENSIONS),
    load<f32>(a, AT_NORM),
    load<f32>(b, AT_NORM),
    bound,
  );
}

// @ts-ignore: decorator
@inline
export function before(d: f64, vertex: i32, entry: usize): bool {
  const other = load<f64>(entry);
  return d < other || (d == other && vertex < load<i32>(entry, ENTRY_VERTEX));
}

// @ts-ignore: decorator
@inline
export function setEntry(entry: usize, d: f64, vertex: i32, mark: i32): void {
  store<f64>(entry, d);
  store<i32>(entry, vertex, ENTRY_VERTEX);
  store<i32>(entry, mark, ENTRY_MARK);
}

/** Neighbours of a record: its degree, cut to what a list can hold. */
// @ts-ignore: decorator
@inline
export function degreeOf(c: usize, record: usize): i32 {
  const degree = atomic.load<i32>(record, AT_DEGREE);
  const most = load<i32>(c, DEGREE);
  if (<u32>degree <= <u32>most) return degree;
  bump(c, DAMAGED);
  return degree < 0 ? 0 : most;
}

/** Puts an entry in its place of a sorted list of `count`, of which the last is dropped when it is full. Returns its place. */
// @ts-ignore: decorator
@inline
export function insertSorted(list: usize, count: i32, capacity: i32, d: f64, vertex: i32, mark: i32): i32 {
  let at = list + <usize>(count < capacity ? count : capacity - 1) * ENTRY;
  while (at > list && before(d, vertex, at - ENTRY)) {
    v128.store(at, v128.load(at - ENTRY));
    at -= ENTRY;
  }
  setEntry(at, d, vertex, mark);
  return <i32>((at - list) / ENTRY);
}
