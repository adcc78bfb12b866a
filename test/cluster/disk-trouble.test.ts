/**
 * Clusters whose disks are full, read-only or damaged: what is concerned fails typed, the rest serves, and nothing acknowledged is lost.
 *
 * Full and read-only disks are mounted, which needs the right to; without it these tests are skipped and say why.
 */
import { cp, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { lmdbDocuments } from "../../src/cluster-documents.ts";
import { realPlatform } from "../../src/cluster-workers.ts";
import { Cluster, type ClusterOptions, ShardloomError, type VectorCollection } from "../../src/index.ts";
import type { DocumentsThread } from "../../src/plane/documents-thread.ts";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { inspectLog } from "../../src/store/inspect-log.ts";
import { ACTORS_URL, eventually } from "../support/cluster.ts";
import { codeOf, kill, whenAllUp } from "../support/copies.ts";
import { noMounts, SmallDisk } from "../support/small-disk.ts";

const MIB = 1024 * 1024;
const DIMENSIONS = 4;
const SEED = Number(process.env["SEED"] ?? 1);
const LONG = process.env["SHARDLOOM_LONG"] === "1";
const FLIPS = LONG ? 60 : 3;
/** For all of them, on a machine that is several times slower. */
const FLIPS_MS = LONG ? 1_800_000 : 120_000;

let root = "";
let directory = "";
let cluster: Cluster | undefined;
let disk: SmallDisk | undefined;
/** The thread that keeps documents, and what logs have that it is to keep, by shard. */
let kept: { readonly thread: DocumentsThread; readonly durable: Float64Array } | undefined;
const documents: typeof lmdbDocuments = {
  ...lmdbDocuments,
  start: (options) => {
    kept = { thread: lmdbDocuments.start(options), durable: new Float64Array(options.durable) };
    return kept.thread;
  },
};

/** Resolves when the thread that keeps documents has started and has caught up. */
function documentsAreLevel(): Promise<void> {
  const isLevel = (shard: number): boolean => kept !== undefined && kept.thread.applied(shard) === kept.durable[shard];
  return eventually("documents are level", () => isLevel(0) && isLevel(1), 60_000);
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-trouble-"));
  directory = join(root, "data");
});
afterEach(async () => {
  await cluster?.close();
  disk?.close();
  cluster = disk = undefined;
  await rm(root, { recursive: true });
});

async function start(options: ClusterOptions = {}): Promise<VectorCollection> {
  const base: ClusterOptions = {
    workers: 2,
    vshards: 16,
    memoryBytes: 64 * MIB,
    directory,
    requestTimeoutMs: 20_000,
    maxHandlerMs: 20_000,
    suspectMs: 20_000,
    leaseMs: 20_000,
  };
  cluster = await Cluster.startOn({ platform: realPlatform(), documents }, { ...base, ...options });
  return cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2" });
}

async function stop(): Promise<void> {
  await cluster?.close();
  cluster = undefined;
}

function shardOf(id: number): number {
  return (cluster as Cluster).shardOfId(id);
}

/** So many ids of documents on a shard. */
function idsOn(shard: number, count: number, from = 0): number[] {
  const ids: number[] = [];
  for (let id = from; ids.length < count; id++) if (shardOf(id) === shard) ids.push(id);
  return ids;
}

function doc(id: number, generation = 0) {
  return { id, vector: [id, generation, 1, 2], payload: { generation, filling: "x".repeat(1_000) } };
}

/** Generation by id of the documents that are there. */
async function generations(
  docs: VectorCollection,
  ids: readonly number[],
  eventual = false,
): Promise<Map<number, number>> {
  const found = await docs.getMany(ids, eventual ? { consistency: "eventual" } : {});
  return new Map(found.flatMap((row) => (row === undefined ? [] : [[row.id as number, row.vector?.[1] as number]])));
}

function expected(ids: readonly number[], generation = 0): Map<number, number> {
  return new Map(ids.map((id) => [id, generation]));
}

