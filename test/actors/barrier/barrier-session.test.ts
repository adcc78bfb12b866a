/** Handles on one thread, in virtual time: what is combined, who waits how long, and who is blamed. */
import { describe, expect, it } from "vitest";
import { BarrierHost, type BarrierWait } from "../../../actors/barrier/barrier-host.ts";
import { LocalLink } from "../../../actors/barrier/barrier-link.ts";
import { BarrierSession } from "../../../actors/barrier/barrier-session.ts";
import { BarrierCatalog, type LocalBarrierOptions, openLocalBarrier } from "../../../actors/barrier/client-barrier.ts";
import type { Coordinator } from "../../../actors/coordinator.ts";
import { defineActor } from "../../../src/actor/define-actor.ts";
import { createTestRunner } from "../../../src/actor/test-runner.ts";
import type { BarrierOptions, PhaseResult, TickBarrier } from "../../../src/actor/tick-barrier.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { resolveBarrierOptions } from "../../../src/routing/barrier-options.ts";
import { createVirtualTime, type VirtualTime } from "../../../src/runtime/scheduler.ts";
import { createSnapshot } from "../../../src/topology/snapshot.ts";

/** A host that notes the arrivals of every message that reaches it. */
class NotingHost extends BarrierHost {
  readonly messages: string[] = [];

  override arrive(...parameters: Parameters<BarrierHost["arrive"]>): boolean {
    const [, , tick, phase, ids, from, count] = parameters;
    this.messages.push(`${tick}.${phase}: ${Array.from(ids).slice(from, from + count)}`);
    return super.arrive(...parameters);
  }
}

interface Here {
  readonly time: VirtualTime;
  readonly host: NotingHost;
  readonly session: BarrierSession;
  /** Arrives, and notes the outcome under the member's name. */
  arrive(member: string, phase: string, options?: { round?: number; timeoutMs?: number }): void;
  readonly outcomes: Map<string, PhaseResult | ShardloomError>;
}

async function here(options: Partial<BarrierOptions>): Promise<Here> {
  const time = createVirtualTime(1_000);
  const host = new NotingHost({ clock: time.clock, scheduler: time.scheduler, firstId: 1 });
  const link = new LocalLink(host, time);
  const opened = await link.open("test", resolveBarrierOptions({ phases: ["p", "q"], ...options }), "here");
  const session = new BarrierSession({
    name: "test",
    link,
    opened,
    scheduler: time.scheduler,
    onEnded: () => undefined,
  });
  const outcomes = new Map<string, PhaseResult | ShardloomError>();
  const used = new Set<string>();
  const arrive: Here["arrive"] = (member, phase, limits) => {
    outcomes.delete(member);
    session.arrive(used, member, phase, limits?.timeoutMs ?? 60_000, limits?.round).then(
      (result) => outcomes.set(member, result),
      (error: unknown) => outcomes.set(member, error as ShardloomError),
    );
  };
  return { time, host, session, arrive, outcomes };
}

