import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { counter } from "../../src/sim/counter-model.ts";
import { History, pairCalls } from "../../src/sim/history.ts";
import type { Call, HistoryEntry } from "../../src/sim/history-types.ts";
import { linearizable } from "../../src/sim/linearizability.ts";
import { defineModel, type Model } from "../../src/sim/model.ts";
import { keyValue, register } from "../../src/sim/register-model.ts";
import { below, hasOrder, record, type Shape, type TrueObject, trueCounter, trueRegister } from "./histories.ts";

/** One line a process; `[` begins the next operation of the line, `]` ends it, `?` ends it as info, `x` as fail. */
type Drawing = readonly (readonly [
  line: string,
  ...operations: readonly [f: string, value: unknown, answer?: unknown][],
])[];

/** A history from a drawing: columns are time. */
function draw(...lines: Drawing): History {
  const history = new History();
  const width = Math.max(...lines.map(([line]) => line.length));
  const left = lines.map(([, ...operations]) => [...operations]);
  const answers: unknown[] = [];
  for (let column = 0; column < width; column++)
    for (const [process, [line]] of lines.entries()) {
      const mark = line[column];
      if (mark === "[") {
        const [f = "", value, answer] = left[process]?.shift() ?? [];
        history.invoke(process, f, value);
        answers[process] = answer;
      } else if (mark === "]") history.ok(process, answers[process]);
      else if (mark === "?") history.info(process, "ERR_TIMEOUT");
      else if (mark === "x") history.fail(process, "ERR_UNAVAILABLE");
    }
  return history;
}

const write = (value: unknown): [string, unknown] => ["write", value];
const read = (answer: unknown): [string, unknown, unknown] => ["read", null, answer];
const cas = (from: unknown, to: unknown, answer: unknown = true): [string, unknown, unknown] => [
  "cas",
  [from, to],
  answer,
];
const enqueue = (value: unknown): [string, unknown] => ["enqueue", value];
const dequeue = (answer: unknown): [string, unknown, unknown] => ["dequeue", null, answer];

/** The FIFO queue of Herlihy and Wing. */
const queue: Model = defineModel<readonly unknown[]>({
  name: "queue",
  initial: [],
  step(items, f, input, output) {
    if (f === "enqueue") return [...items, input];
    if (items.length === 0 || (output !== undefined && items[0] !== output)) return undefined;
    return items.slice(1);
  },
});

