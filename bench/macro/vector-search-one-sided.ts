/**
 * G15 and G13, part `one-sided` of bench `vector-search`: one thread searches the documents of a cluster's two workers in their memory, against
 * native usearch over the same vectors in the same process.
 *
 * All sides and settings take turns on blocks of queries; every setting sees every query once, so that recalls are of all queries.
 * Rates are queries for each second of CPU time of the process, in which nothing else runs then: on an idle machine that is the rate of the
 * clock, on one that others use it is still that of the code. What the clock said is in the notes.
 * usearch: M 16, expansion 128 while adding, one query a call as here; candidates are raised by asking for as many answers (it searches with
 * the larger of both), of which the first ten count. Its fastest correct setting is f16, which is also measured with a whole block a call:
 * its own u8 and i8 rescale vectors, which breaks squared distances.
 */
import { Index, MetricKind, ScalarKind } from "usearch";
import { STATUS } from "../../native-bridge/status.ts";
import { Cluster, type VectorCollection, type VectorCollectionOptions } from "../../src/index.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, median, sized, toRow } from "../harness/harness.ts";
import { measureBatches } from "./vector-search-batch.ts";
import { type Curve, costAt, countFound, must, type PartReport, type Point, RECALL } from "./vector-search-curve.ts";
import { arenaBytes, K, type VectorSet, type Vectors } from "./vector-search-data.ts";

const WORKERS = 2;
const CONNECTIVITY = 16;
const EXPANSION_ADD = 128;
const ADD_BATCH = 1_000;
const MIN_MEMORY_BYTES = 2 ** 28;
/** Bytes of a document beside its components: cell, record, vertex and spare room. */
const DOCUMENT_BYTES = 1_024;
/** Vertices move to their leaves, and batches search in copies, which may take a quarter of what is free. */
const ROOM = 3;

/** One side with one setting. */
interface Contender {
  readonly side: string;
  readonly ef: number;
  /** Searches for queries from `first` to `end`. @returns rows found for each, nearest first */
  readonly run: (first: number, end: number) => readonly (readonly number[])[];
  /** Distances of the last run; 0 where they are not counted. */
  readonly distances: () => number;
}

interface Samples {
  readonly cpu: number[];
  readonly wall: number[];
  found: number;
  queries: number;
  distances: number;
}

/** Starts a cluster with room for vectors of that shape. */
export function startCluster(base: Vectors, workers: number = WORKERS): Promise<Cluster> {
  const dataBytes = base.count * (base.dimensions * 5 + DOCUMENT_BYTES);
  const memoryBytes = Math.max(MIN_MEMORY_BYTES, arenaBytes(ROOM * dataBytes));
  // Others may use the cores: a handler that had to wait for one is not stuck.
  const maxHandlerMs = 300_000;
  const actors = [new URL("./vector-search-holder.js", import.meta.url)]; // one of them holds a shard that is to be down
  return Cluster.start({ workers, actors, memoryBytes, spinLimitUs: 0, requestTimeoutMs: 600_000, maxHandlerMs });
}

/** Opens a collection that is searched one-sidedly, with rows for ids. @returns documents linked a second, too */
export async function fillOneSided(
  cluster: Cluster,
  name: string,
  base: Vectors,
  bytes: boolean,
  options: Pick<VectorCollectionOptions, "strategy" | "index"> = { strategy: "one-sided" },
  workers: number = WORKERS,
): Promise<{ collection: VectorCollection; perSecond: number }> {
  const collection = await cluster.vectors(name, {
    dimensions: base.dimensions,
    metric: "l2",
    quantization: bytes ? "u8" : "f32",
    ...options,
  });
  const startedMs = performance.now();
  const documents = Array.from({ length: base.count }, (_, id) => ({ id, vector: base.at(id) }));
  await collection.upsert(documents.values());
  await collection.indexed({ timeoutMs: 3_600_000 });
  const perSecond = (base.count / (performance.now() - startedMs)) * 1000;
  const status = await collection.status();
  must(
    status.length === workers && status.every(({ indexed, unindexed }) => indexed > 0 && unindexed === 0),
    "not every shard has its documents linked",
  );
  return { collection, perSecond };
}

