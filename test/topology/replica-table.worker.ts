/** Publishes heads and applied LSNs as fast as it can, each with a time that belongs to it, until it is told to stop. */
import { parentPort, workerData } from "node:worker_threads";
import { ReplicaTable } from "../../src/topology/replica-table.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { LocalTopology } from "../../src/topology/topology-source.ts";

const { block, stop } = workerData as { block: SharedArrayBuffer; stop: Int32Array };
const topology = new LocalTopology(createSnapshot({ shards: 2, vshards: 2, replicationFactor: 2 }));
const table = new ReplicaTable(block, topology, () => 1e9);
// Both halves of every double change with each step.
let lsn = 0;
let rounds = 0;
while (Atomics.load(stop, 0) === 0) {
  lsn = (lsn * 2_654_435_761 + 4_294_967_311 * ++rounds) % 2 ** 52;
  table.publishHead(0, lsn, lsn / 2);
  table.publishApplied(0, 1, lsn, lsn / 2);
}
parentPort?.postMessage(rounds);
