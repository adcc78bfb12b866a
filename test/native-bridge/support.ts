/** Helpers of the native-bridge tests: sizes of long runs, seeds, workers that report, and a clock. */
import { Worker } from "node:worker_threads";
import { DOORBELL_BYTES } from "../../native-bridge/doorbell.ts";

/** `SHARDLOOM_LONG=1` runs stress and fuzz at full size. */
export const LONG: boolean = process.env["SHARDLOOM_LONG"] === "1";

/** Seed of this run: `SEED=…` repeats one. Printed by {@link announceSeed}. */
export const SEED: number =
  process.env["SEED"] === undefined ? (Date.now() ^ (process.pid << 8)) & 0x7fffffff : Number(process.env["SEED"]);

export function announceSeed(what: string): number {
  process.stdout.write(`${what}: SEED=${SEED}\n`);
  return SEED;
}

/** xorshift32: a small generator whose sequence both threads of a stress test can make. */
export function nextRandom(state: number): number {
  let x = state === 0 ? 0x9e3779b9 | 0 : state | 0;
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  return x | 0;
}

/** Clock in µs that is the same in every thread of the process. */
export function nowUs(): number {
  return (performance.timeOrigin + performance.now()) * 1000;
}

/** Starts a test worker; resolves with its one message, rejects when it throws or ends without one. */
export function runWorker<T>(url: URL, workerData: unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(url, { workerData });
    let answer: { readonly value: T } | undefined;
    worker.once("message", (value: T) => {
      answer = { value };
    });
    worker.once("error", reject);
    worker.once("exit", (code) => {
      if (answer === undefined) reject(new Error(`worker ended with code ${code} without an answer`));
      else resolve(answer.value);
    });
  });
}

/** Words of the doorbell stress after its two bells: what was asked, what was answered. */
export const ASKED: number = (2 * DOORBELL_BYTES) >> 2;
export const ANSWERED: number = (4 * DOORBELL_BYTES) >> 2;
/** A wait that lasts this long was missed by its ring: nothing here takes seconds. */
export const LOST_MS = 20_000;
