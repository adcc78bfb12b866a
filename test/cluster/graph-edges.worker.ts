/** A thread that adds edges to a graph of the main thread until it is told to stop, and says how many were there and how many were refused. */
import { parentPort, workerData } from "node:worker_threads";
import { type ClusterPort, connect, ShardloomError } from "../../src/index.ts";

const {
  port,
  graph: name,
  keys,
  creates,
} = workerData as {
  port: ClusterPort;
  graph: string;
  keys: number;
  creates: boolean;
};
const cluster = await connect(port);
const graph = await cluster.graph(name);
let stopped = false;
parentPort?.once("message", () => {
  stopped = true;
});
const counts = { added: 0, refused: 0 };
for (let round = 0; !stopped; round++) {
  const edges = Array.from({ length: 16 }, (_, at) => ({
    source: (round * 7 + at) % keys,
    target: (round * 5 + at * 3) % keys,
  }));
  const adding = edges.map((edge) =>
    graph.addEdges([edge], { createMissing: creates }).then(
      () => counts.added++,
      (error: unknown) => {
        if (creates || !ShardloomError.is(error) || error.code !== "ERR_UNKNOWN_VERTEX") throw error;
        counts.refused++;
      },
    ),
  );
  await Promise.all(adding);
  parentPort?.postMessage(counts);
}
await cluster.close();
parentPort?.postMessage("ended");
