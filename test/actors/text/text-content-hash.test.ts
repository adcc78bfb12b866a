/** What the hash of a vshard's texts depends on: the documents and their versions, and nothing else. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { WriteEffects } from "../../../actors/engine.ts";
import { readUpsertReply } from "../../../actors/text/text-replies.ts";
import { TEXT_UPSERT } from "../../../src/wire/message-types.ts";
import { wireMemory } from "../vector/support.ts";
import { type Document, TextBed, VSHARDS } from "./support.ts";

const OPTIONS = { fields: { title: 2, body: 1 } } as const;
const SEED = Number(process.env["SEED"] ?? 20_261_121);

interface Told {
  readonly vshard: number;
  readonly body: Uint8Array;
}

const open = (): TextBed => new TextBed(OPTIONS);

/** The effects of upserting documents one by one. */
function effectsOf(bed: TextBed, documents: readonly Document[]): Told[] {
  const told: Told[] = [];
  const effects: WriteEffects = {
    touch: () => undefined,
    maxBodyBytes: 1 << 20,
    add: (vshard, _type, _collection, body) => void told.push({ vshard, body }),
    publish: () => undefined,
  };
  for (const document of documents) {
    const { bytes, write } = bed.upsertRequest([document]);
    const memory = wireMemory(bytes + 64);
    write(memory, 16);
    bed.send(TEXT_UPSERT, { ...memory, offset: 16, length: bytes, effects }, readUpsertReply);
  }
  return told;
}

function apply(bed: TextBed, { vshard, body }: Told): void {
  const memory = wireMemory(body.length);
  memory.bytes.set(body);
  const effect = { ...memory, vshard, type: TEXT_UPSERT, collection: 1, offset: 0, length: body.length };
  bed.engine.replicated.apply(effect);
}

function hashesOf(bed: TextBed): bigint[] {
  return Array.from({ length: VSHARDS }, (_, vshard) => bed.engine.replicated.contentHash(vshard));
}

const documents = fc.uniqueArray(
  fc.record({
    id: fc.integer({ min: 0, max: 500 }),
    fields: fc.record({ title: fc.string({ maxLength: 12 }), body: fc.lorem({ maxCount: 5 }) }),
  }),
  { selector: ({ id }) => id, minLength: 1, maxLength: 16 },
);

test(`the same texts have the same hash in whatever order and rows, seed ${SEED}`, () => {
  fc.assert(
    fc.property(documents, fc.infiniteStream(fc.nat()), fc.nat({ max: 9 }), (list, order, before) => {
      const told = effectsOf(open(), list);
      const one = open();
      for (const effect of told) apply(one, effect);
      const other = open();
      const noise = Array.from({ length: before }, (_, at) => ({ id: `noise-${at}`, fields: { body: "gone later" } }));
      if (noise.length > 0) other.upsert(noise);
      const ranked = told.map((effect) => ({ effect, rank: order.next().value as number }));
      for (const { effect } of ranked.sort((a, b) => a.rank - b.rank)) apply(other, effect);
      if (noise.length > 0) other.delete(noise.map(({ id }) => id));
      expect(hashesOf(other)).toEqual(hashesOf(one));
      expect(hashesOf(one).filter((hash) => hash !== 0n).length).toBeGreaterThan(0);
    }),
    { seed: SEED, numRuns: 40 },
  );
});

test(`a text, an id or a version that differs gives another hash, seed ${SEED}`, () => {
  fc.assert(
    fc.property(documents, fc.nat(), fc.constantFrom("title", "body", "version"), (list, which, what) => {
      const at = which % list.length;
      const told = effectsOf(open(), list);
      const changed = list.map((document, index) =>
        index !== at || what === "version"
          ? document
          : { ...document, fields: { ...document.fields, [what]: `${document.fields[what as "title"]}x` } },
      );
      const others = effectsOf(
        open(),
        what === "version" ? [{ id: "first", fields: { body: "x" } }, ...list] : changed,
      );
      const one = open();
      const other = open();
      for (const effect of told) apply(one, effect);
      for (const effect of what === "version" ? others.slice(1) : others) apply(other, effect);
      const { vshard } = told[at] as Told;
      expect(hashesOf(other)[vshard]).not.toBe(hashesOf(one)[vshard]);
    }),
    { seed: SEED, numRuns: 40 },
  );
});
