/** Strategies: uniform over copies that are alike, aware of load and of the running plan, and fallbacks that spread. */
import { describe, expect, test } from "vitest";
import { checkReadOptions, type Plan, type Strategy } from "../../src/routing/plan.ts";
import { ReplicaLoads } from "../../src/routing/replica-loads.ts";
import {
  createSnapshot,
  MEMBER_STATE,
  NO_SHARD,
  type TopologySnapshot,
  withStates,
} from "../../src/topology/snapshot.ts";
import { uniformityRatio } from "./chi-square.ts";
import { chosenFor, createRig, lagOf, mapOf, type Rig, SEED } from "./planning.ts";

/** Shards and copies; each number of shards is a multiple of the copies, which is what pins a counter that all share. */
const SHAPES: readonly (readonly [number, number])[] = [
  [4, 2],
  [6, 3],
  [8, 2],
  [9, 3],
];
const SPREADING: readonly Strategy[] = ["round-robin", "least-connections", "random", "prefer-local", "power-of-two"];
const VSHARDS = 64;
const ROUNDS = 200;

/** How often each copy of each replica group was chosen. Shape: `[groups][copies]`. */
class Tally {
  readonly counts: number[][];
  readonly #snapshot: TopologySnapshot;

  constructor(snapshot: TopologySnapshot) {
    this.#snapshot = snapshot;
    this.counts = snapshot.groups.map(({ copies }) => [...copies].fill(0));
  }

  /** One choice for a group's vshard. */
  add(vshard: number, shard: number | undefined): void {
    const group = this.#snapshot.groupOf[vshard] as number;
    const copy = this.#snapshot.groups[group]?.copies.indexOf(shard ?? NO_SHARD) ?? -1;
    if (copy < 0) throw new Error(`shard ${shard} holds no copy of vshard ${vshard}`);
    (this.counts[group] as number[])[copy] = (this.counts[group]?.[copy] ?? 0) + 1;
  }

  /** The choices of a plan, one per group. */
  addPlan(plan: Plan): void {
    for (const { vshards } of this.#snapshot.groups) {
      const vshard = vshards[0] as number;
      this.add(vshard, chosenFor(plan, vshard));
    }
  }

  worstRatio(): number {
    return Math.max(...this.counts.map(uniformityRatio));
  }
}

function point({ planner }: Rig, snapshot: TopologySnapshot, vshard: number, strategy: Strategy): Plan {
  return planner.plan({ kind: "point", snapshot, vshard, rules: checkReadOptions({ strategy }) });
}

function scatter({ planner }: Rig, snapshot: TopologySnapshot, strategy: Strategy): Plan {
  return planner.plan({ kind: "scatter", snapshot, rules: checkReadOptions({ strategy }) });
}

describe.each(SHAPES)("%i shards, %i copies", (shards, copies) => {
  const snapshot = mapOf(shards, VSHARDS, copies);

  test.each(SPREADING)("%s: point plans in the order of the vshards are uniform over the copies", (strategy) => {
    const rig = createRig();
    const tally = new Tally(snapshot);
    for (let round = 0; round < ROUNDS; round++)
      for (let vshard = 0; vshard < VSHARDS; vshard++)
        tally.add(vshard, point(rig, snapshot, vshard, strategy).targets[0]?.shard);
    expect(tally.worstRatio()).toBeLessThan(1);
  });

  test.each(SPREADING)("%s: scatters are uniform over the copies of every group", (strategy) => {
    const rig = createRig();
    const tally = new Tally(snapshot);
    for (let round = 0; round < 10 * ROUNDS; round++) tally.addPlan(scatter(rig, snapshot, strategy));
    expect(tally.worstRatio()).toBeLessThan(1);
  });

  test("the test can fail: one counter for all groups pins vshards to copies", () => {
    const tally = new Tally(snapshot);
    let counter = 0;
    for (let round = 0; round < ROUNDS; round++) {
      for (const { vshards, copies: held } of snapshot.groups)
        tally.add(vshards[0] as number, held[counter++ % held.length]);
    }
    expect(tally.worstRatio()).toBeGreaterThan(1);
  });

  test("primary-only never leaves the primary", () => {
    const rig = createRig();
    for (let vshard = 0; vshard < VSHARDS; vshard++) {
      expect(point(rig, snapshot, vshard, "primary-only").targets[0]?.shard).toBe(snapshot.owners[vshard]);
    }
  });

  test.each(SPREADING)("%s: whoever was chosen, the first fallback is uniform over the other copies", (strategy) => {
    if (copies < 3) return; // with two copies there is one fallback; see below
    const rig = createRig();
    const counts = new Map<string, number[]>();
    for (let round = 0; round < 4 * ROUNDS; round++) {
      const plan = scatter(rig, snapshot, strategy);
      for (const { vshards, copies: held, index } of snapshot.groups) {
        const vshard = vshards[0] as number;
        const chosen = chosenFor(plan, vshard) as number;
        const others = [...held].filter((shard) => shard !== chosen);
        const key = `${index}:${chosen}`;
        const count = counts.get(key) ?? others.map(() => 0);
        const at = others.indexOf(plan.fallback(vshard, [chosen]));
        count[at] = (count[at] as number) + 1;
        counts.set(key, count);
      }
    }
    expect(counts.size).toBe(snapshot.groups.length * copies);
    for (const [key, count] of counts) expect(uniformityRatio(count), `${key}: ${count}`).toBeLessThan(1);
  });

  test("fallbacks name every other copy once, then nobody", () => {
    const rig = createRig();
    const plan = scatter(rig, snapshot, "power-of-two");
    for (let vshard = 0; vshard < VSHARDS; vshard++) {
      const tried = [chosenFor(plan, vshard) as number];
      for (let next = plan.fallback(vshard, tried); next !== NO_SHARD; next = plan.fallback(vshard, tried))
        tried.push(next);
      const held = snapshot.groups[snapshot.groupOf[vshard] as number]?.copies ?? [];
      expect([...tried].sort((a, b) => a - b)).toEqual([...held].sort((a, b) => a - b));
    }
  });
});

