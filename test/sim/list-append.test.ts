import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { History } from "../../src/sim/history.ts";
import type { HistoryEntry } from "../../src/sim/history-types.ts";
import { type Anomaly, checkListAppend, MAX_REPORTED } from "../../src/sim/list-append.ts";
import { below } from "./histories.ts";

type MicroOp = ["append" | "r", string, unknown];

const append = (key: string, element: unknown): MicroOp => ["append", key, element];
const r = (key: string, ...list: unknown[]): MicroOp => ["r", key, list];

/** A transaction: what it did and read, when it began and ended (columns), and how. */
type Txn = readonly [begin: number, end: number, ops: readonly MicroOp[], outcome?: "ok" | "fail" | "info"];

/** The history of some transactions, each of a process of its own. */
function historyOf(...txns: readonly Txn[]): History {
  const history = new History();
  const asked = (ops: readonly MicroOp[]): MicroOp[] =>
    ops.map(([kind, key, value]) => [kind, key, kind === "r" ? null : value]);
  const events = txns.flatMap(([begin, end], process) => [
    { at: begin, process, isBegin: true },
    { at: end, process, isBegin: false },
  ]);
  events.sort((a, b) => a.at - b.at || a.process - b.process);
  for (const { process, isBegin } of events) {
    const [, , ops, outcome = "ok"] = txns[process] as Txn;
    if (isBegin) history.invoke(process, "txn", asked(ops));
    else if (outcome === "ok") history.ok(process, ops);
    else history[outcome](process, "ERR_ABORTED");
  }
  return history;
}

/** All at the same time: so that only what they read orders them. */
const together = (...ops: readonly (readonly MicroOp[])[]): History =>
  historyOf(...ops.map((list): Txn => [0, 1, list]));

