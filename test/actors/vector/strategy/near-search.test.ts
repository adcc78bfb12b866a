/** What a shard is asked is checked before it searches: whatever cannot be meant is refused typed, with the value. */
import { expect, test } from "vitest";
import type { GraphIndex } from "../../../../actors/vector/graph/graph-index.ts";
import type { NearRequest } from "../../../../actors/vector/strategy/near-messages.ts";
import { checkedGraph } from "../../../../actors/vector/strategy/near-search.ts";

const GRAPH = { codeBytes: 4 } as GraphIndex;
const REQUEST: NearRequest = {
  ...{ collectionId: 1, wanted: 18, ef: 64, version: 0, entries: [], leaves: [], recallPpm: 0, level: 0 },
  code: new Uint8Array(4),
  known: [-1, 0, 0, 2.5].map((distance, vertex) => ({ vertex, distance })),
  others: [1, 2],
};

test("a request that can be meant is let through", () => {
  expect(checkedGraph(GRAPH, 0, REQUEST)).toBe(GRAPH);
  const { known: _, others: __, ...alone } = REQUEST;
  expect(checkedGraph(GRAPH, 0, alone)).toBe(GRAPH);
});

test.each<[string, Partial<NearRequest>]>([
  ["wanted", { wanted: 0 }],
  ["wanted", { wanted: 65_537 }],
  ["ef", { ef: -1 }],
  ["code.length", { code: new Uint8Array(5) }],
  ["recallPpm", { recallPpm: 1_000_001 }],
  ["level", { level: 17 }],
  ["known[0].distance", { known: [{ vertex: 1, distance: Number.NaN }] }],
  [
    "known[1].distance",
    {
      known: [
        { vertex: 1, distance: 2 },
        { vertex: 2, distance: 1 },
      ],
    },
  ],
])("%s: another is refused", (name, odd) => {
  const refused = expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(name) });
  expect(() => checkedGraph(GRAPH, 0, { ...REQUEST, ...odd })).toThrow(refused);
});

test("a shard without a part of the graph says so, to be asked again", () => {
  expect(() => checkedGraph(undefined, 3, REQUEST)).toThrow(
    expect.objectContaining({ code: "ERR_REGION_ACCESS", retryable: true, details: { shard: 3 } }),
  );
});
