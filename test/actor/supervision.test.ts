/** Failure: the state machine by itself, then actors that fail. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { resolveActorOptions } from "../../src/actor/actor-options.ts";
import { defineActor } from "../../src/actor/define-actor.ts";
import { backoffMs, HEALTHY, type SupervisionState, transition } from "../../src/actor/supervision.ts";
import { createTestRunner } from "../../src/actor/test-runner.ts";
import { ShardloomError } from "../../src/errors.ts";

const policy = resolveActorOptions({
  restart: { maxRestarts: 3, withinMs: 1000, backoffMs: 10, maxBackoffMs: 25 },
}).restart;

describe("supervision", () => {
  it("restarts at once, then backs off by doubling up to the limit", () => {
    expect([1, 2, 3, 4, 5].map((restart) => backoffMs(policy, restart, 0))).toEqual([0, 10, 20, 25, 25]);
    expect(backoffMs(policy, 3, 0.999)).toBeGreaterThanOrEqual(10);
  });

  it("stops after maxRestarts within the window, and only then", () => {
    let state: SupervisionState = HEALTHY;
    for (const atMs of [0, 1, 2]) {
      state = transition(policy, state, { kind: "failed", atMs, jitter: 0, atStart: false });
      expect(state.kind).toBe("backing-off");
      state = transition(policy, state, { kind: "back-off-over" });
    }
    const late = transition(policy, state, { kind: "failed", atMs: 1001, jitter: 0, atStart: false });
    expect(late).toMatchObject({ kind: "backing-off", failuresAtMs: [2, 1001] });
    expect(transition(policy, state, { kind: "failed", atMs: 999, jitter: 0, atStart: false })).toEqual({
      kind: "stopped",
      atMs: 999,
    });
  });

  it("never restarts more often than its budget in any window (property)", () => {
    const run = fc.record({
      gaps: fc.array(fc.integer({ min: 0, max: 700 }), { maxLength: 40 }),
      jitter: fc.double({ min: 0, max: 0.99, noNaN: true }),
    });
    fc.assert(
      fc.property(run, ({ gaps, jitter }) => {
        let state: SupervisionState = HEALTHY;
        let atMs = 0;
        const restartsAtMs: number[] = [];
        for (const gap of gaps) {
          atMs += gap;
          state = transition(policy, state, { kind: "failed", atMs, jitter, atStart: false });
          if (state.kind !== "backing-off") break;
          expect(state.failuresAtMs.length).toBeLessThanOrEqual(policy.maxRestarts);
          restartsAtMs.push(atMs);
          state = transition(policy, state, { kind: "back-off-over" });
        }
        for (const from of restartsAtMs) {
          expect(restartsAtMs.filter((at) => at >= from && at < from + policy.withinMs).length).toBeLessThanOrEqual(
            policy.maxRestarts,
          );
        }
      }),
    );
  });

  it("refuses events that cannot happen", () => {
    expect(() => transition(policy, HEALTHY, { kind: "back-off-over" })).toThrow(ShardloomError);
    expect(() => transition(policy, { kind: "stopped", atMs: 0 }, { kind: "stop", atMs: 1 })).toThrow("stopped");
  });
});

/** An actor that crashes on demand and writes down what happens to it. */
function fragile(failStarts = 0) {
  const log: string[] = [];
  let startsToFail = failStarts;
  const definition = defineActor({
    name: "fragile",
    init: () => {
      log.push("init");
      if (startsToFail-- > 0) throw new Error("no start");
      return { hits: 0 };
    },
    handlers: {
      hit: (state) => ++state.hits,
      crash: () => {
        throw new TypeError("boom");
      },
      refuse: () => {
        throw new ShardloomError("ERR_UNAVAILABLE", "sold out", { details: { left: 0 } });
      },
      crashLater: async () => {
        await Promise.resolve();
        throw new Error("later");
      },
    },
    onStop: (_state, _context, reason) => void log.push(`stop ${reason}`),
    options: { restart: { maxRestarts: 2, withinMs: 1000, backoffMs: 10 } },
  });
  return { definition, log };
}

