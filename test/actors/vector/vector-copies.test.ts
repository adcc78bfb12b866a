/** Effects of vector writes: a copy that applies them, or a snapshot, has what the primary has, versions included. */
import { describe, expect, test } from "vitest";
import type { EngineRequest, ReplicatedEngine, WireMemory, WriteEffects } from "../../../actors/engine.ts";
import { UpsertBodies } from "../../../actors/vector/effect-bodies.ts";
import {
  idsRequestBytes,
  upsertRequestBytes,
  writeIdsRequest,
  writeUpsertRequest,
} from "../../../actors/vector/vector-requests.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { hashId } from "../../../src/topology/stable-hash.ts";
import { VECTOR_DELETE, VECTOR_UPSERT } from "../../../src/wire/message-types.ts";
import { Bed, type Document, randomFrom, toItem, wireMemory } from "./support.ts";

const DIMENSIONS = 3;
const SEED = Number(process.env["SEED"] ?? 20_261_122);

interface Told {
  readonly vshard: number;
  readonly type: number;
  readonly collection: number;
  readonly body: Uint8Array;
}

/** Where a bed's writes tell their effects. */
class Tape implements WriteEffects {
  readonly maxBodyBytes: number;
  readonly told: Told[] = [];
  published = 0;

  constructor(maxBodyBytes = 1 << 20) {
    this.maxBodyBytes = maxBodyBytes;
  }

  touch(): void {
    // every vshard is here
  }

  add(vshard: number, type: number, collection: number, body: Uint8Array): void {
    this.told.push({ vshard, type, collection, body });
  }

  publish(): void {
    this.published++;
  }
}

function replicated(bed: Bed): ReplicatedEngine {
  return bed.engine.replicated as ReplicatedEngine;
}

function apply(bed: Bed, { vshard, type, collection, body }: Told): void {
  const memory = wireMemory(body.length + 32);
  memory.bytes.set(body, 24);
  replicated(bed).apply({ ...memory, vshard, type, collection, offset: 24, length: body.length });
}

function write(bed: Bed, type: number, bytes: number, fill: (m: WireMemory, offset: number) => void, tape: Tape): void {
  const memory = wireMemory(bytes + 64);
  fill(memory, 16);
  const request: EngineRequest = { ...memory, offset: 16, length: bytes, effects: tape };
  bed.send(type, request, () => undefined);
}

function upsert(bed: Bed, documents: readonly Document[], tape: Tape): void {
  const items = documents.map(toItem);
  const bytes = upsertRequestBytes(DIMENSIONS, items);
  write(bed, VECTOR_UPSERT, bytes, (m, offset) => writeUpsertRequest(m, offset, 1, DIMENSIONS, items), tape);
}

function remove(bed: Bed, ids: readonly number[], tape: Tape): void {
  const fill = (m: WireMemory, offset: number): void => writeIdsRequest(m, offset, 1, ids, ids.map(hashId));
  write(bed, VECTOR_DELETE, idsRequestBytes(ids), fill, tape);
}

const range = (count: number): number[] => Array.from({ length: count }, (_, at) => at);

function contents(bed: Bed, ids: readonly number[]): string[] {
  return bed
    .get(ids)
    .map((stored, at) => `${ids[at]}: ${stored?.version} ${stored?.vector?.join()} ${stored?.payload?.join()}`);
}

function opened(): Bed {
  const bed = new Bed();
  bed.open({ dimensions: DIMENSIONS, metric: "l2" });
  return bed;
}

/** Random upserts and deletes of 60 ids. */
function churn(bed: Bed, random: () => number, steps: number, tape: Tape): void {
  for (let step = 0; step < steps; step++) {
    const ids = [...new Set(range(1 + Math.floor(random() * 12)).map(() => Math.floor(random() * 60)))];
    if (random() < 0.3) remove(bed, ids, tape);
    else
      upsert(
        bed,
        ids.map((id) => ({ id, vector: [id, step, random()], ...(random() < 0.5 ? { payload: { step } } : {}) })),
        tape,
      );
  }
}

