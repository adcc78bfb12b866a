/** Plans: who may answer by state and by consistency, what is unavailable and why, and the invariants of every plan. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import {
  CONSISTENCIES,
  checkReadOptions,
  type Plan,
  type ReadOptions,
  STRATEGIES,
  type UnavailablePolicy,
} from "../../src/routing/plan.ts";
import { ReplicaLoads } from "../../src/routing/replica-loads.ts";
import { createSnapshot, MEMBER_STATE, type MemberState, NO_SHARD } from "../../src/topology/snapshot.ts";
import { chosenFor, createRig, lagOf, mapOf } from "./planning.ts";

const { JOINING, UP, SUSPECT, DOWN, DRAINING, REMOVED } = MEMBER_STATE;
/** Enough plans that a copy that may be chosen is. */
const MANY = 100;

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(ShardloomError.is(error) && error.code).toBe("ERR_INVALID_ARGUMENT");
    return (error as Error).message;
  }
  throw new Error("nothing was thrown");
}

/** Reasons by vshard. */
function gaps(plan: Plan): Record<number, string> {
  return Object.fromEntries(plan.unavailable.flatMap(({ vshards, reason }) => [...vshards].map((v) => [v, reason])));
}

describe("kinds", () => {
  const snapshot = mapOf(4, 16, 2);

  test("a point plan has one target with one vshard", () => {
    const { plan } = createRig();
    const { targets, unavailable } = plan({ kind: "point", snapshot, vshard: 7 });
    expect(targets).toHaveLength(1);
    expect([...(targets[0]?.vshards ?? [])]).toEqual([7]);
    expect(targets[0]?.whole).toBe(false);
    expect(unavailable).toEqual([]);
  });

  test("a batch keeps the places of its items, doubles included, grouped by target", () => {
    const { plan } = createRig();
    const { targets } = plan({
      kind: "batch",
      snapshot,
      vshards: [3, 9, 3, 14, 9, 3],
      options: { strategy: "primary-only" },
    });
    expect(
      targets.map(({ shard, vshards, items }) => ({ shard, vshards: [...vshards], items: [...(items ?? [])] })),
    ).toEqual(
      expect.arrayContaining([
        { shard: 3, vshards: [3], items: [0, 2, 5] },
        { shard: 1, vshards: [9], items: [1, 4] },
        { shard: 2, vshards: [14], items: [3] },
      ]),
    );
  });

  test("a batch keeps the places of items that nobody may answer", () => {
    const down = mapOf(4, 16, 2, { 1: DOWN, 2: DOWN });
    const { unavailable, targets } = createRig().plan({ kind: "batch", snapshot: down, vshards: [0, 1, 4, 5, 1] });
    expect(
      unavailable.map(({ vshards, reason, items }) => ({ vshards: [...vshards], reason, items: [...(items ?? [])] })),
    ).toEqual([{ vshards: [1, 5], reason: "down", items: [1, 3, 4] }]);
    expect(targets.map(({ items }) => [...(items ?? [])])).toEqual([[0, 2]]);
  });

  test("a scatter covers all vshards, or a given set without its doubles", () => {
    const { plan } = createRig();
    expect(plan({ kind: "scatter", snapshot }).targets.reduce((sum, { vshards }) => sum + vshards.length, 0)).toBe(16);
    const some = plan({ kind: "scatter", snapshot, vshards: Uint16Array.of(12, 2, 12, 0) });
    expect(some.targets.flatMap(({ vshards }) => [...vshards]).sort((a, b) => a - b)).toEqual([0, 2, 12]);
    expect(some.targets.every(({ items }) => items === undefined)).toBe(true);
  });

  test("one target per shard, and a group of vshards goes to one shard", () => {
    const { plan } = createRig();
    for (const strategy of STRATEGIES) {
      for (let round = 0; round < MANY; round++) {
        const made = plan({ kind: "scatter", snapshot, options: { strategy } });
        for (const { vshards } of snapshot.groups) {
          expect(new Set([...vshards].map((vshard) => chosenFor(made, vshard))).size).toBe(1);
        }
      }
    }
  });

  test("whole says that the target covers all that the shard holds", () => {
    const single = mapOf(4, 16, 1);
    const { plan } = createRig();
    expect(plan({ kind: "scatter", snapshot: single }).targets.every(({ whole }) => whole)).toBe(true);
    const part = plan({ kind: "scatter", snapshot: single, vshards: [0, 4, 8, 12, 1] });
    expect(new Map(part.targets.map(({ shard, whole }) => [shard, whole]))).toEqual(
      new Map([
        [0, true],
        [1, false],
      ]),
    );
    const double = plan({ kind: "scatter", snapshot, options: { strategy: "primary-only" } });
    expect(double.targets.every(({ whole }) => !whole)).toBe(true); // each also holds its neighbour's replicas
    const alone = mapOf(4, 16, 2, { 0: DOWN, 2: DOWN });
    expect(plan({ kind: "scatter", snapshot: alone }).targets.every(({ whole }) => whole)).toBe(true);
  });
});

