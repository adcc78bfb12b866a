/** The barrier's state machine: the rules one by one, phago's defects, and random histories against a model of sets. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BarrierOptions } from "../../src/actor/tick-barrier.ts";
import { ShardloomError } from "../../src/errors.ts";
import { Barrier, type BarrierListener } from "../../src/routing/barrier.ts";
import { MAX_TICK, resolveBarrierOptions } from "../../src/routing/barrier-options.ts";
import { createVirtualTime, type VirtualTime } from "../../src/runtime/scheduler.ts";

const PHASES = ["sense", "act", "decay"];

interface World {
  readonly barrier: Barrier;
  readonly time: VirtualTime;
  /** What was told, in order: "0 sense 2/2", "failed 0". */
  readonly told: string[];
  readonly errors: ShardloomError[];
  arrive(member: string, tick: number, phase: string): boolean;
}

function world(options: Partial<BarrierOptions> = {}, listen: Partial<BarrierListener> = {}): World {
  const time = createVirtualTime(1_000);
  const told: string[] = [];
  const errors: ShardloomError[] = [];
  const resolved = resolveBarrierOptions({ phases: PHASES, ...options });
  const barrier = new Barrier({
    name: "test",
    options: resolved,
    clock: time.clock,
    scheduler: time.scheduler,
    listener: {
      onPhase: (tick, phase, arrived, members) => {
        told.push(`${tick} ${resolved.phases[phase]} ${arrived}/${members}`);
        listen.onPhase?.(tick, phase, arrived, members);
      },
      onFailed: (tick, error) => {
        told.push(`failed ${tick}`);
        errors.push(error);
        listen.onFailed?.(tick, error);
      },
    },
  });
  const arrive = (member: string, tick: number, phase: string): boolean =>
    barrier.arrive([barrier.member(member)], tick, resolved.phases.indexOf(phase));
  return { barrier, time, told, errors, arrive };
}

