import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { AdmissionController, type AdmissionTicket, NO_SLOT } from "../../src/routing/admission.ts";
import type { AdmissionOptions } from "../../src/routing/admission-options.ts";
import { createVirtualTime, type VirtualTime } from "../../src/runtime/scheduler.ts";
import { hashString } from "../../src/topology/stable-hash.ts";
import { PRIORITY } from "../../src/wire/envelope-layout.ts";
import { goodput, simulate } from "./overload-simulation.ts";

const { BULK, NORMAL, CONTROL } = PRIORITY;
const NEVER = Number.POSITIVE_INFINITY;
const CANCELLED = new ShardloomError("ERR_ABORTED", "cancelled by the test");

/** One request and what became of it. */
interface Entered {
  readonly ticket: AdmissionTicket;
  readonly outcomes: (number | ShardloomError)[];
}

class Door {
  readonly time: VirtualTime = createVirtualTime();
  readonly admission: AdmissionController;
  /** Slots of those who were let in by `enter`, in order. */
  readonly slots: number[] = [];

  constructor(options: Partial<AdmissionOptions> = {}) {
    const { clock, scheduler } = this.time;
    this.admission = new AdmissionController({ clock, scheduler, shards: 1, ...options });
  }

  enter(
    options: { shard?: number; priority?: number; tenant?: number; bytes?: number; deadlineMs?: number } = {},
  ): Entered {
    const { shard = 0, priority = NORMAL, tenant = 0, bytes = 1, deadlineMs = NEVER } = options;
    const outcomes: (number | ShardloomError)[] = [];
    const ticket = this.admission.enter(shard, priority, tenant, bytes, this.time.clock.nowMs() + deadlineMs, {
      onAdmitted: (slot) => {
        outcomes.push(slot);
        this.slots.push(slot);
      },
      onFailure: (error) => outcomes.push(error),
    });
    return { ticket, outcomes };
  }

  /** Enters and expects to be let in at once. */
  occupy(shard = 0, tenant = 0): number {
    const slot = this.admission.tryEnter(shard, NORMAL, tenant, 1);
    expect(slot).not.toBe(NO_SLOT);
    return slot;
  }

  leave(slot: number | ShardloomError | undefined, serviceUs = 0, queueUs = 0, ok = true): void {
    if (typeof slot !== "number") throw new Error(`no slot: ${String(slot)}`);
    this.admission.leave(slot, serviceUs, queueUs, ok);
  }
}

const ONE = { maxInFlightPerShard: 1, maxQueueDelayMs: 1e9 };

function errorOf({ outcomes }: Entered): ShardloomError {
  expect(outcomes).toHaveLength(1);
  expect(outcomes[0]).toBeInstanceOf(ShardloomError);
  return outcomes[0] as ShardloomError;
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return ShardloomError.is(error) ? error.code : `not ours: ${String(error)}`;
  }
  return "no error";
}

type Step =
  | { kind: "enter"; shard: number; priority: number; tenant: number; bytes: number; deadlineMs: number }
  | { kind: "try"; shard: number; priority: number }
  | { kind: "leave"; which: number; serviceUs: number; queueUs: number; ok: boolean }
  | { kind: "cancel"; which: number }
  | { kind: "advance"; ms: number }
  | { kind: "fail"; shard: number };

const enterStep: fc.Arbitrary<Step> = fc.record({
  kind: fc.constant("enter" as const),
  shard: fc.nat({ max: 2 }),
  priority: fc.nat({ max: 2 }),
  tenant: fc.nat({ max: 3 }),
  bytes: fc.constantFrom(0, 1, 30, 200),
  deadlineMs: fc.constantFrom(-1, 0, 1, 20, 1_000, NEVER),
});

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: enterStep },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("try" as const),
      shard: fc.nat({ max: 2 }),
      priority: fc.nat({ max: 2 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("leave" as const),
      which: fc.nat(),
      serviceUs: fc.constantFrom(0, 100, 5_000),
      queueUs: fc.constantFrom(0, 1_000, 100_000),
      ok: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("cancel" as const), which: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("advance" as const), ms: fc.constantFrom(0.5, 7, 90) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("fail" as const), shard: fc.nat({ max: 2 }) }) },
);

