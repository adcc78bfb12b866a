import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readGoals } from "../../bench/harness/goals.ts";
import { measureMerge } from "../../bench/micro/merge.ts";
import { ShardloomError } from "../../src/errors.ts";
import { compareRanked, type MergeOptions, mergeRanked, type Ranked } from "../../src/routing/merge.ts";
import type { RankDirection, RankPosition } from "../../src/routing/ranked.ts";

const RUNS = { numRuns: 500 };

const id = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.string({ maxLength: 2 }));
const score = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: -6, max: 6 }).map((n) => n / 4) },
  fc.constantFrom(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0, Number.MAX_VALUE, Number.MIN_VALUE),
);
const answer = fc.record({ id, score, version: fc.integer({ min: 0, max: 5 }) });
const lists = fc.array(fc.array(answer, { maxLength: 14 }), { maxLength: 7 });
const direction = fc.constantFrom<RankDirection>("ascending", "descending");
const k = fc.integer({ min: 0, max: 24 });

function order(way: RankDirection): (a: RankPosition, b: RankPosition) => number {
  return (a, b) => compareRanked(a, b, way === "ascending" ? 1 : -1);
}

function sorted<T extends Ranked>(raw: readonly (readonly T[])[], way: RankDirection): T[][] {
  return raw.map((list) => [...list].sort(order(way)));
}

/** The plain reading of the contract: concatenate, keep of each id the highest version (the first in rank of equal ones), sort, cut. */
function model(raw: readonly (readonly Ranked[])[], limit: number, way: RankDirection, after?: RankPosition): Ranked[] {
  const all = raw.flat().sort(order(way));
  const best = new Map<string | number, Ranked>();
  for (const entry of all) if (entry.version > (best.get(entry.id)?.version ?? -1)) best.set(entry.id, entry);
  return all
    .filter((entry) => best.get(entry.id) === entry && (after === undefined || order(way)(entry, after) > 0))
    .slice(0, limit);
}

function tie(value: string | number, version = 0): Ranked {
  return { id: value, score: 0, version };
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return ShardloomError.is(error) ? error.code : "not ours";
  }
  return "no error";
}

describe("mergeRanked()", () => {
  it("equals concatenate, dedupe by id and version, sort and cut", () => {
    fc.assert(
      fc.property(lists, k, direction, (raw, limit, way) => {
        expect(mergeRanked(sorted(raw, way), limit, { direction: way })).toEqual(model(raw, limit, way));
      }),
      RUNS,
    );
  });

  it("continues after any position, whether or not an answer stands there", () => {
    fc.assert(
      fc.property(lists, k, direction, fc.record({ id, score }), (raw, limit, way, after) => {
        expect(mergeRanked(sorted(raw, way), limit, { direction: way, after })).toEqual(model(raw, limit, way, after));
      }),
      RUNS,
    );
  });

  it("gives pages that concatenate to exactly the whole", () => {
    fc.assert(
      fc.property(lists, fc.integer({ min: 1, max: 5 }), direction, (raw, size, way) => {
        const input = sorted(raw, way);
        const pages: Ranked[] = [];
        let after: Ranked | undefined;
        for (;;) {
          const page = mergeRanked(input, size, { direction: way, after });
          pages.push(...page);
          after = page.at(-1);
          if (page.length < size) break;
        }
        expect(pages).toEqual(model(raw, 1_000, way));
      }),
      RUNS,
    );
  });

  it("gives the same for generators, whole or disjoint", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uniqueArray(answer, { selector: (entry) => entry.id, maxLength: 12 }), { maxLength: 6 }),
        k,
        direction,
        fc.option(fc.record({ id, score }), { nil: undefined }),
        (raw, limit, way, after) => {
          const taken = new Set<string | number>();
          const apart = raw.map((list) => list.filter((entry) => !taken.has(entry.id) && taken.add(entry.id)));
          const input = sorted(apart, way);
          const wanted = model(apart, limit, way, after);
          const options: MergeOptions = { direction: way, after };
          const generators = (): Iterable<Ranked>[] => input.map((list) => list.values());
          expect(mergeRanked(generators(), limit, options)).toEqual(wanted);
          expect(mergeRanked(generators(), limit, { ...options, disjoint: true })).toEqual(wanted);
          expect(mergeRanked(input, limit, { ...options, disjoint: true })).toEqual(wanted);
        },
      ),
      RUNS,
    );
  });

  it("keeps its promises of form when lists said to be disjoint are not", () => {
    fc.assert(
      fc.property(lists, k, direction, (raw, limit, way) => {
        const merged = mergeRanked(sorted(raw, way), limit, { direction: way, disjoint: true });
        expect(new Set(merged.map((entry) => entry.id)).size).toBe(merged.length);
        expect(merged.length).toBe(Math.min(limit, new Set(raw.flat().map((entry) => entry.id)).size));
        expect([...merged].sort(order(way))).toEqual(merged);
      }),
      RUNS,
    );
  });

  it("keeps the higher version of an id, at the place of its own score", () => {
    const old = { id: "a", score: 1, version: 1 };
    const fresh = { id: "a", score: 3, version: 2 };
    const other = { id: "b", score: 2, version: 1 };
    expect(mergeRanked([[old], [other, fresh]], 3)).toEqual([other, fresh]);
    expect(mergeRanked([[{ ...old, version: 9 }], [other, fresh]], 3)).toEqual([{ ...old, version: 9 }, other]);
  });

  it("does not give an old version whose newer one ranks behind the cut", () => {
    const old = { id: "a", score: 1, version: 1 };
    const others = Array.from({ length: 50 }, (_, at) => ({ id: at, score: 2 + at, version: 1 }));
    const fresh = { id: "a", score: 1_000, version: 2 };
    expect(mergeRanked([[old], [...others, fresh]], 2)).toEqual(others.slice(0, 2));
    expect(mergeRanked([[old], [...others, fresh]], 2, { after: { id: 48, score: 50 } })).toEqual([others[49], fresh]);
  });

  it("gives an object once that is in two lists, and of equal answers that of the first list", () => {
    const shared = tie("x");
    expect(mergeRanked([[shared], [shared], [tie("x", 1), tie("y")]], 9)).toEqual([tie("x", 1), tie("y")]);
    expect(mergeRanked([[shared], [shared]], 9)).toEqual([shared]);
    const [first, second] = [tie(1), tie(1)];
    expect(mergeRanked([[first], [second]], 2)[0]).toBe(first);
    expect(mergeRanked([[first], [tie(0, 1), second], [tie(0, 2)]], 2)[1]).toBe(first);
  });

  it("breaks ties by id, numbers before strings, in both directions", () => {
    const input = [
      [tie(2), tie("a")],
      [tie(10), tie("B")],
    ];
    for (const way of ["ascending", "descending"] as const)
      expect(mergeRanked(input, 9, { direction: way }).map((entry) => entry.id)).toEqual([2, 10, "B", "a"]);
  });

  it("merges nothing, empty lists and k of 0", () => {
    expect(mergeRanked([], 5)).toEqual([]);
    expect(mergeRanked([[], []], 5)).toEqual([]);
    expect(mergeRanked([[tie(1)]], 0)).toEqual([]);
    expect(mergeRanked([[tie(1)], [][Symbol.iterator]()], 0, { disjoint: true })).toEqual([]);
  });

  it("pulls from disjoint lists no more than it needs, and closes them however it ends", () => {
    let closed = 0;
    const pulled = [0, 0];
    function* endless(list: number, spoilt?: number): Generator<Ranked> {
      try {
        for (let at = 0; ; at++) {
          pulled[list] = (pulled[list] ?? 0) + 1;
          yield { id: `${list}:${at}`, score: at === spoilt ? Number.NaN : at * 2 + list, version: 0 };
        }
      } finally {
        closed++;
      }
    }
    expect(mergeRanked([endless(0), endless(1)], 3, { disjoint: true }).map((entry) => entry.score)).toEqual([0, 1, 2]);
    expect(pulled).toEqual([2, 2]);
    expect(closed).toBe(2);
    expect(codeOf(() => mergeRanked([endless(0), endless(1, 0)], 3, { disjoint: true }))).toBe("ERR_CORRUPT");
    expect(closed).toBe(4);
    expect(codeOf(() => mergeRanked([endless(0), endless(1, 7)], 30, { disjoint: true }))).toBe("ERR_CORRUPT");
    expect(closed).toBe(6);
  });
});

