/** Saved postings: a shard that takes them answers as one that has analysed every text, and never takes what does not fit. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Engine, IndexStorage, LoadedIndex, SnapshotPart } from "../../../actors/engine.ts";
import { type TextCollectionOptions, toTextOptions } from "../../../actors/text/text-options.ts";
import { createSystemDisk } from "../../../src/runtime/disk.ts";
import { randomFrom, wireMemory } from "../vector/support.ts";
import { type Document, Model, randomDocument, randomQuery, sameHits, TextBed, VSHARDS } from "./support.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const FIELDS = ["body", "title"];
const PLAIN = { fields: { title: 2, body: 1 } } as const;
const PHRASES = { ...PLAIN, positions: true } as const;
const FILE = "text-1.postings";
const COUNT = 600;

let root: string;
let storage: IndexStorage;

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "shardloom-postings-"));
  storage = { disk: await createSystemDisk(root), directory: "indexes" };
  await storage.disk.makeDirectory("indexes");
});

afterEach(() => rmSync(root, { recursive: true }));

const path = (): string => join(root, "indexes", FILE);

function documents(seed: number, count = COUNT): Document[] {
  const random = randomFrom(seed);
  return Array.from({ length: count }, (_, id) => randomDocument(random, id, FIELDS));
}

function filled(options: TextCollectionOptions, list: readonly Document[]): TextBed {
  const bed = new TextBed(options);
  for (let from = 0; from < list.length; from += 100) bed.upsert(list.slice(from, from + 100));
  return bed;
}

/** A shard that starts with the documents of another one, in other rows, none of them indexed. */
function restarted(from: TextBed): TextBed {
  const bed = new TextBed(toTextOptions(from.options), undefined, undefined, true);
  for (let vshard = VSHARDS - 1; vshard >= 0; vshard--) {
    const next = from.engine.replicated.snapshot(vshard, 2_000);
    for (let part: SnapshotPart | undefined = next(); part !== undefined; part = next()) {
      const memory = wireMemory(part.body.length);
      memory.bytes.set(part.body);
      bed.engine.replicated.apply({ ...memory, ...part, vshard, offset: 0, length: part.body.length });
    }
  }
  return bed;
}

async function load(bed: TextBed): Promise<LoadedIndex | undefined> {
  return (await (bed.engine as Required<Engine>).loadIndexes(storage))[0];
}

async function save(bed: TextBed): Promise<void> {
  await (bed.engine as Required<Engine>).saveIndexes(storage);
}

/** That a shard answers as the model, whose documents it has; and as one that has analysed all texts itself. */
function expectRight(bed: TextBed, model: Model, random: () => number): void {
  const plain = filled(bed.options.positions ? PHRASES : PLAIN, [...model.documents.values()]);
  for (let at = 0; at < 6; at++) {
    const query = randomQuery(random, bed.options.positions);
    const options = { k: 30, prefix: random() < 0.3 };
    expect(bed.statistics(query, options)).toEqual(plain.statistics(query, options));
    expect(sameHits(bed.search(query, options).hits, model.search(query, options), 30), query).toBeUndefined();
  }
}

