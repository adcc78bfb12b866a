import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type PlacementMember, type PlacementPlan, planPlacement } from "../../src/topology/placement.ts";
import {
  createSnapshot,
  MEMBER_STATE,
  type MemberState,
  NO_SHARD,
  type TopologySnapshot,
} from "../../src/topology/snapshot.ts";
import { hashBytes } from "../../src/topology/stable-hash.ts";

const { JOINING, UP, SUSPECT, DOWN, DRAINING, REMOVED } = MEMBER_STATE;
const SHARDS = 64;
const GOLDEN = { first: [4, 2, 3, 0, 1, 2, 3, 1, 2, 3, 4, 2], hash: 1_651_554_139 };

function members(count: number, of: (shard: number) => Partial<PlacementMember> = () => ({})): PlacementMember[] {
  return Array.from({ length: count }, (_, shard) => ({ shard, ...of(shard) }));
}

function snapshotOf({ copies }: PlacementPlan, vshards: number): TopologySnapshot {
  const shards = Math.min(vshards, SHARDS);
  return createSnapshot({ shards, vshards, replicationFactor: copies.length / vshards, copies });
}

/** Copies of one vshard, without the padding. */
function copiesOf({ copies }: { copies: Uint16Array }, vshard: number, vshards: number): number[] {
  const factor = copies.length / vshards;
  return [...copies.subarray(vshard * factor, (vshard + 1) * factor)].filter((shard) => shard !== NO_SHARD);
}

function loads(plan: PlacementPlan, vshards: number, take = Number.POSITIVE_INFINITY): Map<number, number> {
  const counts = new Map<number, number>();
  for (let vshard = 0; vshard < vshards; vshard++) {
    for (const shard of copiesOf(plan, vshard, vshards).slice(0, take)) counts.set(shard, (counts.get(shard) ?? 0) + 1);
  }
  return counts;
}

function spread(counts: ReadonlyMap<number, number>, shards: readonly PlacementMember[]): number {
  const all = shards.map(({ shard }) => counts.get(shard) ?? 0);
  return Math.max(...all) - Math.min(...all);
}

function mayHold({ state = UP }: PlacementMember): boolean {
  return state === UP || state === JOINING || state === SUSPECT;
}

/** What every placement keeps, whatever it is made from. */
function checkPlan(plan: PlacementPlan, list: readonly PlacementMember[], factor: number, vshards: number): void {
  const holders = list.filter(mayHold);
  const allowed = new Map(holders.map((member) => [member.shard, member]));
  const sizes = new Map<number, number>();
  for (const { zone = 0 } of holders) sizes.set(zone, (sizes.get(zone) ?? 0) + 1);
  expect(plan.copies.length).toBe(factor * vshards);
  for (let vshard = 0; vshard < vshards; vshard++) {
    const copies = copiesOf(plan, vshard, vshards);
    if (new Set(copies).size !== Math.min(factor, holders.length)) expect(copies, `vshard ${vshard}`).toBe("distinct");
    const zones = new Map([...sizes.keys()].map((zone) => [zone, 0]));
    for (const shard of copies) {
      const member = allowed.get(shard);
      if (member === undefined) expect(shard).toBe("a member that may hold copies");
      zones.set(member?.zone ?? 0, (zones.get(member?.zone ?? 0) ?? 0) + 1);
    }
    const most = Math.max(...zones.values());
    for (const [zone, count] of zones) {
      if (most - count > 1 && count < (sizes.get(zone) ?? 0)) expect([...zones], `vshard ${vshard}`).toBe("even");
    }
  }
  // Members that differ in nothing but their number hold the same, give or take one.
  const held = loads(plan, vshards);
  for (const { zone = 0, weight = 1 } of holders) {
    const kind = holders.filter((other) => (other.zone ?? 0) === zone && (other.weight ?? 1) === weight);
    expect(spread(held, kind)).toBeLessThanOrEqual(1);
  }
}

