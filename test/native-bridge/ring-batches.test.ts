/** Two real threads: a batch becomes visible as a whole, with its first record and never before it. */
import { expect, test } from "vitest";
import { initializeRing, RingProducer, ringByteLength } from "../../native-bridge/spsc-ring.ts";
import { type BatchesInput, type BatchesOutcome, BURST } from "./ring-batches.worker.ts";
import { LONG, runWorker } from "./support.ts";

const BURSTS = LONG ? 200_000 : 20_000;
const CAPACITY_BYTES = 65_536;

/** Drains that must have ended beside a running producer before the test says anything. */
const ENOUGH_DRAINS = 100;
const MOST_ROUNDS = 20;

async function round(): Promise<BatchesOutcome> {
  const memory = new SharedArrayBuffer(ringByteLength(CAPACITY_BYTES));
  initializeRing(memory, 0, CAPACITY_BYTES);
  const input: BatchesInput = { memory, records: BURSTS * BURST };
  const outcome = runWorker<BatchesOutcome>(new URL("./ring-batches.worker.js", import.meta.url), input);
  await new Promise((resolve) => setImmediate(resolve));
  const producer = new RingProducer(memory);
  const giveUpMs = Date.now() + 50_000;
  for (let burst = 0; burst < BURSTS; burst++) {
    // A refused claim would publish early: the ring has room for the whole burst before it begins.
    while (producer.usedBytes() > CAPACITY_BYTES / 2)
      if (Date.now() > giveUpMs) throw new Error(`stuck in burst ${burst}`);
    for (let record = 0; record < BURST; record++) {
      const offset = producer.tryClaim(1, 8 + 8 * (record % 7));
      producer.i32[offset >> 2] = burst * BURST + record;
      producer.commit(offset);
    }
    producer.flush();
  }
  producer.close();
  return outcome;
}

// Acceptable outcomes: every drain ends where a publication ended, all records in order. Nothing else.
test(
  "a drain never ends inside a batch",
  async () => {
    let drains = 0;
    // A drain goes on for as long as it finds records: on a machine with one free core few of them end in a round.
    for (let rounds = 0; rounds < MOST_ROUNDS && drains < ENOUGH_DRAINS; rounds++) {
      const { records, outOfOrder, tornBatches, drains: ended } = await round();
      expect({ records, outOfOrder, tornBatches }).toEqual({ records: BURSTS * BURST, outOfOrder: 0, tornBatches: 0 });
      drains += ended;
    }
    expect(drains).toBeGreaterThanOrEqual(ENOUGH_DRAINS);
  },
  LONG ? 600_000 : 60_000,
);