describe("mergeRanked() refuses", () => {
  const good = Array.from({ length: 30 }, (_, at): Ranked => ({ id: at, score: at, version: 0 }));

  it("NaN in score, version or id, wherever it stands", () => {
    for (const part of ["score", "version", "id"] as const) {
      for (const at of [0, 1, 15, 29]) {
        const bad = good.map((entry, index) => (index === at ? { ...entry, [part]: Number.NaN } : entry));
        const work = (): unknown => mergeRanked([good.map((entry) => ({ ...entry, id: `s${entry.id}` })), bad], 2);
        expect(work).toThrow(`the ${part} of`);
        expect(codeOf(work)).toBe("ERR_CORRUPT");
      }
    }
    expect(() => mergeRanked([[{ id: 1, score: Number.NaN, version: 0 }]], 1)).toThrow(/score of 1 is NaN/);
  });

  it("a list that is not sorted in the direction asked for, also behind the cut or the cursor", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 28 }), fc.boolean(), (at, repeats) => {
        const bad = [...good];
        [bad[at], bad[at + 1]] = [bad[at + 1] as Ranked, bad[at] as Ranked];
        if (repeats) bad.push({ id: 0, score: 99, version: 7 });
        for (const after of [undefined, { id: 12, score: 12 }]) {
          expect(codeOf(() => mergeRanked([good, bad], 3, { after }))).toBe("ERR_CORRUPT");
        }
      }),
    );
    expect(() => mergeRanked([good], 3, { direction: "descending" })).toThrow(/list 0 must be sorted/);
    expect(() => mergeRanked([[], [tie("b"), tie("a")]], 1)).toThrow(/list 1 .* not sorted at "a"/);
    expect(() => mergeRanked([[tie("b"), tie("a")]], 2, { disjoint: true })).toThrow(/not sorted/);
  });

  it("bad k, direction and position", () => {
    for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY])
      expect(() => mergeRanked([good], bad)).toThrow(/k must be an integer ≥ 0/);
    expect(() => mergeRanked([good], 1, { direction: "up" as RankDirection })).toThrow(/direction must be/);
    expect(() => mergeRanked([good], 1, { after: { id: 1, score: Number.NaN } })).toThrow(/after\.score must be/);
    expect(() => mergeRanked([good], 1, { after: { id: Number.NaN, score: 1 } })).toThrow(/after\.id must be/);
    expect(codeOf(() => mergeRanked([good], 1, { after: { id: true as never, score: 1 } }))).toBe(
      "ERR_INVALID_ARGUMENT",
    );
  });
});

describe("the bench of mergeRanked()", () => {
  it("measures valid merges on every side and judges C2", async () => {
    const report = await measureMerge({ mode: "smoke", seed: 1, goals: readGoals(), inputs: {}, log: () => undefined });
    expect(report.rows).toHaveLength(8);
    expect(report.rows.every((row) => row.median > 0)).toBe(true);
    expect(report.goals.map((goal) => goal.id)).toEqual(["C2"]);
  });
});