test("the load of a failing shard spreads over all shards that have copies with it", () => {
  const snapshot = mapOf(6, VSHARDS, 3);
  const rig = createRig();
  const taken = new Map<number, number>();
  let lost = 0;
  for (let round = 0; round < 1_000; round++) {
    const plan = scatter(rig, snapshot, "round-robin");
    const failing = plan.targets.find(({ shard }) => shard === 2);
    for (const vshard of failing?.vshards ?? []) {
      const next = plan.fallback(vshard, [2]);
      taken.set(next, (taken.get(next) ?? 0) + 1);
      lost++;
    }
  }
  // Groups (0 1 2), (1 2 3), (2 3 4): a rotation alone would give all of it to shards 3, 3 and 0.
  expect([...taken.keys()].sort((a, b) => a - b)).toEqual([0, 1, 3, 4]);
  for (const [shard, count] of taken) expect(count / lost).toBeCloseTo(shard === 0 || shard === 4 ? 1 / 6 : 1 / 3, 1);
});

test("the groups of one plan do not fall back in step", () => {
  const snapshot = mapOf(9, VSHARDS, 3);
  const rig = createRig();
  const pairs = [0, 0, 0, 0];
  for (let round = 0; round < 2_000; round++) {
    const plan = scatter(rig, snapshot, "random");
    const [first, second] = [plan.fallback(0, [0]) - 1, plan.fallback(4, [4]) - 5]; // copies 0 1 2 and 4 5 6
    pairs[2 * first + second] = (pairs[2 * first + second] ?? 0) + 1;
  }
  expect(uniformityRatio(pairs)).toBeLessThan(1);
});

test("vshards of one group fall back to the same shard, so that a retry makes few envelopes", () => {
  const snapshot = mapOf(6, VSHARDS, 3);
  const plan = scatter(createRig(), snapshot, "random");
  for (const { vshards } of snapshot.groups) {
    const chosen = chosenFor(plan, vshards[0] as number) as number;
    expect(new Set([...vshards].map((vshard) => plan.fallback(vshard, [chosen]))).size).toBe(1);
  }
});

