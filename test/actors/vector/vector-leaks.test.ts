/**
 * What a shard leaves behind when its thread dies at any atomic operation, also in one or two recoveries after it: every
 * acknowledged document, and, once the collection is dropped, no region and at most the one block that each death had in hand.
 */

import { describe, expect, test } from "vitest";
import type { VectorCollectionOptions } from "../../../actors/vector/vector-options.ts";
import { RegionTable } from "../../../native-bridge/region-table.ts";
import { dieAt, LONG } from "../../native-bridge/memory-support.ts";
import { Bed, type Document, randomFrom } from "./support.ts";

const OPTIONS: VectorCollectionOptions = { dimensions: 4, metric: "cosine", scanRows: 20 };
/** Largest block that a death can lose: a directory, a row chunk, a record chunk. */
const BLOCK_BYTES = 128 * 1024;

/** What is stored, and what the operation in hand may or may not have stored: `undefined` = deleted. */
interface Model {
  readonly stored: Map<string, string>;
  readonly pending: Map<string, string | undefined>;
}

/** Inserts, updates, deletes, a filter, indexing, compaction: the same every time. */
function work(bed: Bed, { stored, pending }: Model): void {
  const next = randomFrom(42);
  const upsert = (documents: readonly Document[]): void => {
    for (const { id, vector } of documents) pending.set(id as string, [...(vector as Float32Array)].join());
    bed.upsert(4, documents);
    for (const [id, value] of pending) stored.set(id, value as string);
    pending.clear();
  };
  const remove = (ids: readonly string[]): void => {
    for (const id of ids) pending.set(id, undefined);
    bed.delete(ids);
    for (const id of ids) stored.delete(id);
    pending.clear();
  };
  const documents = (prefix: string, count: number): Document[] =>
    Array.from({ length: count }, (_, at) => ({
      id: `${prefix}${at}`,
      vector: Float32Array.from({ length: 4 }, next),
      payload: { pad: "x".repeat(Math.floor(next() * 900)) },
    }));
  upsert(documents("a", 60));
  bed.settle();
  upsert(documents("b", 260));
  remove(Array.from({ length: 200 }, (_, at) => `b${at}`));
  bed.count({ pad: { exists: true } });
  for (let round = 0; round < 3; round++) upsert(documents("a", 60));
  bed.settle();
}

function prepared(): { bed: Bed; root: number } {
  const bed = new Bed({ capacityBytes: 4 * 1024 * 1024 });
  return { bed, root: bed.open(OPTIONS).root.address };
}

function recover(bed: Bed, rootAddress: number, seed: number): Bed {
  return new Bed({
    memory: bed.memory,
    seed,
    recover: { collections: [{ collectionId: 1, options: OPTIONS, rootAddress }] },
  });
}

function regionsOf(bed: Bed): number {
  return new RegionTable(bed.context.arena, 999, () => 1).list().length;
}

function check(bed: Bed, { stored, pending }: Model): void {
  const ids = [...new Set([...stored.keys(), ...pending.keys()])];
  const found = bed
    .get(ids)
    .map((document) => (document?.vector === undefined ? undefined : [...document.vector].join()));
  for (const [at, id] of ids.entries()) {
    const allowed = pending.has(id) ? [stored.get(id), pending.get(id)] : [stored.get(id)];
    expect(allowed, id).toContain(found[at]);
  }
  const alive = ids.filter((_, at) => found[at] !== undefined);
  expect(bed.count()).toBe(alive.length);
  const hits = bed.search([1, 1, 1, 1], 1000, { exact: true }).hits;
  expect(new Set(hits.map((hit) => hit.id))).toEqual(new Set(alive));
  expect(hits).toHaveLength(alive.length);
}

describe("a thread that dies at the n-th atomic operation", () => {
  const total = LONG ? 20_000 : 4_000;
  const step = LONG ? 7 : 149;

  test("loses no document, and no memory beyond the block in hand", { timeout: LONG ? 1_800_000 : 30_000 }, () => {
    let deaths = 0;
    for (let n = 1; n < total; n += step) {
      const { bed, root } = prepared();
      const model: Model = { stored: new Map(), pending: new Map() };
      if (!dieAt(n, () => work(bed, model), n % 2 === 1)) break;
      deaths++;
      for (let round = 0; round < 2; round++) {
        const at = 1 + ((n * 7919 + round * 104_729) % ((round + 1) * 700));
        if (dieAt(at, () => void recover(bed, root, 100 + n + round))) deaths++;
      }
      const last = recover(bed, root, 5000 + n);
      check(last, model);
      last.settle();
      last.upsert(4, [{ id: "more", vector: [1, 2, 3, 4] }]);
      last.drop();
      last.context.kernels.close();
      expect(regionsOf(last), `regions, died at ${n}`).toBe(0);
      expect(last.context.arena.stats().usedBytes, `bytes, died at ${n}`).toBeLessThanOrEqual(BLOCK_BYTES);
    }
    expect(deaths).toBeGreaterThan(LONG ? 500 : 20);
  });

  test("creating or dropping: what nobody asks the successor to recover is gone", () => {
    for (const act of [(bed: Bed) => void bed.open(OPTIONS, 2), (bed: Bed) => void bed.drop(1)]) {
      let deaths = 0;
      for (let n = 0; ; n++) {
        const bed = new Bed({ capacityBytes: 4 * 1024 * 1024 });
        bed.open(OPTIONS, 1);
        bed.upsert(4, [{ id: 1, vector: [1, 2, 3, 4] }]);
        if (!dieAt(n, () => act(bed))) break;
        deaths++;
        let heir = bed;
        dieAt((n * 13) % 60, () => {
          heir = new Bed({ memory: bed.memory, seed: 5, recover: { collections: [] } });
        });
        heir = new Bed({ memory: bed.memory, seed: 6, recover: { collections: [] } });
        heir.context.kernels.close();
        expect(regionsOf(heir), `regions, died at ${n}`).toBe(0);
        expect(heir.context.arena.stats().usedBytes, `bytes, died at ${n}`).toBeLessThanOrEqual(2 * BLOCK_BYTES);
      }
      expect(deaths).toBeGreaterThan(5);
    }
  });
});
