/**
 * Best-first search over the vertices of a graph, in place in shared memory.
 *
 * Invariant: every vertex is scored at most once a search (visited stamps) and lists are cut at the degree of the geometry, so work
 * is bounded and nothing traps, whatever the records hold. Only the thread's scratch is written.
 * Source: Malkov & Yashunin, HNSW, TPAMI 2020, algorithm 2 (search of one layer).
 * Divergence: one sorted array is result set and candidate queue, as what leaves it would never be expanded; vertices that may
 * not be results wait in a heap beside it. A sum of squares is given up once it exceeds the worst result: the answer is the same.
 */

import {
  ASIDE,
  ASIDE_CAPACITY,
  ASIDE_COUNT,
  AT_DOCUMENT,
  AT_FLAGS,
  AT_NEIGHBOURS,
  BATCH,
  before,
  bump,
  CHUNK_PARTITION,
  CHUNK_SHIFT,
  CHUNK_SHIFT_BYTES,
  CHUNK_STAMP,
  CHUNK_STAMP_AT,
  CHUNK_TABLE,
  CHUNKS,
  CODE,
  CURSOR,
  DAMAGED,
  DANGLING,
  DEGREE,
  degreeOf,
  DISTANCES,
  EF,
  ENTRIES,
  ENTRY,
  ENTRY_COUNT,
  ENTRY_MARK,
  ENTRY_VERTEX,
  EPOCH,
  EXPANSIONS,
  FENCE,
  FILTER,
  FILTER_BITS,
  GROUP,
  INFINITY_F64,
  insertSorted,
  KNOWN,
  LIMIT_DISTANCES,
  LINE,
  modeOf,
  PARTITIONS,
  READS,
  recordOf,
  RESULT_COUNT,
  RESULTS,
  score,
  setEntry,
  STOPPED,
  STOPPED_ASIDE_FULL,
  STOPPED_BUDGET,
  TOMBSTONE,
  TOUCHED,
  VISITED,
  widen,
} from "./graph-memory.as";

export { graphInsert, graphMove, graphNearest, graphRepair } from "./graph-link.as";

// Vertices that were scored, may lie on the way, but are no results: a min-heap by (distance, vertex).

function pushAside(c: usize, d: f64, vertex: i32): void {
  const heap = <usize>load<u32>(c, ASIDE);
  let index = load<i32>(c, ASIDE_COUNT);
  if (index >= load<i32>(c, ASIDE_CAPACITY)) {
    store<i32>(c, load<i32>(c, STOPPED) | STOPPED_ASIDE_FULL, STOPPED);
    return;
  }
  store<i32>(c, index + 1, ASIDE_COUNT);
  while (index > 0) {
    const parent = (index - 1) >> 1;
    const at = heap + <usize>parent * ENTRY;
    if (!before(d, vertex, at)) break;
    v128.store(heap + <usize>index * ENTRY, v128.load(at));
    index = parent;
  }
  setEntry(heap + <usize>index * ENTRY, d, vertex, 0);
}

function popAside(c: usize): void {
  const heap = <usize>load<u32>(c, ASIDE);
  const count = load<i32>(c, ASIDE_COUNT) - 1;
  store<i32>(c, count, ASIDE_COUNT);
  const last = heap + <usize>count * ENTRY;
  const d = load<f64>(last);
  const vertex = load<i32>(last, ENTRY_VERTEX);
  let index = 0;
  while (true) {
    let child = 2 * index + 1;
    if (child >= count) break;
    let at = heap + <usize>child * ENTRY;
    if (child + 1 < count && before(load<f64>(at + ENTRY), load<i32>(at + ENTRY, ENTRY_VERTEX), at)) {
      child++;
      at += ENTRY;
    }
    if (before(d, vertex, at)) break;
    v128.store(heap + <usize>index * ENTRY, v128.load(at));
    index = child;
  }
  setEntry(heap + <usize>index * ENTRY, d, vertex, 0);
}

// @ts-ignore: decorator
@inline
function admitted(c: usize, vertex: i32): bool {
  const filter = <usize>load<u32>(c, FILTER);
  if (filter == 0) return true;
  if (<u32>vertex >= load<u32>(c, FILTER_BITS)) return false;
  return ((load<u32>(filter + (<usize>(<u32>vertex >> 5) << 2)) >> (<u32>vertex & 31)) & 1) != 0;
}

