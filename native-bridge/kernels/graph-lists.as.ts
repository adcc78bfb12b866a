/**
 * Lists of neighbours: their locks, robust prune, edges that are added, and the word by which a vertex stands in the graph's tree.
 *
 * Invariant: of shared memory only the list of a vertex whose lock this thread holds is written, ids before the degree, each by one
 * store; waits for a lock are bounded. No list is thinned of an edge of the tree: to a vertex whose parent its owner is, nor to the
 * owner's own parent. A vertex is led to by the list of its parent, however often that is thinned.
 * Tree word: see graph-layout.ts. It is one 64-bit word, so that parent and rank change together.
 * Source: Subramanya et al., DiskANN, NeurIPS 2019, algorithm 2 (robust prune). Divergence: alpha scales the metric's distance as it is
 * (squared for L2), and is 1 for inner products, whose distances may be negative; edges of the tree are kept first.
 */

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
  INFINITY_F64,
  insertSorted,
  KEPT,
  LISTS_PRUNED,
  LOCK_ATTEMPTS,
  METRIC,
  METRIC_INNER_PRODUCT,
  pairDistance,
  recordOf,
  TOKEN,
  TOMBSTONE,
} from "./graph-memory.as";

/** Moves of one vertex that are followed: as many as happen between two passes of repair. */
const MAX_MOVES: i32 = 8;

// @ts-ignore: decorator
@inline
function lockOf(c: usize, record: usize): usize {
  return record + AT_NEIGHBOURS + (<usize>load<u32>(c, DEGREE) << 2);
}

