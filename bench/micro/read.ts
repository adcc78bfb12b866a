/**
 * Bench `read`: validated one-sided reads against plain access to the same memory, with the owner free, blocked or parked.
 *
 * Sides of M1 read the same 64 cells in turn; M2 sums the same 4 KB; M3 times each read singly (clock included) while the
 * owner sits in Atomics.wait for 100 ms; M4 compares with the floor of any ask, a round trip of two atomics to the owner,
 * spinning and parked (the ask of the actor runtime is measured by bench `ask`).
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { STATUS, statusName, Verbs } from "../../native-bridge/verbs.ts";
import { judge } from "../harness/goals.ts";
import {
  type Bench,
  type BenchCase,
  type BenchContext,
  type BenchReport,
  interleave,
  median,
  ratioOf,
  sized,
} from "../harness/harness.ts";
import {
  BLOCKED,
  CELLS,
  COMMAND,
  CONTROL_BYTES,
  LARGE_BYTES,
  type OwnerRefs,
  STRIDE_BYTES,
  WORD,
} from "./read-owner.ts";

interface Ref {
  readonly address: number;
  readonly rkey: number;
  readonly length: number;
}

const SMALL = "64 B";
const LARGE = "4 KB sum";
const ROUND_TRIP = "get against round trip";

/** What all cases share: the arena, the owner's thread, and references to its cells. */
interface Stage {
  readonly arena: Arena;
  readonly verbs: Verbs;
  readonly words: Int32Array;
  readonly small: readonly Ref[];
  readonly large: Ref;
  close(): Promise<void>;
}

async function openStage(): Promise<Stage> {
  const memory = createArena({ capacityBytes: 16_777_216 });
  const control = new SharedArrayBuffer(CONTROL_BYTES);
  const worker = new Worker(new URL("./read.worker.js", import.meta.url), { workerData: { memory, control } });
  const [refs] = (await once(worker, "message")) as [OwnerRefs];
  const arena = new Arena(memory);
  const words = new Int32Array(control);
  const small = Array.from({ length: CELLS }, (_, cell) => ({
    address: refs.cells.address + cell * STRIDE_BYTES + 32,
    rkey: refs.cells.rkey,
    length: 64,
  }));
  const large = { address: refs.large.address + 32, rkey: refs.large.rkey, length: LARGE_BYTES };
  const close = async (): Promise<void> => {
    const exited = once(worker, "exit");
    command(words, COMMAND.EXIT);
    await exited;
  };
  return { arena, verbs: new Verbs(arena), words, small, large, close };
}

function command(words: Int32Array, value: number): void {
  Atomics.store(words, WORD.COMMAND, value);
  Atomics.notify(words, WORD.COMMAND);
}

/** Nanoseconds per call of a loop over `count` calls. */
function timed(count: number, loop: () => void): number {
  const start = process.hrtime.bigint();
  loop();
  return Number(process.hrtime.bigint() - start) / count;
}

function must(condition: boolean, what: string): void {
  if (!condition) throw new Error(`read bench: ${what}`);
}