describe("list-append anomalies", () => {
  it.each<[string, readonly Anomaly[], History, string]>([
    ["nothing wrong", [], together([append("x", 1)], [r("x", 1), append("x", 2)], [r("x", 1, 2), r("y")]), ""],
    [
      "G0: writes interleave",
      ["G0"],
      together([append("x", 1), append("y", 1)], [append("x", 2), append("y", 2)], [r("x", 1, 2), r("y", 2, 1)]),
      "T1 before T2: T2 appended",
    ],
    [
      "G1a: a read of what failed",
      ["G1a"],
      historyOf([0, 1, [append("x", 1)], "fail"], [0, 1, [r("x", 1)]]),
      'T1 read 1 in "x", which T2 appended and took back',
    ],
    [
      "G1a: and no cycle over what failed",
      ["G1a"],
      historyOf([0, 1, [append("x", 1), append("y", 1)], "fail"], [0, 1, [r("x", 1), r("y")]], [0, 1, [r("y", 1)]]),
      "which T2 appended and took back",
    ],
    [
      "incompatible order: a read that is no prefix proves no cycle",
      ["incompatible order"],
      historyOf([0, 9, [append("x", 1)]], [0, 1, [append("x", 2)]], [0, 9, [r("x", 1, 2)]], [2, 3, [r("x", 2)]]),
      'read "x" as [2]',
    ],
    [
      "G1b: a read in the middle",
      ["G1b", "G-single"],
      together([append("x", 1), append("x", 2)], [r("x", 1)], [r("x", 1, 2)]),
      "in the middle of T2",
    ],
    [
      "G1c: each reads the other",
      ["G1c"],
      together([append("x", 1), r("y", 1)], [append("y", 1), r("x", 1)]),
      "read the 1 that",
    ],
    [
      "G-single: half of a transaction",
      ["G-single"],
      together([append("x", 1), append("y", 1)], [r("x", 1), r("y")]),
      'read "y" without the 1 that',
    ],
    [
      "lost update: both after the same",
      ["lost update", "G-single"],
      together([append("x", 1)], [r("x", 1), append("x", 2)], [r("x", 1), append("x", 3)], [r("x", 1, 2, 3)]),
      'T1 and T2 read "x" up to 1, and appended to it',
    ],
    [
      "G2-item: write skew",
      ["G2-item"],
      together([r("x"), append("y", 1)], [r("y"), append("x", 1)], [r("x", 1), r("y", 1)]),
      "anti-dependencies",
    ],
    [
      "G2-item: nobody reads the appends",
      ["G2-item"],
      together([r("x"), append("y", 1)], [r("y"), append("x", 1)]),
      "anti-dependencies",
    ],
    [
      "G0-realtime: appended before what was there before",
      ["G0-realtime"],
      historyOf([0, 1, [append("x", 1)]], [2, 3, [append("x", 2)]], [0, 9, [r("x", 2, 1)]]),
      "it had ended (index",
    ],
    [
      "G1c-realtime: a read of the future",
      ["G1c-realtime"],
      historyOf([0, 1, [r("x", 1)]], [2, 3, [append("x", 1)]]),
      "T1 before T2",
    ],
    [
      "G-single-realtime: a stale read, of an append that others saw",
      ["G-single-realtime"],
      historyOf([0, 1, [append("x", 1)]], [2, 3, [r("x")]], [0, 9, [r("x", 1)]]),
      "stale read",
    ],
    [
      "G-single-realtime: an acknowledged append that nobody ever sees",
      ["G-single-realtime"],
      historyOf([0, 1, [append("x", 1)]], [2, 3, [r("x")]]),
      'read "x" without the 1 that',
    ],
    [
      "G2-item-realtime: reads in a circle that time closes",
      ["G2-item-realtime"],
      historyOf(
        [0, 9, [append("x", 1), r("y")]],
        [1, 2, [append("y", 1)]],
        [3, 4, [r("x")]],
        [10, 11, [r("x", 1), r("y", 1)]],
      ),
      "",
    ],
    [
      "torn transaction: a later append without the earlier",
      ["torn transaction"],
      together([append("x", 1), append("x", 2)], [r("x", 2)]),
      'read "x" as [2], with the 2 of T2 and without its 1 before',
    ],
    [
      "torn transaction: appends in another order",
      ["torn transaction"],
      together([append("x", 1), append("x", 2), append("x", 3)], [r("x", 2, 1, 3)]),
      "with the 2 of T2 and without its 1 before",
    ],
    [
      "an info that was read in one key happened in the other too",
      ["G-single"],
      historyOf([0, 1, [append("x", 1), append("y", 1)], "info"], [0, 1, [r("x", 1), r("y")]]),
      'read "y" without the 1 that',
    ],
    [
      "incompatible order: its own append is not where it saw it",
      ["incompatible order"],
      together([append("x", 1)], [append("x", 2), r("x", 2)], [r("x", 1, 2)]),
      'read "x" as [2]',
    ],
    [
      "internal: forgets its own append",
      ["internal"],
      together([append("x", 1), r("x")]),
      "which its own operations before deny",
    ],
    [
      "internal: two reads differ",
      ["internal"],
      together([append("x", 1)], [r("x"), r("x", 1)]),
      "which its own operations before deny",
    ],
    [
      "internal: its own append is not last",
      ["internal"],
      together([append("x", 1), r("x", 1, 2)], [append("x", 2)]),
      "which its own operations before deny",
    ],
    ["unwritten read", ["unwritten read"], together([r("x", 7)]), 'T1 read 7 in "x", which nobody appended'],
    [
      "duplicate elements",
      ["duplicate elements"],
      together([append("x", 1)], [r("x", 1, 1)]),
      'T1 read "x" as [1,1], with an element twice',
    ],
    [
      "incompatible order",
      ["incompatible order"],
      together([append("x", 1)], [append("x", 2)], [r("x", 1, 2)], [r("x", 2)]),
      'read "x" as [2], which is not how the list that T2 read begins: [1,2]',
    ],
    [
      "an info that nobody read need not have happened",
      [],
      historyOf([0, 1, [append("x", 1)], "info"], [2, 3, [r("x")]]),
      "",
    ],
    [
      "an info that was read happened: then others must read it",
      ["G-single-realtime"],
      historyOf([0, 1, [append("x", 1)], "info"], [2, 3, [r("x", 1)]], [4, 5, [r("x")]]),
      "stale read",
    ],
    ["a failed append is not missed", [], historyOf([0, 1, [append("x", 1)], "fail"], [2, 3, [r("x")]]), ""],
    ["the own append in a read", [], historyOf([0, 1, [append("x", 1)]], [2, 3, [append("x", 2), r("x", 1, 2)]]), ""],
    [
      "elements and keys of any JSON",
      [],
      together([append("x", { a: [1] })], [r("x", { a: [1] }), append("x", "1"), append("x", 1)]),
      "",
    ],
  ])("%s", (_, expected, history, text) => {
    const result = checkListAppend(history);
    expect(Object.keys(result.anomalies).sort()).toEqual([...expected].sort());
    expect(result.valid).toBe(expected.length === 0);
    expect(result.violations.map(({ message }) => message).join("\n")).toContain(text);
    for (const { anomaly, message, entries, rule } of result.violations) {
      expect(rule).toBe("list-append");
      expect(message.startsWith(anomaly)).toBe(true);
      expect(entries.length).toBeGreaterThan(0);
    }
  });
});

