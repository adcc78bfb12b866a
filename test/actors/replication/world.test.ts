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
    for (const shard of world.copiesOf(vshard)) expect(world.tableOf(shard).lag(vshard, shard)?.lagMs).toBe(0);
  }
  expectEqual(world, shape.vshards);
  expectNoneLost(world, shape.vshards, 1);
  return world;
}

function expectEqual(world: World, vshards: number): void {
  for (let vshard = 0; vshard < vshards; vshard++) {
    const [primary = 0, ...replicas] = world.copiesOf(vshard);
    const head = world.tableOf(primary).ownHead(vshard);
    expect(head).toBeGreaterThanOrEqual(0);
    for (const shard of replicas) {
      expect(world.tableOf(shard).appliedLsn(vshard, shard), `vshard ${vshard} on ${shard}`).toBe(head);
      expect(world.rowsOf(shard, vshard)).toBe(world.rowsOf(primary, vshard));
    }
  }
}

/**
 * What a key holds at the end was written by its last acknowledged write, or by a later one.
 *
 * @param acks Of the writes that are looked at, at least.
 */
function expectNoneLost(world: World, vshards: number, acks: number): void {
  const last = new Map<number, number>();
  for (const write of world.writes)
    if (write.state === "acknowledged" && write.acks >= acks) for (const key of write.keys) last.set(key, write.number);
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

/** Drives a world in which nodes lose their memory, fewer at once than there are acknowledgements of a majority. */
function driveWipes(seed: number, shape: { shards: number; vshards: number; replicationFactor: number }): World {
  const random = createSeededRandom(seed);
  const world = new World({ ...shape, random, logEntries: 2 + Math.floor(random.float() * 30), nodes: true });
  const quorum = Math.floor(shape.replicationFactor / 2) + 1;
  for (let step = 0; step < 200; step++) {
    world.crashChance = 0.003;
    world.slowChance = step % 40 < 10 ? 0.1 : 0;
    world.write(random.float() < 0.7 ? quorum : 1 + Math.floor(random.float() * shape.replicationFactor));
    if (random.float() < 0.6) world.run(Math.floor(random.float() * 40));
    const [from = 0, to = 0] = [0, 1].map(() => Math.floor(random.float() * shape.shards));
    if (random.float() < 0.08) world.cut(from, to, 100 + random.float() * 1_500);
    if (random.float() < 0.1 && world.settled) {
      if (random.float() < 0.5) world.kill(from, random.float() * 2_000); // it keeps its memory, and is not there to tell
      const victims = new Set([0, 1].slice(0, quorum - 1).map(() => Math.floor(random.float() * shape.shards)));
      for (const shard of victims) {
        world.wipe(shard);
        if (random.float() < 0.5) world.run(Math.floor(random.float() * 100));
      }
    }
  }
  world.crashChance = 0;
  world.slowChance = 0;
  comeRight(world, 30);
  expect(world.settled, `seed ${seed}`).toBe(true);
  expectEqual(world, shape.vshards);
  expectNoneLost(world, shape.vshards, quorum);
  return world;
}

describe("nodes that lose their memory", () => {
  test.each([
    { shards: 2, vshards: 2, replicationFactor: 2, share: 0.6 },
    { shards: 3, vshards: 4, replicationFactor: 3, share: 0.6 },
    { shards: 4, vshards: 8, replicationFactor: 3, share: 0.2 },
    { shards: 5, vshards: 8, replicationFactor: 5, share: 0.1 },
  ])(
    "get it back, and nothing that a majority had is lost, with $shards nodes and $replicationFactor copies",
    (drawn) => {
      console.info(`replication world: SEED=${SEED}`);
      const { share, ...shape } = drawn;
      const runs = share * RUNS;
      const sum = { crashes: 0, snapshots: 0, wipes: 0, fetches: 0 };
      let acknowledged = 0;
      for (let run = 0; run < runs; run++) {
        const world = driveWipes(SEED + run, shape);
        for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += world.seen[key];
        acknowledged += world.writes.filter(({ state }) => state === "acknowledged").length;
      }
      for (const count of Object.values(sum)) expect(count).toBeGreaterThan(runs / 4);
      expect(acknowledged).toBeGreaterThan(10 * runs);
    },
  );
});

/** Lets a world come right: by then no link is cut any more, and what copies lack of their primaries is on its way. */
function comeRight(world: World, rounds: number): void {
  world.run(6_000);
  for (let round = 0; round < rounds && !world.settled; round++) world.run(1_000);
  world.run(3_000);
}

/** Drives a world in which nodes are cut off, and others take over what they are primary of. */
function drivePromotions(
  seed: number,
  shape: { shards: number; vshards: number; replicationFactor: number },
  promotions: "leased" | "forced",
): World {
  const random = createSeededRandom(seed);
  const logEntries = 2 + Math.floor(random.float() * 30);
  const world = new World({ ...shape, random, logEntries, nodes: true, promotions });
  const quorum = Math.floor(shape.replicationFactor / 2) + 1;
  for (let step = 0; step < 200; step++) {
    world.crashChance = 0.002;
    world.slowChance = step % 40 < 10 ? 0.1 : 0;
    world.write(random.float() < 0.7 ? quorum : 1 + Math.floor(random.float() * shape.replicationFactor));
    if (random.float() < 0.6) world.run(Math.floor(random.float() * 40));
    if (promotions === "leased") world.read();
    const [from = 0, to = 0] = [0, 1].map(() => Math.floor(random.float() * shape.shards));
    if (random.float() < 0.06) world.cut(from, to, 100 + random.float() * 800);
    if (random.float() < 0.035) world.isolate(from, 200 + random.float() * 2_000);
    if (random.float() < 0.05) world.kill(to, random.float() * 1_000);
    if (random.float() < 0.08 && world.settled && quorum > 1) world.wipe(to);
  }
  world.crashChance = 0;
  world.slowChance = 0;
  comeRight(world, 40);
  expect(world.settled, `seed ${seed}`).toBe(true);
  expectEqual(world, shape.vshards);
  expectNoneLost(world, shape.vshards, quorum);
  return world;
}

describe("vshards of nodes that are cut off", () => {
  const SHAPES = [
    { shards: 2, vshards: 2, replicationFactor: 2, share: 0.4 },
    { shards: 3, vshards: 4, replicationFactor: 3, share: 0.4 },
    { shards: 4, vshards: 8, replicationFactor: 3, share: 0.2 },
    { shards: 5, vshards: 8, replicationFactor: 5, share: 0.2 },
  ];
  test.each(SHAPES.flatMap((shape) => (["leased", "forced"] as const).map((promotions) => ({ ...shape, promotions }))))(
    "go to others, and nothing that a majority had is lost or unseen, with $shards nodes, $replicationFactor copies, $promotions",
    (drawn) => {
      console.info(`replication world: SEED=${SEED}`);
      const { share, promotions, ...shape } = drawn;
      const runs = share * RUNS;
      const sum = { crashes: 0, wipes: 0, promotions: 0 };
      const all = { reads: 0, lapsed: 0, acknowledged: 0 };
      for (let run = 0; run < runs; run++) {
        const world = drivePromotions(SEED + run, shape, promotions);
        for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += world.seen[key];
        all.reads += world.seen.reads;
        all.lapsed += world.seen.lapsed;
        all.acknowledged += world.writes.filter(({ state }) => state === "acknowledged").length;
      }
      for (const count of Object.values(sum)) expect(count).toBeGreaterThan(runs < 100 ? 0 : 0.3 * runs);
      expect(all.acknowledged).toBeGreaterThan(5 * runs);
      if (promotions === "leased") expect(all.reads).toBeGreaterThan(2 * runs);
    },
  );
});