/** The moves, applied to what was, give what is planned. */
function checkMoves(plan: PlacementPlan, previous: TopologySnapshot): void {
  const { vshards } = previous;
  for (let vshard = 0; vshard < vshards; vshard++) {
    const held = new Set(copiesOf(previous, vshard, vshards));
    let primary = previous.owners[vshard] as number;
    for (const move of plan.moves.filter((candidate) => candidate.vshard === vshard)) {
      if (move.reason === "promotion") {
        expect([held.has(move.to), move.role, move.from]).toEqual([true, "primary", previous.owners[vshard]]);
        primary = move.to;
        continue;
      }
      if (move.from !== NO_SHARD) expect(held.delete(move.from)).toBe(true);
      if (move.to !== NO_SHARD) expect(held.has(move.to)).toBe(false);
      if (move.to !== NO_SHARD) held.add(move.to);
      if (move.to !== NO_SHARD && move.role === "primary") primary = move.to;
    }
    const copies = copiesOf(plan, vshard, vshards);
    expect([...held].sort((a, b) => a - b)).toEqual(copies.toSorted((a, b) => a - b));
    expect(primary).toBe(copies[0]);
  }
}

function dataMoves(plan: PlacementPlan): readonly PlacementPlan["moves"][number][] {
  return plan.moves.filter(({ reason }) => reason !== "promotion");
}

const anyMember = fc.record({
  weight: fc.oneof(
    fc.constant(1),
    fc.constantFrom(0.25, 0.5, 2, 3, 10),
    fc.double({ min: 0.01, max: 100, noNaN: true }),
  ),
  zone: fc.integer({ min: 0, max: 4 }),
  state: fc.constantFrom<MemberState>(UP, UP, UP, JOINING, SUSPECT, DOWN, DRAINING, REMOVED),
});
const anyMembers = fc
  .array(anyMember, { minLength: 1, maxLength: 20 })
  .map((list): PlacementMember[] => list.map((member, shard) => ({ shard, ...member })))
  .filter((list) => list.some(mayHold));
const anyVshards = fc.constantFrom(64, 128, 256);
const anyFactor = fc.integer({ min: 1, max: 6 });

describe("placement: shares", () => {
  it("gives each of two shards 32 of 64 vshards, and each a copy of all", () => {
    const single = planPlacement(undefined, members(2), 1, 64);
    expect([...loads(single, 64)].sort(([a], [b]) => a - b)).toEqual([
      [0, 32],
      [1, 32],
    ]);
    const both = planPlacement(undefined, members(2), 2, 64);
    expect([...loads(both, 64)].sort(([a], [b]) => a - b)).toEqual([
      [0, 64],
      [1, 64],
    ]);
    expect([...loads(both, 64, 1)].sort(([a], [b]) => a - b)).toEqual([
      [0, 32],
      [1, 32],
    ]);
  });

  it("keeps copies and primaries even to one, for any number of equal members (property)", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), anyFactor, anyVshards, (count, factor, vshards) => {
        const list = members(count);
        const plan = planPlacement(undefined, list, factor, vshards);
        checkPlan(plan, list, factor, vshards);
        expect(spread(loads(plan, vshards), list)).toBeLessThanOrEqual(1);
        expect(spread(loads(plan, vshards, 1), list)).toBeLessThanOrEqual(1);
        expect(plan.moves).toEqual([]);
      }),
      { numRuns: 80 },
    );
  });

  it("keeps equal zones even, too (property)", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 6 }),
        anyFactor,
        anyVshards,
        (zones, each, factor, vshards) => {
          const list = members(zones * each, (shard) => ({ zone: shard % zones }));
          const plan = planPlacement(undefined, list, factor, vshards);
          checkPlan(plan, list, factor, vshards);
          expect(spread(loads(plan, vshards), list)).toBeLessThanOrEqual(1);
          expect(spread(loads(plan, vshards, 1), list)).toBeLessThanOrEqual(1);
        },
      ),
      { numRuns: 80 },
    );
  });

  it("gives members their weight's share, and who could hold more than all a copy of all (property)", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(0.5, 1, 2, 3, 7), { minLength: 1, maxLength: 16 }),
        anyFactor,
        anyVshards,
        (weights, factor, vshards) => {
          const list = members(weights.length, (shard) => ({ weight: weights[shard] as number }));
          const plan = planPlacement(undefined, list, factor, vshards);
          checkPlan(plan, list, factor, vshards);
          const fair = cutShares(weights, vshards * Math.min(factor, weights.length), vshards);
          const held = loads(plan, vshards);
          for (const [shard, share] of fair.entries()) expect(Math.abs((held.get(shard) ?? 0) - share)).toBeLessThan(1);
          const total = weights.reduce((sum, weight) => sum + weight, 0);
          const primaries = loads(plan, vshards, 1);
          if (fair.some((share) => share === vshards)) return;
          for (const [shard, weight] of weights.entries()) {
            expect(Math.abs((primaries.get(shard) ?? 0) - (vshards * weight) / total)).toBeLessThan(1);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it("leaves no primary on a member above its share that a copy of its own could take (property)", () => {
    fc.assert(
      fc.property(anyMembers, anyFactor, anyVshards, (list, factor, vshards) => {
        const plan = planPlacement(undefined, list, factor, vshards);
        const total = list.filter(mayHold).reduce((sum, { weight = 1 }) => sum + weight, 0);
        const share = new Map(list.map(({ shard, weight = 1 }) => [shard, (vshards * weight) / total]));
        const led = loads(plan, vshards, 1);
        for (let vshard = 0; vshard < vshards; vshard++) {
          const [primary = NO_SHARD, ...others] = copiesOf(plan, vshard, vshards);
          if ((led.get(primary) ?? 0) < (share.get(primary) ?? 0) + 1 - 1e-6) continue;
          for (const other of others) expect(led.get(other) ?? 0).toBeGreaterThan((share.get(other) ?? 0) - 1);
        }
      }),
      { numRuns: 100 },
    );
  });

  it("has golden placements, which no later release may change without a reason", () => {
    const plan = planPlacement(
      undefined,
      members(5, (shard) => ({ zone: shard % 3, weight: 1 + (shard % 2) })),
      3,
      64,
    );
    expect([...plan.copies.subarray(0, 12)]).toEqual(GOLDEN.first);
    expect(hashBytes(new Uint8Array(plan.copies.buffer), 0, plan.copies.byteLength)).toBe(GOLDEN.hash);
  });
});

