/** The second thread of the ring bench: one role per worker, asleep between samples. */
import { parentPort, workerData } from "node:worker_threads";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { waitUntil } from "../../native-bridge/idle-strategy.ts";
import { RingConsumer, RingProducer } from "../../native-bridge/spsc-ring.ts";
import { openRingbuf } from "../compare/ringbuf.ts";
import { pinThread } from "../harness/pin.ts";
import { backOff, CONTROL, CONTROL_SUM, localUs, type PartnerInput } from "./ring-partner.ts";
import { makeSpin } from "./ring-policy.ts";

const input = workerData as PartnerInput;
pinThread(input.core);
const control = new Int32Array(input.control);
const sums = new Float64Array(input.control);

/** Turns of back-off of a consumer that finds nothing, about 1 us: each look takes a line from the producer. */
const REST_TURNS = 3200;

function consume(): () => void {
  const ring = new RingConsumer(input.memory, input.requests);
  const { f64 } = ring;
  const total = new Float64Array(1); // a captured double would be a new heap number each time
  let seen = 0;
  const small = (_type: number, offset: number, _lengthBytes: number): void => {
    const at = offset >> 3;
    total[0] =
      (total[0] as number) +
      ((f64[at] as number) +
        (f64[at + 1] as number) +
        ((f64[at + 2] as number) + (f64[at + 3] as number)) +
        ((f64[at + 4] as number) + (f64[at + 5] as number) + ((f64[at + 6] as number) + (f64[at + 7] as number))));
    seen++;
  };
  const large = (_type: number, offset: number, lengthBytes: number): void => {
    const at = offset >> 3;
    const end = (offset + lengthBytes) >> 3;
    let a = 0;
    let b = 0;
    let c = 0;
    let d = 0;
    for (let index = at; index < end; index += 4) {
      a += f64[index] as number;
      b += f64[index + 1] as number;
      c += f64[index + 2] as number;
      d += f64[index + 3] as number;
    }
    total[0] = (total[0] as number) + (a + b + c + d);
    seen++;
  };
  const handler = input.payloadBytes === 64 ? small : large;
  return () => {
    total[0] = 0;
    seen = 0;
    while (seen < input.records) if (ring.drain(handler, 512) === 0) backOff(REST_TURNS);
    sums[CONTROL_SUM] = total[0];
    Atomics.add(control, CONTROL.RECORDS, seen);
  };
}

function echo(): () => void {
  const requests = new RingConsumer(input.memory, input.requests);
  const replies = new RingProducer(input.memory, input.replies);
  let seen = 0;
  const answer = (type: number, offset: number): void => {
    const at = replies.tryClaim(type, 8);
    replies.i32[at >> 2] = requests.i32[offset >> 2] as number;
    replies.commit(at);
    seen++;
  };
  return () => {
    seen = 0;
    while (seen < input.records) if (requests.drain(answer, 16) > 0) replies.flush();
    Atomics.add(control, CONTROL.RECORDS, seen);
  };
}

function atomicsEcho(): () => void {
  const words = new Int32Array(input.memory);
  let next = 1;
  return () => {
    for (let trip = 0; trip < input.records; trip++, next++) {
      while (Atomics.load(words, 0) !== next);
      Atomics.store(words, 64, next);
    }
    Atomics.add(control, CONTROL.RECORDS, input.records);
  };
}

function waitEcho(): () => void {
  const words = new Int32Array(input.memory);
  let next = 1;
  return () => {
    for (let trip = 0; trip < input.records; trip++, next++) {
      while (Atomics.load(words, 0) !== next) Atomics.wait(words, 0, next - 1);
      Atomics.store(words, 64, next);
      Atomics.notify(words, 64);
    }
    Atomics.add(control, CONTROL.RECORDS, input.records);
  };
}

function ringbufConsume(): () => void {
  const queue = openRingbuf(input.memory);
  const batch = new Float64Array(512);
  return () => {
    let total = 0;
    for (let left = input.records * 8; left > 0; ) {
      const count = queue?.pop(batch) ?? 0;
      if (count === 0) backOff(100);
      for (let index = 0; index < count; index++) total += batch[index] as number;
      left -= count;
    }
    sums[CONTROL_SUM] = total;
    Atomics.add(control, CONTROL.RECORDS, input.records);
  };
}

/** Serves until STOP, waiting as the policy says; not in rounds. */
function policyEcho(): void {
  const requests = new RingConsumer(input.memory, input.requests);
  const replies = new RingProducer(input.memory, input.replies);
  const mine = new Doorbell(input.memory, 0);
  const callers = new Doorbell(input.memory, DOORBELL_BYTES);
  const spin = makeSpin(input.policy);
  const answer = (type: number, offset: number): void => {
    let at = replies.tryClaim(type, 8);
    while (at < 0 && Atomics.load(control, CONTROL.STOP) === 0) {
      callers.ring(); // the caller is behind with its replies
      backOff(100);
      at = replies.tryClaim(type, 8);
    }
    if (at < 0) return;
    replies.i32[at >> 2] = requests.i32[offset >> 2] as number;
    replies.commit(at);
    Atomics.add(control, CONTROL.RECORDS, 1);
  };
  const ready = (): boolean => !requests.isEmpty();
  while (Atomics.load(control, CONTROL.STOP) === 0) {
    if (requests.drain(answer, 64) > 0) {
      replies.flush();
      callers.ring();
    } else {
      waitUntil(ready, mine, spin, localUs, 20);
    }
  }
}

function rounds(sample: () => void): void {
  parentPort?.postMessage("online");
  for (let round = 0; ; ) {
    Atomics.wait(control, CONTROL.ROUND, round);
    round = Atomics.load(control, CONTROL.ROUND);
    if (Atomics.load(control, CONTROL.STOP) === 1) return;
    Atomics.store(control, CONTROL.STARTED, 1);
    sample();
    Atomics.store(control, CONTROL.DONE, 1);
  }
}

switch (input.role) {
  case "consume":
    rounds(consume());
    break;
  case "echo":
    rounds(echo());
    break;
  case "atomics-echo":
    rounds(atomicsEcho());
    break;
  case "wait-echo":
    rounds(waitEcho());
    break;
  case "ringbuf-consume":
    rounds(ringbufConsume());
    break;
  case "policy-echo":
    parentPort?.postMessage("online");
    policyEcho();
    break;
  case "busy":
    parentPort?.postMessage("online");
    while (Atomics.load(control, CONTROL.STOP) === 0)
      Atomics.add(control, CONTROL.RECORDS, backOff(1000) === -1 ? 0 : 1);
    break;
  case "post-echo":
    parentPort?.on("message", (value: unknown) => {
      Atomics.add(control, CONTROL.RECORDS, 1);
      parentPort?.postMessage(value);
    });
    parentPort?.postMessage("online");
    break;
}
