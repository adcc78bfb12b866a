/** Searches over random graphs, settings and networks: never an early end, never a hang, and what a centralised search guarantees. */
import { describe, expect, test } from "vitest";
import { resolveSettings } from "../../../../actors/vector/cotra/cotra-options.ts";
import { type GraphView, NOT_EXPOSED } from "../../../../actors/vector/cotra/graph-view.ts";
import { planSearch } from "../../../../actors/vector/cotra/search-plan.ts";
import { Driver } from "./driver.ts";
import { audit, BASE, clearTrace, randomCase, reachable, SCALE } from "./support.ts";

const NETWORKS = [
  { name: "in step", maxDelay: 1, fifo: true },
  { name: "delayed, in order", maxDelay: 12, fifo: true, stalls: 0.3 },
  { name: "delayed, out of order", maxDelay: 12, fifo: false, stalls: 0.3 },
  { name: "out of order, with duplicates", maxDelay: 7, fifo: false, stalls: 0.1, duplicates: 0.3 },
] as const;

describe.for(NETWORKS)("over a network that is $name", (network) => {
  test("a search keeps the guarantee of a centralised one", () => {
    for (let run = 0; run < 120 * SCALE; run++) {
      const one = randomCase(BASE + run);
      const driver = new Driver({ views: one.views, seed: one.seed, ...network });
      const outcome = driver.run(one.query);
      expect(outcome).toMatchObject({ complete: true, missing: [] });
      // An owner that is asked again computes again.
      audit(one, outcome, "duplicates" in network ? 4 : 1);
      driver.settle();
      expect(driver.shards.map((shard) => shard.searches)).toEqual(driver.shards.map(() => 0));
    }
  });

  test("it ends with exactly what the same search finds when nothing moves any more", () => {
    let tokens = 0;
    for (let run = 0; run < 100 * SCALE; run++) {
      const one = randomCase(BASE + 5000 * SCALE + run, { shards: 2 + (run % 5) });
      const driver = new Driver({ views: one.views, seed: one.seed, ...network });
      const outcome = driver.run(one.query);
      tokens += driver.shards.reduce((sum, shard) => sum + shard.counters.tokens, 0);
      clearTrace(one);
      const drained = new Driver({ views: one.views, seed: one.seed, ...network, withholdTokens: true }).drain(
        one.query,
      );
      expect(drained.hits, `SEED=${BASE}, case ${one.seed}`).toEqual(outcome.hits);
    }
    expect(tokens).toBeGreaterThan(100 * SCALE);
  });

  test("with room for all, it finds the nearest of everything that can be reached", () => {
    for (let run = 0; run < 30 * SCALE; run++) {
      const one = randomCase(BASE + 9000 * SCALE + run, { ef: 400 });
      const outcome = new Driver({ views: one.views, seed: one.seed, ...network }).run(one.query);
      expect([...outcome.hits.vertices], `SEED=${BASE}, case ${one.seed}`).toEqual(reachable(one));
    }
  });
});

test("on one shard it is the textbook search, computation by computation", () => {
  for (let run = 0; run < 40; run++) {
    const one = randomCase(BASE + 20_000 + run, { shards: 1, settings: { group: 1 } });
    const outcome = new Driver({ views: one.views, seed: 1, maxDelay: 1, fifo: true }).run(one.query);
    audit(one, outcome);
    expect([...one.trace.computed.keys()].sort((a, b) => a - b)).toEqual(textbook(one));
  }
});

/** Vertices that a centralised best-first search computes. */
function textbook({ views, graph, query }: ReturnType<typeof randomCase>): number[] {
  const view = views[0]!;
  const distance = (vertex: number): number => {
    const out = new Float64Array(1);
    view.distances(query.query, Int32Array.of(vertex), 1, out);
    return out[0] as number;
  };
  const known = new Map<number, number>();
  const computed: number[] = [];
  const open: number[] = [];
  const rank = (a: number, b: number): number => (known.get(a) as number) - (known.get(b) as number) || a - b;
  const bound = (): number => {
    const all = [...known.values()].sort((a, b) => a - b);
    return all.length < query.ef ? Number.POSITIVE_INFINITY : (all[query.ef - 1] as number);
  };
  query.entries.vertices.forEach((vertex, at) => {
    if (Number.isNaN(query.entries.distances[at])) computed.push(vertex);
    known.set(vertex, distance(vertex));
    open.push(vertex);
  });
  const links = new Int32Array(graph.maxDegree);
  for (;;) {
    open.sort(rank);
    const next = open.shift();
    if (next === undefined || (known.get(next) as number) > bound()) return computed.sort((a, b) => a - b);
    const degree = view.neighbours(next, links);
    for (const link of links.subarray(0, degree)) {
      if (link < 0 || link >= graph.count || known.has(link)) continue;
      known.set(link, distance(link));
      computed.push(link);
      open.push(link);
    }
  }
}

test("many searches at once do not disturb each other", () => {
  for (let run = 0; run < 4; run++) {
    const one = randomCase(BASE + 30_000 + run, { shards: 4, count: 120, ef: 400 });
    const driver = new Driver({ views: one.views, seed: one.seed, maxDelay: 5, fifo: false, duplicates: 0.1 });
    const wanted = reachable(one);
    let ended = 0;
    for (let search = 0; search < 20; search++) {
      driver.origin.search(one.query, (outcome) => {
        expect([...outcome.hits.vertices]).toEqual(wanted);
        ended++;
      });
    }
    driver.settle();
    expect(ended).toBe(20);
    expect(driver.origin.pending).toBe(0);
  }
});

