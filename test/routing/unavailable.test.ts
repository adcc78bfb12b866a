/** vshards that no copy may answer for, and gather policies over parts that fail. */
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import type { Plan, UnavailableVshards } from "../../src/routing/plan.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { answered, failing, planOf, range, Scripted } from "./scripted.ts";

const FOUR = { shards: 4, vshards: 8, replicationFactor: 1 };
const down: UnavailableVshards = { vshards: Uint16Array.of(2, 6), reason: "down" };

function withMissing(cluster: Scripted, ...unavailable: UnavailableVshards[]): Plan {
  return planOf(cluster.snapshot, { unavailable });
}

describe("Executor, with vshards that nobody may answer for", () => {
  it("fail: sends nothing and names vshards and reason", async () => {
    const cluster = new Scripted(FOUR);
    await expect(cluster.run({ plan: withMissing(cluster, down) })).rejects.toMatchObject({
      code: "ERR_UNAVAILABLE",
      message: expect.stringContaining("2 vshards (the first is 2)") as string,
      details: { vshards: [2, 6], count: 2, reason: "down" },
    });
    for (const reason of ["stale", "behind"] as const)
      await expect(cluster.run({ plan: withMissing(cluster, { ...down, reason }) })).rejects.toMatchObject({
        code: "ERR_STALE_REPLICA",
        details: { vshards: [2, 6], reason },
      });
    expect(cluster.sent).toEqual([]);
    cluster.assertClean();
  });

  it("partial: answers for the others and records one outcome per group", async () => {
    const cluster = new Scripted(FOUR);
    const stale: UnavailableVshards = { vshards: Uint16Array.of(5), reason: "stale" };
    const result = await cluster.run({ plan: withMissing(cluster, down, stale), unavailable: "partial" });
    expect(answered(result)).toEqual([0, 1, 3, 4, 7]);
    expect(result.completeness).toMatchObject({
      planned: 5,
      answered: 3,
      unavailable: 1,
      stale: 1,
      complete: false,
      vshards: { planned: 8, answered: 5 },
    });
    expect(result.completeness.outcomes.slice(3)).toMatchObject([
      { shard: 0xffff, servedBy: [], status: "unavailable", vshards: 2, vshardsAnswered: 0, attempts: 0 },
      { shard: 0xffff, status: "stale", vshards: 1, error: { code: "ERR_STALE_REPLICA" } },
    ]);
    cluster.assertClean();
  });

  it("partial: still fails fast when a planned part fails", async () => {
    const cluster = new Scripted(FOUR);
    cluster.script = ({ shard }) => (shard === 1 ? failing("ERR_UNKNOWN_COLLECTION") : { afterMs: 5 });
    const plan = withMissing(cluster, down);
    await expect(cluster.run({ plan, unavailable: "partial" })).rejects.toMatchObject({
      code: "ERR_UNKNOWN_COLLECTION",
    });
    cluster.assertClean();
  });

  it("wait: asks the available at once, and the others when a look finds them a copy", async () => {
    const cluster = new Scripted(FOUR);
    let looks = 0;
    const replan = (vshards: Uint16Array): Plan => {
      looks++;
      expect([...vshards]).toEqual([2, 6]);
      return cluster.nowMs < 1_040 ? withMissing(cluster, down) : planOf(cluster.snapshot, { vshards });
    };
    const result = await cluster.run({ plan: withMissing(cluster, down), unavailable: "wait", replan });
    expect(answered(result)).toEqual(range(8));
    expect(result.completeness).toMatchObject({ planned: 4, answered: 4, complete: true });
    expect(cluster.sent.map(({ atMs }) => atMs)).toEqual([1_000, 1_000, 1_000, 1_075]);
    expect(looks).toBe(4); // after 5, 15, 35, 75 ms
    cluster.assertClean();
  });

  it("wait: takes what has become available and waits on for the rest", async () => {
    const cluster = new Scripted(FOUR);
    const replan = (vshards: Uint16Array): Plan => {
      const late = cluster.nowMs < 1_030 ? Uint16Array.of(6) : new Uint16Array();
      return planOf(cluster.snapshot, { vshards, unavailable: [{ vshards: late, reason: "down" }] });
    };
    const result = await cluster.run({ plan: withMissing(cluster, down), unavailable: "wait", replan });
    expect(answered(result)).toEqual(range(8));
    expect(cluster.sent.slice(3)).toMatchObject([
      { vshards: [2], atMs: 1_005 },
      { vshards: [6], atMs: 1_035 },
    ]);
    expect(result.completeness.outcomes[3]).toMatchObject({ shard: 0xffff, servedBy: [2, 2], attempts: 2 });
    cluster.assertClean();
  });

  it("wait: looks at once when the topology changes, and stops watching", async () => {
    const cluster = new Scripted(FOUR);
    const watchers = new Set<() => void>();
    const watch = (changed: () => void) => {
      watchers.add(changed);
      return () => void watchers.delete(changed);
    };
    let back = false;
    const replan = (vshards: Uint16Array): Plan =>
      back ? planOf(cluster.snapshot, { vshards }) : withMissing(cluster, down);
    const plan = withMissing(cluster, down);
    const result = cluster.executor.execute(cluster.call({ plan, unavailable: "wait", replan, watch }));
    await cluster.time.advance(40);
    expect(watchers.size).toBe(1);
    back = true;
    for (const changed of watchers) changed();
    await cluster.finish(result);
    expect(answered(await result)).toEqual(range(8));
    expect(cluster.sent[3]).toMatchObject({ atMs: 1_040 });
    expect(watchers.size).toBe(0);
    cluster.assertClean();
  });

  it("wait: fails at the deadline, typed by reason, and not before", async () => {
    const cluster = new Scripted(FOUR);
    for (const [reason, code] of [
      ["down", "ERR_UNAVAILABLE"],
      ["behind", "ERR_STALE_REPLICA"],
    ] as const) {
      const group: UnavailableVshards = { ...down, reason };
      const fromMs = cluster.nowMs;
      const replan = () => withMissing(cluster, group);
      const plan = withMissing(cluster, group);
      await expect(
        cluster.run({ plan, unavailable: "wait", replan, deadlineAtMs: fromMs + 300 }),
      ).rejects.toMatchObject({
        code,
        details: { reason, vshards: [2, 6] },
        message: expect.stringContaining("300 ms") as string,
      });
      expect(cluster.nowMs).toBe(fromMs + 300);
      cluster.assertClean();
    }
  });

  it("wait: ends with the caller's signal, and at once when nobody can plan anew", async () => {
    const cluster = new Scripted(FOUR);
    const plan = withMissing(cluster, down);
    const controller = new AbortController();
    const { signal } = controller;
    const replan = () => plan;
    const result = cluster.executor.execute(cluster.call({ plan, unavailable: "wait", replan, signal }));
    await cluster.time.advance(50);
    controller.abort();
    await expect(result).rejects.toMatchObject({ code: "ERR_ABORTED" });
    cluster.assertClean(signal);
    await expect(cluster.run({ plan, unavailable: "wait" })).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
    cluster.assertClean();
  });

  it.each(["fail", "partial", "wait"] as const)(
    "%s: holds for a primary that may not serve for longer than it is tried again",
    async (policy) => {
      const cluster = new Scripted(FOUR);
      const barred = new ShardloomError("ERR_UNAVAILABLE", "not now", { details: { shard: 2, written: false } });
      cluster.script = ({ shard }) =>
        shard === 2 && cluster.nowMs < 2_500 ? { afterMs: 1, error: barred } : { afterMs: 1 };
      const replan = (vshards: Uint16Array): Plan => planOf(cluster.snapshot, { vshards });
      const result = cluster.run({ replan, unavailable: policy, deadlineAtMs: 6_000 });
      if (policy === "fail") await expect(result).rejects.toBe(barred);
      else {
        const { completeness } = await result;
        expect(completeness).toMatchObject({ planned: 4, complete: policy === "wait" });
        expect(completeness.outcomes[2]).toMatchObject({ status: policy === "wait" ? "answered" : "unavailable" });
      }
      const asked = cluster.sent.filter(({ shard }) => shard === 2).length;
      expect(asked).toBeGreaterThan(2);
      expect(asked).toBeLessThan(policy === "wait" ? 60 : 4); // it is not asked without a pause
      cluster.assertClean();
    },
  );

  it.each(["fail", "partial", "wait"] as const)(
    "%s: holds for vshards that a newer map has no copy for",
    async (policy) => {
      const cluster = new Scripted(FOUR);
      const newer = createSnapshot({ ...FOUR, topologyEpoch: 2 });
      cluster.script = ({ shard, epoch }) => (shard === 2 && epoch === 1 ? failing("ERR_STALE_EPOCH") : { afterMs: 1 });
      const replan = (vshards: Uint16Array): Plan =>
        planOf(newer, { vshards, unavailable: cluster.nowMs < 1_050 ? [down] : [] });
      const result = cluster.run({ replan, unavailable: policy });
      if (policy === "fail") await expect(result).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
      else {
        const { completeness } = await result;
        expect(completeness).toMatchObject({ planned: 4, complete: policy === "wait" });
        expect(completeness.outcomes[2]).toMatchObject({ status: policy === "wait" ? "answered" : "unavailable" });
      }
      cluster.assertClean();
    },
  );
});

