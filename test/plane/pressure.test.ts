import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import type { ClusterInfo } from "../../src/index.ts";
import { counter, relay } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";

/** Sums over all workers. */
function atWorkers(info: ClusterInfo): {
  handled: number;
  failed: number;
  received: number;
  ended: number;
  rejected: number;
} {
  const sum = { handled: 0, failed: 0, received: 0, ended: 0, rejected: 0 };
  for (const { stats } of info.workers) {
    const actors = stats?.actors as {
      received: number;
      delivered: number;
      rejected: number;
      dead: Record<string, number>;
    };
    sum.handled += stats?.requests.handled ?? Number.NaN;
    sum.failed += stats?.requests.failed ?? Number.NaN;
    sum.received += actors.received;
    sum.rejected += actors.rejected;
    sum.ended +=
      actors.delivered + actors.rejected + Object.values(actors.dead).reduce((dead, count) => dead + count, 0);
  }
  return sum;
}

describe("a cluster under ten times the load it can take", () => {
  it("refuses tells typed, keeps memory bounded, and loses nothing silently", async () => {
    const cluster = await startTestCluster({ requestRingBytes: 16_384, replyRingBytes: 16_384 });
    try {
      const ref = cluster.actor(counter, keyOnShard(cluster, counter, 0));
      const offered = 60_000;
      let refused = 0;
      const codes = new Set<unknown>();
      const before = process.memoryUsage().heapUsed;
      let peak = 0;
      for (let at = 0; at < offered; at++) {
        ref.tell.add(1).catch((error: unknown) => {
          refused++;
          codes.add(ShardloomError.is(error) ? error.code : error);
        });
        if (at % 10_000 === 9_999) {
          // One turn for ten thousand tells: far more than the ring and the queue hold.
          peak = Math.max(peak, process.memoryUsage().heapUsed);
          await new Promise((resolve) => setImmediate(resolve));
        }
      }
      const counted = await ref.read({ timeoutMs: 20_000 } as never);
      expect([...codes]).toEqual(["ERR_OVERLOADED"]);
      expect(refused).toBeGreaterThan(10_000);
      expect(counted).toBe(offered - refused);
      expect(peak - before).toBeLessThan(128 * 1024 * 1024);
      const info = await cluster.info();
      const { client } = info;
      expect(client).toMatchObject({
        accepted: offered - refused + 1,
        rejected: refused,
        told: offered - refused,
        replied: 1,
        inDoubt: 0,
        unsent: 0,
      });
      expect(client.sent - client.skipped).toBe(atWorkers(info).handled + atWorkers(info).failed);
    } finally {
      await cluster.close();
    }
  });

  it("keeps a teller that awaits at the receiver's pace, with nothing refused", async () => {
    const cluster = await startTestCluster({ requestRingBytes: 16_384 });
    try {
      const ref = cluster.actor(counter, "paced");
      for (let at = 0; at < 20_000; at++) await ref.tell.add(1);
      expect(await ref.read()).toBe(20_000);
      expect((await cluster.info()).client).toMatchObject({ told: 20_000, rejected: 0 });
    } finally {
      await cluster.close();
    }
  });

  it("does the same between workers: a burst over a small mesh ring arrives whole and in order", async () => {
    const cluster = await startTestCluster({ meshRingBytes: 65_536 });
    try {
      const target = keyOnShard(cluster, counter, 1);
      const order = cluster
        .actor(relay, keyOnShard(cluster, relay, 0))
        .burst({ key: target, values: Array.from({ length: 4_000 }, (_, at) => at) }, { timeoutMs: 20_000 });
      expect(await order).toEqual(Array.from({ length: 4_000 }, (_, at) => at));
      await eventually("every message has an outcome", async () => {
        const { received, ended } = atWorkers(await cluster.info());
        return received === ended && received >= 4_002;
      });
    } finally {
      await cluster.close();
    }
  });

  it("accounts for every ask when some time out, some are given up and some fail", async () => {
    const cluster = await startTestCluster({ creditMessages: 32 });
    try {
      const ref = cluster.actor(counter, "mixed");
      const outcomes: Promise<unknown>[] = [];
      for (let at = 0; at < 5_000; at++) {
        const controller = new AbortController();
        const options = at % 5 === 0 ? { timeoutMs: 1 } : at % 7 === 0 ? { signal: controller.signal } : undefined;
        outcomes.push(ref.add(1, options).catch((error: unknown) => error));
        if (at % 7 === 0) controller.abort();
        if (at % 500 === 0) await outcomes.at(-1);
      }
      await Promise.all(outcomes);
      await eventually("both ends agree", async () => {
        const info = await cluster.info();
        const { client } = info;
        const { handled, failed } = atWorkers(info);
        expect(client.accepted).toBe(client.replied + client.failed + client.timedOut + client.cancelled + client.told);
        expect(client.sent).toBe(client.accepted - client.unsent);
        return client.sent - client.skipped - client.inDoubt === handled + failed;
      });
    } finally {
      await cluster.close();
    }
  });
});
