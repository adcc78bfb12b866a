/**
 * Scores of one shard's documents for a query: BM25 or TF-IDF, from the statistics of the whole population.
 *
 * BM25 over weighted fields (BM25F): a term's occurrences are added over the fields, each weighted by its boost and held
 * back by its length, and saturate once:
 *   x(t, d) = Σ_f boost_f · tf_f / (1 − b + b · length_f / average_f),  score = Σ_t idf(t) · x · (k1 + 1) / (k1 + x),
 *   idf(t) = ln(1 + (N − df + 0.5) / (df + 0.5)).
 * average_f is over the documents that have the field. With one field and boost 1 it is the BM25 of the textbooks. TF-IDF: score = Σ_t ln(1 + N / df) · Σ_f boost_f · (1 + ln tf_f).
 * A prefix counts as one term with the occurrences of all its terms and df = documents with any of them; a phrase as one
 * with the occurrences of the phrase and the sum of its terms' idf.
 * Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), 3.4 and 3.6; idf and the phrase as
 * in Lucene's BM25Similarity; Manning, Raghavan, Schütze, Introduction to Information Retrieval, 6.4.1 for the logarithm of tf.
 * Divergence: every document that may match is scored; nothing is skipped by bounds.
 *
 * Invariant: scores are positive and finite. All sums over documents are of integers and all floats are added in the order
 * of the query's clauses and of the fields, so that a document's score does not depend on which shard it is in.
 */
import { PhraseMatcher } from "./phrase-matcher.ts";
import { ENTRY_WORDS, FIELD_BITS, FIELD_MASK } from "./postings.ts";
import type { TextIndex } from "./text-index.ts";
import type { QueryClause, QueryTerm, TextQuery } from "./text-query.ts";
import type { TopDocuments } from "./top-documents.ts";

export const SCORING = { BM25: 0, TF_IDF: 1 } as const;

/** Sums over a population of documents. */
export interface TextStatistics {
  documents: number;
  /** Shape: `Float64Array[2 × fields]`: terms of each field, then documents that have any there. */
  readonly lengths: Float64Array;
  /** Documents that have each term of the query, in a field that is searched. */
  readonly frequencies: Float64Array;
}

/** How to search. */
export interface SearchSettings {
  /** One of {@link SCORING}. */
  readonly scoring: number;
  /** By field; 0 = not searched. */
  readonly boosts: ArrayLike<number>;
  /** Whether a document must match every clause. */
  readonly all: boolean;
}

/** By vshard: not 0 = its documents are asked for. Undefined: all are. */
export type VshardMask = Uint8Array | undefined;

/** Scores for one thread: it keeps tables as long as the index has documents. */
export class TextScorer {
  readonly #index: TextIndex;
  readonly #k1: number;
  readonly #b: number;
  readonly #phrases: PhraseMatcher;
  #scores: Float64Array = new Float64Array(0);
  /** Clauses that each document has matched. */
  #matched: Int32Array = new Int32Array(0);
  #touched: Int32Array = new Int32Array(0);
  #touchedCount = 0;
  /** Shape: `Int32Array[documents × fields]`: occurrences of a prefix or phrase; all 0 between clauses. */
  #table: Int32Array = new Int32Array(0);
  readonly #tabled: number[] = [];
  // Of the search at hand.
  #settings: SearchSettings = { scoring: SCORING.BM25, boosts: [], all: false };
  #mask: VshardMask;
  #check = false;
  readonly #slopes: Float64Array;

  constructor(index: TextIndex, k1: number, b: number) {
    this.#index = index;
    this.#k1 = k1;
    this.#b = b;
    this.#phrases = new PhraseMatcher(index);
    this.#slopes = new Float64Array(index.fields);
  }

