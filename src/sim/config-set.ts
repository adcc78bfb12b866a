/**
 * The set of configurations that a search has been in: which operations are linearised, and the state that they left.
 *
 * Invariant: {@link ConfigSet.add} says true exactly once for each configuration; hashes only find candidates, words decide.
 * What was linearised is kept as a window: all below its first word is linearised, nothing is above its last. So an entry is as
 * long as operations overlap, not as long as the history. Entries lie one behind the other in one growing array.
 *
 * Layout, in uint32 words: hash | state | first word of the window | words of the window | words of the optional ones | words …
 * Source: Lowe, "Testing for linearizability" (memoising Wing and Gong's search); Zobrist's hash of sets.
 */

const HEADER_WORDS = 5;
const INITIAL_SLOTS = 1 << 12;
/** Most words of all entries: 512 MiB. */
export const MAX_WORDS: number = 1 << 27;

/** Which operations of a search are linearised; those that may never be are kept apart, as they stay open for ever. */
export class LinearizedSet {
  /** One bit an operation that has to end at some time, in the order of beginning. */
  readonly words: Uint32Array;
  /** One bit an operation that never has to. */
  readonly optionalWords: Uint32Array;
  /** Xor of a random word for each member. */
  hash = 0;
  /** All words below are full. */
  low = 0;
  /** All words from here on are empty. */
  high = 0;
  readonly #bounded: number;

  /** @param bounded operations that have to end: numbers below it go to `words` */
  constructor(operations: number, bounded: number) {
    this.#bounded = bounded;
    this.words = new Uint32Array((bounded + 31) >>> 5);
    this.optionalWords = new Uint32Array((operations - bounded + 31) >>> 5);
  }

  has(operation: number): boolean {
    if (operation >= this.#bounded) {
      const bit = operation - this.#bounded;
      return (((this.optionalWords[bit >>> 5] as number) >>> (bit & 31)) & 1) === 1;
    }
    return (((this.words[operation >>> 5] as number) >>> (operation & 31)) & 1) === 1;
  }

  /** Adds an operation that is not in the set. */
  add(operation: number): void {
    this.hash ^= scramble(operation);
    if (operation >= this.#bounded) return this.#flipOptional(operation);
    const { words } = this;
    const at = operation >>> 5;
    words[at] = (words[at] as number) | (1 << (operation & 31));
    if (at >= this.high) this.high = at + 1;
    while (this.low < this.high && words[this.low] === 0xffffffff) this.low++;
  }

  /** Takes out an operation that is in the set. */
  remove(operation: number): void {
    this.hash ^= scramble(operation);
    if (operation >= this.#bounded) return this.#flipOptional(operation);
    const { words } = this;
    const at = operation >>> 5;
    words[at] = (words[at] as number) & ~(1 << (operation & 31));
    if (at < this.low) this.low = at;
    while (this.high > 0 && words[this.high - 1] === 0) this.high--;
    if (this.low > this.high) this.low = this.high;
  }

  #flipOptional(operation: number): void {
    const bit = operation - this.#bounded;
    const at = bit >>> 5;
    this.optionalWords[at] = (this.optionalWords[at] as number) ^ (1 << (bit & 31));
  }
}

/** A hash set of configurations. */
export class ConfigSet {
  #slots: Int32Array = new Int32Array(INITIAL_SLOTS);
  #pool: Uint32Array = new Uint32Array(INITIAL_SLOTS * HEADER_WORDS * 2);
  #used = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Words in use; a search ends undecided before they are more than {@link MAX_WORDS}. */
  get words(): number {
    return this.#used;
  }

  /** Adds a configuration; says whether it is new. */
  add(set: LinearizedSet, state: number): boolean {
    const hash = scramble(set.hash ^ Math.imul(state + 1, 0x9e3779b1));
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (;;) {
      const found = this.#slots[slot] as number;
      if (found === 0) break;
      if (this.#isAt(found - 1, hash, set, state)) return false;
      slot = (slot + 1) & mask;
    }
    this.#slots[slot] = this.#write(hash, set, state) + 1;
    this.#size++;
    if (this.#size * 2 > this.#slots.length) this.#grow();
    return true;
  }

  #isAt(offset: number, hash: number, set: LinearizedSet, state: number): boolean {
    const pool = this.#pool;
    const { words, optionalWords, low } = set;
    const length = set.high - low;
    if (pool[offset] !== hash >>> 0 || pool[offset + 1] !== state) return false;
    if (pool[offset + 2] !== low || pool[offset + 3] !== length) return false;
    let at = offset + HEADER_WORDS;
    for (let i = 0; i < length; i++) if (pool[at++] !== words[low + i]) return false;
    for (let i = 0; i < optionalWords.length; i++) if (pool[at++] !== optionalWords[i]) return false;
    return true;
  }

  #write(hash: number, set: LinearizedSet, state: number): number {
    const { words, optionalWords, low } = set;
    const length = set.high - low;
    const offset = this.#used;
    const end = offset + HEADER_WORDS + length + optionalWords.length;
    if (end > this.#pool.length) this.#pool = enlarged(this.#pool, end);
    const pool = this.#pool;
    pool[offset] = hash;
    pool[offset + 1] = state;
    pool[offset + 2] = low;
    pool[offset + 3] = length;
    pool[offset + 4] = optionalWords.length;
    let at = offset + HEADER_WORDS;
    for (let i = 0; i < length; i++) pool[at++] = words[low + i] as number;
    for (let i = 0; i < optionalWords.length; i++) pool[at++] = optionalWords[i] as number;
    this.#used = end;
    return offset;
  }

  #grow(): void {
    const slots = new Int32Array(this.#slots.length * 2);
    const pool = this.#pool;
    const mask = slots.length - 1;
    for (let offset = 0; offset < this.#used; ) {
      let slot = (pool[offset] as number) & mask;
      while (slots[slot] !== 0) slot = (slot + 1) & mask;
      slots[slot] = offset + 1;
      offset += HEADER_WORDS + (pool[offset + 3] as number) + (pool[offset + 4] as number);
    }
    this.#slots = slots;
  }
}

function enlarged(pool: Uint32Array, atLeast: number): Uint32Array {
  const larger = new Uint32Array(Math.max(pool.length * 2, atLeast));
  larger.set(pool);
  return larger;
}

/** A bijection of 32-bit words without visible order (SplitMix32's finaliser). */
function scramble(value: number): number {
  let mixed = (value + 0x9e3779b9) | 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
  return mixed ^ (mixed >>> 15);
}