describe("Executor, by gather policy", () => {
  it("quorum: answers when a majority has, and cancels the rest", async () => {
    const cluster = new Scripted(FOUR);
    cluster.script = ({ shard }) => ({ afterMs: 10 * (shard + 1) });
    const result = await cluster.run({ policy: "quorum" });
    expect(cluster.nowMs).toBe(1_030);
    expect(answered(result)).toHaveLength(6);
    expect(result.completeness).toMatchObject({ planned: 4, answered: 3, failed: 1, complete: false });
    expect(result.completeness.outcomes[3]).toMatchObject({
      status: "failed",
      error: { code: "ERR_ABORTED", details: { reason: "quorum" } },
    });
    expect(cluster.sent[3]).toMatchObject({ ended: "cancelled" });
    cluster.assertClean();
  });

  it("quorum: a number of parts, checked against the plan", async () => {
    const cluster = new Scripted(FOUR);
    cluster.script = ({ shard }) => ({ afterMs: 10 * (shard + 1) });
    expect((await cluster.run({ policy: { quorum: 1 } })).completeness).toMatchObject({ answered: 1, failed: 3 });
    await expect(cluster.run({ policy: { quorum: 5 } })).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    cluster.assertClean();
  });

  it("quorum: fails as soon as it cannot be reached", async () => {
    const cluster = new Scripted(FOUR);
    cluster.script = ({ shard }) => (shard < 2 ? failing("ERR_UNKNOWN_COLLECTION", 5) : { afterMs: 100 });
    await expect(cluster.run({ policy: "quorum" })).rejects.toMatchObject({
      code: "ERR_UNKNOWN_COLLECTION",
      details: { needed: 3, failed: 2 },
    });
    expect(cluster.nowMs).toBe(1_005);
    cluster.assertClean();
  });

  it("best-effort: answers with whatever came until the deadline", async () => {
    const cluster = new Scripted(FOUR);
    cluster.script = ({ shard }) =>
      shard === 0 ? "silence" : shard === 1 ? failing("ERR_ACTOR_FAILED") : { afterMs: 10 };
    const result = await cluster.run({ policy: "best-effort", deadlineAtMs: 1_200 });
    expect(cluster.nowMs).toBe(1_200);
    expect(answered(result)).toEqual([2, 3, 6, 7]);
    expect(result.completeness).toMatchObject({ planned: 4, answered: 2, timedOut: 1, failed: 1 });
    cluster.assertClean();
  });

  it("best-effort: parts that never had their turn have timed out", async () => {
    const cluster = new Scripted(FOUR);
    cluster.script = ({ shard }) => (shard === 0 ? { afterMs: 5 } : "silence");
    const limits = { maxConcurrentShards: 1 };
    const result = await cluster.run({ policy: "best-effort", limits });
    expect(result.completeness).toMatchObject({ planned: 4, answered: 1, timedOut: 3 });
    expect(result.completeness.outcomes.map(({ attempts }) => attempts)).toEqual([1, 1, 0, 0]);
    cluster.assertClean();
  });

  it("best-effort: counts a part that was answered by half as missing, with what it brought", async () => {
    const cluster = new Scripted(FOUR);
    cluster.script = ({ shard }) =>
      shard === 1 ? { afterMs: 1, refuse: [{ vshard: 5, reason: "behind" }] } : { afterMs: 1 };
    const result = await cluster.run({ policy: "best-effort" });
    expect(answered(result)).toEqual([0, 1, 2, 3, 4, 6, 7]);
    expect(result.completeness).toMatchObject({ answered: 3, stale: 1, vshards: { planned: 8, answered: 7 } });
    expect(result.completeness.outcomes[1]).toMatchObject({ status: "stale", count: 1, vshardsAnswered: 1 });
    cluster.assertClean();
  });
});
