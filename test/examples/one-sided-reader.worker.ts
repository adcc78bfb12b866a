/** Example: a thread that reads one region from the cluster's memory, given nothing but the memory and the reference. */
import { parentPort, workerData } from "node:worker_threads";
import { Arena, type RegionRef, statusName, Verbs } from "../../src/index.ts";

export interface ReadTask {
  readonly memory: WebAssembly.Memory;
  readonly region: RegionRef;
}

const { memory, region } = workerData as ReadTask;
const vector = new Float32Array(region.length / 4);
const status = new Verbs(new Arena(memory)).read(region, vector);
parentPort?.postMessage({ status: statusName(status), vector: [...vector] });
