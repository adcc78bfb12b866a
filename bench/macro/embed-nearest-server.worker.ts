/**
 * One server of part `approximate` of bench `embed`, in a process of its own, driven over IPC: {@link OpenMessage}, {@link TuneMessage}, then "begin" and
 * "end" of bursts, and "close".
 *
 * `main-thread`: usearch, which searches on the thread that has the requests, with M 16 and expansion 128 while adding; candidates are raised by asking
 * for as many answers, of which the first count. `cluster`: THREADS connected threads have the requests, each at an address of its own, as servers
 * behind a balancer have; the main thread and the workers do nothing then.
 */

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { Index, MetricKind, ScalarKind } from "usearch";
import { Cluster, type VectorCollection } from "../../src/index.ts";
import {
  COUNTERS,
  createNearestServer,
  HANDED_ON,
  HITS,
  type Kind,
  listen,
  NAME,
  type NearestHit,
  type NearestSample,
  type NearestTask,
  type OpenMessage,
  SEARCHES,
  type Tuned,
  type TuneMessage,
} from "./embed-nearest.ts";
import { countFound } from "./vector-search-curve.ts";
import { arenaBytes, K, Vectors } from "./vector-search-data.ts";

const THREADS = 2;
const WORKERS = 2;
const ADD_BATCH = 1_000;
const MIN_MEMORY_BYTES = 2 ** 28;
/** Bytes of a document beside its components: cell, record, vertex and spare room. */
const DOCUMENT_BYTES = 1_024;
/** Candidates to choose from. */
const EFS = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 56, 64, 80, 96, 128, 192, 256];

/** A server that is not listening yet. */
interface Side {
  readonly find: (vector: Float32Array, ef: number) => readonly number[] | Promise<readonly number[]>;
  readonly listen: (ef: number) => Promise<readonly string[]>;
  /** Of each thread. */
  readonly counters: readonly Int32Array[];
  readonly close: () => Promise<void>;
}

function shareCounters(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(COUNTERS * 4));
}

function buildUsearch(base: Vectors, kind: Kind): Index {
  const index = new Index({
    dimensions: base.dimensions,
    metric: MetricKind.L2sq,
    quantization: kind === "f32" ? ScalarKind.F32 : ScalarKind.F16,
    connectivity: 16,
    expansion_add: 128,
    expansion_search: K,
    multi: false,
  });
  for (let from = 0; from < base.count; from += ADD_BATCH) {
    const to = Math.min(base.count, from + ADD_BATCH);
    const keys = BigUint64Array.from({ length: to - from }, (_, at) => BigInt(from + at));
    index.add(keys, base.slice(from, to).values, WORKERS);
  }
  return index;
}

function openMainThread(base: Vectors, kind: Kind): Side {
  const index = buildUsearch(base, kind);
  const counters = shareCounters();
  const find = (vector: Float32Array, ef: number): NearestHit[] => {
    const { keys, distances } = index.search(vector, ef, 1);
    return Array.from({ length: Math.min(K, keys.length) }, (_, at) => ({
      id: Number(keys[at]),
      score: distances[at] as number,
    }));
  };
  let close = async (): Promise<void> => undefined;
  return {
    counters: [counters],
    find: (vector, ef) => find(vector, ef).map(({ id }) => id),
    listen: async (ef) => {
      const app = createNearestServer((vector) => find(new Float32Array(vector), ef), counters);
      close = () => app.close();
      return [await listen(app)];
    },
    close: () => close(),
  };
}

async function fill(cluster: Cluster, base: Vectors, kind: Kind): Promise<VectorCollection> {
  const collection = await cluster.vectors(NAME, {
    dimensions: base.dimensions,
    metric: "l2",
    quantization: kind,
    strategy: "one-sided",
  });
  const documents = Array.from({ length: base.count }, (_, id) => ({ id, vector: base.at(id) }));
  await collection.upsert(documents.values());
  await collection.indexed({ timeoutMs: 3_600_000 });
  const status = await collection.status();
  if (status.length !== WORKERS || status.some(({ indexed, unindexed }) => indexed === 0 || unindexed > 0))
    throw new Error("embed bench: not every shard has its documents linked");
  return collection;
}

