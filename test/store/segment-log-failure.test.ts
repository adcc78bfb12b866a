/** The segment log on a disk that fails: full, read-only, with errors of writes and syncs; then it works again, and nothing is lost. */
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { diskError } from "../../src/runtime/disk.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { createReplayInjector } from "../../src/sim/injector.ts";
import type { SegmentLog } from "../../src/store/segment-log.ts";
import { fails } from "../conformance/disk.ts";
import { codeOf, framesOf, hookedDisk, type SimLogs, SMALL, simLogs, valuesIn } from "../support/segment-logs.ts";

const SEED = Number(process.env["SEED"] ?? 1);

/** What a disk may fail with, and the code that it has. */
const ERRORS = [
  ["ENOSPC", "ERR_DISK_FULL"],
  ["EROFS", "ERR_READ_ONLY"],
  ["EIO", "ERR_IO"],
] as const;
const OPERATIONS = ["write", "sync", "open create", "rename", "syncDirectory"] as const;

/** A log whose disk fails as long as it is told to. */
async function failingLog(logs: SimLogs): Promise<{ log: SegmentLog; failing: { at: string; errno: string } }> {
  const failing = { at: "", errno: "EIO" };
  const disk = hookedDisk(logs.disk.mount(), (operation, path) => {
    if (operation === failing.at) throw diskError(operation, path, failing.errno);
  });
  return { log: await logs.loop.finish(logs.open({}, disk)), failing };
}

describe.each(ERRORS)("a disk that fails with %s", (errno, code) => {
  test.for(OPERATIONS)("at %s: the log says so, and loses nothing", async (operation) => {
    const logs = simLogs(SEED);
    const { loop, disk, open } = logs;
    const { log, failing } = await failingLog(logs);
    const asked: number[] = [];
    const append = (value: number, size: number): void => {
      log.append(framesOf(value, size));
      asked.push(value);
    };
    append(1, 300);
    await loop.finish(log.flush());
    const changes: (string | undefined)[] = [];
    log.onChange = () => changes.push(log.failure?.code);
    failing.at = operation;
    failing.errno = errno;
    // Segments of 4 KiB: sooner or later each kind of operation is needed.
    let refusal: string | undefined;
    const before = log.head;
    for (let value = 2; value < 40 && refusal === undefined; value++) {
      refusal = codeOf(() => append(value, 900));
      if (refusal !== undefined) break;
      await loop.finish(log.flush().catch((error: unknown) => expect(ShardloomError.from(error).code).toBe(code)));
      await loop.runUntil(loop.nowUs + 2_000);
    }
    expect(refusal).toBe(code);
    // Where only the room for more is missing nothing is in line: what is too large for the rest of it is refused.
    const failure = operation === "open create" ? undefined : code;
    expect(codeOf(() => log.assertRoom(4_096))).toBe(code);
    expect(log.failure?.code).toBe(failure);
    if (failure !== undefined) expect(changes).toContain(code);
    // What was durable can be read meanwhile, and the log stays as it is.
    expect(await loop.finish(valuesIn(log))).toEqual(asked.slice(0, log.durable));
    expect(log.durable).toBeGreaterThanOrEqual(before);
    await loop.runUntil(loop.nowUs + 3_000_000);
    expect([log.failure?.code, log.head]).toEqual([failure, asked.length]);
    // It works again.
    failing.at = "";
    await loop.runUntil(loop.nowUs + 6_000_000);
    expect([log.failure, log.durable]).toEqual([undefined, asked.length]);
    append(77, 500);
    await loop.finish(log.flush());
    expect(await loop.finish(valuesIn(log))).toEqual(asked);
    await loop.finish(log.close());
    disk.crash();
    expect(await loop.finish(open().then(valuesIn))).toEqual(asked);
  });
});

