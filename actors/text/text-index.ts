/**
 * The index of one shard's documents: posting lists, document numbers, field lengths, and their sums by vshard.
 *
 * Derived state: it lives on the heap of the worker and is built again from the documents when the worker dies.
 *
 * Invariant: sums and frequencies are always exactly those of the live documents. A removed document's entries stay in the
 * lists, skipped, until a pass of `purge` has seen every list; only then is its number given out again.
 */
import type { Analyser } from "./analyser.ts";
import { type PostingLists, Postings } from "./postings.ts";

/** Dead documents before a purge is worth its pass, at least; and as a share of the live ones. */
const PURGE_LEAST = 256;
const PURGE_SHARE = 0.25;
/** Terms between two looks at the clock. */
const PURGE_STEP = 64;
/** The vshard of a dead document. */
const DEAD = -1;

/** Texts of a document by field; undefined where it has none. */
export type FieldTexts = readonly (string | undefined)[];

export class TextIndex {
  readonly postings: Postings;
  readonly fields: number;
  /** By document number. */
  rowOf: Int32Array = new Int32Array(256);
  /** By document number; below 0 = dead. */
  vshardOf: Int32Array = new Int32Array(256);
  /** Shape: `Uint32Array[documents × fields]`, terms of each field. */
  lengths: Uint32Array;
  /** Shape: `Float64Array[2 × fields]`, over all live documents: terms of each field, then documents that have any there. */
  readonly totals: Float64Array;
  readonly #analyser: Analyser;
  /** By vshard, as `totals`. */
  readonly #totalsIn: (Float64Array | undefined)[] = [];
  #documentOf: Int32Array = new Int32Array(256).fill(-1);
  /** Grows with every document that comes or goes. */
  changes = 0;
  #limit = 0;
  #live = 0;
  #free: number[] = [];
  #dead: number[] = [];
  #purging: number[] | undefined;
  #purgeTerm = 0;
  #counts: Int32Array = new Int32Array(256);
  readonly #ids: number[] = [];
  readonly #distinct: number[] = [];

  constructor(fields: number, withPositions: boolean, analyser: Analyser) {
    this.fields = fields;
    this.postings = new Postings(withPositions);
    this.lengths = new Uint32Array(256 * fields);
    this.totals = new Float64Array(2 * fields);
    this.#analyser = analyser;
  }

  /** Live documents. */
  get count(): number {
    return this.#live;
  }

  /** Document numbers are below this. */
  get limit(): number {
    return this.#limit;
  }

  /** Whether the lists hold entries of dead documents. */
  get hasDead(): boolean {
    return this.#dead.length > 0 || this.#purging !== undefined;
  }

  /** Whether the document of a row is in the index. */
  has(row: number): boolean {
    return row < this.#documentOf.length && (this.#documentOf[row] as number) >= 0;
  }

  /** As `totals`, of the documents of one vshard; undefined when it never had any. */
  totalsIn(vshard: number): Float64Array | undefined {
    return this.#totalsIn[vshard];
  }

  /** Adds the document of a row that is not in the index. Cost: O(terms). */
  add(row: number, vshard: number, texts: FieldTexts): void {
    const document = this.#takeDocument();
    if (row >= this.#documentOf.length) {
      const old = this.#documentOf;
      this.#documentOf = new Int32Array(Math.max(row + 1, old.length * 2)).fill(-1);
      this.#documentOf.set(old);
    }
    this.#documentOf[row] = document;
    this.rowOf[document] = row;
    this.vshardOf[document] = vshard;
    this.changes++;
    this.#live++;
    for (let field = 0; field < this.fields; field++) {
      const text = texts[field];
      const length = text === undefined ? 0 : this.#analyser.analyse(text);
      this.lengths[document * this.fields + field] = length;
      if (length === 0) continue;
      this.#addField(document, field);
      this.#addLength(vshard, field, length, 1);
    }
  }

