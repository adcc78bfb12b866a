/** A shard's part of a backup: exactly what its log had at one position, whatever is written, truncated and snapshot meanwhile. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createSystemDisk, type Disk } from "../../src/runtime/disk.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { type BackupShardOptions, backupShard, shardPaths } from "../../src/store/backup-shard.ts";
import { makeDirectories } from "../../src/store/copy-file.ts";
import { inspectLog } from "../../src/store/inspect-log.ts";
import { DURABILITIES, type LogFrame } from "../../src/store/log.ts";
import { segmentName } from "../../src/store/segment-format.ts";
import { SegmentLog } from "../../src/store/segment-log.ts";
import { framesIn, framesOf, hookedDisk, SMALL } from "../support/segment-logs.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const PATHS = shardPaths(3);
const WATCH = { onBytes: () => undefined, check: () => undefined };

let root = "";
let source: Disk;
let target: Disk;
let logs: SegmentLog[] = [];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-backup-"));
  source = await createSystemDisk(join(root, "source"));
  target = await createSystemDisk(join(root, "target"));
  for (const disk of [source, target]) {
    await makeDirectories(disk, PATHS.log);
    await makeDirectories(disk, PATHS.snapshots);
  }
});
afterEach(async () => {
  await Promise.all(logs.map((log) => log.close().catch(() => undefined)));
  logs = [];
  await rm(root, { recursive: true });
});

async function open(disk: Disk, durability: (typeof DURABILITIES)[number] = "fsync"): Promise<SegmentLog> {
  const log = await SegmentLog.open(disk, PATHS.log, { ...SMALL, scheduler: systemScheduler, durability });
  logs.push(log);
  return log;
}

async function framesAt(disk: Disk): Promise<LogFrame[]> {
  const log = await open(disk);
  expect(log.recovery).toMatchObject({ corrupt: undefined, cutBytes: 0 });
  return framesIn(log);
}

async function snapshotAt(position: number, text: string): Promise<void> {
  const name = `${String(position).padStart(20, "0")}.snapshot`;
  await writeFile(join(root, "source", PATHS.snapshots, name), text);
}

/** In groups, so that there are many segments. */
async function appendSlowly(log: SegmentLog, frames: number): Promise<void> {
  for (let value = 1; value <= frames; value++) {
    log.append(framesOf(value, 900));
    if (value % 3 === 0) await log.flush();
  }
  await log.flush();
}

function live(log: SegmentLog, more: Partial<BackupShardOptions> = {}): BackupShardOptions {
  const contents = async () => ({
    position: log.head,
    contents: [{ vshard: 1, lsn: log.head, hash: "00", role: "primary" as const }],
  });
  return { shard: 3, source, target, watch: WATCH, live: { log, contents }, ...more };
}

describe("of a shard that writes", () => {
  test.for(DURABILITIES)("a backup ends exactly where its contents hold (%s)", async (durability) => {
    for (let run = 0; run < 2; run++) {
      const random = createSeededRandom(SEED + run);
      const log = await open(source, durability);
      const begun = log.head;
      let value = begun;
      let isDone = false;
      const write = async (): Promise<void> => {
        while (!isDone && value < begun + 200) {
          log.append(framesOf(++value, random.u32() % 300));
          await new Promise((resolve) => setImmediate(resolve));
        }
      };
      const before = 1 + (random.u32() % 80);
      for (let at = 0; at < before; at++) log.append(framesOf(++value, random.u32() % 300));
      const fresh = await createSystemDisk(join(root, `target-${run}`));
      const writing = write();
      const part = await backupShard(live(log, { target: fresh })).finally(() => (isDone = true));
      await writing;
      expect(part.position).toBeGreaterThanOrEqual(begun + before);
      expect(part.vshards, `SEED=${SEED + run}`).toEqual([
        { vshard: 1, lsn: part.position, hash: "00", role: "primary" },
      ]);
      await log.flush();
      const all = await framesIn(log);
      const copied = await framesAt(fresh);
      expect(copied, `SEED=${SEED + run}`).toEqual(all.filter(({ position }) => position <= part.position));
      for (const { path, bytes } of part.files)
        expect((await readFile(join(root, `target-${run}`, path))).length).toBe(bytes);
      await log.close();
    }
  });

  test("has the newest snapshot and the log from there on, also when both are replaced meanwhile", async () => {
    const log = await open(source);
    await appendSlowly(log, 100);
    await snapshotAt(10, "old");
    await snapshotAt(60, "newer");
    // While the first file is copied the shard takes another snapshot, and forgets what is before it.
    let replaced = false;
    const slow = hookedDisk(target, async (operation, path) => {
      if (replaced || !operation.startsWith("write") || !path.endsWith(".snapshot")) return;
      replaced = true;
      await snapshotAt(95, "newest");
      await rm(join(root, "source", PATHS.snapshots, `${String(60).padStart(20, "0")}.snapshot`));
      await log.truncateBelow(95);
    });
    const part = await backupShard(live(log, { target: slow }));
    expect(replaced).toBe(true);
    expect(log.first).toBeGreaterThan(60);
    expect(part.files.map(({ path }) => path)).toContain(`${PATHS.snapshots}/${String(60).padStart(20, "0")}.snapshot`);
    const copied = await framesAt(target);
    expect(copied[0]?.position).toBeLessThanOrEqual(61);
    expect(copied.at(-1)?.position).toBe(part.position);
  });

  test("is begun again when the log was truncated between two looks, and fails typed when that never ends", async () => {
    const log = await open(source);
    await appendSlowly(log, 100);
    let looks = 0;
    const racing = hookedDisk(source, async (operation, path) => {
      // Between the list of snapshots and that of the log.
      if (operation !== "list" || path !== PATHS.log || ++looks > 1) return;
      await snapshotAt(80, "new");
      await log.truncateBelow(80);
    });
    const part = await backupShard(live(log, { source: racing }));
    expect(looks).toBeGreaterThan(1);
    expect(part.files.filter(({ path }) => path.endsWith(".snapshot"))).toHaveLength(1);
    await rm(join(root, "source", PATHS.snapshots, `${String(80).padStart(20, "0")}.snapshot`));
    await expect(backupShard(live(log, { target: await createSystemDisk(join(root, "other")) }))).rejects.toThrow(
      expect.objectContaining({ code: "ERR_UNAVAILABLE" }),
    );
  });

  test("stops when it is told to", async () => {
    const log = await open(source);
    for (let value = 1; value <= 20; value++) log.append(framesOf(value, 900));
    const watch = {
      onBytes: () => undefined,
      check: () => {
        throw new Error("stop");
      },
    };
    await expect(backupShard(live(log, { watch }))).rejects.toThrow("stop");
  });

  test("an empty one is nothing", async () => {
    expect(await backupShard(live(await open(source)))).toMatchObject({ shard: 3, position: 0, files: [] });
  });
});

