/**
 * What the tests of the one-sided memory share: a printed seed, a generator, a small arena, workers with a deadline.
 *
 * Invariant: everything random comes from `seed`, so `SEED=…` repeats a run (interleavings of real threads excepted).
 */
import { randomBytes } from "node:crypto";
import { Worker } from "node:worker_threads";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { RegionTable } from "../../native-bridge/region-table.ts";

/** Whether the long runs were asked for. */
export const LONG: boolean = process.env["SHARDLOOM_LONG"] === "1";

/** The run's seed: env SEED, or a fresh one; printed. */
export function seedOf(name: string): number {
  const seed = Number(process.env["SEED"] ?? randomBytes(4).readUInt32LE()) >>> 0;
  console.log(`${name}: SEED=${seed}`);
  return seed;
}

/** Uniform uint32 from a seed (Steele & Vigna's splitmix, 32-bit finalizer by Wellons). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e37_79b9) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0_aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a_2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
}

/** An arena with a table for owner 1, keys from the seed. */
export function memory(seed: number, capacityBytes: number = 4_194_304): { arena: Arena; table: RegionTable } {
  const arena = new Arena(createArena({ capacityBytes }));
  return { arena, table: new RegionTable(arena, 1, generator(seed)) };
}

class Death extends Error {}

const DEADLY = ["store", "add", "sub", "compareExchange", "or", "and"] as const;

/**
 * Runs `act` as a thread that dies at its n-th atomic operation: just before it, or, with `after`, just after. From there every
 * further one throws as well, so that no `finally` or `catch` does what a dead thread cannot. Returns whether it died.
 */
export function dieAt(n: number, act: () => void, after: boolean = false): boolean {
  const table = Atomics as unknown as Record<string, (...parameters: unknown[]) => unknown>;
  const originals = DEADLY.map((name) => [name, table[name]] as const);
  let left = n;
  for (const [name, original] of originals) {
    table[name] = (...parameters) => {
      if (left-- > 0) return original?.(...parameters);
      if (left === -1 && after) original?.(...parameters);
      throw new Death("here the thread dies");
    };
  }
  try {
    act();
    return false;
  } catch (error) {
    if (error instanceof Death) return true;
    throw error;
  } finally {
    for (const [name, original] of originals) table[name] = original as never;
  }
}

/** Starts a worker of `test/` and settles with its last message, or rejects with its error or at the deadline. */
export function runWorker<T>(
  url: URL,
  workerData: unknown,
  timeoutMs: number = 300_000,
): { worker: Worker; result: Promise<T> } {
  const worker = new Worker(url, { workerData });
  const result = new Promise<T>((resolve, reject) => {
    let last: T | undefined;
    const deadline = setTimeout(() => {
      reject(new Error(`worker ${url.pathname} did not finish in ${timeoutMs} ms`));
      void worker.terminate();
    }, timeoutMs);
    worker.on("message", (value: T) => (last = value));
    worker.on("error", reject);
    worker.on("exit", () => {
      clearTimeout(deadline);
      resolve(last as T);
    });
  });
  return { worker, result };
}
