/** Backups and their restoration: all or nothing, and every byte and content as it was. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { backupDirectory, type SnapshotParts, snapshotCluster } from "../../src/cluster-backup.ts";
import { compareContents, expectedContents, restoreBackup, verifyBackup } from "../../src/cluster-restore.ts";
import { realPlatform } from "../../src/cluster-workers.ts";
import { ShardloomError } from "../../src/errors.ts";
import { Cluster, type Session, type VectorCollection } from "../../src/index.ts";
import { createSystemDisk, type Disk } from "../../src/runtime/disk.ts";
import { type BackupManifest, type BackupPart, readManifest, writeManifest } from "../../src/store/backup-manifest.ts";
import { backupShard } from "../../src/store/backup-shard.ts";
import { CollectionStore, readCollections } from "../../src/store/collection-store.ts";
import { existingDirectory, readDataDirectory } from "../../src/store/data-directory.ts";
import { inspectLog } from "../../src/store/inspect-log.ts";
import type { SegmentLog } from "../../src/store/segment-log.ts";
import { eventually } from "../support/cluster.ts";
import { kill, startCopies } from "../support/copies.ts";
import { makeDirectory, openLog } from "../support/directories.ts";
import { holdStarts } from "../support/gate.ts";
import { framesOf } from "../support/segment-logs.ts";

const platform = realPlatform();
let root = "";
let data = "";
let target = "";
let into = "";
let logs: SegmentLog[] = [];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-backup-"));
  data = join(root, "data");
  target = join(root, "backup");
  into = join(root, "restored");
});
afterEach(async () => {
  await Promise.all(logs.map((log) => log.close().catch(() => undefined)));
  logs = [];
  await rm(root, { recursive: true });
});

function code(name: string, details: object = {}): unknown {
  return expect.objectContaining({ code: name, details: expect.objectContaining(details) });
}

async function filesIn(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(path.length + 1));
}

const noStart = (): never => {
  throw new Error("no cluster is to be started");
};

/** A cluster that serves, as a backup sees it: workers that copy their logs while they write. */
async function serving(disk: Disk, hook: (shard: number) => void = () => undefined): Promise<SnapshotParts> {
  const record = await existingDirectory(disk);
  const opened = await Promise.all(record.ownShards.map((shard) => openLog(disk, shard)));
  logs.push(...opened);
  const control = {
    ask: <T>(call: (worker: never, shard: number) => Promise<T>): Promise<T>[] =>
      opened.map((log, shard) => {
        const backup = async (path: string, shared: SharedArrayBuffer): Promise<BackupPart> => {
          const progress = new Float64Array(shared);
          hook(shard);
          const contents = async () => ({
            position: log.head,
            contents: [{ vshard: shard, lsn: log.head, hash: `h${shard}`, role: "primary" as const }],
          });
          return backupShard({
            shard,
            source: disk,
            target: await createSystemDisk(path),
            live: { log, contents },
            watch: {
              onBytes: (bytes) => (progress[0] = (progress[0] as number) + bytes),
              check: () => {
                log.append(framesOf(500, 100));
                if (progress[2] !== 0) throw new ShardloomError("ERR_ABORTED", "Cannot go on as it is to stop");
              },
            },
            onTotal: (bytes) => (progress[1] = bytes),
          });
        };
        return call({ backup } as never, shard);
      }),
  };
  const collections = await CollectionStore.open(disk, false);
  return { platform, control, storage: { record, collections, directory: { disk } } };
}

