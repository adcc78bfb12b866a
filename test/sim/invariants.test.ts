import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { Gather, plainOutcome, type ShardOutcome, summarize } from "../../src/routing/gather.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { MAX_FINDINGS } from "../../src/sim/findings.ts";
import { History } from "../../src/sim/history.ts";
import {
  acknowledgedWritesSurvive,
  sessionsAreMonotonic,
  stalenessIsBounded,
  type VersionOf,
} from "../../src/sim/history-invariants.ts";
import type { Call, HistoryEntry, Violation } from "../../src/sim/history-types.ts";
import {
  type GatherRecord,
  gathersTellWhatIsMissing,
  messagesAreConserved,
  onePrimaryActs,
  onePrimaryPerEpoch,
  type PrimaryDeed,
} from "../../src/sim/invariants.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { below, record, trueRegister } from "./histories.ts";

type Step = readonly [process: number, kind: "invoke" | "ok" | "fail" | "info", f?: string, value?: unknown];

/** A history of steps, one microsecond apart. */
function historyOf(...steps: readonly Step[]): History {
  let now = 0;
  const history = new History(() => (now += 1000));
  for (const [process, kind, f = "ERR_TIMEOUT", value] of steps) {
    if (kind === "invoke") history.invoke(process, f, value);
    else if (kind === "ok") history.ok(process, value);
    else history[kind](process, f);
  }
  return history;
}

const write = (process: number, key: string, value: unknown, end: "ok" | "fail" | "info" = "ok"): Step[] => [
  [process, "invoke", "write", [key, value]],
  [process, end],
];

/** The rule found exactly one thing, which says so; without the pattern it found nothing. */
function expectOne(violations: readonly Violation[], rule: string, message?: RegExp): void {
  expect(violations.map((violation) => violation.message)).toEqual(
    message === undefined ? [] : [expect.stringMatching(message)],
  );
  for (const violation of violations) expect(violation.rule).toBe(rule);
}

describe("acknowledgedWritesSurvive", () => {
  it.each<[string, Step[], Record<string, unknown>, RegExp?]>([
    ["the last write is there", [...write(0, "x", 1), ...write(0, "x", 2)], { x: 2 }],
    [
      "a lost write",
      write(0, "x", 1),
      {},
      /key "x" is null, which nobody wrote: the last acknowledged write is 1 at index 0/,
    ],
    [
      "an old value",
      [...write(0, "x", 1), ...write(0, "x", 2)],
      { x: 1 },
      /is 1, which was replaced: the last .* is 2 at index 2/,
    ],
    ["a failed value", write(0, "x", 1, "fail"), { x: 1 }, /is 1, whose write failed$/],
    ["a value out of nothing", write(0, "x", 1), { x: 3 }, /is 3, which nobody wrote/],
    ["a key out of nothing", [], { x: 3 }, /is 3, which nobody wrote$/],
    ["a write in doubt that happened", [...write(0, "x", 1, "info"), ...write(1, "x", 2)], { x: 1 }],
    ["a write in doubt that did not", write(0, "x", 1, "info"), {}],
    [
      "writes that overlap: the first",
      [
        [0, "invoke", "write", ["x", 1]],
        [1, "invoke", "write", ["x", 2]],
        [0, "ok"],
        [1, "ok"],
      ],
      { x: 1 },
    ],
    [
      "writes that overlap: the second",
      [
        [0, "invoke", "write", ["x", 1]],
        [1, "invoke", "write", ["x", 2]],
        [0, "ok"],
        [1, "ok"],
      ],
      { x: 2 },
    ],
    [
      "writes that overlap: neither",
      [
        [0, "invoke", "write", ["x", 1]],
        [1, "invoke", "write", ["x", 2]],
        [0, "ok"],
        [1, "ok"],
      ],
      {},
      /is null, which nobody wrote/,
    ],
    ["a removal", [...write(0, "x", 1), [0, "invoke", "delete", "x"], [0, "ok"]], {}],
    [
      "a removal that came back",
      [...write(0, "x", 1), [0, "invoke", "delete", "x"], [0, "ok"]],
      { x: 1 },
      /which was replaced.*is null at index 2/,
    ],
    ["a removal in doubt", [...write(0, "x", 1), [0, "invoke", "delete", "x"], [0, "info"]], {}],
    ["a write without an answer", [[0, "invoke", "write", ["x", 1]]], { x: 1 }],
    ["another key", [...write(0, "x", 1), ...write(0, "y", 2)], { x: 1, y: 2 }],
  ])("%s", (_, steps, finals, message) => {
    const byKey = new Map(Object.entries(finals).map(([key, value]) => [JSON.stringify(key), value]));
    expectOne(acknowledgedWritesSurvive(historyOf(...steps), byKey), "acknowledged writes survive", message);
  });

  it("accepts the last value of any real register, and no value that was over", () => {
    fc.assert(
      fc.property(fc.nat(2 ** 31 - 1), (seed) => {
        const random = createSeededRandom(seed);
        const history = record(
          random,
          { ...trueRegister(1e9), draw: () => ({ f: "write", value: below(random, 1e9) }) },
          { processes: 4, operations: 30, info: 0.2 },
        );
        history.invoke(99, "write", -1);
        history.ok(99);
        const writeOf = ({ invoke }: Call): { key: string; value: unknown } => ({ key: "x", value: invoke.value });
        const finals = (value: unknown): Map<string, unknown> => new Map([['"x"', value]]);
        expect(acknowledgedWritesSurvive(history, finals(-1), writeOf)).toEqual([]);
        for (const { invoke, outcome } of history.calls().slice(0, -1))
          expect(acknowledgedWritesSurvive(history, finals(invoke.value), writeOf)).toHaveLength(
            outcome === "info" ? 0 : 1,
          );
      }),
      { numRuns: 200 },
    );
  });
});