describe("a copy", () => {
  test("that applies every effect once or twice in order is equal", () => {
    console.info(`vector copies: SEED=${SEED}`);
    const random = randomFrom(SEED);
    const primary = opened();
    const copy = opened();
    const tape = new Tape();
    churn(primary, random, 200, tape);
    expect(tape.published).toBe(200);
    for (const effect of tape.told) {
      apply(copy, effect);
      if (random() < 0.2) apply(copy, effect);
    }
    const ids = range(60);
    expect(contents(copy, ids)).toEqual(contents(primary, ids));
    expect(primary.count()).toBeGreaterThan(5);
    expect(copy.count()).toBe(primary.count());
    const query = [30, 100, 0.5];
    const ranked = (bed: Bed): unknown => bed.search(query, 40).hits.map(({ id, score }) => [id, score]);
    expect(ranked(copy)).toEqual(ranked(primary));
    // A write of its own gets a version above all that it has seen.
    const highest = Math.max(...primary.get(ids).map((stored) => stored?.version ?? 0));
    const { firstVersion } = copy.upsert(DIMENSIONS, [{ id: 1_000, vector: [0, 0, 0] }]);
    expect(firstVersion).toBeGreaterThan(highest);
  });

  test("gets the effects of its vshards only, and a request's items in their order", () => {
    const primary = opened();
    const tape = new Tape();
    const documents = range(200).map((id) => ({ id, vector: [id, 0, 0] }));
    upsert(primary, documents, tape);
    const vshards = new Set(documents.map(({ id }) => toItem({ id, vector: [] }).vshard));
    expect(new Set(tape.told.map(({ vshard }) => vshard))).toEqual(vshards);
    const copy = opened();
    for (const effect of tape.told.filter(({ vshard }) => vshard < 32)) apply(copy, effect);
    for (const { id } of documents)
      expect(copy.get([id])[0] !== undefined, `id ${id}`).toBe(toItem({ id, vector: [] }).vshard < 32);
  });

  test("is told nothing of a request that is refused, that only reserves, or that deletes what is not there", () => {
    const primary = opened();
    const tape = new Tape();
    expect(() => upsert(primary, [{ id: 1, vector: [Number.NaN, 0, 0] }], tape)).toThrow(ShardloomError);
    remove(primary, [5, 6], tape);
    const items = [toItem({ id: 1, vector: [0, 0, 0] })];
    const fill = (m: WireMemory, offset: number): void =>
      writeUpsertRequest(m, offset, 1, DIMENSIONS, items, 0, 1, { rows: 0, bytes: 0 });
    write(primary, VECTOR_UPSERT, upsertRequestBytes(DIMENSIONS, items), fill, tape);
    expect(tape.told).toEqual([]);
  });

  test("of a collection that was dropped takes effects without harm", () => {
    const primary = opened();
    const tape = new Tape();
    upsert(primary, [{ id: 1, vector: [0, 0, 0] }], tape);
    const copy = opened();
    copy.drop();
    for (const effect of tape.told) apply(copy, effect);
    expect(() => copy.count()).toThrow(ShardloomError);
  });
});

describe("a snapshot", () => {
  test("restores a vshard over whatever was there, while the primary goes on writing", () => {
    const random = randomFrom(SEED + 1);
    for (let round = 0; round < 10; round++) {
      const primary = opened();
      const copy = opened();
      churn(primary, random, 60, new Tape());
      churn(copy, random, 60, new Tape()); // rubbish
      const after = new Tape();
      for (const vshard of range(64)) {
        const next = replicated(primary).snapshot(vshard, 200);
        replicated(copy).beginRestore(vshard);
        for (let part = next(); part !== undefined; part = next()) {
          apply(copy, { ...part, vshard });
          if (random() < 0.2) churn(primary, random, 1, after);
        }
        replicated(copy).endRestore(vshard);
      }
      for (const effect of after.told) apply(copy, effect);
      expect(contents(copy, range(60))).toEqual(contents(primary, range(60)));
      expect(copy.count()).toBe(primary.count());
    }
  });

  test("gives nothing of a vshard without rows, and no rows of others", () => {
    const primary = opened();
    upsert(
      primary,
      range(50).map((id) => ({ id, vector: [id, 0, 0] })),
      new Tape(),
    );
    const empty = range(64).find((vshard) => !range(50).some((id) => toItem({ id, vector: [] }).vshard === vshard));
    expect(replicated(primary).snapshot(empty as number, 1_000)()).toBeUndefined();
    const copy = opened();
    const next = replicated(primary).snapshot(toItem({ id: 7, vector: [] }).vshard, 1_000);
    for (let part = next(); part !== undefined; part = next()) apply(copy, { ...part, vshard: 0 });
    const same = range(50).filter((id) => toItem({ id, vector: [] }).vshard === toItem({ id: 7, vector: [] }).vshard);
    expect(copy.count()).toBe(same.length);
  });
});

test("bodies stay within the limit, unless one item alone is larger", () => {
  const memory = { bytes: new Uint8Array(10_000) };
  const tape = new Tape(300);
  const bodies = new UpsertBodies(1, DIMENSIONS, tape.maxBodyBytes);
  let at = 0;
  for (const [item, size] of [48, 96, 104, 800, 48, 56, 200, 64].entries()) {
    bodies.add(3, memory, at, at + size, item);
    at += size;
  }
  bodies.tell(VECTOR_UPSERT, tape);
  expect(tape.told.every(({ body }) => body.length <= 300 || body.length === 32 + 800 + 8)).toBe(true);
  expect(tape.told.length).toBeGreaterThan(3);
  expect(tape.told.reduce((sum, { body }) => sum + body.length - 32, 0)).toBe(at + 8 * 8);
});