/** Takes a scored vertex: into the results, or aside, or not at all. */
// @ts-ignore: decorator
@inline
function offer(c: usize, d: f64, vertex: i32, record: usize): void {
  const results = <usize>load<u32>(c, RESULTS);
  const count = load<i32>(c, RESULT_COUNT);
  const ef = load<i32>(c, EF);
  if (count == ef && !before(d, vertex, results + <usize>(ef - 1) * ENTRY)) return;
  if (d != d) {
    bump(c, DAMAGED); // a code that gives no number
    return;
  }
  if (atomic.load<i32>(record, AT_DOCUMENT) == 0) {
    bump(c, DANGLING);
    return;
  }
  if ((load<i32>(record, AT_FLAGS) & TOMBSTONE) != 0 || !admitted(c, vertex)) {
    pushAside(c, d, vertex);
    return;
  }
  const place = insertSorted(results, count, ef, d, vertex, 0);
  if (count < ef) store<i32>(c, count + 1, RESULT_COUNT);
  if (place < load<i32>(c, CURSOR)) store<i32>(c, place, CURSOR);
}

/** Adds a vertex to the batch unless it was visited or cannot be one. */
// @ts-ignore: decorator
@inline
function enlist(c: usize, vertex: i32, batch: usize, count: i32): i32 {
  const record = recordOf(c, vertex);
  if (record == 0) {
    bump(c, DAMAGED);
    return count;
  }
  const stamp = <usize>load<u32>(c, VISITED) + <usize>vertex;
  const epoch = load<u8>(c, EPOCH);
  if (load<u8>(stamp) == epoch) return count;
  store<u8>(stamp, epoch);
  store<u32>(batch + (<usize>count << 3), <u32>record);
  store<i32>(batch + (<usize>count << 3), vertex, 4);
  return count + 1;
}

// @ts-ignore: decorator
@inline
function worstOf(c: usize): f64 {
  const ef = load<i32>(c, EF);
  if (load<i32>(c, RESULT_COUNT) < ef) return INFINITY_F64;
  return load<f64>(<usize>load<u32>(c, RESULTS) + <usize>(ef - 1) * ENTRY);
}

/**
 * Loads a word of every line of some codes, or of as much of them as most sums need that stop early. WebAssembly has no prefetch: loads that nothing waits for are one, as they miss the
 * cache side by side, where those of a sum whose end depends on a bound miss one after the other.
 */
// @ts-ignore: decorator
@inline
function touch(c: usize, from: usize, to: usize): void {
  const first = <usize>load<u32>(c, CODE);
  const last = first + <usize>load<u32>(c, TOUCHED);
  let sum: i32 = 0;
  for (let at = from; at < to; at += 8) {
    const record = <usize>load<u32>(at);
    sum += load<i32>(record);
    for (let line = record + first, end = record + last; line < end; line += LINE) sum += load<i32>(line);
  }
  store<i32>(c, sum, FENCE); // or the loads could be left out
}

/** Scores a batch and offers what it finds. */
function take(c: usize, mode: i32, batch: usize, count: i32): void {
  const reads = <usize>load<u32>(c, READS);
  const end = batch + (<usize>count << 3);
  const group = <usize>load<u32>(c, GROUP) << 3;
  let touched = batch;
  for (let at = batch; at < end; at += 8) {
    if (at == touched) {
      touched = min(end, at + group);
      touch(c, at, touched);
    }
    const record = <usize>load<u32>(at);
    const vertex = load<i32>(at, 4);
    const bound = worstOf(c);
    const d = score(c, mode, record, bound);
    if (!(d > bound)) offer(c, d, vertex, record);
  }
  if (reads != 0) {
    const shift = load<i32>(c, CHUNK_SHIFT);
    const partitions = load<u32>(c, PARTITIONS);
    const table = <usize>load<u32>(c, CHUNK_TABLE);
    for (let at = batch; at < end; at += 8) {
      const chunk = <usize>(load<u32>(at, 4) >> shift);
      const partition = load<u32>(table + (chunk << CHUNK_SHIFT_BYTES), CHUNK_PARTITION);
      if (partition >= partitions) continue;
      const counter = reads + (<usize>partition << 2);
      store<i32>(counter, load<i32>(counter) + 1);
    }
  }
  store<i32>(c, load<i32>(c, DISTANCES) + count, DISTANCES);
}

function expand(c: usize, mode: i32, vertex: i32): void {
  const record = recordOf(c, vertex);
  const batch = <usize>load<u32>(c, BATCH);
  const degree = degreeOf(c, record);
  let count = 0;
  const end = record + AT_NEIGHBOURS + (<usize>degree << 2);
  for (let at = record + AT_NEIGHBOURS; at < end; at += 4) count = enlist(c, load<i32>(at), batch, count);
  bump(c, EXPANSIONS);
  take(c, mode, batch, count);
}

