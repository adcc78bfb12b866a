/** The replication protocol against slow links, lost answers and workers that die at any point: see world.ts. */
import { describe, expect, test } from "vitest";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { World } from "./world.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const RUNS = process.env["SHARDLOOM_LONG"] === "1" ? 2_000 : 50;

/** Drives a world of writes and faults to its end, and checks what must be true there. */
function drive(
  seed: number,
  shape: { shards: number; vshards: number; replicationFactor: number },
  faults: boolean,
): World {
  const random = createSeededRandom(seed);
  // A log that is too short for the writes during one snapshot makes a copy take one after the other: only with faults.
  const logEntries = faults ? 2 + Math.floor(random.float() * 30) : 200;
  const world = new World({ ...shape, random, logEntries });
  for (let step = 0; step < 150; step++) {
    world.crashChance = faults ? 0.004 : 0;
    world.slowChance = faults && step % 40 < 10 ? 0.1 : 0;
    world.write(1 + Math.floor(random.float() * shape.replicationFactor));
    if (random.float() < 0.6) world.run(Math.floor(random.float() * 12));
  }
  world.crashChance = 0;
  world.slowChance = 0;
  world.run(20_000);
  for (let vshard = 0; vshard < shape.vshards; vshard++) {
    const [primary = 0, ...replicas] = world.copiesOf(vshard);
    for (const shard of replicas) {
      expect(world.table.appliedLsn(vshard, shard), `vshard ${vshard} on ${shard}`).toBe(world.table.head(vshard));
      expect(world.rowsOf(shard, vshard)).toBe(world.rowsOf(primary, vshard));
      expect(world.table.lag(vshard, shard)?.lagMs).toBe(0);
    }
  }
  expectNoneLost(world, shape.vshards);
  return world;
}

/** What a key holds at the end was written by its last acknowledged write, or by a later one. */
function expectNoneLost(world: World, vshards: number): void {
  const last = new Map<number, number>();
  for (const write of world.writes)
    if (write.state === "acknowledged") for (const key of write.keys) last.set(key, write.number);
  for (const [key, number] of last) {
    const vshard = key % vshards;
    const rows = world.rowsOf(world.copiesOf(vshard)[0] as number, vshard).split(",");
    const found = rows.find((row) => row.startsWith(`${key}=`));
    const later = world.writes.filter((write) => write.number >= number && write.keys.includes(key));
    if (found === undefined)
      expect(
        later.some((write) => write.deletes),
        `key ${key} is gone`,
      ).toBe(true);
    else expect(Number(/=(\d+)/.exec(found)?.[1]), `key ${key}`).toBeGreaterThanOrEqual(number);
  }
}

describe("copies", () => {
  test("follow their primaries without faults, and every write is acknowledged", () => {
    for (let run = 0; run < 10; run++) {
      const world = drive(SEED + run, { shards: 3, vshards: 4, replicationFactor: 3 }, false);
      expect(world.writes.every(({ state }) => state === "acknowledged")).toBe(true);
      expect(world.seen.crashes).toBe(0);
    }
  });

  test.each([
    { shards: 2, vshards: 2, replicationFactor: 2 },
    { shards: 3, vshards: 4, replicationFactor: 2 },
    { shards: 4, vshards: 8, replicationFactor: 3 },
  ])("end equal and nothing acknowledged is lost, with $shards shards and $replicationFactor copies", (shape) => {
    console.info(`replication world: SEED=${SEED}`);
    const sum = { crashes: 0, halfWrites: 0, snapshots: 0, timeouts: 0, quorums: 0 };
    for (let run = 0; run < RUNS; run++) {
      const { seen } = drive(SEED + run, shape, true);
      for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += seen[key];
    }
    // Each of these happened, so the runs prove something.
    for (const count of Object.values(sum)) expect(count).toBeGreaterThan(5);
  });
});