describe("states", () => {
  /** Shards that answer for vshard 0, whose copies are shards 0, 1, 2 with these states, under any strategy. */
  const answering = (states: readonly MemberState[], policy: UnavailablePolicy = "fail"): number[] => {
    const snapshot = mapOf(3, 4, 3, Object.fromEntries(states.entries()));
    const seen = new Set<number>();
    for (const strategy of STRATEGIES) {
      if (strategy === "primary-only") continue;
      const { plan } = createRig({ localShard: 2 });
      for (let round = 0; round < MANY; round++) {
        const made = plan({ kind: "point", snapshot, vshard: 0, options: { strategy, policy } });
        seen.add(chosenFor(made, 0) ?? NO_SHARD);
      }
    }
    return [...seen].sort((a, b) => a - b);
  };

  test.each([
    [
      [UP, SUSPECT, UP],
      [0, 2],
    ],
    [[SUSPECT, UP, DRAINING], [1]],
    [[SUSPECT, DRAINING, DOWN], [1]],
    [
      [SUSPECT, DOWN, SUSPECT],
      [0, 2],
    ],
    [[DOWN, JOINING, SUSPECT], [2]],
    [[REMOVED, UP, DOWN], [1]],
    [[DOWN, JOINING, DOWN], [NO_SHARD]],
  ] as const)("copies in states %j: %j answer", (states, shards) => {
    expect(answering(states)).toEqual(shards);
  });

  test("a joining copy answers only under the policy wait, and only when nobody else does", () => {
    expect(answering([DOWN, JOINING, JOINING], "wait")).toEqual([1, 2]);
    expect(answering([DOWN, JOINING, SUSPECT], "wait")).toEqual([2]);
    expect(answering([DOWN, JOINING, JOINING], "partial")).toEqual([NO_SHARD]);
    expect(answering([DOWN, REMOVED, DOWN], "wait")).toEqual([NO_SHARD]);
  });

  test("fallbacks keep the order of states: up, draining, suspect, and never down", () => {
    const snapshot = createSnapshot({
      shards: 6,
      vshards: 8,
      replicationFactor: 6,
      states: Uint8Array.of(SUSPECT, UP, DOWN, DRAINING, UP, JOINING),
    });
    const { plan } = createRig();
    const order = (policy: UnavailablePolicy): number[] => {
      const made = plan({ kind: "point", snapshot, vshard: 0, options: { policy } });
      const tried = [chosenFor(made, 0) as number];
      for (let next = made.fallback(0, tried); next !== NO_SHARD; next = made.fallback(0, tried)) tried.push(next);
      return tried;
    };
    expect(new Set(order("fail").slice(0, 2))).toEqual(new Set([1, 4]));
    expect(order("fail").slice(2)).toEqual([3, 0]);
    expect(order("wait").slice(2)).toEqual([3, 0, 5]);
  });

  test("reasons: down, and no-copy when every shard that held one was removed", () => {
    const snapshot = mapOf(4, 4, 2, { 0: REMOVED, 1: REMOVED, 2: DOWN });
    const { plan } = createRig();
    expect(gaps(plan({ kind: "scatter", snapshot }))).toEqual({ 0: "no-copy", 1: "down" });
  });

  test("a plan when nobody may answer is the same every time, and says so", () => {
    const snapshot = mapOf(4, 16, 2, { 0: DOWN, 1: DOWN, 2: DOWN, 3: DOWN });
    const { plan } = createRig();
    for (const strategy of STRATEGIES) {
      for (const consistency of CONSISTENCIES) {
        for (let round = 0; round < 3; round++) {
          const options = { strategy, consistency, session: { lsnOf: () => 1 } };
          const made = plan({ kind: "scatter", snapshot, options });
          expect(made.targets).toEqual([]);
          expect(made.unavailable).toEqual([
            { vshards: Uint16Array.from({ length: 16 }, (_, v) => v), reason: "down" },
          ]);
          expect(made.fallback(3, [])).toBe(NO_SHARD);
        }
      }
    }
  });

  test("what one plan assigned does not weigh on the next", () => {
    const snapshot = mapOf(4, 16, 2);
    const { plan } = createRig();
    const shares = [0, 0, 0, 0];
    for (let round = 0; round < 400; round++) {
      plan({ kind: "scatter", snapshot, vshards: [1], options: { strategy: "primary-only" } }); // always shard 1
      const made = plan({ kind: "point", snapshot, vshard: 0, options: { strategy: "least-connections" } });
      const shard = chosenFor(made, 0) as number;
      shares[shard] = (shares[shard] ?? 0) + 1;
    }
    expect(shares[1]).toBeGreaterThan(120); // of 400, with shard 0 as the other copy
  });
});

