/**
 * Fuzz of the verbs: a million operations with right and wrong keys, ranges, rights, offsets and generations, against a
 * model that shares no code with them: a map of keys, and a second copy of the memory.
 *
 * A silent success would be a status SUCCESS where the model refuses, or bytes in target or memory other than the model's.
 */
import { describe, expect, it } from "vitest";
import type { Arena } from "../../native-bridge/arena.ts";
import type { RegionRef, RegionTable } from "../../native-bridge/region-table.ts";
import { STATUS, statusName, Verbs } from "../../native-bridge/verbs.ts";
import { generator, LONG, memory, seedOf } from "./memory-support.ts";

const OPERATIONS = LONG ? 20_000_000 : 1_000_000;
const HEAP_BYTES = 32_768;
const STRANGE: readonly number[] = [
  Number.NaN,
  -1,
  0,
  -0,
  0.5,
  1.5,
  63.999,
  2 ** 31,
  2 ** 31 - 1,
  2 ** 32,
  2 ** 32 - 1,
  2 ** 53,
  -(2 ** 31),
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  1e-300,
];

interface Known {
  readonly ref: RegionRef;
  readonly access: number;
  readonly stride: number;
  dead: number;
}

class Fuzz {
  readonly random: () => number;
  readonly arena: Arena;
  readonly table: RegionTable;
  readonly verbs: Verbs;
  readonly heap: number;
  readonly shadow: Uint8Array;
  readonly shadowView: DataView;
  readonly known: Known[] = [];
  readonly byKey = new Map<number, Known>();
  readonly targets = [
    new Uint8Array(96),
    new Float32Array(32),
    new Uint8Array(new ArrayBuffer(300), 3, 200),
    new Uint8Array(4096),
  ];
  readonly seen = new Map<string, number>();
  revocations = 0;

  constructor(seed: number) {
    const { arena, table } = memory(seed);
    this.random = generator(seed ^ 0x5eed);
    this.arena = arena;
    this.table = table;
    this.verbs = new Verbs(arena, { attempts: 2, rmwCheck: (seed & 1) === 1 });
    this.heap = arena.allocate(HEAP_BYTES);
    for (let byte = 0; byte < HEAP_BYTES; byte++) arena.bytes[this.heap + byte] = this.random();
    for (let word = this.heap / 4; word < (this.heap + HEAP_BYTES) / 4; word += 4)
      arena.i32[word] = (arena.i32[word] as number) & ~1; // any cell is even
    this.shadow = arena.bytes.slice(this.heap, this.heap + HEAP_BYTES);
    this.shadowView = new DataView(this.shadow.buffer);
    for (let region = 0; region < 24; region++) this.register();
  }

  register(): void {
    const stride = [0, 0, 48, 96, 256][this.random() % 5] as number;
    const size = stride === 0 ? 1 + (this.random() % 2000) : stride * (1 + (this.random() % 12));
    const byteOffset = this.heap + (this.random() % ((HEAP_BYTES - size) >>> 4)) * 16;
    const access = 1 + (this.random() % 7);
    const ref = this.table.register({ byteOffset, byteLength: size, access, cellStrideBytes: stride });
    const known: Known = { ref, access, stride, dead: 0 };
    this.known.push(known);
    this.byKey.set(ref.rkey, known);
  }

  /** Retires one region and makes another; a recently dead key must end REGION_REVOKED. */
  churn(): void {
    const victim = this.known[this.random() % this.known.length] as Known;
    if (victim.dead !== 0) return;
    this.table.deregister(victim.ref);
    victim.dead = ++this.revocations;
    this.register();
    if (this.known.length > 32)
      this.known.splice(
        this.known.findIndex((known) => known.dead !== 0),
        1,
      );
  }

