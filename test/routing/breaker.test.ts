import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { Breakers, type Signal, signalOf } from "../../src/routing/breaker.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { answered, failing, planOf, range, Scripted } from "./scripted.ts";

/** No jitter: `0.5 + 0.5`. */
const steady = { u32: () => 2 ** 31, float: () => 0.5 };

function opened(options = {}): Breakers {
  const breakers = new Breakers(steady, { failuresToOpen: 3, openMs: 100, maxOpenMs: 300, ...options });
  for (let failure = 0; failure < 3; failure++) breakers.record(1, "silent", false, 0);
  return breakers;
}

describe("Breakers", () => {
  it("opens on silence in a row only: an answer in between starts the count anew, and not knowing does not", () => {
    const breakers = new Breakers(steady, { failuresToOpen: 3 });
    for (const signal of ["silent", "silent", "answered", "silent", "unknown", "silent"] as const) {
      breakers.record(1, signal, false, 0);
      expect(breakers.isClosed(1)).toBe(true);
    }
    breakers.record(1, "silent", false, 0);
    expect(breakers.isClosed(1)).toBe(false);
    expect(breakers.isClosed(0)).toBe(true);
    expect(breakers.opened).toBe(1);
  });

  it("refuses until its time is over, then lets exactly one request through", () => {
    const breakers = opened();
    expect(breakers.admit(1, 99)).toBe("refused");
    expect(breakers.retryAfterMs(1, 60)).toBe(40);
    expect([breakers.mayAdmit(1, 99), breakers.mayAdmit(1, 100)]).toEqual([false, true]);
    expect(breakers.admit(1, 100)).toBe("probe");
    expect(breakers.mayAdmit(1, 10_000)).toBe(false);
    expect(breakers.admit(1, 10_000)).toBe("refused");
  });

  it("closes on the probe's answer, also on an answer of a request from before", () => {
    for (const probe of [true, false]) {
      const breakers = opened();
      breakers.admit(1, 100);
      breakers.record(1, "answered", probe, 101);
      expect(breakers.admit(1, 101)).toBe("pass");
    }
  });

  it("stays open longer after each failed probe, up to a limit", () => {
    const breakers = opened();
    let nowMs = 0;
    const stays = [0, 1, 2, 3].map(() => {
      const staysMs = breakers.retryAfterMs(1, nowMs);
      nowMs += staysMs;
      expect(breakers.admit(1, nowMs)).toBe("probe");
      breakers.record(1, "silent", true, nowMs);
      return staysMs;
    });
    expect(stays).toEqual([100, 200, 300, 300]);
  });

  it("lets the next one look when a probe was given up", () => {
    const breakers = opened();
    breakers.admit(1, 100);
    breakers.record(1, "unknown", true, 105);
    expect(breakers.admit(1, 105)).toBe("probe");
  });

  it("is not reopened for longer by requests from before that fail while it is open", () => {
    const breakers = opened();
    for (let late = 0; late < 10; late++) breakers.record(1, "silent", false, 50);
    expect(breakers.retryAfterMs(1, 50)).toBe(50);
    expect(breakers.opened).toBe(1);
  });

  it("forgets all when another worker takes the shard over", () => {
    const breakers = opened();
    breakers.reset(1);
    expect(breakers.admit(1, 1)).toBe("pass");
    breakers.record(1, "silent", true, 1); // a probe from before
    expect(breakers.isClosed(1)).toBe(true);
  });

  it("jitters the time that it stays open by half", () => {
    const random = createSeededRandom(7);
    const stays = range(200).map(() => {
      const breakers = new Breakers(random, { failuresToOpen: 1, openMs: 100 });
      breakers.record(0, "silent", false, 0);
      return breakers.retryAfterMs(0, 0);
    });
    expect(Math.min(...stays)).toBeGreaterThanOrEqual(50);
    expect(Math.max(...stays)).toBeLessThan(150);
    expect(Math.max(...stays) - Math.min(...stays)).toBeGreaterThan(80);
  });

  it("never has two probes under way, whatever happens (property)", () => {
    const step = fc.record({
      kind: fc.constantFrom("ask", "end" as const),
      signal: fc.constantFrom<Signal>("answered", "silent", "unknown"),
      waitMs: fc.nat(150),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.nat(), (steps, seed) => {
        const breakers = new Breakers(createSeededRandom(seed), { failuresToOpen: 2, openMs: 50, maxOpenMs: 200 });
        const open: boolean[] = [];
        let nowMs = 0;
        for (const { kind, signal, waitMs } of steps) {
          nowMs += waitMs;
          if (kind === "ask") {
            const admitted = breakers.admit(0, nowMs);
            if (admitted !== "refused") open.push(admitted === "probe");
          } else if (open.length > 0) breakers.record(0, signal, open.shift() as boolean, nowMs);
          // A probe of an earlier opening may still be out when a late answer closed and silence opened again.
          if (breakers.isClosed(0)) open.fill(false);
          expect(open.filter(Boolean).length).toBeLessThanOrEqual(1);
        }
      }),
    );
  });

  it.each([
    ["failuresToOpen", { failuresToOpen: 0 }],
    ["openMs", { openMs: 0 }],
    ["maxOpenMs", { openMs: 10, maxOpenMs: 5 }],
  ])("refuses a bad %s", (name, options) => {
    expect(() => new Breakers(steady, options)).toThrow(`as ${name} must be`);
  });

  it("reads errors: silence, answers, and what says nothing", () => {
    const signal = (code: ShardloomError["code"]): Signal => signalOf(new ShardloomError(code, ""));
    for (const details of [{ sent: false }, { admitted: false }])
      expect(signalOf(new ShardloomError("ERR_TIMEOUT", "", { details })), "the shard never heard of it").toBe(
        "unknown",
      );
    expect(signalOf(new ShardloomError("ERR_TIMEOUT", "", { details: { sent: true } }))).toBe("silent");
    expect((["ERR_TIMEOUT", "ERR_WORKER_LOST", "ERR_HANDLER_HUNG"] as const).map(signal)).toEqual(
      Array(3).fill("silent"),
    );
    expect(
      (["ERR_STALE_EPOCH", "ERR_STALE_REPLICA", "ERR_ACTOR_FAILED", "ERR_UNKNOWN_COLLECTION"] as const).map(signal),
    ).toEqual(Array(4).fill("answered"));
    expect((["ERR_OVERLOADED", "ERR_ABORTED", "ERR_CLOSED"] as const).map(signal)).toEqual(Array(3).fill("unknown"));
  });
});

