/** The shard under a full arena, a full region table, a quarantined thread: typed errors, and nothing of anybody else's touched. */

import { describe, expect, test } from "vitest";
import type { VectorCollectionOptions } from "../../../actors/vector/vector-options.ts";
import type { Arena } from "../../../native-bridge/arena.ts";
import { ACCESS, RegionTable } from "../../../native-bridge/region-table.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { Bed } from "./support.ts";

const MIB = 1024 * 1024;
const OUT_OF_MEMORY = expect.objectContaining({ code: "ERR_OUT_OF_MEMORY" }) as unknown;

/** Takes everything that the arena has left. */
function exhaust(arena: Arena): void {
  for (let size = MIB; size >= 64; ) {
    try {
      arena.allocate(size);
    } catch {
      size >>= 1;
    }
  }
}

function rows(count: number, dimensions: number, from = 0) {
  return Array.from({ length: count }, (_, at) => ({
    id: from + at,
    vector: new Float32Array(dimensions).fill(from + at),
    payload: { pad: "p".repeat(40) },
  }));
}

function recover(bed: Bed, options: VectorCollectionOptions, roots: readonly number[], seed: number): Bed {
  const collections = roots.map((rootAddress, at) => ({ collectionId: at + 1, options, rootAddress }));
  return new Bed({ memory: bed.memory, seed, recover: { collections } });
}

describe("a full arena", () => {
  test.each(["l2", "cosine"] as const)(
    "a %s search whose scratch cannot grow fails typed, and scans go on in the old scratch",
    (metric) => {
      const bed = new Bed({ capacityBytes: 4 * MIB });
      bed.open({ dimensions: 4, metric, scanRows: 1e6 });
      for (let batch = 0; batch < 8; batch++) bed.upsert(4, rows(1000, 4, batch * 1000));
      const { arena, kernels } = bed.context;
      const before = bed.search([1, 2, 3, 4], 3).hits;
      exhaust(arena);
      expect(() => bed.search([1, 1, 0, 0], 8000)).toThrow(OUT_OF_MEMORY);
      expect(() => arena.allocate(kernels.scratchBytes)).toThrow(OUT_OF_MEMORY); // nobody else can get the scratch
      expect(bed.search([1, 2, 3, 4], 3).hits).toEqual(before);
      kernels.close();
      const next = arena.allocate(kernels.scratchBytes || 65_536);
      expect(next).toBeGreaterThanOrEqual(arena.heapByteOffset);
    },
  );

  test("a crashed shard comes back, again and again, although nothing is left to allocate", () => {
    const options: VectorCollectionOptions = { dimensions: 16, metric: "l2", scanRows: 1e6 };
    const bed = new Bed({ capacityBytes: 4 * MIB });
    const root = bed.open(options).root.address;
    let stored = 0;
    const fill = (size: number): void => {
      try {
        for (;;) {
          bed.upsert(16, rows(size, 16, stored));
          stored += size;
        }
      } catch (error) {
        expect(error).toEqual(OUT_OF_MEMORY);
      }
    };
    fill(100);
    fill(1);
    bed.search(new Float32Array(16), 5000); // scratch that the successor has to fit into
    exhaust(bed.context.arena);
    for (let round = 0; round < 4; round++) {
      const successor = recover(bed, options, [root], 5 + round);
      expect(successor.count()).toBe(stored - round);
      expect(successor.get([round, stored - 1]).map((found) => found?.vector?.[15])).toEqual([round, stored - 1]);
      expect(successor.search(new Float32Array(16).fill(70), 1).hits[0]?.id).toBe(70);
      expect(successor.delete([round]).deleted).toBe(1);
      exhaust(bed.context.arena);
    }
  });

  test("gives back what deleted documents held, although there is little room to move the others to", () => {
    const bed = new Bed({ capacityBytes: 8 * MIB });
    const { arena } = bed.context;
    bed.open({ dimensions: 4, metric: "l2", scanRows: 1e6 });
    const payload = { pad: "p".repeat(400) };
    for (let batch = 0; batch < 4; batch++)
      bed.upsert(
        4,
        rows(500, 4, 500 * batch).map((row) => ({ ...row, payload })),
      );
    const room = arena.allocate(64 * 1024);
    exhaust(arena);
    arena.free(room, 64 * 1024);
    const { usedBytes } = arena.stats();
    const gone = Array.from({ length: 2000 }, (_, id) => id).filter((id) => id % 4 !== 0);
    expect(bed.delete(gone).deleted).toBe(1500);
    bed.settle();
    expect(arena.stats().usedBytes).toBeLessThan(usedBytes - 400 * 1024);
    expect(bed.count()).toBe(500);
    expect(bed.get([0, 4, 1000, 1996]).map((found) => found?.vector?.[3])).toEqual([0, 4, 1000, 1996]);
    expect(bed.upsert(4, rows(1000, 4, 5000)).inserted).toBe(1000);
  });

  test("and a full region table does not keep shards from coming back either", () => {
    const options: VectorCollectionOptions = { dimensions: 4, metric: "l2" };
    const bed = new Bed({ capacityBytes: 64 * MIB });
    const roots: number[] = [];
    for (let id = 1; id <= 20; id++) {
      roots.push(bed.open(options, id).root.address);
      bed.upsert(4, rows(10, 4), id);
    }
    const other = new RegionTable(bed.context.arena, 999, bed.context.randomU32);
    const byteOffset = bed.context.arena.allocate(64);
    expect(() => {
      for (;;) other.register({ byteOffset, byteLength: 64, access: ACCESS.READ });
    }).toThrow(expect.objectContaining({ code: "ERR_REGION_TABLE_FULL" }));
    exhaust(bed.context.arena);
    const successor = recover(bed, options, roots, 3);
    expect(roots.map((_, at) => successor.count(undefined, at + 1))).toEqual(roots.map(() => 10));
  });
});

