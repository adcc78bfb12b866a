/**
 * L2, a part of bench `durable`: documents through log, rows, LMDB and index, until all are in the index, against what bounds them: raw
 * `write` + `fdatasync` of as many bytes, and usearch alone, each with one stream or thread for each shard.
 *
 * Invariant: the sides take turns; every sample begins with an empty index. The tail is measured apart, by writers that
 * are faster than the index by far: the bench fails unless they filled it.
 */
import { once } from "node:events";
import { type FileHandle, open as openFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { resolveVectorOptions } from "../../actors/vector/vector-options.ts";
import type { VectorDocument } from "../../src/index.ts";
import { judge } from "../harness/goals.ts";
import {
  type BenchCase,
  type BenchContext,
  type BenchReport,
  type BenchRow,
  interleave,
  median,
  ratioOf,
  sized,
  toRow,
} from "../harness/harness.ts";
import { DIMENSIONS, type DurableStage, documentsOf, must, openDurable, WORKERS, withFolder } from "./durable-stage.ts";
import type { UsearchSample, UsearchTask } from "./durable-usearch.worker.ts";

const BATCH = 512;
const CASE = `upsert, batches of ${BATCH}`;
const UNIT = "documents/s";
const FULL = "shardloom";
const RAW_LOG = "raw write + fdatasync";
const RAW_INDEX = "usearch alone";
/** Of a document besides its vector, as in L1. */
const OTHER_BYTES = 24;
/** Of the run that fills the tail: its bound is 1,024 rows of a shard. */
const TAIL_DIMENSIONS = 2_048;
const TAIL_BOUND = 1_024;
const TAIL_ROWS = 3_000;
const TAIL_BATCH = 64;
/** Batches that were pushed back after which it is enough. */
const TAIL_ENOUGH = 12;

function fullCase(documents: readonly VectorDocument[], directory: string): BenchCase {
  let stage: DurableStage | undefined;
  let runs = 0;
  let stored = 0;
  return {
    name: CASE,
    side: FULL,
    unit: UNIT,
    setup: async () => {
      stage = await openDurable(directory);
    },
    run: async () => {
      const { cluster } = stage as DurableStage;
      const name = `run-${runs++}`;
      const collection = await cluster.vectors(name, { dimensions: DIMENSIONS, metric: "l2" });
      const startedMs = performance.now();
      await collection.upsert(documents.values(), { batchSize: BATCH });
      await collection.indexed({ timeoutMs: 120_000 });
      const elapsedMs = performance.now() - startedMs;
      const shards = await collection.status();
      stored += shards.reduce((sum, { indexed }) => sum + indexed, 0);
      await cluster.dropVectors(name);
      return (documents.length * 1000) / elapsedMs;
    },
    validate: () => must(runs > 0 && stored === runs * documents.length, "not every document was indexed"),
    close: () => stage?.cluster.close(),
  };
}

function logCase(documents: number, path: (name: string) => string): BenchCase {
  const bytes = new Uint8Array((BATCH / WORKERS) * (DIMENSIONS * 4 + OTHER_BYTES)).fill(7);
  const batches = Math.ceil(documents / BATCH);
  let written = 0;
  const stream = async (shard: number): Promise<void> => {
    const file: FileHandle = await openFile(path(`raw-${shard}`), "w");
    for (let batch = 0; batch < batches; batch++) {
      await file.write(bytes, 0, bytes.length, batch * bytes.length);
      await file.datasync();
    }
    written = (await file.stat()).size;
    await file.close();
  };
  return {
    name: CASE,
    side: RAW_LOG,
    unit: UNIT,
    run: async () => {
      const startedMs = performance.now();
      await Promise.all(Array.from({ length: WORKERS }, (_, shard) => stream(shard)));
      return (documents * 1000) / (performance.now() - startedMs);
    },
    validate: () => must(written === batches * bytes.length, "the raw files have another size"),
  };
}

function indexCase(documents: readonly VectorDocument[]): BenchCase {
  const workers: Worker[] = [];
  const share = documents.length / WORKERS;
  let sizes = 0;
  let runs = 0;
  return {
    name: CASE,
    side: RAW_INDEX,
    unit: UNIT,
    setup: async () => {
      const options = resolveVectorOptions({ dimensions: DIMENSIONS, metric: "l2" });
      for (let shard = 0; shard < WORKERS; shard++) {
        const vectors = new Float32Array(new SharedArrayBuffer(share * DIMENSIONS * 4));
        for (let at = 0; at < share; at++)
          vectors.set((documents[shard * share + at] as VectorDocument).vector, at * DIMENSIONS);
        const workerData: UsearchTask = { options, vectors, batch: BATCH / WORKERS };
        const worker = new Worker(new URL("./durable-usearch.worker.js", import.meta.url), { workerData });
        await once(worker, "message");
        workers.push(worker);
      }
    },
    run: async () => {
      const samples = await Promise.all(
        workers.map(async (worker) => {
          const reply = once(worker, "message") as Promise<[UsearchSample]>;
          worker.postMessage("run");
          return (await reply)[0];
        }),
      );
      runs++;
      sizes += samples.reduce((sum, { size }) => sum + size, 0);
      return (documents.length * 1000) / Math.max(...samples.map(({ elapsedMs }) => elapsedMs));
    },
    validate: () => must(runs > 0 && sizes === runs * documents.length, "usearch has another number of vectors"),
    close: async () => void (await Promise.all(workers.map((worker) => worker.terminate()))),
  };
}

interface Tail {
  /** Rows of a shard that waited for the index at most. */
  readonly largest: number;
  readonly freeMs: readonly number[];
  readonly pushedMs: readonly number[];
}

/** Writes faster than the index takes it, until well after the tail is full. */
async function fillTail(directory: string, seed: number): Promise<Tail> {
  const { cluster, collection } = await openDurable(directory, {}, TAIL_DIMENSIONS);
  try {
    const documents = documentsOf(TAIL_ROWS * WORKERS, seed, TAIL_DIMENSIONS);
    const freeMs: number[] = [];
    const pushedMs: number[] = [];
    let largest = 0;
    let before = 0;
    for (let from = 0; from < documents.length && pushedMs.length < TAIL_ENOUGH; from += TAIL_BATCH) {
      const startedMs = performance.now();
      await collection.upsert(documents.slice(from, from + TAIL_BATCH));
      const elapsedMs = performance.now() - startedMs;
      const now = Math.max(...(await collection.status()).map(({ unindexed }) => unindexed));
      (before > TAIL_BOUND - TAIL_BATCH ? pushedMs : freeMs).push(elapsedMs);
      largest = Math.max(largest, now);
      before = now;
    }
    must(pushedMs.length > 0, `the tail came to ${largest} rows only, so nobody was pushed back`);
    return { largest, freeMs, pushedMs };
  } finally {
    await cluster.close();
  }
}

/** Rows and the verdicts on L2. */
export async function measureUpserts(context: BenchContext): Promise<BenchReport> {
  const { mode, seed, goals } = context;
  const documents = documentsOf(sized(mode, 2 * BATCH * WORKERS, 8_192, 16_384), seed);
  context.log(`durable: upserts of ${documents.length} documents until they are indexed`);
  const rows: BenchRow[] = [];
  const tail = await withFolder(async (directory) => {
    const cases = [fullCase(documents, directory("full")), logCase(documents.length, directory), indexCase(documents)];
    rows.push(...(await interleave(cases, sized(mode, 1, 3, 5))));
    return fillTail(directory("tail"), seed);
  });
  const { largest, freeMs, pushedMs } = tail;
  const overLog = ratioOf(rows, CASE, FULL, RAW_LOG);
  const overIndex = ratioOf(rows, CASE, FULL, RAW_INDEX);
  const tailCase = `batch of ${TAIL_BATCH}, ${TAIL_DIMENSIONS}-d`;
  return {
    rows: [
      ...rows,
      toRow(tailCase, "tail not full", "ms", freeMs),
      toRow(tailCase, "tail full", "ms", pushedMs, "its writer indexes as much as it adds"),
    ],
    goals: [
      judge(
        goals,
        "L2",
        Math.max(overLog, overIndex),
        `of the raw log ${overLog.toFixed(3)}, of usearch ${overIndex.toFixed(3)}`,
      ),
      judge(
        goals,
        "L2b",
        largest / TAIL_BOUND,
        `${largest} rows at most; a full tail makes a batch take ${(median(pushedMs) / median(freeMs)).toFixed(1)} times as long`,
      ),
    ],
    notes: [`upserts: ${WORKERS} workers; the side "${FULL}" ends when everything is indexed`],
  };
}
