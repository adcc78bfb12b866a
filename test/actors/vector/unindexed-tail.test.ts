/** Rows that wait for the index: writes go on as fast as they come up to a bound, then at the pace of the index. */
import { describe, expect, test } from "vitest";
import type { ReplicatedEngine, SnapshotPart } from "../../../actors/engine.ts";
import { Bed, type Document, wireMemory } from "./support.ts";

const DIMENSIONS = 2_048;
/** 8 MiB of vectors. */
const TAIL_ROWS = 1_024;
const OPTIONS = { dimensions: DIMENSIONS, metric: "l2", connectivity: 2, expansionAdd: 2, scanRows: 100 } as const;

function documents(from: number, count: number): Document[] {
  return Array.from({ length: count }, (_, at) => ({
    id: from + at,
    vector: new Float32Array(DIMENSIONS).map((_value, i) => Math.sin((from + at) * 7 + i)),
  }));
}

function filled(rows: number, bed = new Bed({ capacityBytes: 256 * 1024 * 1024 })): Bed {
  bed.open(OPTIONS);
  for (let from = 0; from < rows; from += 32) bed.upsert(DIMENSIONS, documents(from, Math.min(32, rows - from)));
  return bed;
}

function copyParts(from: Bed, to: Bed): void {
  const source = from.engine.replicated as ReplicatedEngine;
  const target = to.engine.replicated as ReplicatedEngine;
  for (let vshard = 0; vshard < 64; vshard++) {
    const next = source.snapshot(vshard, 1 << 20);
    for (let part: SnapshotPart | undefined = next(); part !== undefined; part = next()) {
      const memory = wireMemory(part.body.length);
      memory.bytes.set(part.body);
      target.apply({ ...memory, ...part, vshard, offset: 0, length: part.body.length });
    }
  }
}

describe("without any background work", () => {
  test("writes leave the index alone up to the bound, and never more than it waits", () => {
    const bed = filled(TAIL_ROWS);
    expect(bed.status()).toMatchObject({ rows: TAIL_ROWS, indexed: 0, unindexed: TAIL_ROWS });
    for (let from = TAIL_ROWS; from < TAIL_ROWS + 320; from += 32) {
      bed.upsert(DIMENSIONS, documents(from, 32));
      const { rows, indexed, unindexed } = bed.status();
      expect(rows).toBe(from + 32);
      expect(indexed + unindexed).toBe(rows);
      expect(unindexed).toBeLessThanOrEqual(TAIL_ROWS);
    }
    expect(bed.status().indexed).toBe(320);
  });

  test("documents that are written again count as well, and searches find all at any time", () => {
    const bed = filled(TAIL_ROWS);
    for (let round = 0; round < 10; round++) bed.upsert(DIMENSIONS, documents(TAIL_ROWS - 32 * (round + 1), 32));
    const { rows, indexed, unindexed } = bed.status();
    expect(rows).toBe(TAIL_ROWS);
    expect(unindexed).toBe(TAIL_ROWS - indexed);
    expect(indexed).toBe(32); // rows that wait already make the tail no longer
    for (const { id, vector } of documents(100, 3))
      expect(bed.search(vector, 1).hits[0]).toMatchObject({ id, score: 0 });
  });

  test("effects of another shard pay where an index is there already, and not while a shard is loaded", () => {
    const source = filled(1_536);
    const loading = new Bed({ capacityBytes: 256 * 1024 * 1024 });
    loading.open(OPTIONS);
    copyParts(source, loading);
    expect(loading.status()).toMatchObject({ rows: 1_536, indexed: 0, unindexed: 1_536 });
    const serving = filled(TAIL_ROWS + 32);
    copyParts(source, serving);
    expect(serving.status().rows).toBe(1_536);
    expect(serving.status().unindexed).toBeLessThanOrEqual(TAIL_ROWS);
    loading.settle();
    expect(loading.status()).toMatchObject({ indexed: 1_536, unindexed: 0 });
  });
});
