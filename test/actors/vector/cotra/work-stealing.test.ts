/** Tasks that other workers compute: the same results, the load spread, and a thief that dies costs nothing but time. */
import { expect, test } from "vitest";
import type { CotraOutcome } from "../../../../actors/vector/cotra/cotra-origin.ts";
import { Driver } from "./driver.ts";
import { audit, BASE, randomCase, reachable } from "./support.ts";
import { Workers } from "./work-stealing.ts";

function makeWorkers(one: ReturnType<typeof randomCase>, steal: boolean, dies = false): [Workers, Driver] {
  const diesWith = (): boolean => dies && one.random.float() < 0.5;
  const workers = new Workers({ views: one.views, capacity: 8, steal, diesWith });
  const poolOf = (shard: number): ReturnType<Workers["poolOf"]> => workers.poolOf(shard);
  return [workers, new Driver({ views: one.views, seed: one.seed, maxDelay: 3, fifo: false, poolOf })];
}

function settle(driver: Driver, workers: Workers): void {
  for (let round = 0; ; round++) {
    const worked = workers.advance(driver.shards);
    if (!driver.advance() && !worked) return;
    if (round > 10_000) throw new Error("it never comes to rest");
  }
}

test("stolen tasks keep the guarantee of a centralised search, also when thieves die", () => {
  let stolen = 0;
  let abandoned = 0;
  for (let run = 0; run < 80; run++) {
    const one = randomCase(BASE + run, { shards: 2 + (run % 4) });
    const [workers, driver] = makeWorkers(one, true, run % 2 === 0);
    let outcome: CotraOutcome | undefined;
    driver.origin.search(one.query, (ended) => {
      outcome = ended;
    });
    settle(driver, workers);
    if (outcome === undefined) expect.fail(`SEED=${BASE}, case ${one.seed} never ended`);
    expect(outcome.complete).toBe(true);
    audit(one, outcome);
    stolen += workers.stolen;
    abandoned += workers.abandoned;
  }
  expect(stolen).toBeGreaterThan(50);
  expect(abandoned).toBeGreaterThan(10);
});

/** Busiest worker over the mean, for 60 searches at once whose answers all lie on one shard. */
function imbalance(steal: boolean): number {
  const one = randomCase(BASE + 777, { shards: 4, count: 90, ef: 400, garbage: 0, settings: {}, exposed: () => true });
  one.graph.partitions.fill(2);
  const wanted = reachable(one);
  const [workers, driver] = makeWorkers(one, steal);
  for (let search = 0; search < 60; search++)
    driver.origin.search(one.query, ({ hits }) => expect([...hits.vertices]).toEqual(wanted));
  settle(driver, workers);
  expect(driver.origin.pending).toBe(0);
  return Math.max(...workers.computed) / (workers.computed.reduce((a, b) => a + b) / workers.computed.length);
}

test("idle workers take the load of the one that owns everything", () => {
  expect(imbalance(false)).toBe(4);
  expect(imbalance(true)).toBeLessThan(1.15);
});

test("a task completed twice, or one that never was, is counted and ignored", () => {
  const one = randomCase(BASE + 3, { shards: 2 });
  const [, driver] = makeWorkers(one, true);
  driver.shards[0]?.complete(12, true);
  expect(driver.shards[0]?.counters.duplicates).toBe(1);
});
