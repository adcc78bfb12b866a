/** Shrinking against predicates whose smallest failing parts are known. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createVirtualTime } from "../../src/runtime/scheduler.ts";
import { ddmin, type FirstFailing, shortestPrefix } from "../../src/sim/ddmin.ts";
import type { DrawnFault, Fault, TimedFault } from "../../src/sim/fault-types.ts";
import { type RunScenario, type Scenario, type ShrinkProgress, shrink } from "../../src/sim/shrink.ts";
import type { Operation } from "../../src/sim/workload-types.ts";

const RULE = "no acknowledged write lost";

function drop(ordinal: number, site = "n0>n1"): DrawnFault {
  return { kind: "drop", site, ordinal, size: 0.5 };
}

function write(process: number, value: number, afterMs = 0): Operation {
  return { process, f: "write", value, afterMs };
}

/** Runs that break a rule when a predicate holds; counts them, and notes every scenario. */
function runner(fails: (scenario: Scenario) => boolean, rule = RULE): { run: RunScenario; ran: Scenario[] } {
  const ran: Scenario[] = [];
  const run: RunScenario = async (scenario) => {
    ran.push(scenario);
    const violation = { rule, message: `run ${ran.length}`, entries: [] };
    return { violations: fails(scenario) ? [violation] : [] };
  };
  return { run, ran };
}

/** Asks one after the other, as shrink does. */
function asking<T>(fails: (list: readonly T[]) => boolean, asked: (readonly T[])[] = []): FirstFailing<T> {
  return async (candidates) => {
    let index = 0;
    for (const candidate of candidates) {
      asked.push(candidate);
      if (fails(candidate)) return index;
      index++;
    }
    return -1;
  };
}

describe("ddmin", () => {
  it("finds exactly the items that are needed together", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 200 }), fc.infiniteStream(fc.nat()), async (length, numbers) => {
        const items = Array.from({ length }, (_, index) => index);
        const needed = new Set([...numbers.take(4)].map((number) => number % length));
        const found = await ddmin(
          items,
          asking((list) => [...needed].every((item) => list.includes(item))),
        );
        expect(found).toEqual([...needed].sort((a, b) => a - b));
      }),
    );
  });

  it("returns a failing, 1-minimal part in order for any predicate, monotone or not", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 24 }), fc.integer(), async (length, salt) => {
        const items = Array.from({ length }, (_, index) => index);
        const fails = (list: readonly number[]): boolean =>
          list.length === length || (list.length > 0 && hash(list, salt) % 3 === 0);
        const found = await ddmin(items, asking(fails));
        expect(fails(found)).toBe(true);
        expect(found).toEqual([...found].sort((a, b) => a - b));
        for (let left = 0; left < found.length; left++) expect(fails(found.toSpliced(left, 1))).toBe(false);
      }),
    );
  });

  it("needs about log n runs for one item, and none but one for none", async () => {
    const items = Array.from({ length: 1024 }, (_, index) => index);
    const asked: (readonly number[])[] = [];
    expect(
      await ddmin(
        items,
        asking((list) => list.includes(777), asked),
      ),
    ).toEqual([777]);
    expect(asked.length).toBeLessThanOrEqual(1 + 2 * 10);
    asked.length = 0;
    expect(
      await ddmin(
        items,
        asking(() => true, asked),
      ),
    ).toEqual([]);
    expect(asked).toEqual([[]]);
    expect(
      await ddmin(
        [],
        asking(() => true),
      ),
    ).toEqual([]);
  });
});

describe("shortestPrefix", () => {
  it("cuts behind the last item that is needed", async () => {
    const items = Array.from({ length: 1000 }, (_, index) => index);
    expect(
      await shortestPrefix(
        items,
        asking((list) => list.includes(123)),
      ),
    ).toHaveLength(124);
    expect(
      await shortestPrefix(
        items,
        asking(() => false),
      ),
    ).toHaveLength(1000);
  });
});

