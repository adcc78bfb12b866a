/** Compass on clustered vectors: recall as promised, few shards, and never a shard forgotten. */
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { CentroidRouter } from "../../../../actors/vector/routing/centroid-router.ts";
import {
  emptyColumns,
  type MergedCentroids,
  mergeCentroids,
  type ShardCentroids,
} from "../../../../actors/vector/routing/centroid-table.ts";
import { type Code, packedSource, tableOf, type VectorSource } from "../../../../actors/vector/routing/code-table.ts";
import { Compass } from "../../../../actors/vector/routing/compass.ts";
import { calibrateCompass, trainingQueries } from "../../../../actors/vector/routing/compass-calibration.ts";
import { placeVectors } from "../../../../actors/vector/routing/placement.ts";
import { runSteps } from "../../../../actors/vector/routing/steps.ts";
import { TopList } from "../../../../actors/vector/routing/top-list.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { FailingHost, makeHost, nearest, nearTarget, SEED, seeded, synthetic } from "./support.ts";

const host = makeHost(192 * 1024 * 1024);

interface Placed {
  readonly source: VectorSource;
  readonly merged: MergedCentroids;
  readonly tables: readonly ShardCentroids[];
  /** Leaf of each vector, as the merged table numbers leaves. */
  readonly leafOf: Int32Array;
  readonly seen: ReadonlySet<number>;
  readonly compass: Compass;
}

/** Clusters, packs, describes and merges: the whole way but for the calibration. */
function place(source: VectorSource, leaves: number, shards: number): Placed {
  const { columns, leafOf, sample, partitionOf } = runSteps(
    placeVectors(host, source, { leaves, partitions: shards, seed: SEED }),
  );
  const { dimensions, metric, element } = source;
  const space = { dimensions, metric, element };
  const tables = columns.map((own, shard): ShardCentroids => ({ ...own, space, shard, epoch: 1, version: 1 }));
  const merged = mergeCentroids(tables);
  leafOf.forEach((leaf, i) => {
    if (merged.shardOf[leaf] !== partitionOf[i]) throw new Error(`vector ${i} is not where its leaf is`);
  });
  return { source, merged, tables, leafOf, seen: new Set(sample), compass: new Compass(host, merged) };
}

function calibrate(placed: Placed, queries: number, depth: number): void {
  const vectors = tableOf(host, placed.source);
  const training = runSteps(trainingQueries(vectors, placed.leafOf, { seed: SEED, queries, depth, seen: placed.seen }));
  placed.compass.calibrate(runSteps(calibrateCompass(placed.compass, training)));
  vectors.close();
}

/** Mean shards visited, and share of the true neighbours that they hold. */
function measure(placed: Placed, queries: readonly Code[], truth: readonly number[][], recallTarget: number) {
  let shards = 0;
  let held = 0;
  let read = 0;
  let inLeaves = 0;
  let computed = 0;
  const k = truth[0]?.length as number;
  queries.forEach((query, q) => {
    const plan = placed.compass.selectShards(query, { k, recallTarget });
    const leaves = placed.compass.selectLeaves(query, { k, recallTarget }).leaves;
    const visited = new Set(plan.shards.map(({ shard }) => shard));
    shards += visited.size;
    computed += plan.computed;
    for (const leaf of leaves) read += placed.merged.counts[leaf] as number;
    for (const id of truth[q] as number[]) {
      const leaf = placed.leafOf[id] as number;
      if (visited.has(placed.merged.shardOf[leaf] as number)) held++;
      if (leaves.includes(leaf)) inLeaves++;
    }
  });
  const n = queries.length;
  return {
    shards: shards / n,
    recall: held / n / k,
    read: read / n,
    leafRecall: inLeaves / n / k,
    computed: computed / n,
  };
}

