/** The actor system through references, in virtual time: order, turns, limits, cancellation, passivation, close. */

import { describe, expect, it } from "vitest";
import type { ActorContext } from "../../src/actor/context.ts";
import { defineActor } from "../../src/actor/define-actor.ts";
import { countDead } from "../../src/actor/delivery.ts";
import { createTestRunner, type TestRunner } from "../../src/actor/test-runner.ts";
import type { ShardloomError } from "../../src/errors.ts";

const counter = defineActor({
  name: "counter",
  init: () => ({ total: 0 }),
  handlers: {
    add(state, amount: number) {
      state.total += amount;
      return state.total;
    },
    read: (state) => state.total,
    bad: (): unknown => ({ nested: [() => 1] }),
  },
});

/** An actor whose handler stays open until the test says so. */
function gated() {
  const gates: (() => void)[] = [];
  const log: string[] = [];
  const contexts: ActorContext[] = [];
  const definition = defineActor({
    name: "gated",
    init: () => ({}),
    handlers: {
      async wait(_state, label: string, context) {
        log.push(`${context.key}:${label} in`);
        contexts.push(context);
        await new Promise<void>((resolve) => gates.push(resolve));
        log.push(`${context.key}:${label} out`);
        return label;
      },
      async untilAborted(_state, _message: undefined, context) {
        log.push("in");
        await new Promise((_resolve, reject) =>
          context.signal.addEventListener("abort", () => reject(context.signal.reason as Error)),
        );
      },
    },
    options: { mailboxCapacity: 2 },
  });
  return { definition, gates, log, contexts };
}

function expectBalanced({ system }: TestRunner): void {
  const counters = system.counters();
  expect(counters.received).toBe(counters.delivered + counters.rejected + countDead(counters) + system.pending());
}

describe("an actor", () => {
  it("keeps its state between messages, one per key", async () => {
    const runner = createTestRunner([counter]);
    expect(await runner.actor(counter, "a").add(2)).toBe(2);
    expect(await runner.actor(counter, "a").add(3)).toBe(5);
    expect(await runner.actor(counter, "b").read()).toBe(0);
    expectBalanced(runner);
  });

  it("runs a synchronous handler within deliver", () => {
    const { system } = createTestRunner([counter]);
    const values: unknown[] = [];
    const sink = {
      value: (_sender: number, token: number, value: unknown) => void values.push([token, value]),
      error: () => expect.unreachable(),
    };
    system.deliver(
      {
        actorName: "counter",
        key: "a",
        handler: "add",
        message: 7,
        ask: true,
        deadlineAtMs: 0,
        senderId: 1,
        requestToken: 9,
      },
      sink,
    );
    expect(values).toEqual([[9, 7]]);
    expect(system.pendingAsync()).toBe(0);
  });

  it("runs one message at a time, while other actors go on", async () => {
    const { definition, gates, log } = gated();
    const runner = createTestRunner([definition]);
    const answers = [
      runner.actor(definition, "a").wait("1"),
      runner.actor(definition, "a").wait("2"),
      runner.actor(definition, "b").wait("3"),
    ];
    await runner.time.settle();
    expect(log).toEqual(["a:1 in", "b:3 in"]);
    expect(runner.system.pendingAsync()).toBe(2);
    for (let gate = gates.shift(); gate !== undefined; gate = gates.shift()) {
      gate();
      await runner.time.settle();
    }
    expect(await Promise.all(answers)).toEqual(["1", "2", "3"]);
    expect(log).toEqual(["a:1 in", "b:3 in", "a:1 out", "a:2 in", "b:3 out", "a:2 out"]);
    expect(runner.system.pendingAsync()).toBe(0);
    expectBalanced(runner);
  });

  it("does not run inside the turn of the actor that tells it", async () => {
    const log: string[] = [];
    const inner = defineActor({ name: "inner", init: () => 0, handlers: { hit: () => void log.push("inner") } });
    const outer = defineActor({
      name: "outer",
      init: () => 0,
      handlers: {
        go(_state, _message: undefined, context) {
          void context.actor(inner, "x").tell.hit();
          log.push("outer done");
        },
      },
    });
    const runner = createTestRunner([inner, outer]);
    await runner.actor(outer, "x").go();
    await runner.time.settle();
    expect(log).toEqual(["outer done", "inner"]);
  });

  it("lets two actors tell each other for ever without starving timers", async () => {
    let hits = 0;
    const ping = defineActor({
      name: "ping",
      init: () => 0,
      handlers: {
        hit(_state, left: number, context) {
          hits++;
          if (left > 0) void context.self.tell["hit"]?.(left - 1);
        },
      },
    });
    const runner = createTestRunner([ping]);
    void runner.actor(ping, "a").tell.hit(10_000);
    let hitsAtTimer = -1;
    runner.time.scheduler.after(0, () => {
      hitsAtTimer = hits;
    });
    await runner.advance(1);
    expect(hitsAtTimer).toBeLessThan(1000);
    await runner.advance(1000);
    expect(hits).toBe(10_001);
  });

  it("fails an ask of itself at once, and tells itself later", async () => {
    const narcissus = defineActor({
      name: "narcissus",
      init: () => ({ told: 0 }),
      handlers: {
        askSelf: (_state, _message: undefined, context) => context.actor(other, context.key).told(),
        told: (state) => ++state.told,
        tellSelf(_state, _message: undefined, context) {
          void context.self.tell["told"]?.();
        },
      },
    });
    const other = narcissus as unknown as typeof counterLike;
    const runner = createTestRunner([narcissus]);
    const me = runner.actor(narcissus, "n");
    await expect(me.askSelf()).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await me.tellSelf();
    expect(await me.told()).toBe(2);
  });

  it("ends a longer circle of asks at the deadline of the first", async () => {
    const runner = createTestRunner([ring]);
    const answer = runner.actor(ring, "a").pass("b", { timeoutMs: 50 });
    const failed = expect(answer).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    await runner.advance(51);
    await failed;
    await runner.advance(1);
    expect(runner.system.pending()).toBe(0);
    expectBalanced(runner);
  });
});

