/** A consumer that only waits: reports the code with which its ring ended. */
import { parentPort, workerData } from "node:worker_threads";
import { Doorbell } from "../../native-bridge/doorbell.ts";
import { RingConsumer } from "../../native-bridge/spsc-ring.ts";

export interface ParkedInput {
  readonly memory: SharedArrayBuffer;
  readonly ringOffset: number;
  readonly how: "wait" | "waitAsync";
}

const { memory, ringOffset, how } = workerData as ParkedInput;
const consumer = new RingConsumer(memory, ringOffset);
const bell = new Doorbell(memory, 0);
const hold = setInterval(() => undefined, 1000);

let code = 0;
while (code >= 0) {
  const ticket = bell.prepareWait();
  code = consumer.drain(() => undefined, 16);
  if (code !== 0) bell.cancelWait();
  else if (how === "wait") bell.wait(ticket, 20_000);
  else await bell.waitAsync(ticket);
}
clearInterval(hold);
parentPort?.postMessage(code);
