/** Copies are compared by what they hold, not by where it lies; any difference of a row is found. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { contentsOf, firstDifference, type ShardMemory } from "../../src/sim/copy-contents.ts";
import { Bed, type Document } from "../actors/vector/support.ts";

const OPTIONS = { dimensions: 3, metric: "l2" } as const;

function document(id: number, value: number): Document {
  return { id, vector: [value, 1, id], payload: { value } };
}

/** A shard that took these documents, in this order, one message each. */
function shardWith(shard: number, documents: readonly Document[], deleted: readonly number[] = []): ShardMemory {
  const bed = new Bed({ capacityBytes: 2 * 1024 * 1024, workerIndex: shard });
  bed.open(OPTIONS);
  for (const each of documents) bed.upsert(3, [each]);
  if (deleted.length > 0) bed.delete([...deleted]);
  return { name: `n${shard}/w0`, shard, memory: bed.memory };
}

const BOTH = (): number[] => [0, 1];

describe("contents of copies", () => {
  it("are equal after the same writes, and name the vshard that differs when one row does", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(20), fc.nat(1000)), { minLength: 1, maxLength: 30 }),
        fc.nat(),
        (writes, pick) => {
          const documents = writes.map(([id, value]) => document(id, value));
          const one = shardWith(0, documents);
          expect(firstDifference([one, shardWith(1, documents)], BOTH)).toBeUndefined();
          const at = documents.findLastIndex(({ id }) => id === documents[pick % documents.length]?.id);
          const changed = documents.map((each, index) => (index === at ? document(each.id as number, 5_000) : each));
          const difference = firstDifference([one, shardWith(1, changed)], BOTH);
          expect(difference).toMatch(/^copies of vshard \d+ of collection 1 differ: n0\/w0 \d+, n1\/w0 \d+$/);
        },
      ),
      { numRuns: 50 },
    );
  });

  it("leave deleted rows out, so that a copy which missed a delete differs, also by holding more than nothing", () => {
    const documents = [document(1, 1), document(2, 2)];
    const full = shardWith(0, documents);
    const without = shardWith(1, documents, [1]);
    expect(contentsOf(full).length).toBeGreaterThan(0);
    expect(firstDifference([full, without], BOTH)).toContain("differ");
    expect(firstDifference([full, shardWith(1, [])], BOTH)).toContain("n1/w0 nothing");
    expect(firstDifference([shardWith(0, documents, [1]), without], BOTH)).toBeUndefined();
  });

  it("compare only shards that hold a copy", () => {
    const full = shardWith(0, [document(1, 1)]);
    expect(firstDifference([full, shardWith(1, [])], () => [0])).toBeUndefined();
  });
});