  /** Sums for the terms of a query. @param documents Live documents of the mask's vshards. */
  statistics(
    terms: readonly QueryTerm[],
    boosts: ArrayLike<number>,
    mask: VshardMask,
    documents: number,
  ): TextStatistics {
    const { fields, totals } = this.#index;
    this.#begin({ scoring: SCORING.BM25, boosts, all: false }, mask);
    const lengths = mask === undefined ? Float64Array.from(totals) : new Float64Array(2 * fields);
    for (let vshard = 0; vshard < (mask?.length ?? 0); vshard++) {
      const part = (mask?.[vshard] as number) > 0 ? this.#index.totalsIn(vshard) : undefined;
      if (part !== undefined) for (const [at, value] of part.entries()) lengths[at] = (lengths[at] as number) + value;
    }
    let wholeIndex = mask === undefined;
    for (let field = 0; field < fields; field++) if (!((boosts[field] as number) > 0)) wholeIndex = false;
    return { documents, lengths, frequencies: Float64Array.from(terms, (term) => this.#frequency(term, wholeIndex)) };
  }

  /** Offers every matching document with its score. The caller begins and takes `top`. */
  search(
    query: TextQuery,
    settings: SearchSettings,
    statistics: TextStatistics,
    mask: VshardMask,
    top: TopDocuments,
  ): void {
    this.#begin(settings, mask);
    this.#prepare(statistics);
    for (const clause of query.clauses) this.#scoreClause(query, clause, statistics);
    const { rowOf } = this.#index;
    const wanted = settings.all ? query.clauses.length : 0;
    for (let at = 0; at < this.#touchedCount; at++) {
      const document = this.#touched[at] as number;
      const score = this.#scores[document] as number;
      this.#scores[document] = 0;
      if (wanted > 0) {
        const matched = this.#matched[document] as number;
        this.#matched[document] = 0;
        if (matched < wanted) continue;
      }
      if (score >= top.floor) top.offer(rowOf[document] as number, score);
    }
    this.#touchedCount = 0;
  }

  /** Which of `rows` match each clause. Shape: `Uint8Array[rows × clauses]`, 1 = matches. */
  matches(query: TextQuery, settings: SearchSettings, statistics: TextStatistics, rows: readonly number[]): Uint8Array {
    const placeOf = new Map(rows.map((row, place) => [row, place]));
    const matches = new Uint8Array(rows.length * query.clauses.length);
    this.#begin({ ...settings, all: false }, undefined);
    this.#prepare(statistics);
    for (const [at, clause] of query.clauses.entries()) {
      this.#scoreClause(query, clause, statistics);
      for (let touched = 0; touched < this.#touchedCount; touched++) {
        const document = this.#touched[touched] as number;
        this.#scores[document] = 0;
        const place = placeOf.get(this.#index.rowOf[document] as number);
        if (place !== undefined) matches[place * query.clauses.length + at] = 1;
      }
      this.#touchedCount = 0;
    }
    return matches;
  }

  #begin(settings: SearchSettings, mask: VshardMask): void {
    this.#settings = settings;
    this.#mask = mask;
    this.#check = mask !== undefined || this.#index.hasDead;
    const { limit, fields } = this.#index;
    if (limit <= this.#touched.length) return;
    const { length } = this.#index.rowOf;
    this.#scores = new Float64Array(length);
    this.#matched = new Int32Array(length);
    this.#touched = new Int32Array(length);
    this.#table = new Int32Array(length * fields);
  }

  /** A population without a term in a field has no average for it; 1 stands in, as statistics may be older than documents. */
  #prepare({ lengths }: TextStatistics): void {
    const fields = this.#slopes.length;
    for (let field = 0; field < fields; field++) {
      const total = lengths[field] as number;
      const holders = lengths[fields + field] as number;
      this.#slopes[field] = this.#b / (total > 0 && holders > 0 ? total / holders : 1);
    }
  }

  #counts(document: number): boolean {
    const vshard = this.#index.vshardOf[document] as number;
    return vshard >= 0 && (this.#mask === undefined || (this.#mask[vshard] as number) > 0);
  }

  #frequency(term: QueryTerm, wholeIndex: boolean): number {
    const { postings } = this.#index;
    if (term.prefix === "" && wholeIndex) {
      const id = postings.find(term.term);
      return id < 0 ? 0 : (postings.frequencies[id] as number);
    }
    for (const id of this.#termsOf(term)) this.#addToTable(id);
    const frequency = this.#tabled.length;
    this.#clearTable();
    return frequency;
  }

  #termsOf({ term, prefix }: QueryTerm): number[] {
    const { postings } = this.#index;
    const ids = prefix === "" ? [] : postings.expand(prefix);
    const exact = postings.find(term);
    if (exact >= 0 && !ids.includes(exact)) ids.push(exact);
    return ids;
  }

  #idf(term: number, { documents, frequencies }: TextStatistics): number {
    const frequency = frequencies[term] as number;
    // Statistics may be older than the documents here: the frequency of what is found is at least 1 and at most N.
    const count = Math.max(documents, 1);
    const bounded = Math.min(Math.max(frequency, 1), count);
    if (this.#settings.scoring === SCORING.TF_IDF) return Math.log(1 + count / bounded);
    return Math.log(1 + (count - bounded + 0.5) / (bounded + 0.5));
  }

  #scoreClause({ terms }: TextQuery, { weight, terms: used, offsets }: QueryClause, statistics: TextStatistics): void {
    let idf = 0;
    for (const term of used) idf += this.#idf(term, statistics);
    if (used.length > 1) {
      const ids = used.map((term) => this.#index.postings.find((terms[term] as QueryTerm).term));
      this.#phrases.match(ids, offsets, (document, field, occurrences) => this.#addEntry(document, field, occurrences));
      this.#scoreTable(weight * idf);
      return;
    }
    const term = terms[used[0] as number] as QueryTerm;
    if (term.prefix !== "") {
      for (const id of this.#termsOf(term)) this.#addToTable(id);
      this.#scoreTable(weight * idf);
      return;
    }
    const id = this.#index.postings.find(term.term);
    if (id < 0) return;
    if (this.#settings.scoring === SCORING.BM25) this.#scoreTerm(id, weight * idf);
    else {
      this.#addToTable(id);
      this.#scoreTable(weight * idf);
    }
  }

  /** The common case: BM25 of one term, straight from its list. */
  #scoreTerm(id: number, scale: number): void {
    const { postings, lengths, fields } = this.#index;
    const { boosts } = this.#settings;
    const { entries } = postings;
    const page = entries.pageOf(id);
    let at = entries.offsetOf(id);
    const end = at + (entries.counts[id] as number);
    const k1 = this.#k1;
    const base = 1 - this.#b;
    const factor = scale * (k1 + 1);
    const slopes = this.#slopes;
    const check = this.#check;
    while (at < end) {
      const document = page[at] as number;
      let x = 0;
      do {
        const packed = page[at + 1] as number;
        const field = packed & FIELD_MASK;
        const length = lengths[document * fields + field] as number;
        x += ((boosts[field] as number) * (packed >>> FIELD_BITS)) / (base + (slopes[field] as number) * length);
        at += ENTRY_WORDS;
      } while (at < end && page[at] === document);
      if (x > 0 && (!check || this.#counts(document))) this.#addScore(document, (factor * x) / (k1 + x));
    }
  }

  #addScore(document: number, score: number): void {
    const before = this.#scores[document] as number;
    if (before === 0) this.#touched[this.#touchedCount++] = document;
    this.#scores[document] = before + score;
    if (this.#settings.all) this.#matched[document] = (this.#matched[document] as number) + 1;
  }

  #addToTable(id: number): void {
    const { entries } = this.#index.postings;
    const page = entries.pageOf(id);
    const from = entries.offsetOf(id);
    const end = from + (entries.counts[id] as number);
    for (let at = from; at < end; at += ENTRY_WORDS) {
      const packed = page[at + 1] as number;
      this.#addEntry(page[at] as number, packed & FIELD_MASK, packed >>> FIELD_BITS);
    }
  }

  /** Adds occurrences in one field of a document, if it is asked for. */
  #addEntry(document: number, field: number, occurrences: number): void {
    if (!((this.#settings.boosts[field] as number) > 0) || (this.#check && !this.#counts(document))) return;
    const first = document * this.#index.fields;
    if (!this.#hasEntry(first)) this.#tabled.push(document);
    this.#table[first + field] = (this.#table[first + field] as number) + occurrences;
  }

  #hasEntry(first: number): boolean {
    for (let at = first; at < first + this.#index.fields; at++) if (this.#table[at] !== 0) return true;
    return false;
  }

  #scoreTable(scale: number): void {
    const { lengths, fields } = this.#index;
    const { boosts, scoring } = this.#settings;
    const bm25 = scoring === SCORING.BM25;
    const k1 = this.#k1;
    for (const document of this.#tabled) {
      let x = 0;
      for (let field = 0; field < fields; field++) {
        const at = document * fields + field;
        const occurrences = this.#table[at] as number;
        if (occurrences === 0) continue;
        const norm = bm25 ? 1 - this.#b + (this.#slopes[field] as number) * (lengths[at] as number) : 1;
        x += ((boosts[field] as number) * (bm25 ? occurrences : 1 + Math.log(occurrences))) / norm;
      }
      this.#addScore(document, bm25 ? (scale * (k1 + 1) * x) / (k1 + x) : scale * x);
    }
    this.#clearTable();
  }

  #clearTable(): void {
    const { fields } = this.#index;
    for (const document of this.#tabled) this.#table.fill(0, document * fields, (document + 1) * fields);
    this.#tabled.length = 0;
  }
}