/** All files below a directory, by path. */
async function contents(): Promise<Record<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  const read = async (path: string): Promise<[string, string]> => [path, await readFile(path, "latin1")];
  return Object.fromEntries(await Promise.all(paths.map(read)));
}

async function filesOf(shard: number, kind: "log" | "snapshots"): Promise<string[]> {
  const path = join(directory, "shards", String(shard), kind);
  return (await readdir(path)).sort().map((name) => join(path, name));
}

async function flipBit(path: string, at: number): Promise<void> {
  const bytes = await readFile(path);
  bytes[at] = (bytes[at] as number) ^ 4;
  await writeFile(path, bytes);
}

if (noMounts !== undefined) console.info(`disk trouble: two tests are left out, as ${noMounts}`);

describe.skipIf(noMounts !== undefined)("a disk of one shard that is full", () => {
  test("fails that shard's writes typed, lets all else go on, and is written to again when it has room", {
    timeout: 90_000,
  }, async () => {
    await start();
    await stop();
    disk = await SmallDisk.over(join(directory, "shards", "1"), 8 * MIB);
    const options = { snapshotBytes: 4 * MIB }; // so that a segment fits
    let docs = await start(options);
    const [full, other] = [idsOn(1, 120), idsOn(0, 120)];
    await docs.upsert([...full, ...other].map((id) => doc(id)));
    await disk.fill();
    const codes = new Set<string>();
    const acknowledged = expected([...full, ...other]);
    const doubtful = new Set<number>();
    const write = async (id: number, generation: number): Promise<boolean> => {
      try {
        await docs.upsert(doc(id, generation));
        acknowledged.set(id, generation);
        doubtful.delete(id);
        return true;
      } catch (error) {
        codes.add(codeOf(error));
        doubtful.add(id);
        return false;
      }
    };
    // Of the log's last segment there may be some room left.
    let generation = 1;
    await eventually(
      "a write finds the disk full",
      async () => !(await write(full[0] as number, generation++)),
      30_000,
    );
    for (let at = 0; at < 10; at++) {
      expect(await write(full[1] as number, generation++)).toBe(false);
      expect(await write(other[at] as number, generation++)).toBe(true);
    }
    expect([...codes]).toEqual(["ERR_DISK_FULL"]);
    // Strong reads of what is in no doubt, and others of everything.
    let answered = 0;
    const read = async (id: number): Promise<void> => {
      const strong = await docs.get(id, { timeoutMs: 3_000 }).catch((error: unknown) => codeOf(error));
      if (typeof strong === "string") return; // another document of its vshard is in doubt
      expect(strong?.vector?.[1]).toBe(acknowledged.get(id));
      answered++;
    };
    await Promise.all(
      full
        .filter((other) => !doubtful.has(other))
        .slice(-20)
        .map(read),
    );
    expect(answered).toBeGreaterThan(5);
    expect((await generations(docs, full, true)).size).toBe(full.length);
    expect(await generations(docs, other)).toEqual(new Map(other.map((id) => [id, acknowledged.get(id)])));
    await disk.free();
    await eventually("writes go on", () => write(full[0] as number, generation++), 30_000);
    await docs.upsert(full.slice(1).map((id) => doc(id, generation)));
    for (const id of full.slice(1)) acknowledged.set(id, generation);
    expect(await generations(docs, [...full, ...other])).toEqual(acknowledged);
    await stop();
    docs = await start(options);
    expect(await generations(docs, [...full, ...other])).toEqual(acknowledged);
    expect(await docs.count()).toBe(acknowledged.size);
  });

  test("stops a start, or a snapshot, and nothing that was there is lost", { timeout: 90_000 }, async () => {
    await start();
    await stop();
    disk = await SmallDisk.over(join(directory, "shards", "1"), 4 * MIB);
    const options = { snapshotBytes: 128 * 1024 };
    let docs = await start(options);
    const ids = Array.from({ length: 400 }, (_, id) => id);
    for (let at = 0; at < ids.length; at += 50) await docs.upsert(ids.slice(at, at + 50).map((id) => doc(id)));
    await disk.fill();
    // Stopped with a full disk, perhaps in a snapshot.
    await stop();
    const outcome = await start(options).catch((error: unknown) => codeOf(error));
    if (typeof outcome === "string") expect(outcome).toBe("ERR_DISK_FULL");
    else expect(await generations(outcome, ids, true)).toEqual(expected(ids));
    await stop();
    await disk.free();
    docs = await start(options);
    expect(await generations(docs, ids)).toEqual(expected(ids));
    await docs.upsert(ids.map((id) => doc(id, 1)));
    expect(await generations(docs, ids)).toEqual(expected(ids, 1));
  });
});