describe("AdmissionController, whatever is done to it", () => {
  it("keeps its limits and caps, lets nothing wait that could go, and ends every request exactly once, in order", async () => {
    const limits = {
      shards: 3,
      maxInFlight: 6,
      maxInFlightPerShard: 3,
      maxQueued: 12,
      maxQueuedBytes: 300,
      maxQueueDelayMs: 60,
    };
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 30, maxLength: 120 }), async (steps) => {
        const door = new Door({ ...limits, tenantWeights: { heavy: 4 } });
        const { admission } = door;
        const tenants = [0, admission.tenant("heavy"), admission.tenant("b"), admission.tenant("c")];
        const all: { ticket: AdmissionTicket; ends: number; slot: number; serial: number }[] = [];
        const held: { slot: number; shard: number }[] = [];
        const ended = new Set<AdmissionTicket>();
        const lastAdmitted = new Map<string, number>();
        let tried = 0;
        const inFlight = (shard: number): number => held.filter((one) => one.shard === shard).length;
        const onAdmitted = (shard: number, slot: number): void => {
          held.push({ slot, shard });
          expect(inFlight(shard)).toBeLessThanOrEqual(admission.stats().limits[shard] as number);
        };
        const check = (): void => {
          const stats = admission.stats();
          const waiting = all.filter(({ ticket }) => ticket.state === "queued");
          expect(stats.inFlight).toBe(held.length);
          expect(held.length).toBeLessThanOrEqual(limits.maxInFlight);
          expect(stats.queued).toBe(waiting.length);
          expect(stats.queuedBytes).toBe(waiting.reduce((sum, { ticket }) => sum + ticket.bytes, 0));
          expect(stats.queued).toBeLessThanOrEqual(limits.maxQueued);
          expect(stats.queuedBytes).toBeLessThanOrEqual(limits.maxQueuedBytes);
          for (const { ticket, ends } of all) expect(ends).toBe(ticket.state === "queued" ? 0 : 1);
          for (const { ticket } of waiting) {
            const free = inFlight(ticket.shard) < (stats.limits[ticket.shard] as number);
            expect(free && held.length < limits.maxInFlight).toBe(false);
          }
          const states = (state: string): number => all.filter(({ ticket }) => ticket.state === state).length;
          expect(stats.admitted).toBe(states("admitted") + tried);
          expect(stats.cancelled).toBe(states("cancelled"));
          expect(stats.expired).toBe(states("expired"));
          expect(Object.values(stats.refused).reduce((a, b) => a + b)).toBe(states("refused"));
        };
        for (const one of steps) {
          if (one.kind === "enter") {
            const { shard, priority } = one;
            const tenant = tenants[one.tenant] as number;
            const record = {
              ticket: undefined as never as AdmissionTicket,
              ends: 0,
              slot: NO_SLOT,
              serial: all.length,
            };
            record.ticket = admission.enter(
              shard,
              priority,
              tenant,
              one.bytes,
              door.time.clock.nowMs() + one.deadlineMs,
              {
                onAdmitted: (slot) => {
                  record.ends++;
                  onAdmitted(shard, slot);
                  const key = `${shard}/${priority}/${tenant}`;
                  expect(record.serial).toBeGreaterThan(lastAdmitted.get(key) ?? -1);
                  lastAdmitted.set(key, record.serial);
                },
                onFailure: () => {
                  record.ends++;
                },
              },
            );
            all.push(record);
          } else if (one.kind === "try") {
            const slot = admission.tryEnter(one.shard, one.priority, 0, 0);
            if (slot !== NO_SLOT) {
              tried++;
              onAdmitted(one.shard, slot);
            }
          } else if (one.kind === "leave" && held.length > 0) {
            const [{ slot }] = held.splice(one.which % held.length, 1) as [{ slot: number; shard: number }];
            admission.leave(slot, one.serviceUs, one.queueUs, one.ok);
            expect(codeOf(() => admission.leave(slot, 0, 0, true))).toBe("ERR_INVALID_ARGUMENT");
          } else if (one.kind === "cancel" && all.length > 0) {
            const { ticket } = all[one.which % all.length] as { ticket: AdmissionTicket };
            expect(admission.cancel(ticket, CANCELLED)).toBe(ticket.state === "cancelled" && !ended.has(ticket));
            if (ticket.state === "cancelled") ended.add(ticket);
          } else if (one.kind === "advance") {
            await door.time.advance(one.ms);
          } else if (one.kind === "fail") {
            admission.failShard(one.shard, CANCELLED);
            for (const { ticket } of all) if (ticket.state === "cancelled") ended.add(ticket);
          }
          check();
        }
        // Slots come back, or time passes: nothing waits for ever.
        await door.time.advance(2 * limits.maxQueueDelayMs + 10);
        check();
        expect(all.filter(({ ticket }) => ticket.state === "queued")).toEqual([]);
      }),
      { numRuns: 250 },
    );
  });

  it("folds waiters that leave or enter again at once into one loop, however many they are", () => {
    const door = new Door({ ...ONE, maxQueued: 50_000, shards: 2, maxInFlight: 1 });
    const first = door.occupy();
    let admitted = 0;
    let again = 0;
    const waiter = {
      onAdmitted: (slot: number) => {
        admitted++;
        if (again++ < 1_000) door.admission.enter(again % 2, NORMAL, 0, 1, NEVER, waiter);
        door.admission.leave(slot, 0, 0, true);
      },
      onFailure: (error: ShardloomError) => {
        throw error;
      },
    };
    for (let at = 0; at < 30_000; at++) door.admission.enter(at % 2, NORMAL, 0, 1, NEVER, waiter);
    door.leave(first);
    expect(admitted).toBe(31_000);
    expect(door.admission.stats()).toMatchObject({ queued: 0, inFlight: 0, pressure: "open" });
  });
});