describe("a directory that nobody has open", () => {
  test("comes back byte for byte, with its collections and its place in time", async () => {
    const disk = await makeDirectory(data, 60);
    const seen: number[] = [];
    const report = await backupDirectory(platform, data, target, {
      onProgress: ({ bytes, totalBytes, phase }) => {
        expect([phase, bytes <= totalBytes]).toEqual(["copying", true]);
        seen.push(bytes);
      },
    });
    expect(report).toMatchObject({ shards: 2, hashedVshards: 0 });
    expect(seen.at(-1)).toBe(report.bytes);
    expect((await filesIn(target)).sort()).toEqual(
      ["backup.json", ...(await filesIn(data)).filter((path) => path.endsWith(".segment"))].sort(),
    );
    await verifyBackup(await createSystemDisk(target));
    const restored = await restoreBackup(platform, target, into, { verify: false }, noStart);
    expect(restored).toMatchObject({ files: report.files, bytes: report.bytes, verifiedVshards: 0 });
    const copy = await createSystemDisk(into);
    expect(await readDataDirectory(copy)).toEqual(await readDataDirectory(disk));
    expect(await readCollections(copy)).toEqual(await readCollections(disk));
    for (const shard of [0, 1]) expect(await inspectLog(copy, shard)).toEqual(await inspectLog(disk, shard));
    expect((await inspectLog(copy, 1)).frames).toBe(60);
  });

  test("is refused when it is open, missing, or no node's; the target when it is not empty", async () => {
    await expect(backupDirectory(platform, data, target)).rejects.toThrow(code("ERR_NO_FILE"));
    await createSystemDisk(data);
    await expect(backupDirectory(platform, data, target)).rejects.toThrow(code("ERR_NO_FILE"));
    expect(await filesIn(root)).toEqual([]);
    await makeDirectory(data, 3);
    const opened = await platform.openDirectory(data);
    await expect(backupDirectory(platform, data, target)).rejects.toThrow(
      code("ERR_DIRECTORY_IN_USE", { pid: process.pid }),
    );
    await opened.close();
    await writeFile(join(root, "note"), "mine");
    await expect(backupDirectory(platform, data, root)).rejects.toThrow(code("ERR_FILE_EXISTS"));
    expect(await readFile(join(root, "note"), "utf8")).toBe("mine");
    await backupDirectory(platform, data, target);
    await expect(backupDirectory(platform, data, target)).rejects.toThrow(code("ERR_FILE_EXISTS"));
  });

  test("stopped at any piece leaves nothing that looks like a backup, and the same target can be used again", async () => {
    await makeDirectory(data, 60);
    let pieces = 0;
    await backupDirectory(platform, data, join(root, "whole"), { onProgress: () => pieces++ });
    expect(pieces).toBeGreaterThan(5);
    for (let stopAt = 0; stopAt < pieces; stopAt++) {
      const controller = new AbortController();
      let at = 0;
      if (stopAt === 0) controller.abort();
      const stopped = backupDirectory(platform, data, target, {
        signal: controller.signal,
        onProgress: () => ++at === stopAt && controller.abort(),
      });
      await expect(stopped).rejects.toThrow(code("ERR_ABORTED"));
      expect(await filesIn(target)).toEqual([]);
    }
    await backupDirectory(platform, data, target);
    await verifyBackup(await createSystemDisk(target));
  });
});

describe("a backup", () => {
  test("that has changed is refused with the name of the file, and what was restored of it cannot be opened", async () => {
    await makeDirectory(data, 40);
    await backupDirectory(platform, data, target);
    const segments = (await filesIn(target)).filter((path) => path.endsWith(".segment"));
    for (const path of [segments.at(0), segments.at(-1)] as string[]) {
      const good = await readFile(join(target, path));
      for (const bad of [good.subarray(1), Buffer.concat([good, Buffer.of(0)]), flipped(good, good.length >> 1)]) {
        await writeFile(join(target, path), bad);
        await expect(verifyBackup(await createSystemDisk(target))).rejects.toThrow(code("ERR_CORRUPT", { path }));
        await expect(restoreBackup(platform, target, into, {}, noStart)).rejects.toThrow(code("ERR_CORRUPT", { path }));
        expect(await filesIn(into)).toEqual([]);
      }
      await writeFile(join(target, path), good);
    }
    const manifest = await readFile(join(target, "backup.json"), "utf8");
    await writeFile(join(target, "backup.json"), manifest.replace('"position"', '"positiom"'));
    await expect(restoreBackup(platform, target, into, {}, noStart)).rejects.toThrow(code("ERR_CORRUPT"));
    await rm(join(target, "backup.json"));
    await expect(restoreBackup(platform, target, into, {}, noStart)).rejects.toThrow(code("ERR_NO_FILE"));
    await expect(restoreBackup(platform, join(root, "missing"), into, {}, noStart)).rejects.toThrow(
      code("ERR_NO_FILE"),
    );
    expect(await readdir(root)).not.toContain("missing");
  });

  test("is restored into an empty place only, and half restored it is no directory", async () => {
    await makeDirectory(data, 40);
    await backupDirectory(platform, data, target);
    await expect(restoreBackup(platform, target, data, {}, noStart)).rejects.toThrow(code("ERR_FILE_EXISTS"));
    expect((await inspectLog(await createSystemDisk(data), 0)).frames).toBe(40);
    const controller = new AbortController();
    const stopped = restoreBackup(
      platform,
      target,
      into,
      { signal: controller.signal, onProgress: () => controller.abort() },
      noStart,
    );
    await expect(stopped).rejects.toThrow(code("ERR_ABORTED"));
    expect(await filesIn(into)).toEqual([]);
    await expect(readDataDirectory(await createSystemDisk(into))).rejects.toThrow(code("ERR_DIRECTORY_MISMATCH"));
    await restoreBackup(platform, target, into, { verify: false }, noStart);
    expect(await readDataDirectory(await createSystemDisk(into))).toBeDefined();
  });

  test("says what each vshard must hold: what the copy that was ahead held", () => {
    const row = (vshard: number, lsn: number, hash: string) => ({ vshard, lsn, hash, role: "replica" as const });
    const parts = [
      { shard: 0, position: 9, files: [], vshards: [row(0, 9, "new"), row(1, 3, "b")] },
      { shard: 1, position: 9, files: [], vshards: [row(0, 7, "old")] },
    ];
    const expected = expectedContents({ parts } as unknown as BackupManifest);
    expect([...expected.values()].map(({ hash }) => hash)).toEqual(["new", "b"]);
    const held = (hash: string, shard = 0) =>
      ({ shard, role: "primary", lsn: 99, hash, lag: 0, verdict: "same" }) as const;
    const vshards = [
      { vshard: 0, copies: [held("new"), held("new", 1)], elsewhere: [] },
      { vshard: 1, copies: [held("b")], elsewhere: [] },
    ];
    expect(compareContents(expected, { vshards })).toBe(2);
    for (const copies of [[held("old")], [held("new"), held("old", 1)], []])
      expect(() => compareContents(expected, { vshards: [{ vshard: 0, copies, elsewhere: [] }] })).toThrow(
        code("ERR_CORRUPT", { vshard: 0, expected: "new" }),
      );
  });
});

