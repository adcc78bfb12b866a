/** What a text's terms are, script by script. Golden: a change here makes stored collections answer differently. */
import { beforeAll, describe, expect, test } from "vitest";
import { Analyser } from "../../../actors/text/analyser.ts";
import { LANGUAGES, loadStemmer } from "../../../actors/text/stemmers.ts";
import { resolveTextOptions, type TextCollectionOptions } from "../../../actors/text/text-options.ts";
import { parseQuery } from "../../../actors/text/text-query.ts";
import { MAX_TERM_LENGTH } from "../../../actors/text/tokeniser.ts";

beforeAll(async () => {
  for (const language of LANGUAGES) await loadStemmer(language);
});

function terms(text: string, options: TextCollectionOptions = {}): string[] {
  const analyser = new Analyser(resolveTextOptions(options));
  analyser.analyse(text);
  expect(analyser.positions).toHaveLength(analyser.terms.length);
  return [...analyser.terms];
}

function queried(text: string, options: TextCollectionOptions = {}): string[] {
  const resolved = resolveTextOptions(options);
  return parseQuery(text, new Analyser(resolved), resolved.positions, false).terms.map(({ term, prefix }) =>
    prefix === "" ? term : `${prefix}*`,
  );
}

describe("words", () => {
  test.each<[string, string, string[]]>([
    ["ASCII", "Hello, World! it's 2nd_try v1.2", ["hello", "world", "it", "s", "2nd", "try", "v1", "2"]],
    ["nothing", " \t\n…—!? ", []],
    ["Latin with marks", "Crème Brûlée NAÏVE", ["crème", "brûlée", "naïve"]],
    ["marks apart or composed", "cafe\u0301 café", ["café", "café"]],
    ["compatibility forms", "ﬁne ２０２４ Ｆｕｌｌ Ⅷ", ["fine", "2024", "full", "viii"]],
    ["sharp s", "Straße STRASSE STRAẞE", ["strasse", "strasse", "strasse"]],
    ["Greek with final sigma", "ΟΔΟΣ οδος Οδός", ["οδοσ", "οδοσ", "οδόσ"]],
    ["Cyrillic", "Привет, МИР!", ["привет", "мир"]],
    ["Arabic", "السلام عليكم", ["السلام", "عليكم"]],
    ["Hebrew with points", "שָׁלוֹם עולם", ["שָׁלוֹם".normalize("NFKC"), "עולם"]],
    ["Devanagari keeps its vowel signs", "हिन्दी भाषा", ["हिन्दी", "भाषा"]],
    ["Korean", "안녕하세요 세계", ["안녕하세요", "세계"]],
    ["half-width Hangul and Kana", "ｶﾞｷﾞ", ["ガギ", "ギ"]],
    ["Han", "東京都", ["東京", "京都", "都"]],
    ["one Han character", "水", ["水"]],
    ["Hiragana and Katakana with a long vowel", "カレーを", ["カレ", "レー", "ーを", "を"]],
    ["Thai with vowels above", "ราคาดี", ["รา", "าค", "คา", "าดี", "ดี"]],
    ["scripts in one word", "iPhone手机壳v2", ["iphone", "手机", "机壳", "壳", "v2"]],
    ["beyond the basic plane", "𝐁𝐨𝐥𝐝 𐐀𐐁 😀", ["bold", "𐐨𐐩"]],
    ["digits of any script", "٣ ১২", ["٣", "১২"]],
    ["Turkish without its locale", "IŞIK İstanbul", ["işik", "i̇stanbul"]],
  ])("of %s", (_name, text, expected) => {
    expect(terms(text)).toEqual(expected);
  });

  test("keep their places, stop words and runs counted", () => {
    const analyser = new Analyser(resolveTextOptions({ language: "english", stopWords: "language" }));
    analyser.analyse("The state of the art 東京都 is near");
    expect(analyser.terms).toEqual(["state", "art", "東京", "京都", "都", "near"]);
    expect(analyser.positions).toEqual([1, 4, 5, 6, 7, 9]);
  });

  test("are cut at the longest length, not within a character", () => {
    expect(terms("a".repeat(1000))).toEqual(["a".repeat(MAX_TERM_LENGTH)]);
    const [cut] = terms(`${"a".repeat(MAX_TERM_LENGTH - 1)}𐐨𐐨`) as [string];
    expect(cut).toBe("a".repeat(MAX_TERM_LENGTH - 1));
  });

  test("are the same for a text and for its terms again: analysis is stable", () => {
    for (const text of ["Crème Brûlée", "ΟΔΟΣ", "straße", "ราคาดี", "東京都の天気", "हिन्दी", "ﬁne"])
      for (const term of terms(text)) expect(terms(term)[0]).toBe(term);
  });
});

