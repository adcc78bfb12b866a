/** worker_threads entry point of the raw side of L2: adds the vectors of one shard to a fresh usearch index for each message, and says how long it took. */
import { parentPort, workerData } from "node:worker_threads";
import { Index, MetricKind, ScalarKind } from "usearch";
import type { ResolvedVectorOptions } from "../../actors/vector/vector-options.ts";

/** What the worker is started with: row-major vectors in shared memory. */
export interface UsearchTask {
  readonly options: ResolvedVectorOptions;
  readonly vectors: Float32Array;
  readonly batch: number;
}

/** What it answers. */
export interface UsearchSample {
  readonly elapsedMs: number;
  readonly size: number;
}

const { options, vectors, batch } = workerData as UsearchTask;
// usearch takes no shared memory.
const own = vectors.slice();
const count = own.length / options.dimensions;

parentPort?.on("message", () => {
  const startedMs = performance.now();
  const index = new Index({
    dimensions: options.dimensions,
    metric: MetricKind.L2sq,
    quantization: ScalarKind.F32,
    connectivity: options.connectivity,
    expansion_add: options.expansionAdd,
    expansion_search: options.expansionSearch,
    multi: false,
  });
  for (let from = 0; from < count; from += batch) {
    const to = Math.min(count, from + batch);
    const keys = BigUint64Array.from({ length: to - from }, (_, at) => BigInt(from + at));
    index.add(keys, own.subarray(from * options.dimensions, to * options.dimensions), 1);
  }
  const sample: UsearchSample = { elapsedMs: performance.now() - startedMs, size: index.size() };
  parentPort?.postMessage(sample);
});
parentPort?.postMessage("ready");
