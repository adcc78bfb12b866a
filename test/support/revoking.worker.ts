/** A thread that revokes one shard's regions of a graph, spoils them and registers them anew as they were, again and again, until it is told to stop. */
import { parentPort, workerData } from "node:worker_threads";
import { Arena } from "../../native-bridge/arena.ts";
import type { RegionRef } from "../../native-bridge/region-table.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { GraphRegions } from "./graph-regions.ts";

export interface RevokingData {
  readonly memory: WebAssembly.Memory;
  readonly root: RegionRef;
  readonly shard: number;
  readonly seed: number;
  /** Word 0: 1 when it must stop; word 1: times that keys were taken back. */
  readonly control: SharedArrayBuffer;
}

/** Longest pauses, with the keys and without them; every few have none, and some with them are long enough for a search on a busy machine. */
const WITH_MS = 12;
const LONG_MS = 300;
const LONG_SHARE = 0.1;
const WITHOUT_MS = 4;

const data = workerData as RevokingData;
const control = new Int32Array(data.control);
const still = new Int32Array(new SharedArrayBuffer(4));
const random = createSeededRandom(data.seed);
const randomU32 = (): number => Math.floor(random.float() * 2 ** 32);
const regions = new GraphRegions(new Arena(data.memory), data.root, data.shard, randomU32);

function pause(mostMs: number): void {
  const milliseconds = random.float() < 0.2 ? 0 : random.float() * mostMs;
  if (milliseconds > 0) Atomics.wait(still, 0, 0, milliseconds);
}

while (Atomics.load(control, 0) === 0) {
  if (regions.revoke(true) === 0) throw new Error("the shard has no regions");
  Atomics.add(control, 1, 1);
  pause(WITHOUT_MS);
  regions.restore();
  pause(random.float() < LONG_SHARE ? LONG_MS : WITH_MS);
}
parentPort?.postMessage("over");
