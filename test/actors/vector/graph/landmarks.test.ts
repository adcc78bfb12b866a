/** Clusters that lie apart are found, in whatever order they come: the first of each is a landmark, and the next when that goes. */
import { describe, expect, test } from "vitest";
import type { GraphPartition } from "../../../../actors/vector/graph/graph-partition.ts";
import type { GraphSearch } from "../../../../actors/vector/graph/graph-search.ts";
import { GraphView } from "../../../../actors/vector/graph/graph-view.ts";
import type { GraphWriter } from "../../../../actors/vector/graph/graph-writer.ts";
import { Landmarks } from "../../../../actors/vector/graph/landmarks.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { ELEMENT, METRIC, type MetricCode } from "../../../../native-bridge/kernels.ts";
import {
  GRAPH_LANDMARKS,
  LANDMARK_DISTANCE,
  LANDMARK_WORDS,
  MAX_LANDMARKS,
} from "../../../../src/store/graph-layout.ts";
import { generator, seedOf } from "../../../native-bridge/memory-support.ts";
import { recallOf, Site } from "./graph-support.ts";

const SEED = seedOf("landmarks");
const SHARDS = 3;
const DIMENSIONS = 8;
const ROWS = 2_048;

class Bed {
  readonly site: Site;
  readonly partitions: readonly GraphPartition[];
  readonly writer: GraphWriter;
  readonly search: GraphSearch;
  readonly random: () => number = generator(SEED);
  readonly vertices: Map<number, number> = new Map();

  constructor(metric: MetricCode = METRIC.L2) {
    const arena = new Arena(createArena({ capacityBytes: 32 * 1_048_576 }));
    const shape = { dimensions: DIMENSIONS, element: ELEMENT.F32, metric, degree: 16, chunkShift: 7 };
    this.site = Site.create(arena, shape, ROWS);
    this.partitions = Array.from({ length: SHARDS }, (_, shard) => this.site.partition(shard));
    this.writer = this.site.writer({ efConstruction: 32 });
    this.search = this.site.search();
  }

  unit(): number {
    return this.random() / 2 ** 32;
  }

  centres(count: number): Float32Array[] {
    return Array.from({ length: count }, () => Float32Array.from({ length: DIMENSIONS }, () => this.unit()));
  }

  near(centre: Float32Array, radius: number): Float32Array {
    return centre.map((x) => x + (this.unit() - 0.5) * radius);
  }

  insert(row: number, vector: Float32Array): void {
    const partition = this.partitions[row % SHARDS] as GraphPartition;
    this.site.rows.put(row, vector);
    const vertex = this.site.take(partition, row);
    expect(this.writer.insert(vertex)).toBe(true);
    partition.markLinked(vertex);
    this.vertices.set(row, vertex);
  }

  remove(row: number): void {
    const vertex = this.vertices.get(row) as number;
    this.writer.retire(vertex);
    this.partitions[row % SHARDS]?.delete(vertex);
    this.site.rows.remove(row);
    this.vertices.delete(row);
  }

  landmarks(): readonly number[] {
    const view = new GraphView(this.site.arena, this.site.verbs);
    view.refresh(this.site.root.ref);
    return view.landmarks;
  }

  recall(queries: readonly Float32Array[]): number {
    const found = queries.map((query) =>
      recallOf(this.site.rows, ROWS, query, this.site.find(this.search, query, 10, { ef: 20 }), 10),
    );
    return found.reduce((sum, share) => sum + share, 0) / queries.length;
  }

  close(): void {
    this.search.close();
    this.writer.close();
  }
}

describe("landmarks of a graph", () => {
  test.each([
    [10, "mixed", 0.01],
    [10, "sorted", 0.01],
    [40, "mixed", 0.01],
    [40, "sorted", 0.01],
    [40, "mixed", 0],
    [40, "sorted", 0],
  ] as const)("lead to each of %i clusters, %s, of radius %f", (count, order, radius) => {
    const bed = new Bed();
    const centres = bed.centres(count);
    for (let row = 0; row < 1_200; row++) {
      const at = order === "mixed" ? bed.random() % count : Math.floor((row * count) / 1_200);
      bed.insert(row, bed.near(centres[at] as Float32Array, radius));
    }
    const queries = centres.map((centre) => bed.near(centre, radius / 2));
    expect(bed.recall(queries)).toBeGreaterThan(0.95);
    // Those that came later and lie elsewhere.
    const far = bed.centres(8).map((centre) => centre.map((x) => x + 2));
    for (let row = 1_200; row < 1_600; row++)
      bed.insert(row, bed.near(far[Math.floor((row - 1_200) / 50)] as Float32Array, radius));
    const all = [...queries, ...far.map((centre) => bed.near(centre, radius / 2))];
    expect(bed.recall(all)).toBeGreaterThan(0.95);
    // What is deleted names another of its cluster.
    for (let round = 0; round < 3; round++) {
      const landmarks = new Set(bed.landmarks());
      for (const [row, vertex] of bed.vertices) if (landmarks.has(vertex)) bed.remove(row);
      for (const vertex of bed.landmarks()) expect(landmarks).not.toContain(vertex);
    }
    expect(bed.recall(all)).toBeGreaterThan(0.95);
    expect(bed.landmarks().length).toBeGreaterThanOrEqual(count);
    for (const [shard, partition] of bed.partitions.entries()) {
      const ids = new Set([...bed.vertices].filter(([row]) => row % SHARDS === shard).map(([, vertex]) => vertex));
      partition.drop();
      for (const vertex of bed.landmarks()) expect(ids).not.toContain(vertex);
    }
    bed.close();
  });

  test("are nearly none where nothing lies apart, and none by inner products", () => {
    const plain = new Bed();
    for (let row = 0; row < 1_000; row++) plain.insert(row, plain.centres(1)[0] as Float32Array);
    expect(plain.landmarks().length).toBeLessThan(5);
    plain.close();
    const products = new Bed(METRIC.INNER_PRODUCT);
    const centres = products.centres(10);
    for (let row = 0; row < 200; row++) products.insert(row, products.near(centres[row % 10] as Float32Array, 0.01));
    expect(products.landmarks()).toEqual([]);
    products.close();
  });

  test("are those of the greatest distances when more come than there is room for", () => {
    const { site } = new Bed();
    const writers = [new Landmarks(site.root), new Landmarks(site.root)];
    const distances = Array.from({ length: 1_500 }, (_, at) => ((at * 7_919) % 1_500) + 1);
    for (const [vertex, distance] of distances.entries()) writers[vertex % 2]?.linked(vertex, distance);
    const kept = Array.from({ length: MAX_LANDMARKS }, (_, at) => {
      const word = GRAPH_LANDMARKS + at * LANDMARK_WORDS;
      const distance = site.arena.f32[site.root.wordOf(word + LANDMARK_DISTANCE)] as number;
      expect(distance).toBe(distances[site.root.get(word) - 1]);
      return distance;
    });
    expect(kept.sort((a, b) => b - a)).toEqual(Array.from({ length: MAX_LANDMARKS }, (_, at) => 1_500 - at));
  });
});
