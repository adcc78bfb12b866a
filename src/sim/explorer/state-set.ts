/**
 * States met by a search, each with a number: a hash table of 96-bit fingerprints.
 *
 * Invariant: a state that was added is found. Two states with one fingerprint would be taken for one; among ten million
 * states that happens with a probability of about 10^-15.
 * Source: hash compaction (Wolper and Leroy, CAV'93), open addressing.
 */

const FIRST_SLOTS = 1 << 12;

export class StateSet {
  size = 0;
  #slots = FIRST_SLOTS;
  #keys = new Int32Array(3 * FIRST_SLOTS);
  #values = new Float64Array(FIRST_SLOTS).fill(Number.NaN);

  /** The value of a state, or NaN when it is not there. */
  get(a: number, b: number, c: number): number {
    return this.#values[this.#find(a, b, c)] as number;
  }

  /** @param value Not NaN. */
  set(a: number, b: number, c: number, value: number): void {
    let slot = this.#find(a, b, c);
    if (Number.isNaN(this.#values[slot])) {
      this.size++;
      if (2 * this.size > this.#slots) {
        this.#grow();
        slot = this.#find(a, b, c);
      }
      this.#keys[3 * slot] = a;
      this.#keys[3 * slot + 1] = b;
      this.#keys[3 * slot + 2] = c;
    }
    this.#values[slot] = value;
  }

  #find(a: number, b: number, c: number): number {
    const keys = this.#keys;
    const mask = this.#slots - 1;
    let slot = a & mask;
    while (!Number.isNaN(this.#values[slot])) {
      const at = 3 * slot;
      if (keys[at] === a && keys[at + 1] === b && keys[at + 2] === c) break;
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    this.#slots *= 4;
    this.#keys = new Int32Array(3 * this.#slots);
    this.#values = new Float64Array(this.#slots).fill(Number.NaN);
    for (let slot = 0; slot < values.length; slot++) {
      const value = values[slot] as number;
      if (Number.isNaN(value)) continue;
      const at = 3 * slot;
      const to = this.#find(keys[at] as number, keys[at + 1] as number, keys[at + 2] as number);
      this.#keys.set(keys.subarray(at, at + 3), 3 * to);
      this.#values[to] = value;
    }
  }
}
