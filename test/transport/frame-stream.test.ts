/** Frames over a stream: what is written together, what waits for credit, what a peer may send, and what a slow reader makes both sides hold. */
import { describe, expect, test } from "vitest";
import type { ShardloomError } from "../../src/errors.ts";
import { createVirtualTime } from "../../src/runtime/scheduler.ts";
import { FRAME_HEADER_BYTES, FrameReader, frameBytes, writeU32 } from "../../src/transport/frame.ts";
import { FrameStream, type FrameStreamOptions, MAX_OPENING_BYTES } from "../../src/transport/frame-stream.ts";
import type { Stream } from "../../src/transport/session.ts";
import { patterned } from "./parties.ts";

const OPENING = 1;
const DATA = 2;
const CREDIT = 3;
const time = createVirtualTime();

/** A frame stream whose wire is an array. */
class Side {
  readonly writes: Uint8Array[] = [];
  readonly frames: Uint8Array[] = [];
  readonly openings: Uint8Array[] = [];
  readonly errors: ShardloomError[] = [];
  /** What the stream under it says to writes. */
  hasRoom = true;
  holds = false;
  readonly lane: FrameStream;

  constructor(options: Partial<FrameStreamOptions> = {}) {
    this.lane = new FrameStream({
      scheduler: time.scheduler,
      handler: {
        onOpening: (payload) => this.openings.push(payload),
        onFrame: (payload) => {
          this.frames.push(payload);
          if (!this.holds) this.lane.release(payload);
        },
        onOver: (error) => this.errors.push(error),
      },
      ...options,
    });
    this.lane.attach({
      id: 0,
      direction: "both",
      bufferedBytes: 0,
      write: (chunk) => {
        this.writes.push(chunk.slice());
        return this.hasRoom;
      },
      end: () => undefined,
      reset: () => undefined,
    } satisfies Stream);
  }

  /** Gives what was written to the other side. */
  async carryTo(other: Side): Promise<void> {
    await time.settle();
    for (const chunk of this.writes.splice(0)) other.lane.onChunk(chunk);
    await time.settle();
  }
}

function credit(bytes: number): Uint8Array {
  const payload = new Uint8Array(4);
  writeU32(payload, 0, bytes);
  return frameBytes(CREDIT, payload);
}

/** Two sides that let each other send. */
async function pair(options: Partial<FrameStreamOptions> = {}): Promise<[Side, Side]> {
  const sides: [Side, Side] = [new Side(options), new Side(options)];
  for (const { lane } of sides) lane.admit();
  await sides[0].carryTo(sides[1]);
  await sides[1].carryTo(sides[0]);
  return sides;
}

