/**
 * G16 and V3, part `threads` of bench `vector-search`: threads connected to a cluster search one-sidedly in loops of their own, alone, two
 * at a time, and while documents are inserted at a steady pace.
 *
 * Windows alternate. What inserts leave is told by the CPU time that they take alone, over the CPU time that two searching threads take.
 * Invariant: inserted documents are new ones that the collection did not begin with, acknowledged before they count; the report says so when
 * they did not keep their pace. Recall is of the same queries without and under inserts, each against an exact scan of that moment.
 */
import type { Cluster, VectorCollection } from "../../src/index.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, median, sized, toRow } from "../harness/harness.ts";
import { must, type PartReport } from "./vector-search-curve.ts";
import type { VectorSet, Vectors } from "./vector-search-data.ts";
import { fillOneSided, startCluster } from "./vector-search-one-sided.ts";
import { ReaderThread } from "./vector-search-reader.ts";

const SLOW_PACE = 200;
const FAST_PACE = 1_000;
const NAME = "threads";
/** Finds about .99 of the nearest in MNIST; the same for all sides. */
const EF = 32;
/** Share of the vectors that the collection begins with, at most so many; the others are inserted. */
const FIRST_SHARE = 0.6;
const MOST_FIRST = 20_000;
const LEAD_MS = 20;
const PACE_TICK_MS = 2;
const KEPT = 0.9;
/** Share of the cores that inserts must leave for a verdict. */
const LEAST_LEFT = 0.1;

interface Window {
  readonly qps: number;
  /** Microseconds of CPU time of the process for each search. */
  readonly cpuUs: number;
  /** Cores that the process used. */
  readonly cores: number;
  readonly fellBack: number;
  readonly inserted: number;
}

class Stage {
  readonly collection: VectorCollection;
  readonly #readers: readonly ReaderThread[];
  readonly #spare: Vectors;
  readonly #first: number;
  #next = 0;

  constructor(collection: VectorCollection, readers: readonly ReaderThread[], spare: Vectors, first: number) {
    this.collection = collection;
    this.#readers = readers;
    this.#spare = spare;
    this.#first = first;
  }

  static async open(cluster: Cluster, set: VectorSet): Promise<Stage> {
    const first = Math.min(MOST_FIRST, Math.floor(set.base.count * FIRST_SHARE));
    const { collection } = await fillOneSided(cluster, NAME, set.base.slice(0, first), set.bytes);
    const queries = new Float32Array(new SharedArrayBuffer(set.queries.values.byteLength));
    queries.set(set.queries.values);
    const start = (): Promise<ReaderThread> => ReaderThread.start(cluster, NAME, queries, set.base.dimensions);
    const readers = [await start(), await start()];
    return new Stage(collection, readers, set.base.slice(first, set.base.count), first);
  }

