/** Each rule of the built-in workloads is silent about a good history, and speaks up when one answer of it is changed. */
import { describe, expect, it } from "vitest";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import type { FaultKind } from "../../../src/sim/fault-types.ts";
import type { HistoryEntry, Violation } from "../../../src/sim/history-types.ts";
import { judgeActors } from "../../../src/sim/workloads/actor-rules.ts";
import { judgeBarrier } from "../../../src/sim/workloads/barrier-rules.ts";
import { changed, differences, expectedAnswer, type GraphModel } from "../../../src/sim/workloads/graph-model.ts";
import { judgeGraphs } from "../../../src/sim/workloads/graph-rules.ts";
import { createGraphWorkload } from "../../../src/sim/workloads/graph-workload.ts";
import { createListAppendWorkload } from "../../../src/sim/workloads/list-append-workload.ts";
import { type FinalRead, judgeRegisters } from "../../../src/sim/workloads/register-rules.ts";
import { judgeSearches } from "../../../src/sim/workloads/search-rules.ts";

/** An operation: process, f, argument, answer; "info" and "fail" as answers end it so. */
type Step = readonly [process: number, f: string, argument: unknown, answer: unknown];

/** Operations one after the other, `gapMs` apart. */
function historyOf(steps: readonly Step[], gapMs = 1): HistoryEntry[] {
  return steps.flatMap(([process, f, argument, answer], at): HistoryEntry[] => {
    const time = at * gapMs * 1e6;
    const type = answer === "info" || answer === "fail" ? answer : "ok";
    const end = type === "ok" ? { value: answer } : { value: argument, error: "ERR_TIMEOUT" };
    return [
      { type: "invoke", f, process, time, index: 2 * at, value: argument },
      { type, f, process, time: time + 1000, index: 2 * at + 1, ...end },
    ];
  });
}

const rulesOf = (violations: readonly Violation[]): string[] => [...new Set(violations.map(({ rule }) => rule))];

describe("registers", () => {
  const steps: readonly Step[] = [
    [0, "write", ["a", 1], ["a", 1]],
    [0, "read", ["a", null], ["a", 1]],
    [0, "write", ["a", 2], ["a", 2]],
    [1, "read", ["a", null], ["a", 2]],
    [0, "read", ["a", null], ["a", 2]],
  ];
  const read = (node: string, value: number | null | undefined): FinalRead[] =>
    (["strong", "eventual"] as const).map((consistency) => ({ node, consistency, ids: ["a"], values: [value] }));
  const good = [...read("n0", 2), ...read("n1", 2)];
  const judge = (
    changed: readonly Step[],
    consistency: "strong" | "session" | "bounded-staleness" | "eventual",
    finals: readonly FinalRead[] = good,
    gapMs?: number,
  ): string[] => rulesOf(judgeRegisters(historyOf(changed, gapMs), finals, { consistency, maxStalenessMs: 100 }));
  const withAnswer = (at: number, value: number | null): Step[] =>
    steps.map((step, index) => (index === at ? [step[0], step[1], step[2], ["a", value]] : step));

  it("finds nothing wrong where nothing is", () => {
    for (const level of ["strong", "session", "bounded-staleness", "eventual"] as const)
      expect(judge(steps, level)).toEqual([]);
  });

  it("finds invented, stale, unseen and lost values, each by the level that forbids it", () => {
    expect(judge(withAnswer(3, 7), "eventual")).toEqual(["nothing invented"]);
    expect(judge(withAnswer(3, 1), "strong")).toEqual(["linearizable"]);
    expect(judge(withAnswer(3, 1), "eventual")).toEqual([]);
    expect(judge(withAnswer(4, 1), "session")).toEqual([
      "a session sees its own writes",
      "session reads never go back",
    ]);
    expect(judge(withAnswer(4, null), "session")).toEqual([
      "a session sees its own writes",
      "session reads never go back",
    ]);
    // Of another's key, and of a write that nobody acknowledged.
    expect(judge([...steps, [1, "read", ["a", null], ["a", 1]]], "session")).toEqual(["session reads never go back"]);
    expect(judge(withAnswer(4, 1), "bounded-staleness", good, 40)).toEqual([]);
    expect(judge(withAnswer(4, 1), "bounded-staleness", good, 100)).toEqual(["bounded staleness"]);
    expect(judge(steps, "eventual", [...read("n0", 1), ...read("n1", 1)])).toEqual(["acknowledged writes survive"]);
    expect(judge(steps, "strong", [...read("n0", 1), ...read("n1", 1)])).toEqual(["linearizable"]);
    expect(judge(steps, "eventual", [...read("n0", 2), ...read("n1", 1)])).toEqual(["copies equal after heal"]);
  });

  it("finds an index that lacks a document, has one too many, or has one twice", () => {
    const withFound = (found: readonly string[]): FinalRead[] => good.map((final) => ({ ...final, found }));
    expect(judge(steps, "strong", withFound(["a"]))).toEqual([]);
    for (const found of [[], ["a", "b"], ["a", "a"]])
      expect(judge(steps, "strong", withFound(found))).toEqual(["index equals documents"]);
  });

  it("demands only what is there where more went wrong than can be made good", () => {
    const forgiven = (changed: readonly Step[], finals: readonly FinalRead[]): string[] =>
      rulesOf(
        judgeRegisters(historyOf(changed), finals, { consistency: "strong", maxStalenessMs: 1, mayForget: true }),
      );
    expect(forgiven(steps, [...read("n0", 1), ...read("n1", 1)])).toEqual([]);
    expect(forgiven(steps, [...read("n0", null), ...read("n1", null)])).toEqual([]);
    expect(forgiven(steps, [...read("n0", 1), ...read("n1", 2)])).toEqual(["copies equal after heal"]);
    expect(forgiven(withAnswer(3, 7), good)).toEqual(["nothing invented"]);
  });

  it("demands nothing of a key that no copy is left to answer for", () => {
    expect(judge(steps, "strong", [...read("n0", undefined), ...read("n1", 2)])).toEqual([]);
    expect(judge(steps, "eventual", read("n0", undefined))).toEqual([]);
    expect(judge(steps, "strong", [...read("n0", undefined), ...read("n1", 1)])).toEqual(["linearizable"]);
  });
});

