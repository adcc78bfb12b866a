/** The network of a world, one behaviour at a time. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Fault, FaultKind } from "../../src/sim/fault-types.ts";
import { createReplayInjector } from "../../src/sim/injector.ts";
import { DROP, HOLD, type MessageKind, type NetworkOptions, PASS, type Verdict } from "../../src/sim/network-types.ts";
import { type CutPair, cutPairs } from "../../src/sim/partitions.ts";
import { bitsApart, type End, NetworkWorld } from "./network-world.ts";

const seed = Number(process.env["SEED"]);
const SECOND_US = 1_000_000;
const PAIR = ["n0", "n1"];

function createWorld(
  options: NetworkOptions = {},
  faults: readonly Fault[] = [],
  nodes: readonly string[] = PAIR,
): NetworkWorld {
  return new NetworkWorld(seed, nodes, createReplayInjector(faults), options);
}

/** An open connection n0 → n1 over which the greeting has arrived. */
function connect(world: NetworkWorld, from = "n0", to = "n1"): { near: End; far: End } {
  const near = world.dial(from, to) as End;
  world.loop.run(world.loop.nowUs + SECOND_US);
  expect(near.other?.received.length).toBe(1);
  return { near, far: near.other as End };
}

function drawn(kind: FaultKind, site: string, ordinal: number, size = 0): Fault {
  return { kind, site, ordinal, size };
}

describe("partitions", () => {
  /** Directions in which a datagram arrives, over connections that were made before. */
  function reaching(nodes: readonly string[], pairs: readonly CutPair[]): string[] {
    const world = createWorld({}, [], nodes);
    const ends = nodes.flatMap((from) => nodes.filter((to) => to !== from).map((to) => connect(world, from, to)));
    world.network.cut(pairs);
    for (const { near } of ends) world.sendDatagram(near);
    world.loop.run(world.loop.nowUs + SECOND_US);
    return ends.filter(({ far }) => far.datagrams.length === 1).map(({ near }) => `${near.node}>${near.peer}`);
  }

  const expected: readonly (readonly [FaultKind, readonly string[], readonly string[]])[] = [
    ["partition-one-way", ["b", "c", "d"], ["a>b", "a>c", "a>d", "b>a", "c>a", "c>b", "c>d", "d>a", "d>b", "d>c"]],
    ["partition", ["a", "c"], ["a>c", "b>d", "c>a", "d>b"]],
    ["partition", ["d"], ["a>b", "a>c", "b>a", "b>c", "c>a", "c>b"]],
    ["partition-ring", ["a", "c", "b", "d"], ["a>c", "a>d", "b>c", "b>d", "c>a", "c>b", "d>a", "d>b"]],
    ["partition-bridge", ["a", "b"], ["a>b", "a>c", "a>d", "b>a", "c>a", "c>d", "d>a", "d>c"]],
  ];

  it.each(expected)("%s of %j lets through exactly %j", (kind, targets, through) => {
    const nodes = ["a", "b", "c", "d"];
    expect(reaching(nodes, cutPairs(kind, targets, nodes))).toEqual(through);
  });

  it("never cuts a node from itself, nor a direction twice", () => {
    const kinds = ["partition-one-way", "partition", "partition-ring", "partition-bridge"] as const;
    fc.assert(
      fc.property(
        fc.constantFrom(...kinds),
        fc.shuffledSubarray(["a", "b", "c", "d", "e"], { minLength: 2 }),
        (kind, part) => {
          const nodes = ["a", "b", "c", "d", "e"];
          const pairs = cutPairs(kind, kind === "partition-ring" ? [...new Set([...part, ...nodes])] : part, nodes);
          expect(pairs.filter(({ from, to }) => from === to)).toEqual([]);
          expect(new Set(pairs.map(({ from, to }) => `${from}>${to}`)).size).toBe(pairs.length);
          if (kind === "partition-ring") expect(pairs.length).toBe(5 * 2); // everybody reaches two of four others
        },
      ),
      { seed },
    );
  });

  it("stalls a connection, which goes on when it heals within the idle limit", () => {
    const world = createWorld();
    const { near, far } = connect(world);
    const guard = world.network.cut(cutPairs("partition", ["n0"], PAIR));
    world.send(near);
    world.send(near);
    world.loop.run(world.loop.nowUs + 3 * SECOND_US);
    expect(far.received.length).toBe(1);
    guard.uninstall();
    guard.uninstall();
    world.loop.run(world.loop.nowUs + 2 * SECOND_US);
    expect(far.received).toEqual(near.sent);
    expect(far.received.length).toBe(3);
  });

  it.each([
    ["that nothing is sent over", "n0", false],
    ["that only the other side sends over", "n0", true],
    ["of one direction only", "n1", true],
  ])("closes both ends of a connection %s at the idle limit", (_what, from, isSending) => {
    const world = createWorld({ idleLimitMs: 2000 });
    const { near, far } = connect(world);
    const beganUs = world.loop.nowUs;
    world.network.cut([{ from, to: from === "n0" ? "n1" : "n0" }]);
    if (isSending) world.send(far);
    world.loop.run(beganUs + 1.9 * SECOND_US);
    expect([near.closed, far.closed]).toEqual([undefined, undefined]);
    world.loop.run(beganUs + 3 * SECOND_US);
    expect([near.closed?.code, far.closed?.code]).toEqual(["ERR_UNAVAILABLE", "ERR_UNAVAILABLE"]);
    expect(Math.min(near.closedUs, far.closedUs) - beganUs).toBe(2 * SECOND_US);
  });

  it("does not close one that was whole in between", () => {
    const world = createWorld({ idleLimitMs: 2000 });
    const { near, far } = connect(world);
    for (let turn = 0; turn < 4; turn++) {
      const guard = world.network.cut([{ from: "n0", to: "n1" }]);
      world.loop.run(world.loop.nowUs + 1.9 * SECOND_US);
      guard.uninstall();
      world.loop.run(world.loop.nowUs + 0.1 * SECOND_US);
    }
    expect([near.closed, far.closed]).toEqual([undefined, undefined]);
  });
});