describe("clustered vectors", () => {
  const all = synthetic({ count: 6200, dimensions: 16, clusters: 60, random: seeded(1) });
  const codes = Uint8Array.from({ length: 6000 * 16 }, (_, i) => all.vector(Math.floor(i / 16))[i % 16] as number);
  const placed = place(packedSource({ ...all }, codes), 120, 12);
  calibrate(placed, 800, 300);
  const queries = Array.from({ length: 150 }, (_, i) => all.vector(6000 + i).slice());
  const truth = queries.map((query) => nearest(placed.source, query, 10));
  afterAll(() => placed.compass.close());

  test("mean recall is near the target, with few shards and few leaves", () => {
    let before = 0;
    for (const target of [0.8, 0.9, 0.95, 0.99]) {
      const measured = measure(placed, queries, truth, target);
      expect(measured.recall, `shards at ${target}`).toBeGreaterThan(nearTarget(target));
      expect(measured.leafRecall, `leaves at ${target}`).toBeGreaterThan(nearTarget(target));
      expect(measured.shards).toBeGreaterThanOrEqual(before);
      before = measured.shards;
    }
    const most = measure(placed, queries, truth, 0.95);
    expect(most.shards).toBeLessThan(6);
    expect(most.read).toBeLessThan(3000);
  });

  test("what cannot be made for want of memory leaves nothing behind", () => {
    const makers = [
      (on: FailingHost) => new Compass(on, placed.merged),
      (on: FailingHost) => runSteps(Compass.create(on, placed.merged)),
    ];
    for (const make of makers) {
      for (let n = 1, failed = true; failed; n++) {
        const failing = new FailingHost(host);
        failing.fails = (allocation) => allocation === n;
        failed = false;
        try {
          make(failing).close();
          expect(n, "allocations").toBeGreaterThan(3);
        } catch (error) {
          expect(error).toMatchObject({ code: "ERR_OUT_OF_MEMORY" });
          failed = true;
        }
        expect(failing.held, `allocation ${n}`).toBe(0);
      }
    }
  });

  test("a filter that passes little widens the choice, and finds what it promises", () => {
    const random = seeded(9);
    const passes = Uint8Array.from({ length: 6000 }, () => (random.float() < 0.05 ? 1 : 0));
    let plain = 0;
    let filtered = 0;
    let held = 0;
    queries.forEach((query) => {
      const few = placed.compass.selectShards(query, { k: 10, recallTarget: 0.9 });
      const many = placed.compass.selectShards(query, { k: 10, recallTarget: 0.9, selectivity: 0.05 });
      plain += few.shards.length;
      filtered += many.shards.length;
      const visited = new Set(many.shards.map(({ shard }) => shard));
      const passing = nearest(placed.source, query, 1000)
        .filter((id) => passes[id] === 1)
        .slice(0, 10);
      held +=
        passing.filter((id) => visited.has(placed.merged.shardOf[placed.leafOf[id] as number] as number)).length / 10;
    });
    expect(filtered).toBeGreaterThan(plain);
    expect(held / queries.length).toBeGreaterThan(nearTarget(0.9));
  });

  test("where the passing vectors of each leaf are known, shards without any are left out and the others found", () => {
    const passing = new Int32Array(placed.merged.counts.length);
    const chosen = 7;
    placed.merged.shardOf.forEach((shard, leaf) => {
      passing[leaf] = shard === chosen ? (placed.merged.counts[leaf] as number) : 0;
    });
    for (const query of queries.slice(0, 30)) {
      const plan = placed.compass.selectShards(query, { k: 10, recallTarget: 0.9, selectivity: 1 / 12, passing });
      expect(plan.shards.map(({ shard }) => shard)).toEqual([chosen]);
    }
  });

  test("a target of 1 and a search deeper than the calibration visit every shard", () => {
    const query = queries[0] as Code;
    const everywhere = (options: object) =>
      placed.compass.selectShards(query, { k: 10, recallTarget: 0.9, ...options });
    for (const plan of [everywhere({ recallTarget: 1 }), everywhere({ k: 3000 }), everywhere({ selectivity: 1e-4 })]) {
      expect(plan.rule).toBe("everything");
      expect(plan.shards.map(({ shard }) => shard).sort((a, b) => a - b)).toEqual(
        Array.from({ length: 12 }, (_, i) => i),
      );
    }
    expect(everywhere({}).rule).toBe("adaptive");
  });

  test("the leaves of a plan hold every vector of theirs once, and a placement repeats", () => {
    const again = runSteps(placeVectors(host, placed.source, { leaves: 120, partitions: 12, seed: SEED }));
    expect(again.leafOf).toEqual(placed.leafOf);
    const counts = new Int32Array(120);
    for (const leaf of again.leafOf) counts[leaf] = (counts[leaf] as number) + 1;
    expect(counts).toEqual(placed.merged.counts);
    const table = runSteps(placeVectors(host, placed.source, { partitions: 20, seed: SEED }));
    expect(table.columns).toHaveLength(20);
    const free = host.arena.stats().usedBytes;
    expect(() => runSteps(placeVectors(host, placed.source, { leaves: 5, partitions: 6, seed: SEED }))).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
    expect(host.arena.stats().usedBytes).toBe(free);
  });

  test("leaves come best first, belong to their shard, and the plan repeats", () => {
    for (const query of queries.slice(0, 40)) {
      const plan = placed.compass.selectShards(query, { k: 10, recallTarget: 0.95 });
      const shares = plan.shards.map(({ share }) => share);
      expect([...shares].sort((a, b) => b - a)).toEqual(shares);
      for (const { shard, leaves } of plan.shards) {
        expect(leaves.length).toBeGreaterThan(0);
        for (const leaf of leaves) expect(placed.merged.shardOf[leaf]).toBe(shard);
      }
      expect(placed.compass.selectShards(query, { k: 10, recallTarget: 0.95 })).toEqual(plan);
    }
  });

  test("a shard whose table is not known is visited always, and without a calibration every shard is", () => {
    const compass = new Compass(host, mergeCentroids(placed.tables.slice(0, 11)), {
      shards: Array.from({ length: 13 }, (_, i) => i),
    });
    const query = queries[0] as Code;
    expect(compass.selectShards(query, { k: 10, recallTarget: 0.5 })).toMatchObject({
      rule: "uncalibrated",
      unknown: [11, 12],
    });
    expect(compass.selectShards(query, { k: 10, recallTarget: 0.5 }).shards).toHaveLength(13);
    const vectors = tableOf(host, placed.source);
    const known = (leaf: number): boolean => (placed.merged.shardOf[leaf] as number) < 11;
    const training = runSteps(trainingQueries(vectors, placed.leafOf, { seed: 1, queries: 400, depth: 10 })).filter(
      ({ ownLeaf }) => known(ownLeaf),
    );
    compass.calibrate(runSteps(calibrateCompass(compass, training)));
    const plan = compass.selectShards(query, { k: 10, recallTarget: 0.5 });
    expect(plan.rule).toBe("adaptive");
    expect(plan.shards.length).toBeLessThan(13);
    expect(plan.shards.map(({ shard }) => shard)).toEqual(expect.arrayContaining([11, 12]));
    vectors.close();
    compass.close();
  });

  test("the router finds what a scan finds, or nearly, for a part of the distances", () => {
    const table = tableOf(host, placed.source);
    const router = new CentroidRouter(host, table);
    const [some, all10] = [new TopList(10), new TopList(10)];
    let computed = 0;
    let found = 0;
    for (const query of queries) {
      computed += router.nearest(query, some, 900);
      table.nearest(query, all10);
      found += all10.ids.filter((id) => some.ids.includes(id)).length;
      expect(router.nearest(query, some, Number.POSITIVE_INFINITY)).toBe(6000);
      expect(some.ids).toEqual(all10.ids);
    }
    expect(computed / queries.length).toBeLessThan(1100);
    expect(found / queries.length / 10).toBeGreaterThan(0.95);
    router.close();
    table.close();
  });

  test.each([
    [{ recallTarget: 0 }, "recallTarget"],
    [{ recallTarget: 1.1 }, "recallTarget"],
    [{ recallTarget: Number.NaN }, "recallTarget"],
    [{ k: 0 }, "k"],
    [{ k: 2.5 }, "k"],
    [{ selectivity: 0 }, "selectivity"],
    [{ selectivity: Number.NaN }, "selectivity"],
    [{ passing: [1, 2] }, "passing"],
  ])("refuses %j", (change, name) => {
    const options = { k: 10, recallTarget: 0.9, ...change };
    for (const select of [
      () => placed.compass.selectShards(queries[0] as Code, options),
      () => placed.compass.selectLeaves(queries[0] as Code, options),
    ])
      expect(select).toThrow(
        expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(name) }),
      );
  });

  test("refuses a query of another length or with a NaN, an empty table, and calibration without queries", () => {
    const refused = expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" });
    const { space } = placed.merged;
    expect(() => placed.compass.selectShards(new Uint8Array(3), { k: 1, recallTarget: 0.9 })).toThrow(refused);
    const nan = Float32Array.from({ length: 16 }, () => Number.NaN);
    expect(() => placed.compass.selectShards(nan, { k: 1, recallTarget: 0.9 })).toThrow(refused);
    const empty = mergeCentroids([{ ...emptyColumns(space, 0), space, shard: 0, epoch: 0, version: 0 }]);
    expect(() => new Compass(host, empty)).toThrow(refused);
    expect(() => runSteps(calibrateCompass(placed.compass, []))).toThrow(refused);
  });
});

