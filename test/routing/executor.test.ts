import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { answered, failing, planOf, range, Scripted } from "./scripted.ts";

const THREE = { shards: 3, vshards: 8, replicationFactor: 2 };

describe("Executor, without faults", () => {
  it("sends one request per target under the plan's epoch and gathers one outcome each", async () => {
    const cluster = new Scripted(THREE);
    const result = await cluster.run({ tenant: 9 });
    expect(answered(result)).toEqual(range(8));
    expect(cluster.sent).toHaveLength(3);
    for (const sent of cluster.sent)
      expect(sent).toMatchObject({ attempt: 0, epoch: 1, tenant: 9, whole: true, ended: "answered" });
    const { completeness } = result;
    expect(completeness).toMatchObject({ planned: 3, answered: 3, complete: true, failed: 0, stale: 0 });
    expect(completeness.vshards).toEqual({ planned: 8, answered: 8 });
    expect(completeness.outcomes[1]).toEqual({
      shard: 1,
      servedBy: [1],
      status: "answered",
      count: 3,
      vshards: 3,
      vshardsAnswered: 3,
      attempts: 1,
      hedges: 0,
      queueUs: 3,
      serviceUs: 7,
      latencyUs: 1_000,
      bytes: 100,
    });
    cluster.assertClean();
  });

  it("counts an empty answer as answered, in the order of the plan", async () => {
    const cluster = new Scripted(THREE);
    cluster.script = ({ shard }) => ({ afterMs: 3 - shard, items: shard === 1 ? 0 : 1 });
    const { answers, completeness } = await cluster.run();
    expect(answers.map(({ shard }) => shard)).toEqual([0, 1, 2]);
    expect(completeness).toMatchObject({ planned: 3, answered: 3, empty: 1, complete: true });
    expect(completeness.outcomes.map(({ status }) => status)).toEqual(["answered", "empty", "answered"]);
  });

  it("answers an empty plan with nothing, complete", async () => {
    const cluster = new Scripted(THREE);
    const { answers, completeness } = await cluster.run({ plan: planOf(cluster.snapshot, { vshards: [] }) });
    expect(answers).toEqual([]);
    expect(completeness).toMatchObject({ planned: 0, answered: 0, complete: true });
    cluster.assertClean();
  });

  it("keeps no more requests under way than maxConcurrentShards, hedges included", async () => {
    const cluster = new Scripted({ shards: 16, vshards: 16, replicationFactor: 2 });
    cluster.script = () => ({ afterMs: 10 });
    const result = await cluster.run({ limits: { maxConcurrentShards: 5, hedgeAfter: 2 } });
    expect(answered(result)).toEqual(range(16));
    expect(cluster.peak).toBe(5);
    cluster.assertClean();
  });

  it.each([
    ["maxConcurrentShards", { maxConcurrentShards: 0 }],
    ["maxAttempts", { maxAttempts: 1.5 }],
    ["minAttemptMs", { minAttemptMs: -1 }],
    ["hedgeAfter", { hedgeAfter: -3 }],
  ])("refuses a bad %s, naming value and rule", async (name, limits) => {
    const cluster = new Scripted(THREE);
    await expect(cluster.run({ limits })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringMatching(new RegExp(`as ${name} must be .*: current value is`)) as string,
    });
    expect(cluster.sent).toEqual([]);
    cluster.assertClean();
  });

  it("refuses a deadline in the past without sending anything", async () => {
    const cluster = new Scripted(THREE);
    for (const deadlineAtMs of [cluster.nowMs, cluster.nowMs - 5, Number.NaN])
      await expect(cluster.run({ deadlineAtMs })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    expect(cluster.sent).toEqual([]);
  });
});

