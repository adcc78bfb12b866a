import { describe, expect, it } from "vitest";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { VirtualAtomics } from "../../src/sim/atomics.ts";
import type { DrawnFault, FaultKind } from "../../src/sim/fault-types.ts";
import { WorldLoop } from "../../src/sim/loop.ts";
import { NodeClock } from "../../src/sim/node-clock.ts";
import { SimThread } from "../../src/sim/threads.ts";

const SECOND_US = 1_000_000;

/** Two threads, a word, and faults that hit as told. */
function stage(hits: (kind: FaultKind, site: string) => boolean = () => false, seed = 1) {
  const loop = new WorldLoop({ seed });
  const clock = new NodeClock(() => loop.nowUs, 0);
  const thread = (name: string): SimThread =>
    new SimThread(loop, { name, incarnation: 1, clock, supervised: name.includes("/") });
  const draws: string[] = [];
  const draw = (kind: FaultKind, site: string): DrawnFault | undefined => {
    draws.push(`${kind} ${site}`);
    return hits(kind, site) ? { kind, site, ordinal: 0, size: 0.5 } : undefined;
  };
  const atomics = new VirtualAtomics(loop, { draw });
  const words = new Int32Array(new SharedArrayBuffer(64));
  return { loop, atomics, words, draws, waiter: thread("n0/w0"), ringer: thread("n0"), said: [] as string[] };
}

type Stage = ReturnType<typeof stage>;

/** Waits at a word on a thread, and says how that ended, where and when. */
function wait({ atomics, words, loop, said }: Stage, thread: SimThread, index = 0, timeoutMs?: number): void {
  thread.post(0, "test", () => {
    const { async, value } = atomics.waitAsync(words, index, 0, timeoutMs);
    if (!async) said.push(`at once ${value as string}`);
    else void (value as Promise<string>).then((how) => said.push(`${how} on ${loop.current.name} at ${loop.nowUs}`));
  });
}

describe("virtual Atomics", () => {
  it("wake a waiter on its own thread, some µs after the notify, and count whom they woke", async () => {
    const at = stage();
    wait(at, at.waiter);
    let woken = -1;
    at.ringer.post(1_000, "test", () => {
      woken = at.atomics.notify(at.words, 0);
      expect(at.atomics.notify(at.words, 1)).toBe(0);
    });
    await at.loop.run(SECOND_US);
    expect(woken).toBe(1);
    expect(at.said).toHaveLength(1);
    const atUs = Number(/^ok on n0\/w0 at (\d+)$/.exec(at.said[0] as string)?.[1]);
    expect(atUs).toBeGreaterThan(1_000);
    expect(atUs).toBeLessThan(3_000);
  });

  it("answer at once where the word has changed or there is no time, and end at the timeout", async () => {
    const at = stage();
    at.words[2] = 7;
    wait(at, at.waiter, 2);
    wait(at, at.waiter, 0, 0);
    wait(at, at.waiter, 0, 50);
    await at.loop.run(SECOND_US);
    expect(at.said.slice(0, 2).sort()).toEqual(["at once not-equal", "at once timed-out"]);
    expect(Number(/^timed-out on n0\/w0 at (\d+)$/.exec(at.said[2] as string)?.[1])).toBeGreaterThanOrEqual(50_000);
    at.ringer.post(0, "test", () => expect(at.atomics.notify(at.words, 0)).toBe(0)); // nobody is left
    await at.loop.run(2 * SECOND_US);
  });

  it("know a word by buffer and place, through whatever view", async () => {
    const at = stage();
    wait(at, at.waiter, 3);
    at.ringer.post(10, "test", () => {
      expect(at.atomics.notify(new Int32Array(at.words.buffer, 8, 4), 1)).toBe(1);
    });
    await at.loop.run(SECOND_US);
    expect(at.said).toHaveLength(1);
  });

  it("wake as many as asked for, longest waiting first, and nobody who is dead", async () => {
    const at = stage();
    const third = new SimThread(at.loop, {
      name: "n1/w0",
      incarnation: 1,
      clock: new NodeClock(() => at.loop.nowUs, 0),
    });
    wait(at, at.waiter);
    at.loop.at(10, () => wait(at, third));
    at.loop.at(500, () => at.waiter.kill());
    at.ringer.post(1_000, "test", () => expect(at.atomics.notify(at.words, 0, 1)).toBe(1));
    await at.loop.run(SECOND_US);
    expect(at.said.map((line) => line.split(" ")[2])).toEqual(["n1/w0"]);
  });

  it("lose a wake when that fault hits, on supervised threads alone, and give one that nobody sent", async () => {
    const dropping = stage((kind) => kind === "wake-dropped");
    wait(dropping, dropping.waiter);
    dropping.ringer.post(100, "test", () => expect(dropping.atomics.notify(dropping.words, 0)).toBe(1));
    wait(dropping, dropping.ringer, 1);
    dropping.waiter.post(200, "test", () => dropping.atomics.notify(dropping.words, 1));
    await dropping.loop.run(SECOND_US);
    expect(dropping.said.map((line) => line.split(" ")[2])).toEqual(["n0"]);
    expect(dropping.draws.filter((draw) => draw.startsWith("wake-dropped"))).toEqual(["wake-dropped n0/w0"]);

    const spurious = stage((kind, site) => kind === "wake-spurious" && site === "n0/w0");
    wait(spurious, spurious.waiter);
    await spurious.loop.run(SECOND_US);
    expect(spurious.said).toHaveLength(1);
  });

  it("stand in for the platform's while they are installed, for the production doorbell too, and not after", async () => {
    const real = { waitAsync: Atomics.waitAsync, notify: Atomics.notify };
    const at = stage();
    const uninstall = at.atomics.install();
    try {
      const buffer = new SharedArrayBuffer(DOORBELL_BYTES);
      at.waiter.post(0, "test", () => {
        const bell = new Doorbell(buffer);
        void bell.waitAsync(bell.prepareWait())?.then(() => at.said.push(`rung on ${at.loop.current.name}`));
      });
      at.ringer.post(100, "test", () => expect(new Doorbell(buffer).ring()).toBe(true));
      await at.loop.run(SECOND_US);
    } finally {
      uninstall();
    }
    expect(at.said).toEqual(["rung on n0/w0"]);
    expect({ waitAsync: Atomics.waitAsync, notify: Atomics.notify }).toEqual(real);
  });

  it("refuse to wait where no thread runs", () => {
    const at = stage();
    expect(() => at.atomics.waitAsync(at.words, 0, 0)).toThrow(expect.objectContaining({ code: "ERR_INTERNAL" }));
  });
});
