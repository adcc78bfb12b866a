/**
 * How long the machine kept a thread of its own from running: what a limit of time is lengthened by, as nobody could have kept it then.
 *
 * Invariant: the thread that measures does nothing else, so what this process does itself is no excuse.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";

const LOOK_MS = 10;
/** What a machine that is not busy takes to run a thread that is due. */
const PROMPT_MS = 20;

const MEASURE = `
const { parentPort, workerData } = require("node:worker_threads");
const still = new Int32Array(new SharedArrayBuffer(4));
const total = new Float64Array(workerData);
let last = performance.now();
parentPort.postMessage("begun");
for (;;) {
  Atomics.wait(still, 0, 0, ${LOOK_MS});
  const now = performance.now();
  const late = now - last - ${LOOK_MS};
  if (late > ${PROMPT_MS}) total[0] += late;
  last = now;
}`;

export class Stalls implements AsyncDisposable {
  readonly #total: Float64Array;
  readonly #worker: Worker;

  private constructor(total: SharedArrayBuffer, worker: Worker) {
    this.#total = new Float64Array(total);
    this.#worker = worker;
  }

  static async begin(): Promise<Stalls> {
    const total = new SharedArrayBuffer(8);
    const worker = new Worker(MEASURE, { eval: true, workerData: total });
    await once(worker, "message");
    return new Stalls(total, worker);
  }

  /** All of them since it has begun, in ms. */
  get totalMs(): number {
    return this.#total[0] as number;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}
