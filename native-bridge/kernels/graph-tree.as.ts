/**
 * The tree of a graph: every linked vertex has a parent whose list leads to it, up to one root, where searches begin among others. So a
 * vertex is reached whatever lists are thinned of, also where all in a cluster are nearer to each other than to anything else.
 *
 * Invariant: a parent's rank is below its child's, so that no order of changes makes a circle; ranks only fall while a vertex is linked.
 * A parent that is deleted stays a way until its children hang elsewhere. At most one lock is held at a time.
 * A vertex has at most half of its degree in children by insertion, and two less than its degree by repair, or where none else has room: a list
 * holds them, the parent, and one more.
 * The root of a graph is named by one word outside the kernels' scratch (TREE_ROOT); where there is none, no tree is kept.
 */

import {
  addEdge,
  addLocked,
  changeTree,
  childrenOf,
  leadsTo,
  lock,
  movedTo,
  neighbourAt,
  parentOf,
  parentWordOf,
  rankOf,
  treeOf,
  treeWord,
  unlock,
  usable,
} from "./graph-lists.as";
import { AT_DOCUMENT, DEGREE, degreeOf, ENTRY, ENTRY_VERTEX, recordOf, RESULT_COUNT, RESULTS, TREE_ROOT } from "./graph-memory.as";

/** Steps towards the root, and away from it: where all are full, or words are damaged. */
const MAX_STEPS: i32 = 4096;
const MAX_STEPS_BELOW: i32 = 64;
/** Vertices on the way to the root that are asked for room. */
const MAX_ASKED: i32 = 64;
/** Depth to which deleted vertices that hang on each other are looked through. */
const MAX_DEAD: i32 = 64;
const ANY_RANK: i32 = 2147483647;

// @ts-ignore: decorator
@inline
function roomOf(c: usize, byRepair: bool): i32 {
  const degree = load<i32>(c, DEGREE);
  return max(1, byRepair ? degree - 2 : degree >> 1);
}

/** Whether a record is in the tree, and stays in its place. */
// @ts-ignore: decorator
@inline
function isParent(c: usize, record: usize, below: i32): bool {
  const tree = treeOf(c, record);
  return usable(record) && parentWordOf(tree) > 0 && rankOf(tree) < below;
}

/** Hangs a vertex on another, if that has room and a rank below the one given. */
function attach(c: usize, mode: i32, parent: i32, vertex: i32, record: usize, below: i32, room: i32): bool {
  const parentRecord = recordOf(c, parent);
  if (parentRecord == 0 || parent == vertex || !isParent(c, parentRecord, below)) return false;
  const tree = treeOf(c, record);
  if (parentWordOf(tree) < 0 || !lock(c, parentRecord)) return false;
  let done = isParent(c, parentRecord, below) && childrenOf(c, parent, parentRecord) < room;
  if (done) {
    addLocked(c, mode, parent, parentRecord, vertex, true);
    done = changeTree(c, record, tree, treeWord(parent + 1, rankOf(treeOf(c, parentRecord)) + 1));
  }
  unlock(c, parentRecord);
  if (done) addEdge(c, mode, vertex, record, parent, true); // best effort: nobody is led to it by this one alone
  return done;
}

/** Hangs a vertex on the first that has room on a way from another to a leaf. */
function attachBelow(c: usize, mode: i32, from: i32, vertex: i32, record: usize, below: i32, room: i32): bool {
  for (let step = 0; step < MAX_STEPS_BELOW; step++) {
    if (attach(c, mode, from, vertex, record, below, room)) return true;
    const fromRecord = recordOf(c, from);
    if (fromRecord == 0) return false;
    const degree = degreeOf(c, fromRecord);
    let next = -1;
    for (let i = 0; i < degree && next < 0; i++) {
      const other = movedTo(c, neighbourAt(fromRecord, (i + vertex) % degree));
      const otherRecord = recordOf(c, other);
      if (otherRecord == 0 || other == from || other == vertex) continue;
      if (parentOf(c, otherRecord) == from && isParent(c, otherRecord, below)) next = other;
    }
    if (next < 0) return false;
    from = next;
  }
  return false;
}

/** Makes a vertex the root when there is none that is not deleted, and hangs it on the root otherwise. */
function attachToRoot(c: usize, mode: i32, vertex: i32, record: usize, below: i32, room: i32): bool {
  const at = <usize>load<u32>(c, TREE_ROOT);
  const named = atomic.load<i32>(at);
  const root = named > 0 ? movedTo(c, named - 1) : -1;
  const rootRecord = root < 0 ? 0 : recordOf(c, root);
  if (root >= 0 && rootRecord == 0) return false; // in a chunk that is not known here yet
  if (root >= 0 && root != vertex && isParent(c, rootRecord, ANY_RANK))
    return attachBelow(c, mode, root, vertex, record, below, room);
  const tree = treeOf(c, record);
  if (parentWordOf(tree) < 0) return false;
  const left = root >= 0 && root != vertex && atomic.load<i32>(rootRecord, AT_DOCUMENT) != 0;
  const old: i64 = left ? treeOf(c, rootRecord) : 0;
  const rank = left ? min(rankOf(old), rankOf(tree)) - 1 : min(0, rankOf(tree));
  if (!changeTree(c, record, tree, treeWord(vertex + 1, rank))) return false;
  if (atomic.cmpxchg<i32>(at, named, vertex + 1) != named) {
    changeTree(c, record, treeWord(vertex + 1, rank), tree); // another one is the root by now
    return false;
  }
  // What still hangs on the deleted root is led to from here until it hangs elsewhere.
  if (left) {
    changeTree(c, rootRecord, old, treeWord(vertex + 1, rankOf(old)));
    addEdge(c, mode, vertex, record, root, true);
  }
  return true;
}

