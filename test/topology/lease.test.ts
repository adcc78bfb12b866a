/** Leases over a store that is slow, loses answers and applies late, between clocks that drift and jump. */
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { createVirtualTime, type VirtualTime } from "../../src/runtime/scheduler.ts";
import { decodeLease, HeldLease, leaseKey, takeLease, WatchedLease } from "../../src/topology/lease.ts";
import { createLocalLeaseStore, type LeaseStore } from "../../src/topology/lease-store.ts";
import { LeaseWords } from "../../src/topology/lease-words.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const RUNS = process.env["SHARDLOOM_LONG"] === "1" ? 400 : 40;
const LEASE_MS = 1_000;
const LOOK_MS = 100;

/** A machine's clock: world time, bent and stepped. */
function clockOf(
  world: VirtualTime,
  random: Random,
): { clock: Clock; step: (ms: number) => void; worldMs: (ms: number) => number } {
  const rate = 0.95 + 0.1 * random.float();
  let offset = 1e6 * random.float();
  const nowMs = (): number => world.clock.nowMs() * rate + offset;
  return {
    clock: { nowMs, nowUs: () => nowMs() * 1_000 },
    step: (ms) => {
      offset += ms;
    },
    // When this clock will show that, if it is not stepped before.
    worldMs: (ms) => (ms - offset) / rate,
  };
}

/** Calls that take their time, are never answered, or are applied long after. */
function nasty(store: LeaseStore, world: VirtualTime, random: Random): LeaseStore {
  const call = <T>(run: () => Promise<T>, timeoutMs: number): Promise<T> =>
    new Promise((resolve, reject) => {
      const draw = random.float();
      const thereMs = draw < 0.1 ? timeoutMs + random.float() * 3_000 : random.float() * 40;
      const backMs = draw > 0.9 ? Number.POSITIVE_INFINITY : random.float() * 40;
      let open = true;
      world.scheduler.after(timeoutMs, () => {
        if (open) reject(new ShardloomError("ERR_TIMEOUT", "Cannot wait any longer"));
        open = false;
      });
      const answer = (act: () => void): void => {
        if (backMs === Number.POSITIVE_INFINITY) return;
        world.scheduler.after(backMs, () => {
          if (open) act();
          open = false;
        });
      };
      world.scheduler.after(thereMs, () => {
        run().then(
          (value) => answer(() => resolve(value)),
          (error: unknown) => answer(() => reject(ShardloomError.from(error))),
        );
      });
    });
  return {
    get: (key, timeoutMs) => call(() => store.get(key, timeoutMs), timeoutMs),
    put: (key, value, revision, timeoutMs) => call(() => store.put(key, value, revision, timeoutMs), timeoutMs),
  };
}

describe("a lease", () => {
  test("is over for its holder before anybody has taken it, whatever store and clocks do", async () => {
    console.info(`leases: SEED=${SEED}`);
    const seen = { taken: 0, renewed: 0, early: 0, steps: 0 };
    for (let run = 0; run < RUNS; run++) await driveLease(SEED + run, seen);
    expect(seen.taken).toBeGreaterThan(RUNS);
    expect(seen.renewed).toBeGreaterThan(10 * RUNS);
    expect(seen.steps).toBeGreaterThan(RUNS);
  });

  test("is renewed by who has it, also when an answer was lost, and not by who had it", async () => {
    const world = createVirtualTime(5_000);
    const store = createLocalLeaseStore();
    const { clock } = world;
    let lose = false;
    const lossy: LeaseStore = {
      ...store,
      put: async (...put) => {
        const revision = await store.put(...put);
        if (lose) throw new ShardloomError("ERR_TIMEOUT", "Cannot wait any longer");
        return revision;
      },
    };
    const lease = new HeldLease({ store: lossy, clock, node: "a", incarnation: 3, leaseMs: LEASE_MS });
    expect(await lease.acquire()).toBe(true);
    expect(lease.untilMs).toBe(6_000);
    lose = true;
    await world.advance(300);
    expect(await lease.renew()).toBe("held"); // it is there when it is looked at
    expect(lease.untilMs).toBe(6_300);
    lose = false;
    const entry = await store.get(leaseKey("a"), 10);
    expect(await takeLease(store, "a", entry, "b", 10)).toEqual({ leaseEpoch: 2 });
    expect(await takeLease(store, "a", entry, "c", 10)).toBeUndefined();
    expect(await lease.renew()).toBe("lost");
    expect(lease.untilMs).toBe(6_300);
    expect(decodeLease((await store.get(leaseKey("a"), 10))?.value as Uint8Array)?.takenBy).toBe("b");
    expect(await lease.acquire()).toBe(true);
    expect(lease.leaseEpoch).toBe(3);
    const older = new HeldLease({ store, clock, node: "a", incarnation: 2, leaseMs: LEASE_MS });
    await expect(older.acquire()).rejects.toMatchObject({ code: "ERR_STALE_EPOCH" });
  });

  test("counts for watchers by looks: a clock that jumps, or a thread that slept, ends no lease", () => {
    const watched = new WatchedLease(LEASE_MS, LOOK_MS, 0);
    watched.saw({ value: new Uint8Array(), revision: 7 }, 0);
    expect(watched.look(1e9)).toBe(false);
    let looks = 1;
    while (!watched.look(1e9 + looks * LOOK_MS)) looks++;
    expect(looks * LOOK_MS).toBeGreaterThan(LEASE_MS);
    expect(looks * LOOK_MS).toBeLessThan(1.3 * LEASE_MS);
    watched.saw({ value: new Uint8Array(), revision: 6 }, 0);
    expect(watched.entry?.revision).toBe(7);
  });
});