describe.each([
  { name: "without positions", options: PLAIN },
  { name: "with positions", options: PHRASES },
])("postings $name", ({ options }) => {
  test(`are taken by a shard with the documents in other rows, seed ${SEED}`, async () => {
    const random = randomFrom(SEED);
    const list = documents(SEED);
    const model = new Model(options);
    for (const document of list) model.put(document);
    const bed = filled(options, list);
    await save(bed);
    const after = restarted(bed);
    expect(after.status()).toMatchObject({ documents: COUNT, unindexed: COUNT, terms: 0 });
    expect(await load(after)).toEqual({ collection: 1, loaded: COUNT });
    expect(after.status()).toEqual({ ...bed.status(), ...volatile(after) });
    expectRight(after, model, random);
    // and goes on as any: written, deleted and purged
    for (let round = 0; round < 4; round++) {
      const batch = documents(SEED + round + 1, 200);
      after.upsert(batch);
      for (const document of batch) model.put(document);
      const gone = Array.from({ length: 60 }, () => Math.floor(random() * COUNT));
      after.delete(gone);
      for (const id of gone) model.documents.delete(id);
      after.settle();
      expectRight(after, model, random);
    }
  });

  test(`of which some documents have changed: these are indexed again, seed ${SEED}`, async () => {
    const random = randomFrom(SEED);
    const list = documents(SEED);
    const bed = filled(options, list);
    bed.delete([...Array(50).keys()]); // dead entries, and numbers that were never given out again
    await save(bed);
    bed.upsert(documents(SEED + 1).slice(100, 200));
    bed.delete([...Array(40).keys()].map((at) => at + 300));
    bed.upsert(documents(SEED + 2, COUNT + 30).slice(COUNT));
    const after = restarted(bed);
    const loaded = await load(after);
    expect(loaded?.error).toBeUndefined();
    expect(loaded?.loaded).toBeGreaterThanOrEqual(COUNT - 50 - 140);
    expect(after.status().unindexed).toBeGreaterThan(100);
    after.settle();
    expect(after.status().unindexed).toBe(0);
    const model = new Model(options);
    const ids = Array.from({ length: COUNT + 30 }, (_, id) => id);
    const all = [list, documents(SEED + 1), documents(SEED + 2, COUNT + 30)] as const;
    for (const id of ids) {
      if (id < 50 || (id >= 300 && id < 340)) continue;
      model.put(all[id >= COUNT ? 2 : id >= 100 && id < 200 ? 1 : 0][id] as Document);
    }
    expect(after.count()).toBe(model.documents.size);
    expectRight(after, model, random);
    await save(after);
    const again = restarted(after);
    expect(await load(again)).toEqual({ collection: 1, loaded: model.documents.size });
    expectRight(again, model, random);
  });
});

/** What depends on where things lie, not on what they are. */
function volatile(bed: TextBed): object {
  const { indexBytes, heapBytes, heapLiveBytes, rowBytes, directorySlots, lastVersion } = bed.status();
  return { indexBytes, heapBytes, heapLiveBytes, rowBytes, directorySlots, lastVersion };
}

test("without a file, or with a damaged one, texts are analysed again; searches wait for that", async () => {
  const bed = filled(PLAIN, documents(SEED));
  const none = restarted(bed);
  expect(await load(none)).toEqual({ collection: 1, loaded: 0 });
  const held = none.hold("apple");
  expect(held.result).toBeUndefined();
  none.settle();
  expect(held.result).toHaveProperty("bytes");
  await save(bed);
  const whole = readFileSync(path());
  const random = randomFrom(SEED);
  for (let round = 0; round < 40; round++) {
    const at = round < 20 ? round : Math.floor(random() * whole.length);
    const bytes = Buffer.from(whole);
    bytes[at] = (bytes[at] as number) ^ (1 << (round & 7));
    writeFileSync(path(), bytes);
    expect(await load(restarted(bed))).toMatchObject({ loaded: 0, error: { code: "ERR_CORRUPT" } });
  }
});

test("an index of other options, or of texts that are mostly gone, is not taken", async () => {
  const list = documents(SEED);
  const bed = filled(PHRASES, list);
  await save(bed);
  const plain = restarted(filled(PLAIN, list));
  expect(await load(plain)).toEqual({ collection: 1, loaded: 0 });
  const few = restarted(filled(PHRASES, list.slice(0, COUNT / 3)));
  expect(await load(few)).toEqual({ collection: 1, loaded: 0 });
  few.settle();
  expect(few.status()).toMatchObject({ documents: COUNT / 3, unindexed: 0 });
});

test("a shard that is not asked to load indexes analyses all texts by itself", () => {
  const bed = filled(PLAIN, documents(SEED, 50));
  const after = restarted(bed);
  after.settle();
  expect(after.search("apple", { k: 20 }).hits).toEqual(bed.search("apple", { k: 20 }).hits);
});