describe("actors", () => {
  const answer = (activation: number, list: readonly number[]): readonly unknown[] => ["k", { activation, list }];
  const judge = (steps: readonly Step[]): string[] => rulesOf(judgeActors(historyOf(steps)));
  const append = (process: number, number: number, activation: number, list: readonly number[]): Step => [
    process,
    "append",
    ["k", number],
    answer(activation, list),
  ];

  it("finds nothing wrong where nothing is, a death between two activations included", () => {
    expect(judge([append(0, 1, 1, [1]), append(1, 2, 1, [1, 2]), append(0, 3, 3, [3])])).toEqual([]);
  });

  it.each([
    ["no acknowledged message lost", [append(0, 1, 1, [1]), append(1, 2, 1, [1])]],
    ["lists only grow", [append(0, 1, 1, [1]), append(1, 2, 1, [2])]],
    ["nothing invented", [append(0, 1, 1, [1, 9])]],
    ["messages of a sender in order", [append(0, 1, 1, [1]), append(0, 2, 1, [1, 2]), append(0, 3, 1, [1, 3, 2])]],
    ["nothing delivered twice", [append(0, 1, 1, [1, 1])]],
    ["one activation of an actor", [append(0, 1, 1, [1]), append(1, 2, 2, [2]), append(0, 3, 1, [1, 3])]],
  ] as const)("finds: %s", (rule, steps) => {
    expect(judge(steps)).toContain(rule);
  });
});

