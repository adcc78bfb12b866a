/** The ring against a model queue, and its decoder against damaged memory. `SEED=…` repeats; `SHARDLOOM_LONG=1` is long. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { CAPACITY_OFFSET, HEAD_OFFSET, RING_HEADER_BYTES, TAIL_OFFSET } from "../../native-bridge/ring-layout.ts";
import {
  INSUFFICIENT_CAPACITY,
  initializeRing,
  RING_POISONED,
  RingConsumer,
  RingProducer,
  ringByteLength,
} from "../../native-bridge/spsc-ring.ts";
import { announceSeed, LONG, nextRandom } from "./support.ts";

type Step =
  | { readonly do: "send"; readonly type: number; readonly length: number }
  | { readonly do: "abort"; readonly length: number }
  | { readonly do: "flush" }
  | { readonly do: "drain"; readonly limit: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("send" as const),
      type: fc.integer({ min: 1, max: 0xffff }),
      length: fc.nat(200),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("abort" as const), length: fc.nat(200) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("flush" as const) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("drain" as const), limit: fc.nat(6) }) },
);

test("property: any sequence of operations agrees with a queue", () => {
  const seed = announceSeed("ring model");
  fc.assert(
    fc.property(
      fc.integer({ min: 6, max: 11 }),
      fc.constantFrom(1, 4, 32),
      fc.integer(),
      fc.array(step, { maxLength: 300 }),
      (bits, batch, start, steps) => {
        const capacity = 2 ** bits;
        const memory = new SharedArrayBuffer(ringByteLength(capacity));
        initializeRing(memory, 0, capacity);
        const words = new Int32Array(memory);
        words[TAIL_OFFSET >> 2] = words[HEAD_OFFSET >> 2] = (start << 3) | 0; // any lap, also around 2^31
        const producer = new RingProducer(memory, 0, { publishBatchMessages: batch });
        const consumer = new RingConsumer(memory);
        const model: { type: number; length: number; fill: number }[] = [];
        let fill = 0;
        let consumed = 0;
        let flushed = 0;
        let sent = 0;
        const take = (type: number, offset: number, length: number): void => {
          const first = model.shift();
          expect([type, length]).toEqual([first?.type, first?.length]);
          for (let i = 0; i < length; i++)
            if (consumer.bytes[offset + i] !== first?.fill) throw new Error(`byte ${i} of record ${consumed} differs`);
          consumed++;
        };
        for (const action of steps) {
          if (action.do === "send") {
            if (action.length > producer.maxPayloadBytes) continue;
            const offset = producer.tryClaim(action.type, action.length);
            if (offset === INSUFFICIENT_CAPACITY) {
              // Refused only when the record and the padding before a wrap really do not fit.
              const used = model.reduce((bytes, record) => bytes + ((record.length + 15) & -8), 0);
              expect(
                used + 2 * ((action.length + 15) & -8) + 2 * ((producer.maxPayloadBytes + 15) & -8) + 8,
              ).toBeGreaterThan(capacity);
              flushed = sent;
              continue;
            }
            fill = (fill + 1) & 0xff;
            producer.bytes.fill(fill, offset, offset + action.length);
            producer.commit(offset);
            model.push({ type: action.type, length: action.length, fill });
            sent++;
          } else if (action.do === "abort") {
            if (action.length > producer.maxPayloadBytes) continue;
            const offset = producer.tryClaim(1, action.length);
            if (offset >= 0) {
              producer.bytes.fill(0xee, offset, offset + action.length);
              producer.abort(offset);
            } else {
              flushed = sent;
            }
          } else if (action.do === "flush") {
            producer.flush();
            flushed = sent;
          } else {
            const before = consumed;
            const count = consumer.drain(take, action.limit);
            expect(count).toBe(consumed - before);
            // What was flushed before must come, up to the limit.
            expect(count).toBeGreaterThanOrEqual(Math.min(action.limit, flushed - before));
          }
        }
        producer.close();
        while (consumer.drain(take, 1000) > 0);
        expect(model).toEqual([]);
      },
    ),
    { seed, numRuns: LONG ? 20_000 : 400 },
  );
});

/**
 * Damages one header word of a filled ring and drains. Acceptable outcomes, and no other:
 * - *intact*: the damage hit padding that was never read, or wrote the value that stood there; all records are right;
 * - *poisoned*: a prefix of the records, each right, then RING_POISONED for good;
 * - *undetected*: a damaged header that passes its 16-bit check by chance (expected 2^-16 of random words): what is
 *   handed out lies within the ring (or the last record counts as padding). Bounded here at 8 times the expectation plus 8.
 */
