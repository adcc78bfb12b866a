/** Reading a segment log from another thread of the process while it is written and truncated. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { SegmentLog } from "../../src/store/segment-log.ts";
import { SegmentReader } from "../../src/store/segment-reader.ts";
import { eventually } from "../support/cluster.ts";
import { entryOf, SMALL } from "../support/segment-logs.ts";
import type { ReaderReport } from "./segment-reader.worker.ts";

test("a reader on another thread sees every durable frame once, in order, while the log grows and is truncated", async () => {
  const root = await mkdtemp(join(tmpdir(), "shardloom-log-"));
  const published = new BigInt64Array(new SharedArrayBuffer(16));
  const worker = new Worker(new URL("./segment-reader.worker.js", import.meta.url), {
    workerData: { root, published },
  });
  try {
    const report = new Promise<ReaderReport>((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    const log = await SegmentLog.open(await createSystemDisk(root), "log", { ...SMALL, scheduler: systemScheduler });
    const frames = 4_000;
    for (let value = 1; value <= frames; value++) {
      log.append([entryOf(value % 200, (value * 37) % 900)]);
      if (value % 5 !== 0) continue;
      await log.flush();
      Atomics.store(published, 0, BigInt(log.durable)); // publishes the frames in the files
      const read = Number(Atomics.load(published, 1));
      if (value === frames / 2) await eventually("it reads along", () => Atomics.load(published, 1) > 1_000n);
      if (value % 200 === 0) await log.truncateBelow(read - 20);
    }
    await log.flush();
    Atomics.store(published, 0, BigInt(-log.durable));
    const { read, gaps, wrong, turns } = await report;
    expect([read, gaps, wrong]).toEqual([frames, 0, 0]);
    expect(turns).toBeGreaterThan(5);
    expect(log.first).toBeGreaterThan(1);
    await log.close();
  } finally {
    await worker.terminate();
    await rm(root, { recursive: true, force: true });
  }
}, 60_000);

test("a reader of a log that has nothing gives nothing", async () => {
  const root = await mkdtemp(join(tmpdir(), "shardloom-log-"));
  try {
    const disk = await createSystemDisk(root);
    await disk.makeDirectory("log");
    const reader = new SegmentReader(disk, "log");
    expect([await reader.read(1, 1_000), await reader.first()]).toEqual([[], 1]);
    await reader.close();
  } finally {
    await rm(root, { recursive: true, force: true });
  }
});
