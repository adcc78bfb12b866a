/** Writes and deletes documents for ever, announcing each value before and acknowledging it after; see vector-crash.test.ts. */
import { parentPort, workerData } from "node:worker_threads";
import { Bed, randomFrom } from "./support.ts";

interface Setup {
  readonly memory: WebAssembly.Memory;
  readonly log: SharedArrayBuffer;
  readonly ids: number;
  readonly seed: number;
  readonly rootAddress: number;
}

const { memory, log: buffer, ids, seed, rootAddress } = workerData as Setup;
const log = new Int32Array(buffer);
const options = { dimensions: 5, metric: "l2" } as const;
const next = randomFrom(seed);
const bed = new Bed(
  rootAddress === 0
    ? { memory, seed }
    : { memory, seed, recover: { collections: [{ collectionId: 1, options, rootAddress }] } },
);
Atomics.store(log, 2 * ids + 1, bed.open(options).root.address);
parentPort?.postMessage("ready");

for (;;) {
  const batch = new Map<number, number>();
  for (let i = Math.floor(next() * 6); i >= 0; i--) {
    const id = Math.floor(next() * ids);
    batch.set(id, ((log[id] as number) % 1_000_000) + 1);
  }
  const writes = [...batch].filter(([, value]) => value % 7 !== 0);
  const deletes = [...batch].filter(([, value]) => value % 7 === 0);
  for (const [id, value] of batch) Atomics.store(log, id, value);
  bed.upsert(
    5,
    writes.map(([id, value]) => ({
      id,
      vector: new Array(5).fill(value),
      payload: { id, value, pad: "p".repeat((value * 7) % 90) },
    })),
  );
  bed.delete(deletes.map(([id]) => id));
  for (const [id, value] of batch) Atomics.store(log, ids + id, value);
  bed.engine.background?.(0.1);
  Atomics.add(log, 2 * ids, 1);
}