/** This side: the reader of the calling thread. */
function oneSided(collection: VectorCollection, set: VectorSet, ef: number): Contender {
  const reader = collection.reader();
  let distances = 0;
  return {
    side: "one-sided",
    ef,
    distances: () => distances,
    run: (first, end) => {
      const found: number[][] = [];
      distances = 0;
      for (let query = first; query < end; query++) {
        const result = reader.search(set.queries.at(query), K, { ef });
        must(result.status === STATUS.SUCCESS && result.hits.length === K, `a search ended in ${result.status}`);
        distances += result.distances;
        found.push(result.hits.map(({ id }) => id as number));
      }
      return found;
    },
  };
}

function buildUsearch({ base }: VectorSet, quantization: ScalarKind): { index: Index; perSecond: number } {
  const index = new Index({
    dimensions: base.dimensions,
    metric: MetricKind.L2sq,
    quantization,
    connectivity: CONNECTIVITY,
    expansion_add: EXPANSION_ADD,
    expansion_search: K,
    multi: false,
  });
  const startedMs = performance.now();
  for (let from = 0; from < base.count; from += ADD_BATCH) {
    const to = Math.min(base.count, from + ADD_BATCH);
    const keys = BigUint64Array.from({ length: to - from }, (_, at) => BigInt(from + at));
    index.add(keys, base.slice(from, to).values, WORKERS);
  }
  must(index.size() === base.count, "usearch has not all vectors");
  return { index, perSecond: (base.count / (performance.now() - startedMs)) * 1000 };
}

function usearch(index: Index, side: string, set: VectorSet, ef: number, wholeBlocks: boolean): Contender {
  const search = (first: number, end: number): number[][] => {
    const { keys } = index.search(set.queries.slice(first, end).values, ef, 1); // one row of `ef` for each query
    return Array.from({ length: end - first }, (_, at) => [...keys.subarray(at * ef, at * ef + K)].map(Number));
  };
  return {
    side: wholeBlocks ? `${side}, a block a call` : side,
    ef,
    distances: () => 0,
    run: (first, end) =>
      wholeBlocks
        ? search(first, end)
        : Array.from({ length: end - first }, (_, at) => search(first + at, first + at + 1)).flat(),
  };
}

/** Every contender on every block of queries in turn. */
function takeTurns(contenders: readonly Contender[], set: VectorSet, blocks: number): Samples[] {
  const samples = contenders.map((): Samples => ({ cpu: [], wall: [], found: 0, queries: 0, distances: 0 }));
  const size = Math.ceil(set.queries.count / blocks);
  for (const contender of contenders) contender.run(0, Math.min(size, set.queries.count)); // warm
  for (let first = 0; first < set.queries.count; first += size) {
    const end = Math.min(set.queries.count, first + size);
    for (const [at, contender] of contenders.entries()) {
      const sample = samples[at] as Samples;
      const before = process.cpuUsage();
      const startedMs = performance.now();
      const found = contender.run(first, end);
      const elapsedMs = performance.now() - startedMs;
      const { user, system } = process.cpuUsage(before);
      sample.wall.push(((end - first) / elapsedMs) * 1_000);
      sample.cpu.push(((end - first) / Math.max(1, user + system)) * 1_000_000);
      sample.queries += end - first;
      sample.distances += contender.distances();
      for (const [offset, rows] of found.entries()) sample.found += countFound(set.truth, first + offset, rows);
    }
  }
  return samples;
}

interface Timed extends Point {
  readonly ef: number;
  readonly qps: number;
  readonly wallQps: number;
}

function curveOf(side: string, contenders: readonly Contender[], samples: readonly Samples[]): Timed[] {
  return contenders.flatMap((contender, at) => {
    const { cpu, wall, found, queries, distances } = samples[at] as Samples;
    if (contender.side !== side) return [];
    const recall = found / (queries * K);
    const counted = distances > 0 ? { distances: distances / queries } : {};
    return [{ ef: contender.ef, recall, qps: median(cpu), wallQps: median(wall), ...counted }];
  });
}

