/** The budget of snapshots: so many bytes a second, so many in memory, and the thread is free between any two parts. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { ReplicatedEngine } from "../../../actors/engine.ts";
import { SnapshotTask } from "../../../actors/storage/snapshot-task.ts";
import { TrackedLog } from "../../../actors/storage/tracked-log.ts";
import { VshardStates } from "../../../actors/storage/vshard-states.ts";
import { createManualClock } from "../../../src/runtime/clock.ts";
import { createSystemDisk, type Disk } from "../../../src/runtime/disk.ts";
import { type Scheduler, sleep, systemScheduler } from "../../../src/runtime/scheduler.ts";
import { LOG_ENTRY } from "../../../src/store/log.ts";
import { SegmentLog } from "../../../src/store/segment-log.ts";
import { openNewestSnapshot } from "../../../src/store/snapshot-file.ts";
import { type Hook, hookedDisk } from "../../support/segment-logs.ts";

const VSHARDS = 4;
const PARTS = 5;
const PART_BYTES = 32 * 1024;
const BYTES = VSHARDS * PARTS * PART_BYTES;

interface Stage {
  readonly snapshots: SnapshotTask;
  readonly disk: Disk;
  readonly pausesMs: readonly number[];
  nowMs(): number;
}

/** So many parts in every vshard. @param onPart One is made */
function engineOf(parts: number, onPart: () => void = () => undefined): ReplicatedEngine {
  return {
    types: [1],
    snapshot: () => {
      let left = parts;
      return () => {
        if (left-- <= 0) return undefined;
        onPart();
        return { type: 1, collection: 1, body: new Uint8Array(PART_BYTES) };
      };
    },
  } as unknown as ReplicatedEngine;
}

/** A log with an entry, a disk, time that passes only where it is waited for, and a snapshot task on them. */
async function onBudget(
  bytesPerSecond: number,
  held: ReplicatedEngine,
  run: (stage: Stage) => Promise<void>,
  hook: Hook = () => undefined,
): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "shardloom-budget-"));
  const disk = hookedDisk(await createSystemDisk(root), hook);
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
  const scheduler: Scheduler = {
    ...systemScheduler,
    timer: (delayMs, callback) => {
      pausesMs.push(delayMs);
      clock.setMs(clock.nowMs() + delayMs);
      return systemScheduler.timer(0, callback);
    },
  };
  try {
    const storage = { snapshotBytes: 1e9, snapshotBytesPerSecond: bytesPerSecond };
    const options = { disk, directory: "snapshots", incarnation: 1, log, storage, clock, scheduler };
    const snapshots = new SnapshotTask(options);
    snapshots.start([held], () => Array.from({ length: VSHARDS }, (_, vshard) => vshard));
    const entry = { vshard: 0, leaseEpoch: 0, type: 1, collection: 1, idempotencyKey: "", result: new Uint8Array(0) };
    log.append([{ ...entry, kind: LOG_ENTRY.EFFECT, lsn: 1, body: new Uint8Array(8) }]);
    await run({ snapshots, disk, pausesMs, nowMs: () => clock.nowMs() });
    await snapshots.close();
  } finally {
    await log.close();
    await rm(root, { recursive: true });
  }
}

test.each([64, 256])("%i KiB a second are not exceeded at any part, and nothing is waited for besides", async (kib) => {
  await onBudget(kib * 1024, engineOf(PARTS), async ({ snapshots, disk, pausesMs, nowMs }) => {
    await snapshots.take();
    const dueMs = (BYTES / (kib * 1024)) * 1000;
    expect(nowMs()).toBeGreaterThanOrEqual(dueMs - 1);
    expect(nowMs()).toBeLessThan(dueMs + 1);
    expect(pausesMs).toHaveLength(VSHARDS * PARTS);
    expect(Math.max(...pausesMs)).toBeLessThan((2 * dueMs) / pausesMs.length);
    expect((await openNewestSnapshot(disk, "snapshots"))?.position).toBe(1);
  });
});

test("no more is in memory than a chunk and a part, however slow the disk is and however much there is to write", async () => {
  let made = 0;
  let writes = 0;
  let writing = 0;
  const leastWritten: number[] = [];
  const engine = engineOf(8 * PARTS, () => {
    made++;
    expect(writing, "a part is asked for while a write is under way").toBe(0);
  });
  const slow: Hook = async (operation, path) => {
    if (operation !== "write" || !path.startsWith("snapshots/")) return;
    leastWritten.push(made);
    writes++;
    writing++;
    await sleep(systemScheduler, 10); // many parts would be made meanwhile
    writing--;
  };
  await onBudget(1e12, engine, async ({ snapshots }) => snapshots.take(), slow);
  expect(made).toBe(VSHARDS * 8 * PARTS);
  // Parts that were made between any two writes: what one of them had to hold.
  const between = leastWritten.map((parts, at) => parts - (leastWritten[at - 1] ?? 0));
  expect(Math.max(...between) * PART_BYTES).toBeLessThanOrEqual(1024 * 1024 + PART_BYTES);
  expect(writes).toBeGreaterThan(4);
});
