import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EventHeap } from "../../src/sim/event-heap.ts";
import { WorldLoop } from "../../src/sim/loop.ts";
import { realLoop } from "../../src/sim/real-loop.ts";

const SECOND_US = 1_000_000;

/** Runs a program on a loop and tells what it did, in order. */
async function record(
  seed: number,
  program: (loop: WorldLoop, say: (word: string) => void) => void,
): Promise<string[]> {
  const loop = new WorldLoop({ seed });
  const said: string[] = [];
  program(loop, (word) => said.push(`${loop.nowUs}:${word}`));
  await loop.run(SECOND_US);
  return said;
}

describe("the heap of events", () => {
  it("gives entries by time, then tie, then order of making, cancelled ones too, as sorting would", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 2 })), { maxLength: 200 }),
        (entries) => {
          const heap = new EventHeap<{ cancelled: boolean; at: number }>();
          for (const [at, [time, tie]] of entries.entries()) heap.push(time, tie, { cancelled: false, at });
          const popped: number[] = [];
          for (let item = heap.pop(); item !== undefined; item = heap.pop()) popped.push(item.at);
          const sorted = entries
            .map(([time, tie], at) => ({ time, tie, at }))
            .sort((a, b) => a.time - b.time || a.tie - b.tie || a.at - b.at);
          expect(popped).toEqual(sorted.map(({ at }) => at));
        },
      ),
    );
  });

  it("forgets cancelled entries once they are the larger part, and keeps the order of the rest", () => {
    const heap = new EventHeap<{ cancelled: boolean; time: number }>();
    const items = Array.from({ length: 10_000 }, (_, at) => ({ cancelled: false, time: (at * 7919) % 10_000 }));
    for (const item of items) heap.push(item.time, 0, item);
    for (const item of items) {
      if (item.time % 10 === 0) continue;
      item.cancelled = true;
      heap.noteCancelled();
    }
    expect(heap.size).toBeLessThan(5_000);
    const left: number[] = [];
    for (let item = heap.pop(); item !== undefined; item = heap.pop()) if (!item.cancelled) left.push(item.time);
    expect(left).toEqual(Array.from({ length: 1_000 }, (_, at) => at * 10));
  });
});

