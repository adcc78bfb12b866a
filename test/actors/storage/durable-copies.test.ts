/**
 * Shards with copies of each other's vshards whose threads die at every step of what they do with their logs, snapshots and copies: an append, a
 * checkpoint, a promotion, a catch-up, a recovery. All copies are equal afterwards, and nothing acknowledged is lost, also when the power
 * fails right after. See durable-scene.ts.
 */
import { describe, expect, test } from "vitest";
import { DurableScene, type SceneOptions } from "./durable-scene.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const LONG = process.env["SHARDLOOM_LONG"] === "1";
/** Deaths at each step that there is. */
const DEATHS_PER_STEP = LONG ? 25 : 1;
const CRASHES = LONG ? 400 : 8;
const EVENTS = 1_600;

const TWO: SceneOptions = { seed: 0, shards: 2, replicationFactor: 2, vshards: 4 };
const THREE: SceneOptions = { seed: 0, shards: 3, replicationFactor: 3, vshards: 8 };

/** Writes for a while, with a promotion of one shard in the middle where there is one to be, then until all is level. */
async function act(scene: DurableScene, events: number, promotes: boolean): Promise<void> {
  await scene.settle();
  for (let at = 0; at < events; at++) {
    if (scene.random.float() < 0.12) scene.write(6);
    if (promotes && at === Math.floor(events / 2)) {
      const lost = scene.random.u32() % scene.map.shards;
      scene.kill(scene.workerOf(lost), 60);
      scene.promote(lost);
    }
    if (!(await scene.loop.step())) await scene.loop.settle();
  }
  await scene.settle();
}

/** A life with something in it, its end, and the life after it: in which recovery is among the steps. */
async function run(options: SceneOptions, promotes: boolean, fatal?: DurableScene["fatal"]): Promise<DurableScene> {
  const scene = new DurableScene(options);
  scene.fatal = fatal;
  for (const end of ["killed", "power"] as const) {
    scene.start();
    await act(scene, EVENTS / 2, promotes);
    expect(scene.problems()).toEqual([]);
    scene.end(end);
  }
  scene.start();
  await scene.settle();
  expect(scene.problems()).toEqual([]);
  scene.end("killed");
  return scene;
}

describe.each([
  ["two shards", TWO, false],
  ["three shards with a promotion in each life", THREE, true],
] as const)("a thread of %s", (_, shape, promotes) => {
  test("may die at any step", { timeout: LONG ? 1_200_000 : 120_000 }, async () => {
    const options = { ...shape, seed: SEED };
    console.info(`durable copies: SEED=${SEED}`);
    const { steps } = await run(options, promotes);
    let deaths = 0;
    for (const [step, count] of steps) {
      for (let death = 0; death < DEATHS_PER_STEP; death++) {
        const at = 1 + ((SEED + 31 * death + deaths) % count);
        const place = `at ${step}, time ${at} of ${count}`;
        const scene = await run(options, promotes, { step, at }).catch((error: unknown) => {
          throw new Error(`${place}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
        });
        expect(scene.died, place).toBeDefined();
        deaths++;
      }
    }
    console.info(JSON.stringify({ steps: steps.size, deaths, of: [...steps.keys()] }));
    for (const word of ["write /log/", "sync /log/", "rename /snapshots/", "append", "status", "snapshot", "row"])
      expect(
        [...steps.keys()].some((step) => step.includes(word)),
        word,
      ).toBe(true);
    if (promotes) expect([...steps.keys()].some((step) => step.includes("fetch"))).toBe(true);
  });
});

describe.each([
  ["the process is killed", "killed", {}],
  ["the power is cut", "power", { "disk-lost-write": 0.5, "disk-torn": 0.3 }],
] as const)("when %s at any event, with threads that die and vshards that move", (_, end, rates) => {
  test("nothing acknowledged is lost, and copies are equal", { timeout: LONG ? 1_200_000 : 120_000 }, async () => {
    console.info(`durable copies: SEED=${SEED}`);
    const seen = { acknowledged: 0, failed: 0, deaths: 0, promotions: 0 };
    for (let run = 0; run < CRASHES; run++) {
      const shape = run % 2 === 0 ? TWO : THREE;
      const scene = new DurableScene({ ...shape, seed: SEED + run, rates });
      for (let life = 0; life < 4; life++) {
        const place = `seed ${SEED + run}, life ${life}`;
        const delays = Array.from({ length: shape.shards }, () =>
          scene.random.float() < 0.3 ? scene.random.u32() % 900 : 0,
        );
        try {
          scene.start(delays);
          if (scene.random.float() < 0.7) await scene.settle();
          if (scene.unsettled === undefined) expect(scene.problems()).toEqual([]);
          const events = scene.random.u32() % EVENTS;
          for (let at = 0; at < events; at++) {
            if (scene.random.float() < 0.15) scene.write(6);
            const shard = scene.random.u32() % shape.shards;
            if (scene.random.float() < 0.004) {
              scene.kill(scene.workerOf(shard));
              seen.deaths++;
              if (shape === THREE && scene.random.float() < 0.5) {
                scene.promote(shard);
                seen.promotions++;
              }
            }
            if (!(await scene.loop.step())) await scene.loop.settle();
          }
        } catch (error) {
          throw new Error(`${place}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
        }
        scene.end(end);
      }
      scene.start();
      await scene.settle();
      expect(scene.problems(), `seed ${SEED + run}, at the end`).toEqual([]);
      seen.acknowledged += scene.writes.filter(({ state }) => state === "acknowledged").length;
      seen.failed += scene.writes.filter(({ state }) => state === "failed").length;
    }
    console.info(JSON.stringify(seen));
    expect(seen.acknowledged).toBeGreaterThan(20 * CRASHES);
    expect(seen.failed).toBeGreaterThan(CRASHES);
    expect(seen.deaths).toBeGreaterThan(CRASHES / 2);
  });
});

/** Primaries die with writes that nobody else has, and have successors at once. @returns what is wrong then */
async function overtake(): Promise<string[]> {
  const scene = new DurableScene({ ...THREE, seed: SEED });
  for (let life = 0; life < 3; life++) {
    scene.start();
    await act(scene, 200, false);
    for (let lost = 0; lost < 3; lost++) {
      // So many that most find a primary; what is written by the one that dies goes nowhere.
      for (let at = 0; at < 4; at++) scene.write(6);
      scene.kill(scene.workerOf(lost), 300);
      scene.promote(lost);
      for (let at = 0; at < 400; at++) {
        if (scene.random.float() < 0.2) scene.write(6);
        await scene.loop.step();
      }
      await scene.settle().catch(() => undefined); // what is not level is told below
    }
    const wrong = scene.unsettled === undefined ? scene.problems() : [scene.unsettled];
    scene.end("killed");
    if (wrong.length > 0) return wrong;
  }
  return [];
}

test("what a primary wrote that has a successor is nobody's, in each life", { timeout: 60_000 }, async () => {
  expect(await overtake()).toEqual([]);
});
