/** Arena: bad options, no overlap, alignment, zero fill, reuse, splitting, exhaustion, scratch, and three threads at once. */
import { describe, expect, it } from "vitest";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { CLASS_COUNT, classOf, classUnits } from "../../native-bridge/arena-layout.ts";
import { dieAt, generator, LONG, runWorker, seedOf } from "./memory-support.ts";

const MIB = 1_048_576;

interface Block {
  readonly at: number;
  readonly length: number;
  readonly mark: number;
}

/** Allocates and frees at random, and throws at the first overlap, misalignment, or byte that is not what it must be. */
function exercise(
  arena: Arena,
  operations: number,
  random: () => number,
  maxBytes: number,
): { allocated: number; reused: number } {
  const live: Block[] = [];
  const seen = new Set<number>();
  let allocated = 0;
  let reused = 0;
  for (let operation = 0; operation < operations; operation++) {
    if (live.length > 0 && (random() & 1) === 0) {
      const [block] = live.splice(random() % live.length, 1) as [Block];
      for (let at = block.at; at < block.at + block.length; at++)
        if (arena.bytes[at] !== block.mark) throw new Error(`block at ${block.at} was overwritten at ${at}`);
      arena.free(block.at, block.length);
      continue;
    }
    const length = 1 + (random() % (random() % 8 === 0 ? maxBytes : 512));
    const at = arena.allocate(length);
    if (at % 64 !== 0 || at < arena.heapByteOffset || at + length > arena.capacityBytes)
      throw new Error(`bad block ${at}+${length}`);
    for (let byte = at; byte < at + length; byte++)
      if (arena.bytes[byte] !== 0) throw new Error(`block at ${at} is not zero at ${byte}`);
    for (const other of live)
      if (at < other.at + other.length && other.at < at + length)
        throw new Error(`${at}+${length} overlaps ${other.at}+${other.length}`);
    if (seen.has(at)) reused++;
    seen.add(at);
    allocated++;
    const mark = 1 + (random() % 255);
    arena.bytes.fill(mark, at, at + length);
    live.push({ at, length, mark });
    if (live.length > 200) arena.free(live[0]!.at, live.shift()!.length);
  }
  for (const block of live) arena.free(block.at, block.length);
  return { allocated, reused };
}

describe("createArena", () => {
  it.each([0, -65_536, 65_536, 1000, MIB + 1, 2 ** 33, Number.NaN, 1.5, Number.POSITIVE_INFINITY])(
    "refuses %s bytes",
    (capacityBytes) => {
      expect(() => createArena({ capacityBytes })).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
    },
  );

  it("reserves 4 GiB without touching it, and addresses its end", () => {
    const before = process.memoryUsage.rss();
    const arena = new Arena(createArena({ capacityBytes: 4096 * MIB }));
    const at = arena.allocate(3 * 1024 * MIB);
    arena.f64[(at + 3 * 1024 * MIB - 8) / 8] = Math.PI;
    expect(arena.f64[(at + 3 * 1024 * MIB - 8) / 8]).toBe(Math.PI);
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MIB);
  });

  it("is not opened over foreign memory", () => {
    expect(() => new Arena({ buffer: new ArrayBuffer(64) } as never)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
    expect(() => new Arena({ buffer: new SharedArrayBuffer(MIB) } as never)).toThrow(
      expect.objectContaining({ code: "ERR_CORRUPT" }),
    );
  });
});

describe("size classes", () => {
  it("hold what they are asked for, in order, within 12.5 %", () => {
    for (let sizeClass = 1; sizeClass < CLASS_COUNT; sizeClass++)
      expect(classUnits(sizeClass)).toBeGreaterThan(classUnits(sizeClass - 1));
    const random = generator(1);
    for (let trial = 0; trial < 100_000; trial++) {
      const units = 1 + (random() % 2 ** (1 + (random() % 26)));
      const given = classUnits(classOf(units));
      if (given < units || given > Math.ceil(units * 1.125)) throw new Error(`${units} units got ${given}`);
    }
    expect(classOf(2 ** 26)).toBe(CLASS_COUNT - 1);
  });
});

