/** Two real threads, records with sequence and checksum. `SHARDLOOM_LONG=1`: 10⁸ records. */
import { expect, test } from "vitest";
import { Doorbell } from "../../native-bridge/doorbell.ts";
import { AdaptiveSpin, waitUntil } from "../../native-bridge/idle-strategy.ts";
import {
  INSUFFICIENT_CAPACITY,
  initializeRing,
  RING_CLOSED,
  RingProducer,
  ringByteLength,
} from "../../native-bridge/spsc-ring.ts";
import type { StressInput, StressOutcome } from "./ring-stress.worker.ts";
import { announceSeed, LONG, nextRandom, nowUs, runWorker } from "./support.ts";

const RECORDS = LONG ? 100_000_000 : 1_000_000;

function produce(
  producer: RingProducer,
  bells: { consumer: Doorbell; producer: Doorbell },
  seed: number,
  records: number,
): number {
  const spin = new AdaptiveSpin({ nowUs, maxSpinUs: 50 });
  const { i32 } = producer;
  let random = seed;
  let wanted = 0;
  const room = (): boolean => producer.usedBytes() + wanted <= producer.capacityBytes >> 1;
  for (let sequence = 0; sequence < records; sequence++) {
    random = nextRandom(random);
    const words = (random >>> 8) % 24;
    let offset = producer.tryClaim(1 + (sequence & 0xfff), 4 * (words + 1));
    while (offset === INSUFFICIENT_CAPACITY) {
      bells.consumer.ring();
      wanted = 8 + 4 * (words + 1);
      if (!waitUntil(room, bells.producer, spin, nowUs, 60_000)) return sequence;
      offset = producer.tryClaim(1 + (sequence & 0xfff), 4 * (words + 1));
    }
    if (offset < 0) return sequence;
    const at = offset >> 2;
    i32[at] = sequence;
    for (let word = 1; word < words + 1; word++) i32[at + word] = random + word;
    if ((random & 0x3f) === 0) {
      // A claim that is given back must leave no trace.
      producer.abort(offset);
      const again = producer.tryClaim(1 + (sequence & 0xfff), 4 * (words + 1));
      if (again !== offset) return sequence;
    }
    producer.commit(offset);
    if ((random & 0xff) === 1) {
      producer.flush();
      bells.consumer.ring();
    }
  }
  producer.close();
  bells.consumer.ring();
  return records;
}

// Acceptable outcomes: all records, in order, unchanged, then RING_CLOSED. Nothing else.
test.each([[4096], [65_536]])(
  "stress: %s bytes of ring, every record arrives once, in order, unchanged",
  async (capacityBytes) => {
    const seed = announceSeed(`ring stress, ${RECORDS} records`);
    const memory = new SharedArrayBuffer(256 + ringByteLength(capacityBytes));
    initializeRing(memory, 256, capacityBytes);
    const input: StressInput = { memory, ringOffset: 256, seed, records: RECORDS };
    const outcome = runWorker<StressOutcome>(new URL("./ring-stress.worker.js", import.meta.url), input);
    await new Promise((resolve) => setImmediate(resolve));
    const producer = new RingProducer(memory, 256);
    expect(
      produce(producer, { consumer: new Doorbell(memory, 0), producer: new Doorbell(memory, 128) }, seed, RECORDS),
    ).toBe(RECORDS);
    expect(await outcome).toEqual({ records: RECORDS, firstError: "", lastCode: RING_CLOSED });
    expect(producer.counters()).toMatchObject({ produced: RECORDS, consumed: RECORDS });
  },
  LONG ? 600_000 : 60_000,
);