describe.skipIf(noMounts !== undefined)("a disk that cannot be written", () => {
  test("is refused at the start with nothing changed, and serves when it can", { timeout: 90_000 }, async () => {
    let docs = await start();
    const ids = Array.from({ length: 50 }, (_, id) => id);
    await docs.upsert(ids.map((id) => doc(id)));
    await stop();
    disk = await SmallDisk.over(directory, 8 * MIB);
    const before = await contents();
    disk.setReadOnly(true);
    await expect(start()).rejects.toThrow(expect.objectContaining({ code: "ERR_READ_ONLY" }));
    expect(await contents()).toEqual(before);
    disk.setReadOnly(false);
    docs = await start();
    expect(await generations(docs, ids)).toEqual(expected(ids));
  });
});

/** Writes until a shard has so many whole snapshots, then stops. @returns what was acknowledged */
async function withSnapshots(least: number, options: ClusterOptions): Promise<Map<number, number>> {
  const docs = await start(options);
  const ids = Array.from({ length: 200 }, (_, id) => id);
  let generation = 0;
  await eventually(
    "snapshots",
    async () => {
      generation++;
      await docs.upsert(ids.map((id) => doc(id, generation)));
      return (await filesOf(1, "snapshots")).filter((path) => path.endsWith(".snapshot")).length >= least;
    },
    60_000,
  );
  await stop();
  return expected(ids, generation);
}

describe("a log that is gone", () => {
  test.each(["its segments", "everything of its shard"])(
    "of the only copy, %s, fails its shard typed, and the other serves; put back, all is there",
    {
      timeout: 60_000,
    },
    async (what) => {
      const ids = Array.from({ length: 100 }, (_, id) => id);
      let docs = await start();
      await docs.upsert(ids.map((id) => doc(id)));
      const [bad, good] = [idsOn(1, 20), idsOn(0, 20)];
      await stop();
      const lost = join(directory, "shards", "1", ...(what === "its segments" ? ["log"] : []));
      await rename(lost, `${root}/lost`);
      for (let life = 0; life < 2; life++) {
        docs = await start();
        const refused = expect.objectContaining({
          code: "ERR_CORRUPT",
          details: expect.objectContaining({ shard: 1 }),
        });
        await expect(docs.getMany(bad)).rejects.toThrow(refused);
        await expect(docs.getMany(bad)).rejects.toThrow(
          "shard 1 as its log must be as it was written: all of it is gone",
        );
        await expect(docs.upsert(doc(bad[0] as number))).rejects.toThrow(refused);
        await expect(docs.count()).rejects.toThrow(refused);
        expect(await generations(docs, good)).toEqual(expected(good));
        await docs.upsert(good.map((id) => doc(id)));
        await expect(cluster?.snapshot(join(root, `backup-${life}`))).rejects.toThrow(refused);
        await stop();
      }
      expect(await inspectLog(await createSystemDisk(directory), 1)).toMatchObject({
        corrupt: { position: 1, gone: true },
      });
      expect((await filesOf(1, "log")).filter((path) => path.endsWith(".segment"))).toEqual([]);
      await rm(lost, { recursive: true });
      await rename(`${root}/lost`, lost);
      docs = await start();
      expect(await generations(docs, [...bad, ...good])).toEqual(expected([...bad, ...good]));
    },
  );

  test("that never had anything in it is none, and neither is one of before there were marks", async () => {
    await start();
    await stop();
    for (const shard of [0, 1])
      expect(await inspectLog(await createSystemDisk(directory), shard)).toMatchObject({ corrupt: undefined, last: 0 });
    const docs = await start();
    const ids = Array.from({ length: 40 }, (_, id) => id);
    await docs.upsert(ids.map((id) => doc(id)));
    await stop();
    await rm(join(directory, "shards", "1.begun"));
    expect(await generations(await start(), ids)).toEqual(expected(ids));
    await stop();
    await rm(join(directory, "shards", "1"), { recursive: true });
    await expect((await start()).getMany(ids)).rejects.toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
  });

  test("is made good by the copies of its rows", { timeout: 60_000 }, async () => {
    const options = { replicationFactor: 2 };
    const ids = Array.from({ length: 200 }, (_, id) => id);
    let docs = await start(options);
    await docs.upsert(ids.map((id) => doc(id)));
    await stop();
    await rm(join(directory, "shards", "1"), { recursive: true });
    for (let life = 0; life < 2; life++) {
      docs = await start(options);
      expect(await generations(docs, ids)).toEqual(expected(ids));
      expect(await (cluster as Cluster).audit()).toMatchObject({ equal: true });
      await docs.upsert(ids.map((id) => doc(id)));
      await stop();
    }
    expect(await inspectLog(await createSystemDisk(directory), 1)).toMatchObject({ corrupt: undefined });
  });
});

