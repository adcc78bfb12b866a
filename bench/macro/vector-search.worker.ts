/**
 * A thread of bench `vector-search` that is connected to the cluster and searches one-sidedly, in a loop for as long as it is told.
 *
 * Invariant: it answers one command at a time. A search that could not be ended one-sidedly is asked of the shards, as the public search does,
 * and counted.
 */
import { parentPort, workerData } from "node:worker_threads";
import { STATUS } from "../../native-bridge/status.ts";
import { type ClusterPort, connect } from "../../src/index.ts";
import { K } from "./vector-search-data.ts";
import type { LoopAnswer, LoopCommand, ReaderTask, RecallCommand } from "./vector-search-reader.ts";

/** Searches between looks at the messages of this thread. */
const BURST = 16;

const { port, collection: name, queries, dimensions } = workerData as ReaderTask;
const cluster = await connect(port as ClusterPort);
const collection = await cluster.vectors(name);
const reader = collection.reader();
const count = queries.length / dimensions;
const at = (query: number): Float32Array =>
  queries.subarray((query % count) * dimensions, ((query % count) + 1) * dimensions);

const search = async (query: Float32Array, ef: number): Promise<{ ids: readonly unknown[]; fellBack: boolean }> => {
  const { status, hits } = reader.search(query, K, { ef });
  if (status === STATUS.SUCCESS) return { ids: hits.map(({ id }) => id), fellBack: false };
  const asked = await collection.search(query, { k: K, ef, by: "scatter", includePayload: false });
  return { ids: asked.hits.map(({ id }) => id), fellBack: true };
};

const loop = async ({ fromMs, untilMs, first, ef }: LoopCommand): Promise<LoopAnswer> => {
  const answer = { searches: 0, fellBack: 0, short: 0 };
  await new Promise((resolve) => setTimeout(resolve, fromMs - Date.now()));
  while (Date.now() < untilMs) {
    for (let step = 0; step < BURST; step++) {
      const { ids, fellBack } = await search(at(first + answer.searches), ef);
      answer.searches++;
      if (fellBack) answer.fellBack++;
      if (ids.length < K) answer.short++;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  return answer;
};

const recall = async ({ queries: wanted, ef }: RecallCommand): Promise<number> => {
  let found = 0;
  for (let query = 0; query < wanted; query++) {
    const { ids } = await search(at(query), ef);
    const truth = new Set<unknown>(reader.scanExact(at(query), K).hits.map(({ id }) => id));
    found += ids.filter((id) => truth.has(id)).length;
    await new Promise((resolve) => setImmediate(resolve));
  }
  return found / (wanted * K);
};

parentPort?.on("message", (command: LoopCommand | RecallCommand) => {
  const answer = command.type === "loop" ? loop(command) : recall(command);
  answer.then(
    (value) => parentPort?.postMessage(value),
    (error: unknown) => {
      throw error; // ends the thread, which the bench hears of
    },
  );
});
parentPort?.postMessage("ready");
