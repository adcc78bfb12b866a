import { describe, expect, test } from "vitest";
import {
  HEAD_OFFSET,
  RING_HEADER_BYTES,
  STATE_OFFSET,
  STATE_POISONED,
  TAIL_OFFSET,
} from "../../native-bridge/ring-layout.ts";
import {
  INSUFFICIENT_CAPACITY,
  initializeRing,
  RING_CLOSED,
  RING_POISONED,
  RingConsumer,
  RingProducer,
  ringByteLength,
} from "../../native-bridge/spsc-ring.ts";

function makeRing(
  capacityBytes: number,
  publishBatchMessages?: number,
): { buffer: SharedArrayBuffer; producer: RingProducer; consumer: RingConsumer } {
  const buffer = new SharedArrayBuffer(ringByteLength(capacityBytes));
  initializeRing(buffer, 0, capacityBytes);
  return {
    buffer,
    producer: new RingProducer(buffer, 0, publishBatchMessages === undefined ? {} : { publishBatchMessages }),
    consumer: new RingConsumer(buffer),
  };
}

function send(producer: RingProducer, type: number, payload: readonly number[]): number {
  const offset = producer.tryClaim(type, payload.length);
  if (offset < 0) return offset;
  producer.bytes.set(payload, offset);
  producer.commit(offset);
  return offset;
}

function collect(consumer: RingConsumer, limit: number = 1000): { code: number; records: [number, number[]][] } {
  const records: [number, number[]][] = [];
  const code = consumer.drain((type, offset, lengthBytes) => {
    expect(offset % 8).toBe(0);
    records.push([type, [...consumer.bytes.subarray(offset, offset + lengthBytes)]]);
  }, limit);
  return { code, records };
}

