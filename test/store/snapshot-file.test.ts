/** Snapshot files: what was written reads back, whatever ends in between leaves nothing half visible, and no damage is given out. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import type { Disk } from "../../src/runtime/disk.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { SimDisk } from "../../src/sim/disk.ts";
import type { FaultRates } from "../../src/sim/fault-types.ts";
import { createFaultInjector } from "../../src/sim/injector.ts";
import {
  openNewestSnapshot,
  removeOldSnapshots,
  type SnapshotReader,
  SnapshotWriter,
  type StoredPart,
} from "../../src/store/snapshot-file.ts";
import { SteppedLoop } from "../sim/stepped-loop.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const DIRECTORY = "snapshots";

interface Part extends StoredPart {
  readonly vshard: number;
}

interface Bench {
  readonly loop: SteppedLoop;
  readonly sim: SimDisk;
  run<T>(work: Promise<T>): Promise<T>;
}

function bench(rates: FaultRates = {}, seed = 1, capacityBytes = Number.POSITIVE_INFINITY): Bench {
  const loop = new SteppedLoop(seed);
  const faults = createFaultInjector(rates, (name) => loop.stream(name), []);
  const sim = new SimDisk({ node: "n0", loop, faults, capacityBytes });
  return { loop, sim, run: (work) => loop.finish(work) };
}

async function prepared(disk: Disk): Promise<Disk> {
  await disk.makeDirectory(DIRECTORY);
  await disk.syncDirectory("");
  return disk;
}

function partOf(vshard: number, length: number, value = vshard): Part {
  return { vshard, type: 0x103, collection: 7, body: new Uint8Array(length).fill(value) };
}

const PARTS: readonly Part[] = [partOf(0, 5), partOf(1, 0), partOf(2, 16), partOf(2, 31, 9)];
const TABLE: Uint8Array = Uint8Array.of(4, 5, 6);

async function writeSnapshot(disk: Disk, position: number, parts = PARTS, table = TABLE): Promise<void> {
  const writer = await SnapshotWriter.create(disk, DIRECTORY, position);
  for (const { vshard, ...part } of parts) await writer.write(vshard, part);
  await writer.finish({ endPosition: position + 3, table });
}

async function partsOf(reader: SnapshotReader | undefined): Promise<Part[]> {
  const parts: Part[] = [];
  for await (const { vshard, part } of (reader as SnapshotReader).parts()) parts.push({ vshard, ...part });
  return parts;
}

/** Position and parts of the newest whole snapshot. */
async function newest(disk: Disk): Promise<{ position: number; parts: Part[] } | undefined> {
  const reader = await openNewestSnapshot(disk, DIRECTORY);
  return reader && { position: reader.position, parts: await partsOf(reader) };
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "none";
  } catch (error) {
    return ShardloomError.is(error) ? error.code : String(error);
  }
}

