/** Processes and threads of a simulated disk: whose operations happen, whose are told, who may have a directory. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Disk, DiskFile } from "../../src/runtime/disk.ts";
import { type DiskProcess, SimDisk, type ThreadDisk } from "../../src/sim/disk.ts";
import { directoryOf } from "../../src/sim/disk-directory.ts";
import type { Fault } from "../../src/sim/fault-types.ts";
import { createReplayInjector } from "../../src/sim/injector.ts";
import { diskConformance, fails } from "../conformance/disk.ts";
import { SteppedLoop } from "./stepped-loop.ts";

const SEED = Number(process.env["SEED"] ?? 1);

interface Bench {
  readonly loop: SteppedLoop;
  readonly disk: SimDisk;
  readonly twoWriters: string[];
  run<T>(work: Promise<T>): Promise<T>;
}

function bench(seed = SEED, faults: readonly Fault[] = []): Bench {
  const loop = new SteppedLoop(seed);
  const twoWriters: string[] = [];
  const disk = new SimDisk({
    node: "n0",
    loop,
    faults: createReplayInjector(faults),
    onTwoWriters: (where) => twoWriters.push(where),
  });
  return { loop, disk, twoWriters, run: (work) => loop.finish(work) };
}

interface Worker extends ThreadDisk {
  readonly deaths: string[];
}

function worker(process: DiskProcess, loop: SteppedLoop, name = "n0/w0"): Worker {
  const deaths: string[] = [];
  const thread = process.attach({ name, loop, die: ({ message }) => deaths.push(message) });
  return { ...thread, deaths };
}

const filled = (value: number): Uint8Array => new Uint8Array(8).fill(value);

async function made(disk: Disk, path: string): Promise<DiskFile> {
  const file = await disk.open(path, "write");
  await file.write(0, filled(1));
  await file.sync();
  return file;
}

/** Begins writes of one byte each at places of their own. @returns numbers of those that settled */
function beginWrites(file: DiskFile, count: number): number[] {
  const settled: number[] = [];
  for (let at = 0; at < count; at++)
    void file.write(at, Uint8Array.of(9)).then(
      () => settled.push(at),
      () => settled.push(at),
    );
  return settled;
}

const happened = (disk: SimDisk, path: string): number =>
  (disk.snapshot().get(path) ?? new Uint8Array()).filter((byte) => byte === 9).length;

describe("a directory of a simulated disk, as every disk", () => {
  diskConformance(async () => {
    const { disk, run } = bench();
    const root = await run(disk.start().directories.open("/data/of this"));
    return {
      disk: root.disk,
      run,
      restart: async () => (await disk.start().directories.open("/data/of this")).disk,
      close: async () => undefined,
    };
  });
});

describe("a directory", () => {
  test("is made durably, holds what is in it, and nothing outside of it is reached", async () => {
    const { disk, run } = bench();
    const { disk: root } = await run(disk.start().directories.open("/data"));
    await run(made(root, "a"));
    await run(root.syncDirectory(""));
    expect([...disk.snapshot().keys()]).toEqual(["data/a"]);
    for (const path of ["../a", "/a", "", "x/../../a"])
      await fails(run(root.open(path, "read")), "ERR_INVALID_ARGUMENT");
    disk.crash();
    expect(await run(disk.mount().list("data"))).toEqual(["a"]);
    expect(directoryOf(root, "/")).toBe(root);
  });

  test("is open once at a time in a process, however its path is written", async () => {
    const { disk, run } = bench();
    const { directories } = disk.start();
    const first = await run(directories.open("/data"));
    await fails(run(directories.open("data/")), "ERR_DIRECTORY_IN_USE");
    await run(directories.open("/other"));
    await run(first.close());
    await run(directories.open("/data"));
  });

  test("of a process that is gone is free for the next one, and the old one reaches nothing any more", async () => {
    const { disk, run, loop } = bench();
    const old = await run(disk.start().directories.open("/data"));
    const file = await run(made(old.disk, "a"));
    const next = await run(disk.start().directories.open("/data"));
    const settled = beginWrites(file, 4);
    await loop.runUntil(10_000_000);
    expect([settled, happened(disk, "data/a")]).toEqual([[], 0]);
    expect(await run(next.disk.list(""))).toEqual(["a"]);
  });

  test("is looked at before it is open, and left free when that fails; read, it is not held", async () => {
    const { disk, run } = bench();
    const { directories } = disk.start();
    const check = (): Promise<void> => Promise.reject(new Error("not this one"));
    await fails(run(directories.open("/data", { existing: true })), "ERR_NO_FILE");
    await expect(run(directories.open("/data", { check }))).rejects.toThrow("not this one");
    const own = await run(directories.open("/data"));
    await run(made(own.disk, "a"));
    const [one, other] = [
      await run(directories.open("/data", { shared: true })),
      await run(directories.open("/data", { shared: true })),
    ];
    expect([await run(one.disk.list("")), await run(other.disk.list(""))]).toEqual([["a"], ["a"]]);
    await run(one.close());
    await fails(run(directories.open("/data", { existing: true })), "ERR_DIRECTORY_IN_USE");
  });

  test("that could not be made is not open", async () => {
    const { disk, run } = bench();
    const { directories } = disk.start();
    disk.readOnly = true;
    await fails(run(directories.open("/data")), "ERR_READ_ONLY");
    disk.readOnly = false;
    await run(directories.open("/data"));
  });
});

