/** Verbs: what each status takes, in-place reads, cells, atomics, lists and their bounded completions. */
import { describe, expect, it } from "vitest";
import { beginWrite, bumpIncarnation, endWrite, isOdd } from "../../native-bridge/cell.ts";
import { ACCESS, RegionTable } from "../../native-bridge/region-table.ts";
import { type Completion, OPCODE, STATUS, statusName, Verbs, type WorkRequest } from "../../native-bridge/verbs.ts";
import { generator, memory } from "./memory-support.ts";

const ALL = ACCESS.READ | ACCESS.WRITE | ACCESS.ATOMIC;

function setup(rmwCheck = false) {
  const { arena, table } = memory(1);
  const plainAt = arena.allocate(4096);
  const cellsAt = arena.allocate(960);
  for (let byte = 0; byte < 4096; byte++) arena.bytes[plainAt + byte] = byte * 7;
  const plain = table.register({ byteOffset: plainAt, byteLength: 4096, access: ALL });
  const cells = table.register({ byteOffset: cellsAt, byteLength: 960, access: ALL, cellStrideBytes: 96 });
  return { arena, table, plain, cells, verbs: new Verbs(arena, { attempts: 4, completionCapacity: 4, rmwCheck }) };
}

describe.each([false, true])("read with rmwCheck %s", (rmwCheck) => {
  it("fills Uint8Array and Float32Array targets at element offsets, and nothing beside", () => {
    const { verbs, plain, arena } = setup(rmwCheck);
    for (const [offset, length] of [
      [0, 64],
      [1, 64],
      [4, 64],
      [8, 2048],
      [3, 1],
      [4095, 1],
      [5, 0],
      [8, 52],
    ] as const) {
      const ref = { address: plain.address + offset, rkey: plain.rkey, length };
      const bytes = new Uint8Array(length + 7).fill(0xee);
      for (let round = 0; round < 2; round++) {
        expect(verbs.read(ref, bytes, 3)).toBe(STATUS.SUCCESS);
        expect([...bytes]).toEqual([
          0xee,
          0xee,
          0xee,
          ...arena.bytes.subarray(ref.address, ref.address + length),
          0xee,
          0xee,
          0xee,
          0xee,
        ]);
        bytes.fill(0xee);
      }
      const floats = new Float32Array(Math.ceil(length / 4) + 3);
      expect(verbs.read(ref, floats, 2)).toBe(STATUS.SUCCESS);
      expect([...new Uint8Array(floats.buffer, 8, length)]).toEqual([
        ...arena.bytes.subarray(ref.address, ref.address + length),
      ]);
      expect(verbs.readAt(ref.address, ref.rkey, length, bytes, 0)).toBe(STATUS.SUCCESS);
    }
  });

  it("ends in LOCAL_LENGTH_ERROR when the target is too small, detached, or the offset bad", () => {
    const { verbs, plain } = setup(rmwCheck);
    const ref = { ...plain, length: 64 };
    const target = new Uint8Array(64);
    for (const offset of [1, 64, -1, 0.5, Number.NaN, 2 ** 32, 2 ** 31, Number.POSITIVE_INFINITY])
      expect(statusName(verbs.read(ref, target, offset))).toBe("LOCAL_LENGTH_ERROR");
    expect(verbs.read(ref, new Float32Array(15))).toBe(STATUS.LOCAL_LENGTH_ERROR);
    expect(verbs.read(ref, target)).toBe(STATUS.SUCCESS);
    structuredClone(target.buffer, { transfer: [target.buffer] });
    expect(verbs.read(ref, target)).toBe(STATUS.LOCAL_LENGTH_ERROR);
    expect(() => verbs.read(ref, undefined as never)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
  });

  it("retries while a cell is odd, then ends in RETRY_EXCEEDED with a zeroed target", () => {
    const { verbs, cells, arena } = setup(rmwCheck);
    const ref = { address: cells.address + 32, rkey: cells.rkey, length: 64 };
    const target = new Uint8Array(64).fill(5);
    beginWrite(arena.i32, cells.address);
    arena.bytes.fill(0xaa, ref.address, ref.address + 64);
    expect(verbs.read(ref, target)).toBe(STATUS.RETRY_EXCEEDED);
    expect(target.every((byte) => byte === 0)).toBe(true);
    expect(verbs.retries).toBeGreaterThanOrEqual(4);
    endWrite(arena.i32, cells.address);
    expect(verbs.read(ref, target)).toBe(STATUS.SUCCESS);
    expect(target.every((byte) => byte === 0xaa)).toBe(true);
  });

  it("tells incarnations apart", () => {
    const { verbs, cells, plain, arena } = setup(rmwCheck);
    const target = new Uint8Array(64);
    const ref = { address: cells.address + 32, rkey: cells.rkey, length: 64, generation: 0 };
    for (let round = 0; round < 2; round++) expect(verbs.read(ref, target)).toBe(STATUS.SUCCESS);
    beginWrite(arena.i32, cells.address);
    const generation = bumpIncarnation(arena.i32, cells.address);
    endWrite(arena.i32, cells.address);
    expect(verbs.read(ref, target)).toBe(STATUS.STALE_CELL);
    expect(verbs.write(ref, target)).toBe(STATUS.STALE_CELL);
    expect(verbs.readInPlace(ref, () => 1)).toEqual({ status: STATUS.STALE_CELL, value: undefined });
    expect(verbs.read({ ...ref, generation }, target)).toBe(STATUS.SUCCESS);
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 32 + 1])
      expect(verbs.read({ ...ref, generation: bad }, target)).toBe(STATUS.STALE_CELL);
    expect(verbs.read({ ...plain, length: 64, generation: 0 }, target)).toBe(STATUS.STALE_CELL);
  });
});

