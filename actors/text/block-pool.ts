/**
 * Blocks of int32 words in pages of typed arrays: where posting lists lie.
 *
 * A block of size class c has 4 · 2^c words, contiguous within one page; one larger than a page has a page of its own. An
 * address is `page << PAGE_SHIFT | offset`. Freed blocks are used again for the same class.
 *
 * Invariant: a block that was allocated overlaps no other until it is freed. Not a typed array per list: half of all terms
 * occur once, and a typed array costs some 200 bytes of its own.
 */
const PAGE_SHIFT = 16;
const PAGE_WORDS: number = 1 << PAGE_SHIFT;
const OFFSET_MASK: number = PAGE_WORDS - 1;
const SMALLEST_WORDS = 4;
const CLASSES = 28;
const NO_PAGE = new Int32Array(0);

/** Words of a block of a size class. */
export function wordsOfClass(sizeClass: number): number {
  return SMALLEST_WORDS * 2 ** sizeClass;
}

export class BlockPool {
  readonly #pages: Int32Array[] = [];
  readonly #free: number[][] = Array.from({ length: CLASSES }, () => []);
  readonly #freePages: number[] = [];
  #page = -1;
  #cursor = PAGE_WORDS;

  /** Bytes of all pages. */
  get byteLength(): number {
    return this.#pages.reduce((sum, page) => sum + page.byteLength, 0);
  }

  /** The page that a block lies in; {@link offsetOf} is its first word there. */
  pageOf(address: number): Int32Array {
    return this.#pages[address >>> PAGE_SHIFT] as Int32Array;
  }

  offsetOf(address: number): number {
    return address & OFFSET_MASK;
  }

  /** Its contents are undefined. */
  allocate(sizeClass: number): number {
    const reused = this.#free[sizeClass]?.pop();
    if (reused !== undefined) return reused;
    const words = wordsOfClass(sizeClass);
    if (words >= PAGE_WORDS) return this.#addPage(words) * PAGE_WORDS;
    if (this.#cursor + words > PAGE_WORDS) {
      this.#page = this.#addPage(PAGE_WORDS);
      this.#cursor = 0;
    }
    const address = this.#page * PAGE_WORDS + this.#cursor;
    this.#cursor += words;
    return address;
  }

  free(address: number, sizeClass: number): void {
    if (wordsOfClass(sizeClass) < PAGE_WORDS) {
      (this.#free[sizeClass] as number[]).push(address);
      return;
    }
    const page = address >>> PAGE_SHIFT;
    this.#pages[page] = NO_PAGE;
    this.#freePages.push(page);
  }

  #addPage(words: number): number {
    const page = this.#freePages.pop() ?? this.#pages.length;
    this.#pages[page] = new Int32Array(words);
    return page;
  }
}

/** A growing list of words for each of many keys, in blocks of a pool. */
export class WordLists {
  /** Words in each list. */
  counts: Uint32Array = new Uint32Array(256);
  #starts: Uint32Array = new Uint32Array(256);
  /** Size class + 1; 0 = no block. */
  #classes: Uint8Array = new Uint8Array(256);
  readonly #pool: BlockPool;

  constructor(pool: BlockPool) {
    this.#pool = pool;
  }

  /** The array that a list lies in, from {@link offsetOf} on. Valid until the list changes. */
  pageOf(key: number): Int32Array {
    return this.#classes[key] === 0 ? NO_PAGE : this.#pool.pageOf(this.#starts[key] as number);
  }

  offsetOf(key: number): number {
    return this.#pool.offsetOf(this.#starts[key] as number);
  }

  /** Makes room for keys below this. */
  ensure(keys: number): void {
    if (keys <= this.counts.length) return;
    const length = Math.max(keys, this.counts.length * 2);
    this.#starts = grown(this.#starts, new Uint32Array(length));
    this.#classes = grown(this.#classes, new Uint8Array(length));
    this.counts = grown(this.counts, new Uint32Array(length)); // last: its length says what there is room for
  }

  /** Lengthens a list by `words` undefined words. @returns index of the first of them in {@link pageOf} */
  extend(key: number, words: number): number {
    const count = this.counts[key] as number;
    const wanted = count + words;
    const held = this.#classes[key] as number;
    if (held === 0 || wanted > wordsOfClass(held - 1)) this.#move(key, classFor(wanted));
    this.counts[key] = wanted;
    return this.offsetOf(key) + count;
  }

  /** Shortens a list, and gives memory back when it would fit in a quarter. */
  truncate(key: number, words: number): void {
    this.counts[key] = words;
    const held = (this.#classes[key] as number) - 1;
    if (held < 0) return;
    if (words === 0) {
      this.#pool.free(this.#starts[key] as number, held);
      this.#classes[key] = 0;
    } else if (held >= 2 && words <= wordsOfClass(held - 2)) this.#move(key, classFor(words));
  }

  #move(key: number, sizeClass: number): void {
    const held = (this.#classes[key] as number) - 1;
    const address = this.#pool.allocate(sizeClass);
    if (held >= 0) {
      const from = this.offsetOf(key);
      const old = this.pageOf(key).subarray(from, from + (this.counts[key] as number));
      this.#pool.pageOf(address).set(old, this.#pool.offsetOf(address));
      this.#pool.free(this.#starts[key] as number, held);
    }
    this.#starts[key] = address;
    this.#classes[key] = sizeClass + 1;
  }
}

function classFor(words: number): number {
  return Math.max(0, 30 - Math.clz32(words - 1));
}

function grown<T extends Uint32Array | Uint8Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
