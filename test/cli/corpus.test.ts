/** The corpus: deterministic, bounded, and good enough that sensible queries find the right package. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findNodeModules, type Passage, passageText, readCorpus } from "../../src/cli/corpus.ts";
import { embed } from "../../src/cli/embedding.ts";

const SENTENCE = "Every word of this sentence is here to make a paragraph long enough to be kept as a passage. ";

describe("a small tree", () => {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-corpus-"));
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  afterAll(() => rmSync(folder, { recursive: true }));

  beforeAll(() => {
    for (let page = 0; page < 9; page += 1)
      write(`big/docs/${page}.md`, `# Page ${page}\n\nPage ${page}. ${SENTENCE.repeat(3)}`);
    write("@scope/small/README.md", `Small. ${SENTENCE}`);
    write("outer/node_modules/inner/readme.markdown", `Inner. ${SENTENCE}`);
    write("copy/README.md", `Small. ${SENTENCE}`);
    for (const name of ["LICENSE.md", "CHANGELOG.md", "README.fr.md", "README-zh_CN.md", "notes.txt"])
      write(`out/${name}`, SENTENCE);
    write(".cache/README.md", `Cached. ${SENTENCE}`);
    symlinkSync(join(folder, "big"), join(folder, "linked"));
  });

  test("is read in order, each text once, without licences, translations, hidden folders and links", async () => {
    const passages = await readCorpus({ folder });
    expect(passages.map(({ id }) => id)).toEqual([
      "@scope/small/README.md#0",
      ...Array.from({ length: 9 }, (_, page) => `big/docs/${page}.md#${page}`),
      "inner/readme.markdown#0",
    ]);
    expect(passages[1]).toMatchObject({ package: "big", file: "docs/0.md", heading: "Page 0" });
    expect(await readCorpus({ folder })).toEqual(passages);
  });

  test("gives every package its share of the limit", async () => {
    const passages = await readCorpus({ folder, limit: 5 });
    expect(passages.map(({ package: name }) => name)).toEqual(["@scope/small", "big", "big", "big", "inner"]);
    expect(await readCorpus({ folder, limit: 2 })).toHaveLength(2);
  });

  test("refuses a missing or empty folder and a bad limit", async () => {
    await expect(readCorpus({ folder: join(folder, "none") })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await expect(readCorpus({ folder: join(folder, "out") })).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
    await expect(readCorpus({ folder, limit: 0 })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });

  test("is found from inside a package, or above it", async () => {
    expect(await findNodeModules(join(folder, "outer/node_modules/inner"))).toBe(join(folder, "outer/node_modules"));
    expect(await findNodeModules(join(folder, "outer"))).toBe(join(folder, "outer/node_modules"));
  });
});

describe("the documentation of this repository", () => {
  let passages: Passage[] = [];
  let vectors: Float32Array[] = [];

  beforeAll(async () => {
    passages = await readCorpus();
    vectors = passages.map((passage) => embed(passageText(passage)));
  });

  test("is some thousand passages of many packages", () => {
    expect(passages.length).toBeGreaterThan(1000);
    expect(passages.length).toBeLessThanOrEqual(4000);
    expect(new Set(passages.map(({ package: name }) => name)).size).toBeGreaterThan(50);
    expect(new Set(passages.map(({ id }) => id)).size).toBe(passages.length);
    for (const vector of vectors) expect(Math.hypot(...vector)).toBeCloseTo(1, 4);
  });

  test.each([
    ["approximate nearest neighbour index", "usearch"],
    ["serialize MessagePack", "msgpackr"],
    ["property based testing", "fast-check"],
    ["transfer a value to a worker without copying", "comlink"],
    ["gzip compression in javascript", "fflate"],
    ["parse TOML", "smol-toml"],
  ])("%s → %s first", (query, expected) => {
    expect(search(query, 1)).toEqual([expected]);
  });

  test.each([
    ["structured clone of shared array buffer", "comlink"],
    ["thread pool", "piscina"],
    ["find unused files and dependencies", "knip"],
    ["semantic version range", "semver"],
  ])("%s → %s among the first three", (query, expected) => {
    expect(search(query, 3)).toContain(expected);
  });

  function search(query: string, count: number): (string | undefined)[] {
    const wanted = embed(query);
    return vectors
      .map((vector, index) => ({ index, score: vector.reduce((sum, value, at) => sum + value * (wanted[at] ?? 0), 0) }))
      .sort((a, b) => b.score - a.score)
      .slice(0, count)
      .map(({ index }) => passages[index]?.package);
  }
});