describe("an actor that fails", () => {
  it("answers the failure with its cause and begins anew", async () => {
    const { definition, log } = fragile();
    const runner = createTestRunner([definition]);
    const actor = runner.actor(definition, "a");
    await actor.hit();
    const error = await actor.crash().catch((caught: unknown) => caught);
    expect(error).toMatchObject({
      code: "ERR_ACTOR_FAILED",
      message: "Handler fragile.crash failed: boom",
      details: { key: "a" },
    });
    expect((error as ShardloomError).cause).toBeInstanceOf(TypeError);
    expect(await actor.hit()).toBe(1);
    expect(log).toEqual(["init", "stop restart", "init"]);
    expect(runner.system.counters()).toMatchObject({ received: 3, delivered: 2, restarts: 1, dead: { failed: 1 } });
  });

  it("keeps its state when it throws a typed error", async () => {
    const { definition, log } = fragile();
    const runner = createTestRunner([definition]);
    const actor = runner.actor(definition, "a");
    await actor.hit();
    await expect(actor.refuse()).rejects.toMatchObject({ code: "ERR_UNAVAILABLE", details: { left: 0 } });
    expect(await actor.hit()).toBe(2);
    expect(log).toEqual(["init"]);
  });

  it("keeps waiting messages over a restart with back-off", async () => {
    const { definition } = fragile();
    const runner = createTestRunner([definition]);
    const actor = runner.actor(definition, "a");
    await expect(actor.crash()).rejects.toThrow("boom");
    await expect(actor.crashLater()).rejects.toThrow("later");
    const waiting = actor.hit();
    await runner.advance(4.9);
    expect(runner.system.pending()).toBe(1);
    expect(runner.system.pendingAsync()).toBe(1);
    await runner.advance(5.1);
    expect(await waiting).toBe(1);
    expect(runner.system.pendingAsync()).toBe(0);
  });

  it("is stopped when its budget is spent, says so, and comes back after the window", async () => {
    const { definition, log } = fragile();
    const escalated: string[] = [];
    const runner = createTestRunner([definition], {
      onEscalation: (name, key, error) => escalated.push(`${name}/${key}: ${(error as Error).message}`),
    });
    const actor = runner.actor(definition, "a");
    for (let crash = 0; crash < 2; crash++) {
      await expect(actor.crash()).rejects.toThrow("boom");
      await runner.advance(20);
    }
    const last = expect(actor.crashLater()).rejects.toMatchObject({ code: "ERR_ACTOR_FAILED" });
    const waiting = expect(actor.hit()).rejects.toMatchObject({
      code: "ERR_RESTART_BUDGET",
      details: { key: "a", maxRestarts: 2 },
    });
    await last;
    await waiting;
    await expect(actor.hit()).rejects.toMatchObject({ code: "ERR_RESTART_BUDGET" });
    expect(escalated).toEqual(["fragile/a: later"]);
    expect(log.at(-1)).toBe("stop escalated");
    expect(runner.system.counters()).toMatchObject({ escalations: 1, restarts: 2, dead: { failed: 3, stopped: 2 } });
    await runner.advance(1001);
    expect(runner.system.activeCount()).toBe(0);
    expect(await actor.hit()).toBe(1);
  });

  it("tries again, with back-off, when it cannot start", async () => {
    const { definition, log } = fragile(2);
    const runner = createTestRunner([definition]);
    const waiting = runner.actor(definition, "a").hit();
    await runner.time.settle();
    expect(log).toEqual(["init"]);
    await runner.advance(30);
    expect(await waiting).toBe(1);
    expect(log).toEqual(["init", "init", "init"]);
  });

  it("fails what waits when it can never start", async () => {
    const { definition } = fragile(Infinity);
    const runner = createTestRunner([definition]);
    const waiting = expect(runner.actor(definition, "a").hit()).rejects.toMatchObject({ code: "ERR_RESTART_BUDGET" });
    await runner.advance(100);
    await waiting;
    expect(runner.system.counters().dead.stopped).toBe(1);
  });

  it("obeys its own judge", async () => {
    const strict = defineActor({
      name: "strict",
      init: () => 0,
      handlers: {
        crash: (_state, message: string) => {
          throw new Error(message);
        },
      },
      options: { restart: { decide: (error) => ((error as Error).message === "fatal" ? "stop" : "resume") } },
    });
    const runner = createTestRunner([strict]);
    await expect(runner.actor(strict, "a").crash("light")).rejects.toMatchObject({ code: "ERR_ACTOR_FAILED" });
    expect(runner.system.counters()).toMatchObject({ delivered: 1, restarts: 0 });
    await expect(runner.actor(strict, "a").crash("fatal")).rejects.toMatchObject({ code: "ERR_ACTOR_FAILED" });
    await expect(runner.actor(strict, "a").crash("light")).rejects.toMatchObject({ code: "ERR_RESTART_BUDGET" });
  });
});

describe("hooks", () => {
  it("run in order, asynchronous or not, and their failures change nothing", async () => {
    const log: string[] = [];
    const hooked = defineActor({
      name: "hooked",
      init: async () => {
        await Promise.resolve();
        log.push("init");
        return { log: 1 };
      },
      onStart: async () => {
        await Promise.resolve();
        log.push("start");
      },
      handlers: { hit: () => log.push("hit") },
      onPassivate: () => {
        log.push("passivate");
        throw new Error("ignored");
      },
      onStop: () => {
        log.push("stop");
        throw new Error("ignored");
      },
      options: { idleAfterMs: 10 },
    });
    const runner = createTestRunner([hooked]);
    const both = [runner.actor(hooked, "a").hit(), runner.actor(hooked, "a").hit()];
    expect(runner.system.pendingAsync()).toBe(1);
    await Promise.all(both);
    await runner.advance(11);
    await runner.actor(hooked, "a").hit();
    await runner.system.close();
    expect(log).toEqual(["init", "start", "hit", "hit", "passivate", "init", "start", "hit", "stop"]);
    expect(runner.system.counters().hookFailures).toBe(2);
  });
});
