/**
 * G13, in part `one-sided` of bench `vector-search`: what searches in batches cost in posted lists, each a round trip to one shard.
 *
 * Invariant: lists are counted where they are posted, those that look at the roots of the shards and those that read documents included; every
 * query of a batch was answered by it, and with the hits of a search by itself at the same `ef`, of which a sample is compared.
 */
import type { VectorCollection } from "../../src/index.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, toRow } from "../harness/harness.ts";
import { countFound, must, type PartReport, RECALL } from "./vector-search-curve.ts";
import { K, type VectorSet } from "./vector-search-data.ts";

/** Queries of a batch, as in d-HNSW. */
const BATCH = 2_000;
/** One query of so many is compared with a search by itself. */
const COMPARED = 100;
const REST_ATTEMPTS = 100;
const REST_MS = 200;

interface Measured {
  readonly ef: number;
  readonly recall: number;
  readonly listsPerQuery: number;
  readonly row: BenchRow;
}

async function measureAt(collection: VectorCollection, set: VectorSet, ef: number): Promise<Measured> {
  const { count } = set.queries;
  const perSecond: number[] = [];
  const sums = { lists: 0, requests: 0, deduplicated: 0, bytes: 0, rounds: 0, batches: 0, found: 0, distances: 0 };
  for (let first = 0; first < count; first += BATCH) {
    const end = Math.min(count, first + BATCH);
    const queries = Array.from({ length: end - first }, (_, at) => set.queries.at(first + at));
    const before = process.cpuUsage();
    const { results, batch } = await collection.searchMany(queries, { k: K, ef, includePayload: false });
    const { user, system } = process.cpuUsage(before);
    must(batch.alone === 0, `${batch.alone} queries of a batch were searched alone: ${batch.reason}`);
    perSecond.push((queries.length / Math.max(1, user + system)) * 1_000_000);
    sums.batches++;
    for (const name of ["lists", "requests", "deduplicated", "bytes", "rounds", "distances"] as const)
      sums[name] += batch[name];
    for (const [at, { hits }] of results.entries()) {
      const ids = hits.map(({ id }) => id as number);
      sums.found += countFound(set.truth, first + at, ids);
      if (at % COMPARED !== 0) continue;
      const alone = await collection.search(queries[at] as Float32Array, { k: K, ef, includePayload: false });
      must(alone.hits.map(({ id }) => id).join() === ids.join(), `query ${first + at} has other hits in a batch`);
    }
  }
  const recall = sums.found / (count * K);
  const note =
    `recall ${recall.toFixed(4)}, ${(sums.rounds / sums.batches).toFixed(1)} rounds, ${(sums.lists / sums.batches).toFixed(1)} lists a batch; ` +
    `a query: ${(sums.requests / count).toFixed(1)} reads, ${(sums.deduplicated / count).toFixed(1)} left out, ` +
    `${(sums.bytes / count / 1024).toFixed(1)} KiB, ${(sums.distances / count).toFixed(0)} distances`;
  const row = toRow(`batches of ${Math.min(BATCH, count)}, ef ${ef}`, "one-sided", "queries/s", perSecond, note);
  return { ef, recall, listsPerQuery: sums.lists / count, row };
}

/** Resolves when the graph rests: vertices go for a while after documents were brought to their leaves. */
async function rest(collection: VectorCollection, set: VectorSet, ef: number): Promise<void> {
  const queries = Array.from({ length: Math.min(BATCH, set.queries.count) }, (_, at) => set.queries.at(at));
  let reason: string | undefined;
  for (let attempt = 0; attempt < REST_ATTEMPTS; attempt++) {
    const { batch } = await collection.searchMany(queries, { k: K, ef });
    if (batch.alone === 0) return;
    reason = batch.reason;
    await new Promise((resolve) => setTimeout(resolve, REST_MS));
  }
  must(false, `queries of a batch are searched alone: ${reason}`);
}

/** @param efs Ascending. */
export async function measureBatches(
  { goals }: BenchContext,
  set: VectorSet,
  collection: VectorCollection,
  efs: readonly number[],
): Promise<Pick<PartReport, "rows" | "goals">> {
  const points: Measured[] = [];
  await rest(collection, set, efs.at(-1) ?? K);
  for (const ef of efs) points.push(await measureAt(collection, set, ef));
  const reached = points.find(({ recall }) => recall >= RECALL) ?? points.at(-1);
  if (reached === undefined) return { rows: [], goals: [] };
  const note = `ef ${reached.ef}, recall ${reached.recall.toFixed(4)}, batches of ${Math.min(BATCH, set.queries.count)}`;
  return { rows: points.map(({ row }) => row), goals: [judge(goals, "G13", reached.listsPerQuery, note)] };
}
