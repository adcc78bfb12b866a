/** `shardloom graph run`: files in, values out, as LDBC Graphalytics has them. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { graph } from "../../src/cli/graph.ts";
import { type Finished, shardloom, shardloomHere } from "../support/command.ts";
import { differences } from "../support/graphs.ts";
import { LDBC_GRAPHS, type LdbcGraph } from "../support/ldbc-graphs.ts";

const folder = mkdtempSync(join(tmpdir(), "shardloom-cli-graph-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const EXAMPLE = LDBC_GRAPHS.find(({ name }) => name === "example-directed") as LdbcGraph;
const ARGUMENTS: Readonly<Record<string, readonly string[]>> = {
  PR: ["pagerank", "--iterations", "2"],
  WCC: ["wcc"],
  BFS: ["bfs", "--source", "1"],
  SSSP: ["sssp", "--source", "1"],
  CDLP: ["cdlp", "--iterations", "2"],
  LCC: ["lcc"],
};

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, name.endsWith(".gz") ? gzipSync(text) : text);
  return path;
}

/** The values of an output file; what is not reached is infinity. */
function valuesIn(path: string): Map<number, number> {
  const lines = readFileSync(path, "utf8").trim().split("\n");
  return new Map(
    lines
      .map((line) => line.split(" ") as [string, string])
      .map(([key, value]) => [Number(key), value === "infinity" ? Number.POSITIVE_INFINITY : Number(value)]),
  );
}

describe("shardloom graph run", () => {
  const edges = file("example.e", EXAMPLE.edges.replaceAll("|", "\n"));
  file("example.v", EXAMPLE.vertices.replaceAll("|", "\n"));

  it.each(Object.entries(ARGUMENTS))("%s writes what LDBC expects", async (algorithm, [name, ...more]) => {
    const expected = EXAMPLE.expected[algorithm];
    if (expected === undefined) throw new Error(`${algorithm} has no expected output`);
    const out = join(folder, `${algorithm}.txt`);
    // One of them as a user does.
    const run = algorithm === "PR" ? shardloom : (...args: string[]) => shardloomHere([graph], ...args);
    const { code, objects, stderr } = await run(
      "graph",
      "run",
      name as string,
      ...more,
      "--graph",
      edges,
      "--out",
      out,
      "--json",
    );
    expect(code, stderr).toBe(0);
    expect(objects.at(-1)).toMatchObject({ algorithm: name, vertices: 10, edges: 17, directed: true, attempts: 1 });
    const values = valuesIn(out);
    if (algorithm === "BFS")
      for (const [key, value] of values) if (value > 1e18) values.set(key, Number.POSITIVE_INFINITY);
    expect(differences(algorithm, expected.output, values)).toEqual([]);
  });

  it("reads edges alone, compressed, and shows what it found", async () => {
    const path = file("pairs.txt.gz", "a b\nb c\nd e\n");
    const { code, stdout, stderr } = await shardloom("graph", "run", "wcc", "--graph", path, "--workers", "2");
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("5 vertices, 3 edges");
    expect(stdout).toMatch(/component +vertices/);
  });

  it("says what is wrong, writes nothing, and ends with 2 or 1", async () => {
    const out = join(folder, "never.txt");
    const broken = file("broken.e", "1 2\n2 three four five\n");
    const cases: readonly [readonly string[], number, RegExp][] = [
      [["walk", "wcc", "--graph", edges], 2, /run, khop, path, triangles, motif/],
      [["run", "quickrank", "--graph", edges], 2, /quickrank/],
      [["run", "wcc"], 2, /--graph/],
      [["run", "bfs", "--graph", edges], 2, /--source/],
      [["run", "pagerank", "--graph", edges, "--damping", "1.5"], 2, /damping/],
      [["run", "bfs", "--graph", edges, "--source", "77", "--out", out], 1, /77/],
      [["run", "wcc", "--graph", broken, "--out", out], 1, /line 2|:2/],
      [["run", "wcc", "--graph", join(folder, "missing.e"), "--out", out], 1, /missing\.e/],
      [["run", "wcc", "--graph", edges, "--out", join(folder, "no", "out")], 1, /^(?!.*loaded).*\(ERR_NO_FILE\)/s],
      [["run", "wcc", "--graph", edges, "--out", folder], 1, /^(?!.*loaded).*\(ERR_IO\)/s],
    ];
    for (const [args, wanted, message] of cases) {
      const { code, stderr } = await shardloomHere([graph], "graph", ...args);
      expect([code, stderr], args.join(" ")).toEqual([wanted, expect.stringMatching(message)]);
    }
    expect([out, `${out}.new`, `${folder}.new`].map((path) => existsSync(path))).toEqual([false, false, false]);
  }, 60_000);
});

