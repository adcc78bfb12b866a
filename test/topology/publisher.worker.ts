/** The control plane of a race: publishes one epoch after another, with pauses of no and of some length, until it is stopped. */
import { parentPort, workerData } from "node:worker_threads";
import { SharedTopology } from "../../src/topology/topology-source.ts";
import { type PublisherInput, snapshotOfEpoch } from "./epoch-map.ts";

const { block, reader } = workerData as PublisherInput;
const word = new Int32Array(reader);
const topology = new SharedTopology(block);
parentPort?.postMessage("ready");
Atomics.wait(word, 0, 0, 20_000);
let epoch = 1;
let turns = 0;
for (const deadlineMs = performance.now() + 90_000; Atomics.load(word, 0) === 1 && performance.now() < deadlineMs; ) {
  topology.publish(snapshotOfEpoch(++epoch));
  // A reader finds a whole map only between two publications: pauses of 0 to 31 × 20 loads.
  for (let turn = (epoch % 32) * 20; turn > 0; turn--) turns += Atomics.load(word, 0);
}
parentPort?.postMessage({ lastEpoch: epoch, turns });
