import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { entriesOf, History, pairCalls, parseHistory, toJsonLines } from "../../src/sim/history.ts";
import type { HistoryEntry } from "../../src/sim/history-types.ts";
import { canonicalJson, copyPlain, MAX_DEPTH } from "../../src/sim/plain-json.ts";

/** What a call throws; fails when it throws nothing. */
function thrownBy(call: () => unknown): ShardloomError {
  try {
    call();
  } catch (error) {
    expect(ShardloomError.is(error)).toBe(true);
    return error as ShardloomError;
  }
  throw new Error("nothing was thrown");
}

function sample(): History {
  let now = 0;
  const history = new History(() => (now += 1000));
  history.invoke(0, "write", ["x", 1]);
  history.invoke(1, "read", ["x", null]);
  history.ok(0);
  history.info(1, "ERR_TIMEOUT");
  history.invoke(1, "cas", ["x", [1, 2]]);
  history.fail(1, "ERR_UNAVAILABLE");
  history.invoke(2, "read", ["y", null]);
  return history;
}

describe("History", () => {
  it("records entries of Jepsen's shape, the value of the invocation again in fail and info", () => {
    expect(sample().entries).toEqual([
      { type: "invoke", f: "write", process: 0, time: 1000, index: 0, value: ["x", 1] },
      { type: "invoke", f: "read", process: 1, time: 2000, index: 1, value: ["x", null] },
      { type: "ok", f: "write", process: 0, time: 3000, index: 2, value: null },
      { type: "info", f: "read", process: 1, time: 4000, index: 3, value: ["x", null], error: "ERR_TIMEOUT" },
      { type: "invoke", f: "cas", process: 1, time: 5000, index: 4, value: ["x", [1, 2]] },
      { type: "fail", f: "cas", process: 1, time: 6000, index: 5, value: ["x", [1, 2]], error: "ERR_UNAVAILABLE" },
      { type: "invoke", f: "read", process: 2, time: 7000, index: 6, value: ["y", null] },
    ]);
  });

  it("writes one JSON object a line, members in a fixed order", () => {
    expect(sample().toJsonLines().split("\n")[3]).toBe(
      '{"type":"info","f":"read","process":1,"time":4000,"index":3,"value":["x",null],"error":"ERR_TIMEOUT"}',
    );
  });

  it("keeps copies: what the caller changes later is not in the history", () => {
    const history = new History();
    const list = [1, { a: [2] }];
    history.invoke(0, "append", list);
    (list[1] as { a: number[] }).a.push(3);
    history.ok(0, list);
    expect(history.entries.map(({ value }) => value)).toEqual([
      [1, { a: [2] }],
      [1, { a: [2, 3] }],
    ]);
    expect(() => Object.assign(history.entries[0] as object, { f: "x" })).toThrow(TypeError);
  });

  it("has times without a clock that keep the order", () => {
    const history = new History();
    history.invoke(3, "read");
    history.ok(3, 1);
    expect(history.entries.map(({ time }) => time)).toEqual([0, 1]);
  });

  it("tells what is open, in the order of invocation", () => {
    const history = sample();
    expect(history.open.map(({ index }) => index)).toEqual([6]);
    history.invoke(9, "read");
    history.ok(2, ["y", 1]);
    expect(history.open.map(({ process }) => process)).toEqual([9]);
    expect(history.length).toBe(9);
  });

  it("pairs every operation with its end; what is open counts as info", () => {
    const ends = sample()
      .calls()
      .map(({ invoke, completion, outcome }) => [invoke.index, completion?.index, outcome]);
    expect(ends).toEqual([
      [0, 2, "ok"],
      [1, 3, "info"],
      [4, 5, "fail"],
      [6, undefined, "info"],
    ]);
  });

  it("filters whole operations and leaves indices as they are; what is left can be paired", () => {
    const kept = sample().filter(({ invoke }) => invoke.process !== 0);
    expect(kept.map(({ index }) => index)).toEqual([1, 3, 4, 5, 6]);
    expect(pairCalls(kept)).toHaveLength(3);
    expect(entriesOf(sample().calls())).toEqual(sample().entries);
  });
});

