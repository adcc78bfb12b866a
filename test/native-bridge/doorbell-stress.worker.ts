/** The answering thread of the doorbell stress: parks before every item, blocking or asynchronously, and echoes. */
import { parentPort, workerData } from "node:worker_threads";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { ANSWERED, ASKED, LOST_MS } from "./support.ts";

export interface DoorbellInput {
  readonly memory: SharedArrayBuffer;
  readonly how: "wait" | "waitAsync";
  readonly items: number;
}

const { memory, how, items } = workerData as DoorbellInput;
const words = new Int32Array(memory);
const mine = new Doorbell(memory, 0);
const callers = new Doorbell(memory, DOORBELL_BYTES);
const hold = setInterval(() => undefined, 1000); // waitAsync does not keep the thread alive

let lost = 0;
let answered = 0;
while (answered < items && lost === 0) {
  while (Atomics.load(words, ASKED) === answered) {
    const ticket = mine.prepareWait();
    if (Atomics.load(words, ASKED) !== answered) {
      mine.cancelWait();
      break;
    }
    if (how === "waitAsync") {
      await mine.waitAsync(ticket);
    } else if (mine.wait(ticket, LOST_MS) === "timed-out") {
      lost++;
      break;
    }
  }
  answered = Atomics.load(words, ASKED);
  Atomics.store(words, ANSWERED, answered);
  callers.ring();
}
clearInterval(hold);
parentPort?.postMessage({ answered, lost });
