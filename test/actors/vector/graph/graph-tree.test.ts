/**
 * Every linked vertex is led to, whatever is inserted, deleted, moved and repaired in between: also in clusters whose documents are nearer
 * to each other than to anything else, where lists are full of equals.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { GraphPartition } from "../../../../actors/vector/graph/graph-partition.ts";
import type { GraphWriter } from "../../../../actors/vector/graph/graph-writer.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { GRAPH_TREE_ROOT, VERTEX_NEIGHBOURS } from "../../../../src/store/graph-layout.ts";
import { generator, seedOf } from "../../../native-bridge/memory-support.ts";
import { Site, unreached } from "./graph-support.ts";

const SEED = seedOf("graph tree");
const SHARDS = 3;
const DOCUMENTS = 512;

/** Vectors all over the place, or in clusters with little in between, the clusters in turn or one after the other. */
type Spread = "random" | "clusters" | "sorted clusters";

class Bed {
  readonly site: Site;
  readonly partitions: readonly GraphPartition[];
  readonly writer: GraphWriter;
  /** By row. */
  readonly vertices: Map<number, number> = new Map();
  readonly #next: () => Float32Array;

  constructor(seed: number, dimensions: number, degree: number, spread: Spread) {
    const arena = new Arena(createArena({ capacityBytes: 64 * 1_048_576 }));
    const shape = { dimensions, element: ELEMENT.F32, metric: METRIC.L2, degree, chunkShift: 6 };
    this.site = Site.create(arena, shape, DOCUMENTS);
    this.partitions = Array.from({ length: SHARDS }, (_, shard) => this.site.partition(shard));
    this.writer = this.site.writer({ efConstruction: 48 });
    const random = generator(seed);
    const unit = (): number => random() / 2 ** 32;
    const centres = Array.from({ length: 8 }, () => Array.from({ length: dimensions }, () => unit() * 3));
    let made = 0;
    this.#next = () => {
      const at = spread === "sorted clusters" ? Math.floor(made++ / 50) : random();
      const centre = spread === "random" ? undefined : centres[at % centres.length];
      return Float32Array.from({ length: dimensions }, (_, axis) => (centre?.[axis] ?? 0) + unit() * 0.5);
    };
  }

  partitionOf(row: number): GraphPartition {
    return this.partitions[row % SHARDS] as GraphPartition;
  }

  insert(row: number): void {
    this.site.rows.put(row, this.#next());
    const vertex = this.site.take(this.partitionOf(row), row);
    expect(this.writer.insert(vertex)).toBe(true);
    this.partitionOf(row).markLinked(vertex);
    this.vertices.set(row, vertex);
  }

  remove(row: number): void {
    this.partitionOf(row).delete(this.vertices.get(row) as number);
    this.site.rows.remove(row);
    this.vertices.delete(row);
  }

  move(row: number): void {
    const partition = this.partitionOf(row);
    const before = this.vertices.get(row) as number;
    const copy = this.site.take(partition, row);
    expect(this.writer.move(before, copy)).toBe(true);
    partition.markLinked(copy);
    partition.delete(before);
    this.vertices.set(row, copy);
  }

  /** A pass of one partition, or a slice of it. */
  sweep(shard: number, whole: boolean): void {
    const partition = this.partitions[shard] as GraphPartition;
    while (!partition.sweep((vertex) => this.writer.repair(vertex), whole ? Number.POSITIVE_INFINITY : 0) && whole);
    for (const each of this.partitions) each.freeDeleted();
  }

  /** One change that chance chooses. */
  step(random: () => number): void {
    const kind = random() % 100;
    const row = random() % DOCUMENTS;
    if (kind >= 97) this.sweep(random() % SHARDS, random() % 2 === 0);
    else if (!this.vertices.has(row)) this.insert(row);
    else if (kind < 50) this.remove(row);
    else if (kind < 70) this.move(row);
  }
}

describe("a graph", () => {
  test.each(["random", "clusters", "sorted clusters"] as const)(
    "leads to every vertex by what its tree's root leads to: %s",
    (spread) => {
      fc.assert(
        fc.property(fc.nat(), fc.constantFrom(8, 16, 32), fc.constantFrom(4, 64, 256), (seed, degree, dimensions) => {
          const bed = new Bed(seed, dimensions, degree, spread);
          const random = generator(seed);
          for (let row = 0; row < 300; row++) bed.insert(row);
          expect(unreached(bed.site)).toEqual([]);
          for (let step = 0; step < 200; step++) {
            bed.step(random);
            if (step % 10 === 0) expect(unreached(bed.site), `step ${step}`).toEqual([]);
          }
          for (const row of [...bed.vertices.keys()].slice(3)) bed.remove(row); // the root too, and most that hang on others
          for (let shard = 0; shard < SHARDS; shard++) bed.sweep(shard, true);
          for (let row = 0; row < 100; row++) if (!bed.vertices.has(row)) bed.insert(row);
          expect(unreached(bed.site), "after most were deleted").toEqual([]);
          bed.writer.close();
        }),
        { numRuns: 4, seed: SEED },
      );
    },
  );

  test("is emptied and filled again, and has one root after", () => {
    const bed = new Bed(SEED, 16, 8, "clusters");
    for (let round = 0; round < 4; round++) {
      for (let row = 0; row < 60; row++) bed.insert(row);
      const root = bed.site.root.get(GRAPH_TREE_ROOT) - 1;
      expect([...bed.vertices.values()]).toContain(root);
      expect(unreached(bed.site)).toEqual([]);
      for (let row = 0; row < 60; row++) bed.remove(row);
      if (round % 2 === 0) for (let shard = 0; shard < SHARDS; shard++) bed.sweep(shard, true);
    }
    bed.writer.close();
  });

  test("has lists mended that were written over: a pass leads to every vertex again", () => {
    const bed = new Bed(SEED, 16, 16, "clusters");
    for (let row = 0; row < 200; row++) bed.insert(row);
    const random = generator(SEED);
    const { i32 } = bed.site.arena;
    const root = bed.site.root.get(GRAPH_TREE_ROOT) - 1;
    const lost = new Set([...bed.vertices.values()].filter((vertex) => vertex !== root && random() % 10 === 0));
    for (const [row, vertex] of bed.vertices) {
      const first = (bed.partitionOf(row).addressOf(vertex) + VERTEX_NEIGHBOURS) >>> 2;
      for (let at = first; at < first + 16; at++) if (lost.has(i32[at] as number)) i32[at] = random() | 0;
    }
    expect(unreached(bed.site)).toEqual([...lost].sort((a, b) => a - b));
    for (let shard = 0; shard < SHARDS; shard++) bed.sweep(shard, true);
    expect(unreached(bed.site)).toEqual([]);
    bed.writer.close();
  });
});
