/** Datagrams survive as they are; whatever was damaged is no message. */
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  decodeHeartbeat,
  encodePing,
  encodePong,
  type Ping,
  type Pong,
  pongRoom,
  SAMPLE_BYTES,
  SHARD_BYTES,
} from "../../src/topology/heartbeat-codec.ts";

const count = fc.maxSafeNat();
const u32 = fc.nat(0xffff_ffff);
const name = fc.string({ minLength: 1, maxLength: 40, unit: "grapheme" });
const t0 = fc.double({ min: 0, max: 1e12, noNaN: true });
const ping: fc.Arbitrary<Ping> = fc.record({
  kind: fc.constant("ping" as const),
  name,
  incarnation: u32,
  sequence: count,
  t0,
  have: fc.oneof(fc.constant(-1), count),
  haveOf: u32,
});
const pong: fc.Arbitrary<Pong> = fc
  .record({
    kind: fc.constant("pong" as const),
    name,
    incarnation: u32,
    sequence: count,
    t0,
    answers: count,
    answersOf: u32,
    version: count,
    base: fc.constant(-1),
    mapEpoch: u32,
    part: fc.nat(9),
    parts: fc.integer({ min: 10, max: 0xffff }),
    shards: fc.array(fc.record({ shard: fc.nat(255), state: fc.nat(5), incarnation: u32 }), { maxLength: 5 }),
    samples: fc.array(fc.record({ index: fc.nat(524_287), lsn: fc.oneof(fc.constant(-1), count) }), { maxLength: 20 }),
  })
  .map((message) => ({ ...message, base: message.version % 2 === 0 ? -1 : message.version }));
const message = fc.oneof(ping, pong);

function encode(heartbeat: Ping | Pong): Uint8Array {
  return heartbeat.kind === "ping" ? encodePing(heartbeat) : encodePong(heartbeat);
}

test("every message comes out as it went in, at any place of a buffer", () => {
  fc.assert(
    fc.property(message, fc.nat(7), (heartbeat, offset) => {
      const bytes = encode(heartbeat);
      const placed = new Uint8Array(bytes.length + offset + 3).fill(0xee);
      placed.set(bytes, offset);
      expect(decodeHeartbeat(placed.subarray(offset, offset + bytes.length))).toEqual(heartbeat);
      if (heartbeat.kind === "pong") {
        const content = SHARD_BYTES * heartbeat.shards.length + SAMPLE_BYTES * heartbeat.samples.length;
        expect(pongRoom(bytes.length, heartbeat.name)).toBe(content);
      }
    }),
  );
});

test("what was damaged, cut short or lengthened is no message", () => {
  const damage = fc.record({
    at: fc.nat(),
    flip: fc.integer({ min: 1, max: 255 }),
    kind: fc.constantFrom("flip", "cut", "append"),
  });
  fc.assert(
    fc.property(message, damage, (heartbeat, { at, flip, kind }) => {
      const bytes = encode(heartbeat);
      const place = at % bytes.length;
      if (kind === "flip") bytes[place] = (bytes[place] as number) ^ flip;
      const damaged =
        kind === "cut" ? bytes.slice(0, place) : kind === "append" ? Uint8Array.of(...bytes, flip & 0xff) : bytes;
      expect(decodeHeartbeat(damaged)).toBeUndefined();
    }),
    { numRuns: 1_000 },
  );
});

test("numbers out of range are no message, however well they are sealed", () => {
  const good: Pong = {
    kind: "pong",
    name: "a",
    incarnation: 1,
    sequence: 1,
    t0: 5,
    answers: 1,
    answersOf: 1,
    version: 3,
    base: 2,
    mapEpoch: 1,
    part: 0,
    parts: 1,
    shards: [{ shard: 1, state: 1, incarnation: 1 }],
    samples: [{ index: 4, lsn: 9 }],
  };
  expect(decodeHeartbeat(encodePong(good))).toEqual(good);
  const bad: Partial<Pong>[] = [
    { sequence: -1 },
    { sequence: 1.5 },
    { t0: Number.NaN },
    { answers: 2 ** 60 },
    { version: -1 },
    { base: 4 },
    { base: -2 },
    { part: 1 },
    { parts: 0 },
    { shards: [{ shard: 256, state: 1, incarnation: 1 }] },
    { shards: [{ shard: 1, state: 6, incarnation: 1 }] },
    { samples: [{ index: 1, lsn: -2 }] },
    { samples: [{ index: 1, lsn: Number.NaN }] },
    { samples: [{ index: 2 ** 31, lsn: 1 }] },
  ];
  for (const part of bad)
    expect(decodeHeartbeat(encodePong({ ...good, ...part })), JSON.stringify(part)).toBeUndefined();
});
