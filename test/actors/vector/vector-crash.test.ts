/**
 * Nothing acknowledged is lost when the worker dies, wherever it dies.
 *
 * Twice: exhaustively, with a thread that "dies" (an error out of the n-th atomic operation, for every n) in one upsert,
 * delete, compaction or drop, and again inside the recovery; and with real worker threads, terminated at random moments.
 */

import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import type { VectorCollectionOptions } from "../../../actors/vector/vector-options.ts";
import { Arena, createArena } from "../../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES } from "../../../native-bridge/cell-layout.ts";
import { ROOT_DROPPED, ROOT_GONE, ROOT_MAGIC_WORD } from "../../../src/store/collection-layout.ts";
import { dieAt } from "../../native-bridge/memory-support.ts";
import { Bed, type Document, pack, randomFrom } from "./support.ts";

const OPTIONS: VectorCollectionOptions = { dimensions: 5, metric: "l2" };
function version(id: number, value: number): Document {
  return { id, vector: new Array(5).fill(value), payload: { id, value, pad: "p".repeat((value * 7) % 90) } };
}

function recover(bed: Bed, rootAddress: number): Bed {
  return new Bed({
    memory: bed.memory,
    seed: 99,
    recover: { collections: [{ collectionId: 1, options: OPTIONS, rootAddress }] },
  });
}

/** Value of each id, checked against its payload and against search. */
function valuesOf(bed: Bed, ids: readonly number[]): (number | undefined)[] {
  const values = bed.get(ids).map((stored, index) => {
    if (stored === undefined) return undefined;
    const value = stored.vector?.[0] as number;
    expect([...(stored.vector as Float32Array)]).toEqual(new Array(5).fill(value));
    expect([...(stored.payload as Uint8Array)]).toEqual([...pack(version(ids[index] as number, value).payload)]);
    return value;
  });
  const hits = bed.search([0, 0, 0, 0, 0], 1000).hits;
  expect(bed.count()).toBe(values.filter((value) => value !== undefined).length);
  expect(new Map(hits.map((hit) => [hit.id, Math.round(Math.sqrt(hit.score / 5))]))).toEqual(
    new Map(ids.flatMap((id, index) => (values[index] === undefined ? [] : [[id, values[index]]]))),
  );
  return values;
}

const IDS = Array.from({ length: 30 }, (_, id) => id);

/** ids 0–19 hold 100 + id; the operation may change each id of `after` to its value there. */
const OPERATIONS: [string, (bed: Bed) => void, Map<number, number | undefined>][] = [
  [
    "upsert of new and old",
    (bed) =>
      void bed.upsert(
        5,
        [1, 25, 3, 26, 27, 5].map((id) => version(id, 500 + id)),
      ),
    new Map([1, 25, 3, 26, 27, 5].map((id) => [id, 500 + id])),
  ],
  ["delete", (bed) => void bed.delete([2, 4, 19, 0]), new Map([2, 4, 19, 0].map((id) => [id, undefined]))],
  [
    "reuse of rows",
    (bed) => {
      bed.delete([7, 8]);
      bed.upsert(5, [version(28, 528), version(29, 529)]);
    },
    new Map<number, number | undefined>([
      [7, undefined],
      [8, undefined],
      [28, 528],
      [29, 529],
    ]),
  ],
];

function prepared(): { bed: Bed; root: number } {
  const bed = new Bed({ capacityBytes: 2 * 1024 * 1024 });
  const root = bed.open(OPTIONS).root.address;
  bed.upsert(
    5,
    IDS.slice(0, 20).map((id) => version(id, 100 + id)),
  );
  return { bed, root };
}