  make(): { ref: RegionRef; offset: number; target: Uint8Array | Float32Array } {
    const { random } = this;
    const region = this.known[random() % this.known.length] as Known;
    const span = region.stride === 0 ? region.ref.length : region.stride;
    const start = region.stride === 0 ? 0 : (random() % (region.ref.length / region.stride)) * region.stride;
    const inner = random() % span;
    let address = region.ref.address + start + ((random() & 3) === 0 ? inner : inner & ~3);
    let length =
      (random() & 3) === 0 ? random() % (span * 2) : (random() & 1) === 0 ? 4 : random() % (span - inner + 1);
    let rkey = region.ref.rkey;
    let offset = random() % 3 === 0 ? random() % 40 : 0;
    switch (random() % 24) {
      case 0:
        address = this.strange();
        break;
      case 1:
        length = this.strange();
        break;
      case 2:
        rkey = this.strange();
        break;
      case 3:
        rkey += 4096 * (1 + (random() % 1000));
        break;
      case 4:
        rkey ^= 1;
        break;
      case 5:
        rkey += 0.25;
        break;
      case 6:
        offset = this.strange();
        break;
      case 7:
        address += 0.5;
        break;
      case 8:
        length = region.ref.length + 1;
        break;
      case 9:
        address = region.ref.address - 4;
        break;
      case 10:
        rkey = "key" as never;
        break;
      case 11:
        length = String(length) as never;
        break;
      default:
    }
    const target = this.targets[random() % this.targets.length] as Uint8Array | Float32Array;
    const roll = random() % 12;
    if (roll > 1) return { ref: { address, rkey, length }, offset, target };
    const here = Number.isInteger(address) && region.stride !== 0 ? this.incarnation(region, address) : 0;
    return {
      ref: { address, rkey, length, generation: roll === 0 ? here : (random() & 1) === 0 ? here + 1 : this.strange() },
      offset,
      target,
    };
  }

  strange(): number {
    return STRANGE[this.random() % STRANGE.length] as number;
  }

  incarnation(region: Known, address: number): number {
    const cell = this.cellOf(region, address) - this.heap + 8;
    return cell >= 0 && cell + 4 <= HEAP_BYTES ? this.shadowView.getInt32(cell, true) : 0;
  }

  cellOf(region: Known, address: number): number {
    return region.ref.address + Math.floor((address - region.ref.address) / region.stride) * region.stride;
  }

  /** What the model allows: a set, since a key that died long ago may have been forgotten. */
  expected(
    verb: "read" | "write" | "swap" | "add",
    ref: RegionRef,
    offset: number,
    target: Uint8Array | Float32Array,
  ): string[] {
    const region = typeof ref.rkey === "number" ? this.byKey.get(ref.rkey) : undefined;
    if (region === undefined) return ["INVALID_RKEY"];
    if (region.dead !== 0)
      return this.revocations - region.dead < 3000 ? ["REGION_REVOKED"] : ["REGION_REVOKED", "INVALID_RKEY"];
    const right = verb === "read" ? 1 : verb === "write" ? 2 : 4;
    if (Math.floor(region.access / right) % 2 === 0) return ["REMOTE_ACCESS_ERROR"];
    const natural = (value: number): boolean => Number.isInteger(value) && value >= 0 && value < 2 ** 32;
    if (!natural(ref.address) || !natural(ref.length)) return ["OUT_OF_BOUNDS"];
    if (ref.address < region.ref.address || ref.address + ref.length > region.ref.address + region.ref.length)
      return ["OUT_OF_BOUNDS"];
    const cell = region.stride === 0 ? -1 : this.cellOf(region, ref.address);
    if (cell >= 0 && ref.address + ref.length > cell + region.stride) return ["SPANS_CELLS"];
    if (cell >= 0 && verb !== "read" && ref.address < cell + 12) return ["REMOTE_ACCESS_ERROR"];
    if (verb === "read" || verb === "write") {
      if (!natural(offset) || offset * target.BYTES_PER_ELEMENT + ref.length > target.byteLength)
        return ["LOCAL_LENGTH_ERROR"];
    } else if (ref.address % 4 !== 0 || ref.length !== 4) return ["MISALIGNED"];
    if (cell < 0) return [ref.generation === undefined ? "SUCCESS" : "STALE_CELL"];
    const odd = (this.shadow[cell - this.heap] as number) % 2 === 1;
    if (odd) return ["RETRY_EXCEEDED"];
    return [
      ref.generation === undefined || ref.generation === this.incarnation(region, ref.address)
        ? "SUCCESS"
        : "STALE_CELL",
    ];
  }

  /** The version of the model's cell after a write. */
  advance(ref: RegionRef): void {
    const region = this.byKey.get(ref.rkey) as Known;
    if (region.stride === 0) return;
    const at = this.cellOf(region, ref.address) - this.heap;
    const low = (this.shadowView.getUint32(at, true) + 2) % 2 ** 32;
    this.shadowView.setUint32(at, low, true);
    if (low === 0) this.shadowView.setInt32(at + 4, this.shadowView.getInt32(at + 4, true) + 1, true);
  }

