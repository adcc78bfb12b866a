/** Loads: counts, averages, slow start, quantiles that forget, probes without a herd, and no allocation. */
import { describe, expect, test } from "vitest";
import { ReplicaLoads } from "../../src/routing/replica-loads.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { SEED } from "./planning.ts";

function answer(loads: ReplicaLoads, shard: number, latencyUs: number, count = 1): void {
  for (let sample = 0; sample < count; sample++) {
    loads.begin(shard);
    loads.end(shard, latencyUs, true);
  }
}

describe("in flight", () => {
  test("counts begin, end and cancel, per shard and over all", () => {
    const loads = new ReplicaLoads(4);
    loads.begin(1);
    loads.begin(1);
    loads.begin(3);
    expect([loads.inFlight(0), loads.inFlight(1), loads.inFlight(3), loads.totalInFlight]).toEqual([0, 2, 1, 3]);
    loads.end(1, 10, true);
    loads.end(3, 10, false);
    loads.cancel(1, 5);
    expect([loads.inFlight(1), loads.inFlight(3), loads.totalInFlight]).toEqual([0, 0, 0]);
  });

  test("an end without a begin does not make a shard look emptier than empty", () => {
    const loads = new ReplicaLoads(2);
    loads.end(0, 10, true);
    expect([loads.inFlight(0), loads.totalInFlight]).toEqual([0, 0]);
    loads.begin(0);
    expect([loads.inFlight(0), loads.totalInFlight]).toEqual([1, 1]);
  });
});

describe("latency", () => {
  test("is 0 while nobody has answered, then follows the samples", () => {
    const loads = new ReplicaLoads(2);
    expect(loads.latencyUs(0)).toBe(0);
    answer(loads, 0, 200);
    expect(loads.latencyUs(0)).toBe(200);
    answer(loads, 0, 1_000);
    expect(loads.latencyUs(0)).toBeCloseTo(250); // a new sample weighs 1/16
    answer(loads, 0, 1_000, 200);
    expect(loads.latencyUs(0)).toBeCloseTo(1_000, 0);
  });

  test("a newcomer starts at the mean of the others, and moves from there", () => {
    const loads = new ReplicaLoads(3);
    answer(loads, 0, 100);
    answer(loads, 1, 300);
    loads.begin(0); // busy shards do not age
    loads.begin(1);
    expect(loads.latencyUs(2)).toBeCloseTo((100 + (100 + 200 / 16)) / 2, 6);
    const startUs = loads.latencyUs(2);
    answer(loads, 2, 10);
    expect(loads.latencyUs(2)).toBeCloseTo(startUs - (startUs - 10) / 16, 6);
  });

  test("shards that all fail for long keep latencies that mean something, and are forgiven once they answer", () => {
    const loads = new ReplicaLoads(3);
    for (let shard = 0; shard < 3; shard++) answer(loads, shard, 1_000, 20);
    for (let failure = 0; failure < 10_000; failure++) {
      loads.begin(failure % 3);
      loads.end(failure % 3, 0, false);
    }
    for (let shard = 0; shard < 3; shard++) {
      expect(loads.latencyUs(shard)).toBeGreaterThan(1_000);
      expect(loads.latencyUs(shard)).toBeLessThan(10_000);
    }
    for (let round = 0; round < 100; round++) for (let shard = 0; shard < 3; shard++) answer(loads, shard, 1_000, 1);
    for (let shard = 0; shard < 3; shard++) expect(loads.latencyUs(shard)).toBeLessThan(1_100);
  });

  test("a shard that fails at once does not look fast", () => {
    const loads = new ReplicaLoads(2);
    answer(loads, 0, 100, 20);
    answer(loads, 1, 100, 20);
    for (let failure = 0; failure < 20; failure++) {
      loads.begin(1);
      loads.end(1, 1, false);
    }
    loads.begin(1);
    loads.begin(0);
    expect(loads.latencyUs(1)).toBeGreaterThan(4 * loads.latencyUs(0));
    expect(loads.cheaper(0, 1, new Int32Array(2))).toBe(0);
    expect(loads.quantileUs(1, 1)).toBeLessThan(130); // failures say nothing about how long answers take
  });

  test("a request that was given up counts only where it already took longer than the average", () => {
    const loads = new ReplicaLoads(2);
    answer(loads, 0, 100, 5);
    loads.begin(0);
    loads.cancel(0, 20);
    expect(loads.latencyUs(0)).toBe(100);
    loads.begin(0);
    loads.cancel(0, 900);
    expect(loads.latencyUs(0)).toBeCloseTo(150);
  });

  test("what is no time is no sample", () => {
    const loads = new ReplicaLoads(1);
    answer(loads, 0, 100, 5);
    for (const value of [Number.NaN, -1]) answer(loads, 0, value);
    expect([loads.latencyUs(0), loads.inFlight(0)]).toEqual([100, 0]);
    answer(loads, 0, 0, 1_000);
    expect(loads.latencyUs(0)).toBeCloseTo(1); // at least 1 µs, so that requests in flight always count
  });

  test("a shard that lost every comparison is probed again, once at a time, and returns when it has recovered", () => {
    const loads = new ReplicaLoads(2);
    const none = new Int32Array(2);
    answer(loads, 0, 100, 50);
    answer(loads, 1, 5_000, 50);
    const choose = (): number => loads.cheaper(0, 1, none);
    expect(choose()).toBe(0);
    let turns = 0;
    while (choose() === 0 && turns < 100_000) {
      answer(loads, 0, 100);
      turns++;
    }
    expect(turns).toBeGreaterThan(500); // 50 times slower: one probe in 1 500 requests or so
    expect(turns).toBeLessThan(5_000);
    loads.begin(1); // the probe is on its way: no herd behind it
    expect(choose()).toBe(0);
    loads.end(1, 100, true); // as fast as the other again
    const chosen = [0, 0];
    for (let request = 0; request < 2_000; request++) {
      const shard = choose();
      answer(loads, shard, 100);
      chosen[shard] = (chosen[shard] ?? 0) + 1;
    }
    expect(chosen[1]).toBeGreaterThan(400);
  });
});