describe("a snapshot file", () => {
  test(`reads back what was written, bodies at multiples of 8, seed ${SEED}`, async () => {
    const part = fc.record({ vshard: fc.nat(255), length: fc.nat(300), value: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(fc.array(part, { maxLength: 20 }), fc.uint8Array({ maxLength: 40 }), async (list, table) => {
        const { sim, run } = bench();
        const disk = sim.mount();
        const parts = list.map(({ vshard, length, value }) => partOf(vshard, length, value));
        await run(prepared(disk).then(() => writeSnapshot(disk, 12, parts, table)));
        const reader = (await run(openNewestSnapshot(disk, DIRECTORY))) as SnapshotReader;
        expect(reader).toMatchObject({ position: 12, endPosition: 15, table, damaged: [] });
        expect(reader.bytes).toBe(sim.snapshot().get(reader.path)?.length);
        const found = await run(partsOf(reader));
        expect(found).toEqual(parts);
        for (const { body } of found) expect(body.byteOffset % 8).toBe(0);
      }),
      { seed: SEED, numRuns: 40 },
    );
  });

  test("holds more than one chunk, and parts that are larger than a chunk", async () => {
    const { sim, run } = bench();
    const disk = sim.mount();
    const sizes = [700_000, 700_000, 3_000_000, 8, 1_048_560, 9];
    const parts = sizes.map((size, at) => partOf(at, size, at + 1));
    await run(prepared(disk).then(() => writeSnapshot(disk, 1, parts)));
    const found = await run(newest(disk));
    expect(found?.parts.map(({ vshard, body }) => [vshard, body.length, body[0], body.at(-1)])).toEqual(
      sizes.map((size, at) => [at, size, at + 1, at + 1]),
    );
  });

  test("is found by its position, the newest first, and old ones go", async () => {
    const { sim, run } = bench();
    const disk = await run(prepared(sim.mount()));
    expect(await run(openNewestSnapshot(disk, DIRECTORY))).toBeUndefined();
    for (const position of [0, 9, 100, 10]) await run(writeSnapshot(disk, position, [partOf(position, 3)]));
    expect((await run(newest(disk)))?.position).toBe(100);
    const below = await run(openNewestSnapshot(disk, DIRECTORY, { below: 100 }));
    expect(below?.position).toBe(10);
    const usable = ({ endPosition }: { endPosition: number }): boolean => endPosition <= 12;
    expect((await run(openNewestSnapshot(disk, DIRECTORY, { usable })))?.position).toBe(9);
    expect(await run(openNewestSnapshot(disk, DIRECTORY, { usable: () => false }))).toBeUndefined();
    expect(await run(removeOldSnapshots(disk, DIRECTORY, 2))).toBe(2);
    expect(await run(disk.list(DIRECTORY))).toEqual(["00000000000000000010.snapshot", "00000000000000000100.snapshot"]);
    expect(await run(removeOldSnapshots(disk, DIRECTORY, 2))).toBe(0);
  });

  test("takes the place of one of the same position, and leaves nothing when it is given up", async () => {
    const { sim, run } = bench();
    const disk = await run(prepared(sim.mount()));
    await run(writeSnapshot(disk, 4, [partOf(1, 3)]));
    await run(writeSnapshot(disk, 4, [partOf(2, 3)]));
    expect((await run(newest(disk)))?.parts[0]?.vshard).toBe(2);
    const writer = await run(SnapshotWriter.create(disk, DIRECTORY, 5));
    await run(writer.write(1, partOf(1, 3)));
    await run(writer.abort());
    await run(writer.abort());
    expect(await run(disk.list(DIRECTORY))).toEqual(["00000000000000000004.snapshot"]);
    expect(await run(codeOf(writer.write(1, partOf(1, 3))))).toBe("ERR_CLOSED");
  });
});

describe("a crash", () => {
  test.each([{ rates: {} }, { rates: { "disk-lost-write": 0.5, "disk-torn": 0.5 } }])(
    `at every step leaves the old snapshot or the whole new one, with $rates, seed ${SEED}`,
    async ({ rates }) => {
      const outcomes = new Set<string>();
      const lives = Object.keys(rates).length === 0 ? 1 : 6;
      for (let step = 0, ended = false; !ended; step++) {
        for (let life = 0; life < lives; life++) {
          const { loop, sim, run } = bench(rates, SEED + life);
          const disk = await run(prepared(sim.mount()));
          await run(writeSnapshot(disk, 10, [partOf(1, 600)]));
          let done = false;
          const work = writeSnapshot(disk, 20).then(() => {
            done = true;
          });
          await loop.settle();
          for (let at = 0; at < step && !done; at++) await loop.step();
          ended = done;
          sim.crash();
          const after = sim.mount();
          const found = await run(newest(after));
          outcomes.add(`${found?.position}`);
          if (done) {
            await work;
            expect(found?.position).toBe(20);
          }
          expect(found).toEqual(
            found?.position === 20 ? { position: 20, parts: PARTS } : { position: 10, parts: [partOf(1, 600)] },
          );
          // what is left does not keep the next one from being written
          await run(writeSnapshot(after, 30, [partOf(3, 9)]));
          expect((await run(newest(after)))?.position).toBe(30);
          expect((await run(after.list(DIRECTORY))).every((name) => name.endsWith(".snapshot"))).toBe(true);
        }
      }
      expect([...outcomes].sort()).toEqual(["10", "20"]);
    },
  );
});

describe("a disk that fails", () => {
  test("because it is full says so, has the space back, and keeps the old snapshot", async () => {
    for (let room = 0; room < 400; room += 24) {
      const { sim, run } = bench({}, 1, 600 + room);
      const disk = await run(prepared(sim.mount()));
      await run(writeSnapshot(disk, 1, [partOf(1, 100)]));
      const before = sim.hash();
      const code = await run(codeOf(writeSnapshot(disk, 2, [partOf(2, 700)])));
      expect(code).toBe("ERR_DISK_FULL");
      expect(sim.hash()).toBe(before);
      expect((await run(newest(disk)))?.position).toBe(1);
    }
  });

  test("at a sync, or because it takes no writes, says so and shows nothing new", async () => {
    const failing = bench({ "disk-sync-failed": 1 });
    const one = await failing.run(
      failing.sim
        .mount()
        .makeDirectory(DIRECTORY)
        .then(() => failing.sim.mount()),
    );
    expect(await failing.run(codeOf(writeSnapshot(one, 1)))).toBe("ERR_IO");
    expect(await failing.run(one.list(DIRECTORY))).toEqual([]);
    const { sim, run } = bench();
    const disk = await run(prepared(sim.mount()));
    await run(writeSnapshot(disk, 1));
    const writer = await run(SnapshotWriter.create(disk, DIRECTORY, 2));
    sim.readOnly = true;
    expect(await run(codeOf(SnapshotWriter.create(disk, DIRECTORY, 3)))).toBe("ERR_READ_ONLY");
    expect(await run(codeOf(writer.finish({ endPosition: 2, table: TABLE })))).toBe("ERR_READ_ONLY");
    expect((await run(newest(disk)))?.position).toBe(1);
    expect(await run(codeOf(removeOldSnapshots(disk, DIRECTORY, 0)))).toBe("ERR_READ_ONLY");
  });
});

describe("damage", () => {
  async function replace(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
    const file = await disk.open(path, "write");
    await file.truncate(0);
    await file.write(0, bytes);
    await file.close();
  }

  test(`of any byte, or a lost end, is seen and told with its place, seed ${SEED}`, async () => {
    const random = createSeededRandom(SEED);
    const { sim, run } = bench();
    const disk = await run(prepared(sim.mount()));
    await run(writeSnapshot(disk, 8));
    const path = `${DIRECTORY}/00000000000000000008.snapshot`;
    const whole = sim.snapshot().get(path) as Uint8Array;
    const variants = [
      ...Array.from(whole, (byte, at) => {
        const bytes = whole.slice();
        bytes[at] = byte ^ (1 << (random.u32() & 7));
        return bytes;
      }),
      ...Array.from(whole, (_, length) => whole.slice(0, length)),
      Uint8Array.of(...whole, 0),
    ];
    for (const bytes of variants) {
      await run(replace(disk, path, bytes));
      const error = await run(newest(disk).catch((thrown: unknown) => thrown));
      expect(error).toMatchObject({ code: "ERR_CORRUPT", details: { path } });
      const { offset } = (error as ShardloomError).details as { offset: number };
      expect(offset >= 0 && offset <= whole.length).toBe(true);
    }
    await run(replace(disk, path, whole));
    expect((await run(newest(disk)))?.parts).toEqual(PARTS);
  });

  test("that shows at once leads to an older snapshot, and says so; a chunk's leads there by `below`", async () => {
    const { sim, run } = bench();
    const disk = await run(prepared(sim.mount()));
    await run(writeSnapshot(disk, 1, [partOf(5, 40)]));
    await run(writeSnapshot(disk, 2));
    const path = `${DIRECTORY}/00000000000000000002.snapshot`;
    const whole = sim.snapshot().get(path) as Uint8Array;
    await run(replace(disk, path, whole.slice(0, -1)));
    const older = await run(openNewestSnapshot(disk, DIRECTORY));
    expect(older).toMatchObject({ position: 1, damaged: [{ code: "ERR_CORRUPT" }] });
    const bytes = whole.slice();
    bytes[70] = (bytes[70] as number) ^ 1;
    await run(replace(disk, path, bytes));
    const reader = (await run(openNewestSnapshot(disk, DIRECTORY))) as SnapshotReader;
    expect(reader.position).toBe(2);
    const told: unknown[] = [];
    const reading = (async () => {
      for await (const part of reader.parts()) told.push(part);
    })();
    expect(await run(codeOf(reading))).toBe("ERR_CORRUPT");
    expect(told).toEqual([]);
    const next = await run(openNewestSnapshot(disk, DIRECTORY, { below: reader.position }));
    expect(await run(partsOf(next))).toEqual([partOf(5, 40)]);
  });

  test("a chunk of another snapshot in a chunk's place is damage", async () => {
    const { sim, run } = bench();
    const disk = await run(prepared(sim.mount()));
    await run(writeSnapshot(disk, 1));
    await run(writeSnapshot(disk, 2));
    const [one, two] = [1, 2].map((at) => sim.snapshot().get(`${DIRECTORY}/0000000000000000000${at}.snapshot`));
    const mixed = (two as Uint8Array).slice();
    mixed.set((one as Uint8Array).subarray(32, -64), 32);
    await run(replace(disk, `${DIRECTORY}/00000000000000000002.snapshot`, mixed));
    const reader = await run(openNewestSnapshot(disk, DIRECTORY));
    expect(reader).toMatchObject({ position: 1, damaged: [{ code: "ERR_CORRUPT" }] });
  });
});