describe("a thread that dies at any atomic operation", () => {
  test.each(OPERATIONS)("%s", (_name, act, after) => {
    let deaths = 0;
    for (let n = 0; ; n++) {
      const { bed, root } = prepared();
      const died = dieAt(n, () => act(bed));
      if (!died) break;
      deaths++;
      // Die in the recovery as well, at an operation that moves through it.
      let bedNow = bed;
      dieAt((n * 13) % 120, () => {
        bedNow = recover(bed, root);
      });
      bedNow = recover(bed, root);
      const values = valuesOf(bedNow, IDS);
      for (const id of IDS) {
        const before = id < 20 ? 100 + id : undefined;
        if (values[id] !== before) {
          expect(after.has(id)).toBe(true);
          expect(values[id]).toBe(after.get(id));
        }
      }
      act(bedNow); // it still works, and the client's retry ends where the operation would have
      const retried = valuesOf(bedNow, IDS);
      for (const [id, value] of after) expect(retried[id]).toBe(value);
    }
    expect(deaths).toBeGreaterThan(15);
  });

  test("compaction of the records loses no document", () => {
    let deaths = 0;
    for (let n = 0; n < 400; n += 3) {
      const bed = new Bed({ capacityBytes: 4 * 1024 * 1024 });
      const root = bed.open(OPTIONS).root.address;
      for (let round = 0; round < 200; round++)
        bed.upsert(
          5,
          IDS.map((id) => version(id, round * 30 + id)),
        );
      const died = dieAt(n, () => bed.settle());
      if (died) deaths++;
      const successor = recover(bed, root);
      expect(valuesOf(successor, IDS)).toEqual(IDS.map((id) => 199 * 30 + id));
      successor.settle();
      expect(valuesOf(successor, IDS)).toEqual(IDS.map((id) => 199 * 30 + id));
      expect(successor.status().heapBytes).toBeLessThan(300_000);
      if (!died) break;
    }
    expect(deaths).toBeGreaterThan(20);
  });

  test("a drop that began is finished", () => {
    let deaths = 0;
    let begunDrops = 0;
    let gone = 0;
    for (let n = 0; ; n++) {
      const { bed, root } = prepared();
      if (!dieAt(n, () => bed.drop())) break;
      deaths++;
      const word = (root + CELL_HEADER_BYTES) >>> 2;
      const { i32 } = new Arena(bed.memory);
      const begun = i32[word + ROOT_DROPPED] === 1;
      if (begun) begunDrops++;
      if (i32[word + ROOT_MAGIC_WORD] === ROOT_GONE) gone++;
      const successor = recover(bed, root);
      if (begun) expect(() => successor.count()).toThrow(expect.objectContaining({ code: "ERR_UNKNOWN_COLLECTION" }));
      else expect(valuesOf(successor, IDS.slice(0, 20))).toEqual(IDS.slice(0, 20).map((id) => 100 + id));
      successor.open(OPTIONS);
      expect(successor.count()).toBe(begun ? 0 : 20);
    }
    expect(begunDrops).toBeGreaterThan(5);
    expect(gone).toBeGreaterThan(1);
    expect(deaths).toBeGreaterThan(5);
  });

  test("a wrong root address is refused with its value", () => {
    const { bed, root } = prepared();
    expect(() => recover(bed, root + 64)).toThrow(
      expect.objectContaining({ code: "ERR_CORRUPT", details: { collectionId: 1, rootAddress: root + 64 } }),
    );
  });

  test("versions go on above those that were given out", () => {
    const { bed, root } = prepared();
    const last = bed.upsert(5, [version(1, 7), version(2, 8)]).firstVersion + 1;
    bed.delete([1, 2]);
    expect(recover(bed, root).upsert(5, [version(3, 9)]).firstVersion).toBeGreaterThan(last);
  });
});

test("real workers, terminated at random moments of an upsert and delete loop, lose nothing acknowledged", async () => {
  const seed = Number(process.env["SEED"] ?? 2024);
  const next = randomFrom(seed);
  const ids = 64;
  const memory = createArena({ capacityBytes: 64 * 1024 * 1024 });
  const log = new Int32Array(new SharedArrayBuffer((2 * ids + 4) * 4)); // announced | acknowledged | operations | root
  const announced = 0;
  const acknowledged = ids;
  let operations = 0;
  let generation = 0;
  const deaths = 12;
  for (; generation < deaths; generation++) {
    const worker = new Worker(new URL("./crash-worker.js", import.meta.url), {
      workerData: {
        memory,
        log: log.buffer,
        ids,
        seed: seed + generation,
        rootAddress: Atomics.load(log, 2 * ids + 1),
      },
    });
    const failure = new Promise<never>((_resolve, reject) => worker.once("error", reject));
    const ready = new Promise((resolve) => worker.once("message", resolve));
    await Promise.race([ready, failure]);
    const target = Atomics.load(log, 2 * ids) + 20 + Math.floor(next() * 2000);
    const deadline = performance.now() + 20_000;
    while (Atomics.load(log, 2 * ids) < target && performance.now() < deadline)
      await new Promise((resolve) => setImmediate(resolve));
    for (let spin = Math.floor(next() * 20_000); spin > 0; spin--) Atomics.load(log, 0);
    await Promise.race([worker.terminate(), failure]);
    operations = Atomics.load(log, 2 * ids);
    // The checker adopts under the same owner number, as a successor does, looks at everything, and leaves.
    const bed = new Bed({
      memory,
      seed: 5 + generation,
      recover: { collections: [{ collectionId: 1, options: OPTIONS, rootAddress: Atomics.load(log, 2 * ids + 1) }] },
    });
    const all = Array.from({ length: ids }, (_, id) => id);
    const values = valuesOf(bed, all);
    for (const id of all) {
      const done = log[acknowledged + id] as number;
      const wanted = log[announced + id] as number;
      const seen = values[id];
      const of = (value: number): number | undefined => (value === 0 || value % 7 === 0 ? undefined : value);
      expect([of(done), of(wanted)], `id ${id}, seed ${seed}, generation ${generation}`).toContain(seen);
      // What was found is the state from here: the next worker's log starts with it.
      log[acknowledged + id] = log[announced + id] = seen === of(wanted) ? wanted : done;
    }
    bed.engine.close();
  }
  expect(operations).toBeGreaterThan(deaths * 20);
  expect(generation).toBe(deaths);
});
