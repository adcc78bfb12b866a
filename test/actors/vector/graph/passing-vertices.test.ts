/** What passes a filter: scanned in place or in copies, which are given up as soon as one of the vertices is another document's. */

import { describe, expect, test } from "vitest";
import type { GraphPartition } from "../../../../actors/vector/graph/graph-partition.ts";
import { GraphView } from "../../../../actors/vector/graph/graph-view.ts";
import { FAILS, type PassesAt, PassingVertices } from "../../../../actors/vector/graph/passing-vertices.ts";
import { PassingSets } from "../../../../actors/vector/passing-sets.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { ELEMENT, Kernels, METRIC } from "../../../../native-bridge/kernels.ts";
import { seedOf } from "../../../native-bridge/memory-support.ts";
import { clusters, MODULE, Site } from "./graph-support.ts";

const DIMENSIONS = 32;
const DOCUMENTS = 256;
const MOST = 1_000;

/** Every eighth row passes. */
const passing = (row: number): boolean => row % 8 === 0;

class Scanned {
  readonly site: Site;
  readonly partition: GraphPartition;
  readonly vertices: number[] = [];
  readonly view: GraphView;
  readonly kernels: Kernels;
  readonly vectors: () => Float32Array;
  readonly passes: PassesAt;

  constructor(metric: number, element: number) {
    const arena = new Arena(createArena({ capacityBytes: 16 * 1_048_576 }));
    this.site = Site.create(arena, { dimensions: DIMENSIONS, element, metric, degree: 8, chunkShift: 6 }, DOCUMENTS);
    this.partition = this.site.partition(0);
    this.vectors = clusters(seedOf("passing vertices"), DIMENSIONS, 8);
    for (let row = 0; row < DOCUMENTS; row++) this.put(row);
    this.view = new GraphView(arena, this.site.verbs);
    this.kernels = new Kernels(MODULE, arena);
    this.passes = (address) => (passing(this.site.rows.rowOf(address)) ? 1 : FAILS);
  }

  put(row: number): void {
    this.site.rows.put(row, this.vectors());
    this.vertices[row] = this.site.take(this.partition, row);
    this.partition.markLinked(this.vertices[row]);
  }

  update(set: PassingVertices): void {
    this.view.refresh(this.site.root.ref);
    expect(set.update(this.view, MOST, this.passes)).toBe(true);
  }

  /** The rows nearest to a vector, by a scan of the set. */
  nearest(set: PassingVertices, vector: Float32Array, most = 10): number[] {
    this.update(set);
    const found = set.nearest(this.view, this.kernels, this.site.codeOf(vector), most);
    return Array.from(found?.vertices ?? [], (vertex) => this.vertices.indexOf(vertex));
  }

  /** Scans until there are copies. */
  copied(set: PassingVertices, vector: Float32Array): boolean {
    for (let scan = 0; scan < 8 && set.scan.copyBytes === 0; scan++) this.nearest(set, vector);
    return set.scan.copyBytes > 0;
  }
}

const KINDS = [
  ["u8 by l2", METRIC.L2, ELEMENT.U8],
  ["f32 by cosine", METRIC.COSINE, ELEMENT.F32],
] as const;

describe("the vertices that pass a filter", () => {
  test.each(KINDS)("%s: copies of their codes give what the codes give", (_, metric, element) => {
    const scanned = new Scanned(metric, element);
    const set = new PassingVertices(scanned.site.arena, { claim: () => true });
    const inPlace = new PassingVertices(scanned.site.arena);
    expect(scanned.copied(set, scanned.vectors())).toBe(true);
    for (let query = 0; query < 20; query++) {
      const vector = scanned.vectors();
      const found = scanned.nearest(set, vector);
      expect(found).toEqual(scanned.nearest(inPlace, vector));
      expect(found).toHaveLength(10);
    }
    expect(inPlace.scan.copyBytes, "no room was given").toBe(0);
    expect([set.scan.lacksRoom, inPlace.scan.lacksRoom]).toEqual([false, true]);
    set.close();
    expect(set.scan.copyBytes).toBe(0);
  });

  test("copies are given up when a document that passes is linked, and kept while others are", () => {
    const scanned = new Scanned(METRIC.L2, ELEMENT.U8);
    const { partition, vertices, site } = scanned;
    const set = new PassingVertices(site.arena, { claim: () => true });
    const write = (row: number): void => {
      partition.delete(vertices[row] as number);
      scanned.put(row);
    };
    for (const row of [9, 16]) {
      expect(scanned.copied(set, scanned.vectors())).toBe(true);
      expect(scanned.nearest(set, site.rows.vector(16), 1)).toEqual([16]);
      write(row);
      scanned.update(set);
      expect(set.scan.copyBytes > 0, `row ${row}`).toBe(!passing(row));
    }
    expect(scanned.nearest(set, site.rows.vector(16), 1)).toEqual([16]);
  });

  test("a thread's copies take no more than their room, and idle ones make way", () => {
    const scanned = new Scanned(METRIC.L2, ELEMENT.U8);
    const sets = new PassingSets(scanned.site.arena);
    scanned.view.refresh(scanned.site.root.ref);
    const of = (key: string): PassingVertices => sets.of(key, scanned.view, scanned.passes) as PassingVertices;
    const first = of("first");
    expect(scanned.copied(first, scanned.vectors())).toBe(true);
    const { scan } = of("second");
    const room = scanned.site.arena.capacityBytes / 16;
    expect(sets.claim(scan, room + 1)).toBe(false);
    expect(sets.claim(scan, room), "the first was used just now").toBe(false);
    expect(first.scan.copyBytes).toBeGreaterThan(0);
    expect(sets.claim(scan, room - first.scan.copyBytes)).toBe(true);
    for (let search = 0; search < 256; search++) of("second");
    expect(sets.claim(scan, room)).toBe(true);
    expect(first.scan.copyBytes).toBe(0);
    sets.close();
  });
});
