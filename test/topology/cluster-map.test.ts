/** The record of the map, and who takes vshards over. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  assertMember,
  decodeMap,
  encodeMap,
  firstMap,
  followersOf,
  isNodeRemoved,
  resolveMap,
  withLeaving,
  withLife,
  withMember,
  withMoved,
  withRemoved,
} from "../../src/topology/cluster-map.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { planTakeover, type TakeoverRules } from "../../src/topology/takeover.ts";

const SHARDS = 4;
const VSHARDS = 8;
const FACTOR = 3;
const PLACED = createSnapshot({ shards: SHARDS, vshards: VSHARDS, replicationFactor: FACTOR }).copies;
const nodeOf = (shard: number): string => `n${shard >> 1}`;
const resolve = (map: ReturnType<typeof firstMap>) => resolveMap(map, PLACED, FACTOR, nodeOf);

describe("a map record", () => {
  test("begins as the placement, in the first term, also when all nodes have registered their first life", () => {
    const map = withLife(withLife(firstMap(), "n0", 1, 1), "n1", 1, 1);
    expect(map.version).toBe(1);
    expect(resolve(map).copies).toEqual(PLACED);
    expect([...resolve(map).terms]).toEqual(new Array(VSHARDS).fill(1));
  });

  test("gives no term twice to a vshard: not to two primaries, not to two lives of one (property)", () => {
    const step = fc.oneof(
      fc.record({ node: fc.constantFrom("n0", "n1"), restart: fc.boolean() }),
      fc.record({ vshard: fc.nat(VSHARDS - 1), turn: fc.integer({ min: 1, max: FACTOR - 1 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        let map = withLife(withLife(firstMap(), "n0", 1, 1), "n1", 1, 1);
        const lives = new Map([
          ["n0", 1],
          ["n1", 1],
        ]);
        let epoch = 1;
        /** By vshard and term, who was primary then, in which life. */
        const known = new Map<string, string>();
        let last: number[] = [...resolve(map).terms];
        for (const each of steps) {
          const { version } = map;
          if ("node" in each) {
            const life = (lives.get(each.node) as number) + Number(each.restart);
            lives.set(each.node, life);
            map = withLife(map, each.node, life, ++epoch);
            expect(map.version > version).toBe(each.restart);
          } else {
            const from = each.vshard * FACTOR;
            const list = [...resolve(map).copies.subarray(from, from + FACTOR)];
            map = withMoved(map, new Map([[each.vshard, [...list.slice(each.turn), ...list.slice(0, each.turn)]]]));
            expect(map.version).toBeGreaterThan(version);
          }
          map = decodeMap(encodeMap(map));
          const { copies, terms } = resolve(map);
          for (let vshard = 0; vshard < VSHARDS; vshard++) {
            const owner = copies[vshard * FACTOR] as number;
            const who = `${owner} in life ${lives.get(nodeOf(owner))}`;
            const key = `${vshard} ${terms[vshard]}`;
            expect(known.get(key) ?? who).toBe(who);
            known.set(key, who);
            expect(terms[vshard]).toBeGreaterThanOrEqual(last[vshard] as number);
          }
          last = [...terms];
        }
      }),
    );
  });

  test("without a shard has its followers in its places, and all else as it was (property)", () => {
    const turn = fc.record({ vshard: fc.nat(VSHARDS - 1), by: fc.integer({ min: 1, max: FACTOR - 1 }) });
    fc.assert(
      fc.property(fc.array(turn, { maxLength: 10 }), fc.nat(SHARDS - 1), (turns, gone) => {
        let map = firstMap();
        const listOf = (list: Uint16Array, vshard: number): number[] => [
          ...list.subarray(vshard * FACTOR, (vshard + 1) * FACTOR),
        ];
        const move = (vshard: number, by: number): void => {
          const list = listOf(resolve(map).copies, vshard);
          map = withMoved(map, new Map([[vshard, [...list.slice(by), ...list.slice(0, by)]]]));
        };
        for (const { vshard, by } of turns) move(vshard, by);
        for (let vshard = 0; vshard < VSHARDS; vshard++)
          if (resolve(map).copies[vshard * FACTOR] === gone) move(vshard, 1);
        const before = createSnapshot({ shards: SHARDS, vshards: VSHARDS, replicationFactor: FACTOR, ...resolve(map) });
        const all = Array.from({ length: SHARDS }, (_, shard) => shard);
        const followers = new Map<number, number[]>();
        for (let vshard = 0; vshard < VSHARDS; vshard++) {
          const list = listOf(before.copies, vshard);
          if (list.includes(gone)) followers.set(vshard, all.filter((shard) => !list.includes(shard)).slice(0, 1));
        }
        const next = decodeMap(encodeMap(withRemoved(map, before, [gone], followers)));
        expect(next).toMatchObject({ version: map.version + 1, removed: [gone] });
        for (let vshard = 0; vshard < VSHARDS; vshard++) {
          const follow = (shard: number): number => (shard === gone ? (followers.get(vshard)?.[0] as number) : shard);
          const { copies, places, given, terms } = resolve(next);
          expect(listOf(copies, vshard)).toEqual(listOf(before.copies, vshard).map(follow));
          expect(listOf(places, vshard)).toEqual(listOf(before.places, vshard).map(follow));
          expect(terms[vshard]).toBe(before.terms[vshard]);
          expect(
            listOf(places, vshard).map((shard) => shard !== gone && followers.get(vshard)?.includes(shard) === true),
          ).toEqual(listOf(Uint16Array.from(given), vshard).map(Boolean));
        }
        // Places stay when primaries change later.
        map = next;
        const { places } = resolve(map);
        for (const { vshard, by } of turns) move(vshard, by);
        expect(resolve(map).places).toEqual(places);
        expect(map.removed).toEqual([gone]);
      }),
    );
  });

  test("without a node has as many followers as it had copies, and another primary only where it was", () => {
    const before = createSnapshot({ shards: SHARDS, vshards: VSHARDS, replicationFactor: 2 });
    const gone = [2, 3];
    const planned = createSnapshot({ shards: 2, vshards: VSHARDS, replicationFactor: 2 }).copies;
    const followers = followersOf(before, planned, gone);
    const map = withRemoved(withLeaving(firstMap(), "n1", true), before, gone, followers);
    const { copies, given, terms } = resolveMap(map, before.copies, 2, nodeOf);
    for (let vshard = 0; vshard < VSHARDS; vshard++) {
      const [primary, second] = before.copies.subarray(2 * vshard, 2 * vshard + 2) as unknown as [number, number];
      const [next, other] = copies.subarray(2 * vshard, 2 * vshard + 2) as unknown as [number, number];
      expect([next, other].toSorted((a, b) => a - b)).toEqual([0, 1]);
      if (!gone.includes(primary)) expect(next).toBe(primary);
      if (!gone.includes(second)) expect(other).toBe(second);
      expect(terms[vshard]).toBe(gone.includes(primary) ? map.version : 1);
      const kept = [primary, second].filter((shard) => !gone.includes(shard)).length;
      expect(given.subarray(2 * vshard, 2 * vshard + 2).reduce((sum, each) => sum + each, 0)).toBe(2 - kept);
    }
    expect(followersOf(before, before.copies, gone).get(2)).toEqual([]); // nobody is left to hold them
    expect([isNodeRemoved(map, gone), isNodeRemoved(map, [1]), isNodeRemoved(map, [])]).toEqual([true, false, false]);
    expect(withMember(map, "n1", gone, 2, 7)).toBeUndefined();
    expect(withMember(map, "n0", [0, 1], 2, 7)?.lives).toEqual({
      n0: { incarnation: 2, leaseEpoch: 7, term: map.version + 1 },
    });
    expect(() => assertMember(map, "n1", gone)).toThrow(expect.objectContaining({ code: "ERR_UNTRUSTED" }));
    const back = withLeaving(withLeaving(firstMap(), "n1", true), "n1", false);
    expect(back).toMatchObject({ version: 3, leaving: [] });
  });

  test("of bytes that are none is refused typed", () => {
    for (const text of ["", "{", "null", "[]", '{"version":1}', '{"version":"1","lives":{},"moved":{}}'])
      expect(() => decodeMap(new TextEncoder().encode(text))).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
  });
});

