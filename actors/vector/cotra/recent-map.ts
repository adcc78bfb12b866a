/**
 * A map by number that forgets its oldest entries.
 *
 * Invariant: it never holds more than its capacity; an entry that is set anew counts as new.
 */

/** The `capacity` entries set last. */
export class RecentMap<T> {
  readonly #entries = new Map<number, T>();
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  has(key: number): boolean {
    return this.#entries.has(key);
  }

  get(key: number): T | undefined {
    return this.#entries.get(key);
  }

  set(key: number, value: T): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size <= this.#capacity) return;
    for (const oldest of this.#entries.keys()) {
      this.#entries.delete(oldest);
      return;
    }
  }

  /** Removes and returns an entry. */
  take(key: number): T | undefined {
    const value = this.#entries.get(key);
    this.#entries.delete(key);
    return value;
  }

  /** Removes the entries whose key is in `[from, to)`. */
  deleteRange(from: number, to: number): void {
    for (const key of this.#entries.keys()) if (key >= from && key < to) this.#entries.delete(key);
  }
}
