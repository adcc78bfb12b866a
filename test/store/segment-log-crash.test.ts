/**
 * The segment log after a crash: of the power at every event of a short run with many outcomes of what was not synced, of the process at every
 * step on a real disk, and of recovery itself.
 */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createSystemDisk, type Disk } from "../../src/runtime/disk.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { type Scheduler, systemScheduler } from "../../src/runtime/scheduler.ts";
import type { DrawnFault, FaultInjector, FaultKind, TimedFault } from "../../src/sim/fault-types.ts";
import { SegmentLog } from "../../src/store/segment-log.ts";
import { ALL, framesOf, hookedDisk, SMALL, simLogs, valuesIn } from "../support/segment-logs.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const LONG = process.env["SHARDLOOM_LONG"] === "1";

/** At a crash: what becomes of each unsynced write and name. */
class CrashFaults implements FaultInjector {
  readonly timed: readonly TimedFault[] = [];
  readonly injected: DrawnFault[] = [];
  readonly #random: Random;
  readonly #lost: number;
  readonly #torn: number;
  armed = false;

  constructor(random: Random, lost: number, torn: number) {
    this.#random = random;
    this.#lost = lost;
    this.#torn = torn;
  }

  draw(kind: FaultKind, site: string): DrawnFault | undefined {
    const rate = kind === "disk-lost-write" ? this.#lost : kind === "disk-torn" ? this.#torn : 0;
    if (!this.armed || this.#random.float() >= rate) return undefined;
    const fault = { kind, site, ordinal: this.injected.length, size: this.#random.float() };
    this.injected.push(fault);
    return fault;
  }

  point(kind: FaultKind, site: string) {
    return { draw: () => this.draw(kind, site) };
  }

  began(): void {}
  quiet(): void {}
}

/** What a crash leaves: nothing, everything, or some. */
const OUTCOMES: readonly (readonly [lost: number, torn: number])[] = [
  [0, 0],
  [1, 0],
  [0, 1],
  [0.5, 0.5],
  [0.5, 0.5],
  [0.2, 0.8],
];

interface Script {
  /** Values that were asked for, in order, and how many of them were told to be durable. */
  readonly asked: number[];
  durable: number;
  /** The highest lease epoch that was told to be durable. */
  fenced: number;
}

const begin = (): Script => ({ asked: [], durable: 0, fenced: 0 });

/** Appends small and large, alone and together, over segments; a fence, a pause, a truncation, a close and another opening. */
async function script(
  given: Script,
  scheduler: Scheduler,
  open: () => Promise<SegmentLog>,
  pause: (ms: number) => Promise<void>,
): Promise<void> {
  let log = await open();
  const watch = (): void => {
    log.onChange = () => {
      given.durable = Math.max(given.durable, log.durable);
    };
  };
  const append = (value: number, size: number): void => {
    given.asked.push(value);
    log.append(framesOf(value, size));
  };
  watch();
  append(1, 40);
  await log.flush();
  append(2, 1_100);
  append(3, 300);
  append(4, 600);
  await log.flush();
  await log.fence(3);
  given.fenced = 3;
  await pause(50);
  append(5, 10);
  append(6, 2_000);
  await log.flush();
  append(7, 3_000);
  await log.flush();
  append(8, 700);
  await log.close();
  log = await open();
  watch();
  append(9, 90);
  append(10, 1_500);
  await log.flush();
  await log.truncateBelow(5);
  append(11, 5);
  await log.flush();
  void scheduler;
}

/** What must hold after any crash. */
async function checkAfter(log: SegmentLog, { asked, durable, fenced }: Script): Promise<number[]> {
  expect(log.recovery.corrupt).toBeUndefined();
  expect(log.failure).toBeUndefined();
  expect(log.durable).toBe(log.head);
  expect(log.head).toBeGreaterThanOrEqual(durable);
  expect(log.leaseEpoch).toBeGreaterThanOrEqual(fenced);
  const values = await valuesIn(log);
  expect(values).toEqual(asked.slice(log.first - 1, log.head));
  expect(values).toHaveLength(log.head - log.first + 1);
  return values;
}

describe("after a loss of power the segment log has what was durable, and nothing half", () => {
  test("at every event, with many outcomes of what was not synced", { timeout: 300_000 }, async () => {
    let runs = 0;
    let torn = 0;
    const states = new Set<string>();
    for (let seed = SEED; seed < SEED + (LONG ? 20 : 2); seed++) {
      let ended = false;
      for (let crashAt = 0; !ended; crashAt++) {
        for (const [index, [lost, tear]] of OUTCOMES.entries()) {
          const faults = new CrashFaults(createSeededRandom(seed * 7_919 + crashAt * 31 + index), lost, tear);
          const { loop, disk, scheduler, open } = simLogs(seed, faults);
          const given = begin();
          const mounted = disk.mount();
          const pause = (ms: number): Promise<void> => new Promise((resolve) => scheduler.after(ms, resolve));
          let done = false;
          void script(given, scheduler, () => open({}, mounted), pause).then(() => {
            done = true;
          });
          await loop.settle();
          for (let event = 0; event < crashAt && !done; event++) await loop.step();
          ended = done;
          faults.armed = true;
          disk.crash();
          faults.armed = false;
          const log = await loop.finish(open());
          await loop.finish(checkAfter(log, given));
          states.add(`${given.durable} of ${log.head}`);
          if (log.recovery.cutBytes > 0) torn++;
          // It goes on, and what it was told is there when it is opened once more.
          given.asked.length = log.head;
          given.asked.push(99);
          log.append(framesOf(99, 800));
          await loop.finish(log.flush());
          disk.crash();
          given.durable = log.head;
          await loop.finish(checkAfter(await loop.finish(open()), given));
          runs++;
        }
      }
    }
    expect(runs).toBeGreaterThan(500);
    expect(torn).toBeGreaterThan(10);
    // Every number of durable frames, with what was not durable there and gone.
    for (const state of ["0 of 0", "0 of 1", "1 of 1", "1 of 4", "4 of 4", "4 of 6", "6 of 7", "8 of 8", "8 of 10"]) {
      expect(states).toContain(state);
    }
  });

  test("also when recovery crashes at every event, and again when it goes on", { timeout: 300_000 }, async () => {
    const random = createSeededRandom(SEED);
    let runs = 0;
    for (let crashAt = 8; crashAt < 90; crashAt += LONG ? 1 : 4) {
      let recovered = false;
      for (let again = 0; !recovered; again++) {
        const faults = new CrashFaults(random, 0.5, 0.6);
        const { loop, disk, scheduler, open } = simLogs(SEED, faults);
        const given = begin();
        const crash = (): void => {
          faults.armed = true;
          disk.crash();
          faults.armed = false;
        };
        const mounted = disk.mount();
        const pause = (ms: number): Promise<void> => new Promise((resolve) => scheduler.after(ms, resolve));
        void script(given, scheduler, () => open({}, mounted), pause);
        await loop.settle();
        for (let event = 0; event < crashAt; event++) await loop.step();
        crash();
        // What a recovered log has, another crash must not take.
        void open({}, disk.mount()).then((log) => {
          recovered = true;
          given.durable = log.durable;
        });
        await loop.settle();
        for (let event = 0; event < again; event++) await loop.step();
        crash();
        const log = await loop.finish(open());
        await loop.finish(checkAfter(log, given));
        runs++;
      }
    }
    expect(runs).toBeGreaterThan(200);
  });

  test("for ever: what recovery cut off does not come back behind what is appended in its place", async () => {
    let cut = 0;
    for (let seed = SEED; seed < SEED + 200; seed++) {
      const faults = new CrashFaults(createSeededRandom(seed), 0, 0.9);
      const { loop, disk, open } = simLogs(seed, faults);
      const log = await loop.finish(open({ firstSegmentBytes: 16 * 1024 }));
      log.append(framesOf(1, 10));
      await loop.finish(log.flush());
      // Two frames of one length in one write: a torn write may leave the second alone.
      log.append(framesOf(2, 900));
      log.append(framesOf(6, 900));
      await loop.settle();
      for (let event = 0; event < 1 + (seed % 3); event++) await loop.step();
      faults.armed = true;
      disk.crash();
      faults.armed = false;
      const recovered = await loop.finish(open());
      if (recovered.head > 1) continue;
      cut += recovered.recovery.cutBytes > 0 ? 1 : 0;
      recovered.append(framesOf(10, 900));
      await loop.finish(recovered.flush());
      const last = await loop.finish(open());
      expect(await loop.finish(valuesIn(last))).toEqual([1, 10]);
    }
    expect(cut).toBeGreaterThan(20);
  });

  test("the check can fail: a disk that does not sync loses what was durable", async () => {
    let lost = 0;
    for (let crashAt = 20; crashAt < 80; crashAt += 3) {
      const faults = new CrashFaults(createSeededRandom(crashAt), 1, 0);
      const { loop, disk, scheduler, open } = simLogs(1, faults);
      const given = begin();
      const lazy = (inner: Disk): Disk => ({
        ...inner,
        open: async (path, mode) => ({ ...(await inner.open(path, mode)), sync: async () => undefined }),
      });
      const mounted = lazy(disk.mount());
      const pause = (ms: number): Promise<void> => new Promise((resolve) => scheduler.after(ms, resolve));
      void script(given, scheduler, () => open({}, mounted), pause);
      await loop.settle();
      for (let event = 0; event < crashAt; event++) await loop.step();
      faults.armed = true;
      disk.crash();
      const checked = loop.finish(open().then((log) => checkAfter(log, given)));
      lost += await checked.then(
        () => 0,
        () => 1,
      );
    }
    expect(lost).toBeGreaterThan(5);
  });
});

/** Copies of a real directory as a process leaves it that is killed before each of its operations on the disk. */
async function killedAtEveryStep(check: (copy: Disk, given: Script, step: number) => Promise<void>): Promise<number> {
  const root = mkdtempSync(join(tmpdir(), "shardloom-log-"));
  const given = begin();
  const copies: { readonly path: string; readonly given: Script }[] = [];
  const logs: SegmentLog[] = [];
  let isOver = false;
  try {
    const disk = hookedDisk(await createSystemDisk(join(root, "disk")), (operation) => {
      if (isOver || operation === "read" || operation === "list") return;
      const path = join(root, `copy-${copies.length}`);
      cpSync(join(root, "disk"), path, { recursive: true });
      copies.push({ path, given: { ...given, asked: [...given.asked] } });
    });
    const pause = (ms: number): Promise<void> => new Promise((resolve) => systemScheduler.after(ms, resolve));
    const open = async (): Promise<SegmentLog> => {
      const log = await SegmentLog.open(disk, "log", { ...SMALL, scheduler: systemScheduler });
      logs.push(log);
      return log;
    };
    await script(given, systemScheduler, open, pause);
    isOver = true;
    await Promise.allSettled(logs.map((log) => log.close()));
    for (const [step, copy] of copies.entries()) await check(await createSystemDisk(copy.path), copy.given, step);
    return copies.length;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

describe("after kill -9 the segment log has what was written", () => {
  test("before every step of a real disk", { timeout: 120_000 }, async () => {
    const heads = new Set<number>();
    const steps = await killedAtEveryStep(async (disk, given) => {
      const log = await SegmentLog.open(disk, "log", { ...SMALL, scheduler: systemScheduler });
      await checkAfter(log, given);
      heads.add(log.head);
      given.asked.length = log.head;
      log.append(framesOf(77, 500));
      await log.flush();
      expect((await log.read(log.head, ALL))[0]?.entries[0]?.lsn).toBe(1_077);
      await log.close();
    });
    expect(steps).toBeGreaterThan(40);
    expect(heads.size).toBeGreaterThan(6);
  });
});
