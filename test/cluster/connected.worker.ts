/** A thread that uses a cluster of the main thread. Answers one command at a time. */
import { parentPort, workerData } from "node:worker_threads";
import { type ClusterPort, connect, ShardloomError, type VectorCollection } from "../../src/index.ts";
import { counter } from "../support/actors.ts";

const { port } = workerData as { port: ClusterPort };
const cluster = await connect(port);
let docs: VectorCollection | undefined;

const commands: Record<string, (argument: never) => unknown> = {
  open: async (options: { dimensions: number } | undefined) => {
    docs = await cluster.vectors("docs", options);
    return docs.options.dimensions;
  },
  upsert: (ids: number[]) => docs?.upsert(ids.map((id) => ({ id, vector: new Float32Array(4).fill(id) }))),
  search: async (near: number) =>
    (await docs?.search(new Float32Array(4).fill(near), { k: 2 }))?.hits.map((hit) => hit.id),
  read: async (id: number) => {
    const target = new Float32Array(4);
    return [await docs?.read(id, target), target[0]];
  },
  scan: (near: number) =>
    docs
      ?.reader()
      .scanExact(new Float32Array(4).fill(near), 2)
      .hits.map((hit) => hit.id),
  add: (amount: number) => cluster.actor(counter, "shared").add(amount),
  count: (key: string) => cluster.actor(counter, key).read(),
  drop: () => cluster.dropVectors("docs"),
  reach: async (source: number) => {
    const graph = await cluster.graph("roads", { directed: false });
    await graph.addEdges([{ source: 1, target: 2 }], { createMissing: true });
    const result = await graph.bfs({ source });
    const reached = [...(await result.toMap())].filter(([, steps]) => steps < Number.POSITIVE_INFINITY);
    await result.close();
    return Object.fromEntries(reached);
  },
  dropGraph: () => cluster.dropGraph("roads"),
  leave: () => cluster.close(),
};

async function answer(command: string, argument: never): Promise<void> {
  try {
    parentPort?.postMessage({ value: await commands[command]?.(argument) });
  } catch (error) {
    parentPort?.postMessage({ code: ShardloomError.is(error) ? error.code : String(error) });
  }
}

parentPort?.on(
  "message",
  ({ command, argument }: { command: string; argument: never }) => void answer(command, argument),
);
parentPort?.postMessage({ value: "ready" });