test("a request for more hits than a shard holds at a time is refused, by hits there are rather than asked for", () => {
  const bed = new Bed({ capacityBytes: 64 * MIB });
  bed.open({ dimensions: 1, metric: "l2", scanRows: 1e6 });
  for (let batch = 0; batch < 3; batch++) bed.upsert(1, rows(1000, 1, batch * 1000));
  const queries = Array.from({ length: 400 }, () => [1]);
  const refused = expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", details: { name: "queries", value: 400 } });
  expect(() => bed.searchAll(queries, 65_536)).toThrow(refused);
  expect(() => bed.searchAll(queries, 3000)).toThrow(refused);
  expect(bed.searchAll(queries, 10).map((found) => found.hits.length)).toEqual(queries.map(() => 10));
  expect(bed.searchAll(queries.slice(0, 300), 65_536)).toHaveLength(300);
});

describe("a thread that was quarantined in a native call", () => {
  const small: VectorCollectionOptions = { dimensions: 4, metric: "l2", scanRows: 10 };
  const plain: VectorCollectionOptions = { dimensions: 4, metric: "l2", scanRows: 1e6 };

  /** An engine with collections 1 (indexed) and 2 (worth compacting); its next native call finds a successor in its place. */
  function quarantine() {
    let armed = false;
    let successor: Bed | undefined;
    const bed: Bed = new Bed({
      capacityBytes: 32 * MIB,
      native: (call) => {
        const value = call();
        if (!armed) return value;
        const collections = [
          { collectionId: 1, options: small, rootAddress: roots[0] as number },
          { collectionId: 2, options: plain, rootAddress: roots[1] as number },
        ];
        successor ??= new Bed({ memory: bed.memory, seed: 9, recover: { collections } });
        throw new ShardloomError("ERR_NATIVE_QUARANTINED", "given to another worker");
      },
    });
    const roots = [bed.open(small, 1).root.address, bed.open(plain, 2).root.address];
    bed.upsert(4, rows(100, 4), 1);
    const arm = (): void => {
      armed = true;
    };
    return { bed, arm, successor: () => successor as Bed };
  }

  const QUARANTINED = expect.objectContaining({ code: "ERR_NATIVE_QUARANTINED" }) as unknown;

  test("stops indexing and compacts nothing more", () => {
    const { bed, arm, successor } = quarantine();
    const big = (value: number) =>
      Array.from({ length: 200 }, (_, id) => ({ id, vector: [id, value, 0, 0], payload: { pad: "y".repeat(400) } }));
    for (let round = 0; round < 4; round++) bed.upsert(4, big(round), 2);
    arm();
    expect(() => bed.engine.background?.(1000)).toThrow(QUARANTINED);
    expect(() => bed.engine.background?.(1000)).toThrow(QUARANTINED);
    expect(() => bed.count(undefined, 2)).toThrow(QUARANTINED);
    bed.engine.close(); // frees nothing
    successor().upsert(4, big(9), 2);
    successor().settle();
    expect(
      successor()
        .get([1, 2], 3, 2)
        .map((found) => [...(found?.vector ?? [])]),
    ).toEqual([
      [1, 9, 0, 0],
      [2, 9, 0, 0],
    ]);
    expect(successor().search([3, 3, 3, 3], 1).hits[0]?.id).toBe(3);
  });

  test("fails the write that it indexed for instead of swallowing it", () => {
    const { bed, arm, successor } = quarantine();
    for (let batch = 1; batch <= 17; batch++) bed.upsert(4, rows(1000, 4, batch * 1000)); // so many wait that a write pays
    arm();
    expect(() => bed.upsert(4, rows(1000, 4, 1000))).toThrow(QUARANTINED);
    expect(successor().count()).toBe(17_100);
    expect(successor().search([7, 7, 7, 7], 100).hits).toHaveLength(100);
  });
});
