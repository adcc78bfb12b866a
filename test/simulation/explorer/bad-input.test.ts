/** What the explorer refuses: options out of range, and bodies that it could only judge wrongly. */
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../../src/errors.ts";
import { explore, replaySchedule } from "../../../src/sim/explorer/explore.ts";

interface Memory {
  readonly memory: SharedArrayBuffer;
}

const setup = (): Memory => ({ memory: new SharedArrayBuffer(8) });
const check = (): void => undefined;
const idle = (): void => undefined;
const good = { setup, check, threads: [idle] };

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(ShardloomError.is(error) && error.code).toBe("ERR_INVALID_ARGUMENT");
    return (error as Error).message;
  }
  throw new Error("nothing was refused");
}

describe("options", () => {
  test.each<[string, object]>([
    ["setup must be a function", { setup: 1 }],
    ["check must be a function", { check: undefined }],
    ["threads must be an array of 1 to 8 functions", { threads: [] }],
    ["threads must be an array of 1 to 8 functions", { threads: Array.from({ length: 9 }, () => idle) }],
    ["threads must be an array of 1 to 8 functions", { threads: undefined }],
    ["threads must be functions", { threads: [idle, 3] }],
    ["threads must be synchronous functions", { threads: [async () => undefined] }],
    ['memory must be "sc" or "tso"', { memory: "arm" }],
    ["timeouts must be a boolean", { timeouts: 1 }],
    ["maxAccesses must be an integer, at least 1", { maxAccesses: 0 }],
    ["bound.preemptions must be an integer, at least 0", { bound: { preemptions: -1 } }],
    ["bound.schedules must be an integer, at least 1", { bound: { schedules: 0 } }],
    ["bound.schedules must be an integer, at least 1", { bound: { schedules: Number.NaN } }],
    ['strategy must be "exhaustive" or { pct }', { strategy: "random" }],
    ["strategy.pct.depth must be an integer, at least 1", { strategy: { pct: { depth: 0, seed: 1, schedules: 1 } } }],
    ["strategy.pct.schedules must be an integer", { strategy: { pct: { depth: 1, seed: 1, schedules: 0.5 } } }],
    ["strategy.pct.seed must be an integer", { strategy: { pct: { depth: 1, seed: "x", schedules: 1 } } }],
  ])("%s", (rule, wrong) => {
    expect(refusal(() => explore({ ...good, ...wrong }))).toContain(`Cannot explore schedules as ${rule}`);
  });

  test.each(["", "sc", "arm:a", "sc:c", "sc:a-1", "sc:é", "tso:A", "sc:a2", "sc:a!"])(
    "no program follows %j",
    (text) => {
      const threads = [({ memory }: Memory) => new Int32Array(memory)[0], idle];
      expect(refusal(() => replaySchedule({ setup, threads, check }, text))).toContain(
        "Cannot replay schedule as schedule",
      );
    },
  );
});

describe("bodies", () => {
  test.each<[string, () => unknown]>([
    ["Date", () => Date.now()],
    ["Date", () => new Date()],
    ["performance", () => performance.now()],
    ["Math.random", () => Math.random()],
    ["crypto", () => crypto.getRandomValues(new Uint8Array(1))],
    ["setTimeout", () => setTimeout(idle, 0)],
  ])("that use %s are refused, also when they hide it", (name, act) => {
    const hidden = (): void => {
      try {
        act();
      } catch {
        // what a careless piece of code might do
      }
    };
    for (const thread of [act, hidden])
      expect(refusal(() => explore({ ...good, threads: [thread] }))).toContain(`a body that uses ${name}`);
    expect(typeof Date.now() + typeof Math.random() + typeof performance.now()).toBe("numbernumbernumber");
  });

  test("that touch shared memory through views of setup are refused", () => {
    const withView = (): Memory & { words: Int32Array } => {
      const memory = new SharedArrayBuffer(8);
      return { memory, words: new Int32Array(memory) };
    };
    const writes = ({ memory, words }: ReturnType<typeof withView>): void => {
      new Int32Array(memory)[0] = 1;
      words[1] = 1;
    };
    expect(refusal(() => explore({ setup: withView, check, threads: [writes] }))).toContain("writes past the explorer");
    const reads = ({ memory, words }: ReturnType<typeof withView>): void => {
      new Int32Array(memory)[0] = 1;
      if (words[1] !== 0) new Int32Array(memory)[1] = 1;
    };
    expect(refusal(() => explore({ setup: withView, check, threads: [reads] }))).toContain("differs at access 1");
    const atomic = ({ words }: ReturnType<typeof withView>): number => Atomics.add(words, 0, 1);
    expect(explore({ setup: withView, check, threads: [atomic] }).violation?.message).toContain(
      "a view of shared memory must be made inside a thread's body",
    );
  });

  test("that remember something between runs are refused", () => {
    let runs = 0;
    const threads = [({ memory }: Memory) => void new Int32Array(memory).set([++runs])];
    expect(refusal(() => explore({ ...good, threads }))).toContain("a body that differs at access 0");
  });

  test("that swallow the error by which they are left are refused", () => {
    const swallows = ({ memory }: Memory): void => {
      try {
        Atomics.wait(new Int32Array(memory), 0, 0);
      } catch {
        // and goes on as if nothing had happened
      }
    };
    expect(refusal(() => explore({ ...good, threads: [swallows] }))).toContain("code that lets unknown errors pass");
  });

  test("that see a NaN, whose bits would be lost, or use a DataView are refused", () => {
    const nan = (): Memory => {
      const memory = new SharedArrayBuffer(8);
      new Float64Array(memory)[0] = Number.NaN;
      return { memory };
    };
    const reads = ({ memory }: Memory): unknown => new Float64Array(memory)[0];
    expect(refusal(() => explore({ setup: nan, check, threads: [reads] }))).toContain("the bits of a NaN");
    const views = ({ memory }: Memory): unknown => new DataView(memory);
    expect(explore({ ...good, threads: [views] }).violation?.message).toContain("a view must be a typed array");
  });

  test("leave the globals as they were, whatever happens", () => {
    const before = [Atomics, Int32Array, SharedArrayBuffer, Date, performance, Math.random];
    expect(() => explore({ ...good, threads: [() => Date.now()] })).toThrow();
    explore({
      ...good,
      threads: [
        () => {
          throw new Error("no");
        },
      ],
    });
    expect([Atomics, Int32Array, SharedArrayBuffer, Date, performance, Math.random]).toEqual(before);
  });
});
