/** The commands as a user runs them: a process, its streams, its exit code. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { shardloom } from "../support/command.ts";

const folder = mkdtempSync(join(tmpdir(), "shardloom-cli-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** JSON lines of random vectors with payloads. */
function jsonLinesFile(name: string, rows: number, dimensions: number): string {
  const random = createSeededRandom(5);
  const lines = Array.from({ length: rows }, (_, row) =>
    JSON.stringify({
      id: `row-${row}`,
      vector: Array.from({ length: dimensions }, () => random.float()),
      payload: { row },
    }),
  );
  const path = join(folder, name);
  writeFileSync(path, `${lines.join("\n")}\n`);
  return path;
}

describe("shardloom demo", () => {
  it("indexes, answers, blocks a shard and measures, as JSON lines", async () => {
    const { code, objects, stderr } = await shardloom("demo", "--json", "--passages", "400", "a query of my own");
    expect(code, stderr).toBe(0);
    const byEvent = (event: string): Record<string, unknown>[] => objects.filter((entry) => entry["event"] === event);
    expect(byEvent("indexed")[0]).toMatchObject({ event: "indexed" });
    const { passages } = byEvent("indexed")[0] as { passages: number };
    expect(passages).toBeGreaterThan(100);
    expect(passages).toBeLessThanOrEqual(400);
    const answers = byEvent("answer");
    expect(answers.at(-1)).toMatchObject({ query: "a query of my own", completeness: { planned: 2, answered: 2 } });
    for (const answer of answers) {
      const hits = answer["hits"] as { score: number; package: string; text: string }[];
      expect(hits).toHaveLength(3);
      for (const hit of hits) expect(hit.package.length * hit.text.length).toBeGreaterThan(0);
      expect([...hits].sort((a, b) => b.score - a.score)).toEqual(hits);
    }
    const blocked = byEvent("blocked")[0] as { reads: number; asks: number; outcomes: string[] };
    expect(blocked.outcomes).toEqual(["ERR_TIMEOUT"]);
    expect(blocked.reads).toBeGreaterThan(1_000);
    expect(blocked.asks).toBeGreaterThan(0);
    const ranked = byEvent("ranked")[0] as { packages: number; ranks: { package: string; rank: number }[] };
    expect(ranked.packages).toBeGreaterThan(50);
    expect(ranked.ranks.map(({ rank }) => rank)).toEqual(ranked.ranks.map(({ rank }) => rank).sort((a, b) => b - a));
    expect(ranked.ranks[0]?.package).toMatch(/@\d/);
    const rows = byEvent("latencies")[0]?.["rows"] as { what: string; medianNs: number }[];
    expect(rows.map((row) => row.what)).toEqual([
      "one-sided read, 64 B",
      "one-sided read, 1024 B",
      "ask, one after the other",
      "ask, both sides parked",
      "postMessage, one after the other",
      "postMessage, both sides idle",
      "Comlink, one after the other",
      "Comlink, both sides idle",
    ]);
    for (const row of rows) expect(row.medianNs).toBeGreaterThan(0);
  });

  it("speaks plain text when nobody is at the terminal", async () => {
    const { code, stdout, stderr } = await shardloom("demo", "--passages", "100");
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("one-sided reads of its vectors");
    expect(stdout).toContain("Measured now");
    expect(stdout + stderr).not.toContain("\u001b[");
  });
});