describe("shardloom graph with traversals", () => {
  const edges = file("walks.txt", "1 2 4\n2 3 4\n3 1 4\n3 4 1\n1 4 20\n5 5 1\n");
  const here = (...args: readonly string[]): Promise<Finished> =>
    shardloomHere([graph], "graph", ...args, "--workers", "2");
  const ask = async (...args: readonly string[]): Promise<Record<string, unknown>> => {
    const { code, stdout, stderr } = await here(...args, "--graph", edges, "--json");
    expect(code, stderr).toBe(0);
    return JSON.parse(stdout) as Record<string, unknown>;
  };

  it("gives what they find as JSON, and the bound that cut it short", async () => {
    const near = await ask("khop", "--source", "1", "--hops", "1", "--limit", "2");
    expect(near).toMatchObject({ traversal: "khop", vertices: 5, edges: 6, truncated: { by: "vertices", limit: 2 } });
    expect(near["depths"]).toEqual([
      [1, 0],
      [2, 1],
    ]);
    const light = await ask("path", "--source", "1", "--target", "4", "--weighted");
    expect(light).toMatchObject({ path: [1, 2, 3, 4], distance: 9 });
    expect(light).not.toHaveProperty("truncated");
    expect(await ask("triangles")).toMatchObject({ triangles: 2 });
    const rings = await ask("motif", "a>b,b>c,c>a");
    expect(rings["matches"]).toEqual([{ a: 1, b: 2, c: 3 }]);
    expect(rings).not.toHaveProperty("explain");
  }, 60_000);

  it("explains how it was found", async () => {
    const walk = await ask("khop", "--source", "1", "--explain");
    expect(walk).toMatchObject({ explain: { plan: { kind: "graph", shards: 2 }, repeats: 0 } });
    expect(await ask("triangles", "--explain")).toMatchObject({ triangles: 2, explain: { outcomes: [{}, {}] } });
    const run = ["run", "bfs", "--source", "1", "--explain"];
    expect(await ask(...run)).toMatchObject({ explain: { plan: { kind: "run" }, supersteps: { length: 4 } } });
    const { stdout } = await here(...run, "--graph", edges);
    expect(stdout).toMatch(/^superstep +exchange +active +sent +pushed +queued +computed +took$/m);
    expect(stdout).toMatch(/^shard +attempts +queued +served +bytes$/m);
  }, 60_000);

  it("shows it to people, and refuses what is wrong before it loads anything", async () => {
    const walk = ["path", "--source", "4", "--target", "1", "--direction"];
    const { code, stdout, stderr } = await here(...walk, "in", "--graph", edges);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("4 → 1 (1)");
    expect(stderr).toMatch(/loading/);
    // Walks that begin at 5 stay there, as its one edge leads back.
    const ranks = await here("run", "pagerank", "--source", "5", "--graph", edges);
    expect(ranks.stdout, ranks.stderr).toMatch(/^5 +1\.000$/m);
    const help = await here("--help");
    for (const name of ["pagerank", "wcc", "bfs", "sssp", "cdlp", "lcc", "khop", "path", "triangles", "motif"])
      expect(help.stdout).toMatch(new RegExp(`^Usage: .*\\b${name}\\b`, "m"));
    const cases: readonly [readonly string[], number, RegExp][] = [
      [["khop"], 2, /--source/],
      [["path", "--source", "1"], 2, /--target/],
      [["motif", "a>b>c"], 2, /a>b>c/],
      [["triangles", "--out", "file"], 2, /--out/],
      [["khop", "--source", "77", "--graph", edges], 1, /77/],
    ];
    for (const [args, wanted, message] of cases) {
      const ended = await here(...args);
      expect([ended.code, ended.stderr], args.join(" ")).toEqual([wanted, expect.stringMatching(message)]);
    }
  }, 60_000);
});
