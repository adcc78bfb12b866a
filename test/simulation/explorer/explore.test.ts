/**
 * The explorer itself: litmus tests of both memory models, an independent oracle for random programs, waits, bounds, replay.
 *
 * Source of the litmus tests: Sewell et al., "x86-TSO", CACM 53(7), 2010, section 2; Burckhardt et al., ASPLOS 2010.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type ExploreOptions, explore, replaySchedule, type ThreadHandle } from "../../../src/sim/explorer/explore.ts";

type Memory = { readonly memory: SharedArrayBuffer };
type Body = (shared: Memory, thread: ThreadHandle) => unknown;

const setup = (): Memory => ({ memory: new SharedArrayBuffer(64) });
const MODELS = ["sc", "tso"] as const;

/** All results that the threads can end with, sorted. */
function outcomes(
  threads: readonly Body[],
  memory: "sc" | "tso",
  more: Partial<ExploreOptions<Memory>> = {},
): string[] {
  const seen = new Set<string>();
  const check = ({ results }: { results: readonly unknown[] }): void => void seen.add(JSON.stringify(results));
  const result = explore({ setup, threads, check, memory, ...more });
  expect(result.violation).toBeUndefined();
  if (more.strategy === undefined) expect(result.complete).toBe(true);
  return [...seen].sort();
}

function body(act: (words: Int32Array, thread: ThreadHandle) => unknown): Body {
  return ({ memory }, thread) => act(new Int32Array(memory), thread);
}