describe.each([
  ["cosine", METRIC.COSINE, ELEMENT.F32],
  ["cosine of bytes", METRIC.COSINE, ELEMENT.U8],
  ["inner product", METRIC.INNER_PRODUCT, ELEMENT.F32],
])("%s", (_, metric, element) => {
  test("shards and leaves hold what they promise", () => {
    const all = synthetic({ count: 3100, dimensions: 16, clusters: 40, metric, element, random: seeded(2) });
    const space = { dimensions: 16, metric, element };
    const flat = Array.from({ length: 3000 }, (_, i) => [...all.vector(i)]).flat();
    const placed = place(
      packedSource(space, element === ELEMENT.F32 ? Float32Array.from(flat) : Uint8Array.from(flat)),
      60,
      8,
    );
    calibrate(placed, 600, 10);
    const queries = Array.from({ length: 100 }, (_, i) => all.vector(3000 + i).slice());
    const truth = queries.map((query) => nearest(placed.source, query, 10));
    const measured = measure(placed, queries, truth, 0.9);
    expect(measured.recall).toBeGreaterThan(nearTarget(0.9));
    expect(measured.leafRecall).toBeGreaterThan(nearTarget(0.9));
    expect(measured.shards).toBeLessThan(7);
    placed.compass.close();
  });
});

