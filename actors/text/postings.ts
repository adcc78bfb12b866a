/**
 * The term dictionary and posting lists of one shard: term → entries (document number, field, occurrences), optionally with
 * the positions of the occurrences.
 *
 * ```
 *  entry     i32 document | i32 occurrences << 4 | field       entries of a document lie together, fields ascending
 *  positions i32 each, in the order of the entries, ascending within one
 * ```
 *
 * Invariant: a document's entries are appended once, all fields of a term before the next document; entries of dead documents
 * stay until `purge` has passed, so a document number must not be given out again before that. Lists are not sorted by
 * document: numbers are used again. `frequencies` is exact for the live documents: its owner counts dead ones out.
 */
import { BlockPool, WordLists } from "./block-pool.ts";

/** Words of an entry. */
export const ENTRY_WORDS = 2;
export const FIELD_MASK = 15;
export const FIELD_BITS = 4;

/** New terms after which the sorted list of terms is made again for the next prefix. */
const MAX_UNSORTED = 512;

/** All lists of a dictionary, the terms' lists one after the other. */
export interface PostingLists {
  readonly texts: readonly string[];
  /** Words of each term's entries, and the entries. */
  readonly entryWords: Uint32Array;
  readonly entries: Int32Array;
  /** As above, of positions; empty without them. */
  readonly positionWords: Uint32Array;
  readonly positions: Int32Array;
}

export class Postings {
  /** Live documents that have the term, in whatever field. */
  frequencies: Uint32Array = new Uint32Array(256);
  readonly entries: WordLists;
  readonly positions: WordLists | undefined;
  readonly #pool: BlockPool = new BlockPool();
  readonly #ids: Map<string, number> = new Map();
  readonly #texts: (string | undefined)[] = [];
  readonly #freeIds: number[] = [];
  #sorted: string[] = [];
  /** Terms that are new since `#sorted` was made; undefined when they are too many. */
  #unsorted: string[] | undefined = [];