/** Shares by weight of which none exceeds a limit: cuts the largest, shares the rest out again. An independent second opinion. */
function cutShares(weights: readonly number[], total: number, limit: number): number[] {
  const shares = weights.map(() => 0);
  const open = new Set(weights.keys());
  let rest = total;
  for (;;) {
    const sum = [...open].reduce((all, index) => all + (weights[index] as number), 0);
    const cut = [...open].filter((index) => (rest * (weights[index] as number)) / sum >= limit - 1e-9);
    if (cut.length === 0) {
      for (const index of open) shares[index] = (rest * (weights[index] as number)) / sum;
      return shares;
    }
    for (const index of cut) {
      shares[index] = limit;
      rest -= limit;
      open.delete(index);
    }
  }
}

describe("placement: any members", () => {
  it("keeps distinct members, zones, even loads and the padding (property)", () => {
    fc.assert(
      fc.property(anyMembers, anyFactor, anyVshards, (list, factor, vshards) => {
        checkPlan(planPlacement(undefined, list, factor, vshards), list, factor, vshards);
      }),
      { numRuns: 150 },
    );
  });

  it("does not depend on the order of the members (property)", () => {
    fc.assert(
      fc.property(
        anyMembers.chain((list) => fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length }))),
        anyFactor,
        ([list, shuffled], factor) => {
          const one = planPlacement(undefined, list, factor, 64);
          expect(planPlacement(undefined, shuffled, factor, 64)).toEqual(one);
        },
      ),
      { numRuns: 50 },
    );
  });

  it("gets from any placement to any members by the moves that it lists (property)", () => {
    fc.assert(
      fc.property(anyMembers, anyFactor, anyMembers, anyFactor, anyVshards, (before, factor, after, next, vshards) => {
        const previous = snapshotOf(planPlacement(undefined, before, factor, vshards), vshards);
        const plan = planPlacement(previous, after, next, vshards);
        checkPlan(plan, after, next, vshards);
        checkMoves(plan, previous);
        const states = new Map(after.map(({ shard, state = UP }) => [shard, state]));
        for (const { from, to, source, reason, vshard } of plan.moves) {
          const living = copiesOf(previous, vshard, vshards).filter((shard) => {
            const state = states.get(shard) ?? REMOVED;
            return state !== DOWN && state !== REMOVED;
          });
          expect(living.length === 0 ? [NO_SHARD] : living).toContain(source);
          const gone = { [DOWN]: "down", [DRAINING]: "draining", [REMOVED]: "removed" } as Record<number, string>;
          const why = from === NO_SHARD ? "factor" : gone[states.get(from) ?? REMOVED];
          if (reason !== "promotion" && why !== undefined) expect(reason).toBe(why);
          expect(to === NO_SHARD || [UP, JOINING, SUSPECT].includes((states.get(to) ?? REMOVED) as 0)).toBe(true);
        }
      }),
      { numRuns: 80 },
    );
  });

  it("moves nothing when nothing changed (property)", () => {
    fc.assert(
      fc.property(anyMembers, anyFactor, anyVshards, (list, factor, vshards) => {
        const first = planPlacement(undefined, list, factor, vshards);
        const again = planPlacement(snapshotOf(first, vshards), list, factor, vshards);
        expect(again.moves).toEqual([]);
        expect(again.copies).toEqual(first.copies);
      }),
      { numRuns: 150 },
    );
  });
});

