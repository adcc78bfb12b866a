/** What waits for full rings: order and bounds are kept, and nothing is lost without a word. */
import { expect, test } from "vitest";
import type { EngineRequest } from "../../../../actors/engine.ts";
import { CONGESTED_BYTES, CotraOutbox, readEnvelope } from "../../../../actors/vector/cotra/cotra-outbox.ts";
import { ShardloomError } from "../../../../src/errors.ts";
import type { Payload } from "../../../../src/routing/requester.ts";

/** A peer that takes so many envelopes before one waits. */
class Peer {
  readonly maxPayloadBytes: number;
  queued = 0;
  room = 0;
  lost = false;
  readonly got: [number, number[]][] = [];

  constructor(maxPayloadBytes: number) {
    this.maxPayloadBytes = maxPayloadBytes;
  }

  tell(_type: number, _vshard: number, _priority: number, payload: Payload): Promise<void> | undefined {
    if (this.lost) throw new ShardloomError("ERR_WORKER_LOST", "lost");
    expect(payload.byteLength).toBeLessThanOrEqual(this.maxPayloadBytes);
    readEnvelope(written(payload), (collection, bytes) => this.got.push([collection, [...bytes]]));
    if (this.room-- > 0) return undefined;
    this.queued = 1;
    return Promise.resolve();
  }
}

function written(payload: Payload): EngineRequest {
  const buffer = new ArrayBuffer((payload.byteLength + 23) & ~7);
  const memory = {
    bytes: new Uint8Array(buffer).fill(0xee),
    i32: new Int32Array(buffer),
    f32: new Float32Array(buffer),
    f64: new Float64Array(buffer),
  };
  payload.write(memory, 8);
  return { ...memory, offset: 8, length: payload.byteLength };
}

const message = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

test("messages leave in order, in envelopes that fit, and wait while one does", () => {
  const peer = new Peer(200);
  const outbox = new CotraOutbox(() => peer);
  const sent: [number, number[]][] = [];
  for (let at = 0; at < 40; at++) {
    const bytes = message(1 + ((at * 7) % 61), at);
    sent.push([at % 3, [...bytes]]);
    expect(outbox.add(1, at % 3, bytes)).toBe(true);
  }
  expect(outbox.waiting).toBe(40);
  let rounds = 0;
  for (; outbox.waiting > 0 && rounds < 100; rounds++) {
    peer.queued = 0;
    peer.room = 1;
    expect(outbox.flush()).toBe(true);
    expect(outbox.waiting === 0 || peer.queued === 1).toBe(true);
    if (outbox.waiting > 0) expect(outbox.flush(), "one waits in the ring's queue").toBe(false);
  }
  expect(rounds).toBeGreaterThan(3);
  expect(peer.got).toEqual(sent);
  expect(outbox.flush()).toBe(false);
});

test("what is too long, or too much, is refused; what is for a lost peer is dropped", () => {
  const peer = new Peer(2 ** 21);
  const outbox = new CotraOutbox((to) => (to === 1 ? peer : undefined));
  expect(outbox.add(1, 0, message(outbox.limitBytes(1) + 1, 0))).toBe(false);
  expect(outbox.limitBytes(2)).toBe(0);
  expect(outbox.add(2, 0, message(1, 0)), "it is gone, which is known").toBe(true);
  expect(outbox.congested).toBe(false);
  let taken = 0;
  while (taken < 100 && outbox.add(1, 0, message(CONGESTED_BYTES - 64, 0))) {
    taken++;
    if (taken === 2) expect(outbox.congested).toBe(true);
  }
  expect(taken).toBeGreaterThan(4);
  expect(taken).toBeLessThan(100);
  peer.lost = true;
  expect(outbox.flush()).toBe(true);
  outbox.drop(1);
  expect([outbox.waiting, outbox.congested]).toEqual([0, false]);
  expect(outbox.counters).toMatchObject({ refused: 2, dropped: taken + 1 });
});

test.each([
  ["a length beyond its end", [7, 100, 0]],
  ["a negative length", [7, -4, 0]],
  ["half a header", [7]],
])("an envelope with %s is refused", (_, words) => {
  const buffer = Int32Array.from(words).buffer;
  const memory = {
    bytes: new Uint8Array(buffer),
    i32: new Int32Array(buffer),
    f32: new Float32Array(buffer),
    f64: new Float64Array(0),
  };
  expect(() => readEnvelope({ ...memory, offset: 0, length: buffer.byteLength }, () => undefined)).toThrow(
    expect.objectContaining({ code: "ERR_CORRUPT" }),
  );
});