const OPTIONS = { breaker: { failuresToOpen: 2, openMs: 100 }, retries: { ratio: 1, perSecond: 0, burst: 100 } };

describe("Executor with breakers", () => {
  it("passes over a shard whose breaker is open while another copy may answer, and looks with one request", async () => {
    const cluster = new Scripted({ shards: 2, vshards: 2, replicationFactor: 2 }, OPTIONS);
    const plan = planOf(cluster.snapshot, { vshards: [0] });
    cluster.script = ({ shard }) => (shard === 0 ? failing("ERR_WORKER_LOST") : { afterMs: 1 });
    await cluster.run({ plan });
    await cluster.run({ plan });
    const before = cluster.sent.length;
    const { completeness } = await cluster.run({ plan });
    expect(cluster.sent.slice(before)).toMatchObject([{ shard: 1, attempt: 0 }]);
    expect(completeness.outcomes).toMatchObject([{ shard: 0, servedBy: [1], attempts: 1, status: "answered" }]);
    expect(cluster.executor.stats).toMatchObject({ breakersOpened: 1, passedOver: 1, retries: 2 });

    await cluster.time.advance(200);
    cluster.script = ({ shard }) => ({ afterMs: shard === 0 ? 20 : 1 });
    const calls = range(5).map(() => cluster.executor.execute(cluster.call({ plan })));
    await cluster.finish(Promise.all(calls));
    const probes = cluster.sent.slice(before + 1).filter(({ shard }) => shard === 0);
    expect(probes).toHaveLength(1);
    const after = cluster.sent.length;
    await cluster.run({ plan });
    expect(cluster.sent.slice(after)).toMatchObject([{ shard: 0 }]);
    cluster.assertClean();
  });

  it("fails with ERR_UNAVAILABLE and when to come back, where no other copy may answer", async () => {
    const cluster = new Scripted({ shards: 1, vshards: 1, replicationFactor: 1 }, OPTIONS);
    cluster.script = () => failing("ERR_WORKER_LOST");
    await expect(cluster.run({ idempotent: false })).rejects.toMatchObject({ code: "ERR_WORKER_LOST" });
    await expect(cluster.run({ idempotent: false })).rejects.toMatchObject({ code: "ERR_WORKER_LOST" });
    const refused = cluster.run({ idempotent: false });
    await expect(refused).rejects.toMatchObject({
      code: "ERR_UNAVAILABLE",
      details: { shard: 0, reason: "breaker-open", retryAfterMs: expect.any(Number) as number },
    });
    expect(cluster.sent).toHaveLength(2);
    cluster.assertClean();
  });

  it("does not open on errors of the application, overload, or staleness", async () => {
    const cluster = new Scripted({ shards: 1, vshards: 1, replicationFactor: 1 }, OPTIONS);
    for (const code of ["ERR_ACTOR_FAILED", "ERR_OVERLOADED", "ERR_STALE_EPOCH", "ERR_STALE_REPLICA"] as const) {
      cluster.script = () => failing(code);
      for (let call = 0; call < 5; call++) await expect(cluster.run({ idempotent: false })).rejects.toThrow();
    }
    expect(cluster.sent).toHaveLength(20);
    expect(cluster.executor.breakers.opened).toBe(0);
  });

  it("does not open on the timeouts of callers that leave no time", async () => {
    const cluster = new Scripted({ shards: 1, vshards: 1, replicationFactor: 1 }, OPTIONS);
    cluster.script = () => "silence";
    for (let call = 0; call < 5; call++)
      await expect(cluster.run({ deadlineAtMs: cluster.nowMs + 2 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    expect(cluster.executor.breakers.opened).toBe(0);
    for (let call = 0; call < 2; call++)
      await expect(cluster.run({ deadlineAtMs: cluster.nowMs + 20 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    expect(cluster.executor.breakers.opened).toBe(1);
  });

  it("lets the next one look when the caller gives up the probe", async () => {
    const cluster = new Scripted({ shards: 1, vshards: 1, replicationFactor: 1 }, OPTIONS);
    cluster.script = () => failing("ERR_WORKER_LOST");
    for (let call = 0; call < 2; call++) await expect(cluster.run({ idempotent: false })).rejects.toThrow();
    await cluster.time.advance(200);
    cluster.script = () => "silence";
    const controller = new AbortController();
    const probe = cluster.executor.execute(cluster.call({ signal: controller.signal }));
    await cluster.time.settle();
    controller.abort();
    await expect(probe).rejects.toMatchObject({ code: "ERR_ABORTED" });
    cluster.script = () => ({ afterMs: 1 });
    expect(answered(await cluster.run())).toEqual([0]);
    cluster.assertClean(controller.signal);
  });
});