describe("readInPlace", () => {
  it("gives the value of a visit that saw one version, and runs again after a torn one", () => {
    const { verbs, cells, arena } = setup();
    const ref = { address: cells.address + 32, rkey: cells.rkey, length: 64 };
    let visits = 0;
    const result = verbs.readInPlace(ref, (bytes, byteOffset, byteLength) => {
      if (++visits === 1) {
        beginWrite(arena.i32, cells.address);
        bytes[byteOffset] = 9;
        endWrite(arena.i32, cells.address);
        throw new Error("over torn bytes");
      }
      return [bytes[byteOffset], byteLength];
    });
    expect(result).toEqual({ status: STATUS.SUCCESS, value: [9, 64] });
    expect(() =>
      verbs.readInPlace(ref, () => {
        throw new Error("the visitor's own");
      }),
    ).toThrow("the visitor's own");
  });

  it("never returns what a region held that was revoked meanwhile", () => {
    const { verbs, plain, table } = setup();
    let current = plain;
    expect(
      verbs.readInPlace(plain, () => {
        current = table.reregister(current);
        return "secret";
      }),
    ).toEqual({ status: STATUS.REGION_REVOKED, value: undefined });
    expect(verbs.readInPlace({ ...current, length: 2 ** 32 }, () => 1).status).toBe(STATUS.OUT_OF_BOUNDS);
  });

  it("gives up on a cell that changes at every attempt", () => {
    const { verbs, cells, arena } = setup();
    const result = verbs.readInPlace({ address: cells.address + 32, rkey: cells.rkey, length: 64 }, () => {
      beginWrite(arena.i32, cells.address);
      endWrite(arena.i32, cells.address);
    });
    expect(result).toEqual({ status: STATUS.RETRY_EXCEEDED, value: undefined });
  });
});

