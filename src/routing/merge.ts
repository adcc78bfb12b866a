/**
 * K-way merge of ranked answers with a bounded heap.
 *
 * Invariant: the output is the first `k`, after a given position, of the union of all lists in which every id stands once, with
 * its highest version at the place of that version's score (of equal versions, the one that ranks first). So the same
 * answers of the shards always give the same list, and pages, each begun after the last answer of the one before, concatenate to the whole.
 *
 * A newer version may be anywhere, so the lists are read to their ends: the first `k` come from the heap, and one scan
 * through a filter of their ids confirms that nothing replaces them. Only when something does, all ids are
 * gathered in a map first. Who knows that no id is in two answers says so (`disjoint`) and reads only what is needed.
 * Cost: O((k + lists) log lists) for the heap, a few ns for each further answer of the scan; no allocation an answer.
 */
import { invalidArgument } from "../errors.ts";
import {
  checkNext,
  compareIds,
  compareRanked,
  outranks,
  type RankDirection,
  type Ranked,
  type RankPosition,
  type RankSign,
  signOf,
} from "./ranked.ts";

/** How {@link mergeRanked} reads and cuts. */
export interface MergeOptions {
  /** @default "ascending" */
  readonly direction?: RankDirection;
  /** Only answers strictly after this position are given. @default from the start */
  readonly after?: RankPosition | undefined;
  /**
   * The caller's word that no id is in two answers, as when each vshard was answered by one shard. Lists are then read only
   * as far as the k-th answer needs, and checked only as far as they are read. Should the word be wrong, an id is still given once a
   * page, but its version is the highest of those that were read. @default false
   */
  readonly disjoint?: boolean;
}

export { compareIds, compareRanked, type Ranked } from "./ranked.ts";

type Id = string | number;

/** Smallest and largest size of the filter of picked ids, in bytes. */
const FILTER_MIN = 1024;
const FILTER_MAX = 65_536;

/**
 * Merges lists that are each sorted by {@link compareRanked} in the direction given into the first `k`.
 *
 * @param lists Arrays, or iterables: those are pulled one by one when `disjoint`, else read whole first. Iterators are closed
 *   when the merge ends before them.
 * @param k At most so many answers, an integer ≥ 0.
 * @throws {ShardloomError} `ERR_CORRUPT` when a score, version or id is NaN, or a list is not sorted; `ERR_INVALID_ARGUMENT`
 *   for a bad `k`, direction or position.
 */
export function mergeRanked<T extends Ranked>(
  lists: readonly Iterable<T>[],
  k: number,
  options: MergeOptions = {},
): T[] {
  const sign = signOf("merge answers", options.direction ?? "ascending");
  const { after } = options;
  if (!Number.isSafeInteger(k) || k < 0) throw invalidArgument("merge answers", "k", "an integer ≥ 0", k);
  if (after !== undefined) assertPosition(after);
  if (options.disjoint === true) return mergeDisjoint(lists, k, sign, after);
  const arrays = allArrays(lists)
    ? lists
    : lists.map((list) => (Array.isArray(list) ? (list as readonly T[]) : [...list]));
  return mergeFast(arrays, k, sign, after) ?? mergeStanding(arrays, k, sign, after);
}

function assertPosition({ score, id }: RankPosition): void {
  if (typeof score !== "number" || Number.isNaN(score))
    throw invalidArgument("merge answers", "after.score", "a number other than NaN", score);
  if (typeof id !== "string" && (typeof id !== "number" || Number.isNaN(id)))
    throw invalidArgument("merge answers", "after.id", "a string, or a number other than NaN", id);
}

function allArrays<T>(lists: readonly Iterable<T>[]): lists is readonly (readonly T[])[] {
  for (const list of lists) if (!Array.isArray(list)) return false;
  return true;
}

/** One list and its next answer. */
class Head<T extends Ranked> {
  readonly list: number;
  readonly #array: readonly T[] | undefined;
  readonly #iterator: Iterator<T> | undefined;
  readonly #sign: RankSign;
  #at: number;
  #open = false;
  /** The next answer; set whenever the head is in the heap. */
  entry!: T;
  /** Its score, so that smaller ranks first. */
  key = 0;

