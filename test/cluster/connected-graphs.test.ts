/**
 * A thread other than the main one that searches a collection with a graph: by every strategy, while a worker dies under its searches, and after
 * the leaves were learnt anew and the vertices placed by them.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, it, vi } from "vitest";
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import type { VectorCollection } from "../../src/index.ts";
import { GRAPH_LEAVES_VERSION } from "../../src/store/graph-layout.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { clustered, DIMENSIONS } from "../support/clustered.ts";
import { graphRootOf } from "../support/graph-regions.ts";
import { doom } from "../support/holds.ts";
import type { Searched, SearchingData } from "./connected-graphs.worker.ts";

const WORKERS = 3;
const DOCUMENTS = 1_050;
const MORE = 1_700;
const STRATEGIES: readonly string[] = ["one-sided", "compass", "spire", "cotra", "auto"];
const SPIRE = STRATEGIES.indexOf("spire");
const own = (by: string): string => (by === "auto" ? "one-sided" : by);

vi.setConfig({ testTimeout: 120_000 });

async function known(docs: VectorCollection): Promise<void> {
  await docs.indexed({ timeoutMs: 60_000 });
  await eventually("all shards know all leaves", async () =>
    (await docs.status()).every(({ knownShards }) => knownShards === WORKERS),
  );
}

it("a connected thread searches by every strategy, while a worker dies under its searches and after vertices were placed anew", async () => {
  await using cluster = await startTestCluster({ workers: WORKERS, requestTimeoutMs: 30_000, maxHandlerMs: 60_000 });
  const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2", strategy: "compass" });
  const vectors = clustered(MORE);
  const store = (from: number, to: number): Promise<unknown> =>
    docs.upsert(vectors.slice(from, to).map((vector, at) => ({ id: from + at, vector })));
  await store(0, DOCUMENTS);
  await known(docs);

  const versionWord = ((graphRootOf(docs).address + CELL_HEADER_BYTES) >>> 2) + GRAPH_LEAVES_VERSION;
  const control = new SharedArrayBuffer(4 * (2 + 2 * STRATEGIES.length));
  const words = new Int32Array(control);
  const { transferList, ...port } = await cluster.port();
  const workerData = { port, vectors: DOCUMENTS, control } as SearchingData;
  const options = { workerData, transferList: [...transferList] };
  const thread = new Worker(new URL("./connected-graphs.worker.js", import.meta.url), options);
  const exited = once(thread, "exit");
  const searched: Searched[] = [];
  thread.on("message", (told: Searched) => searched.push(told));
  /** Waits until each strategy has answered by itself in a phase. */
  const answersItself = async (phase: number): Promise<void> => {
    Atomics.store(words, 1, phase);
    for (const by of STRATEGIES)
      await eventually(`${by} answers in phase ${phase}`, () =>
        searched.some((told) => told.phase === phase && told.by === by && told.way === own(by)),
      );
  };
  try {
    await answersItself(1);
    const restarted = once(cluster, "worker-restarted");
    const doomed = await doom(cluster, 1, 60_000);
    Atomics.store(words, 1, 2);
    const [begun, ended] = [2 + 2 * SPIRE, 3 + 2 * SPIRE];
    await eventually("a search that needs the held shard is under way", async () => {
      const before = Atomics.load(words, begun);
      await new Promise((resolve) => setTimeout(resolve, 50));
      return Atomics.load(words, begun) === before && Atomics.load(words, ended) === before - 1;
    });
    await doomed.release();
    await restarted;
    await eventually("it ended another way", () => searched.some(({ by, way }) => by === "spire" && way !== "spire"));
    await known(docs);
    await answersItself(3);
    // More than half as many again: the leaves are learnt anew, and vertices go to where they are to be.
    const version = Atomics.load(cluster.arena.i32, versionWord);
    await store(DOCUMENTS, MORE);
    await known(docs);
    expect(Atomics.load(cluster.arena.i32, versionWord)).toBeGreaterThan(version);
    await answersItself(4);
  } finally {
    Atomics.store(words, 0, 1);
  }
  await exited;
  expect(searched.filter(({ wrong }) => wrong !== undefined)).toEqual([]);
  expect(searched.filter(({ found }) => !found).length).toBeLessThanOrEqual(searched.length / 50);
  const reasons = new Set(searched.map(({ way }) => way.split(" ")[1]));
  for (const reason of reasons)
    expect([undefined, "shard", "memory", "lost", "late", "training", "version", "reach"]).toContain(reason);
});
