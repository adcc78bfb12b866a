/**
 * A shard that has nothing: whether that is all that it ever had, or all that is left. Only the former counts as a witness for its copies.
 */
import { afterEach, describe, expect, it } from "vitest";
import { DurableState } from "../../../actors/storage/durable-state.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { createWorld } from "../../../src/sim/create-world.ts";
import { SimDisk } from "../../../src/sim/disk.ts";
import type { Fault } from "../../../src/sim/fault-types.ts";
import { createFaultInjector } from "../../../src/sim/injector.ts";
import { registerWorkload } from "../../../src/sim/workloads/register-workload.ts";
import type { Durability } from "../../../src/store/log.ts";
import { firstShardIncarnation } from "../../../src/topology/member.ts";
import { guardedLoop, SteppedLoop, schedulerOf } from "../../sim/stepped-loop.ts";
import { sceneStorage } from "./durable-writes.ts";

const SHARD = 3;
const VSHARDS = 4;

/** Lives of one shard on one disk. */
class Lives {
  readonly loop: SteppedLoop = new SteppedLoop(7);
  readonly disk: SimDisk;
  readonly #durability: Durability;
  #starts = 0;

  constructor(durability: Durability = "fsync", starts = 0) {
    const faults = createFaultInjector({ "disk-lost-write": 1 }, () => createSeededRandom(7), []);
    this.disk = new SimDisk({ node: "n0", loop: this.loop, faults });
    this.#durability = durability;
    this.#starts = starts;
  }

  async open(how: "open" | "openEmpty" = "open"): Promise<DurableState> {
    const own = guardedLoop(this.loop, (act) => act());
    return this.loop.finish(
      DurableState[how]({
        shard: SHARD,
        vshards: VSHARDS,
        incarnation: firstShardIncarnation(++this.#starts),
        adopts: false,
        storage: sceneStorage({ durability: this.#durability, snapshotBytes: 3_000 }),
        disk: this.disk.mount(own),
        clock: { nowMs: () => this.loop.nowUs / 1000, nowUs: () => this.loop.nowUs },
        scheduler: schedulerOf(own, (act) => act()),
      }),
    );
  }

  /** Removes files of the shard, durably, while nobody has them open. */
  async remove(...names: string[]): Promise<void> {
    const disk = this.disk.mount(guardedLoop(this.loop, (act) => act()));
    await this.loop.finish(
      (async () => {
        for (const name of names) {
          await disk.remove(name);
          await disk.syncDirectory(name.slice(0, name.lastIndexOf("/")));
        }
      })(),
    );
  }
}

describe("a shard with an empty log", () => {
  it("has never had anything, when no life has synced a segment", async () => {
    const lives = new Lives();
    for (let life = 1; life <= 3; life++) {
      const state = await lives.open();
      expect(state.isBlank, `life ${life}`).toBe(false);
      lives.disk.crash();
    }
  });

  it("may have had something, when its directory is not that of the first life", async () => {
    const lives = new Lives("fsync", 1);
    for (let life = 2; life <= 3; life++) {
      expect((await lives.open()).isBlank, `life ${life}`).toBe(true);
      lives.disk.crash();
    }
  });

  it("may have had something, when its first life has ended before the directory was durable", async () => {
    const lives = new Lives();
    await lives.open();
    await lives.remove(`shards/${SHARD}/origin`);
    lives.disk.crash();
    expect((await lives.open()).isBlank).toBe(true);
  });

  it.each(["os", "memory"] as const)("may have had something, when durability is %s", async (durability) => {
    const lives = new Lives(durability);
    await lives.open();
    lives.disk.crash();
    expect((await lives.open()).isBlank).toBe(true);
  });

  it("may have had something, when what was damaged was put aside", async () => {
    const lives = new Lives();
    await lives.open();
    lives.disk.crash();
    expect((await lives.open("openEmpty")).isBlank).toBe(true);
    lives.disk.crash();
    expect((await lives.open()).isBlank).toBe(true);
  });

  it("has lost something, when a segment was there", async () => {
    const marked = new Lives();
    const begun = await marked.open();
    begun.lose([1]);
    await marked.loop.finish(begun.close());
    const disk = marked.disk.mount(guardedLoop(marked.loop, (act) => act()));
    const names = await marked.loop.finish(disk.list(`shards/${SHARD}/log`));
    expect(names.length).toBeGreaterThan(0);
    await marked.remove(...names.map((name) => `shards/${SHARD}/log/${name}`));
    expect((await marked.open()).damage).toMatchObject({ code: "ERR_CORRUPT" });
  });
});

describe("a node that lost its power before it had anything", () => {
  let world: ReturnType<typeof createWorld> | undefined;
  afterEach(() => world?.close());

  it("answers for what another one that is lost for good had a copy of", { timeout: 60_000 }, async () => {
    world = createWorld({ seed: 5, nodes: 3, vshards: 4, durability: "fsync", durationMs: 4_000 });
    const faults: readonly Fault[] = [
      { kind: "crash", atMs: 1, durationMs: 1_500, targets: ["n0"], size: 0 },
      { kind: "lose", atMs: 1_000, durationMs: 0, targets: ["n1"], size: 0 },
    ];
    const workload = registerWorkload({ clients: 6, keys: 6, perSecond: 6, timeoutMs: 1_500 });
    const { verdict, violations, history } = await world.run(workload, { replay: { faults } });
    expect(violations).toEqual([]);
    expect(verdict).toBe("passed");
    const late = history.filter(({ type, time }) => type === "ok" && time > 3e9);
    expect(new Set(late.map(({ process }) => process)).size, "clients of both that are left").toBeGreaterThan(1);
  });
});
