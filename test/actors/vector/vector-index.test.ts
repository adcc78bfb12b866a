import { describe, expect, it } from "vitest";
import { INDEX_BATCH_ROWS, VectorIndex } from "../../../actors/vector/vector-index.ts";
import { resolveVectorOptions } from "../../../actors/vector/vector-options.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { Bed } from "./support.ts";

const DIMENSIONS = 4;

describe("an index whose rows are replaced for ever", () => {
  it("finds every row by its vector until it is worn, which comes with as many removed rows as live ones", () => {
    const random = createSeededRandom(Number(process.env["SEED"] ?? 7));
    const options = resolveVectorOptions({ dimensions: DIMENSIONS, metric: "l2" });
    const index = new VectorIndex(options, (call) => call());
    const live = new Map<number, Float32Array>();
    let removed = 0;
    for (let round = 0; !index.worn; round++) {
      const rows = Array.from({ length: INDEX_BATCH_ROWS }, (_, at) => round * INDEX_BATCH_ROWS + at);
      for (let at = 0; at < index.staging.length; at++) index.staging[at] = random.float();
      for (const [at, row] of rows.entries())
        live.set(row, index.staging.slice(at * DIMENSIONS, (at + 1) * DIMENSIONS));
      index.add(rows, rows.length);
      for (; live.size > 400; removed++) {
        const row = [...live.keys()][Math.floor(random.float() * live.size)] as number;
        index.remove(row);
        live.delete(row);
      }
      expect(index.size).toBe(live.size);
      for (const row of [...live.keys()].slice(-50)) {
        const found = index.search(live.get(row) as Float32Array, 5);
        expect(found, "removed rows take no places").toBeGreaterThanOrEqual(Math.min(5, live.size));
        expect([...index.rows.subarray(0, found)].every((one) => live.has(one))).toBe(true);
        expect(index.rows[0]).toBe(row);
      }
    }
    expect(removed).toBeGreaterThan(400);
    expect(removed).toBeLessThanOrEqual(400 + INDEX_BATCH_ROWS);
    for (const [row, vector] of live) {
      index.search(vector, 5);
      expect(index.rows[0]).toBe(row);
    }
  });

  it("is built anew behind the collection, which answers exactly meanwhile", () => {
    const random = createSeededRandom(Number(process.env["SEED"] ?? 8));
    const bed = new Bed({ capacityBytes: 64 * 1024 * 1024 });
    bed.open({ dimensions: DIMENSIONS, metric: "l2", scanRows: 16 });
    const vectors = new Map<number, Float32Array>();
    for (let round = 0; round < 400; round++) {
      const documents = Array.from({ length: 8 }, () => {
        const id = Math.floor(random.float() * 120);
        const vector = Float32Array.from({ length: DIMENSIONS }, () => random.float());
        return { id, vector };
      }).filter(({ id }, at, all) => all.findIndex((other) => other.id === id) === at);
      bed.upsert(DIMENSIONS, documents);
      for (const { id, vector } of documents) vectors.set(id, vector);
      bed.engine.background?.(1);
      const query = Float32Array.from({ length: DIMENSIONS }, () => random.float());
      const distance = (vector: Float32Array): number =>
        vector.reduce((sum, x, at) => sum + (x - (query[at] as number)) ** 2, 0);
      const nearest = [...vectors].sort(([, a], [, b]) => distance(a) - distance(b))[0] as [number, Float32Array];
      expect(bed.search([...query], 1, { exact: true }).hits[0]?.id).toBe(nearest[0]);
    }
    bed.settle();
    for (const [id, vector] of vectors) expect(bed.search([...vector], 1, { ef: 200 }).hits[0]).toMatchObject({ id });
  });
});