describe("the loop of a world", () => {
  it("runs all microtasks of an event, however long their chain, before the next event", async () => {
    const said = await record(1, (loop, say) => {
      for (const name of ["a", "b"])
        loop.at(name === "a" ? 10 : 11, () => {
          say(`${name} begins`);
          void (async () => {
            for (let step = 0; step < 50; step++) await Promise.resolve();
            say(`${name} ends`);
          })();
        });
    });
    expect(said).toEqual(["10:a begins", "10:a ends", "11:b begins", "11:b ends"]);
  });

  it("orders events of one instant by the seed: the same for the same seed, and every order for some seed", async () => {
    const program = (loop: WorldLoop, say: (word: string) => void): void => {
      for (const name of ["a", "b", "c"]) loop.at(5, () => say(name));
    };
    const orders = new Set<string>();
    for (let seed = 0; seed < 100; seed++) {
      const said = (await record(seed, program)).join(" ");
      expect((await record(seed, program)).join(" ")).toBe(said);
      orders.add(said);
    }
    expect(orders.size).toBe(6);
  });

  it("never runs what was cancelled, and takes the past for now", async () => {
    const said = await record(3, (loop, say) => {
      const late = loop.at(20, () => say("late"));
      loop.at(10, () => {
        late.cancel();
        late.cancel();
        loop.at(3, () => say("past"));
      });
    });
    expect(said).toEqual(["10:past"]);
  });

  it("gives streams that depend on seed and name alone, and differ by either", () => {
    const first = (seed: number, name: string): number => new WorldLoop({ seed }).stream(name).u32();
    const loop = new WorldLoop({ seed: 9 });
    loop.stream("other").u32();
    expect(loop.stream("network").u32()).toBe(first(9, "network"));
    expect(first(9, "network")).not.toBe(first(10, "network"));
    expect(first(9, "network")).not.toBe(first(9, "networks"));
  });

  it("has a hash of 16 digits that sees time, kind, place, detail and order of what happens", async () => {
    const hashOf = async (program: (loop: WorldLoop) => void): Promise<string> => {
      const loop = new WorldLoop({ seed: 1 });
      program(loop);
      await loop.run(SECOND_US);
      return loop.traceHash;
    };
    const base = await hashOf((loop) => loop.trace("frame", "n0>n1", 7));
    expect(base).toMatch(/^[0-9a-f]{16}$/);
    expect(await hashOf((loop) => loop.trace("frame", "n0>n1", 7))).toBe(base);
    const others = await Promise.all([
      hashOf((loop) => loop.trace("wake", "n0>n1", 7)),
      hashOf((loop) => loop.trace("frame", "n0>n2", 7)),
      hashOf((loop) => loop.trace("frame", "n0>n1", 8)),
      hashOf((loop) => loop.trace("frame", "n0>n1", 7.5)),
      hashOf((loop) => loop.trace("frame", "n0>n1", "7")),
      hashOf((loop) => loop.trace("frame", "n0>n1")),
      hashOf((loop) => loop.at(1, () => loop.trace("frame", "n0>n1", 7))),
      hashOf(() => undefined),
    ]);
    expect(new Set([base, ...others]).size).toBe(9);
  });

  it("keeps the last recorded events, and the same hash whether it keeps them or not", async () => {
    const run = async (keepTrace: number): Promise<WorldLoop> => {
      const loop = new WorldLoop({ seed: 4, keepTrace });
      for (let at = 0; at < 10; at++) loop.at(at, () => loop.trace("beat", "n0", at));
      await loop.run(SECOND_US);
      return loop;
    };
    const kept = await run(3);
    expect(kept.recorded().map(({ timeUs, detail }) => [timeUs, detail])).toEqual([
      [7, 7],
      [8, 8],
      [9, 9],
    ]);
    expect((await run(0)).traceHash).toBe(kept.traceHash);
  });

  it("stops at the time it was given, or when told, or when nothing is left, and goes on from there", async () => {
    const loop = new WorldLoop({ seed: 1 });
    const seen: number[] = [];
    for (const at of [10, 20, 30, 40]) loop.at(at, () => seen.push(at));
    expect(await loop.run(25)).toBe("reached");
    expect([seen.length, loop.nowUs]).toEqual([2, 25]);
    loop.at(35, () => loop.stop());
    expect(await loop.run(100)).toBe("stopped");
    expect(seen).toEqual([10, 20, 30]);
    expect(await loop.run(100)).toBe("idle");
    expect(seen).toEqual([10, 20, 30, 40]);
  });

  it("fails with what an event throws, with the abort signal, at the wall limit, and where time stands still", async () => {
    const thrown = new WorldLoop({ seed: 1 });
    thrown.at(1, () => {
      throw new RangeError("no");
    });
    await expect(thrown.run(10)).rejects.toMatchObject({ code: "ERR_INTERNAL", message: "no" });

    const endless = (): WorldLoop => {
      const loop = new WorldLoop({ seed: 1 });
      const again = (): void => void loop.at(loop.nowUs + 1, again);
      again();
      return loop;
    };
    await expect(endless().run(1e12, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expect(endless().run(1e12, { wallLimitMs: 20 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });

    const still = new WorldLoop({ seed: 1 });
    const now = (): void => void still.at(still.nowUs, now);
    now();
    await expect(still.run(10)).rejects.toMatchObject({ code: "ERR_INTERNAL" });
  });

  it("runs at least 200,000 events a second", async () => {
    const loop = new WorldLoop({ seed: 1 });
    let left = 400_000;
    const again = (): void => {
      if (left-- > 0) loop.at(loop.nowUs + (left % 50), () => void Promise.resolve().then(again));
    };
    for (let chain = 0; chain < 100; chain++) again();
    const startMs = realLoop.nowMs();
    await loop.run(1e12);
    const perSecond = loop.events / ((realLoop.nowMs() - startMs) / 1000);
    console.log(`loop alone: ${Math.round(perSecond / 1000)} k events/s`);
    expect(perSecond).toBeGreaterThan(200_000);
  });
});