describe("admission in order", () => {
  it("lets in as many as came back, also when the limit has fallen meanwhile", () => {
    const door = new Door({ maxInFlightPerShard: 8, initialInFlightPerShard: 8, maxQueueDelayMs: 1e9 });
    const slots = Array.from({ length: 8 }, () => door.occupy());
    const waiting = Array.from({ length: 20 }, () => door.enter());
    const admitted = (): number => waiting.filter(({ ticket }) => ticket.state === "admitted").length;
    door.leave(slots.pop(), 0, 0, false);
    expect(door.admission.stats()).toMatchObject({ limits: [5], inFlight: 7 });
    for (let at = 0; at < 2; at++) door.leave(slots.pop());
    expect(admitted()).toBe(0);
    for (let at = 0; at < 5; at++) {
      door.leave(slots.pop());
      expect(door.admission.stats().inFlight).toBeLessThanOrEqual(5);
    }
    expect(admitted()).toBe(5);
  });

  it("serves another shard's queue when a waiter gives back a slot there", () => {
    const door = new Door({ ...ONE, shards: 2 });
    const [a, b] = [door.occupy(0), door.occupy(1)];
    const other = door.enter({ shard: 1 });
    door.admission.enter(0, NORMAL, 0, 1, NEVER, {
      onAdmitted: () => door.leave(b),
      onFailure: () => undefined,
    });
    door.leave(a);
    expect(other.ticket.state).toBe("admitted");
  });

  it("is immediate while there is room, also by `enter`", () => {
    const door = new Door({ initialInFlightPerShard: 2, maxInFlightPerShard: 2 });
    const one = door.enter();
    const two = door.enter();
    const three = door.enter();
    expect([one.ticket.state, two.ticket.state, three.ticket.state]).toEqual(["admitted", "admitted", "queued"]);
    expect(door.admission.tryEnter(0, CONTROL, 0, 0)).toBe(NO_SLOT);
    door.leave(one.outcomes[0]);
    expect(three.outcomes).toHaveLength(1);
    expect(door.admission.queued).toBe(0);
  });

  it("does not let a fast path overtake those who wait, nor one shard hold up another", () => {
    const door = new Door({ ...ONE, shards: 2 });
    const slot = door.occupy(0);
    const waiting = door.enter({ shard: 0 });
    expect(door.enter({ shard: 1 }).ticket.state).toBe("admitted");
    expect(waiting.ticket.state).toBe("queued");
    door.leave(slot);
    expect(waiting.ticket.state).toBe("admitted");
  });

  it("shares the limit of all shards among shards in turn", () => {
    const door = new Door({ shards: 3, maxInFlight: 2, maxQueueDelayMs: 1e9 });
    const slots = [door.occupy(0), door.occupy(0)];
    const entered = Array.from({ length: 30 }, (_, at) => ({ shard: at < 20 ? 0 : at % 2 === 0 ? 1 : 2 }));
    const waiting = entered.map(({ shard }) => ({ shard, one: door.enter({ shard }) }));
    const served = [0, 0, 0];
    for (let round = 0; round < 12; round++) {
      door.leave(slots.shift());
      const next = waiting.findIndex(({ one }) => one.outcomes.length > 0);
      const [{ shard, one }] = waiting.splice(next, 1) as [{ shard: number; one: Entered }];
      served[shard] = (served[shard] as number) + 1;
      slots.push(one.outcomes[0] as number);
    }
    expect(served).toEqual([4, 4, 4]);
  });

  it("resolves and rejects as a promise, and a signal frees the place in the queue", async () => {
    const door = new Door(ONE);
    const slot = await door.admission.admit(0, NORMAL, 0, 5, NEVER);
    const controller = new AbortController();
    const aborted = door.admission.admit(0, NORMAL, 0, 5, NEVER, controller.signal);
    const next = door.admission.admit(0, NORMAL, 0, 5, NEVER, new AbortController().signal);
    expect(door.admission.stats()).toMatchObject({ queued: 2, queuedBytes: 10 });
    controller.abort(new Error("enough"));
    await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(door.admission.stats()).toMatchObject({ queued: 1, queuedBytes: 5, cancelled: 1 });
    await expect(door.admission.admit(0, NORMAL, 0, 5, NEVER, controller.signal)).rejects.toMatchObject({
      code: "ERR_ABORTED",
    });
    door.leave(slot);
    expect(typeof (await next)).toBe("number");
    await expect(door.admission.admit(9, NORMAL, 0, 5, NEVER)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });

  it("ends what waits for a lost shard with the given error, and everything when closed", () => {
    const door = new Door({ ...ONE, shards: 2 });
    const [a, b] = [door.occupy(0), door.occupy(1)];
    const lost = new ShardloomError("ERR_WORKER_LOST", "lost");
    const [first, second] = [door.enter({ shard: 0 }), door.enter({ shard: 1 })];
    door.admission.failShard(0, lost);
    expect(errorOf(first)).toBe(lost);
    expect(second.ticket.state).toBe("queued");
    const closed = new ShardloomError("ERR_CLOSED", "closed");
    door.admission.close(closed);
    door.admission.close(CANCELLED);
    expect(errorOf(second)).toBe(closed);
    expect(errorOf(door.enter())).toBe(closed);
    door.leave(a);
    door.leave(b);
    expect(door.admission.tryEnter(0, NORMAL, 0, 0)).toBe(NO_SLOT);
    expect(door.admission.stats()).toMatchObject({ inFlight: 0, queued: 0 });
    expect(door.time.pending()).toBe(0);
  });
});

describe("refusal", () => {
  it("is at once when the wait would be longer than the deadline allows, and says when to come again", () => {
    const door = new Door({ ...ONE });
    let slot = door.occupy();
    door.leave(slot, 10_000, 0); // a request takes 10 ms
    slot = door.occupy();
    const waiting = Array.from({ length: 5 }, () => door.enter({ deadlineMs: 100 }));
    expect(waiting.map(({ ticket }) => ticket.state)).toEqual(Array(5).fill("queued"));
    const error = errorOf(door.enter({ deadlineMs: 40 }));
    expect(error.code).toBe("ERR_OVERLOADED");
    expect(error.retryable).toBe(true);
    expect(error.details).toMatchObject({
      reason: "delay",
      tenant: 0,
      priority: NORMAL,
      queued: 5,
      inFlight: 1,
      shard: 0,
    });
    // Six would come back first, 10 ms each, and some 20 ms are kept for the request itself: 40 ms too late.
    expect(error.details["retryAfterMs"]).toBeGreaterThanOrEqual(30);
    expect(error.details["retryAfterMs"]).toBeLessThanOrEqual(50);
    // A tenant of whom nothing waits has its turn after one of the other.
    expect(door.enter({ deadlineMs: 41, tenant: 7 }).ticket.state).toBe("queued");
    expect(door.enter({ deadlineMs: 500 }).ticket.state).toBe("queued");
    door.leave(slot);
  });

  it("has no stack trace, and leaves those of others alone", () => {
    const door = new Door({ ...ONE, maxQueueDelayMs: 1 });
    const limit = Error.stackTraceLimit;
    door.leave(door.occupy(), 10_000, 0);
    door.occupy();
    expect(errorOf(door.enter()).stack?.split("\n")).toHaveLength(1);
    expect(Error.stackTraceLimit).toBe(limit);
  });

  it("bounds the wait of requests without a deadline, also when a shard stalls", async () => {
    const door = new Door({ maxInFlightPerShard: 1, maxQueueDelayMs: 50 });
    door.occupy();
    const waiting = door.enter();
    await door.time.advance(80);
    expect(waiting.ticket.state).toBe("queued");
    expect(errorOf(door.enter()).details).toMatchObject({ reason: "delay" }); // nothing has come back for 80 ms
    await door.time.advance(50);
    expect(errorOf(waiting).details).toMatchObject({ reason: "delay" });
    expect(door.admission.queued).toBe(0);
  });

  it("is not for ever after a stall: a shard that is well again is believed", async () => {
    const door = new Door({ maxInFlightPerShard: 1, maxQueueDelayMs: 50 });
    const slot = door.occupy();
    const waiting = Array.from({ length: 4 }, () => door.enter());
    await door.time.advance(90);
    door.leave(slot, 90_000, 0); // the pace measured is terrible
    for (const { outcomes } of waiting) {
      await door.time.advance(1);
      const [got] = outcomes;
      if (typeof got === "number") door.leave(got, 1_000, 0);
    }
    for (let at = 0; at < 100; at++) {
      const next = door.occupy();
      await door.time.advance(10);
      door.leave(next, 1_000, 0);
    }
    door.occupy();
    expect(door.enter().ticket.state).toBe("queued");
  });

  it("of a deadline that has passed is a timeout; one that passes in the queue too", async () => {
    const door = new Door(ONE);
    expect(errorOf(door.enter({ deadlineMs: 0 })).code).toBe("ERR_TIMEOUT");
    expect(door.admission.stats()).toMatchObject({ expired: 1, inFlight: 0, admitted: 0 });
    const slot = door.occupy();
    const waiting = door.enter({ deadlineMs: 20 });
    const other = door.enter({ deadlineMs: 21, tenant: 3 });
    await door.time.advance(19);
    expect(waiting.ticket.state).toBe("queued");
    await door.time.advance(8);
    expect(errorOf(waiting).message).toMatch(/Cannot admit request to shard 0 as its deadline must be in the future/);
    expect(errorOf(other).code).toBe("ERR_TIMEOUT");
    door.leave(slot);
    expect(door.admission.stats()).toMatchObject({ expired: 3, queued: 0, inFlight: 0 });
  });

  it("does not spend a slot on what cannot be served in the time left", async () => {
    const door = new Door(ONE);
    door.leave(door.occupy(), 30_000, 0);
    const slot = door.occupy();
    const short = door.enter({ deadlineMs: 100 });
    const long = door.enter({ deadlineMs: 1_000 });
    await door.time.advance(90);
    door.leave(slot, 90_000, 0);
    expect(errorOf(short).details).toMatchObject({ reason: "delay" });
    expect(long.ticket.state).toBe("admitted");
  });
});

describe("pressure", () => {
  /** Fills the queue of one shard with requests of one tenant and priority until one is refused. */
  function fill(door: Door, priority: number, tenant = 1): Entered[] {
    const entered: Entered[] = [];
    for (;;) {
      const one = door.enter({ priority, tenant });
      if (one.ticket.state === "refused") return entered;
      entered.push(one);
    }
  }

  it("sheds bulk at 85 %, normal at 95 %, control at the cap", () => {
    const door = new Door({ ...ONE, maxQueued: 1_000 });
    door.occupy();
    expect(fill(door, BULK)).toHaveLength(850);
    expect(door.admission.stats().pressure).toBe("throttled");
    expect(fill(door, NORMAL)).toHaveLength(100);
    expect(door.admission.stats().pressure).toBe("suspended");
    expect(fill(door, CONTROL)).toHaveLength(50);
    expect(door.admission.stats().refused).toEqual({ delay: 0, pressure: 2, full: 1, "pushed-out": 0 });
  });

  it("counts bytes as well as requests, and refuses what can never fit", () => {
    const door = new Door({ ...ONE, maxQueuedBytes: 1_000 });
    door.occupy();
    expect(errorOf(door.enter({ bytes: 1_001 })).details).toMatchObject({ reason: "full" });
    expect(door.enter({ bytes: 860 }).ticket.state).toBe("queued");
    expect(errorOf(door.enter({ priority: BULK, bytes: 1 })).details).toMatchObject({ reason: "pressure" });
    expect(door.enter({ bytes: 140 }).ticket.state).toBe("queued");
    expect(door.admission.stats()).toMatchObject({ queuedBytes: 1_000, pressure: "suspended" });
  });

  it("does not flap: a load at the threshold changes the state once, and release has its own threshold", () => {
    const door = new Door({ ...ONE, maxQueued: 1_000 });
    const next = (): void => door.leave(door.slots.shift());
    door.slots.push(door.occupy());
    fill(door, BULK);
    for (let round = 0; round < 500; round++) {
      next();
      door.enter({ priority: NORMAL, tenant: 1 });
      door.enter({ priority: BULK, tenant: 1 });
    }
    expect(door.admission.stats()).toMatchObject({ pressure: "throttled", pressureChanges: 1 });
    expect(door.admission.stats().refused.pressure).toBe(501);
    while (door.admission.queued > 751) next();
    expect(door.admission.stats()).toMatchObject({ pressure: "throttled", pressureChanges: 1 });
    next();
    expect(door.admission.stats()).toMatchObject({ pressure: "open", pressureChanges: 2 });
    // Under a flood of bulk it opens and closes once for each tenth of the queue that was served, not once a request.
    for (let round = 0; round < 1_000; round++) {
      next();
      for (let offer = 0; offer < 5; offer++) door.enter({ priority: BULK, tenant: 1 });
    }
    const { pressureChanges } = door.admission.stats();
    expect(pressureChanges).toBeGreaterThan(10);
    expect(pressureChanges).toBeLessThanOrEqual(2 + 2 * (1_000 / 100) + 2);
  });

  it("is a flood's own: another tenant still gets in, pushing out the newest of the flood at the cap", () => {
    const door = new Door({ ...ONE, maxQueued: 100 });
    door.occupy();
    const flood = fill(door, NORMAL, 1);
    expect(flood).toHaveLength(95);
    const light = Array.from({ length: 20 }, () => door.enter({ tenant: 2 }));
    expect(light.map(({ ticket }) => ticket.state)).toEqual(Array(20).fill("queued"));
    const pushed = flood.filter(({ ticket }) => ticket.state === "refused");
    expect(pushed).toEqual(flood.slice(-pushed.length));
    expect(pushed.length).toBeGreaterThan(14);
    expect(errorOf(pushed[0] as Entered).details).toMatchObject({ reason: "pushed-out", tenant: 1 });
    expect(errorOf(door.enter({ tenant: 1 })).details).toMatchObject({ reason: "pressure" });
    // Up to half its share; then it is shed like others.
    expect(fill(door, NORMAL, 2).length).toBeLessThanOrEqual(5);
    expect(door.admission.stats().queued).toBeLessThanOrEqual(100);
  });

  it("makes nobody give way to one who would hold as much", () => {
    const door = new Door({ ...ONE, maxQueued: 20 });
    door.occupy();
    const waiting = Array.from({ length: 20 }, (_, at) => door.enter({ priority: CONTROL, tenant: at + 1 }));
    expect(errorOf(door.enter({ priority: CONTROL, tenant: 99 })).details).toMatchObject({ reason: "full" });
    expect(waiting.every(({ ticket }) => ticket.state === "queued")).toBe(true);
  });

  it("takes bulk before normal work from whoever must make room, and never higher work for lower", () => {
    const door = new Door({ ...ONE, maxQueued: 20 });
    door.occupy();
    const bulk = Array.from({ length: 4 }, () => door.enter({ priority: BULK, tenant: 1 }));
    const control = Array.from({ length: 16 }, () => door.enter({ priority: CONTROL, tenant: 1 }));
    expect(door.admission.queued).toBe(20);
    for (let at = 0; at < 4; at++) expect(door.enter({ tenant: 2 }).ticket.state).toBe("queued");
    expect(bulk.map(({ ticket }) => ticket.state)).toEqual(Array(4).fill("refused"));
    expect(control.every(({ ticket }) => ticket.state === "queued")).toBe(true);
    expect(errorOf(door.enter({ tenant: 2 })).details["reason"]).toMatch(/full|pressure/);
  });
});

describe("tenants", () => {
  it("have the number of their name everywhere, and never nobody's", () => {
    const door = new Door();
    const number = door.admission.tenant("acme");
    expect(number).toBe(hashString("acme"));
    expect(new Door().admission.tenant("acme")).toBe(number);
    expect(door.admission.tenant("other")).not.toBe(number);
    for (const bad of ["", 7, undefined])
      expect(codeOf(() => door.admission.tenant(bad as string))).toBe("ERR_INVALID_ARGUMENT");
  });

  it("share by weight what they wait for, by service time", () => {
    const door = new Door({ ...ONE, maxQueued: 4_000, tenantWeights: { gold: 3 } });
    const { admission } = door;
    const tenants = [admission.tenant("gold"), admission.tenant("plain"), admission.tenant("slow")];
    const serviceUs = [1_000, 1_000, 4_000];
    admission.setTenantWeight("slow", 1);
    for (let round = 0; round < 100; round++)
      for (const [at, tenant] of tenants.entries())
        admission.leave(door.occupy(0, tenant), serviceUs[at] as number, 0, true);
    const slot = door.occupy();
    const served = [0, 0, 0];
    let current = slot;
    for (let at = 0; at < 2_400; at++) {
      const which = at % 3;
      admission.enter(0, NORMAL, tenants[which] as number, 1, NEVER, {
        onAdmitted: (next) => {
          served[which] = (served[which] as number) + 1;
          current = next;
        },
        onFailure: () => undefined,
      });
    }
    for (let round = 0; round < 850; round++) admission.leave(current, 0, 0, true);
    const [gold, plain, slow] = served as [number, number, number];
    expect(gold / plain).toBeGreaterThan(2.8);
    expect(gold / plain).toBeLessThan(3.2);
    expect(plain / slow).toBeGreaterThan(3.6);
    expect(plain / slow).toBeLessThan(4.4);
  });
});

describe("a shard that returns nothing", () => {
  const TWO = { initialInFlightPerShard: 2, maxInFlightPerShard: 4, maxQueueDelayMs: 1e9 };

  it("gets more when it has taken everything: its handlers may wait for what waits here", async () => {
    const door = new Door({ ...TWO, hasTaken: () => true });
    door.occupy();
    door.occupy();
    for (let at = 0; at < 5; at++) door.enter();
    await door.time.advance(90);
    expect(door.admission.stats()).toMatchObject({ inFlight: 2, queued: 5, limits: [2] });
    await door.time.advance(20);
    expect(door.admission.stats()).toMatchObject({ inFlight: 3, queued: 4, limits: [3] });
    await door.time.advance(1_000);
    expect(door.admission.stats(), "at most what it may").toMatchObject({ inFlight: 4, queued: 3, limits: [4] });
  });

  it("gets no more while it has work that it has not taken, or while anything comes back", async () => {
    for (const hasTaken of [undefined, () => false, () => true]) {
      const door = new Door({ ...TWO, hasTaken });
      let slots = [door.occupy(), door.occupy()];
      for (let at = 0; at < 50; at++) door.enter();
      for (let turn = 0; turn < 30; turn++) {
        await door.time.advance(40);
        if (hasTaken?.() !== true) continue;
        door.leave(slots[0], 40_000, 60_000);
        slots = [slots[1] as number, door.slots.at(-1) as number];
      }
      expect(door.admission.stats().limits, String(hasTaken)).toEqual([2]);
    }
  });
});

describe("admission refuses bad input, typed, and holds nothing after it", () => {
  it("in options", () => {
    const bad: [keyof AdmissionOptions, readonly unknown[]][] = [
      ["shards", [0, -1, Number.NaN, 1.5, 65_537]],
      ["maxInFlight", [0, -1, Number.NaN, Number.POSITIVE_INFINITY, 65_537]],
      ["maxInFlightPerShard", [0, -1, Number.NaN, 1_025]],
      ["minInFlightPerShard", [0, Number.NaN, 257]],
      ["initialInFlightPerShard", [0, 1, 257]],
      ["maxQueued", [0, -5, Number.NaN, 0.5]],
      ["maxQueuedBytes", [0, -5, Number.NaN, Number.POSITIVE_INFINITY]],
      ["maxQueueDelayMs", [0, -1, Number.NaN, Number.POSITIVE_INFINITY]],
      ["targetQueueMs", [0, -1, Number.NaN, "5"]],
    ];
    for (const [name, values] of bad) {
      for (const value of values) {
        expect(() => new Door({ [name]: value }), `${name} ${String(value)}`).toThrow(
          new RegExp(`Cannot create admission as ${name} must be .*: current value is `),
        );
      }
    }
    for (const weight of [0, -1, Number.NaN, 1_001])
      expect(() => new Door({ tenantWeights: { a: weight } })).toThrow(/weight must be a number in \[0.001, 1000\]/);
    expect(() => new Door({ tenantWeights: 5 as never })).toThrow(/tenantWeights must be an object/);
    expect(() => new Door({ maxInflight: 5 } as never)).toThrow(/maxInflight must be one of the options .*maxInFlight/);
  });

  it("in requests", () => {
    const door = new Door({ shards: 2 });
    const { admission } = door;
    const waiter = { onAdmitted: () => undefined, onFailure: () => undefined };
    const bad: [number, number, number, number][] = [
      [2, 1, 0, 0],
      [-1, 1, 0, 0],
      [0.5, 1, 0, 0],
      [Number.NaN, 1, 0, 0],
      [0, 3, 0, 0],
      [0, -1, 0, 0],
      [0, Number.NaN, 0, 0],
      [0, 1, -1, 0],
      [0, 1, 2 ** 32, 0],
      [0, 1, 0.5, 0],
      [0, 1, 0, -1],
      [0, 1, 0, Number.NaN],
    ];
    for (const [shard, priority, tenant, bytes] of bad) {
      expect(codeOf(() => admission.tryEnter(shard, priority, tenant, bytes))).toBe("ERR_INVALID_ARGUMENT");
      expect(codeOf(() => admission.enter(shard, priority, tenant, bytes, NEVER, waiter))).toBe("ERR_INVALID_ARGUMENT");
    }
    expect(() => admission.tryEnter(0, 7, 0, 0)).toThrow(
      /priority must be 0 \(bulk\), 1 \(normal\) or 2 \(control\): current value is 7/,
    );
    expect(codeOf(() => admission.enter(0, NORMAL, 0, 0, Number.NaN, waiter))).toBe("ERR_INVALID_ARGUMENT");
    expect(codeOf(() => admission.failShard(2, CANCELLED))).toBe("ERR_INVALID_ARGUMENT");
    for (const slot of [NO_SLOT, 0, 5, 1 << 16, Number.NaN, 2 ** 40])
      expect(codeOf(() => admission.leave(slot, 0, 0, true))).toBe("ERR_INVALID_ARGUMENT");
    expect(admission.stats()).toMatchObject({ inFlight: 0, admitted: 0 });
  });

  it("in times of replies, without losing the slot", () => {
    const door = new Door();
    const slot = door.occupy();
    for (const bad of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => door.admission.leave(slot, bad, 0, true)).toThrow(/serviceUs must be a number of us/);
      expect(() => door.admission.leave(slot, 0, bad, true)).toThrow(/queueUs must be a number of us/);
    }
    expect(door.admission.stats().inFlight).toBe(1);
    door.leave(slot);
    expect(door.admission.stats().inFlight).toBe(0);
  });
});