describe("histories of the literature", () => {
  it.each<[string, boolean, Drawing]>([
    // Herlihy and Wing 1990, figure 1: A and B are processes 0 and 1.
    [
      "q1: enqueues overlap, so y may come first",
      true,
      [
        ["[  ] [ ]   [ ]", enqueue("x"), dequeue("y"), enqueue("z")],
        [" [   ]   [ ]", enqueue("y"), dequeue("x")],
      ],
    ],
    [
      "q2: x was in the queue before y",
      false,
      [
        ["[ ]     [  ]", enqueue("x"), dequeue("y")],
        ["    [ ]", enqueue("y")],
      ],
    ],
    [
      "q3: x is taken while it is put",
      true,
      [
        ["[    ]", enqueue("x")],
        ["  [ ]", dequeue("x")],
      ],
    ],
    [
      "q4: y is taken twice",
      false,
      [
        ["[  ] [ ]", enqueue("x"), dequeue("y")],
        [" [  ]  [ ]", enqueue("y"), dequeue("y")],
      ],
    ],
    [
      "an enqueue without an answer may have happened",
      true,
      [
        ["[   ?", enqueue("x")],
        ["      [ ]", dequeue("x")],
      ],
    ],
    [
      "but it may not happen twice",
      false,
      [
        ["[   ?", enqueue("x")],
        ["      [ ] [ ]", dequeue("x"), dequeue("x")],
      ],
    ],
  ])("queue %s", (_, expected, drawing) => {
    expect(linearizable(draw(...drawing), queue).valid).toBe(expected);
  });

  it.each<[string, boolean, Drawing]>([
    // Herlihy and Wing 1990, figure 2.
    [
      "r1: reads overlap the write in both ways",
      true,
      [
        ["[ ]  [ ]   [  ]", write(0), read(0), write(0)],
        ["  [        ]  [ ]", write(1), read(0)],
      ],
    ],
    [
      "r2: once the new value was read, the old one is gone",
      false,
      [
        ["[ ] [     ]", write(0), write(1)],
        ["     [ ]", read(1)],
        ["          [ ]", read(0)],
      ],
    ],
    // The examples of Porcupine's README, from the quiz of MIT 6.824 of 2017.
    [
      "get 100 and get 0 while 100 is put",
      true,
      [
        ["[        ]", write(100)],
        ["  [    ]", read(100)],
        ["   [ ]", read(0)],
      ],
    ],
    [
      "get 0 after get 200 while 200 is put",
      false,
      [
        ["[            ]", write(200)],
        [" [ ]", read(200)],
        ["      [ ]", read(0)],
      ],
    ],
    [
      "operations without duration",
      true,
      [
        ["[       ]", write(100)],
        [" [   ]", read(100)],
        ["  []", read(0)],
        ["  []", read(0)],
      ],
    ],
    // Kingsbury, "Strong consistency models": a read of a write that is not over, and one that goes back.
    ["a stale read long after", false, [["[ ] [ ] [ ]", write(1), write(2), read(1)]]],
    [
      "two writes overlap: either order",
      true,
      [
        ["[   ]  [ ]", write(1), read(2)],
        [" [   ] [ ]", write(2), read(2)],
      ],
    ],
    [
      "but one order for all",
      false,
      [
        ["[   ]  [ ]", write(1), read(2)],
        [" [   ]    [ ]", write(2), read(1)],
      ],
    ],
    ["an info write may take effect much later", true, [["[?  [ ]  [ ]", write(1), read(0), read(1)]]],
    ["but not twice", false, [["[?  [ ] [ ] [ ]", write(1), read(1), write(2), read(1)]]],
    ["a failed write is never read", false, [["[x [ ]", write(1), read(1)]]],
    ["a failed write is no obstacle", true, [["[x [ ]", write(1), read(0)]]],
    ["a value that nobody wrote", false, [["[ ]", read(7)]]],
    [
      "compare and set takes one winner",
      false,
      [
        ["[  ]", cas(0, 1)],
        [" [  ]", cas(0, 2)],
      ],
    ],
    [
      "the loser says so",
      true,
      [
        ["[  ]    [ ]", cas(0, 1), read(1)],
        [" [  ]", cas(0, 2, false)],
      ],
    ],
    ["a comparison that fails for no reason", false, [["[ ] [ ]", write(3), cas(3, 4, false)]]],
    ["a read of what is written later", false, [["[ ] [ ]", read(1), write(1)]]],
    ["a read of what may be written later", false, [["[ ] [?", read(1), write(1)]]],
    ["an info write of the value that was there first", true, [["[?  [ ] [ ]", write(0), write(1), read(0)]]],
    [
      "an info write of the value that was there first need not have happened",
      true,
      [["[?  [ ] [ ] [ ]", write(0), read(0), write(1), read(0)]],
    ],
    ["nothing", true, [[""]]],
  ])("register %s", (_, expected, drawing) => {
    const history = draw(...drawing);
    expect(linearizable(history, register(0)).valid).toBe(expected);
    expect(hasOrder(history.calls(), { ...trueRegister(9), initial: 0 })).toBe(expected);
  });
});

/** Whether there is an order of `calls` and some of the others; what is info among them may happen later anyway. */
function someChoice(calls: readonly Call[], others: readonly Call[], object: TrueObject): boolean {
  const inTime = (chosen: readonly Call[]): Call[] => [...chosen].sort((a, b) => a.invoke.index - b.invoke.index);
  const [first, ...rest] = others;
  if (first === undefined) return hasOrder(inTime(calls), object);
  if (someChoice([...calls, first], rest, object)) return true;
  return first.outcome === "ok" && someChoice(calls, rest, object);
}

