/**
 * Options of a text collection, with their defaults and checks.
 *
 * Invariant: the shards and clients of one collection have equal resolved options, or they would find other terms in the
 * same text; a second open with others is refused.
 */
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import { checkLanguage, NO_LANGUAGE } from "./stemmers.ts";
import { STOP_WORD_LANGUAGES, stopWordsOf } from "./stop-words.ts";

/** Most fields of a collection. */
export const MAX_FIELDS = 16;
const MAX_FIELD_NAME = 128;
const MAX_STOP_WORDS = 10_000;
/** Boosts lie within [1 / this, this], so that no score becomes 0 or infinite. */
const MAX_BOOST = 1e6;

/** How a text collection is made. */
export interface TextCollectionOptions {
  /** Names of the fields, or how much each counts: within [1e-6, 1e6]. At most 16. @default { text: 1 } */
  readonly fields?: readonly string[] | Readonly<Record<string, number>>;
  /** Language whose stemmer joins the forms of a word (28 languages, see stemmers.ts), or "none". @default "none" */
  readonly language?: string;
  /**
   * Words to leave out: none; those of the language's list (english, german, french, spanish, italian, portuguese, dutch); or
   * a list. @default "none"
   */
  readonly stopWords?: "none" | "language" | readonly string[];
  /** Keep where each word stands, for phrases in double quotes; about twice the memory of the index. @default false */
  readonly positions?: boolean;
  /** How fast repetitions of a term saturate, in [0, 100]. @default 1.2 */
  readonly k1?: number;
  /** How much long fields are held back, in [0, 1]. @default 0.75 */
  readonly b?: number;
}

/** Options with nothing left open. Plain data, as it travels to shards. */
export interface ResolvedTextOptions {
  /** Sorted by code unit. */
  readonly fields: readonly string[];
  /** By field. */
  readonly boosts: readonly number[];
  readonly language: string;
  /** Folded, sorted, distinct. */
  readonly stopWords: readonly string[];
  readonly positions: boolean;
  readonly k1: number;
  readonly b: number;
}

/**
 * Fills the defaults and checks every option.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` with the name and value of the first option that is wrong.
 */
export function resolveTextOptions(options: TextCollectionOptions): ResolvedTextOptions {
  if (options === null || typeof options !== "object")
    throw invalidArgument("open collection", "options", "an object", options);
  const language = checkLanguage(options.language ?? NO_LANGUAGE);
  const positions = options.positions ?? false;
  if (typeof positions !== "boolean") throw invalidArgument("open collection", "positions", "a boolean", positions);
  return {
    ...resolveFields(options.fields ?? { text: 1 }),
    language,
    stopWords: resolveStopWords(options.stopWords ?? "none", language),
    positions,
    k1: numberIn("k1", options.k1 ?? 1.2, 0, 100),
    b: numberIn("b", options.b ?? 0.75, 0, 1),
  };
}

/** The same options as they were given by a user, for {@link resolveTextOptions} on the other side. */
export function toTextOptions(resolved: ResolvedTextOptions): TextCollectionOptions {
  const { fields, boosts, language, stopWords, positions, k1, b } = resolved;
  const entries = fields.map((name, index): [string, number] => [name, boosts[index] as number]);
  return { fields: Object.fromEntries(entries), language, stopWords, positions, k1, b };
}

/** Options that were stored, as they were resolved or as a user gave them; checked again. */
export function resolveStoredOptions(stored: unknown): ResolvedTextOptions {
  const resolved = typeof stored === "object" && stored !== null && "boosts" in stored;
  return resolveTextOptions(
    resolved ? toTextOptions(stored as ResolvedTextOptions) : (stored as TextCollectionOptions),
  );
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` unless it is a number within the limits. */
export function checkBoost(action: string, field: string, boost: unknown): number {
  if (typeof boost === "number" && boost >= 1 / MAX_BOOST && boost <= MAX_BOOST) return boost;
  throw invalidArgument(action, `boost of field ${field}`, `a number in [${1 / MAX_BOOST}, ${MAX_BOOST}]`, boost);
}

/** @throws {ShardloomError} `ERR_COLLECTION_MISMATCH` naming the first option in which the two differ. */
export function assertSameTextOptions(existing: ResolvedTextOptions, wanted: ResolvedTextOptions): void {
  for (const name of Object.keys(existing) as (keyof ResolvedTextOptions)[]) {
    const [expected, value] = [JSON.stringify(existing[name]), JSON.stringify(wanted[name])];
    if (expected === value) continue;
    throw new ShardloomError(
      "ERR_COLLECTION_MISMATCH",
      `Cannot open collection as ${name} must be ${describeValue(existing[name])}: current value is ${describeValue(wanted[name])}`,
      { details: { name, expected, value } },
    );
  }
}

function resolveFields(fields: unknown): Pick<ResolvedTextOptions, "fields" | "boosts"> {
  if (typeof fields !== "object" || fields === null)
    throw invalidArgument("open collection", "fields", "an array of names or an object of boosts", fields);
  const given: [unknown, unknown][] = Array.isArray(fields)
    ? (fields as readonly unknown[]).map((name) => [name, 1])
    : Object.entries(fields);
  if (given.length < 1 || given.length > MAX_FIELDS)
    throw invalidArgument("open collection", "fields", `1 to ${MAX_FIELDS} fields`, given.length);
  const names: string[] = [];
  for (const [name] of given) {
    if (typeof name !== "string" || name === "" || name === "__proto__" || name.length > MAX_FIELD_NAME)
      throw invalidArgument("open collection", "field", `a name of 1 to ${MAX_FIELD_NAME} characters`, name);
    if (names.includes(name)) throw invalidArgument("open collection", "fields", "distinct names", name);
    names.push(name);
  }
  const boosts = new Map(given.map(([name, boost]) => [name, checkBoost("open collection", String(name), boost)]));
  names.sort((a, b) => (a < b ? -1 : 1)); // the order in which they were given means nothing
  return { fields: names, boosts: names.map((name) => boosts.get(name) as number) };
}

function resolveStopWords(stopWords: unknown, language: string): readonly string[] {
  if (stopWords === "none") return [];
  let words: unknown = stopWords;
  if (stopWords === "language") {
    words = stopWordsOf(language);
    if (words === undefined) {
      const rule = `"none" or a list, as only ${STOP_WORD_LANGUAGES.join(", ")} have one`;
      throw invalidArgument("open collection", `stopWords of language ${language}`, rule, stopWords);
    }
  }
  if (!Array.isArray(words) || words.length > MAX_STOP_WORDS)
    throw invalidArgument(
      "open collection",
      "stopWords",
      `"none", "language" or at most ${MAX_STOP_WORDS} words`,
      words,
    );
  const folded = (words as readonly unknown[]).map((word) => {
    if (typeof word !== "string" || word === "") throw invalidArgument("open collection", "stop word", "a word", word);
    const normal = word.normalize("NFKC");
    return (language === "turkish" ? normal.toLocaleLowerCase("tr") : normal.toLowerCase()).normalize("NFKC");
  });
  return [...new Set(folded)].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

function numberIn(name: string, value: number, least: number, most: number): number {
  if (typeof value === "number" && value >= least && value <= most) return value;
  throw invalidArgument("open collection", name, `a number in [${least}, ${most}]`, value);
}