describe("write and atomics", () => {
  it("respect rights, header words and cell boundaries", () => {
    const { arena, verbs, cells } = setup();
    const source = new Uint8Array(64).fill(3);
    const at = (offset: number, length: number) => ({ address: cells.address + offset, rkey: cells.rkey, length });
    expect(verbs.write(at(32, 64), source)).toBe(STATUS.SUCCESS);
    expect(arena.i32[cells.address / 4]).toBe(2);
    expect(verbs.write(at(12, 4), source)).toBe(STATUS.SUCCESS);
    for (const offset of [0, 4, 8, 11]) expect(verbs.write(at(offset, 4), source)).toBe(STATUS.REMOTE_ACCESS_ERROR);
    expect(verbs.write(at(80, 32), source)).toBe(STATUS.SPANS_CELLS);
    expect(verbs.read(cells, new Uint8Array(960))).toBe(STATUS.SPANS_CELLS);
    expect(verbs.fetchAdd(at(8, 4), 1)).toBe(STATUS.REMOTE_ACCESS_ERROR);
    for (const right of [ACCESS.READ, ACCESS.WRITE, ACCESS.ATOMIC]) {
      const only = new RegionTable(arena, 4, generator(right)).register({
        byteOffset: cells.address,
        byteLength: 960,
        access: right,
        cellStrideBytes: 96,
      });
      const ref = { address: only.address + 32, rkey: only.rkey, length: 4 };
      expect(
        [
          verbs.read(ref, source),
          verbs.write(ref, source),
          verbs.fetchAdd(ref, 0),
          verbs.compareAndSwap(ref, 0, 0),
        ].map((status) => status === STATUS.SUCCESS),
      ).toEqual([right === ACCESS.READ, right === ACCESS.WRITE, right === ACCESS.ATOMIC, right === ACCESS.ATOMIC]);
    }
  });

  it("swap and add with the old value as result", () => {
    const { verbs, plain, arena } = setup();
    const word = { ...plain, length: 4 };
    arena.i32[plain.address / 4] = 0x7fff_ffff;
    expect([verbs.fetchAdd(word, 1), verbs.atomicResult]).toEqual([STATUS.SUCCESS, 0x7fff_ffff]);
    expect([verbs.compareAndSwap(word, 5, 6), verbs.atomicResult]).toEqual([STATUS.SUCCESS, -0x8000_0000]);
    expect([verbs.compareAndSwap(word, 0x8000_0000, 6), verbs.atomicResult]).toEqual([STATUS.SUCCESS, -0x8000_0000]);
    expect(arena.i32[plain.address / 4]).toBe(6);
    expect(verbs.fetchAdd({ ...word, address: word.address + 2 }, 1)).toBe(STATUS.MISALIGNED);
    expect(verbs.fetchAdd({ ...word, length: 8 }, 1)).toBe(STATUS.MISALIGNED);
  });
});

