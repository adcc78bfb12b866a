/**
 * Languages that words can be reduced to their stems in: Snowball-like stemmers of the package @orama/stemmers.
 *
 * Invariant: a stemmer is a pure function of the word, so that a text gives the same terms on every shard and client. Each
 * language is loaded when a collection first wants it: all of them together cost a worker's start some 50 ms.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";

/** Reduces one folded word. */
export type Stemmer = (word: string) => string;

type Loader = () => Promise<{ readonly stemmer: Stemmer }>;

const LOADERS: Readonly<Record<string, Loader>> = {
  arabic: () => import("@orama/stemmers/arabic"),
  armenian: () => import("@orama/stemmers/armenian"),
  bulgarian: () => import("@orama/stemmers/bulgarian"),
  danish: () => import("@orama/stemmers/danish"),
  dutch: () => import("@orama/stemmers/dutch"),
  english: () => import("@orama/stemmers/english"),
  finnish: () => import("@orama/stemmers/finnish"),
  french: () => import("@orama/stemmers/french"),
  german: () => import("@orama/stemmers/german"),
  greek: () => import("@orama/stemmers/greek"),
  hungarian: () => import("@orama/stemmers/hungarian"),
  indian: () => import("@orama/stemmers/indian"),
  indonesian: () => import("@orama/stemmers/indonesian"),
  irish: () => import("@orama/stemmers/irish"),
  italian: () => import("@orama/stemmers/italian"),
  lithuanian: () => import("@orama/stemmers/lithuanian"),
  nepali: () => import("@orama/stemmers/nepali"),
  norwegian: () => import("@orama/stemmers/norwegian"),
  portuguese: () => import("@orama/stemmers/portuguese"),
  romanian: () => import("@orama/stemmers/romanian"),
  russian: () => import("@orama/stemmers/russian"),
  sanskrit: () => import("@orama/stemmers/sanskrit"),
  serbian: () => import("@orama/stemmers/serbian"),
  spanish: () => import("@orama/stemmers/spanish"),
  swedish: () => import("@orama/stemmers/swedish"),
  tamil: () => import("@orama/stemmers/tamil"),
  turkish: () => import("@orama/stemmers/turkish"),
  ukrainian: () => import("@orama/stemmers/ukrainian"),
};

/** Words are indexed as they are. */
export const NO_LANGUAGE = "none";

/** Every language there is a stemmer for, and `none`. */
export const LANGUAGES: readonly string[] = [NO_LANGUAGE, ...Object.keys(LOADERS)];

const loaded = new Map<string, Stemmer | undefined>([[NO_LANGUAGE, undefined]]);

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the language is unknown. */
export function checkLanguage(language: string): string {
  if (LANGUAGES.includes(language)) return language;
  throw invalidArgument("open collection", "language", `one of ${LANGUAGES.join(", ")}`, language);
}

/** Makes {@link stemmerOf} work for a language. */
export async function loadStemmer(language: string): Promise<void> {
  const load = LOADERS[checkLanguage(language)];
  if (load === undefined || loaded.has(language)) return;
  loaded.set(language, (await load()).stemmer);
}

/** Whether {@link stemmerOf} works for a language. */
export function isStemmerLoaded(language: string): boolean {
  return loaded.has(language);
}

/** The stemmer of a loaded language; undefined for `none`. */
export function stemmerOf(language: string): Stemmer | undefined {
  if (!loaded.has(language))
    throw new ShardloomError("ERR_INTERNAL", `Cannot analyse text as the stemmer for ${language} must be loaded`);
  return loaded.get(language);
}