describe("threads of one process", () => {
  test("share files, and each is told of its own operations", async () => {
    const { disk, run, loop } = bench();
    const process = disk.start();
    const one = worker(process, loop);
    const other = worker(process, loop, "n0/w1");
    await run(made(one.disk, "a"));
    const file = await run(other.disk.open("a", "read"));
    expect(await run(file.read(0, 8))).toEqual(filled(1));
    expect(await run(process.disk.list(""))).toEqual(["a"]);
    expect([one.deaths, other.deaths]).toEqual([[], []]);
  });

  test("of a dead thread some operations in flight happen, none is told, and its end waits for them", async () => {
    const counts = new Set<number>();
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 1e9 }), async (seed) => {
        const { disk, run, loop } = bench(seed);
        const process = disk.start();
        const thread = worker(process, loop);
        const file = await run(made(thread.disk, "a"));
        const settled = beginWrites(file, 6);
        await loop.settle();
        const untilUs = thread.detach();
        await loop.runUntil(loop.nowUs + untilUs);
        const count = happened(disk, "a");
        counts.add(count);
        await loop.runUntil(loop.nowUs + 10_000_000);
        expect(happened(disk, "a")).toBe(count);
        expect(settled).toEqual([]);
        expect(thread.detach()).toBe(0);
        // A dead thread begins nothing.
        beginWrites(file, 6);
        await loop.runUntil(loop.nowUs + 10_000_000);
        expect(happened(disk, "a")).toBe(count);
        // The process goes on.
        expect(await run(process.disk.list(""))).toEqual(["a"]);
      }),
      { seed: SEED, numRuns: 60 },
    );
    expect(counts.size).toBeGreaterThan(3);
  });

  test("of a killed process some operations in flight happen at once, the cache stays, and nothing is told", async () => {
    const counts = new Set<number>();
    for (let seed = SEED; seed < SEED + 40; seed++) {
      const { disk, run, loop } = bench(seed);
      const thread = worker(disk.start(), loop);
      const file = await run(made(thread.disk, "a"));
      await run(file.write(100, filled(5)));
      const settled = beginWrites(file, 6);
      await loop.settle();
      disk.kill();
      const count = happened(disk, "a");
      counts.add(count);
      await loop.runUntil(loop.nowUs + 10_000_000);
      expect([happened(disk, "a"), settled]).toEqual([count, []]);
      expect(disk.snapshot().get("a")?.subarray(100)).toEqual(filled(5));
    }
    expect(counts.size).toBeGreaterThan(3);
  });

  test("of a thread of a process that is gone nothing happens", async () => {
    const { disk, run, loop } = bench();
    const old = disk.start();
    await run(made(old.disk, "a"));
    disk.start();
    const late = worker(old, loop);
    const settled: string[] = [];
    void late.disk.open("b", "create").then(() => settled.push("open"));
    await loop.runUntil(10_000_000);
    expect([settled, [...disk.snapshot().keys()]]).toEqual([[], ["a"]]);
  });
});

describe("worker-io-crash", () => {
  const death = (ordinal: number, size: number): Fault => ({ kind: "worker-io-crash", site: "n0/w0", ordinal, size });

  test.each([
    [0.25, 0],
    [0.75, 1],
  ])("of size %d has a worker die at its operation, which happens %d times, and is not told", async (size, times) => {
    const { disk, run, loop } = bench(SEED, [death(3, size)]);
    const thread = worker(disk.start(), loop);
    const file = await run(made(thread.disk, "a")); // three operations
    const settled = beginWrites(file, 1);
    await loop.runUntil(10_000_000);
    expect(thread.deaths).toEqual(["the thread died at: write file a"]);
    thread.detach();
    await loop.runUntil(20_000_000);
    expect([happened(disk, "a"), settled]).toEqual([times, []]);
  });

  test("hits workers alone", async () => {
    const { disk, run, loop } = bench(SEED, [death(0, 0), death(1, 0)]);
    await run(made(disk.start({ name: "n0/w0", loop }).disk, "a"));
    expect([...disk.snapshot().keys()]).toEqual(["a"]);
  });
});

describe("two living workers that write to one shard", () => {
  test("are told, each time another one does", async () => {
    const { disk, run, loop, twoWriters } = bench();
    const process = disk.start();
    await run(process.directories.open("/data/shards/3"));
    const [one, other] = [worker(process, loop), worker(process, loop)];
    await run(made(one.disk, "data/shards/3/a"));
    await run(other.disk.open("data/shards/3/a", "read"));
    await run(made(one.disk, "data/shards/3/a"));
    expect(twoWriters).toEqual([]);
    await run(made(other.disk, "data/shards/3/b"));
    expect(twoWriters).toEqual(["data/shards/3/ on n0/disk"]);
  });

  test("are none where one follows a dead one, or another process, or is not a worker", async () => {
    const { disk, run, loop, twoWriters } = bench();
    const process = disk.start();
    await run(process.directories.open("/data/shards/3"));
    await run(made(process.disk, "data/shards/3/a"));
    const one = worker(process, loop);
    await run(made(one.disk, "data/shards/3/a"));
    one.detach();
    await run(made(worker(process, loop).disk, "data/shards/3/a"));
    await run(made(worker(disk.start(), loop).disk, "data/shards/3/a"));
    expect(twoWriters).toEqual([]);
  });
});