/** How an executor goes wrong. */
type Flaw = "none" | "keeps what failed" | "steps interleave" | "reads a snapshot" | "reads late" | "forgets appends";

interface OpenTxn {
  readonly asked: readonly MicroOp[];
  readonly done: MicroOp[];
  snapshot: ReadonlyMap<string, readonly unknown[]>;
  isApplied: boolean;
}

/** Runs transactions one at a time at moments within their intervals, but for a flaw; reads all keys at the end. */
function execute(random: Random, flaw: Flaw, txns: number, processes: number): History {
  const history = new History();
  const keys = ["x", "y", "z"];
  const state = new Map<string, readonly unknown[]>(keys.map((key) => [key, []]));
  const past: ReadonlyMap<string, readonly unknown[]>[] = [new Map(state)];
  const open = new Map<number, OpenTxn>();
  let element = 0;
  let left = txns;
  const begin = (process: number): void => {
    const asked = Array.from({ length: 1 + below(random, 4) }, (): MicroOp => {
      const key = keys[below(random, keys.length)] as string;
      return random.float() < 0.5 ? ["r", key, null] : ["append", key, element++];
    });
    history.invoke(process, "txn", asked);
    const isLate = flaw === "reads late" && random.float() < 0.2;
    const snapshot = isLate ? (past[below(random, past.length)] as (typeof past)[number]) : new Map(state);
    open.set(process, { asked, done: [], snapshot, isApplied: false });
  };
  const applyOne = ({ asked, done, snapshot }: OpenTxn): void => {
    const [kind, key, value] = asked[done.length] as MicroOp;
    const own = done.filter((op) => op[0] === "append" && op[1] === key).map((op) => op[2]);
    const isOld = flaw === "reads a snapshot" || (flaw === "reads late" && !asked.some((op) => op[0] === "append"));
    const list = isOld ? [...(snapshot.get(key) ?? []), ...own] : (state.get(key) ?? []);
    if (kind === "append" && !(flaw === "forgets appends" && random.float() < 0.1))
      state.set(key, [...(state.get(key) ?? []), value]);
    done.push(kind === "r" ? ["r", key, list] : [kind, key, value]);
  };
  const step = (process: number, txn: OpenTxn): void => {
    if (!txn.isApplied) {
      const before = new Map(state);
      const count = flaw === "steps interleave" ? 1 : txn.asked.length;
      for (let i = 0; i < count; i++) applyOne(txn);
      txn.isApplied = txn.done.length === txn.asked.length;
      if (!txn.isApplied || random.float() > 0.1) return void past.push(new Map(state));
      // It fails, and is taken back unless that is what goes wrong.
      open.delete(process);
      if (flaw === "steps interleave") return void history.info(process, "ERR_TIMEOUT");
      if (flaw !== "keeps what failed") for (const [key, list] of before) state.set(key, list);
      history.fail(process, "ERR_ABORTED");
    } else {
      open.delete(process);
      if (random.float() < 0.1) history.info(process, "ERR_TIMEOUT");
      else history.ok(process, txn.done);
    }
  };
  while (left > 0 || open.size > 0) {
    const process = below(random, processes);
    const txn = open.get(process);
    if (txn !== undefined) step(process, txn);
    else if (left > 0) {
      left--;
      begin(process);
    }
  }
  history.invoke(
    processes,
    "txn",
    keys.map((key) => ["r", key, null]),
  );
  history.ok(
    processes,
    keys.map((key) => ["r", key, state.get(key)]),
  );
  return history;
}

