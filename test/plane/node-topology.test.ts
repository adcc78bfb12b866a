/** The topology of one node among several: one map for all, states by what is heard and told, lives that are over say nothing. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ClusterNodes } from "../../src/plane/node-members.ts";
import { NodeTopology } from "../../src/plane/node-topology.ts";
import { createVirtualTime } from "../../src/runtime/scheduler.ts";
import { firstShardIncarnation, shardId } from "../../src/topology/member.ts";
import { MEMBER_STATE, MEMBER_STATE_NAMES, type MemberStateName } from "../../src/topology/snapshot.ts";

const MEMBERS = [
  { name: "a", shards: [0, 1] },
  { name: "b", shards: [2, 3] },
  { name: "c", shards: [4] },
];

function topologyOf(self: string, nodes: Partial<ClusterNodes> = {}, shape = { shards: 5, replicationFactor: 2 }) {
  const time = createVirtualTime(1_000);
  const topology = new NodeTopology({
    clock: time.clock,
    scheduler: time.scheduler,
    ...shape,
    vshards: 64,
    zones: [],
    suspectMs: 600,
    downMs: 1_200,
    nodes: { self, incarnation: 1, members: MEMBERS, ...nodes },
  });
  topology.follow({ on: () => undefined } as never);
  const state = (shard: number): MemberStateName => {
    topology.publish();
    return MEMBER_STATE_NAMES[topology.current.states[shard] as number] as MemberStateName;
  };
  return { ...time, topology, state };
}

describe("the map", () => {
  test("is the same on every node, whatever life it is in", () => {
    const maps = ["a", "b", "c"].flatMap((self) =>
      [1, 7].map((incarnation) => topologyOf(self, { incarnation }).topology.current),
    );
    for (const map of maps) {
      expect(map.mapEpoch).toBe(1);
      expect(map.copies).toEqual(maps[0]?.copies);
      expect(map.zones).toEqual(Uint16Array.of(0, 0, 1, 1, 2));
    }
  });

  test("spreads copies over nodes, and over zones where they are given", () => {
    const nodeOf = [0, 0, 1, 1, 2];
    const { copies } = topologyOf("a").topology.current;
    for (let at = 0; at < copies.length; at += 2)
      expect(nodeOf[copies[at] as number]).not.toBe(nodeOf[copies[at + 1] as number]);
    const members = MEMBERS.map((member) => ({ ...member, zone: member.name === "c" ? "east" : "west" }));
    const zoned = topologyOf("b", { members }).topology.current;
    expect(zoned.zones).toEqual(Uint16Array.of(0, 0, 0, 0, 1));
    for (let at = 0; at < 128; at += 2) expect([...zoned.copies.subarray(at, at + 2)]).toContain(4);
  });

  test("is refused when nodes do not host each shard once", () => {
    const bad: Partial<ClusterNodes>[] = [
      { self: "d" },
      { incarnation: 0 },
      { incarnation: 32_768 },
      { members: [...MEMBERS, { name: "a", shards: [] }] },
      { members: MEMBERS.slice(1), self: "b" },
      { members: [...MEMBERS.slice(0, 2), { name: "c", shards: [3] }] },
      { members: [...MEMBERS.slice(0, 2), { name: "c", shards: [5] }] },
      { members: [...MEMBERS.slice(0, 2), { name: "shard-9", shards: [4] }] },
    ];
    for (const nodes of bad) expect(() => topologyOf("a", nodes), JSON.stringify(nodes)).toThrow(/must be/);
  });
});

describe("another node", () => {
  test("is joining until it is heard, and down when it is not heard in time", async () => {
    const { topology, state, advance } = topologyOf("a");
    expect([state(2), topology.membership.get("b")?.state]).toEqual(["joining", "joining"]);
    topology.shardTold(2, 1, "up");
    expect(state(2)).toBe("joining"); // its node was not heard yet
    expect(topology.nodeHeard("b", 1, 1)).toBe("taken");
    expect([state(2), state(3)]).toEqual(["up", "joining"]);
    await advance(1_300);
    expect([topology.membership.get("b")?.state, topology.membership.get("c")?.state]).toEqual(["down", "down"]);
    expect([state(2), state(3), state(4)]).toEqual(["down", "down", "down"]);
    expect(state(0)).toBe("joining"); // nobody accuses this node's own
    expect(topology.nodeHeard("b", 1, 2)).toBe("taken");
    expect(topology.nodeHeard("c", 3, 9)).toBe("taken");
    topology.shardTold(4, firstShardIncarnation(3), "up");
    expect([state(2), state(3), state(4)]).toEqual(["up", "joining", "up"]);
  });

  test("is suspect before it is down, and so are its shards", async () => {
    const { topology, state, advance } = topologyOf("a");
    topology.nodeHeard("b", 1, 1);
    topology.shardTold(2, 1, "draining");
    expect(state(2)).toBe("draining");
    await advance(700);
    expect(state(2)).toBe("suspect");
    topology.nodeHeard("b", 1, 2);
    expect(state(2)).toBe("draining");
    topology.shardTold(2, 1, "suspect");
    expect(state(2)).toBe("suspect");
    topology.shardTold(2, 1, "down");
    topology.shardTold(2, 1, "suspect");
    expect(state(2)).toBe("suspect");
    topology.shardTold(2, 1, "up");
    expect(state(2)).toBe("up");
  });

  test("starts over in a new life, and its life before says nothing any more", () => {
    const { topology, state } = topologyOf("a");
    topology.nodeHeard("b", 1, 5);
    topology.shardTold(2, 4, "up");
    const next = firstShardIncarnation(2);
    expect(topology.nodeHeard("b", 2, 1)).toBe("taken");
    expect(state(2)).toBe("joining");
    topology.shardTold(2, 4, "up");
    topology.shardTold(2, 9_999, "up");
    expect(state(2)).toBe("joining");
    expect(topology.nodeHeard("b", 1, 6)).toBe("old");
    expect(topology.nodeHeard("b", 2, 1)).toBe("old");
    topology.shardTold(2, next, "up");
    expect(state(2)).toBe("up");
    topology.nodeRestarted("b", 3); // it dials before it is heard
    expect(state(2)).toBe("joining");
    expect(topology.nodeHeard("b", 2, 2)).toBe("old");
    expect(topology.membership.get("b")?.state).toBe("joining");
  });

  test("cannot revive a worker that it has told to be lost", () => {
    const { topology, state } = topologyOf("a");
    topology.nodeHeard("b", 1, 1);
    topology.shardTold(2, 1, "up");
    topology.shardLost(2, 1);
    topology.shardTold(2, 1, "up"); // overtaken by the loss
    expect(state(2)).toBe("down");
    topology.shardTold(2, 2, "joining");
    expect(state(2)).toBe("joining");
    topology.shardTold(2, 2, "up");
    topology.shardLost(2, 1);
    expect(state(2)).toBe("up");
    topology.shardLost(2, 3); // before anything else is heard of it
    expect(state(2)).toBe("down");
  });

  test("says nothing of this node or of shards that nobody knows", () => {
    const { topology, state } = topologyOf("a");
    expect(topology.nodeHeard("a", 9, 1)).toBe("unknown");
    expect(topology.nodeHeard("stranger", 1, 1)).toBe("unknown");
    topology.nodeRestarted("a", 9);
    topology.nodeRestarted("stranger", 9);
    topology.shardTold(0, 99, "up");
    topology.shardLost(77, 1);
    expect(state(0)).toBe("joining");
    expect(topology.ownShards).toEqual([0, 1]);
  });

  test("whatever is heard and told in whatever order, a shard is never better than its node, and no life comes back", async () => {
    const told = fc.record({
      node: fc.constantFrom("a", "b", "c"),
      shard: fc.nat(5),
      life: fc.integer({ min: 1, max: 3 }),
      sequence: fc.nat(6),
      worker: fc.nat(2),
      state: fc.constantFrom(...MEMBER_STATE_NAMES),
      kind: fc.constantFrom("heard", "told", "lost", "restarted", "pass"),
    });
    const worst: MemberStateName[] = ["down", "removed", "joining", "suspect", "draining", "up"];
    await fc.assert(
      fc.asyncProperty(fc.array(told, { maxLength: 40 }), async (steps) => {
        const { topology, state, advance } = topologyOf("a");
        const newest = new Map<string, number>();
        for (const step of steps) {
          const incarnation = firstShardIncarnation(step.life) + step.worker;
          if (step.kind === "heard") topology.nodeHeard(step.node, step.life, step.sequence);
          else if (step.kind === "restarted") topology.nodeRestarted(step.node, step.life);
          else if (step.kind === "told") topology.shardTold(step.shard, incarnation, step.state);
          else if (step.kind === "lost") topology.shardLost(step.shard, incarnation);
          else await advance(400);
          for (const member of topology.membership.members) {
            expect(member.incarnation).toBeGreaterThanOrEqual(newest.get(member.id) ?? 0);
            newest.set(member.id, member.incarnation);
            if (member.kind !== "shard") continue;
            const node = topology.membership.get(member.node)?.state ?? "removed";
            expect(worst.indexOf(state(member.shard))).toBeLessThanOrEqual(worst.indexOf(node));
          }
          expect(topology.membership.get("a")?.state).toBe("up");
        }
        expect(topology.current.mapEpoch).toBe(1);
      }),
      { numRuns: 200 },
    );
  });
});

test("one process is one node that hosts all shards", () => {
  const { clock, scheduler } = createVirtualTime();
  const shape = { shards: 2, vshards: 4, replicationFactor: 2 };
  const topology = new NodeTopology({ clock, scheduler, ...shape, zones: ["x", "y"], suspectMs: 600, downMs: 1_200 });
  expect(topology.membership.get("local")?.state).toBe("up");
  expect(topology.ownShards).toEqual([0, 1]);
  expect(topology.current.zones).toEqual(Uint16Array.of(0, 1));
  expect(topology.current.states).toEqual(Uint8Array.of(MEMBER_STATE.JOINING, MEMBER_STATE.JOINING));
  expect(topology.membership.get(shardId(1))?.incarnation).toBe(1);
});