describe("BarrierSession", () => {
  it("sends one message a phase once it knows its members", async () => {
    const { host, time, arrive, outcomes } = await here({ members: ["a", "b", "c"] });
    for (const member of ["a", "b", "c"]) arrive(member, "p"); // not known yet to be of this thread
    await time.settle();
    expect(host.messages).toEqual(["0.0: 1", "0.0: 2", "0.0: 3"]);
    for (const phase of ["q", "p", "q"]) {
      for (const member of ["c", "b", "a"]) arrive(member, phase);
      expect(host.messages.at(-1)).toMatch(/: 3,2,1$/);
      await time.settle();
    }
    expect(host.messages).toHaveLength(6);
    expect(outcomes.get("a")).toEqual({ round: 1, phase: "q", arrived: 3, members: 3 });
  });

  it("lets a slow member delay the arrivals of others by one turn of the loop at most", async () => {
    const { host, time, arrive, session } = await here({ members: ["a", "b"] });
    await session.join(new Set(), "a");
    await session.join(new Set(), "b");
    arrive("a", "p");
    expect(host.messages).toEqual([]);
    await time.settle();
    expect(host.messages).toEqual(["0.0: 1"]);
    arrive("b", "p"); // the last one there: no turn needed
    expect(host.messages).toEqual(["0.0: 1", "0.0: 2"]);
    arrive("a", "q");
    await session.state(); // whoever asks sees what was said before
    expect(host.messages.at(-1)).toBe("0.1: 1");
  });

  it("blames only the member at fault when a message is refused, and takes the others", async () => {
    const { host, time, arrive, session, outcomes } = await here({ members: ["a", "b", "c"], lossPolicy: "shrink" });
    for (const member of ["a", "b", "c"]) await session.join(new Set(), member);
    host.lose(1, "b", new Error("somebody else says so"));
    for (const member of ["a", "b", "c"]) arrive(member, "p");
    await time.settle();
    expect(host.messages).toEqual(["0.0: 1,2,3", "0.0: 1", "0.0: 2", "0.0: 3"]);
    expect(outcomes.get("b")).toMatchObject({ code: "ERR_INVALID_ARGUMENT", details: { reason: "unknown-member" } });
    for (const member of ["a", "c"])
      expect(outcomes.get(member)).toEqual({ round: 0, phase: "p", arrived: 2, members: 2 });
    for (const member of ["a", "c"]) arrive(member, "q");
    expect(host.messages.at(-1)).toBe("0.1: 1,3"); // b is not waited for any more
  });

  it("follows members that come ahead, repeat themselves, or name their round", async () => {
    const { time, arrive, outcomes } = await here({ members: ["a", "b"] });
    const ahead = ["p", "q", "p", "q"];
    for (const phase of ahead) arrive("a", phase);
    await time.settle();
    expect(outcomes.has("a")).toBe(false);
    arrive("a", "p", { round: 2 });
    await time.settle();
    expect(outcomes.get("a")).toMatchObject({ details: { reason: "future-round" } });
    arrive("b", "p");
    arrive("b", "p", { round: 0 });
    arrive("b", "q");
    arrive("b", "p");
    arrive("b", "q");
    await time.settle();
    expect(outcomes.get("b")).toEqual({ round: 1, phase: "q", arrived: 2, members: 2 });
    arrive("a", "p");
    arrive("b", "p");
    await time.settle();
    expect(outcomes.get("a")).toEqual({ round: 2, phase: "p", arrived: 2, members: 2 });
  });

  it("takes a member to the tick that the barrier is at, after one that failed", async () => {
    const { time, arrive, outcomes, session } = await here({ members: ["a", "b"] });
    arrive("a", "p");
    await session.poison(new Error("bad"), "b");
    await time.settle();
    expect(outcomes.get("a")).toMatchObject({ code: "ERR_BARRIER" });
    expect(await session.advance(undefined)).toBe(1);
    for (const phase of ["p", "q"]) for (const member of ["a", "b"]) arrive(member, phase);
    await time.settle();
    expect(outcomes.get("a")).toEqual({ round: 1, phase: "q", arrived: 2, members: 2 });
  });

  it("knows members that joined elsewhere only after asking, and then at once", async () => {
    const { host, time, arrive, outcomes } = await here({ members: ["a"], minMembers: 2 });
    const other = host.open("test", undefined, "there");
    host.join(other.barrier, other.session, "late");
    arrive("late", "p");
    arrive("nobody", "p");
    arrive("a", "p");
    await time.settle();
    expect(outcomes.get("late")).toEqual({ round: 0, phase: "p", arrived: 2, members: 2 });
    expect(outcomes.get("nobody")).toMatchObject({ details: { reason: "unknown-member", value: "nobody" } });
  });

  it("ends waits on its own thread when their time is up, with one timer, and keeps the arrivals", async () => {
    const { time, arrive, outcomes, session } = await here({ members: ["a", "b"] });
    arrive("a", "p", { timeoutMs: 60_000 });
    await time.advance(59_999);
    expect(outcomes.has("a")).toBe(false);
    expect(time.pending()).toBe(1);
    await time.advance(1);
    expect(outcomes.get("a")).toMatchObject({ code: "ERR_TIMEOUT", details: { tick: 0, phase: 0 } });
    arrive("b", "p");
    await time.settle();
    expect(outcomes.get("b")).toMatchObject({ round: 0, arrived: 2 });
    expect((await session.state()).phase).toBe("q");
    expect(time.pending()).toBe(0);
  });
});

