import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DueQueue } from "../../src/routing/due-queue.ts";
import { fullJitterMs, RetryBudget } from "../../src/routing/retry-budget.ts";
import { createManualClock } from "../../src/runtime/clock.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { createVirtualTime, type Scheduler } from "../../src/runtime/scheduler.ts";

describe("RetryBudget", () => {
  it("never gives more than burst + ratio × requests + rate × time, in any stretch (property)", () => {
    const step = fc.record({ requests: fc.nat(30), asks: fc.nat(30), waitMs: fc.nat(500) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(60), (steps, from) => {
        const limits = { ratio: 0.1, perSecond: 4, burst: 7 };
        const budget = new RetryBudget(limits, 0);
        let nowMs = 0;
        let bound = limits.burst;
        let taken = 0;
        for (const [at, { requests, asks, waitMs }] of steps.entries()) {
          nowMs += waitMs;
          if (at >= from) bound += limits.ratio * requests + (limits.perSecond * waitMs) / 1000;
          for (let request = 0; request < requests; request++) budget.deposit();
          for (let ask = 0; ask < asks; ask++) if (budget.take(1, nowMs) && at >= from) taken++;
        }
        expect(taken).toBeLessThanOrEqual(bound + 1e-6);
      }),
    );
  });

  it("gives all or nothing", () => {
    const budget = new RetryBudget({ ratio: 0, perSecond: 0, burst: 3 }, 0);
    expect([budget.take(4, 0), budget.take(2, 0), budget.take(2, 0), budget.take(1, 0)]).toEqual([
      false,
      true,
      false,
      true,
    ]);
    expect(budget.available).toBe(0);
  });

  it("is not emptied by a clock that stands still or comes late", () => {
    const budget = new RetryBudget({ ratio: 0, perSecond: 1_000, burst: 10, initial: 0 }, 100);
    expect(budget.take(1, 50)).toBe(false);
    expect(budget.take(1, 101)).toBe(true);
  });

  it.each([
    ["ratio", { ratio: 1.1, perSecond: 0, burst: 1 }],
    ["perSecond", { ratio: 0, perSecond: -1, burst: 1 }],
    ["burst", { ratio: 0, perSecond: 0, burst: 0 }],
    ["initial", { ratio: 0, perSecond: 0, burst: 1, initial: 2 }],
  ])("refuses a bad %s", (name, limits) => {
    expect(() => new RetryBudget(limits, 0)).toThrow(`as ${name} must be`);
  });
});

describe("fullJitterMs", () => {
  it("is uniform from 0 to the doubled base, up to its limit", () => {
    const random = createSeededRandom(3);
    for (const [retry, limit] of [
      [0, 10],
      [1, 20],
      [2, 40],
      [9, 100],
    ] as const) {
      const pauses = Array.from({ length: 2_000 }, () => fullJitterMs(random, 10, 100, retry));
      expect(Math.max(...pauses)).toBeLessThan(limit);
      expect(Math.max(...pauses)).toBeGreaterThan(0.97 * limit);
      expect(Math.min(...pauses)).toBeLessThan(0.03 * limit);
      expect(pauses.reduce((sum, pause) => sum + pause, 0) / 2_000 / limit).toBeCloseTo(0.5, 1);
    }
  });
});

describe("DueQueue", () => {
  const entry = (log: unknown[], name: unknown) => ({
    dueAtMs: 0,
    dueIndex: -1,
    onDue: (nowMs: number): void => void log.push([name, nowMs]),
    onQueueClosed: (): void => void log.push([name, "closed"]),
  });

  it("runs what is due in order, has one timer while something waits, and none else (property)", async () => {
    const command = fc.oneof(
      fc.record({ add: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ remove: fc.nat() }),
      fc.record({ wait: fc.nat(15) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 60 }), async (commands) => {
        const time = createVirtualTime();
        const queue = new DueQueue(time.clock, time.scheduler);
        const ran: unknown[] = [];
        let model: { atMs: number; entry: ReturnType<typeof entry> }[] = [];
        for (const step of commands) {
          const nowMs = time.clock.nowMs();
          if ("add" in step) {
            const one = { atMs: nowMs + step.add, entry: entry(ran, nowMs + step.add) };
            model.push(one);
            queue.add(one.entry, one.atMs, nowMs);
          } else if ("remove" in step && model.length > 0) {
            const [gone] = model.splice(step.remove % model.length, 1);
            if (gone !== undefined) {
              queue.remove(gone.entry);
              queue.remove(gone.entry);
            }
          } else if ("wait" in step) {
            ran.length = 0;
            const untilMs = nowMs + step.wait;
            await time.advance(step.wait);
            const due = model.filter(({ atMs }) => atMs <= untilMs).map(({ atMs }) => [atMs, atMs]);
            expect(ran).toEqual(due.sort(([a = 0], [b = 0]) => a - b));
            model = model.filter(({ atMs }) => atMs > untilMs);
          }
          expect(queue.size).toBe(model.length);
          expect(time.pending()).toBe(model.length === 0 ? 0 : 1);
        }
      }),
      { numRuns: 60 },
    );
  });

  it("gives a thread that was asleep itself one turn to read replies before anything is due", () => {
    const clock = createManualClock();
    const timers: (() => void)[] = [];
    const timer = (_delayMs: number, callback: () => void) => {
      timers.push(callback);
      return { cancel: () => undefined, ref: () => undefined, unref: () => undefined };
    };
    const queue = new DueQueue(clock, { timer } as unknown as Scheduler);
    const log: unknown[] = [];
    const [answeredMeanwhile, slow] = [entry(log, "answered"), entry(log, "slow")];
    queue.add(answeredMeanwhile, 5, 0);
    queue.add(slow, 6, 0);
    clock.setMs(50);
    timers.shift()?.();
    expect(log).toEqual([]);
    queue.remove(answeredMeanwhile);
    clock.setMs(51);
    timers.shift()?.();
    expect(log).toEqual([["slow", 51]]);
    // A thread that is always late is held up by one turn each time, not for ever.
    queue.add(slow, 60, 51);
    for (const nowMs of [80, 100]) {
      clock.setMs(nowMs);
      timers.shift()?.();
    }
    expect(log).toEqual([
      ["slow", 51],
      ["slow", 100],
    ]);
  });

  it("tells what waits when it is closed, and sets no timer for it", () => {
    const time = createVirtualTime();
    const queue = new DueQueue(time.clock, time.scheduler);
    const log: unknown[] = [];
    queue.add(entry(log, "a"), 5, 0);
    queue.close();
    expect(log).toEqual([["a", "closed"]]);
    expect(time.pending()).toBe(0);
  });
});
