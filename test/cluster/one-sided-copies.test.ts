/** One-sided reads where documents have copies: what counts is the primary's row, whatever a copy that is behind still holds. */
import { expect, it } from "vitest";
import { startCopies } from "../support/copies.ts";
import { block } from "../support/holds.ts";

it("scanExact finds what is there behind the rows of a copy that has not heard of their deletion", async () => {
  const cluster = await startCopies({ workers: 2, replicationFactor: 2, maxHandlerMs: 60_000 });
  try {
    const docs = await cluster.vectors("docs", { dimensions: 2, metric: "l2" });
    const ids = Array.from({ length: 400 }, (_, id) => id);
    const gone = ids.filter((id) => cluster.shardOfId(id) === 1).slice(0, 100);
    const kept = ids.filter((id) => cluster.shardOfId(id) === 0).slice(0, 20);
    const documents = [...gone.map((id) => [id, 0]), ...kept.map((id) => [id, 1])];
    await docs.upsert(
      documents.map(([id = 0, near]) => ({ id, vector: [near as number, id / 1000] })),
      { acks: 2 },
    );
    const blocked = await block(cluster, 0, 20_000);
    expect(await docs.delete(gone, { acks: 1 })).toBe(gone.length);
    for (const k of [1, 5, 20, 50]) {
      const { hits, statuses } = docs.reader().scanExact(new Float32Array(2), k);
      expect(hits.map(({ id }) => id)).toEqual(kept.slice(0, k));
      expect(statuses).toEqual([0, 0]);
    }
    await blocked.release();
  } finally {
    await cluster.close();
  }
});