describe("a stream of frames", () => {
  test("writes the frames of one turn at once, and those of the next apart", async () => {
    const [near, far] = await pair();
    const sent = Array.from({ length: 50 }, (_, at) => patterned(at * 3, at));
    for (const frame of sent) near.lane.send(frame);
    expect(near.writes).toEqual([]);
    await time.settle();
    expect(near.writes).toHaveLength(1);
    near.lane.send(patterned(10, 1));
    await time.settle();
    expect(near.writes).toHaveLength(2);
    await near.carryTo(far);
    expect(far.frames.map(({ length }) => length)).toEqual([...sent.map(({ length }) => length), 10]);
    expect(far.frames.every((frame, at) => at === 50 || Buffer.compare(frame, sent[at] as Uint8Array) === 0)).toBe(
      true,
    );
  });

  test("writes long frames as they are, after a header, in their place", async () => {
    const [near, far] = await pair();
    const sent = [patterned(10, 1), patterned(100_000, 2), patterned(20, 3), patterned(9_000, 4), patterned(30, 5)];
    for (const frame of sent) near.lane.send(frame);
    await near.carryTo(far);
    expect(far.frames.map(({ length }) => length)).toEqual([10, 100_000, 20, 9_000, 30]);
    for (const [at, frame] of far.frames.entries()) expect(Buffer.compare(frame, sent[at] as Uint8Array)).toBe(0);
  });

  test("sends nothing before the peer has granted something, and no more than one frame above it", async () => {
    const side = new Side();
    for (let at = 0; at < 10; at++) side.lane.send(patterned(92, at));
    await time.settle();
    expect(side.writes).toEqual([]);
    expect(side.lane.queuedBytes).toBe(1_000);
    side.lane.onChunk(credit(250));
    expect(Buffer.concat(side.writes)).toHaveLength(300);
    side.lane.onChunk(credit(50));
    expect(Buffer.concat(side.writes), "the overdraft is paid first").toHaveLength(300);
    side.lane.onChunk(credit(1));
    expect(Buffer.concat(side.writes)).toHaveLength(400);
    expect(side.lane.queuedBytes).toBe(600);
  });

  test("waits while the stream under it has no room", async () => {
    const [near] = await pair();
    near.hasRoom = false;
    near.lane.send(patterned(10, 1));
    await time.settle();
    near.lane.send(patterned(10, 2));
    await time.settle();
    expect(near.writes).toHaveLength(1);
    near.lane.onDrain();
    expect(near.writes).toHaveLength(2);
  });

  test("grants anew what was released, and a reader that releases nothing holds its window and one frame", async () => {
    const windowBytes = 10_000;
    const [near, far] = await pair({ windowBytes });
    far.holds = true;
    const frame = patterned(1_492, 1);
    for (let at = 0; at < 40; at++) near.lane.send(frame);
    for (let round = 0; round < 10; round++) {
      await near.carryTo(far);
      await far.carryTo(near);
    }
    expect(far.frames).toHaveLength(7);
    expect(far.lane.unreleasedBytes).toBe(7 * 1_500);
    expect(near.lane.queuedBytes).toBe(33 * 1_500);
    far.holds = false;
    for (const held of far.frames) far.lane.release(held);
    for (let round = 0; round < 20; round++) {
      await far.carryTo(near);
      await near.carryTo(far);
    }
    expect(far.frames).toHaveLength(40);
    expect([near.lane.queuedBytes, far.lane.unreleasedBytes]).toEqual([0, 0]);
    expect([near.errors, far.errors]).toEqual([[], []]);
  });

  test("is given up when too much waits for the peer", async () => {
    const side = new Side({ maxQueuedBytes: 1_000 });
    for (let at = 0; at < 10; at++) side.lane.send(patterned(92, at));
    expect(side.lane.queuedBytes).toBe(1_000);
    side.lane.send(patterned(1, 1));
    expect(side.errors).toEqual([]); // not from inside of the call
    await time.settle();
    expect(side.errors).toMatchObject([{ code: "ERR_OVERLOADED" }]);
    expect(side.lane.queuedBytes).toBe(0);
  });

  test("refuses a frame that is too long, and goes on", async () => {
    const [near, far] = await pair({ maxFrameBytes: 1_000 });
    expect(() => near.lane.send(new Uint8Array(1_001))).toThrow(
      expect.objectContaining({ code: "ERR_RECORD_TOO_LARGE" }),
    );
    near.lane.send(patterned(1_000, 1));
    await near.carryTo(far);
    expect(far.frames).toHaveLength(1);
  });

  test.for([
    ["frames before it may", [frameBytes(DATA, patterned(10, 1))], false, "ERR_CORRUPT"],
    [
      "more than it was granted",
      Array.from({ length: 4 }, () => frameBytes(DATA, patterned(992, 1))),
      true,
      "ERR_CORRUPT",
    ],
    ["a second greeting", [frameBytes(OPENING, patterned(10, 1))], true, "ERR_CORRUPT"],
    [
      "too long a greeting",
      [frameBytes(OPENING, new Uint8Array(MAX_OPENING_BYTES + 1))],
      false,
      "ERR_RECORD_TOO_LARGE",
    ],
    ["too long a frame", [frameBytes(DATA, new Uint8Array(5_001))], true, "ERR_RECORD_TOO_LARGE"],
    ["half a credit", [frameBytes(CREDIT, patterned(2, 1))], true, "ERR_CORRUPT"],
    ["credit without end", Array.from({ length: 300 }, () => credit(0xffff_ffff)), true, "ERR_CORRUPT"],
    ["a frame of no known kind", [frameBytes(9, patterned(2, 1))], true, "ERR_CORRUPT"],
    ["damaged bytes", [new Uint8Array(100)], true, "ERR_CORRUPT"],
  ] as const)("cuts off a peer that sends %s", async ([, chunks, isAdmitted, code]) => {
    const side = new Side({ windowBytes: 2_500, maxFrameBytes: 5_000 });
    side.holds = true;
    if (isAdmitted) side.lane.admit();
    await time.settle();
    const before = side.frames.length;
    for (const chunk of chunks) {
      if (code === "ERR_CORRUPT" && side.errors.length > 0) break;
      side.lane.onChunk(chunk);
    }
    await time.settle();
    expect(side.errors).toMatchObject([{ code }]);
    expect(side.frames.length - before).toBeLessThanOrEqual(3);
    side.lane.onChunk(frameBytes(DATA, patterned(10, 1)));
    side.lane.send(patterned(1, 1));
    await time.settle();
    expect(side.errors).toHaveLength(1);
  });

  test("says when it ends within a frame", () => {
    const side = new Side();
    side.lane.onChunk(frameBytes(OPENING, patterned(10, 1)).subarray(0, 12));
    side.lane.onEnd();
    expect(side.errors[0]?.message).toContain("in the middle of a frame");
  });
});

describe("the frame reader", () => {
  test("takes frames from chunks of any length, and shares no memory with them", () => {
    const payloads = [0, 1, 7, 8, 9, 2_047, 2_048, 2_049, 40_000].map((length) => patterned(length, length));
    const bytes = Buffer.concat(payloads.map((payload, at) => frameBytes(1 + at, payload)));
    for (const length of [1, 3, 8, 1_000, bytes.length]) {
      const given: [number, Uint8Array][] = [];
      const reader = new FrameReader(100_000, (kind, payload) => given.push([kind, payload]));
      let read = 0;
      for (let at = 0; at < bytes.length; at += length) {
        const chunk = new Uint8Array(bytes.subarray(at, at + length));
        read += reader.push(chunk);
        chunk.fill(0xee);
      }
      expect(read).toBe(bytes.length);
      expect(reader.isPartial).toBe(false);
      expect(given.map(([kind]) => kind)).toEqual(payloads.map((_, at) => 1 + at));
      for (const [at, [, payload]] of given.entries()) {
        expect(Buffer.compare(payload, payloads[at] as Uint8Array)).toBe(0);
        expect(payload.byteOffset % 8).toBe(0);
      }
    }
  });

  test("stops within a chunk when it is told, and says where", () => {
    const frames = [frameBytes(1, patterned(5, 1)), frameBytes(1, patterned(5, 2))];
    const reader: FrameReader = new FrameReader(100, () => reader.stop());
    expect(reader.push(Buffer.concat(frames))).toBe(FRAME_HEADER_BYTES + 5);
  });
});