describe("barriers", () => {
  const passed = (round: number, arrived: number, members = 2): unknown =>
    ["compute", "commit"].map((phase) => ({ phase, round, arrived, members }));
  /** Both arrive before either is let go. */
  const tick = (at: number, answers: readonly unknown[]): HistoryEntry[] => [
    ...answers.map((_, process) => entry("invoke", process, at + process, null)),
    ...answers.map((value, process) =>
      entry(value === "info" ? "info" : "ok", process, at + answers.length + process, value),
    ),
  ];
  const entry = (type: "invoke" | "ok" | "info", process: number, index: number, value: unknown): HistoryEntry => ({
    type,
    f: "step",
    process,
    time: index * 1e6,
    index,
    value: type === "info" ? null : value,
    ...(type === "info" ? { error: "ERR_TIMEOUT" } : {}),
  });

  it("finds nothing wrong where nothing is", () => {
    expect(
      judgeBarrier([...tick(0, [passed(1, 2), passed(1, 2)]), ...tick(4, [passed(2, 2), passed(2, 2)])], new Set()),
    ).toEqual([]);
  });

  it("finds phases without their members, ticks that go back, and waiting in vain", () => {
    const judge = (entries: readonly HistoryEntry[], calm = false): string[] =>
      rulesOf(judgeBarrier(entries, new Set<FaultKind>(calm ? [] : ["drop"])));
    expect(judge(tick(0, [passed(1, 3, 3), passed(1, 3, 3)]))).toEqual(["a phase has its members"]);
    expect(judge(tick(0, [passed(1, 2, 1), passed(1, 2, 1)]))).toEqual(["a phase has its members"]);
    expect(judge([...tick(0, [passed(2, 2), passed(2, 2)]), ...tick(4, [passed(1, 2), passed(1, 2)])])).toEqual([
      "ticks grow",
    ]);
    const told = (at: number, process: number, round: number): HistoryEntry =>
      entry("ok", process, at, passed(round, 1, 1));
    const asks = (at: number, process: number): HistoryEntry => entry("invoke", process, at, null);
    const [next, back] = [[asks(4, 0), told(5, 0, 2)], ["ticks grow"]];
    // Told late by the barrier before, which is none of its business; but not when it asked that one after the next had begun.
    expect(judge([asks(0, 0), asks(1, 1), told(2, 1, 0), told(3, 0, 6), ...next])).toEqual([]);
    expect(judge([asks(0, 1), told(1, 1, 0), asks(2, 0), told(3, 0, 6), ...next])).toEqual(back);
    const three = tick(0, [passed(1, 2), passed(1, 2), passed(1, 2)]);
    expect(judge(three, true)).toEqual(["a phase has its members"]);
    expect(judge(three, false)).toEqual([]); // it may have begun anew
    const vain = [...tick(0, ["info", "info"]), ...tick(4, [passed(1, 2), passed(1, 2)])];
    expect(judge(vain, true)).toEqual(["nobody waits in vain"]);
    expect(judge(vain, false)).toEqual([]);
  });
});

describe("searches", () => {
  const counts = {
    planned: 2,
    answered: 2,
    empty: 0,
    failed: 0,
    timedOut: 0,
    unavailable: 0,
    stale: 0,
    complete: true,
    vshards: { planned: 4, answered: 4 },
  };
  const judge = (ids: readonly number[], scores: readonly number[], changed: object = {}): string[] =>
    rulesOf(
      judgeSearches(
        historyOf([
          [0, "store", 1, 1],
          [0, "store", 2, 2],
          [0, "delete", 2, 2],
          [1, "store", 3, "info"],
          [1, "search", null, { ids, scores, ...counts, ...changed }],
        ]),
      ),
    );
  const partial = { answered: 1, timedOut: 1, complete: false, vshards: { planned: 4, answered: 2 } };

  it("finds nothing wrong where nothing is, whatever became of what is in doubt", () => {
    expect(judge([1], [1])).toEqual([]);
    expect(judge([1, 3], [1, 3])).toEqual([]);
    expect(judge([], [], partial)).toEqual([]);
  });

  it("finds every kind of wrong answer", () => {
    expect(judge([1, 1], [1, 1])).toEqual(["no document twice"]);
    expect(judge([3, 1], [3, 1])).toEqual(["hits in order"]);
    expect(judge([1, 4], [1, 4])).toEqual(["nothing invented"]);
    expect(judge([1, 2], [1, 2])).toEqual(["deleted is gone"]);
    expect(judge([], [])).toEqual(["complete is complete"]);
    expect(judge([1], [1], { answered: 1 })).toEqual(["gathers tell what is missing"]);
    expect(judge([1], [1], { answered: 1, timedOut: 1 })).toEqual(["gathers tell what is missing"]);
    expect(judge([1], [1], { empty: 3 })).toEqual(["gathers tell what is missing"]);
  });
});

