/** Owners' records of who holds ghosts: the newest change counts, in whatever order and however often changes come. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type GhostChange, GhostHolders } from "../../../../actors/graph/ghosts/ghost-holders.ts";
import { createManualClock } from "../../../../src/runtime/clock.ts";

interface Sent extends GhostChange {
  readonly holder: number;
  readonly epoch: number;
}

describe("ghost holders", () => {
  test("depend on what was sent last, not on the order of arrival", () => {
    const sent = fc
      .array(fc.record({ holder: fc.nat(2), epoch: fc.nat(1), key: fc.nat(3), references: fc.nat(2) }), {
        maxLength: 25,
      })
      .map((changes) => changes.map((change, version): Sent => ({ ...change, version })));
    const arrivals = sent.chain((changes) =>
      fc.tuple(fc.constant(changes), fc.shuffledSubarray([...changes, ...changes], { minLength: changes.length * 2 })),
    );
    fc.assert(
      fc.property(arrivals, fc.array(fc.nat(40)), ([changes, order], sweeps) => {
        const holders = new GhostHolders({ clock: createManualClock() });
        for (const [at, { holder, epoch, ...change }] of order.entries()) {
          holders.apply(holder, epoch, change);
          if (sweeps.includes(at)) holders.sweep();
        }
        let held = 0;
        for (let key = 0; key <= 3; key++) {
          const expected = new Map<number, number>();
          for (let holder = 0; holder <= 2; holder++) {
            const own = changes.filter((change) => change.holder === holder);
            const epoch = Math.max(-1, ...own.map((change) => change.epoch));
            const last = own.filter((change) => change.epoch === epoch && change.key === key).at(-1);
            if (last !== undefined && last.references > 0) expected.set(holder, last.references);
          }
          expect(holders.holdersOf(key).sort((a, b) => a - b)).toEqual([...expected.keys()]);
          for (const [holder, references] of expected) expect(holders.references(key, holder)).toBe(references);
          if (expected.size > 0) held++;
        }
        while (holders.sweep());
        expect(holders.size).toBe(held);
      }),
      { numRuns: 500 },
    );
  });

  test("remember what was deleted for a while, and then no longer", () => {
    const clock = createManualClock();
    const holders = new GhostHolders({ forgetMs: 100, clock });
    holders.apply(1, 1, { key: "a", references: 0, version: 5 });
    expect(holders.apply(1, 1, { key: "a", references: 1, version: 4 })).toBe(false);
    clock.setMs(101);
    holders.apply(1, 1, { key: "b", references: 1, version: 6 });
    expect(holders.apply(1, 1, { key: "a", references: 1, version: 7 })).toBe(true);
    expect(holders.holdersOf("a")).toEqual([1]);
  });

  test("do not forget what was made again after it was deleted", () => {
    const clock = createManualClock();
    const holders = new GhostHolders({ forgetMs: 100, clock });
    holders.apply(1, 1, { key: "a", references: 0, version: 1 });
    holders.apply(1, 1, { key: "a", references: 2, version: 2 });
    clock.setMs(500);
    holders.apply(1, 1, { key: "b", references: 1, version: 3 });
    expect(holders.references("a", 1)).toBe(2);
  });

  test("drop what a holder held that is gone, or has a new life", () => {
    const holders = new GhostHolders({ clock: createManualClock() });
    for (const holder of [1, 2]) holders.apply(holder, 1, { key: "a", references: 1, version: 1 });
    holders.removeHolder(1);
    expect(holders.holdersOf("a")).toEqual([2]);
    holders.apply(2, 2, { key: "b", references: 1, version: 1 });
    expect(holders.holdersOf("a")).toEqual([]);
    while (holders.sweep());
    expect(holders.size).toBe(1);
    holders.removeHolder(7);
    expect(holders.isSwept).toBe(true);
  });

  test("drop what a holder had in slices, and keep what it has again", () => {
    const holders = new GhostHolders({ clock: createManualClock() });
    const count = 10_000;
    for (let key = 0; key < count; key++) holders.apply(1, 1, { key, references: 1, version: key });
    holders.removeHolder(1);
    expect(holders.holdersOf(count - 1)).toEqual([]);
    for (let key = count - 100; key < count; key++) holders.apply(1, 2, { key, references: 2, version: key });
    let slices = 0;
    for (let before = holders.size; holders.sweep(); before = holders.size, slices++)
      expect(before - holders.size).toBeLessThanOrEqual(4096);
    expect(slices).toBeGreaterThan(2);
    expect(holders.size).toBe(100);
    expect(holders.holdersOf(count - 1)).toEqual([1]);
  });

  test("forget what was deleted little by little, and all of it", () => {
    const clock = createManualClock();
    const holders = new GhostHolders({ forgetMs: 100, clock });
    for (let key = 0; key < 40; key++) holders.apply(1, 1, { key, references: 0, version: 50 });
    clock.setMs(101);
    for (let key = 0; key < 10; key++) holders.apply(1, 1, { key: "other", references: 1, version: 51 + key });
    for (let key = 0; key < 40; key++) expect(holders.apply(1, 1, { key, references: 1, version: 0 })).toBe(true);
  });
});
