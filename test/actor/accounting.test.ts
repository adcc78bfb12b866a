/**
 * Whatever is sent, in whatever order: each ask has one outcome, each sender's messages run in its order, no actor runs two
 * messages at once, and the counters add up.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createActorSystem } from "../../src/actor/actor-system.ts";
import { defineActor } from "../../src/actor/define-actor.ts";
import { countDead, type ReplySink } from "../../src/actor/delivery.ts";
import type { ShardloomError } from "../../src/errors.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { createVirtualTime } from "../../src/runtime/scheduler.ts";

type Step =
  | {
      readonly kind: "send";
      readonly sender: number;
      readonly key: string;
      readonly handler: string;
      readonly ask: boolean;
      readonly timeoutMs: number;
      readonly actor: string;
    }
  | { readonly kind: "cancel"; readonly back: number }
  | { readonly kind: "advance"; readonly ms: number }
  | { readonly kind: "stop" | "passivate"; readonly key: string };

const key = fc.constantFrom("a", "b", "c");
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant("send" as const),
      sender: fc.integer({ min: 1, max: 3 }),
      key,
      handler: fc.constantFrom("quick", "quick", "slow", "slow", "crash", "crashLater", "refuse", "watch", "missing"),
      ask: fc.boolean(),
      timeoutMs: fc.constantFrom(0, 0, 3, 20),
      actor: fc.constantFrom("mixed", "mixed", "mixed", "mixed", "nobody"),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("cancel" as const), back: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("advance" as const), ms: fc.integer({ min: 0, max: 15 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom("stop" as const, "passivate" as const), key }) },
);

async function play(steps: readonly Step[], closeTimeoutMs: number) {
  const time = createVirtualTime();
  const ran: { key: string; sender: number; order: number }[] = [];
  const running = new Set<string>();
  const overlaps: string[] = [];
  const outcomes = new Map<number, string[]>();
  let token = 0;

  type Message = { readonly sender: number; readonly order: number };
  const enter = (actorKey: string, { sender, order }: Message): void => {
    if (running.has(actorKey)) overlaps.push(actorKey);
    ran.push({ key: actorKey, sender, order });
  };
  const wait = (ms: number): Promise<void> => new Promise((resolve) => time.scheduler.after(ms, resolve));
  const mixed = defineActor({
    name: "mixed",
    init: ({ key: own }) => (own === "b" ? Promise.resolve({}) : {}),
    handlers: {
      quick: (_state, message: Message, context) => enter(context.key, message),
      async slow(_state, message: Message, context) {
        enter(context.key, message);
        running.add(context.key);
        await wait(2);
        running.delete(context.key);
      },
      async watch(_state, message: Message, context) {
        enter(context.key, message);
        running.add(context.key);
        await Promise.race([wait(5), new Promise((resolve) => context.signal.addEventListener("abort", resolve))]);
        running.delete(context.key);
        context.signal.throwIfAborted();
      },
      crash(_state, message: Message, context) {
        enter(context.key, message);
        throw new Error("crash");
      },
      async crashLater(_state, message: Message, context) {
        enter(context.key, message);
        running.add(context.key);
        await wait(1);
        running.delete(context.key);
        throw new Error("crash later");
      },
      refuse(_state, message: Message, context) {
        enter(context.key, message);
        context.actor(mixedLike, "zzz"); // making a reference sends nothing
        throw Object.assign(new Error("refused"), { expected: true });
      },
    },
    onPassivate: (_state, { key: own }) => (own === "c" ? wait(1) : undefined),
    onStop: (_state, { key: own }) => (own === "a" ? wait(1) : undefined),
    options: {
      mailboxCapacity: 3,
      idleAfterMs: 10,
      restart: {
        maxRestarts: 1,
        withinMs: 40,
        backoffMs: 2,
        decide: (error) => ((error as { expected?: boolean }).expected === true ? "resume" : "restart"),
      },
    },
  });
  const note = (requestToken: number, outcome: string): void =>
    void outcomes.set(requestToken, [...(outcomes.get(requestToken) ?? []), outcome]);
  const sink: ReplySink = {
    value: (_sender, requestToken) => note(requestToken, "value"),
    error: (_sender, requestToken, error: ShardloomError) => note(requestToken, error.code),
  };
  const nowhere = { ask: () => Promise.reject(new Error("unused")), tell: () => Promise.resolve() };
  const system = createActorSystem({
    definitions: [mixed],
    clock: time.clock,
    scheduler: time.scheduler,
    random: createSeededRandom(1),
    send: nowhere,
  });

  const asked: { sender: number; token: number }[] = [];
  const check = (): void => {
    const counters = system.counters();
    expect(counters.received).toBe(counters.delivered + counters.rejected + countDead(counters) + system.pending());
  };
  for (const next of steps) {
    if (next.kind === "advance") {
      await time.advance(next.ms);
      system.sweep(time.clock.nowMs(), 3);
    } else if (next.kind === "cancel") {
      const target = asked.at(-next.back);
      if (target !== undefined) system.cancel(target.sender, target.token);
    } else if (next.kind === "send") {
      token++;
      if (next.ask) asked.push({ sender: next.sender, token });
      const deadlineAtMs = next.timeoutMs === 0 ? 0 : time.clock.nowMs() + next.timeoutMs;
      const message: Message = { sender: next.sender, order: token };
      system.deliver(
        {
          actorName: next.actor,
          key: next.key,
          handler: next.handler,
          message,
          ask: next.ask,
          deadlineAtMs,
          senderId: next.sender,
          requestToken: token,
        },
        sink,
      );
    } else {
      system[next.kind]("mixed", next.key);
    }
    check();
  }
  const closed = system.close({ timeoutMs: closeTimeoutMs });
  await time.advance(200);
  await closed;
  check();
  return { system, ran, overlaps, outcomes, asked, token, time };
}

const mixedLike = defineActor({ name: "mixed", init: () => 0, handlers: { quick: () => 0 } });

describe("any mix of messages", () => {
  it("ends with one outcome each, in order, one at a time, and counters that add up (property)", async () => {
    const seen = new Set<string>();
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 80, size: "max" }),
        fc.constantFrom(0, 100),
        async (steps, closeTimeoutMs) => {
          const { system, ran, overlaps, outcomes, asked, token, time } = await play(steps, closeTimeoutMs);
          expect(system.pending()).toBe(0);
          expect(system.pendingAsync()).toBe(0);
          expect(time.pending()).toBe(0);
          expect(system.counters().received).toBe(token);
          expect([...outcomes.keys()].sort((one, two) => one - two)).toEqual(asked.map((ask) => ask.token));
          for (const [, list] of outcomes) {
            expect(list).toHaveLength(1);
            seen.add(list[0] as string);
          }
          expect(overlaps).toEqual([]);
          for (const sender of [1, 2, 3]) {
            for (const actorKey of ["a", "b", "c"]) {
              const orders = ran.filter((run) => run.sender === sender && run.key === actorKey).map((run) => run.order);
              expect(orders).toEqual([...orders].sort((one, two) => one - two));
            }
          }
          for (const [reason, count] of Object.entries(system.counters().dead)) if (count > 0) seen.add(reason);
        },
      ),
      { numRuns: 400 },
    );
    // The mix is worth nothing unless it reaches every way a message can end.
    const ways = [
      "value",
      "ERR_ACTOR_FAILED",
      "ERR_OVERLOADED",
      "ERR_TIMEOUT",
      "ERR_ABORTED",
      "ERR_RESTART_BUDGET",
      "ERR_CLOSED",
      "ERR_UNAVAILABLE",
      "ERR_UNKNOWN_ACTOR",
    ];
    expect([...seen]).toEqual(
      expect.arrayContaining([
        ...ways,
        "expired",
        "cancelled",
        "stopped",
        "failed",
        "closed",
        "no-actor",
        "no-handler",
      ]),
    );
  });
});