describe("of a shard that nobody writes to", () => {
  test("has everything that is whole, and no torn tail", async () => {
    const log = await open(source);
    await appendSlowly(log, 50);
    await log.close();
    const all = await framesAt(source);
    await logs.at(-1)?.close();
    const { segments } = await inspectLog(source, 3);
    expect(segments).toBeGreaterThan(1);
    const first = Math.max(...all.map(({ position }) => position));
    const names = (await source.list(PATHS.log)).filter((name) => name.endsWith(".segment"));
    const last = await source.open(`${PATHS.log}/${names.at(-1)}`, "write");
    const size = await last.size();
    await last.write(size, new Uint8Array(100).fill(7));
    await last.close();
    let total = 0;
    let copied = 0;
    const part = await backupShard({
      shard: 3,
      source,
      target,
      watch: { onBytes: (bytes) => (copied += bytes), check: () => undefined },
      onTotal: (bytes) => (total = bytes),
    });
    expect(part).toMatchObject({ position: first, vshards: [] });
    expect(copied).toBe(total);
    expect(total).toBe(part.files.reduce((sum, { bytes }) => sum + bytes, 0));
    expect(await framesAt(target)).toEqual(all);
  });

  test("is refused with position, LSN and vshard where its log is damaged", async () => {
    const log = await open(source);
    await appendSlowly(log, 50);
    await log.close();
    const path = join(root, "source", PATHS.log, segmentName(1));
    const bytes = await readFile(path);
    bytes[700] = (bytes[700] as number) ^ 4;
    await writeFile(path, bytes);
    const summary = await inspectLog(source, 3);
    expect(summary.corrupt).toMatchObject({
      position: expect.any(Number),
      lsn: expect.any(Number),
      vshard: expect.any(Number),
    });
    expect(summary.frames).toBe((summary.corrupt?.position as number) - 1);
    await expect(backupShard({ shard: 3, source, target, watch: WATCH })).rejects.toThrow(
      expect.objectContaining({ code: "ERR_CORRUPT", details: { shard: 3, ...summary.corrupt } }),
    );
  });

  test("is summed up by vshard", async () => {
    const log = await open(source);
    for (let value = 1; value <= 30; value++) log.append(framesOf(value, 100));
    await log.close();
    const summary = await inspectLog(source, 3);
    expect(summary).toMatchObject({ shard: 3, first: 1, last: 30, frames: 30, cutBytes: 0, corrupt: undefined });
    const entries = Array.from({ length: 30 }, (_, at) => framesOf(at + 1, 100)).flat();
    expect(summary.vshards.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(
      entries.reduce((sum, { body }) => sum + body.length, 0),
    );
    expect(await inspectLog(source, 9)).toMatchObject({ segments: 0, first: 1, last: 0, frames: 0, vshards: [] });
  });
});
