/**
 * Distance kernels and the exact top-k scan, in AssemblyScript for WASM SIMD128 + threads.
 *
 * The module imports the node's shared memory as `env.memory` and has no data segment, no heap and no global state: every
 * instance works in the scratch range that its thread owns, so instances of all threads can run at once over one memory.
 * Sums are kept in 16 f32 lanes and folded in f64; integer data below 2^24 per lane (MNIST, SIFT) gives exact sums. Where f32
 * overflows or vanishes the row is computed again in f64 (exact.as.ts), so scores are right for every finite vector.
 *
 * Seqlock: a row is read between two loads of its version word. Rows go in blocks: versions and distances of the whole block
 * first, then one fence, then all versions again, which costs one fence for BLOCK_ROWS rows.
 * Source: Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012 (fence before the second load).
 * Divergence: a zero vector has cosine distance 1 from everything, itself included (usearch says 0 for two zero vectors).
 */

import { dotU8, l2U8 } from "./bytes.as";
import { cosineExact, dotExact, l2Exact } from "./exact.as";

const METRIC_L2: i32 = 0;
const METRIC_COSINE: i32 = 1;
const ELEMENT_F32: i32 = 0;

// Cell header, see cell.ts.
const CELL_HEADER: usize = 32;
const CELL_VERSION: usize = 0;
const CELL_USER0: usize = 12;
const CELL_USER3: usize = 24;
const CELL_USER4: usize = 28;

// Scan control block at the start of the scratch range, see kernels.ts (SCAN_* offsets).
const SCAN_METRIC: usize = 0;
const SCAN_ELEMENT: usize = 4;
const SCAN_DIMENSIONS: usize = 8;
const SCAN_QUERY: usize = 12;
const SCAN_QUERY_INVERSE_NORM: usize = 16;
const SCAN_LIMIT: usize = 20;
const SCAN_COUNT: usize = 24;
const SCAN_HITS: usize = 28;
const SCAN_UNREAD_COUNT: usize = 32;
const SCAN_UNREAD_LIMIT: usize = 36;
const SCAN_UNREAD: usize = 40;
const SCAN_RETRIES: usize = 44;
const SCAN_SKIP_MASK: usize = 48;
const SCAN_BITMAP: usize = 52;
const SCAN_SCORED: usize = 56;
const SCAN_FENCE: usize = 60;
const SCAN_BLOCK: usize = 64; // BLOCK_ROWS × (f64 distance | i32 version | i32 state)

const BLOCK_ROWS: i32 = 16;
const BLOCK_ENTRY: usize = 16;
const STATE_SKIP: i32 = 0;
const STATE_READ: i32 = 1;
const STATE_BUSY: i32 = 2;

const HIT_BYTES: usize = 16; // f64 distance | i32 row | i32 unused

