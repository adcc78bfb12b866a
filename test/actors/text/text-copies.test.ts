/** Copies of texts without threads: what a primary tells makes an equal copy, by effects and by snapshots, whatever comes twice. */
import { describe, expect, test } from "vitest";
import type { ReceivedEffect, SnapshotPart, WireMemory, WriteEffects } from "../../../actors/engine.ts";
import { INCLUDE } from "../../../actors/text/search-request.ts";
import { readCountReply, readSearchReply, readUpsertReply } from "../../../actors/text/text-replies.ts";
import { TEXT_DELETE, TEXT_UPSERT } from "../../../src/wire/message-types.ts";
import { randomFrom, wireMemory } from "../vector/support.ts";
import {
  type Document,
  Model,
  randomDocument,
  randomQuery,
  sameHits,
  TextBed,
  VSHARDS,
  vshardOfId,
} from "./support.ts";

const OPTIONS = { fields: { title: 2, body: 1 }, positions: true } as const;
const FIELDS = ["body", "title"];
const IDS = Array.from({ length: 120 }, (_, id) => id);
const ALL_VSHARDS = Array.from({ length: VSHARDS }, (_, vshard) => vshard);

interface Effect extends SnapshotPart {
  readonly vshard: number;
}

/** The effects of one write, as its shard tells them. */
class Told implements WriteEffects {
  readonly effects: Effect[] = [];
  published = 0;
  readonly maxBodyBytes: number;

  constructor(maxBodyBytes: number) {
    this.maxBodyBytes = maxBodyBytes;
  }

  touch(): void {
    // every vshard is here
  }

  add(vshard: number, type: number, collection: number, body: Uint8Array): void {
    if (this.published > 0) throw new Error("an effect came after its LSN");
    this.effects.push({ vshard, type, collection, body });
  }

  publish(): void {
    this.published++;
  }
}

function write<T>(
  bed: TextBed,
  type: number,
  request: { bytes: number; write: (m: WireMemory, offset: number) => void },
  read: (m: WireMemory, offset: number, length: number) => T,
  limit: number,
): { value: T; effects: Effect[] } {
  const memory = wireMemory(request.bytes + 64);
  request.write(memory, 16);
  const told = new Told(limit);
  const value = bed.send(type, { ...memory, offset: 16, length: request.bytes, effects: told }, read);
  memory.bytes.fill(0xff); // the ring is used again
  expect(told.published).toBe(1);
  return { value, effects: told.effects };
}

function upsert(bed: TextBed, documents: readonly Document[], limit: number): Effect[] {
  return write(bed, TEXT_UPSERT, bed.upsertRequest(documents), readUpsertReply, limit).effects;
}

function remove(bed: TextBed, ids: readonly number[], limit: number): Effect[] {
  return write(bed, TEXT_DELETE, bed.idsRequest(ids), readCountReply, limit).effects;
}

function apply(bed: TextBed, effect: Effect): void {
  const memory = wireMemory(effect.body.length + 40);
  memory.bytes.set(effect.body, 24);
  const received: ReceivedEffect = { ...memory, ...effect, offset: 24, length: effect.body.length };
  bed.engine.replicated.apply(received);
  memory.bytes.fill(0xee); // valid during the call only
}

/** Everything that can be seen of the documents of some vshards, versions included. */
function contents(bed: TextBed, vshards: readonly number[]): string[] {
  const ids = IDS.filter((id) => vshards.includes(vshardOfId(id)));
  return bed.get(ids).map((stored, at) => `${ids[at]} ${stored?.version} ${stored?.body.join()}`);
}

function expectEqual(copy: TextBed, primary: TextBed, random: () => number, vshards: readonly number[]): void {
  expect(contents(copy, vshards)).toEqual(contents(primary, vshards));
  const mask = new Uint8Array(VSHARDS);
  for (const vshard of vshards) mask[vshard] = 1;
  expect(copy.count(mask)).toBe(primary.count(mask));
  for (let at = 0; at < 5; at++) {
    const query = randomQuery(random, true);
    const settings = { k: 50, mask, flags: INCLUDE.FIELDS, prefix: random() < 0.3 };
    expect(copy.statistics(query, settings)).toEqual(primary.statistics(query, settings));
    expect(copy.search(query, settings).hits).toEqual(primary.search(query, settings).hits);
  }
}

