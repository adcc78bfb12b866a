/** The graph bench at smoke size, drawn and from a file: every part works; its figures mean nothing. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createRmat } from "../../bench/macro/graph-data.ts";
import { readGraphColumns } from "../../bench/macro/graph-file.ts";

const MAIN = fileURLToPath(new URL("../../bench/main.js", import.meta.url));

interface Report {
  readonly rows: readonly { readonly case: string; readonly side: string; readonly median: number }[];
  readonly goals: readonly { readonly id: string; readonly ratio: number }[];
  readonly notes: readonly string[];
}

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "shardloom-smoke-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function run(...more: string[]): Report {
  const file = join(folder, "graph.json");
  execFileSync(process.execPath, [MAIN, "graph", "--smoke", "--json", file, ...more], {
    stdio: "pipe",
    timeout: 110_000,
  });
  return JSON.parse(readFileSync(file, "utf8")) as Report;
}

/** The goals of a report that has rows for all of them. */
function goalsOf({ rows, goals, notes }: Report): readonly string[] {
  for (const { case: name, side, median } of rows) {
    // A process that has room already does not grow while it loads so little.
    if (name.endsWith("process at most")) expect(median, `${name} ${side}`).toBeGreaterThanOrEqual(0);
    else expect(median, `${name} ${side}`).toBeGreaterThan(0);
  }
  for (const { id, ratio } of goals) expect(ratio, id).toBeGreaterThan(0);
  const hasNative = !notes.some((note) => note.includes("C++ baselines skipped"));
  expect(rows.some(({ side }) => side === "native-pull")).toBe(hasNative);
  return goals.map(({ id }) => id).filter((id) => hasNative || id !== "P1b");
}

const withNative = (ids: readonly string[]): string[] =>
  ["P1", "P1b", "P2", "P3", "P4", "P4b", "P5"].filter((id) => id !== "P1b" || ids.includes(id));

describe("bench graph --smoke", () => {
  test("writes rows of every part, and a verdict for every goal", () => {
    const report = run();
    const ids = goalsOf(report);
    expect(ids).toEqual(withNative(ids));
    const cases = new Set(report.rows.map((row) => row.case));
    for (const name of ["load-rmat8", "pagerank-rmat8", "workers-rmat8", "bfs-rmat8", "growth-rmat6", "growth-rmat8"])
      expect(cases).toContain(name);
    const sides = report.rows.filter((row) => row.case === "workers-rmat8").map(({ side }) => side);
    const native = ids.includes("P1b") ? ["C++, 1 at once", "C++, 2 at once"] : [];
    expect(sides).toEqual(["1 worker", "2 workers", ...native]);
  }, 120_000);

  test("takes a graph of a file instead", () => {
    const { sources, targets } = createRmat({ scale: 7, seed: 9 });
    const file = join(folder, "drawn.txt");
    writeFileSync(file, [...sources].map((source, at) => `n${source} n${targets[at]}`).join("\n"));
    const report = run("--data", file);
    const ids = goalsOf(report);
    expect(ids).toEqual(withNative(ids));
    expect(report.rows.map((row) => row.case)).toContain("bfs-drawn.txt");
    expect(report.goals.find(({ id }) => id === "P4")).toMatchObject({
      note: expect.stringContaining(`${sources.length} edges`) as string,
    });
  }, 120_000);
});

describe("the graph of a file", () => {
  test("has its vertices numbered in their order, and undirected edges both ways, loops once", async () => {
    writeFileSync(join(folder, "small.v"), "7\n3\n11\n5\n");
    writeFileSync(join(folder, "small.e"), "3 7\n11 11\n");
    writeFileSync(
      join(folder, "small.properties"),
      "graph.small.vertex-file = small.v\ngraph.small.edge-file = small.e\ngraph.small.directed = false\n",
    );
    expect(await readGraphColumns(join(folder, "small.properties"))).toEqual({
      vertices: 4,
      sources: Uint32Array.of(1, 0, 2),
      targets: Uint32Array.of(0, 1, 2),
      weights: undefined,
    });
  });

  test("must have edges", async () => {
    writeFileSync(join(folder, "none.txt"), "\n");
    await expect(readGraphColumns(join(folder, "none.txt"))).rejects.toThrow(/has no edges/);
  });
});
