/** A process whose listener throws: supervision must go on. Run by supervision.test.ts. */
import { saboteur } from "../support/actors.ts";
import { keyOnShard, startTestCluster } from "../support/cluster.ts";

process.on("uncaughtException", (error) => console.log(`uncaught: ${error.message}`));
const cluster = await startTestCluster();
cluster.once("worker-lost", () => {
  throw new Error("a listener of the test");
});
const restarted = new Promise((resolve) => cluster.once("worker-restarted", resolve));
const key = keyOnShard(cluster, saboteur, 0);
cluster
  .actor(saboteur, key)
  .exit(1)
  .catch(() => undefined);
await restarted;
console.log("restarted");
console.log(`calls: ${await cluster.actor(saboteur, key).calls()}`);
await cluster.close();
console.log("closed");