describe("Arena", () => {
  it("gives aligned, zeroed blocks that never overlap, and reuses freed ones", () => {
    const arena = new Arena(createArena({ capacityBytes: 16 * MIB }));
    const { allocated, reused } = exercise(arena, 30_000, generator(seedOf("arena property")), 40_000);
    expect(allocated).toBeGreaterThan(10_000);
    expect(reused).toBeGreaterThan(1000);
    expect(arena.stats().usedBytes).toBe(0);
  });

  it("the property check notices an overlap", () => {
    const arena = new Arena(createArena({ capacityBytes: 16 * MIB }));
    const first = arena.allocate.bind(arena);
    let calls = 0;
    let at = 0;
    arena.allocate = (length: number): number => {
      if (++calls % 50 !== 0) at = first(length);
      return at;
    };
    expect(() => exercise(arena, 5000, generator(1), 4000)).toThrow();
  });

  it("splits larger blocks when nothing fresh is left, and ends in ERR_OUT_OF_MEMORY", () => {
    const arena = new Arena(createArena({ capacityBytes: MIB }));
    const large = arena.allocate(256 * 1024);
    const rest: number[] = [];
    expect(() => {
      for (;;) rest.push(arena.allocate(4096));
    }).toThrow(expect.objectContaining({ code: "ERR_OUT_OF_MEMORY", retryable: true }));
    arena.bytes.fill(7, large, large + 256 * 1024);
    arena.free(large, 256 * 1024);
    const pieces: number[] = [];
    for (let piece = 0; piece < 64; piece++) pieces.push(arena.allocate(4096));
    expect(new Set(pieces).size).toBe(64);
    for (const piece of pieces) {
      expect(piece).toBeGreaterThanOrEqual(large);
      expect(piece + 4096).toBeLessThanOrEqual(large + 256 * 1024);
      expect(arena.bytes.subarray(piece, piece + 4096).every((byte) => byte === 0)).toBe(true);
    }
  });

  it.each([0, -1, 1.5, Number.NaN, 2 ** 33])("refuses to allocate %s bytes", (byteLength) => {
    const arena = new Arena(createArena({ capacityBytes: MIB }));
    expect(() => arena.allocate(byteLength)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
  });

  it("refuses to free what is no block, or twice", () => {
    const arena = new Arena(createArena({ capacityBytes: MIB }));
    const at = arena.allocate(100);
    for (const bad of [0, at + 1, at - 64, at + 64 * 1024, Number.NaN, -64])
      expect(() => arena.free(bad, 100)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
    arena.free(at, 100);
    expect(() => arena.free(at, 100)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
    expect(arena.stats()).toMatchObject({ usedBytes: 0, allocations: 1, frees: 1 });
  });

  it("returns a dead thread's scratch to its successor", () => {
    const arena = new Arena(createArena({ capacityBytes: MIB }));
    const first = arena.allocateScratch(3, 1000);
    arena.bytes.fill(9, first, first + 1000);
    expect(arena.allocateScratch(3, 1000)).toBe(first);
    expect(arena.bytes[first]).toBe(0);
    arena.allocateScratch(3, 2000);
    expect(arena.stats().usedBytes).toBe(2048);
    expect(arena.freeScratch(3)).toBe(true);
    expect(arena.freeScratch(3)).toBe(false);
    expect(arena.stats().usedBytes).toBe(0);
  });

  it("leaves scratch that cannot grow as it is, and gives a successor what was grown", () => {
    const arena = new Arena(createArena({ capacityBytes: MIB }));
    const grown = arena.allocateScratch(3, 128 * 1024);
    expect(() => arena.allocateScratch(3, MIB)).toThrow(expect.objectContaining({ code: "ERR_OUT_OF_MEMORY" }));
    expect(arena.stats().usedBytes).toBe(128 * 1024);
    expect(arena.allocateScratch(3, 64 * 1024)).toBe(grown);
    expect(arena.allocateScratch(3, 128 * 1024)).toBe(grown);
    expect(arena.freeScratch(3)).toBe(true);
    expect(arena.stats().usedBytes).toBe(0);
  });

  it("keeps no place for threads that it has no scratch for", () => {
    const arena = new Arena(createArena({ capacityBytes: MIB }));
    for (let owner = 0; owner < 100; owner++)
      expect(() => arena.allocateScratch(owner, MIB)).toThrow(expect.objectContaining({ code: "ERR_OUT_OF_MEMORY" }));
    expect(arena.allocateScratch(100, 1000)).toBeGreaterThanOrEqual(arena.heapByteOffset);
  });

  it("loses at most the block in hand, wherever in growing its scratch a thread dies", () => {
    for (let n = 0, died = true; died; n++) {
      const arena = new Arena(createArena({ capacityBytes: MIB }));
      arena.allocateScratch(3, 1024);
      died = dieAt(n, () => void arena.allocateScratch(3, 2048));
      const held = arena.allocateScratch(3, 2048);
      expect(arena.allocate(1024)).not.toBe(held);
      expect(arena.freeScratch(3)).toBe(true);
      arena.stats();
      expect(arena.stats().usedBytes, `died at ${n}`).toBeLessThanOrEqual(1024 + 2048);
    }
  });

  it("merges what was freed in pieces: all of it serves one block again, and then pieces", () => {
    const arena = new Arena(createArena({ capacityBytes: 4 * MIB }));
    const random = generator(5);
    for (let round = 0; round < 3; round++) {
      const pieces: [number, number][] = [];
      try {
        for (;;) {
          const length = 1 + (random() % 9000);
          pieces.push([arena.allocate(length), length]);
        }
      } catch (error) {
        expect(error).toMatchObject({ code: "ERR_OUT_OF_MEMORY" });
      }
      expect(pieces.length).toBeGreaterThan(500);
      for (const [at, length] of pieces.sort(() => (random() & 1) - 0.5)) arena.free(at, length);
      const large = arena.allocate(3 * MIB);
      expect(arena.bytes.subarray(large, large + 3 * MIB).every((byte) => byte === 0)).toBe(true);
      arena.bytes.fill(0xff, large, large + 3 * MIB);
      arena.free(large, 3 * MIB);
    }
    expect(arena.stats()).toMatchObject({ usedBytes: 0, freeBytes: arena.capacityBytes - arena.heapByteOffset });
  });

  it("loses at most the block in hand, wherever in a merge a thread dies", () => {
    let deaths = 0;
    for (let n = 0; ; n += 7) {
      const arena = new Arena(createArena({ capacityBytes: MIB }));
      const size = 3000; // 3072 with rounding
      const pieces: number[] = [];
      try {
        for (;;) pieces.push(arena.allocate(size));
      } catch {
        // full
      }
      for (const at of pieces) arena.free(at, size);
      if (!dieAt(n, () => void arena.allocate(100_000))) break;
      deaths++;
      const again: number[] = [];
      try {
        for (;;) again.push(arena.allocate(size));
      } catch {
        // full
      }
      const lost = pieces.length - again.length;
      expect(lost, `died at ${n}`).toBeLessThanOrEqual(Math.ceil(106_496 / 3072) + 1);
      expect(new Set(again).size).toBe(again.length);
    }
    expect(deaths).toBeGreaterThan(20);
  });

  it.each([
    ["with room for all", 64, LONG ? 3_000_000 : 150_000, [64, 100, 128, 600, 4096]],
    ["in an arena that is full all the time", 1, LONG ? 300_000 : 10_000, [64, 600, 4096, 20_000, 60_000]],
  ])("serves three threads at once without overlap, %s", async (_, mebibytes, operations, sizes) => {
    const seed = seedOf("arena threads");
    const shared = createArena({ capacityBytes: mebibytes * MIB });
    const url = new URL("./arena.worker.js", import.meta.url);
    const runs = [1, 2, 3].map(
      (mark) =>
        runWorker<{ mark: number; allocated: number; refused: number; faults: string[] }>(url, {
          memory: shared,
          mark,
          operations,
          seed: seed + mark,
          sizes,
        }).result,
    );
    const results = await Promise.all(runs);
    expect(results.some((result) => result.refused > 0)).toBe(mebibytes === 1);
    for (const result of results) {
      expect(result.faults).toEqual([]);
      expect(result.allocated).toBeGreaterThan(operations / 4);
    }
    expect(new Arena(shared).stats().usedBytes).toBe(0);
  });
});
