/** A thread that removes vertices of a graph of the main thread and adds them again, until it is told to stop, and counts its rounds. */
import { parentPort, workerData } from "node:worker_threads";
import { type ClusterPort, connect } from "../../src/index.ts";

const { port, graph: name, keys } = workerData as { port: ClusterPort; graph: string; keys: readonly number[] };
const cluster = await connect(port);
const graph = await cluster.graph(name);
let stopped = false;
parentPort?.once("message", () => {
  stopped = true;
});
for (let round = 1; !stopped; round++) {
  await Promise.all(keys.map((key) => graph.removeVertices([key])));
  await graph.addVertices(keys, { createMissing: true });
  parentPort?.postMessage(round);
}
await cluster.close();
parentPort?.postMessage("ended");