  step(): void {
    const { ref, offset, target } = this.make();
    const verb = (["read", "read", "write", "swap", "add"] as const)[this.random() % 5] as
      | "read"
      | "write"
      | "swap"
      | "add";
    const allowed = this.expected(verb, ref, offset, target);
    const bytes = new Uint8Array(target.buffer, target.byteOffset, target.byteLength);
    const at = this.random() % 64;
    bytes.fill(at, 0, 96);
    const local = offset * target.BYTES_PER_ELEMENT;
    const operand = this.random() | 0;
    const word =
      verb === "read" || verb === "write" || allowed[0] !== "SUCCESS"
        ? 0
        : this.shadowView.getInt32(ref.address - this.heap, true);
    const match = (this.random() & 1) === 0;
    let status: number;
    if (verb === "read")
      status =
        (this.random() & 1) === 0 && ref.generation === undefined
          ? this.verbs.readAt(ref.address, ref.rkey, ref.length, target, offset)
          : this.verbs.read(ref, target, offset);
    else if (verb === "write") status = this.verbs.write(ref, target, offset);
    else if (verb === "add") status = this.verbs.fetchAdd(ref, operand);
    else status = this.verbs.compareAndSwap(ref, match ? word : word + 1, operand);
    const name = statusName(status);
    this.seen.set(name, (this.seen.get(name) ?? 0) + 1);
    if (!allowed.includes(name))
      throw new Error(`${verb} ${JSON.stringify(ref)} offset ${offset}: ${name}, model says ${allowed.join(" or ")}`);
    if (status === STATUS.SUCCESS) this.apply(verb, ref, bytes, local, word, match, operand);
    else if (name !== "RETRY_EXCEEDED")
      for (let byte = 0; byte < 96; byte++)
        if (bytes[byte] !== at) throw new Error(`${verb} ended in ${name} and changed the target`);
  }

  apply(
    verb: string,
    ref: RegionRef,
    bytes: Uint8Array,
    local: number,
    word: number,
    match: boolean,
    operand: number,
  ): void {
    const from = ref.address - this.heap;
    if (verb === "read") {
      for (let byte = 0; byte < ref.length; byte++)
        if (bytes[local + byte] !== this.shadow[from + byte])
          throw new Error(`read of ${JSON.stringify(ref)} differs at ${byte}`);
      return;
    }
    this.advance(ref);
    if (verb === "write") this.shadow.set(bytes.subarray(local, local + ref.length), from);
    else {
      if (this.verbs.atomicResult !== word)
        throw new Error(`${verb} returned ${this.verbs.atomicResult}, held ${word}`);
      if (verb === "add" || match) this.shadowView.setInt32(from, verb === "add" ? word + operand : operand, true);
    }
  }

  compare(): void {
    const heap = this.arena.bytes.subarray(this.heap, this.heap + HEAP_BYTES);
    if (Buffer.compare(heap, this.shadow) !== 0) throw new Error("memory differs from the model");
  }
}

describe("fuzzed verbs", () => {
  it(`end as the model says, ${OPERATIONS} times`, { timeout: 600_000 }, () => {
    const fuzz = new Fuzz(seedOf("verbs fuzz"));
    for (let operation = 0; operation < OPERATIONS; operation++) {
      fuzz.step();
      if (operation % 500 === 0) fuzz.churn();
      if (operation % 5000 === 0) fuzz.compare();
    }
    fuzz.compare();
    for (const name of [
      "INVALID_RKEY",
      "OUT_OF_BOUNDS",
      "REMOTE_ACCESS_ERROR",
      "REGION_REVOKED",
      "STALE_CELL",
      "RETRY_EXCEEDED",
      "LOCAL_LENGTH_ERROR",
      "MISALIGNED",
      "SPANS_CELLS",
    ]) {
      expect(fuzz.seen.get(name) ?? 0, name).toBeGreaterThan(100);
    }
    expect(fuzz.seen.get("SUCCESS") ?? 0).toBeGreaterThan(OPERATIONS / 20);
  });

  it("would notice a verb that ignores bounds, and one that writes too much", () => {
    const lax = new Fuzz(11);
    const read = lax.verbs.read.bind(lax.verbs);
    lax.verbs.read = (ref, target, offset) =>
      read(ref, target, offset) === STATUS.OUT_OF_BOUNDS ? STATUS.SUCCESS : read(ref, target, offset);
    expect(() => {
      for (let operation = 0; operation < 10_000; operation++) lax.step();
    }).toThrow("model says");
    const wide = new Fuzz(12);
    const write = wide.verbs.write.bind(wide.verbs);
    wide.verbs.write = (ref, source, offset) => {
      const status = write(ref, source, offset);
      if (status === STATUS.SUCCESS)
        wide.arena.bytes[ref.address + ref.length] = ~wide.arena.bytes[ref.address + ref.length]!;
      return status;
    };
    expect(() => {
      for (let operation = 0; operation < 10_000; operation++) wide.step();
      wide.compare();
    }).toThrow();
  });
});