describe("strong", () => {
  test.each([DOWN, REMOVED, JOINING] as const)(
    "fails with the primary in state %i, though replicas are up",
    (state) => {
      const snapshot = mapOf(3, 8, 3, { 0: state });
      const fresh = { lagMs: 0, sampledAtMs: 1_000 };
      const { plan } = createRig({ lag: lagOf({ "0:1": fresh, "0:2": fresh }) });
      for (const strategy of STRATEGIES) {
        const made = plan({ kind: "scatter", snapshot, options: { strategy, consistency: "strong" } });
        expect(gaps(made)).toEqual(
          Object.fromEntries([0, 3, 6].map((v) => [v, state === REMOVED ? "no-copy" : "down"])),
        );
        expect(made.fallback(0, [])).toBe(NO_SHARD);
        expect(made.fallback(1, [1])).toBe(NO_SHARD); // its primary was tried; replicas are nobody
      }
    },
  );

  test("reads the primary under every strategy, suspect and draining ones too", () => {
    for (const state of [UP, SUSPECT, DRAINING]) {
      const snapshot = mapOf(3, 8, 3, { 1: state });
      const { plan, loads } = createRig({ localShard: 2 });
      for (let count = 0; count < 50; count++) loads.begin(1);
      for (const strategy of STRATEGIES) {
        const made = plan({ kind: "scatter", snapshot, options: { strategy, consistency: "strong" } });
        for (let vshard = 0; vshard < 8; vshard++) expect(chosenFor(made, vshard)).toBe(snapshot.owners[vshard]);
      }
    }
  });

  test("a joining primary is waited for under the policy wait", () => {
    const snapshot = mapOf(3, 8, 3, { 0: JOINING });
    const { plan } = createRig();
    const options = { consistency: "strong", policy: "wait" } as const;
    expect(chosenFor(plan({ kind: "point", snapshot, vshard: 0, options }), 0)).toBe(0);
  });

  test("primary-only is no consistency, but never leaves the primary either", () => {
    const snapshot = mapOf(3, 8, 3, { 0: DOWN });
    const made = createRig().plan({ kind: "scatter", snapshot, options: { strategy: "primary-only" } });
    expect(gaps(made)).toEqual({ 0: "down", 3: "down", 6: "down" });
    expect(made.fallback(1, [1])).toBe(NO_SHARD);
  });
});

