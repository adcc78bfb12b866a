/** Who has a store open: one at a time, on a slow store whose answers get lost, between owners that die, stand still and come back. */
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { createVirtualTime, type VirtualTime } from "../../src/runtime/scheduler.ts";
import { createLocalLeaseStore, type LeaseStore } from "../../src/topology/lease-store.ts";
import { LeaseWords } from "../../src/topology/lease-words.ts";
import { OwnerLease } from "../../src/topology/owner-lease.ts";
import { codeOf } from "../support/copies.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const RUNS = process.env["SHARDLOOM_LONG"] === "1" ? 500 : 12;
const LEASE_MS = 1_000;

interface Owner {
  readonly words: LeaseWords;
  readonly lease: Promise<OwnerLease>;
}

/** A process that opens the store, on a scheduler that stops with it. */
function begin(time: VirtualTime, store: LeaseStore, random: Random, leaseMs = LEASE_MS): Owner {
  const words = new LeaseWords(new SharedArrayBuffer(4_096), () => time.clock.nowMs());
  words.lapse();
  const options = { store, clock: time.clock, scheduler: time.scheduler, random, node: "n", place: "store s", leaseMs };
  const lease = OwnerLease.take(options).then((taken) => {
    taken.guard(words);
    return taken;
  });
  lease.catch(() => undefined);
  return { words, lease };
}

/** Every call takes its time; some are applied and never answered. @param isAlive Whether its process still sends */
function slow(store: LeaseStore, time: VirtualTime, random: Random, isAlive: () => boolean, loss: number): LeaseStore {
  const call = <T>(run: () => Promise<T>, timeoutMs: number): Promise<T> =>
    new Promise((resolve, reject) => {
      const isLost = random.float() < loss;
      const late = (): void => reject(new ShardloomError("ERR_TIMEOUT", "Cannot wait any longer"));
      time.scheduler.after(timeoutMs, late);
      time.scheduler.after(random.float() * 60, () => {
        if (isAlive()) run().then((value) => !isLost && resolve(value), reject);
      });
    });
  return {
    get: (key, timeoutMs) => call(() => store.get(key, timeoutMs), timeoutMs),
    put: (key, value, revision, timeoutMs) => call(() => store.put(key, value, revision, timeoutMs), timeoutMs),
  };
}

describe("the owner of a store", () => {
  test("keeps others out while it lives, and gives it back", async () => {
    const time = createVirtualTime();
    const store = createLocalLeaseStore();
    const random = createSeededRandom(SEED);
    const first = begin(time, store, random);
    await time.advance(10);
    expect(first.words.isValid).toBe(true);
    const second = begin(time, store, random);
    await time.advance(LEASE_MS);
    expect(await second.lease.catch(codeOf)).toBe("ERR_DIRECTORY_IN_USE");
    await time.advance(10 * LEASE_MS);
    expect(first.words.isValid).toBe(true);
    await (await first.lease).close();
    const third = begin(time, store, random);
    await time.advance(1);
    expect(third.words.isValid).toBe(true);
  });

  test("is waited for when it has died, as long as its own lease lasts", async () => {
    const time = createVirtualTime();
    const store = createLocalLeaseStore();
    const random = createSeededRandom(SEED);
    let isAlive = true;
    const former = begin(
      time,
      slow(store, time, random, () => isAlive, 0),
      random,
      3 * LEASE_MS,
    );
    await time.advance(5 * LEASE_MS);
    isAlive = false;
    const next = begin(time, store, random);
    await time.advance(2.5 * LEASE_MS);
    expect(next.words.isValid).toBe(false);
    await time.advance(1.5 * LEASE_MS);
    expect([former.words.isValid, next.words.isValid]).toEqual([false, true]);
  });

  test("serves nothing once another one does, whatever was lost on the way, and never again", async () => {
    console.info(`owner leases: SEED=${SEED}`);
    let taken = 0;
    for (let run = 0; run < RUNS; run++) {
      const time = createVirtualTime();
      const random = createSeededRandom(SEED + run);
      const store = createLocalLeaseStore();
      const owners: (Owner & { isAlive: boolean })[] = [];
      for (let step = 0; step < 60; step++) {
        const pick = random.float();
        if (pick < 0.15) {
          const own = { isAlive: true };
          const reaches = (): boolean => own.isAlive;
          owners.push(Object.assign(own, begin(time, slow(store, time, random, reaches, 0.1), random)));
        } else if (pick < 0.3) {
          // It stands still, or goes on.
          const some = owners[random.u32() % Math.max(1, owners.length)];
          if (some !== undefined) some.isAlive = !some.isAlive;
        }
        for (let at = 0; at < 20; at++) {
          await time.advance(random.float() * 30);
          const serving = owners.filter(({ words }) => words.isValid);
          expect(serving.length, `run ${run}, step ${step}`).toBeLessThanOrEqual(1);
        }
      }
      taken += (
        await Promise.allSettled(owners.map(({ lease }) => Promise.race([lease, Promise.reject(new Error())])))
      ).filter(({ status }) => status === "fulfilled").length;
    }
    expect(taken).toBeGreaterThan(RUNS / 4);
  });
});
