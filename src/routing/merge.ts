/**
 * Streaming k-way merge of ranked answers with a bounded heap.
 *
 * Invariant: the output is the first `k` of the union under the total order (score ascending, then id), so that the same
 * shard answers always give the same list; each id appears once, with its highest version. Ids order numbers before
 * strings, numbers by value, strings by code unit.
 * Cost: O((k + lists) log lists) comparisons and nothing that grows with the lists' lengths.
 */
import { ShardloomError } from "../errors.ts";

/** One ranked answer. Smaller scores rank first. */
export interface Ranked {
  readonly id: string | number;
  readonly score: number;
  /** Per-document version: of two answers with one id, the higher version stands. */
  readonly version: number;
}

/** The total order over ids: numbers before strings. */
export function compareIds(a: string | number, b: string | number): number {
  if (typeof a === "number") {
    if (typeof b !== "number") return -1;
    return a < b ? -1 : a > b ? 1 : 0;
  }
  if (typeof b === "number") return 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The total order over answers: score, then id. */
export function compareRanked(a: Ranked, b: Ranked): number {
  return a.score < b.score ? -1 : a.score > b.score ? 1 : compareIds(a.id, b.id);
}

/**
 * Merges lists that are each sorted by {@link compareRanked} into the first `k`.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` when a score is NaN, or a list is not sorted: an answer in the wrong order is a
 *   shard's bug and must not pass as a ranking.
 */
export function mergeRanked<T extends Ranked>(lists: readonly (readonly T[])[], k: number): T[] {
  const heap: Cursor<T>[] = [];
  for (const list of lists) {
    const head = list[0];
    if (head !== undefined) push(heap, { list, at: 0, head: checked(head, undefined) });
  }
  const merged: T[] = [];
  const places = new Map<string | number, number>();
  while (heap.length > 0) {
    const cursor = heap[0] as Cursor<T>;
    const next = cursor.head;
    const place = places.get(next.id);
    if (place === undefined) {
      if (merged.length >= k) break;
      places.set(next.id, merged.length);
      merged.push(next);
    } else if (next.version > (merged[place] as T).version) {
      // A newer version ranks where its own score puts it, so the older one leaves its place.
      merged.splice(place, 1);
      for (let at = place; at < merged.length; at++) places.set((merged[at] as T).id, at);
      places.set(next.id, merged.length);
      merged.push(next);
    }
    advance(heap, cursor);
  }
  return merged;
}

interface Cursor<T> {
  readonly list: readonly T[];
  at: number;
  head: T;
}

function checked<T extends Ranked>(next: T, previous: T | undefined): T {
  if (Number.isNaN(next.score))
    throw new ShardloomError("ERR_CORRUPT", `Cannot merge answers as the score of ${JSON.stringify(next.id)} is NaN`);
  if (previous !== undefined && compareRanked(previous, next) > 0) {
    throw new ShardloomError(
      "ERR_CORRUPT",
      `Cannot merge answers as a shard's list is not sorted at ${JSON.stringify(next.id)}`,
    );
  }
  return next;
}

function advance<T extends Ranked>(heap: Cursor<T>[], cursor: Cursor<T>): void {
  cursor.at++;
  const next = cursor.list[cursor.at];
  if (next !== undefined) {
    cursor.head = checked(next, cursor.head);
    siftDown(heap);
    return;
  }
  const last = heap.pop() as Cursor<T>;
  if (heap.length > 0) {
    heap[0] = last;
    siftDown(heap);
  }
}

function push<T extends Ranked>(heap: Cursor<T>[], cursor: Cursor<T>): void {
  let child = heap.push(cursor) - 1;
  while (child > 0) {
    const parent = (child - 1) >> 1;
    const above = heap[parent] as Cursor<T>;
    if (compareRanked(above.head, cursor.head) <= 0) break;
    heap[child] = above;
    heap[parent] = cursor;
    child = parent;
  }
}

function siftDown<T extends Ranked>(heap: Cursor<T>[]): void {
  const moving = heap[0] as Cursor<T>;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    const right = heap[child + 1];
    if (right !== undefined && compareRanked(right.head, (heap[child] as Cursor<T>).head) < 0) child++;
    const below = heap[child] as Cursor<T>;
    if (compareRanked(moving.head, below.head) <= 0) break;
    heap[at] = below;
    heap[child] = moving;
    at = child;
  }
}