describe("shardloom load", () => {
  it("loads a file, indexes it and measures recall", async () => {
    const path = jsonLinesFile("good.jsonl", 500, 12);
    const { code, objects, stderr } = await shardloom("load", path, "--json", "--sample", "20", "--k", "5");
    expect(code, stderr).toBe(0);
    expect(objects).toHaveLength(1);
    expect(objects[0]).toMatchObject({ format: "json-lines", dimensions: 12, rows: 500, queries: 20, k: 5, shards: 2 });
    expect(objects[0]?.["recall"]).toBeGreaterThan(0.9);
  });

  it("searches by the strategy, the index and the recall that it is given", async () => {
    const path = jsonLinesFile("levels.jsonl", 1_200, 12);
    const by = ["--strategy", "spire", "--index", "levels", "--recall", "0.9"];
    const { code, objects, stderr } = await shardloom("load", path, "--json", "--sample", "60", ...by);
    expect(code, stderr).toBe(0);
    const { answeredBy, codesRead } = objects[0] as { answeredBy: Record<string, number>; codesRead: number };
    expect(answeredBy["spire"]).toBeGreaterThan(0);
    expect(codesRead).toBeGreaterThan(0);
    const odd = await shardloom("load", path, "--json", "--index", "levels");
    expect([odd.code, odd.objects.at(-1)]).toMatchObject([1, { error: { code: "ERR_INVALID_ARGUMENT" } }]);
  });

  it("ends with 1 and a typed error for a file that is cut, corrupt or missing", async () => {
    const cut = jsonLinesFile("cut.jsonl", 50, 12);
    truncateSync(cut, 2_000);
    const truncated = await shardloom("load", cut, "--json");
    expect(truncated.code).toBe(1);
    const { error } = truncated.objects.at(-1) as { error: { code: string } };
    expect(error.code).toMatch(/^ERR_(TRUNCATED|CORRUPT)$/);
    const strange = join(folder, "strange.bin");
    writeFileSync(strange, "this is no vector file at all");
    expect((await shardloom("load", strange, "--json")).objects.at(-1)).toMatchObject({
      error: { code: "ERR_UNSUPPORTED_FORMAT" },
    });
    const missing = await shardloom("load", join(folder, "missing"));
    expect(missing.code).toBe(1);
    expect(missing.stderr).toContain("ERR_INVALID_ARGUMENT");
  });

  it("ends with 2 for wrong usage, with a hint", async () => {
    for (const args of [["load"], ["load", "x", "--metric", "manhattan"], ["load", "x", "--nonsense"], ["fly"]]) {
      const { code, stderr } = await shardloom(...args);
      expect(code, args.join(" ")).toBe(2);
      expect(stderr).toContain("--help");
    }
  });
});

describe("shardloom info", () => {
  it("starts a cluster once and tells what it found", async () => {
    const { code, objects } = await shardloom("info", "--json");
    expect(code).toBe(0);
    expect(objects[0]).toMatchObject({ machine: { node: process.version }, topology: { vshards: 64 } });
    expect(objects[0]?.["startMs"]).toBeGreaterThan(0);
  });
});

describe("shardloom placement", () => {
  it("shows an even placement, and the moves that a change would bring", async () => {
    const { code, objects } = await shardloom("placement", "--json", "--shards", "4", "--copies", "2", "--add", "1");
    expect(code).toBe(0);
    const [plan] = objects as unknown as [
      { shards: { primaries: number; held: number }[]; moves: { to: number }[]; movedCopies: number; ofCopies: number },
    ];
    expect(plan.shards).toHaveLength(5);
    for (const { primaries, held } of plan.shards) {
      expect(Math.abs(primaries - 64 / 5)).toBeLessThan(1.01);
      expect(Math.abs(held - 128 / 5)).toBeLessThan(1.01);
    }
    expect(plan.ofCopies).toBe(128);
    expect(plan.movedCopies).toBeLessThanOrEqual(32); // a fifth, and a few for evenness
    expect(plan.movedCopies).toBeGreaterThanOrEqual(25);
  });

  it("speaks plain text, and refuses shards that there are not", async () => {
    const shown = await shardloom("placement", "--shards", "3", "--copies", "2", "--drain", "2", "--moves");
    expect(shown.code).toBe(0);
    expect(shown.stdout).toMatch(/\d+ of 128 copies would move/);
    expect(shown.stdout).toMatch(/vshard \d+ (primary|replica): shard 2 → shard [01] \(draining\)/);
    const wrong = await shardloom("placement", "--shards", "3", "--remove", "7");
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain('shards between 0 and 2: "7" is none');
    expect((await shardloom("placement", "--shards", "2", "--remove", "0,1")).code).toBe(1);
  });
});