describe("the segment log", () => {
  test("can be opened and read on a disk that is read-only, and cannot be appended to", async () => {
    for (const isClean of [true, false]) {
      const { loop, disk, open } = simLogs(SEED);
      const log = await loop.finish(open());
      for (const value of [1, 2, 3]) {
        log.append(framesOf(value, 400));
        await loop.finish(log.flush());
      }
      if (isClean) await loop.finish(log.close());
      const mounted = disk.mount();
      disk.readOnly = true;
      const opened = await loop.finish(open({}, mounted));
      expect(await loop.finish(valuesIn(opened))).toEqual([1, 2, 3]);
      if (!isClean) {
        expect([opened.failure?.code, opened.head]).toEqual(["ERR_READ_ONLY", 3]);
        expect(codeOf(() => opened.append(framesOf(4, 10)))).toBe("ERR_READ_ONLY");
      }
      disk.readOnly = false;
      await loop.runUntil(loop.nowUs + 6_000_000);
      expect([opened.failure, opened.durable]).toEqual([undefined, 3]);
      opened.append(framesOf(4, 10));
      await loop.finish(opened.close());
      disk.crash();
      expect(await loop.finish(open().then(valuesIn))).toEqual([1, 2, 3, 4]);
    }
  });

  test("cannot be made on a disk that is read-only", async () => {
    const { loop, disk, open } = simLogs(SEED);
    disk.readOnly = true;
    await fails(loop.finish(open()), "ERR_READ_ONLY");
  });

  test("finds out that a disk is full before a frame is accepted", async () => {
    for (let seed = SEED; seed < SEED + 20; seed++) {
      const { loop, disk, open } = simLogs(seed);
      const log = await loop.finish(open());
      disk.begin({ kind: "disk-full", atMs: 0, durationMs: 1_000, targets: ["n0/disk"], size: 0 });
      const asked: number[] = [];
      let refusal: string | undefined;
      for (let value = 1; value < 60; value++) {
        refusal = codeOf(() => log.append(framesOf(value, 700)));
        if (refusal !== undefined) break;
        asked.push(value);
        // What was accepted has its room: it becomes durable on the full disk.
        await loop.finish(log.flush());
        await loop.runUntil(loop.nowUs + 3_000);
      }
      expect(refusal).toBe("ERR_DISK_FULL");
      expect(asked.length).toBeGreaterThan(2);
      expect(log.durable).toBe(asked.length);
      await loop.runUntil(loop.nowUs + 7_000_000);
      expect(log.failure).toBeUndefined();
      log.append(framesOf(70, 700));
      await loop.finish(log.flush());
      disk.crash();
      expect(await loop.finish(open().then(valuesIn))).toEqual([...asked, 70]);
    }
  });

  test("uses a disk that is nearly full to its end, goes on when there is room, and grows its segments again", async () => {
    for (let seed = SEED; seed < SEED + 10; seed++) {
      const capacityBytes = 96 * 1024;
      const { loop, disk, open } = simLogs(seed, undefined, { capacityBytes });
      const mounted = disk.mount();
      const options = { segmentBytes: 64 * 1024 };
      const log = await loop.finish(open(options, mounted));
      const filler = await loop.finish(mounted.open("filler", "create"));
      const used = (): number => [...disk.snapshot().values()].reduce((sum, { length }) => sum + length, 0);
      const largest = (): number =>
        Math.max(...[...disk.snapshot()].map(([path, { length }]) => (path.startsWith("log/") ? length : 0)));
      const asked: number[] = [];
      const fillUp = async (most: number): Promise<void> => {
        for (let value = asked.length + 1; asked.length < most; value++) {
          const refusal = codeOf(() => log.append(framesOf(value, 700)));
          if (refusal !== undefined) return expect(refusal).toBe("ERR_DISK_FULL");
          asked.push(value);
          await loop.finish(log.flush());
          await loop.runUntil(loop.nowUs + 5_000);
        }
      };
      await fillUp(6); // so that a spare of 16 KiB, or more, is the next
      await loop.finish(filler.write(0, new Uint8Array(capacityBytes - used() - 10_000)));
      const before = asked.length;
      await fillUp(1_000);
      expect(asked.length).toBeGreaterThan(before + 8);
      expect(capacityBytes - used()).toBeLessThan(SMALL.firstSegmentBytes);
      expect(codeOf(() => log.append(framesOf(asked.length + 1, 700)))).toBe("ERR_DISK_FULL");
      expect(log.durable).toBe(log.head); // nothing waits for room that may not come
      await loop.finish(filler.truncate(0));
      await loop.runUntil(loop.nowUs + 6_000_000);
      expect(log.failure).toBeUndefined();
      await fillUp(asked.length + 40);
      expect(largest()).toBeGreaterThanOrEqual(16 * 1024);
      disk.crash();
      expect(await loop.finish(open(options).then(valuesIn))).toEqual(asked);
    }
  });

  test("takes what fits a spare that is smaller than it should be, refuses the rest, and takes that when there is room", async () => {
    const capacityBytes = 96 * 1024;
    const { loop, disk, open } = simLogs(SEED, undefined, { capacityBytes });
    const mounted = disk.mount();
    const filler = await loop.finish(mounted.open("filler", "create"));
    await loop.finish(filler.write(0, new Uint8Array(capacityBytes - 5_000 - 5_000)));
    const log = await loop.finish(open({ segmentBytes: 64 * 1024 }, mounted));
    log.append(framesOf(1, 3_500));
    await loop.finish(log.flush());
    await loop.runUntil(loop.nowUs + 50_000);
    expect(log.failure).toBeUndefined();
    expect(codeOf(() => log.append(framesOf(2, 8_000)))).toBe("ERR_DISK_FULL");
    log.append(framesOf(2, 1_000));
    await loop.finish(log.flush());
    await loop.finish(filler.truncate(0));
    await loop.runUntil(loop.nowUs + 6_000_000);
    log.append(framesOf(3, 8_000));
    await loop.finish(log.flush());
    expect(await loop.finish(valuesIn(log))).toEqual([1, 2, 3]);
  });

  test("writes elsewhere what a failed sync may have lost, and no later sync makes it look durable", async () => {
    let hits = 0;
    for (let ordinal = 0; ordinal < 16; ordinal++) {
      for (let seed = 0; seed < 12; seed++) {
        const size = createSeededRandom(seed).float();
        const faults = createReplayInjector([{ kind: "disk-sync-failed", site: "n0/disk", ordinal, size }]);
        const { loop, disk, open } = simLogs(seed, faults);
        const log = await loop.finish(open());
        let durable = 0;
        log.onChange = () => {
          expect(log.durable).toBeGreaterThanOrEqual(durable);
          durable = log.durable;
        };
        let head = 0;
        for (let value = 1; value <= 6; value++) {
          // Refused while the log has failed: then later.
          while (codeOf(() => log.append(framesOf(value, 900))) !== undefined) await loop.runUntil(loop.nowUs + 50_000);
          head = log.head;
          await loop.finish(log.flush().catch((error: unknown) => expect(error).toMatchObject({ code: "ERR_IO" })));
        }
        expect(head).toBe(6);
        hits += faults.injected.length;
        faults.quiet();
        const told = durable;
        disk.crash();
        const values = await loop.finish(open().then(valuesIn));
        expect(values.length).toBeGreaterThanOrEqual(told);
        expect(values).toEqual([1, 2, 3, 4, 5, 6].slice(0, values.length));
      }
    }
    expect(hits).toBeGreaterThan(100);
  });

  test("closes on a disk that fails, after one more try", async () => {
    const logs = simLogs(SEED);
    const { log, failing } = await failingLog(logs);
    const { loop, open, disk } = logs;
    log.append(framesOf(1, 100));
    await loop.finish(log.flush());
    failing.at = "sync";
    log.append(framesOf(2, 100));
    await fails(loop.finish(log.flush()), "ERR_IO");
    await loop.finish(log.close());
    expect(log.durable).toBe(1);
    // Nobody was told of the second; whether it is there is open.
    expect([1, 2]).toEqual(expect.arrayContaining(await loop.finish(open({}, disk.mount()).then(valuesIn))));
  });
});