describe("round-robin", () => {
  const turnsOf = (rig: Rig, snapshot: TopologySnapshot, vshard: number, count: number): number[] =>
    Array.from({ length: count }, () => point(rig, snapshot, vshard, "round-robin").targets[0]?.shard as number);

  test("takes turns exactly, whatever other groups do in between", () => {
    const snapshot = mapOf(9, VSHARDS, 3);
    const rig = createRig();
    const first = turnsOf(rig, snapshot, 0, 1)[0] as number;
    const seen = [first];
    for (let turn = 1; turn < 9; turn++) {
      for (let others = 0; others < turn; others++) point(rig, snapshot, 1 + others, "round-robin");
      seen.push(...turnsOf(rig, snapshot, 0, 1));
    }
    expect(seen).toEqual(Array.from({ length: 9 }, (_, turn) => (first + turn) % 3));
  });

  test("goes on when the map changes, for every list of copies that is still there", () => {
    const rig = createRig();
    const before = mapOf(4, 16, 2);
    const [first] = turnsOf(rig, before, 0, 1);
    const other = mapOf(6, 16, 2, {}, 2); // copies of vshard 0 are (0, 1) in both, in another group order or not
    expect(other.groups.length).not.toBe(before.groups.length);
    const [second] = turnsOf(rig, other, 0, 1);
    const [third] = turnsOf(rig, withStates(other, other.states), 0, 1);
    expect([first, second, third]).toEqual([first, 1 - (first as number), first]);
  });

  test("groups begin anywhere: the first scatter of a fresh planner is spread", () => {
    const snapshot = mapOf(4, 16, 2);
    const counts = [0, 0];
    for (let seed = 0; seed < 2_000; seed++) {
      const shard = point(createRig({ seed: SEED + seed, loads: new ReplicaLoads(4) }), snapshot, 5, "round-robin");
      const copy = snapshot.groups[snapshot.groupOf[5] as number]?.copies.indexOf(shard.targets[0]?.shard as number);
      counts[copy as number] = (counts[copy as number] ?? 0) + 1;
    }
    expect(uniformityRatio(counts)).toBeLessThan(1);
  });

  test("a copy that is down leaves its turns to the others evenly", () => {
    const snapshot = mapOf(6, VSHARDS, 3, { 1: MEMBER_STATE.DOWN });
    const seen = turnsOf(createRig(), snapshot, 0, 100); // copies 0, 1, 2
    expect(seen.filter((shard) => shard === 0)).toHaveLength(50);
    expect(seen.filter((shard) => shard === 2)).toHaveLength(50);
  });

  test("two parts of a split group do not take each other's turns", () => {
    const snapshot = mapOf(3, 4, 3); // vshards 0 and 3 have copies 0, 1, 2
    const fresh = { lagMs: 0, sampledAtMs: 1_000 };
    const rig = createRig({ lag: lagOf({ "0:1": fresh, "3:2": fresh }) });
    const rules = checkReadOptions({ strategy: "round-robin", consistency: "bounded-staleness" });
    const seen = { 0: [0, 0, 0], 3: [0, 0, 0] };
    for (let round = 0; round < 100; round++) {
      const plan = rig.planner.plan({ kind: "scatter", snapshot, rules, vshards: [0, 3] });
      for (const vshard of [0, 3] as const) {
        const shard = chosenFor(plan, vshard) as number;
        seen[vshard][shard] = (seen[vshard][shard] ?? 0) + 1;
      }
    }
    expect(seen).toEqual({ 0: [50, 50, 0], 3: [50, 0, 50] });
  });
});

describe("load", () => {
  const snapshot = mapOf(16, 64, 3);

  test("least-connections takes the copy with the fewest requests in flight, and draws among equals", () => {
    const rig = createRig();
    for (let count = 0; count < 3; count++) rig.loads.begin(0);
    rig.loads.begin(1);
    rig.loads.begin(2);
    const seen = new Set(
      Array.from({ length: 50 }, () => point(rig, snapshot, 0, "least-connections").targets[0]?.shard),
    );
    expect(seen).toEqual(new Set([1, 2]));
    rig.loads.begin(1);
    expect(point(rig, snapshot, 0, "least-connections").targets[0]?.shard).toBe(2);
  });

  test("power-of-two never takes the worst of three, by requests in flight or by latency", () => {
    const byFlight = createRig();
    byFlight.loads.begin(1);
    const byLatency = createRig();
    for (let sample = 0; sample < 64; sample++)
      for (const shard of [0, 1, 2]) {
        byLatency.loads.begin(shard);
        byLatency.loads.end(shard, shard === 1 ? 300 : 100, true);
      }
    for (const rig of [byFlight, byLatency]) {
      const seen = Array.from({ length: 200 }, () => point(rig, snapshot, 0, "power-of-two").targets[0]?.shard);
      expect(new Set(seen)).toEqual(new Set([0, 2]));
    }
  });

  test.each(["least-connections", "power-of-two"] as const)(
    "%s: one scatter does not pile up on the idle shard",
    (strategy) => {
      // 64 groups of their own, 12 of them with a copy on shard 0, which alone is idle. Without counting what the plan has
      // assigned it would get all 12 of them by least connections, and 8 on average by power of two.
      const own = ownGroups();
      const rig = createRig();
      for (let shard = 1; shard < 16; shard++) for (let count = 0; count < 2; count++) rig.loads.begin(shard);
      let onIdle = 0;
      let most = 0;
      for (let round = 0; round < 200; round++) {
        const plan = scatter(rig, own, strategy);
        onIdle += plan.targets.find(({ shard }) => shard === 0)?.vshards.length ?? 0;
        most = Math.max(most, ...plan.targets.map(({ vshards }) => vshards.length));
      }
      expect(onIdle / 200).toBeGreaterThan(4); // idle, so more than its share of 4
      expect(onIdle / 200).toBeLessThan(7);
      expect(most).toBeLessThanOrEqual(10);
    },
  );

  test.each([
    ["least-connections", 6],
    ["power-of-two", 8],
  ] as const)("%s: a scatter over idle shards is even", (strategy, limit) => {
    const own = ownGroups();
    const rig = createRig();
    const most = Array.from({ length: 200 }, () =>
      Math.max(...scatter(rig, own, strategy).targets.map((t) => t.vshards.length)),
    );
    expect(Math.max(...most)).toBeLessThanOrEqual(limit);
    // The same limits are no achievement of chance: random choices exceed them nearly always.
    const random = Array.from({ length: 200 }, () =>
      Math.max(...scatter(rig, own, "random").targets.map((t) => t.vshards.length)),
    );
    expect(Math.max(...random)).toBeGreaterThan(limit);
  });
});