describe("a client under ten times the load that two shards can serve, handlers busy for 500 us", () => {
  const SHARDS = 2;
  const CAPACITY = SHARDS * 2_000;
  const seed = Number(process.env["SEED"] ?? 1);
  const phases = [
    { durationMs: 500, rates: [0.8 * CAPACITY] },
    { durationMs: 1_000, rates: [10 * CAPACITY] },
    { durationMs: 1_500, rates: [0.5 * CAPACITY] },
  ];
  const calmFromMs = 1_500;

  it.each([
    { deadlineMs: 20, turnMs: 0 },
    { deadlineMs: 100, turnMs: 1 },
    { deadlineMs: 1_000, turnMs: 3 },
    { deadlineMs: 5_000, turnMs: 0 },
  ])(
    "keeps goodput, bounds its queue and recovers: deadline $deadlineMs ms, turns of $turnMs ms",
    ({ deadlineMs, turnMs }) => {
      const result = simulate({
        shards: SHARDS,
        phases,
        deadlineMs,
        turnMs,
        seed,
        admission: { maxQueuedBytes: 500_000 },
      });
      expect(result.samples.filter(({ outcome }) => outcome === "open")).toEqual([]);
      expect(goodput(result, 500, calmFromMs)).toBeGreaterThanOrEqual(0.9 * CAPACITY);
      expect(result.maxQueuedBytes).toBeLessThanOrEqual(500_000);
      expect(result.maxQueued).toBeGreaterThan(20);
      expect(result.maxInFlight).toBeLessThanOrEqual(SHARDS * 64);
      // Recovery: within a second, nothing is refused and nothing waits behind the overload.
      const recovered = result.samples.filter(({ arrivedMs }) => arrivedMs >= calmFromMs + 1_000);
      expect(recovered.length).toBeGreaterThan(800);
      expect(recovered.filter(({ outcome }) => outcome !== "good")).toEqual([]);
      expect(Math.max(...recovered.map(({ endedMs, arrivedMs }) => endedMs - arrivedMs))).toBeLessThan(15 + 2 * turnMs);
      // The limit found out what a shard can take: about 5 ms of its work.
      for (const limit of result.stats.limits) expect(limit).toBeLessThan(20);
    },
  );

  it("would collapse without limits: the same client, everything sent", () => {
    const result = simulate({
      shards: SHARDS,
      phases: phases.slice(0, 2),
      deadlineMs: 100,
      seed,
      admission: {
        maxInFlight: 65_536,
        maxInFlightPerShard: 65_536,
        minInFlightPerShard: 65_536,
        initialInFlightPerShard: 65_536,
      },
    });
    expect(goodput(result, 700, calmFromMs)).toBeLessThan(0.2 * CAPACITY);
  });

  it("refuses at once rather than late: what is admitted is answered, what is refused has lost no time", () => {
    const result = simulate({ shards: SHARDS, phases, deadlineMs: 100, seed });
    const of = (outcome: string): number => result.samples.filter((sample) => sample.outcome === outcome).length;
    expect(of("refused")).toBeGreaterThan(30_000);
    expect(of("late") + of("expired")).toBeLessThan(of("good") / 50);
    const waited = result.samples.filter(
      ({ outcome, endedMs, arrivedMs }) => outcome === "refused" && endedMs > arrivedMs,
    );
    expect(waited.length).toBeLessThan(of("refused") / 50);
  });

  it("gives those who do not flood what they ask for, and the flood the rest", () => {
    const rates = [10 * CAPACITY, 0.1 * CAPACITY, 0.1 * CAPACITY];
    const result = simulate({ shards: SHARDS, phases: [{ durationMs: 1_000, rates }], deadlineMs: 200, seed });
    for (const tenant of [1, 2]) {
      const own = result.samples.filter((sample) => sample.tenant === tenant);
      const good = own.filter(({ outcome }) => outcome === "good");
      expect(good.length / own.length).toBeGreaterThan(0.98);
      const waits = good.map(({ endedMs, arrivedMs }) => endedMs - arrivedMs).sort((a, b) => a - b);
      expect(waits[Math.floor(waits.length * 0.95)]).toBeLessThan(40);
    }
    expect(goodput(result, 200, 1_000, 0)).toBeGreaterThan(0.7 * CAPACITY);
  });

  it("follows a shard that becomes ten times slower, and back", () => {
    const slow = { durationMs: 1_500, rates: [2 * CAPACITY], serviceUs: 5_000 };
    const fast = { durationMs: 1_500, rates: [2 * CAPACITY] };
    const result = simulate({ shards: SHARDS, phases: [fast, slow, fast], deadlineMs: 300, seed });
    expect(goodput(result, 200, 1_500)).toBeGreaterThan(0.9 * CAPACITY);
    expect(goodput(result, 2_000, 3_000)).toBeGreaterThan(0.09 * CAPACITY);
    expect(goodput(result, 3_800, 4_500)).toBeGreaterThan(0.9 * CAPACITY);
  });
});
