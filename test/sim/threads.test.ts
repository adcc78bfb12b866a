import { describe, expect, it } from "vitest";
import { WorldLoop } from "../../src/sim/loop.ts";
import { NodeClock } from "../../src/sim/node-clock.ts";
import { SimThread } from "../../src/sim/threads.ts";

const SECOND_US = 1_000_000;

interface Stage {
  readonly loop: WorldLoop;
  readonly clock: NodeClock;
  readonly thread: SimThread;
  readonly said: string[];
}

function stage(seed = 1, onError?: (error: unknown) => void): Stage {
  const loop = new WorldLoop({ seed });
  const clock = new NodeClock(() => loop.nowUs, 5_000);
  const thread = new SimThread(loop, {
    name: "n0",
    incarnation: 1,
    clock,
    ...(onError === undefined ? {} : { onError }),
  });
  return { loop, clock, thread, said: [] };
}

describe("a simulated thread", () => {
  it("has a clock that stands still within an event and never shows an earlier time", async () => {
    const { loop, thread } = stage();
    const { clock, scheduler } = thread.runtime;
    const readings: number[] = [];
    const look = (): void => {
      readings.push(clock.nowUs(), clock.nowUs());
      if (readings.length < 200) scheduler.turn(look);
    };
    thread.post(0, "test", look);
    await loop.run(SECOND_US);
    for (let at = 0; at < readings.length; at += 2) expect(readings[at]).toBe(readings[at + 1]);
    expect(readings).toEqual([...readings].sort((a, b) => a - b));
    expect(readings.at(-1)).toBeGreaterThan(readings[0] as number); // turns cost time
  });

  it("runs turns in the order asked for, and timers not before their time", async () => {
    for (let seed = 0; seed < 20; seed++) {
      const { loop, thread, said } = stage(seed);
      const { scheduler, clock } = thread.runtime;
      thread.post(0, "test", () => {
        const startMs = clock.nowMs();
        for (let at = 0; at < 10; at++) scheduler.turn(() => said.push(`turn ${at}`));
        scheduler.timer(50, () => expect(clock.nowMs()).toBeGreaterThanOrEqual(startMs + 50));
        scheduler.after(0.2, () => expect(clock.nowMs()).toBeGreaterThanOrEqual(startMs + 1));
        scheduler.after(60, () => said.push("cancelled"))();
      });
      await loop.run(SECOND_US);
      expect(said).toEqual(Array.from({ length: 10 }, (_, at) => `turn ${at}`));
    }
  });

  it("is busy: an event waits for what the one before it costs, and slowness multiplies that", async () => {
    const lasting = async (factor: number, chargeUs: number): Promise<number> => {
      const { loop, thread } = stage(7);
      thread.slow(factor);
      let endUs = 0;
      for (let at = 0; at < 100; at++)
        thread.post(0, "test", () => {
          endUs = loop.nowUs;
          thread.charge(chargeUs);
        });
      await loop.run(SECOND_US);
      expect(thread.events).toBe(100);
      return endUs;
    };
    const usual = await lasting(1, 0);
    expect(usual).toBeGreaterThan(100);
    const slow = await lasting(10, 0);
    expect(slow / usual).toBeGreaterThan(8); // times are rounded up to whole microseconds
    expect(slow / usual).toBeLessThan(11);
    expect(await lasting(1, 1_000)).toBeGreaterThan(99_000);
  });

  it("shows on its clock what it was charged for within the event", async () => {
    const { loop, thread } = stage();
    let passedUs = 0;
    thread.post(0, "test", () => {
      const before = thread.runtime.clock.nowUs();
      thread.charge(250);
      passedUs = thread.runtime.clock.nowUs() - before;
    });
    await loop.run(SECOND_US);
    expect(passedUs).toBe(250);
  });

  it("keeps everything while it is paused and runs it afterwards, in the order in which it fell due", async () => {
    const { loop, thread, said } = stage();
    for (const at of [10, 20, 30]) thread.post(at, "test", () => said.push(`${at}`));
    loop.at(5, () => thread.pause());
    loop.at(500, () => {
      expect(said).toEqual([]);
      thread.resume();
    });
    await loop.run(400);
    expect(said).toEqual([]);
    await loop.run(SECOND_US);
    expect(said).toEqual(["10", "20", "30"]);
  });

  it("never runs again once it is killed: timers, turns, messages, and what waited while it was busy or paused", async () => {
    for (const pausedFirst of [false, true]) {
      const { loop, thread, said } = stage();
      const { scheduler } = thread.runtime;
      thread.post(0, "test", () => {
        scheduler.after(10, () => said.push("timer"));
        scheduler.turn(() => said.push("turn"));
        thread.post(5_000, "test", () => said.push("message"));
        thread.post(0, "test", () => said.push("waiting"));
        thread.charge(1_000);
      });
      if (pausedFirst) loop.at(200, () => thread.pause());
      loop.at(500, () => thread.kill());
      loop.at(600, () => thread.resume());
      loop.at(700, () => thread.post(0, "test", () => said.push("posted later")));
      await loop.run(SECOND_US);
      expect(said).toEqual([]);
      expect(thread.dead).toBe(true);
    }
  });

  it("tells what its events throw to whoever made it, and nothing once it is dead", async () => {
    const errors: unknown[] = [];
    const { loop, thread } = stage(1, (error) => errors.push(error));
    thread.post(0, "test", () => {
      throw new TypeError("first");
    });
    thread.post(10, "test", () => {
      thread.kill();
      throw new TypeError("second");
    });
    await loop.run(SECOND_US);
    expect(errors).toMatchObject([{ message: "first" }]);
  });

  it("owns what its events do until the next event: the loop knows whose microtasks run", async () => {
    const { loop, thread, clock } = stage();
    const other = new SimThread(loop, { name: "n1", incarnation: 1, clock });
    const owners: string[] = [];
    for (const each of [thread, other])
      each.post(10, "test", () => {
        void (async () => {
          await Promise.resolve();
          owners.push(`${each.name} ${loop.current.name}`);
        })();
      });
    await loop.run(SECOND_US);
    expect(owners.sort()).toEqual(["n0 n0", "n1 n1"]);
  });
});

describe("the clock of a node", () => {
  it("starts where it was told, and timers follow its rate and its steps", async () => {
    const { loop, clock, thread, said } = stage();
    const { scheduler } = thread.runtime;
    const say = (word: string) => (): void => void said.push(`${word} ${Math.round(loop.nowUs / 1000)}`);
    expect(clock.localUs(0)).toBe(5_000);
    thread.post(0, "test", () => {
      scheduler.after(100, say("a"));
      scheduler.after(400, say("b"));
      scheduler.after(10_000, say("c"));
    });
    loop.at(50_000, () => clock.setRate(2)); // 50 ms left: 25 ms of the world
    loop.at(100_000, () => clock.setRate(1));
    loop.at(200_000, () => clock.step(9_000_000));
    await loop.run(10 * SECOND_US);
    expect(said).toEqual(["a 75", "b 200", "c 950"]);
  });

  it("never goes backwards", async () => {
    const { loop, clock } = stage();
    let last = 0;
    for (let at = 1; at < 200; at++)
      loop.at(at * 100, () => {
        if (at % 3 === 0) clock.setRate(0.95 + (at % 10) / 100);
        if (at % 7 === 0) clock.step(-1_000);
        const now = clock.localUs(loop.nowUs);
        expect(now).toBeGreaterThanOrEqual(last);
        last = now;
      });
    await loop.run(SECOND_US);
    expect(last).toBeGreaterThan(20_000);
  });
});
