import { describe, expect, it } from "vitest";
import { INDEX_BATCH_ROWS, VectorIndex } from "../../../actors/vector/vector-index.ts";
import { resolveVectorOptions } from "../../../actors/vector/vector-options.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { Bed } from "./support.ts";

const DIMENSIONS = 4;

describe("an index whose rows are replaced for ever", () => {
  it("is worn before its table of keys has no empty slot left, where usearch would not come back", () => {
    const random = createSeededRandom(Number(process.env["SEED"] ?? 7));
    const options = resolveVectorOptions({ dimensions: DIMENSIONS, metric: "l2" });
    let index = new VectorIndex(options, (call) => call());
    let live: number[] = [];
    let built = 1;
    let next = 0;
    for (let round = 0; round < 3_000; round++) {
      if (index.worn) {
        index = new VectorIndex(options, (call) => call());
        live = [];
        built++;
      }
      const rows = Array.from({ length: INDEX_BATCH_ROWS }, () => next++ % 1_000_003);
      for (let at = 0; at < index.staging.length; at++) index.staging[at] = random.float();
      index.add(rows, rows.length);
      live.push(...rows);
      while (live.length > 100) index.remove(live.splice(Math.floor(random.float() * live.length), 1)[0] as number);
      expect(index.size).toBe(live.length);
    }
    // Every key is another one: with 256 slots an index lasts for some ten batches.
    expect(built).toBeGreaterThan(100);
    expect(index.search(new Float32Array(DIMENSIONS), 5)).toBe(Math.min(5, live.length));
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
