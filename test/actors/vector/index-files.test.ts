/** Indexes on disk: taken by shards whose documents lie elsewhere, as far as they fit, and never when damaged. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Engine, IndexStorage, LoadedIndex } from "../../../actors/engine.ts";
import type { VectorCollectionOptions } from "../../../actors/vector/vector-options.ts";
import { PLAN } from "../../../actors/vector/vector-replies.ts";
import { createSystemDisk, type Disk, diskError } from "../../../src/runtime/disk.ts";
import { Bed, type Document, randomFrom } from "./support.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const DIMENSIONS = 8;
const OPTIONS: VectorCollectionOptions = { dimensions: DIMENSIONS, metric: "l2", scanRows: 100 };
const COUNT = 2_000;
const GRAPH = "vector-1.usearch";
const ROWS = "vector-1.rows";

let root: string;
let storage: IndexStorage;

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), "shardloom-indexes-"));
  const disk = await createSystemDisk(root);
  await disk.makeDirectory("indexes");
  storage = { disk, directory: "indexes" };
});

afterEach(() => rmSync(root, { recursive: true }));

const path = (name: string): string => join(root, "indexes", name);

function documents(seed: number, count = COUNT): Document[] {
  const next = randomFrom(seed);
  return Array.from({ length: count }, (_, id) => ({
    id: id % 3 === 0 ? `document-${id}` : id,
    vector: Float32Array.from({ length: DIMENSIONS }, next),
    ...(next() < 0.5 ? { payload: { id } } : {}),
  }));
}

function shuffled<T>(list: readonly T[], seed: number): T[] {
  const next = randomFrom(seed);
  return list
    .map((item) => ({ item, rank: next() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item);
}

/** A shard with these documents, none of them indexed. */
function bedOf(list: readonly Document[], options = OPTIONS): Bed {
  const bed = new Bed({ indexDirectory: join(root, "indexes") });
  bed.open(options);
  for (let from = 0; from < list.length; from += 500) bed.upsert(DIMENSIONS, list.slice(from, from + 500));
  return bed;
}

async function save(bed: Bed, to = storage): Promise<void> {
  await (bed.engine as Required<Engine>).saveIndexes(to);
}

async function load(bed: Bed, from = storage): Promise<LoadedIndex | undefined> {
  return (await (bed.engine as Required<Engine>).loadIndexes(from))[0];
}

/** Share of the true neighbours that searches through the index find. */
function recallOf(bed: Bed): number {
  const next = randomFrom(7);
  let found = 0;
  for (let query = 0; query < 50; query++) {
    const vector = Float32Array.from({ length: DIMENSIONS }, next);
    const through = bed.search(vector, 10);
    expect(through.plan).toBe(PLAN.INDEX);
    const exact = new Set(bed.search(vector, 10, { exact: true }).hits.map(({ id }) => id));
    found += through.hits.filter(({ id }) => exact.has(id)).length;
  }
  return found / 500;
}

test(`an index is taken whole by a shard that has the documents in other rows, seed ${SEED}`, async () => {
  const list = documents(SEED);
  const saved = bedOf(list);
  saved.settle();
  await save(saved);
  const bed = bedOf(shuffled([...list, ...documents(SEED + 1, 40).map((d) => ({ ...d, id: `other-${d.id}` }))], SEED));
  expect(bed.status()).toMatchObject({ indexed: 0, unindexed: COUNT + 40 });
  expect(await load(bed)).toEqual({ collection: 1, loaded: COUNT });
  expect(bed.status()).toMatchObject({ indexed: COUNT, unindexed: 40 });
  expect(recallOf(bed)).toBeGreaterThan(0.95);
  bed.settle();
  expect(bed.status()).toMatchObject({ indexed: COUNT + 40, unindexed: 0 });
  expect(recallOf(bed)).toBeGreaterThan(0.95);
});

test(`what has changed since is indexed again, what is gone is not found, seed ${SEED}`, async () => {
  const list = documents(SEED);
  const saved = bedOf(list);
  saved.delete(list.slice(0, 100).map(({ id }) => id)); // keys with gaps
  saved.settle();
  await save(saved);
  const changed = documents(SEED + 5);
  const now = list.flatMap((document, at) => {
    if (at < 100) return []; // gone before it was saved
    if (at < 200) return []; // gone since
    if (at < 300) return [{ ...document, vector: changed[at]?.vector as Float32Array }];
    if (at < 400) return [{ ...document, payload: { other: at } }]; // the index does not see that
    return [document];
  });
  const bed = bedOf(shuffled(now, SEED));
  expect(await load(bed)).toEqual({ collection: 1, loaded: COUNT - 300 });
  expect(bed.status()).toMatchObject({ rows: COUNT - 200, indexed: COUNT - 300, unindexed: 100 });
  expect(recallOf(bed)).toBeGreaterThan(0.95);
  for (let round = 0; round < 4; round++) bed.upsert(DIMENSIONS, documents(SEED + 10 + round, 500));
  bed.settle();
  expect(bed.status().indexed).toBe(bed.status().rows);
  expect(recallOf(bed)).toBeGreaterThan(0.95);
  await save(bed);
  const again = bedOf(documents(SEED + 13, 500));
  expect(await load(again)).toEqual({ collection: 1, loaded: 0 }); // less than half is true any more
});

