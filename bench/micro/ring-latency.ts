/**
 * R3, R4: round trips between two threads. Spinning both sides (rings against two atomics), worker parked while the
 * caller polls, and the quiet postMessage and Atomics.wait/notify baselines; wakes per envelope at load.
 */
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { initializeRing, RingConsumer, RingProducer, ringByteLength } from "../../native-bridge/spsc-ring.ts";
import type { BenchCase } from "../harness/harness.ts";
import type { NativeProgram } from "../harness/native.ts";
import { PARTNER_CORE } from "../harness/pin.ts";
import { backOff, CONTROL, ensure, localUs, Partner } from "./ring-partner.ts";
import { nativeCase } from "./ring-throughput.ts";

const TRIPS = 500;
const CAPACITY_BYTES = 4096;

/** Memory with two doorbells and two rings, and this thread's ends of them. */
export class RingPair {
  readonly memory: SharedArrayBuffer;
  readonly requestsAt: number = 2 * DOORBELL_BYTES;
  readonly repliesAt: number;
  readonly requests: RingProducer;
  readonly replies: RingConsumer;
  readonly workerBell: Doorbell;
  readonly callerBell: Doorbell;
  lastReply: number = 0;
  readonly #take = (_type: number, offset: number): void => {
    this.lastReply = this.replies.i32[offset >> 2] as number;
  };

  constructor(capacityBytes: number = CAPACITY_BYTES) {
    this.repliesAt = this.requestsAt + ringByteLength(capacityBytes);
    this.memory = new SharedArrayBuffer(this.repliesAt + ringByteLength(capacityBytes));
    initializeRing(this.memory, this.requestsAt, capacityBytes);
    initializeRing(this.memory, this.repliesAt, capacityBytes);
    this.requests = new RingProducer(this.memory, this.requestsAt);
    this.replies = new RingConsumer(this.memory, this.repliesAt);
    this.workerBell = new Doorbell(this.memory, 0);
    this.callerBell = new Doorbell(this.memory, DOORBELL_BYTES);
  }

  send(value: number): void {
    const at = this.requests.tryClaim(1, 8);
    this.requests.i32[at >> 2] = value;
    this.requests.commit(at);
    this.requests.flush();
  }

  /** Takes what has come; true when something has. */
  take(): boolean {
    return this.replies.drain(this.#take, 64) > 0;
  }
}

function spinningRing(): BenchCase {
  const pair = new RingPair();
  const partner = new Partner({
    role: "echo",
    memory: pair.memory,
    requests: pair.requestsAt,
    replies: pair.repliesAt,
    records: TRIPS,
    core: PARTNER_CORE,
  });
  let runs = 0;
  return {
    name: "spinning",
    side: "shardloom",
    unit: "ns/op",
    setup: () => partner.online(),
    run: () => {
      runs++;
      partner.begin();
      pair.send(-1); // the first trip waits for the partner and is not timed
      while (!pair.take());
      const start = process.hrtime.bigint();
      for (let trip = 1; trip < TRIPS; trip++) {
        pair.send(trip);
        while (!pair.take());
      }
      const elapsed = Number(process.hrtime.bigint() - start);
      partner.end();
      return elapsed / (TRIPS - 1);
    },
    validate: () => {
      ensure(pair.lastReply === TRIPS - 1, "spinning ring: last answer is wrong");
      ensure(Atomics.load(partner.control, CONTROL.RECORDS) === runs * TRIPS, "spinning ring: trips went missing");
    },
    close: () => partner.close(),
  };
}

function spinningAtomics(): BenchCase {
  const memory = new SharedArrayBuffer(512);
  const words = new Int32Array(memory);
  const partner = new Partner({ role: "atomics-echo", memory, records: TRIPS, core: PARTNER_CORE });
  let next = 1;
  const trip = (): void => {
    Atomics.store(words, 0, next);
    while (Atomics.load(words, 64) !== next);
    next++;
  };
  return {
    name: "spinning",
    side: "js atomics",
    unit: "ns/op",
    setup: () => partner.online(),
    run: () => {
      partner.begin();
      trip();
      const start = process.hrtime.bigint();
      for (let index = 1; index < TRIPS; index++) trip();
      const elapsed = Number(process.hrtime.bigint() - start);
      partner.end();
      return elapsed / (TRIPS - 1);
    },
    validate: () =>
      ensure(Atomics.load(partner.control, CONTROL.RECORDS) === next - 1, "js atomics: trips went missing"),
    close: () => partner.close(),
  };
}

/** The spinning round trips. */
export function spinningCases(program: NativeProgram | undefined): BenchCase[] {
  return [
    ...(program === undefined ? [] : [nativeCase(program, "spinning", ["pingpong", String(TRIPS)])]),
    spinningRing(),
    spinningAtomics(),
  ];
}

