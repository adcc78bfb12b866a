/**
 * Linking of vertices into a graph: search, robust prune, the own list, edges back under locks; and repair of lists.
 *
 * Invariant: of shared memory only the list of a vertex whose lock this thread holds is written, ids before the degree, each by one
 * store; waits for a lock are bounded, and an edge back is left out rather than waited for longer.
 * Source: Subramanya et al., DiskANN, NeurIPS 2019, algorithm 2 (robust prune); Singh et al., FreshDiskANN, 2021, algorithm 4
 * (delete). Divergence: alpha scales the metric's distance as it is (squared for L2), and is 1 for inner products, whose
 * distances may be negative.
 */

import { begin, run } from "./graph.as";
import {
  ALPHA,
  AT_DEGREE,
  AT_DOCUMENT,
  AT_FLAGS,
  AT_NEIGHBOURS,
  before,
  bump,
  CANDIDATE_CAPACITY,
  CANDIDATES,
  DEGREE,
  degreeOf,
  ENTRY,
  ENTRY_VERTEX,
  EPOCH,
  INFINITY_F64,
  insertSorted,
  KEPT,
  LISTS_PRUNED,
  LOCK_ATTEMPTS,
  METRIC,
  METRIC_INNER_PRODUCT,
  MODE_L2_U8,
  modeOf,
  pairDistance,
  recordOf,
  RESULT_COUNT,
  RESULTS,
  SKIPPED_EDGES,
  TOKEN,
  TOMBSTONE,
  VISITED,
  widen,
} from "./graph-memory.as";

/** Moves of one vertex that are followed: as many as happen between two passes of repair. */
const MAX_MOVES: i32 = 8;

// @ts-ignore: decorator
@inline
function lockOf(c: usize, record: usize): usize {
  return record + AT_NEIGHBOURS + (<usize>load<u32>(c, DEGREE) << 2);
}

/** Takes the lock of a record in the name of this thread, or gives up. */
function lock(c: usize, record: usize): bool {
  const at = lockOf(c, record);
  const token = load<i32>(c, TOKEN);
  for (let attempt = load<i32>(c, LOCK_ATTEMPTS); attempt > 0; attempt--) {
    if (atomic.load<i32>(at) == 0 && atomic.cmpxchg<i32>(at, 0, token) == 0) return true; // acquires the list
  }
  return false;
}

/** Publishes the list. A lock that was taken from this thread, since it was thought dead, is left alone. */
// @ts-ignore: decorator
@inline
function unlock(c: usize, record: usize): void {
  atomic.cmpxchg<i32>(lockOf(c, record), load<i32>(c, TOKEN), 0);
}

/** Whether a record can be linked to: a document, not deleted. */
// @ts-ignore: decorator
@inline
function usable(record: usize): bool {
  return atomic.load<i32>(record, AT_DOCUMENT) != 0 && (load<i32>(record, AT_FLAGS) & TOMBSTONE) == 0;
}

/**
 * Keeps of a sorted list those that no kept one is much closer to than the vertex itself: at most the degree. What is kept
 * moves to the front of KEPT as (vertex, record).
 */
function prune(c: usize, mode: i32, list: usize, count: i32): i32 {
  const kept = <usize>load<u32>(c, KEPT);
  const most = load<i32>(c, DEGREE);
  // Negative distances cannot be scaled.
  const alpha: f64 = load<i32>(c, METRIC) == METRIC_INNER_PRODUCT ? 1 : <f64>load<f32>(c, ALPHA);
  let size = 0;
  const end = list + <usize>count * ENTRY;
  for (let at = list; at < end && size < most; at += ENTRY) {
    const vertex = load<i32>(at, ENTRY_VERTEX);
    const record = recordOf(c, vertex);
    if (record == 0 || !usable(record)) continue;
    const reach = load<f64>(at) / alpha;
    let hidden = false;
    for (let i = 0; i < size; i++) {
      const other = <usize>load<u32>(kept + (<usize>i << 3), 4);
      if (pairDistance(c, mode, record, other, reach) < reach) {
        hidden = true;
        break;
      }
    }
    if (hidden) continue;
    store<i32>(kept + (<usize>size << 3), vertex);
    store<u32>(kept + (<usize>size << 3), <u32>record, 4);
    size++;
  }
  return size;
}