describe("bounded staleness", () => {
  const snapshot = mapOf(3, 4, 3); // vshards 0 and 3 on 0 1 2
  const bounded = (maxStalenessMs: number): ReadOptions => ({ consistency: "bounded-staleness", maxStalenessMs });
  const seen = (rig: ReturnType<typeof createRig>, options: ReadOptions): number[] => {
    const shards = new Set<number>();
    for (let round = 0; round < MANY; round++)
      shards.add(chosenFor(rig.plan({ kind: "point", snapshot, vshard: 0, options }), 0) ?? NO_SHARD);
    return [...shards].sort((a, b) => a - b);
  };

  test("lag and the age of its sample add up; unknown lag is not fresh", () => {
    const rig = createRig({ lag: lagOf({ "0:1": { lagMs: 30, sampledAtMs: 980 } }) }); // 20 ms old at 1000
    expect(seen(rig, bounded(50))).toEqual([0, 1]);
    expect(seen(rig, bounded(49.9))).toEqual([0]);
    rig.clock.setMs(1_000.2);
    expect(seen(rig, bounded(50))).toEqual([0]);
    expect(seen(rig, bounded(Number.POSITIVE_INFINITY))).toEqual([0, 1]); // shard 2 is unknown, not old
  });

  test("a lag that is no number is not fresh; one sampled a moment ahead of this clock is not below its lag", () => {
    const rig = createRig({
      lag: lagOf({ "0:1": { lagMs: Number.NaN, sampledAtMs: 1_000 }, "0:2": { lagMs: 10, sampledAtMs: 1_005 } }),
    });
    expect(seen(rig, bounded(10))).toEqual([0, 2]);
    expect(seen(rig, bounded(9))).toEqual([0]);
  });

  test("without a lag source, or with the bound 0, only the primary answers", () => {
    expect(seen(createRig(), bounded(1_000))).toEqual([0]);
    const lagging = createRig({ lag: lagOf({ "0:1": { lagMs: 0.1, sampledAtMs: 1_000 } }) });
    expect(seen(lagging, bounded(0))).toEqual([0]);
  });

  test("with the primary down it is stale when copies are up but too old, and down when none is up", () => {
    const down = mapOf(3, 4, 3, { 0: DOWN });
    const lag = lagOf({ "0:1": { lagMs: 60, sampledAtMs: 1_000 }, "3:1": { lagMs: 40, sampledAtMs: 1_000 } });
    const { plan } = createRig({ lag });
    const made = plan({ kind: "scatter", snapshot: down, vshards: [0, 3], options: bounded(50) });
    expect(gaps(made)).toEqual({ 0: "stale" });
    expect(chosenFor(made, 3)).toBe(1);
    const all = mapOf(3, 4, 3, { 0: DOWN, 1: DOWN, 2: DOWN });
    expect(gaps(plan({ kind: "point", snapshot: all, vshard: 0, options: bounded(50) }))).toEqual({ 0: "down" });
  });

  test("fallbacks are judged anew: a copy that aged meanwhile is no fallback, one that caught up is", () => {
    const samples = { "0:1": { lagMs: 0, sampledAtMs: 1_000 }, "0:2": { lagMs: 500, sampledAtMs: 1_000 } };
    const rig = createRig({ lag: lagOf(samples) });
    const made = rig.plan({ kind: "point", snapshot, vshard: 0, options: bounded(50) });
    expect(made.fallback(0, [0])).toBe(1);
    expect(made.fallback(0, [0, 1])).toBe(NO_SHARD);
    rig.clock.setMs(1_060);
    expect(made.fallback(0, [0])).toBe(NO_SHARD);
    samples["0:2"] = { lagMs: 5, sampledAtMs: 1_050 };
    expect(made.fallback(0, [0])).toBe(2);
  });
});

