/** Messages of the collaborative search: what is written is read, sizes are those of the layout, and no bytes get past the decoder unharmed. */
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  ASK_NEIGHBOURS,
  type CotraMessage,
  decodeMessage,
  encodeMessage,
  MESSAGE,
  REASONS,
  REPLY_NEEDS_QUERY,
  REPLY_STOLEN,
  STOP_REPORT,
} from "../../../../actors/vector/cotra/cotra-messages.ts";
import { resolveSettings, settingsFromBytes, settingsToBytes } from "../../../../actors/vector/cotra/cotra-options.ts";
import { createTally } from "../../../../actors/vector/cotra/cotra-tally.ts";
import type { Pairs } from "../../../../actors/vector/cotra/message-bytes.ts";
import { ShardloomError } from "../../../../src/errors.ts";

/** Bytes before those of a code: their number, and the form. */
const CODE_HEAD = 5;
const peer = fc.integer({ min: 0, max: 65_535 });
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const vertex = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const distance = fc.float({ noNaN: true, noDefaultInfinity: true });
const bound = fc.oneof(distance, fc.constant(Number.POSITIVE_INFINITY));
const header = { from: peer, origin: peer, serial: u32, sequence: u32 };
const ids = fc.array(vertex, { maxLength: 20 }).map((list) => Int32Array.from(list));
/** Codes as they are, and such as are full of zeros. */
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc
    .array(fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat(255)), { maxLength: 90 })
    .map((list) => Uint8Array.from(list)),
);

function pairs(distances: fc.Arbitrary<number>): fc.Arbitrary<Pairs> {
  return fc.array(fc.tuple(vertex, distances), { maxLength: 20 }).map((list) => ({
    vertices: Int32Array.from(list, ([id]) => id),
    distances: Float32Array.from(list, ([, d]) => d),
  }));
}

const tally = fc.record({
  computations: u32,
  pulled: u32,
  stolen: u32,
  listReads: u32,
  pushes: u32,
  messages: u32,
  bytes: u32,
});

const start = fc
  .record({
    type: fc.constant(MESSAGE.START),
    ...header,
    remainingMs: u32,
    k: fc.integer({ min: 1, max: 100 }),
    ef: fc.integer({ min: 100, max: 65_535 }),
    settings: fc.constant(settingsToBytes(resolveSettings({ group: 4, patience: 0 }))),
    primaries: fc.uniqueArray(peer, { minLength: 1, maxLength: 16 }),
    seeds: pairs(fc.oneof(distance, fc.constant(Number.NaN))),
    query: bytes,
  })
  .map((message) => ({ ...message, leader: message.primaries[0] as number }));

const message: fc.Arbitrary<CotraMessage> = fc.oneof(
  start,
  fc.record({ type: fc.constant(MESSAGE.SYNC), ...header, bound, tops: pairs(distance), ids }),
  fc.record({
    type: fc.constant(MESSAGE.ASK),
    ...header,
    flags: fc.constantFrom(0, ASK_NEIGHBOURS),
    bound,
    ids,
    query: bytes,
  }),
  fc.record({
    type: fc.constant(MESSAGE.REPLY),
    ...header,
    flags: fc.constantFrom(0, REPLY_NEEDS_QUERY, REPLY_STOLEN),
    pairs: pairs(distance),
    ids,
  }),
  fc.record({
    type: fc.constant(MESSAGE.TOKEN),
    ...header,
    generation: u32,
    count: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    black: fc.boolean(),
    lost: fc.array(peer, { maxLength: 8 }),
    tally,
  }),
  fc.record({
    type: fc.constant(MESSAGE.RESULT),
    ...header,
    reason: fc.constantFrom(...REASONS),
    missing: fc.array(peer, { maxLength: 8 }),
    hits: pairs(distance),
    tally,
  }),
  fc.record({ type: fc.constant(MESSAGE.STOP), ...header, flags: fc.constantFrom(0, STOP_REPORT) }),
);

test("every message survives, also from the middle of a buffer", () => {
  fc.assert(
    fc.property(message, fc.nat(7), (sent, shift) => {
      const encoded = encodeMessage(sent);
      const buffer = new Uint8Array(encoded.length + shift + 3).fill(0xff);
      buffer.set(encoded, shift);
      expect(decodeMessage(buffer.subarray(shift, shift + encoded.length))).toEqual(sent);
    }),
    { numRuns: 200 },
  );
});

test("what is decoded is a copy", () => {
  const none = { vertices: new Int32Array(0), distances: new Float32Array(0) };
  const base = { from: 1, origin: 2, serial: 3, sequence: 4 };
  const encoded = encodeMessage({ type: MESSAGE.SYNC, ...base, bound: 5, tops: none, ids: Int32Array.of(7) });
  const decoded = decodeMessage(encoded);
  encoded.fill(0xee);
  expect(decoded).toMatchObject({ ids: Int32Array.of(7), bound: 5 });
});