describe("openLocalBarrier", () => {
  const open = async (options: Partial<LocalBarrierOptions>): Promise<{ time: VirtualTime; barrier: TickBarrier }> => {
    const time = createVirtualTime(0);
    return { time, barrier: await openLocalBarrier({ phases: ["p"], ...options }, time) };
  };
  const codeOf = (work: Promise<unknown>): Promise<unknown> =>
    work.then(
      (value) => value,
      (error: unknown) => (ShardloomError.is(error) ? error.code : error),
    );

  it("ends a wait by its own limit or signal, whatever the others do, and the arrival stands", async () => {
    const { time, barrier } = await open({ members: ["a", "b"] });
    const timed = codeOf(barrier.arrive("a", "p", { timeoutMs: 10 }));
    await time.advance(10);
    expect(await timed).toBe("ERR_TIMEOUT");
    const controller = new AbortController();
    const given = codeOf(barrier.arrive("a", "p", { signal: controller.signal }));
    controller.abort();
    expect(await given).toBe("ERR_ABORTED");
    expect(await codeOf(barrier.arrive("b", "p", { signal: controller.signal }))).toBe("ERR_ABORTED");
    expect((await barrier.state()).arrived).toBe(1); // b never came
    expect(await barrier.arrive("b", "p")).toMatchObject({ arrived: 2 });
    expect(time.pending()).toBe(0);
    for (const timeoutMs of [0, -1, Number.NaN, 2 ** 31])
      expect(await codeOf(barrier.arrive("a", "p", { timeoutMs }))).toBe("ERR_INVALID_ARGUMENT");
  });

  it("advances by hand: from the tick that it saw end, once, and not before it has ended", async () => {
    const { barrier } = await open({ members: ["a"], advance: "manual", startTick: 5 });
    expect(await codeOf(barrier.advanceTick())).toBe("ERR_INVALID_ARGUMENT");
    await barrier.arrive("a", "p");
    expect(barrier.tick).toBe(5);
    expect(await Promise.all([barrier.advanceTick(5), barrier.advanceTick(5)])).toEqual([6, 6]);
    expect(await barrier.currentTick()).toBe(6);
    expect(await codeOf(barrier.advanceTick())).toBe("ERR_INVALID_ARGUMENT");
  });

  it("advances by itself otherwise, and says the same when asked", async () => {
    const { barrier } = await open({ members: ["a"] });
    await barrier.arrive("a", "p");
    expect(await barrier.advanceTick()).toBe(1);
    expect(await codeOf(barrier.advanceTick())).toBe("ERR_INVALID_ARGUMENT");
  });

  it("lets members join, leave and be lost, and ends waits when it is closed", async () => {
    const { barrier } = await open({ minMembers: 2, lossPolicy: "shrink" });
    expect(await barrier.join("a")).toBe(0);
    expect(await barrier.join("b")).toBe(0);
    expect(await barrier.join("c")).toBe(1);
    const wait = barrier.arrive("a", "p");
    expect(await barrier.lose("b", new Error("gone"))).toBe(true);
    expect(await wait).toMatchObject({ arrived: 1, members: 1 });
    expect(await barrier.leave("b")).toBe(false);
    expect(await barrier.join("d")).toBe(2);
    expect(await barrier.leave("d")).toBe(true);
    const forC = codeOf(barrier.arrive("a", "p"));
    await barrier.close();
    expect(await forC).toBe("ERR_CLOSED");
    expect(await codeOf(barrier.arrive("a", "p"))).toBe("ERR_CLOSED");
    expect(await codeOf(barrier.state())).toBe("ERR_CLOSED");
  });
});

describe("a wait", () => {
  it("lasts as long as its own member said, whoever arrives in the same turn", async () => {
    const { time, arrive, outcomes } = await here({ members: ["a", "b", "c"] });
    for (const phase of ["p", "q"]) {
      // The second time both are known to be of this thread, and their arrivals are collected.
      arrive("a", phase, { timeoutMs: 50_000 });
      arrive("b", phase, { timeoutMs: 100 });
      await time.advance(100);
      expect(outcomes.get("b"), phase).toMatchObject({ code: "ERR_TIMEOUT" });
      expect(outcomes.has("a"), phase).toBe(false);
      arrive("c", phase);
      await time.settle();
      expect(outcomes.get("a"), phase).toMatchObject({ arrived: 3 });
    }
  });

  it("refuses a signal that is none, and leaves no rejection behind", async () => {
    const time = createVirtualTime(0);
    const barrier = await openLocalBarrier({ phases: ["p"], members: ["a", "b"] }, time);
    await expect(barrier.arrive("a", "p", { signal: {} as AbortSignal })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: "Cannot make call as signal must be an AbortSignal: current value is an object of Object",
    });
    expect((await barrier.state()).arrived).toBe(0);
    await barrier.close();
  });
});

