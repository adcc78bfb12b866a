/** Whom a copy believes to be its primary: each rule alone, and any messages in any order against what has been heard. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Fences } from "../../../actors/replication/fences.ts";
import type { TopologySnapshot } from "../../../src/topology/snapshot.ts";

const OWN = 0;
const VSHARD = 1;

/** A map of this version, in which the vshard has this primary since that version. */
function mapOf(mapVersion: number, owner: number, term: number): TopologySnapshot {
  return {
    mapVersion,
    owners: Uint16Array.of(9, owner),
    terms: Uint32Array.of(1, term),
  } as unknown as TopologySnapshot;
}

function hears(fences: Fences, sender: number, mapVersion: number, snapshot: TopologySnapshot): boolean {
  try {
    fences.assertNewest(VSHARD, sender, mapVersion, snapshot);
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: "ERR_STALE_EPOCH" });
    return false;
  }
}

test("the primary of the own map is believed, in its term and later; nobody else is by that map or an older one", () => {
  const fences = new Fences(OWN);
  const known = mapOf(7, 2, 5);
  expect([4, 5, 6, 7].map((mapVersion) => hears(fences, 2, mapVersion, known))).toEqual([false, true, true, true]);
  expect([4, 5, 6, 7].map((mapVersion) => hears(fences, 3, mapVersion, known))).toEqual([false, false, false, false]);
  expect(fences.isAhead(VSHARD, known)).toBe(false);
});

test("who speaks by a newer map is believed, and nobody before him any more, until the own map is as new", () => {
  const fences = new Fences(OWN);
  const known = mapOf(7, 2, 5);
  expect(hears(fences, 3, 9, known)).toBe(true);
  expect(fences.isAhead(VSHARD, known)).toBe(true);
  expect(hears(fences, 2, 7, known), "the primary of before, by the map that is known here").toBe(false);
  expect(hears(fences, 4, 8, known), "one in between, whose news come late").toBe(false);
  expect(hears(fences, 3, 9, known)).toBe(true);
  expect(fences.isAhead(0, known), "another vshard").toBe(false);
  const caughtUp = mapOf(9, 3, 9);
  expect(fences.isAhead(VSHARD, caughtUp)).toBe(false);
  expect([hears(fences, 2, 7, caughtUp), hears(fences, 3, 9, caughtUp)]).toEqual([false, true]);
});

test("who takes itself for the primary believes nobody, however new his map, and is not fenced off by what it refused", () => {
  const fences = new Fences(OWN);
  const known = mapOf(7, OWN, 5);
  expect([hears(fences, 3, 9, known), fences.isAhead(VSHARD, known)]).toEqual([false, false]);
});

test("once a primary was believed nobody is who was one before, whatever comes in whatever order", () => {
  // Map versions are terms, and every map has another primary, whose messages come in order: so none has to be told apart from its own older ones.
  const ownerAt = (mapVersion: number): number => mapVersion;
  const message = fc.record({ speaks: fc.integer({ min: 1, max: 12 }), learns: fc.integer({ min: 0, max: 2 }) });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 30 }), (messages) => {
      const fences = new Fences(OWN);
      let known = 1;
      let newest = 1;
      for (const { speaks, learns } of messages) {
        known = Math.min(12, known + learns);
        newest = Math.max(newest, known);
        const isBelieved = hears(fences, ownerAt(speaks), speaks, mapOf(known, ownerAt(known), known));
        expect(isBelieved, `map ${speaks}, where ${known} is known and ${newest} was heard`).toBe(speaks >= newest);
        if (isBelieved) newest = Math.max(newest, speaks);
        expect(fences.isAhead(VSHARD, mapOf(known, ownerAt(known), known))).toBe(newest > known);
      }
    }),
  );
});