test("sizes are those of the layout", () => {
  const base = { from: 1, origin: 2, serial: 3, sequence: 4 };
  const two = { vertices: Int32Array.of(1, 2), distances: Float32Array.of(3, 4) };
  const size = (sent: CotraMessage): number => encodeMessage(sent).length;
  expect(size({ type: MESSAGE.STOP, ...base, flags: 0 })).toBe(16);
  expect(size({ type: MESSAGE.SYNC, ...base, bound: 1, tops: two, ids: Int32Array.of(1, 2, 3) })).toBe(
    16 + 8 + 16 + 12,
  );
  expect(
    size({ type: MESSAGE.TOKEN, ...base, generation: 1, count: -1, black: true, lost: [], tally: createTally() }),
  ).toBe(54);
  const query = new Uint8Array(784).fill(1);
  expect(size({ type: MESSAGE.ASK, ...base, flags: 0, bound: 1, ids: Int32Array.of(1), query })).toBe(
    16 + 6 + 4 + CODE_HEAD + 784,
  );
});

test("a list that the layout cannot count is refused", () => {
  const tops = { vertices: new Int32Array(0), distances: new Float32Array(0) };
  const sent = { type: MESSAGE.SYNC, from: 0, origin: 0, serial: 0, sequence: 0, bound: 1, tops } as const;
  expect(() => encodeMessage({ ...sent, ids: new Int32Array(65_536) })).toThrow(
    expect.objectContaining({ code: "ERR_RECORD_TOO_LARGE" }),
  );
});

/** Decodes what may be anything: a refusal is typed, and what is accepted means exactly those bytes. */
function tolerate(input: Uint8Array): "accepted" | "refused" {
  let decoded: CotraMessage;
  try {
    decoded = decodeMessage(input);
  } catch (error) {
    expect(ShardloomError.is(error) && error.code).toBe("ERR_CORRUPT");
    return "refused";
  }
  // A distance that is not a number has many forms; only seeds may have it.
  if (decoded.type !== MESSAGE.START) expect(encodeMessage(decoded)).toEqual(input.slice());
  return "accepted";
}

test("truncated, extended and mutated messages are refused with a type or mean what they say", () => {
  let refused = 0;
  let accepted = 0;
  fc.assert(
    fc.property(message, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }), (sent, edits) => {
      const encoded = encodeMessage(sent);
      for (let length = 0; length < encoded.length; length++)
        expect(tolerate(encoded.subarray(0, length))).toBe("refused");
      expect(tolerate(Uint8Array.of(...encoded, 0))).toBe("refused");
      for (const [at, value] of edits) encoded[at % encoded.length] = value;
      if (tolerate(encoded) === "refused") refused++;
      else accepted++;
    }),
    { numRuns: 200 },
  );
  expect(refused).toBeGreaterThan(20);
  expect(accepted).toBeGreaterThan(20);
});

test("a query full of zeros takes a bit for each, any other its bytes, and the longer form is refused", () => {
  const ask = (query: Uint8Array): Uint8Array =>
    encodeMessage({
      ...{ type: MESSAGE.ASK, flags: 0, from: 1, origin: 2, serial: 3, sequence: 4, bound: 5 },
      ids: new Int32Array(0),
      query,
    });
  const head = ask(new Uint8Array(0)).length;
  const sparse = new Uint8Array(784);
  for (let at = 0; at < 150; at++) sparse[at * 5] = 1 + at;
  expect(ask(sparse).length - head).toBe(784 / 8 + 150);
  expect(ask(sparse.map((value) => value | 1)).length - head).toBe(784);
  const longer = Uint8Array.of(...ask(new Uint8Array(0)), ...new Uint8Array(16));
  longer[head - CODE_HEAD] = 16;
  expect(tolerate(longer)).toBe("refused");
  longer.fill(7, head);
  expect(tolerate(longer)).toBe("accepted");
});

test("noise is refused, and counts beyond the bytes allocate nothing", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => void tolerate(noise)),
    { numRuns: 2000 },
  );
  for (const form of [0, 1]) {
    const huge = new Uint8Array(27);
    new DataView(huge.buffer).setUint8(0, MESSAGE.ASK);
    new DataView(huge.buffer).setUint32(22, 0xffff_ffff, true);
    new DataView(huge.buffer).setUint8(26, form);
    expect(tolerate(huge)).toBe("refused");
  }
});

test("settings survive, and none out of range get through", () => {
  const settings = resolveSettings({ firstGroup: 2, group: 4, syncEvery: 3, pullDegree: 0, patience: 7 });
  expect(settingsFromBytes(settingsToBytes(settings))).toEqual(settings);
  for (const wrong of [{ group: 0 }, { syncEvery: 256 }, { patience: -1 }, { pullDegree: 1.5 }, { primaryShare: 0 }])
    expect(() => resolveSettings(wrong)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
});