/** Writes what prune kept as the list of a record: ids first, so that a reader sees old ids or new ones. */
function writeList(c: usize, record: usize, size: i32): void {
  const kept = <usize>load<u32>(c, KEPT);
  for (let i = 0; i < size; i++) {
    atomic.store<i32>(record + (<usize>i << 2), load<i32>(kept + (<usize>i << 3)), AT_NEIGHBOURS);
  }
  atomic.store<i32>(record, size, AT_DEGREE); // publishes
}

/** Adds to the candidates what is not there yet. */
function gather(c: usize, mode: i32, owner: usize, self: i32, vertex: i32, count: i32): i32 {
  const record = recordOf(c, vertex);
  if (record == 0 || vertex == self || !usable(record)) return count;
  const list = <usize>load<u32>(c, CANDIDATES);
  const capacity = load<i32>(c, CANDIDATE_CAPACITY);
  for (let i = 0; i < count; i++) if (load<i32>(list + <usize>i * ENTRY, ENTRY_VERTEX) == vertex) return count;
  const d = pairDistance(c, mode, owner, record, INFINITY_F64);
  if (d != d) return count;
  if (count == capacity && !before(d, vertex, list + <usize>(capacity - 1) * ENTRY)) return count;
  insertSorted(list, count, capacity, d, vertex, 0);
  return count < capacity ? count + 1 : count;
}

/** Adds the edge owner -> vertex, and thins the list when it is full. False when the lock could not be had. */
function addEdge(c: usize, mode: i32, owner: i32, ownerRecord: usize, vertex: i32): bool {
  if (!lock(c, ownerRecord)) return false;
  const degree = degreeOf(c, ownerRecord);
  let present = false;
  for (let i = 0; i < degree; i++) present = present || load<i32>(ownerRecord + (<usize>i << 2), AT_NEIGHBOURS) == vertex;
  if (!present && degree < load<i32>(c, DEGREE)) {
    atomic.store<i32>(ownerRecord + (<usize>degree << 2), vertex, AT_NEIGHBOURS);
    atomic.store<i32>(ownerRecord, degree + 1, AT_DEGREE); // publishes
  } else if (!present) {
    let count = gather(c, mode, ownerRecord, owner, vertex, 0);
    for (let i = 0; i < degree; i++) {
      count = gather(c, mode, ownerRecord, owner, load<i32>(ownerRecord + (<usize>i << 2), AT_NEIGHBOURS), count);
    }
    const size = prune(c, mode, <usize>load<u32>(c, CANDIDATES), count);
    writeList(c, ownerRecord, size);
    bump(c, LISTS_PRUNED);
  }
  unlock(c, ownerRecord);
  return true;
}

/**
 * Links a vertex whose code is written: search, prune, own list, edges back. The query of the control block must be its code.
 * An edge back whose lock cannot be had is left out. Returns its degree, or -1 when its own lock could not be had.
 */
export function graphInsert(c: usize, vertex: i32): i32 {
  const mode = modeOf(c);
  const record = recordOf(c, vertex);
  if (record == 0) return -1;
  if (!usable(record)) return 0;
  if (mode == MODE_L2_U8) widen(c);
  begin(c);
  store<u8>(<usize>load<u32>(c, VISITED) + <usize>vertex, load<u8>(c, EPOCH)); // not its own neighbour
  run(c, mode);
  const found = prune(c, mode, <usize>load<u32>(c, RESULTS), load<i32>(c, RESULT_COUNT));
  if (!lock(c, record)) return -1;
  writeList(c, record, found);
  unlock(c, record);
  // The list of kept ones is used again for every full neighbour, so the own list is read from the record: at most `found`.
  const size = min(found, degreeOf(c, record));
  for (let i = 0; i < size; i++) {
    const other = load<i32>(record + (<usize>i << 2), AT_NEIGHBOURS);
    const otherRecord = recordOf(c, other);
    if (otherRecord == 0 || other == vertex) continue;
    if (!addEdge(c, mode, other, otherRecord, vertex)) bump(c, SKIPPED_EDGES);
  }
  return size;
}

/**
 * Puts a copy in the place of a vertex: the copy gets its list, and who comes to the vertex is led on to the copy. So a graph stays what it
 * was, wherever its vertices go. The copy must be whole, with the same code, and nobody may know of it. False when a lock could not be had.
 */
