/**
 * Bench `search` (V2): what fan-out over 4 shards, replies and merge cost, against the same per-shard searches done directly.
 *
 * Fan-out: the public `search`, CONCURRENCY queries in flight; each is one envelope per shard, four replies, one merge.
 * Direct: every worker runs the same searches (same index, queries, k) in a loop on its own thread: envelopes of BATCH queries
 * each, CONCURRENCY / BATCH of them in flight per shard, so that a worker always has its next batch and nothing is sent, woken,
 * decoded or merged per query. A message of the engine as it stands was chosen over a loop made for the bench, as it is
 * surely the same code; it still writes its hits into a reply, about 1 us of the some 100 that a search takes.
 * Both sides return when every shard has searched for every query. Sides alternate; neither client nor workers spin.
 */

import { RoutedPayload, readComplete, STRONG_READ } from "../../actors/routed-payload.ts";
import { readSearchReply } from "../../actors/vector/vector-replies.ts";
import { SEARCH_EXACT, searchRequestBytes, writeSearchRequest } from "../../actors/vector/vector-requests.ts";
import { VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { VECTOR_SEARCH } from "../../src/wire/message-types.ts";
import { judge } from "../harness/goals.ts";
import {
  type Bench,
  type BenchCase,
  type BenchContext,
  type BenchReport,
  type BenchRow,
  interleave,
  median,
  sized,
  toRow,
} from "../harness/harness.ts";
import { DIMENSIONS, loadData, type SearchData } from "./search-data.ts";
import { openStage, type SearchStage } from "./search-stage.ts";

const WORKERS = 4;
const K = 10;
const CONCURRENCY = 32;
const BATCH = 8;
/** Four workers fill the cores: a client that polls for replies takes 30 us a query from them, of some 1,100. */
const SPIN_LIMIT_US = 0;

interface Timed {
  readonly stage: SearchStage;
  readonly data: SearchData;
  /** Queries of one sample, as one block: `Float32Array[count * DIMENSIONS]`. */
  readonly block: Float32Array;
  readonly count: number;
}

/** Runs `work` for 0…count−1, `width` at once. @returns per second */
async function rateOf(count: number, width: number, work: (at: number) => Promise<void>): Promise<number> {
  let next = 0;
  const startedMs = performance.now();
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (next < count) await work(next++);
    }),
  );
  return (count / (performance.now() - startedMs)) * 1000;
}

function fanOut({ stage, block, count }: Timed, exact: boolean): BenchCase {
  let answered = 0;
  return {
    name: exact ? "exact scan" : "index search",
    side: "fan-out",
    unit: "queries/s",
    run: () =>
      rateOf(count, CONCURRENCY, async (at) => {
        const query = block.subarray(at * DIMENSIONS, (at + 1) * DIMENSIONS);
        const { hits, completeness } = await stage.collection.search(query, { k: K, exact, includePayload: false });
        if (hits.length === K && completeness.answered === WORKERS) answered++;
      }),
    validate: () => {
      if (answered === 0 || answered % count !== 0)
        throw new Error(`search bench: ${answered} of ${count} queries were answered whole`);
    },
  };
}

function direct({ stage, block, count }: Timed, exact: boolean): BenchCase {
  const { coordinator, collectionId } = stage;
  let answered = 0;
  const batches = count / BATCH;
  const send = async (shard: number, batch: number): Promise<void> => {
    const queries = block.subarray(batch * BATCH * DIMENSIONS, (batch + 1) * BATCH * DIMENSIONS);
    const request = { collectionId, k: K, ef: 0, flags: exact ? SEARCH_EXACT : 0, queries, dimensions: DIMENSIONS };
    const payload = new RoutedPayload(STRONG_READ, {
      byteLength: searchRequestBytes(request),
      write: (target, offset) => writeSearchRequest(target, offset, request),
    });
    const searched = await coordinator.ask(
      shard,
      VECTOR_SEARCH,
      VSHARD_LISTED,
      payload,
      (frame) => readComplete(frame, (offset) => frame.i32[offset >>> 2] as number),
      undefined,
    );
    answered += searched;
  };
  return {
    name: exact ? "exact scan" : "index search",
    side: "direct",
    unit: "queries/s",
    run: async () => {
      const startedMs = performance.now();
      await Promise.all(
        coordinator.shards.map((shard) => rateOf(batches, CONCURRENCY / BATCH, (batch) => send(shard, batch))),
      );
      return (count / (performance.now() - startedMs)) * 1000;
    },
    validate: () => {
      if (answered === 0 || answered % (count * WORKERS) !== 0)
        throw new Error(`search bench: ${answered} direct searches were answered`);
    },
  };
}

/** The same case, which also keeps the CPU time of the whole process per query: steadier than QPS on a machine that others use. */
function withCpu(one: BenchCase, count: number, cpu: Map<string, number[]>): BenchCase {
  const samples: number[] = [];
  cpu.set(one.side, samples);
  const run = async (): Promise<number> => {
    const before = process.cpuUsage();
    const rate = (await one.run()) as number;
    const { user, system } = process.cpuUsage(before);
    samples.push((user + system) / count);
    return rate;
  };
  return { ...one, run };
}

