/** Messages of the strategies: what is written is read, and whatever else comes is refused typed or stays inside its record. */
import { describe, expect, test } from "vitest";
import type { Candidate } from "../../../../actors/vector/graph/label-search.ts";
import { decodeCalibration, encodeCalibration } from "../../../../actors/vector/routing/calibration-codec.ts";
import type { CompassCalibration } from "../../../../actors/vector/routing/compass-calibration.ts";
import { exchangePayload, readExchange } from "../../../../actors/vector/strategy/exchange-messages.ts";
import {
  nearReplyBytes,
  nearRequestBytes,
  readNearReply,
  readNearRequest,
  writeCandidates,
  writeNearReply,
  writeNearRequest,
} from "../../../../actors/vector/strategy/near-messages.ts";
import { ShardloomError } from "../../../../src/errors.ts";
import { createSeededRandom } from "../../../../src/runtime/random.ts";
import { wireMemory } from "../support.ts";

const seed = Number(process.env["SEED"] ?? 1);
const ROUNDS = 5_000;

const request = {
  collectionId: 7,
  wanted: 18,
  ef: 64,
  version: 3,
  entries: [5, 9, 11],
  leaves: [1, 2],
  code: Uint8Array.from({ length: 13 }, (_, at) => at),
  recallPpm: 950_000,
  level: 2,
  known: [-1.5, 0.1, 0.1].map((distance, at) => ({ vertex: 70 - at, distance })),
  others: [4, 0],
};

function candidateOf(at: number): Candidate {
  return { vertex: at, address: 2 ** 31 + at, incarnation: -at - 1, shard: at, distance: at / 3 };
}