describe("words of a lease", () => {
  test("say until when it is good, for every thread, and which shards are barred", () => {
    let nowMs = 2 ** 31 - 500; // their word wraps
    const block = new SharedArrayBuffer(96);
    const words = new LeaseWords(block, () => nowMs);
    const other = new LeaseWords(block, () => nowMs, 33);
    expect([other.isGranted, other.isValid, other.lapsedMs]).toEqual([false, true, 0]);
    words.hold(nowMs + 1_000);
    expect([other.isGranted, other.isValid]).toEqual([true, true]);
    nowMs += 998;
    expect(other.isValid).toBe(true);
    nowMs += 2;
    expect([other.isValid, other.lapsedMs]).toEqual([false, 1]);
    nowMs += 700;
    expect(other.lapsedMs).toBe(701);
    words.hold(nowMs + 10);
    words.bar(33);
    expect([other.isValid, words.isValid, new LeaseWords(block, () => nowMs, 1).isValid]).toEqual([false, true, true]);
    words.unbar(33);
    expect(other.isValid).toBe(true);
    words.lapse();
    expect([other.isValid, other.lapsedMs]).toEqual([false, Number.POSITIVE_INFINITY]);
  });
});

/** One holder, which pauses now and then, and two that take the lease whenever they find it over. */
async function driveLease(
  seed: number,
  seen: { taken: number; renewed: number; early: number; steps: number },
): Promise<void> {
  const random = createSeededRandom(seed);
  const world = createVirtualTime(1_000);
  const truth = createLocalLeaseStore();
  const holderClock = clockOf(world, random);
  const lease = new HeldLease({
    store: nasty(truth, world, random),
    clock: holderClock.clock,
    node: "a",
    incarnation: 1,
    leaseMs: LEASE_MS,
  });
  let ended = false;
  // What no watcher may contradict: from when it is taken in truth, the holder's clock is beyond what it counts on.
  truth.watch?.((_, entry) => {
    if (decodeLease(entry.value)?.takenBy === undefined) return;
    seen.taken++;
    const leftMs = holderClock.worldMs(lease.untilMs) - world.clock.nowMs();
    if (leftMs > 0) throw new Error(`seed ${seed}: taken while its holder counts on ${leftMs} ms more`);
  });
  const hold = async (): Promise<void> => {
    while (!ended) {
      if (random.float() < 0.05) await pause(world, random.float() * 4_000);
      const outcome = lease.untilMs === Number.NEGATIVE_INFINITY ? await lease.acquire() : await lease.renew();
      if (outcome === "held" || outcome === true) seen.renewed++;
      if (outcome === "lost") await lease.acquire();
      await pause(world, LEASE_MS / 3);
    }
  };
  const watch = async (name: string): Promise<void> => {
    const { clock, step } = clockOf(world, random);
    const store = nasty(truth, world, random);
    const watched = new WatchedLease(LEASE_MS, LOOK_MS, clock.nowMs());
    while (!ended) {
      await pause(world, LOOK_MS * (0.9 + 0.2 * random.float()));
      if (random.float() < 0.01) {
        step(random.float() * 5_000);
        seen.steps++;
      }
      const entry = await store.get(leaseKey("a"), 200).catch(() => undefined);
      if (entry !== undefined) watched.saw(entry, clock.nowMs());
      if (watched.look(clock.nowMs())) await takeLease(store, "a", watched.entry, name, 200);
    }
  };
  const loops = [hold(), watch("b"), watch("c")];
  await world.advance(60_000);
  ended = true;
  await world.advance(20_000);
  await Promise.all(loops);
}

function pause(world: VirtualTime, delayMs: number): Promise<void> {
  return new Promise((resolve) => world.scheduler.after(delayMs, resolve));
}