/** Values are [session, key, version]. */
const versionOf: VersionOf = ({ invoke, completion }) => {
  if (invoke.f !== "read" && invoke.f !== "write") return undefined;
  const [session, key, version] = (completion as HistoryEntry).value as [string, string, number];
  return { kind: invoke.f, session, key, version };
};

const call = (process: number, f: string, session: string, key: string, version: number): Step[] => [
  [process, "invoke", f],
  [process, "ok", "", [session, key, version]],
];

describe("sessionsAreMonotonic", () => {
  it.each<[string, Step[], RegExp?]>([
    [
      "reads that grow",
      [...call(0, "read", "s", "x", 1), ...call(0, "read", "s", "x", 1), ...call(0, "read", "s", "x", 2)],
    ],
    [
      "a read that goes back",
      [...call(0, "read", "s", "x", 2), ...call(1, "read", "s", "x", 1)],
      /session "s" read version 1 of "x" at index 2 after it had seen 2 at index 0/,
    ],
    [
      "a read without one's own write",
      [...call(0, "write", "s", "x", 5), ...call(0, "read", "s", "x", 4)],
      /had seen 5/,
    ],
    ["other sessions", [...call(0, "read", "s", "x", 2), ...call(0, "read", "t", "x", 1)]],
    ["other keys", [...call(0, "read", "s", "x", 2), ...call(0, "read", "s", "y", 1)]],
    [
      "reads that overlap",
      [
        [0, "invoke", "read"],
        [1, "invoke", "read"],
        [0, "ok", "", ["s", "x", 2]],
        [1, "ok", "", ["s", "x", 1]],
      ],
    ],
    ["a read in doubt", [...call(0, "read", "s", "x", 2), [0, "invoke", "read"], [0, "info"]]],
    ["other operations", [...call(0, "read", "s", "x", 2), ...call(0, "search", "s", "x", 1)]],
  ])("%s", (_, steps, message) => {
    expectOne(sessionsAreMonotonic(historyOf(...steps), versionOf), "session reads never go back", message);
  });
});