/** A cluster with copies whose first vshards have got other primaries, and back. */
async function promoted(): Promise<Cluster> {
  const actors = ["actors", "start-trouble"].map((name) => new URL(`../support/${name}.js`, import.meta.url));
  const cluster = await startCopies({ actors, directory: data, memoryBytes: 64 * 1024 * 1024 });
  const owners = [...cluster.topology.owners].join();
  const letStart = holdStarts();
  try {
    const back = kill(cluster, 1);
    await eventually("others take over", () => [...cluster.topology.owners].join() !== owners, 20_000);
    letStart();
    await back;
  } finally {
    letStart();
  }
  await eventually("it has its vshards again", () => [...cluster.topology.owners].join() === owners, 20_000);
  return cluster;
}

describe("the map of a cluster whose vshards have had other primaries", () => {
  const IDS = Array.from({ length: 100 }, (_, id) => id);
  const docs = (cluster: Cluster): Promise<VectorCollection> =>
    cluster.vectors("docs", { dimensions: 2, metric: "l2" });
  const write = async (cluster: Cluster, generation: number, session: Session): Promise<void> =>
    void (await (
      await docs(cluster)
    ).upsert(
      IDS.map((id) => ({ id, vector: [id, generation] })),
      { session },
    ));
  const generations = async (cluster: Cluster, session: Session): Promise<Set<number | undefined>> =>
    new Set((await (await docs(cluster)).getMany(IDS, { session })).map((row) => row?.vector?.[1]));

  test("is restored: terms and LSNs go on, and tokens of before are neither waited for nor mistaken", {
    timeout: 120_000,
  }, async () => {
    const first = await promoted();
    const [before, later] = [first.session(), first.session()];
    await write(first, 1, before);
    await first.snapshot(target);
    await write(first, 2, later); // lost with the directory
    const { mapVersion, terms } = first.topology;
    expect(mapVersion).toBeGreaterThan(2);
    await first.close();
    expect(await filesIn(target)).toContain("map.json");
    await rm(data, { recursive: true });
    const report = await Cluster.restore(target, into, { cluster: { memoryBytes: 64 * 1024 * 1024 } });
    expect(report.verifiedVshards).toBe(terms.length);
    await using second = await startCopies({ directory: into, memoryBytes: 64 * 1024 * 1024 });
    expect(second.topology.mapVersion).toBeGreaterThan(mapVersion);
    for (const [vshard, term] of terms.entries()) expect(second.topology.terms[vshard]).toBeGreaterThan(term);
    for (const token of [before, later])
      expect(await generations(second, second.session(token.toString()))).toEqual(new Set([1]));
    const again = second.session();
    await write(second, 3, again);
    // No LSN that was ever given out is given to another write.
    for (const vshard of later.lsns().vshards) expect(again.lsnOf(vshard)).toBeGreaterThan(later.lsnOf(vshard));
    for (const token of [before, later, again])
      expect(await generations(second, second.session(token.toString()))).toEqual(new Set([3]));
  });

  test("is verified as the rest is, and a backup without one is restored", { timeout: 60_000 }, async () => {
    const first = await promoted();
    await write(first, 1, first.session());
    await first.close();
    await backupDirectory(platform, data, target);
    const path = join(target, "map.json");
    const good = await readFile(path);
    for (const bad of [good.subarray(1), flipped(good, good.length >> 1)]) {
      await writeFile(path, bad);
      await expect(verifyBackup(await createSystemDisk(target))).rejects.toThrow(
        code("ERR_CORRUPT", { path: "map.json" }),
      );
      await expect(restoreBackup(platform, target, into, {}, noStart)).rejects.toThrow(
        code("ERR_CORRUPT", { path: "map.json" }),
      );
      expect(await filesIn(into)).toEqual([]);
    }
    await writeFile(path, good);
    const disk = await createSystemDisk(target);
    const { map, ...old } = await verifyBackup(disk);
    expect(map).toMatchObject({ path: "map.json", bytes: good.length });
    await rm(path);
    await writeManifest(disk, old);
    expect((await verifyBackup(disk)).map).toBeUndefined();
    await restoreBackup(platform, target, into, { verify: false }, noStart);
    await using second = await startCopies({ directory: into, memoryBytes: 64 * 1024 * 1024 });
    expect(await generations(second, second.session())).toEqual(new Set([1]));
    await writeFile(join(data, "map.json"), "{}");
    await expect(backupDirectory(platform, data, join(root, "other"))).rejects.toThrow(code("ERR_CORRUPT"));
    expect(await filesIn(join(root, "other"))).toEqual([]);
  });
});

