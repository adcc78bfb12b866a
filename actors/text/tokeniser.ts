/**
 * Text → words: the same on every shard and client, whatever their locale and ICU version.
 *
 * A word is a longest run of letters, numbers and marks of any script; everything else separates. Text is brought to NFKC and
 * folded to lower case first; ß equals ss and final ς equals σ (done after stemming, see {@link foldTerm}). Marks count:
 * `café` is not `cafe`.
 *
 * Scripts that write without spaces (Han, Hiragana, Katakana, Thai, Lao, Khmer, Burmese) have no words to see, so a run of
 * n characters (each with its marks) of these gives n terms: the n − 1 pairs of neighbours, and the last character alone. A
 * query's run of several characters is searched by its pairs, a single one by every term that begins with it, so that any
 * part of a run finds it.
 *
 * Source: Unicode Standard Annex 15 (normalisation) and 29 (what a word character is); overlapping pairs as in Lucene's
 * CJKBigramFilter. Divergence: no dictionary (`Intl.Segmenter` cuts differently from one ICU version to the next, and two
 * processes must agree), and the last character is a term.
 */

/** Longest term in UTF-16 code units; what is beyond is cut off, in documents and queries alike. */
export const MAX_TERM_LENGTH = 128;

const ASCII_ONLY = /^[\0-\x7f]*$/;
const ASCII_WORD = /[a-z0-9]+/g;
const WORD = /[\p{L}\p{N}\p{M}]+/gu;
const UNSPACED =
  "\\p{Script_Extensions=Han}\\p{Script_Extensions=Hiragana}\\p{Script_Extensions=Katakana}\\p{Script_Extensions=Thai}\\p{Script_Extensions=Lao}\\p{Script_Extensions=Khmer}\\p{Script_Extensions=Myanmar}";
const HAS_UNSPACED = new RegExp(`[${UNSPACED}]`, "u");
/** A run without spaces with its marks, or a run of anything else. */
const SCRIPT_RUN = new RegExp(`[${UNSPACED}][${UNSPACED}\\p{M}]*|[^${UNSPACED}]+`, "gu");
const CHARACTER = /\P{M}\p{M}*|\p{M}+/gu;

/** What to do with the words of a text, in order. */
export interface WordSink {
  /** A word as it stands in the folded text. */
  word(word: string): void;
  /** A run of a script without spaces, as characters with their marks. */
  run(characters: readonly string[]): void;
}

/** @param locale Language whose lower case differs from Unicode's ("tr"), or undefined. */
export function tokenise(text: string, locale: string | undefined, sink: WordSink): void {
  if (ASCII_ONLY.test(text)) {
    const lower = locale === undefined ? text.toLowerCase() : text.toLocaleLowerCase(locale);
    if (locale === undefined) {
      for (const word of lower.match(ASCII_WORD) ?? []) sink.word(cut(word));
      return;
    }
    splitWords(lower, sink);
    return;
  }
  const normal = text.normalize("NFKC");
  splitWords((locale === undefined ? normal.toLowerCase() : normal.toLocaleLowerCase(locale)).normalize("NFKC"), sink);
}

/** What two spellings of one stem have in common. */
export function foldTerm(term: string): string {
  return term.includes("ß") || term.includes("ς") ? term.replaceAll("ß", "ss").replaceAll("ς", "σ") : term;
}

function splitWords(folded: string, sink: WordSink): void {
  for (const word of folded.match(WORD) ?? []) {
    if (!HAS_UNSPACED.test(word)) {
      sink.word(cut(word));
      continue;
    }
    for (const part of word.match(SCRIPT_RUN) ?? []) {
      if (HAS_UNSPACED.test(part)) sink.run((part.match(CHARACTER) ?? []).map(cut));
      else sink.word(cut(part));
    }
  }
}

function cut(word: string): string {
  if (word.length <= MAX_TERM_LENGTH) return word;
  const last = word.charCodeAt(MAX_TERM_LENGTH - 1);
  return word.slice(0, last >= 0xd800 && last < 0xdc00 ? MAX_TERM_LENGTH - 1 : MAX_TERM_LENGTH);
}
