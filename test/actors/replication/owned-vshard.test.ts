/** One vshard alone: when what it shows may be seen by strong reads. */
import { expect, test } from "vitest";
import { OwnedVshard, type WaitingWrite } from "../../../actors/replication/owned-vshard.ts";
import { MemoryLog } from "../../../src/store/memory-log.ts";

const WRITES = 300_000;

function vshardWithCopies(copies: number) {
  const owned = new OwnedVshard(0, new MemoryLog({ maxBytes: 1 << 20 }));
  for (let peer = 1; peer <= copies; peer++) owned.copies.set(peer, { acked: 0, sent: 0, mode: "follow" });
  const ack = (peer: number, lsn: number): void => {
    (owned.copies.get(peer) as { acked: number }).acked = lsn;
    owned.onAcked();
  };
  return { owned, ack };
}

function strongRead(): WaitingWrite {
  const held = { cancelled: false, send: () => undefined, fail: () => undefined };
  return { kind: "read", acks: 2, held, body: new Uint8Array(0), answerByMs: 1, open: 0, unlogged: 0 };
}

test("what is written while a copy is away is settled with the last of it, however much that is", () => {
  const { owned, ack } = vshardWithCopies(1);
  for (let lsn = 1; lsn <= WRITES; lsn++) owned.expect(lsn, 2);
  const read = strongRead();
  owned.waitSettled(read);
  expect(read.open).toBe(1);
  ack(1, WRITES - 1);
  expect([owned.isSettled, read.open]).toEqual([false, 1]);
  ack(1, WRITES);
  expect([owned.isSettled, read.open]).toEqual([true, 0]);
});

test("writes that ask for different numbers of copies are settled by their own", () => {
  const { owned, ack } = vshardWithCopies(2);
  owned.expect(1, 3);
  owned.expect(2, 2);
  ack(1, 2);
  expect(owned.isSettled).toBe(false);
  ack(2, 1);
  expect(owned.isSettled).toBe(true);
  owned.expect(3, 3);
  owned.expect(4, 2);
  ack(1, 4);
  ack(2, 2);
  expect(owned.isSettled).toBe(false);
  ack(2, 3);
  expect(owned.isSettled).toBe(true);
});
