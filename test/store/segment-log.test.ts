/** The segment log: the suite of its interface, and what it does to its files. */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { createSystemDisk, type Disk } from "../../src/runtime/disk.ts";
import { sleep, systemScheduler } from "../../src/runtime/scheduler.ts";
import { DURABILITIES } from "../../src/store/log.ts";
import { SegmentLog } from "../../src/store/segment-log.ts";
import { fails } from "../conformance/disk.ts";
import { shardLogConformance } from "../conformance/shard-log.ts";
import { framesOf, SMALL, simLogs, valuesIn } from "../support/segment-logs.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";

async function onRealDisk(body: (disk: Disk, root: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "shardloom-log-"));
  try {
    await body(await createSystemDisk(root), root);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

const openReal = (disk: Disk): Promise<SegmentLog> =>
  SegmentLog.open(disk, "log", { ...SMALL, scheduler: systemScheduler });

describe.each(DURABILITIES)("the segment log (%s)", (durability) => {
  let segments = 0;

  shardLogConformance(
    async (seed) => {
      const { loop, disk, scheduler, open } = simLogs(seed);
      let last: SegmentLog | undefined;
      return {
        open: async (options = {}) => {
          last = await open({ durability, ...options });
          expect(last.recovery).toMatchObject({ cutBytes: 0, corrupt: undefined });
          return last;
        },
        run: (work) => loop.finish(work),
        keep: async (log) => {
          await log.flush();
          if (durability === "memory") await sleep(scheduler, 300);
        },
        // A disk that keeps all it was given loses nothing else.
        crash: () => disk.crash(),
        idle: (ms) => sleep(scheduler, ms),
        close: async () => {
          await loop.finish(last?.close() ?? Promise.resolve());
          const paths = [...disk.snapshot().keys()];
          segments += paths.filter((path) => path.endsWith(".segment")).length;
          expect(paths.some((path) => path.endsWith(".spare"))).toBe(false);
        },
      };
    },
    LONG ? 400 : 60,
  );

  test("had many segments meanwhile", () => {
    expect(segments).toBeGreaterThan(20);
  });
});

describe("the segment log", () => {
  test("writes together what is appended together, and syncs once for each group", async () => {
    const { loop, open } = simLogs(1);
    const log = await loop.finish(open({ segmentBytes: 1 << 20, firstSegmentBytes: 1 << 20 }));
    log.append(framesOf(1, 10));
    await loop.finish(log.flush());
    await loop.runUntil(loop.nowUs + 1_000_000); // there is a spare segment, and a mark
    const count = (what: string): number => loop.traced.filter((line) => line.includes(what)).length;
    const [writes, syncs] = [count("write file"), count("sync file")];
    for (let value = 0; value < 50; value++) log.append(framesOf(value, 100));
    await loop.finish(log.flush());
    expect([count("write file") - writes, count("sync file") - syncs]).toEqual([1, 1]);
    // What comes while a group is on its way is the next group.
    log.append(framesOf(1, 10));
    await loop.settle();
    for (let value = 0; value < 50; value++) log.append(framesOf(value, 100));
    await loop.finish(log.flush());
    expect([count("write file") - writes, count("sync file") - syncs]).toEqual([3, 3]);
  });

  test("writes what nobody waits for a little later, with what comes meanwhile", async () => {
    const { loop, open } = simLogs(1);
    const log = await loop.finish(open({ segmentBytes: 1 << 20, firstSegmentBytes: 1 << 20 }));
    await loop.runUntil(loop.nowUs + 1_000_000);
    const writes = (): number => loop.traced.filter((line) => line.includes("write file")).length;
    const before = writes();
    log.append(framesOf(1, 10), { lazy: true });
    await loop.runUntil(loop.nowUs + 2_000);
    expect([log.durable, writes() - before]).toEqual([0, 0]);
    await loop.runUntil(loop.nowUs + 1_000_000);
    expect(log.durable).toBe(1);
    // Whoever flushes does not wait for that.
    log.append(framesOf(1, 10), { lazy: true });
    await loop.finish(log.flush());
    expect(log.durable).toBe(2);
    await loop.runUntil(loop.nowUs + 1_000_000);
    // One that somebody waits for takes it along, in one write.
    const alone = writes();
    log.append(framesOf(1, 10), { lazy: true });
    log.append(framesOf(2, 10));
    await loop.finish(log.flush());
    expect([log.durable, writes() - alone]).toEqual([4, 1]);
  });

  test("removes whole segments below a position, from the first, and never the last", async () => {
    await onRealDisk(async (disk, root) => {
      const log = await openReal(disk);
      for (let value = 0; value < 60; value++) {
        log.append(framesOf(value, 900));
        await log.flush();
      }
      const names = async (): Promise<string[]> =>
        (await readdir(join(root, "log"))).filter((name) => name.endsWith(".segment"));
      const firsts = (await names()).map((name) => Number.parseInt(name, 10));
      expect(firsts.length).toBeGreaterThan(4);
      const [, second = 0, third = 0] = firsts;
      await log.truncateBelow(second - 1);
      expect(log.first).toBe(1);
      await log.truncateBelow(third + 1);
      expect(log.first).toBe(third);
      expect(await names()).toHaveLength(firsts.length - 2);
      expect((await log.read(1, 1))[0]?.position).toBe(third);
      await Promise.all([log.truncateBelow(1_000), log.truncateBelow(10)]);
      expect(await names()).toHaveLength(1);
      expect((await valuesIn(log)).at(-1)).toBe(59);
      await log.close();
    });
  });

  test("is small when it has little, and has its room allocated ahead", async () => {
    await onRealDisk(async (disk, root) => {
      const log = await SegmentLog.open(disk, "log", { scheduler: systemScheduler });
      const size = async (): Promise<number> => {
        const names = await readdir(join(root, "log"));
        const stats = await Promise.all(names.map((name) => stat(join(root, "log", name))));
        return stats.reduce((sum, { blocks }) => sum + blocks * 512, 0);
      };
      expect(await size()).toBeGreaterThanOrEqual(256 * 1024);
      log.append(framesOf(1, 100));
      await log.flush();
      await log.close();
      expect(await size()).toBeLessThanOrEqual(300 * 1024);
    });
  });

  test("refuses a segment of another version, and leaves it as it is", async () => {
    const { loop, open, disk } = simLogs(1);
    const log = await loop.finish(open());
    log.append(framesOf(1, 100));
    await loop.finish(log.close());
    const mounted = disk.mount();
    const { crc32 } = await import("../../src/runtime/checksum.ts");
    const change = async (): Promise<void> => {
      const file = await mounted.open("log/00000000000000000001.segment", "write");
      const header = await file.read(0, 64);
      const view = new DataView(header.buffer);
      view.setUint32(8, 2, true);
      view.setUint32(60, crc32(header.subarray(0, 60)), true);
      await file.write(0, header);
    };
    await loop.finish(change());
    const before = disk.hash();
    await fails(loop.finish(open({}, mounted)), "ERR_UNSUPPORTED_FORMAT");
    expect(disk.hash()).toBe(before);
  });

  test.for([
    [{ segmentBytes: 100 }, "segmentBytes"],
    [{ segmentBytes: 8_192, firstSegmentBytes: 16_384 }, "firstSegmentBytes"],
    [{ durability: "never" as never }, "durability"],
    [{ maxLineBytes: 0 }, "maxLineBytes"],
    [{ markDelayMs: -1 }, "markDelayMs"],
    [{ syncDelayMs: Number.NaN }, "syncDelayMs"],
    [{ verifyFrom: -1 }, "verifyFrom"],
  ] as const)("refuses %o", async ([options, name]) => {
    const opening = simLogs(1).open(options);
    await expect(opening).rejects.toThrow(new RegExp(`Cannot open log as ${name} must be`));
    await opening.catch((error: unknown) => expect(ShardloomError.is(error)).toBe(true));
  });
});
