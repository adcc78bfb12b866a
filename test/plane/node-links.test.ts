/** What a thread asks of a shard on another node, when all goes well and when it does not. */
import { afterEach, describe, expect, it } from "vitest";
import { openBridge } from "../../native-bridge/bridge-layout.ts";
import { RING_HEADER_BYTES, TAIL_OFFSET } from "../../native-bridge/ring-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import {
  WORD_DEADLINE,
  WORD_EPOCH,
  WORD_SENT_AT,
  WORD_TENANT,
  WORD_TYPE,
  WORD_VSHARD,
} from "../../src/wire/envelope-layout.ts";
import { ACTOR_ASK, ACTOR_TELL, RUNTIME_CANCEL, VECTOR_GET } from "../../src/wire/message-types.ts";
import { type Asked, Pair, PlayedShard, payload } from "./linked-nodes.ts";

let pair: Pair | undefined;
afterEach(() => pair?.close());

async function connectedPair(options?: ConstructorParameters<typeof Pair>[0]): Promise<Pair> {
  pair = new Pair(options).start();
  await pair.connected();
  return pair;
}

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const codeOf = (asked: Asked): string => (ShardloomError.is(asked.outcome) ? asked.outcome.code : "answered");
const counters = ({ a }: Pair): Record<string, number> => ({ ...a.links.stats()[0]?.counters });

function expectBalanced(of: Pair): void {
  const { sent, delivered, rejected, dead, inDoubt, open } = counters(of);
  const sum = [delivered, rejected, dead, inDoubt, open].reduce<number>((total, count) => total + (count ?? 0), 0);
  expect(sent, JSON.stringify(counters(of))).toBe(sum);
}