describe("a cluster that serves", () => {
  test("is backed up by its workers, each cut where its contents hold", async () => {
    const parts = await serving(await makeDirectory(data, 40));
    const progress: number[] = [];
    const report = await snapshotCluster(parts, target, { onProgress: ({ bytes }) => progress.push(bytes) });
    expect(report).toMatchObject({ shards: 2, hashedVshards: 2 });
    expect(progress.at(-1)).toBe(report.bytes);
    const disk = await createSystemDisk(target);
    const manifest = await verifyBackup(disk);
    expect(manifest.collections.collections).toMatchObject([{ name: "docs", collection: 77 }]);
    for (const { shard, position, vshards } of manifest.parts) {
      expect(vshards).toMatchObject([{ vshard: shard, lsn: position }]);
      expect(await inspectLog(disk, shard)).toMatchObject({ last: position, corrupt: undefined, cutBytes: 0 });
    }
    expect(logs.every((log) => log.head > 40)).toBe(true);
  });

  test("whose backup is stopped, or fails on one worker, has none, and both workers have ended", async () => {
    const disk = await makeDirectory(data, 40);
    const controller = new AbortController();
    const stopped = snapshotCluster(await serving(disk, (shard) => shard === 1 && controller.abort()), target, {
      signal: controller.signal,
    });
    await expect(stopped).rejects.toThrow(code("ERR_ABORTED"));
    expect(await filesIn(target)).toEqual([]);
    await Promise.all(logs.map((log) => log.close()));
    const failing = await serving(disk, (shard) => {
      if (shard === 1) throw new ShardloomError("ERR_DISK_FULL", "Cannot write as there is no room");
    });
    await expect(snapshotCluster(failing, target)).rejects.toThrow(code("ERR_DISK_FULL"));
    expect(await filesIn(target)).toEqual([]);
    await expect(readManifest(await createSystemDisk(target))).rejects.toThrow(code("ERR_NO_FILE"));
  });

  test("without a directory has nothing to back up; with one, it is all or nothing", async () => {
    const options = { workers: 2, memoryBytes: 64 * 1024 * 1024 };
    await using without = await Cluster.start(options);
    await expect(without.snapshot(target)).rejects.toThrow(code("ERR_INVALID_ARGUMENT", { name: "directory" }));
    await using cluster = await Cluster.start({ ...options, directory: data });
    await expect(cluster.snapshot("")).rejects.toThrow(code("ERR_INVALID_ARGUMENT", { name: "target" }));
    expect(await cluster.snapshot(target)).toMatchObject({ shards: 2, hashedVshards: cluster.topology.vshards });
    expect((await readManifest(await createSystemDisk(target))).parts).toHaveLength(2);
    await expect(cluster.snapshot(target)).rejects.toThrow(code("ERR_FILE_EXISTS"));
  });

  test("on a restored directory has its collections", async () => {
    const options = { workers: 2, memoryBytes: 64 * 1024 * 1024 };
    const first = await Cluster.start({ ...options, directory: data });
    await first.vectors("docs", { dimensions: 3 });
    await first.close();
    await backupDirectory(platform, data, target);
    expect(await Cluster.restore(target, into, { cluster: { memoryBytes: 64 * 1024 * 1024 } })).toMatchObject({
      shards: 2,
    });
    await using second = await Cluster.start({ ...options, directory: into });
    await expect(second.vectors("docs", { dimensions: 4 })).rejects.toThrow(code("ERR_COLLECTION_MISMATCH"));
    await second.vectors("docs", { dimensions: 3 });
  });
});

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const bad = Uint8Array.from(bytes);
  bad[at] = (bad[at] as number) ^ 1;
  return bad;
}
