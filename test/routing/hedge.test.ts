import { describe, expect, it } from "vitest";
import { Hedger } from "../../src/routing/hedge.ts";
import { RetryBudget } from "../../src/routing/retry-budget.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { PRIORITY } from "../../src/wire/envelope-layout.ts";
import { answered, failing, planOf, range, Scripted } from "./scripted.ts";

const PLENTY = { hedges: { ratio: 1, perSecond: 0, burst: 100 } };
const TWO = { shards: 2, vshards: 2, replicationFactor: 2 };
const limits = { hedgeAfter: 5 };

describe("Executor with hedging", () => {
  it("asks the next copy when the first is slow; the first answer counts, the other is cancelled", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    cluster.script = ({ shard, attempt }) => ({ afterMs: shard === 0 && attempt === 0 ? 300 : 2 });
    const result = await cluster.run({ limits });
    expect(answered(result)).toEqual([0, 1]);
    expect(cluster.nowMs).toBe(1_007);
    expect(cluster.sent).toMatchObject([
      { shard: 0, ended: "cancelled" },
      { shard: 1, ended: "answered" },
      { shard: 1, vshards: [0], attempt: 1, whole: false, atMs: 1_005, ended: "answered" },
    ]);
    const [slow] = result.completeness.outcomes;
    expect(slow).toMatchObject({ shard: 0, servedBy: [1], attempts: 2, hedges: 1, count: 1, latencyUs: 7_000 });
    expect(cluster.executor.stats).toMatchObject({ requests: 3, hedges: 1, hedgesWon: 1, hedgesLost: 0, retries: 0 });
    // The loser took 7 ms at least.
    expect(cluster.loads.ends).toContainEqual({ shard: 0, latencyUs: 7_000, ok: true });
    cluster.assertClean();
  });

  it("takes the first copy's answer when it comes first after all, and cancels the hedge", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    cluster.script = ({ attempt }) => ({ afterMs: attempt === 0 ? 8 : 100 });
    const result = await cluster.run({ plan: planOf(cluster.snapshot, { vshards: [0] }), limits });
    expect(answered(result)).toEqual([0]);
    expect(cluster.sent.map(({ ended }) => ended)).toEqual(["answered", "cancelled"]);
    expect(result.completeness.outcomes).toMatchObject([{ servedBy: [0], hedges: 1, attempts: 2, count: 1 }]);
    expect(cluster.executor.stats).toMatchObject({ hedgesWon: 0, hedgesLost: 1 });
    cluster.assertClean();
  });

  it("does not hedge a request that answers in time, and leaves no timer for it", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    cluster.script = () => ({ afterMs: 4 });
    await cluster.run({ limits });
    expect(cluster.executor.stats.hedges).toBe(0);
    cluster.assertClean();
  });

  it("splits a hedge over the next copies of its vshards; it wins when all of them have answered", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    const copies = Uint16Array.of(0, 1, 0, 2, 0, 1, 0, 2);
    const snapshot = createSnapshot({ shards: 3, vshards: 4, replicationFactor: 2, copies });
    cluster.script = ({ shard }) => ({ afterMs: shard === 0 ? 300 : shard * 10 });
    const result = await cluster.run({ plan: planOf(snapshot), limits });
    expect(answered(result)).toEqual(range(4));
    expect(cluster.nowMs).toBe(1_025);
    expect(result.completeness.outcomes).toMatchObject([{ shard: 0, servedBy: [1, 2], hedges: 2, count: 4 }]);
    cluster.assertClean();
  });

  it("counts no answer of a hedge that did not win", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    const copies = Uint16Array.of(0, 1, 0, 2, 0, 1, 0, 2);
    const snapshot = createSnapshot({ shards: 3, vshards: 4, replicationFactor: 2, copies });
    const plan = planOf(snapshot, { vshards: [0, 1] });
    cluster.script = ({ shard }) => ({ afterMs: shard === 0 ? 20 : shard === 1 ? 1 : 300 });
    const result = await cluster.run({ plan, limits });
    expect(answered(result)).toEqual([0, 1]);
    expect(result.completeness.outcomes).toMatchObject([{ servedBy: [0], count: 2, bytes: 100 }]);
    expect(cluster.sent.map(({ ended }) => ended)).toEqual(["answered", "answered", "cancelled"]);
    cluster.assertClean();
  });

  it("goes on with the hedge when the first copy dies, and with the first copy when the hedge fails", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    const plan = planOf(cluster.snapshot, { vshards: [0] });
    cluster.script = ({ shard }) => (shard === 0 ? failing("ERR_WORKER_LOST", 9) : { afterMs: 30 });
    const first = await cluster.run({ plan, limits });
    expect(first.completeness.outcomes).toMatchObject([{ servedBy: [1], attempts: 2, hedges: 1 }]);
    cluster.script = ({ shard }) => (shard === 1 ? failing("ERR_WORKER_LOST", 1) : { afterMs: 30 });
    const second = await cluster.run({ plan, limits });
    expect(second.completeness.outcomes).toMatchObject([{ servedBy: [0], attempts: 2, hedges: 1 }]);
    cluster.assertClean();
  });

  it("keeps what parts of a hedge have answered when the first copy dies", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    const copies = Uint16Array.of(0, 1, 0, 2, 0, 1, 0, 2);
    const snapshot = createSnapshot({ shards: 3, vshards: 4, replicationFactor: 2, copies });
    const plan = planOf(snapshot, { vshards: [0, 1] });
    cluster.script = ({ shard }) => (shard === 0 ? failing("ERR_WORKER_LOST", 20) : { afterMs: shard === 1 ? 1 : 300 });
    const result = await cluster.run({ plan, limits });
    expect(answered(result)).toEqual([0, 1]);
    expect(cluster.sent).toHaveLength(3);
    expect(result.completeness.outcomes).toMatchObject([{ servedBy: [1, 2], count: 2 }]);
    cluster.assertClean();
  });

  it("leaves the first copy to itself when the hedge refuses vshards", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    const plan = planOf(cluster.snapshot, { vshards: [0] });
    cluster.script = ({ shard }) =>
      shard === 1 ? { afterMs: 1, refuse: [{ vshard: 0, reason: "behind" }] } : { afterMs: 30 };
    expect((await cluster.run({ plan, limits })).completeness.outcomes).toMatchObject([{ servedBy: [0] }]);
    cluster.assertClean();
  });

  it("does not wait for a hedge after an error that no copy would avoid", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    const plan = planOf(cluster.snapshot, { vshards: [0] });
    cluster.script = ({ shard }) => (shard === 0 ? failing("ERR_UNKNOWN_COLLECTION", 9) : { afterMs: 50 });
    await expect(cluster.run({ plan, limits })).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    expect(cluster.sent.map(({ ended }) => ended)).toEqual(["failed", "cancelled"]);
    cluster.assertClean();
  });

  it("hedges nothing without another copy, for strong reads, in bulk, or when it is off", async () => {
    const single = new Scripted({ shards: 2, vshards: 2, replicationFactor: 1 }, PLENTY);
    single.script = () => ({ afterMs: 50 });
    await single.run({ limits });
    expect(single.sent).toHaveLength(2);
    const cluster = new Scripted(TWO, PLENTY);
    cluster.script = () => ({ afterMs: 50 });
    await cluster.run({ limits, plan: planOf(cluster.snapshot, { consistency: "strong" }) });
    await cluster.run({ limits, priority: PRIORITY.BULK });
    await cluster.run({ limits: { hedgeAfter: "off" } });
    await cluster.run({ limits, idempotent: false });
    expect(cluster.executor.stats).toMatchObject({ requests: 8, hedges: 0 });
    cluster.assertClean();
  });

  it("waits for room under maxConcurrentShards before it hedges", async () => {
    const cluster = new Scripted(TWO, PLENTY);
    cluster.script = ({ shard, attempt }) => ({ afterMs: shard === 0 ? 60 : attempt === 0 ? 12 : 1 });
    const result = await cluster.run({ limits: { hedgeAfter: 5, maxConcurrentShards: 2 } });
    expect(cluster.peak).toBe(2);
    expect(result.completeness.outcomes[0]).toMatchObject({ hedges: 1, servedBy: [1] });
    expect(cluster.nowMs).toBe(1_021);
    cluster.assertClean();
  });

  it("adds no more than a tenth of the requests", async () => {
    const cluster = new Scripted(TWO);
    cluster.script = ({ attempt }) => ({ afterMs: attempt === 0 ? 50 : 2 });
    const plan = planOf(cluster.snapshot, { vshards: [0] });
    for (let call = 0; call < 400; call++) await cluster.run({ plan, limits });
    const { hedges, requests, denied } = cluster.executor.stats;
    expect(hedges).toBeGreaterThan(30);
    expect(hedges).toBeLessThanOrEqual(40);
    expect(requests).toBe(400 + hedges);
    expect(denied).toBe(400 - hedges);
  });

  it("does not let a probe that another copy outruns close its breaker, nor send every request to it", async () => {
    const cluster = new Scripted(TWO, {
      ...PLENTY,
      breaker: { failuresToOpen: 1, openMs: 100 },
      retries: { ratio: 1, perSecond: 0, burst: 100 },
    });
    const plan = planOf(cluster.snapshot, { vshards: [0] });
    cluster.script = ({ shard }) => (shard === 0 ? failing("ERR_WORKER_LOST") : { afterMs: 1 });
    await cluster.run({ plan, limits });
    await cluster.time.advance(200);
    cluster.script = ({ shard }) => (shard === 0 ? "silence" : { afterMs: 1 });
    const before = cluster.sent.length;
    for (let call = 0; call < 5; call++) await cluster.run({ plan, limits });
    expect(cluster.sent.slice(before).filter(({ shard }) => shard === 0)).toHaveLength(1);
    cluster.assertClean();
  });
});