describe("executors", () => {
  it.each<[Flaw, readonly Anomaly[], number]>([
    ["none", [], 0],
    ["keeps what failed", ["G1a"], 0.9],
    ["steps interleave", ["G0", "G1b", "G1c", "G-single"], 0.9],
    ["reads a snapshot", ["lost update", "G-single", "G2-item"], 0.9],
    ["reads late", ["G-single-realtime"], 0.5],
    ["forgets appends", ["G-single", "internal", "torn transaction"], 0.9],
  ])("%s: anomalies %j", (flaw, expected, share) => {
    const runs = 150;
    const found = new Map<string, number>();
    let invalid = 0;
    fc.assert(
      fc.property(fc.nat(2 ** 31 - 1), (seed) => {
        const result = checkListAppend(execute(createSeededRandom(seed), flaw, 60, 5));
        if (!result.valid) invalid++;
        for (const anomaly of Object.keys(result.anomalies)) found.set(anomaly, (found.get(anomaly) ?? 0) + 1);
        if (flaw === "none") result.assert();
      }),
      { numRuns: runs },
    );
    for (const anomaly of expected) expect([anomaly, (found.get(anomaly) ?? 0) > 0]).toEqual([anomaly, true]);
    expect(invalid).toBeGreaterThanOrEqual(share * runs);
  });

  it("never denies what some order explains, and misses little of what none does", () => {
    let missed = 0;
    let wrong = 0;
    const flaws: Flaw[] = [
      "none",
      "keeps what failed",
      "steps interleave",
      "reads a snapshot",
      "reads late",
      "forgets appends",
    ];
    fc.assert(
      fc.property(fc.nat(2 ** 31 - 1), fc.constantFrom(...flaws), fc.boolean(), (seed, flaw, isStrict) => {
        const history = execute(createSeededRandom(seed), flaw, 5, 3);
        const consistency = isStrict ? "strict-serializable" : "serializable";
        const { valid } = checkListAppend(history, { consistency });
        const expected = isSerializable(history, isStrict);
        if (!expected) wrong++;
        if (valid && !expected) missed++;
        expect(valid || !expected).toBe(true);
      }),
      { numRuns: 2000 },
    );
    expect(wrong).toBeGreaterThan(200);
    expect(missed).toBeLessThan(wrong / 50);
  });
});

/** Whether some order of the transactions explains what they read: tries all. */
function isSerializable(history: History, isStrict: boolean): boolean {
  const calls = history.calls().filter(({ outcome }) => outcome !== "fail");
  const extend = (left: typeof calls, state: ReadonlyMap<string, readonly unknown[]>): boolean => {
    if (left.every(({ outcome }) => outcome === "info")) return true;
    const firstEnd = Math.min(
      ...left.map(({ outcome, completion }) =>
        outcome === "ok" ? (completion?.index ?? 0) : Number.POSITIVE_INFINITY,
      ),
    );
    return left.some((call) => {
      if (isStrict && call.invoke.index > firstEnd) return false;
      const next = new Map(state);
      const ops = (call.outcome === "ok" ? call.completion?.value : call.invoke.value) as MicroOp[];
      for (const [kind, key, value] of ops) {
        const list = next.get(key) ?? [];
        if (kind === "append") next.set(key, [...list, value]);
        else if (call.outcome === "ok" && JSON.stringify(list) !== JSON.stringify(value)) return false;
      }
      return extend(
        left.filter((other) => other !== call),
        next,
      );
    });
  };
  return extend(calls, new Map());
}

