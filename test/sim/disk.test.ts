/** The disk of a simulated node: without faults a disk as any, and each fault is seen to happen, alone and typed. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Disk, DiskFile } from "../../src/runtime/disk.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { SimDisk, type SimDiskOptions } from "../../src/sim/disk.ts";
import { CachedFile, KEPT, lostFate, SECTOR_BYTES, tornFate } from "../../src/sim/disk-sectors.ts";
import type { Fault, FaultInjector, FaultRates } from "../../src/sim/fault-types.ts";
import { createFaultInjector, createReplayInjector } from "../../src/sim/injector.ts";
import { diskConformance, fails } from "../conformance/disk.ts";
import { SteppedLoop } from "./stepped-loop.ts";

const SITE = "n0/disk";
const LONG = process.env["SHARDLOOM_LONG"] === "1";

interface Bench {
  readonly loop: SteppedLoop;
  readonly disk: SimDisk;
  readonly faults: FaultInjector;
  run<T>(work: Promise<T>): Promise<T>;
}

function bench(rates: FaultRates, seed = 1, options: Partial<SimDiskOptions> = {}): Bench {
  const loop = new SteppedLoop(seed);
  const faults = createFaultInjector(rates, (name) => loop.stream(name), []);
  const disk = new SimDisk({ node: "n0", loop, faults, ...options });
  return { loop, disk, faults, run: (work) => loop.finish(work) };
}

/** A bench whose faults are these. */
function scripted(list: readonly Fault[]): Bench {
  const loop = new SteppedLoop(1);
  const faults = createReplayInjector(list);
  return { loop, faults, disk: new SimDisk({ node: "n0", loop, faults }), run: (work) => loop.finish(work) };
}

/** A file with some content, on the medium with its name. */
async function durable(disk: Disk, path: string, content: Uint8Array): Promise<DiskFile> {
  const file = await disk.open(path, "write");
  await file.write(0, content);
  await file.sync();
  await disk.syncDirectory("");
  return file;
}

const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

/** What a sector is filled with, or undefined when it is mixed. */
function sectorsOf(bytes: Uint8Array): (number | undefined)[] {
  return Array.from({ length: Math.ceil(bytes.length / SECTOR_BYTES) }, (_, index) => {
    const sector = bytes.subarray(index * SECTOR_BYTES, (index + 1) * SECTOR_BYTES);
    return sector.every((byte) => byte === sector[0]) ? sector[0] : undefined;
  });
}

async function readAll(disk: Disk, path: string): Promise<Uint8Array> {
  const file = await disk.open(path, "read");
  return file.read(0, await file.size());
}

describe("the simulated disk, as every disk", () => {
  diskConformance(async () => {
    const { disk, run } = bench({}, Number(process.env["SEED"] ?? 1));
    return { disk: disk.mount(), run, restart: async () => disk.mount(), close: async () => undefined };
  });
});

