/** The consuming thread of the ring stress test: checks type, length, sequence and checksum of every record. */
import { parentPort, workerData } from "node:worker_threads";
import { Doorbell } from "../../native-bridge/doorbell.ts";
import { AdaptiveSpin, waitUntil } from "../../native-bridge/idle-strategy.ts";
import { RingConsumer } from "../../native-bridge/spsc-ring.ts";
import { nextRandom, nowUs } from "./support.ts";

export interface StressInput {
  readonly memory: SharedArrayBuffer;
  readonly ringOffset: number;
  readonly seed: number;
  readonly records: number;
}

export interface StressOutcome {
  readonly records: number;
  readonly firstError: string;
  readonly lastCode: number;
}

const { memory, ringOffset, seed } = workerData as StressInput;
const consumer = new RingConsumer(memory, ringOffset);
const consumerBell = new Doorbell(memory, 0);
const producerBell = new Doorbell(memory, 128);
const spin = new AdaptiveSpin({ nowUs, maxSpinUs: 50 });
const { i32 } = consumer;

let expected = 0;
let random = seed;
let firstError = "";

function check(type: number, offset: number, lengthBytes: number): void {
  random = nextRandom(random);
  const words = (random >>> 8) % 24;
  let sum = 0;
  const at = offset >> 2;
  for (let word = 0; word < lengthBytes >> 2; word++) sum = (sum + Math.imul(i32[at + word] as number, word + 1)) | 0;
  let wanted = Math.imul(expected, 1);
  for (let word = 1; word < words + 1; word++) wanted = (wanted + Math.imul(random + word, word + 1)) | 0;
  if (
    firstError === "" &&
    (lengthBytes !== 4 * (words + 1) || type !== 1 + (expected & 0xfff) || i32[at] !== expected || sum !== wanted)
  ) {
    firstError = `record ${expected}: type ${type}, length ${lengthBytes}, sequence ${i32[at]}, checksum ${sum} instead of ${wanted}`;
  }
  expected = (expected + 1) | 0;
}

let records = 0;
let code = 0;
const ready = (): boolean => !consumer.isEmpty() || consumer.isDone();
for (;;) {
  code = consumer.drain(check, 256);
  if (code < 0) break;
  records += code;
  // Looked for as often as can be: an intact ring must never seem damaged.
  if (firstError === "" && consumer.isDamaged()) firstError = `damage after record ${expected}`;
  if (code === 0) {
    if (!waitUntil(ready, consumerBell, spin, nowUs, 60_000)) break;
  } else {
    producerBell.ring();
  }
}
const outcome: StressOutcome = { records, firstError, lastCode: code };
parentPort?.postMessage(outcome);
