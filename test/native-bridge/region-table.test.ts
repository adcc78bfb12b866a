/** RegionTable: options, keys, epochs, revocation, bounded waits for writes in flight, adoption, a full table. */
import { describe, expect, it } from "vitest";
import { beginWrite, incarnationOf, isOdd } from "../../native-bridge/cell.ts";
import {
  ACTIVE,
  entryWord,
  FREE,
  IN_FLIGHT,
  INDEX_MASK,
  MAX_EPOCH,
  OWNER,
  REGION_COUNT,
  STAMP,
  STATE_MASK,
  stampOf,
} from "../../native-bridge/region-layout.ts";
import { ACCESS, type RegionOptions, RegionTable } from "../../native-bridge/region-table.ts";
import { STATUS, statusName, Verbs } from "../../native-bridge/verbs.ts";
import { dieAt, generator, memory } from "./memory-support.ts";

const ALL = ACCESS.READ | ACCESS.WRITE | ACCESS.ATOMIC;

function setup() {
  const { arena, table } = memory(1);
  const byteOffset = arena.allocate(960);
  const ref = table.register({ byteOffset, byteLength: 960, access: ALL, cellStrideBytes: 96 });
  const verbs = new Verbs(arena, { attempts: 4 });
  const target = new Uint8Array(64);
  const cell = (index: number, key = ref.rkey) => ({ address: byteOffset + index * 96 + 32, rkey: key, length: 64 });
  return { arena, table, byteOffset, ref, verbs, target, cell };
}

describe("register", () => {
  it.each([
    ["byteOffset", { byteOffset: 0 }],
    ["byteOffset", { byteOffset: -64 }],
    ["byteOffset", { byteOffset: Number.NaN }],
    ["byteOffset", { byteOffset: 2 ** 32 }],
    ["byteOffset", { byteOffset: 600_008, cellStrideBytes: 96 }],
    ["byteLength", { byteLength: 0 }],
    ["byteLength", { byteLength: 2 ** 32 }],
    ["byteLength", { byteLength: 0.5 }],
    ["byteLength", { byteLength: 100, cellStrideBytes: 96 }],
    ["access", { access: 0 }],
    ["access", { access: 8 }],
    ["access", { access: 1.5 }],
    ["cellStrideBytes", { cellStrideBytes: 32 }],
    ["cellStrideBytes", { cellStrideBytes: 100 }],
    ["cellStrideBytes", { cellStrideBytes: -96 }],
    ["cellStrideBytes", { cellStrideBytes: 1920 }],
  ] as [string, Partial<RegionOptions>][])("refuses a bad %s %o", (name, bad) => {
    const { table } = memory(1);
    const options = { byteOffset: 600_064, byteLength: 960, access: 1, ...bad };
    expect(() => table.register(options)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", details: expect.objectContaining({ name }) as unknown }),
    );
    expect(table.list()).toEqual([]);
  });

  it("gives safe-integer keys that differ, with 40 random bits", () => {
    const { arena, table } = memory(7);
    const byteOffset = arena.allocate(64);
    const keys = new Set<number>();
    const bits = new Array<number>(40).fill(0);
    for (let round = 0; round < 500; round++) {
      const ref = table.register({ byteOffset, byteLength: 64, access: 1 });
      expect(Number.isSafeInteger(ref.rkey)).toBe(true);
      keys.add(ref.rkey);
      const random = Math.floor(ref.rkey / 4096);
      for (let bit = 0; bit < 40; bit++) bits[bit]! += Math.floor(random / 2 ** bit) % 2;
      table.deregister(ref);
    }
    expect(keys.size).toBe(500);
    for (const count of bits) expect(Math.abs(count - 250)).toBeLessThan(90); // 8 standard deviations
  });

  it("refuses the 4097th region, and takes one again when one was given back", () => {
    const { arena, table } = memory(1);
    const byteOffset = arena.allocate(64);
    const refs = Array.from({ length: REGION_COUNT }, () => table.register({ byteOffset, byteLength: 64, access: 1 }));
    expect(() => table.register({ byteOffset, byteLength: 64, access: 1 })).toThrow(
      expect.objectContaining({ code: "ERR_REGION_TABLE_FULL" }),
    );
    table.deregister(refs[77]!);
    expect(table.register({ byteOffset, byteLength: 64, access: 1 }).rkey & INDEX_MASK).toBe(
      refs[77]!.rkey & INDEX_MASK,
    );
  });

  it("retires a slot whose epochs are used up", () => {
    const { arena, table, ref } = setup();
    const word = entryWord(ref.rkey & INDEX_MASK);
    arena.i32[word + STAMP] = stampOf(MAX_EPOCH, ACTIVE);
    const next = table.reregister(ref);
    expect(next.rkey & INDEX_MASK).not.toBe(ref.rkey & INDEX_MASK);
    for (let round = 0; round < REGION_COUNT + 2; round++) {
      const other = table.register({ byteOffset: ref.address, byteLength: 64, access: 1 });
      expect(other.rkey & INDEX_MASK).not.toBe(ref.rkey & INDEX_MASK);
      table.deregister(other);
    }
  });
});