  constructor(
    list: number,
    array: readonly T[] | undefined,
    at: number,
    iterator: Iterator<T> | undefined,
    sign: RankSign,
  ) {
    this.list = list;
    this.#array = array;
    this.#at = at;
    this.#iterator = iterator;
    this.#sign = sign;
  }

  /** Takes the next answer in. @returns false at the end */
  next(): boolean {
    let entry: T;
    if (this.#array === undefined) {
      this.#open = false; // an iterator that ends or throws has closed itself
      const result = (this.#iterator as Iterator<T>).next();
      if (result.done === true) return false;
      this.#open = true;
      entry = result.value;
    } else {
      if (this.#at >= this.#array.length) return false;
      entry = this.#array[this.#at++] as T;
    }
    checkNext(entry, this.entry, this.#sign, this.list);
    this.entry = entry;
    this.key = this.#sign * entry.score;
    return true;
  }

  /** Ends an iterator that was not read to its end. */
  close(): void {
    if (this.#open) this.#iterator?.return?.();
  }
}

/** The merge when nothing that was picked is replaced further back; else undefined. */
function mergeFast<T extends Ranked>(
  lists: readonly (readonly T[])[],
  k: number,
  sign: RankSign,
  after: RankPosition | undefined,
): T[] | undefined {
  const heap = openArrays(lists, sign, after);
  const merged: T[] = [];
  const picked = new Map<Id, T>();
  while (heap.length > 0 && merged.length < k) {
    const { entry } = heap[0] as Head<T>;
    const other = picked.get(entry.id);
    if (other === undefined) {
      picked.set(entry.id, entry);
      merged.push(entry);
    } else if (entry.version > other.version) return undefined;
    advance(heap);
  }
  return isConfirmed(lists, sign, picked) ? merged : undefined;
}

/** Reads all lists: checks every answer, and whether one of them takes the place of a picked one. */
function isConfirmed<T extends Ranked>(
  lists: readonly (readonly T[])[],
  sign: RankSign,
  picked: ReadonlyMap<Id, T>,
): boolean {
  let size = FILTER_MIN;
  while (size < FILTER_MAX && size < picked.size * 16) size *= 2;
  const filter = new Uint8Array(size);
  const mask = size - 1;
  for (const id of picked.keys()) filter[bitsOf(id) & mask] = 1;
  for (let index = 0; index < lists.length; index++) {
    const list = lists[index] as readonly T[];
    let previous: T | undefined;
    let before = Number.NEGATIVE_INFINITY;
    for (let at = 0; at < list.length; at++) {
      const entry = list[at] as T;
      const key = sign * entry.score;
      // One comparison passes nearly all: NaN, ties and disorder are looked at closely.
      if (!(before < key) || Number.isNaN(entry.version) || Number.isNaN(entry.id))
        checkNext(entry, previous, sign, index);
      previous = entry;
      before = key;
      if (filter[bitsOf(entry.id) & mask] === 0) continue;
      const other = picked.get(entry.id);
      if (other !== undefined && other !== entry && outranks(entry, other, sign)) return false;
    }
  }
  return true;
}

/** Cheap bits of an id that differ for most ids: whole numbers by value, strings by length and last units. */
function bitsOf(id: Id): number {
  if (typeof id === "number") return id ^ (id >>> 16);
  const { length } = id;
  return (
    Math.imul(id.charCodeAt(length - 1) + (id.charCodeAt(length - 2) << 4) + (id.charCodeAt(length - 3) << 8), 5) +
    length
  );
}

/** The merge when ids repeat: what stands is found first, over all answers. */
function mergeStanding<T extends Ranked>(
  lists: readonly (readonly T[])[],
  k: number,
  sign: RankSign,
  after: RankPosition | undefined,
): T[] {
  const standing = new Map<Id, T>();
  for (let index = 0; index < lists.length; index++) {
    let previous: T | undefined;
    for (const entry of lists[index] as readonly T[]) {
      checkNext(entry, previous, sign, index);
      previous = entry;
      const other = standing.get(entry.id);
      if (other === undefined || outranks(entry, other, sign)) standing.set(entry.id, entry);
    }
  }
  const heap = openArrays(lists, sign, after);
  const merged: T[] = [];
  while (heap.length > 0 && merged.length < k) {
    const { entry } = heap[0] as Head<T>;
    if (standing.get(entry.id) === entry) {
      standing.delete(entry.id); // the same object may be in two lists
      merged.push(entry);
    }
    advance(heap);
  }
  return merged;
}

/** The merge of lists whose ids differ, each read as far as needed. */
function mergeDisjoint<T extends Ranked>(
  lists: readonly Iterable<T>[],
  k: number,
  sign: RankSign,
  after: RankPosition | undefined,
): T[] {
  const heads: Head<T>[] = [];
  const heap: Head<T>[] = [];
  const merged: T[] = [];
  const picked = new Map<Id, T>();
  if (k === 0) return merged;
  try {
    for (const list of lists) {
      const head = openHead(list, heads.length, sign, after);
      heads.push(head);
      let more = head.next();
      while (more && after !== undefined && compareRanked(head.entry, after, sign) <= 0) more = head.next();
      if (more) push(heap, head);
    }
    while (heap.length > 0) {
      const { entry } = heap[0] as Head<T>;
      const other = picked.get(entry.id);
      if (other === undefined || entry.version > other.version) {
        // A newer version ranks where its own score puts it, so the older one leaves its place.
        if (other !== undefined) merged.splice(merged.indexOf(other), 1);
        picked.set(entry.id, entry);
        merged.push(entry);
        if (merged.length === k) break;
      }
      advance(heap);
    }
  } finally {
    for (const head of heads) head.close();
  }
  return merged;
}

function openArrays<T extends Ranked>(
  lists: readonly (readonly T[])[],
  sign: RankSign,
  after: RankPosition | undefined,
): Head<T>[] {
  const heap: Head<T>[] = [];
  for (let index = 0; index < lists.length; index++) {
    const head = openHead(lists[index] as readonly T[], index, sign, after);
    if (head.next()) push(heap, head);
  }
  return heap;
}

/** A head before its first answer; an array's stands behind `after` already. */
function openHead<T extends Ranked>(
  list: Iterable<T>,
  index: number,
  sign: RankSign,
  after: RankPosition | undefined,
): Head<T> {
  if (!Array.isArray(list)) return new Head<T>(index, undefined, 0, list[Symbol.iterator](), sign);
  const array = list as readonly T[];
  return new Head<T>(index, array, after === undefined ? 0 : firstAfter(array, after, sign), undefined, sign);
}

/** Index of the first answer after a position, by bisection. */
function firstAfter(list: readonly Ranked[], after: RankPosition, sign: RankSign): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareRanked(list[middle] as Ranked, after, sign) <= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Whether a head's answer comes out before another's; ties over (score, id) go by list, so that runs repeat. */
function isBefore<T extends Ranked>(a: Head<T>, b: Head<T>): boolean {
  if (a.key !== b.key) return a.key < b.key;
  const order = compareIds(a.entry.id, b.entry.id);
  return order < 0 || (order === 0 && a.list < b.list);
}

/** Replaces the first answer by the next of its list. */
function advance<T extends Ranked>(heap: Head<T>[]): void {
  if ((heap[0] as Head<T>).next()) {
    siftDown(heap);
    return;
  }
  const last = heap.pop() as Head<T>;
  if (heap.length === 0) return;
  heap[0] = last;
  siftDown(heap);
}

function push<T extends Ranked>(heap: Head<T>[], head: Head<T>): void {
  let child = heap.push(head) - 1;
  while (child > 0) {
    const parent = (child - 1) >> 1;
    const above = heap[parent] as Head<T>;
    if (isBefore(above, head)) break;
    heap[child] = above;
    heap[parent] = head;
    child = parent;
  }
}

function siftDown<T extends Ranked>(heap: Head<T>[]): void {
  const moving = heap[0] as Head<T>;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    const right = heap[child + 1];
    if (right !== undefined && isBefore(right, heap[child] as Head<T>)) child++;
    const below = heap[child] as Head<T>;
    if (isBefore(moving, below)) break;
    heap[at] = below;
    heap[child] = moving;
    at = child;
  }
}