describe("stalenessIsBounded", () => {
  // Steps are 1,000 ns apart: the write of version 2 is acknowledged at 4,000.
  const writes: Step[] = [...call(0, "write", "s", "x", 1), ...call(0, "write", "s", "x", 2)];

  it.each<[string, Step[], number | undefined, RegExp?]>([
    ["the newest", [...writes, ...call(1, "read", "t", "x", 2)], 1],
    ["an old one within the bound", [...writes, ...call(1, "read", "t", "x", 1)], 1001],
    [
      "an old one at the bound",
      [...writes, ...call(1, "read", "t", "x", 1)],
      1000,
      /index 4 saw version 1 of "x", with a bound of 1000 ns: version 2 was acknowledged 1000 ns before/,
    ],
    ["no bound", [...writes, ...call(1, "read", "t", "x", 0)], undefined],
    [
      "an older one yet",
      [...writes, ...call(1, "read", "t", "x", 0)],
      1001,
      /version 1 was acknowledged 3000 ns before/,
    ],
    ["another key", [...writes, ...call(1, "read", "t", "y", 0)], 1],
    ["a write that is not acknowledged", [...writes, [2, "invoke", "write"], ...call(1, "read", "t", "x", 2)], 1],
    [
      "a low version acknowledged late",
      [
        [0, "invoke", "write"],
        ...call(1, "write", "s", "x", 9),
        [0, "ok", "", ["s", "x", 8]],
        ...call(1, "read", "t", "x", 8),
      ],
      1,
      /version 9/,
    ],
  ])("%s", (_, steps, bound, message) => {
    expectOne(
      stalenessIsBounded(historyOf(...steps), versionOf, () => bound),
      "bounded staleness",
      message,
    );
  });
});

describe("gathersTellWhatIsMissing", () => {
  const error = new ShardloomError("ERR_TIMEOUT", "late");
  const whole = summarize([plainOutcome(0, 3), plainOutcome(1, 0)]);
  const part = summarize([plainOutcome(0, 3), plainOutcome(1, 0, error)]);

  it.each<[string, Partial<GatherRecord["completeness"]>, unknown[], RegExp?]>([
    ["whole", whole, []],
    ["a part, and says so", part, ["d7"]],
    ["whole, and misses something", whole, ["d7", "d8"], /search 1: complete, and yet 2 are missing: "d7", "d8"/],
    [
      "a part, called whole",
      { ...part, complete: true, vshards: whole.vshards },
      [],
      /1 of 2 parts answered, and complete is true/,
    ],
    ["whole, called a part", { ...whole, complete: false }, [], /2 of 2 parts answered, and complete is false/],
    ["a part without an outcome", { ...part, timedOut: 0 }, [], /2 parts were planned and 1 have an outcome/],
    ["an outcome that is not listed", { ...whole, outcomes: [] }, [], /2 parts were planned and 0 are listed/],
    ["whole with vshards missing", { ...whole, vshards: { planned: 2, answered: 1 } }, [], /1 of 2 vshards answered/],
    ["more empty than answered", { ...whole, empty: 3 }, [], /more answered than there are/],
  ])("%s", (_, completeness, missing, message) => {
    const gather = { what: "search 1", completeness: completeness as GatherRecord["completeness"], missing };
    expectOne(gathersTellWhatIsMissing([gather]), "gathers tell what is missing", message);
  });

  it("accepts whatever Gather makes, as JSON", async () => {
    const outcome = fc.record({ count: fc.nat(3), fails: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(outcome, { minLength: 1, maxLength: 6 }), async (outcomes) => {
        const gather = new Gather<number>(outcomes.length, "best-effort");
        for (const [at, { count, fails }] of outcomes.entries()) {
          const ended: ShardOutcome = plainOutcome(at, count, fails ? error : undefined);
          gather.end(at, ended, []);
        }
        const answer = await gather.promise.catch(() => undefined);
        if (answer === undefined) return;
        const completeness = JSON.parse(JSON.stringify(answer.completeness)) as GatherRecord["completeness"];
        expect(gathersTellWhatIsMissing([{ what: "a", completeness, missing: [] }])).toEqual([]);
        const misses = gathersTellWhatIsMissing([{ what: "a", completeness, missing: [1] }]);
        expect(misses).toHaveLength(outcomes.every(({ fails }) => !fails) ? 1 : 0);
      }),
    );
  });
});

