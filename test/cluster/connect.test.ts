/** Threads other than the main one that use the cluster. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import type { Cluster } from "../../src/index.ts";
import { counter, saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";

interface Answer {
  readonly value?: unknown;
  readonly code?: string;
}

async function startThread(
  cluster: Cluster,
): Promise<{ worker: Worker; ask: (command: string, argument?: unknown) => Promise<Answer> }> {
  const port = await cluster.port();
  const { transferList, ...data } = port;
  const worker = new Worker(new URL("./connected.worker.js", import.meta.url), {
    workerData: { port: data },
    transferList: [...transferList],
  });
  await once(worker, "message");
  const ask = async (command: string, argument?: unknown): Promise<Answer> => {
    worker.postMessage({ command, argument });
    const [answer] = (await once(worker, "message")) as [Answer];
    return answer;
  };
  return { worker, ask };
}

describe("connect()", () => {
  it("gives another thread collections, actors and one-sided reads of its own", async () => {
    const cluster = await startTestCluster();
    const { worker, ask } = await startThread(cluster);
    try {
      const docs = await cluster.vectors("docs", { dimensions: 4, metric: "l2" });
      await docs.upsert([{ id: 1, vector: [1, 1, 1, 1] }]);
      expect(await ask("open")).toEqual({ value: 4 });
      expect(await ask("upsert", [2, 3, 4])).toMatchObject({ value: { written: 3, inserted: 3 } });
      expect(await docs.count()).toBe(4);
      expect(await ask("search", 2.2)).toEqual({ value: [2, 3] });
      expect(await ask("scan", 2.2)).toEqual({ value: [2, 3] });
      expect(await ask("read", 3)).toMatchObject({ value: [{ by: "one-sided" }, 3] });
      expect(await ask("add", 5)).toEqual({ value: 5 });
      expect(await cluster.actor(counter, "shared").add(2)).toBe(7);
    } finally {
      await worker.terminate();
      await cluster.close();
    }
  });

  it("gives another thread graphs, also after workers were replaced", async () => {
    const cluster = await startTestCluster();
    const { worker, ask } = await startThread(cluster);
    try {
      expect(await ask("reach", 1)).toEqual({ value: { 1: 0, 2: 1 } });
      const graph = await cluster.graph("roads");
      await graph.addEdges([{ source: 2, target: 7 }], { createMissing: true });
      expect(await ask("reach", 7)).toEqual({ value: { 7: 0, 2: 1, 1: 2 } });
      for (const shard of [0, 1]) {
        const restarted = once(cluster, "worker-restarted");
        const exit = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard)).exit(1);
        await Promise.allSettled([exit, restarted]);
      }
      await graph.addEdges([{ source: 7, target: 8 }], { createMissing: true });
      expect(await ask("reach", 8)).toEqual({ value: { 8: 0, 7: 1, 2: 2, 1: 3 } });
      expect(await ask("dropGraph")).toEqual({ value: true });
      await expect(graph.wcc()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    } finally {
      await worker.terminate();
      await cluster.close();
    }
  });

  it("survives the replacement of a worker: requests, and one-sided reads under the new keys", async () => {
    const cluster = await startTestCluster();
    const { worker, ask } = await startThread(cluster);
    try {
      expect(await ask("open", { dimensions: 4, metric: "l2" })).toEqual({ value: 4 });
      await ask("upsert", [1, 2, 3, 4, 5, 6, 7, 8]);
      for (const shard of [0, 1]) {
        const restarted = once(cluster, "worker-restarted");
        cluster
          .actor(saboteur, keyOnShard(cluster, saboteur, shard))
          .exit(1)
          .catch(() => undefined);
        await restarted;
      }
      for (const id of [1, 2, 3, 4, 5, 6, 7, 8]) {
        // The new keys come on a port of their own: until they have, reads fall back to messages.
        await eventually(`${id} is read one-sidedly`, async () => {
          const [read, value] = (await ask("read", id)).value as [{ by: string }, number];
          expect(value).toBe(id);
          return read.by === "one-sided";
        });
      }
      expect(await ask("search", 6.2)).toEqual({ value: [6, 7] });
      expect(await ask("scan", 6.2)).toEqual({ value: [6, 7] });
    } finally {
      await worker.terminate();
      await cluster.close();
    }
  });

  it("fails typed once the collection is dropped, the thread has left, or the cluster is closed", async () => {
    const cluster = await startTestCluster();
    const first = await startThread(cluster);
    const second = await startThread(cluster);
    try {
      await first.ask("open", { dimensions: 4 });
      await second.ask("open");
      expect(await first.ask("drop")).toEqual({ value: true });
      await eventually(
        "the other thread knows",
        async () => (await second.ask("search", 1)).code === "ERR_UNKNOWN_COLLECTION",
      );
      await first.ask("leave");
      expect(await first.ask("add", 1)).toEqual({ code: "ERR_CLOSED" });
      expect(await second.ask("add", 1)).toEqual({ value: 1 });
      await cluster.close();
      await eventually("the thread knows", async () => (await second.ask("add", 1)).code === "ERR_CLOSED");
    } finally {
      await first.worker.terminate();
      await second.worker.terminate();
      await cluster.close();
    }
  });

  it("forgets a thread that ends without leaving", async () => {
    const cluster = await startTestCluster();
    try {
      for (let round = 0; round < 5; round++) {
        const { worker, ask } = await startThread(cluster);
        await ask("add", 1);
        await worker.terminate();
      }
      expect(await cluster.actor(counter, "shared").add(0)).toBe(5);
    } finally {
      await cluster.close();
    }
  });

  it("connects while a shard is down: the others serve, and calls to that one fail at once", async () => {
    const cluster = await startTestCluster();
    try {
      const key = keyOnShard(cluster, saboteur, 0);
      let down = false;
      cluster.once("worker-down", () => {
        down = true;
      });
      while (!down)
        await cluster
          .actor(saboteur, key)
          .exit(1, { timeoutMs: 10_000 })
          .catch(() => undefined);
      const { worker, ask } = await startThread(cluster);
      const answers: unknown[] = [];
      for (const shard of [0, 1]) {
        // What is not refused at once ends at its deadline, with another code.
        answers.push(await ask("count", keyOnShard(cluster, counter, shard)));
      }
      expect(answers).toEqual([{ code: "ERR_WORKER_LOST" }, { value: 0 }]);
      expect(await ask("leave")).toEqual({});
      await worker.terminate();
    } finally {
      await cluster.close();
    }
  });
});
