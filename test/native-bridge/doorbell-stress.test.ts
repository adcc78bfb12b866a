/**
 * Lost wake-ups: each item is asked only when the last was answered, so one lost wake stalls the pair for good.
 * Acceptable outcomes: every item is answered, no wait times out. `SHARDLOOM_LONG=1`: 2 million items each.
 */
import { expect, test } from "vitest";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { AdaptiveSpin, waitUntil } from "../../native-bridge/idle-strategy.ts";
import {
  initializeRing,
  RING_CLOSED,
  RING_POISONED,
  RingConsumer,
  RingProducer,
  ringByteLength,
} from "../../native-bridge/spsc-ring.ts";
import type { DoorbellInput } from "./doorbell-stress.worker.ts";
import type { ParkedInput } from "./parked.worker.ts";
import { ANSWERED, ASKED, LONG, LOST_MS, nowUs, runWorker } from "./support.ts";

const ITEMS = LONG ? 2_000_000 : 20_000;

test.each(["wait", "waitAsync"] as const)(
  "stress: no wake-up is lost when the worker parks with %s",
  async (how) => {
    const memory = new SharedArrayBuffer(6 * DOORBELL_BYTES);
    const words = new Int32Array(memory);
    const input: DoorbellInput = { memory, how, items: ITEMS };
    const outcome = runWorker<{ answered: number; lost: number }>(
      new URL("./doorbell-stress.worker.js", import.meta.url),
      input,
    );
    await new Promise((resolve) => setImmediate(resolve));
    const workerBell = new Doorbell(memory, 0);
    const callerBell = new Doorbell(memory, DOORBELL_BYTES);
    const spin = new AdaptiveSpin({ nowUs, maxSpinUs: 5 });
    let asked = 0;
    const answered = (): boolean => Atomics.load(words, ANSWERED) === asked;
    while (asked < ITEMS) {
      asked++;
      Atomics.store(words, ASKED, asked);
      workerBell.ring();
      if (!waitUntil(answered, callerBell, spin, nowUs, LOST_MS)) break;
    }
    expect(asked).toBe(ITEMS);
    expect(await outcome).toEqual({ answered: ITEMS, lost: 0 });
    const { parks, wakes } = workerBell.counters();
    expect(parks).toBeGreaterThan(ITEMS / 100); // it did park
    expect(wakes).toBeLessThanOrEqual(ITEMS);
  },
  LONG ? 600_000 : 60_000,
);

test.each([
  ["wait", "close", RING_CLOSED],
  ["waitAsync", "close", RING_CLOSED],
  ["wait", "poison", RING_POISONED],
  ["waitAsync", "poison", RING_POISONED],
] as const)("a consumer parked with %s sees a %s", async (how, what, code) => {
  const ringOffset = 2 * DOORBELL_BYTES;
  const memory = new SharedArrayBuffer(ringOffset + ringByteLength(1024));
  initializeRing(memory, ringOffset, 1024);
  const bell = new Doorbell(memory, 0);
  const input: ParkedInput = { memory, ringOffset, how };
  const outcome = runWorker<number>(new URL("./parked.worker.js", import.meta.url), input);
  const producer = new RingProducer(memory, ringOffset);
  while (bell.counters().parks === 0) await new Promise((resolve) => setImmediate(resolve));
  if (what === "close") {
    producer.close();
  } else {
    const at = producer.tryClaim(1, 8);
    producer.i32[(at - 4) >> 2] = -1; // the type word, with its check
    producer.commit(at);
    producer.flush();
  }
  bell.ring();
  expect(await outcome).toBe(code);
  expect(producer.tryClaim(1, 8)).toBe(code);
});

test("waitUntil() says that time ran out, and takes work that came while it parked", () => {
  const memory = new SharedArrayBuffer(ringByteLength(1024));
  initializeRing(memory, 0, 1024);
  const consumer = new RingConsumer(memory);
  const bell = new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
  const spin = new AdaptiveSpin({ nowUs });
  const startUs = nowUs();
  expect(waitUntil(() => !consumer.isEmpty(), bell, spin, nowUs, 150)).toBe(false);
  expect(nowUs() - startUs).toBeGreaterThan(140_000);
  expect(bell.counters().parks).toBeGreaterThanOrEqual(3); // slices of 20 ms, each of which a busy machine may stretch
});
