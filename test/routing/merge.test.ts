import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareRanked, mergeRanked, type Ranked } from "../../src/routing/merge.ts";

const id = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.string({ maxLength: 2 }));
const answer = fc.record({
  id,
  score: fc.integer({ min: 0, max: 12 }).map((n) => n / 4),
  version: fc.integer({ min: 0, max: 5 }),
});

/** Concatenate, keep the first of each id in rank order, sort, cut: the plain reading of the contract. */
function naive(lists: readonly Ranked[][], k: number): Ranked[] {
  const seen = new Set<string | number>();
  const sorted = lists.flat().sort(compareRanked);
  return sorted.filter((entry) => !seen.has(entry.id) && seen.add(entry.id)).slice(0, k);
}

describe("mergeRanked()", () => {
  it("equals concatenate-and-sort for lists without duplicate ids", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uniqueArray(answer, { selector: (entry) => entry.id, maxLength: 12 }), { maxLength: 6 }),
        fc.integer({ min: 1, max: 20 }),
        (raw, k) => {
          const taken = new Set<string | number>();
          const lists = raw.map((list) =>
            list.filter((entry) => !taken.has(entry.id) && taken.add(entry.id)).sort(compareRanked),
          );
          expect(mergeRanked(lists, k)).toEqual(naive(lists, k));
        },
      ),
      { numRuns: 500 },
    );
  });

  it("gives each id once, never more than k, in order", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(answer, { maxLength: 12 }), { maxLength: 6 }),
        fc.integer({ min: 1, max: 20 }),
        (raw, k) => {
          const merged = mergeRanked(
            raw.map((list) => [...list].sort(compareRanked)),
            k,
          );
          expect(new Set(merged.map((entry) => entry.id)).size).toBe(merged.length);
          expect(merged.length).toBeLessThanOrEqual(k);
          expect([...merged].sort(compareRanked)).toEqual(merged);
        },
      ),
      { numRuns: 500 },
    );
  });

  it("keeps the higher version of an id, at the place of its own score", () => {
    const old = { id: "a", score: 1, version: 1 };
    const fresh = { id: "a", score: 3, version: 2 };
    const other = { id: "b", score: 2, version: 1 };
    expect(mergeRanked([[old], [other, fresh]], 3)).toEqual([other, fresh]);
    expect(mergeRanked([[{ ...old, version: 9 }], [other, fresh]], 3)).toEqual([{ ...old, version: 9 }, other]);
  });

  it("breaks ties by id, numbers before strings", () => {
    const tie = (value: string | number): Ranked => ({ id: value, score: 0, version: 0 });
    expect(
      mergeRanked(
        [
          [tie(2), tie("a")],
          [tie(10), tie("B")],
        ],
        9,
      ).map((entry) => entry.id),
    ).toEqual([2, 10, "B", "a"]);
  });

  it("refuses NaN and unsorted lists", () => {
    expect(() => mergeRanked([[{ id: 1, score: Number.NaN, version: 0 }]], 1)).toThrow(/score of 1 is NaN/);
    const unsorted = [
      { id: 1, score: 2, version: 0 },
      { id: 2, score: 1, version: 0 },
    ];
    expect(() => mergeRanked([unsorted], 2)).toThrow(/not sorted/);
  });
});