describe("Executor, when a shard fails", () => {
  it("asks each vshard's next copy when a shard dies mid-scatter; each vshard counts once", async () => {
    const cluster = new Scripted({ shards: 4, vshards: 16, replicationFactor: 3 });
    cluster.script = ({ shard }) => (shard === 2 ? failing("ERR_WORKER_LOST", 5) : { afterMs: 8 });
    const result = await cluster.run();
    expect(answered(result)).toEqual(range(16));
    const outcome = result.completeness.outcomes.find(({ shard }) => shard === 2);
    expect(outcome).toMatchObject({ status: "answered", attempts: 2, servedBy: [3], count: 4 });
    expect(result.completeness).toMatchObject({ planned: 4, answered: 4, complete: true });
    const retried = cluster.sent.filter(({ attempt }) => attempt === 1);
    expect(retried).toMatchObject([{ shard: 3, vshards: [2, 6, 10, 14], whole: false, atMs: 1_005 }]);
    cluster.assertClean();
  });

  it("splits a failed part over the copies of its vshards, and reports it as one outcome", async () => {
    const cluster = new Scripted(THREE);
    const copies = Uint16Array.of(0, 1, 0, 2, 0, 1, 0, 2);
    const snapshot = createSnapshot({ shards: 3, vshards: 4, replicationFactor: 2, copies });
    cluster.script = ({ shard }) => (shard === 0 ? failing("ERR_WORKER_LOST") : { afterMs: shard });
    const result = await cluster.run({ plan: planOf(snapshot) });
    expect(answered(result)).toEqual(range(4));
    expect(result.completeness.outcomes).toMatchObject([
      { shard: 0, status: "answered", servedBy: [1, 2], attempts: 3, vshards: 4, vshardsAnswered: 4, bytes: 200 },
    ]);
    cluster.assertClean();
  });

  it("retries a send that throws at once", async () => {
    const cluster = new Scripted(THREE);
    const lost = new ShardloomError("ERR_WORKER_LOST", "gone");
    cluster.script = ({ shard }) => (shard === 0 ? { throws: lost } : { afterMs: 1 });
    expect(answered(await cluster.run())).toEqual(range(8));
    cluster.assertClean();
  });

  it("neither retries nor hedges what is not idempotent, and gives it the whole time", async () => {
    const cluster = new Scripted(THREE);
    cluster.script = ({ shard }) => (shard === 1 ? failing("ERR_WORKER_LOST", 50) : { afterMs: 40 });
    const deadlineAtMs = cluster.nowMs + 500;
    const limits = { hedgeAfter: 1 };
    await expect(cluster.run({ idempotent: false, deadlineAtMs, limits })).rejects.toMatchObject({
      code: "ERR_WORKER_LOST",
    });
    expect(cluster.sent).toHaveLength(3);
    for (const sent of cluster.sent) expect(sent.deadlineAtMs).toBe(deadlineAtMs);
    cluster.assertClean();
  });

  it("does not retry an error of the application, and cancels the others", async () => {
    const cluster = new Scripted(THREE);
    cluster.script = ({ shard }) => (shard === 1 ? failing("ERR_UNKNOWN_COLLECTION", 2) : { afterMs: 40 });
    await expect(cluster.run()).rejects.toMatchObject({ code: "ERR_UNKNOWN_COLLECTION" });
    expect(cluster.sent.map(({ ended }) => ended)).toEqual(["cancelled", "failed", "cancelled"]);
    expect(cluster.nowMs).toBe(1_002);
    cluster.assertClean();
  });

  it("does not retry a reply that cannot be decoded", async () => {
    const cluster = new Scripted(THREE);
    cluster.script = ({ shard }) => (shard === 1 ? "garbage" : { afterMs: 40 });
    await expect(cluster.run()).rejects.toMatchObject({ code: "ERR_CORRUPT" });
    expect(cluster.sent).toHaveLength(3);
    cluster.assertClean();
  });

  it("splits one deadline over the copies that are left, and gives the last all the rest", async () => {
    const cluster = new Scripted({ shards: 3, vshards: 4, replicationFactor: 3 });
    cluster.script = () => "silence";
    const plan = planOf(cluster.snapshot, { vshards: [0] });
    await expect(cluster.run({ plan, deadlineAtMs: 1_900 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    expect(cluster.sent.map(({ atMs, deadlineAtMs }) => [atMs, deadlineAtMs])).toEqual([
      [1_000, 1_300],
      [1_300, 1_600],
      [1_600, 1_900],
    ]);
    expect(cluster.nowMs).toBe(1_900);
    cluster.assertClean();
  });

  it("gives an attempt no less than the floor and no more than the deadline", async () => {
    const cluster = new Scripted(THREE, { limits: { minAttemptMs: 40 } });
    cluster.script = () => "silence";
    const plan = planOf(cluster.snapshot, { vshards: [0] });
    await expect(cluster.run({ plan, deadlineAtMs: 1_050 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    expect(cluster.sent.map(({ deadlineAtMs }) => deadlineAtMs)).toEqual([1_040, 1_050]);
  });

  it("does not cut short the only copy", async () => {
    const cluster = new Scripted({ shards: 2, vshards: 2, replicationFactor: 1 });
    cluster.script = () => ({ afterMs: 990 });
    const result = await cluster.run();
    expect(result.completeness.outcomes).toMatchObject([{ attempts: 1 }, { attempts: 1 }]);
    cluster.assertClean();
  });

  it("asks the same shard again after a jittered pause when there is no other copy", async () => {
    const cluster = new Scripted({ shards: 1, vshards: 1, replicationFactor: 1 });
    cluster.script = ({ attempt }) => (attempt < 2 ? failing("ERR_OVERLOADED", 0) : { afterMs: 1 });
    const { completeness } = await cluster.run();
    expect(completeness.outcomes).toMatchObject([{ status: "answered", attempts: 3, servedBy: [0] }]);
    const [first, second, third] = cluster.sent.map(({ atMs }) => atMs) as [number, number, number];
    expect(second - first).toBeGreaterThan(0);
    expect(second - first).toBeLessThanOrEqual(21);
    expect(third - second).toBeLessThanOrEqual(41);
    expect(cluster.sent.every(({ whole }) => whole)).toBe(true);
    cluster.assertClean();
  });

  it("gives up after maxAttempts with the last error", async () => {
    const cluster = new Scripted({ shards: 1, vshards: 1, replicationFactor: 1 });
    cluster.script = () => failing("ERR_OVERLOADED");
    await expect(cluster.run({ limits: { maxAttempts: 4 } })).rejects.toMatchObject({ code: "ERR_OVERLOADED" });
    expect(cluster.sent.map(({ attempt }) => attempt)).toEqual([0, 1, 2, 3]);
    cluster.assertClean();
  });

  it("does not wait for a pause that would end after the deadline", async () => {
    const cluster = new Scripted({ shards: 1, vshards: 1, replicationFactor: 1 });
    cluster.script = () => failing("ERR_OVERLOADED", 9.9999);
    const deadlineAtMs = cluster.nowMs + 10;
    await expect(cluster.run({ deadlineAtMs })).rejects.toMatchObject({ code: "ERR_OVERLOADED" });
    expect(cluster.sent).toHaveLength(1);
    expect(cluster.nowMs).toBeLessThanOrEqual(deadlineAtMs);
    cluster.assertClean();
  });

  it("retries no more than the budget lets it", async () => {
    const cluster = new Scripted(
      { shards: 2, vshards: 2, replicationFactor: 2 },
      { retries: { ratio: 0.1, perSecond: 0, burst: 5, initial: 5 }, breaker: { failuresToOpen: 1_000_000 } },
    );
    cluster.script = () => failing("ERR_WORKER_LOST");
    const plan = planOf(cluster.snapshot, { vshards: [0] });
    for (let call = 0; call < 100; call++) await expect(cluster.run({ plan })).rejects.toThrow();
    const { retries, denied } = cluster.executor.stats;
    expect(retries).toBeLessThanOrEqual(15); // 5 of the start and a tenth of 100
    expect(retries).toBeGreaterThanOrEqual(13);
    expect(denied).toBeGreaterThan(80);
    expect(cluster.sent).toHaveLength(100 + retries);
    cluster.assertClean();
  });
});

describe("Executor, when a shard refuses", () => {
  it("asks other copies for refused vshards only, and counts the rest of the answer", async () => {
    const cluster = new Scripted({ shards: 2, vshards: 4, replicationFactor: 2 });
    cluster.script = ({ shard, attempt }) =>
      shard === 0 && attempt === 0 ? { afterMs: 1, refuse: [{ vshard: 2, reason: "behind" }] } : { afterMs: 1 };
    const result = await cluster.run();
    expect(answered(result)).toEqual(range(4));
    expect(cluster.sent[2]).toMatchObject({ shard: 1, vshards: [2], attempt: 1 });
    expect(result.completeness.outcomes[0]).toMatchObject({ servedBy: [0, 1], count: 2, attempts: 2 });
    cluster.assertClean();
  });

  it("ends as stale when every copy refuses as too old", async () => {
    const cluster = new Scripted({ shards: 2, vshards: 2, replicationFactor: 2 });
    cluster.script = ({ vshards }) =>
      vshards.includes(0) ? { afterMs: 1, refuse: [{ vshard: 0, reason: "stale" }] } : { afterMs: 1 };
    await expect(cluster.run()).rejects.toMatchObject({ code: "ERR_STALE_REPLICA", details: { reason: "stale" } });
    const partial = await cluster.run({ policy: "best-effort" });
    expect(answered(partial)).toEqual([1]);
    expect(partial.completeness).toMatchObject({ planned: 2, answered: 1, stale: 1, complete: false });
    cluster.assertClean();
  });

  it.each(["wait", "partial"] as const)(
    "%s: holds for copies that refuse as too old, as for those that a plan knows to be",
    async (unavailable) => {
      const cluster = new Scripted({ shards: 2, vshards: 2, replicationFactor: 2 });
      cluster.script = ({ vshards }) =>
        vshards.includes(0) && cluster.nowMs < 2_000
          ? { afterMs: 1, refuse: [{ vshard: 0, reason: "stale" }] }
          : { afterMs: 1 };
      const replan = (vshards: Uint16Array) => planOf(cluster.snapshot, { vshards });
      const result = await cluster.run({ unavailable, replan, deadlineAtMs: cluster.nowMs + 10_000 });
      const waited = unavailable === "wait";
      expect(answered(result)).toEqual(waited ? [0, 1] : [1]);
      expect(result.completeness).toMatchObject({ complete: waited, stale: waited ? 0 : 1 });
      expect(cluster.nowMs >= 2_000).toBe(waited);
      cluster.assertClean();
    },
  );

  it("ignores refusals of vshards that were not asked for", async () => {
    const cluster = new Scripted(THREE);
    cluster.script = () => ({ afterMs: 1, refuse: [{ vshard: 7_777, reason: "behind" }] });
    const { completeness } = await cluster.run();
    expect(completeness.vshards).toEqual({ planned: 8, answered: 8 });
    expect(cluster.sent).toHaveLength(3);
  });

  it("plans anew, once, the part whose shard knows a newer map, and no other part", async () => {
    const cluster = new Scripted(THREE);
    const newer = createSnapshot({ ...THREE, topologyEpoch: 2 });
    const asked: number[][] = [];
    cluster.script = ({ shard, epoch }) => (shard === 1 && epoch === 1 ? failing("ERR_STALE_EPOCH") : { afterMs: 5 });
    const replan = (vshards: Uint16Array) => {
      asked.push([...vshards]);
      return planOf(newer, { choose: (copies) => copies[1] as number });
    };
    const result = await cluster.run({ replan });
    expect(asked).toEqual([[1, 4, 7]]);
    expect(answered(result)).toEqual(range(8));
    expect(cluster.sent[3]).toMatchObject({ shard: 2, vshards: [1, 4, 7], epoch: 2, attempt: 1 });
    expect(cluster.executor.stats).toMatchObject({ replans: 1 });
    cluster.assertClean();
  });

  it("meets several maps that follow each other, none of which costs it a try", async () => {
    const cluster = new Scripted(THREE);
    let newest = 1;
    cluster.script = ({ shard, epoch }) => {
      if (epoch === 6) return shard === 1 && cluster.nowMs < 1_012 ? failing("ERR_WORKER_LOST") : { afterMs: 5 };
      newest = epoch + 1;
      return failing("ERR_STALE_EPOCH");
    };
    const replan = (vshards: Uint16Array) => planOf(createSnapshot({ ...THREE, topologyEpoch: newest }), { vshards });
    expect(answered(await cluster.run({ replan }))).toEqual(range(8));
    expect(newest).toBe(6);
    cluster.assertClean();
  });

  it("plans a write anew too, as its shard has refused it", async () => {
    const cluster = new Scripted(THREE);
    const newer = createSnapshot({ ...THREE, topologyEpoch: 2 });
    cluster.script = ({ epoch }) => (epoch === 1 ? failing("ERR_STALE_EPOCH") : { afterMs: 5 });
    const replan = (vshards: Uint16Array) => planOf(newer, { vshards });
    expect(answered(await cluster.run({ idempotent: false, replan }))).toEqual(range(8));
    expect(cluster.sent).toHaveLength(6);
    cluster.assertClean();
  });

  it("fails a part that two maps were too old for, and one that nobody plans anew", async () => {
    const cluster = new Scripted(THREE);
    cluster.script = () => failing("ERR_STALE_EPOCH");
    const replan = (vshards: Uint16Array) => planOf(cluster.snapshot, { vshards });
    await expect(cluster.run({ replan })).rejects.toMatchObject({ code: "ERR_STALE_EPOCH" });
    expect(cluster.sent.length).toBeLessThanOrEqual(6);
    await expect(cluster.run()).rejects.toMatchObject({ code: "ERR_STALE_EPOCH" });
    cluster.assertClean();
  });

  it("plans anew what a shard says it does not own", async () => {
    const cluster = new Scripted({ shards: 2, vshards: 4, replicationFactor: 1 });
    const newer = createSnapshot({
      shards: 2,
      vshards: 4,
      topologyEpoch: 2,
      copies: Uint16Array.of(1, 1, 0, 1),
    });
    cluster.script = ({ shard, epoch }) =>
      shard === 0 && epoch === 1 ? { afterMs: 1, refuse: [{ vshard: 0, reason: "not-owner" }] } : { afterMs: 1 };
    const result = await cluster.run({ replan: () => planOf(newer), idempotent: false });
    expect(answered(result)).toEqual(range(4));
    expect(cluster.sent[2]).toMatchObject({ shard: 1, vshards: [0], epoch: 2 });
    cluster.assertClean();
  });

  it("turns a fault of the planner into the call's", async () => {
    const cluster = new Scripted(THREE);
    cluster.script = () => failing("ERR_STALE_EPOCH");
    const replan = () => {
      throw new ShardloomError("ERR_EMPTY_RING", "nobody left");
    };
    await expect(cluster.run({ replan })).rejects.toMatchObject({ code: "ERR_EMPTY_RING" });
    cluster.assertClean();
  });
});

describe("Executor, when the caller gives up", () => {
  it("cancels everything that is open, and listens no longer", async () => {
    const cluster = new Scripted(THREE);
    cluster.script = () => "silence";
    const controller = new AbortController();
    const result = cluster.executor.execute(cluster.call({ signal: controller.signal }));
    await cluster.time.advance(10);
    controller.abort(new Error("enough"));
    await expect(result).rejects.toMatchObject({ code: "ERR_ABORTED", cause: { message: "enough" } });
    expect(cluster.sent.map(({ ended }) => ended)).toEqual(["cancelled", "cancelled", "cancelled"]);
    cluster.assertClean(controller.signal);
  });

  it("sends nothing for a signal that has fired, and keeps no listener after an answer", async () => {
    const cluster = new Scripted(THREE);
    await expect(cluster.run({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(cluster.sent).toEqual([]);
    const controller = new AbortController();
    await cluster.run({ signal: controller.signal });
    cluster.assertClean(controller.signal);
  });

  it("ends a pause and parts that have not begun", async () => {
    const cluster = new Scripted({ shards: 4, vshards: 4, replicationFactor: 1 });
    cluster.script = () => failing("ERR_OVERLOADED", 0);
    const controller = new AbortController();
    const limits = { maxConcurrentShards: 1, maxAttempts: 100 };
    const result = cluster.executor.execute(cluster.call({ signal: controller.signal, limits }));
    await cluster.time.settle();
    expect(cluster.executor.waiting).toBeGreaterThan(0);
    controller.abort();
    await expect(result).rejects.toMatchObject({ code: "ERR_ABORTED" });
    cluster.assertClean(controller.signal);
  });

  it("ends calls that pause when the executor closes", async () => {
    const cluster = new Scripted({ shards: 1, vshards: 1, replicationFactor: 1 });
    cluster.script = () => failing("ERR_OVERLOADED", 0);
    const result = cluster.executor.execute(cluster.call());
    await cluster.time.settle();
    expect(cluster.executor.waiting).toBe(1);
    cluster.executor.close();
    await expect(result).rejects.toMatchObject({ code: "ERR_CLOSED" });
    cluster.assertClean();
  });

  it("tells loads of every request that it sent, whatever became of it", async () => {
    const cluster = new Scripted(THREE);
    cluster.script = ({ shard }) =>
      shard === 0 ? failing("ERR_UNKNOWN_COLLECTION", 2) : { afterMs: shard === 1 ? 1 : 50 };
    await expect(cluster.run()).rejects.toThrow();
    expect(cluster.loads.ends).toEqual([
      { shard: 1, latencyUs: 1_000, ok: true },
      { shard: 0, latencyUs: 2_000, ok: false },
      { shard: 2, latencyUs: 2_000, ok: "cancelled" },
    ]);
    cluster.assertClean();
  });
});
