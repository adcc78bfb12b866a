/**
 * Clusters of several shards for bench `vector-search`, and what searches through their public interface take: recall, counters of the searches'
 * own accounts, and queries for each second of CPU time of the process.
 *
 * Invariant: a search counts only when the strategy that was asked for has answered it: the others are told, and many of them fail the bench.
 * Clusters stay for later parts of a run, until they are closed together.
 */
import type { Cluster, Explanation, StrategyName, VectorCollection } from "../../src/index.ts";
import type { BenchContext } from "../harness/harness.ts";
import { countFound, must, type Point } from "./vector-search-curve.ts";
import { exactNearest, K, type VectorSet, Vectors } from "./vector-search-data.ts";
import { fillOneSided, startCluster } from "./vector-search-one-sided.ts";

/** Searches under way at once, and how many of them may be answered by another strategy. */
const AT_ONCE = 4;
/** As many as so few vectors can be placed on. */
const SMOKE_SHARDS = 4;
const MOST_OTHERS = 0.02;
const READY_ATTEMPTS = 2_000;
const READY_MS = 30;

/** A collection over some shards. */
export interface Sharded {
  readonly cluster: Cluster;
  readonly collection: VectorCollection;
  readonly shards: number;
}

/** Queries, and the rows that are to be found. */
export interface Asked {
  readonly queries: Vectors;
  readonly truth: Int32Array;
  /** Row of the query itself, which does not count; −1: it is none. */
  readonly ownOf: (query: number) => number;
}

/** How searches are asked for. */
export interface Setting {
  readonly by: StrategyName;
  readonly ef?: number;
  readonly recall?: number;
}

/** What searches with one setting took, a query. */
export interface Taken extends Point {
  readonly setting: Setting;
  readonly qps: number;
  readonly distances: number;
  /** Bytes of messages and of one-sided reads. */
  readonly bytes: number;
  readonly messages: number;
  /** Shards that were asked, or searched together. */
  readonly shards: number;
  /** Most exchanges that had to follow one another. */
  readonly rounds: number;
  /** Vertices that other workers than their shard's computed for. */
  readonly stolen: number;
  /** Share that another strategy answered. */
  readonly others: number;
}

const opened = new WeakMap<VectorSet, Map<string, Promise<Sharded>>>();

/** All vectors of a set over so many shards, fewer in a smoke run; made once. */
export function shardsOf(context: BenchContext, set: VectorSet, wanted: number, levels = false): Promise<Sharded> {
  const shards = context.mode === "smoke" ? Math.min(wanted, SMOKE_SHARDS) : wanted;
  const known = opened.get(set) ?? new Map<string, Promise<Sharded>>();
  opened.set(set, known);
  const name = `${shards}${levels ? " levels" : ""}`;
  const made = known.get(name) ?? open(context, set, shards, levels);
  known.set(name, made);
  return made;
}

/** Closes the clusters of a set. */
export async function closeShards(set: VectorSet): Promise<void> {
  const known = opened.get(set);
  opened.delete(set);
  for (const made of known?.values() ?? []) await made.then(({ cluster }) => cluster.close()).catch(() => undefined);
}

async function open({ log }: BenchContext, set: VectorSet, shards: number, levels: boolean): Promise<Sharded> {
  const cluster = await startCluster(set.base, shards);
  const options = levels ? ({ strategy: "spire", index: "levels" } as const) : ({ strategy: "one-sided" } as const);
  const { collection } = await fillOneSided(cluster, "bench", set.base, set.bytes, options, shards);
  await ready(collection, set, shards);
  log(`vector-search: ${shards} shards filled${levels ? ", with levels" : ""}`);
  return { cluster, collection, shards };
}

/** Waits until every shard knows what the others have told it of their leaves: each is asked in its turn. */
async function ready(collection: VectorCollection, set: VectorSet, shards: number): Promise<void> {
  for (let good = 0, asked = 0; good < 2 * shards; asked++) {
    must(asked < READY_ATTEMPTS, "the shards do not get to know each other's leaves");
    const { by } = await collection.search(set.queries.at(asked % set.queries.count), { by: "spire", k: K });
    good = by === "spire" ? good + 1 : 0;
    if (good === 0) await new Promise((resolve) => setTimeout(resolve, READY_MS));
  }
}

/** The queries of a set. */
export function queriesOf({ queries, truth }: VectorSet): Asked {
  return { queries, truth, ownOf: () => -1 };
}