function smallCases(stage: Stage, count: number): BenchCase[] {
  const { arena, verbs, small } = stage;
  const target = new Uint8Array(64);
  const floats = new Float32Array(16);
  const views = small.map((ref) => arena.bytes.subarray(ref.address, ref.address + 64));
  const floatViews = small.map((ref) => new Float32Array(arena.buffer, ref.address, 16));
  let failures = 0;
  const last = new Int32Array(target.buffer);
  const validate = (): void => {
    must(failures === 0, `${failures} reads failed`);
    must(
      last.every((word) => word === ((count - 1) & (CELLS - 1)) + 1),
      "the target does not hold the last cell",
    );
  };
  const one = (side: string, loop: () => void, check: () => void = validate): BenchCase => ({
    name: SMALL,
    side,
    unit: "ns/op",
    run: () => timed(count, loop),
    validate: check,
  });
  const lastFloats = new Int32Array(floats.buffer);
  const validateFloats = (): void =>
    must(
      failures === 0 && lastFloats.every((word) => word === ((count - 1) & (CELLS - 1)) + 1),
      "the floats do not hold the last cell",
    );
  return [
    one("read", () => {
      for (let turn = 0; turn < count; turn++) failures += verbs.read(small[turn & (CELLS - 1)] as Ref, target);
    }),
    one("TypedArray.set", () => {
      for (let turn = 0; turn < count; turn++) target.set(views[turn & (CELLS - 1)] as Uint8Array);
    }),
    one(
      "read f32",
      () => {
        for (let turn = 0; turn < count; turn++) failures += verbs.read(small[turn & (CELLS - 1)] as Ref, floats);
      },
      validateFloats,
    ),
    one(
      "TypedArray.set f32",
      () => {
        for (let turn = 0; turn < count; turn++) floats.set(floatViews[turn & (CELLS - 1)] as Float32Array);
      },
      validateFloats,
    ),
  ];
}

function sum(i32: Int32Array, word: number, count: number): number {
  let total = 0;
  for (let index = 0; index < count; index++) total += i32[word + index] as number;
  return total;
}

function largeCases(stage: Stage, count: number): BenchCase[] {
  const { arena, verbs, large } = stage;
  const i32 = arena.i32;
  const words = LARGE_BYTES / 4;
  const target = new Uint8Array(LARGE_BYTES);
  let total = 0;
  const validate = (): void => must(total === count * words, `summed ${total}, not ${count * words}`);
  const visit = (_bytes: Uint8Array, byteOffset: number, byteLength: number): number =>
    sum(i32, byteOffset >>> 2, byteLength >>> 2);
  const one = (side: string, step: () => number): BenchCase => ({
    name: LARGE,
    side,
    unit: "ns/op",
    validate,
    run: () => {
      total = 0;
      return timed(count, () => {
        for (let turn = 0; turn < count; turn++) total += step();
      });
    },
  });
  return [
    one("plain access", () => sum(i32, large.address >>> 2, words)),
    one("readInPlace", () => verbs.readInPlace(large, visit).value ?? Number.NaN),
    one("begin/endInPlace", () => {
      if (verbs.beginInPlace(large) !== STATUS.SUCCESS) return Number.NaN;
      const value = sum(i32, large.address >>> 2, words);
      return verbs.endInPlace() === STATUS.SUCCESS ? value : Number.NaN;
    }),
    {
      ...one("read (copy only)", () => (verbs.read(large, target) === STATUS.SUCCESS ? words : Number.NaN)),
      name: "4 KB copy",
    },
  ];
}

/** Reads one at a time while the owner's thread is blocked; each sample is one read, the clock's own cost included. */
function blockedCase(stage: Stage, reads: number): BenchCase {
  const { verbs, small, words } = stage;
  const target = new Uint8Array(64);
  const samples = new Float64Array(reads);
  let whileBlocked = false;
  return {
    name: "owner blocked 100 ms",
    side: "read",
    unit: "us/op",
    async run() {
      command(words, COMMAND.BLOCK);
      while (Atomics.load(words, WORD.STATE) !== BLOCKED) await new Promise((resolve) => setImmediate(resolve));
      let status = 0;
      for (let turn = 0; turn < reads; turn++) {
        const start = performance.now();
        status += verbs.read(small[turn & (CELLS - 1)] as Ref, target);
        samples[turn] = (performance.now() - start) * 1000;
      }
      whileBlocked = Atomics.load(words, WORD.STATE) === BLOCKED;
      must(status === 0, `a read ended in ${statusName(status)}`);
      while (Atomics.load(words, WORD.COMMAND) !== COMMAND.IDLE) await new Promise((resolve) => setImmediate(resolve));
      return [...samples];
    },
    validate: () => must(whileBlocked, "the owner was not blocked for all the reads"),
  };
}

