/** How shards bring their vertices to where leaves place them, and mend their lists after that: when the places count, and for whom nobody waits. */
import { describe, expect, test } from "vitest";
import { LeafPlacement } from "../../../../actors/vector/graph/leaf-placement.ts";
import { forgetPlaced } from "../../../../actors/vector/graph/leaf-table.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { ShardloomError } from "../../../../src/errors.ts";
import { GRAPH_LEAVES_READY, PASSES_ENDED } from "../../../../src/store/graph-layout.ts";
import { Site } from "./graph-support.ts";

const ROWS = 20;
const SHARDS = [1, 2];
const VERSION = 3;

/** What one shard was asked for. */
class Shard {
  readonly placement: LeafPlacement;
  readonly placed: number[] = [];
  sweeps = 0;
  /** Fresh passes that were asked for. */
  fresh = 0;
  place: (row: number) => boolean = () => true;
  /** Whether a slice ends a pass of repair. */
  sweep: () => boolean = () => true;
  nowMs = 0;

  constructor(site: Site, shard: number) {
    const ended = site.root.partition(shard) + PASSES_ENDED;
    this.placement = new LeafPlacement(site.root, shard, {
      rowsUsed: () => ROWS,
      place: (row) => {
        const done = this.place(row);
        if (done) this.placed.push(row);
        return done;
      },
      freshPass: () => {
        this.fresh++;
        return site.root.get(ended) + 1;
      },
      sweep: () => {
        this.sweeps++;
        if (this.sweep()) site.root.add(ended, 1);
      },
      nowMs: () => this.nowMs,
    });
  }

  /** Slices until none is left that can be done at once. */
  run(version = VERSION): void {
    for (let slice = 0; this.placement.run(version, 1); slice++) expect(slice).toBeLessThan(100);
  }
}

function start(): { site: Site; shards: readonly [Shard, Shard]; ready: () => number } {
  const arena = new Arena(createArena({ capacityBytes: 16 * 1024 * 1024 }));
  const site = Site.create(arena, { dimensions: 4, element: ELEMENT.F32, metric: METRIC.L2 }, ROWS);
  for (const shard of SHARDS) site.partition(shard).take(documentAt(site, 0), site.codeOf(new Float32Array(4)));
  const shards = SHARDS.map((shard) => new Shard(site, shard)) as [Shard, Shard];
  return { site, shards, ready: () => site.root.get(GRAPH_LEAVES_READY) };
}

function documentAt({ rows }: Site, row: number): { address: number; incarnation: number; shard: number } {
  return { address: rows.addressOf(row), incarnation: rows.incarnationOf(row), shard: 0 };
}

describe("the places of a table", () => {
  test("count once every shard has placed its vertices, and mended its lists after that", () => {
    const { shards, ready } = start();
    const [first, second] = shards;
    first.run();
    expect([first.placed.length, first.sweeps, first.placement.isSettled(VERSION)]).toEqual([ROWS, 0, false]);
    second.run();
    // It is the last one to place, so it mends at once, and the other when it is asked again.
    expect([second.sweeps, second.fresh, second.placement.isSettled(VERSION)]).toEqual([1, 1, true]);
    expect(ready()).toBe(0);
    first.run();
    expect([first.sweeps, first.fresh, first.placement.isSettled(VERSION), ready()]).toEqual([1, 1, true, VERSION]);
    for (const shard of shards) shard.run();
    expect([first.sweeps, first.placed.length], "nothing is left").toEqual([1, ROWS]);
    for (const shard of [...shards, first]) shard.run(VERSION + 1);
    expect([first.sweeps, first.placed.length, ready()], "all of it again").toEqual([2, 2 * ROWS, VERSION + 1]);
  });

  test("are gone to in slices, where it stopped, and a pass is not begun again by its next slice", () => {
    const { shards, ready } = start();
    const [first, second] = shards;
    first.nowMs = 1; // every slice is over at once
    expect(first.placement.run(VERSION, 1)).toBe(true);
    expect(first.placed.length).toBeLessThan(ROWS);
    first.place = () => false;
    expect(first.placement.run(VERSION, 1), "another shard's part is on its way").toBe(false);
    first.place = () => true;
    second.run();
    let slices = 0;
    first.sweep = () => ++slices === 3;
    first.run();
    expect(first.placed).toEqual(Array.from({ length: ROWS }, (_, row) => row));
    expect([slices, first.fresh]).toEqual([3, 1]);
    first.run();
    second.run();
    expect(ready()).toBe(VERSION);
  });

  test("wait for a pass that another shard holds up, without being asked again at once", () => {
    const { shards, ready } = start();
    const [first, second] = shards;
    first.run();
    second.sweep = () => false;
    second.run();
    expect([second.sweeps, second.placement.isSettled(VERSION)]).toEqual([1, false]);
    first.run();
    expect(ready()).toBe(0);
    second.sweep = () => true;
    second.run();
    expect([second.fresh, ready()]).toEqual([1, VERSION]);
  });

  test("count after a pass that another part of the shard has ended, and once there is room where there was none", () => {
    const { site, shards, ready } = start();
    const [first, second] = shards;
    first.run();
    second.sweep = () => {
      throw new ShardloomError("ERR_OUT_OF_MEMORY", "full");
    };
    second.run();
    expect([second.sweeps, second.placement.isSettled(VERSION), first.placement.isSettled(VERSION)]).toEqual([
      1,
      false,
      false,
    ]);
    site.root.add(site.root.partition(SHARDS[1] as number) + PASSES_ENDED, 1);
    second.run();
    expect([second.sweeps, second.placement.isSettled(VERSION)]).toEqual([1, true]);
    first.sweep = second.sweep;
    first.run();
    first.sweep = () => true;
    first.run();
    expect([first.fresh, ready()]).toEqual([1, VERSION]);
  });

  test("never count where one shard has no room, and nobody waits for it; they may by the next table", () => {
    const { shards, ready } = start();
    const [first, second] = shards;
    second.run();
    first.place = () => {
      throw new ShardloomError("ERR_OUT_OF_MEMORY", "full");
    };
    first.run();
    expect(shards.map(({ placement }) => placement.isSettled(VERSION))).toEqual([true, true]);
    second.run();
    expect([second.sweeps, ready()]).toEqual([0, 0]);
    first.place = () => true;
    for (const shard of [first, second, first]) shard.run(VERSION + 1);
    expect(ready()).toBe(VERSION + 1);
    first.place = () => {
      throw new ShardloomError("ERR_INTERNAL", "broken");
    };
    expect(() => first.run(VERSION + 2)).toThrow(expect.objectContaining({ code: "ERR_INTERNAL" }));
  });

  test("are waited for anew where a shard's successor has not looked at its vertices yet", () => {
    const { site, shards, ready } = start();
    const [first, second] = shards;
    second.run();
    first.run();
    forgetPlaced(site.root, SHARDS[0] as number);
    const successor = new Shard(site, SHARDS[0] as number);
    second.run();
    expect([second.placement.isSettled(VERSION), second.sweeps]).toEqual([false, 0]);
    successor.run();
    second.run();
    expect([successor.sweeps, ready()]).toEqual([1, VERSION]);
  });
});
