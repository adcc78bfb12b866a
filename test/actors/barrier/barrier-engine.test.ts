/** The barrier's messages: one outcome each, in an order that replies can be written in, and nothing read outside a record. */
import { describe, expect, it } from "vitest";
import { createBarrierEngine } from "../../../actors/barrier/barrier-engine.ts";
import type { OpenedBarrier } from "../../../actors/barrier/barrier-host.ts";
import {
  arriveBytes,
  decodeBody,
  encodeBody,
  readArriveReply,
  writeArrive,
} from "../../../actors/barrier/barrier-messages.ts";
import type { EngineReply, EngineRequest, HeldReply, WireMemory } from "../../../actors/engine.ts";
import type { BarrierOptions } from "../../../src/actor/tick-barrier.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { resolveBarrierOptions } from "../../../src/routing/barrier-options.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { createVirtualTime } from "../../../src/runtime/scheduler.ts";
import { errorToValue } from "../../../src/wire/error-codec.ts";
import {
  BARRIER_ADVANCE,
  BARRIER_ARRIVE,
  BARRIER_CLOSE,
  BARRIER_JOIN,
  BARRIER_LEAVE,
  BARRIER_OPEN,
  BARRIER_POISON,
  BARRIER_STATE,
} from "../../../src/wire/message-types.ts";

const ALL = [
  BARRIER_OPEN,
  BARRIER_CLOSE,
  BARRIER_JOIN,
  BARRIER_LEAVE,
  BARRIER_ARRIVE,
  BARRIER_ADVANCE,
  BARRIER_POISON,
  BARRIER_STATE,
];

function memory(bytes: Uint8Array): WireMemory & { readonly buffer: ArrayBuffer } {
  const buffer = new ArrayBuffer((bytes.length + 15) & -8);
  new Uint8Array(buffer).set(bytes);
  return {
    buffer,
    bytes: new Uint8Array(buffer),
    i32: new Int32Array(buffer),
    f32: new Float32Array(buffer),
    f64: new Float64Array(buffer),
  };
}

/** What a request came to: a frame, an error, or nothing yet. */
interface Outcome {
  frame?: EngineRequest;
  error?: ShardloomError;
  settled: number;
}

/** Calls the engine as a shard would: one reply is written at a time, held ones only between claims. */
function createShard() {
  const time = createVirtualTime(0);
  const engine = createBarrierEngine({ ...time, randomU32: () => 77 });
  const order: string[] = [];
  let claimed = false;

  const call = (type: number, body: Uint8Array, name = ""): Outcome => {
    const outcome: Outcome = { settled: 0 };
    const target = memory(new Uint8Array(4_096));
    let length = -1;
    let held = false;
    const settle = (how: Omit<Outcome, "settled">): void => {
      if (claimed) throw new Error("a reply was written while another one was open");
      Object.assign(outcome, how);
      outcome.settled++;
      order.push(name);
    };
    const reply: EngineReply = {
      ...target,
      limitBytes: 4_096,
      offset: 0,
      claim: (lengthBytes) => {
        if (length >= 0 || held) throw new Error("a second reply");
        length = lengthBytes;
        claimed = true;
      },
      hold: (): HeldReply => {
        held = true;
        return {
          cancelled: false,
          send: (lengthBytes, write) => {
            write(target, 0);
            settle({ frame: { ...target, offset: 0, length: lengthBytes } });
          },
          fail: (error) => settle({ error: ShardloomError.from(error) }),
        };
      },
    };
    try {
      engine.handlers.get(type)?.({ ...memory(body), offset: 0, length: body.length }, reply);
      claimed = false;
      if (!held) settle({ frame: { ...target, offset: 0, length: Math.max(length, 0) } });
    } catch (error) {
      claimed = false;
      if (!ShardloomError.is(error)) throw error;
      settle({ error });
    }
    return outcome;
  };

  const ask = (type: number, value: unknown): unknown => {
    const { frame, error } = call(type, encodeBody(value));
    if (error !== undefined) throw error;
    return frame === undefined || frame.length === 0 ? undefined : decodeBody(frame);
  };

  const open = (options: BarrierOptions): OpenedBarrier =>
    ask(BARRIER_OPEN, { name: "b", origin: "client:x", options: resolveBarrierOptions(options) }) as OpenedBarrier;

  const arrive = (opened: OpenedBarrier, ids: readonly number[], tick: number, phase: number, name = ""): Outcome => {
    const body = memory(new Uint8Array(arriveBytes(ids.length)));
    writeArrive(body, 0, opened.barrier, opened.session, tick, phase, ids, ids.length);
    return call(BARRIER_ARRIVE, body.bytes.subarray(0, arriveBytes(ids.length)), name);
  };

  return { engine, order, call, ask, open, arrive };
}

