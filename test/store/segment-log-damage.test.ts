/** The segment log on a disk that lies: every bit of it flipped, written elsewhere, gone; and damage of what nothing has confirmed yet. */
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import type { Disk, DiskFile } from "../../src/runtime/disk.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { createReplayInjector } from "../../src/sim/injector.ts";
import type { LogFrame } from "../../src/store/log.ts";
import { SEGMENT_HEADER_BYTES } from "../../src/store/segment-format.ts";
import type { SegmentLog } from "../../src/store/segment-log.ts";
import { SegmentReader } from "../../src/store/segment-reader.ts";
import { fails } from "../conformance/disk.ts";
import { ALL, codeOf, framesIn, framesOf, type SimLogs, simLogs } from "../support/segment-logs.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const LONG = process.env["SHARDLOOM_LONG"] === "1";

/** A log of a few frames in several segments, closed. */
async function closedLog({ loop, open }: SimLogs, segmentBytes?: number): Promise<readonly LogFrame[]> {
  const log = await loop.finish(open(segmentBytes === undefined ? {} : { segmentBytes }));
  for (const [value, size] of [0, 10, 600, 3_300, 33, 900, 1_500, 5, 2_000].entries()) {
    log.append(framesOf(value, size));
    if (value % 3 !== 1) await loop.finish(log.flush());
  }
  await loop.finish(log.fence(2));
  const frames = await loop.finish(framesIn(log));
  await loop.finish(log.close());
  return frames;
}

async function flip(disk: Disk, path: string, offset: number, bit: number): Promise<void> {
  const file = await disk.open(path, "write");
  const [byte = 0] = await file.read(offset, 1);
  await file.write(offset, Uint8Array.of(byte ^ bit));
  await file.close();
}

/** Where the last byte that is not zero ends. */
function contentEnd(bytes: Uint8Array): number {
  return bytes.findLastIndex((byte) => byte !== 0) + 1;
}

/** Frames before a damaged one are readable, the log takes nothing more and says where it is damaged. */
async function checkCorrupt({ loop }: SimLogs, log: SegmentLog, frames: readonly LogFrame[]): Promise<number> {
  const { position = 0, lsn, vshard } = log.recovery.corrupt ?? {};
  expect(log.head).toBe(position - 1);
  const before = position > 1 ? await loop.finish(log.read(1, ALL)) : [];
  expect(before).toEqual(frames.slice(0, position - 1));
  if (lsn !== undefined) {
    expect({ lsn, vshard }).toEqual({
      lsn: frames[position - 1]?.entries[0]?.lsn,
      vshard: frames[position - 1]?.entries[0]?.vshard,
    });
  }
  expect(codeOf(() => log.append(framesOf(1, 1)))).toBe("ERR_CORRUPT");
  expect(codeOf(() => log.assertRoom(1))).toBe("ERR_CORRUPT");
  await fails(log.truncateBelow(2), "ERR_CORRUPT");
  await fails(log.fence(9), "ERR_CORRUPT");
  const error: unknown = await log.read(position, 1).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: "ERR_CORRUPT", details: { position } });
  return position;
}

/** What {@link framesIn} ends with when it comes to the damage. */
function endOf(error: unknown): never[] {
  if (ShardloomError.from(error).code !== "ERR_CORRUPT") throw error;
  return [];
}