/** Begins a search: nothing visited, nothing found. */
export function begin(c: usize): void {
  store<i32>(c, 0, RESULT_COUNT);
  store<i32>(c, 0, ASIDE_COUNT);
  store<i32>(c, 0, DISTANCES);
  store<i32>(c, 0, EXPANSIONS);
  store<i32>(c, 0, DAMAGED);
  store<i32>(c, 0, DANGLING);
  store<i32>(c, 0, STOPPED);
  store<i32>(c, 0, CURSOR);
  const epoch = load<i32>(c, EPOCH) + 1;
  if (epoch < 256) {
    store<i32>(c, epoch, EPOCH);
    return;
  }
  store<i32>(c, 1, EPOCH);
  const vertices = <usize>load<u32>(c, CHUNKS) << load<i32>(c, CHUNK_SHIFT);
  memory.fill(<usize>load<u32>(c, VISITED), 0, vertices);
}

export function run(c: usize, mode: i32): void {
  const batch = <usize>load<u32>(c, BATCH);
  const most = load<i32>(c, DEGREE);
  let entry = <usize>load<u32>(c, ENTRIES);
  const end = entry + (<usize>load<u32>(c, ENTRY_COUNT) << 2);
  while (entry < end) {
    let count = 0;
    for (; entry < end && count < most; entry += 4) count = enlist(c, load<i32>(entry), batch, count);
    take(c, mode, batch, count);
  }
  const results = <usize>load<u32>(c, RESULTS);
  const aside = <usize>load<u32>(c, ASIDE);
  const budget = load<u32>(c, LIMIT_DISTANCES);
  while (true) {
    const count = load<i32>(c, RESULT_COUNT);
    let cursor = load<i32>(c, CURSOR);
    while (cursor < count && load<i32>(results + <usize>cursor * ENTRY, ENTRY_MARK) != 0) cursor++;
    store<i32>(c, cursor, CURSOR);
    const next = results + <usize>cursor * ENTRY;
    let vertex = 0;
    const waiting = load<i32>(c, ASIDE_COUNT) > 0;
    const fromAside = waiting && (cursor == count || before(load<f64>(aside), load<i32>(aside, ENTRY_VERTEX), next));
    if (fromAside) {
      // Farther than the worst result: so is all that waits, and nothing else is left when this one is taken first.
      const full = count == load<i32>(c, EF);
      const last = results + <usize>(count - 1) * ENTRY;
      if (full && !before(load<f64>(aside), load<i32>(aside, ENTRY_VERTEX), last)) return;
      vertex = load<i32>(aside, ENTRY_VERTEX);
    } else {
      if (cursor == count) return;
      vertex = load<i32>(next, ENTRY_VERTEX);
    }
    if (budget != 0 && load<u32>(c, DISTANCES) >= budget) {
      store<i32>(c, load<i32>(c, STOPPED) | STOPPED_BUDGET, STOPPED);
      return;
    }
    if (fromAside) popAside(c);
    else store<i32>(next, 1, ENTRY_MARK);
    expand(c, mode, vertex);
  }
}

/** Begins with the results that are there already, expanded by whoever found them. */
function takeKnown(c: usize): void {
  const count = load<i32>(c, KNOWN);
  const visited = <usize>load<u32>(c, VISITED);
  const epoch = load<u8>(c, EPOCH);
  let at = <usize>load<u32>(c, RESULTS);
  for (let i = 0; i < count; i++, at += ENTRY) {
    const vertex = load<i32>(at, ENTRY_VERTEX);
    if (recordOf(c, vertex) != 0) store<u8>(visited + <usize>vertex, epoch);
  }
  store<i32>(c, count, RESULT_COUNT);
}

/** Searches for the query of the control block. Results lie sorted by (distance, vertex), with those that were known. Returns how many. */
export function graphSearch(c: usize): i32 {
  const mode = modeOf(c);
  widen(c, mode);
  begin(c);
  takeKnown(c);
  run(c, mode);
  return load<i32>(c, RESULT_COUNT);
}

/** First chunk whose region is no longer the one that the table was made for, or -1. */
export function graphCheckChunks(c: usize): i32 {
  atomic.add<i32>(c, 1, FENCE); // orders the loads of the search before those of the stamps
  const chunks = load<i32>(c, CHUNKS);
  let row = <usize>load<u32>(c, CHUNK_TABLE);
  for (let chunk = 0; chunk < chunks; chunk++, row += 16) {
    const at = <usize>load<u32>(row, CHUNK_STAMP_AT);
    if (at != 0 && atomic.load<i32>(at) != load<i32>(row, CHUNK_STAMP)) return chunk;
  }
  return -1;
}
