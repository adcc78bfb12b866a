/**
 * A growing first-in, first-out queue in one array.
 *
 * Invariant: elements leave in the order they came; the array's length is a power of two, so a position wraps with a mask;
 * a slot that was left holds undefined, so the queue keeps nothing alive. Growing doubles, and a queue that ran empty
 * after growing large starts small again.
 */

const FIRST_LENGTH = 4;
/** An emptied queue keeps an array of at most this length. */
const KEPT_LENGTH = 16;

/** A queue of references. Not bounded by itself: the bound is its owner's. */
export class RingQueue<T extends object> {
  #slots: (T | undefined)[] = new Array<T | undefined>(FIRST_LENGTH).fill(undefined);
  /** Slot of the oldest element. */
  #head = 0;
  #size = 0;

  /** Number of elements. */
  get size(): number {
    return this.#size;
  }

  /** Adds at the end. O(1), amortized. */
  push(element: T): void {
    if (this.#size === this.#slots.length) this.#grow();
    this.#slots[(this.#head + this.#size) & (this.#slots.length - 1)] = element;
    this.#size++;
  }

  /** Takes the oldest, or undefined when there is none. O(1). */
  shift(): T | undefined {
    if (this.#size === 0) return undefined;
    const element = this.#slots[this.#head];
    this.#slots[this.#head] = undefined;
    this.#head = (this.#head + 1) & (this.#slots.length - 1);
    this.#size--;
    if (this.#size === 0) this.#shrink();
    return element;
  }

  /** Takes one element out, keeping the order of the others. O(size). @returns whether it was there */
  remove(element: T): boolean {
    const mask = this.#slots.length - 1;
    for (let index = 0; index < this.#size; index++) {
      if (this.#slots[(this.#head + index) & mask] !== element) continue;
      for (let next = index + 1; next < this.#size; next++) {
        this.#slots[(this.#head + next - 1) & mask] = this.#slots[(this.#head + next) & mask];
      }
      this.#slots[(this.#head + this.#size - 1) & mask] = undefined;
      this.#size--;
      return true;
    }
    return false;
  }

  #grow(): void {
    const { length } = this.#slots;
    const grown = new Array<T | undefined>(length * 2).fill(undefined);
    for (let index = 0; index < length; index++) grown[index] = this.#slots[(this.#head + index) & (length - 1)];
    this.#slots = grown;
    this.#head = 0;
  }

  #shrink(): void {
    this.#head = 0;
    if (this.#slots.length > KEPT_LENGTH) this.#slots = new Array<T | undefined>(FIRST_LENGTH).fill(undefined);
  }
}
