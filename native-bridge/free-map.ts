/**
 * FreeMap: free memory of the arena as a bitmap of units, where blocks of any origin merge with their neighbours.
 *
 * Invariant: a set bit is a unit that nobody has. Bits of one range change word by word, so a thread that dies inside loses at
 * most the range in its hand; two threads that want one range find out by the bits that they did not get, and give back
 * what they did. Any thread, without a lock.
 * Source: bitmap allocation (Wilson et al., "Dynamic storage allocation", IWMM'95, §3.8), next fit.
 * Divergence: it is only looked at when the free lists cannot serve, so that its linear search costs nothing until then.
 */

/** Claims that others may spoil before a search gives up. */
const ATTEMPTS = 16;
const WORD_BITS = 32;

export class FreeMap {
  readonly #words: Int32Array;
  /** Where the next search starts. */
  #cursor = 0;

  /** @param words One bit for every unit; shared. */
  constructor(words: Int32Array) {
    this.#words = words;
  }

  /** Puts a range in that the caller has. */
  add(unit: number, count: number): void {
    for (let at = unit; at < unit + count; at = nextWord(at)) {
      Atomics.or(this.#words, at >>> 5, maskOf(at, unit + count)); // publishes the range
    }
  }

  /**
   * Takes a range out.
   *
   * Cost: one load per 32 units passed over; all of them when there is none.
   *
   * @returns Its first unit, or 0 when no range of that length is free.
   */
  take(count: number): number {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const from = this.#cursor;
      const unit = this.#find(count, from, this.#words.length) || this.#find(count, 0, this.#words.length);
      if (unit === 0) return 0;
      this.#cursor = unit >>> 5;
      if (this.#claim(unit, count)) return unit;
    }
    return 0;
  }

  #find(count: number, fromWord: number, toWord: number): number {
    let run = 0;
    for (let word = fromWord; word < toWord; word++) {
      const bits = this.#words[word] as number;
      if (bits === 0) {
        run = 0;
        continue;
      }
      if (bits === -1 && run + WORD_BITS < count) {
        run += WORD_BITS;
        continue;
      }
      for (let bit = 0; bit < WORD_BITS; bit++) {
        run = (bits >>> bit) & 1 ? run + 1 : 0;
        if (run === count) return word * WORD_BITS + bit + 1 - count;
      }
    }
    return 0;
  }

  #claim(unit: number, count: number): boolean {
    const end = unit + count;
    for (let at = unit; at < end; at = nextWord(at)) {
      const mask = maskOf(at, end);
      const got = Atomics.and(this.#words, at >>> 5, ~mask) & mask; // acquires the range
      if (got === mask) continue;
      Atomics.or(this.#words, at >>> 5, got);
      if (at > unit) this.add(unit, at - unit);
      return false;
    }
    return true;
  }
}

/** First unit of the word behind that of `unit`. */
function nextWord(unit: number): number {
  return (unit | (WORD_BITS - 1)) + 1;
}

/** The bits of `unit`'s word from `unit` to its end, or to `end`. */
function maskOf(unit: number, end: number): number {
  const first = unit & (WORD_BITS - 1);
  const last = Math.min(end, nextWord(unit)) - (unit - first);
  return last === WORD_BITS ? -1 << first : (1 << last) - (1 << first);
}