/** Fails unless the worker of a shard tells of just this damage, and the other of none. */
async function expectDamage(shard: number, damage: { readonly code: string; readonly details: object }): Promise<void> {
  const { workers } = await (cluster as Cluster).info();
  for (const { shard: at, stats } of workers)
    expect(stats?.storage?.damage, `shard ${at}`).toEqual(
      at === shard ? [expect.objectContaining({ ...damage, details: expect.objectContaining(damage.details) })] : [],
    );
}

/** Overwrites a part of the pages in the middle of a file. */
async function ruin(path: string): Promise<void> {
  const bytes = await readFile(path);
  bytes.fill(0xa5, Math.floor(bytes.length / 4), Math.floor(bytes.length / 2));
  bytes.fill(0xa5, 24, 96); // of the first meta page
  await writeFile(path, bytes);
}

describe("documents of a process that was not closed in order", () => {
  test("are scrubbed before anything is made of them: whole ones stand in for snapshots, damaged ones for nothing, and this process lives", {
    timeout: 120_000,
  }, async () => {
    const options = { snapshotBytes: 128 * 1024 };
    const docs = await start(options);
    const ids = Array.from({ length: 200 }, (_, id) => id);
    let generation = 0;
    const hasSnapshots = async (): Promise<boolean> => {
      generation++;
      await docs.upsert(ids.map((id) => doc(id, generation)));
      return (await filesOf(1, "snapshots")).filter((path) => path.endsWith(".snapshot")).length >= 2;
    };
    await eventually("snapshots", hasSnapshots, 60_000);
    await docs.upsert(ids.map((id) => doc(id, generation)));
    const held = expected(ids, generation);
    await documentsAreLevel();
    // As a power cut leaves it: nobody has closed anything.
    const image = join(root, "image");
    await cp(directory, image, { recursive: true, filter: (path) => !path.endsWith("/lock") });
    await stop();
    for (const ruined of [["documents"], ["snapshots"], ["documents", "snapshots"]]) {
      directory = join(root, ruined.join("-"));
      await cp(image, directory, { recursive: true });
      expect(await readdir(join(directory, "documents", "1"))).not.toContain("clean");
      if (ruined.includes("documents")) await ruin(join(directory, "documents", "1", "data.mdb"));
      if (ruined.includes("snapshots")) for (const path of await filesOf(1, "snapshots")) await ruin(path);
      const found = await start({ ...options, snapshotBytes: 64 * MIB });
      const [bad, good] = [idsOn(1, 40), idsOn(0, 40)];
      expect(await generations(found, good), ruined.join()).toEqual(expected(good, generation));
      if (ruined.length === 1) expect(await generations(found, ids), ruined.join()).toEqual(held);
      else await expect(found.getMany(bad)).rejects.toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
      await stop();
    }
  });
});