describe("a copy", () => {
  test("equals its primary after every write's effects, also when they come twice", () => {
    const seed = Number(process.env["SEED"] ?? 1);
    console.log(`text-copies: SEED=${seed}`);
    const random = randomFrom(seed);
    const [primary, copy] = [new TextBed(OPTIONS), new TextBed(OPTIONS)];
    const model = new Model(OPTIONS);
    let split = 0;
    for (let round = 0; round < 50; round++) {
      const limit = random() < 0.5 ? 2 ** 20 : 400;
      const ids = new Set(Array.from({ length: 1 + Math.floor(random() * 40) }, () => Math.floor(random() * 120)));
      const batch = [...ids].map((id) => randomDocument(random, id, FIELDS));
      const effects = upsert(primary, batch, limit);
      for (const document of batch) model.put(document);
      const gone = Array.from({ length: Math.floor(random() * 15) }, () => Math.floor(random() * 120));
      effects.push(...remove(primary, gone, limit));
      for (const id of gone) model.documents.delete(id);
      if (effects.length > new Set(effects.map(({ vshard, type }) => `${vshard} ${type}`)).size) split++;
      for (const effect of effects) apply(copy, effect);
      const first = effects.filter(({ vshard }) => vshard === effects[0]?.vshard);
      if (random() < 0.3) for (const effect of first) apply(copy, effect);
      if (random() < 0.5) copy.engine.background?.(20);
      expectEqual(copy, primary, random, ALL_VSHARDS);
      const query = randomQuery(random, true);
      expect(sameHits(copy.search(query, { k: 20 }).hits, model.search(query), 20), query).toBeUndefined();
    }
    expect(split).toBeGreaterThan(5);
  });

  test("gives its own writes versions above all that it has seen", () => {
    const [primary, copy] = [new TextBed(OPTIONS), new TextBed(OPTIONS)];
    for (let round = 0; round < 30; round++)
      for (const effect of upsert(primary, [{ id: 1, fields: { body: "x" } }], 2 ** 20)) apply(copy, effect);
    copy.upsert([{ id: 2, fields: { body: "y" } }]);
    expect(copy.get([1, 2]).map((stored) => stored?.version)).toEqual([30, 31]);
    const next = new TextBed(OPTIONS, 0, copy);
    next.upsert([{ id: 3, fields: { body: "z" } }]);
    expect(next.get([1, 2]).map((stored) => stored?.version)).toEqual([30, 31]);
    expect(next.get([3])[0]?.version).toBeGreaterThan(31);
  });

  test("that is restored loses what its primary has not, keeps other vshards, and takes writes meanwhile", () => {
    const random = randomFrom(9);
    const [primary, copy] = [new TextBed(OPTIONS), new TextBed(OPTIONS)];
    primary.upsert(IDS.slice(0, 80).map((id) => randomDocument(random, id, FIELDS)));
    copy.upsert(IDS.slice(40).map((id) => randomDocument(random, id, FIELDS)));
    const [mine, other] = [ALL_VSHARDS.slice(0, 8), ALL_VSHARDS.slice(8)];
    const kept = contents(copy, other);
    let parts = 0;
    for (const vshard of mine) {
      copy.engine.replicated.beginRestore(vshard);
      const next = primary.engine.replicated.snapshot(vshard, 600);
      const late: Effect[] = [];
      for (let part = next(); part !== undefined; part = next()) {
        parts++;
        expect(part.body.length).toBeLessThan(3000);
        apply(copy, { ...part, vshard });
        // A write in the middle of the snapshot, whose effect comes after it.
        const ids = IDS.filter((id) => vshardOfId(id) === vshard);
        const id = ids[Math.floor(random() * ids.length)] as number;
        late.push(...upsert(primary, [randomDocument(random, id, FIELDS)], 2 ** 20));
        late.push(...remove(primary, [ids[Math.floor(random() * ids.length)] as number], 2 ** 20));
      }
      copy.engine.replicated.endRestore(vshard);
      for (const effect of late) apply(copy, effect);
    }
    expect(parts).toBeGreaterThan(mine.length);
    expectEqual(copy, primary, random, mine);
    expect(contents(copy, other)).toEqual(kept);
  });

  test("refuses damaged effects whole, and ignores those on collections that are gone", () => {
    const random = randomFrom(5);
    const [primary, copy] = [new TextBed(OPTIONS), new TextBed(OPTIONS)];
    const [first, ...rest] = IDS.filter((id) => vshardOfId(id) === 3);
    const documents = [first as number, ...rest].map((id) => randomDocument(random, id, FIELDS));
    const [effect] = upsert(primary, documents, 2 ** 20) as [Effect];
    const gone = remove(primary, rest, 2 ** 20)[0] as Effect;
    apply(copy, effect);
    const before = contents(copy, ALL_VSHARDS);
    let refused = 0;
    for (const whole of [effect, gone]) {
      for (let length = 0; length < whole.body.length; length += 8) {
        expect(() => apply(copy, { ...whole, body: whole.body.slice(0, length) })).toThrow(
          expect.objectContaining({ code: "ERR_CORRUPT" }),
        );
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(20);
    expect(contents(copy, ALL_VSHARDS)).toEqual(before);
    expect(() => apply(copy, { ...effect, collection: 99 })).toThrow(
      expect.objectContaining({ code: "ERR_UNKNOWN_COLLECTION", retryable: true }),
    );
    copy.drop();
    apply(copy, effect);
    expect(copy.engine.replicated.snapshot(3, 2 ** 20)()).toBeUndefined();
  });

  test("that takes over from a dead worker applies effects before its index is whole, and answers searches then", () => {
    const random = randomFrom(11);
    const [primary, dead] = [new TextBed(OPTIONS), new TextBed(OPTIONS)];
    const documents = IDS.map((id) => randomDocument(random, id, FIELDS));
    for (const effect of upsert(primary, documents, 2 ** 20)) apply(dead, effect);
    const copy = new TextBed(OPTIONS, 0, dead);
    expect(copy.status().unindexed).toBe(IDS.length);
    const mask = new Uint8Array(VSHARDS).fill(1, 0, 5);
    const held = copy.hold("run the", { k: 100, mask });
    for (const effect of upsert(primary, documents.slice(30, 60), 2 ** 20)) apply(copy, effect);
    for (const effect of remove(primary, IDS.slice(50, 70), 2 ** 20)) apply(copy, effect);
    expect(held.result).toBeUndefined();
    copy.settle();
    const { bytes } = held.result as { bytes: Uint8Array };
    const memory = wireMemory(bytes.length);
    memory.bytes.set(bytes);
    const { hits } = readSearchReply(memory, 0, bytes.length);
    expect(hits.length).toBeGreaterThan(5);
    expect(hits).toEqual(primary.search("run the", { k: 100, mask }).hits);
    expectEqual(copy, primary, random, ALL_VSHARDS);
  });
});
