/**
 * Linking of vertices into a graph: search, robust prune, the own list, a parent, edges back under locks; and repair of lists.
 *
 * Invariant: of shared memory only the list of a vertex whose lock this thread holds is written, ids before the degree, each by one
 * store, and tree words; waits for a lock are bounded, and an edge back is left out rather than waited for longer. A vertex that is linked
 * has its place in the tree.
 * Source: Singh et al., FreshDiskANN, 2021, algorithm 4 (delete).
 */

import { begin, run } from "./graph.as";
import {
  addEdge,
  changeTree,
  gather,
  keepTree,
  lock,
  movedTo,
  neighbourAt,
  parentOf,
  parentWordOf,
  prune,
  rankOf,
  treeOf,
  treeWord,
  unlock,
  usable,
  writeList,
} from "./graph-lists.as";
import {
  AT_DEGREE,
  AT_NEIGHBOURS,
  bump,
  CANDIDATES,
  degreeOf,
  EPOCH,
  INFINITY_F64,
  modeOf,
  pairDistance,
  recordOf,
  RESULT_COUNT,
  RESULTS,
  SKIPPED_EDGES,
  TREE_ROOT,
  VISITED,
  widen,
} from "./graph-memory.as";
import { detachDead, hangAgain, hangNew } from "./graph-tree.as";

/** Tries to change a tree word that others change too. */
const MAX_CHANGES: i32 = 64;

/**
 * Links a vertex whose code is written: search, prune, own list, parent, edges back. The query of the control block must be its code.
 * An edge back whose lock cannot be had is left out. Returns its degree, or -1 when its own lock could not be had, or none of a parent's.
 */
export function graphInsert(c: usize, vertex: i32): i32 {
  const mode = modeOf(c);
  const record = recordOf(c, vertex);
  if (record == 0) return -1;
  if (!usable(record)) return 0;
  widen(c, mode);
  begin(c);
  store<u8>(<usize>load<u32>(c, VISITED) + <usize>vertex, load<u8>(c, EPOCH)); // not its own neighbour
  run(c, mode);
  if (!lock(c, record)) return -1;
  const tree = keepTree(c, vertex, record, -1, true);
  const found = prune(c, mode, <usize>load<u32>(c, RESULTS), load<i32>(c, RESULT_COUNT), tree);
  writeList(c, record, found);
  unlock(c, record);
  if (!hangNew(c, mode, vertex, record)) return -1;
  // The list of kept ones is used again for every full neighbour, so the own list is read from the record.
  const size = degreeOf(c, record);
  for (let i = 0; i < size; i++) {
    const other = movedTo(c, neighbourAt(record, i));
    const otherRecord = recordOf(c, other);
    if (otherRecord == 0 || other == vertex) continue;
    if (!addEdge(c, mode, other, otherRecord, vertex, false)) bump(c, SKIPPED_EDGES);
  }
  return size;
}

/** Gives a copy the place of a vertex in the tree, and notes where the vertex has gone. False when it keeps changing. */
function moveInTree(c: usize, vertex: i32, record: usize, copy: i32, copyRecord: usize): bool {
  for (let attempt = 0; attempt < MAX_CHANGES; attempt++) {
    const tree = treeOf(c, record);
    const parent = parentWordOf(tree);
    if (parent < 0) return false;
    const ofCopy = treeWord(parent == vertex + 1 ? copy + 1 : parent, rankOf(tree));
    if (!changeTree(c, copyRecord, treeOf(c, copyRecord), ofCopy)) continue;
    if (!changeTree(c, record, tree, treeWord(-copy - 1, rankOf(tree)))) continue;
    const root = <usize>load<u32>(c, TREE_ROOT);
    if (root != 0) atomic.cmpxchg<i32>(root, vertex + 1, copy + 1);
    return true;
  }
  return false;
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
      const other = neighbourAt(record, i);
      if (other == copy) continue;
      atomic.store<i32>(copyRecord + (<usize>size << 2), other, AT_NEIGHBOURS);
      size++;
    }
    atomic.store<i32>(copyRecord, size, AT_DEGREE);
  }
  unlock(c, copyRecord); // publishes its list before anything leads to it
  if (!held) return false;
  const moved = moveInTree(c, vertex, record, copy, copyRecord);
  if (moved) {
    atomic.store<i32>(record, copy, AT_NEIGHBOURS);
    atomic.store<i32>(record, 1, AT_DEGREE);
  }
  unlock(c, record);
  return moved;
}