describe("misuse of a History", () => {
  it.each<[string, RegExp, (history: History) => unknown]>([
    [
      "a second operation",
      /invoke as process must be idle \(read is open since index 6\).* 2$/,
      (h) => h.invoke(2, "write"),
    ],
    ["an answer without a question", /ok as process must be one with an open.* 7$/, (h) => h.ok(7)],
    ["a failure without a question", /fail as process/, (h) => h.fail(1, "ERR_TIMEOUT")],
    ["a second end", /info as process/, (h) => h.ok(2) && h.info(2, "ERR_TIMEOUT")],
    ["a process that is no count", /process must be an integer of at least 0.* -1$/, (h) => h.invoke(-1, "read")],
    ["a fraction of a process", /process must be an integer/, (h) => h.invoke(0.5, "read")],
    ["an operation without a name", /f must be a name/, (h) => h.invoke(0, "")],
    ["an info without a code", /error must be a code/, (h) => h.info(2, "")],
    [
      "a function as value",
      /value must be plain JSON \(found .* at \.a\[1\]\)/,
      (h) => h.invoke(0, "f", { a: [1, () => 1] }),
    ],
    ["NaN as answer", /ok as value must be plain JSON \(found NaN at the top\)/, (h) => h.ok(2, Number.NaN)],
  ])("%s", (_, message, misuse) => {
    const history = sample();
    const error = thrownBy(() => misuse(history));
    expect(error).toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    expect(error.message).toMatch(message);
  });

  it("refused entries leave nothing behind", () => {
    const history = sample();
    thrownBy(() => history.invoke(0, "write", 1n));
    thrownBy(() => history.ok(2, new Map()));
    expect(history.length).toBe(7);
    expect(history.open).toHaveLength(1);
    history.invoke(0, "write", 1);
    history.ok(2, null);
    expect(history.length).toBe(9);
  });

  it("a clock that goes back or has fractions", () => {
    const times = [5, 4, 5.5, 5];
    const history = new History(() => times.shift() as number);
    history.invoke(0, "read");
    expect(thrownBy(() => history.ok(0)).message).toMatch(/time must be an integer of at least 5 \(ns\).* 4$/);
    thrownBy(() => history.ok(0));
    expect(history.ok(0)).toMatchObject({ time: 5, index: 1 });
  });

  it("values that hold themselves, or are nested too deep", () => {
    const self: unknown[] = [];
    self.push(self);
    expect(thrownBy(() => new History().invoke(0, "f", self)).message).toContain(`more than ${MAX_DEPTH} levels`);
  });
});

const LINE = { type: "invoke", f: "read", process: 0, time: 5, index: 0, value: null };

describe("parseHistory", () => {
  it("reads what was written", () => {
    const back = parseHistory(sample().toJsonLines());
    expect(back.entries).toEqual(sample().entries);
    expect(back.open).toEqual(sample().open);
  });

  it("skips empty lines and goes on recording where the text ends", () => {
    const back = parseHistory(`\n${sample().toJsonLines().replaceAll("\n", "\r\n\n")}`);
    expect(back.ok(2, ["y", 3])).toMatchObject({ index: 7, time: 7001 });
    expect(parseHistory("").length).toBe(0);
  });

  it.each<[string, string, object]>([
    ["type", "invoke, ok, fail or info", { type: "done" }],
    ["f", "a name", { f: 3 }],
    ["process", "an integer of at least 0", { process: "nemesis" }],
    ["process", "one with an open operation", { type: "ok" }],
    ["time", "an integer of at least 0", { time: -1 }],
    ["time", "an integer of at least 0", { time: "5" }],
    ["index", "0, the number of entries before", { index: 1 }],
    ["value", "present", { value: undefined }],
    ["error", "text, of a fail or info", { error: "ERR_TIMEOUT" }],
    ["node", "absent", { node: "n1" }],
  ])("names line and field: %s must be %s", (field, rule, change) => {
    const text = `\n${JSON.stringify({ ...LINE, ...change })}`;
    const error = thrownBy(() => parseHistory(text));
    expect(error).toMatchObject({ code: "ERR_CORRUPT", details: { line: 2, field } });
    expect(error.message).toContain(`Cannot read history as ${field} on line 2 must be ${rule}`);
  });

  it.each<[string, object]>([
    ["time", { type: "ok", index: 1, time: 4 }],
    ["f", { type: "ok", index: 1, f: "write" }],
    ["process", { type: "invoke", index: 1 }],
    ["index", { type: "ok", index: 0 }],
  ])("compares a line with those before: %s", (field, change) => {
    const text = `${JSON.stringify(LINE)}\n${JSON.stringify({ ...LINE, ...change })}\n`;
    expect(thrownBy(() => parseHistory(text)).details).toEqual({ line: 2, field });
  });

  it("names the line of what is cut short or no object", () => {
    const text = sample().toJsonLines();
    const cut = thrownBy(() => parseHistory(text.slice(0, -9)));
    expect(cut).toMatchObject({ code: "ERR_CORRUPT", details: { line: 7 } });
    expect(thrownBy(() => parseHistory("[1]")).details).toEqual({ line: 1, field: "entry" });
    expect(thrownBy(() => parseHistory("null")).details).toEqual({ line: 1, field: "entry" });
    expect(thrownBy(() => parseHistory(7 as unknown as string)).code).toBe("ERR_INVALID_ARGUMENT");
  });

  it("refuses values that no JSON could hold when entries come from another thread", () => {
    const error = thrownBy(() => History.from([{ ...LINE, value: 1n }]));
    expect(error).toMatchObject({ code: "ERR_CORRUPT", details: { entry: 0, field: "value" } });
    expect(History.from(structuredClone([...sample()])).entries).toEqual(sample().entries);
  });

  it("gives back any history that was recorded", () => {
    const step = fc.record({
      process: fc.nat(3),
      end: fc.constantFrom("ok" as const, "fail" as const, "info" as const),
      f: fc.string({ minLength: 1 }),
      value: fc.jsonValue({ maxDepth: 3 }),
      wait: fc.nat(10 ** 9),
    });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        let now = 0;
        const history = new History(() => now);
        for (const { process, end, f, value, wait } of steps) {
          now += wait;
          const isOpen = history.open.some((entry) => entry.process === process);
          if (!isOpen) history.invoke(process, f, value);
          else if (end === "ok") history.ok(process, value);
          else history[end](process, f);
        }
        expect(parseHistory(history.toJsonLines()).entries).toEqual(history.entries);
        expect(toJsonLines(History.from(history))).toBe(history.toJsonLines());
      }),
    );
  });
});