describe("post and poll", () => {
  it("complete in order with statuses, and never overrun the completion queue", () => {
    const { verbs, plain, arena } = setup();
    const local = new Uint8Array(8);
    const ref = { ...plain, length: 4 };
    arena.i32[plain.address / 4] = 40;
    const list = [
      { id: 1, opcode: OPCODE.FETCH_ADD, ref, delta: 2 },
      { id: 2, opcode: OPCODE.READ, ref, local, localOffset: 4 },
      { id: 3, opcode: OPCODE.READ, ref: { ...ref, rkey: 5 }, local },
      { id: 4, opcode: OPCODE.COMPARE_AND_SWAP, ref, expected: 42, desired: 7 },
      { id: 5, opcode: OPCODE.WRITE, ref, local: new Uint8Array([1, 0, 0, 0]) },
    ] satisfies WorkRequest[];
    expect(verbs.post(list)).toBe(4);
    expect(arena.i32[plain.address / 4]).toBe(7);
    expect(verbs.post(list.slice(4))).toBe(0);
    const out: Completion[] = [];
    expect(verbs.poll(out, 3)).toBe(3);
    expect(out).toEqual([
      { id: 1, opcode: OPCODE.FETCH_ADD, status: STATUS.SUCCESS, byteLength: 4, value: 40 },
      { id: 2, opcode: OPCODE.READ, status: STATUS.SUCCESS, byteLength: 4, value: 0 },
      { id: 3, opcode: OPCODE.READ, status: STATUS.INVALID_RKEY, byteLength: 0, value: 0 },
    ]);
    expect(local[4]).toBe(42);
    const [reused] = out;
    expect(verbs.post(list.slice(4))).toBe(1);
    expect([verbs.poll(out, 10), verbs.poll(out, 10)]).toEqual([2, 0]);
    expect(out[0]).toBe(reused);
    expect(out.slice(0, 2).map((completion) => [completion.id, completion.value])).toEqual([
      [4, 42],
      [5, 0],
    ]);
  });

  it("let visits look at the bytes where they are", () => {
    const { verbs, plain, arena } = setup();
    const seen: number[][] = [];
    const visit = (bytes: Uint8Array, at: number, length: number): void => {
      seen.push([bytes === arena.bytes ? at : -1, length]);
    };
    const ref = { ...plain, length: 4 };
    const requests = [ref, { ...ref, rkey: 5 }].map((each, id) => ({ id, opcode: OPCODE.VISIT, ref: each, visit }));
    expect(verbs.post(requests)).toBe(2);
    const out: Completion[] = [];
    verbs.poll(out, 2);
    expect(out.map(({ id, status, byteLength }) => [id, status, byteLength])).toEqual([
      [0, STATUS.SUCCESS, 4],
      [1, STATUS.INVALID_RKEY, 0],
    ]);
    expect(seen).toEqual([[plain.address, 4]]);
  });

  it("end malformed requests in INVALID_REQUEST and go on", () => {
    const { verbs, plain } = setup();
    const ref = { ...plain, length: 4 };
    const bad = [
      null,
      { id: 1, opcode: OPCODE.VISIT, ref },
      { id: 2, opcode: 9, ref },
      { id: 3, opcode: OPCODE.READ, ref },
    ];
    expect(verbs.post(bad as never)).toBe(4);
    const out: Completion[] = [];
    verbs.poll(out, 4);
    expect(out.map((completion) => statusName(completion.status))).toEqual(Array(4).fill("INVALID_REQUEST"));
    verbs.post([
      { id: 4, opcode: OPCODE.FETCH_ADD, ref },
      { id: 5, opcode: OPCODE.FETCH_ADD, ref, delta: 1 },
    ]);
    expect(verbs.poll(out, 2)).toBe(2);
    expect(out.slice(0, 2).map((completion) => completion.status)).toEqual([STATUS.INVALID_REQUEST, STATUS.SUCCESS]);
    expect(() => verbs.post(7 as never)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
  });

  it("end every malformed reference or operand in a status or a typed error, and leave no cell taken", () => {
    const { verbs, cells, plain, arena } = setup();
    const cell = { address: cells.address + 32, rkey: cells.rkey, length: 4 };
    const odd = [
      null,
      undefined,
      5,
      "ref",
      true,
      {},
      [],
      { rkey: 1n },
      { ...plain, address: 8n },
      { ...plain, length: "4" },
      { ...cell, generation: "x" },
      { ...cell, rkey: Symbol("key") },
    ];
    const target = new Uint8Array(8);
    const calls: ((ref: never) => number)[] = [
      (ref) => verbs.read(ref, target),
      (ref) => verbs.read(ref, new Float32Array(4)),
      (ref) => verbs.write(ref, target),
      (ref) => verbs.compareAndSwap(ref, 1, 2),
      (ref) => verbs.fetchAdd(ref, 1),
      (ref) => verbs.beginInPlace(ref),
      (ref) => verbs.readInPlace(ref, () => 1).status,
    ];
    for (const call of calls)
      for (const ref of odd)
        expect(statusName(call(ref as never))).toMatch(/^(INVALID_RKEY|OUT_OF_BOUNDS|STALE_CELL)$/);
    const typed = expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }) as unknown;
    for (const operand of [1n, Symbol("one"), "1", null]) {
      expect(() => verbs.compareAndSwap(cell, operand as never, 1)).toThrow(typed);
      expect(() => verbs.compareAndSwap(cell, 1, operand as never)).toThrow(typed);
      expect(() => verbs.fetchAdd(cell, operand as never)).toThrow(typed);
      expect(verbs.read(cell, target, operand as never)).toBe(STATUS.LOCAL_LENGTH_ERROR);
      expect(verbs.write(cell, target, operand as never)).toBe(STATUS.LOCAL_LENGTH_ERROR);
      for (const act of [
        () => verbs.read(cell, operand as never),
        () => verbs.write(cell, operand as never),
        () => verbs.readInPlace(cell, operand as never),
      ])
        expect(act).toThrow(typed);
    }
    expect(() => verbs.poll(null as never, 1)).toThrow(typed);
    expect(isOdd(arena.i32, cells.address)).toBe(false);
    const requests = odd.flatMap((id) => [
      { id, opcode: id },
      { id, opcode: OPCODE.READ, ref: cell, local: id },
      { id, opcode: OPCODE.FETCH_ADD, ref: cell, delta: id },
    ]);
    const out: Completion[] = [];
    const ends = requests.map((request) =>
      [verbs.post([request as never]), verbs.poll(out, 9), statusName(out[0]?.status ?? -1)].join(),
    );
    expect(new Set(ends)).toEqual(new Set(["1,1,INVALID_REQUEST", "1,1,SUCCESS"])); // delta: 5
  });

  it.each([{ completionCapacity: 0 }, { completionCapacity: 65_537 }, { attempts: 0 }, { attempts: 1.5 }])(
    "refuse options %o",
    (options) => {
      expect(() => new Verbs(memory(1).arena, options)).toThrow(
        expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
      );
    },
  );
});
