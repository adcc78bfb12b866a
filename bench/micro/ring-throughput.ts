/**
 * R1, R2, R6b: records a second through one ring between two threads, every byte written and summed.
 *
 * Baselines: the C++ ring of `bench/compare/native.cpp` and ringbuf.js. An empty side backs off some 1 us, a full one 100 turns; the C++ sides poll.
 */
import { initializeRing, RingProducer, ringByteLength } from "../../native-bridge/spsc-ring.ts";
import { openRingbuf } from "../compare/ringbuf.ts";
import type { BenchCase } from "../harness/harness.ts";
import { type NativeProgram, NativeSide } from "../harness/native.ts";
import { PARTNER_CORE } from "../harness/pin.ts";
import { backOff, CONTROL, CONTROL_SUM, ensure, Partner } from "./ring-partner.ts";

const CAPACITY_BYTES = 65_536;

type Produce = (producer: RingProducer, records: number) => void;

function writeSmall(f64: Float64Array, offset: number, value: number): void {
  const at = offset >> 3;
  f64[at] = value;
  f64[at + 1] = value + 1;
  f64[at + 2] = value + 2;
  f64[at + 3] = value + 3;
  f64[at + 4] = value + 4;
  f64[at + 5] = value + 5;
  f64[at + 6] = value + 6;
  f64[at + 7] = value + 7;
}

function produceBatched(producer: RingProducer, records: number): void {
  const { f64 } = producer;
  for (let record = 0; record < records; record++) {
    let offset = producer.tryClaim(1, 64);
    while (offset < 0) {
      backOff(100);
      offset = producer.tryClaim(1, 64);
    }
    writeSmall(f64, offset, record);
    producer.commit(offset);
  }
  producer.flush();
}

function produceEach(producer: RingProducer, records: number): void {
  const { f64 } = producer;
  for (let record = 0; record < records; record++) {
    let offset = producer.tryClaim(1, 64);
    while (offset < 0) {
      backOff(100);
      offset = producer.tryClaim(1, 64);
    }
    writeSmall(f64, offset, record);
    producer.commit(offset);
    producer.flush();
  }
}

const largeSource = new Uint8Array(new Float64Array(512).fill(1).buffer);

function produceLarge(producer: RingProducer, records: number): void {
  for (let record = 0; record < records; record++) {
    let offset = producer.tryClaim(1, 4096);
    while (offset < 0) {
      backOff(100);
      offset = producer.tryClaim(1, 4096);
    }
    producer.bytes.set(largeSource, offset);
    producer.commit(offset);
  }
  producer.flush();
}

class RingCase implements BenchCase {
  readonly name: string;
  readonly side = "shardloom";
  readonly unit = "ns/op";
  readonly #produce: Produce;
  readonly #records: number;
  readonly #wanted: number;
  readonly #partner: Partner;
  readonly #producer: RingProducer;
  #runs: number = 0;

  constructor(name: string, payloadBytes: number, records: number, produce: Produce, wanted: number) {
    this.name = name;
    this.#produce = produce;
    this.#records = records;
    this.#wanted = wanted;
    const capacityBytes = payloadBytes === 64 ? CAPACITY_BYTES : 2 ** 18;
    const memory = new SharedArrayBuffer(ringByteLength(capacityBytes));
    initializeRing(memory, 0, capacityBytes);
    this.#producer = new RingProducer(memory);
    this.#partner = new Partner({ role: "consume", memory, records, payloadBytes, core: PARTNER_CORE });
  }

  async setup(): Promise<void> {
    await this.#partner.online();
  }

  run(): number {
    this.#runs++;
    this.#partner.begin();
    const start = process.hrtime.bigint();
    this.#produce(this.#producer, this.#records);
    this.#partner.end();
    return Number(process.hrtime.bigint() - start) / this.#records;
  }

  validate(): void {
    ensure(
      this.#partner.sums[CONTROL_SUM] === this.#wanted,
      `${this.name}: the consumer's sum is ${this.#partner.sums[CONTROL_SUM]}, not ${this.#wanted}`,
    );
    ensure(
      Atomics.load(this.#partner.control, CONTROL.RECORDS) === ((this.#runs * this.#records) % 2 ** 32) >> 0,
      `${this.name}: records went missing`,
    );
  }

  close(): Promise<void> {
    return this.#partner.close();
  }
}

function ringbufCase(records: number, wanted: number): BenchCase | undefined {
  const memory = new SharedArrayBuffer(8 + CAPACITY_BYTES + 8);
  const queue = openRingbuf(memory);
  if (queue === undefined) return undefined;
  const partner = new Partner({ role: "ringbuf-consume", memory, records, core: PARTNER_CORE });
  const batch = new Float64Array(8);
  return {
    name: "64B-batched",
    side: "ringbuf.js",
    unit: "ns/op",
    setup: () => partner.online(),
    run: () => {
      partner.begin();
      const start = process.hrtime.bigint();
      for (let record = 0; record < records; record++) {
        writeSmall(batch, 0, record);
        while (queue.push(batch) === 0) backOff(100);
      }
      partner.end();
      return Number(process.hrtime.bigint() - start) / records;
    },
    validate: () => ensure(partner.sums[CONTROL_SUM] === wanted, "ringbuf.js: wrong sum"),
    close: () => partner.close(),
  };
}

/** A mode of the C++ program as a case. */
export function nativeCase(program: NativeProgram, name: string, args: readonly string[]): BenchCase {
  let side: NativeSide | undefined;
  return {
    name,
    side: "c++",
    unit: "ns/op",
    setup: () => {
      side = new NativeSide(program, args);
    },
    run: () => side?.run() ?? Number.NaN,
    validate: () => ensure(side?.lastValid === true, `c++ ${name}: wrong sum`),
    close: () => side?.close(),
  };
}

/** The throughput cases, in the order in which they interleave. */
export function throughputCases(program: NativeProgram | undefined): {
  readonly cases: BenchCase[];
  readonly notes: string[];
} {
  const records = 20_000; // some 0.2 ms a sample: short beside a preemption, so that the median is of undisturbed samples
  const wanted = 8 * ((records * (records - 1)) / 2) + 28 * records;
  const largeRecords = Math.ceil(records / 20);
  const ringbuf = ringbufCase(records, wanted);
  const cases: BenchCase[] = [
    ...(program === undefined ? [] : [nativeCase(program, "64B", ["spsc", String(records), "1024"])]),
    new RingCase("64B-batched", 64, records, produceBatched, wanted),
    new RingCase("64B-each", 64, records, produceEach, wanted),
    new RingCase("4KB", 4096, largeRecords, produceLarge, 512 * largeRecords),
    ...(ringbuf === undefined ? [] : [ringbuf]),
  ];
  return { cases, notes: ringbuf === undefined ? ["ringbuf.js skipped: not installed"] : [] };
}
