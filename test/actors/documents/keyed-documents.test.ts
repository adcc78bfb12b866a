/** Effects of writes with keys change the documents that the effects inside them change. */
import { expect, test } from "vitest";
import { documentCodecOf, joinDocuments } from "../../../actors/document-codecs.ts";
import { idempotentEffect } from "../../../src/store/idempotent-effect.ts";
import { IDEMPOTENCY_KEYS, IDEMPOTENT_WRITE } from "../../../src/wire/message-types.ts";
import { randomFrom } from "../vector/support.ts";
import { textSubject, vectorSubject } from "./support.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);

test.each([
  ["vectors", vectorSubject],
  ["texts", textSubject],
])("of %s, whatever the key", (_, subject) => {
  const random = randomFrom(SEED);
  const { write } = subject();
  let changed = 0;
  for (let round = 0; round < 100; round++) {
    for (const { vshard, type, collection, body } of write(random)) {
      const key = "ä".repeat(1 + Math.floor(random() * 128));
      const entry = { type, collection, part: 0, key, items: 1, changed: 1, timeMs: 5 };
      const inside = documentCodecOf(type).changes(vshard, type, body);
      const around = documentCodecOf(IDEMPOTENT_WRITE).changes(vshard, IDEMPOTENT_WRITE, idempotentEffect(entry, body));
      expect(around).toEqual(inside);
      changed += inside.length;
      const nothing = idempotentEffect(entry, new Uint8Array(0));
      expect(documentCodecOf(IDEMPOTENT_WRITE).changes(vshard, IDEMPOTENT_WRITE, nothing)).toEqual([]);
      expect(documentCodecOf(IDEMPOTENCY_KEYS).changes(vshard, IDEMPOTENCY_KEYS, nothing)).toEqual([]);
    }
  }
  expect(changed).toBeGreaterThan(100);
});

test("a body that is none, or that holds another key, is refused typed", () => {
  const codec = documentCodecOf(IDEMPOTENT_WRITE);
  const entry = { type: IDEMPOTENT_WRITE, collection: 1, part: 0, key: "k", items: 1, changed: 1, timeMs: 5 };
  for (const body of [new Uint8Array(0), new Uint8Array(64), idempotentEffect(entry, Uint8Array.of(1))])
    expect(() => codec.changes(0, IDEMPOTENT_WRITE, body)).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
  expect(() => joinDocuments(IDEMPOTENT_WRITE, [])).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
});
