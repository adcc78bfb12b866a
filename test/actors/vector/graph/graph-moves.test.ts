/** Vertices that are moved: the graph stays what it was, and every document can be found all the time. */

import { describe, expect, test } from "vitest";
import type { GraphPartition } from "../../../../actors/vector/graph/graph-partition.ts";
import type { GraphWriter } from "../../../../actors/vector/graph/graph-writer.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { VERTEX_DEGREE, vertexLock } from "../../../../src/store/graph-layout.ts";
import { generator, seedOf } from "../../../native-bridge/memory-support.ts";
import { clusters, Site } from "./graph-support.ts";

const SEED = seedOf("graph moves");
const SHAPE = { dimensions: 24, element: ELEMENT.U8, metric: METRIC.L2, degree: 8, chunkShift: 5, maxChunks: 128 };
const ROWS = 300;

interface Bed {
  readonly site: Site;
  readonly partitions: readonly GraphPartition[];
  readonly writer: GraphWriter;
  /** By row. */
  readonly vertices: number[];
  readonly random: () => number;
}

/** Two partitions, whose vertices are linked in the order of their rows. */
function bed(): Bed {
  const arena = new Arena(createArena({ capacityBytes: 32 * 1_048_576 }));
  const site = Site.create(arena, SHAPE, 512);
  const vectors = clusters(SEED, SHAPE.dimensions, 8);
  const partitions = [site.partition(0), site.partition(1)];
  const writer = site.writer();
  const vertices: number[] = [];
  for (let row = 0; row < ROWS; row++) {
    site.rows.put(row, vectors());
    const partition = partitions[row % 2]!;
    const vertex = site.take(partition, row);
    expect(writer.insert(vertex)).toBe(true);
    partition.markLinked(vertex);
    vertices.push(vertex);
  }
  return { site, partitions, writer, vertices, random: generator(SEED) };
}

function listOf({ site, partitions }: Bed, vertex: number): number[] {
  const address = partitions.reduce((found, partition) => found + partition.addressOf(vertex), 0);
  const word = (address + VERTEX_DEGREE) >>> 2;
  return [...site.arena.i32.subarray(word + 1, word + 1 + (site.arena.i32[word] as number))];
}

/** Moves a row's vertex to a new slot of its partition. */
function move({ site, partitions, writer, vertices }: Bed, row: number): void {
  const partition = partitions[row % 2]!;
  const copy = site.take(partition, row);
  expect(writer.move(vertices[row]!, copy)).toBe(true);
  partition.markLinked(copy);
  expect(partition.delete(vertices[row]!)).toBe(true);
  vertices[row] = copy;
}

function sweep({ partitions, writer }: Bed): void {
  for (const partition of partitions)
    while (!partition.sweep((vertex) => writer.repair(vertex), Number.POSITIVE_INFINITY));
}

function shuffledRows(random: () => number): number[] {
  const rows = Array.from({ length: ROWS }, (_, row) => row);
  for (let at = ROWS - 1; at > 0; at--) {
    const other = random() % (at + 1);
    [rows[at], rows[other]] = [rows[other]!, rows[at]!];
  }
  return rows;
}

describe("a graph whose vertices are moved", () => {
  test("has the same lists afterwards, edge by edge, however often each was moved", () => {
    const one = bed();
    const first = [...one.vertices];
    const lists = first.map((vertex) => listOf(one, vertex));
    for (const row of shuffledRows(one.random)) move(one, row);
    for (const row of shuffledRows(one.random).slice(0, ROWS / 3)) move(one, row); // once more before anybody repairs
    sweep(one);
    const placeOf = new Map(first.map((vertex, row) => [vertex, one.vertices[row]!]));
    for (const [row, vertex] of one.vertices.entries()) {
      expect(placeOf.get(first[row]!)).not.toBe(first[row]);
      expect(listOf(one, vertex), `SEED=${SEED}, row ${row}`).toEqual(lists[row]!.map((other) => placeOf.get(other)));
    }
    sweep(one);
    expect(one.partitions.map((partition) => partition.deletedCount)).toEqual([0, 0]);
  });

  test("leads to every document while they move and while lists are mended", () => {
    const one = bed();
    const search = one.site.search();
    const isFound = (row: number): void =>
      expect(one.site.find(search, one.site.rows.vector(row), 1, { ef: 64 }), `SEED=${SEED}`).toEqual([row]);
    const found = Array.from({ length: ROWS }, (_, row) => row).filter(
      (row) => one.site.find(search, one.site.rows.vector(row), 1, { ef: 64 })[0] === row,
    );
    expect(found.length).toBeGreaterThan(ROWS * 0.95);
    for (const [step, row] of shuffledRows(one.random).entries()) {
      move(one, row);
      if (step % 100 === 50) sweep(one);
      isFound(found[step % found.length]!);
    }
  });

  test("is linked to where a vertex is, not to where it was", () => {
    const one = bed();
    const before = one.vertices[5]!;
    move(one, 5);
    one.site.rows.put(ROWS, one.site.rows.vector(5));
    const twin = one.site.take(one.partitions[0]!, ROWS);
    expect(one.writer.insert(twin)).toBe(true);
    expect(listOf(one, twin)).toContain(one.vertices[5]!);
    expect(listOf(one, twin)).not.toContain(before);
  });
});

test("a move whose vertex is locked by another thread is not done, and changes nothing", () => {
  const one = bed();
  const { site } = one;
  const lock = (one.partitions[1]!.addressOf(one.vertices[7]!) + vertexLock(site.root.geometry)) >>> 2;
  Atomics.store(site.arena.i32, lock, 12345);
  const list = listOf(one, one.vertices[7]!);
  const copy = site.take(one.partitions[1]!, 7);
  expect(one.writer.move(one.vertices[7]!, copy)).toBe(false);
  expect(listOf(one, one.vertices[7]!)).toEqual(list);
  expect(listOf(one, copy)).toEqual([]);
  expect(one.writer.move(one.vertices[7]!, 0x7fff_fff0)).toBe(false); // an id that leads nowhere
  Atomics.store(site.arena.i32, lock, 0);
  expect(one.writer.move(one.vertices[7]!, copy)).toBe(true);
  expect(listOf(one, copy)).toEqual(list);
});