const FOLDER = `${process.env["SHARDLOOM_DATA"] ?? "../shared/data"}/vectors/mnist`;
const BASE = `${FOLDER}/train-images-idx3-ubyte.gz`;
if (!existsSync(BASE)) process.stderr.write(`skipped: no MNIST images under ${FOLDER}; set SHARDLOOM_DATA\n`);

describe.skipIf(!existsSync(BASE))("MNIST", () => {
  test("4,000 images on 16 shards: recall .95 by calibration on other images, on less than a third of the shards", () => {
    const pixels = new Uint8Array(gunzipSync(readFileSync(BASE))).subarray(16);
    const space = { dimensions: 784, metric: METRIC.L2, element: ELEMENT.U8 };
    const placed = place(packedSource(space, pixels.slice(0, 4000 * 784)), 80, 16);
    calibrate(placed, 500, 10);
    const queries = Array.from({ length: 150 }, (_, i) => pixels.slice((50_000 + i) * 784, (50_001 + i) * 784));
    const vectors = tableOf(host, placed.source);
    const top = new TopList(10);
    const truth = queries.map((query) => {
      vectors.nearest(query, top);
      return [...top.ids];
    });
    const measured = measure(placed, queries, truth, 0.95);
    expect(measured.recall).toBeGreaterThan(nearTarget(0.95));
    expect(measured.shards).toBeLessThan(16 / 3);
    expect(measured.leafRecall).toBeGreaterThan(nearTarget(0.95));
    vectors.close();
    placed.compass.close();
  });
});