describe("a log that can have no new segment while it serves", () => {
  test("ends writes of its shard typed, the other serves, both are read, and nothing acknowledged is lost", {
    timeout: 60_000,
  }, async () => {
    let docs = await start({ snapshotBytes: 16 * 1024 });
    const [bad, good] = [idsOn(1, 20), idsOn(0, 20)];
    await docs.upsert([...bad, ...good].map((id) => doc(id)));
    const log = join(directory, "shards", "1", "log");
    await rename(log, `${root}/log`);
    await writeFile(log, "not a directory");
    const held = expected([...bad, ...good]);
    const codes = new Set<string>();
    const doubtful = new Map<number, Set<number>>();
    for (let generation = 1; codes.size === 0 || generation < 60; generation++) {
      expect(generation).toBeLessThan(2_000);
      const id = bad[generation % bad.length] as number;
      const code = await docs.upsert(doc(id, generation), { timeoutMs: 2_000 }).then(() => undefined, codeOf);
      if (code === undefined) held.set(id, generation);
      else {
        codes.add(code);
        doubtful.set(id, (doubtful.get(id) ?? new Set()).add(generation));
      }
      const other = good[generation % good.length] as number;
      await docs.upsert(doc(other, generation));
      held.set(other, generation);
    }
    // For a moment there was neither a directory nor a file.
    expect([...codes].filter((code) => code !== "ERR_IO" && code !== "ERR_NO_FILE")).toEqual([]);
    expect([...codes]).toContain((await (cluster as Cluster).info()).workers[1]?.stats?.storage?.log?.code);
    expect((await generations(docs, [...bad, ...good], true)).size).toBe(40);
    expect(await generations(docs, good)).toEqual(new Map(good.map((id) => [id, held.get(id)])));
    await stop();
    await rm(log);
    await rename(`${root}/log`, log);
    docs = await start();
    for (const [id, generation] of await generations(docs, [...bad, ...good]))
      expect([held.get(id), ...(doubtful.get(id) ?? [])]).toContain(generation);
    expect(await docs.count()).toBe(40);
  });
});

describe("work in the background", () => {
  test("that fails is told: a snapshot with the reason and since when, until one can be taken", {
    timeout: 60_000,
  }, async () => {
    const docs = await start({ snapshotBytes: 32 * 1024 });
    const ids = Array.from({ length: 100 }, (_, id) => id);
    const storage = async (shard: number) => (await (cluster as Cluster).info()).workers[shard]?.stats?.storage;
    await docs.upsert(ids.map((id) => doc(id)));
    expect(await storage(0)).toEqual({ damage: [] });
    const path = join(directory, "shards", "1", "snapshots");
    await rename(path, `${root}/snapshots`);
    await writeFile(path, "not a directory");
    const fails = async (): Promise<boolean> => {
      await docs.upsert(ids.map((id) => doc(id))); // which goes on
      return (await storage(1))?.checkpoint !== undefined;
    };
    await eventually("it is told", fails, 20_000);
    const first = (await storage(1))?.checkpoint;
    expect(first?.code).toMatch(/^ERR_/);
    expect(first?.failingForMs).toBeGreaterThanOrEqual(0);
    await sleep(50);
    await fails();
    expect((await storage(1))?.checkpoint?.failingForMs).toBeGreaterThanOrEqual((first?.failingForMs ?? 0) + 50);
    expect((await storage(0))?.checkpoint).toBeUndefined();
    await rm(path);
    await rename(`${root}/snapshots`, path);
    await eventually("it is over", async () => !(await fails()), 20_000);
  });

  test("that fails is told of documents, too", async () => {
    const failure = new ShardloomError("ERR_DISK_FULL", "Cannot write documents");
    const thread = {
      applied: () => 0,
      failure: (shard: number) => (shard === 1 ? failure : undefined),
      close: () => Promise.resolve(),
    };
    const failing = { start: () => thread, scrubber: () => () => Promise.reject(new Error("nothing to scrub")) };
    const options = { workers: 2, vshards: 16, memoryBytes: 64 * MIB, directory };
    cluster = await Cluster.startOn({ platform: realPlatform(), documents: failing }, options);
    expect((await cluster.info()).workers.map(({ documentsFailure }) => documentsFailure)).toEqual([
      undefined,
      failure,
    ]);
  });
});

