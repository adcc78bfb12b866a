/** The index library failing: the shard stays, finds everything by its scan, and builds another index. */
import { expect, test } from "vitest";
import { Bed } from "./support.ts";

const range = (count: number): number[] => Array.from({ length: count }, (_, at) => at);

test.each([2, 3, 20])("an index whose native call %i throws is given up and built again", (failing) => {
  let calls = 0;
  const bed = new Bed({
    native: (call) => {
      calls++;
      const result = call();
      if (calls === failing) throw new TypeError("Duplicate keys not allowed in high-level wrappers");
      return result;
    },
  });
  bed.open({ dimensions: 4, metric: "l2", scanRows: 10 });
  const documents = range(500).map((id) => ({ id, vector: [id, 1, 2, 3] }));
  bed.upsert(4, documents);
  while (bed.engine.background?.(5));
  expect(calls).toBeGreaterThan(failing);
  expect(bed.status()).toMatchObject({ rows: 500, indexed: 500, unindexed: 0 });
  for (const id of [0, 77, 499]) expect(bed.search(Float32Array.of(id, 1, 2, 3), 1).hits[0]?.id).toBe(id);
  bed.engine.close();
});
