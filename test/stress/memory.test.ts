/**
 * Stress of the one-sided memory on real threads: no torn read accepted, tears of a faulty writer seen, deregistration
 * against readers and writers in flight, and threads killed in the middle of a write.
 *
 * Acceptable outcomes of a read against a writer: SUCCESS with all words equal, or RETRY_EXCEEDED. Of an operation against
 * deregistration: SUCCESS with no poison, or REGION_REVOKED / INVALID_RKEY. `SHARDLOOM_LONG=1` runs 10^8 validated reads.
 */
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { isOdd } from "../../native-bridge/cell.ts";
import { VERSION_HIGH, VERSION_LOW } from "../../native-bridge/cell-layout.ts";
import { ACCESS } from "../../native-bridge/region-table.ts";
import { STATUS, Verbs } from "../../native-bridge/verbs.ts";
import { LONG, memory, runWorker, seedOf } from "../native-bridge/memory-support.ts";
import { CONTROL, POISON, type StressData, type StressResult } from "./memory-stress.ts";

const ALL = ACCESS.READ | ACCESS.WRITE | ACCESS.ATOMIC;
const URL_OF_WORKER = new URL("./memory.worker.js", import.meta.url);
const LONG_TIMEOUT = { timeout: LONG ? 3_600_000 : 120_000 };

function setup(seed: number, cells: number, stride: number) {
  const { arena, table } = memory(seed);
  const byteOffset = arena.allocate(cells * stride);
  const ref = table.register({ byteOffset, byteLength: cells * stride, access: ALL, cellStrideBytes: stride });
  const control = new SharedArrayBuffer(128);
  const words = new Int32Array(control);
  const start = (role: StressData["role"], more: Partial<StressData> = {}) => {
    const data: StressData = {
      role,
      memory: arena.memory,
      control,
      byteOffset,
      cells,
      stride,
      rkey: ref.rkey,
      count: Number.POSITIVE_INFINITY,
      rmwCheck: false,
      misalignment: 0,
      ...more,
    };
    return runWorker<StressResult>(URL_OF_WORKER, data, LONG_TIMEOUT.timeout);
  };
  const ready = async (count: number): Promise<void> => {
    for (let waited = 0; Atomics.load(words, CONTROL.READY) < count; waited++) {
      if (waited > 10_000) throw new Error("workers did not start");
      await delay(1);
    }
  };
  const stop = (): void => Atomics.store(words, CONTROL.STOP, 1) as unknown as void;
  return { arena, table, byteOffset, ref, words, keys: new Float64Array(control), start, ready, stop };
}

describe("validated reads against a writer", () => {
  const share = (LONG ? 100_000_000 : 2_000_000) / 5;
  it.each([
    ["read", 4, 96, {}],
    ["read", 1, 288, { rmwCheck: true }],
    ["read", 2, 160, { misalignment: 1 }],
    ["read-in-place", 2, 544, {}],
    ["read-cell", 1, 96, {}],
  ] as [StressData["role"], number, number, Partial<StressData>][])(
    "%s of %i cells of %i bytes %o: nothing torn",
    LONG_TIMEOUT,
    async (role, cells, stride, more) => {
      const { arena, byteOffset, start, ready, stop } = setup(seedOf("stress reads"), cells, stride);
      for (let cell = 0; cell < cells; cell++) arena.i32[(byteOffset + cell * stride) / 4 + VERSION_LOW] = -2000; // the low word wraps on the way
      const writer = start("write");
      await ready(1);
      const reader = start(role, { ...more, count: share });
      const read = await reader.result;
      stop();
      const written = await writer.result;
      expect(read.torn).toBe(0);
      expect(read.refused).toBe(0);
      expect(read.done).toBe(share);
      expect(written.done).toBeGreaterThan(2000 * cells);
      expect(read.retries + read.busy, "the reader never met the writer").toBeGreaterThan(0);
      for (let cell = 0; cell < cells; cell++)
        expect(arena.i32[(byteOffset + cell * stride) / 4 + VERSION_HIGH]).toBe(1);
    },
  );

  it("sees the tears of a writer that skips the odd step", LONG_TIMEOUT, async () => {
    const { start, ready, stop } = setup(1, 1, 1056);
    const writer = start("write-without-odd");
    await ready(1);
    const read = await start("read", { count: 500_000 }).result;
    stop();
    await writer.result;
    expect(read.torn).toBeGreaterThan(0);
  });

  it("retries tears that a slow writer leaves open under an odd version", LONG_TIMEOUT, async () => {
    const { start, ready, stop } = setup(1, 1, 96);
    const writer = start("write-slowly");
    await ready(1);
    const read = await start("read", { count: 1000 }).result;
    stop();
    const written = await writer.result;
    expect(read.torn).toBe(0);
    expect(read.retries).toBeGreaterThan(20);
    expect(written.done).toBeGreaterThan(10);
  });
});

