import { execFile } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/runtime/clock.ts";
import { counter, relay, saboteur } from "../support/actors.ts";
import { keyOnShard, startTestCluster } from "../support/cluster.ts";

describe("supervision", () => {
  it("does not accuse a worker of many short handlers in one batch", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 1_500 });
    try {
      let lost = 0;
      cluster.on("worker-lost", () => lost++);
      const ref = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 0));
      const answers = await Promise.all(Array.from({ length: 40 }, () => ref.hold(60_000, { timeoutMs: 20_000 })));
      expect(answers).toHaveLength(40);
      expect(lost).toBe(0);
    } finally {
      await cluster.close();
    }
  });

  it("links two workers that died together", async () => {
    const cluster = await startTestCluster();
    try {
      for (let round = 0; round < 2; round++) {
        let restarted = 0;
        const both = new Promise<void>((resolve) => {
          cluster.on("worker-restarted", () => {
            if (++restarted === 2) resolve();
          });
        });
        for (const shard of [0, 1])
          cluster
            .actor(saboteur, keyOnShard(cluster, saboteur, shard))
            .exit(1)
            .catch(() => undefined);
        await both;
        cluster.removeAllListeners("worker-restarted");
        for (const [from, to] of [
          [0, 1],
          [1, 0],
        ] as const) {
          const ref = cluster.actor(relay, keyOnShard(cluster, relay, from));
          expect(await ref.addTo({ key: keyOnShard(cluster, counter, to), amount: 1 }, { timeoutMs: 20_000 })).toBe(1);
        }
      }
    } finally {
      await cluster.close();
    }
  });

  it("notices a handler that never ends although it goes native again and again, and quarantines it", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 300, maxNativeMs: 500 });
    try {
      const ref = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 0));
      await expect(ref.flicker(2_500, { timeoutMs: 20_000 })).rejects.toMatchObject({ code: "ERR_HANDLER_HUNG" });
      expect(await ref.calls()).toBe(1);
    } finally {
      await cluster.close();
    }
  });

  it("takes nested native calls for one", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 500, maxNativeMs: 20_000 });
    try {
      let lost = 0;
      cluster.on("worker-lost", () => lost++);
      expect(await cluster.actor(saboteur, "nest").nestNative(1_200, { timeoutMs: 20_000 })).toBe("done");
      expect(lost).toBe(0);
    } finally {
      await cluster.close();
    }
  });

  it("keeps innocent workers at the smallest maxHandlerMs", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 50 });
    try {
      let lost = 0;
      cluster.on("worker-lost", () => lost++);
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      expect(lost).toBe(0);
    } finally {
      await cluster.close();
    }
  });

  it("goes on when a listener throws", async () => {
    const child = fileURLToPath(new URL("./listener.child.js", import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, [child], { timeout: 20_000 });
    expect(stdout.trim().split("\n")).toEqual(["uncaught: a listener of the test", "restarted", "calls: 1", "closed"]);
  });

  it("lets a new worker have as many requests as any, whatever the last one's end did to its limit", async () => {
    const cluster = await startTestCluster();
    try {
      const key = keyOnShard(cluster, saboteur, 0);
      const { limits } = cluster.routerStats().admission;
      const restarted = once(cluster, "worker-restarted");
      const asks = Array.from({ length: 100 }, () => cluster.actor(saboteur, key).calls());
      const settled = Promise.allSettled([cluster.actor(saboteur, key).exit(1, { priority: "control" }), ...asks]);
      await restarted;
      for (const ask of await settled)
        if (ask.status === "rejected") expect(ask.reason).toMatchObject({ code: "ERR_WORKER_LOST" });
      const { admission } = cluster.routerStats();
      expect(admission).toMatchObject({ limits, inFlight: 0, queued: 0 });
    } finally {
      await cluster.close();
    }
  });

  it("tells peers when a shard is given up", async () => {
    const cluster = await startTestCluster();
    try {
      const key = keyOnShard(cluster, saboteur, 1);
      let down = false;
      cluster.once("worker-down", () => {
        down = true;
      });
      while (!down)
        await cluster
          .actor(saboteur, key)
          .exit(1, { timeoutMs: 10_000 })
          .catch(() => undefined);
      const ref = cluster.actor(relay, keyOnShard(cluster, relay, 0));
      // What is not refused ends at its deadline, with another code.
      await expect(
        ref.addTo({ key: keyOnShard(cluster, counter, 1), amount: 1 }, { timeoutMs: 4_000 }),
      ).rejects.toMatchObject({ code: "ERR_WORKER_LOST" });
    } finally {
      await cluster.close();
    }
  });

  it("reads one clock on all threads, to within half a millisecond", async () => {
    const cluster = await startTestCluster();
    try {
      for (const shard of [0, 1]) {
        const ref = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard));
        let narrowest = Number.POSITIVE_INFINITY;
        let skew = 0;
        for (let round = 0; round < 200; round++) {
          const before = systemClock.nowMs();
          const there = await ref.clock();
          const after = systemClock.nowMs();
          if (after - before >= narrowest) continue;
          narrowest = after - before;
          skew = there - (before + after) / 2;
        }
        expect(Math.abs(skew)).toBeLessThan(0.5 + narrowest / 2);
      }
    } finally {
      await cluster.close();
    }
  });
});