/** Takes the lock of a record in the name of this thread, or gives up. */
export function lock(c: usize, record: usize): bool {
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
export function unlock(c: usize, record: usize): void {
  atomic.cmpxchg<i32>(lockOf(c, record), load<i32>(c, TOKEN), 0);
}

/** Whether a record can be linked to: a document, not deleted. */
// @ts-ignore: decorator
@inline
export function usable(record: usize): bool {
  return atomic.load<i32>(record, AT_DOCUMENT) != 0 && (load<i32>(record, AT_FLAGS) & TOMBSTONE) == 0;
}

/** Address of the tree word, the first multiple of 8 behind the lock. */
// @ts-ignore: decorator
@inline
function treeAt(c: usize, record: usize): usize {
  return (lockOf(c, record) + 11) & ~7;
}

// @ts-ignore: decorator
@inline
export function treeOf(c: usize, record: usize): i64 {
  return atomic.load<i64>(treeAt(c, record));
}

/** Changes a tree word from what it was; false when somebody else has changed it. */
// @ts-ignore: decorator
@inline
export function changeTree(c: usize, record: usize, from: i64, to: i64): bool {
  return atomic.cmpxchg<i64>(treeAt(c, record), from, to) == from; // publishes
}

// @ts-ignore: decorator
@inline
export function treeWord(parent: i32, rank: i32): i64 {
  return ((<i64>rank) << 32) | <i64>(<u32>parent);
}

/** Parent + 1; 0 = none, −(copy + 1) once the vertex was moved. */
// @ts-ignore: decorator
@inline
export function parentWordOf(tree: i64): i32 {
  return <i32>tree;
}

// @ts-ignore: decorator
@inline
export function rankOf(tree: i64): i32 {
  return <i32>(tree >> 32);
}

/** Where a vertex is that may have been moved. */
export function movedTo(c: usize, vertex: i32): i32 {
  for (let move = 0; move < MAX_MOVES; move++) {
    const record = recordOf(c, vertex);
    if (record == 0 || atomic.load<i32>(record, AT_DOCUMENT) == 0) break;
    const parent = parentWordOf(treeOf(c, record));
    if (parent >= 0) break;
    vertex = -parent - 1;
  }
  return vertex;
}

/** The parent of a record, where it is now; −1 when it has none. */
export function parentOf(c: usize, record: usize): i32 {
  const parent = parentWordOf(treeOf(c, record));
  return parent > 0 ? movedTo(c, parent - 1) : -1;
}

/** The neighbour at a place of a list. */
// @ts-ignore: decorator
@inline
export function neighbourAt(record: usize, index: i32): i32 {
  return load<i32>(record + (<usize>index << 2), AT_NEIGHBOURS);
}

/** Children of a vertex: those of its neighbours whose parent it is. */
export function childrenOf(c: usize, vertex: i32, record: usize): i32 {
  const degree = degreeOf(c, record);
  let count = 0;
  for (let i = 0; i < degree; i++) {
    const other = movedTo(c, neighbourAt(record, i));
    const otherRecord = recordOf(c, other);
    if (otherRecord != 0 && other != vertex && parentOf(c, otherRecord) == vertex) count++;
  }
  return count;
}

// @ts-ignore: decorator
@inline
function isKept(kept: usize, size: i32, vertex: i32): bool {
  for (let i = 0; i < size; i++) if (load<i32>(kept + (<usize>i << 3)) == vertex) return true;
  return false;
}

// @ts-ignore: decorator
@inline
function keep(kept: usize, size: i32, vertex: i32, record: usize): void {
  store<i32>(kept + (<usize>size << 3), vertex);
  store<u32>(kept + (<usize>size << 3), <u32>record, 4);
}

/**
 * Begins what is kept of the list of a locked record with the edges of the tree, and with `extra` unless it is negative.
 *
 * @param withDead Whether deleted children are among them, as what hangs on them is led to by nobody else.
 * @returns How many were kept.
 */
export function keepTree(c: usize, vertex: i32, record: usize, extra: i32, withDead: bool): i32 {
  const kept = <usize>load<u32>(c, KEPT);
  const most = load<i32>(c, DEGREE);
  const degree = degreeOf(c, record);
  const up = parentOf(c, record);
  let size = 0;
  if (extra >= 0) keep(kept, size++, extra, recordOf(c, extra));
  for (let i = 0; i < degree && size < most; i++) {
    const other = movedTo(c, neighbourAt(record, i));
    const otherRecord = recordOf(c, other);
    if (otherRecord == 0 || other == vertex || isKept(kept, size, other)) continue;
    if (other != up && parentOf(c, otherRecord) != vertex) continue;
    if (atomic.load<i32>(otherRecord, AT_DOCUMENT) == 0 || (!withDead && !usable(otherRecord))) continue;
    keep(kept, size++, other, otherRecord);
  }
  return size;
}

/**
 * Keeps of a sorted list those that no kept one is much closer to than the vertex itself: at most the degree, beside those that are
 * kept already. What is kept is at the front of KEPT as (vertex, record).
 */
export function prune(c: usize, mode: i32, list: usize, count: i32, first: i32): i32 {
  const kept = <usize>load<u32>(c, KEPT);
  const most = load<i32>(c, DEGREE);
  // Negative distances cannot be scaled.
  const alpha: f64 = load<i32>(c, METRIC) == METRIC_INNER_PRODUCT ? 1 : <f64>load<f32>(c, ALPHA);
  let size = first;
  const end = list + <usize>count * ENTRY;
  for (let at = list; at < end && size < most; at += ENTRY) {
    const vertex = load<i32>(at, ENTRY_VERTEX);
    const record = recordOf(c, vertex);
    if (record == 0 || !usable(record) || isKept(kept, first, vertex)) continue;
    const reach = load<f64>(at) / alpha;
    let hidden = false;
    for (let i = 0; i < size; i++) {
      const other = <usize>load<u32>(kept + (<usize>i << 3), 4);
      if (pairDistance(c, mode, record, other, reach) < reach) {
        hidden = true;
        break;
      }
    }
    if (!hidden) keep(kept, size++, vertex, record);
  }
  return size;
}

/** Writes what was kept as the list of a record: ids first, so that a reader sees old ids or new ones. */
export function writeList(c: usize, record: usize, size: i32): void {
  const kept = <usize>load<u32>(c, KEPT);
  for (let i = 0; i < size; i++) {
    atomic.store<i32>(record + (<usize>i << 2), load<i32>(kept + (<usize>i << 3)), AT_NEIGHBOURS);
  }
  atomic.store<i32>(record, size, AT_DEGREE); // publishes
}

/** Adds to the candidates what is not there yet. */
export function gather(c: usize, mode: i32, owner: usize, self: i32, vertex: i32, count: i32): i32 {
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

/** Whether the list of a record leads to a vertex, or to where it was. */
export function leadsTo(c: usize, record: usize, vertex: i32): bool {
  const degree = degreeOf(c, record);
  for (let i = 0; i < degree; i++) if (movedTo(c, neighbourAt(record, i)) == vertex) return true;
  return false;
}

/** Adds an edge to the list of a locked record, which is thinned when it is full; to stay, if it is one of the tree. */
export function addLocked(c: usize, mode: i32, owner: i32, ownerRecord: usize, vertex: i32, ofTree: bool): void {
  if (leadsTo(c, ownerRecord, vertex)) return;
  const degree = degreeOf(c, ownerRecord);
  if (degree < load<i32>(c, DEGREE)) {
    atomic.store<i32>(ownerRecord + (<usize>degree << 2), vertex, AT_NEIGHBOURS);
    atomic.store<i32>(ownerRecord, degree + 1, AT_DEGREE); // publishes
    return;
  }
  let count = gather(c, mode, ownerRecord, owner, vertex, 0);
  for (let i = 0; i < degree; i++) {
    count = gather(c, mode, ownerRecord, owner, movedTo(c, neighbourAt(ownerRecord, i)), count);
  }
  const first = keepTree(c, owner, ownerRecord, ofTree ? vertex : -1, true);
  writeList(c, ownerRecord, prune(c, mode, <usize>load<u32>(c, CANDIDATES), count, first));
  bump(c, LISTS_PRUNED);
}

/** Adds the edge owner -> vertex, and thins the list when it is full. False when the lock could not be had. */
export function addEdge(c: usize, mode: i32, owner: i32, ownerRecord: usize, vertex: i32, ofTree: bool): bool {
  if (!lock(c, ownerRecord)) return false;
  addLocked(c, mode, owner, ownerRecord, vertex, ofTree);
  unlock(c, ownerRecord);
  return true;
}
