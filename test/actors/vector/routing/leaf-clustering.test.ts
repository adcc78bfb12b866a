/** Leaves and their packing: nothing lost, nothing too large, nothing by chance. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { groupCentroids } from "../../../../actors/vector/routing/centroid-router.ts";
import { CodeMeans } from "../../../../actors/vector/routing/code-means.ts";
import { CodeTable, packedSource, tableOf, type VectorSource } from "../../../../actors/vector/routing/code-table.ts";
import { leafAffinity } from "../../../../actors/vector/routing/leaf-affinity.ts";
import { clusterLeaves, type LeafClustering } from "../../../../actors/vector/routing/leaf-clustering.ts";
import { packLeaves } from "../../../../actors/vector/routing/leaf-packing.ts";
import { levelsAbove } from "../../../../actors/vector/routing/multi-level-index.ts";
import { cutOf, refinePacking } from "../../../../actors/vector/routing/refine-packing.ts";
import { MOST_SLICE_DISTANCES, runSteps, type Steps } from "../../../../actors/vector/routing/steps.ts";
import { TopList } from "../../../../actors/vector/routing/top-list.ts";
import { treeMeans } from "../../../../actors/vector/routing/tree-means.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { plainDistance } from "../../../native-bridge/kernels-support.ts";
import { countingHost, makeHost, SEED, seeded, synthetic } from "./support.ts";

const host = makeHost();

function cluster(source: VectorSource, leaves: number, seed = SEED, capacity?: number): LeafClustering {
  return runSteps(clusterLeaves(host, source, { leaves, seed, ...(capacity === undefined ? {} : { capacity }) }));
}

describe("clustering", () => {
  test("property: every vector in one leaf, none above the cap, none empty, centroids are the means, the seed decides", () => {
    const cases = fc.record({
      count: fc.integer({ min: 1, max: 300 }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      slack: fc.integer({ min: 0, max: 3 }),
      clusters: fc.integer({ min: 1, max: 12 }),
      metric: fc.constantFrom(METRIC.L2, METRIC.COSINE, METRIC.INNER_PRODUCT),
      element: fc.constantFrom(ELEMENT.U8, ELEMENT.F32),
      seed: fc.integer({ min: 0, max: 1000 }),
    });
    fc.assert(
      fc.property(cases, ({ count, share, slack, seed, ...shape }) => {
        const source = synthetic({ count, dimensions: 5, random: seeded(seed), ...shape });
        const leaves = 1 + Math.floor(share * (count - 1));
        const capacity = Math.ceil(count / leaves) + slack;
        const made = cluster(source, leaves, seed, capacity);
        expect(made.leafOf).toHaveLength(count);
        const counts = new Int32Array(leaves);
        for (const leaf of made.leafOf) counts[leaf] = (counts[leaf] as number) + 1;
        expect([...counts]).toEqual([...made.counts]);
        expect(Math.max(...counts)).toBeLessThanOrEqual(capacity);
        expect(Math.min(...counts)).toBeGreaterThan(0);
        const again = cluster(source, leaves, seed, capacity);
        expect(again.leafOf).toEqual(made.leafOf);
        const metric = shape.metric === METRIC.COSINE ? METRIC.COSINE : METRIC.L2;
        const means = new CodeMeans({ ...source, metric }, leaves);
        for (let i = 0; i < count; i++) means.add(made.leafOf[i] as number, source.vector(i));
        for (let leaf = 0; leaf < leaves; leaf++) expect(made.centroids.vector(leaf)).toEqual(means.mean(leaf));
        for (let i = 0; i < count; i += 17) {
          const plain = plainDistance(metric, source.vector(i), made.centroids.vector(made.leafOf[i] as number));
          expect(made.distances[i] as number).toBeCloseTo(plain, metric === METRIC.COSINE ? 5 : 1);
        }
        made.centroids.close();
        again.centroids.close();
      }),
      { numRuns: 60, seed: SEED },
    );
  });

  test("separated clusters become leaves of their own", () => {
    const random = seeded(3);
    const codes = Float32Array.from({ length: 200 * 4 }, (_, i) => (Math.floor(i / 4) % 8) * 1000 + random.float());
    const source = packedSource({ dimensions: 4, metric: METRIC.L2, element: ELEMENT.F32 }, codes);
    const made = cluster(source, 8);
    const leaves = new Set(Array.from({ length: 200 }, (_, i) => `${i % 8}:${made.leafOf[i]}`));
    expect(leaves.size).toBe(8);
    made.centroids.close();
  });

  test("vectors that are all equal still fill every leaf within the cap", () => {
    const source = packedSource({ dimensions: 3, metric: METRIC.COSINE, element: ELEMENT.U8 }, new Uint8Array(150));
    const made = cluster(source, 10, SEED, 5);
    expect([...made.counts]).toEqual(Array(10).fill(5));
    made.centroids.close();
  });

  test("gives progress that never falls, and everything back when it is given up", () => {
    const source = synthetic({ count: 2000, random: seeded(4) });
    const free = host.arena.stats().freeBytes;
    const shares: number[] = [];
    const abort = new AbortController();
    const run = (): unknown =>
      runSteps(clusterLeaves(host, source, { leaves: 40, seed: 1 }), {
        signal: abort.signal,
        onProgress(done) {
          shares.push(done);
          if (shares.length === 70) abort.abort();
        },
      });
    expect(run).toThrow(expect.objectContaining({ code: "ERR_ABORTED" }));
    expect(shares).toHaveLength(70);
    expect([...shares].sort((a, b) => a - b)).toEqual(shares);
    expect(shares.at(-1)).toBeLessThanOrEqual(1);
    expect(host.arena.stats().freeBytes).toBe(free);
  });

  test("distances for a vector grow with the logarithm of the leaves, and no slice computes too many", () => {
    const perVector = [1_000, 5_000].map((count) => {
      const counting = countingHost(host);
      const all = synthetic({ count, dimensions: 8, clusters: 60, random: seeded(9) });
      let most = 0;
      const run = <T>(steps: Steps<T>): T => {
        let before = counting.computed;
        const onProgress = (): void => {
          most = Math.max(most, counting.computed - before);
          before = counting.computed;
        };
        const made = runSteps(steps, { onProgress });
        onProgress();
        return made;
      };
      const leaves = 0.6 * count;
      const made = run(clusterLeaves(counting, all, { leaves, seed: SEED, rounds: 6, sampleCount: 0.8 * count }));
      const clustered = counting.computed / count;
      run(packLeaves(counting, made, run(leafAffinity(made)), { partitions: 2, seed: SEED }));
      const groups = run(groupCentroids(counting, made.centroids));
      for (const { centroids } of run(levelsAbove(counting, made.centroids, { nodes: 2, seed: SEED })))
        centroids.close();
      groups?.supers.close();
      made.centroids.close();
      expect(most).toBeLessThanOrEqual(MOST_SLICE_DISTANCES);
      return clustered;
    });
    const [small, large] = perVector as [number, number];
    const logarithm = Math.log(0.6 * 5_000) / Math.log(0.6 * 1_000);
    expect(large / small).toBeLessThan(1.25 * logarithm); // by the root of the leaves it would be 2.2
  });

  test("property: many leaves from the top down, also of a crowd: look-ups find true distances, near the nearest", () => {
    const random = seeded(10);
    for (const crowd of [0, 0.9]) {
      const all = synthetic({ count: 2_000, dimensions: 8, clusters: 60, random });
      const codes = Uint8Array.from({ length: 2_000 * 8 }, (_, at) =>
        at < crowd * 16_000 ? 7 : (all.vector(Math.floor(at / 8))[at % 8] as number),
      );
      const source = packedSource(all, codes);
      const free = host.arena.stats().freeBytes;
      const numbers = Int32Array.from({ length: 2_000 }, (_, at) => at);
      const tree = runSteps(treeMeans(host, source, numbers, { groups: 600, rounds: 4, random }));
      const [found, best] = [new TopList(1), new TopList(1)];
      let same = 0;
      for (const number of numbers) {
        tree.nearest(source.vector(number), found);
        tree.centroids.nearest(source.vector(number), best);
        tree.centroids.begin(source.vector(number));
        expect(tree.centroids.score(found.ids[0] as number)).toBe(found.distances[0]);
        same += Number(found.distances[0] === best.distances[0]);
      }
      expect(same).toBeGreaterThan(0.9 * numbers.length);
      tree.close();
      expect(host.arena.stats().freeBytes).toBe(free);
    }
  });

  test.each([
    [{ leaves: 0 }, "leaves"],
    [{ leaves: 11 }, "leaves"],
    [{ leaves: Number.NaN }, "leaves"],
    [{ capacity: 4 }, "capacity"],
    [{ seed: 0.5 }, "seed"],
    [{ rounds: 0 }, "rounds"],
    [{ sampleCount: -1 }, "sampleCount"],
  ])("refuses %j", (options, name) => {
    const source = synthetic({ count: 10, random: seeded(5) });
    expect(() => runSteps(clusterLeaves(host, source, { leaves: 2, seed: 1, ...options }))).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(name) }),
    );
  });
});

describe("packing", () => {
  test("property: every leaf in one partition, none without vectors or above the capacity, refinement never worsens, the seed decides", () => {
    const cases = fc.record({
      count: fc.integer({ min: 20, max: 600 }),
      leaves: fc.integer({ min: 1, max: 20 }),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
      seed: fc.integer({ min: 0, max: 1000 }),
    });
    fc.assert(
      fc.property(cases, ({ count, leaves, part, seed }) => {
        const source = synthetic({ count, dimensions: 6, random: seeded(seed) });
        const made = cluster(source, leaves, seed);
        const affinity = runSteps(leafAffinity(made));
        const partitions = 1 + Math.floor(part * (leaves - 1));
        const packing = runSteps(packLeaves(host, made, affinity, { partitions, seed }));
        const loads = new Int32Array(partitions);
        packing.partitionOf.forEach((p, leaf) => {
          loads[p] = (loads[p] as number) + (made.counts[leaf] as number);
        });
        expect([...loads]).toEqual([...packing.loads]);
        expect(Math.max(...loads)).toBeLessThanOrEqual(packing.capacity);
        if (made.counts.filter((of) => of > 0).length >= partitions) expect(Math.min(...loads)).toBeGreaterThan(0);
        const mean = count / partitions;
        expect(packing.capacity).toBeLessThanOrEqual(Math.max(1.05 * mean, mean + Math.max(...made.counts)));
        expect(packing.cut).toBe(cutOf(packing.partitionOf, affinity));
        expect(runSteps(packLeaves(host, made, affinity, { partitions, seed }))).toEqual(packing);
        const refined = packing.partitionOf.slice();
        runSteps(refinePacking(refined, packing.loads.slice(), made.counts, affinity, packing.capacity));
        expect(cutOf(refined, affinity)).toBeLessThanOrEqual(packing.cut + 1e-12);
        made.centroids.close();
      }),
      { numRuns: 60, seed: SEED },
    );
  });

  test("affinity is symmetric, and packing cuts less of it than chance", () => {
    const source = synthetic({ count: 3000, clusters: 60, random: seeded(6) });
    const made = cluster(source, 80);
    const affinity = runSteps(leafAffinity(made));
    const weights = new Map<string, number>();
    for (let a = 0; a < 80; a++)
      for (let at = affinity.starts[a] as number; at < (affinity.starts[a + 1] as number); at++)
        weights.set(`${a}:${affinity.leaves[at]}`, affinity.weights[at] as number);
    expect(weights.size).toBeGreaterThan(80);
    for (const [key, weight] of weights) expect(weights.get(key.split(":").reverse().join(":"))).toBe(weight);
    const packing = runSteps(packLeaves(host, made, affinity, { partitions: 8, seed: SEED }));
    const chance = cutOf(
      Int32Array.from({ length: 80 }, (_, leaf) => leaf % 8),
      affinity,
    );
    expect(packing.cut).toBeLessThan(chance * 0.7);
    made.centroids.close();
  });

  test.each([
    [{ partitions: 6 }, "partitions"],
    [{ partitions: 0 }, "partitions"],
    [{ slack: 0.9 }, "slack"],
    [{ slack: Number.NaN }, "slack"],
    [{ attempts: 0 }, "attempts"],
    [{ seed: Number.NaN }, "seed"],
  ])("refuses %j of 5 leaves", (options, name) => {
    const made = cluster(synthetic({ count: 50, random: seeded(7) }), 5);
    expect(() =>
      runSteps(packLeaves(host, made, runSteps(leafAffinity(made)), { partitions: 2, seed: 1, ...options })),
    ).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(name) }));
    made.centroids.close();
  });
});

describe("code tables", () => {
  test.each([...Object.values(METRIC)])("metric %i: scan, score and plain distances agree", (metric) => {
    for (const element of [ELEMENT.U8, ELEMENT.F32]) {
      const source = synthetic({ count: 60, dimensions: 19, metric, element, random: seeded(8) });
      const table = tableOf(host, source);
      const top = new TopList(60);
      const query = source.vector(11).slice();
      table.nearest(query, top);
      table.begin(query);
      expect(top.count).toBe(60);
      for (let i = 0; i < 60; i++) {
        const id = top.ids[i] as number;
        const plain = plainDistance(metric, query, source.vector(id));
        expect(top.distances[i] as number).toBeCloseTo(plain, metric === METRIC.COSINE ? 5 : 1);
        expect(table.score(id)).toBe(top.distances[i]);
        expect(table.vector(id)).toEqual(source.vector(id));
      }
      table.close();
    }
  });

  test("an element that has no mean is refused", () => {
    const space = { dimensions: 4, metric: METRIC.L2, element: 77 as typeof ELEMENT.U8 };
    expect(() => new CodeTable(host, space, 3)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
  });

  test("property: a top list holds what a sort holds", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 9 })), fc.integer({ min: 1, max: 12 }), (distances, limit) => {
        const top = new TopList(limit);
        distances.forEach((distance, id) => void top.offer(id, distance));
        const sorted = distances
          .map((distance, id) => ({ distance, id }))
          .sort((a, b) => a.distance - b.distance || a.id - b.id);
        expect([...top.ids.subarray(0, top.count)]).toEqual(sorted.slice(0, limit).map(({ id }) => id));
      }),
      { seed: SEED },
    );
  });
});
