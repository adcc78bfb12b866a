/** Cells: exclusion of writers, validated reads, wrap of the low version word, repair after a dead writer. */
import { describe, expect, it } from "vitest";
import {
  beginWrite,
  bumpIncarnation,
  CellReader,
  endWrite,
  incarnationOf,
  isOdd,
  repairOdd,
  tryBeginWrite,
  tryRead,
} from "../../native-bridge/cell.ts";
import { INCARNATION_MASK, VERSION_HIGH, VERSION_LOW } from "../../native-bridge/cell-layout.ts";

const CELL = 64;
const WORD = CELL / 4;

function words(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(256));
}

describe("writers", () => {
  it("exclude each other, and give up after a bounded number of attempts", () => {
    const i32 = words();
    expect(tryBeginWrite(i32, CELL)).toBe(true);
    expect(isOdd(i32, CELL)).toBe(true);
    expect(tryBeginWrite(i32, CELL)).toBe(false);
    expect(beginWrite(i32, CELL, 3)).toBe(false);
    endWrite(i32, CELL);
    expect(beginWrite(i32, CELL, 1)).toBe(true);
    endWrite(i32, CELL);
    expect(i32[WORD + VERSION_LOW]).toBe(4);
  });

  it("carry the wrap of the low word into the high word", () => {
    const i32 = words();
    i32[WORD + VERSION_LOW] = -2;
    expect(beginWrite(i32, CELL)).toBe(true);
    expect(i32[WORD + VERSION_LOW]).toBe(-1);
    endWrite(i32, CELL);
    expect([i32[WORD + VERSION_LOW], i32[WORD + VERSION_HIGH]]).toEqual([0, 1]);
  });

  it("pass the sign change of the low word without a carry", () => {
    const i32 = words();
    i32[WORD + VERSION_LOW] = 0x7fff_fffe;
    beginWrite(i32, CELL);
    endWrite(i32, CELL);
    expect([i32[WORD + VERSION_LOW], i32[WORD + VERSION_HIGH]]).toEqual([-0x8000_0000, 0]);
  });
});

describe.each([false, true])("CellReader with rmwCheck %s", (rmw) => {
  it("accepts a quiet cell, and no cell that changed or is being written", () => {
    const i32 = words();
    const reader = new CellReader(i32, rmw);
    expect(reader.begin(CELL) && reader.validate()).toBe(true);
    expect(reader.begin(CELL)).toBe(true);
    beginWrite(i32, CELL);
    expect(reader.validate()).toBe(false);
    expect(reader.begin(CELL)).toBe(false);
    endWrite(i32, CELL);
    expect(reader.validate()).toBe(false);
  });

  it("catches a read during which the low word went all the way round", () => {
    const i32 = words();
    const reader = new CellReader(i32, rmw);
    i32[WORD + VERSION_LOW] = 6;
    expect(reader.begin(CELL)).toBe(true);
    // 2^31 writes, the last of them as in endWrite: the wrap is forced by placing the word before it.
    i32[WORD + VERSION_LOW] = -2;
    for (let write = 0; write < 4; write++) {
      beginWrite(i32, CELL);
      endWrite(i32, CELL);
    }
    expect(i32[WORD + VERSION_LOW]).toBe(6);
    expect(reader.validate()).toBe(false);
  });
});

describe("tryRead", () => {
  it("retries a torn visit, drops what it threw, and gives up in the end", () => {
    const i32 = words();
    let visits = 0;
    const value = tryRead(i32, CELL, (payload) => {
      visits++;
      if (visits === 1) {
        beginWrite(i32, CELL);
        endWrite(i32, CELL);
        throw new Error("over torn bytes");
      }
      return payload;
    });
    expect([value, visits]).toEqual([CELL + 32, 2]);
    expect(() =>
      tryRead(i32, CELL, () => {
        throw new Error("over whole bytes");
      }),
    ).toThrow("over whole bytes");
    beginWrite(i32, CELL);
    expect(tryRead(i32, CELL, () => 1, 5)).toBeUndefined();
  });
});

describe("repair and incarnation", () => {
  it("ends a dead writer's write under a new incarnation", () => {
    const i32 = words();
    expect(repairOdd(i32, CELL)).toBe(false);
    beginWrite(i32, CELL);
    const before = incarnationOf(i32, CELL);
    expect(repairOdd(i32, CELL)).toBe(true);
    expect([isOdd(i32, CELL), incarnationOf(i32, CELL)]).toEqual([false, before + 1]);
  });

  it("keeps incarnations non-negative", () => {
    const i32 = words();
    i32[WORD + 2] = INCARNATION_MASK;
    expect(bumpIncarnation(i32, CELL)).toBe(0);
  });
});
