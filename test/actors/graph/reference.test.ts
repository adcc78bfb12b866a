/** The reference algorithms give what LDBC says, on all its graphs; the comparison with its outputs can fail. */
import { describe, expect, test } from "vitest";
import {
  referenceGraph,
  referencePageRank,
  referencePersonalisedPageRank,
  referenceTriangles,
} from "../../../src/sim/workloads/graph-reference.ts";
import { compareOutput } from "./expected-output.ts";
import { EXAMPLES, HAS_GRAPHS, ldbcNames, readLdbc, referenceOutput } from "./ldbc.ts";

describe("reference algorithms", () => {
  test.each(EXAMPLES.map((graph) => [graph.name, graph] as const))("agree with LDBC on %s", (_name, graph) => {
    expect(graph.expected.size).toBe(6);
    for (const [algorithm, expected] of graph.expected) {
      expect(expected.size).toBe(graph.vertices.length);
      expect(compareOutput(algorithm, expected, referenceOutput(algorithm, graph)), algorithm).toEqual([]);
    }
  });

  test.skipIf(!HAS_GRAPHS)("agree with LDBC on all graphs of the data folder, and the examples are these", async () => {
    const names = ldbcNames();
    expect(names.length).toBeGreaterThanOrEqual(14);
    let outputs = 0;
    for (const name of names) {
      const graph = await readLdbc(name);
      const example = EXAMPLES.find((candidate) => candidate.name === name);
      if (example !== undefined) expect(graph).toEqual(example);
      expect(graph.expected.size).toBeGreaterThan(0);
      for (const [algorithm, expected] of graph.expected) {
        expect(compareOutput(algorithm, expected, referenceOutput(algorithm, graph)), `${name} ${algorithm}`).toEqual(
          [],
        );
        outputs++;
      }
    }
    expect(outputs).toBeGreaterThanOrEqual(24);
  });

  test("keep all of the mass, also what dangling vertices have", () => {
    const graph = referenceGraph(
      ["a", "b", "c"],
      [
        ["a", "b"],
        ["a", "c"],
        ["b", "c"],
      ],
      true,
    );
    const sum = (ranks: number[]): number => ranks.reduce((total, rank) => total + rank, 0);
    expect(sum(referencePageRank(graph, 0.85, 30))).toBeCloseTo(1, 12);
    expect(sum(referencePersonalisedPageRank(graph, ["b"], 0.85, 30))).toBeCloseTo(1, 12);
    const all = referencePersonalisedPageRank(graph, ["a", "b", "c"], 0.85, 30);
    for (const [index, rank] of referencePageRank(graph, 0.85, 30).entries()) expect(all[index]).toBeCloseTo(rank, 12);
  });

  test("count each triangle once", () => {
    const edges = [
      [1, 2],
      [2, 3],
      [3, 1],
      [1, 3],
      [3, 4],
      [4, 1],
      [4, 4],
    ] as const;
    expect(referenceTriangles(referenceGraph([1, 2, 3, 4], edges, true))).toBe(2);
    expect(referenceTriangles(referenceGraph([1, 2, 3, 4], edges, false))).toBe(2);
  });
});

describe("the comparison", () => {
  const expected = new Map([
    [1, 1],
    [2, 1],
    [3, 3],
  ]);
  const like = (...values: number[]): Map<number, number> => new Map(values.map((value, index) => [index + 1, value]));

  test("takes components by any name, and neither joined nor split ones", () => {
    expect(compareOutput("WCC", expected, like(7, 7, 1))).toEqual([]);
    expect(compareOutput("WCC", expected, like(7, 7, 7))).toHaveLength(1);
    expect(compareOutput("WCC", expected, like(7, 8, 9))).toHaveLength(1);
  });

  test("takes no other label or depth", () => {
    expect(compareOutput("CDLP", expected, like(7, 7, 1))).toHaveLength(3);
    expect(compareOutput("BFS", expected, like(1, 1, 3))).toEqual([]);
    expect(compareOutput("BFS", new Map([[1, Number.POSITIVE_INFINITY]]), like(9))).toHaveLength(1);
  });

  test("takes what is within a relative 1e-4", () => {
    expect(compareOutput("PR", expected, like(1.00009, 0.99991, 3.0002))).toEqual([]);
    expect(compareOutput("PR", expected, like(1.00011, 0.9998, Number.NaN))).toHaveLength(3);
    expect(compareOutput("SSSP", new Map([[1, Number.POSITIVE_INFINITY]]), like(1e300))).toHaveLength(1);
    expect(compareOutput("SSSP", new Map([[1, 1]]), like(Number.POSITIVE_INFINITY))).toHaveLength(1);
    expect(compareOutput("LCC", new Map([[1, 0]]), like(1e-9))).toHaveLength(1);
  });

  test("misses no vertex and takes no stranger", () => {
    expect(compareOutput("BFS", expected, like(1, 1))).toEqual(["3 is missing"]);
    expect(compareOutput("BFS", expected, like(1, 1, 3, 4))).toEqual(["4 should not be there"]);
  });
});