export function graphMove(c: usize, vertex: i32, copy: i32): bool {
  const record = recordOf(c, vertex);
  const copyRecord = recordOf(c, copy);
  if (record == 0 || copyRecord == 0 || vertex == copy || !lock(c, copyRecord)) return false;
  const held = lock(c, record);
  if (held) {
    const degree = degreeOf(c, record);
    let size = 0;
    for (let i = 0; i < degree; i++) {
      const other = load<i32>(record + (<usize>i << 2), AT_NEIGHBOURS);
      if (other == copy) continue;
      atomic.store<i32>(copyRecord + (<usize>size << 2), other, AT_NEIGHBOURS);
      size++;
    }
    atomic.store<i32>(copyRecord, size, AT_DEGREE);
  }
  unlock(c, copyRecord); // publishes its list before anything leads to it
  if (!held) return false;
  atomic.store<i32>(record, copy, AT_NEIGHBOURS);
  atomic.store<i32>(record, 1, AT_DEGREE);
  unlock(c, record);
  return true;
}

/** Where a vertex leads that is deleted and has one neighbour, as one that was moved has; the vertex itself for all others. */
function movedTo(c: usize, vertex: i32): i32 {
  for (let move = 0; move < MAX_MOVES; move++) {
    const record = recordOf(c, vertex);
    if (record == 0 || usable(record) || degreeOf(c, record) != 1) break;
    vertex = load<i32>(record, AT_NEIGHBOURS);
  }
  return vertex;
}

/** Names the neighbours of a locked record by where they have gone. Returns whether all can be linked to now. */
function followMoves(c: usize, vertex: i32, record: usize, degree: i32): bool {
  let size = 0;
  let good = true;
  for (let i = 0; i < degree; i++) {
    const other = movedTo(c, load<i32>(record + (<usize>i << 2), AT_NEIGHBOURS));
    let repeated = other == vertex;
    for (let j = 0; j < size; j++) repeated = repeated || load<i32>(record + (<usize>j << 2), AT_NEIGHBOURS) == other;
    if (repeated) continue;
    const otherRecord = recordOf(c, other);
    good = good && otherRecord != 0 && usable(otherRecord);
    atomic.store<i32>(record + (<usize>size << 2), other, AT_NEIGHBOURS);
    size++;
  }
  atomic.store<i32>(record, size, AT_DEGREE); // publishes
  return good;
}

/**
 * Replaces neighbours of a vertex that have moved by where they are, and those that are deleted, free or impossible by what those lead to.
 * Returns 1 when the list was changed, 0 when it was good, -1 when its lock could not be had.
 */
export function graphRepair(c: usize, vertex: i32): i32 {
  const mode = modeOf(c);
  const record = recordOf(c, vertex);
  if (record == 0) return 0;
  if (!lock(c, record)) return -1;
  const raw = load<i32>(record, AT_DEGREE);
  const degree = degreeOf(c, record);
  let bad = raw != degree;
  for (let i = 0; i < degree && !bad; i++) {
    const other = load<i32>(record + (<usize>i << 2), AT_NEIGHBOURS);
    const otherRecord = recordOf(c, other);
    bad = otherRecord == 0 || other == vertex || !usable(otherRecord);
  }
  if (bad && !followMoves(c, vertex, record, degree)) {
    const left = degreeOf(c, record);
    let count = 0;
    for (let i = 0; i < left; i++) {
      const other = load<i32>(record + (<usize>i << 2), AT_NEIGHBOURS);
      const otherRecord = recordOf(c, other);
      if (otherRecord == 0 || other == vertex) continue;
      if (usable(otherRecord)) {
        count = gather(c, mode, record, vertex, other, count);
        continue;
      }
      const reach = degreeOf(c, otherRecord);
      for (let j = 0; j < reach; j++) {
        count = gather(c, mode, record, vertex, load<i32>(otherRecord + (<usize>j << 2), AT_NEIGHBOURS), count);
      }
    }
    const size = prune(c, mode, <usize>load<u32>(c, CANDIDATES), count);
    writeList(c, record, size);
  }
  unlock(c, record);
  return bad ? 1 : 0;
}
