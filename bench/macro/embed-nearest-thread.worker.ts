/**
 * A thread of the cluster's server in part `approximate` of bench `embed`: it is connected to the cluster, has an HTTP server of its own, and does the
 * search of each of its requests by itself, in the memory of all shards.
 */
import { parentPort, workerData } from "node:worker_threads";
import { type ClusterPort, connect } from "../../src/index.ts";
import { createNearestServer, HANDED_ON, listen, type NearestTask } from "./embed-nearest.ts";
import { K } from "./vector-search-data.ts";

const { port, collection: name, ef, counters } = workerData as NearestTask;
const cluster = await connect(port as ClusterPort);
const collection = await cluster.vectors(name);

const app = createNearestServer(async (vector) => {
  const { hits, by } = await collection.search(vector, { k: K, ef, includePayload: false });
  if (by !== "one-sided") counters[HANDED_ON] = ((counters[HANDED_ON] as number) + 1) | 0;
  return hits.map(({ id, score }) => ({ id: id as number, score }));
}, counters);

parentPort?.once("message", () => {
  void app
    .close()
    .then(() => cluster.close())
    .then(() => parentPort?.close());
});
parentPort?.postMessage(await listen(app));