  constructor(withPositions: boolean) {
    this.entries = new WordLists(this.#pool);
    this.positions = withPositions ? new WordLists(this.#pool) : undefined;
  }

  /** Terms in the dictionary. */
  get terms(): number {
    return this.#ids.size;
  }

  /** Term numbers are below this. */
  get limit(): number {
    return this.#texts.length;
  }

  get byteLength(): number {
    return this.#pool.byteLength;
  }

  /** Number of a term, or −1. */
  find(text: string): number {
    return this.#ids.get(text) ?? -1;
  }

  /** Number of a term, which is added when it is new. */
  intern(text: string): number {
    const known = this.#ids.get(text);
    if (known !== undefined) return known;
    const id = this.#freeIds.pop() ?? this.#texts.length;
    this.#texts[id] = text;
    this.#ids.set(text, id);
    this.#unsorted?.push(text);
    if (this.#unsorted !== undefined && this.#unsorted.length > MAX_UNSORTED) this.#unsorted = undefined;
    this.#ensure(id + 1);
    return id;
  }

  /** Appends an entry. @returns index in the page of `positions` where its positions belong; −1 without them */
  append(term: number, document: number, field: number, occurrences: number): number {
    const { entries } = this;
    const before = entries.counts[term] as number;
    const at = entries.extend(term, ENTRY_WORDS);
    const page = entries.pageOf(term);
    if (before === 0 || page[at - ENTRY_WORDS] !== document) this.frequencies[term] = this.#frequency(term) + 1;
    page[at] = document;
    page[at + 1] = (occurrences << FIELD_BITS) | field;
    return this.positions?.extend(term, occurrences) ?? -1;
  }

  /** A live document that had this term is gone. */
  forget(term: number): void {
    this.frequencies[term] = this.#frequency(term) - 1;
  }

  /** Terms that begin with a prefix, in the order of their texts, each once. */
  expand(prefix: string): number[] {
    if (this.#unsorted === undefined) this.#sort();
    const found = new Map<string, number>();
    const add = (text: string): void => {
      const id = this.#ids.get(text);
      if (id !== undefined) found.set(text, id);
    };
    for (let at = lowerBound(this.#sorted, prefix); at < this.#sorted.length; at++) {
      const text = this.#sorted[at] as string;
      if (!text.startsWith(prefix)) break;
      add(text);
    }
    for (const text of this.#unsorted ?? []) if (text.startsWith(prefix)) add(text);
    return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, id]) => id);
  }

  /** Removes the entries of documents that `isDead` says; a term that is left without any is forgotten. */
  purge(term: number, isDead: (document: number) => boolean): void {
    const text = this.#texts[term];
    if (text === undefined) return;
    const { entries, positions } = this;
    const page = entries.pageOf(term);
    const from = entries.offsetOf(term);
    const end = from + (entries.counts[term] as number);
    const places = positions?.pageOf(term);
    const firstPlace = positions?.offsetOf(term) ?? 0;
    let kept = from;
    let place = firstPlace;
    let keptPlace = firstPlace;
    for (let at = from; at < end; at += ENTRY_WORDS) {
      const occurrences = (page[at + 1] as number) >>> FIELD_BITS;
      if (!isDead(page[at] as number)) {
        page[kept] = page[at] as number;
        page[kept + 1] = page[at + 1] as number;
        kept += ENTRY_WORDS;
        places?.copyWithin(keptPlace, place, place + occurrences);
        keptPlace += occurrences;
      }
      place += occurrences;
    }
    if (kept === end) return;
    entries.truncate(term, kept - from);
    positions?.truncate(term, keptPlace - firstPlace);
    if (kept > from) return;
    this.#texts[term] = undefined;
    this.#ids.delete(text);
    this.#freeIds.push(term);
  }

  /** A copy of everything. */
  dump(): PostingLists {
    const terms = [...this.#ids.values()];
    const entries = dumpLists(this.entries, terms);
    const positions = this.positions && dumpLists(this.positions, terms);
    return {
      texts: [...this.#ids.keys()],
      entryWords: entries.words,
      entries: entries.lists,
      positionWords: positions?.words ?? new Uint32Array(),
      positions: positions?.lists ?? new Int32Array(),
    };
  }

  /** Takes over what {@link dump} gave, into a dictionary that is empty. */
  adopt(lists: PostingLists, isLive: (document: number) => boolean): void {
    let from = 0;
    let fromPosition = 0;
    for (const [at, text] of lists.texts.entries()) {
      const term = this.intern(text);
      const end = from + (lists.entryWords[at] as number);
      const list = lists.entries.subarray(from, end);
      appendList(this.entries, term, list);
      let frequency = 0;
      for (let word = 0, previous = -1; word < list.length; word += ENTRY_WORDS) {
        const document = list[word] as number;
        if (document !== previous && isLive(document)) frequency++;
        previous = document;
      }
      this.frequencies[term] = frequency;
      from = end;
      if (this.positions === undefined) continue;
      const endPosition = fromPosition + (lists.positionWords[at] as number);
      appendList(this.positions, term, lists.positions.subarray(fromPosition, endPosition));
      fromPosition = endPosition;
    }
  }

  #frequency(term: number): number {
    return this.frequencies[term] as number;
  }

  #ensure(terms: number): void {
    this.entries.ensure(terms);
    this.positions?.ensure(terms);
    if (terms <= this.frequencies.length) return;
    const frequencies = new Uint32Array(Math.max(terms, this.frequencies.length * 2));
    frequencies.set(this.frequencies);
    this.frequencies = frequencies;
  }

  #sort(): void {
    this.#sorted = [...this.#ids.keys()].sort((a, b) => (a < b ? -1 : 1));
    this.#unsorted = [];
  }
}

function dumpLists(from: WordLists, terms: readonly number[]): { words: Uint32Array; lists: Int32Array } {
  const words = Uint32Array.from(terms, (term) => from.counts[term] as number);
  const lists = new Int32Array(words.reduce((sum, count) => sum + count, 0));
  let at = 0;
  for (const term of terms) {
    const start = from.offsetOf(term);
    const count = from.counts[term] as number;
    lists.set(from.pageOf(term).subarray(start, start + count), at);
    at += count;
  }
  return { words, lists };
}

function appendList(to: WordLists, term: number, list: Int32Array): void {
  if (list.length === 0) return;
  const at = to.extend(term, list.length);
  to.pageOf(term).set(list, at);
}

function lowerBound(sorted: readonly string[], wanted: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] as string) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}
