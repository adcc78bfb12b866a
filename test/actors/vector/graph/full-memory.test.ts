/** A shard's part in a graph while there is no memory: nothing that it has is lost, what it cannot link is let go, and it goes on once there is some. */
import { afterEach, describe, expect, it } from "vitest";
import { graphShapeOf } from "../../../../actors/vector/graph/graph-code.ts";
import { GraphRoot } from "../../../../actors/vector/graph/graph-root.ts";
import { resolveVectorOptions } from "../../../../actors/vector/vector-options.ts";
import { Arena } from "../../../../native-bridge/arena.ts";
import { RegionTable } from "../../../../native-bridge/region-table.ts";
import { ShardloomError } from "../../../../src/errors.ts";
import { graphChunkBytes } from "../../../../src/store/graph-layout.ts";
import { Bed, type Document, randomFrom } from "../support.ts";

const DIMENSIONS = 8;
const OPTIONS = {
  dimensions: DIMENSIONS,
  metric: "l2",
  strategy: "one-sided",
  scanRows: 20,
  quantization: "f32",
} as const;
/** Kernels of graphs take more at once than anything else here. */
const KERNEL_BYTES = 200 * 1024;

let bed: Bed;
let root: GraphRoot;
const random = randomFrom(5);
const vectors = Array.from({ length: 400 }, () => Float32Array.from({ length: DIMENSIONS }, () => random() * 250));

function open(): void {
  bed = new Bed({ capacityBytes: 32 * 1024 * 1024 });
  const { arena } = bed.context;
  const regions = new RegionTable(arena, 9, () => Math.floor(random() * 2 ** 32));
  root = GraphRoot.create(arena, regions, 1, { ...graphShapeOf(resolveVectorOptions(OPTIONS)), chunkBytes: 4096 });
  bed.open(OPTIONS, 1, root.ref);
}

afterEach(() => {
  bed.engine.close();
  bed.context.kernels.close();
});

/** What the arena refuses from here on. */
function refuse(isRefused: (byteLength: number) => boolean): void {
  const { arena } = bed.context;
  arena.allocate = (byteLength) => {
    if (!isRefused(byteLength)) return Arena.prototype.allocate.call(arena, byteLength);
    throw new ShardloomError("ERR_OUT_OF_MEMORY", `Cannot allocate ${byteLength} bytes as a test lets it fail`);
  };
}

function documents(from: number, to: number, pad = 0): Document[] {
  return vectors.slice(from, to).map((vector, at) => ({ id: from + at, vector, payload: { pad: "p".repeat(pad) } }));
}

/** Slices of background work that come to nothing. */
function strive(slices = 40): void {
  for (let slice = 0; slice < slices; slice++) bed.engine.background?.(50);
}

/** Whether each of those documents is found first where it is, by the shard's graph and what waits. */
function expectFound(ids: readonly number[]): void {
  for (const id of ids) {
    const { hits } = bed.search(vectors[id] as Float32Array, 3, { viaGraph: true });
    expect(hits[0]).toMatchObject({ id, score: 0 });
    expect(hits).toEqual(bed.search(vectors[id] as Float32Array, 3, { exact: true }).hits);
  }
}

/** Links as many as fit the chunks that kernels have room for, and has more wait for which there is none. @returns how many are linked */
function fill(): number {
  open();
  bed.upsert(DIMENSIONS, documents(0, 40));
  bed.settle();
  expectFound([0, 39]); // the kernels of searches are there
  bed.upsert(DIMENSIONS, documents(40, 200));
  const chunkBytes = graphChunkBytes(root.geometry);
  refuse((byteLength) => byteLength !== chunkBytes);
  strive();
  const { indexed, unindexed } = bed.status();
  expect(indexed).toBeGreaterThanOrEqual(40);
  expect(unindexed).toBe(200 - indexed);
  return indexed;
}

const ids = (from: number, to: number, step = 1): number[] =>
  Array.from({ length: Math.ceil((to - from) / step) }, (_, at) => from + at * step);

describe("a shard whose arena is full", () => {
  it("lets go of what it cannot link, and links all of it once it can", () => {
    const linked = fill();
    expect(root.counts().live, "vertices of documents that are linked").toBe(linked);
    expectFound(ids(0, 200, 7));
    refuse(() => false);
    bed.settle();
    expect(bed.status()).toMatchObject({ indexed: 200, unindexed: 0 });
    expect(root.counts().live).toBe(200);
    expectFound(ids(0, 200, 7));
  });

  it("deletes and replaces documents all the same, landmarks among them", () => {
    fill();
    refuse(() => true);
    expect(bed.delete(ids(0, 40)).deleted).toBe(40);
    bed.upsert(DIMENSIONS, [{ id: 50, vector: vectors[300] as Float32Array, payload: { pad: "" } }]);
    expect(bed.count()).toBe(160);
    expect(bed.get(ids(0, 40)).some((found) => found !== undefined)).toBe(false);
    expectFound(ids(51, 200, 7));
    expect(bed.search(vectors[300] as Float32Array, 1, { viaGraph: true }).hits).toMatchObject([{ id: 50, score: 0 }]);
    refuse(() => false);
    bed.settle();
    expect(bed.status()).toMatchObject({ indexed: 160, unindexed: 0 });
    expect(root.counts().live).toBe(160);
    expectFound(ids(51, 200, 7));
  });

  it("gives back what deleted documents held, although it can link none", () => {
    fill();
    refuse(() => false);
    for (let round = 0; round < 4; round++) bed.upsert(DIMENSIONS, documents(0, 200, 2_000));
    refuse((byteLength) => byteLength > KERNEL_BYTES);
    const { usedBytes } = bed.context.arena.stats();
    expect(bed.delete(ids(0, 180)).deleted).toBe(180);
    strive();
    expect(bed.context.arena.stats().usedBytes).toBeLessThan(usedBytes - 200 * 1024);
    expectFound(ids(180, 200));
  });

  it("answers by a scan where the graph cannot be searched, however many wait to be linked", () => {
    open();
    bed.upsert(DIMENSIONS, documents(0, 200));
    bed.settle();
    bed.upsert(DIMENSIONS, documents(200, 300));
    refuse(() => true);
    expectFound(ids(0, 300, 7));
  });
});
