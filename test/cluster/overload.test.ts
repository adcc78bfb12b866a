import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, ShardloomError } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { keyOnShard, startTestCluster } from "../support/cluster.ts";

/** How long each handler holds its thread, in us: one shard serves at most 2000 a second. */
const SERVICE_US = 500;
const MAX_QUEUED = 2_000;
/** Less than so many requests would have. */
const MAX_QUEUED_BYTES = 48 * 1024;
/** Ten times what the shard can serve. */
const OFFERED_PER_MS = 20;
const TIMEOUT_MS = 300;

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] as number;
}

describe("ten times more work than the shard can serve", () => {
  let cluster: Cluster;
  let work: (options?: { timeoutMs?: number; tenant?: string; priority?: "bulk" | "normal" }) => Promise<unknown>;

  beforeAll(async () => {
    cluster = await startTestCluster({
      workers: 1,
      admission: { maxQueued: MAX_QUEUED, maxQueuedBytes: MAX_QUEUED_BYTES },
    });
    const target = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 0));
    work = (options = {}) => target.hold(SERVICE_US, { timeoutMs: TIMEOUT_MS, ...options });
    await work({ timeoutMs: 5_000 });
  });

  afterAll(async () => {
    await cluster.close();
  });

  /** Answers a second while some requests are always under way, none of them too many. */
  async function peak(durationMs: number): Promise<number> {
    const startMs = performance.now();
    let answered = 0;
    const client = async (): Promise<void> => {
      while (performance.now() - startMs < durationMs) {
        await work({ timeoutMs: 5_000 });
        answered++;
      }
    };
    await Promise.all(Array.from({ length: 8 }, client));
    return (answered * 1000) / (performance.now() - startMs);
  }

  /** Offers load by the clock, whatever becomes of it. @returns answers a second, after a while to settle */
  async function overload(durationMs: number, settleMs: number, offer: () => Promise<unknown>[]) {
    const outcomes = { answered: 0, refused: 0, late: 0, other: 0 };
    const startMs = performance.now();
    let counting = false;
    let countedSinceMs = 0;
    let countedSince = 0;
    let offered = 0;
    let offeredAtMs = 0;
    const secondsTo = (untilMs: number): number => (untilMs - countedSinceMs) / 1000;
    const most = { queued: 0, queuedBytes: 0 };
    const open = new Set<Promise<unknown>>();
    const count = (error?: ShardloomError): void => {
      if (!counting) return;
      if (error === undefined) outcomes.answered++;
      else if (error.code === "ERR_OVERLOADED") outcomes.refused++;
      else if (error.code === "ERR_TIMEOUT") outcomes.late++;
      else outcomes.other++;
    };
    while (performance.now() - startMs < durationMs) {
      if (!counting && performance.now() - startMs > settleMs) {
        counting = true;
        countedSinceMs = performance.now();
        countedSince = offered;
      }
      // By the clock: a late timer offers more at once, and the shard's cores are not spent on waiting.
      for (; offered < performance.now() - startMs; offered++) {
        for (const request of offer()) {
          const ended: Promise<unknown> = request
            .then(
              () => count(),
              (error: unknown) => count(error as ShardloomError),
            )
            .finally(() => open.delete(ended));
          open.add(ended);
        }
      }
      offeredAtMs = performance.now();
      const { queued, queuedBytes } = cluster.routerStats().admission;
      most.queued = Math.max(most.queued, queued);
      most.queuedBytes = Math.max(most.queuedBytes, queuedBytes);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const perSecond = outcomes.answered / secondsTo(performance.now());
    const offeredPerSecond = ((offered - countedSince) * OFFERED_PER_MS) / secondsTo(offeredAtMs);
    counting = false;
    await Promise.allSettled(open);
    return { perSecond, offeredPerSecond, most, ...outcomes };
  }

  const flood = (): Promise<unknown>[] => Array.from({ length: OFFERED_PER_MS }, () => work());

  it("serves at least 90 % of what it can, in bounded memory, and is well again within a second", async () => {
    const goodput: number[] = [];
    const recovered: number[] = [];
    await overload(800, 400, flood); // compiles, and finds the shard's limit
    for (let round = 0; round < 5; round++) {
      const peakPerSecond = await peak(400);
      const { perSecond, offeredPerSecond, most, refused, other } = await overload(1_000, 300, flood);
      goodput.push(perSecond / peakPerSecond);
      expect(offeredPerSecond).toBeGreaterThan(9 * peakPerSecond);
      expect(most.queued).toBeLessThanOrEqual(MAX_QUEUED);
      expect(most.queuedBytes).toBeLessThanOrEqual(MAX_QUEUED_BYTES);
      expect(refused).toBeGreaterThan(perSecond);
      expect(other).toBe(0);
      const stoppedMs = performance.now();
      let again = 0;
      while (again < 0.9 && performance.now() - stoppedMs < 1_000)
        again = Math.max(again, (await peak(150)) / peakPerSecond);
      recovered.push(again);
    }
    expect(median(goodput), `goodput over peak in five rounds: ${goodput.join(", ")}`).toBeGreaterThanOrEqual(0.9);
    expect(
      median(recovered),
      `peak within a second after it over peak before: ${recovered.join(", ")}`,
    ).toBeGreaterThanOrEqual(0.9);
  }, 30_000);

  it("sheds bulk before normal work, and gives every tenant its share", async () => {
    const answered = new Map<string, number>();
    const tell = (name: string, options: Parameters<typeof work>[0]): Promise<unknown> =>
      work(options).then(() => answered.set(name, (answered.get(name) ?? 0) + 1));
    await overload(1_200, 400, () => [
      ...Array.from({ length: 16 }, () => tell("heavy", { tenant: "heavy" })),
      tell("light", { tenant: "light" }),
      ...Array.from({ length: 4 }, () => tell("bulk", { priority: "bulk", tenant: "light" })),
    ]);
    const count = (name: string): number => answered.get(name) ?? 0;
    // The light tenant asks for 1 in a ms, half of what there is: it gets nearly all of that, whatever the heavy one asks for.
    expect(count("light")).toBeGreaterThan(count("heavy") * 0.6);
    expect(count("heavy")).toBeGreaterThan(100);
    expect(count("bulk")).toBeLessThan(count("light"));
  }, 30_000);
});