test("the settings steer what is read and what is pushed", () => {
  const totals = (settings: object): { codeReads: number; pushes: number } => {
    const sum = { codeReads: 0, pushes: 0 };
    for (let run = 0; run < 8; run++) {
      const options = { shards: 5, count: 150, ef: 10, exposed: () => true, garbage: 0 };
      const one = randomCase(BASE + 40_000 + run, { ...options, settings: { ...settings, primaryShare: 5 } });
      const driver = new Driver({ views: one.views, seed: one.seed, maxDelay: 1, fifo: true });
      audit(one, driver.run(one.query));
      for (const { counters } of driver.shards) {
        sum.codeReads += counters.codeReads;
        sum.pushes += counters.pushes;
      }
    }
    return sum;
  };
  expect(totals({ pullDegree: 0, pullDegreeKnown: 0 }).codeReads).toBe(0);
  expect(totals({ pullDegree: 255, pullDegreeKnown: 255 }).pushes).toBe(0);
  const mixed = totals({ pullDegree: 2, pullDegreeKnown: 2 });
  expect(mixed.codeReads).toBeGreaterThan(0);
  expect(mixed.pushes).toBeGreaterThan(0);
});

test("damage in the graph is counted and skipped", () => {
  const one = randomCase(BASE + 50_000, { shards: 3, count: 150, ef: 400, garbage: 0.5 });
  const driver = new Driver({ views: one.views, seed: 1, maxDelay: 1, fifo: true });
  const outcome = driver.run(one.query);
  expect(outcome.complete).toBe(true);
  expect([...outcome.hits.vertices]).toEqual(reachable(one));
  expect(driver.shards.reduce((sum, shard) => sum + shard.counters.damage, 0)).toBeGreaterThan(10);
});

test.for([
  ["syncs", 0.001],
  ["pushes", 3],
] as const)("more vertices than one message carries go into several: %s", ([, primaryShare]) => {
  const count = 10_000;
  const maxDegree = count - 2;
  const vectors = Uint8Array.from({ length: count }, (_, at) => (at < 2 ? 0 : 1 + (at % 255)));
  // Two vertices know all others; the odd ones are on another shard.
  const partitions = Uint16Array.from({ length: count }, (_, at) => at % 2);
  const view = (self: number): GraphView => ({
    self,
    codeBytes: 1,
    adjacencyBytes: 4,
    maxDegree,
    partitionOf: (vertex) => partitions[vertex] ?? -1,
    neighbours: (vertex, out) => {
      if (vertex > 1) return 0;
      for (let at = 0; at < maxDegree; at++) out[at] = at + 2;
      return maxDegree;
    },
    distances: (_query, vertices, length, out) => {
      for (let at = 0; at < length; at++) out[at] = vectors[vertices[at] as number] as number;
    },
    pull: () => NOT_EXPOSED,
    pullNeighbours: () => NOT_EXPOSED,
  });
  const driver = new Driver({ views: [view(0), view(1)], seed: 1, maxDelay: 2, fifo: false });
  const entries = { vertices: Int32Array.of(0, 2, 1), distances: Float32Array.of(0, 1, Number.NaN) };
  const query = { query: Uint8Array.of(0), entries, k: 10_000, ef: 10_000, timeoutMs: 1e6 };
  const outcome = driver.run({ ...query, settings: resolveSettings({ primaryShare }) });
  expect(outcome.complete).toBe(true);
  expect(outcome.hits.vertices.length).toBe(count);
});

test("an empty graph has no hits, and that is the whole answer", () => {
  const one = randomCase(BASE, { entries: 0 });
  const entries = { vertices: Int32Array.of(99_999, -5), distances: Float32Array.of(1, 2) };
  const outcome = new Driver({ views: one.views, seed: 1, maxDelay: 1, fifo: true }).run({ ...one.query, entries });
  expect(outcome).toMatchObject({ complete: true, missing: [] });
  expect(outcome.hits.vertices).toHaveLength(0);
});

describe("the plan", () => {
  const plan = (partitions: number[], shards: number, share: number, lost: number[] = []): unknown =>
    planSearch(
      { vertices: Int32Array.from(partitions.keys()), distances: new Float32Array(partitions.length) },
      (vertex) => partitions[vertex] ?? -1,
      shards,
      share,
      new Set(lost),
    );

  test("the leader has most entries, primaries more than their share, and lost ones are neither", () => {
    expect(plan([2, 2, 2, 1, 0, 0, 3, 3], 8, 1)).toEqual({ leader: 2, primaries: [2, 0, 3] });
    expect(plan([2, 2, 2, 1, 0, 0, 3, 3], 8, 2)).toEqual({ leader: 2, primaries: [2] });
    expect(plan([2, 2, 2, 1, 0, 0, 3, 3], 8, 1, [2, 3])).toEqual({ leader: 0, primaries: [0, 1] });
    expect(plan([1, 0], 2, 1)).toEqual({ leader: 0, primaries: [0] });
    expect(plan([1, 1], 2, 1, [1])).toBe(undefined);
    expect(plan([], 2, 1)).toBe(undefined);
  });

  test("settings are checked before a search", () => {
    expect(resolveSettings({ group: 255 }).group).toBe(255);
  });
});
