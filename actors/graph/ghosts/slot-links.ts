/**
 * Doubly linked lists of slot numbers, several of them over one pair of arrays.
 *
 * Invariant: a slot is in at most one list of the same links; the caller knows in which.
 * Cost: 8 bytes a slot; every operation is O(1) and allocates nothing.
 */

/** No slot. */
export const NO_SLOT = -1;

/** Ends of a list. Only {@link SlotLinks} writes it. */
export interface SlotList {
  first: number;
  last: number;
  size: number;
}

export function emptyList(): SlotList {
  return { first: NO_SLOT, last: NO_SLOT, size: 0 };
}

export class SlotLinks {
  readonly #next: Int32Array;
  readonly #previous: Int32Array;

  constructor(capacity: number) {
    this.#next = new Int32Array(capacity);
    this.#previous = new Int32Array(capacity);
  }

  /** Adds a slot, which is in none of the lists, as the last of this one. */
  append(list: SlotList, slot: number): void {
    this.#previous[slot] = list.last;
    this.#next[slot] = NO_SLOT;
    if (list.last === NO_SLOT) list.first = slot;
    else this.#next[list.last] = slot;
    list.last = slot;
    list.size++;
  }

  /** Takes a slot out of the list that it is in. */
  remove(list: SlotList, slot: number): void {
    const next = this.#next[slot] as number;
    const previous = this.#previous[slot] as number;
    if (previous === NO_SLOT) list.first = next;
    else this.#next[previous] = next;
    if (next === NO_SLOT) list.last = previous;
    else this.#previous[next] = previous;
    list.size--;
  }

  /** Makes a slot of the list its last. */
  toEnd(list: SlotList, slot: number): void {
    if (list.last === slot) return;
    this.remove(list, slot);
    this.append(list, slot);
  }
}
