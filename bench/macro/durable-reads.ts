/**
 * L3, a part of bench `durable`: searches in a closed loop while documents are inserted one by one at a steady pace, against the same
 * searches without inserts.
 *
 * Windows alternate: idle, inserts at each pace, and inserts alone. What inserts leave is told by the CPU time that they take alone, over the CPU
 * time that idle searches take: the process is then all that runs. Between windows everything is indexed.
 *
 * Invariant: inserts are new documents, acknowledged when they are on the disk; the report says so when they did not keep their pace.
 * Recall is of the same queries without and under inserts, each against an exact search right after it.
 */
import type { VectorCollection } from "../../src/index.ts";
import { judge } from "../harness/goals.ts";
import {
  type BenchContext,
  type BenchReport,
  type BenchRow,
  median,
  quantile,
  sized,
  toRow,
} from "../harness/harness.ts";
import { documentsOf, must, openDurable, vectorSource, withFolder } from "./durable-stage.ts";

const SLOW_PACE = 200;
const FAST_PACE = 1_000;
const SEARCHERS = 8;
const K = 10;
/** Part of the pace that must be kept. */
const KEPT = 0.9;
const PACE_TICK_MS = 2;
/** Share of the cores that inserts must leave for a verdict. */
const LEAST_LEFT = 0.1;

/** What one window saw. */
interface Window {
  readonly qps: number;
  readonly latenciesMs: readonly number[];
  /** Cores that the process used. */
  readonly cores: number;
  readonly inserted: number;
  readonly unindexed: number;
}

class Readers {
  readonly #collection: VectorCollection;
  readonly #queries: readonly Float32Array[];
  readonly #next: () => Float32Array;
  #id: number;

  constructor(collection: VectorCollection, documents: number, queries: number, seed: number) {
    this.#collection = collection;
    this.#next = vectorSource(seed + 1);
    const query = vectorSource(seed + 2);
    this.#queries = Array.from({ length: queries }, query);
    this.#id = documents;
  }

  /** Searches and inserts for so long. @param pace Inserts a second */
  async window(milliseconds: number, searchers: number, pace: number): Promise<Window> {
    await this.#collection.indexed({ timeoutMs: 120_000 });
    const latenciesMs: number[] = [];
    const before = process.cpuUsage();
    const startedMs = performance.now();
    const inserts = this.#insert(startedMs, milliseconds, pace);
    const searches = Array.from({ length: searchers }, (_, at) =>
      this.#search(startedMs + milliseconds, at, latenciesMs),
    );
    await Promise.all(searches);
    const inserted = await inserts;
    const elapsedMs = performance.now() - startedMs;
    const { user, system } = process.cpuUsage(before);
    const shards = await this.#collection.status();
    must(pace === 0 || inserted > 0, "nothing was inserted");
    return {
      qps: (latenciesMs.length / milliseconds) * 1000,
      latenciesMs,
      cores: (user + system) / 1000 / elapsedMs,
      inserted,
      unindexed: Math.max(...shards.map(({ unindexed }) => unindexed)),
    };
  }

  /** Part of the exact answers that the index finds, while documents are inserted at a pace. */
  async recall(pace: number): Promise<number> {
    let ended = false;
    const inserting = this.#insertUntil(() => ended, pace);
    let found = 0;
    for (const query of this.#queries) {
      const { hits } = await this.#collection.search(query, { k: K, includePayload: false });
      const exact = await this.#collection.search(query, { k: K, exact: true, includePayload: false });
      const truth = new Set(exact.hits.map(({ id }) => id));
      found += hits.filter(({ id }) => truth.has(id)).length;
    }
    ended = true;
    const inserted = await inserting;
    must(pace === 0 || inserted > 0, "recall was measured without inserts");
    return found / (this.#queries.length * K);
  }

  async #search(untilMs: number, first: number, latenciesMs: number[]): Promise<void> {
    for (let at = first; performance.now() < untilMs; at += SEARCHERS) {
      const startedMs = performance.now();
      const query = this.#queries[at % this.#queries.length] as Float32Array;
      const { hits } = await this.#collection.search(query, { k: K, includePayload: false });
      must(hits.length === K, `a search had ${hits.length} answers`);
      latenciesMs.push(performance.now() - startedMs);
    }
  }

  #insert(startedMs: number, milliseconds: number, pace: number): Promise<number> {
    return this.#insertUntil(() => performance.now() - startedMs >= milliseconds, pace);
  }

  /** Inserts what is due, and never waits for answers before it goes on. @returns how many were acknowledged */
  async #insertUntil(ended: () => boolean, pace: number): Promise<number> {
    const open: Promise<unknown>[] = [];
    const startedMs = performance.now();
    while (pace > 0 && !ended()) {
      for (let due = ((performance.now() - startedMs) * pace) / 1000 - open.length; due >= 1; due--)
        open.push(this.#collection.upsert({ id: this.#id++, vector: this.#next() }));
      await new Promise((resolve) => setTimeout(resolve, PACE_TICK_MS));
    }
    return (await Promise.all(open)).length;
  }
}