describe("the barrier engine", () => {
  it("answers who completes a phase after those whom he releases, each once", () => {
    const { open, arrive, order } = createShard();
    const opened = open({ phases: ["p"], members: ["a", "b", "c"] });
    const outcomes = [
      arrive(opened, [1], 0, 0, "first"),
      arrive(opened, [2], 0, 0, "second"),
      arrive(opened, [2], 0, 0, "again"),
      arrive(opened, [3], 0, 0, "last"),
    ];
    expect(order.slice(1)).toEqual(["first", "second", "again", "last"]);
    for (const { settled, frame } of outcomes) {
      expect(settled).toBe(1);
      expect(readArriveReply(frame as EngineRequest)).toEqual({ arrived: 3, members: 3 });
    }
  });

  it("answers a repeated arrival, and one that came late to a quorum, with what the phase ended as", () => {
    const { open, arrive } = createShard();
    const opened = open({ phases: ["p", "q"], members: ["a", "b", "c"], lossPolicy: "quorum", quorum: 2 });
    arrive(opened, [1, 2], 0, 0);
    for (const id of [1, 3])
      expect(readArriveReply(arrive(opened, [id], 0, 0).frame as EngineRequest)).toEqual({ arrived: 2, members: 3 });
  });

  it("fails held replies with the tick, and keeps those of the next one", () => {
    const { open, arrive, ask } = createShard();
    const opened = open({ phases: ["p"], members: ["a", "b"] });
    const now = arrive(opened, [1], 0, 0);
    const ahead = arrive(opened, [1], 1, 0);
    const { barrier, session } = opened;
    ask(BARRIER_POISON, { barrier, session, cause: errorToValue(new Error("bad")), member: "b" });
    expect(now.error).toMatchObject({ code: "ERR_BARRIER", details: { reason: "poisoned", member: "b" } });
    expect(ahead.settled).toBe(0);
    expect(ask(BARRIER_ADVANCE, { barrier, session, from: 0 })).toBe(1);
    arrive(opened, [2], 1, 0);
    expect(readArriveReply(ahead.frame as EngineRequest)).toEqual({ arrived: 2, members: 2 });
    expect([now.settled, ahead.settled]).toEqual([1, 1]);
  });

  it("fails what it holds when it closes", () => {
    const { open, arrive, engine } = createShard();
    const wait = arrive(open({ phases: ["p"], members: ["a", "b"] }), [1], 0, 0);
    engine.close();
    expect(wait).toMatchObject({ settled: 1, error: { code: "ERR_CLOSED" } });
  });

  it("checks options again, though its own clients have", () => {
    const { ask } = createShard();
    const options = { ...resolveBarrierOptions({ phases: ["p"] }), quorum: 9, lossPolicy: "quorum" };
    expect(() => ask(BARRIER_OPEN, { name: "b", origin: "x", options })).toThrow(/quorum must be/);
  });

  it("refuses damaged messages typed, reads nothing outside them, and goes on", () => {
    const seed = Number(process.env["SEED"] ?? 5);
    const random = createSeededRandom(seed);
    const { open, call, arrive } = createShard();
    const opened = open({ phases: ["p"], members: ["a", "b"] });
    const good = memory(new Uint8Array(arriveBytes(2)));
    writeArrive(good, 0, opened.barrier, opened.session, 0, 0, [1, 1], 2);
    let refused = 0;
    for (let round = 0; round < 20_000; round++) {
      const type = ALL[random.u32() % ALL.length] as number;
      const source =
        type === BARRIER_ARRIVE
          ? good.bytes.slice(0, arriveBytes(2))
          : encodeBody({ barrier: opened.barrier, session: 9, member: 5, from: {}, name: [], origin: 1, options: 3 });
      const cut = source.slice(0, random.u32() % (source.length + 1));
      for (let flips = random.u32() % 4; flips > 0 && cut.length > 0; flips--)
        cut[random.u32() % cut.length] = random.u32() & 0xff;
      const { error } = call(type, cut);
      if (error === undefined) continue;
      expect(["ERR_CORRUPT", "ERR_INVALID_ARGUMENT", "ERR_BARRIER"], `seed ${seed}: ${error.stack}`).toContain(
        error.code,
      );
      refused++;
    }
    expect(refused).toBeGreaterThan(15_000);
    const [first, second] = [arrive(opened, [1], 0, 0), arrive(opened, [2], 0, 0)];
    expect([first.settled, second.settled]).toEqual([1, 1]);
  });
});