describe("session", () => {
  const snapshot = mapOf(3, 4, 3);
  const lsns = { "0:1": 7, "0:2": 6, "3:1": 0 };
  const session = { lsnOf: (vshard: number) => ({ 0: 7 })[vshard] ?? 0 };
  const options: ReadOptions = { consistency: "session", session };

  test("copies that have applied what the session depends on answer, others never", () => {
    const rig = createRig({ lag: lagOf({}, lsns) });
    const shards = new Set<number | undefined>();
    for (let round = 0; round < MANY; round++) {
      const made = rig.plan({ kind: "point", snapshot, vshard: 0, options });
      shards.add(chosenFor(made, 0));
      for (const tried of [[0], [1]]) expect([0, 1]).toContain(made.fallback(0, tried));
      expect(made.fallback(0, [0, 1])).toBe(NO_SHARD);
    }
    expect(shards).toEqual(new Set([0, 1]));
  });

  test("a vshard that the session knows nothing of may be read anywhere, known or not", () => {
    const rig = createRig({ lag: lagOf({}, lsns) });
    const shards = new Set<number | undefined>();
    for (let round = 0; round < MANY; round++)
      shards.add(chosenFor(rig.plan({ kind: "point", snapshot, vshard: 3, options }), 3));
    expect(shards).toEqual(new Set([0, 1, 2]));
  });

  test("an LSN of 1 is a demand", () => {
    const rig = createRig({ lag: lagOf({}, { "0:2": 1 }) });
    const first = { consistency: "session", session: { lsnOf: () => 1 } } as const;
    const shards = new Set<number | undefined>();
    for (let round = 0; round < MANY; round++)
      shards.add(chosenFor(rig.plan({ kind: "point", snapshot, vshard: 0, options: first }), 0));
    expect(shards).toEqual(new Set([0, 2]));
  });

  test("with the primary down: behind where no copy has it, and unknown progress has nothing", () => {
    const down = mapOf(3, 4, 3, { 0: DOWN });
    const far = { consistency: "session", session: { lsnOf: () => 8 } } as const;
    const { plan } = createRig({ lag: lagOf({}, lsns) });
    expect(gaps(plan({ kind: "scatter", snapshot: down, vshards: [0, 3], options: far }))).toEqual({
      0: "behind",
      3: "behind",
    });
    expect(chosenFor(plan({ kind: "point", snapshot: down, vshard: 0, options }), 0)).toBe(1);
  });
});

describe("split groups", () => {
  const snapshot = mapOf(3, 16, 3); // group 0: vshards 0, 3, 6, 9, 12, 15

  test("a group is split only where its vshards differ in who qualifies", () => {
    const old = { lagMs: 0, sampledAtMs: 1_000 };
    // Shard 0 is down. Of group 0 (copies 0 1 2) vshards 0 to 6 are fresh on shard 1 only, 9 to 15 on shard 2 only.
    const lag = lagOf(
      Object.fromEntries([0, 3, 6, 9, 12, 15].map((vshard) => [`${vshard}:${vshard < 9 ? 1 : 2}`, old])),
    );
    const rig = createRig({ lag });
    const down = mapOf(3, 16, 3, { 0: DOWN });
    const vshards = [0, 3, 6, 9, 12, 15];
    for (let round = 0; round < 10; round++) {
      const options = { consistency: "bounded-staleness", maxStalenessMs: 10 } as const;
      const { targets } = rig.plan({ kind: "scatter", snapshot: down, vshards, options });
      expect(new Map(targets.map((target) => [target.shard, [...target.vshards]]))).toEqual(
        new Map([
          [1, [0, 3, 6]],
          [2, [9, 12, 15]],
        ]),
      );
    }
  });

  test("it stays whole where all qualify alike", () => {
    const fresh = { lagMs: 0, sampledAtMs: 1_000 };
    const lag = { lag: () => fresh, appliedLsn: () => 9 };
    const rig = createRig({ lag });
    for (const consistency of CONSISTENCIES) {
      const options = { consistency, session: { lsnOf: () => 9 } };
      for (let round = 0; round < MANY; round++) {
        const made = rig.plan({ kind: "scatter", snapshot, options });
        for (const { vshards } of snapshot.groups)
          expect(new Set([...vshards].map((vshard) => chosenFor(made, vshard))).size).toBe(1);
      }
    }
  });
});

