import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createManualClock, type ManualClock } from "../../src/runtime/clock.ts";
import { FailureDetector, type LivenessChange } from "../../src/topology/failure-detector.ts";
import { shardId } from "../../src/topology/member.ts";
import { type MemberChange, Membership } from "../../src/topology/membership.ts";
import { planPlacement } from "../../src/topology/placement.ts";
import { MEMBER_STATE, MEMBER_STATE_NAMES, type MemberStateName } from "../../src/topology/snapshot.ts";

interface World {
  readonly clock: ManualClock;
  readonly membership: Membership;
  readonly changes: MemberChange[];
  seen(): string[];
}

function createWorld(): World {
  const clock = createManualClock(1000);
  const membership = new Membership({ clock });
  const changes: MemberChange[] = [];
  membership.subscribe((change) => changes.push(change));
  const seen = (): string[] => changes.map(({ member, from, to }) => `${member.id}: ${from ?? "nothing"} → ${to}`);
  return { clock, membership, changes, seen };
}

/** A node that is up, with this many shards that are up. */
function createCluster(shards: number): World {
  const world = createWorld();
  world.membership.registerNode({ name: "local" });
  world.membership.ready("local");
  for (let shard = 0; shard < shards; shard++) {
    world.membership.registerShard({ shard, node: "local" });
    world.membership.ready(shardId(shard), 1);
  }
  world.changes.length = 0;
  return world;
}

function verdict(member: string, to: LivenessChange["to"], incarnation = 1): LivenessChange {
  return { member, incarnation, from: "up", to, nowMs: 1000, reason: "silent" };
}