describe("shrink", () => {
  const faults = Array.from({ length: 60 }, (_, ordinal) => drop(ordinal));
  const operations = Array.from({ length: 300 }, (_, value) => write(value % 8, value, 1.25));
  const failing = { nodes: 5, faults, operations, rule: RULE };
  const needs =
    (ordinals: readonly number[], values: readonly number[]) =>
    (scenario: Scenario): boolean =>
      ordinals.every((ordinal) => scenario.faults.some((fault) => "ordinal" in fault && fault.ordinal === ordinal)) &&
      values.every((value) => scenario.operations.some((operation) => operation.value === value));

  it("keeps the faults and operations that the failure needs, and no other", async () => {
    const { run, ran } = runner(needs([3, 41], [17, 205, 206]));
    const small = await shrink(run, failing);
    expect(small.faults).toEqual([
      { ...drop(3), size: 0 },
      { ...drop(41), size: 0 },
    ]);
    expect(small.operations.map(({ value, afterMs }) => [value, afterMs])).toEqual([
      [17, 0],
      [205, 0],
      [206, 0],
    ]);
    expect(small.nodes).toBe(2);
    expect([...new Set(small.operations.map(({ process }) => process))].sort((a, b) => a - b)).toEqual([0, 1, 2]);
    expect(small.isMinimal).toBe(true);
    expect(small.runs).toBe(ran.length);
    expect(small.runs).toBeLessThan(200);
    expect(small.violation.rule).toBe(RULE);
  });

  it("never takes another failure for the same", async () => {
    const fails = needs([7], [9]);
    const run: RunScenario = async (scenario) => {
      // Everything breaks some rule; only with its parts the one that is looked for.
      const violations = [{ rule: "another rule", message: "", entries: [] }];
      if (fails(scenario)) violations.push({ rule: RULE, message: "", entries: [] });
      return { violations };
    };
    const small = await shrink(run, failing);
    expect(small.violation.rule).toBe(RULE);
    expect(fails(small)).toBe(true);
    expect([small.faults.length, small.operations.length]).toEqual([1, 1]);
  });

  it("ends with what failed, no larger than the input, for any outcome of the runs", async () => {
    const fault: fc.Arbitrary<Fault> = fc.oneof(
      fc.record({
        kind: fc.constant("delay" as const),
        site: fc.constant("n0>n1"),
        ordinal: fc.nat(50),
        size: fc.double({ min: 0, max: 0.99, noNaN: true }),
      }),
      fc.record({
        kind: fc.constant("crash" as const),
        atMs: fc.double({ min: 0, max: 1e5, noNaN: true }),
        durationMs: fc.double({ min: 0, max: 1e4, noNaN: true }),
        targets: fc.constantFrom(["n0"], ["n2"]),
        size: fc.constant(0.3),
      }),
    );
    const operation = fc.record({
      process: fc.nat(5),
      f: fc.constant("write"),
      value: fc.nat(9),
      afterMs: fc.double({ min: 0, max: 50, noNaN: true }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fault, { maxLength: 8 }),
        fc.array(operation, { maxLength: 8 }),
        fc.integer(),
        async (faultList, operationList, salt) => {
          const input = { nodes: 3, faults: faultList, operations: operationList };
          const outcome = (scenario: Scenario): boolean =>
            JSON.stringify(scenario) === JSON.stringify(input) || hash(scenario, salt) % 3 === 0;
          const { run, ran } = runner(outcome);
          const small = await shrink(run, { ...input, rule: RULE }, { maxRuns: 5_000 });
          const { nodes, faults: kept, operations: keptOperations } = small;
          expect(outcome({ nodes, faults: kept, operations: keptOperations })).toBe(true);
          expect(nodes).toBeLessThanOrEqual(3);
          expect(kept.length).toBeLessThanOrEqual(faultList.length);
          expect(keptOperations.length).toBeLessThanOrEqual(operationList.length);
          expect(new Set(ran.map((scenario) => JSON.stringify(scenario))).size).toBe(ran.length);
          // 1-minimal, as every way to leave one out was tried and passed.
          if (small.isMinimal)
            for (let left = 0; left < kept.length; left++)
              expect(outcome({ nodes, faults: kept.toSpliced(left, 1), operations: keptOperations })).toBe(false);
        },
      ),
      { numRuns: 150 },
    );
  });

  it("makes timed faults shorter, smaller, rounder and earlier while they still fail", async () => {
    const crash: TimedFault = { kind: "crash", atMs: 7_316.42, durationMs: 4_821.7, targets: ["n2"], size: 0.7361 };
    const { run } = runner(({ faults: [fault] }) => {
      if (fault === undefined || !("atMs" in fault)) return false;
      return fault.durationMs >= 1_000 && fault.atMs >= 5_000.5 && fault.size > 0.6;
    });
    const small = await shrink(run, { nodes: 5, faults: [crash], operations: [], rule: RULE });
    expect(small.faults).toEqual([{ kind: "crash", atMs: 7_000, durationMs: 1_000, targets: ["n2"], size: 0.7 }]);
    // Node 2 is named, so three must be there.
    expect(small.nodes).toBe(3);
  });

  it("gives the same with several runs at a time", async () => {
    const fails = (scenario: Scenario): boolean => scenario === failing || scenario.faults.length % 3 === 0;
    const one = await shrink(runner(fails).run, failing);
    const { wallMs: _, runs: __, ...rest } = await shrink(runner(fails).run, failing, { concurrency: 3 });
    expect(one).toMatchObject({ ...rest, violation: expect.anything() });
  });

  it("counts runs that throw as no answer", async () => {
    const fails = needs([3], [17]);
    const run: RunScenario = async (scenario) => {
      if (scenario.operations.length === 0) throw new Error("a run needs operations");
      return { violations: fails(scenario) ? [{ rule: RULE, message: "", entries: [] }] : [] };
    };
    const small = await shrink(run, failing);
    expect(small.operations).toHaveLength(1);
    expect(small.unresolved).toBeGreaterThan(0);
  });

  it("returns the best so far when the wall limit passes, and aborts the run under way", async () => {
    const time = createVirtualTime();
    const fails = needs([3], [17]);
    const aborted: boolean[] = [];
    const run: RunScenario = (scenario, { signal }) =>
      new Promise((resolve, reject) => {
        const end = (): void => {
          cancel();
          aborted.push(true);
          reject(new Error("aborted"));
        };
        const cancel = time.scheduler.after(1_000, () => {
          signal.removeEventListener("abort", end);
          resolve({ violations: fails(scenario) ? [{ rule: RULE, message: "", entries: [] }] : [] });
        });
        signal.addEventListener("abort", end);
      });
    const shrinking = shrink(run, failing, { wallLimitMs: 10_500, clock: time.clock, scheduler: time.scheduler });
    await time.advance(20_000);
    const small = await shrinking;
    expect(small.isMinimal).toBe(false);
    expect(small.runs).toBe(11);
    expect(aborted).toEqual([true]);
    expect(small.wallMs).toBe(10_500);
    expect(fails(small)).toBe(true);
    expect(small.operations.length).toBeLessThan(operations.length);
  });

  it("stops at the signal and at the number of runs", async () => {
    const controller = new AbortController();
    const fails = needs([3], [17]);
    const seen: ShrinkProgress[] = [];
    const small = await shrink(runner(fails).run, failing, {
      signal: controller.signal,
      onProgress: (progress) => {
        seen.push(progress);
        if (progress.runs === 6) controller.abort();
      },
    });
    expect(small).toMatchObject({ runs: 6, isMinimal: false });
    expect(fails(small)).toBe(true);
    expect(seen.at(-1)).toMatchObject({ faults: small.faults.length, operations: small.operations.length });
    expect(await shrink(runner(fails).run, failing, { maxRuns: 1 })).toMatchObject({ runs: 1, faults, operations });
  });

  it("refuses what does not fail again, and bad options", async () => {
    await expect(shrink(runner(() => false).run, failing)).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringContaining(RULE),
    });
    await expect(shrink(runner(() => true, "another").run, failing)).rejects.toThrow(/breaks another/);
    for (const options of [{ wallLimitMs: -1 }, { wallLimitMs: Number.NaN }, { maxRuns: 0 }, { concurrency: 1.5 }]) {
      await expect(shrink(runner(() => true).run, failing, options)).rejects.toMatchObject({
        code: "ERR_INVALID_ARGUMENT",
      });
    }
  });
});

/** A stable pseudo-random number of a value. */
function hash(value: unknown, salt: number): number {
  let state = salt | 0;
  for (const character of JSON.stringify(value))
    state = Math.imul(state ^ character.charCodeAt(0), 0x01000193) ^ (state >>> 15);
  return (state ^ (state >>> 16)) >>> 0;
}