/** Checks the verdict against the oracle, and what the explanation claims. */
function judge(history: History, model: Model, object: TrueObject): boolean {
  const expected = hasOrder(history.calls(), object);
  const result = linearizable(history, model);
  expect(result.verdict).toBe(expected ? "linearizable" : "not linearizable");
  expect(result.violations).toHaveLength(expected ? 0 : 1);
  for (const { entries, prefix, minimal, operation } of result.violations) {
    // What is shown is wrong whatever the others did, and none of it can be spared.
    expect(minimal).toBe(true);
    expect(pairCalls(entries)).toContainEqual(operation);
    const happened = history.filter(({ outcome }) => outcome !== "fail");
    const upTo = (index: number): Call[] => pairCalls(happened.filter((entry) => entry.index <= index));
    const before = upTo(prefix);
    const isShown = (call: Call): boolean => entries.some(({ index }) => index === call.invoke.index);
    const free = before.filter((call) => !isShown(call));
    const shown = before.filter(isShown);
    expect(someChoice(shown, free, object)).toBe(false);
    for (const one of shown.filter(({ completion }) => completion?.index !== prefix))
      expect(
        someChoice(
          shown.filter((call) => call !== one),
          [...free, one],
          object,
        ),
      ).toBe(true);
    // The prefix is the longest: up to the answer there is an order, with it there is none.
    expect(hasOrder(upTo(prefix - 1), object)).toBe(true);
    expect(hasOrder(before, object)).toBe(false);
  }
  return expected;
}

const RUNS = 1500;
const small: Shape = { processes: 3, operations: 7, info: 0.25 };

describe("against all orders", () => {
  it.each<[string, Model, TrueObject]>([
    ["a register with 2 values", register(), trueRegister(2)],
    ["a register with 50 values", register(), trueRegister(50)],
    ["a counter", counter(), trueCounter],
    ["a register written as a function", functionRegister(), trueRegister(3)],
  ])("%s: what a real object answered is linearizable, and lies are judged alike", (_, model, object) => {
    const verdicts: [number, number] = [0, 0];
    fc.assert(
      fc.property(fc.nat(2 ** 31 - 1), fc.constantFrom(2, 3, 4), (seed, processes) => {
        const random = createSeededRandom(seed);
        const honest = record(random, object, { ...small, processes });
        expect(judge(honest, model, object)).toBe(true);
        const isValid = judge(record(random, object, { ...small, processes, lies: 0.4 }), model, object);
        verdicts[isValid ? 0 : 1] += 1;
      }),
      { numRuns: RUNS },
    );
    // Otherwise the test says little.
    expect(Math.min(...verdicts)).toBeGreaterThan(RUNS / 10);
  });

  it("a history by key is linearizable exactly when that of every key is", () => {
    const object = trueRegister(2);
    fc.assert(
      fc.property(fc.nat(2 ** 31 - 1), (seed) => {
        const random = createSeededRandom(seed);
        const parts = ["a", { b: 1 }].map((key) => ({
          key,
          history: record(random, object, { ...small, operations: 5, lies: 0.2 }),
        }));
        const expected = parts.map(({ history }) => hasOrder(history.calls(), object));
        const result = linearizable(interleave(random, parts), keyValue());
        expect(result.valid).toBe(expected.every((verdict) => verdict));
        expect(result.violations).toHaveLength(expected.filter((verdict) => !verdict).length);
      }),
      { numRuns: 1000 },
    );
  });
});

function functionRegister(): Model {
  const object = trueRegister(3);
  return defineModel<unknown>({
    name: "register",
    initial: null,
    observers: ["read"],
    step(state, f, input, output) {
      const result = object.apply(state, f, input);
      if (result === "refused") return output === false ? state : undefined;
      return output === undefined || output === result.answer ? result.state : undefined;
    },
  });
}

/** One history of all keys, each with processes of its own. */
function interleave(
  random: ReturnType<typeof createSeededRandom>,
  parts: { key: unknown; history: History }[],
): HistoryEntry[] {
  const queues = parts.map(({ key, history }, part) =>
    history.entries.map((entry) => ({
      ...entry,
      process: entry.process * parts.length + part,
      value: [key, entry.value],
    })),
  );
  const entries: HistoryEntry[] = [];
  while (queues.some((queue) => queue.length > 0)) {
    const entry = queues[below(random, queues.length)]?.shift();
    if (entry !== undefined) entries.push({ ...entry, index: entries.length, time: entries.length });
  }
  return entries;
}

