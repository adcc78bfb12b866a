/** Executor, planner and loads over real threads, bridges and requesters. */
import { afterEach, describe, expect, it } from "vitest";
import { type ReplicaAnswer, ReplicaStage } from "../../bench/macro/replica-stage.ts";
import { Executor } from "../../src/routing/executor.ts";
import type { Gathered } from "../../src/routing/gather.ts";
import { checkReadOptions, type Plan } from "../../src/routing/plan.ts";
import { Planner } from "../../src/routing/planner.ts";
import { ReplicaLoads } from "../../src/routing/replica-loads.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { eventually } from "../support/cluster.ts";

const VSHARDS = 32;
const ALL = Array.from({ length: VSHARDS }, (_, vshard) => vshard);
const FAST = (): number => 100;

describe("Executor over real threads", () => {
  let stage: ReplicaStage;
  let executor: Executor;
  let loads: ReplicaLoads;
  afterEach(async () => {
    executor.close();
    await stage.close();
  });

  /** Makes shards with 2 copies of everything, and plans of all vshards by turns. */
  function open(shards: number): () => Plan {
    stage = new ReplicaStage({ shards, vshards: VSHARDS, replicationFactor: 2 });
    loads = new ReplicaLoads(shards);
    const random = createSeededRandom(Number(process.env["SEED"] ?? 1));
    const clock = systemClock;
    executor = new Executor({ clock, scheduler: systemScheduler, random, loads });
    const planner = new Planner({ random, clock, loads });
    const rules = checkReadOptions({ strategy: "round-robin" });
    return () => planner.plan({ kind: "scatter", snapshot: stage.snapshot, rules });
  }

  const vshardsOf = ({ answers }: Gathered<ReplicaAnswer>): number[] =>
    answers.flatMap(({ vshards }) => vshards).sort((a, b) => a - b);

  /** Nothing open, in no book. */
  function assertIdle(): void {
    const { stats } = executor;
    expect(executor.waiting).toBe(0);
    expect(loads.totalInFlight).toBe(0);
    const sent = stage.plane.stats();
    expect(sent.accepted).toBe(sent.replied + sent.failed + sent.timedOut + sent.cancelled);
    expect(sent.accepted + sent.rejected).toBeLessThanOrEqual(stats.requests);
  }

  it("answers every vshard once, many calls at a time", async () => {
    const plan = open(4);
    const calls = Array.from({ length: 200 }, () => executor.execute(stage.call(plan(), 10_000, FAST)));
    for (const result of await Promise.all(calls)) {
      expect(vshardsOf(result)).toEqual(ALL);
      expect(result.completeness.complete).toBe(true);
      for (const { queueUs, serviceUs, latencyUs, bytes } of result.completeness.outcomes) {
        expect(serviceUs + queueUs).toBeLessThanOrEqual(latencyUs + 1_000);
        expect(bytes).toBeGreaterThan(8);
      }
    }
    assertIdle();
  });

  it("loses no vshard and counts none twice when a shard is killed mid-scatter", async () => {
    const plan = open(4);
    const limits = { hedgeAfter: "off" as const };
    await executor.execute(stage.call(plan(), 10_000, FAST));
    const slow = ({ shard }: { readonly shard: number }): number => (shard === 2 ? 5_000_000 : 2_000);
    const calls = Array.from({ length: 20 }, () => executor.execute(stage.call(plan(), 10_000, slow, { limits })));
    await new Promise((resolve) => setImmediate(resolve));
    await stage.kill(2);
    const results = await Promise.all(calls);
    for (const result of results) expect(vshardsOf(result)).toEqual(ALL);
    const moved = results.flatMap(({ completeness }) => completeness.outcomes.filter(({ shard }) => shard === 2));
    expect(moved.length).toBeGreaterThan(0);
    for (const outcome of moved) {
      expect(outcome).toMatchObject({ status: "answered" });
      expect(outcome.servedBy).not.toContain(2);
      expect(outcome.attempts).toBeGreaterThan(1);
    }
    expect(executor.stats).toMatchObject({ breakersOpened: 1 });
    // The breaker passes over the dead shard: nothing more is sent there.
    const { requests, retries } = executor.stats;
    const after = await executor.execute(stage.call(plan(), 10_000, FAST, { limits }));
    expect(vshardsOf(after)).toEqual(ALL);
    expect(executor.stats.retries).toBe(retries);
    expect(executor.stats.requests).toBeGreaterThan(requests);
    assertIdle();
  });

  it("frees the slot of a hedge's loser: a request that has not begun never does", async () => {
    const plan = open(2);
    const blocked = executor.execute(
      stage.call(plan(), 10_000, () => 150_000, { idempotent: false }), // holds up both shards
    );
    const before = stage.plane.stats();
    const limits = { hedgeAfter: 20 };
    const results = Array.from({ length: 3 }, () => executor.execute(stage.call(plan(), 10_000, FAST, { limits })));
    for (const result of await Promise.all(results)) expect(vshardsOf(result)).toEqual(ALL);
    await blocked;
    expect(executor.stats.hedges).toBeGreaterThan(0);
    expect(stage.plane.stats().cancelled).toBeGreaterThan(before.cancelled);
    // A shard comes to a cancelled request when it comes to the next one.
    await executor.execute(stage.call(plan(), 10_000, FAST));
    await eventually("every loser was skipped, or its reply came late", () => {
      const { skipped, late, cancelled } = stage.plane.stats();
      return skipped + late === cancelled;
    });
    expect(stage.plane.stats().skipped).toBeGreaterThan(0);
    expect(stage.served(0) + stage.served(1)).toBe(executor.stats.requests - stage.plane.stats().skipped);
    assertIdle();
  });

  it("times out at its deadline, over both copies, and an abort frees every slot", async () => {
    const plan = open(2);
    const startedMs = systemClock.nowMs();
    await expect(executor.execute(stage.call(plan(), 100, () => 400_000))).rejects.toMatchObject({
      code: "ERR_TIMEOUT",
    });
    const tookMs = systemClock.nowMs() - startedMs;
    expect(tookMs).toBeGreaterThanOrEqual(99);
    const controller = new AbortController();
    const { signal } = controller;
    const aborted = executor.execute(stage.call(plan(), 10_000, () => 50_000, { signal }));
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(stage.plane.requester(0).pending + stage.plane.requester(1).pending).toBe(0);
    assertIdle();
    expect(vshardsOf(await executor.execute(stage.call(plan(), 10_000, FAST)))).toEqual(ALL);
  });
});
