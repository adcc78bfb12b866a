/** One-sided reads that cannot be validated fall back to a message, and say so. */
import { describe, expect, it } from "vitest";
import { CELL_HEADER_BYTES, VERSION_LOW } from "../../native-bridge/cell-layout.ts";
import { STATUS } from "../../native-bridge/status.ts";
import { startTestCluster } from "../support/cluster.ts";

describe("VectorCollection.read()", () => {
  it("asks the shard while the row is held by a writer, and reads one-sidedly again afterwards", async () => {
    const cluster = await startTestCluster();
    try {
      const docs = await cluster.vectors("docs", { dimensions: 8, metric: "l2" });
      await docs.upsert([{ id: "a", vector: new Float32Array(8).fill(3) }]);
      const region = docs.region("a");
      if (region === undefined) throw new Error("no region");
      const target = new Float32Array(8);
      const version = ((region.address - CELL_HEADER_BYTES) >>> 2) + VERSION_LOW;
      Atomics.add(cluster.arena.i32, version, 1); // as a writer that has begun
      expect(cluster.reader().read(region, target)).toBe(STATUS.RETRY_EXCEEDED);
      expect(await docs.read("a", target)).toMatchObject({ by: "message" });
      expect(target).toEqual(new Float32Array(8).fill(3));
      Atomics.add(cluster.arena.i32, version, 1); // and has ended
      target.fill(0);
      expect(await docs.read("a", target)).toMatchObject({ by: "one-sided" });
      expect(target).toEqual(new Float32Array(8).fill(3));
    } finally {
      await cluster.close();
    }
  });

  it("refuses a target that is too short, naming it", async () => {
    const cluster = await startTestCluster();
    try {
      const docs = await cluster.vectors("docs", { dimensions: 8, metric: "l2" });
      await expect(docs.read("a", new Float32Array(7))).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
      await expect(docs.read("a", [] as unknown as Float32Array)).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
      });
    } finally {
      await cluster.close();
    }
  });
});