describe("damage of the segment log", () => {
  test("is reported with its position, whichever byte it hits", { timeout: 300_000 }, async () => {
    const logs = simLogs(1);
    const frames = await closedLog(logs);
    const { loop, disk, open } = logs;
    const random = createSeededRandom(SEED);
    const positions = new Set<number>();
    let told = 0;
    let harmless = 0;
    let reported = 0;
    const files = disk.snapshot();
    for (const [path, bytes] of files) {
      const end = contentEnd(bytes);
      for (let offset = 0; offset < end + 16; offset += LONG ? 1 : 1 + Math.floor(random.float() * 39)) {
        const bit = 1 << Math.floor(random.float() * 8);
        const mounted = disk.mount();
        await loop.finish(flip(mounted, path, offset, bit));
        const log = await loop.finish(open({}, mounted));
        if (log.recovery.corrupt === undefined) {
          // Only a mark, or what lies behind everything: it says nothing that something else does not.
          harmless++;
          expect(await loop.finish(framesIn(log))).toEqual(frames);
        } else {
          positions.add(await checkCorrupt(logs, log, frames));
          reported++;
          if (log.recovery.corrupt.lsn !== undefined) told++;
        }
        await loop.finish(log.close());
        // Nothing was done to a log that is damaged; another one may have gone on in a new segment.
        if (log.recovery.corrupt === undefined) await loop.finish(restore(disk.mount(), files));
        else await loop.finish(flip(disk.mount(), path, offset, bit));
      }
    }
    expect([...positions].sort((one, other) => one - other)).toEqual(frames.map(({ position }) => position));
    expect(told / reported).toBeGreaterThan(0.9);
    expect(harmless).toBeLessThan(400);
  });

  test("of what nothing has confirmed looks like a torn tail; a mark confirms it soon", async () => {
    for (const isMarked of [false, true]) {
      const logs = simLogs(1);
      const { loop, disk, open } = logs;
      const mounted = disk.mount();
      const log = await loop.finish(open({ markDelayMs: 20 }, mounted));
      for (const value of [1, 2, 3]) {
        log.append(framesOf(value, 100));
        await loop.finish(log.flush());
      }
      if (isMarked) await loop.runUntil(loop.nowUs + 60_000);
      const path = [...disk.snapshot().keys()].find((name) => name.endsWith(".segment")) as string;
      const segment = disk.snapshot().get(path) as Uint8Array;
      // The third frame: behind the header, 64 + 40 + 104 and its key and result each.
      const at = contentEnd(segment) - (isMarked ? 64 : 0) - 60;
      await loop.finish(flip(disk.mount(), path, at, 1));
      const opened = await loop.finish(open());
      if (isMarked) expect(opened.recovery.corrupt).toMatchObject({ position: 3, lsn: 1_003, vshard: 3 });
      else expect([opened.recovery.corrupt, opened.head, opened.recovery.cutBytes > 0]).toEqual([undefined, 2, true]);
    }
  });

  test("is found while the log is open, when it is read", async () => {
    const logs = simLogs(1);
    const { loop, disk, open } = logs;
    const mounted = disk.mount();
    const log = await loop.finish(open({}, mounted));
    for (const value of [1, 2, 3]) log.append(framesOf(value, 700));
    await loop.finish(log.flush());
    const path = [...disk.snapshot().keys()].find((name) => name.endsWith(".segment")) as string;
    await loop.finish(flip(mounted, path, 64 + 64 + 40 + 800, 4));
    const error: unknown = await loop.finish(log.read(2, 1).catch((reason: unknown) => reason));
    expect(error).toMatchObject({ code: "ERR_CORRUPT", details: { position: 2, lsn: 1_002, vshard: 2 } });
    expect((await loop.finish(log.read(1, ALL))).map(({ position }) => position)).toEqual([1]);
    expect((await loop.finish(log.read(3, ALL))).map(({ position }) => position)).toEqual([3]);
  });

  test("by a segment that is gone is reported, but for the oldest and the newest", async () => {
    for (let index = 0; index < 4; index++) {
      const logs = simLogs(1);
      const { loop, disk, open } = logs;
      await closedLog(logs);
      const paths = [...disk.snapshot().keys()].filter((path) => path.endsWith(".segment")).sort();
      if (index >= paths.length) break;
      await loop.finish(disk.mount().remove(paths[index] as string));
      const opened = await loop.finish(open());
      const next = Number.parseInt((paths[index] as string).slice(4), 10);
      if (index === 0) expect(opened.first).toBeGreaterThan(1);
      else if (index < paths.length - 1) expect(opened.recovery.corrupt).toEqual({ position: next });
      else expect(opened.head).toBe(next - 1);
    }
  });

  test("below where verification begins is left for whoever reads it; from there on it is found at once", async () => {
    const logs = simLogs(1);
    const { loop, disk, open } = logs;
    const frames = await closedLog(logs, 4_096);
    const paths = [...disk.snapshot().keys()].filter((path) => path.endsWith(".segment")).sort();
    const firsts = paths.map((path) => Number.parseInt(path.slice(4), 10));
    const [first, second] = firsts as [number, number];
    const [oldest] = paths as [string];
    expect([paths.length >= 3, second > first + 1]).toEqual([true, true]);
    const readBytes = new Map<string, number>();
    const openFrom = (verifyFrom: number): Promise<SegmentLog> => {
      readBytes.clear();
      const counted = disk.mount();
      const opened = async (path: string, mode: "read" | "write"): Promise<DiskFile> => {
        const file = await counted.open(path, mode);
        return {
          ...file,
          read: async (offset, length) => {
            const bytes = await file.read(offset, length);
            readBytes.set(path, (readBytes.get(path) ?? 0) + bytes.length);
            return bytes;
          },
        };
      };
      return loop.finish(open({ verifyFrom }, { ...counted, open: opened }));
    };

    // What is whole is the same wherever verification begins, and of what lies below only the header is read.
    const whole = await openFrom(second);
    expect(readBytes.get(oldest)).toBe(SEGMENT_HEADER_BYTES);
    expect([whole.recovery.corrupt, whole.first, whole.head, whole.leaseEpoch]).toEqual([undefined, 1, 9, 2]);
    expect(await loop.finish(framesIn(whole))).toEqual(frames);
    await loop.finish(whole.close());
    const looked = await openFrom(second - 1);
    expect(readBytes.get(oldest)).toBeGreaterThan(SEGMENT_HEADER_BYTES);
    await loop.finish(looked.close());

    // The last frame of the first segment: found when it is asked for, and the log goes on until then.
    const damagedAt = contentEnd(disk.snapshot().get(oldest) as Uint8Array) - 100;
    await loop.finish(flip(disk.mount(), oldest, damagedAt, 8));
    for (const verifyFrom of [0, second - 1]) {
      const log = await openFrom(verifyFrom);
      expect(log.recovery.corrupt?.position, `from ${verifyFrom}`).toBeLessThan(second);
      await loop.finish(log.close());
    }
    const log = await openFrom(second);
    expect([log.recovery.corrupt, log.head]).toEqual([undefined, 9]);
    await fails(loop.finish(framesIn(log)), "ERR_CORRUPT");
    expect(await loop.finish(log.read(second, ALL))).toEqual(expect.arrayContaining([frames[second - 1]]));
    expect(log.append(framesOf(9, 10), { expectedHead: 9, leaseEpoch: 2 })).toBe(10);
    await loop.finish(log.close());

    // What names the segments, and what lies where verification begins, is looked at all the same.
    await loop.finish(flip(disk.mount(), oldest, 12, 1));
    expect((await openFrom(second)).recovery.corrupt).toEqual({ position: 1 });
    await loop.finish(flip(disk.mount(), oldest, 12, 1));
    await loop.finish(flip(disk.mount(), paths[1] as string, SEGMENT_HEADER_BYTES + 80, 1));
    expect((await openFrom(second)).recovery.corrupt).toMatchObject({ position: second });
    await loop.finish(disk.mount().remove(paths[1] as string));
    expect((await openFrom(Number.MAX_SAFE_INTEGER)).recovery.corrupt, "a segment that is gone").toBeDefined();
  });

  test("by writing elsewhere: what was durable is there, is reported, or was the last group", async () => {
    const outcomes = { whole: 0, reported: 0, cut: 0 };
    for (let ordinal = 0; ordinal < 30; ordinal++) {
      for (let share = 0; share < (LONG ? 40 : 10); share++) {
        const size = (share + 0.5) / (LONG ? 40 : 10);
        const faults = createReplayInjector([{ kind: "disk-misdirected", site: "n0/disk", ordinal, size }]);
        const { loop, disk, open } = simLogs(SEED, faults);
        const log = await loop.finish(open());
        let durable = 0;
        for (let value = 1; value <= 9; value++) {
          // Records of a sector each: one in the place of another has a right checksum.
          log.append(framesOf(value * 4 + 2, 512 - 64 - 40));
          await loop.finish(log.flush());
          durable = log.durable;
        }
        faults.quiet();
        disk.crash();
        const last = await loop.finish(open());
        const place = `fault ${ordinal}, ${size}`;
        const { corrupt } = last.recovery;
        const end = corrupt === undefined ? last.head : corrupt.position - 1;
        const frames = await loop.finish(last.read(1, ALL).catch(endOf));
        const values = frames.map(({ entries }) => ((entries[0]?.lsn ?? 0) - 1_002) / 4);
        expect(values, place).toEqual(Array.from({ length: end }, (_, at) => at + 1));
        if (corrupt !== undefined) outcomes.reported++;
        else if (end === durable) outcomes.whole++;
        else {
          expect(end, place).toBe(durable - 1);
          outcomes.cut++;
        }
      }
    }
    expect(outcomes.whole).toBeGreaterThan(0);
    expect(outcomes.reported).toBeGreaterThan(10);
    expect(outcomes.cut).toBeGreaterThan(0);
  });

  test("is seen by a reader of its own, which gives what is before", async () => {
    const logs = simLogs(1);
    const frames = await closedLog(logs);
    const { loop, disk } = logs;
    const mounted = disk.mount();
    const whole = new SegmentReader(mounted, "log");
    expect(await loop.finish(whole.read(1, ALL))).toEqual(frames);
    expect(await loop.finish(whole.read(frames.length + 1, ALL))).toEqual([]);
    const [first = ""] = [...disk.snapshot().keys()].sort();
    await loop.finish(flip(mounted, first, 64 + 64 + 3, 1));
    const reader = new SegmentReader(mounted, "log");
    await fails(loop.finish(reader.read(1, ALL)), "ERR_CORRUPT");
    expect((await loop.finish(reader.read(2, 1)))[0]).toEqual(frames[1]);
  });
});

/** Makes the disk hold exactly these files again. */
async function restore(disk: Disk, files: ReadonlyMap<string, Uint8Array>): Promise<void> {
  for (const name of await disk.list("log")) await disk.remove(`log/${name}`);
  for (const [path, bytes] of files) {
    const file = await disk.open(path, "create");
    await file.write(0, bytes);
    await file.close();
  }
}
