import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { counter, saboteur, saver } from "../support/actors.ts";
import { keyOnShard, startTestCluster } from "../support/cluster.ts";
import { block } from "../support/holds.ts";

/** What a close may take that waits for nothing: one that waits in vain takes all of the time it has. */
const PATIENCE_MS = 25_000;
const PROMPT_MS = 15_000;

async function elapsed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

describe("Cluster.close()", () => {
  it("does not wait for a worker that is only starting", async () => {
    const cluster = await startTestCluster();
    const restarting = new Promise((resolve) => cluster.once("worker-lost", resolve));
    cluster
      .actor(saboteur, keyOnShard(cluster, saboteur, 0))
      .exit(1)
      .catch(() => undefined);
    await restarting;
    expect(await elapsed(() => cluster.close({ timeoutMs: PATIENCE_MS, force: false }))).toBeLessThan(PROMPT_MS);
  });

  it("does not wait for the index to be built", async () => {
    const cluster = await startTestCluster();
    const docs = await cluster.vectors("docs", { dimensions: 128, metric: "l2", scanRows: 0 });
    await docs.upsert(
      Array.from({ length: 6_000 }, (_, id) => ({
        id,
        vector: Float32Array.from({ length: 128 }, (_, at) => Math.sin(id * at)),
      })),
    );
    expect((await docs.status()).some((shard) => shard.unindexed > 1_000)).toBe(true);
    expect(await elapsed(() => cluster.close({ timeoutMs: PATIENCE_MS }))).toBeLessThan(PROMPT_MS);
  });

  it("ends open handlers by their signal, and actors that back off, without spinning", async () => {
    const cluster = await startTestCluster();
    const sleeping = cluster.actor(saboteur, "sleepy").sleepUntilAborted(60_000, { timeoutMs: 60_000 });
    sleeping.catch(() => undefined);
    await cluster.actor(saboteur, "sleepier").calls();
    const cpu = process.cpuUsage();
    expect(await elapsed(() => cluster.close({ timeoutMs: PATIENCE_MS }))).toBeLessThan(PROMPT_MS);
    const { user, system } = process.cpuUsage(cpu);
    expect((user + system) / 1000).toBeLessThan(5_000);
    await expect(sleeping).rejects.toMatchObject({ code: "ERR_CLOSED" });
  });

  it("settles what onStop hooks ask of other shards, which may have stopped before them", async () => {
    const cluster = await startTestCluster();
    const from = keyOnShard(cluster, saver, 0);
    const to = keyOnShard(cluster, counter, 1);
    const folder = mkdtempSync(join(tmpdir(), "shardloom-close-"));
    const path = join(folder, "saved");
    await cluster.actor(saver, from).remember({ key: to, path });
    expect(await elapsed(() => cluster.close({ timeoutMs: PATIENCE_MS }))).toBeLessThan(PROMPT_MS);
    expect(readFileSync(path, "utf8")).toMatch(/^1$|closed/i);
    rmSync(folder, { recursive: true });
  });

  it("called from a worker-lost listener leaves nothing behind", async () => {
    const cluster = await startTestCluster();
    let restarted = 0;
    cluster.on("worker-restarted", () => restarted++);
    const closed = new Promise<void>((resolve, reject) => {
      cluster.once("worker-lost", () => {
        cluster.close().then(resolve, reject);
      });
    });
    cluster
      .actor(saboteur, "x")
      .exit(1)
      .catch(() => undefined);
    await closed;
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(restarted).toBe(0);
  });

  it("that failed can be called again, and replaces no worker in between", async () => {
    const cluster = await startTestCluster({ maxHandlerMs: 60_000 });
    let restarted = 0;
    cluster.on("worker-restarted", () => restarted++);
    const held = await block(cluster, 0, 20_000);
    await expect(cluster.close({ timeoutMs: 100, force: false })).rejects.toMatchObject({
      code: "ERR_TIMEOUT",
      details: { shards: expect.arrayContaining([0]) as number[] },
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await held.release().catch(() => undefined);
    await cluster.close({ timeoutMs: PATIENCE_MS });
    expect(restarted).toBe(0);
  });
});