describe("a request to a shard of another node", () => {
  it("arrives with its payload, is answered, and is counted", async () => {
    const of = await connectedPair();
    const asked = of.a.ask(1, bytes(1, 2, 3));
    await of.until("the answer", () => asked.outcome !== undefined);
    expect(asked.outcome).toEqual(bytes(1, 2, 3));
    expect(counters(of)).toMatchObject({ sent: 1, delivered: 1, open: 0, inDoubt: 0, dead: 0, rejected: 0 });
  });

  it("keeps vshard, attempt, priority, tenant and what is left of its deadline", async () => {
    const of = await connectedPair();
    const header = { topologyEpoch: 1, attempt: 5, tenant: 42 };
    const asked = of.a.ask(1, bytes(9), { priority: 2, timeoutMs: 500, header });
    await of.until("the answer", () => asked.outcome !== undefined);
    const { words, type } = of.shard.received[0] as (typeof of.shard.received)[0];
    expect(type).toBe(VECTOR_GET);
    expect((words[WORD_TYPE] as number) >>> 24).toBe(2);
    expect(words[WORD_VSHARD]).toBe((3 << 16) | 5);
    expect(words[WORD_TENANT]).toBe(42);
    expect(words[WORD_DEADLINE]).toBeLessThanOrEqual(500);
    expect(words[WORD_DEADLINE]).toBeGreaterThan(480);
  });

  it("is stamped with the receiver's clock, not the sender's", async () => {
    const of = await connectedPair();
    const beforeMs = of.time.clock.nowMs();
    const asked = of.a.ask(1, bytes(9));
    await of.until("the answer", () => asked.outcome !== undefined);
    const sentAtMs = (of.shard.received[0]?.words[WORD_SENT_AT] as number) / 1000;
    expect(sentAtMs).toBeGreaterThan(beforeMs);
    expect(sentAtMs).toBeLessThanOrEqual(of.time.clock.nowMs());
  });

  it("planned with the map that both have carries the receiver's epoch, whatever states changed there", async () => {
    const of = await connectedPair({
      a: { snapshot: { topologyEpoch: 4, mapEpoch: 2 } },
      b: { snapshot: { topologyEpoch: 9, mapEpoch: 2 } },
    });
    const known = of.a.ask(1, bytes(1), { header: { topologyEpoch: 3, attempt: 0, tenant: 0 } });
    const old = of.a.ask(1, bytes(2), { header: { topologyEpoch: 1, attempt: 0, tenant: 0 } });
    await of.until("the answers", () => known.outcome !== undefined && old.outcome !== undefined);
    expect(of.shard.received.map(({ words }) => words[WORD_EPOCH])).toEqual([9, 0]);
  });

  it("planned with a map that the receiver does not have arrives with an epoch that every shard refuses", async () => {
    const of = await connectedPair({
      a: { snapshot: { topologyEpoch: 4, mapEpoch: 4, mapVersion: 3 } },
      b: { snapshot: { topologyEpoch: 9, mapEpoch: 2, mapVersion: 2 } },
    });
    const asked = of.a.ask(1, bytes(1));
    await of.until("the answer", () => asked.outcome !== undefined);
    expect(of.shard.received[0]?.words[WORD_EPOCH]).toBe(0);
  });

  it("ends with the shard's own error", async () => {
    const of = await connectedPair();
    of.shard.hold = true;
    const asked = of.a.ask(1, bytes(1));
    await of.until("the request", () => of.shard.held.length === 1);
    const error = new ShardloomError("ERR_NOT_FINITE", "Cannot do it", { details: { at: 3 } });
    of.shard.answer(of.shard.held[0] as never, error);
    await of.until("the answer", () => asked.outcome !== undefined);
    expect(asked.outcome).toMatchObject({ code: "ERR_NOT_FINITE", details: { at: 3 } });
    expect((asked.outcome as ShardloomError).stack, "stacks do not cross").not.toContain(" at ");
    expect(counters(of)).toMatchObject({ delivered: 1, rejected: 0, inDoubt: 0 });
  });

  it("keeps its order with others, also where it must wait for credit", async () => {
    const of = await connectedPair({
      bridge: { creditMessages: 4, requestCapacityBytes: 4096, replyCapacityBytes: 4096 },
    });
    const asked = Array.from({ length: 200 }, (_, at) => of.a.ask(1, bytes(at)));
    await of.until("all answers", () => asked.every(({ outcome }) => outcome !== undefined));
    expect(of.shard.received.map(({ payload: [at] }) => at)).toEqual(asked.map((_, at) => at));
    expect(asked.map(({ outcome }) => (outcome as Uint8Array)[0])).toEqual(asked.map((_, at) => at));
  });

  it("too large for the receiver's ring is refused as such, and no other", async () => {
    const of = await connectedPair({
      bridge: { creditMessages: 4, requestCapacityBytes: 4096, replyCapacityBytes: 4096 },
    });
    const large = of.a.ask(1, new Uint8Array(60_000));
    const small = of.a.ask(1, bytes(1));
    await of.until("both", () => large.outcome !== undefined && small.outcome !== undefined);
    expect([codeOf(large), codeOf(small)]).toEqual(["ERR_RECORD_TOO_LARGE", "answered"]);
    expect(counters(of)).toMatchObject({ delivered: 1, rejected: 1 });
  });

  it("whose answer is too large for the asker's ring ends with that error", async () => {
    const of = await connectedPair({
      a: { bridge: { creditMessages: 4, requestCapacityBytes: 8192, replyCapacityBytes: 8192 } },
    });
    of.shard.hold = true;
    const asked = of.a.ask(1, bytes(1));
    await of.until("the request", () => of.shard.held.length === 1);
    of.shard.answer(of.shard.held[0] as never, new Uint8Array(50_000));
    await of.until("the answer", () => asked.outcome !== undefined);
    expect(codeOf(asked)).toBe("ERR_RECORD_TOO_LARGE");
  });

  it("beyond what may wait at the receiver is refused with ERR_OVERLOADED", async () => {
    const of = await connectedPair({
      a: { bridge: { creditMessages: 8192 } },
      bridge: { creditMessages: 4, requestCapacityBytes: 4096, replyCapacityBytes: 4096 },
    });
    of.shard.asleep = true;
    const asked = Array.from({ length: 4_500 }, (_, at) => of.a.ask(1, bytes(at & 255)));
    await of.until("a refusal", () => asked.some(({ outcome }) => outcome !== undefined));
    await of.until("all refusals", () => (counters(of)["rejected"] as number) >= 300);
    expect(new Set(asked.filter(({ outcome }) => outcome !== undefined).map(codeOf))).toEqual(
      new Set(["ERR_OVERLOADED"]),
    );
    of.shard.asleep = false;
    await of.until("the rest", () => asked.every(({ outcome }) => outcome !== undefined));
    expectBalanced(of);
    expect(counters(of)).toMatchObject({ open: 0, sent: 4_500 });
  });
});