function parkedCase(trips: number): BenchCase {
  const pair = new RingPair();
  const partner = new Partner({
    role: "policy-echo",
    memory: pair.memory,
    requests: pair.requestsAt,
    replies: pair.repliesAt,
    core: PARTNER_CORE,
  });
  let sent = 0;
  return {
    name: "parked",
    side: "shardloom",
    unit: "us",
    setup: () => partner.online(),
    run: () => {
      const samples: number[] = [];
      for (let trip = 0; trip < trips; trip++) {
        // Until the worker has announced its park, and then long enough for it to be asleep.
        const parked = pair.workerBell.counters().parks;
        const giveUpUs = localUs() + 100_000;
        while (pair.workerBell.counters().parks === parked && localUs() < giveUpUs) backOff(100);
        const readyUs = localUs() + 200;
        while (localUs() < readyUs) backOff(100);
        const startUs = localUs();
        pair.send(trip);
        sent++;
        pair.workerBell.ring();
        while (!pair.take());
        samples.push(localUs() - startUs);
      }
      return samples;
    },
    validate: () => {
      ensure(Atomics.load(partner.control, CONTROL.RECORDS) === sent, "parked: trips went missing");
      ensure(pair.workerBell.counters().wakes > sent / 2, "parked: the worker was not asleep");
    },
    close: () => partner.close(),
  };
}

function postMessageCase(trips: number): BenchCase {
  const partner = new Partner({ role: "post-echo", core: PARTNER_CORE });
  let sent = 0;
  return {
    name: "quiet round trip",
    side: "postMessage",
    unit: "us",
    setup: () => partner.online(),
    run: async () => {
      const samples: number[] = [];
      for (let trip = 0; trip < trips; trip++) {
        await new Promise((resolve) => setTimeout(resolve, 1)); // quiet: both sides are asleep
        const startUs = localUs();
        const answered = new Promise((resolve) => partner.worker.once("message", resolve));
        partner.worker.postMessage(trip);
        await answered;
        sent++;
        samples.push(localUs() - startUs);
      }
      return samples;
    },
    validate: () => ensure(Atomics.load(partner.control, CONTROL.RECORDS) === sent, "postMessage: trips went missing"),
    close: () => partner.close(),
  };
}

function waitNotifyCase(): BenchCase {
  const memory = new SharedArrayBuffer(512);
  const words = new Int32Array(memory);
  const partner = new Partner({ role: "wait-echo", memory, records: TRIPS, core: PARTNER_CORE });
  let next = 1;
  return {
    name: "both asleep",
    side: "Atomics.wait/notify",
    unit: "us",
    setup: () => partner.online(),
    run: () => {
      partner.begin();
      const samples: number[] = [];
      for (let trip = 0; trip < TRIPS; trip++, next++) {
        const startUs = localUs();
        Atomics.store(words, 0, next);
        Atomics.notify(words, 0);
        while (Atomics.load(words, 64) !== next) Atomics.wait(words, 64, next - 1, 1000);
        samples.push(localUs() - startUs);
      }
      partner.end();
      return samples;
    },
    validate: () =>
      ensure(Atomics.load(partner.control, CONTROL.RECORDS) === next - 1, "wait/notify: trips went missing"),
    close: () => partner.close(),
  };
}

/** The round trips in which somebody sleeps. */
export function parkedCases(trips: number): BenchCase[] {
  return [parkedCase(trips), postMessageCase(trips), waitNotifyCase()];
}

/** Wakes per envelope when a worker that parks at once is sent bursts of 1 to 64 envelopes back to back. */
export async function wakesAtLoad(envelopes: number): Promise<number> {
  const pair = new RingPair(65_536);
  const partner = new Partner({
    role: "policy-echo",
    memory: pair.memory,
    requests: pair.requestsAt,
    replies: pair.repliesAt,
    policy: { kind: "adaptive" },
  });
  await partner.online();
  try {
    for (let sent = 0; sent < envelopes; ) {
      const burst = 1 + (sent % 64);
      for (let index = 0; index < burst; index++, sent++) {
        let at = pair.requests.tryClaim(1, 8);
        while (at < 0) {
          pair.workerBell.ring();
          pair.take();
          at = pair.requests.tryClaim(1, 8);
        }
        pair.requests.commit(at);
      }
      pair.requests.flush();
      pair.workerBell.ring();
      while (pair.take());
    }
    const giveUpUs = localUs() + 5_000_000;
    while (pair.replies.counters().consumed < pair.requests.counters().produced && localUs() < giveUpUs) pair.take();
    ensure(pair.replies.counters().consumed === pair.requests.counters().produced, "load: envelopes went missing");
    return pair.workerBell.counters().wakes / pair.requests.counters().produced;
  } finally {
    await partner.close();
  }
}
