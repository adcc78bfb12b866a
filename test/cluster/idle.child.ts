/** A process that holds an idle cluster and prints the CPU share of each worker. Run by failures.test.ts. */
import { setTimeout as sleep } from "node:timers/promises";
import { counter } from "../support/actors.ts";
import { startTestCluster } from "../support/cluster.ts";

const SETTLE_MS = 1_000;
const MEASURE_MS = 2_000;

const cluster = await startTestCluster();
await cluster.actor(counter, "x").read();
await sleep(SETTLE_MS); // compilation in the background ends
const before = process.cpuUsage();
const started = performance.now();
await sleep(MEASURE_MS);
const { user, system } = process.cpuUsage(before);
console.log((user + system) / 1000 / (performance.now() - started) / cluster.topology.shards);
await cluster.close();