describe("pairCalls", () => {
  it("refuses what has no entries, such as the whole result of a run", () => {
    const result = { history: [] } as unknown as [];
    expect(() => pairCalls(result)).toThrow(
      expect.objectContaining({
        code: "ERR_INVALID_ARGUMENT",
        message: expect.stringContaining("entries must be a History or the entries of one"),
      }),
    );
  });

  const entries = sample().entries as HistoryEntry[];

  it.each<[string, HistoryEntry[]]>([
    ["an end whose invocation was cut off", entries.slice(1)],
    ["entries out of order", [...entries].reverse()],
    ["an invocation twice", [entries[0] as HistoryEntry, { ...(entries[0] as HistoryEntry), index: 1 }]],
    ["an end of another operation", [entries[0] as HistoryEntry, { ...(entries[2] as HistoryEntry), f: "read" }]],
  ])("refuses %s", (_, wrong) => {
    expect(thrownBy(() => pairCalls(wrong)).code).toBe("ERR_CORRUPT");
  });
});

describe("plain values", () => {
  it("are copied as JSON would, without what JSON would lose silently", () => {
    expect(copyPlain(undefined)).toBe(null);
    expect(Object.is(copyPlain(-0), 0)).toBe(true);
    expect(copyPlain({ a: undefined, b: 1 })).toEqual({ b: 1 });
    expect(Object.keys(copyPlain({ a: undefined }) as object)).toEqual([]);
    const odd = JSON.parse('{"__proto__":{"x":1}}') as unknown;
    expect(JSON.stringify(copyPlain(odd))).toBe('{"__proto__":{"x":1}}');
    for (const wrong of [[1, undefined], new Uint8Array(1), new Date(0), Symbol("s"), [Number.POSITIVE_INFINITY]])
      expect(() => copyPlain(wrong)).toThrow();
  });

  it("have one canonical text: equal exactly when the values are", () => {
    const value = fc.jsonValue({ maxDepth: 3 });
    const turned = (item: unknown): unknown => {
      if (Array.isArray(item)) return item.map(turned);
      if (typeof item !== "object" || item === null) return item;
      return Object.fromEntries(
        Object.entries(item)
          .reverse()
          .map(([name, member]) => [name, turned(member)]),
      );
    };
    fc.assert(
      fc.property(value, value, (a, b) => {
        const [left, right] = [copyPlain(a), copyPlain(b)];
        expect(canonicalJson(turned(left))).toBe(canonicalJson(left));
        expect(JSON.parse(canonicalJson(left))).toEqual(left);
        expect(canonicalJson(left) === canonicalJson(right)).toBe(isSame(left, right));
      }),
    );
  });
});

function isSame(a: unknown, b: unknown): boolean {
  try {
    expect(a).toEqual(b);
    return true;
  } catch {
    return false; // toEqual says so by throwing
  }
}