describe("a tell to a shard of another node", () => {
  it("arrives, and is counted as delivered once it is in the worker's ring", async () => {
    const of = await connectedPair();
    for (let at = 0; at < 100; at++) void of.a.plane.requester(1).tell(ACTOR_TELL, 3, 1, payload(bytes(at)));
    await of.until("the count", () => counters(of)["delivered"] === 100);
    expect(of.shard.received.map(({ payload: [at] }) => at)).toEqual(Array.from({ length: 100 }, (_, at) => at));
    expect(counters(of)).toMatchObject({ sent: 100, open: 0 });
  });

  it("under way when the connection is lost is in doubt; one for a node that is known to be gone is dead", async () => {
    const of = await connectedPair();
    void of.a.plane.requester(1).tell(ACTOR_TELL, 3, 1, payload(bytes(1)));
    await of.until("it is sent", () => counters(of)["open"] === 1);
    of.network.cut("a", "b");
    await of.until("it is in doubt", () => counters(of)["inDoubt"] === 1);
    void of.a.plane.requester(1).tell(ACTOR_TELL, 3, 1, payload(bytes(2)));
    await of.until("it is dead", () => counters(of)["dead"] === 1);
    expectBalanced(of);
  });
});

describe("a request that is given up", () => {
  it("tells the worker that runs it, by the worker's own slot and sequence", async () => {
    const of = await connectedPair();
    of.shard.hold = true;
    // Shifts the slots of the two bridges against each other.
    const first = of.a.ask(1, bytes(0), { type: ACTOR_ASK });
    await of.until("the first", () => of.shard.held.length === 1);
    const asked = of.a.ask(1, bytes(1), { type: ACTOR_ASK });
    await of.until("the second", () => of.shard.held.length === 2);
    of.shard.answer(of.shard.held[0] as never, bytes(7));
    await of.until("the answer", () => first.outcome !== undefined);
    of.a.plane.requester(1).cancel(asked.pending as never, new ShardloomError("ERR_ABORTED", "given up"));
    await of.until("the notice", () => of.shard.received.some(({ type }) => type === RUNTIME_CANCEL));
    const notice = of.shard.received.find(({ type }) => type === RUNTIME_CANCEL)?.payload as Uint8Array;
    const { slot, sequence } = of.shard.held[1] as { slot: number; sequence: number };
    expect([...new Int32Array(notice.buffer, notice.byteOffset, 2)]).toEqual([slot, sequence]);
    expect(of.shard.server.isCancelled(slot, sequence)).toBe(true);
    expect(counters(of)).toMatchObject({ sent: 2, delivered: 1, dead: 1, open: 0 });
  });

  it("before its worker has begun is skipped there", async () => {
    const of = await connectedPair();
    of.shard.asleep = true;
    const asked = of.a.ask(1, bytes(1), { type: ACTOR_ASK });
    await of.until("it is sent", () => counters(of)["open"] === 1);
    await of.time.advance(5);
    of.a.plane.requester(1).cancel(asked.pending as never, new ShardloomError("ERR_ABORTED", "given up"));
    await of.until("it is told", () => counters(of)["dead"] === 1);
    await of.time.advance(5);
    of.shard.asleep = false;
    const next = of.a.ask(1, bytes(2));
    await of.until("the next", () => next.outcome !== undefined);
    expect(of.shard.received.map(({ payload: [at], type }) => (type === RUNTIME_CANCEL ? "notice" : at))).toEqual([
      "notice",
      2,
    ]);
  });

  it("by its deadline frees the peer when its slot is used again, and a late answer is counted and not delivered", async () => {
    const of = await connectedPair({
      a: { bridge: { creditMessages: 1, requestCapacityBytes: 4096, replyCapacityBytes: 4096 } },
    });
    of.shard.hold = true;
    const asked = of.a.ask(1, bytes(1), { timeoutMs: 20 });
    await of.until("its deadline", () => asked.outcome !== undefined);
    expect(codeOf(asked)).toBe("ERR_TIMEOUT");
    of.shard.hold = false;
    const next = of.a.ask(1, bytes(2));
    await of.until("the next", () => next.outcome !== undefined);
    expect(next.outcome).toEqual(bytes(2));
    await of.until("all is known", () => counters(of)["open"] === 0);
    expectBalanced(of);
  });
});

