/** The seam: what each strategy answers to its four questions, and that no memory, message or shard comes from anywhere else. */
import { describe, expect, test } from "vitest";
import type { EngineRequest } from "../../../../actors/engine.ts";
import { readCollaborateRequest } from "../../../../actors/vector/cotra/collaborate-codec.ts";
import type { TopList } from "../../../../actors/vector/routing/top-list.ts";
import { COMPASS } from "../../../../actors/vector/strategy/compass-strategy.ts";
import { COTRA } from "../../../../actors/vector/strategy/cotra-strategy.ts";
import { readNearRequest } from "../../../../actors/vector/strategy/near-messages.ts";
import { SPIRE } from "../../../../actors/vector/strategy/spire-strategy.ts";
import {
  type DirectMessage,
  ONE_SIDED,
  type RoutedQuery,
  SCATTER,
  type SelectedShard,
} from "../../../../actors/vector/strategy/vector-strategy.ts";
import { VECTOR_COLLABORATE, VECTOR_NEAR, VECTOR_SPIRE } from "../../../../src/wire/message-types.ts";
import { wireMemory } from "../support.ts";

const GRAPH = { address: 4096, rkey: 77, length: 512 };
const SHARDS = [0, 1, 2].map((shard) => ({ shard }));
/** What the router was asked for. */
const targets: number[] = [];
/** What the router expects of shards. */
const shares: number[] = [];
/** Of leaves of which number l is shard l % 4's, and 6 the nearest. */
const QUERY: RoutedQuery = {
  collectionId: 9,
  code: Uint8Array.of(1, 2, 3),
  bytes: Uint8Array.of(1, 2, 3),
  k: 10,
  ef: 64,
  wanted: 18,
  selectivity: 0.5,
  recallTarget: 0.9,
  timeoutMs: 1_234,
  index: "leaves",
  spent: { distances: 0 },
  leaves: {
    router: {
      selectShards: (_, { recallTarget }) => {
        targets.push(recallTarget);
        const shards = [2, 3].map((shard) => ({
          shard,
          share: shares[shard],
          leaves: Int32Array.of(shard, shard + 4),
        }));
        return { shards, rule: "adaptive", unknown: [], computed: 0 } as never;
      },
      nearestLeaves: (_code, nearest: TopList) => {
        nearest.clear();
        nearest.offer(6, 0.5);
        return 1;
      },
      shardOf: (leaf) => leaf % 4,
    },
    entriesOf: (leaves, count) => [...leaves.subarray(0, count)].map((leaf) => 100 + leaf),
  },
};

function received({ payload }: DirectMessage): EngineRequest {
  const memory = wireMemory(payload.byteLength + 8);
  payload.write(memory, 0);
  return { ...memory, offset: 0, length: payload.byteLength };
}

test("scatter leaves all to the defaults; one-sided asks nobody, and reads", () => {
  expect(SCATTER).toEqual({ name: "scatter" });
  expect(Object.keys(ONE_SIDED)).toEqual(["name", "exposedRegion"]);
});

test.each([ONE_SIDED, COMPASS, SPIRE, COTRA])(
  "$name: the graph is what is read, and nothing while there is none",
  (of) => {
    expect(of.exposedRegion({ graph: GRAPH })).toBe(GRAPH);
    expect(of.exposedRegion({ graph: undefined })).toBeUndefined();
  },
);