/** The error that a call throws. */
function thrown(call: () => unknown): ShardloomError {
  try {
    call();
  } catch (error) {
    if (ShardloomError.is(error)) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("Barrier", () => {
  it("completes each phase when the last member has arrived, and goes on to the next tick", () => {
    const { arrive, told, barrier } = world({ members: ["a", "b"] });
    for (const tick of [0, 1]) {
      for (const phase of PHASES) {
        expect(arrive("a", tick, phase)).toBe(false);
        expect(arrive("b", tick, phase)).toBe(true);
      }
    }
    expect(told).toEqual([0, 1].flatMap((tick) => PHASES.map((phase) => `${tick} ${phase} 2/2`)));
    expect(barrier.currentTick).toBe(2);
  });

  it("keeps arrivals ahead, through this tick and the next, and erases none (phago 12)", () => {
    const { arrive, told, barrier } = world({ members: ["a", "b"] });
    for (const tick of [0, 1]) for (const phase of PHASES) expect(arrive("a", tick, phase)).toBe(false);
    for (const tick of [0, 1]) for (const phase of PHASES) expect(arrive("b", tick, phase)).toBe(true);
    expect(told).toHaveLength(6);
    expect(barrier.currentTick).toBe(2);
  });

  it("does not count an arrival that its member took away (phago 8)", () => {
    const { arrive, told, barrier } = world({ members: ["a", "b", "c"], minMembers: 1 });
    arrive("a", 0, "sense");
    arrive("b", 0, "sense");
    barrier.leave("a");
    expect(told).toEqual([]); // c has not come: 1 of 2, not 2 of 2
    arrive("c", 0, "sense");
    expect(told).toEqual(["0 sense 2/2"]);
  });

  it("is released at once when the last straggler leaves (phago 9)", () => {
    const { arrive, told, barrier } = world({ members: ["a", "b"], minMembers: 1 });
    arrive("a", 0, "sense");
    arrive("a", 0, "act");
    barrier.leave("b");
    expect(told).toEqual(["0 sense 1/1", "0 act 1/1"]);
  });

  it("lets nobody begin alone before there are enough members (phago 2)", () => {
    const { arrive, told, barrier } = world({ minMembers: 3 });
    barrier.join("a");
    expect(arrive("a", 0, "sense")).toBe(false);
    barrier.join("b");
    arrive("b", 0, "sense");
    expect(told).toEqual([]);
    expect(barrier.state()).toMatchObject({ status: "waiting", members: ["a", "b"] });
    barrier.join("c");
    expect(told).toEqual([]);
    expect(arrive("c", 0, "sense")).toBe(true);
    expect(told).toEqual(["0 sense 3/3"]);
  });

  it("takes who joins a running tick into the next one, where an early arrival of his waits for him alone", () => {
    const { arrive, told, barrier } = world({ members: ["a"], phases: ["p"], advance: "manual" });
    expect(barrier.state().status).toBe("running");
    const joined = barrier.join("b");
    expect(barrier.firstTickOf(joined)).toBe(1);
    expect(thrown(() => arrive("b", 0, "p")).details).toMatchObject({ reason: "not-yet-member", member: "b" });
    arrive("b", 1, "p");
    expect(arrive("a", 0, "p")).toBe(true);
    expect(told).toEqual(["0 p 1/1"]);
    arrive("a", 1, "p"); // ahead of advance
    expect(barrier.advance(0)).toBe(1);
    expect(told).toEqual(["0 p 1/1", "1 p 2/2"]);
  });

  it("waits again when too few members are left for the next tick, and ends without members", () => {
    const { arrive, told, barrier } = world({ members: ["a", "b"], phases: ["p"] });
    arrive("a", 0, "p");
    barrier.leave("b");
    expect(told).toEqual(["0 p 1/1"]);
    expect(barrier.state()).toMatchObject({ tick: 1, status: "waiting", members: ["a"] });
    arrive("a", 1, "p");
    expect(told).toHaveLength(1);
    barrier.join("c");
    arrive("c", 1, "p");
    expect(told).toEqual(["0 p 1/1", "1 p 2/2"]);
    barrier.leave("a");
    barrier.leave("c");
    expect(barrier.state()).toMatchObject({ tick: 3, status: "waiting", members: [] });
  });

  it("counts a repeated arrival once", () => {
    const { arrive, told } = world({ members: ["a", "b"] });
    for (let again = 0; again < 3; again++) expect(arrive("a", 0, "sense")).toBe(false);
    expect(told).toEqual([]);
    expect(arrive("b", 0, "sense")).toBe(true);
    expect(arrive("a", 0, "sense")).toBe(true);
    expect(told).toEqual(["0 sense 2/2"]);
  });

  it("refuses what is against the rules, naming rule and value (phago 5), and changes nothing", () => {
    const { barrier, arrive, told } = world({ members: ["a", "b"], startTick: 7 });
    const cases: [() => unknown, string, RegExp][] = [
      [() => arrive("x", 7, "sense"), "unknown-member", /member must be one that has joined/],
      [() => arrive("a", 7, "act"), "phase-order", /phase must be "sense" of round 7: current value is "act"/],
      [() => arrive("a", 8, "sense"), "phase-order", /must be "sense" of round 7/],
      [() => arrive("a", 6, "sense"), "stale-round", /round must be 7 or 8: current value is 6/],
      [() => arrive("a", 9, "sense"), "future-round", /round must be 7 or 8: current value is 9/],
      [() => arrive("a", 7.5, "sense"), "future-round", /7\.5/],
      [() => arrive("a", Number.NaN, "sense"), "future-round", /NaN/],
      [() => arrive("a", 7, "nothing"), "unknown-phase", /phase must be a number below 3: current value is -1/],
      [() => barrier.advance(7), "unfinished", /every phase of tick 7 must be complete: current value is "sense"/],
      [() => barrier.advance(5), "stale-round", /from must be 6 or 7: current value is 5/],
      [() => barrier.advance(8), "future-round", /from must be 6 or 7: current value is 8/],
      [() => barrier.poison("x", "a", 6), "stale-round", /round must be 7: current value is 6/],
    ];
    const before = barrier.state();
    for (const [call, reason, message] of cases) {
      const error = thrown(call);
      expect(error.code).toBe("ERR_INVALID_ARGUMENT");
      expect(error.details).toMatchObject({ barrier: "test", reason, tick: 7 });
      expect(error.message).toMatch(message);
    }
    expect(barrier.state()).toEqual(before);
    expect(told).toEqual([]);
  });

  it("takes several members whole or not at all", () => {
    const { barrier } = world({ members: ["a", "b"] });
    const [a, b] = [barrier.member("a"), barrier.member("b")];
    expect(thrown(() => barrier.arrive([a, b, undefined], 0, 0)).details).toMatchObject({ reason: "unknown-member" });
    expect(barrier.state().arrived).toBe(0);
    expect(barrier.arrive([a, a], 0, 0)).toBe(false); // twice is once
    expect(barrier.arrive([a, b], 0, 0)).toBe(true);
  });

  it("advances by hand only when asked, once however many ask", () => {
    const { barrier, arrive } = world({ members: ["a"], phases: ["p"], advance: "manual" });
    arrive("a", 0, "p");
    expect(barrier.state()).toMatchObject({ tick: 0, status: "complete", phase: undefined });
    expect(barrier.advance(0)).toBe(1);
    expect(barrier.advance(0)).toBe(1);
    expect(barrier.currentTick).toBe(1);
  });

  it("ends at tick 2^53 - 1 with a typed error", () => {
    const { barrier, arrive, told } = world({ members: ["a"], phases: ["p"], startTick: MAX_TICK - 1 });
    expect(arrive("a", MAX_TICK - 1, "p")).toBe(true);
    expect(arrive("a", MAX_TICK, "p")).toBe(true);
    expect(told).toEqual([`${MAX_TICK - 1} p 1/1`, `${MAX_TICK} p 1/1`]);
    for (const call of [() => barrier.advance(MAX_TICK), () => arrive("a", MAX_TICK + 1, "p"), () => barrier.join("b")])
      expect(thrown(call).details).toMatchObject({ reason: "tick-overflow" });
    expect(barrier.currentTick).toBe(MAX_TICK);
  });

  it("bounds its members", () => {
    const { barrier } = world({ members: Array.from({ length: 16_384 }, (_, at) => `m${at}`) });
    expect(thrown(() => barrier.join("one more"))).toMatchObject({
      code: "ERR_OVERLOADED",
      details: { limit: 16_384 },
    });
  });
});

describe("Barrier: loss", () => {
  const cause = new Error("the worker died");

  it("abort: fails the tick for all with member and cause, and stays so until it is advanced", () => {
    const { barrier, arrive, told, errors } = world({ members: ["a", "b", "c"], minMembers: 2 });
    arrive("a", 0, "sense");
    expect(barrier.lose("c", cause)).toBe(true);
    expect(barrier.lose("c", cause)).toBe(false);
    expect(told).toEqual(["failed 0"]);
    expect(errors[0]).toMatchObject({
      code: "ERR_BARRIER",
      cause,
      details: { reason: "lost", member: "c", tick: 0, phase: "sense" },
    });
    expect(thrown(() => arrive("b", 0, "sense"))).toBe(errors[0]);
    arrive("a", 1, "sense"); // kept for the next tick
    expect(barrier.advance(0)).toBe(1);
    expect(thrown(() => arrive("b", 0, "sense"))).toBe(errors[0]); // who was late hears the same
    expect(arrive("b", 1, "sense")).toBe(true);
    expect(told).toEqual(["failed 0", "1 sense 2/2"]);
  });

  it("abort: a lost joiner harms nobody", () => {
    const { barrier, arrive, told } = world({ members: ["a"] });
    barrier.join("late");
    barrier.lose("late", cause);
    expect(arrive("a", 0, "sense")).toBe(true);
    expect(told).toEqual(["0 sense 1/1"]);
  });

  it("shrink: the others go on, at once", () => {
    const { barrier, arrive, told } = world({ members: ["a", "b", "c"], minMembers: 1, lossPolicy: "shrink" });
    arrive("a", 0, "sense");
    arrive("b", 0, "sense");
    barrier.lose("c", cause);
    expect(told).toEqual(["0 sense 2/2"]);
    expect(barrier.state()).toMatchObject({ members: ["a", "b"], lost: 1 });
  });

  it("quorum: k arrivals are enough; who is late goes on, and may skip what was done without him", () => {
    const { arrive, told } = world({ members: ["a", "b", "c"], lossPolicy: "quorum", quorum: 2 });
    expect(arrive("a", 0, "sense")).toBe(false);
    expect(arrive("b", 0, "sense")).toBe(true);
    expect(arrive("c", 0, "sense")).toBe(true); // late
    expect(arrive("c", 0, "act")).toBe(false);
    expect(arrive("a", 0, "act")).toBe(true);
    expect(thrown(() => arrive("b", 1, "sense")).details).toMatchObject({ reason: "phase-order" });
    expect(arrive("b", 0, "decay")).toBe(false); // without act
    expect(arrive("a", 0, "decay")).toBe(true);
    expect(told).toEqual(["0 sense 2/3", "0 act 2/3", "0 decay 2/3"]);
    expect(thrown(() => arrive("c", 0, "decay")).details).toMatchObject({ reason: "stale-round" });
    expect(arrive("c", 1, "sense")).toBe(false);
  });

  it("quorum: fails when fewer than k are left, lost or gone", () => {
    for (const go of ["lose", "leave"] as const) {
      const { barrier, errors } = world({ members: ["a", "b", "c"], lossPolicy: "quorum", quorum: 2 });
      barrier.lose("a", cause);
      expect(errors).toEqual([]);
      barrier[go]("b", cause);
      expect(errors[0]).toMatchObject({ code: "ERR_BARRIER", details: { reason: "quorum", member: "b" } });
    }
  });

  it("poison: ends the tick for all, with its first cause", () => {
    const { barrier, arrive, errors } = world({ members: ["a", "b"] });
    arrive("a", 0, "sense");
    barrier.poison(cause, "b");
    barrier.poison(new Error("a later one"), "a");
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatchObject({ code: "ERR_BARRIER", cause, details: { reason: "poisoned", member: "b" } });
    expect(barrier.state()).toMatchObject({ tick: 0, status: "failed", phase: undefined });
    expect(barrier.advance(0)).toBe(1);
    expect(arrive("a", 1, "sense")).toBe(false);
    expect(arrive("b", 1, "sense")).toBe(true);
  });
});

describe("Barrier: deadlines", () => {
  it("no chatter moves the deadline of a tick (phago 11)", async () => {
    const members = Array.from({ length: 50 }, (_, at) => `m${at}`);
    const { barrier, arrive, time, errors } = world({ members, deadlineMs: 100 });
    for (const member of members.slice(1)) {
      arrive(member, 0, "sense");
      arrive(member, 0, "sense");
      barrier.join(`late ${member}`);
      await time.advance(2);
      expect(errors).toEqual([]);
    }
    await time.advance(1.9);
    expect(errors).toEqual([]);
    await time.advance(0.1);
    expect(errors[0]).toMatchObject({
      code: "ERR_BARRIER",
      details: { reason: "deadline", missing: ["m0"], missingCount: 1, phase: "sense" },
    });
  });

  it("measures every tick from its beginning, with one timer for many", async () => {
    const { arrive, time, errors } = world({ members: ["a"], phases: ["p"], deadlineMs: 100 });
    for (let tick = 0; tick < 50; tick++) {
      arrive("a", tick, "p");
      await time.advance(10);
      expect(time.pending()).toBe(1);
    }
    await time.advance(89);
    expect(errors).toEqual([]);
    await time.advance(1);
    expect(errors).toHaveLength(1);
    expect(time.pending()).toBe(0);
  });

  it("measures every phase from the completion of the one before", async () => {
    const { arrive, time, errors } = world({ members: ["a"], phaseDeadlineMs: 10 });
    await time.advance(9);
    arrive("a", 0, "sense");
    await time.advance(9);
    arrive("a", 0, "act");
    await time.advance(9.9);
    expect(errors).toEqual([]);
    await time.advance(0.2);
    expect(errors[0]).toMatchObject({ details: { reason: "deadline", phase: "decay" } });
  });

  it("shrink: who is late is lost, the others have as long again; nobody in time fails the tick", async () => {
    const { barrier, arrive, time, told, errors } = world({
      members: ["a", "b", "c"],
      minMembers: 1,
      lossPolicy: "shrink",
      deadlineMs: 10,
    });
    arrive("a", 0, "sense");
    arrive("b", 0, "sense");
    await time.advance(10);
    expect(told).toEqual(["0 sense 2/2"]);
    expect(thrown(() => arrive("c", 0, "sense")).details).toMatchObject({ reason: "unknown-member" });
    arrive("a", 0, "act");
    await time.advance(10);
    expect(told).toEqual(["0 sense 2/2", "0 act 1/1"]);
    expect(barrier.state()).toMatchObject({ members: ["a"], lost: 2 });
    await time.advance(10);
    expect(errors[0]).toMatchObject({ details: { reason: "deadline", missing: ["a"] } });
    expect(barrier.state().members).toEqual(["a"]);
  });

  it("quorum: fails when too few came in time", async () => {
    const { arrive, time, errors } = world({
      members: ["a", "b", "c"],
      lossPolicy: "quorum",
      quorum: 2,
      deadlineMs: 10,
    });
    arrive("a", 0, "sense");
    await time.advance(10);
    expect(errors[0]).toMatchObject({ details: { reason: "deadline", missing: ["b", "c"], missingCount: 2 } });
  });

  it("measures nothing while it waits for members, and nothing after it was closed", async () => {
    const { barrier, time, errors } = world({ minMembers: 2, deadlineMs: 10 });
    barrier.join("a");
    await time.advance(1_000);
    expect(errors).toEqual([]);
    barrier.join("b");
    barrier.close();
    await time.advance(1_000);
    expect(errors).toEqual([]);
    expect(time.pending()).toBe(0);
  });
});

describe("Barrier: callbacks", () => {
  it("may arrive, leave and advance from within, and are told of every phase once, in order", () => {
    const phases = ["p", "q"];
    const told: string[] = [];
    let left = 20;
    const { barrier, arrive } = world(
      { members: ["a", "b"], phases, minMembers: 1 },
      {
        onPhase: (tick, phase) => {
          told.push(`${tick} ${phase}`);
          if (--left <= 0) return;
          const nextPhase = phase === 0 ? "q" : "p";
          const nextTick = phase === 0 ? tick : tick + 1;
          arrive("a", nextTick, nextPhase);
          if (left === 10) barrier.leave("b");
          else if (left > 10) arrive("b", nextTick, nextPhase);
        },
      },
    );
    arrive("a", 0, "p");
    arrive("b", 0, "p");
    expect(told).toEqual(Array.from({ length: 20 }, (_, at) => `${at >> 1} ${at % 2}`));
  });
});

describe("resolveBarrierOptions", () => {
  it.each([
    [{ phases: [] }, "phases"],
    [{ phases: ["a", "a"] }, "phases[1]"],
    [{ phases: [""] }, "phases[0]"],
    [{ phases: "sense" }, "phases"],
    [{ phases: Array.from({ length: 65 }, (_, at) => `p${at}`) }, "phases"],
    [{ members: ["a", "a"] }, "members"],
    [{ members: [""] }, "member"],
    [{ minMembers: 0 }, "minMembers"],
    [{ minMembers: 1.5 }, "minMembers"],
    [{ lossPolicy: "ignore" }, "lossPolicy"],
    [{ lossPolicy: "quorum" }, "quorum"],
    [{ lossPolicy: "quorum", quorum: 3, members: ["a", "b"] }, "quorum"],
    [{ lossPolicy: "quorum", quorum: 0, members: ["a", "b"] }, "quorum"],
    [{ quorum: 1 }, "quorum"],
    [{ deadlineMs: 0 }, "deadlineMs"],
    [{ deadlineMs: -5 }, "deadlineMs"],
    [{ phaseDeadlineMs: Number.NaN }, "phaseDeadlineMs"],
    [{ startTick: -1 }, "startTick"],
    [{ startTick: 2 ** 53 }, "startTick"],
    [{ advance: "maybe" }, "advance"],
  ])("refuses %j, naming %s", (options, name) => {
    const error = thrown(() => resolveBarrierOptions({ phases: PHASES, ...options } as BarrierOptions));
    expect(error).toMatchObject({ code: "ERR_INVALID_ARGUMENT", details: { name } });
  });
});

// A model without counters: who is there and how far each has come; everything else is asked of these sets anew.

interface ModelMember {
  first: number;
  next: number;
}

class Model {
  tick = 0;
  phase = 0;
  status: "waiting" | "running" | "failed" | "complete" = "waiting";
  readonly members = new Map<string, ModelMember>();
  readonly told: string[] = [];
  readonly phases: number;
  readonly options: ReturnType<typeof resolveBarrierOptions>;

  constructor(options: ReturnType<typeof resolveBarrierOptions>) {
    this.options = options;
    this.phases = options.phases.length;
    for (const member of options.members) this.members.set(member, { first: 0, next: 0 });
    this.settle();
  }

  inTick(): ModelMember[] {
    return [...this.members.values()].filter(({ first }) => first <= this.tick * this.phases);
  }

  settle(): void {
    for (;;) {
      const present = this.inTick();
      if (this.status === "waiting" && present.length >= this.options.minMembers) this.status = "running";
      if (this.status !== "running") return;
      const position = this.tick * this.phases + this.phase;
      const arrived = present.filter(({ next }) => next > position).length;
      if (this.options.lossPolicy === "quorum" ? arrived < this.options.quorum : arrived < present.length) return;
      this.told.push(`${this.tick} ${this.options.phases[this.phase]} ${arrived}/${present.length}`);
      this.phase++;
      if (this.phase < this.phases) continue;
      if (this.options.advance === "manual") this.status = "complete";
      else this.enter();
    }
  }

  enter(): void {
    this.tick++;
    this.phase = 0;
    this.status = "waiting";
  }

  join(name: string): void {
    const tick = this.status === "waiting" ? this.tick : this.tick + 1;
    if (!this.members.has(name)) this.members.set(name, { first: tick * this.phases, next: tick * this.phases });
    this.settle();
  }

  fail(): void {
    this.told.push(`failed ${this.tick}`);
    this.status = "failed";
    this.phase = this.phases;
  }

  depart(name: string, lost: boolean): void {
    const member = this.members.get(name);
    if (member === undefined) return;
    this.members.delete(name);
    if (this.status === "running" && member.first <= this.tick * this.phases) {
      if (lost && this.options.lossPolicy === "abort") this.fail();
      else if (this.options.lossPolicy === "quorum" && this.inTick().length < this.options.quorum) this.fail();
    }
    this.settle();
  }

  /** @returns whether it is accepted */
  arrive(name: string, tick: number, phase: number): boolean {
    const member = this.members.get(name);
    if (tick !== this.tick && tick !== this.tick + 1) return false;
    if (tick === this.tick && this.status === "failed") return false;
    const position = tick * this.phases + phase;
    if (member === undefined || position < member.first) return false;
    const floor = this.tick * this.phases + this.phase;
    if (position > Math.max(member.next, floor)) return false;
    member.next = Math.max(member.next, position + 1);
    this.settle();
    return true;
  }

  advance(from: number): boolean {
    if (from === this.tick - 1) return true;
    if (from !== this.tick || (this.status !== "complete" && this.status !== "failed")) return false;
    this.enter();
    this.settle();
    return true;
  }
}

const NAMES = ["a", "b", "c", "d", "e"];
const name = fc.constantFrom(...NAMES);
/** Relative ticks and phases, mostly near what is right. */
const command = fc.oneof(
  {
    weight: 30,
    arbitrary: fc.record({ do: fc.constant("next" as const), who: fc.nat(7), skip: fc.constantFrom(0, 0, 0, 0, 0, 1) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("arrive" as const),
      name,
      ahead: fc.constantFrom(-2, -1, 0, 1, 2),
      phase: fc.nat(2),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("join" as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("leave" as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("lose" as const), name }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("poison" as const), name }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("advance" as const), back: fc.constantFrom(0, 0, 1, 2) }) },
);
const options = fc
  .record({
    phases: fc.constantFrom(["p"], ["p", "q"], PHASES),
    members: fc.subarray(NAMES),
    minMembers: fc.integer({ min: 1, max: 3 }),
    lossPolicy: fc.constantFrom("abort" as const, "shrink" as const, "quorum" as const),
    advance: fc.constantFrom("auto" as const, "manual" as const),
  })
  .chain((fixed) =>
    fixed.lossPolicy === "quorum"
      ? fc.integer({ min: 1, max: fixed.minMembers }).map((quorum) => ({ ...fixed, quorum }))
      : fc.constant(fixed),
  );

describe("Barrier against its model", () => {
  const seed = Number(process.env["SEED"] ?? Date.now() & 0x7fffffff);

  it(`agrees after every call of random histories (SEED=${seed})`, () => {
    let phasesSeen = 0;
    let failuresSeen = 0;
    fc.assert(
      fc.property(options, fc.array(command, { minLength: 20, maxLength: 200 }), (chosen, commands) => {
        const { barrier, told } = world(chosen);
        const model = new Model(resolveBarrierOptions(chosen));
        const tried = (call: () => unknown): boolean => {
          try {
            call();
            return true;
          } catch (error) {
            if (ShardloomError.is(error) && error.code !== "ERR_INTERNAL") return false;
            throw error;
          }
        };
        for (const step of commands) {
          if (step.do === "next" || step.do === "arrive") {
            const present = [...model.members.keys()];
            const who = step.do === "arrive" ? step.name : (present[step.who % present.length] ?? "a");
            const P = model.phases;
            const floor = model.tick * P + model.phase;
            const next = Math.max(floor, model.members.get(who)?.next ?? 0) + (step.do === "next" ? step.skip : 0);
            const tick = step.do === "next" ? Math.floor(next / P) : model.tick + step.ahead;
            const phase = step.do === "next" ? next % P : step.phase % P;
            const accepted = tried(() => barrier.arrive([barrier.member(who)], tick, phase));
            expect(accepted).toBe(model.arrive(who, tick, phase));
          } else if (step.do === "join") {
            barrier.join(step.name);
            model.join(step.name);
          } else if (step.do === "leave" || step.do === "lose") {
            barrier[step.do](step.name, new Error("gone"));
            model.depart(step.name, step.do === "lose");
          } else if (step.do === "poison") {
            barrier.poison(new Error("poison"), step.name);
            if (model.status !== "failed") model.fail();
          } else {
            const from = model.tick - step.back;
            expect(tried(() => barrier.advance(from))).toBe(model.advance(from));
          }
          expect(told).toEqual(model.told);
          const state = barrier.state();
          expect(state).toMatchObject({ tick: model.tick, status: model.status });
          expect([...state.members, ...state.joining].sort()).toEqual([...model.members.keys()].sort());
          expect(state.members).toHaveLength(model.inTick().length);
        }
        phasesSeen += told.filter((line) => !line.startsWith("failed")).length;
        failuresSeen += told.length;
      }),
      { seed, numRuns: 400 },
    );
    expect(phasesSeen).toBeGreaterThan(1_000);
    expect(failuresSeen).toBeGreaterThan(100);
  });
});