describe("checkListAppend", () => {
  it("leaves real time out when it is not asked for", () => {
    const stale = historyOf([0, 1, [append("x", 1)]], [2, 3, [r("x")]], [4, 5, [r("x", 1)]]);
    expect(checkListAppend(stale).anomalies).toEqual({ "G-single-realtime": 1 });
    expect(checkListAppend(stale, { consistency: "serializable" }).valid).toBe(true);
  });

  it("asserts with the story of the cycle", () => {
    const result = checkListAppend(historyOf([0, 1, [append("x", 1)]], [2, 3, [r("x")]]));
    expect(() => result.assert()).toThrow(
      expect.objectContaining({
        code: "ERR_VIOLATION",
        message:
          "G-single-realtime (stale read): no order of these transactions is possible\n" +
          '  T1 before T2: T1 read "x" without the 1 that T2 appended\n' +
          "  T2 before T1: it had ended (index 1) when T1 began (index 2)\n" +
          '  T1 = [["r","x",[]]] by process 1 (index 2 to 3)\n' +
          '  T2 = [["append","x",1]] by process 0 (index 0 to 1)',
      }),
    );
  });

  it("counts all anomalies and reports some of each", () => {
    const many = Array.from({ length: 20 }, (_, at): MicroOp[] => [r("x", `nobody ${at}`)]);
    const result = checkListAppend(together(...many));
    expect(result.anomalies["unwritten read"]).toBe(20);
    expect(result.violations.filter(({ anomaly }) => anomaly === "unwritten read")).toHaveLength(MAX_REPORTED);
  });

  it.each<[string, RegExp, () => unknown]>([
    [
      "an element appended twice",
      /element of key "x" must be appended once/,
      () => checkListAppend(together([append("x", 1)], [append("x", 1)])),
    ],
    [
      "another consistency",
      /consistency must be strict-serializable or/,
      () => checkListAppend([], { consistency: "linearizable" as "serializable" }),
    ],
    ["another operation", /f at index 0 must be txn/, () => checkListAppend(pair("write", [append("x", 1)], null))],
    ["no array", /value at index 0 must be an array/, () => checkListAppend(pair("txn", "x", null, false))],
    ["fewer answers", /value at index 1 must be an array.*as long/, () => checkListAppend(pair("txn", [r("x")], []))],
    [
      "another micro-operation",
      /value at index 1, \[0\] must be \["append"/,
      () => checkListAppend(pair("txn", [r("x")], [append("x", 1)])),
    ],
    [
      "a read without a list",
      /value at index 1, \[0\]\[2\] must be the list/,
      () => checkListAppend(pair("txn", [["r", "x", null]], [["r", "x", null]])),
    ],
  ])("refuses %s", (_, message, check) => {
    expect(check).toThrow(message);
    expect(check).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
  });

  it("needs few edges a transaction, and finds one stale read among 20,000 transactions", () => {
    const { history, staleAt } = serial(createSeededRandom(3), 20_000);
    const result = checkListAppend(history);
    result.assert();
    expect(result.transactions).toBe(20_000);
    expect(result.edges).toBeGreaterThan(20_000);
    expect(result.edges).toBeLessThan(10 * 20_000);
    expect(checkListAppend(staleAt(10_000)).anomalies).toEqual({ "G-single-realtime": 1 });
  });

  it("does not overflow the stack on a component of 50,000 transactions", () => {
    const history = new History();
    const list: number[] = [];
    for (let txn = 0; txn < 50_000; txn++) {
      history.invoke(txn % 2, "txn", [append("x", txn)]);
      history.ok(txn % 2, [append("x", txn)]);
      list.unshift(txn);
    }
    history.invoke(0, "txn", [["r", "x", null]]);
    history.ok(0, [["r", "x", list]]);
    // Every append came before all earlier ones: one component of all of them.
    expect(checkListAppend(history).anomalies).toEqual({ "G0-realtime": 1 });
  });
});

/** One operation and its answer. */
function pair(f: string, asked: unknown, answer: unknown, isAnswered = true): History {
  const history = new History();
  history.invoke(0, f, asked);
  if (isAnswered) history.ok(0, answer);
  return history;
}

/** Many transactions of 10 processes, each key appended to 30 times at most; and the same with one stale read. */
function serial(random: Random, txns: number): { history: History; staleAt: (index: number) => HistoryEntry[] } {
  const history = new History();
  const lists = new Map<string, number[]>();
  let key = 0;
  const pending: { process: number; ops: MicroOp[] }[] = [];
  const end = (): void => {
    const [first] = pending.splice(below(random, pending.length), 1);
    if (first !== undefined) history.ok(first.process, first.ops);
  };
  for (let txn = 0; txn < txns; txn++) {
    while (pending.length >= 10) end();
    const process =
      Array.from({ length: 10 }, (_, at) => at).find((at) => pending.every((other) => other.process !== at)) ?? 0;
    const ops = Array.from({ length: 1 + below(random, 4) }, (): MicroOp => {
      const name = `k${key + below(random, 5)}`;
      const list = lists.get(name) ?? [];
      if (random.float() < 0.5) return ["r", name, [...list]];
      lists.set(name, [...list, txn * 4 + list.length]);
      if (list.length === 30) key++;
      return ["append", name, txn * 4 + list.length];
    });
    history.invoke(
      process,
      "txn",
      ops.map(([kind, name, value]) => [kind, name, kind === "r" ? null : value]),
    );
    pending.push({ process, ops });
  }
  while (pending.length > 0) end();
  const staleAt = (index: number): HistoryEntry[] => {
    const entries = [...history.entries];
    for (let at = index; ; at++) {
      const entry = entries[at];
      const ops = entry?.value as MicroOp[];
      const [read] = ops;
      // A read alone, of a list whose begin is long over: it answers as if the key were empty.
      if (entry?.type !== "ok" || ops.length !== 1 || read?.[0] !== "r" || (read[2] as unknown[]).length < 20) continue;
      entries[at] = { ...entry, value: [["r", read[1], []]] };
      return entries;
    }
  };
  return { history, staleAt };
}