describe("litmus tests", () => {
  const privateFence = (): void => void Atomics.add(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  const sides = (store: (words: Int32Array, at: number) => void): Body[] =>
    [0, 1].map((side) =>
      body((words) => {
        store(words, side);
        return words[1 - side];
      }),
    );

  test("store buffering: both threads may miss the other's store under TSO, and not under SC", () => {
    const threads = sides((words, at) => (words[at] = 1));
    expect(outcomes(threads, "sc")).toEqual(["[0,1]", "[1,0]", "[1,1]"]);
    expect(outcomes(threads, "tso")).toEqual(["[0,0]", "[0,1]", "[1,0]", "[1,1]"]);
  });

  test.each([
    ["Atomics.store", (words: Int32Array, at: number) => void Atomics.store(words, at, 1)],
    ["Atomics.exchange", (words: Int32Array, at: number) => void Atomics.exchange(words, at, 1)],
    [
      "a store and a locked instruction on a word of the thread's own",
      (words: Int32Array, at: number) => {
        words[at] = 1;
        privateFence();
      },
    ],
  ])("store buffering with %s shows sequential outcomes only", (_, store) => {
    for (const model of MODELS) expect(outcomes(sides(store), model)).toEqual(["[0,1]", "[1,0]", "[1,1]"]);
  });

  test("an atomic load drains no store buffer", () => {
    const threads = [0, 1].map((side) =>
      body((words) => {
        words[side] = 1;
        return Atomics.load(words, 1 - side);
      }),
    );
    expect(outcomes(threads, "tso")).toContain("[0,0]");
  });

  test("message passing: stores become visible in order, and loads are done in order", () => {
    const threads = [
      body((words) => {
        words[0] = 1;
        words[8] = 1;
      }),
      body((words) => [words[8], words[0]]),
    ];
    for (const model of MODELS)
      expect(outcomes(threads, model)).toEqual(["[null,[0,0]]", "[null,[0,1]]", "[null,[1,1]]"]);
  });

  test("a thread sees its own store before others do (n6)", () => {
    const threads = [
      body((words) => {
        words[0] = 1;
        return [words[0], words[1]];
      }),
      body((words) => {
        words[1] = 2;
        words[0] = 2;
        return words[0];
      }),
    ];
    expect(outcomes(threads, "tso")).toContain("[[1,0],2]");
  });

  test("two readers agree on the order of two independent stores (IRIW)", () => {
    const threads = [
      body((words) => void words.set([1], 0)),
      body((words) => void words.set([1], 1)),
      body((words) => [words[0], words[1]]),
      body((words) => [words[1], words[0]]),
    ];
    for (const model of MODELS) expect(outcomes(threads, model)).not.toContain("[null,null,[1,0],[1,0]]");
  });

  test("a load over parts of two views sees a buffered byte and the memory around it", () => {
    const threads: Body[] = [
      ({ memory }) => {
        new Uint8Array(memory)[1] = 0xff;
        return [new Int32Array(memory)[0], new Float64Array(memory)[0] !== 0];
      },
    ];
    expect(outcomes(threads, "tso")).toEqual([JSON.stringify([[0xff00, true]])]);
  });
});

type Instruction =
  | { readonly op: "load" | "atomicLoad" | "exchange"; readonly at: number }
  | { readonly op: "store"; readonly at: number; readonly value: number };

/** All outcomes of straight-line programs by plain recursion over one step at a time: no trees, no states, no reduction. */
function oracle(programs: readonly (readonly Instruction[])[], tso: boolean): string[] {
  interface State {
    readonly memory: readonly number[];
    readonly at: readonly number[];
    readonly buffers: readonly (readonly (readonly [number, number])[])[];
    readonly reads: readonly (readonly number[])[];
  }
  const seen = new Set<string>();
  const visited = new Set<string>();
  const replaced = <T>(list: readonly T[], index: number, item: T): T[] =>
    list.map((old, i) => (i === index ? item : old));
  const visit = (state: State): void => {
    const key = JSON.stringify(state);
    if (visited.has(key)) return;
    visited.add(key);
    let moved = false;
    for (const [thread, program] of programs.entries()) {
      const buffer = state.buffers[thread] as State["buffers"][number];
      const [oldest, ...rest] = buffer;
      if (oldest !== undefined) {
        moved = true;
        visit({ ...state, memory: replaced(state.memory, ...oldest), buffers: replaced(state.buffers, thread, rest) });
      }
      const instruction = program[state.at[thread] as number];
      if (instruction === undefined || (instruction.op === "exchange" && oldest !== undefined)) continue;
      moved = true;
      const at = replaced(state.at, thread, (state.at[thread] as number) + 1);
      if (instruction.op === "store") {
        const entry = [instruction.at, instruction.value] as const;
        visit(
          tso
            ? { ...state, at, buffers: replaced(state.buffers, thread, [...buffer, entry]) }
            : { ...state, at, memory: replaced(state.memory, ...entry) },
        );
        continue;
      }
      const own = buffer.findLast(([word]) => word === instruction.at);
      const value = own?.[1] ?? state.memory[instruction.at] ?? 0;
      const reads = replaced(state.reads, thread, [...(state.reads[thread] as number[]), value]);
      const memory = instruction.op === "exchange" ? replaced(state.memory, instruction.at, 9) : state.memory;
      visit({ ...state, at, reads, memory });
    }
    if (!moved) seen.add(JSON.stringify([state.reads, state.memory]));
  };
  visit({
    memory: [0, 0, 0],
    at: programs.map(() => 0),
    buffers: programs.map(() => []),
    reads: programs.map(() => []),
  });
  return [...seen].sort();
}

function bodyOf(program: readonly Instruction[]): Body {
  return body((words) => {
    const reads: number[] = [];
    for (const instruction of program) {
      if (instruction.op === "store") words[instruction.at] = instruction.value;
      else if (instruction.op === "load") reads.push(words[instruction.at] as number);
      else if (instruction.op === "atomicLoad") reads.push(Atomics.load(words, instruction.at));
      else reads.push(Atomics.exchange(words, instruction.at, 9));
    }
    return reads;
  });
}

const word = fc.integer({ min: 0, max: 2 });
const instruction: fc.Arbitrary<Instruction> = fc.oneof(
  fc.record({ op: fc.constantFrom("load", "atomicLoad", "exchange"), at: word }),
  fc.record({ op: fc.constant("store"), at: word, value: fc.integer({ min: 1, max: 3 }) }),
);

describe("against an oracle", () => {
  const found = (programs: readonly (readonly Instruction[])[], memory: "sc" | "tso", strategy?: object): string[] => {
    const seen = new Set<string>();
    explore({
      setup,
      threads: programs.map(bodyOf),
      memory,
      check: ({ shared, results }) => {
        seen.add(JSON.stringify([results, [...new Int32Array(shared.memory).subarray(0, 3)]]));
      },
      ...strategy,
    });
    return [...seen].sort();
  };
  const programs = fc.array(fc.array(instruction, { minLength: 1, maxLength: 4 }), { minLength: 2, maxLength: 3 });

  test.each(MODELS)("random programs end in all the ways they can under %s, and in no other", (model) => {
    fc.assert(
      fc.property(programs, (threads) => {
        expect(found(threads, model)).toEqual(oracle(threads, model === "tso"));
      }),
      {
        numRuns: 150,
      },
    );
  });

  test.each(MODELS)("random schedules under %s end in ways that are possible", (model) => {
    fc.assert(
      fc.property(programs, fc.integer(), (threads, seed) => {
        const possible = oracle(threads, model === "tso");
        const seen = found(threads, model, { strategy: { pct: { depth: 3, seed, schedules: 50 } } });
        expect(seen.length).toBeGreaterThan(0);
        expect(possible).toEqual(expect.arrayContaining(seen));
      }),
      { numRuns: 60 },
    );
  });
});

describe("violations", () => {
  const increment = body((words) => {
    words[0] = (words[0] as number) + 1;
  });
  const lost: ExploreOptions<Memory> = {
    setup,
    threads: [increment, increment],
    check: ({ shared }) => {
      const sum = new Int32Array(shared.memory)[0];
      if (sum !== 2) throw new Error(`the sum is ${sum}`);
    },
  };

  test("name a schedule that repeats them, and the accesses of both threads in order", () => {
    const { violation, complete } = explore(lost);
    expect(complete).toBe(false);
    expect(violation).toMatchObject({ message: "Error: the sum is 1", schedule: "sc:ab2a" });
    expect(violation?.trace.map((line) => line.trim().replace(/ {2,}\S+:\d+$/, ""))).toEqual([
      "a 0    load int32 @0 = 0",
      "b 0    load int32 @0 = 0",
      "b 1    store int32 @0 1",
      "a 1    store int32 @0 1",
    ]);
    expect(replaySchedule(lost, "sc:ab2a").violation).toEqual(violation);
    expect(replaySchedule(lost, "sc:a2b2")).toEqual({ schedules: 1, states: 0, complete: false, steps: 4 });
  });

  test("are found by random schedules, and the same ones for one seed", () => {
    const strategy = { pct: { depth: 2, seed: 7, schedules: 500 } };
    const first = explore({ ...lost, strategy });
    expect(first.violation?.message).toBe("Error: the sum is 1");
    expect(explore({ ...lost, strategy })).toEqual(first);
    expect(replaySchedule(lost, first.violation?.schedule ?? "").violation?.message).toBe("Error: the sum is 1");
  });

  test("need a preemption, and are not found within a bound of none", () => {
    expect(explore({ ...lost, bound: { preemptions: 0 } })).toMatchObject({ complete: false, schedules: 2 });
    expect(explore({ ...lost, bound: { preemptions: 1 } }).violation).toBeDefined();
  });

  test("of a thread that throws, that does not end, and of threads that sleep for ever", () => {
    const check = (): void => undefined;
    const thrower = body((words) => {
      if (words[0] === 1) throw new RangeError("out");
    });
    const writer = body((words) => void words.set([1], 0));
    expect(explore({ setup, threads: [thrower, writer], check }).violation?.message).toBe(
      "thread a threw RangeError: out",
    );
    const spinner = body((words) => {
      while (words[0] === 0);
    });
    const endless = explore({ setup, threads: [spinner, writer], check, maxAccesses: 20 });
    expect(endless.violation?.message).toBe("thread a did not end within 20 accesses");
    const sleeper = body((words) => Atomics.wait(words, 0, 0));
    const early = body((words) => {
      Atomics.notify(words, 0);
      words[0] = 1;
    });
    const deadlock = explore({ setup, threads: [sleeper, early], check }).violation;
    expect(deadlock?.message).toBe("deadlock: thread a sleeps at @0 and nobody will wake it");
    expect(replaySchedule({ setup, threads: [sleeper, early], check }, deadlock?.schedule ?? "").violation).toEqual(
      deadlock,
    );
  });
});

describe("waits", () => {
  const waker = body((words) => {
    Atomics.store(words, 0, 1);
    return Atomics.notify(words, 0);
  });

  test("are over at once when the word differs, or when notified", () => {
    const waiter = body((words) => Atomics.wait(words, 0, 0, 1000));
    expect(outcomes([waiter, waker], "sc")).toEqual(['["not-equal",0]', '["ok",1]']);
    expect(outcomes([waiter, waker], "tso", { timeouts: true })).toEqual([
      '["not-equal",0]',
      '["ok",1]',
      '["timed-out",0]',
    ]);
  });

  test("wake the first in line when one is to be woken", () => {
    const waiter = body((words) => Atomics.wait(words, 0, 0));
    const one = body((words) => {
      Atomics.store(words, 0, 1);
      return Atomics.notify(words, 0, 1) + Atomics.notify(words, 0, 1);
    });
    expect(outcomes([waiter, waiter, one], "sc")).toEqual([
      '["not-equal","not-equal",0]',
      '["not-equal","ok",1]',
      '["ok","not-equal",1]',
      '["ok","ok",2]',
    ]);
  });

  test("of waitAsync go on while nobody awaits them, and run what was chained", () => {
    const waiter = body((words, thread) => {
      const wait = Atomics.waitAsync(words, 0, 0);
      if (!wait.async) return wait.value;
      const log: unknown[] = [];
      const chained = wait.value.then((value: unknown) => log.push(value));
      log.push(words[1]);
      thread.await(chained);
      return log;
    });
    const late = body((words) => {
      words[1] = 5;
      return (waker as (shared: Memory) => unknown)({ memory: words.buffer as SharedArrayBuffer });
    });
    expect(outcomes([waiter, late], "sc")).toEqual(['["not-equal",0]', '[[0,"ok"],1]', '[[5,"ok"],1]']);
  });
});

describe("bulk methods, classes and 64-bit words", () => {
  test("are stepped through, word by word", () => {
    const writer: Body = ({ memory }) => {
      const bytes = new Uint8Array(memory);
      bytes.fill(7, 0, 4);
      bytes.set([1, 2], 1);
      bytes.copyWithin(8, 0, 4);
      new BigUint64Array(memory)[2] = 2n ** 63n;
      new Float32Array(memory)[6] = 1.5;
    };
    const reader: Body = ({ memory }) => [...new Uint8Array(memory).subarray(8, 12).slice()];
    const seen = new Set<string>();
    const result = explore({
      setup,
      threads: [writer, reader],
      check: ({ shared, results }) => {
        seen.add(String(results[1]));
        if (new BigUint64Array(shared.memory)[2] !== 2n ** 63n) throw new Error("64 bits were lost");
        if (new Float32Array(shared.memory)[6] !== 1.5) throw new Error("a float was lost");
      },
    });
    expect(result).toMatchObject({ complete: true });
    expect(result.violation).toBeUndefined();
    expect([...seen]).toEqual(expect.arrayContaining(["0,0,0,0", "7,0,0,0", "7,1,0,0", "7,1,2,0", "7,1,2,7"]));
  });
});
