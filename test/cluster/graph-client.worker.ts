/** A thread that begins a run over a graph of the main thread, tells of its first supersteps, and is ended in the middle of it. */
import { parentPort, workerData } from "node:worker_threads";
import { type ClusterPort, connect } from "../../src/index.ts";

const { port, graph: name } = workerData as { port: ClusterPort; graph: string };
const cluster = await connect(port);
const graph = await cluster.graph(name);
await graph.pageRank({
  iterations: 100_000,
  idleMs: 4_000,
  onProgress: ({ superstep }) => parentPort?.postMessage(superstep),
});