describe("which shards, and what they are sent", () => {
  test("compass: those that the router chose, from the medoids of their leaves, and none where one is not there", () => {
    shares[2] = shares[3] = 0;
    expect(COMPASS.selectShards(QUERY, SHARDS)).toEqual([]);
    const selected = COMPASS.selectShards(QUERY, [...SHARDS, { shard: 3 }]);
    expect(selected).toEqual([2, 3].map((shard) => ({ shard, entries: [100 + shard, 104 + shard] })));
    expect(targets.at(-1), "half of what may be lost is for the searches").toBeCloseTo(0.95);
    const message = COMPASS.directMessage(selected[0] as never, QUERY);
    expect(message.type).toBe(VECTOR_NEAR);
    const { entries, leaves, ...rest } = readNearRequest(received(message));
    expect([[...Array.from(entries)], [...Array.from(leaves)]]).toEqual([[102, 106], []]);
    expect(rest).toEqual({
      collectionId: 9,
      wanted: 18,
      ef: 64,
      version: 0,
      code: QUERY.bytes,
      recallPpm: 0,
      level: 0,
      known: [],
      others: new Int32Array(0),
    });
  });

  test("compass: others follow the first where something is expected of them, from where its lists lead, within what it found", () => {
    [shares[2], shares[3]] = [0.7, 0.2];
    const [first, other] = COMPASS.selectShards(QUERY, [...SHARDS, { shard: 3 }]) as [SelectedShard, SelectedShard];
    expect([first.followers, other.followers]).toEqual([[3], undefined]);
    expect(readNearRequest(received(COMPASS.directMessage(first, QUERY)))).toMatchObject({ others: Int32Array.of(3) });
    const candidates = Array.from({ length: 200 }, (_, at) => ({
      ...{ vertex: 500 - at, distance: at / 4, address: 8, incarnation: 1, shard: 0 },
    }));
    const crossings = [
      { shard: 3, vertex: 40 },
      { shard: 1, vertex: 41 },
      { shard: 3, vertex: 42 },
    ];
    const told = readNearRequest(received(COMPASS.directMessage(other, QUERY, { candidates, crossings })));
    expect([Array.from(told.entries), told.others]).toEqual([[40, 42, 103, 107], new Int32Array(0)]);
    const known = candidates.map(({ vertex, distance }) => ({ vertex, distance }));
    expect(told.known, "three quarters of 64").toEqual(known.slice(0, 48));
    const wide = readNearRequest(received(COMPASS.directMessage(other, { ...QUERY, ef: 400 }, { candidates })));
    expect([wide.known, Array.from(wide.entries)]).toEqual([known.slice(0, 128), [103, 107]]);
    expect(readNearRequest(received(COMPASS.directMessage(other, QUERY)))).toMatchObject({ known: [] });
    const filtered = COMPASS.selectShards({ ...QUERY, filter: { third: 1 } }, [...SHARDS, { shard: 3 }]);
    expect(filtered.every(({ followers }) => followers === undefined)).toBe(true);
  });

  test("spire: the one that has the nearest leaf, which is told the recall and how many neighbours count", () => {
    QUERY.spent.distances = 5;
    expect(SPIRE.selectShards(QUERY, SHARDS).map(({ shard }) => shard)).toEqual([2]);
    expect(QUERY.spent.distances).toBe(6);
    expect(SPIRE.selectShards(QUERY, SHARDS.slice(0, 2)), "it is not there").toEqual([]);
    const inTurn = SPIRE.selectShards({ ...QUERY, index: "levels" }, [...SHARDS].reverse());
    expect(inTurn, "each knows the levels").toEqual([{ shard: 2, entries: [] }]);
    expect(QUERY.spent.distances).toBe(7);
    const message = SPIRE.directMessage({ shard: 2, entries: [] }, QUERY);
    expect(message.type).toBe(VECTOR_SPIRE);
    const { entries, leaves, ...rest } = readNearRequest(received(message));
    expect([entries.length, leaves.length]).toEqual([0, 0]);
    const told = { collectionId: 9, wanted: 18, ef: 20, version: 0, code: QUERY.bytes, recallPpm: 900_000, level: 0 };
    expect(rest).toEqual({ ...told, known: [], others: new Int32Array(0) });
  });

  test("cotra: the first in turn, which has the others help it in the time that it is told", () => {
    const [selected, ...others] = COTRA.selectShards(QUERY, [...SHARDS].reverse());
    expect([selected?.shard, others]).toEqual([2, []]);
    expect(COTRA.selectShards(QUERY, [])).toEqual([]);
    const message = COTRA.directMessage(selected as never, QUERY);
    expect(message.type).toBe(VECTOR_COLLABORATE);
    expect(readCollaborateRequest(received(message))).toEqual({
      ...{ collectionId: 9, k: 18, ef: 64, timeoutMs: 1_234, query: QUERY.bytes },
    });
  });
});

test("spire: a peer is sent what the shard's tables have for it, and one that has no leaves nothing", () => {
  const message: DirectMessage = { type: 1, payload: { byteLength: 0, write: () => undefined } };
  const held = { offer: (peer: number) => (peer === 1 ? message : undefined) };
  expect(SPIRE.buildTimeExchange(1, held)).toBe(message);
  expect(SPIRE.buildTimeExchange(2, held)).toBeUndefined();
});
