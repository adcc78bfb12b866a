/** One-sided reads while rows are deleted, moved, dropped or left open by a dead writer, at exactly the worst moment. */

import { describe, expect, test } from "vitest";
import { NOT_FOUND, VectorReader } from "../../../actors/vector/vector-reader.ts";
import { beginWrite } from "../../../native-bridge/cell.ts";
import { CELL_HEADER_BYTES } from "../../../native-bridge/cell-layout.ts";
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import { Verbs } from "../../../native-bridge/verbs.ts";
import { decodeMetadata } from "../../../src/store/metadata-codec.ts";
import { dieAt } from "../../native-bridge/memory-support.ts";
import { Bed, makeContext } from "./support.ts";

/** A shard, and a reader of it whose scans and reads can be interrupted. */
function setup(dimensions = 1) {
  const bed = new Bed({ capacityBytes: 32 * 1024 * 1024 });
  const root = bed.open({ dimensions, metric: "l2", scanRows: 1e7 }).root;
  const context = makeContext(bed.memory, 77, 5);
  const verbs = new Verbs(context.arena);
  const reader = new VectorReader(context.arena, verbs, context.kernels, { roots: () => [root], shardOf: () => 0 });
  /** Runs `act` once, right after the n-th call of a method. */
  const interrupt = <T extends object>(target: T, method: keyof T, nth: number, act: () => void): void => {
    const original = (target[method] as (...parameters: unknown[]) => unknown).bind(target);
    let calls = 0;
    (target as Record<keyof T, unknown>)[method] = (...parameters: unknown[]) => {
      const value = original(...parameters);
      if (++calls === nth) act();
      return value;
    };
  };
  return { bed, root, context, verbs, reader, interrupt };
}

const hitsOf = (result: { hits: readonly { id: unknown; score: number }[] }) =>
  result.hits.map(({ id, score }) => [id, score]);

describe("a reference to a deleted document", () => {
  test("is stale from the delete on, and stays so when the row is used again", () => {
    const { bed, verbs, reader } = setup(2);
    const ids = Array.from({ length: 20 }, (_, at) => `a${at}`);
    bed.upsert(
      2,
      ids.map((id) => ({ id, vector: [1, 1] })),
    );
    const refs = ids.map((id) => reader.region(id) as RegionRef);
    const target = new Float32Array(2);
    bed.delete(ids);
    for (const ref of refs) expect(verbs.read(ref, target)).toBe(STATUS.STALE_CELL);
    expect(reader.get("a0", target)).toBe(NOT_FOUND);
    bed.upsert(
      2,
      ids.slice(0, 10).map((id) => ({ id, vector: [2, 2] })),
    );
    for (const ref of refs) expect(verbs.read(ref, target)).toBe(STATUS.STALE_CELL);
    expect([...target]).toEqual([0, 0]);
  });

  test("is stale wherever in the delete the owner died, or still reads the document", () => {
    for (let n = 0, died = true; died; n++) {
      const { bed, root, reader, verbs } = setup(2);
      bed.upsert(2, [{ id: "a", vector: [1, 2] }]);
      const ref = reader.region("a") as RegionRef;
      died = dieAt(n, () => void bed.delete(["a"]));
      const recovered = new Bed({
        memory: bed.memory,
        recover: {
          collections: [
            { collectionId: 1, options: { dimensions: 2, metric: "l2", scanRows: 1e7 }, rootAddress: root.address },
          ],
        },
      });
      const [info] = recovered.context.regions
        .list()
        .filter((region) => region.ref.address <= ref.address && ref.address < region.ref.address + region.ref.length);
      const status = verbs.read({ ...ref, rkey: info?.ref.rkey as number }, new Float32Array(2));
      expect(status, `died at ${n}`).toBe(recovered.count() === 1 ? STATUS.SUCCESS : STATUS.STALE_CELL);
    }
  });
});

describe("a drop", () => {
  test("shows no reader anybody else's documents, however far it got", () => {
    let deaths = 0;
    for (let n = 0; ; n++) {
      const { bed, reader } = setup(4);
      bed.upsert(
        4,
        Array.from({ length: 50 }, (_, at) => ({ id: `mine-${at}`, vector: [at, 0, 0, 0], payload: { tenant: "A" } })),
      );
      const query = Float32Array.of(1, 0, 0, 0);
      expect(reader.scanExact(query, 2).hits).toHaveLength(2);
      if (!dieAt(n, () => void bed.drop())) break;
      deaths++;
      const other = new Bed({ memory: bed.memory, workerIndex: 1, seed: 3 });
      other.open({ dimensions: 4, metric: "l2" }, 2);
      other.upsert(
        4,
        Array.from({ length: 50 }, (_, at) => ({ id: `othr-${at}`, vector: [9, 9, 9, 9], payload: { tenant: "B" } })),
        2,
      );
      const { hits, statuses } = reader.scanExact(query, 3, { includePayload: true });
      for (const { id, payload } of hits) {
        expect(id, `died at ${n}`).toMatch(/^mine-/);
        expect(decodeMetadata(payload as Uint8Array)).toEqual({ tenant: "A" });
      }
      const ends: number[] = [STATUS.REGION_REVOKED, STATUS.RETRY_EXCEEDED]; // the latter while the root is left open
      if (hits.length === 0) expect(ends).toContain(statuses[0]);
      expect([STATUS.SUCCESS, ...ends]).toContain(reader.get("mine-1", new Float32Array(4)));
    }
    expect(deaths).toBeGreaterThan(5);
  });
});

