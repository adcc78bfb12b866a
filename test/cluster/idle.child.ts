/**
 * A process that holds an idle cluster and prints the CPU share of each worker, as a JSON list with one for every window of time.
 * Run by failures.test.ts.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { counter } from "../support/actors.ts";
import { startTestCluster } from "../support/cluster.ts";

const WINDOWS = 5;
const WINDOW_MS = 800;

const cluster = await startTestCluster();
await cluster.actor(counter, "x").read();
const shares: number[] = [];
for (let window = 0; window < WINDOWS; window++) {
  const before = process.cpuUsage();
  const started = performance.now();
  await sleep(WINDOW_MS);
  const { user, system } = process.cpuUsage(before);
  shares.push((user + system) / 1000 / (performance.now() - started) / cluster.topology.shards);
}
console.log(JSON.stringify(shares));
await cluster.close();