describe("a crash of the simulated disk", () => {
  test("without faults keeps everything", async () => {
    const { disk, run } = bench({});
    const before = disk.mount();
    await run(durable(before, "a", filled(1_000, 1)).then((file) => file.write(500, filled(1_000, 2))));
    const seen = disk.snapshot();
    disk.crash();
    expect(disk.snapshot()).toEqual(seen);
    expect(await run(readAll(disk.mount(), "a"))).toEqual(seen.get("a"));
  });

  test("ends the process: its calls have no effect and never settle", async () => {
    const { disk, run, loop } = bench({});
    const before = disk.mount();
    const file = await run(durable(before, "a", filled(10, 1)));
    const settled: string[] = [];
    const note = (name: string, work: Promise<unknown>): unknown =>
      work.then(
        () => settled.push(name),
        () => settled.push(name),
      );
    note("in flight", file.write(0, filled(10, 2)));
    disk.crash();
    note("after", file.write(0, filled(10, 3)));
    note("open", before.open("b", "create"));
    await loop.runUntil(10_000_000);
    expect(settled).toEqual([]);
    expect(disk.snapshot()).toEqual(new Map([["a", filled(10, 1)]]));
    const hold = disk.mount();
    disk.mount();
    note("unmounted", hold.list(""));
    await loop.runUntil(20_000_000);
    expect(settled).toEqual([]);
  });

  test("loses what was not synced, and nothing that was", async () => {
    const { disk, run, faults } = bench({ "disk-lost-write": 1 });
    const file = await run(durable(disk.mount(), "a", filled(1_024, 1)));
    await run(file.write(0, filled(600, 2)));
    expect(sectorsOf(disk.snapshot().get("a") as Uint8Array)).toEqual([2, undefined]);
    disk.crash();
    expect(disk.snapshot().get("a")).toEqual(filled(1_024, 1));
    expect(faults.injected).toHaveLength(1);
  });

  test("lost, an append may leave its size behind, as zeros", async () => {
    const sizes = new Set<number>();
    for (let seed = 0; seed < 20; seed++) {
      const { disk, run } = bench({ "disk-lost-write": 1 }, seed);
      const file = await run(durable(disk.mount(), "a", filled(100, 1)));
      await run(file.write(100, filled(1_000, 2)));
      disk.crash();
      const after = disk.snapshot().get("a") as Uint8Array;
      expect(after.subarray(0, 100)).toEqual(filled(100, 1));
      expect(after.subarray(100).every((byte) => byte === 0)).toBe(true);
      sizes.add(after.length);
    }
    expect([...sizes].sort((a, b) => a - b)).toEqual([100, 1_100]);
  });

  test("tears a write between sectors, never within one", async () => {
    const outcomes = new Set<string>();
    for (let seed = 0; seed < 60; seed++) {
      const { disk, run } = bench({ "disk-torn": 1 }, seed);
      const file = await run(durable(disk.mount(), "a", filled(3 * SECTOR_BYTES, 1)));
      await run(file.write(0, filled(3 * SECTOR_BYTES, 2)));
      disk.crash();
      const sectors = sectorsOf(disk.snapshot().get("a") as Uint8Array);
      expect(new Set(sectors)).toEqual(new Set([1, 2]));
      outcomes.add(sectors.join(""));
    }
    // every subset but none and all
    expect([...outcomes].sort()).toEqual(["112", "121", "122", "211", "212", "221"]);
  });

  test("loses a name that was not synced, and brings a removed one back", async () => {
    const { disk, run } = bench({ "disk-lost-write": 1 });
    const before = disk.mount();
    await run(durable(before, "old", filled(3, 1)));
    await run(durable(before, "gone", filled(3, 2)));
    const lost = await run(before.open("new", "create"));
    await run(lost.write(0, filled(3, 3)));
    await run(lost.sync());
    await run(before.rename("old", "renamed"));
    await run(before.remove("gone"));
    await run(before.makeDirectory("d"));
    expect([...disk.snapshot().keys()]).toEqual(["new", "renamed"]);
    disk.crash();
    expect(disk.snapshot()).toEqual(
      new Map([
        ["gone", filled(3, 2)],
        ["old", filled(3, 1)],
      ]),
    );
    expect(await run(disk.mount().list(""))).toEqual(["gone", "old"]);
  });

  test("a rename is whole or not at all: the target is never missing (property)", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.boolean(),
        async (seed, rate, synced) => {
          const { disk, run } = bench({ "disk-lost-write": rate }, seed);
          const mounted = disk.mount();
          await run(durable(mounted, "log", filled(600, 1)));
          const next = await run(mounted.open("next", "create"));
          await run(next.write(0, filled(600, 2)));
          await run(next.sync());
          await run(mounted.rename("next", "log"));
          await run(mounted.rename("log", "final"));
          if (synced) await run(mounted.syncDirectory(""));
          disk.crash();
          const files = disk.snapshot();
          const logs = [...files].filter(([path]) => path !== "next");
          expect(logs.length).toBe(1);
          for (const [path, content] of files) {
            const value = path === "next" || path === "final" ? 2 : content[0];
            expect(content).toEqual(filled(600, value as number));
          }
          expect([...files].filter(([, content]) => content[0] === 2).length).toBeLessThanOrEqual(1);
          if (synced) expect([...files.keys()]).toEqual(["final"]);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("leaves each sector as some write left it, oldest synced or newer (property)", async () => {
    const write = fc.record({ at: fc.nat(1_500), length: fc.integer({ min: 1, max: 1_200 }), sync: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.array(write, { minLength: 1, maxLength: 8 }), async (seed, writes) => {
        const { disk, run } = bench({ "disk-lost-write": 0.4, "disk-torn": 0.5 }, seed);
        const file = await run(durable(disk.mount(), "a", filled(4 * SECTOR_BYTES, 1)));
        const whole = (): Uint8Array => {
          const bytes = filled(6 * SECTOR_BYTES, 0);
          bytes.set(disk.snapshot().get("a") as Uint8Array);
          return bytes;
        };
        let versions = [whole()];
        for (const [index, { at, length, sync }] of writes.entries()) {
          await run(file.write(at, filled(length, index + 2)));
          if (sync) await run(file.sync());
          if (sync) versions = [];
          versions.push(whole());
        }
        disk.crash();
        // The medium may know of a smaller size than the writes had: behind it there is nothing to compare.
        const size = (disk.snapshot().get("a") as Uint8Array).length;
        const after = whole();
        for (let start = 0; start < size; start += SECTOR_BYTES) {
          const end = Math.min(size, start + SECTOR_BYTES);
          const sector = (bytes: Uint8Array): string => bytes.subarray(start, end).join();
          expect(versions.map(sector)).toContain(sector(after));
        }
      }),
      { numRuns: LONG ? 2_000 : 80 },
    );
  });

  test("finds written back by itself what was not synced for too many writes", async () => {
    const { disk, run } = bench({ "disk-lost-write": 1 });
    const file = await run(durable(disk.mount(), "a", filled(10, 1)));
    for (let at = 0; at < 4_200; at++) await run(file.write(at, Uint8Array.of(2)));
    disk.crash();
    const after = disk.snapshot().get("a") as Uint8Array;
    expect(after.indexOf(0)).toBeGreaterThan(4_000);
    expect(after.subarray(0, after.indexOf(0))).toEqual(filled(after.indexOf(0), 2));
    expect(after.subarray(after.indexOf(0)).some((byte) => byte !== 0)).toBe(false);
  });

  test("may bring back what was cut off", () => {
    const file = new CachedFile();
    file.write(0, filled(1_500, 1));
    file.settle(() => KEPT, "keep");
    file.truncate(100);
    file.write(100, filled(10, 2));
    file.crash((write) => (write.kind === "truncate" ? lostFate(write, 0.9) : KEPT));
    expect(file.size).toBe(1_500);
    expect(file.read(1_024, 476)).toEqual(filled(476, 1));
    expect(file.read(100, 10)).toEqual(filled(10, 2));
  });

  test("cuts a file as a whole", () => {
    for (const size of [0.1, 0.3, 0.5, 0.7, 0.9]) {
      const file = new CachedFile();
      file.write(0, filled(1_500, 1));
      file.settle(() => KEPT, "keep");
      file.truncate(100);
      file.crash((write) => tornFate(write, size));
      expect([filled(100, 1), filled(1_500, 1)]).toContainEqual(file.read(0, 9_999));
    }
  });
});

describe("a sync of the simulated disk", () => {
  test("that fails leaves some of it, may hide that from reads, and the next one succeeds without it", async () => {
    const shown = new Set<string>();
    for (let seed = 0; seed < 80; seed++) {
      const loop = new SteppedLoop(seed);
      const size = createSeededRandom(seed).float();
      const faults = createReplayInjector([{ kind: "disk-sync-failed", site: SITE, ordinal: 1, size }]);
      const disk = new SimDisk({ node: "n0", loop, faults });
      const mounted = disk.mount();
      const file = await loop.finish(durable(mounted, "a", filled(2 * SECTOR_BYTES, 1)));
      await loop.finish(file.write(0, filled(2 * SECTOR_BYTES, 2)));
      await fails(loop.finish(file.sync()), "ERR_IO");
      const seen = sectorsOf(await loop.finish(file.read(0, 9_999))).join("");
      await loop.finish(file.sync());
      disk.crash();
      shown.add(`${seen}>${sectorsOf(disk.snapshot().get("a") as Uint8Array).join("")}`);
    }
    expect([...shown].sort()).toEqual(["12>12", "21>21", "22>12", "22>21"]);
  });

  test("that fails is mended by writing again", async () => {
    const { disk, run } = scripted([{ kind: "disk-sync-failed", site: SITE, ordinal: 1, size: 0.3 }]);
    const file = await run(durable(disk.mount(), "a", filled(1_024, 1)));
    await run(file.write(0, filled(1_024, 2)));
    await fails(run(file.sync()), "ERR_IO");
    await run(file.write(0, filled(1_024, 2)));
    await run(file.sync());
    disk.crash();
    expect(disk.snapshot().get("a")).toEqual(filled(1_024, 2));
  });

  test("lets a write land elsewhere, and says nothing", async () => {
    const victims = new Set<string>();
    for (let seed = 0; seed < 40; seed++) {
      const size = createSeededRandom(seed).float();
      const { disk, run } = scripted([{ kind: "disk-misdirected", site: SITE, ordinal: 2, size }]);
      const mounted = disk.mount();
      const file = await run(durable(mounted, "a", filled(3 * SECTOR_BYTES, 1)));
      await run(durable(mounted, "b", filled(2 * SECTOR_BYTES - 5, 2)));
      await run(file.write(SECTOR_BYTES, filled(SECTOR_BYTES, 3)));
      await run(file.sync());
      disk.crash();
      const [a, b] = ["a", "b"].map((path) => sectorsOf(disk.snapshot().get(path) as Uint8Array).join("")) as [
        string,
        string,
      ];
      expect(a[1]).toBe("1"); // not where it was meant to be
      expect(`${a}${b}`.split("3")).toHaveLength(2);
      expect(disk.snapshot().get("b")).toHaveLength(2 * SECTOR_BYTES - 5);
      expect(disk.damage.map(({ kind }) => kind)).toEqual(["disk-misdirected", "disk-misdirected"]);
      victims.add(`${a} ${b}`);
    }
    expect([...victims].sort()).toEqual(["111 23", "111 32", "113 22", "311 22"]);
  });

  test("a write that has nowhere else to land is lost", async () => {
    const { disk, run } = scripted([{ kind: "disk-misdirected", site: SITE, ordinal: 0, size: 0.5 }]);
    await run(durable(disk.mount(), "a", filled(100, 1)));
    expect(disk.snapshot().get("a")).toEqual(filled(100, 0));
  });
});

describe("the simulated disk fails typed", () => {
  test("flips one bit of what is on the medium, for ever", async () => {
    const { disk, run } = scripted([{ kind: "disk-bit-rot", site: SITE, ordinal: 1, size: 0.7 }]);
    const file = await run(durable(disk.mount(), "a", filled(1_000, 0)));
    expect(await run(file.read(0, 1_000))).toEqual(filled(1_000, 0));
    const expected = filled(1_000, 0);
    expected[700] = 1;
    expect(await run(file.read(0, 1_000))).toEqual(expected);
    disk.crash();
    expect(disk.snapshot().get("a")).toEqual(expected);
    expect(disk.damage).toMatchObject([{ kind: "disk-bit-rot", path: "a", offset: 700 }]);
  });

  test("is full for a time: a write that grows has a part at most, others work", async () => {
    const parts = new Set<boolean>();
    for (let seed = 0; seed < 10; seed++) {
      const { disk, run, loop } = bench({}, seed);
      const mounted = disk.mount();
      const file = await run(durable(mounted, "a", filled(1_000, 1)));
      const begun = disk.begin({ kind: "disk-full", atMs: 0, durationMs: 1_000, targets: [SITE], size: 0 });
      expect(begun).toBe(true);
      await fails(run(file.write(900, filled(1_000, 2))), "ERR_DISK_FULL");
      const size = await run(file.size());
      expect(size).toBeGreaterThanOrEqual(1_000);
      expect(size).toBeLessThan(1_900);
      expect(await run(file.read(900, 9_999))).toEqual(filled(size - 900, 2));
      parts.add(size > 1_000);
      await run(file.write(0, filled(500, 3)));
      await run(file.truncate(10));
      await fails(run(mounted.open("new", "create")), "ERR_DISK_FULL");
      await loop.runUntil(loop.nowUs + 1_000_000);
      await run(file.write(0, filled(2_000, 4)));
    }
    expect(parts).toContain(true);
  });

  test("has a capacity, which removing and cutting gives back", async () => {
    const { disk, run } = bench({}, 1, { capacityBytes: 1_000 });
    const mounted = disk.mount();
    const file = await run(durable(mounted, "a", filled(800, 1)));
    const other = await run(mounted.open("b", "write"));
    await fails(run(other.write(0, filled(300, 2))), "ERR_DISK_FULL");
    expect(await run(other.size())).toBe(200);
    await run(file.truncate(100));
    await run(other.write(0, filled(900, 2)));
    await run(mounted.remove("b"));
    await run(file.write(0, filled(1_000, 3)));
  });

  test("is slow for a time", async () => {
    const { disk, run, loop } = bench({});
    const mounted = disk.mount();
    const took = async (): Promise<number> => {
      const startUs = loop.nowUs;
      for (let at = 0; at < 50; at++) await run(mounted.list(""));
      return loop.nowUs - startUs;
    };
    const before = await took();
    disk.begin({ kind: "disk-slow", atMs: 0, durationMs: 100_000, targets: [SITE], size: 0.5 });
    expect(await took()).toBeGreaterThan(before * 10);
    await loop.runUntil(loop.nowUs + 100_000_000);
    expect(await took()).toBeLessThan(before * 10);
    disk.begin({ kind: "disk-slow", atMs: 0, durationMs: 1e9, targets: [SITE], size: 0.9 });
    disk.begin({ kind: "disk-full", atMs: 0, durationMs: 1e9, targets: [SITE], size: 0 });
    disk.heal();
    expect(await took()).toBeLessThan(before * 10);
    await run(durable(mounted, "a", filled(10, 1)));
    expect(disk.begin({ kind: "crash", atMs: 0, durationMs: 1, targets: ["n0"], size: 0 })).toBe(false);
  });

  test("is read-only", async () => {
    const { disk, run } = bench({});
    const mounted = disk.mount();
    const file = await run(durable(mounted, "a", filled(10, 1)));
    await run(mounted.makeDirectory("there"));
    disk.readOnly = true;
    await run(mounted.makeDirectory("there"));
    const changes: (() => Promise<unknown>)[] = [
      () => file.write(0, filled(1, 2)),
      () => file.truncate(0),
      () => mounted.open("b", "create"),
      () => mounted.open("a", "write"),
      () => mounted.remove("a"),
      () => mounted.rename("a", "b"),
      () => mounted.makeDirectory("d"),
    ];
    for (const change of changes) await fails(run(change()), "ERR_READ_ONLY");
    expect(await run(readAll(mounted, "a"))).toEqual(filled(10, 1));
  });
});

describe("a run on the simulated disk", () => {
  test("is the same again from its seed, and from the faults that hit", async () => {
    const rates = {
      "disk-lost-write": 0.4,
      "disk-torn": 0.4,
      "disk-misdirected": 0.2,
      "disk-bit-rot": 0.2,
      "disk-sync-failed": 0.2,
    };
    const play = async (seed: number, faults?: FaultInjector): Promise<Bench> => {
      const drawn = bench(rates, seed);
      const loop = new SteppedLoop(seed);
      const given =
        faults === undefined ? drawn : { ...drawn, loop, faults, disk: new SimDisk({ node: "n0", loop, faults }) };
      const random = createSeededRandom(seed);
      for (let round = 0; round < 6; round++) {
        const mounted = given.disk.mount();
        const work = (async () => {
          const file = await mounted.open(`f${round % 3}`, "write");
          for (let step = 0; step < 4; step++) {
            await file.write(Math.floor(random.float() * 3_000), filled(700, 1 + Math.floor(random.float() * 200)));
            await file.read(0, 4_000);
            if (step === 2) await file.sync().catch(() => undefined);
          }
          await mounted.syncDirectory("");
        })();
        await given.loop.finish(work);
        given.disk.crash();
      }
      return given;
    };
    for (let seed = 1; seed <= 20; seed++) {
      const first = await play(seed);
      const second = await play(seed);
      const replayed = await play(seed, createReplayInjector(first.faults.injected));
      expect(first.faults.injected.length).toBeGreaterThan(0);
      for (const other of [second, replayed]) {
        expect(other.disk.hash()).toBe(first.disk.hash());
        expect(other.disk.snapshot()).toEqual(first.disk.snapshot());
        expect(other.loop.traced).toEqual(first.loop.traced);
        expect(other.faults.injected).toEqual(first.faults.injected);
      }
    }
  });

  test("hashes content and names", async () => {
    const hashOf = async (...files: (readonly [string, number])[]): Promise<number> => {
      const { disk, run } = bench({});
      const mounted = disk.mount();
      for (const [path, value] of files) await run(durable(mounted, path, filled(9, value)));
      return disk.hash();
    };
    const hashes = [
      await hashOf(["a", 1]),
      await hashOf(["a", 2]),
      await hashOf(["b", 1]),
      await hashOf(["a", 1], ["b", 1]),
      await hashOf(),
    ];
    expect(new Set(hashes).size).toBe(hashes.length);
    expect(await hashOf(["b", 1], ["a", 1])).toBe(hashes[3]);
  });
});
