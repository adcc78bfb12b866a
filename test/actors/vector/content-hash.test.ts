/** What a vshard's hash depends on: the documents and their versions, and nothing else. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { EngineRequest, ReplicatedEngine, WriteEffects } from "../../../actors/engine.ts";
import {
  UPSERT_HEADER,
  UPSERT_ITEM_HEADER,
  upsertRequestBytes,
  writeUpsertRequest,
} from "../../../actors/vector/vector-requests.ts";
import { VECTOR_UPSERT } from "../../../src/wire/message-types.ts";
import { Bed, type Document, toItem, wireMemory } from "./support.ts";

const DIMENSIONS = 3;
const VSHARDS = 64;
const SEED = Number(process.env["SEED"] ?? 20_261_121);

interface Told {
  readonly vshard: number;
  readonly body: Uint8Array;
}

function replicated(bed: Bed): ReplicatedEngine {
  return bed.engine.replicated as ReplicatedEngine;
}

function open(): Bed {
  const bed = new Bed();
  bed.open({ dimensions: DIMENSIONS });
  return bed;
}

/** The effects of upserting documents one by one. */
function effectsOf(documents: readonly Document[]): Told[] {
  const bed = open();
  const told: Told[] = [];
  const effects: WriteEffects = {
    touch: () => undefined,
    maxBodyBytes: 1 << 20,
    add: (vshard, _type, _collection, body) => void told.push({ vshard, body }),
    publish: () => undefined,
  };
  for (const document of documents) {
    const items = [toItem(document)];
    const bytes = upsertRequestBytes(DIMENSIONS, items);
    const memory = wireMemory(bytes + 64);
    writeUpsertRequest(memory, 16, 1, DIMENSIONS, items);
    const request: EngineRequest = { ...memory, offset: 16, length: bytes, effects };
    bed.send(VECTOR_UPSERT, request, () => undefined);
  }
  return told;
}

function apply(bed: Bed, { vshard, body }: Told): void {
  const memory = wireMemory(body.length);
  memory.bytes.set(body);
  const effect = { ...memory, vshard, type: VECTOR_UPSERT, collection: 1, offset: 0, length: body.length };
  replicated(bed).apply(effect);
}

function hashesOf(bed: Bed): bigint[] {
  return Array.from({ length: VSHARDS }, (_, vshard) => replicated(bed).contentHash(vshard));
}

const float = fc.float({ noNaN: true, noDefaultInfinity: true });
const documents = fc.uniqueArray(
  fc.record({
    id: fc.oneof(fc.integer({ min: 0, max: 500 }), fc.string({ minLength: 1, maxLength: 8, unit: "grapheme-ascii" })),
    vector: fc.tuple(float, float, float),
    payload: fc.option(fc.string({ maxLength: 12 }), { nil: undefined }),
  }),
  { selector: ({ id }) => `${typeof id}${id}`, minLength: 1, maxLength: 24 },
);

test(`the same documents have the same hash in whatever order and rows, seed ${SEED}`, () => {
  fc.assert(
    fc.property(documents, fc.infiniteStream(fc.nat()), fc.nat({ max: 9 }), (list, order, before) => {
      const told = effectsOf(list);
      const one = open();
      for (const effect of told) apply(one, effect);
      const other = open();
      const noise = Array.from({ length: before }, (_, at) => ({ id: `noise-${at}-long`, vector: [1, 2, 3] }));
      if (noise.length > 0) other.upsert(DIMENSIONS, noise);
      const ranked = told.map((effect) => ({ effect, rank: order.next().value as number }));
      for (const { effect } of ranked.sort((a, b) => a.rank - b.rank)) apply(other, effect);
      other.delete(noise.map(({ id }) => id));
      expect(hashesOf(other)).toEqual(hashesOf(one));
      expect(hashesOf(one).filter((hash) => hash !== 0n).length).toBeGreaterThan(0);
    }),
    { seed: SEED, numRuns: 60 },
  );
});

test(`any byte that differs gives another hash, seed ${SEED}`, () => {
  fc.assert(
    fc.property(documents, fc.nat(), fc.nat(), fc.integer({ min: 0, max: 7 }), (list, which, where, bit) => {
      const told = effectsOf(list);
      const at = which % told.length;
      const { vshard, body } = told[at] as Told;
      const changed = body.slice();
      // vector, id and payload follow the headers; behind them and their padding is the version
      const i32 = new Int32Array(body.buffer);
      const idBytes = (i32[8] as number) & 0xffffff;
      const content = 4 * DIMENSIONS + idBytes + (i32[9] as number);
      const place = where % (content + 1);
      if (place === content) {
        const versions = new Float64Array(changed.buffer, changed.length - 8);
        versions[0] = (versions[0] as number) + 2 ** (4 * bit);
      } else {
        const offset = UPSERT_HEADER + UPSERT_ITEM_HEADER + place;
        changed[offset] = (changed[offset] as number) ^ (1 << bit);
      }
      const one = open();
      const other = open();
      for (const [index, effect] of told.entries()) {
        apply(one, effect);
        apply(other, index === at ? { vshard, body: changed } : effect);
      }
      const differs = hashesOf(one)[vshard] !== hashesOf(other)[vshard];
      expect(differs).toBe(true);
    }),
    { seed: SEED, numRuns: 150 },
  );
});