describe("messagesAreConserved", () => {
  it("reports the first in full, and how many more there are", () => {
    const lost = Array.from({ length: 30 }, (_, at) => ({ ...counts, where: `n${at}`, delivered: 0 }));
    const violations = messagesAreConserved(lost);
    expect(violations).toHaveLength(MAX_FINDINGS + 1);
    expect(violations.at(-1)).toMatchObject({
      rule: "messages are conserved",
      message: `and ${30 - MAX_FINDINGS} more`,
    });
  });

  const counts = { where: "n0", sent: 10, delivered: 6, rejected: 1, dead: 1, inDoubt: 2 };

  it.each<[string, Partial<typeof counts>, RegExp?]>([
    ["all accounted for", {}],
    ["lost", { delivered: 4 }, /n0: 2 of 10 messages are lost: 4 delivered \+ 1 rejected \+ 1 dead \+ 2 in doubt/],
    ["delivered twice", { delivered: 7 }, /n0: 1 messages more than the 10 sent/],
    ["a counter that wrapped", { dead: -1, inDoubt: 4 }, /are not all counts/],
    ["a counter that is missing", { dead: Number.NaN }, /are not all counts/],
  ])("%s", (_, change, message) => {
    expectOne(messagesAreConserved([{ ...counts, ...change }]), "messages are conserved", message);
  });
});

describe("one primary", () => {
  const view = (node: string, mapEpoch: number, copies?: Uint16Array): Parameters<typeof onePrimaryPerEpoch>[0] => [
    {
      node,
      ...createSnapshot({
        shards: 2,
        vshards: 4,
        mapEpoch,
        topologyEpoch: 9,
        ...(copies === undefined ? {} : { copies }),
      }),
    },
  ];
  const other = Uint16Array.of(0, 1, 1, 1);
  const rule = "one primary per vshard and epoch";

  it("onePrimaryPerEpoch compares the maps of one epoch", () => {
    expectOne(onePrimaryPerEpoch([...view("n0", 1), ...view("n1", 1), ...view("n1", 2, other)]), rule);
    const split = [...view("n0", 1), ...view("n1", 1), ...view("n2", 1, other)];
    expectOne(
      onePrimaryPerEpoch(split),
      rule,
      /epoch 1: n0 and n2 name 0 and 1 as primary of vshard 2, and differ in 1$/,
    );
    const short = [...view("n0", 1), { node: "n1", mapEpoch: 1, owners: [0, 1] }];
    expectOne(onePrimaryPerEpoch(short), rule, /have 4 and 2 vshards/);
  });

  it("onePrimaryPerEpoch keeps what it saw, though the map is in shared memory and changes", () => {
    const owners = Uint16Array.of(0, 1);
    function* views(): Generator<{ node: string; mapEpoch: number; owners: Uint16Array }> {
      yield { node: "n0", mapEpoch: 1, owners };
      owners[0] = 1;
      yield { node: "n0", mapEpoch: 1, owners };
    }
    expectOne(onePrimaryPerEpoch(views()), rule, /name 0 and 1 as primary of vshard 0/);
  });

  const deeds = (...list: readonly (readonly [vshard: number, epoch: number, shard: number])[]): PrimaryDeed[] =>
    list.map(([vshard, epoch, shard]) => ({ what: "read", vshard, epoch, shard }));

  it.each<[string, PrimaryDeed[], RegExp?]>([
    ["nobody", []],
    ["one after the other", deeds([0, 1, 0], [1, 1, 1], [0, 1, 0], [0, 4, 1], [0, 6, 0], [1, 1, 1])],
    ["the same one in a new epoch", deeds([0, 1, 0], [0, 2, 0])],
    [
      "two in one epoch",
      deeds([0, 1, 0], [0, 1, 1]),
      /^vshard 0: shard 1 read in epoch 1 after shard 0 read in epoch 1$/,
    ],
    [
      "one that is over",
      deeds([0, 1, 0], [0, 4, 1], [0, 1, 0], [0, 4, 1], [0, 1, 0]),
      /shard 0 read in epoch 1 after .* 4$/,
    ],
    [
      "one that is over for itself",
      deeds([0, 4, 0], [0, 1, 0]),
      /shard 0 read in epoch 1 after shard 0 read in epoch 4/,
    ],
  ])("onePrimaryActs: %s", (_, list, message) => {
    expectOne(onePrimaryActs(list), "one primary acts per vshard and epoch", message);
  });
});