async function openCluster(base: Vectors, kind: Kind): Promise<Side> {
  const memoryBytes = Math.max(MIN_MEMORY_BYTES, arenaBytes(2 * base.count * (base.dimensions * 8 + DOCUMENT_BYTES)));
  // Others may use the cores: a handler that had to wait for one is not stuck.
  const patience = { requestTimeoutMs: 600_000, maxHandlerMs: 30_000 };
  const cluster = await Cluster.start({ workers: WORKERS, memoryBytes, spinLimitUs: 0, ...patience });
  const collection = await fill(cluster, base, kind);
  const counters = Array.from({ length: THREADS }, shareCounters);
  const threads: Worker[] = [];
  return {
    counters,
    find: async (vector, ef) => {
      const { hits, by, fallback } = await collection.search(vector, { k: K, ef, includePayload: false });
      if (by !== "one-sided") throw new Error(`embed bench: a search was by ${by} because of ${fallback}`);
      return hits.map(({ id }) => id as number);
    },
    listen: async (ef) => {
      const urls: string[] = [];
      for (const own of counters) {
        const { transferList, ...port } = await cluster.port();
        const task: NearestTask = { port, collection: NAME, ef, counters: own };
        const thread = new Worker(new URL("./embed-nearest-thread.worker.js", import.meta.url), {
          workerData: task,
          transferList: [...transferList],
        });
        threads.push(thread);
        const [url] = (await once(thread, "message")) as [string];
        urls.push(url);
      }
      return urls;
    },
    close: async () => {
      await Promise.all(
        threads.map((thread) => {
          const ended = once(thread, "exit");
          thread.postMessage("close");
          return ended;
        }),
      );
      await cluster.close();
    },
  };
}

async function tune({ find }: Side, queries: Vectors, truth: Int32Array, wanted: number): Promise<Omit<Tuned, "urls">> {
  for (const ef of EFS) {
    let found = 0;
    for (let query = 0; query < queries.count; query++)
      found += countFound(truth, query, await find(queries.at(query), ef));
    const recall = found / (queries.count * K);
    if (recall >= wanted) return { ef, recall };
  }
  throw new Error(`embed bench: no ef finds ${wanted} of the nearest`);
}

let side: Side | undefined;
let dimensions = 0;
let before: { readonly cpu: NodeJS.CpuUsage; readonly startedMs: number; readonly counted: readonly Int32Array[] };

function begin(opened: Side): string {
  before = {
    cpu: process.cpuUsage(),
    startedMs: performance.now(),
    counted: opened.counters.map((counters) => counters.slice()),
  };
  return "begun";
}

function end(opened: Side): NearestSample {
  const { user, system } = process.cpuUsage(before.cpu);
  const cpuMs = (user + system) / 1000;
  const of = (word: number): number[] =>
    opened.counters.map((now, at) => ((now[word] as number) - (before.counted[at]?.[word] as number)) | 0);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  return {
    cores: cpuMs / (performance.now() - before.startedMs),
    cpuMs,
    searches: of(SEARCHES),
    hits: sum(of(HITS)),
    handedOn: sum(of(HANDED_ON)),
  };
}

async function take(message: OpenMessage | TuneMessage | "begin" | "end" | "close"): Promise<unknown> {
  if (typeof message === "object" && message.type === "open") {
    dimensions = message.dimensions;
    const base = new Vectors(message.values, dimensions);
    side = message.side === "cluster" ? await openCluster(base, message.kind) : openMainThread(base, message.kind);
    return "opened";
  }
  if (side === undefined) throw new Error("embed bench: a server was not opened");
  if (message === "begin") return begin(side);
  if (message === "end") return end(side);
  if (message === "close") return side.close();
  const { queries, truth, recall } = message;
  const tuned = await tune(side, new Vectors(queries, dimensions), truth, recall);
  return { ...tuned, urls: await side.listen(tuned.ef) };
}

process.on("message", (message: OpenMessage | TuneMessage | "begin" | "end" | "close") => {
  take(message).then(
    (result) => {
      if (message === "close") process.disconnect();
      else process.send?.(result);
    },
    (error: unknown) => {
      throw error; // ends the process, which the bench hears of
    },
  );
});