describe("clogs", () => {
  it("hold everything of one direction and then let it go, in order on connections", () => {
    const world = createWorld();
    const { near, far } = connect(world);
    const guard = world.network.clog([{ from: "n0", to: "n1" }]);
    for (let turn = 0; turn < 5; turn++) world.send(near);
    for (let turn = 0; turn < 5; turn++) world.sendDatagram(near);
    world.send(far);
    world.loop.run(world.loop.nowUs + 4 * SECOND_US);
    expect([far.received.length, far.datagrams.length, near.received.length]).toEqual([1, 0, 1]);
    expect(world.network.records().filter(({ outcome }) => outcome === "held").length).toBe(10);
    guard.uninstall();
    world.loop.run(world.loop.nowUs + SECOND_US);
    expect(far.received).toEqual(near.sent);
    expect(far.datagrams.length).toBe(5);
  });
});

describe("rules", () => {
  it("are asked in their order until one does not pass, with what is sent; heal removes them", () => {
    const world = createWorld();
    const { near, far } = connect(world);
    const asked: string[] = [];
    const rule =
      (name: string, verdict: Verdict) => (message: { from: string; kind: MessageKind; data: Uint8Array }) => {
        if (message.kind !== "datagram") return PASS;
        asked.push(`${name} ${message.from} ${message.data.length}`);
        return verdict;
      };
    world.network.install(rule("one", PASS));
    const two = world.network.install(rule("two", DROP));
    world.network.install(rule("three", PASS));
    world.sendDatagram(near, 40);
    expect(asked).toEqual(["one n0 40", "two n0 40"]);
    two.uninstall();
    world.sendDatagram(far, 9);
    expect(asked.slice(2)).toEqual(["one n1 9", "three n1 9"]);
    world.network.install(rule("four", DROP));
    world.network.heal();
    two.uninstall();
    world.sendDatagram(near);
    expect(asked.length).toBe(4);
    world.loop.run(world.loop.nowUs + SECOND_US);
    expect([far.datagrams.length, near.datagrams.length]).toEqual([1, 1]);
  });

  it("that hold past the idle limit cost the connection, not its end", () => {
    const world = createWorld({ idleLimitMs: 1000 });
    const { near, far } = connect(world);
    const guard = world.network.install(({ kind }) => (kind === "frame" ? HOLD : PASS));
    world.send(near);
    world.loop.run(world.loop.nowUs + 2 * SECOND_US);
    expect([near.closed?.code, far.closed?.code]).toEqual(["ERR_UNAVAILABLE", "ERR_UNAVAILABLE"]);
    guard.uninstall();
    world.loop.run(world.loop.nowUs + SECOND_US);
    expect([far.received.length, far.late]).toEqual([1, 0]);
  });
});

