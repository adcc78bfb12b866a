import { afterEach, describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { eventually } from "../support/cluster.ts";
import { OP, Peer } from "./peer.ts";

describe("Requester over a real thread", () => {
  let peer: Peer;
  afterEach(() => peer.close());

  it("keeps the order of asks and tells that wait for credit, and loses none", async () => {
    peer = new Peer({ creditMessages: 8 });
    const answers = [];
    for (let value = 0; value < 400; value += 2) {
      answers.push(peer.ask(OP.ECHO, value));
      void peer.tell(value + 1);
    }
    expect(peer.requester.queued).toBeGreaterThan(300);
    peer.stats();
    peer.open();
    expect((await Promise.all(answers)).map(({ value }) => value)).toEqual(
      Array.from({ length: 200 }, (_, at) => at * 2),
    );
    expect(await peer.ask(OP.ECHO, 400)).toEqual({ value: 400, count: 401, inOrder: true });
    expect(peer.stats()).toMatchObject({
      accepted: 401,
      sent: 401,
      told: 200,
      replied: 201,
      rejected: 0,
      unsent: 0,
      late: 0,
      inDoubt: 0,
    });
  });

  it("holds a teller that awaits until its tell has left, when the ring is full", async () => {
    peer = new Peer({ requestCapacityBytes: 16_384 });
    let waiting: Promise<void> | undefined;
    let sent = 0;
    while (waiting === undefined) waiting = peer.tell(sent++);
    let left = false;
    void waiting.then(() => (left = true));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(left).toBe(false);
    peer.open();
    await waiting;
    expect(await peer.ask(OP.ECHO, sent)).toEqual({ value: sent, count: sent + 1, inOrder: true });
    expect(peer.stats()).toMatchObject({ told: sent, replied: 1, unsent: 0 });
  });

  it("frees the slot of a cancelled request, and the peer never starts it", async () => {
    peer = new Peer({ creditMessages: 1 });
    const first = peer.start(OP.ECHO, 1);
    const second = peer.start(OP.ECHO, 2);
    const third = peer.start(OP.ECHO, 3);
    expect(peer.requester.cancel(first.pending, new ShardloomError("ERR_ABORTED", "given up"))).toBe(true);
    expect(peer.requester.cancel(first.pending, new ShardloomError("ERR_ABORTED", "again"))).toBe(false);
    expect(peer.requester.cancel(third.pending, new ShardloomError("ERR_ABORTED", "given up while it waited"))).toBe(
      true,
    );
    await expect(first.answer).rejects.toMatchObject({ code: "ERR_ABORTED", message: "given up" });
    await expect(third.answer).rejects.toMatchObject({ code: "ERR_ABORTED" });
    peer.open();
    expect(await second.answer).toEqual({ value: 2, count: 1, inOrder: true });
    expect(peer.stats()).toMatchObject({
      accepted: 3,
      sent: 2,
      cancelled: 2,
      unsent: 1,
      replied: 1,
      skipped: 1,
      late: 0,
    });
  });

  it("counts a reply that comes after its request has ended, and delivers it to nobody", async () => {
    peer = new Peer();
    peer.open();
    const held = peer.start(OP.HOLD, 1);
    expect(await peer.ask(OP.ECHO, 2)).toMatchObject({ value: 2 });
    peer.requester.cancel(held.pending, new ShardloomError("ERR_ABORTED", "given up"));
    expect(await peer.ask(OP.RELEASE, 3)).toMatchObject({ value: 3 });
    await expect(held.answer).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(peer.stats()).toMatchObject({ sent: 3, replied: 2, cancelled: 1, late: 1, skipped: 0 });
  });

  it("fails a request at its deadline, sent or still waiting for credit", async () => {
    peer = new Peer({ creditMessages: 1 });
    const started = performance.now();
    const [sent, queued] = await Promise.allSettled([peer.ask(OP.ECHO, 1, 40), peer.ask(OP.ECHO, 2, 60)]);
    expect(sent).toMatchObject({ reason: { code: "ERR_TIMEOUT", details: { sent: true } } });
    expect(queued).toMatchObject({ reason: { code: "ERR_TIMEOUT" } });
    expect(performance.now() - started).toBeGreaterThan(35);
    peer.open();
    expect(await peer.ask(OP.ECHO, 3)).toMatchObject({ value: 3 });
    const stats = peer.stats();
    expect(stats).toMatchObject({ accepted: 3, timedOut: 2, replied: 1 });
    expect(stats.sent - stats.skipped - stats.late).toBe(1);
  });

  it("brings an error of the peer back typed", async () => {
    peer = new Peer();
    peer.open();
    await expect(peer.ask(OP.FAIL, 1)).rejects.toMatchObject({ code: "ERR_INTERNAL", message: "refused on purpose" });
    expect(peer.stats()).toMatchObject({ failed: 1, replied: 0 });
  });

  it("fails what a lost peer held and counts what is in doubt: taken and unanswered, or not taken", async () => {
    peer = new Peer({ creditMessages: 4 });
    peer.open();
    const taken = peer.ask(OP.NEVER, 1);
    await peer.ask(OP.ECHO, 2);
    await peer.shut();
    const open = [taken, ...[3, 4, 5, 6, 7].map((value) => peer.ask(OP.ECHO, value))];
    const waiting = peer.tell(8);
    peer.plane.lose(0, new ShardloomError("ERR_WORKER_LOST", "gone"));
    for (const outcome of await Promise.allSettled([...open, waiting]))
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "ERR_WORKER_LOST" } });
    expect(() => peer.requester.tell(1, 0, 1, { byteLength: 0, write: () => undefined })).toThrow(/gone/);
    // Sent: 1, 2 and three more for the credits; 1 and those three are in doubt.
    expect(peer.stats()).toMatchObject({ accepted: 8, sent: 5, replied: 1, failed: 7, unsent: 3, inDoubt: 4 });
  });

  it("refuses a payload larger than a ring takes, and serves on", async () => {
    peer = new Peer({ requestCapacityBytes: 16_384 });
    peer.open();
    const limit = peer.requester.maxPayloadBytes;
    await expect(peer.ask(OP.ECHO, 1, undefined, limit + 1)).rejects.toMatchObject({
      code: "ERR_RECORD_TOO_LARGE",
      details: { byteLength: limit + 1, limit },
    });
    expect(await peer.ask(OP.ECHO, 2)).toMatchObject({ value: 2, count: 1 });
    expect(peer.stats()).toMatchObject({ accepted: 1, rejected: 1, sent: 1 });
  });

  it("refuses more than may wait, typed, and serves on", async () => {
    peer = new Peer({ creditMessages: 4 });
    const answers = Array.from({ length: 4 + 4096 + 10 }, (_, value) => peer.ask(OP.ECHO, value));
    peer.open();
    const outcomes = await Promise.allSettled(answers);
    const refused = outcomes.filter(({ status }) => status === "rejected");
    // The pressure limit of 95 % holds back normal messages before the last credit is used.
    expect(refused.length).toBeGreaterThanOrEqual(10);
    expect(refused.length).toBeLessThan(15);
    for (const outcome of refused)
      expect(outcome).toMatchObject({ reason: { code: "ERR_OVERLOADED", retryable: true } });
    expect(await peer.ask(OP.ECHO, 5_000)).toMatchObject({ inOrder: true });
    expect(peer.stats()).toMatchObject({ rejected: refused.length, unsent: 0, inDoubt: 0 });
  });

  it("adds up at every moment under a mix of outcomes", async () => {
    peer = new Peer({ creditMessages: 16 });
    peer.open();
    const ends: Promise<unknown>[] = [];
    for (let value = 0; value < 3_000; value++) {
      const op = [OP.ECHO, OP.FAIL, OP.NEVER, OP.ECHO, OP.ECHO][value % 5] as number;
      const { pending, answer } = peer.start(op, value, op === OP.NEVER ? 5 : 20_000);
      ends.push(answer.catch(() => undefined));
      if (value % 7 === 0) peer.requester.cancel(pending, new ShardloomError("ERR_ABORTED", "given up"));
      if (value % 3 === 0) void peer.tell(value);
      if (value % 50 === 0) await answer.catch(() => undefined);
      peer.stats();
    }
    await Promise.all(ends);
    await eventually("the queue is empty", () => peer.requester.pending === 0);
    const { count } = await peer.ask(OP.ECHO, 10_000);
    const stats = peer.stats();
    expect(count).toBe(stats.sent - stats.skipped);
    expect(stats.timedOut).toBeGreaterThan(0);
    expect(stats.inDoubt).toBe(0);
  });
});