describe("deregister and reregister", () => {
  it("revoke the key", () => {
    const { table, ref, verbs, target, cell } = setup();
    expect(verbs.read(cell(1), target)).toBe(STATUS.SUCCESS);
    const again = table.reregister(ref, { access: ACCESS.READ });
    expect(again.rkey).not.toBe(ref.rkey);
    expect(verbs.read(cell(1), target)).toBe(STATUS.REGION_REVOKED);
    expect(verbs.read(cell(1, again.rkey), target)).toBe(STATUS.SUCCESS);
    expect(verbs.write(cell(1, again.rkey), target)).toBe(STATUS.REMOTE_ACCESS_ERROR);
    table.deregister(again);
    expect(verbs.read(cell(1, again.rkey), target)).toBe(STATUS.REGION_REVOKED);
    expect(table.list()).toEqual([]);
  });

  it("forget a key in the end, and still refuse it", () => {
    const { table, ref, verbs, target, cell } = setup();
    let current = ref;
    for (let round = 0; round < 4; round++) current = table.reregister(current);
    expect(statusName(verbs.read(cell(1), target))).toBe("INVALID_RKEY");
  });

  it("refuse a stranger's, unknown, stale or malformed key with its status", () => {
    const { arena, table, ref } = setup();
    const stranger = new RegionTable(arena, 2, generator(3));
    const refuses = (act: () => void, status: string) =>
      expect(act).toThrow(
        expect.objectContaining({ code: "ERR_REGION_ACCESS", details: expect.objectContaining({ status }) as unknown }),
      );
    refuses(() => stranger.deregister(ref), "REMOTE_ACCESS_ERROR");
    refuses(() => table.deregister({ ...ref, rkey: ref.rkey + 4096 }), "INVALID_RKEY");
    refuses(() => table.deregister({ ...ref, rkey: Number.NaN }), "INVALID_RKEY");
    refuses(() => table.deregister(undefined as never), "INVALID_RKEY");
    table.deregister(ref);
    refuses(() => table.deregister(ref), "REGION_REVOKED");
    refuses(() => table.reregister(ref), "REGION_REVOKED");
  });

  it("wait no longer than asked for a write in flight, and keep the key revoked", () => {
    const { arena, ref, verbs, target, cell } = setup();
    let now = 0;
    const table = new RegionTable(arena, 1, generator(9), () => (now += 7));
    const inFlight = entryWord(ref.rkey & INDEX_MASK) + IN_FLIGHT;
    Atomics.add(arena.i32, inFlight, 1);
    expect(() => table.deregister(ref, { timeoutMs: 50 })).toThrow(expect.objectContaining({ code: "ERR_TIMEOUT" }));
    expect(now).toBeLessThan(90);
    expect(verbs.read(cell(0), target)).toBe(STATUS.REGION_REVOKED);
    expect(verbs.write(cell(0), target)).toBe(STATUS.REGION_REVOKED);
    Atomics.sub(arena.i32, inFlight, 1);
    table.deregister(ref, { timeoutMs: 0 });
    expect(() => table.deregister(ref)).toThrow(expect.objectContaining({ code: "ERR_REGION_ACCESS" }));
  });
});