/** Bytes of a segment that were written to. */
async function usedBytes(path: string): Promise<number> {
  const bytes = await readFile(path);
  return bytes.findLastIndex((byte) => byte !== 0) + 1;
}

/** A place in a file, not in its last part: what is cut there may never have been written. */
function placeIn(size: number, random: Random): number {
  return Math.floor(random.float() * size * 0.6);
}

describe("a flipped bit", () => {
  test("in the log of the only copy fails its shard typed, and the other serves", { timeout: FLIPS_MS }, async () => {
    console.info(`disk trouble: SEED=${SEED}`);
    const random = createSeededRandom(SEED);
    let docs = await start();
    const ids = Array.from({ length: 200 }, (_, id) => id);
    for (let generation = 0; generation < 5; generation++) await docs.upsert(ids.map((id) => doc(id, generation)));
    const [bad, good] = [idsOn(1, 50), idsOn(0, 50)];
    await stop();
    const [segment = ""] = await filesOf(1, "log");
    const whole = await readFile(segment);
    for (let flip = 0; flip < FLIPS; flip++) {
      const at = placeIn(whole.length, random);
      await flipBit(segment, at);
      docs = await start();
      const place = `byte ${at} of ${segment}`;
      expect(await generations(docs, good), place).toEqual(expected(good, 4));
      await docs.upsert(good.map((id) => doc(id, 4)));
      await expect(docs.getMany(bad), place).rejects.toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
      await expect(docs.upsert(doc(bad[0] as number)), place).rejects.toThrow(
        expect.objectContaining({ code: "ERR_CORRUPT" }),
      );
      await expect(docs.search([0, 0, 0, 0]), place).rejects.toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
      await expect(docs.count(), place).rejects.toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
      await stop();
      await writeFile(segment, whole);
    }
    docs = await start();
    expect(await generations(docs, [...bad, ...good])).toEqual(expected([...bad, ...good], 4));
  });

  test("in the newest snapshot is made up for by the one before, in both by the documents, of which a new one is taken; without these the shard fails typed", {
    timeout: FLIPS_MS,
  }, async () => {
    const options = { snapshotBytes: 128 * 1024 };
    const random = createSeededRandom(SEED + 1);
    const held = await withSnapshots(2, options);
    const snapshots = await filesOf(1, "snapshots");
    const [older = "", newest = ""] = snapshots.filter((path) => path.endsWith(".snapshot"));
    const sizeOf = async (path: string): Promise<number> => (await readFile(path)).length;
    await flipBit(newest, Math.floor(random.float() * (await sizeOf(newest))));
    // As it is on the disk is how the next life begins, too.
    let docs = await start({ ...options, snapshotBytes: 64 * MIB });
    await expectDamage(1, {
      code: "ERR_CORRUPT",
      details: { path: newest.slice(directory.length + 1), offset: expect.any(Number) },
    });
    expect(await generations(docs, [...held.keys()])).toEqual(held);
    expect(await docs.count()).toBe(held.size);
    await documentsAreLevel();
    await stop();
    await flipBit(older, Math.floor(random.float() * (await sizeOf(older))));
    docs = await start({ ...options, snapshotBytes: 64 * MIB });
    expect(await generations(docs, [...held.keys()])).toEqual(held);
    expect(await docs.count()).toBe(held.size);
    const isNew = (path: string): boolean => path.endsWith(".snapshot") && !snapshots.includes(path);
    await eventually("a snapshot of what the documents had", async () => (await filesOf(1, "snapshots")).some(isNew));
    await stop();
    docs = await start({ ...options, snapshotBytes: 64 * MIB, documents: false });
    expect(await generations(docs, [...held.keys()])).toEqual(held);
    await stop();
    for (const path of (await filesOf(1, "snapshots")).filter(isNew)) await flipBit(path, (await sizeOf(path)) >> 1);
    docs = await start({ ...options, snapshotBytes: 64 * MIB, documents: false });
    const [bad, good] = [idsOn(1, 20), idsOn(0, 20)];
    await expect(docs.getMany(bad)).rejects.toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
    expect(await generations(docs, good)).toEqual(new Map(good.map((id) => [id, held.get(id)])));
  });

  test("in the log of a shard whose worker dies is put aside where there are copies: what is in memory is served, and logged anew", {
    timeout: FLIPS_MS,
  }, async () => {
    const random = createSeededRandom(SEED + 3);
    const options = { replicationFactor: 2, actors: [ACTORS_URL] };
    const ids = Array.from({ length: 200 }, (_, id) => id);
    let docs = await start(options);
    for (let round = 0; round < Math.ceil(FLIPS / 3); round++) {
      // Several groups: what is cut off the last one may never have been written.
      for (let group = 0; group < 4; group++) await docs.upsert(ids.map((id) => doc(id, 2 * round)));
      const [segment = ""] = (await filesOf(1, "log")).filter((path) => path.endsWith(".segment"));
      const { first = 0, last = 0 } = await inspectLog(await createSystemDisk(directory), 1);
      expect(last).toBeGreaterThan(first);
      await flipBit(segment, placeIn(await usedBytes(segment), random));
      // What it lost in an earlier round comes back to it when it has been well for a while.
      await eventually("it is a primary", () => (cluster as Cluster).topology.owners.includes(1), 30_000);
      await kill(cluster as Cluster, 1);
      await whenAllUp(cluster as Cluster);
      await expectDamage(1, { code: "ERR_CORRUPT", details: { shard: 1, position: expect.any(Number) } });
      expect(await generations(docs, ids)).toEqual(expected(ids, 2 * round));
      await docs.upsert(ids.map((id) => doc(id, 2 * round + 1)));
      expect((await readdir(join(directory, "shards", "1", "damaged"))).length).toBeGreaterThan(0);
      expect(await (cluster as Cluster).audit()).toMatchObject({ equal: true });
      await stop();
      docs = await start(options);
      expect(await generations(docs, ids)).toEqual(expected(ids, 2 * round + 1));
      expect(await (cluster as Cluster).audit()).toMatchObject({ equal: true });
    }
  });

  test("anywhere on a shard whose rows have copies is made good by these", { timeout: FLIPS_MS }, async () => {
    const options = { snapshotBytes: 256 * 1024, replicationFactor: 2 };
    const random = createSeededRandom(SEED + 2);
    let held = await withSnapshots(1, options);
    let damaged = 0;
    for (let flip = 0; flip < FLIPS; flip++) {
      const shard = random.u32() % 2;
      const files = [...(await filesOf(shard, "log")), ...(await filesOf(shard, "snapshots"))];
      for (const path of files) {
        const { length } = await readFile(path);
        if (length > 0) await flipBit(path, placeIn(length, random));
      }
      const docs = await start(options);
      const { workers } = await (cluster as Cluster).info();
      damaged += workers[shard]?.stats?.storage?.damage.length ?? 0;
      const ids = [...held.keys()];
      expect(await generations(docs, ids)).toEqual(held);
      expect(await docs.count()).toBe(held.size);
      expect((await docs.search([5, 0, 0, 0], { k: held.size, exact: true })).hits).toHaveLength(held.size);
      expect(await (cluster as Cluster).audit()).toMatchObject({ equal: true });
      await docs.upsert(ids.map((id) => doc(id, 1_000 + flip)));
      held = expected(ids, 1_000 + flip);
      await stop();
    }
    // A flip may hit what is not read; not all of them.
    expect(damaged).toBeGreaterThan(0);
  });
});