function roundTripCases(stage: Stage, count: number): BenchCase[] {
  const { verbs, small, words } = stage;
  const target = new Uint8Array(64);
  let answered = 0;
  const trips = (mode: number, trips: number): number => {
    command(words, mode);
    const trip = (): void => {
      const ping = Atomics.add(words, WORD.PING, 1) + 1;
      if (mode === COMMAND.PARK) Atomics.notify(words, WORD.PING);
      const deadline = performance.now() + 5000;
      for (let spin = 1; Atomics.load(words, WORD.PONG) !== ping; spin++) {
        if (spin % 1_000_000 === 0) must(performance.now() < deadline, "the owner did not answer for 5 s");
      }
    };
    trip(); // the owner has taken the command
    const perTrip = timed(trips, () => {
      for (let turn = 0; turn < trips; turn++) {
        trip();
        answered++;
      }
    });
    command(words, COMMAND.IDLE);
    return perTrip;
  };
  const validate = (): void => must(answered > 0, "the owner answered nothing");
  return [
    {
      name: ROUND_TRIP,
      side: "one-sided get",
      unit: "ns/op",
      validate,
      run: () =>
        timed(count, () => {
          for (let turn = 0; turn < count; turn++)
            if (verbs.read(small[turn & (CELLS - 1)] as Ref, target) === STATUS.SUCCESS) answered++;
        }),
    },
    {
      name: ROUND_TRIP,
      side: "two atomics, owner spinning",
      unit: "ns/op",
      validate,
      run: () => trips(COMMAND.SPIN, Math.ceil(count / 20)),
    },
    {
      name: ROUND_TRIP,
      side: "two atomics, owner parked",
      unit: "ns/op",
      validate,
      run: () => trips(COMMAND.PARK, Math.ceil(count / 200)),
    },
  ];
}

export const bench: Bench = {
  name: "read",
  async run(context: BenchContext): Promise<BenchReport> {
    const { mode, goals } = context;
    const count = sized(mode, 20_000, 400_000, 2_000_000);
    const rounds = sized(mode, 3, 15, 41);
    const stage = await openStage();
    try {
      const rows = [
        ...(await interleave(smallCases(stage, count), rounds)),
        ...(await interleave(largeCases(stage, Math.ceil(count / 20)), rounds)),
        ...(await interleave([blockedCase(stage, sized(mode, 2000, 20_000, 100_000))], sized(mode, 2, 5, 15))),
        ...(await interleave(roundTripCases(stage, count), rounds)),
      ];
      const of = (name: string, side: string) => rows.find((row) => row.case === name && row.side === side);
      const added = (side: string): number => {
        const ours = of(LARGE, side)?.samples ?? [];
        const plain = of(LARGE, "plain access")?.samples ?? [];
        return median(ours.map((sample, round) => sample - (plain[round] ?? Number.NaN)));
      };
      const get = (side: string): number => 1 / ratioOf(rows, ROUND_TRIP, "one-sided get", side);
      return {
        rows,
        goals: [
          judge(goals, "M1", ratioOf(rows, SMALL, "read", "TypedArray.set")),
          // The verb as users call it is judged; the allocation-free pair runs the same loop as plain access.
          judge(
            goals,
            "M2",
            added("readInPlace"),
            `ns, by readInPlace; the pair beginInPlace/endInPlace adds ${added("begin/endInPlace").toFixed(0)} ns`,
          ),
          judge(
            goals,
            "M3",
            of("owner blocked 100 ms", "read")?.p99 ?? Number.NaN,
            "us, clock included; reads only: that asks time out typed is tested in test/cluster/failures.test.ts",
          ),
        ],
        notes: [
          `M4, raw part: a get is ${get("two atomics, owner spinning").toFixed(1)} times faster than a bare spinning round trip, ${get("two atomics, owner parked").toFixed(0)} times than a bare parked one; asks cost more`,
          "owner parks in Atomics.wait; the caller polls without pause",
          "64 B reads go round 64 cells, all in cache",
        ],
      };
    } finally {
      await stage.close();
    }
  },
};
