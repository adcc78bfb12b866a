/**
 * Finds phrases: terms that stand at fixed distances in one field.
 *
 * Begins with the rarest term and keeps, for each document and field, where the phrase may begin; every further term thins
 * that out. Cost: one pass over the lists of all terms, and memory for the rarest one's occurrences.
 */
import { ENTRY_WORDS, FIELD_BITS, FIELD_MASK, type Postings } from "./postings.ts";
import type { TextIndex } from "./text-index.ts";

/** Occurrences of a phrase in one field of a document. */
type PhraseSink = (document: number, field: number, occurrences: number) => void;

export class PhraseMatcher {
  readonly #postings: Postings;
  readonly #fields: number;

  constructor(index: TextIndex) {
    this.#postings = index.postings;
    this.#fields = index.fields;
  }

  /** @param ids Term numbers, −1 = unknown. @param offsets Distance of each from the first. */
  match(ids: readonly number[], offsets: readonly number[], found: PhraseSink): void {
    if (ids.some((id) => id < 0)) return;
    const sizeOf = (at: number): number => this.#postings.entries.counts[ids[at] as number] as number;
    const order = ids.map((_, at) => at).sort((a, b) => sizeOf(a) - sizeOf(b) || a - b);
    let starts: Map<number, Int32Array> | undefined;
    for (const at of order) {
      starts = this.#thin(starts, ids[at] as number, offsets[at] as number);
      if (starts.size === 0) return;
    }
    for (const [key, places] of starts ?? []) found(Math.floor(key / this.#fields), key % this.#fields, places.length);
  }

  /** Places where the phrase may begin, by document · fields + field, that this term agrees with. */
  #thin(before: Map<number, Int32Array> | undefined, id: number, offset: number): Map<number, Int32Array> {
    const { entries, positions } = this.#postings;
    const thinned = new Map<number, Int32Array>();
    if (positions === undefined) return thinned;
    const page = entries.pageOf(id);
    const places = positions.pageOf(id);
    let place = positions.offsetOf(id);
    const from = entries.offsetOf(id);
    const end = from + (entries.counts[id] as number);
    for (let at = from; at < end; at += ENTRY_WORDS) {
      const packed = page[at + 1] as number;
      const next = place + (packed >>> FIELD_BITS);
      const key = (page[at] as number) * this.#fields + (packed & FIELD_MASK);
      const allowed = before?.get(key);
      if (before === undefined || allowed !== undefined) {
        const kept = places.slice(place, next).map((position) => position - offset);
        const both = allowed === undefined ? kept : intersection(kept, allowed);
        if (both.length > 0) thinned.set(key, both);
      }
      place = next;
    }
    return thinned;
  }
}

/** Of two ascending lists. */
function intersection(a: Int32Array, b: Int32Array): Int32Array {
  const both: number[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const difference = (a[i] as number) - (b[j] as number);
    if (difference === 0) both.push(a[i] as number);
    if (difference <= 0) i++;
    if (difference >= 0) j++;
  }
  return Int32Array.from(both);
}