// @ts-ignore: decorator
@inline
function foldF32(v: v128): f64 {
  const low = f64x2.promote_low_f32x4(v);
  const high = f64x2.promote_low_f32x4(i8x16.shuffle(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
  const sum = f64x2.add(low, high);
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

// @ts-ignore: decorator
@inline
function stepL2(acc: v128, a: usize, b: usize): v128 {
  const d = f32x4.sub(v128.load(a), v128.load(b));
  return f32x4.add(acc, f32x4.mul(d, d));
}

function l2F32(left: usize, right: usize, dimensions: i32): f64 {
  let a = left;
  let b = right;
  let s0 = f32x4.splat(0);
  let s1 = f32x4.splat(0);
  let s2 = f32x4.splat(0);
  let s3 = f32x4.splat(0);
  let end = a + ((<usize>dimensions) >> 4 << 6);
  while (a < end) {
    s0 = stepL2(s0, a, b);
    s1 = stepL2(s1, a + 16, b + 16);
    s2 = stepL2(s2, a + 32, b + 32);
    s3 = stepL2(s3, a + 48, b + 48);
    a += 64;
    b += 64;
  }
  end = left + ((<usize>dimensions) >> 2 << 4);
  while (a < end) {
    s0 = stepL2(s0, a, b);
    a += 16;
    b += 16;
  }
  let sum = foldF32(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  end = left + ((<usize>dimensions) << 2);
  while (a < end) {
    const d = load<f32>(a) - load<f32>(b);
    sum += <f64>(d * d);
    a += 4;
    b += 4;
  }
  return sum;
}

// @ts-ignore: decorator
@inline
function stepDot(acc: v128, a: usize, b: usize): v128 {
  return f32x4.add(acc, f32x4.mul(v128.load(a), v128.load(b)));
}

function dotF32(left: usize, right: usize, dimensions: i32): f64 {
  let a = left;
  let b = right;
  let s0 = f32x4.splat(0);
  let s1 = f32x4.splat(0);
  let s2 = f32x4.splat(0);
  let s3 = f32x4.splat(0);
  let end = a + ((<usize>dimensions) >> 4 << 6);
  while (a < end) {
    s0 = stepDot(s0, a, b);
    s1 = stepDot(s1, a + 16, b + 16);
    s2 = stepDot(s2, a + 32, b + 32);
    s3 = stepDot(s3, a + 48, b + 48);
    a += 64;
    b += 64;
  }
  end = left + ((<usize>dimensions) >> 2 << 4);
  while (a < end) {
    s0 = stepDot(s0, a, b);
    a += 16;
    b += 16;
  }
  let sum = foldF32(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  end = left + ((<usize>dimensions) << 2);
  while (a < end) {
    sum += <f64>(load<f32>(a) * load<f32>(b));
    a += 4;
    b += 4;
  }
  return sum;
}

/** 1 / |a|, or 0 for the zero vector. Squares are summed in f64, so that no finite vector overflows. */
export function inverseNorm(element: i32, a: usize, dimensions: i32): f32 {
  let sum: f64 = 0;
  if (element != ELEMENT_F32) {
    sum = dotU8(a, a, dimensions);
  } else {
    for (let i: usize = 0, end = <usize>dimensions << 2; i < end; i += 4) {
      const x = <f64>load<f32>(a + i);
      sum += x * x;
    }
  }
  return sum > 0 ? <f32>(1 / sqrt(sum)) : 0;
}

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

// @ts-ignore: decorator
@inline
function distanceWithNorms(metric: i32, element: i32, a: usize, b: usize, dimensions: i32, normA: f32, normB: f32): f64 {
  if (element != ELEMENT_F32) {
    if (metric == METRIC_L2) return l2U8(a, b, dimensions);
    const dot = dotU8(a, b, dimensions);
    return metric == METRIC_COSINE ? fromCosine(dot * <f64>normA * <f64>normB) : 1 - dot;
  }
  if (metric == METRIC_L2) {
    const d = l2F32(a, b, dimensions);
    return d > SMALLEST && d < LARGEST ? d : l2Exact(a, b, dimensions);
  }
  if (metric == METRIC_COSINE) {
    const norms = <f64>normA * <f64>normB;
    if (norms == 0) return 1;
    // |a| |b| bounds the sum and its terms.
    const plain = norms > SMALLEST && norms < LARGEST && normA > SMALLEST_NORM && normB > SMALLEST_NORM;
    return fromCosine(plain ? dotF32(a, b, dimensions) * norms : cosineExact(a, b, dimensions));
  }
  const dot = dotF32(a, b, dimensions);
  return 1 - (abs(dot) < LARGEST ? dot : dotExact(a, b, dimensions));
}

/** Distance of two vectors at byte offsets of the memory. Smaller is closer for every metric. */
export function distance(metric: i32, element: i32, a: usize, b: usize, dimensions: i32): f64 {
  let normA: f32 = 0, normB: f32 = 0;
  if (metric == METRIC_COSINE) normA = inverseNorm(element, a, dimensions);
  if (metric == METRIC_COSINE) normB = inverseNorm(element, b, dimensions);
  return distanceWithNorms(metric, element, a, b, dimensions, normA, normB);
}

/**
 * Load-load fence: a sequentially consistent read-modify-write of a word that only this thread uses. The loads before it stay
 * before its store, and an atomic load after it stays after that store. (`atomic.fence` itself: asc 0.28 emits an invalid one.)
 */
// @ts-ignore: decorator
@inline
function fence(scan: usize): void {
  atomic.add<i32>(scan, 1, SCAN_FENCE);
}

// Bounded max-heap of hits in the scratch range; the root is the worst hit by (distance, row).

// @ts-ignore: decorator
@inline
function worse(distanceA: f64, rowA: i32, distanceB: f64, rowB: i32): bool {
  return distanceA > distanceB || (distanceA == distanceB && rowA > rowB);
}

// @ts-ignore: decorator
@inline
function setHit(hits: usize, index: i32, d: f64, row: i32): void {
  const at = hits + <usize>index * HIT_BYTES;
  store<f64>(at, d);
  store<i32>(at, row, 8);
}

function siftDown(hits: usize, count: i32, start: i32, d: f64, row: i32): void {
  let index = start;
  while (true) {
    let child = 2 * index + 1;
    if (child >= count) break;
    let at = hits + <usize>child * HIT_BYTES;
    if (child + 1 < count) {
      const right = at + HIT_BYTES;
      if (worse(load<f64>(right), load<i32>(right, 8), load<f64>(at), load<i32>(at, 8))) {
        child++;
        at = right;
      }
    }
    if (!worse(load<f64>(at), load<i32>(at, 8), d, row)) break;
    setHit(hits, index, load<f64>(at), load<i32>(at, 8));
    index = child;
  }
  setHit(hits, index, d, row);
}

function offer(scan: usize, d: f64, row: i32): void {
  const hits = <usize>load<u32>(scan, SCAN_HITS);
  const count = load<i32>(scan, SCAN_COUNT);
  if (count < load<i32>(scan, SCAN_LIMIT)) {
    let index = count;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const at = hits + <usize>parent * HIT_BYTES;
      if (!worse(d, row, load<f64>(at), load<i32>(at, 8))) break;
      setHit(hits, index, load<f64>(at), load<i32>(at, 8));
      index = parent;
    }
    setHit(hits, index, d, row);
    store<i32>(scan, count + 1, SCAN_COUNT);
  } else if (count > 0 && worse(load<f64>(hits), load<i32>(hits, 8), d, row)) {
    siftDown(hits, count, 0, d, row);
  }
}

/** Turns the heap into an array sorted by (distance, row), best first. */
export function sortHits(scan: usize): i32 {
  const hits = <usize>load<u32>(scan, SCAN_HITS);
  const count = load<i32>(scan, SCAN_COUNT);
  for (let last = count - 1; last > 0; last--) {
    const at = hits + <usize>last * HIT_BYTES;
    const d = load<f64>(at);
    const row = load<i32>(at, 8);
    setHit(hits, last, load<f64>(hits), load<i32>(hits, 8));
    siftDown(hits, last, 0, d, row);
  }
  return count;
}

// @ts-ignore: decorator
@inline
function rowDistance(scan: usize, cell: usize): f64 {
  return distanceWithNorms(
    load<i32>(scan, SCAN_METRIC),
    load<i32>(scan, SCAN_ELEMENT),
    cell + CELL_HEADER,
    <usize>load<u32>(scan, SCAN_QUERY),
    load<i32>(scan, SCAN_DIMENSIONS),
    load<f32>(cell, CELL_USER4),
    load<f32>(scan, SCAN_QUERY_INVERSE_NORM),
  );
}

/** Distance of the scan's query to one row, without looking at its version: the caller validates. */
export function scoreCell(scan: usize, cell: usize): f64 {
  return rowDistance(scan, cell);
}

/** One row alone, retried a bounded number of times. 1: offered, 0: free or skipped, -1: unread, because it was being written. */
export function offerCell(scan: usize, cell: usize, row: i32): i32 {
  for (let attempt = load<i32>(scan, SCAN_RETRIES); attempt >= 0; attempt--) {
    const version = atomic.load<i32>(cell, CELL_VERSION); // acquires the row
    if (version & 1) continue;
    const free = atomic.load<i32>(cell, CELL_USER0) == 0 || (load<i32>(cell, CELL_USER3) & load<i32>(scan, SCAN_SKIP_MASK)) != 0;
    const d: f64 = free ? 0 : rowDistance(scan, cell);
    fence(scan); // orders the plain loads above before the load below
    if (atomic.load<i32>(cell, CELL_VERSION) != version) continue;
    if (free) return 0;
    store<i32>(scan, load<i32>(scan, SCAN_SCORED) + 1, SCAN_SCORED);
    offer(scan, d, row);
    return 1;
  }
  const unread = load<i32>(scan, SCAN_UNREAD_COUNT);
  if (unread < load<i32>(scan, SCAN_UNREAD_LIMIT)) store<i32>(<usize>load<u32>(scan, SCAN_UNREAD) + (<usize>unread << 2), row);
  store<i32>(scan, unread + 1, SCAN_UNREAD_COUNT);
  return -1;
}

/**
 * Offers rows [from, to) of an array of cells to the heap. Cell of row r is at `cells + r * stride`; hits carry
 * `rowBase + r`, and so does the filter bitmap.
 */
export function scanCells(scan: usize, cells: usize, stride: usize, from: i32, to: i32, rowBase: i32): void {
  const bitmap = <usize>load<u32>(scan, SCAN_BITMAP);
  const skipMask = load<i32>(scan, SCAN_SKIP_MASK);
  for (let start = from; start < to; start += BLOCK_ROWS) {
    const end = min<i32>(to, start + BLOCK_ROWS);
    const firstRow = <u32>(rowBase + start);
    if (bitmap != 0 && (firstRow & 15) == 0 && load<u16>(bitmap + <usize>(firstRow >> 3)) == 0) continue; // none of 16 rows
    let entry = scan + SCAN_BLOCK;
    let any = false;
    for (let r = start; r < end; r++, entry += BLOCK_ENTRY) {
      store<i32>(entry, STATE_SKIP, 12);
      const row = rowBase + r;
      if (bitmap != 0 && ((load<u32>(bitmap + (<usize>(<u32>row >> 5) << 2)) >> (<u32>row & 31)) & 1) == 0) continue;
      const cell = cells + <usize>r * stride;
      const version = atomic.load<i32>(cell, CELL_VERSION); // acquires the row
      any = true;
      if (version & 1) {
        store<i32>(entry, STATE_BUSY, 12);
        continue;
      }
      // A row seen free at one instant may be skipped without validation: it was free at that instant.
      if (atomic.load<i32>(cell, CELL_USER0) == 0) continue;
      store<i32>(entry, version, 8);
      if (load<i32>(cell, CELL_USER3) & skipMask) {
        store<i32>(entry, STATE_BUSY, 12);
        continue;
      }
      store<f64>(entry, rowDistance(scan, cell));
      store<i32>(entry, STATE_READ, 12);
    }
    if (!any) continue;
    fence(scan); // orders the plain loads of the block before the loads of the versions below
    entry = scan + SCAN_BLOCK;
    let scored = 0;
    for (let r = start; r < end; r++, entry += BLOCK_ENTRY) {
      const state = load<i32>(entry, 12);
      if (state == STATE_SKIP) continue;
      const cell = cells + <usize>r * stride;
      if (state == STATE_READ && atomic.load<i32>(cell, CELL_VERSION) == load<i32>(entry, 8)) {
        scored++;
        offer(scan, load<f64>(entry), rowBase + r);
      } else {
        offerCell(scan, cell, rowBase + r);
      }
    }
    store<i32>(scan, load<i32>(scan, SCAN_SCORED) + scored, SCAN_SCORED);
  }
}
