/** The sides of the PageRank bench give the same ranks, and one that does not fails the bench. */
import { describe, expect, test } from "vitest";
import { measurePageRank } from "../../bench/macro/graph-measure.ts";
import { areRanks, type OpenPageRankSide, pageRankInput, plainPageRank } from "../../bench/macro/graph-page-rank.ts";
import { referenceGraph, referencePageRank, type WeightedEdge } from "../../src/sim/workloads/graph-reference.ts";

/** Stands for ours: the plain loop, with ranks that may be bent. */
const plainSide =
  (bend = 1): OpenPageRankSide =>
  (input) => {
    let ranks = new Float64Array(0);
    return {
      run: () => {
        const startedMs = performance.now();
        ranks = plainPageRank(input.out, input.damping, input.iterations).expected as Float64Array<ArrayBuffer>;
        return (performance.now() - startedMs) * 1e6;
      },
      isRight: () => areRanks(input, (vertex) => (ranks[vertex] as number) * (vertex === 3 ? bend : 1)),
    };
  };

const SMOKE = { mode: "smoke", seed: 5, log: () => undefined } as const;

describe("the PageRank bench", () => {
  test("holds all sides against the reference of LDBC", () => {
    const { graph, damping, iterations, expected, changes } = pageRankInput(8, 5, 6);
    const keys = Array.from({ length: graph.vertices }, (_, vertex) => vertex);
    const edges = Array.from(graph.sources, (source, edge): WeightedEdge => [source, graph.targets[edge] as number]);
    const ranks = referencePageRank(referenceGraph(keys, edges, true), damping, iterations);
    for (const [vertex, rank] of ranks.entries()) expect(expected[vertex]).toBeCloseTo(rank, 14);
    expect(expected.reduce((sum, rank) => sum + rank, 0)).toBeCloseTo(1, 12);
    expect(changes).toHaveLength(6);
    expect(keys.some((vertex) => !edges.some(([source]) => source === vertex))).toBe(true); // dangling vertices are there
  });

  test("measures ours, graphology's and, with a compiler, C++ both ways", async () => {
    const { rows, notes } = await measurePageRank(SMOKE, plainSide());
    const sides = rows.map(({ side }) => side);
    const native = notes.length === 0 ? ["native-pull", "native-push"] : [];
    expect(sides).toEqual(["shardloom", ...native, "graphology", "graphology-loop"]);
    for (const row of rows) {
      expect(row).toMatchObject({ case: "pagerank-rmat8", unit: "ns/edge" });
      expect(row.samples).toHaveLength(2);
      expect(row.median).toBeGreaterThan(0);
    }
  }, 120_000);

  test("fails when a side gives other ranks, by however little", async () => {
    await expect(measurePageRank(SMOKE, plainSide(1 + 1e-8))).rejects.toThrow(/by shardloom gave other ranks/);
  }, 120_000);
});