/** 64 vshards over 16 shards, no two with the same copies. */
function ownGroups(): TopologySnapshot {
  const copies = new Uint16Array(64 * 3);
  for (let vshard = 0; vshard < 64; vshard++) {
    const round = Math.floor(vshard / 16);
    copies.set([vshard % 16, (vshard + 1 + round) % 16, (vshard + 6 + 2 * round) % 16], vshard * 3);
  }
  const snapshot = createSnapshot({ shards: 16, vshards: 64, replicationFactor: 3, copies });
  expect(snapshot.groups).toHaveLength(64);
  return snapshot;
}

describe("prefer-local", () => {
  const snapshot = mapOf(4, 16, 2); // vshard v on v mod 4 and the next

  test("takes the local shard where it holds a copy", () => {
    const rig = createRig({ localShard: 1 });
    const plan = scatter(rig, snapshot, "prefer-local");
    for (let vshard = 0; vshard < 16; vshard++) {
      if (vshard % 4 <= 1) expect(chosenFor(plan, vshard)).toBe(1);
      else expect(chosenFor(plan, vshard)).not.toBe(1);
    }
    expect(plan.targets.find(({ shard }) => shard === 1)?.whole).toBe(true);
  });

  test("leaves it when it is overloaded: more than twice the mean, and 4 on top", () => {
    const rig = createRig({ localShard: 1 });
    const chosen = (): number | undefined => point(rig, snapshot, 0, "prefer-local").targets[0]?.shard;
    // 4 shards are up and only the local one is busy, so the mean is a quarter of it: 8 <= 2 × 2 + 4, but 9 > 2 × 2.25 + 4.
    for (let count = 0; count < 8; count++) {
      expect(chosen()).toBe(1);
      rig.loads.begin(1);
    }
    expect(chosen()).toBe(1); // with 8
    rig.loads.begin(1);
    expect(chosen()).toBe(0);
    for (let count = 0; count < 8; count++) rig.loads.begin(3); // the others are busy too
    expect(chosen()).toBe(1);
  });

  test("does not take it while it is suspect and another copy is up", () => {
    const suspect = mapOf(4, 16, 2, { 1: MEMBER_STATE.SUSPECT });
    const rig = createRig({ localShard: 1 });
    for (let round = 0; round < 20; round++) expect(point(rig, suspect, 0, "prefer-local").targets[0]?.shard).toBe(0);
  });
});

test("the same seed makes the same plans, another seed others", () => {
  const snapshot = mapOf(9, VSHARDS, 3);
  const shardsOf = (seed: number): number[] => {
    const rig = createRig({ seed });
    return Array.from({ length: 100 }, () => point(rig, snapshot, 4, "random").targets[0]?.shard as number);
  };
  expect(shardsOf(SEED)).toEqual(shardsOf(SEED));
  expect(shardsOf(SEED)).not.toEqual(shardsOf(SEED + 1));
});