describe("validation", () => {
  const snapshot = mapOf(4, 16, 2);

  test("defaults", () => {
    expect(checkReadOptions()).toEqual({
      strategy: "power-of-two",
      consistency: "eventual",
      maxStalenessMs: 5_000,
      session: undefined,
      policy: "fail",
    });
  });

  test.each([
    [{ strategy: "fastest" }, /strategy must be one of "round-robin", .*: current value is "fastest"/],
    [{ strategy: "toString" }, /strategy must be one of/],
    [{ consistency: "linearizable" }, /consistency must be one of "strong", .*: current value is "linearizable"/],
    [{ consistency: null }, /consistency must be one of .*: current value is null/],
    [{ policy: "retry" }, /policy must be one of "fail", "partial", "wait": current value is "retry"/],
    [{ maxStalenessMs: -1 }, /maxStalenessMs must be a number of at least 0: current value is -1/],
    [{ maxStalenessMs: Number.NaN }, /maxStalenessMs must be .*: current value is NaN/],
    [{ maxStalenessMs: "5" }, /maxStalenessMs must be .*: current value is "5"/],
    [{ consistency: "session" }, /session must be a Session .*: current value is undefined/],
    [{ consistency: "session", session: {} }, /session must be a Session .*: current value is an object/],
  ])("%j is refused", (options, message) => {
    expect(refusal(() => checkReadOptions(options as ReadOptions))).toMatch(message);
  });

  test("no vshard, or one that the topology does not have, is refused, and the next plan is sound", () => {
    const { plan } = createRig();
    expect(refusal(() => plan({ kind: "scatter", snapshot, vshards: [] }))).toMatch(
      /vshards.length must be at least 1/,
    );
    expect(refusal(() => plan({ kind: "batch", snapshot, vshards: [] }))).toMatch(/vshards.length must be at least 1/);
    for (const vshard of [16, -1, 0.5, Number.NaN, "3" as unknown as number]) {
      expect(refusal(() => plan({ kind: "point", snapshot, vshard }))).toMatch(/vshard must be .*\[0, 16\)/);
      expect(refusal(() => plan({ kind: "batch", snapshot, vshards: [3, vshard] }))).toMatch(/vshards must be/);
      plan({ kind: "scatter", snapshot });
    }
  });

  test("a lag source that throws leaves the planner sound", () => {
    let fails = true;
    const lag = {
      lag: (vshard: number) => {
        if (fails && vshard === 5) throw new Error("lost");
        return { lagMs: 0, sampledAtMs: 1_000 };
      },
      appliedLsn: () => -1,
    };
    const { plan } = createRig({ lag });
    const options = { consistency: "bounded-staleness" } as const;
    for (let round = 0; round < 20; round++) expect(() => plan({ kind: "scatter", snapshot, options })).toThrow("lost");
    fails = false;
    plan({ kind: "scatter", snapshot, options });
  });

  test("loads without room for all shards are refused", () => {
    const { plan } = createRig({ loads: new ReplicaLoads(3) });
    expect(refusal(() => plan({ kind: "point", snapshot, vshard: 0 }))).toMatch(/loads.shards must be at least 4/);
  });

  test("a vshard that is not in the topology has no fallback", () => {
    expect(createRig().plan({ kind: "scatter", snapshot }).fallback(99, [])).toBe(NO_SHARD);
  });
});