describe("deregistration", () => {
  it("leaves no read with poison and no late write", LONG_TIMEOUT, async () => {
    const stride = 544;
    const { arena, table, ref, byteOffset, keys, start, ready, stop } = setup(seedOf("stress deregister"), 1, stride);
    table.deregister(ref);
    const reader = start("read-shared");
    const writer = start("write-shared");
    await ready(2);
    const words = (stride - 32) / 4;
    const payload = (byteOffset + 32) / 4;
    let late = 0;
    for (let round = 0; round < (LONG ? 300_000 : 6000); round++) {
      arena.i32.fill(round & 0xff, payload, payload + words);
      const cells = (round & 1) === 0;
      const region = table.register({
        byteOffset,
        byteLength: stride,
        access: ALL,
        ...(cells ? { cellStrideBytes: stride } : {}),
      });
      keys[CONTROL.KEY_DOUBLE] = region.rkey;
      for (let spin = 0; spin < (round % 50) * 40; spin++) Atomics.load(arena.i32, payload);
      if (round % 64 === 0) await delay(0);
      table.deregister(region, { timeoutMs: 5000 });
      arena.i32.fill(POISON, payload, payload + words);
      for (let spin = 0; spin < 500; spin++) Atomics.load(arena.i32, payload);
      for (let word = payload; word < payload + words; word++) if (arena.i32[word] !== POISON) late++;
    }
    stop();
    const [read, written] = [await reader.result, await writer.result];
    expect(late).toBe(0);
    expect(read.torn).toBe(0);
    for (const side of [read, written]) {
      expect(side.done).toBeGreaterThan(100);
      expect(side.refused).toBeGreaterThan(100);
    }
  });
});

describe("a thread killed in the middle of a write", () => {
  it.each(["hold", "verbs-write"] as const)("(%s) leaves cells that adopt repairs", LONG_TIMEOUT, async (role) => {
    let torn = 0;
    for (let round = 0; round < (LONG ? 200 : 6); round++) {
      const { arena, table, byteOffset, ref, start, ready } = setup(round, 4, 4128);
      const { worker, result } = start(role);
      result.catch(() => undefined); // terminated on purpose
      await ready(1);
      await delay(2);
      await worker.terminate();
      const odd = [0, 1, 2, 3].map((cell) => byteOffset + cell * 4128).filter((cell) => isOdd(arena.i32, cell));
      const [adopted] = table.adopt(1, 1, { timeoutMs: 20 });
      expect(adopted!.tornCells).toEqual(odd);
      torn += odd.length;
      const verbs = new Verbs(arena);
      const target = new Uint8Array(4096);
      for (let cell = 0; cell < 4; cell++) {
        const at = { address: byteOffset + cell * 4128 + 32, length: 4096 };
        expect(verbs.read({ ...at, rkey: ref.rkey }, target)).toBe(STATUS.REGION_REVOKED);
        expect(verbs.read({ ...at, rkey: adopted!.rkey }, target)).toBe(STATUS.SUCCESS);
        expect(verbs.write({ ...at, rkey: adopted!.rkey }, target)).toBe(STATUS.SUCCESS);
      }
      table.deregister(adopted!);
    }
    if (role === "hold") expect(torn).toBeGreaterThan(0);
  });
});
