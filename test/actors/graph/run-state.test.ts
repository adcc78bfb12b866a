/** What a run has saved on one shard: the newest superstep and the one before it, whole, also when the run goes on before what it had saved. */
import { beforeEach, expect, it } from "vitest";
import { type Block, GraphRoot } from "../../../actors/graph/graph-root.ts";
import { restoreState, savedSteps, saveState } from "../../../actors/graph/run-state.ts";
import { Arena, createArena } from "../../../native-bridge/arena.ts";
import { RegionTable } from "../../../native-bridge/region-table.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { same } from "./same.ts";

const SEED = Number(process.env["SEED"] ?? 4_417);
const RUN = 9;
const SHARDS = 3;

let arena: Arena;
let root: GraphRoot;
let state: Block;
beforeEach(() => {
  arena = new Arena(createArena({ capacityBytes: 1024 * 1024 }));
  const random = createSeededRandom(SEED);
  const regions = new RegionTable(arena, 0, () => Math.floor(random.float() * 2 ** 32));
  [root, state] = openShard(regions, 1);
});

function openShard(regions: RegionTable, collection: number): [GraphRoot, Block] {
  const made = GraphRoot.create(arena, regions, collection);
  return [made, made.allocate(64)];
}

const byValue = (a: number, b: number): number => a - b;
const words = (block: Block): Float64Array => new Float64Array(arena.buffer, block.address, 8);

function save(superstep: number, mark: number): void {
  words(state).fill(mark);
  saveState(root, RUN, state, superstep);
}

function restored(superstep: number): number[] {
  words(state).fill(-1);
  restoreState(root, RUN, state, superstep);
  return [...new Set(words(state))];
}

it("has the newest two", () => {
  expect(savedSteps(root, RUN)).toEqual([]);
  for (const superstep of [2, 4, 6]) save(superstep, 10 * superstep);
  expect(savedSteps(root, RUN).sort(byValue)).toEqual([4, 6]);
  expect([restored(4), restored(6)]).toEqual([[40], [60]]);
  expect(() => restored(2)).toThrow(expect.objectContaining({ code: "ERR_UNAVAILABLE" }));
});

it("keeps the one before when the newest is saved again", () => {
  for (const superstep of [2, 4]) save(superstep, 10 * superstep);
  // Others had not come as far when a worker was lost: the run goes on after the second superstep.
  save(4, 41);
  expect(savedSteps(root, RUN).sort(byValue)).toEqual([2, 4]);
  expect([restored(2), restored(4)]).toEqual([[20], [41]]);
});

it("keeps what is saved of a run that begins anew, and not what was before", () => {
  for (const superstep of [24, 25, 1, 2]) save(superstep, 10 * superstep);
  expect(savedSteps(root, RUN).sort(byValue)).toEqual([1, 2]);
  expect([restored(1), restored(2)]).toEqual([[10], [20]]);
});

it(`has one in common with all others, wherever runs are broken (SEED=${SEED})`, () => {
  const random = createSeededRandom(SEED);
  const regions = new RegionTable(arena, 1, () => Math.floor(random.float() * 2 ** 32));
  const shards = Array.from({ length: SHARDS }, (_, at) => openShard(regions, 2 + at));
  const common = (): number => {
    const [first, ...others] = shards.map(([each]) => savedSteps(each, RUN));
    return Math.max(-1, ...(first as number[]).filter((step) => others.every((saved) => saved.includes(step))));
  };
  let acknowledged = -1;
  let begunAnew = 0;
  for (let attempt = 0; attempt < 500; attempt++) {
    const after = common();
    same(after >= acknowledged, true);
    let superstep = after + 1;
    for (const end = superstep + Math.floor(random.float() * 3); superstep < end; superstep++) {
      for (const [each, block] of shards) saveState(each, RUN, block, superstep);
      acknowledged = superstep;
    }
    if (random.float() < 0.1) {
      // Some have been told that the run is done, and have forgotten what was saved, when another is lost.
      for (const [each] of shards.slice(0, 1 + Math.floor(random.float() * SHARDS))) each.forgetRun(RUN);
      acknowledged = -1;
      begunAnew++;
      continue;
    }
    // In the last one only some have come to save it.
    for (const [each, block] of shards) if (random.float() < 0.5) saveState(each, RUN, block, superstep);
  }
  expect(begunAnew).toBeGreaterThan(10);
});