describe("Hedger", () => {
  it("waits for the observed p95 of the shard, looked up now and then, and for ever while it is unknown", () => {
    const asked: [number, number][] = [];
    let valueUs = 0;
    const quantileUs = (shard: number, q: number): number => {
      if (q === 0.95) asked.push([shard, q]);
      return valueUs;
    };
    const hedger = new Hedger(
      { quantileUs, allQuantileUs: () => valueUs },
      new RetryBudget({ ratio: 0.1, perSecond: 0, burst: 1 }, 0),
    );
    expect(hedger.delayMs(3, "p95")).toBe(Number.POSITIVE_INFINITY);
    valueUs = 7_000;
    const delays = range(33).map(() => hedger.delayMs(3, "p95"));
    expect(delays.at(-1)).toBe(7);
    expect(asked).toEqual([
      [3, 0.95],
      [3, 0.95],
    ]);
    valueUs = 20;
    expect(hedger.delayMs(0, "p95")).toBe(1);
    valueUs = Number.NaN;
    expect(hedger.delayMs(1, "p95")).toBe(Number.POSITIVE_INFINITY);
    expect([hedger.delayMs(0, 12), hedger.delayMs(0, "off")]).toEqual([12, Number.POSITIVE_INFINITY]);
  });

  it("goes by all shards where stalls have become a shard's own p95, but never below what is usual there", () => {
    const budget = new RetryBudget({ ratio: 0.1, perSecond: 0, burst: 1 }, 0);
    const delay = (own50: number, own95: number, all95: number): number => {
      const quantileUs = (_: number, q: number): number => 1000 * (q === 0.5 ? own50 : own95);
      return new Hedger({ quantileUs, allQuantileUs: () => 1000 * all95 }, budget).delayMs(0, "p95");
    };
    expect(delay(2, 90, 4)).toBe(4); // stalls
    expect(delay(6, 10, 4)).toBe(9); // slower than the others, always
    expect(delay(2, 3, 4)).toBe(3); // faster than the others
  });
});