describe("membership: registration", () => {
  it("is idempotent: what is registered n times is there once", () => {
    const { membership, seen } = createWorld();
    for (let time = 0; time < 3; time++) {
      membership.registerNode({ name: "n", roles: ["data"], zone: 2 });
      membership.registerShard({ shard: 0, node: "n" });
    }
    expect(membership.members.map(({ id, state }) => [id, state])).toEqual([
      ["n", "joining"],
      ["shard-0", "joining"],
    ]);
    expect(seen()).toEqual(["n: nothing → joining", "shard-0: nothing → joining"]);
    expect(membership.version).toBe(2);
    expect(membership.get("shard-0")).toMatchObject({ kind: "shard", zone: 2, weight: 1, incarnation: 1, node: "n" });
  });

  it("takes another zone, weight or role of a known member without a change of state", () => {
    const { membership } = createCluster(1);
    const { version } = membership;
    membership.registerShard({ shard: 0, node: "local", weight: 3, zone: 4, roles: ["text"] });
    expect(membership.version).toBe(version + 1);
    expect(membership.get("shard-0")).toMatchObject({
      weight: 3,
      zone: 4,
      roles: ["text"],
      state: "up",
      sinceMs: 1000,
    });
    membership.registerShard({ shard: 0, node: "local", weight: 3, zone: 4, roles: ["text"] });
    expect(membership.version).toBe(version + 1);
  });

  it("takes a higher incarnation for a restart, and ignores a lower one", () => {
    const { membership, seen } = createCluster(1);
    expect(membership.registerShard({ shard: 0, node: "local", incarnation: 3 })).toMatchObject({ state: "joining" });
    expect(membership.registerShard({ shard: 0, node: "local", incarnation: 2, weight: 9 })).toMatchObject({
      incarnation: 3,
      weight: 1,
    });
    expect(seen()).toEqual(["shard-0: up → joining"]);
  });

  it("removes once, a node with its shards, and lets nothing old come back", () => {
    const { membership, seen } = createCluster(2);
    expect(membership.deregister("nobody")).toBe(false);
    expect(membership.deregister("local")).toBe(true);
    expect(membership.deregister("local")).toBe(false);
    expect(seen()).toEqual(["shard-0: up → removed", "shard-1: up → removed", "local: up → removed"]);
    expect([membership.members, membership.get("shard-1")]).toEqual([[], undefined]);
    expect(() => membership.registerNode({ name: "local", incarnation: 1 })).toThrow(
      "Cannot register member as incarnation of local must be above 1, which was removed: current value is 1",
    );
    expect(() => membership.ready("shard-0", 1)).toThrow(/id must be a registered member's/);
    expect(membership.observe(verdict("shard-0", "up"))).toBe(false);
    membership.registerNode({ name: "local", incarnation: 2 });
    expect(seen().at(-1)).toBe("local: removed → joining");
  });

  it("remembers a bounded number of the removed, the latest", () => {
    const { membership } = createWorld();
    for (let index = 0; index < 1100; index++) {
      membership.registerNode({ name: `n${index}` });
      membership.deregister(`n${index}`);
    }
    expect(() => membership.registerNode({ name: "n1099" })).toThrow(/incarnation/);
    expect(() => membership.registerNode({ name: "n76" })).toThrow(/incarnation/);
    expect(membership.registerNode({ name: "n75" }).state).toBe("joining");
  });

  it.each([
    [(m: Membership) => m.registerNode({ name: "" }), /name must be a non-empty string that is no shard's/],
    [(m: Membership) => m.registerNode({ name: "shard-1" }), /name must be/],
    [(m: Membership) => m.registerNode({ name: "n", zone: 65_536 }), /zone must be an integer between 0 and 65535/],
    [(m: Membership) => m.registerNode({ name: "n", incarnation: 0.5 }), /incarnation must be/],
    [(m: Membership) => m.registerShard({ shard: 0, node: "nobody" }), /node of shard 0 must be a registered node/],
    [(m: Membership) => m.registerShard({ shard: 0, node: "shard-7" }), /must be a registered node/],
    [(m: Membership) => m.registerShard({ shard: 256, node: "local" }), /shard must be an integer between 0 and 255/],
    [(m: Membership) => m.registerShard({ shard: 0, node: "local", weight: 0 }), /weight of shard 0 .* value is 0/],
    [(m: Membership) => m.ready("nobody"), /id must be a registered member's: current value is "nobody"/],
    [(m: Membership) => m.report("local", { documents: Number.NaN }), /documents of local must be a finite number/],
  ])("%# refuses bad input by value and rule", (call, message) => {
    const { membership, changes } = createCluster(0);
    const { version } = membership;
    membership.registerNode({ name: "local" });
    expect(() => call(membership)).toThrow(message);
    expect([membership.version, changes]).toEqual([version, []]);
  });
});

const LEGAL: Record<MemberStateName, MemberStateName[]> = {
  joining: ["up", "draining", "down", "removed"],
  up: ["suspect", "down", "draining", "joining", "removed"],
  suspect: ["up", "down", "draining", "joining", "removed"],
  down: ["up", "draining", "joining", "removed"],
  draining: ["up", "suspect", "down", "joining", "removed"],
  removed: ["joining"],
};

/** How to get a joining member into each state. */
const WAYS: Record<MemberStateName, MemberStateName[]> = {
  joining: [],
  up: ["up"],
  suspect: ["up", "suspect"],
  down: ["down"],
  draining: ["draining"],
  removed: ["removed"],
};

describe("membership: the table of transitions", () => {
  it.each(MEMBER_STATE_NAMES.flatMap((from) => MEMBER_STATE_NAMES.map((to) => [from, to] as const)))(
    "%s → %s",
    (from, to) => {
      const { membership, changes } = createWorld();
      membership.registerNode({ name: "n" });
      for (const state of WAYS[from]) membership.move("n", state, "test");
      changes.length = 0;
      const { version } = membership;
      if (from === to) {
        expect(membership.move("n", to, "test")).toBe(false);
        expect([membership.version, changes]).toEqual([version, []]);
        return;
      }
      if (!LEGAL[from].includes(to)) {
        expect(() => membership.move("n", to, "test")).toThrow(
          `Cannot move n from ${from} to ${to} as the next state must be ${LEGAL[from].join(", ")}: current value is "${to}"`,
        );
        expect([membership.version, changes]).toEqual([version, []]);
        return;
      }
      expect(membership.move("n", to, "test")).toBe(true);
      expect(changes).toMatchObject([{ from, to, reason: "test", member: { state: to } }]);
      expect(membership.version).toBe(version + 1);
    },
  );

  it("is all that random calls ever do; versions rise by one with each change (property)", () => {
    const call = fc.oneof(
      fc.record({ do: fc.constant("ready" as const), incarnation: fc.integer({ min: 0, max: 4 }) }),
      fc.record({ do: fc.constant("lost" as const), incarnation: fc.integer({ min: 0, max: 4 }) }),
      fc.record({ do: fc.constant("restarted" as const), incarnation: fc.integer({ min: 0, max: 4 }) }),
      fc.record({
        do: fc.constant("observe" as const),
        incarnation: fc.integer({ min: 0, max: 4 }),
        to: fc.constantFrom<LivenessChange["to"]>("up", "suspect", "down"),
      }),
      fc.record({ do: fc.constantFrom("drain" as const, "resume" as const, "register" as const) }),
    );
    fc.assert(
      fc.property(fc.array(call, { maxLength: 30 }), (calls) => {
        const { membership, changes } = createWorld();
        membership.registerNode({ name: "n" });
        let incarnation = 1;
        for (const one of calls) {
          const { version } = membership;
          const told = changes.length;
          if (one.do === "ready") membership.ready("n", one.incarnation);
          else if (one.do === "lost") membership.lost("n", "test", one.incarnation);
          else if (one.do === "restarted") membership.restarted("n", one.incarnation);
          else if (one.do === "observe") membership.observe(verdict("n", one.to, one.incarnation));
          else if (one.do === "register") membership.registerNode({ name: "n" });
          else membership[one.do]("n");
          expect(membership.version - version).toBeGreaterThanOrEqual(changes.length - told);
          for (const { from, to } of changes.slice(told)) {
            expect(from === to ? ["joining"] : LEGAL[from ?? "removed"]).toContain(to);
          }
          const now = membership.get("n")?.incarnation ?? -1;
          expect(now).toBeGreaterThanOrEqual(incarnation);
          incarnation = now;
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("membership: a worker's life as the control plane sees it", () => {
  it("starts, serves, is lost, starts again, serves", () => {
    const { membership, clock, changes, seen } = createCluster(1);
    clock.setMs(2000);
    expect(membership.lost("shard-0", "its thread ended with code 1", 1)).toBe(true);
    expect(membership.lost("shard-0", "again", 1)).toBe(false);
    expect(membership.restarted("shard-0", 2)).toBe(true);
    expect(membership.ready("shard-0", 2)).toBe(true);
    expect(seen()).toEqual(["shard-0: up → down", "shard-0: down → joining", "shard-0: joining → up"]);
    expect(changes[0]).toMatchObject({ nowMs: 2000, reason: "its thread ended with code 1" });
    expect(membership.get("shard-0")).toMatchObject({ incarnation: 2, sinceMs: 2000 });
  });

  it("lets a predecessor change nothing", () => {
    const { membership, changes } = createCluster(1);
    membership.restarted("shard-0", 2);
    changes.length = 0;
    expect(membership.ready("shard-0", 1)).toBe(false);
    expect(membership.lost("shard-0", "late news", 1)).toBe(false);
    expect(membership.restarted("shard-0", 2)).toBe(false);
    expect(membership.observe(verdict("shard-0", "down", 1))).toBe(false);
    expect([membership.get("shard-0")?.state, changes]).toEqual(["joining", []]);
  });

  it("takes the readiness of a newer incarnation for its restart", () => {
    const { membership, seen } = createCluster(1);
    expect(membership.ready("shard-0", 2)).toBe(true);
    expect(seen()).toEqual(["shard-0: up → joining", "shard-0: joining → up"]);
  });

  it("follows a failure detector, and lets who was paused return by itself", () => {
    const { membership, seen } = createCluster(1);
    const word = { progress: 0, beats: 0, activity: "js" as const, dead: false };
    const detector = new FailureDetector({ onChange: (change) => membership.observe(change) });
    detector.watchShard("shard-0", 1, 0, () => word);
    for (let nowMs = 0; nowMs <= 2000; nowMs += 100) detector.look(nowMs);
    word.progress++;
    detector.look(2100);
    expect(seen()).toEqual(["shard-0: up → suspect", "shard-0: suspect → down", "shard-0: down → up"]);
  });

  it("takes no verdict on who is only starting", () => {
    const { membership } = createCluster(1);
    membership.restarted("shard-0", 2);
    for (const to of ["suspect", "down", "up"] as const)
      expect(membership.observe(verdict("shard-0", to, 2))).toBe(false);
    expect(membership.get("shard-0")?.state).toBe("joining");
  });

  it("takes a node that is heard in a newer life for one that has restarted", () => {
    const { membership, seen } = createCluster(0);
    membership.observe(verdict("local", "up", 5));
    expect(seen()).toEqual(["local: up → joining"]);
    expect(membership.get("local")?.incarnation).toBe(5);
  });
});

describe("membership: draining", () => {
  it("drains and resumes", () => {
    const { membership, seen } = createCluster(1);
    expect([membership.drain("shard-0"), membership.drain("shard-0")]).toEqual([true, false]);
    expect([membership.resume("shard-0"), membership.resume("shard-0")]).toEqual([true, false]);
    expect(seen()).toEqual(["shard-0: up → draining", "shard-0: draining → up"]);
  });

  it("returns to draining after a pause or a restart, until it is resumed", () => {
    const { membership, seen } = createCluster(1);
    membership.drain("shard-0");
    for (const to of ["suspect", "down", "up"] as const) membership.observe(verdict("shard-0", to));
    membership.restarted("shard-0", 2);
    membership.ready("shard-0", 2);
    membership.resume("shard-0");
    expect(seen()).toEqual([
      "shard-0: up → draining",
      "shard-0: draining → suspect",
      "shard-0: suspect → down",
      "shard-0: down → draining",
      "shard-0: draining → joining",
      "shard-0: joining → draining",
      "shard-0: draining → up",
    ]);
  });

  it("drains who is down as soon as it serves", () => {
    const { membership } = createCluster(1);
    membership.lost("shard-0", "test");
    expect(membership.drain("shard-0")).toBe(true);
    expect(membership.get("shard-0")).toMatchObject({ state: "down", drains: true });
    membership.observe(verdict("shard-0", "up"));
    expect(membership.get("shard-0")?.state).toBe("draining");
  });
});

describe("membership: what snapshots show", () => {
  it("routes to registered shards only, and sees a shard no better than its node", () => {
    const { membership } = createCluster(3);
    membership.registerNode({ name: "other", zone: 7 });
    membership.registerShard({ shard: 4, node: "other" });
    membership.ready("shard-4");
    membership.drain("shard-1");
    const { UP, DRAINING, REMOVED, JOINING, DOWN, SUSPECT } = MEMBER_STATE;
    expect([...membership.states(6)]).toEqual([UP, DRAINING, UP, REMOVED, JOINING, REMOVED]);
    expect([...membership.zones(6)]).toEqual([0, 0, 0, 0, 7, 0]);
    membership.ready("other");
    membership.observe(verdict("local", "suspect"));
    expect([...membership.states(6)]).toEqual([SUSPECT, SUSPECT, SUSPECT, REMOVED, UP, REMOVED]);
    membership.lost("local", "test");
    expect([...membership.states(6)]).toEqual([DOWN, DOWN, DOWN, REMOVED, UP, REMOVED]);
  });

  it("is what placements and snapshots are made from", () => {
    const { membership } = createCluster(4);
    membership.drain("shard-3");
    const plan = planPlacement(undefined, membership.placementMembers(), 2, 64);
    const map = {
      shards: 4,
      vshards: 64,
      replicationFactor: 2,
      topologyEpoch: membership.version,
      mapEpoch: 1,
      mapVersion: 1,
      copies: plan.copies,
      terms: new Uint32Array(64).fill(1),
    };
    const snapshot = membership.snapshotOf(map);
    expect([...snapshot.states].map((state) => MEMBER_STATE_NAMES[state])).toEqual(["up", "up", "up", "draining"]);
    expect(snapshot.topologyEpoch).toBe(membership.version);
    expect([...snapshot.copies].includes(3)).toBe(false);
    expect(new Set(snapshot.owners)).toEqual(new Set([0, 1, 2]));
  });

  it("counts and adds up, and metrics make no new version", () => {
    const { membership, changes } = createCluster(3);
    const { version } = membership;
    membership.report("shard-0", { documents: 10, bytes: 100 });
    membership.report("shard-1", { documents: 5 });
    membership.report("shard-0", { documents: 11 });
    expect([membership.version, changes]).toEqual([version, []]);
    membership.lost("shard-2", "test");
    expect(membership.counts()).toEqual({
      nodes: 1,
      healthyNodes: 1,
      shards: 3,
      healthyShards: 2,
      metrics: { documents: 16, bytes: 100 },
    });
    membership.deregister("shard-0");
    expect(membership.counts()).toMatchObject({ shards: 2, healthyShards: 1, metrics: { documents: 5 } });
  });
});

describe("membership: events", () => {
  it("tells changes that listeners make after the one that they were told", () => {
    const { membership } = createCluster(2);
    const first: string[] = [];
    const second: string[] = [];
    membership.subscribe(({ member, to }) => {
      first.push(`${member.id} ${to}`);
      if (member.id === "shard-0" && to === "down") membership.drain("shard-1");
    });
    membership.subscribe(({ member, to }) => second.push(`${member.id} ${to}`));
    membership.lost("shard-0", "test");
    expect(first).toEqual(["shard-0 down", "shard-1 draining"]);
    expect(second).toEqual(first);
  });

  it("tells everybody although one throws, then lets the error out; the change stands", () => {
    const { membership } = createCluster(1);
    const told: string[] = [];
    membership.subscribe(() => {
      throw new Error("listener");
    });
    membership.subscribe(({ to }) => told.push(to));
    expect(() => membership.drain("shard-0")).toThrow("listener");
    expect([told, membership.get("shard-0")?.state]).toEqual([["draining"], "draining"]);
    expect(() => membership.resume("shard-0")).toThrow("listener");
    expect(told).toEqual(["draining", "up"]);
  });

  it("ends each subscription by itself", () => {
    const { membership } = createCluster(1);
    let told = 0;
    const listener = (): void => {
      told++;
    };
    const end = membership.subscribe(listener);
    membership.subscribe(listener);
    membership.drain("shard-0");
    end();
    end();
    membership.resume("shard-0");
    expect(told).toBe(3);
  });

  it("hands out members that do not change afterwards", () => {
    const { membership, changes } = createCluster(1);
    const before = membership.get("shard-0");
    membership.drain("shard-0");
    expect(before?.state).toBe("up");
    membership.resume("shard-0");
    expect(changes.map(({ member }) => member.state)).toEqual(["draining", "up"]);
  });
});