describe("BarrierCatalog", () => {
  const OPTIONS = { phases: ["p"], members: ["a"], advance: "manual" } as const;

  /** A thread whose shard is itself, so that nothing is sent. */
  function catalog(): { time: VirtualTime; host: BarrierHost; catalog: BarrierCatalog } {
    const time = createVirtualTime(0);
    const host = new BarrierHost({ ...time, firstId: 1 });
    const coordinator = { snapshot: createSnapshot({ shards: 1, vshards: 1 }) } as unknown as Coordinator;
    const local = { shard: 0, host, tenure: { assertHosting: () => undefined } };
    const parts = { ...time, coordinator, origin: "here", waitTimeoutMs: 1_000, local };
    return { time, host, catalog: new BarrierCatalog(parts) };
  }

  it("gives every handle the waits that it was opened with", async () => {
    const { time, catalog: barriers } = catalog();
    const options = { phases: ["p"], members: ["a", "b"] };
    const patient = await barriers.open("b", { ...options, waitTimeoutMs: 60_000 });
    const hasty = await barriers.open("b", { ...options, waitTimeoutMs: 50 });
    const wait = expect(hasty.arrive("a", "p")).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    await time.advance(50);
    await wait;
    await patient.close();
    await hasty.close();
  });

  it("opens a barrier that the last handle closes meanwhile anew", async () => {
    const { catalog: barriers } = catalog();
    const first = await barriers.open("b", OPTIONS);
    const opening = barriers.open("b", OPTIONS);
    const closing = first.close();
    const second = await opening;
    await closing;
    expect(await second.arrive("a", "p")).toMatchObject({ arrived: 1 });
    expect(await barriers.ticks()).toEqual({ b: 0 });
    await second.close();
  });

  it("opens with options also while an opening without them fails", async () => {
    const { catalog: barriers } = catalog();
    const without = expect(barriers.open("b")).rejects.toMatchObject({ code: "ERR_BARRIER" });
    const barrier = await barriers.open("b", OPTIONS);
    await without;
    expect(await barrier.currentTick()).toBe(0);
  });

  it("keeps nothing open for a caller whose options were refused", async () => {
    const { catalog: barriers } = catalog();
    const barrier = await barriers.open("b", OPTIONS);
    await expect(barriers.open("b", { ...OPTIONS, phases: ["q"] })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
    await barrier.close();
    expect(await barriers.ticks()).toEqual({});
    await expect(barriers.open("b"), "it is gone").rejects.toMatchObject({ code: "ERR_BARRIER" });
  });

  it("keeps a barrier that was opened again when a handle on the lost one is closed", async () => {
    const { catalog: barriers, host } = catalog();
    const old = await barriers.open("b", OPTIONS);
    host.closeAll(new ShardloomError("ERR_CLOSED", "Cannot wait at barrier as its shard is closed"));
    await expect(old.currentTick()).rejects.toMatchObject({ code: "ERR_BARRIER", details: { reason: "host-lost" } });
    const anew = await barriers.open("b", OPTIONS);
    await old.close();
    expect(await barriers.ticks()).toEqual({ b: 0 });
    await anew.close();
    expect(await barriers.ticks()).toEqual({});
  });
});

describe("context.barrier", () => {
  it("is refused typed where there is no cluster", async () => {
    const lonely = defineActor({
      name: "lonely",
      init: () => ({}),
      handlers: { open: (_, name: string, context) => context.barrier(name) as Promise<unknown> },
    });
    const { actor } = createTestRunner([lonely]);
    await expect(actor(lonely, "one").open("b")).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
  });
});

describe("BarrierHost", () => {
  it("bounds its barriers, and forgets waits that were given up", () => {
    const time = createVirtualTime(0);
    const host = new BarrierHost({ clock: time.clock, scheduler: time.scheduler, firstId: 0x3fffffff });
    const options = resolveBarrierOptions({ phases: ["p"], members: ["a", "b"] });
    const { barrier } = host.open("0", options, "here");
    expect(barrier).toBe(0x3fffffff);
    for (let at = 1; at < 4096; at++) host.open(String(at), options, "here");
    expect(() => host.open("4096", options, "here")).toThrow(/at most 4096/);
    let looked = 0;
    let told = 0;
    const wait: BarrierWait = {
      get abandoned() {
        looked++;
        return true;
      },
      released: () => told++,
      failed: () => told++,
    };
    for (let at = 0; at < 10_000; at++) host.wait(barrier, 0, 0, wait);
    expect(looked).toBeGreaterThan(9_000);
    host.closeAll(new ShardloomError("ERR_CLOSED", "closed"));
    expect(told).toBeGreaterThan(0);
    expect(told).toBeLessThan(300);
    expect(() => host.state(barrier)).toThrow(/must be open/);
  });

  it("leaves a member with the session through which it arrived, whoever else tried to", () => {
    const host = new BarrierHost({ ...createVirtualTime(0), firstId: 1 });
    const options = resolveBarrierOptions({ phases: ["p", "q"], members: ["a", "b"], lossPolicy: "shrink" });
    const { barrier, session, members } = host.open("one", options, "first");
    const other = host.open("one", undefined, "second");
    const id = members[0]?.[1] as number;
    expect(host.arrive(barrier, session, 0, 0, [id], 0, 1)).toBe(false);
    expect(() => host.arrive(barrier, other.session, 1, 1, [id], 0, 1)).toThrow(/must be "q" of round 0/);
    host.loseOrigin((origin) => origin === "second", new Error("gone"));
    expect(host.state(barrier)).toMatchObject({ members: ["a", "b"], lost: 0 });
    host.loseOrigin((origin) => origin === "first", new Error("gone"));
    expect(() => host.state(barrier), "nobody has it open").toThrow(/must be open/);
  });
});