const qpsAt = (points: readonly Timed[]): number => costAt(points, RECALL, ({ qps }) => qps);
const wallAt = (points: readonly Timed[]): number => costAt(points, RECALL, ({ wallQps }) => wallQps);

/** Rows, curves and the verdicts on G15. */
export async function measureOneSided(context: BenchContext, set: VectorSet): Promise<PartReport> {
  const { mode, goals, log } = context;
  const efs = sized(mode, [10, 80], [10, 20, 24, 32, 40, 56], [10, 20, 24, 32, 40, 48, 64, 96]);
  const theirs = sized(mode, [10, 80], [16, 24, 32, 48, 64], [10, 16, 24, 32, 40, 48, 64, 96]);
  const cluster = await startCluster(set.base);
  try {
    const { collection, perSecond } = await fillOneSided(cluster, "bench", set.base, set.bytes);
    log("vector-search: one-sided collection built");
    const f32 = buildUsearch(set, ScalarKind.F32);
    const f16 = buildUsearch(set, ScalarKind.F16);
    log("vector-search: usearch built");
    const contenders = [
      ...efs.map((ef) => oneSided(collection, set, ef)),
      ...theirs.map((ef) => usearch(f32.index, "usearch f32", set, ef, false)),
      ...theirs.map((ef) => usearch(f16.index, "usearch f16", set, ef, false)),
      ...theirs.map((ef) => usearch(f16.index, "usearch f16", set, ef, true)),
    ];
    const samples = takeTurns(contenders, set, sized(mode, 2, 20, 40));
    const sides = [...new Set(contenders.map(({ side }) => side))];
    const curves = new Map(sides.map((side) => [side, curveOf(side, contenders, samples)]));
    const of = (side: string): Timed[] => curves.get(side) as Timed[];
    const ours = of("one-sided");
    must(Math.max(...ours.map(({ recall }) => recall)) > 0.9, "one-sided searches find too little");
    const fastest = sides
      .filter((side) => side !== "one-sided" && qpsAt(of(side)) > 0)
      .reduce((a, b) => (qpsAt(of(a)) > qpsAt(of(b)) ? a : b), "usearch f32");
    const batches = await measureBatches(context, set, collection, sized(mode, [32], [32, 48], [32, 40, 48, 64]));
    const wall = (side: string): string => `by the clock ${(wallAt(ours) / wallAt(of(side))).toFixed(2)}`;
    const at = `${qpsAt(ours).toFixed(0)} queries per CPU second at ${RECALL}`;
    return {
      rows: [
        ...contenders.map((contender, index): BenchRow => {
          const { cpu, found, queries, distances } = samples[index] as Samples;
          const counted = distances > 0 ? `, ${(distances / queries).toFixed(0)} distances` : "";
          const note = `recall ${(found / (queries * K)).toFixed(4)}${counted}`;
          return toRow(`search ef ${contender.ef}`, contender.side, "queries/s", cpu, note);
        }),
        ...batches.rows,
        toRow("load and link", "one-sided", "documents/s", [perSecond], `${WORKERS} workers`),
        toRow("add", "usearch f32", "documents/s", [f32.perSecond], `${WORKERS} threads`),
        toRow("add", "usearch f16", "documents/s", [f16.perSecond], `${WORKERS} threads`),
      ],
      goals: [
        ...batches.goals,
        judge(goals, "G15", qpsAt(ours) / qpsAt(of("usearch f32")), `${at}; ${wall("usearch f32")}`),
        judge(
          goals,
          "G15b",
          qpsAt(ours) / qpsAt(of(fastest)),
          `against ${fastest}; ${wall(fastest)}; against f16, a query a call ${(qpsAt(ours) / qpsAt(of("usearch f16"))).toFixed(2)}`,
        ),
      ],
      notes: [
        `one-sided: ${set.bytes ? "u8" : "f32"} codes; a search ends with its answers read and scored in their rows, and includes its entry`,
        `one-sided: ${costAt(ours, RECALL, ({ distances = Number.NaN }) => distances).toFixed(0)} distances a query at ${RECALL}; usearch counts none`,
      ],
      curves: sides.map((side): Curve => ({ name: side, points: of(side) })),
    };
  } finally {
    await cluster.close();
  }
}