/** Fraction of QPS lost, round by round. */
function lost(rows: readonly BenchRow[], name: string): number[] {
  const of = (side: string): readonly number[] =>
    rows.find((row) => row.case === name && row.side === side)?.samples ?? [];
  const theirs = of("direct");
  return of("fan-out").map((sample, at) => 1 - sample / (theirs[at] ?? Number.NaN));
}

async function fill(stage: SearchStage, data: SearchData): Promise<BenchRow[]> {
  const startedMs = performance.now();
  const documents = data.base.map((vector, id) => ({ id, vector }));
  await stage.collection.upsert(documents.values());
  const loadedMs = performance.now();
  await stage.collection.indexed({ timeoutMs: 600_000 });
  const indexedMs = performance.now();
  return [
    toRow("load", "fan-out", "documents/s", [(data.base.length / (loadedMs - startedMs)) * 1000]),
    toRow("load and index", "fan-out", "documents/s", [(data.base.length / (indexedMs - startedMs)) * 1000]),
  ];
}

async function recall(stage: SearchStage, data: SearchData, queries: number): Promise<BenchRow> {
  let found = 0;
  for (let query = 0; query < queries; query++) {
    const vector = data.queries[query] as Float32Array;
    const exact = async (): Promise<readonly unknown[]> =>
      (await stage.collection.search(vector, { k: K, exact: true })).hits.map((hit) => hit.id);
    const truth = new Set<unknown>(data.truth === undefined ? await exact() : data.truth(query));
    const { hits } = await stage.collection.search(vector, { k: K });
    found += hits.filter((hit) => truth.has(hit.id)).length;
  }
  const row = toRow(
    "recall@10",
    "index",
    "fraction",
    [found / (queries * K)],
    data.truth === undefined ? "against the exact scan" : "against the ground truth file",
  );
  if (row.median < 0.9)
    throw new Error(`search bench: recall is ${row.median}, so the index was not searched as it should be`);
  return row;
}

/** The index must have answered, not the scan. */
async function assertIndexed({ stage, block }: Timed): Promise<void> {
  const request = {
    collectionId: stage.collectionId,
    k: K,
    ef: 0,
    flags: 0,
    queries: block.subarray(0, DIMENSIONS),
    dimensions: DIMENSIONS,
  };
  for (const shard of stage.coordinator.shards) {
    const payload = new RoutedPayload(STRONG_READ, {
      byteLength: searchRequestBytes(request),
      write: (target, offset) => writeSearchRequest(target, offset, request),
    });
    const [answer] = await stage.coordinator.ask(
      shard,
      VECTOR_SEARCH,
      VSHARD_LISTED,
      payload,
      (frame) => readComplete(frame, (offset, length) => readSearchReply(frame, offset, length)),
      undefined,
    );
    if (answer?.plan !== 1) throw new Error(`search bench: shard ${shard} did not use its index`);
  }
}

async function measure(context: BenchContext, stage: SearchStage, data: SearchData): Promise<BenchReport> {
  const count = sized(context.mode, 128, 1_536, 8_192);
  const exactCount = sized(context.mode, 32, 128, 512);
  const rounds = sized(context.mode, 1, 7, 9);
  const rows = await fill(stage, data);
  const block = new Float32Array(count * DIMENSIONS);
  for (let at = 0; at < count; at++) block.set(data.queries[at % data.queries.length] as Float32Array, at * DIMENSIONS);
  const timed: Timed = { stage, data, block, count };
  await assertIndexed(timed);
  const cpu = new Map<string, number[]>();
  const searches = await interleave(
    [fanOut(timed, false), direct(timed, false)].map((one) => withCpu(one, count, cpu)),
    rounds,
  );
  const cpuRows = [...cpu].map(([side, samples]) => toRow("CPU per query", side, "us", samples.slice(1)));
  const scans = await interleave(
    [fanOut({ ...timed, count: exactCount }, true), direct({ ...timed, count: exactCount }, true)],
    Math.min(rounds, 3),
  );
  const lostByRound = lost(searches, "index search");
  return {
    rows: [...searches, ...cpuRows, ...scans, await recall(stage, data, sized(context.mode, 32, 200, 1_000)), ...rows],
    goals: [judge(context.goals, "V2", median(lostByRound))],
    notes: [
      `${data.name}; ${WORKERS} workers, k ${K}, ${CONCURRENCY} queries in flight, direct in envelopes of ${BATCH}, spinLimitUs ${SPIN_LIMIT_US}`,
      `lost by round: ${lostByRound.map((value) => value.toFixed(3)).join(" ")}`,
      `CPU per query of fan-out over direct: ${((cpuRows[0]?.median ?? 0) / (cpuRows[1]?.median ?? 1)).toFixed(3)}`,
      `exact scan, lost by round: ${lost(scans, "exact scan")
        .map((value) => value.toFixed(3))
        .join(" ")}`,
    ],
  };
}

export const bench: Bench = {
  name: "search",
  async run(context) {
    const rows = sized(context.mode, 6_000, 20_000, 60_000);
    const queries = sized(context.mode, 128, 2_048, 10_000);
    context.log("search: loading vectors");
    const data = await loadData(rows, queries, context.mode === "smoke", context.seed);
    const stage = await openStage(WORKERS, SPIN_LIMIT_US, { dimensions: DIMENSIONS, metric: "l2" });
    try {
      return await measure(context, stage, data);
    } finally {
      await stage.close();
    }
  },
};