test(
  "fuzz: a damaged header poisons the ring, and nothing outside it is ever handed out",
  () => {
    let random = announceSeed("ring fuzz") | 1;
    const rounds = LONG ? 4_000_000 : 100_000;
    const capacity = 1024;
    const memory = new SharedArrayBuffer(ringByteLength(capacity));
    const words = new Int32Array(memory);
    const outcomes = { intact: 0, poisoned: 0, undetected: 0 };
    const offsets: number[] = [];
    for (let round = 0; round < rounds; round++) {
      words.fill(0);
      initializeRing(memory, 0, capacity);
      random = nextRandom(random);
      words[TAIL_OFFSET >> 2] = words[HEAD_OFFSET >> 2] = random & -8;
      const producer = new RingProducer(memory);
      const consumer = new RingConsumer(memory);
      offsets.length = 0;
      for (;;) {
        random = nextRandom(random);
        const length = (random >>> 4) % 100;
        const offset = producer.tryClaim(1 + offsets.length, length);
        if (offset < 0) break;
        producer.bytes.fill(offsets.length, offset, offset + length);
        producer.commit(offset);
        offsets.push(offset, length);
      }
      producer.flush();
      random = nextRandom(random);
      const victim = (offsets[((random >>> 3) % (offsets.length >> 1)) * 2] as number) - 8;
      const index = (victim >> 2) + (random & 1);
      const before = words[index] as number;
      const kind = (random >>> 1) & 3;
      random = nextRandom(random);
      words[index] =
        kind === 0
          ? random
          : kind === 1
            ? before ^ (1 << (random & 31))
            : kind === 2
              ? (random & 0xff) - 128
              : before + (random % 9) * 8;
      let wrong = 0;
      let seen = 0;
      const code = consumer.drain((type, offset, length) => {
        if (offset < RING_HEADER_BYTES || length < 0 || offset + length > RING_HEADER_BYTES + capacity)
          throw new Error(`round ${round}: out of bounds`);
        if (type !== 1 + 2 * seen || offsets[2 * seen] !== offset || offsets[2 * seen + 1] !== length) wrong++;
        else
          for (let i = 0; i < length; i++)
            if (consumer.bytes[offset + i] !== ((2 * seen) & 0xff)) throw new Error(`round ${round}: content`);
        seen++;
      }, 1000);
      for (let look = 0; look < 1024; look++) consumer.isEmpty(); // a size word that became 0 is noticed by looking on
      const lost = wrong === 0 && code !== offsets.length >> 1 && consumer.drain(() => undefined, 1) !== RING_POISONED;
      if (wrong > 0 || lost) outcomes.undetected++;
      else if (code === offsets.length >> 1) outcomes.intact++;
      else {
        expect(consumer.drain(() => undefined, 1)).toBe(RING_POISONED);
        expect(producer.tryClaim(1, 1)).toBe(RING_POISONED);
        outcomes.poisoned++;
      }
    }
    process.stdout.write(`ring fuzz: ${JSON.stringify(outcomes)}\n`);
    expect(outcomes.poisoned).toBeGreaterThan(rounds / 2);
    expect(outcomes.undetected).toBeLessThanOrEqual(8 * (rounds / 65_536) + 8);
    expect(words[CAPACITY_OFFSET >> 2]).toBe(capacity);
  },
  LONG ? 600_000 : 60_000,
);