  async close(): Promise<void> {
    for (const reader of this.#readers) await reader.close();
  }

  /** @param threads Threads that search. @param pace Inserts a second */
  async window(threads: number, milliseconds: number, pace: number): Promise<Window> {
    await this.collection.indexed({ timeoutMs: 600_000 });
    const fromMs = Date.now() + LEAD_MS;
    const untilMs = fromMs + milliseconds;
    const loops = this.#readers
      .slice(0, threads)
      .map((reader, at) => reader.loop({ fromMs, untilMs, first: at * 7_919, ef: EF }));
    await new Promise((resolve) => setTimeout(resolve, LEAD_MS));
    const before = process.cpuUsage();
    const startedMs = performance.now();
    const inserting = this.#insert(() => Date.now() >= untilMs, pace);
    const answers = await Promise.all(loops);
    const inserted = await inserting;
    const { user, system } = process.cpuUsage(before);
    const elapsedMs = performance.now() - startedMs;
    const searches = answers.reduce((sum, answer) => sum + answer.searches, 0);
    must(
      answers.every((answer) => answer.searches > 0 && answer.short === 0),
      "a thread did not search, or found too few",
    );
    must(pace === 0 || inserted > 0, "nothing was inserted");
    return {
      qps: (searches / milliseconds) * 1_000,
      cpuUs: (user + system) / searches,
      cores: (user + system) / 1_000 / elapsedMs,
      fellBack: answers.reduce((sum, answer) => sum + answer.fellBack, 0),
      inserted,
    };
  }

  /** Part of the exact answers that are found, while documents are inserted at a pace. */
  async recall(queries: number, pace: number): Promise<number> {
    let ended = false;
    let begin: () => void = () => undefined;
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const inserting = this.#insert(() => ended, pace, begin);
    if (pace > 0) await begun; // few queries take less than the first insert
    const recall = await (this.#readers[0] as ReaderThread).recall({ queries, ef: EF });
    ended = true;
    const inserted = await inserting;
    must(pace === 0 || inserted > 0, "recall was measured without inserts");
    return recall;
  }

  /** Inserts what is due, and never waits for answers before it goes on. @returns how many were acknowledged in time */
  async #insert(ended: () => boolean, pace: number, onFirst?: () => void): Promise<number> {
    let sent = 0;
    let acknowledged = 0;
    const open: Promise<unknown>[] = [];
    const startedMs = performance.now();
    while (pace > 0 && !ended()) {
      for (let due = ((performance.now() - startedMs) * pace) / 1_000 - sent; due >= 1; due--, sent++) {
        const at = this.#next++;
        const document = { id: this.#first + at, vector: this.#spare.at(at % this.#spare.count) };
        open.push(
          this.collection.upsert(document).then(() => {
            if (acknowledged++ === 0) onFirst?.();
          }),
        );
      }
      await new Promise((resolve) => setTimeout(resolve, PACE_TICK_MS));
    }
    const inTime = acknowledged;
    await Promise.all(open);
    return inTime;
  }

  /** Whether vectors had to be inserted twice, under another id. */
  get wrapped(): boolean {
    return this.#next > this.#spare.count;
  }
}

const WINDOWS = {
  one: { side: "1 thread", threads: 1, pace: 0 },
  two: { side: "2 threads", threads: 2, pace: 0 },
  slow: { side: `2 threads, ${SLOW_PACE} inserts/s`, threads: 2, pace: SLOW_PACE },
  fast: { side: `2 threads, ${FAST_PACE} inserts/s`, threads: 2, pace: FAST_PACE },
  alone: { side: `${FAST_PACE} inserts/s alone`, threads: 0, pace: FAST_PACE },
} as const;

type Kind = keyof typeof WINDOWS;

/** Rows and the verdicts on G16 and V3. */
export async function measureThreads(context: BenchContext, set: VectorSet): Promise<PartReport> {
  const { mode, goals } = context;
  const milliseconds = sized(mode, 200, 1_000, 2_000);
  const kinds = Object.keys(WINDOWS) as Kind[];
  const windows = Object.fromEntries(kinds.map((kind) => [kind, []])) as unknown as Record<Kind, Window[]>;
  const recallQueries = Math.min(set.queries.count, sized(mode, 30, 200, 500));
  const cluster = await startCluster(set.base);
  try {
    const stage = await Stage.open(cluster, set);
    try {
      await stage.window(2, milliseconds, 0); // warm
      const idleRecall = await stage.recall(recallQueries, 0);
      for (let round = 0; round < sized(mode, 1, 3, 7); round++)
        for (const kind of kinds)
          windows[kind].push(await stage.window(WINDOWS[kind].threads, milliseconds, WINDOWS[kind].pace));
      await stage.collection.indexed({ timeoutMs: 600_000 });
      const quietRecall = await stage.recall(recallQueries, 0);
      const busyRecall = await stage.recall(recallQueries, SLOW_PACE);
      return report(context, windows, { idleRecall, quietRecall, busyRecall }, stage.wrapped, milliseconds);
    } finally {
      await stage.close();
    }
  } finally {
    await cluster.close();
  }

  function report(
    { log }: BenchContext,
    seen: Record<Kind, Window[]>,
    recalls: { idleRecall: number; quietRecall: number; busyRecall: number },
    wrapped: boolean,
    windowMs: number,
  ): PartReport {
    const ratio = (kind: Kind, to: Kind): number =>
      median(seen[kind].map(({ qps }, round) => qps / (seen[to][round]?.qps ?? Number.NaN)));
    const of = (kind: Kind, value: (window: Window) => number): number => median(seen[kind].map(value));
    const idleCores = of("two", ({ cores }) => cores);
    const insertCores = of("alone", ({ cores }) => cores);
    // Where others use the cores, inserts alone may get as many as searches did: then nothing can be told, which is a miss.
    const left = 1 - insertCores / idleCores;
    const byCpu = (2 * of("one", ({ cpuUs }) => cpuUs)) / of("two", ({ cpuUs }) => cpuUs);
    const inserted = [...seen.fast, ...seen.alone].map((window) => window.inserted / (FAST_PACE * (windowMs / 1_000)));
    const fellBack = kinds.map((kind) => seen[kind].reduce((sum, window) => sum + window.fellBack, 0));
    const loss = Math.max(0, (recalls.quietRecall - recalls.busyRecall) * 100);
    log(`vector-search: threads used ${idleCores.toFixed(2)} cores`);
    return {
      rows: [
        ...kinds.flatMap((kind): BenchRow[] =>
          WINDOWS[kind].threads === 0
            ? []
            : [
                toRow(
                  "loop",
                  WINDOWS[kind].side,
                  "queries/s",
                  seen[kind].map(({ qps }) => qps),
                ),
              ],
        ),
        ...kinds.map((kind) =>
          toRow(
            "CPU",
            WINDOWS[kind].side,
            "cores",
            seen[kind].map(({ cores }) => cores),
          ),
        ),
        toRow(`recall ef ${EF}`, "before inserts", "fraction", [recalls.idleRecall]),
        toRow(`recall ef ${EF}`, "after inserts", "fraction", [recalls.quietRecall]),
        toRow(`recall ef ${EF}`, `during ${SLOW_PACE} inserts/s`, "fraction", [recalls.busyRecall]),
      ],
      goals: [
        judge(
          goals,
          "G16",
          ratio("two", "one"),
          `by CPU time a query ${byCpu.toFixed(2)}; two threads got ${idleCores.toFixed(2)} cores`,
        ),
        judge(goals, "V3", ratio("slow", "two")),
        judge(
          goals,
          "V3b",
          left < LEAST_LEFT ? 0 : ratio("fast", "two") / left,
          `inserts alone took ${insertCores.toFixed(2)} of ${idleCores.toFixed(2)} cores`,
        ),
        judge(
          goals,
          "V3c",
          loss,
          `${recalls.quietRecall.toFixed(4)} without inserts, ${recalls.busyRecall.toFixed(4)} under them`,
        ),
      ],
      notes: [
        `threads: ef ${EF}; searches that the shards had to answer: ${kinds.map((kind, at) => `${WINDOWS[kind].side} ${fellBack[at]}`).join(", ")}`,
        ...(Math.min(...inserted) >= KEPT
          ? []
          : [`DISTURBED: inserts kept ${Math.min(...inserted).toFixed(2)} of their pace; measure again`]),
        ...(wrapped ? ["threads: vectors ran out, so some were inserted twice, under other ids"] : []),
      ],
      curves: [],
    };
  }
}