  /** Takes the document of a row out, given the texts that it was added with. Does nothing for a row that is not in. */
  remove(row: number, texts: FieldTexts): void {
    if (!this.has(row)) return;
    const document = this.#documentOf[row] as number;
    const vshard = this.vshardOf[document] as number;
    this.#documentOf[row] = -1;
    this.vshardOf[document] = DEAD;
    this.changes++;
    this.#live--;
    const seen = new Set<number>();
    for (let field = 0; field < this.fields; field++) {
      const length = this.lengths[document * this.fields + field] as number;
      if (length > 0) this.#addLength(vshard, field, -length, -1);
      const text = texts[field];
      if (text === undefined) continue;
      this.#analyser.analyse(text);
      for (const term of this.#analyser.terms) seen.add(this.postings.find(term));
    }
    for (const term of seen) this.postings.forget(term);
    this.#dead.push(document);
  }

  /** The row of each document number, −1 = dead or free. */
  rows(): Int32Array {
    return this.rowOf
      .slice(0, this.#limit)
      .map((row, document) => ((this.vshardOf[document] as number) < 0 ? -1 : row));
  }

  /**
   * Takes over an index that was saved, into one that is empty.
   *
   * @param rows The row of each document number now, −1 = its document is gone: then its entries wait for `purge`.
   * @param vshards Of these rows.
   * @param lengths As {@link lengths}.
   */
  adopt(rows: Int32Array, vshards: Int32Array, lengths: Uint32Array, lists: PostingLists): void {
    this.#limit = rows.length;
    this.rowOf = Int32Array.from(rows);
    this.vshardOf = vshards.map((vshard, document) => ((rows[document] as number) < 0 ? DEAD : vshard));
    this.lengths = Uint32Array.from(lengths);
    const last = rows.reduce((most, row) => Math.max(most, row), 0);
    this.#documentOf = new Int32Array(last + 1).fill(-1);
    for (let document = 0; document < rows.length; document++) {
      const row = rows[document] as number;
      if (row < 0) {
        this.#dead.push(document);
        continue;
      }
      this.#documentOf[row] = document;
      this.#live++;
      for (let field = 0; field < this.fields; field++) {
        const length = lengths[document * this.fields + field] as number;
        if (length > 0) this.#addLength(vshards[document] as number, field, length, 1);
      }
    }
    this.postings.adopt(lists, (document) => (this.vshardOf[document] as number) >= 0);
    if (this.postings.limit > this.#counts.length) this.#counts = new Int32Array(this.postings.limit);
  }

  /** One slice of the removal of dead entries; true when more is left. */
  purge(deadlineMs: number, nowMs: () => number): boolean {
    if (this.#purging === undefined) {
      if (this.#dead.length < Math.max(PURGE_LEAST, this.#live * PURGE_SHARE)) return false;
      this.#purging = this.#dead;
      this.#dead = [];
      this.#purgeTerm = 0;
    }
    const isDead = (document: number): boolean => (this.vshardOf[document] as number) < 0;
    while (this.#purgeTerm < this.postings.limit) {
      const end = Math.min(this.postings.limit, this.#purgeTerm + PURGE_STEP);
      for (; this.#purgeTerm < end; this.#purgeTerm++) this.postings.purge(this.#purgeTerm, isDead);
      if (nowMs() >= deadlineMs) break;
    }
    if (this.#purgeTerm < this.postings.limit) return true;
    for (const document of this.#purging) this.#free.push(document);
    this.#purging = undefined;
    return false;
  }

  #addField(document: number, field: number): void {
    const { postings } = this;
    const { terms, positions } = this.#analyser;
    this.#ids.length = this.#distinct.length = 0;
    for (const term of terms) {
      const id = postings.intern(term);
      if (id >= this.#counts.length) this.#counts = widened(this.#counts, id + 1);
      this.#ids.push(id);
      const count = this.#counts[id] as number;
      this.#counts[id] = count + 1;
      if (count === 0) this.#distinct.push(id);
    }
    for (const id of this.#distinct) {
      const place = postings.append(id, document, field, this.#counts[id] as number);
      this.#counts[id] = place; // from here, where its next position goes
    }
    if (postings.positions !== undefined) {
      for (const [at, id] of this.#ids.entries()) {
        const place = this.#counts[id] as number;
        postings.positions.pageOf(id)[place] = positions[at] as number;
        this.#counts[id] = place + 1;
      }
    }
    for (const id of this.#distinct) this.#counts[id] = 0;
  }

  #addLength(vshard: number, field: number, length: number, holders: number): void {
    let totals = this.#totalsIn[vshard];
    if (totals === undefined) {
      totals = new Float64Array(2 * this.fields);
      this.#totalsIn[vshard] = totals;
    }
    for (const sums of [this.totals, totals]) {
      sums[field] = (sums[field] as number) + length;
      sums[this.fields + field] = (sums[this.fields + field] as number) + holders;
    }
  }

  #takeDocument(): number {
    const reused = this.#free.pop();
    if (reused !== undefined) return reused;
    const document = this.#limit++;
    if (document >= this.rowOf.length) {
      this.rowOf = widened(this.rowOf, document + 1);
      this.vshardOf = widened(this.vshardOf, document + 1);
      const lengths = new Uint32Array(this.rowOf.length * this.fields);
      lengths.set(this.lengths);
      this.lengths = lengths;
    }
    return document;
  }
}

function widened(from: Int32Array, least: number): Int32Array {
  const to = new Int32Array(Math.max(least, from.length * 2));
  to.set(from);
  return to;
}