test("both files are written only when something has changed, and those of dropped collections go", async () => {
  const bed = bedOf(documents(1));
  await save(bed);
  expect(readdirSync(join(root, "indexes"))).toEqual([]); // nothing is indexed yet
  bed.settle();
  await save(bed);
  const first = statSync(path(GRAPH)).ino;
  await save(bed);
  expect(statSync(path(GRAPH)).ino).toBe(first);
  const other = bedOf(documents(1));
  await load(other);
  await save(other);
  expect(statSync(path(GRAPH)).ino).toBe(first);
  other.delete([1]);
  await save(other);
  expect(statSync(path(GRAPH)).ino).not.toBe(first);
  writeFileSync(path(`${GRAPH}.temporary`), "left by a crash");
  expect(readdirSync(join(root, "indexes")).length).toBe(3);
  bed.drop();
  await save(bed);
  expect(readdirSync(join(root, "indexes"))).toEqual([]);
});

test("an index of other options, or none, is built anew without complaint", async () => {
  const list = documents(2);
  const bed = bedOf(list);
  expect(await load(bed)).toEqual({ collection: 1, loaded: 0 });
  bed.settle();
  await save(bed);
  for (const options of [{ metric: "cosine" }, { connectivity: 8 }, { quantization: "f16" }] as const)
    expect(await load(bedOf(list, { ...OPTIONS, ...options }))).toEqual({ collection: 1, loaded: 0 });
  expect(await load(bedOf(list, { ...OPTIONS, expansionSearch: 100 }))).toEqual({ collection: 1, loaded: COUNT });
  const nowhere = new Bed();
  nowhere.open(OPTIONS);
  expect(await load(nowhere)).toBeUndefined();
  await save(nowhere);
});

test(`damage of either file is told, and the index is built anew, seed ${SEED}`, async () => {
  const next = randomFrom(SEED);
  const list = documents(3, 400);
  const saved = bedOf(list);
  saved.settle();
  await save(saved);
  const bed = bedOf(list);
  for (const name of [GRAPH, ROWS]) {
    const whole = readFileSync(path(name));
    const places = [...Array(100).keys(), ...Array.from({ length: 100 }, () => Math.floor(next() * whole.length))];
    const variants = [
      ...places.map((at) => flipped(whole, at)),
      ...[0, 1, 24, 100, whole.length - 1].map((length) => whole.subarray(0, length)),
      Buffer.concat([whole, Buffer.of(0)]),
    ];
    for (const bytes of variants) {
      writeFileSync(path(name), bytes);
      expect(await load(bed)).toMatchObject({ loaded: 0, error: { code: "ERR_CORRUPT" } });
    }
    writeFileSync(path(name), whole);
  }
  rmSync(path(GRAPH));
  expect(await load(bed)).toEqual({ collection: 1, loaded: 0 });
  expect(bed.status()).toMatchObject({ indexed: 0, unindexed: 400 });
  bed.settle();
  expect(bed.status()).toMatchObject({ indexed: 400, unindexed: 0 });
});

test("a pair of which one file is newer is not taken, and a disk that fails says so", async () => {
  const list = documents(4);
  const bed = bedOf(list);
  bed.settle();
  await save(bed);
  bed.upsert(DIMENSIONS, documents(5, 50));
  bed.settle();
  const full: Disk = {
    ...bound(storage.disk),
    open: (name, mode) =>
      name.endsWith(".rows.temporary")
        ? Promise.reject(diskError("open file", name, "ENOSPC"))
        : storage.disk.open(name, mode),
  };
  await expect(save(bed, { ...storage, disk: full })).rejects.toMatchObject({ code: "ERR_DISK_FULL" });
  const after = bedOf(list);
  expect(await load(after)).toMatchObject({ loaded: 0, error: { code: "ERR_CORRUPT" } });
  rmSync(join(root, "indexes"), { recursive: true });
  await expect(save(bed)).rejects.toMatchObject({ code: "ERR_NO_FILE" });
});

function flipped(whole: Buffer, at: number): Buffer {
  const bytes = Buffer.from(whole);
  bytes[at] = (bytes[at] as number) ^ (1 << (at & 7));
  return bytes;
}

/** A disk's methods, to put others in the place of some. */
function bound(disk: Disk): Disk {
  return {
    open: disk.open.bind(disk),
    list: disk.list.bind(disk),
    remove: disk.remove.bind(disk),
    rename: disk.rename.bind(disk),
    makeDirectory: disk.makeDirectory.bind(disk),
    syncDirectory: disk.syncDirectory.bind(disk),
  };
}
