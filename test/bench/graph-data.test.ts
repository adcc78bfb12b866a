/** R-MAT graphs: the same everywhere, as skewed as they should be, without loops or parallel edges unless asked for. */
import { describe, expect, test } from "vitest";
import { createRmat, type EdgeColumns, toCsr } from "../../bench/macro/graph-data.ts";
import { hashBytes } from "../../src/topology/stable-hash.ts";

function fingerprint({ sources, targets }: EdgeColumns): number {
  const bytes = new Uint8Array(sources.length * 8);
  bytes.set(new Uint8Array(sources.buffer));
  bytes.set(new Uint8Array(targets.buffer), sources.length * 4);
  return hashBytes(bytes, 0, bytes.length);
}

describe("R-MAT", () => {
  test("gives the same graph for the same seed, golden, and another for another", () => {
    const graph = createRmat({ scale: 10, seed: 1 });
    expect([graph.sources.length, fingerprint(graph)]).toEqual(GOLDEN);
    expect(fingerprint(createRmat({ scale: 10, seed: 2 }))).not.toBe(GOLDEN[1]);
  });

  test("has no loop and no edge twice, unless it is to be a multigraph", () => {
    const { vertices, sources, targets, weights } = createRmat({ scale: 8, edgeFactor: 16, seed: 3 });
    expect(weights).toBeUndefined();
    const seen = new Set<number>();
    for (const [edge, source] of sources.entries()) {
      const target = targets[edge] as number;
      expect(source).not.toBe(target);
      expect(Math.max(source, target)).toBeLessThan(vertices);
      seen.add(source * vertices + target);
    }
    expect(seen.size).toBe(sources.length);
    const multi = createRmat({ scale: 8, edgeFactor: 16, seed: 3, multigraph: true, weighted: true });
    expect(multi.sources.length).toBe(16 * 256);
    expect(multi.sources.length).toBeGreaterThan(sources.length);
    for (const weight of multi.weights ?? [0]) expect(weight).toBeGreaterThan(0);
    expect(Math.max(...(multi.weights ?? [2]))).toBeLessThanOrEqual(1);
  });

  test("is skewed: the busiest hundredth of the vertices has more than a tenth of the edges, the idlest half less than a sixth", () => {
    const { offsets, vertices } = toCsr(createRmat({ scale: 12, seed: 4 }));
    const degrees = Array.from({ length: vertices }, (_, v) => (offsets[v + 1] as number) - (offsets[v] as number));
    degrees.sort((a, b) => b - a);
    const total = offsets[vertices] as number;
    const share = (from: number, to: number): number =>
      degrees.slice(from * vertices, to * vertices).reduce((sum, degree) => sum + degree, 0) / total;
    expect(share(0, 0.01)).toBeGreaterThan(0.1);
    expect(share(0.5, 1)).toBeLessThan(1 / 6);
  });

  test("keeps every edge in its CSR, in order", () => {
    const graph = createRmat({ scale: 6, seed: 5, multigraph: true });
    const { offsets, targets } = toCsr(graph);
    const lists = Array.from({ length: graph.vertices }, (): number[] => []);
    for (const [edge, source] of graph.sources.entries()) lists[source]?.push(graph.targets[edge] as number);
    for (const [vertex, list] of lists.entries()) {
      expect([...targets.subarray(offsets[vertex], offsets[vertex + 1])]).toEqual(list);
    }
  });

  test.each([0, 27, 1.5])("scale %s is refused", (scale) => {
    expect(() => createRmat({ scale, seed: 1 })).toThrow(/scale must be in/);
  });
});

/** Edges, and the hash of both columns, of scale 10 and seed 1. */
const GOLDEN = [12107, 2553351247];