test("behind a probe the shard counts with what it last showed, however long ago", () => {
  const loads = new ReplicaLoads(2);
  const none = new Int32Array(2);
  answer(loads, 1, 5_000, 50);
  answer(loads, 0, 100, 50_000);
  expect(loads.latencyUs(1)).toBeLessThan(1);
  expect(loads.cheaper(0, 1, none)).toBe(1);
  expect(loads.cheaper(0, 1, Int32Array.of(0, 1))).toBe(0); // assigned by the running plan
  loads.begin(1);
  expect(loads.latencyUs(1)).toBe(5_000);
  expect(loads.cheaper(0, 1, none)).toBe(0);
});

describe("quantiles", () => {
  test("are unknown, so that nothing is late, until there are 20 answers; a newcomer has those of all", () => {
    const loads = new ReplicaLoads(3);
    answer(loads, 0, 100, 19);
    expect(loads.quantileUs(0, 0.95)).toBe(Number.POSITIVE_INFINITY);
    answer(loads, 1, 100);
    for (const shard of [0, 1, 2]) expect(loads.quantileUs(shard, 0.95)).toBeCloseTo(100, -2);
    answer(loads, 1, 10_000, 400);
    expect(loads.quantileUs(2, 0.95)).toBeGreaterThan(8_000);
    answer(loads, 0, 100);
    expect(loads.quantileUs(0, 0.95)).toBeLessThan(130);
  });

  test.each([1, 40, 3_000, 1_000_000])("are within a bucket of the exact ones, around %i us", (scaleUs) => {
    const random = createSeededRandom(SEED);
    const loads = new ReplicaLoads(1);
    const samples: number[] = [];
    for (let sample = 0; sample < 400; sample++) {
      const latencyUs = scaleUs * (1 - 4 * Math.log(1 - random.float()));
      samples.push(latencyUs);
      answer(loads, 0, latencyUs);
    }
    samples.sort((a, b) => a - b);
    for (const q of [0.05, 0.5, 0.9]) {
      // Young samples weigh more, which shifts ranks a little: compare with the ranks around q.
      const low = samples[Math.floor(400 * Math.max(0, q - 0.08))] as number;
      const high = samples[Math.floor(400 * Math.min(0.9975, q + 0.08))] as number;
      expect(loads.quantileUs(0, q)).toBeGreaterThan(low * 0.8);
      expect(loads.quantileUs(0, q)).toBeLessThan(high * 1.25);
    }
    expect(loads.quantileUs(0, 1)).toBeLessThan((samples.at(-1) as number) * 1.25);
    expect(loads.quantileUs(0, 1)).toBeGreaterThanOrEqual(samples.at(-1) as number);
  });

  test("forget: what was 5 half-lives ago does not show at the 95th percentile", () => {
    const loads = new ReplicaLoads(1);
    answer(loads, 0, 50_000, 5_000);
    expect(loads.quantileUs(0, 0.95)).toBeGreaterThan(40_000);
    answer(loads, 0, 100, 5 * 512);
    expect(loads.quantileUs(0, 0.95)).toBeLessThan(130);
  });

  test("stay right over the rescaling of their weights", () => {
    const loads = new ReplicaLoads(2);
    for (let sample = 0; sample < 60_000; sample++) {
      answer(loads, sample & 1, sample % 10 === 0 ? 1_000 : 100);
      if (sample < 1_000) continue;
      const p50 = loads.quantileUs(sample & 1, 0.5);
      const p99 = loads.quantileUs(0, 0.99);
      if (!(p50 > 90 && p50 < 130 && p99 > 850 && p99 < 1_300)) throw new Error(`at ${sample}: ${p50}, ${p99}`);
    }
    expect(loads.latencyUs(0)).toBeGreaterThan(100);
  });

  test("a latency beyond the last bucket is counted in it", () => {
    const loads = new ReplicaLoads(1);
    answer(loads, 0, 1e12, 30);
    expect(loads.quantileUs(0, 0.5)).toBeGreaterThan(2 ** 31);
    expect(loads.quantileUs(0, 0.5)).toBeLessThanOrEqual(2 ** 32);
  });
});

test("a sample allocates nothing", () => {
  const collect = (globalThis as { gc?: () => void }).gc;
  if (collect === undefined) throw new Error("run with --expose-gc");
  const loads = new ReplicaLoads(16);
  const assigned = new Int32Array(16);
  let sum = 0;
  const work = (count: number): void => {
    for (let sample = 0; sample < count; sample++) {
      const shard = loads.cheaper(sample & 15, (sample >> 4) & 15, assigned);
      loads.begin(shard);
      loads.end(shard, 80 + (sample & 255), (sample & 63) !== 0);
      sum += shard;
    }
  };
  work(200_000); // compiles; whole latencies, as the caller may box others
  // The least of several short stretches: none of them is long enough for a collection, and one boxed number a sample would
  // show in all of them, as 320 kB; code that is compiled meanwhile, on another thread, only in some.
  let least = Number.POSITIVE_INFINITY;
  for (let stretch = 0; stretch < 20; stretch++) {
    collect();
    const before = process.memoryUsage().heapUsed;
    work(20_000);
    least = Math.min(least, Math.abs(process.memoryUsage().heapUsed - before));
  }
  expect(sum).toBeGreaterThan(0);
  expect(least).toBeLessThan(50_000);
});
