/**
 * A deterministic text embedding from hashed features. It is no language model: it knows words, not meanings.
 *
 * Features are words, pairs of neighbouring words and the character trigrams of words (so that *serialize* is near
 * *serialization*). Each feature adds ±weight at two places that a stable 32-bit hash gives; counts enter by their
 * logarithm, words that every documentation is full of count little, and the sum is scaled to length 1.
 *
 * Invariant: the same text gives the same bits on every machine and version, so that stored vectors stay valid; a text
 * without any word gives a vector of zeros.
 * Source: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009 (signed hashing).
 */
import { invalidArgument } from "../errors.ts";

export const EMBEDDING_DIMENSIONS = 256;

const PAIR_WEIGHT = 0.4;
const TRIGRAM_WEIGHT = 0.15;
const STOP_WEIGHT = 0.05;
const COMMON_WEIGHT = 0.35;
/** Words longer than this are hashes and addresses. */
const MAX_WORD = 40;

/** Words of English that carry grammar. */
const STOP_WORDS: ReadonlySet<string> = new Set(
  `a about after all also am an and any are as at be because been before being between both but by can could did do does
   done each either else every few for from get had has have he her here his how i if in into is it its just let like
   may me might more most much must my no nor not of off on once one only or other our out over own per she should so
   some such than that the their them then there these they this those through to too under until up upon us very was
   we well were what when where which while who why will with would yes you your e g i.e eg ie etc`.split(/\s+/),
);

/** Words that most documentation of code uses, whatever it is about. */
const COMMON_WORDS: ReadonlySet<string> = new Set(
  `add api argument available call change class code const create default docs documentation enable example export false
   file function github give have import include install instance js json javascript license make method mit module name
   need new node note npm null number object option package pass project provide property read readme require result
   return run see set start string support true ts type typescript undefined usage use user using value var version
   want way work write yarn pnpm http https www com org`.split(/\s+/),
);

/** One feature of a text: a text to be hashed, and what it weighs each time. */
interface Feature {
  readonly weight: number;
  count: number;
}

/**
 * Embeds a text.
 *
 * Cost: O(characters).
 *
 * @param dimensions Components of the vector, in `[16, 4096]`.
 * @returns `Float32Array[dimensions]` of length 1, or zeros when the text has no word.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` if `dimensions` is out of range.
 *
 * @example Compare two texts (cosine similarity)
 * const [a, b] = [embed("a pool of threads"), embed("thread pool")];
 * const similarity = a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
 */
export function embed(text: string, dimensions: number = EMBEDDING_DIMENSIONS): Float32Array {
  if (!Number.isInteger(dimensions) || dimensions < 16 || dimensions > 4096) {
    throw invalidArgument("embed text", "dimensions", "an integer in [16, 4096]", dimensions);
  }
  const sums = new Float64Array(dimensions);
  for (const [key, { weight, count }] of featuresOf(text)) {
    const value = weight * (1 + Math.log(count));
    const hash = stableHash(key);
    const other = mix(hash ^ 0x9e3779b9);
    // Two places a feature halve the damage of a collision; the sign bit is not used for the place.
    addAt(sums, hash, value);
    addAt(sums, other, value);
  }
  return normalized(sums);
}

function addAt(sums: Float64Array, hash: number, value: number): void {
  const place = (hash >>> 1) % sums.length;
  sums[place] = (sums[place] ?? 0) + ((hash & 1) === 0 ? value : -value);
}

function normalized(sums: Float64Array): Float32Array {
  let squares = 0;
  for (const value of sums) squares += value * value;
  const scale = squares === 0 ? 0 : 1 / Math.sqrt(squares);
  return Float32Array.from(sums, (value) => value * scale);
}

function featuresOf(text: string): Map<string, Feature> {
  const features = new Map<string, Feature>();
  const add = (key: string, weight: number): void => {
    const known = features.get(key);
    if (known === undefined) features.set(key, { weight, count: 1 });
    else known.count += 1;
  };
  let previous: string | undefined;
  for (const word of wordsOf(text)) {
    const weight = weightOf(word);
    add(word, weight);
    if (weight === STOP_WEIGHT) continue;
    if (previous !== undefined) add(`${previous} ${word}`, PAIR_WEIGHT * Math.min(weight, weightOf(previous)));
    previous = word;
    const padded = `<${word}>`;
    // A long word is not worth more than a short one.
    const share = (TRIGRAM_WEIGHT * weight) / Math.sqrt(Math.max(1, word.length / 5));
    for (let start = 0; start + 3 <= padded.length; start += 1) add(`#${padded.slice(start, start + 3)}`, share);
  }
  return features;
}

/** Lower-case word stems in order; `SharedArrayBuffer` gives its parts, as it is written in prose. */
function wordsOf(text: string): string[] {
  const spaced = text
    .normalize("NFKC")
    .replaceAll(/(\p{Ll}|\d)(\p{Lu})/gu, "$1 $2")
    .replaceAll(/(\p{Lu}+)(\p{Lu}\p{Ll})/gu, "$1 $2");
  const words = spaced.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return words.filter((word) => word.length <= MAX_WORD && !/^\d+$/.test(word)).map(stem);
}

function weightOf(word: string): number {
  if (word.length === 1 || STOP_WORDS.has(word)) return STOP_WEIGHT;
  return COMMON_WORDS.has(word) ? COMMON_WEIGHT : 1;
}

/** Takes off the commonest English endings; wrong stems are harmless as long as they are the same each time. */
function stem(word: string): string {
  if (word.length <= 3 || STOP_WORDS.has(word)) return word;
  const singular = word
    .replace(/ies$/, "y")
    .replace(/(ss|us|is)$|(sh|ch|x|ss)es$|s$/, (_, keep?: string, before?: string) => keep ?? before ?? "");
  const base = singular.replace(/(?<=[a-z]{3})(?:ing|ed)$/, "").replace(/([bdgmnprt])\1$/, "$1");
  const american = base.replace(/is(e?|ation|er)$/, "iz$1").replace(/(?<=[a-z]{3})our$/, "or");
  return american.replace(/(?<=[a-z]{3})(?:ation|er|e)$/, "");
}

/** FNV-1a over UTF-16 code units, then a full avalanche: 32 bits, the same for ever. */
export function stableHash(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return mix(hash);
}

/** The finaliser of MurmurHash3 (Appleby). */
function mix(value: number): number {
  let hash = value ^ (value >>> 16);
  hash = Math.imul(hash, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