describe("every plan", () => {
  /** A map with any copies and states, what is known of its copies, and a request. */
  const worlds = fc
    .record({
      shards: fc.integer({ min: 1, max: 8 }),
      bits: fc.integer({ min: 3, max: 6 }),
      replicationFactor: fc.integer({ min: 1, max: 4 }),
      seed: fc.integer(),
      strategy: fc.constantFrom(...STRATEGIES),
      consistency: fc.constantFrom(...CONSISTENCIES),
      policy: fc.constantFrom("fail" as const, "partial" as const, "wait" as const),
      kind: fc.constantFrom("point" as const, "batch" as const, "scatter" as const, "all" as const),
      orders: fc.array(fc.integer({ min: 0, max: 1_000 }), { minLength: 256, maxLength: 256 }),
      states: fc.array(fc.constantFrom(UP, UP, UP, ...Object.values(MEMBER_STATE)), { minLength: 8, maxLength: 8 }),
      lags: fc.array(fc.option(fc.integer({ min: 0, max: 100 })), { minLength: 16, maxLength: 64 }),
      picks: fc.array(fc.nat(), { minLength: 1, maxLength: 100 }),
    })
    .map((world) => {
      const vshards = 1 << world.bits;
      const copies = new Uint16Array(vshards * world.replicationFactor).fill(NO_SHARD);
      for (let vshard = 0; vshard < vshards; vshard++) {
        const order = Array.from({ length: world.shards }, (_, shard) => shard);
        order.sort((a, b) => (world.orders[(vshard * 5 + a) % 256] ?? 0) - (world.orders[(vshard * 5 + b) % 256] ?? 0));
        const held = 1 + ((world.orders[vshard] ?? 0) % world.replicationFactor);
        copies.set(order.slice(0, held), vshard * world.replicationFactor);
      }
      const { shards, replicationFactor } = world;
      const states = Uint8Array.from(world.states.slice(0, shards));
      return { ...world, vshards, snapshot: createSnapshot({ shards, vshards, replicationFactor, copies, states }) };
    });

  test("has each vshard in one place, on a copy that may answer, and leaves out none that could be answered", () => {
    fc.assert(
      fc.property(worlds, ({ snapshot, vshards, kind, picks, lags, strategy, consistency, policy, seed }) => {
        const known = (vshard: number, shard: number): number | undefined =>
          lags[(vshard * 7 + shard) % lags.length] ?? undefined;
        const lag = {
          lag: (vshard: number, shard: number) => {
            const lagMs = known(vshard, shard);
            return lagMs === undefined ? undefined : { lagMs, sampledAtMs: 990 };
          },
          appliedLsn: (vshard: number, shard: number) => known(vshard, shard) ?? -1,
        };
        const session = { lsnOf: (vshard: number) => (vshard % 3) * 25 };
        const rig = createRig({ lag, seed });
        const options = { strategy, consistency, policy, session, maxStalenessMs: 50 };
        const wanted = picks.map((pick) => pick % vshards);
        const ask = { snapshot, options };
        const plan =
          kind === "point"
            ? rig.plan({ ...ask, kind, vshard: wanted[0] as number })
            : kind === "all"
              ? rig.plan({ ...ask, kind: "scatter" })
              : rig.plan({ ...ask, kind, vshards: wanted });

        /** The rules said once more, by vshard and copy, without groups. */
        const rankOf = (vshard: number, shard: number): number => {
          const isPrimary = snapshot.owners[vshard] === shard;
          if (!isPrimary && (consistency === "strong" || strategy === "primary-only")) return 0;
          const has = known(vshard, shard);
          const least = session.lsnOf(vshard);
          if (!isPrimary && consistency === "session" && least > 0 && (has ?? -1) < least) return 0;
          if (!isPrimary && consistency === "bounded-staleness" && !(has !== undefined && has + 10 <= 50)) return 0;
          const order: readonly number[] =
            policy === "wait" ? [JOINING, SUSPECT, DRAINING, UP] : [SUSPECT, DRAINING, UP];
          return 1 + order.indexOf(snapshot.states[shard] as number);
        };
        const ranksOf = (vshard: number): Map<number, number> => {
          const copies = snapshot.groups[snapshot.groupOf[vshard] as number]?.copies ?? [];
          return new Map([...copies].map((shard) => [shard, rankOf(vshard, shard)]));
        };
        for (const { shard, vshards: mine } of plan.targets) {
          for (const vshard of mine) {
            const ranks = ranksOf(vshard);
            expect(ranks.get(shard)).toBe(Math.max(...ranks.values()));
            expect(ranks.get(shard)).toBeGreaterThan(0);
            const tried = [shard];
            for (let next = plan.fallback(vshard, tried); next !== NO_SHARD; next = plan.fallback(vshard, tried)) {
              expect(tried).not.toContain(next);
              expect(ranks.get(next)).toBeLessThanOrEqual(ranks.get(tried.at(-1) as number) as number);
              tried.push(next);
            }
            expect(new Set(tried)).toEqual(new Set([...ranks].flatMap(([copy, rank]) => (rank > 0 ? [copy] : []))));
          }
        }
        for (const { vshards: missing } of plan.unavailable)
          for (const vshard of missing) expect(Math.max(...ranksOf(vshard).values())).toBe(0);
      }),
      { numRuns: 500 },
    );
  });
});
