/** The consuming thread of the batch test: notes after every drain whether it ended where a publication did. */
import { parentPort, workerData } from "node:worker_threads";
import { RingConsumer } from "../../native-bridge/spsc-ring.ts";

/** Records of a burst: batches of 1, 2, 4, 8, 16 and 32. */
export const BURST = 63;

export interface BatchesInput {
  readonly memory: SharedArrayBuffer;
  readonly records: number;
}

export interface BatchesOutcome {
  readonly records: number;
  readonly outOfOrder: number;
  readonly tornBatches: number;
  readonly drains: number;
}

function consume({ memory }: BatchesInput): BatchesOutcome {
  const consumer = new RingConsumer(memory);
  let records = 0;
  let outOfOrder = 0;
  let tornBatches = 0;
  let drains = 0;
  const take = (_type: number, offset: number): void => {
    if (consumer.i32[offset >> 2] !== records) outOfOrder++;
    records++;
  };
  for (;;) {
    const count = consumer.drain(take, Number.MAX_SAFE_INTEGER);
    if (count < 0) return { records, outOfOrder, tornBatches, drains };
    if (count === 0) continue;
    drains++;
    const within = (records % BURST) + 1; // 1, 2, 4, ... at the end of a batch
    if ((within & (within - 1)) !== 0) tornBatches++;
  }
}

// Imported by the test for its types and BURST too.
if (parentPort !== null && workerData !== null) parentPort.postMessage(consume(workerData as BatchesInput));