describe("the model of a history without one", () => {
  it.each<[string, string, string, Drawing]>([
    [
      "reads of pairs",
      "key-value store",
      "linearizable",
      [["[ ] [ ]", write(["x", 1]), ["read", ["x", null], ["x", 1]]]],
    ],
    ["plain reads, though it writes pairs", "register", "linearizable", [["[ ] [ ]", write(["x", 1]), read(["x", 1])]]],
    ["keyed cas", "key-value store", "linearizable", [["[ ]", ["cas", ["x", [null, 2]], null]]]],
    ["plain cas", "register", "linearizable", [["[ ]", cas(null, 2)]]],
    ["writes of pairs alone", "key-value store", "linearizable", [["[ ] [ ]", write(["x", 1]), write(["y", 1])]]],
    [
      "keys apart",
      "key-value store",
      "linearizable",
      [["[ ] [ ]", write(["x", 1]), ["read", ["y", null], ["y", null]]]],
    ],
    [
      "keyed cas that answers false",
      "key-value store",
      "not linearizable",
      [["[ ]", ["cas", ["x", [null, 2]], ["x", false]]]],
    ],
    ["nothing", "key-value store", "linearizable", [["[ ]", ["read", ["x", null], ["x", null]]]]],
  ])("%s: %s", (_, model, verdict, drawing) => {
    expect(linearizable(draw(...drawing))).toMatchObject({ model, verdict, valid: verdict === "linearizable" });
  });

  it.each<[string, RegExp, Drawing, Model?]>([
    ["another operation", /infer model as f at index 0 must be read, write or cas.*"enqueue"/, [["[ ]", enqueue(1)]]],
    ["reads of both kinds", /infer model as value of reads/, [["[ ] [ ]", read(1), ["read", ["x", null], 1]]]],
    [
      "an answer for another key",
      /answer of read at index 1 must be a pair/,
      [["[ ]", ["read", ["x", null], ["y", 1]]]],
    ],
    [
      "an answer without its key",
      /answer of read at index 1 must be a pair.*found 7/,
      [["[ ]", ["read", ["x", null], 7]]],
    ],
    [
      "a cas of one value",
      /value of cas at index 0 must be \[from, to\] \(found \[1\]\)/,
      [["[ ]", ["cas", [1], null]]],
    ],
    ["a counter that answers text", /answer of read at index 1 must be an integer/, [["[ ]", read("x")]], counter()],
    [
      "a counter that adds halves",
      /value of add at index 0 must be an integer/,
      [["[ ]", ["add", 0.5, null]]],
      counter(),
    ],
    [
      "a counter that overflows",
      /sum of all steps must be less than 2\^30/,
      [["[ ]", ["add", 2 ** 30, null]]],
      counter(),
    ],
    ["a register that is added to", /f at index 0 must be read, write or cas/, [["[ ]", ["add", 1, null]]], register()],
  ])("refused: %s", (_, message, drawing, model) => {
    const check = (): unknown => linearizable(draw(...drawing), model);
    expect(check).toThrow(message);
    expect(check).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
  });
});

describe("the result", () => {
  const stale = draw(["[ ] [ ] [ ]", write(["x", 1]), write(["x", 2]), ["read", ["x", null], ["x", 1]]]);

  it("asserts: silently when valid, else with an error that tells the story", () => {
    linearizable(draw(["[ ]", write(1)])).assert();
    const result = linearizable(stale);
    expect(result).toMatchObject({ verdict: "not linearizable", valid: false, operations: 3, parts: 1 });
    expect(() => result.assert()).toThrow(
      expect.objectContaining({
        code: "ERR_VIOLATION",
        message:
          'key "x": no order explains read → 1 by process 0 (index 4 to 5). The 2 operations answered before have an order ' +
          "(one leaves the key-value store at 2). 1 is from write 1 by process 0 (index 0 to 1). " +
          "Whatever all others did, these cannot be ordered:\n" +
          "  write 2 by process 0 (index 2 to 3)\n  read → 1 by process 0 (index 4 to 5)",
      }),
    );
  });

  it("says where a value is from, or that nobody wrote it, and shows failed writes", () => {
    const messageOf = (...drawing: Drawing): string | undefined =>
      linearizable(draw(...drawing)).violations[0]?.message;
    expect(messageOf(["[ ]", read(7)])).toContain("Nobody wrote 7.");
    expect(messageOf(["[x [ ]", write(1), read(1)])).toContain("1 is from write 1 by process 0 (index 0 to 1, fail).");
  });

  it("is undecided at the limit of states: neither valid nor a violation of the rule", () => {
    const history = record(createSeededRandom(1), trueRegister(3), { processes: 6, operations: 100 });
    const result = linearizable(history, register(), { maxStates: 10 });
    expect(result).toMatchObject({ verdict: "undecided", valid: false, states: 11 });
    expect(result.violations).toMatchObject([{ undecided: true, entries: [], minimal: false }]);
    expect(() => result.assert()).toThrow(/is undecided: 11 states were visited/);
    expect(linearizable(history, register()).valid).toBe(true);
  });

  it("is a violation, not undecided, when one key is wrong and another undecided", () => {
    const random = createSeededRandom(2);
    const good = record(random, trueRegister(3), { processes: 6, operations: 100 });
    const wrong = draw(["[ ]", read(7)]);
    const both = interleave(random, [
      { key: "good", history: good },
      { key: "wrong", history: wrong },
    ]);
    const result = linearizable(both, keyValue(), { maxStates: 10 });
    expect(result).toMatchObject({ verdict: "not linearizable", parts: 2 });
    expect(() => result.assert()).toThrow(/key "wrong".*\n.*\nand 1 other parts/);
  });

  it.each([0, -1, 1.5, Number.NaN, "many"])("refuses maxStates %s", (maxStates) => {
    expect(() => linearizable(stale, undefined, { maxStates: maxStates as number })).toThrow(/maxStates must be/);
  });
});