describe("languages", () => {
  test.each<[string, string, string[]]>([
    ["english", "running runs runner", ["run", "run", "runner"]],
    ["german", "Häuser Straßen Strasse", ["haus", "strass", "strass"]],
    ["french", "continuellement continuer", ["continuel", "continu"]],
    ["russian", "книги книгами", ["книг", "книг"]],
    ["turkish", "IŞIK ışık", ["ışık", "ışık"]],
    ["greek", "ΑΝΘΡΩΠΟΣ άνθρωπος", ["ανθρωπ", "ανθρωπ"]],
  ])("%s joins the forms of a word", (language, text, expected) => {
    expect(terms(text, { language })).toEqual(expected);
  });

  test.each(LANGUAGES)("%s gives every word a term, whatever its script", (language) => {
    const words = [
      "a",
      "constructor",
      "__proto__",
      "toString",
      "123",
      "привет",
      "東",
      "مرحبا",
      "x".repeat(200),
      "ςς",
      "ß",
    ];
    for (const word of words) for (const term of terms(word, { language })) expect(term.length).toBeGreaterThan(0);
    expect(terms("running", { language })).toHaveLength(1);
  });

  test("stop words are left out of texts and queries: none, the language's, or a list in any case", () => {
    expect(terms("The cat IS on the mat", { language: "english", stopWords: "language" })).toEqual(["cat", "mat"]);
    expect(terms("The cat", { stopWords: ["CAT", "ΟΔΟΣ"] })).toEqual(["the"]);
    expect(terms("ΟΔΟΣ", { stopWords: ["οδος"] })).toEqual([]);
    expect(terms("the cat")).toEqual(["the", "cat"]);
    expect(queried("the cat", { language: "english", stopWords: "language" })).toEqual(["cat"]);
  });
});

describe("queries", () => {
  test("of scripts without spaces: pairs, and a single character as a beginning", () => {
    expect(queried("東京都")).toEqual(["東京", "京都"]);
    expect(queried("東")).toEqual(["東*"]);
    expect(queried("ดี")).toEqual(["ดี*"]);
  });

  test("count words that come again, and keep the distances in phrases", () => {
    const resolved = resolveTextOptions({ positions: true, stopWords: ["of", "the"] });
    const query = parseQuery('art "state of the art" art "one" "open', new Analyser(resolved), true, false);
    expect(query.terms.map(({ term }) => term)).toEqual(["art", "state", "one", "open"]);
    expect(query.clauses).toEqual([
      { weight: 2, terms: [0], offsets: [0] },
      { weight: 1, terms: [1, 0], offsets: [0, 3] },
      { weight: 1, terms: [2], offsets: [0] },
      { weight: 1, terms: [3], offsets: [0] },
    ]);
  });

  test.each<[string, unknown]>([
    ["nothing", ""],
    ["nothing but punctuation", ' ?! "" '],
    ["nothing but stop words", "of"],
    ["a phrase without positions", '"two words"'],
    ["too long", "a".repeat(20_000)],
    ["no string", 5],
  ])("of %s are refused", (_name, query) => {
    const resolved = resolveTextOptions({ stopWords: ["of"] });
    expect(() => parseQuery(query as string, new Analyser(resolved), false, false)).toThrowError(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
  });
});

describe("options", () => {
  test("are filled in, in one order of fields", () => {
    expect(resolveTextOptions({})).toEqual({
      fields: ["text"],
      boosts: [1],
      language: "none",
      stopWords: [],
      positions: false,
      k1: 1.2,
      b: 0.75,
    });
    expect(resolveTextOptions({ fields: { title: 2, body: 1 } })).toEqual(
      resolveTextOptions({ fields: { body: 1, title: 2 } }),
    );
    expect(resolveTextOptions({ fields: ["2", "1"] })).toMatchObject({ fields: ["1", "2"], boosts: [1, 1] });
  });

  test.each<[string, unknown]>([
    ["language", { language: "klingon" }],
    ["language", { language: "toString" }],
    ["fields", { fields: [] }],
    ["fields", { fields: ["a", "a"] }],
    ["fields", { fields: Array.from({ length: 17 }, (_, at) => `f${at}`) }],
    ["boost of field a", { fields: { a: 0 } }],
    ["boost of field a", { fields: { a: Number.NaN } }],
    ["boost of field a", { fields: { a: Number.POSITIVE_INFINITY } }],
    ["field", { fields: [""] }],
    ["field", { fields: ["__proto__"] }],
    ["k1", { k1: -1 }],
    ["k1", { k1: Number.NaN }],
    ["b", { b: 1.5 }],
    ["positions", { positions: "yes" }],
    ["stopWords", { stopWords: "all" }],
    ["stop word", { stopWords: [1] }],
    ["stopWords of language russian", { language: "russian", stopWords: "language" }],
  ])("%s out of its range is refused by name", (name, options) => {
    expect(() => resolveTextOptions(options as TextCollectionOptions)).toThrowError(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", details: expect.objectContaining({ name }) }),
    );
  });
});
