/** The budget of snapshots: so many bytes a second, and the thread is free between any two parts. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { ReplicatedEngine } from "../../../actors/engine.ts";
import { SnapshotTask } from "../../../actors/storage/snapshot-task.ts";
import { TrackedLog } from "../../../actors/storage/tracked-log.ts";
import { VshardStates } from "../../../actors/storage/vshard-states.ts";
import { createManualClock } from "../../../src/runtime/clock.ts";
import { createSystemDisk } from "../../../src/runtime/disk.ts";
import { type Scheduler, systemScheduler } from "../../../src/runtime/scheduler.ts";
import { LOG_ENTRY } from "../../../src/store/log.ts";
import { SegmentLog } from "../../../src/store/segment-log.ts";
import { openNewestSnapshot } from "../../../src/store/snapshot-file.ts";

const VSHARDS = 4;
const PARTS = 5;
const PART_BYTES = 32 * 1024;
const BYTES = VSHARDS * PARTS * PART_BYTES;

/** So many parts in every vshard. */
const engine = {
  types: [1],
  snapshot: () => {
    let left = PARTS;
    return () => (left-- > 0 ? { type: 1, collection: 1, body: new Uint8Array(PART_BYTES) } : undefined);
  },
} as unknown as ReplicatedEngine;

test.each([64, 256])("%i KiB a second are not exceeded at any part, and nothing is waited for besides", async (kib) => {
  const root = await mkdtemp(join(tmpdir(), "shardloom-budget-"));
  const disk = await createSystemDisk(root);
  for (const path of ["log", "snapshots"]) await disk.makeDirectory(path);
  const segments = await SegmentLog.open(disk, "log", {
    begun: false,
    durability: "os",
    scheduler: systemScheduler,
    owner: 1,
    resumes: true,
    segmentBytes: 64 * 1024,
  });
  const log = new TrackedLog(segments, new VshardStates(VSHARDS));
  const clock = createManualClock(0);
  const pausesMs: number[] = [];
  // Time passes only where it is waited for.
  const scheduler: Scheduler = {
    ...systemScheduler,
    timer: (delayMs, callback) => {
      pausesMs.push(delayMs);
      clock.setMs(clock.nowMs() + delayMs);
      return systemScheduler.timer(0, callback);
    },
  };
  try {
    const storage = { snapshotBytes: 1e9, snapshotBytesPerSecond: kib * 1024 };
    const options = { disk, directory: "snapshots", incarnation: 1, log, storage, clock, scheduler };
    const snapshots = new SnapshotTask(options);
    snapshots.start([engine], () => Array.from({ length: VSHARDS }, (_, vshard) => vshard));
    const entry = { vshard: 0, leaseEpoch: 0, type: 1, collection: 1, idempotencyKey: "", result: new Uint8Array(0) };
    log.append([{ ...entry, kind: LOG_ENTRY.EFFECT, lsn: 1, body: new Uint8Array(8) }]);
    await snapshots.take();
    const dueMs = (BYTES / storage.snapshotBytesPerSecond) * 1000;
    expect(clock.nowMs()).toBeGreaterThanOrEqual(dueMs - 1);
    expect(clock.nowMs()).toBeLessThan(dueMs + 1);
    expect(pausesMs).toHaveLength(VSHARDS * PARTS);
    expect(Math.max(...pausesMs)).toBeLessThan((2 * dueMs) / pausesMs.length);
    expect((await openNewestSnapshot(disk, "snapshots"))?.position).toBe(1);
    await snapshots.close();
  } finally {
    await log.close();
    await rm(root, { recursive: true });
  }
});
