/** A thread that uses a cluster of the main thread and searches one collection by every strategy at once, until it is told to stop. */
import { parentPort, workerData } from "node:worker_threads";
import { type ClusterPort, connect } from "../../src/index.ts";
import { clustered } from "../support/clustered.ts";

export const STRATEGIES = ["one-sided", "compass", "spire", "cotra", "auto"] as const;

export interface SearchingData {
  readonly port: ClusterPort;
  /** Stored under their places. */
  readonly vectors: number;
  /** Word 0: 1 when it must stop; word 1: in what phase answers count; then, by strategy, searches begun and ended. */
  readonly control: SharedArrayBuffer;
}

/** What the thread tells: how often each way was gone, by phase and strategy, and what was wrong. */
export interface Searched {
  readonly phase: number;
  readonly by: string;
  readonly way: string;
  /** Whether what was searched for was found, first. */
  readonly found: boolean;
  readonly wrong: string | undefined;
}

const data = workerData as SearchingData;
const control = new Int32Array(data.control);
const cluster = await connect(data.port);
const docs = await cluster.vectors("docs");
const vectors = clustered(data.vectors);

async function search(at: number): Promise<void> {
  const by = STRATEGIES[at] as (typeof STRATEGIES)[number];
  for (let id = at; Atomics.load(control, 0) === 0; id = (id + 37) % vectors.length) {
    const phase = Atomics.load(control, 1);
    Atomics.add(control, 2 + 2 * at, 1);
    let wrong: string | undefined;
    let [way, found] = ["none", false];
    try {
      // For all there is spire needs every shard.
      const {
        hits,
        by: answered,
        fallback,
      } = await docs.search(vectors[id] as Float32Array, { by, ...(by === "spire" ? { recall: 1 } : { ef: 100 }) });
      way = `${answered} ${fallback ?? ""}`.trim();
      found = hits[0]?.id === id && hits[0].score === 0;
      const scores = hits.map(({ score }) => score);
      const isOrdered = scores.every((score, place) => score >= (scores[place - 1] ?? 0));
      if (scores.length !== 10 || !isOrdered) wrong = `${id}: ${scores}`;
    } catch (error) {
      wrong = String(error);
    }
    Atomics.add(control, 3 + 2 * at, 1);
    parentPort?.postMessage({ phase, by, way, found, wrong } satisfies Searched);
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
}

await Promise.all(STRATEGIES.map((_, at) => search(at)));
await cluster.close();
parentPort?.close();
