/** The arena of a thread that others survive: what it held is free by its ledger, wherever it died, and once. */
import { expect, it } from "vitest";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { createLedger, freeLedger, OwnedArena } from "../../native-bridge/owned-arena.ts";
import { dieAt, generator } from "./memory-support.ts";

const MIB = 1_048_576;
const code = (value: string): object => expect.objectContaining({ code: value }) as object;

function open(capacityBytes: number = 4 * MIB): { main: Arena; owned: OwnedArena; ledger: number } {
  const memory = createArena({ capacityBytes });
  const main = new Arena(memory);
  const ledger = createLedger(main);
  return { main, ledger, owned: new OwnedArena(memory, ledger) };
}

it("frees what a thread left, and nothing else, over many pages of the ledger", () => {
  const { main, owned, ledger } = open();
  const others = main.allocate(1000);
  const random = generator(3);
  const held: [number, number][] = [];
  for (let round = 0; round < 4_000; round++) {
    const length = 1 + (random() % 3_000);
    if (held.length < 1_200 && random() % 3 > 0) held.push([owned.allocate(length), length]);
    else for (const [at, bytes] of held.splice(random() % Math.max(1, held.length), 1)) owned.free(at, bytes);
  }
  expect(held.length).toBeGreaterThan(600);
  freeLedger(main, ledger);
  expect(main.stats().usedBytes).toBe(1024);
  main.free(others, 1000);
});

it("gives all back when it is closed, and is refused more", () => {
  const { main, owned, ledger } = open();
  const empty = main.stats().usedBytes;
  const first = owned.allocate(100);
  for (let at = 0; at < 10; at++) owned.allocate(5_000);
  owned.free(first, 100);
  owned.close();
  expect(main.stats().usedBytes).toBe(empty);
  expect(() => owned.allocate(64)).toThrow(code("ERR_CLOSED"));
  const others = main.allocate(5_000); // where one of them was
  owned.free(others, 5_000);
  owned.close();
  expect(main.stats().usedBytes, "what is another's stays").toBeGreaterThan(empty);
  freeLedger(main, ledger);
  main.free(others, 5_000);
  expect(main.stats().usedBytes).toBe(0);
});

it("keeps its places when the arena is full", () => {
  const { main, owned, ledger } = open(MIB);
  for (let at = 0; at < 600; at++) expect(() => owned.allocate(MIB)).toThrow(code("ERR_OUT_OF_MEMORY"));
  owned.allocate(64);
  freeLedger(main, ledger);
  expect(main.stats().usedBytes).toBe(0);
});

it("loses at most the block in hand, wherever its thread dies", () => {
  for (let n = 0, died = true; died; n++) {
    const { main, owned, ledger } = open(MIB);
    died = dieAt(n, () => {
      const first = owned.allocate(1024);
      owned.allocate(1024);
      owned.free(first, 1024);
      owned.allocate(1024);
    });
    freeLedger(main, ledger);
    expect([0, 1024], `died at ${n}`).toContain(main.stats().usedBytes);
    const again = [main.allocate(1024), main.allocate(1024), main.allocate(1024)];
    expect(new Set(again).size).toBe(3);
  }
});

it("refuses a ledger that is none", () => {
  const memory = createArena({ capacityBytes: MIB });
  for (const bad of [0, 64, new Arena(memory).heapByteOffset + 1, Number.NaN, undefined as never])
    expect(() => new OwnedArena(memory, bad)).toThrow(code("ERR_INVALID_ARGUMENT"));
});