describe("placement: movement", () => {
  it("moves to a newcomer its share and nothing else (property)", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 24 }), anyFactor, anyVshards, (count, factor, vshards) => {
        fc.pre(factor <= count);
        const previous = snapshotOf(planPlacement(undefined, members(count), factor, vshards), vshards);
        const plan = planPlacement(previous, members(count + 1), factor, vshards);
        const moves = dataMoves(plan);
        const share = (vshards * factor) / (count + 1);
        expect(moves.every(({ to, reason }) => to === count && reason === "balance")).toBe(true);
        expect(moves.length).toBeGreaterThan(share - 1);
        expect(moves.length).toBeLessThan(share + 1);
        // Roles follow data: at most as many promotions as the newcomer has primaries.
        expect(plan.moves.length - moves.length).toBeLessThanOrEqual(Math.ceil(vshards / (count + 1)));
      }),
      { numRuns: 100 },
    );
  });

  it("moves of a member that goes its copies, and hardly another one (property)", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 24 }),
        fc.integer({ min: 1, max: 4 }),
        anyVshards,
        fc.nat(),
        fc.constantFrom<MemberState>(DOWN, DRAINING, REMOVED),
        (count, factor, vshards, pick, state) => {
          fc.pre(factor < count);
          const first = planPlacement(undefined, members(count), factor, vshards);
          const gone = pick % count;
          const after = members(count, (shard) => (shard === gone ? { state } : {}));
          const moves = dataMoves(planPlacement(snapshotOf(first, vshards), after, factor, vshards));
          const held = loads(first, vshards).get(gone) ?? 0;
          expect(moves.filter(({ from }) => from === gone)).toHaveLength(held);
          // A vshard whose last candidates all have it already needs a detour of one more move.
          expect(moves.length).toBeLessThanOrEqual(held + Math.ceil(held / 4));
          for (const { from, source, reason } of moves) {
            if (from !== gone) continue;
            expect(source === gone).toBe(state === DRAINING);
            expect(reason).toBe(state === DOWN ? "down" : state === DRAINING ? "draining" : "removed");
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it("says that data is lost when the only copy was on a member that is down", () => {
    const previous = snapshotOf(planPlacement(undefined, members(4), 1, 64), 64);
    const { moves } = planPlacement(
      previous,
      members(4, (shard) => (shard === 2 ? { state: DOWN } : {})),
      1,
      64,
    );
    expect(moves).toHaveLength(16);
    expect(moves.every(({ from, source, role }) => from === 2 && source === NO_SHARD && role === "primary")).toBe(true);
  });

  it("moves a copy out of a zone that has two when another zone comes", () => {
    const one = members(2, () => ({ zone: 0 }));
    const previous = snapshotOf(planPlacement(undefined, one, 2, 64), 64);
    const plan = planPlacement(previous, [...one, { shard: 2, zone: 1 }], 2, 64);
    expect(dataMoves(plan)).toHaveLength(64);
    expect(dataMoves(plan).every(({ to, reason }) => to === 2 && reason === "zone")).toBe(true);
  });

  it("adds and drops copies when the factor changes, and moves hardly any", () => {
    const list = members(8);
    const two = snapshotOf(planPlacement(undefined, list, 2, 256), 256);
    const grown = planPlacement(two, list, 3, 256);
    expect(dataMoves(grown).filter(({ from, reason }) => from === NO_SHARD && reason === "factor")).toHaveLength(256);
    const shrunk = planPlacement(snapshotOf(grown, 256), list, 2, 256);
    expect(dataMoves(shrunk).filter(({ to, reason }) => to === NO_SHARD && reason === "factor")).toHaveLength(256);
    // Few copies take a detour of one more move.
    expect(dataMoves(grown).length).toBeLessThan(256 + 16);
    expect(dataMoves(shrunk).length).toBeLessThan(256 + 16);
  });

  it("has fewer copies while there are fewer members, and the rest when they come", () => {
    const alone = planPlacement(undefined, members(1), 3, 64);
    expect(copiesOf(alone, 5, 64)).toEqual([0]);
    const plan = planPlacement(snapshotOf(alone, 64), members(3), 3, 64);
    expect(dataMoves(plan).filter(({ source, from }) => source === 0 && from === NO_SHARD)).toHaveLength(128);
    expect(spread(loads(plan, 64, 1), members(3))).toBeLessThanOrEqual(1);
  });

  it("keeps the copies of who is joining or suspect", () => {
    const previous = snapshotOf(planPlacement(undefined, members(6), 2, 64), 64);
    const after = members(6, (shard) => ({ state: shard === 1 ? SUSPECT : shard === 2 ? JOINING : UP }));
    expect(planPlacement(previous, after, 2, 64).moves).toEqual([]);
  });
});

