/** A shard that updates ids 0–99 and adds and deletes 100–199 without pause; see vector-reader.test.ts. */
import { parentPort, workerData } from "node:worker_threads";
import { Bed } from "./support.ts";

const { memory, control: buffer } = workerData as { memory: WebAssembly.Memory; control: SharedArrayBuffer };
const control = new Int32Array(buffer);
const dimensions = 96;
const bed = new Bed({ memory, seed: 3 });
const { root } = bed.open({ dimensions, metric: "l2" });

function write(ids: readonly number[], step: number): void {
  const documents = ids.map((id) => {
    const value = id * 1000 + (step % 1000);
    return { id, vector: new Float32Array(dimensions).fill(value), payload: { value, pad: "p".repeat(value % 300) } };
  });
  bed.upsert(dimensions, documents);
}

const all = Array.from({ length: 200 }, (_, id) => id);
write(all, 0);
parentPort?.postMessage(root);
for (let step = 1; Atomics.load(control, 0) === 0; step++) {
  write(all.slice((step * 10) % 100, ((step * 10) % 100) + 10), step);
  const movers = all.slice(100 + ((step * 7) % 90), 110 + ((step * 7) % 90));
  if (step % 2 === 0) bed.delete(movers);
  else write(movers, step);
  if (step % 4 === 0) bed.engine.background?.(0);
  Atomics.store(control, 1, step);
}