/** Vectors of the base as queries, spread evenly over it. */
export function trainingOf({ base, bytes }: VectorSet, wanted: number): Asked {
  const count = Math.min(wanted, base.count);
  const step = Math.floor(base.count / count);
  const values = new Float32Array(count * base.dimensions);
  for (let at = 0; at < count; at++) values.set(base.at(at * step), at * base.dimensions);
  const queries = new Vectors(values, base.dimensions);
  const ownOf = (query: number): number => query * step;
  return { queries, truth: exactNearest(base, queries, bytes, K, ownOf), ownOf };
}

/** Searches for all queries with one setting. */
export async function searchAll({ collection }: Sharded, asked: Asked, setting: Setting): Promise<Taken> {
  const { queries, truth, ownOf } = asked;
  const sums = {
    found: 0,
    distances: 0,
    bytes: 0,
    messages: 0,
    shards: 0,
    stolen: 0,
    rounds: 0,
    others: 0,
    answered: 0,
  };
  const reasons = new Set<string>();
  const one = async (query: number): Promise<void> => {
    const own = ownOf(query);
    const k = own < 0 ? K : K + 1;
    const result = await collection.search(queries.at(query), { ...setting, k, explain: true, includePayload: false });
    const ids = result.hits.map(({ id }) => id as number).filter((id) => id !== own);
    sums.found += countFound(truth, query, ids.slice(0, K));
    if (result.by !== setting.by) {
      reasons.add(result.fallback ?? "");
      sums.others++;
      return;
    }
    sums.answered++;
    const taken = takenOf(result.explain as Explanation);
    for (const [name, value] of Object.entries(taken) as [keyof typeof taken, number][])
      sums[name] = name === "rounds" ? Math.max(sums.rounds, value) : sums[name] + value;
  };
  let next = 0;
  const before = process.cpuUsage();
  const lane = async (): Promise<void> => {
    for (let query = next++; query < queries.count; query = next++) await one(query);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  const { user, system } = process.cpuUsage(before);
  const others = sums.others / queries.count;
  must(
    others <= MOST_OTHERS,
    `${(100 * others).toFixed(1)} % of searches by ${setting.by} were answered by another strategy: ${[...reasons].join(", ")}`,
  );
  const mean = (sum: number): number => sum / sums.answered;
  return {
    setting,
    recall: sums.found / (queries.count * K),
    qps: (queries.count / (user + system)) * 1_000_000,
    distances: mean(sums.distances),
    bytes: mean(sums.bytes),
    messages: mean(sums.messages),
    shards: mean(sums.shards),
    stolen: mean(sums.stolen),
    rounds: sums.rounds,
    others,
  };
}

function takenOf({
  collaboration,
  reading,
  bytes,
  plan,
}: Explanation): Record<"distances" | "bytes" | "messages" | "shards" | "stolen" | "rounds", number> {
  return {
    distances: collaboration?.computations ?? reading?.codes ?? 0,
    bytes,
    messages: collaboration?.messages ?? reading?.messages ?? plan.targets.length,
    shards: plan.targets.length,
    stolen: collaboration?.stolen ?? 0,
    rounds: reading?.rounds ?? 0,
  };
}

/** What one thread takes that searches the whole graph, by settings. */
export function searchAlone({ collection }: Sharded, asked: Asked, efs: readonly number[]): Taken[] {
  const { queries, truth, ownOf } = asked;
  const reader = collection.reader();
  return efs.map((ef) => {
    const sums = { found: 0, distances: 0 };
    const before = process.cpuUsage();
    for (let query = 0; query < queries.count; query++) {
      const own = ownOf(query);
      const { hits, distances } = reader.search(queries.at(query), own < 0 ? K : K + 1, { ef });
      const ids = hits.map(({ id }) => id as number).filter((id) => id !== own);
      sums.found += countFound(truth, query, ids.slice(0, K));
      sums.distances += distances;
    }
    const { user, system } = process.cpuUsage(before);
    return {
      setting: { by: "one-sided", ef },
      recall: sums.found / (queries.count * K),
      qps: (queries.count / (user + system)) * 1_000_000,
      distances: sums.distances / queries.count,
      ...{ bytes: 0, messages: 0, shards: 0, stolen: 0, rounds: 0, others: 0 },
    };
  });
}
