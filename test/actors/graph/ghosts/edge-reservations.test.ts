/** Reservations of edge ends, and edges by where they come from: against plain models, in any order of messages. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NO_RESERVATION, type ReservationEvent, transition } from "../../../../actors/graph/ghosts/edge-reservation.ts";
import { EdgeReservations, type EdgeReservationsOptions } from "../../../../actors/graph/ghosts/edge-reservations.ts";
import { type IncomingEdge, IncomingEdges } from "../../../../actors/graph/ghosts/incoming-edges.ts";
import { createManualClock, type ManualClock } from "../../../../src/runtime/clock.ts";
import { same } from "../same.ts";

const TTL_MS = 10;

interface Scene {
  readonly clock: ManualClock;
  readonly vertices: Set<unknown>;
  readonly edges: IncomingEdges;
  readonly removed: { readonly key: unknown; readonly edges: readonly IncomingEdge[] }[];
  readonly reservations: EdgeReservations;
}

function scene(vertices: readonly unknown[], options: Partial<EdgeReservationsOptions> = {}): Scene {
  const clock = createManualClock();
  const there = new Set(vertices);
  const edges = new IncomingEdges();
  const removed: Scene["removed"] = [];
  const reservations = new EdgeReservations({
    clock,
    edges,
    exists: (key) => there.has(key),
    onRemove: (key, gone) => {
      there.delete(key);
      removed.push({ key, edges: gone });
    },
    ttlMs: TTL_MS,
    rememberMs: 100,
    ...options,
  });
  return { clock, vertices: there, edges, removed, reservations };
}

const edge = (token: number, more: object = {}) => ({ shard: 1, epoch: 1, token, source: "s", target: "t", ...more });

describe("a reservation", () => {
  test("has one end, whatever comes after", () => {
    const event: fc.Arbitrary<ReservationEvent> = fc.oneof(
      fc.record({ kind: fc.constant("reserve" as const), expiresMs: fc.nat(20) }),
      fc.record({ kind: fc.constantFrom("commit" as const, "release" as const, "time" as const) }),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(event, fc.nat(3)), { maxLength: 12 }), (events) => {
        let state = NO_RESERVATION;
        let nowMs = 0;
        let end: string | undefined;
        let expiresMs: number | undefined;
        for (const [one, passedMs] of events) {
          nowMs += passedMs;
          const before = state;
          state = transition(state, one, nowMs);
          if (end !== undefined) expect(state.kind).toBe(end);
          if (before.kind === "none" && state.kind === "reserved") expiresMs = state.expiresMs;
          if (before.kind === "reserved" && state.kind === "reserved") expect(state.expiresMs).toBe(expiresMs);
          if (before.kind !== "committed" && state.kind === "committed") {
            expect(before.kind).toBe("reserved");
            expect(nowMs).toBeLessThan(expiresMs as number);
          }
          if (state.kind !== "none" && state.kind !== "reserved") end = state.kind;
        }
      }),
    );
  });
});

describe("reservations", () => {
  test("hold a vertex between the check and the edge", () => {
    const { reservations, vertices, removed, edges } = scene(["t"]);
    expect(reservations.reserve(edge(1))).toBe("reserved");
    expect(reservations.remove("t")).toBe(false);
    expect(vertices.has("t")).toBe(true);
    expect(reservations.reserve(edge(2))).toBe("leaving");
    // The edge was made, and went with its vertex: its source is told so.
    expect(reservations.commit(edge(1))).toBe("gone");
    expect(removed).toEqual([{ key: "t", edges: [{ sourceShard: 1, source: "s", target: "t", count: 1 }] }]);
    expect(edges.size).toBe(0);
    expect(reservations.reserve(edge(3))).toBe("missing");
    expect(reservations.remove("t")).toBe(false);
  });

  test("hold it no longer than their time, and a commit that comes later makes no edge", () => {
    const { reservations, clock, removed, edges } = scene(["t"]);
    reservations.reserve(edge(1));
    reservations.remove("t");
    clock.setMs(TTL_MS - 1);
    reservations.expire();
    expect(removed).toEqual([]);
    clock.setMs(TTL_MS);
    reservations.expire();
    expect(removed).toEqual([{ key: "t", edges: [] }]);
    expect(reservations.commit(edge(1))).toBe("expired");
    expect(edges.size).toBe(0);
  });

  test("take messages twice, and in the wrong order", () => {
    const { reservations, edges } = scene(["t"]);
    expect([reservations.reserve(edge(1)), reservations.reserve(edge(1))]).toEqual(["reserved", "reserved"]);
    expect(reservations.live("t")).toBe(1);
    expect([reservations.commit(edge(1)), reservations.commit(edge(1))]).toEqual(["committed", "committed"]);
    expect(reservations.release(edge(1))).toBe("committed");
    expect(reservations.reserve(edge(1))).toBe("committed");
    expect(edges.size).toBe(1);
    expect(reservations.release(edge(2))).toBe("released");
    expect(reservations.reserve(edge(2))).toBe("released");
    expect(reservations.commit(edge(3))).toBe("expired");
    expect(reservations.live("t")).toBe(0);
  });

  test("of a shard that is gone, or lives again, are released; its edges go when it is removed", () => {
    const { reservations, edges } = scene(["t", "u"]);
    reservations.reserve(edge(1));
    reservations.commit(edge(1));
    reservations.reserve(edge(2));
    reservations.reserve(edge(2, { shard: 2, target: "u" }));
    reservations.commit(edge(2, { shard: 2, target: "u" }));
    expect(reservations.reserve(edge(1, { epoch: 2 }))).toBe("reserved");
    expect(reservations.live("t")).toBe(1);
    expect(reservations.commit(edge(2))).toBe("expired");
    expect(() => reservations.reserve(edge(9))).toThrow(/epoch of shard 1 must be a present one: current value is 1/);
    expect(reservations.removeShard(1)).toEqual([{ sourceShard: 1, source: "s", target: "t", count: 1 }]);
    expect(reservations.live("t")).toBe(0);
    expect(edges.count("u")).toBe(1);
    expect(reservations.commit(edge(1, { epoch: 2 }))).toBe("expired");
    expect(() => reservations.reserve(edge(3, { epoch: 2 }))).toThrow(/present one/);
    expect(reservations.reserve(edge(1, { epoch: 3 }))).toBe("reserved");
  });

  test("are bounded, and forgotten after a while", () => {
    const { reservations, clock } = scene(["t"], { capacity: 3 });
    for (const token of [1, 2, 3]) reservations.reserve(edge(token));
    expect(() => reservations.reserve(edge(4))).toThrow(/fewer than 3 can be remembered: current value is 3/);
    clock.setMs(99);
    expect(() => reservations.reserve(edge(4))).toThrow(/ERR|fewer than 3/);
    clock.setMs(100);
    expect(reservations.reserve(edge(4))).toBe("reserved");
    expect(reservations.size).toBe(1);
  });

  test.each([{ ttlMs: 0 }, { ttlMs: 10, rememberMs: 9 }])("%j is refused", (options) => {
    expect(() => scene([], options)).toThrow(/Cannot reserve edges as/);
  });

  test("do what a list would do, in any order of calls", () => {
    const id = fc.record({ shard: fc.nat(1), epoch: fc.nat(1), token: fc.nat(4) });
    const call = fc.oneof(
      { weight: 5, arbitrary: fc.record({ kind: fc.constant("reserve" as const), id, target: fc.nat(2) }) },
      { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom("commit" as const, "release" as const), id }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("remove" as const), target: fc.nat(2) }) },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.constantFrom(1, 5, 9, 10, 101) }),
      },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("removeShard" as const), shard: fc.nat(1) }) },
    );
    interface Held {
      readonly name: string;
      readonly shard: number;
      readonly target: number | undefined;
      readonly madeMs: number;
      state: string;
    }
    fc.assert(
      fc.property(fc.array(call, { maxLength: 50, size: "max" }), (calls) => {
        const { reservations, clock, vertices, edges } = scene([0, 1, 2]);
        const there = new Set<number>([0, 1, 2]);
        const leaving = new Set<number>();
        const epochs = new Map<number, number>();
        let held: Held[] = [];
        let made: { shard: number; target: number }[] = [];
        const settleRemovals = (): void => {
          for (const target of [...leaving]) {
            if (held.some((one) => one.target === target && one.state === "reserved")) continue;
            leaving.delete(target);
            there.delete(target);
            made = made.filter((one) => one.target !== target);
            for (const one of held) if (one.target === target && one.state === "committed") one.state = "gone";
          }
        };
        const tick = (): void => {
          for (const one of held) {
            if (one.state === "reserved" && clock.nowMs() >= one.madeMs + TTL_MS) one.state = "expired";
          }
          held = held.filter((one) => clock.nowMs() < one.madeMs + 100);
          settleRemovals();
        };
        const releaseShard = (shard: number): void => {
          for (const one of held) if (one.shard === shard && one.state === "reserved") one.state = "released";
        };
        /** Whether the message is of the present epoch. */
        const isPresent = (shard: number, epoch: number): boolean => {
          const known = epochs.get(shard);
          if (known !== undefined && known >= epoch) return known === epoch;
          releaseShard(shard);
          epochs.set(shard, epoch);
          settleRemovals();
          return true;
        };
        for (const one of calls) {
          if (one.kind === "wait") clock.setMs(clock.nowMs() + one.ms);
          tick();
          if (one.kind === "reserve") {
            const { shard, epoch, token } = one.id;
            const name = `${shard} ${epoch} ${token}`;
            const ask = (): string => reservations.reserve({ ...one.id, source: "s", target: one.target });
            if (isPresent(shard, epoch)) {
              const known = held.find((other) => other.name === name);
              const expected =
                known?.state ??
                (there.has(one.target) ? (leaving.has(one.target) ? "leaving" : "reserved") : "missing");
              if (known === undefined && expected === "reserved") {
                held.push({ name, shard, target: one.target, madeMs: clock.nowMs(), state: "reserved" });
              }
              same(ask(), expected);
            } else expect(ask).toThrow(/present one/);
          } else if (one.kind === "commit" || one.kind === "release") {
            const { shard, epoch, token } = one.id;
            const name = `${shard} ${epoch} ${token}`;
            let expected = one.kind === "commit" ? "expired" : "released";
            if (isPresent(shard, epoch)) {
              const known = held.find((other) => other.name === name);
              if (known === undefined && one.kind === "release") {
                held.push({ name, shard, target: undefined, madeMs: clock.nowMs(), state: "released" });
              }
              if (known?.state === "reserved") {
                known.state = one.kind === "commit" ? "committed" : "released";
                if (one.kind === "commit") made.push({ shard, target: known.target as number });
              }
              settleRemovals();
              expected = known?.state ?? expected;
            }
            same(reservations[one.kind](one.id), expected);
            settleRemovals();
          } else if (one.kind === "remove") {
            const isHeld = held.some((other) => other.target === one.target && other.state === "reserved");
            same(reservations.remove(one.target), there.has(one.target) && !isHeld);
            if (there.has(one.target)) leaving.add(one.target);
            settleRemovals();
          } else if (one.kind === "removeShard") {
            const expected = made.filter(({ shard }) => shard === one.shard).length;
            const got = reservations.removeShard(one.shard).reduce((sum, { count }) => sum + count, 0);
            same(got, expected);
            made = made.filter(({ shard }) => shard !== one.shard);
            releaseShard(one.shard);
            // It comes back under an epoch that no message of this test has.
            if (epochs.has(one.shard)) epochs.set(one.shard, Math.floor(epochs.get(one.shard) as number) + 0.5);
            settleRemovals();
          } else reservations.expire();
          same(vertices, there);
          same(edges.size, made.length);
          for (const target of [0, 1, 2]) {
            same(edges.count(target), made.filter((other) => other.target === target).length);
            const live = held.filter((other) => other.target === target && other.state === "reserved").length;
            same(reservations.live(target), live);
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("two shards", () => {
  test("agree on every edge when all is told, however late, often and out of order requests come", () => {
    interface Half {
      readonly target: number;
      state: "asked" | "written" | "kept" | "none";
    }
    type News =
      | { readonly token: number; readonly answer: string; readonly of: "reserve" | "end" }
      | { readonly removed: number };
    const action = fc.tuple(
      fc.constantFrom("edge", "deliver", "deliver", "deliver", "news", "news", "news", "remove", "wait", "revive"),
      fc.nat(99),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 80, size: "max" }), (actions) => {
        const news: News[] = []; // owner → source, in order
        const { reservations, clock, vertices, edges } = scene([0, 1, 2], {
          onRemove: (key) => {
            vertices.delete(key);
            news.push({ removed: key as number });
          },
        });
        const halves = new Map<number, Half>();
        const requests: { readonly kind: "reserve" | "commit" | "release"; readonly token: number }[] = []; // in any order, any of them twice
        const deliver = ({ kind, token }: (typeof requests)[number]): void => {
          const request = edge(token, { target: halves.get(token)?.target });
          const answer = reservations[kind](request);
          news.push({ token, answer, of: kind === "reserve" ? "reserve" : "end" });
        };
        const hear = (one: News | undefined): void => {
          if (one === undefined) return;
          if ("removed" in one) {
            for (const half of halves.values())
              if (half.target === one.removed && half.state === "kept") half.state = "none";
            return;
          }
          const half = halves.get(one.token) as Half;
          if (one.of === "reserve" && half.state === "asked") {
            half.state = one.answer === "reserved" ? "written" : "none";
            requests.push({ kind: one.answer === "reserved" ? "commit" : "release", token: one.token });
          } else if (one.of === "end" && half.state === "written")
            half.state = one.answer === "committed" ? "kept" : "none";
        };
        for (const [kind, n] of actions) {
          if (kind === "edge") {
            halves.set(halves.size, { target: n % 3, state: "asked" });
            requests.push({ kind: "reserve", token: halves.size - 1 });
          } else if (kind === "deliver" && requests.length > 0) {
            const at = n % requests.length;
            deliver(requests[at] as (typeof requests)[number]);
            if (n % 4 !== 0) requests.splice(at, 1);
          } else if (kind === "news") hear(news.shift());
          else if (kind === "remove") reservations.remove(n % 3);
          else if (kind === "revive") vertices.add(n % 3);
          else if (kind === "wait") clock.setMs(clock.nowMs() + (n % 15));
        }
        // Every request and all news arrive in the end; what was written and not answered is committed again.
        for (let round = 0; round < 3; round++) {
          for (const request of requests.splice(0)) deliver(request);
          while (news.length > 0) hear(news.shift());
        }
        for (const [token, { state }] of halves) {
          if (state === "written") deliver({ kind: "commit", token });
          if (state === "asked") deliver({ kind: "reserve", token });
        }
        while (news.length > 0) hear(news.shift());
        const states = [...halves.values()];
        for (let target = 0; target <= 2; target++) {
          const kept = states.filter((half) => half.target === target && half.state === "kept").length;
          same(edges.count(target), kept);
          if (kept > 0) same(vertices.has(target), true);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("incoming edges", () => {
  test("are a multiset by source shard and target", () => {
    const pair = { shard: fc.nat(2), source: fc.nat(2), target: fc.nat(2) };
    const call = fc.oneof(
      { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom("add" as const, "remove" as const), ...pair }) },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constantFrom("removeShard" as const, "removeTarget" as const), n: fc.nat(2) }),
      },
    );
    const flat = (removed: readonly IncomingEdge[]): string[] =>
      removed
        .flatMap(({ sourceShard, source, target, count }) =>
          Array<string>(count).fill(`${sourceShard} ${source} ${target}`),
        )
        .sort();
    fc.assert(
      fc.property(fc.array(call, { maxLength: 60, size: "max" }), (calls) => {
        const edges = new IncomingEdges();
        let model: string[] = [];
        const take = (matches: (edge: string[]) => boolean): string[] => {
          const taken = model.filter((one) => matches(one.split(" ")));
          model = model.filter((one) => !matches(one.split(" ")));
          return taken.sort();
        };
        for (const one of calls) {
          if ("n" in one) {
            if (one.kind === "removeShard") {
              same(
                flat(edges.removeShard(one.n)),
                take(([shard]) => shard === String(one.n)),
              );
            } else
              same(
                flat(edges.removeTarget(one.n)),
                take(([, , target]) => target === String(one.n)),
              );
          } else if (one.kind === "add") {
            edges.add(one.shard, one.source, one.target);
            model.push(`${one.shard} ${one.source} ${one.target}`);
          } else {
            const at = model.indexOf(`${one.shard} ${one.source} ${one.target}`);
            same(edges.remove(one.shard, one.source, one.target), at >= 0);
            if (at >= 0) model.splice(at, 1);
          }
          same(edges.size, model.length);
          for (let target = 0; target <= 2; target++) {
            same(edges.count(target), model.filter((text) => text.endsWith(` ${target}`)).length);
          }
        }
        for (let shard = 0; shard <= 2; shard++) edges.removeShard(shard);
        expect(edges).toEqual(new IncomingEdges());
      }),
      { numRuns: 200 },
    );
  });
});