const counterLike = defineActor({ name: "narcissus", init: () => 0, handlers: { told: () => 0 } });

const ringLike = defineActor({ name: "ring", init: () => 0, handlers: { pass: (_state, _to: string) => "" } });

/** a asks b, which asks a. */
const ring = defineActor({
  name: "ring",
  init: () => 0,
  handlers: {
    pass: (_state, to: string, context): Promise<string> => context.actor(ringLike, to).pass(context.key),
  },
});

describe("limits", () => {
  it("refuses what does not fit the mailbox, typed and counted", async () => {
    const { definition, gates } = gated();
    const runner = createTestRunner([definition]);
    const actor = runner.actor(definition, "a");
    const answers = [actor.wait("1"), actor.wait("2"), actor.wait("3")];
    await expect(actor.wait("4")).rejects.toMatchObject({
      code: "ERR_OVERLOADED",
      retryable: true,
      details: { capacity: 2 },
    });
    await expect(actor.tell.wait("5")).rejects.toMatchObject({ code: "ERR_OVERLOADED" });
    expect(runner.system.counters().rejected).toBe(2);
    expectBalanced(runner);
    while (runner.system.pending() > 0) {
      gates.shift()?.();
      await runner.time.settle();
    }
    expect(await Promise.all(answers)).toEqual(["1", "2", "3"]);
  });

  it("refuses unknown actors and handlers", async () => {
    const runner = createTestRunner([counter]);
    await expect(runner.send.ask("nobody", "a", "add", 1, undefined)).rejects.toMatchObject({
      code: "ERR_UNKNOWN_ACTOR",
    });
    await expect(runner.send.ask("counter", "a", "toString", 1, undefined)).rejects.toMatchObject({
      code: "ERR_UNKNOWN_ACTOR",
    });
    expect(runner.system.counters().dead).toMatchObject({ "no-actor": 1, "no-handler": 1 });
    expect(runner.system.activeCount()).toBe(0);
  });

  it("refuses bytes that are no value, before anything runs", () => {
    const { system } = createTestRunner([counter]);
    const errors: ShardloomError[] = [];
    const sink = {
      value: () => expect.unreachable(),
      error: (_s: number, _t: number, error: ShardloomError) => void errors.push(error),
    };
    const bytes = new Uint8Array([0xdd, 0xff, 0xff, 0xff, 0xff]);
    system.deliver(
      {
        actorName: "counter",
        key: "a",
        handler: "add",
        bytes,
        ask: true,
        deadlineAtMs: 0,
        senderId: 1,
        requestToken: 1,
      },
      sink,
    );
    expect(errors.map(({ code }) => code)).toEqual(["ERR_CORRUPT"]);
    expect(system.counters().dead.corrupt).toBe(1);
    expect(system.pending()).toBe(0);
  });

  it("answers typed when the result cannot be encoded", async () => {
    const runner = createTestRunner([counter]);
    await expect(runner.actor(counter, "a").bad()).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      details: { path: "value.nested[0]" },
    });
    expectBalanced(runner);
  });

  it("never starts a message whose deadline has passed", async () => {
    const { definition, gates, log } = gated();
    const runner = createTestRunner([definition]);
    const actor = runner.actor(definition, "a");
    const first = actor.wait("1");
    const late = expect(actor.wait("2", { timeoutMs: 10 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    await runner.advance(11);
    gates.shift()?.();
    await first;
    await runner.time.settle();
    await late;
    expect(log).toEqual(["a:1 in", "a:1 out"]);
    expect(runner.system.counters().dead.expired).toBe(1);
    expectBalanced(runner);
  });
});

describe("cancellation", () => {
  it("ends a waiting message at once and frees its place", async () => {
    const { definition, gates, log } = gated();
    const runner = createTestRunner([definition]);
    const actor = runner.actor(definition, "a");
    const abort = new AbortController();
    const first = actor.wait("1");
    const second = expect(actor.wait("2", { signal: abort.signal })).rejects.toMatchObject({ code: "ERR_ABORTED" });
    const third = actor.wait("3");
    abort.abort();
    await second;
    const fourth = actor.wait("4");
    while (runner.system.pending() > 0) {
      gates.shift()?.();
      await runner.time.settle();
    }
    expect(await Promise.all([first, third, fourth])).toEqual(["1", "3", "4"]);
    expect(log.filter((line) => line.endsWith("in"))).toEqual(["a:1 in", "a:3 in", "a:4 in"]);
    expect(runner.system.counters().dead.cancelled).toBe(1);
    expectBalanced(runner);
  });

  it("fires the signal of a running message, which keeps its state", async () => {
    const { definition, log } = gated();
    const runner = createTestRunner([definition]);
    const abort = new AbortController();
    const answer = expect(
      runner.actor(definition, "a").untilAborted(undefined, { signal: abort.signal }),
    ).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await runner.time.settle();
    expect(log).toEqual(["in"]);
    abort.abort();
    await answer;
    await runner.time.settle();
    expect(runner.system.counters()).toMatchObject({ delivered: 1, restarts: 0 });
    expect(runner.system.cancel(0, 1)).toBe(false);
    expectBalanced(runner);
  });

  it("fires the signal at the deadline", async () => {
    const { definition } = gated();
    const runner = createTestRunner([definition]);
    const answer = expect(
      runner.actor(definition, "a").untilAborted(undefined, { timeoutMs: 5 }),
    ).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    await runner.advance(5);
    await answer;
    expect(runner.system.pendingAsync()).toBe(0);
    expect(runner.time.pending()).toBe(0);
  });

  it("makes no controller for a handler that does not look", async () => {
    const { definition, gates, contexts } = gated();
    const runner = createTestRunner([definition]);
    const answer = runner.actor(definition, "a").wait("1", { timeoutMs: 100 });
    await runner.advance(40);
    expect(contexts[0]?.remainingMs).toBe(60);
    expect(runner.time.pending()).toBe(1); // the asker's own timer
    gates.shift()?.();
    await answer;
    expect(contexts[0]?.remainingMs).toBe(Infinity);
    expect(contexts[0]?.signal.aborted).toBe(false);
  });
});

describe("passivation", () => {
  const log: string[] = [];
  const resting = defineActor({
    name: "resting",
    init: () => ({ hits: 0 }),
    handlers: { hit: (state) => ++state.hits },
    onStart: (_state, { key }) => void log.push(`start ${key}`),
    onPassivate: async (state, { key }) => {
      await Promise.resolve();
      log.push(`passivate ${key} at ${state.hits}`);
    },
    onStop: (_state, { key }, reason) => void log.push(`stop ${key} ${reason}`),
    options: { idleAfterMs: 100 },
  });

  it("drops what is idle, keeps what is used, and starts afresh", async () => {
    log.length = 0;
    const runner = createTestRunner([resting]);
    await runner.actor(resting, "a").hit();
    await runner.actor(resting, "b").hit();
    await runner.advance(60);
    expect(await runner.actor(resting, "b").hit()).toBe(2);
    await runner.advance(60);
    expect(runner.system.activeCount()).toBe(1);
    expect(await runner.actor(resting, "a").hit()).toBe(1);
    expect(await runner.actor(resting, "b").hit()).toBe(3);
    expect(log).toEqual(["start a", "start b", "passivate a at 1", "start a"]);
    expect(runner.system.counters()).toMatchObject({ activations: 3, passivations: 1 });
  });

  it("serves with a fresh state what arrives while it passivates", async () => {
    log.length = 0;
    const runner = createTestRunner([resting]);
    await runner.actor(resting, "a").hit();
    expect(runner.system.passivate("resting", "a")).toBe(true);
    expect(await runner.actor(resting, "a").hit()).toBe(1);
    expect(log).toEqual(["start a", "passivate a at 1", "start a"]);
  });

  it("looks at no more than its limit", async () => {
    const runner = createTestRunner([counter]);
    for (let index = 0; index < 10; index++) void runner.actor(counter, `k${index}`).tell.add(1);
    expect(runner.system.sweep(1e9, 4)).toBe(4);
    expect(runner.system.activeCount()).toBe(6);
  });

  it("stops an actor on demand after what it runs", async () => {
    const { definition, gates } = gated();
    const runner = createTestRunner([definition]);
    const running = runner.actor(definition, "a").wait("1");
    const waiting = expect(runner.actor(definition, "a").wait("2")).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
    expect(runner.system.stop("gated", "a")).toBe(true);
    gates.shift()?.();
    expect(await running).toBe("1");
    await waiting;
    expect(runner.system.activeCount()).toBe(0);
    expect(runner.system.stop("gated", "a")).toBe(false);
    expectBalanced(runner);
  });
});

describe("close", () => {
  it("refuses what waits, waits for what runs, then stops all", async () => {
    const log: string[] = [];
    const { definition, gates } = gated();
    const closing = defineActor({
      name: "closing",
      init: () => 0,
      handlers: { hit: () => 1 },
      onStop: async (_state, { key }, reason) => {
        await Promise.resolve();
        log.push(`${key} ${reason}`);
      },
    });
    const runner = createTestRunner([definition, closing]);
    await runner.actor(closing, "x").hit();
    const running = runner.actor(definition, "a").wait("1");
    const waiting = expect(runner.actor(definition, "a").wait("2")).rejects.toMatchObject({ code: "ERR_CLOSED" });
    const closed = runner.system.close();
    expect(runner.system.close()).toBe(closed);
    await waiting;
    expect(log).toEqual([]);
    gates.shift()?.();
    expect(await running).toBe("1");
    await closed;
    expect(log).toEqual(["x closed"]);
    await expect(runner.actor(closing, "x").hit()).rejects.toMatchObject({ code: "ERR_CLOSED" });
    expect(runner.system.counters().dead.closed).toBe(2);
    expect(runner.time.pending()).toBe(0);
    expectBalanced(runner);
  });

  it("gives up what does not end in time, with one outcome only", async () => {
    const { definition, gates } = gated();
    const runner = createTestRunner([definition]);
    const running = expect(runner.actor(definition, "a").wait("1")).rejects.toMatchObject({ code: "ERR_CLOSED" });
    const closed = runner.system.close({ timeoutMs: 100 });
    await runner.advance(100);
    await closed;
    await running;
    gates.shift()?.();
    await runner.time.settle();
    expect(runner.system.counters()).toMatchObject({ received: 1, delivered: 0, dead: { closed: 1 } });
    expectBalanced(runner);
  });
});