describe("a near-data search", () => {
  test("is read as it was written, request and reply", () => {
    const memory = wireMemory(nearRequestBytes(request));
    writeNearRequest(memory, 0, request);
    const read = readNearRequest({ ...memory, offset: 0, length: nearRequestBytes(request) });
    const { entries, leaves, others = [] } = read;
    const [at, of, to] = [entries, leaves, others].map((list) => Array.from(list));
    expect({ ...read, entries: at, leaves: of, others: to }).toEqual(request);
    const candidates = [0, 1].map(candidateOf);
    const crossings = [3, 1, 2].map((shard) => ({ shard, vertex: 1_000 + shard }));
    const reply = wireMemory(nearReplyBytes(2, 3));
    const found = { candidates, distances: 99, rounds: 2, messages: 5, bytes: 2 ** 40 + 1, crossings };
    writeCandidates(reply, 0, found);
    expect(readNearReply({ ...reply, length: nearReplyBytes(2, 3) }, 0)).toEqual(found);
  });

  test("is answered whole, or not at all where the reply has no room for it", () => {
    const counts = { distances: 9, rounds: 0, messages: 0, bytes: 0 };
    const near = { candidates: [candidateOf(0), candidateOf(1)], ...counts, crossings: [{ shard: 1, vertex: 2 }] };
    const limitBytes = nearReplyBytes(2, 1);
    const memory = wireMemory(limitBytes);
    const claimed: number[] = [];
    const reply = { ...memory, offset: 0, claim: (bytes: number) => claimed.push(bytes), hold: () => undefined };
    expect(() => writeNearReply({ ...reply, limitBytes: nearReplyBytes(2) - 1 }, near)).toThrow(
      expect.objectContaining({ code: "ERR_RECORD_TOO_LARGE", details: { byteLength: 80, limitBytes: 79 } }),
    );
    expect(claimed).toEqual([]);
    writeNearReply({ ...reply, limitBytes }, near);
    expect([claimed, readNearReply({ ...memory, length: limitBytes }, 0)]).toEqual([[limitBytes], near]);
    const least = nearReplyBytes(2);
    writeNearReply({ ...reply, limitBytes: limitBytes - 1 }, near);
    expect([claimed[1], readNearReply({ ...memory, length: least }, 0)]).toEqual([least, { ...near, crossings: [] }]);
  });

  test("that was changed or cut on its way is refused typed, or is one of its length", () => {
    const random = createSeededRandom(seed);
    const bytes = nearRequestBytes(request);
    const memory = wireMemory(bytes);
    let refused = 0;
    for (let round = 0; round < ROUNDS; round++) {
      writeNearRequest(memory, 0, request);
      const word = random.u32() % (bytes >>> 2);
      memory.i32[word] = [-1, 0, 1, 0x7fff_ffff, -0x8000_0000, 1_000, random.u32() | 0][random.u32() % 7] as number;
      const length = random.float() < 0.3 ? random.u32() % bytes : bytes;
      try {
        const { entries, leaves, code, known = [], others = [] } = readNearRequest({ ...memory, offset: 0, length });
        const ids = entries.length + leaves.length + others.length;
        expect(12 * known.length + 4 * ids + code.length).toBeLessThanOrEqual(length);
      } catch (error) {
        if (!ShardloomError.is(error)) throw error;
        expect(error.code).toBe("ERR_CORRUPT");
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(ROUNDS / 20);
    const reply = wireMemory(nearReplyBytes(1));
    const read = (length: number): unknown => readNearReply({ ...reply, length }, 0);
    for (const [word, counts] of [
      [0, [-1, 2, 0x7fff_ffff]],
      [6, [-1, 4, 0x7fff_ffff]],
    ] as const) {
      for (const count of counts) {
        reply.i32[word] = count;
        expect(() => read(nearReplyBytes(1))).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
      }
      reply.i32[word] = 0;
    }
    expect(() => read(nearReplyBytes(0) - 8)).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
  });
});

describe("an exchange message", () => {
  test("is read as it was written, and anything else is refused", () => {
    const message = { kind: "table", from: 1, to: 2, bytes: Uint8Array.of(1, 2, 3) } as const;
    const payload = exchangePayload(9, message);
    const memory = wireMemory(payload.byteLength + 8);
    payload.write(memory, 0);
    const read = (length: number): unknown => readExchange({ ...memory, offset: 0, length });
    expect(read(payload.byteLength)).toMatchObject({ collection: 9, message: { kind: "table", from: 1, to: 2 } });
    for (const odd of [
      { kind: "table", from: 1, to: 2, bytes: "abc" },
      { kind: "offer", from: 1, to: 2, stamps: [{ shard: 1 }] },
      { kind: "request", from: 1, to: 2, shards: ["1"] },
      { kind: "part", from: 1, to: 2, shard: 1, checksum: 2, at: 0.5, total: 9, bytes: Uint8Array.of(1) },
      { kind: "rest", from: 1, to: 2, shard: 1, checksum: "2", at: 0 },
      { kind: "gossip", from: 1, to: 2 },
      { kind: "table", from: "1", to: 2, bytes: Uint8Array.of(1) },
      undefined,
    ]) {
      const body = exchangePayload(9, odd as typeof message);
      const other = wireMemory(body.byteLength + 8);
      body.write(other, 0);
      expect(() => readExchange({ ...other, offset: 0, length: body.byteLength })).toThrow(
        expect.objectContaining({ code: "ERR_CORRUPT" }),
      );
    }
    const random = createSeededRandom(seed);
    for (let round = 0; round < ROUNDS; round++) {
      payload.write(memory, 0);
      memory.bytes[random.u32() % payload.byteLength] = random.u32() & 255;
      try {
        read(random.float() < 0.3 ? random.u32() % payload.byteLength : payload.byteLength);
      } catch (error) {
        if (!ShardloomError.is(error)) throw error;
      }
    }
  });
});

test("a calibration that was kept never promises more than the one that was learnt", () => {
  const thresholds = [0.5, 0.25, 0.125];
  const calibration: CompassCalibration = [
    {
      effort: 0,
      depth: 10,
      model: { weights: [1, -2, 0.5], gapUnit: 3 },
      shardCurve: { thresholds, recalls: [0.123_456, 0.9, 1] },
      leafCurve: { thresholds, recalls: [0, 0.333_33, 0.999_99] },
    },
  ];
  const [kept] = decodeCalibration(encodeCalibration(calibration));
  expect(kept).toMatchObject({ effort: 0, depth: 10, model: { weights: [1, -2, 0.5], gapUnit: 3 } });
  expect(kept?.shardCurve).toEqual({ thresholds, recalls: [0.1234, 0.9, 1] });
  expect(kept?.leafCurve).toEqual({ thresholds, recalls: [0, 0.3333, 0.9999] });
  expect(decodeCalibration(encodeCalibration([]))).toEqual([]);
});