describe("placement: bad input", () => {
  it("fails typed when nobody may hold copies", () => {
    const empty = expect.objectContaining({ code: "ERR_EMPTY_RING" });
    expect(() => planPlacement(undefined, [], 1, 64)).toThrow(empty);
    expect(() =>
      planPlacement(
        undefined,
        members(3, () => ({ state: DRAINING })),
        1,
        64,
      ),
    ).toThrow(empty);
  });

  it.each([
    [members(2, () => ({ weight: 0 })), 1, 64, /weight of shard 0 must be a number above 0 .*: current value is 0/],
    [members(2, (shard) => ({ weight: shard === 1 ? Number.NaN : 1 })), 1, 64, /weight of shard 1 .* NaN/],
    [members(2, () => ({ weight: -3 })), 1, 64, /current value is -3/],
    [[{ shard: 1 }, { shard: 1 }], 1, 64, /shard of a member must be an integer below 256, each once/],
    [[{ shard: 256 }], 1, 64, /shard of a member/],
    [members(2, () => ({ zone: -1 })), 1, 64, /zone of shard 0/],
    [members(2, () => ({ state: 9 as MemberState })), 1, 64, /state of shard 0/],
    [members(2), 0, 64, /replicationFactor must be an integer between 1 and 16/],
    [members(2), 17, 64, /replicationFactor/],
    [members(2), 1, 63, /vshards must be a power of two/],
  ])("%# is refused with the value and the rule", (list, factor, vshards, message) => {
    expect(() => planPlacement(undefined, list, factor, vshards)).toThrow(message);
  });

  it("refuses another number of vshards than before", () => {
    const previous = createSnapshot({ shards: 2, vshards: 64 });
    expect(() => planPlacement(previous, members(2), 1, 128)).toThrow(/vshards must be 64 as before/);
  });
});

describe("placement: speed", () => {
  it("places the largest cluster in less than the time that a person waits", () => {
    const list = members(256, (shard) => ({ zone: shard % 8 }));
    const before = process.cpuUsage();
    const plan = planPlacement(undefined, list, 3, 32_768);
    const { user, system } = process.cpuUsage(before);
    const tookMs = (user + system) / 1000;
    process.stdout.write(`placement of 32768 vshards on 256 shards: ${tookMs.toFixed(0)} ms of processor time\n`);
    expect(spread(loads(plan, 32_768), list)).toBe(0);
    expect(tookMs).toBeLessThan(4000); // about 500 where nobody else uses the core's caches
  });
});