describe("drawn faults", () => {
  // Over a connection n0 → n1: ordinal 0 is the dial, 1 the greeting, 2 the first frame after it.
  it("of a frame cost time, and never order or number", () => {
    const faults = [drawn("drop", "n0>n1", 2), drawn("delay", "n0>n1", 4, 0.5), drawn("reorder", "n0>n1", 5, 0.9)];
    const world = createWorld({ jitterUs: 0 }, [...faults, drawn("duplicate", "n0>n1", 3, 0.1)]);
    const { near, far } = connect(world);
    const sentUs = world.loop.nowUs;
    for (let turn = 0; turn < 6; turn++) world.send(near);
    world.loop.run(sentUs + 99_000);
    expect(far.received.length).toBe(1); // the first was lost, and all others wait for it
    world.loop.run(sentUs + 120_000);
    expect(far.received.length).toBe(3);
    world.loop.run(sentUs + SECOND_US);
    expect(far.received).toEqual(near.sent);
    const [there] = world.network.counters();
    expect(there).toMatchObject({ from: "n0", to: "n1", sent: 9, delivered: 8, dropped: 1, delayed: 2, duplicated: 1 });
  });

  it("of a frame may damage one bit, in the receiver's copy only", () => {
    const world = createWorld({}, [drawn("corrupt", "n0>n1", 2, 0.7)]);
    const { near, far } = connect(world);
    world.send(near, 100);
    const before = (near.sent[1] as Uint8Array).slice();
    world.loop.run(world.loop.nowUs + SECOND_US);
    expect(bitsApart(far.received[1] as Uint8Array, before)).toBe(1);
    expect(near.sent[1]).toEqual(before);
    expect((far.received[1] as Uint8Array)[70]).not.toBe(before[70]);
  });

  it("of a datagram all show", () => {
    const site = "n0~n1";
    const faults = [
      drawn("drop", site, 0),
      drawn("duplicate", site, 1, 0.5),
      drawn("corrupt", site, 2),
      drawn("delay", site, 3, 0.5),
    ];
    const world = createWorld({ jitterUs: 0 }, faults);
    const { near, far } = connect(world);
    for (let turn = 0; turn < 5; turn++) world.sendDatagram(near, 16);
    world.loop.run(world.loop.nowUs + SECOND_US);
    const numbers = far.datagrams.map((datagram) => new DataView(datagram.buffer, datagram.byteOffset).getInt32(4));
    // 1 is lost, 2 comes twice, 4 late; 0 was the greeting. Those of one instant come in any order.
    expect(numbers.slice(0, 3).toSorted((one, other) => one - other)).toEqual([2, 3, 5]);
    expect(numbers.slice(3)).toEqual([2, 4]);
    expect(far.datagrams.map(({ length }) => length)).toEqual([16, 16, 16, 16, 16]);
    expect(world.network.counters()[0]).toMatchObject({ dropped: 1, duplicated: 1, corrupted: 1, delayed: 1 });
  });
});