describe("SPSC ring", () => {
  test("hands records over in order with type and bytes", () => {
    const { producer, consumer } = makeRing(1024);
    send(producer, 1, [1, 2, 3]);
    send(producer, 0xffff, []);
    send(producer, 7, [9, 9, 9, 9, 9, 9, 9, 9, 9]);
    producer.flush();
    expect(collect(consumer)).toEqual({
      code: 3,
      records: [
        [1, [1, 2, 3]],
        [0xffff, []],
        [7, [9, 9, 9, 9, 9, 9, 9, 9, 9]],
      ],
    });
    expect(collect(consumer)).toEqual({ code: 0, records: [] });
  });

  test("drain() stops at its limit and goes on where it stopped", () => {
    const { producer, consumer } = makeRing(1024);
    for (let i = 1; i <= 5; i++) send(producer, i, [i]);
    producer.flush();
    expect(collect(consumer, 2).records.map(([type]) => type)).toEqual([1, 2]);
    expect(collect(consumer, 0).code).toBe(0);
    expect(collect(consumer, 9).records.map(([type]) => type)).toEqual([3, 4, 5]);
  });

  test("a full ring refuses, and takes again once drained", () => {
    const { producer, consumer } = makeRing(64);
    for (let i = 0; i < 3; i++) expect(send(producer, 1, [i, 1, 1, 1, 1, 1, 1, 1])).toBeGreaterThan(0);
    expect(send(producer, 1, [4])).toBe(INSUFFICIENT_CAPACITY); // the size word of the next record must have room too
    expect(producer.usedBytes()).toBe(48);
    expect(collect(consumer).code).toBe(3);
    expect(send(producer, 1, [5])).toBeGreaterThan(0);
    expect(producer.counters().refusals).toBe(1);
  });

  test("a refusal publishes what is pending, so that the consumer can make room", () => {
    const { producer, consumer } = makeRing(64);
    for (let i = 0; i < 3; i++) send(producer, 1, [0]);
    expect(producer.tryClaim(1, 1)).toBe(INSUFFICIENT_CAPACITY);
    expect(collect(consumer).code).toBe(3);
  });

  test("records never straddle the end: the rest is padded", () => {
    const { producer, consumer } = makeRing(256);
    const payload = Array.from({ length: 40 }, (_, i) => i);
    const offsets = new Set<number>();
    for (let round = 0; round < 100; round++) {
      const offset = send(producer, 3, payload);
      offsets.add(offset);
      expect(offset + payload.length).toBeLessThanOrEqual(RING_HEADER_BYTES + 256);
      producer.flush();
      expect(collect(consumer).records).toEqual([[3, payload]]);
    }
    expect(offsets.size).toBeGreaterThan(3);
  });

  test("positions wrap at 2^31 and 2^32", () => {
    for (const start of [0x7fffff80, -128]) {
      const { buffer } = makeRing(128);
      const words = new Int32Array(buffer);
      words[TAIL_OFFSET >> 2] = start | 0;
      words[HEAD_OFFSET >> 2] = start | 0;
      const producer = new RingProducer(buffer);
      const consumer = new RingConsumer(buffer);
      for (let i = 0; i < 50; i++) {
        expect(send(producer, 1, [i, i, i])).toBeGreaterThan(0);
        producer.flush();
        expect(collect(consumer).records).toEqual([[1, [i, i, i]]]);
      }
    }
  });

  test("abort() leaves no trace, also at the wrap", () => {
    const { producer, consumer } = makeRing(128);
    for (let i = 0; i < 100; i++) {
      const claimed = producer.tryClaim(1, (i * 7) % 25);
      expect(claimed).toBeGreaterThan(0);
      producer.abort(claimed);
      send(producer, 2, [i & 255]);
      producer.flush();
      expect(collect(consumer).records).toEqual([[2, [i & 255]]]);
    }
    expect(producer.usedBytes()).toBe(0);
  });

  test("a claim that was never committed is forgotten by the next one", () => {
    const { producer, consumer } = makeRing(128);
    const lost = producer.tryClaim(1, 8);
    const kept = producer.tryClaim(2, 16);
    expect(kept).toBe(lost);
    producer.commit(kept);
    expect(() => producer.commit(kept)).toThrow(/offset must be one of an open claim/);
    expect(() => producer.abort(lost)).toThrow(/offset/);
    producer.flush();
    expect(collect(consumer).records.map(([type]) => type)).toEqual([2]);
  });

  test.each([
    ["too large", 1, 249, "ERR_RECORD_TOO_LARGE"],
    ["far too large", 1, 2 ** 40, "ERR_RECORD_TOO_LARGE"],
    ["negative", 1, -1, "ERR_INVALID_ARGUMENT"],
    ["fractional", 1, 1.5, "ERR_INVALID_ARGUMENT"],
    ["NaN", 1, Number.NaN, "ERR_INVALID_ARGUMENT"],
    ["infinite", 1, Number.POSITIVE_INFINITY, "ERR_INVALID_ARGUMENT"],
    ["type 0", 0, 1, "ERR_INVALID_ARGUMENT"],
    ["type 65536", 65_536, 1, "ERR_INVALID_ARGUMENT"],
    ["type -1", -1, 1, "ERR_INVALID_ARGUMENT"],
    ["type 1.5", 1.5, 1, "ERR_INVALID_ARGUMENT"],
  ])("tryClaim() refuses %s with nothing written", (_, type, lengthBytes, code) => {
    const { producer, consumer } = makeRing(1024);
    expect(() => producer.tryClaim(type, lengthBytes)).toThrow(expect.objectContaining({ code }));
    producer.flush();
    expect(collect(consumer).code).toBe(0);
    expect(send(producer, 1, [1])).toBeGreaterThan(0);
  });

  test("publication: at once when the consumer has caught up, batched while it is behind, all at flush", () => {
    const { producer, consumer } = makeRing(8192, 8);
    send(producer, 1, [1]);
    expect(consumer.isEmpty()).toBe(false);
    expect(collect(consumer).code).toBe(1);
    producer.flush();
    send(producer, 1, [1]); // visible: caught up
    for (let i = 0; i < 5; i++) send(producer, 1, [2]); // two, then three of the next four: held
    expect(collect(consumer).code).toBe(3);
    expect(collect(consumer).code).toBe(0);
    expect(producer.flush()).toBe(true);
    expect(producer.flush()).toBe(false);
    expect(collect(consumer).code).toBe(3);
    for (let i = 0; i < 100; i++) send(producer, 1, [3]);
    producer.flush();
    expect(collect(consumer).code).toBe(100);
    expect(producer.counters()).toMatchObject({ produced: 107, consumed: 107 });
    expect(producer.counters().publications).toBeLessThan(30);
  });

  test("publishBatchMessages 1 publishes every record", () => {
    const { producer, consumer } = makeRing(8192, 1);
    for (let i = 0; i < 10; i++) send(producer, 1, [i]);
    expect(collect(consumer).code).toBe(10);
    expect(producer.counters().publications).toBe(10);
    expect(() => makeRing(64, 0)).toThrow(/publishBatchMessages/);
  });

  test("a handler that throws has consumed its record; the rest stays", () => {
    const { producer, consumer } = makeRing(1024);
    for (let i = 1; i <= 3; i++) send(producer, i, [i]);
    producer.flush();
    expect(() =>
      consumer.drain((type) => {
        if (type === 2) throw new Error("two");
      }, 10),
    ).toThrow("two");
    expect(collect(consumer).records.map(([type]) => type)).toEqual([3]);
    expect(producer.usedBytes()).toBe(0);
  });

  test("producer close: everything committed arrives, then RING_CLOSED", () => {
    const { producer, consumer } = makeRing(1024);
    for (let i = 1; i <= 3; i++) send(producer, i, [i]);
    producer.close();
    producer.close();
    expect(producer.tryClaim(1, 1)).toBe(RING_CLOSED);
    expect(consumer.isDone()).toBe(false);
    expect(collect(consumer, 2).code).toBe(2);
    expect(collect(consumer).code).toBe(1);
    expect(collect(consumer).code).toBe(RING_CLOSED);
    expect(consumer.isDone()).toBe(true);
  });

  test("consumer close: the producer's next claim says so", () => {
    const { producer, consumer } = makeRing(1024);
    expect(producer.status()).toBe(0);
    consumer.close();
    expect(producer.tryClaim(1, 1)).toBe(RING_CLOSED);
    expect(producer.status()).toBe(RING_CLOSED);
    expect(collect(consumer).code).toBe(RING_CLOSED);
  });

  test.each([
    ["length too large", 0, 1 << 20],
    ["negative length", 0, -8],
    ["another length", 0, 16],
    ["zeroed type", 4, 0],
    ["garbage type", 4, 0x12345678],
  ])("a corrupt header (%s) poisons: earlier records arrive, none after", (_, byte, value) => {
    const { buffer, producer, consumer } = makeRing(1024);
    send(producer, 1, [1]);
    const offset = send(producer, 2, [2]);
    send(producer, 3, [3]);
    producer.flush();
    new Int32Array(buffer)[(offset - 8 + byte) >> 2] = value;
    expect(collect(consumer)).toEqual({ code: 1, records: [[1, [1]]] });
    expect(collect(consumer)).toEqual({ code: RING_POISONED, records: [] });
    expect(producer.tryClaim(1, 1)).toBe(RING_POISONED);
    expect(consumer.isEmpty()).toBe(true);
    expect(Atomics.load(new Int32Array(buffer), STATE_OFFSET >> 2) & STATE_POISONED).toBe(STATE_POISONED);
  });

  test("nothing of a batch is visible before its first record, and all of it with that", () => {
    const { buffer, producer, consumer } = makeRing(8192);
    send(producer, 1, [1]);
    expect(collect(consumer).code).toBe(1);
    const offsets = [send(producer, 2, [2]), send(producer, 3, [3])]; // the second batch of the burst is of two
    expect(collect(consumer).records.map(([type]) => type)).toEqual([2, 3]);
    offsets.push(send(producer, 4, [4]), send(producer, 5, [5]), send(producer, 6, [6]));
    const words = new Int32Array(buffer);
    expect(words[((offsets[2] as number) - 8) >> 2]).toBe(0); // held back
    expect(words[((offsets[3] as number) - 8) >> 2]).toBe(9);
    expect(collect(consumer)).toEqual({ code: 0, records: [] });
    producer.flush();
    expect(collect(consumer).records.map(([type]) => type)).toEqual([4, 5, 6]);
  });

  test("a size word that became 0 poisons once the consumer has looked for a while, or when the ring closes", () => {
    for (const closes of [false, true]) {
      const { buffer, producer, consumer } = makeRing(1024);
      const offset = send(producer, 1, [1]);
      new Int32Array(buffer)[(offset - 8) >> 2] = 0;
      if (closes) producer.close();
      for (let look = 0; look < (closes ? 1 : 1024); look++) consumer.drain(() => expect.unreachable(), 1);
      expect(consumer.drain(() => expect.unreachable(), 1)).toBe(RING_POISONED);
    }
  });

  test("a long drain gives space back before it ends", () => {
    const { producer, consumer } = makeRing(1024);
    const payload = Array.from({ length: 56 }, () => 7);
    while (send(producer, 1, payload) > 0);
    const seen: number[] = [];
    const code = consumer.drain((type) => {
      seen.push(type);
      // The space is used at once, while this drain goes on; asking for emptiness meanwhile must find nothing wrong.
      if (seen.length < 100) while (send(producer, 1 + seen.length, payload) > 0) producer.flush();
      for (let look = 0; look < 600; look++) expect(consumer.isEmpty()).toBe(false);
    }, 1000);
    expect(code).toBe(seen.length);
    expect(seen.length).toBeGreaterThan(100);
    expect(consumer.isEmpty()).toBe(true);
  });

  test("a later producer does not take over what was committed and never published", () => {
    const { buffer, producer, consumer } = makeRing(1024);
    for (let i = 1; i <= 6; i++) send(producer, i, [i]); // 1, then 2 and 3, are visible; 4 to 6 are not yet
    const next = new RingProducer(buffer);
    expect(next.usedBytes()).toBe(48);
    send(next, 9, [9]);
    expect(collect(consumer).records.map(([type]) => type)).toEqual([1, 2, 3, 9]);
  });

  test("several rings share a buffer, and a later producer goes on where the last published", () => {
    const length = ringByteLength(256);
    const buffer = new SharedArrayBuffer(2 * length);
    initializeRing(buffer, 0, 256);
    initializeRing(buffer, length, 256);
    const consumers = [new RingConsumer(buffer, 0), new RingConsumer(buffer, length)] as const;
    for (let round = 0; round < 20; round++) {
      for (const [index, byteOffset] of [0, length].entries()) {
        const producer = new RingProducer(buffer, byteOffset);
        send(producer, index + 1, [round]);
        producer.flush();
      }
      expect(collect(consumers[0]).records).toEqual([[1, [round]]]);
      expect(collect(consumers[1]).records).toEqual([[2, [round]]]);
    }
  });
});