describe("a bridge whose record is damaged", () => {
  it.each([
    ["whose check is wrong", (words: Int32Array, record: number) => void Atomics.xor(words, record + 1, 1)],
    ["whose size was lost", (words: Int32Array, record: number) => void Atomics.store(words, record, 0)],
  ])("%s is told, fails what it held once there is another, and the other one serves", async (_name, damage) => {
    const of = await connectedPair();
    const damaged: string[] = [];
    of.a.links.onDamaged((asker, shard) => {
      damaged.push(`${asker} ${shard}`);
      of.a.attach(shard);
    });
    const held = of.a.ask(1, bytes(1));
    const bridge = of.a.bridges.get(1) as SharedArrayBuffer;
    const record = (openBridge(bridge).requestRingOffset + RING_HEADER_BYTES) >> 2;
    damage(new Int32Array(bridge), record);
    await of.until("it is noticed", () => damaged.length === 1);
    expect(damaged).toEqual(["main 1"]);
    expect(codeOf(held)).toBe("ERR_WORKER_LOST");
    const asked = of.a.ask(1, bytes(2));
    await of.until("the answer", () => asked.outcome !== undefined);
    expect(asked.outcome).toEqual(bytes(2));
  });

  it("an answer that was lost fails what waits for it, and the asker gets another bridge", async () => {
    const of = await connectedPair();
    const damaged: number[] = [];
    of.a.plane.watch((shard) => {
      damaged.push(shard);
      of.a.attach(shard);
    });
    of.shard.hold = true;
    const held = of.a.ask(1, bytes(1));
    const bridge = of.a.bridges.get(1) as SharedArrayBuffer;
    Atomics.add(new Int32Array(bridge), (openBridge(bridge).replyRingOffset + TAIL_OFFSET) >> 2, 64);
    await of.until("it is noticed", () => damaged.length > 0);
    expect(codeOf(held)).toBe("ERR_WORKER_LOST");
    of.shard.hold = false;
    const asked = of.a.ask(1, bytes(2));
    await of.until("the answer", () => asked.outcome !== undefined);
    expect([asked.outcome, damaged]).toEqual([bytes(2), [1]]);
  });
});

describe("a worker of another node that is lost", () => {
  it("before the first contact is told with it: what waited for that is refused at once", async () => {
    const of = new Pair();
    pair = of;
    const gone = new ShardloomError("ERR_WORKER_LOST", "Cannot go on as its budget is used up");
    of.b.links.clients[0]?.lose(1, gone);
    of.start();
    const asked = of.a.ask(1, bytes(1));
    await of.until("it is refused", () => asked.outcome !== undefined, 200);
    expect(codeOf(asked)).toBe("ERR_WORKER_LOST");
    expect(counters(of)).toMatchObject({ sent: 1, rejected: 1, open: 0 });
  });

  it("fails what it held with its reason, is told, and its successor serves under a new incarnation", async () => {
    const of = await connectedPair();
    const events: string[] = [];
    of.a.links.onShard(({ shard, incarnation, state }) => {
      events.push(`${shard} ${incarnation} ${state}`);
      if (state === "up") of.a.attach(shard);
    });
    of.shard.hold = true;
    const held = of.a.ask(1, bytes(1));
    await of.until("it is held", () => of.shard.held.length === 1);
    const [client] = of.b.links.clients;
    client?.lose(1, new ShardloomError("ERR_WORKER_LOST", "Cannot finish request as the worker of shard 1 died"));
    await of.until("the failure", () => held.outcome !== undefined);
    expect(codeOf(held)).toBe("ERR_WORKER_LOST");
    const between = of.a.ask(1, bytes(2));
    await of.until("the refusal", () => between.outcome !== undefined);
    expect(codeOf(between)).toBe("ERR_WORKER_LOST");
    of.shard = new PlayedShard(of.b, 1, 65_538);
    await of.until("the successor", () => events.length === 2);
    expect(events).toEqual(["1 65537 lost", "1 65538 up"]);
    const asked = of.a.ask(1, bytes(3));
    await of.until("its answer", () => asked.outcome !== undefined);
    expect(asked.outcome).toEqual(bytes(3));
    expect(counters(of)).toMatchObject({ sent: 3, delivered: 1, inDoubt: 1, rejected: 1, open: 0 });
  });
});