/** Names the neighbours of a locked record by where they have gone. Returns whether all can be linked to now. */
function followMoves(c: usize, vertex: i32, record: usize, degree: i32): bool {
  let size = 0;
  let good = true;
  for (let i = 0; i < degree; i++) {
    const other = movedTo(c, neighbourAt(record, i));
    let repeated = other == vertex;
    for (let j = 0; j < size; j++) repeated = repeated || neighbourAt(record, j) == other;
    if (repeated) continue;
    const otherRecord = recordOf(c, other);
    good = good && otherRecord != 0 && usable(otherRecord);
    atomic.store<i32>(record + (<usize>size << 2), other, AT_NEIGHBOURS);
    size++;
  }
  atomic.store<i32>(record, size, AT_DEGREE); // publishes
  return good;
}

/** Has what hangs on deleted children of a vertex hang elsewhere. False when something could not be. */
function detachChildren(c: usize, mode: i32, vertex: i32, record: usize): bool {
  const degree = degreeOf(c, record);
  let done = true;
  for (let i = 0; i < degree; i++) {
    const other = movedTo(c, neighbourAt(record, i));
    const otherRecord = recordOf(c, other);
    if (otherRecord == 0 || other == vertex || usable(otherRecord)) continue;
    if (parentOf(c, otherRecord) == vertex) done = detachDead(c, mode, other, otherRecord, 0) && done;
  }
  return done;
}

/** Gathers the neighbours of a locked record, and those of neighbours that are deleted. Returns how many. */
function gatherAround(c: usize, mode: i32, vertex: i32, record: usize): i32 {
  const left = degreeOf(c, record);
  let count = 0;
  for (let i = 0; i < left; i++) {
    const other = neighbourAt(record, i);
    const otherRecord = recordOf(c, other);
    if (otherRecord == 0 || other == vertex) continue;
    if (usable(otherRecord)) {
      count = gather(c, mode, record, vertex, other, count);
      continue;
    }
    const reach = degreeOf(c, otherRecord);
    for (let j = 0; j < reach; j++) count = gather(c, mode, record, vertex, movedTo(c, neighbourAt(otherRecord, j)), count);
  }
  return count;
}

/**
 * Gives a vertex another parent whose own is deleted, and replaces neighbours that have moved by where they are, and those that are deleted,
 * free or impossible by what those lead to.
 * Returns 1 when the list was changed, 0 when it was good, -1 when its lock could not be had.
 */
export function graphRepair(c: usize, vertex: i32): i32 {
  const mode = modeOf(c);
  const record = recordOf(c, vertex);
  if (record == 0) return 0;
  hangAgain(c, mode, vertex, record);
  const detached = detachChildren(c, mode, vertex, record);
  if (!lock(c, record)) return -1;
  const raw = load<i32>(record, AT_DEGREE);
  const degree = degreeOf(c, record);
  let bad = raw != degree;
  for (let i = 0; i < degree && !bad; i++) {
    const other = neighbourAt(record, i);
    const otherRecord = recordOf(c, other);
    bad = otherRecord == 0 || other == vertex || !usable(otherRecord);
  }
  if (bad && !followMoves(c, vertex, record, degree)) {
    const count = gatherAround(c, mode, vertex, record);
    const tree = keepTree(c, vertex, record, -1, !detached);
    writeList(c, record, prune(c, mode, <usize>load<u32>(c, CANDIDATES), count, tree));
  }
  unlock(c, record);
  return bad ? 1 : 0;
}

/** The usable neighbour of a vertex that is nearest to it, or -1. */
export function graphNearest(c: usize, vertex: i32): i32 {
  const mode = modeOf(c);
  const record = recordOf(c, vertex);
  if (record == 0) return -1;
  const degree = degreeOf(c, record);
  let nearest = -1;
  let least = INFINITY_F64;
  for (let i = 0; i < degree; i++) {
    const other = movedTo(c, neighbourAt(record, i));
    const otherRecord = recordOf(c, other);
    if (otherRecord == 0 || other == vertex || !usable(otherRecord)) continue;
    const d = pairDistance(c, mode, record, otherRecord, least);
    if (!(d < least)) continue;
    nearest = other;
    least = d;
  }
  return nearest;
}
