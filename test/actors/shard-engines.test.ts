/** Engines of a shard that starts on a directory: collections are there without a message, and come back with what was saved of them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { SnapshotPart } from "../../actors/engine.ts";
import { createShardEngines, type ShardEngines } from "../../actors/shard-engines.ts";
import { resolveTextOptions } from "../../actors/text/text-options.ts";
import { resolveVectorOptions } from "../../actors/vector/vector-options.ts";
import { upsertRequestBytes, writeUpsertRequest } from "../../actors/vector/vector-requests.ts";
import { createArena } from "../../native-bridge/arena.ts";
import type { StoredCollection } from "../../src/plane/shard-task.ts";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { VECTOR_UPSERT } from "../../src/wire/message-types.ts";
import { makeContext, toItem, wireMemory } from "./vector/support.ts";

const STORED: readonly StoredCollection[] = [
  {
    engine: "vector",
    name: "images",
    collection: 11,
    options: resolveVectorOptions({ dimensions: 4, metric: "l2", scanRows: 10 }),
  },
  {
    engine: "text",
    name: "notes",
    collection: 12,
    options: resolveTextOptions({ fields: { title: 3, body: 1 }, language: "swedish" }),
  },
];

function applyVectors({ all }: ShardEngines, count: number): void {
  const items = Array.from({ length: count }, (_, id) => toItem({ id, vector: [id, id % 7, id % 3, 1] }));
  for (const item of items) {
    const bytes = upsertRequestBytes(4, [item]);
    const memory = wireMemory(bytes + 8);
    writeUpsertRequest(memory, 0, 11, 4, [item]);
    memory.f64[bytes >>> 3] = (item.id as number) + 1;
    const effect = { ...memory, vshard: item.vshard, type: VECTOR_UPSERT, collection: 11, offset: 0 };
    all[0]?.replicated?.apply({ ...effect, length: bytes + 8 });
  }
}

function partsOf({ all }: ShardEngines): SnapshotPart[] {
  return Array.from({ length: 64 }, (_, vshard) => {
    const next = all[0]?.replicated?.snapshot(vshard, 1 << 20);
    return next?.() ?? [];
  }).flat();
}

test("stored collections are open, their languages loaded, and take what is applied", async () => {
  const context = makeContext(createArena({ capacityBytes: 64 * 1024 * 1024 }));
  const engines = await createShardEngines(context, undefined, STORED);
  expect(engines.recovered.map(({ engine, collection }) => [engine, collection])).toEqual([
    ["vector", 11],
    ["text", 12],
  ]);
  expect(
    engines.all.flatMap(({ replicated }) =>
      replicated === undefined ? [] : [[replicated.has(11), replicated.has(12)]],
    ),
  ).toEqual([
    [true, false],
    [false, true],
    [true, true], // keys of writes
  ]);
  applyVectors(engines, 50);
  expect(partsOf(engines).length).toBeGreaterThan(10);
  engines.all[0]?.open?.(11, STORED[0]?.options);
  expect(() => engines.all[0]?.open?.(11, { dimensions: 5 })).toThrow(/dimensions/);
  await expect(
    createShardEngines(context, undefined, [{ ...(STORED[1] as StoredCollection), options: 7 }]),
  ).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
});

test("a successor keeps what it recovers of a stored collection, and opens the others", async () => {
  const memory = createArena({ capacityBytes: 64 * 1024 * 1024 });
  const first = await createShardEngines(makeContext(memory), undefined, STORED.slice(0, 1));
  applyVectors(first, 50);
  const hashes = Array.from({ length: 64 }, (_, vshard) => first.all[0]?.replicated?.contentHash(vshard));
  const [recovered] = first.recovered;
  const root = (recovered as { state: unknown }).state as { address: number };
  const state = { collectionId: 11, options: STORED[0]?.options, rootAddress: root.address };
  const second = await createShardEngines(
    makeContext(memory, 0, 2),
    [{ engine: "vector", collection: 11, state }],
    STORED,
  );
  expect(Array.from({ length: 64 }, (_, vshard) => second.all[0]?.replicated?.contentHash(vshard))).toEqual(hashes);
  expect(new Set(hashes).size).toBeGreaterThan(10);
  expect(second.all[1]?.replicated?.has(12)).toBe(true);
});

test("indexes of all engines are saved and loaded together", async () => {
  const root = mkdtempSync(join(tmpdir(), "shardloom-engines-"));
  try {
    const storage = { disk: await createSystemDisk(root), directory: "indexes" };
    await storage.disk.makeDirectory("indexes");
    const make = async (): Promise<ShardEngines> => {
      const context = makeContext(createArena({ capacityBytes: 64 * 1024 * 1024 }));
      const engines = await createShardEngines(
        { ...context, indexDirectory: join(root, "indexes") },
        undefined,
        STORED,
      );
      applyVectors(engines, 50);
      return engines;
    };
    const one = await make();
    while (one.background(50));
    await one.saveIndexes(storage);
    expect(await (await make()).loadIndexes(storage)).toEqual([
      { collection: 11, loaded: 50 },
      { collection: 12, loaded: 0 },
    ]);
  } finally {
    rmSync(root, { recursive: true });
  }
});