describe("adopt", () => {
  it("repairs odd cells, and hands the region over under a new key and epoch", () => {
    const { arena, table, byteOffset, ref, verbs, target, cell } = setup();
    beginWrite(arena.i32, byteOffset + 3 * 96);
    expect(verbs.read(cell(3), target)).toBe(STATUS.RETRY_EXCEEDED);
    const [before] = table.list(1);
    const [adopted, ...rest] = new RegionTable(arena, 9, generator(4)).adopt(1, 5);
    expect(rest).toEqual([]);
    expect(adopted).toMatchObject({
      address: byteOffset,
      length: 960,
      cellStrideBytes: 96,
      tornCells: [byteOffset + 3 * 96],
    });
    expect([isOdd(arena.i32, byteOffset + 288), incarnationOf(arena.i32, byteOffset + 288)]).toEqual([false, 1]);
    expect(verbs.read(cell(3), target)).toBe(STATUS.REGION_REVOKED);
    expect(verbs.read(cell(3, adopted!.rkey), target)).toBe(STATUS.SUCCESS);
    expect(verbs.read({ ...cell(3, adopted!.rkey), generation: 0 }, target)).toBe(STATUS.STALE_CELL);
    expect(table.list(1)).toEqual([]);
    expect(table.list(5)[0]!.regionEpoch).toBeGreaterThan(before!.regionEpoch);
    new RegionTable(arena, 5, generator(5)).deregister(adopted!);
    expect(ref.rkey).not.toBe(adopted!.rkey);
  });

  it("moves a region whose dead writer never left to another slot", () => {
    const { arena, table, ref, verbs, target, cell } = setup();
    Atomics.add(arena.i32, entryWord(ref.rkey & INDEX_MASK) + IN_FLIGHT, 1);
    const [adopted] = table.adopt(1, 1, { timeoutMs: 1 });
    expect(adopted!.rkey & INDEX_MASK).not.toBe(ref.rkey & INDEX_MASK);
    expect(verbs.write(cell(0, adopted!.rkey), target)).toBe(STATUS.SUCCESS);
    table.deregister(adopted!);
    expect(verbs.read(cell(0), target)).toBe(STATUS.REGION_REVOKED);
  });

  it("loses no slot, wherever in a registration or deregistration the owner died", () => {
    const { arena } = memory(3);
    const byteOffset = arena.allocate(64);
    const register = (table: RegionTable) => table.register({ byteOffset, byteLength: 64, access: ACCESS.READ });
    const cycle = (table: RegionTable): void => table.deregister(register(table));
    let deaths = 0;
    for (let n = 0; dieAt(n, () => cycle(new RegionTable(arena, 7, generator(n)))); n++) {
      deaths++;
      const heir = new RegionTable(arena, 8, generator(100 + n));
      const adopted = heir.adopt(7, 8);
      expect(adopted.length).toBeLessThanOrEqual(1); // registered, or not yet, or no more
      for (const region of adopted) heir.deregister(region);
      const taken = Array.from({ length: REGION_COUNT }, (_, index) => entryWord(index)).filter(
        (word) => ((arena.i32[word + STAMP] as number) & STATE_MASK) !== FREE || arena.i32[word + OWNER] !== 0,
      );
      expect(taken, `died at ${n}`).toEqual([]);
    }
    expect(deaths).toBeGreaterThan(5);
  });

  it("leaves other owners alone", () => {
    const { table, ref, verbs, target, cell } = setup();
    expect(table.adopt(2, 3)).toEqual([]);
    expect(verbs.read(cell(0, ref.rkey), target)).toBe(STATUS.SUCCESS);
    expect(() => table.adopt(-1, 3)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
  });
});
