/** Motif search against all ways to bind a pattern, its bounds, and the patterns that it refuses. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Motif, type MotifEdge, planMotif } from "../../../../actors/graph/traversal/motif-pattern.ts";
import { findMotif, type MotifMatch, type MotifOptions } from "../../../../actors/graph/traversal/motif-search.ts";
import { countTriangles } from "../../../../actors/graph/traversal/triangle-count.ts";
import { meets, type VertexConditions } from "../../../../actors/graph/traversal/vertex-conditions.ts";
import type { VertexKey } from "../../../../actors/graph/vertex-key.ts";
import { type ReferenceGraph, referenceGraph } from "../../../../src/sim/workloads/graph-reference.ts";
import { same } from "../same.ts";
import { adjacencyOf, smallGraph } from "./adjacency.ts";

const edge = (text: string): MotifEdge => ({ from: text[0] as string, to: text[2] as string, either: text[1] === "-" });
const motif = (text: string, anchors?: Record<string, VertexKey>): Motif => ({
  edges: text.split(" ").map(edge),
  anchors,
});

/** Every way to bind the pattern's vertices to different vertices, tried out. */
function allBindings(
  graph: ReferenceGraph,
  { edges, anchors = {} }: Motif,
  accepts: MotifOptions["accepts"],
): MotifMatch[] {
  const names = [...new Set(edges.flatMap(({ from, to }) => [from, to]))];
  const has = (from: VertexKey, to: VertexKey): boolean =>
    graph.out[graph.indexes.get(from) as number]?.includes(graph.indexes.get(to) as number) === true;
  const found: MotifMatch[] = [];
  const extend = (bound: Record<string, VertexKey>, depth: number): void => {
    const name = names[depth];
    if (name === undefined) {
      const holds = edges.every(({ from, to, either }) => {
        const [a, b] = [bound[from] as VertexKey, bound[to] as VertexKey];
        return has(a, b) || (either === true && has(b, a));
      });
      if (holds) found.push({ ...bound });
      return;
    }
    for (const key of graph.keys) {
      if (Object.values(bound).includes(key) || (anchors[name] ?? key) !== key) continue;
      if (accepts?.(name, key) === false) continue;
      extend({ ...bound, [name]: key }, depth + 1);
    }
  };
  extend({}, 0);
  return found;
}

const textOf = (match: MotifMatch): string =>
  Object.entries(match)
    .map(([name, key]) => `${name}=${typeof key}${key}`)
    .sort()
    .join(" ");

/** The same match under every symmetry of the pattern: matches of one class have one text. */
function classOf(plan: ReturnType<typeof planMotif>, match: MotifMatch): string {
  return plan.symmetries
    .map((symmetry) =>
      textOf(
        Object.fromEntries(
          plan.names.map((name, index) => [name, match[plan.names[symmetry[index] as number] as string] as VertexKey]),
        ),
      ),
    )
    .sort()[0] as string;
}

const patterns = [
  "a>b",
  "a-b",
  "a>b b>c",
  "a>b b>a",
  "a>b b>c c>a",
  "a-b b-c c-a",
  "a>b a>c",
  "a>b b>c c>d d>a",
  "a-b b-c c-d d-a a-c",
  "a>b a>c b>d c>d",
  "a-b a-c a-d",
];