interface Windows {
  readonly idle: Window[];
  readonly slow: Window[];
  readonly fast: Window[];
  readonly alone: Window[];
}

const SIDES = { idle: "idle", slow: `${SLOW_PACE} inserts/s`, fast: `${FAST_PACE} inserts/s` } as const;

function rowsOf(windows: Windows): BenchRow[] {
  const sides = Object.entries(SIDES).map(([key, side]) => ({ side, list: windows[key as keyof typeof SIDES] }));
  return [
    ...sides.map(({ side, list }) =>
      toRow(
        "search",
        side,
        "queries/s",
        list.map(({ qps }) => qps),
      ),
    ),
    ...sides.map(({ side, list }) =>
      toRow(
        "search latency",
        side,
        "ms",
        list.flatMap(({ latenciesMs }) => latenciesMs),
      ),
    ),
    toRow(
      "CPU of searches",
      SIDES.idle,
      "cores",
      windows.idle.map(({ cores }) => cores),
    ),
    toRow(
      "CPU of inserts alone",
      SIDES.fast,
      "cores",
      windows.alone.map(({ cores }) => cores),
    ),
  ];
}

/** Rows and the verdicts on L3. */
export async function measureReads(context: BenchContext): Promise<BenchReport> {
  const { mode, seed, goals } = context;
  const documents = sized(mode, 3_000, 20_000, 20_000);
  const windowMs = sized(mode, 250, 1_000, 1_500);
  const rounds = sized(mode, 1, 3, 5);
  const windows: Windows = { idle: [], slow: [], fast: [], alone: [] };
  context.log(`durable: searches during inserts into ${documents} documents`);
  const { idleRecall, busyRecall } = await withFolder(async (directory) => {
    const { cluster, collection } = await openDurable(directory("reads"));
    try {
      await collection.upsert(documentsOf(documents, seed).values());
      const readers = new Readers(collection, documents, sized(mode, 50, 200, 300), seed);
      await readers.window(windowMs, SEARCHERS, 0);
      for (let round = 0; round < rounds; round++) {
        windows.idle.push(await readers.window(windowMs, SEARCHERS, 0));
        windows.slow.push(await readers.window(windowMs, SEARCHERS, SLOW_PACE));
        windows.fast.push(await readers.window(windowMs, SEARCHERS, FAST_PACE));
        windows.alone.push(await readers.window(windowMs, 0, FAST_PACE));
      }
      const status = await collection.status();
      must(
        status.every(({ indexed, rows }) => indexed > rows / 2),
        "the searches had no index",
      );
      await collection.indexed({ timeoutMs: 120_000 });
      return { idleRecall: await readers.recall(0), busyRecall: await readers.recall(SLOW_PACE) };
    } finally {
      await cluster.close();
    }
  });
  const idleCores = median(windows.idle.map(({ cores }) => cores));
  const insertCores = median(windows.alone.map(({ cores }) => cores));
  // On a machine that others use inserts alone may get as many cores as searches did: then nothing can be told, which is a miss.
  const left = 1 - insertCores / idleCores;
  const ratio = (list: readonly Window[]): number =>
    median(list.map(({ qps }, round) => qps / (windows.idle[round]?.qps ?? Number.NaN)));
  const p99 = (list: readonly Window[]): number =>
    quantile(
      list.flatMap(({ latenciesMs }) => latenciesMs),
      0.99,
    );
  const slower = [windows.slow, windows.fast].map((list) => p99(list) / p99(windows.idle));
  const loss = Math.max(0, (idleRecall - busyRecall) * 100);
  const kept = Math.min(
    ...[...windows.fast, ...windows.alone].map(({ inserted }) => inserted / (FAST_PACE * (windowMs / 1000))),
  );
  const tail = Math.max(...windows.fast.map(({ unindexed }) => unindexed));
  return {
    rows: [
      ...rowsOf(windows),
      toRow("recall@10", SIDES.idle, "fraction", [idleRecall]),
      toRow("recall@10", SIDES.slow, "fraction", [busyRecall]),
    ],
    goals: [
      judge(goals, "L3", ratio(windows.slow)),
      judge(
        goals,
        "L3b",
        left < LEAST_LEFT ? 0 : ratio(windows.fast) / left,
        `inserts alone took ${insertCores.toFixed(2)} of ${idleCores.toFixed(2)} cores`,
      ),
      judge(
        goals,
        "L3c",
        Math.max(...slower),
        `at ${SLOW_PACE}/s ${slower[0]?.toFixed(2)}, at ${FAST_PACE}/s ${slower[1]?.toFixed(2)}`,
      ),
      judge(goals, "L3d", loss, `${idleRecall.toFixed(4)} without inserts, ${busyRecall.toFixed(4)} under them`),
    ],
    notes: [
      `reads: ${documents} documents, ${SEARCHERS} searches in flight; at most ${tail} of a shard unindexed after ${FAST_PACE}/s`,
      ...(kept >= KEPT ? [] : [`DISTURBED: inserts kept ${kept.toFixed(2)} of their pace; measure again`]),
    ],
  };
}
