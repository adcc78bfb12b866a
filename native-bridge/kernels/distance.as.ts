/**
 * The module of the distance kernels (metric.as.ts, batch.as.ts) and the exact top-k scan, for WASM SIMD128 + threads.
 *
 * The module imports the node's shared memory as `env.memory` and has no data segment, no heap and no global state: every
 * instance works in the scratch range that its thread owns, so instances of all threads can run at once over one memory.
 *
 * Seqlock: a row is read between two loads of its version word. Rows go in blocks: versions and distances of the whole block
 * first, then one fence, then all versions again, which costs one fence for BLOCK_ROWS rows.
 * Source: Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012 (fence before the second load).
 */

import { distanceWithNorms } from "./metric.as";

export { distances, distancesAt } from "./batch.as";
export { graphCheckChunks, graphInsert, graphMove, graphNearest, graphRepair, graphSearch } from "./graph.as";
export { pullSum } from "./edges.as";
export { addDocument, hashDocument } from "./hash.as";
export { distance, inverseNorm } from "./metric.as";

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
/** Rows that are passed over at once where a bitmap names none of them. */
const WIDE_ROWS: i32 = 128;
const BLOCK_ENTRY: usize = 16;
const STATE_SKIP: i32 = 0;
const STATE_READ: i32 = 1;
const STATE_BUSY: i32 = 2;

const HIT_BYTES: usize = 16; // f64 distance | i32 row | i32 unused

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
    if (bitmap != 0 && (firstRow & 15) == 0) {
      const bits = bitmap + <usize>(firstRow >> 3);
      if (start + WIDE_ROWS <= to && !v128.any_true(v128.load(bits))) {
        start += WIDE_ROWS - BLOCK_ROWS;
        continue;
      }
      if (load<u16>(bits) == 0) continue; // none of 16 rows
    }
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