describe("motif search", () => {
  test("finds one of each class of all bindings, whatever the batches", async () => {
    await fc.assert(
      fc.asyncProperty(
        smallGraph,
        fc.constantFrom(...patterns),
        fc.integer({ min: 1, max: 12 }),
        fc.option(fc.tuple(fc.constantFrom("a", "b"), fc.nat(6)), { nil: undefined }),
        fc.boolean(),
        async (graph, text, batchSize, anchor, picky) => {
          const pattern = motif(text, anchor === undefined ? undefined : { [anchor[0]]: anchor[1] });
          const accepts = picky
            ? (name: string, key: VertexKey) => !(name === "b" && typeof key === "string")
            : undefined;
          const result = await findMotif(adjacencyOf(graph, batchSize % 2 === 0), pattern, graph.keys, {
            batchSize,
            accepts,
          });
          const plan = planMotif(pattern);
          const bindings = allBindings(graph, pattern, accepts);
          const texts = new Set(bindings.map(textOf));
          for (const match of result.matches) same(texts.has(textOf(match)), true);
          const classes = result.matches.map((match) => classOf(plan, match)).sort();
          same(classes, [...new Set(bindings.map((binding) => classOf(plan, binding)))].sort());
          same(result.truncated, undefined);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("finds one of each class of the bindings that carry what is asked for", async () => {
    // Of every vertex: what it is, and of most how much.
    const propertiesOf = (key: VertexKey): Record<string, string | number> => {
      const number = Number(String(key).replace("v", ""));
      return { kind: typeof key, ...(number % 4 === 3 ? {} : { size: number }) };
    };
    const conditions: readonly (VertexConditions | undefined)[] = [
      undefined,
      {},
      { kind: "number" },
      { size: { atLeast: 2, atMost: 8 } },
      { size: [1, 2, 8, 9], kind: ["number", "string"] },
    ];
    const drawn = fc.constantFrom(...conditions);
    await fc.assert(
      fc.asyncProperty(
        smallGraph,
        fc.constantFrom(...patterns),
        fc.record({ a: drawn, b: drawn, c: drawn }),
        fc.integer({ min: 1, max: 12 }),
        async (graph, text, drawnFor, batchSize) => {
          const names = new Set(text.replaceAll(/[->]/g, " ").split(" "));
          const chosen = Object.entries(drawnFor).filter(([name, what]) => names.has(name) && what !== undefined);
          const where = Object.fromEntries(chosen) as Record<string, VertexConditions>;
          const pattern: Motif = { ...motif(text), where };
          const adjacency = adjacencyOf(graph, batchSize % 2 === 0, propertiesOf);
          const result = await findMotif(adjacency, pattern, graph.keys, { batchSize });
          const plan = planMotif(pattern);
          const fits = (name: string, key: VertexKey): boolean => meets(where[name] ?? {}, propertiesOf(key));
          const bindings = allBindings(graph, pattern, fits);
          const classes = result.matches.map((match) => classOf(plan, match)).sort();
          same(classes, [...new Set(bindings.map((binding) => classOf(plan, binding)))].sort());
          for (const match of result.matches)
            for (const [name, key] of Object.entries(match)) same(fits(name, key), true);
        },
      ),
      { numRuns: 200 },
    );
  });

  test("holds values against conditions", () => {
    const held = (condition: VertexConditions[string], value?: string | number): boolean =>
      meets({ p: condition }, value === undefined ? {} : { p: value });
    expect([held(1, 1), held(1, 2), held("1", 1), held(1)]).toEqual([true, false, false, false]);
    expect([held(["x", "y"], "y"), held(["x"], "z"), held([0], 0)]).toEqual([true, false, true]);
    expect([held({ atLeast: 2 }, 2), held({ atLeast: 2 }, 1.9), held({ atMost: 2 }, 2)]).toEqual([true, false, true]);
    expect([held({ atMost: 2 }), held({ atMost: 2 }, "1"), meets({ p: 1 }, undefined)]).toEqual([false, false, false]);
  });

  test("knows the symmetries of a pattern", () => {
    const count = (text: string, anchors?: Record<string, VertexKey>): number =>
      planMotif(motif(text, anchors)).symmetries.length;
    expect(patterns.map((text) => count(text))).toEqual([1, 2, 1, 2, 3, 6, 2, 4, 4, 2, 6]);
    expect(count("a-b b-c c-a", { a: 1 })).toBe(2);
    expect(count("a-b a-c a-d a-e a-f a-g a-h")).toBe(5040);
    const where = { a: { kind: "x", size: { atLeast: 1 } }, b: { size: { atLeast: 1 }, kind: "x" }, c: { kind: "x" } };
    expect(planMotif({ ...motif("a-b b-c c-a"), where }).symmetries).toHaveLength(2);
  });

  test("finds each triangle once", async () => {
    const edges = [
      [1, 2],
      [2, 3],
      [3, 1],
      [3, 4],
      [4, 1],
      [1, 1],
      [2, 1],
    ] as const;
    const graph = referenceGraph([1, 2, 3, 4], edges, true);
    const { matches } = await findMotif(adjacencyOf(graph), motif("a-b b-c c-a"), graph.keys);
    expect(
      matches.map((match) =>
        Object.values(match)
          .map(Number)
          .sort((a, b) => a - b),
      ),
    ).toEqual([
      [1, 2, 3],
      [1, 3, 4],
    ]);
    expect((await countTriangles(adjacencyOf(graph), graph.keys)).triangles).toBe(2);
    expect((await findMotif(adjacencyOf(graph), motif("a>b b>c c>a"), graph.keys)).matches).toHaveLength(1);
    expect((await findMotif(adjacencyOf(graph), motif("a>b b>c a>c"), graph.keys)).matches).toHaveLength(2);
  });

  test("from an anchor reads only what is around it", async () => {
    const keys = Array.from({ length: 1000 }, (_, index) => index);
    const ring = referenceGraph(
      keys,
      keys.map((key) => [key, (key + 1) % 1000] as const),
      true,
    );
    const adjacency = adjacencyOf(ring);
    const { matches, edges } = await findMotif(adjacency, motif("a>b b>c", { b: 7 }), []);
    expect(matches).toEqual([{ a: 6, b: 7, c: 8 }]);
    expect(edges).toBeLessThan(10);
  });

  test("says which bound ended it, and gives what it found until then", async () => {
    const keys = Array.from({ length: 12 }, (_, index) => index);
    const complete = referenceGraph(
      keys,
      keys.flatMap((a) => keys.filter((b) => b > a).map((b) => [a, b] as const)),
      false,
    );
    const run = (options: MotifOptions) => findMotif(adjacencyOf(complete), motif("a-b b-c c-a"), keys, options);
    const all = await run({});
    expect(all.matches).toHaveLength((12 * 11 * 10) / 6);
    expect((await run({ maxMatches: 220 })).truncated).toBeUndefined();
    const few = await run({ maxMatches: 219 });
    expect(few.truncated).toEqual({ by: "matches", limit: 219 });
    expect(few.matches).toEqual(all.matches.slice(0, 219));
    expect((await run({ maxSteps: all.steps })).truncated).toBeUndefined();
    expect((await run({ maxSteps: all.steps - 1 })).truncated).toEqual({ by: "steps", limit: all.steps - 1 });
    expect((await run({ maxEdges: 20, batchSize: 2 })).truncated).toEqual({ by: "edges", limit: 20 });
  });

  test.each<[string, Motif, RegExp]>([
    ["no edges", { edges: [] }, /number of vertices must be in 2\.\.8: current value is 0/],
    ["nine vertices", motif("a-b b-c c-d d-e e-f f-g g-h h-i"), /current value is 9/],
    ["a loop", motif("a-b b-b"), /an edge must be between two vertices: current value is "b"/],
    ["two parts", motif("a-b c-d"), /the pattern must be connected/],
    ["an anchor for nobody", motif("a-b", { z: 1 }), /an anchor must be a vertex of the pattern: current value is "z"/],
    [
      "conditions on nobody",
      { ...motif("a-b"), where: { z: {} } },
      /a vertex with conditions must be one of the pattern/,
    ],
    [
      "an anchor that is not there",
      motif("a-b", { a: 77 }),
      /anchor must be a vertex of the graph: current value is 77/,
    ],
  ])("refuses: %s", async (_name, pattern, message) => {
    const adjacency = adjacencyOf(referenceGraph([1], [], true));
    await expect(findMotif(adjacency, pattern, [1])).rejects.toThrow(message);
  });
});