describe("size", () => {
  const clients = 10;
  const perClient = 1000;

  /** A history that keeps `clients` busy, with values of their own unless `values` is given. */
  function busy(seed: number, object: TrueObject, info = 0, lies = 0): History {
    return record(createSeededRandom(seed), object, {
      processes: clients,
      operations: clients * perClient,
      info,
      lies,
    });
  }

  it.each<[string, Model, TrueObject, number, number]>([
    ["few values", register(), trueRegister(5), 0, 4],
    ["many values", register(), trueRegister(1e9), 0, 4],
    ["few values, a tenth in doubt", register(), trueRegister(5), 0.1, 20],
    ["a counter, 50 in doubt", counter(), trueCounter, 0.005, 40],
  ])("D6: 10 clients × 1,000 operations on one key, %s: few states an operation", (_, model, object, info, most) => {
    const history = busy(42, object, info);
    const result = linearizable(history, model);
    expect(result).toMatchObject({
      verdict: "linearizable",
      operations: history.calls().filter(({ outcome }) => outcome !== "fail").length,
    });
    expect(result.states).toBeGreaterThan((clients * perClient) / 4);
    expect(result.states).toBeLessThan(most * clients * perClient);
  });

  it("D6: is decided in seconds on any machine, and every planted lie is found", () => {
    const began = performance.now();
    linearizable(busy(7, trueRegister(5)), register()).assert();
    expect(performance.now() - began).toBeLessThan(10_000);
    for (const seed of [1, 2, 3]) {
      const entries = [...busy(seed, trueRegister(1e9)).entries];
      // A read of the middle answers what was read long before.
      const reads = entries.filter(({ type, f, value }) => type === "ok" && f === "read" && value !== null);
      const [old, late] = [reads[100], reads[Math.floor(reads.length / 2)]] as [HistoryEntry, HistoryEntry];
      entries[late.index] = { ...late, value: old.value };
      const [violation] = linearizable(entries, register()).violations;
      expect(violation?.entries.length).toBeLessThan(20);
      expect(violation?.operation?.completion?.index ?? 0).toBeLessThanOrEqual(late.index);
    }
  });

  it("does not overflow the stack: 200,000 operations one after the other, and 3,000 at once", () => {
    const long = new History();
    for (let i = 0; i < 200_000; i++) {
      long.invoke(0, i % 2 === 0 ? "write" : "read", i % 2 === 0 ? i : null);
      long.ok(0, i % 2 === 0 ? null : i - 1);
    }
    expect(linearizable(long)).toMatchObject({ verdict: "linearizable", states: 100_000 });
    const wide = new History();
    for (let process = 0; process < 3000; process++) wide.invoke(process, "write", process);
    for (let process = 0; process < 3000; process++) wide.ok(process);
    expect(linearizable(wide)).toMatchObject({ verdict: "linearizable", states: 3000 });
  });
});