describe("list-append", () => {
  const judge = async (lists: readonly (readonly number[])[]): Promise<readonly Violation[]> => {
    const steps = lists.map((list, at): Step => {
      const append = ["append", "l", at + 1];
      return [at, "txn", [append, ["r", "l", null]], { activation: 1, txn: [append, ["r", "l", list]] }];
    });
    return await createListAppendWorkload().check({
      history: historyOf(steps),
      faults: [],
      mayForget: false,
      nodes: [],
      lost: [],
    });
  };

  it("takes the order of appends, and finds lost and contradicting ones", async () => {
    expect(await judge([[1], [1, 2], [1, 2, 3]])).toEqual([]);
    expect(await judge([[1], [2], [2, 3]])).not.toEqual([]);
    expect(await judge([[1], [2, 1], [1, 2, 3]])).not.toEqual([]);
  });
});

describe("graphs", () => {
  const right = { wrong: [], attempts: 1 };
  const judge = (answer: unknown, faults: readonly FaultKind[] = [], f = "ask"): string[] =>
    rulesOf(judgeGraphs(historyOf([[0, f, { name: "bfs" }, answer]]), faults));
  const lost = (code: string, faults: readonly FaultKind[]): string[] => {
    const history = historyOf([[0, "ask", { name: "bfs" }, "info"]]);
    return rulesOf(
      judgeGraphs(
        history.map((entry) => (entry.type === "info" ? { ...entry, error: code } : entry)),
        faults,
      ),
    );
  };

  it("finds wrong answers, failures without a cause, and runs that a lost worker has ended", () => {
    expect(judge(right)).toEqual([]);
    expect(judge({ ...right, wrong: ["1 has 2 instead of 3"] })).toEqual(["answers are those of the reference"]);
    expect(judge("info", [])).toEqual(["nothing fails without a cause"]);
    expect(judge("info", ["crash"])).toEqual([]);
    expect(judge("info", ["crash"], "change")).toEqual([]);
    expect(lost("ERR_INTERNAL", ["crash"])).toEqual(["nothing fails without a cause"]);
    expect(lost("ERR_WORKER_LOST", ["crash"])).toEqual([]);
    expect(lost("ERR_WORKER_LOST", ["worker-crash"])).toEqual(["a lost worker ends no run"]);
    expect(lost("ERR_WORKER_LOST", new Array(20).fill("worker-crash"))).toEqual([]);
  });

  it("know what a change leaves, and what is asked of it", () => {
    const model: GraphModel = {
      directed: false,
      keys: new Set([1, 2, 3, 4]),
      edges: [
        [1, 2, 1],
        [2, 1, 2],
        [2, 3, 1],
        [3, 4, 1],
        [4, 4, 1],
      ],
    };
    const { next, cut } = changed(model, { cut: [5], remove: [7], add: [[1, 9, 0.5]] });
    expect(cut).toBe(2);
    expect([...next.keys]).toEqual([1, 2, 3, 9]);
    expect(next.edges).toEqual([
      [2, 3, 1],
      [1, 9, 0.5],
    ]);
    const question = { exchange: "auto", checkpointEvery: 0, iterations: 3, from: 0, to: 1 } as const;
    const depths = expectedAnswer(model, { ...question, name: "bfs" });
    expect([...depths]).toEqual([
      [1, 0],
      [2, 1],
      [3, 2],
      [4, 3],
    ]);
    expect([...expectedAnswer(model, { ...question, name: "kHop" }).keys()]).toEqual([1, 2, 3]);
    expect(differences(depths, depths)).toEqual([]);
    expect(differences(new Map([...depths, [9, 1]]), depths)).toEqual(["9 should not be there"]);
    expect(differences(new Map([[1, 0]]), depths)).toHaveLength(3);
    expect(differences(new Map([...depths, [4, Number.NaN]]), depths)).toEqual(["4 has NaN instead of 3"]);
  });

  it("lie in one node's memory", () => {
    const { generate } = createGraphWorkload();
    expect(() => generate(createSeededRandom(1), { nodes: 2, durationMs: 1_000 })).toThrow("one node");
    expect(() => createGraphWorkload({ vertices: 0 })).toThrow("vertices");
  });
});