describe("crashes", () => {
  /** Both ways a crash can look; which one it is, is drawn. */
  function crashed(reason: "reset" | "idle"): { world: NetworkWorld; far: End; atUs: number } {
    for (let run = 0; run < 64; run++) {
      const world = new NetworkWorld(seed + run, PAIR, createReplayInjector([]), { idleLimitMs: 2000 });
      const { far } = connect(world);
      const atUs = world.loop.nowUs;
      world.crash("n0");
      world.loop.run(atUs + SECOND_US);
      if ((far.closed !== undefined) === (reason === "reset")) return { world, far, atUs };
    }
    throw new Error(`no crash in 64 ended by ${reason}`);
  }

  it("of a process reset its connections at once", () => {
    const { far, atUs } = crashed("reset");
    expect(far.closed?.code).toBe("ERR_UNAVAILABLE");
    expect(far.closedUs - atUs).toBeLessThan(0.01 * SECOND_US);
  });

  it("of a machine show at the idle limit", () => {
    const { world, far, atUs } = crashed("idle");
    world.loop.run(atUs + 3 * SECOND_US);
    expect(far.closedUs - atUs).toBe(2 * SECOND_US);
    expect(far.closed?.code).toBe("ERR_UNAVAILABLE");
  });

  it("of a machine show at once to who sends to its next incarnation", () => {
    const { world, far, atUs } = crashed("idle");
    world.start("n0");
    world.send(far);
    world.loop.run(atUs + 1.5 * SECOND_US);
    expect(far.closed?.message).toContain("knows nothing of this connection");
    expect(world.ends.length).toBe(2);
    expect(connect(world, "n1", "n0").near.opened).toBe(1);
  });

  it("lose what had not left, and deliver what had from the first on", () => {
    const { world, far } = { ...crashed("reset") };
    expect(far.received.length).toBe(1);
    world.start("n0");
    const { near, far: next } = connect(world);
    world.network.cut([{ from: "n0", to: "n1" }]);
    world.send(near);
    world.crash("n0");
    world.network.heal();
    world.loop.run(world.loop.nowUs + 4 * SECOND_US);
    expect(next.received.length).toBe(1);
    expect(next.closed).toBeDefined();
    expect(near.late).toBe(0);
  });

  it("open a transport once per incarnation, and never twice at a time", () => {
    const { network } = createWorld();
    for (const incarnation of [1, 2]) {
      expect(() => network.transport("n0", incarnation)).toThrow(
        expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", details: { name: "incarnation", value: incarnation } }),
      );
    }
    network.crash("n0");
    expect(() => network.transport("n0", 1)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
    expect(() => network.transport("n0", 2)).not.toThrow();
  });
});

describe("connections", () => {
  it("fail to open where nobody is, at once or after the dial timeout", () => {
    const world = createWorld({ dialTimeoutMs: 700 });
    const nobody = world.dial("n0", "n7") as End;
    world.network.cut([{ from: "n0", to: "n1" }]);
    const unreachable = world.dial("n0", "n1") as End;
    world.loop.run(2 * SECOND_US);
    expect(nobody.closed?.message).toContain("nobody listens");
    expect(nobody.closedUs).toBeLessThan(0.01 * SECOND_US);
    expect(unreachable.closed?.message).toContain("700 ms");
    expect(unreachable.closedUs).toBe(0.7 * SECOND_US);
    expect([nobody.opened, unreachable.opened]).toEqual([0, 0]);
  });

  it("close on this side at once, and on the other with the reason, or cut off", () => {
    let whole = 0;
    for (let run = 0; run < 40; run++) {
      const world = new NetworkWorld(seed + run, PAIR);
      const { near, far } = connect(world);
      for (let turn = 0; turn < 3; turn++) world.send(near);
      world.close(near);
      expect(near.closed?.message).toBe("enough");
      world.send(near);
      world.loop.run(world.loop.nowUs + SECOND_US);
      expect(far.closed).toMatchObject({ code: "ERR_UNAVAILABLE", details: { peer: "n0", code: "ERR_CLOSED" } });
      if (far.received.length === 4) whole++;
      expect(near.late).toBe(0);
    }
    expect(whole).toBeGreaterThan(5);
    expect(whole).toBeLessThan(35);
  });

  it("take the time of the link: base, exponential jitter, bandwidth", () => {
    const world = createWorld({ baseLatencyUs: 500, jitterUs: 300 });
    const { near } = connect(world);
    for (let turn = 0; turn < 4000; turn++) world.sendDatagram(near);
    world.loop.run(world.loop.nowUs + SECOND_US);
    const times = world.network
      .records()
      .filter(({ kind }) => kind === "datagram")
      .map(({ sentUs, endedUs }) => endedUs - sentUs);
    expect(Math.min(...times)).toBeGreaterThanOrEqual(500);
    const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
    expect(Math.abs(mean - 800)).toBeLessThan(5 * (300 / Math.sqrt(4000)));
    const above = times.filter((time) => time > 500 + 300).length / times.length;
    expect(Math.abs(above - Math.exp(-1))).toBeLessThan(0.04);

    const narrow = createWorld({ jitterUs: 0, bytesPerSecond: 1000 });
    const ends = connect(narrow);
    const startUs = narrow.loop.nowUs;
    for (let turn = 0; turn < 3; turn++) narrow.sendDatagram(ends.near, 500);
    narrow.loop.run(startUs + 1.1 * SECOND_US);
    expect(ends.far.datagrams.length).toBe(2);
    narrow.loop.run(startUs + 1.6 * SECOND_US);
    expect(ends.far.datagrams.length).toBe(3);
  });

  it("are recorded up to the limit, the latest packets", () => {
    const world = createWorld({ recordLimit: 10 });
    const { near } = connect(world);
    for (let turn = 0; turn < 25; turn++) world.sendDatagram(near, 8 + turn);
    expect(world.network.records().map(({ bytes }) => bytes)).toEqual([23, 24, 25, 26, 27, 28, 29, 30, 31, 32]);
    expect(createWorld({ recordLimit: 0 }).network.records()).toEqual([]);
  });

  it.each([
    ["baseLatencyUs", -1],
    ["jitterUs", Number.NaN],
    ["bytesPerSecond", 0],
    ["idleLimitMs", 0],
    ["dialTimeoutMs", Number.POSITIVE_INFINITY],
    ["retransmitMs", 0.5],
    ["recordLimit", -1],
  ])("refuse %s of %d", (name, value) => {
    expect(() => createWorld({ [name]: value })).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", details: { name, value } }),
    );
  });
});