/** Whether a vertex hangs on one that is there, or is the root; names that by where it is, and has it lead to the vertex. */
function hangs(c: usize, mode: i32, vertex: i32, record: usize): bool {
  const parent = parentOf(c, record);
  const tree = treeOf(c, record);
  const named = parentWordOf(tree);
  if (named > 0 && named != parent + 1) changeTree(c, record, tree, treeWord(parent + 1, rankOf(tree)));
  if (parent < 0) return false;
  if (parent == vertex) return atomic.load<i32>(<usize>load<u32>(c, TREE_ROOT)) == vertex + 1;
  const parentRecord = recordOf(c, parent);
  if (parentRecord == 0 || !usable(parentRecord) || parentWordOf(treeOf(c, parentRecord)) <= 0) return false;
  return leadsTo(c, parentRecord, vertex) || addEdge(c, mode, parent, parentRecord, vertex, true);
}

/** Hangs a vertex that was just searched for on the nearest with room. False when all locks that would do are held. */
export function hangNew(c: usize, mode: i32, vertex: i32, record: usize): bool {
  if (load<u32>(c, TREE_ROOT) == 0 || hangs(c, mode, vertex, record)) return true;
  const results = <usize>load<u32>(c, RESULTS);
  const count = load<i32>(c, RESULT_COUNT);
  const room = roomOf(c, false);
  // One that has children already must not hang on what hangs on it.
  const tree = treeOf(c, record);
  const below = parentWordOf(tree) == 0 ? ANY_RANK : rankOf(tree);
  for (let i = 0; i < count; i++) {
    const other = load<i32>(results + <usize>i * ENTRY, ENTRY_VERTEX);
    if (attach(c, mode, other, vertex, record, below, room)) return true;
  }
  if (attachToRoot(c, mode, vertex, record, below, room)) return true;
  // On one way down all may be full, of children that are deleted.
  const more = roomOf(c, true);
  for (let i = 0; i < count; i++) {
    const other = load<i32>(results + <usize>i * ENTRY, ENTRY_VERTEX);
    if (attachBelow(c, mode, other, vertex, record, below, more)) return true;
  }
  return attachToRoot(c, mode, vertex, record, below, more);
}

/**
 * Hangs a vertex elsewhere whose parent is deleted or gone: on a neighbour, on what its parent hung on, or on nothing, as the root.
 * False when that cannot be done now.
 */
export function hangAgain(c: usize, mode: i32, vertex: i32, record: usize): bool {
  if (load<u32>(c, TREE_ROOT) == 0 || !usable(record)) return true;
  const tree = treeOf(c, record);
  if (parentWordOf(tree) <= 0 || hangs(c, mode, vertex, record)) return true;
  const below = rankOf(tree);
  const room = roomOf(c, true);
  const degree = degreeOf(c, record);
  for (let i = 0; i < degree; i++) {
    const other = movedTo(c, neighbourAt(record, i));
    if (attach(c, mode, other, vertex, record, below, room)) return true;
  }
  let above = parentOf(c, record);
  let asked = 0;
  for (let step = 0; step < MAX_STEPS && above >= 0 && above != vertex; step++) {
    const aboveRecord = recordOf(c, above);
    if (aboveRecord == 0 || atomic.load<i32>(aboveRecord, AT_DOCUMENT) == 0) break;
    if (usable(aboveRecord)) {
      if (attachBelow(c, mode, above, vertex, record, below, room)) return true;
      if (++asked == MAX_ASKED) return false;
    }
    const next = parentOf(c, aboveRecord);
    if (next == above) {
      if (usable(aboveRecord)) return false; // full, as is all below it that is old enough
      break;
    }
    above = next;
  }
  // The way up has ended: what has no way to the root does not lie below it, so any rank there will do.
  return attachToRoot(c, mode, vertex, record, ANY_RANK, room);
}

/** Has all that hangs on a deleted vertex hang elsewhere. False when something could not be. */
export function detachDead(c: usize, mode: i32, vertex: i32, record: usize, depth: i32): bool {
  if (depth > MAX_DEAD || !lock(c, record)) return false;
  unlock(c, record); // who saw it undeleted has ended
  const degree = degreeOf(c, record);
  let done = true;
  for (let i = 0; i < degree; i++) {
    const other = movedTo(c, neighbourAt(record, i));
    const otherRecord = recordOf(c, other);
    if (otherRecord == 0 || other == vertex || parentOf(c, otherRecord) != vertex) continue;
    if (usable(otherRecord)) {
      hangAgain(c, mode, other, otherRecord);
      done = done && parentOf(c, otherRecord) != vertex;
    } else if (atomic.load<i32>(otherRecord, AT_DOCUMENT) != 0) {
      done = detachDead(c, mode, other, otherRecord, depth + 1) && done;
    }
  }
  return done;
}
