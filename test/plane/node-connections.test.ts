/** Connections between nodes: greeted, cut, damaged, superseded, dialled again. */
import { afterEach, describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { type Asked, Pair, PlayedShard } from "./linked-nodes.ts";

let pair: Pair | undefined;
afterEach(() => pair?.close());

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const codeOf = (asked: Asked): string => (ShardloomError.is(asked.outcome) ? asked.outcome.code : "answered");

describe("before the first contact", () => {
  it("requests wait for it", async () => {
    const of = new Pair();
    pair = of;
    of.a.links.start([]);
    const asked = of.a.ask(1, bytes(1));
    await of.time.advance(500);
    expect(asked.outcome).toBeUndefined();
    of.b.links.start([]);
    await of.until("the answer", () => asked.outcome !== undefined, 1_400);
    expect(asked.outcome).toEqual(bytes(1));
  });

  it("they wait for no longer than two seconds, and then fail at once", async () => {
    const of = new Pair();
    pair = of;
    of.a.links.start([]);
    const asked = of.a.ask(1, bytes(1));
    await of.until("the refusal", () => asked.outcome !== undefined);
    expect(asked.outcome).toMatchObject({ code: "ERR_UNAVAILABLE", retryable: true, details: { shard: 1, node: "b" } });
    expect(of.time.clock.nowMs()).toBeLessThan(1_000 + 2_100);
    const next = of.a.ask(1, bytes(2));
    await of.until("the next", () => next.outcome !== undefined, 10);
    expect(codeOf(next)).toBe("ERR_UNAVAILABLE");
  });

  it("a node that nobody answers is dialled in growing pauses, not in a loop", async () => {
    const of = new Pair();
    pair = of;
    of.a.links.start([]);
    await of.time.advance(60_000);
    expect(of.network.dials).toBeGreaterThan(20);
    expect(of.network.dials).toBeLessThan(80);
  });
});

describe("a connection that is cut", () => {
  it("fails what is open as lost, refuses what comes, and serves again once it is there again", async () => {
    const of = new Pair().start();
    pair = of;
    await of.connected();
    const events: string[] = [];
    of.a.links.onShard(({ shard, state }) => events.push(`shard ${shard} ${state}`));
    of.a.links.onNode(({ peer, incarnation, state }) => events.push(`node ${peer} ${incarnation} ${state}`));
    of.shard.hold = true;
    const open = of.a.ask(1, bytes(1));
    await of.until("it is held", () => of.shard.held.length === 1);
    of.network.cut("a", "b");
    await of.until("the failure", () => open.outcome !== undefined, 100);
    expect(open.outcome).toMatchObject({ code: "ERR_WORKER_LOST", retryable: true, details: { node: "b" } });
    const refused = of.a.ask(1, bytes(2));
    await of.until("the refusal", () => refused.outcome !== undefined, 100);
    expect(codeOf(refused)).toBe("ERR_UNAVAILABLE");
    of.shard.hold = false;
    of.network.heal("a", "b");
    await of.until("the connection", () => of.a.links.stats()[0]?.state === "up", 2_500);
    const asked = of.a.ask(1, bytes(3));
    await of.until("the answer", () => asked.outcome !== undefined);
    expect(asked.outcome).toEqual(bytes(3));
    expect(events).toEqual(["node b 1 down", "node b 1 up", "shard 1 up"]);
    expect(of.a.links.stats()[0]?.counters).toMatchObject({ sent: 3, inDoubt: 1, rejected: 1, delivered: 1, open: 0 });
  });

  it("gives up what the peer asked: the worker is told", async () => {
    const of = new Pair().start();
    pair = of;
    await of.connected();
    of.shard.hold = true;
    of.a.ask(1, bytes(1));
    await of.until("it is held", () => of.shard.held.length === 1);
    const { slot, sequence } = of.shard.held[0] as { slot: number; sequence: number };
    of.network.cut("a", "b");
    await of.until("it is cancelled", () => of.shard.server.isCancelled(slot, sequence), 100);
  });

  it("severed by this side, as the peer is known to be dead, is dialled again", async () => {
    const of = new Pair().start();
    pair = of;
    await of.connected();
    const states: string[] = [];
    of.a.links.onNode(({ state }) => states.push(state));
    of.b.links.sever("a", new ShardloomError("ERR_UNAVAILABLE", "silent"));
    await of.until("the connection", () => states.length === 2);
    expect(states).toEqual(["down", "up"]);
  });
});

describe("a damaged frame", () => {
  it("ends its connection with ERR_CORRUPT, and everything goes on over the next one", async () => {
    const of = new Pair().start();
    pair = of;
    await of.connected();
    let damage = true;
    of.network.transform = (from, _to, frame) => {
      if (from === "b" && damage) {
        damage = false;
        frame[frame.length - 1] = (frame[frame.length - 1] as number) ^ 4;
      }
      return frame;
    };
    const asked = of.a.ask(1, bytes(1));
    await of.until("the failure", () => asked.outcome !== undefined, 100);
    expect(asked.outcome).toMatchObject({ code: "ERR_WORKER_LOST", details: { reason: "ERR_CORRUPT" } });
    await of.until("the connection", () => of.a.links.stats()[0]?.state === "up");
    const next = of.a.ask(1, bytes(2));
    await of.until("the answer", () => next.outcome !== undefined);
    expect(next.outcome).toEqual(bytes(2));
  });
});

describe("a greeting", () => {
  it.each([
    ["another number of vshards", { snapshot: { vshards: 32 } }],
    ["another number of copies", { snapshot: { replicationFactor: 2 } }],
    ["another map of the same epoch", { snapshot: { copies: Uint16Array.from({ length: 16 }, () => 1) } }],
  ])("of %s is refused by both", async (_, b) => {
    const of = new Pair({ b }).start();
    pair = of;
    const asked = of.a.ask(1, bytes(1));
    await of.until("the refusal", () => asked.outcome !== undefined);
    expect(codeOf(asked)).toBe("ERR_UNAVAILABLE");
    expect(of.a.links.stats()[0]?.state).toBe("down");
    expect(of.b.links.stats()[0]?.state).toBe("down");
    expect((asked.outcome as ShardloomError).cause).toMatchObject({
      code: expect.stringMatching(/ERR_VERSION_MISMATCH|ERR_CLOSED/),
    });
  });

  it("of other actors is refused", async () => {
    const of = new Pair();
    pair = of;
    of.a.links.start([{ name: "cart", handlers: ["add"] }]);
    of.b.links.start([{ name: "cart", handlers: ["remove"] }]);
    await of.time.advance(3_000);
    expect(of.a.links.stats()[0]?.state).toBe("down");
  });

  it("of an earlier life is refused once a later one was heard of; a later one takes the place of the former", async () => {
    const of = new Pair().start();
    pair = of;
    await of.connected();
    const lives: string[] = [];
    of.a.links.onNode(({ incarnation, state }) => lives.push(`${incarnation} ${state}`));
    const asked = of.a.ask(1, bytes(1));
    of.network.crash("b");
    await of.until("the end", () => lives.length === 1);
    expect(codeOf(asked)).toBe("ERR_WORKER_LOST");
    of.b = of.node("b", { incarnation: 3 });
    of.shard = new PlayedShard(of.b, 1, 3 * 65_536 + 1);
    of.b.links.start([]);
    await of.until("the next life", () => of.a.links.incarnationOf(1) === 3 * 65_536 + 1);
    expect(lives).toEqual(["1 down", "3 up"]);
    of.network.crash("b");
    await of.until("its end", () => lives.length === 3);
    const former = of.node("b", { incarnation: 2 });
    former.links.start([]);
    await of.time.advance(10_000);
    expect(lives).toEqual(["1 down", "3 up", "3 down"]);
    former.links.close();
  });
});

describe("a thread that ends", () => {
  it("is told to all nodes, also to one that is not connected then", async () => {
    const of = new Pair();
    pair = of;
    const gone: string[] = [];
    of.b.links.onThreadGone((peer, thread) => gone.push(`${peer} ${thread}`));
    of.a.links.withdraw("first");
    of.start();
    await of.connected();
    const open = of.a.ask(1, bytes(1));
    of.shard.hold = true;
    await of.until("it is held", () => of.shard.held.length === 1);
    of.a.links.withdraw("main");
    await of.until("both are told", () => gone.length === 2);
    expect(gone).toEqual(["a first", "a main"]);
    const { slot, sequence } = of.shard.held[0] as { slot: number; sequence: number };
    await of.until("what it asked is given up", () => of.shard.server.isCancelled(slot, sequence));
    expect(open.outcome).toBeUndefined();
    expect(of.a.links.stats()[0]?.counters).toMatchObject({ sent: 1, dead: 1, open: 0 });
  });
});

describe("datagrams", () => {
  it("arrive as they were sent, and never damaged; without a connection they are dropped", async () => {
    const of = new Pair().start();
    pair = of;
    const received: number[][] = [];
    of.b.links.onDatagram((peer, datagram) => received.push([peer.length, ...datagram]));
    of.a.links.sendDatagram("b", bytes(1));
    await of.connected();
    of.a.links.sendDatagram("b", bytes(2, 3));
    of.a.links.sendDatagram("nobody", bytes(9));
    await of.time.advance(5);
    expect(received).toEqual([[1, 2, 3]]);
    of.network.transform = (_from, _to, datagram) => {
      datagram[0] = (datagram[0] as number) ^ 1;
      return datagram;
    };
    of.a.links.sendDatagram("b", bytes(4));
    await of.time.advance(5);
    expect(received).toHaveLength(1);
  });
});
