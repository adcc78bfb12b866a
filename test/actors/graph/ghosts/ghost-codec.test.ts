/** Ghost messages: what is written is read, and what was damaged is read as something that could have been written, or refused. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { EngineRequest } from "../../../../actors/engine.ts";
import {
  GHOST_STATUS,
  type GhostChanges,
  type GhostStatus,
  ghostChangesBytes,
  ghostQuestionBytes,
  ghostReplyBytes,
  readGhostChanges,
  readGhostQuestion,
  readGhostReply,
  writeGhostChanges,
  writeGhostQuestion,
  writeGhostReply,
} from "../../../../actors/graph/ghosts/ghost-codec.ts";
import { ShardloomError } from "../../../../src/errors.ts";

const OFFSET = 64;

function record(length: number): EngineRequest {
  const buffer = new ArrayBuffer(OFFSET + Math.ceil(length / 8) * 8 + 64);
  const views = { i32: new Int32Array(buffer), f32: new Float32Array(buffer), f64: new Float64Array(buffer) };
  const bytes = new Uint8Array(buffer).fill(0xee); // what was not written is seen
  return { ...views, bytes, offset: OFFSET, length };
}

const key = fc.oneof(fc.maxSafeNat(), fc.string({ unit: "grapheme", minLength: 1, maxLength: 40 }));
const shard = fc.nat(65_535);
const change = (references: fc.Arbitrary<number>) => fc.record({ key, references, version: fc.maxSafeNat() });
const changes = (references: fc.Arbitrary<number>): fc.Arbitrary<GhostChanges> =>
  fc.record({
    collectionId: fc.integer(),
    holder: shard,
    holderEpoch: fc.maxSafeNat(),
    changes: fc.array(change(references), { maxLength: 8 }),
  });
const create = changes(fc.integer({ min: 1, max: 2 ** 31 - 1 }));
const remove = changes(fc.constant(0));
const question = fc.record({ collectionId: fc.integer(), asker: shard, keys: fc.array(key, { maxLength: 8 }) });
const status = fc.constantFrom<GhostStatus>(...Object.values(GHOST_STATUS));
const reply = fc.record({ ownerEpoch: fc.maxSafeNat(), statuses: fc.array(status, { maxLength: 20 }) });

function encoded(message: GhostChanges): EngineRequest {
  const m = record(ghostChangesBytes(message));
  writeGhostChanges(m, OFFSET, message);
  return m;
}

describe("ghost messages", () => {
  test("are read as they were written", () => {
    fc.assert(
      fc.property(create, remove, question, reply, (made, deleted, asked, answered) => {
        expect(readGhostChanges(encoded(made), "create")).toEqual(made);
        expect(readGhostChanges(encoded(deleted), "delete")).toEqual(deleted);
        const q = record(ghostQuestionBytes(asked));
        writeGhostQuestion(q, OFFSET, asked);
        expect(readGhostQuestion(q)).toEqual(asked);
        const r = record(ghostReplyBytes(answered));
        writeGhostReply(r, OFFSET, answered);
        expect(readGhostReply(r, answered.statuses.length)).toEqual(answered);
      }),
    );
  });

  test("a create without references and a delete with some are refused", () => {
    const message = { collectionId: 1, holder: 2, holderEpoch: 3, changes: [{ key: "a", references: 1, version: 1 }] };
    expect(() => readGhostChanges(encoded(message), "delete")).toThrow(
      /Cannot decode ghost delete message as references/,
    );
    const empty = { ...message, changes: [{ key: "a", references: 0, version: 1 }] };
    expect(() => readGhostChanges(encoded(empty), "create")).toThrow(/ghost create message as references/);
  });

  test("an answer to another number of questions is refused", () => {
    const m = record(ghostReplyBytes({ ownerEpoch: 1, statuses: [1, 0] }));
    writeGhostReply(m, OFFSET, { ownerEpoch: 1, statuses: [1, 0] });
    expect(() => readGhostReply(m, 3)).toThrow(/count must fit/);
    m.bytes[OFFSET + 17] = 3;
    expect(() => readGhostReply(m, 2)).toThrow(/status must fit/);
  });

  test("whose last key is cut are refused, with whatever may lie behind", () => {
    const message = {
      collectionId: 1,
      holder: 2,
      holderEpoch: 3,
      changes: [{ key: "x".repeat(20), references: 1, version: 1 }],
    };
    const whole = encoded(message);
    const needed = 24 + 16 + 20;
    for (let length = 0; length <= whole.length; length++) {
      const read = (): GhostChanges => readGhostChanges({ ...whole, length }, "create");
      if (length < needed) expect(read).toThrow(/Cannot decode ghost create message/);
      else expect(read()).toEqual(message);
    }
  });

  test("with any bytes in them, or cut anywhere, end in a message or ERR_CORRUPT, and nothing behind them is read", () => {
    const damage = fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 4 });
    fc.assert(
      fc.property(create, damage, fc.nat(300), (message, bytes, cut) => {
        const m = encoded(message);
        for (const [at, byte] of bytes) m.bytes[OFFSET + (at % m.length)] = byte;
        const short = { ...m, length: Math.max(0, m.length - (cut > 150 ? 0 : cut)) };
        for (const read of [
          () => readGhostChanges(short, "create"),
          () => readGhostQuestion(short),
          () => readGhostReply(short, 1),
        ]) {
          try {
            const got = read();
            if ("changes" in got) expect(got.changes.length * 16).toBeLessThanOrEqual(m.length);
          } catch (error) {
            expect(ShardloomError.is(error) && error.code).toBe("ERR_CORRUPT");
          }
        }
      }),
      { numRuns: 1000 },
    );
  });
});
