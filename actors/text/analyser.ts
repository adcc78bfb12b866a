/**
 * Text → terms of the index: tokeniser, stop words, stemmer, in this order.
 *
 * Invariant: a pure function of text and options, so that removing a document finds exactly the terms that adding it
 * gave, and every shard and client agree. A position counts every word, stop words included, so that phrases keep their gaps.
 */
import { type Stemmer, stemmerOf } from "./stemmers.ts";
import type { ResolvedTextOptions } from "./text-options.ts";
import { foldTerm, tokenise, type WordSink } from "./tokeniser.ts";

/** Words whose stems are remembered; the table is emptied when it is full. */
const MAX_STEMS = 65_536;

/** Counts the ways of analysing that there have been: raise it whenever any text could give other terms or positions than before. */
const ANALYSIS = 1;

/** What the terms of a collection's texts depend on: indexes that were made by another analysis are of no use. */
export function analysisOf({ fields, language, stopWords, positions }: ResolvedTextOptions): string {
  // What letters are, and how they are folded, is a matter of the platform's version of Unicode.
  return JSON.stringify([ANALYSIS, process.versions["unicode"], fields, language, stopWords, positions]);
}

/** A term of a query. */
export interface QueryToken {
  readonly term: string;
  /** Position in the text it was found in. */
  readonly position: number;
  /** Whether every term that begins so is meant. */
  readonly prefix: boolean;
  /** The word before stemming. */
  readonly word: string;
}

/** Analyses the texts and queries of one collection. Keeps tables: one per thread. */
export class Analyser {
  /** Set by {@link analyse}: terms of the last text in order, and their positions. Valid until the next. */
  readonly terms: string[] = [];
  readonly positions: number[] = [];
  readonly #stop: ReadonlySet<string>;
  readonly #stem: Stemmer | undefined;
  readonly #locale: string | undefined;
  readonly #stems: Map<string, string> = new Map();
  readonly #document: WordSink = {
    word: (word) => this.#add(word),
    run: (characters) => this.#addRun(characters),
  };
  #position = 0;

  /** The stemmer of the options' language must be loaded. */
  constructor(options: ResolvedTextOptions) {
    this.#stop = new Set(options.stopWords);
    this.#stem = stemmerOf(options.language);
    this.#locale = options.language === "turkish" ? "tr" : undefined;
  }

  /** Fills {@link terms} and {@link positions} with those of a document's field. @returns how many */
  analyse(text: string): number {
    this.terms.length = 0;
    this.positions.length = 0;
    this.#position = 0;
    tokenise(text, this.#locale, this.#document);
    return this.terms.length;
  }

  /** The terms to search for, for a piece of a query. @param prefix Words stand for all that begin with them. */
  analyseQuery(text: string, prefix: boolean): QueryToken[] {
    const tokens: QueryToken[] = [];
    let position = 0;
    tokenise(text, this.#locale, {
      word: (word) => {
        if (!this.#stop.has(word)) tokens.push({ term: this.#termOf(word), position, prefix, word: foldTerm(word) });
        position++;
      },
      run: (characters) => {
        const pairs = Math.max(1, characters.length - 1);
        for (let at = 0; at < pairs; at++) {
          const term = (characters[at] as string) + (characters[at + 1] ?? "");
          tokens.push({ term, position: position + at, prefix: characters.length === 1, word: term });
        }
        position += characters.length;
      },
    });
    return tokens;
  }

  #add(word: string): void {
    if (!this.#stop.has(word)) {
      this.terms.push(this.#termOf(word));
      this.positions.push(this.#position);
    }
    this.#position++;
  }

  #addRun(characters: readonly string[]): void {
    for (let at = 0; at < characters.length; at++) {
      this.terms.push((characters[at] as string) + (characters[at + 1] ?? ""));
      this.positions.push(this.#position++);
    }
  }

  #termOf(word: string): string {
    if (this.#stem === undefined) return foldTerm(word);
    const known = this.#stems.get(word);
    if (known !== undefined) return known;
    const stem = this.#stem(word);
    const term = foldTerm(stem === "" ? word : stem);
    if (this.#stems.size === MAX_STEMS) this.#stems.clear();
    this.#stems.set(word, term);
    return term;
  }
}