describe("scanExact", () => {
  const documents = [
    { id: "mover", vector: [1] },
    { id: "stable", vector: [2] },
    { id: "X", vector: [3] },
    { id: "Y", vector: [4] },
  ];

  test("when its best hit moves away after the scan, gives the next best", () => {
    const { bed, context, reader, interrupt } = setup();
    bed.upsert(1, documents);
    interrupt(context.kernels, "endScan", 1, () => bed.upsert(1, [{ id: "mover", vector: [1000] }]));
    expect(hitsOf(reader.scanExact(Float32Array.of(0), 1))).toEqual([["stable", 4]]);
  });

  test("when more hits move away than were kept in spare, scans again", () => {
    const { bed, context, reader, interrupt } = setup();
    const ids = Array.from({ length: 200 }, (_, id) => id);
    bed.upsert(
      1,
      ids.map((id) => ({ id, vector: [id] })),
    );
    interrupt(context.kernels, "endScan", 1, () =>
      bed.upsert(
        1,
        ids.slice(0, 100).map((id) => ({ id, vector: [id + 1000] })),
      ),
    );
    expect(hitsOf(reader.scanExact(Float32Array.of(0), 3))).toEqual([
      [100, 10_000],
      [101, 10_201],
      [102, 10_404],
    ]);
  });

  test("when documents swap rows between two reads, gives no id twice", () => {
    for (let nth = 1; nth <= 4; nth++) {
      const { bed, verbs, reader, interrupt } = setup();
      bed.upsert(1, documents);
      interrupt(verbs, "endInPlace", nth, () => {
        bed.delete(["X"]);
        bed.delete(["Y"]);
        bed.upsert(1, documents.slice(2));
      });
      expect(hitsOf(reader.scanExact(Float32Array.of(0), 3))).toEqual([
        ["mover", 1],
        ["stable", 4],
        ["X", 9],
      ]);
    }
  });

  test("when rows keep changing, ends in a status after a bounded number of scans", () => {
    const { bed, context, reader } = setup();
    const ids = Array.from({ length: 200 }, (_, id) => id);
    bed.upsert(
      1,
      ids.map((id) => ({ id, vector: [id] })),
    );
    const end = context.kernels.endScan.bind(context.kernels);
    let scans = 0;
    context.kernels.endScan = () => {
      const count = end();
      scans++;
      bed.upsert(
        1,
        ids.map((id) => ({ id, vector: [id + 1000 * scans] })),
      );
      return count;
    };
    expect(reader.scanExact(Float32Array.of(0), 3)).toMatchObject({ hits: [], statuses: [STATUS.RETRY_EXCEEDED] });
    expect(scans).toBeLessThan(10);
  });

  test("gives 150,000 hits", () => {
    const { bed, reader } = setup();
    for (let batch = 0; batch < 150; batch++)
      bed.upsert(
        1,
        Array.from({ length: 1000 }, (_, at) => ({ id: batch * 1000 + at, vector: [at] })),
      );
    const { hits } = reader.scanExact(Float32Array.of(0), 150_000);
    expect(hits).toHaveLength(150_000);
    expect(hits.at(-1)).toMatchObject({ id: 149_999, score: 999 ** 2 });
  });

  test.each([0, 5])("leaves out row %i, which a dead writer left open, and nothing else", (row) => {
    const { bed, context, reader } = setup();
    bed.upsert(
      1,
      Array.from({ length: 10 }, (_, id) => ({ id, vector: [id] })),
    );
    beginWrite(context.arena.i32, (reader.region(row) as RegionRef).address - CELL_HEADER_BYTES);
    const { hits, statuses, unread } = reader.scanExact(Float32Array.of(0), 10);
    expect({ statuses, unread }).toEqual({ statuses: [STATUS.SUCCESS], unread: 1 });
    expect(hits.map((hit) => hit.id)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].filter((id) => id !== row));
  });
});