describe("a takeover", () => {
  const snapshot = createSnapshot({ shards: SHARDS, vshards: VSHARDS, replicationFactor: FACTOR });
  const rules: TakeoverRules = { isLost: (shard) => shard === 1, rank: () => 2, appliedLsn: () => 5 };

  test("gives the vshards of the lost, and no others, to holders of copies, evenly", () => {
    const moved = planTakeover(snapshot, rules);
    const lost = [...snapshot.owners].flatMap((owner, vshard) => (owner === 1 ? [vshard] : []));
    expect([...moved.keys()]).toEqual(lost);
    for (const [vshard, list] of moved) {
      const before = snapshot.copies.subarray(vshard * FACTOR, (vshard + 1) * FACTOR);
      expect(list[0]).not.toBe(1);
      expect(new Set(list)).toEqual(new Set(before));
    }
    expect(new Set([...moved.values()].map(([next]) => next)).size).toBe(2);
  });

  test("prefers who is accused of nothing, then who is furthest; nobody is chosen who is down", () => {
    const [vshard = 0] = planTakeover(snapshot, rules).keys();
    const [, second, third] = snapshot.copies.subarray(vshard * FACTOR, (vshard + 1) * FACTOR);
    const next = (other: Partial<TakeoverRules>): number | undefined =>
      planTakeover(snapshot, { ...rules, ...other }).get(vshard)?.[0];
    const furthest = (_: number, shard: number): number => (shard === third ? 9 : 5);
    expect(next({ appliedLsn: furthest })).toBe(third);
    const accused = (shard: number): number => (shard === third ? 1 : 2);
    expect(next({ appliedLsn: furthest, rank: accused })).toBe(second);
    expect(next({ rank: () => 0 })).toBeUndefined();
  });
});
