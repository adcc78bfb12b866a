/**
 * A binary heap of events by time, then by a drawn number, then by the order of their making.
 *
 * Invariant: the order is total, so that it does not depend on how the heap is built. Cancelled entries stay until they surface or until
 * they are the larger part; then the heap is built anew without them.
 * Cost: O(log n) without allocation once its arrays have grown.
 */

/** What the heap holds. */
export interface HeapItem {
  /** It will not run: may be left out. */
  readonly cancelled: boolean;
}

const FIRST_CAPACITY = 1024;
/** Fewer cancelled entries than this are no reason to build anew. */
const LEAST_GARBAGE = 1024;

/** A priority queue. */
export class EventHeap<T extends HeapItem> {
  #times: Float64Array = new Float64Array(FIRST_CAPACITY);
  #ties: Float64Array = new Float64Array(FIRST_CAPACITY);
  #orders: Float64Array = new Float64Array(FIRST_CAPACITY);
  #items: T[] = [];
  #order = 0;
  #cancelled = 0;

  get size(): number {
    return this.#items.length;
  }

  /** Time of the first entry; infinite when there is none. */
  get nextTime(): number {
    return this.#items.length === 0 ? Number.POSITIVE_INFINITY : (this.#times[0] as number);
  }

  push(time: number, tie: number, item: T): void {
    if (this.#items.length === this.#times.length) this.#grow();
    const at = this.#items.length;
    this.#items.push(item);
    this.#up(at, time, tie, this.#order++, item);
  }

  /** Takes the first entry. */
  pop(): T | undefined {
    const items = this.#items;
    const first = items[0];
    if (first === undefined) return undefined;
    if (first.cancelled) this.#cancelled--;
    const at = items.length - 1;
    const last = items.pop() as T;
    if (at > 0) this.#down(at, this.#times[at] as number, this.#ties[at] as number, this.#orders[at] as number, last);
    return first;
  }

  /** Must be told once of each entry that was cancelled while in the heap. */
  noteCancelled(): void {
    this.#cancelled++;
    if (this.#cancelled > LEAST_GARBAGE && this.#cancelled * 2 > this.#items.length) this.#compact();
  }

  #up(from: number, time: number, tie: number, order: number, item: T): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#less(time, tie, order, parent)) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#put(at, time, tie, order, item);
  }

  #down(size: number, time: number, tie: number, order: number, item: T): void {
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && this.#lessAt(child + 1, child)) child++;
      if (this.#less(time, tie, order, child)) break;
      this.#move(child, at);
      at = child;
    }
    this.#put(at, time, tie, order, item);
  }

  #less(time: number, tie: number, order: number, other: number): boolean {
    const otherTime = this.#times[other] as number;
    if (time !== otherTime) return time < otherTime;
    const otherTie = this.#ties[other] as number;
    return tie === otherTie ? order < (this.#orders[other] as number) : tie < otherTie;
  }

  #lessAt(one: number, other: number): boolean {
    return this.#less(this.#times[one] as number, this.#ties[one] as number, this.#orders[one] as number, other);
  }

  #move(from: number, to: number): void {
    this.#put(
      to,
      this.#times[from] as number,
      this.#ties[from] as number,
      this.#orders[from] as number,
      this.#items[from] as T,
    );
  }

  #put(at: number, time: number, tie: number, order: number, item: T): void {
    this.#times[at] = time;
    this.#ties[at] = tie;
    this.#orders[at] = order;
    this.#items[at] = item;
  }

  #grow(): void {
    const capacity = this.#times.length * 2;
    for (const name of ["times", "ties", "orders"] as const) {
      const grown = new Float64Array(capacity);
      grown.set(name === "times" ? this.#times : name === "ties" ? this.#ties : this.#orders);
      if (name === "times") this.#times = grown;
      else if (name === "ties") this.#ties = grown;
      else this.#orders = grown;
    }
  }

  #compact(): void {
    const items = this.#items;
    const kept: { time: number; tie: number; order: number; item: T }[] = [];
    for (let at = 0; at < items.length; at++) {
      const item = items[at] as T;
      if (item.cancelled) continue;
      kept.push({
        time: this.#times[at] as number,
        tie: this.#ties[at] as number,
        order: this.#orders[at] as number,
        item,
      });
    }
    this.#items = [];
    this.#cancelled = 0;
    for (const { time, tie, order, item } of kept) {
      const at = this.#items.length;
      this.#items.push(item);
      this.#up(at, time, tie, order, item);
    }
  }
}
