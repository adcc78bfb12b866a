/**
 * V4, part `filters` of bench `vector-search`: one-sided searches with filters that pass from half to a thousandth of the documents.
 *
 * The filter is a bound on a random number of each document, so that what passes lies anywhere. Against: a scan of what passes, packed one after the
 * other (which no collection has, so the best that a scan could be), whose answers are read from their rows once; over-fetching, a search for so many more that enough of them pass, where telling
 * that costs nothing; and searches without a filter. All sides and settings take turns on blocks of queries, on one thread of one process; rates are
 * queries for each second of CPU time, at recall .95: read off the fastest settings of each side, by interpolation between two of them, and where
 * even the fastest finds more, as a scan does, its own rate.
 *
 * With SHARDLOOM_TUNE=1 the queries are vectors of the base, for choosing constants; a report quotes none of that.
 */

import { payloadFilter } from "../../actors/vector/payload-filter.ts";
import type { VectorReader } from "../../actors/vector/vector-reader.ts";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES, USER0 } from "../../native-bridge/cell-layout.ts";
import { compileKernels, ELEMENT, Kernels, METRIC } from "../../native-bridge/kernels.ts";
import { STATUS } from "../../native-bridge/status.ts";
import type { VectorCollection } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, median, sized, toRow } from "../harness/harness.ts";
import { type Curve, costAt, must, type PartReport, type Point } from "./vector-search-curve.ts";
import { arenaBytes, exactNearest, K, type VectorSet, Vectors } from "./vector-search-data.ts";
import { startCluster } from "./vector-search-one-sided.ts";

const RECALL = 0.95;
/** Documents that pass, as shares of all. */
const SHARES = [0.5, 0.2, 0.1, 0.05, 0.01, 0.005, 0.001];
/** Shares at which a filtered search is to be as fast as one without. */
const SMALL = 0.005;
const EFS = [10, 16, 24, 32, 48];
const FETCHED = [0.8, 1, 1.3, 2, 3];
const MOST_EF = 65_536;
const BATCH = 2_000;

interface Side {
  readonly name: string;
  readonly share: number;
  readonly setting: number;
  readonly truth: Int32Array;
  /** The rows that a search finds. */
  readonly search: (query: number) => readonly number[];
  readonly cpu: number[];
  found: number;
  asked: number;
}

type Measured = Point & { readonly qps: number };

/** Rows, curves and the verdicts on V4. */
export async function measureFilters(context: BenchContext, set: VectorSet): Promise<PartReport> {
  const { mode, goals, log, seed } = context;
  const queries = queriesOf(set, sized(mode, 20, 400, 1_000));
  const random = createSeededRandom(seed);
  const ranks = Float64Array.from({ length: set.base.count }, () => random.float());
  const passing = (share: number): number => ranks.filter((rank) => rank < share).length;
  const shares = sized(mode, SHARES.slice(0, 3), SHARES, SHARES).filter((share) => passing(share) >= K);
  const cluster = await startCluster(set.base);
  try {
    const collection = await fill(
      await cluster.vectors("filtered", {
        dimensions: set.base.dimensions,
        metric: "l2",
        quantization: set.bytes ? "u8" : "f32",
        strategy: "one-sided",
      }),
      set,
      ranks,
    );
    log("vector-search: filtered collection built");
    const plainTruth = exactNearest(set.base, queries, set.bytes);
    const sides = [
      ...EFS.map((ef) => unfiltered(collection, queries, ef, plainTruth)),
      ...shares.flatMap((share) => sidesOf(collection, set, queries, ranks, share)),
    ];
    takeTurns(sides, queries.count, sized(mode, 2, 5, 10));
    return report(sides, shares, goals);
  } finally {
    await cluster.close();
  }
}

function queriesOf({ base, queries }: VectorSet, count: number): Vectors {
  const { dimensions } = queries;
  if (process.env["SHARDLOOM_TUNE"] !== "1")
    return new Vectors(queries.values.slice(0, count * dimensions), dimensions);
  const values = new Float32Array(count * dimensions);
  for (let at = 0; at < count; at++) values.set(base.at(Math.floor((at * base.count) / count)), at * dimensions);
  return new Vectors(values, dimensions);
}

async function fill(collection: VectorCollection, { base }: VectorSet, ranks: Float64Array): Promise<VectorCollection> {
  for (let from = 0; from < base.count; from += BATCH) {
    const to = Math.min(base.count, from + BATCH);
    const documents = Array.from({ length: to - from }, (_, at) => ({
      id: from + at,
      vector: base.at(from + at),
      payload: { rank: ranks[from + at] as number },
    }));
    await collection.upsert(documents);
  }
  await collection.indexed({ timeoutMs: 3_600_000 });
  return collection;
}

function unfiltered(collection: VectorCollection, queries: Vectors, ef: number, truth: Int32Array): Side {
  const reader = collection.reader();
  const search = (query: number): number[] => {
    const { hits, status } = reader.search(queries.at(query), K, { ef });
    must(status === STATUS.SUCCESS, `a search ended in ${status}`);
    return hits.map(({ id }) => id as number);
  };
  return { name: "no filter", share: 1, setting: ef, truth, search, cpu: [], found: 0, asked: 0 };
}

function sidesOf(
  collection: VectorCollection,
  { base, bytes }: VectorSet,
  queries: Vectors,
  ranks: Float64Array,
  share: number,
): Side[] {
  const passing = Int32Array.from(ranks.keys()).filter((row) => (ranks[row] as number) < share);
  must(passing.length >= K, `a filter of ${share} passes ${passing.length} documents only`);
  const { dimensions } = base;
  const values = new Float32Array(passing.length * dimensions);
  for (const [at, row] of passing.entries()) values.set(base.at(row), at * dimensions);
  const packed = new Vectors(values, dimensions);
  const truth = exactNearest(packed, queries, bytes).map((at) => passing[at] as number);
  const side = (name: string, setting: number, search: Side["search"]): Side => ({
    ...{ name, share, setting, truth, search },
    ...{ cpu: [], found: 0, asked: 0 },
  });
  const reader = collection.reader();
  const filter = { rank: { lt: share } };
  const ours = (ef: number): Side =>
    side("filtered", ef, (query) => {
      for (;;) {
        const { hits, status } = reader.search(queries.at(query), K, { ef, filter: payloadFilter(filter) });
        if (status === STATUS.SUCCESS) return hits.map(({ id }) => id as number);
        must(status === -3, `a filtered search ended in ${status}`); // it looks at some more documents each time
      }
    });
  const fetched = (times: number): Side => {
    const k = Math.min(MOST_EF, base.count, Math.ceil((times * K) / share));
    return side("over-fetch", k, (query) => {
      const { hits, status } = reader.search(queries.at(query), k, { ef: k });
      must(status === STATUS.SUCCESS, `a search for ${k} ended in ${status}`);
      return hits
        .map(({ id }) => id as number)
        .filter((id) => (ranks[id] as number) < share)
        .slice(0, K);
    });
  };
  // Over-fetching nearly all is never the better one.
  const settings = FETCHED.filter((times) => (times * K) / share <= base.count / 4);
  // As often as ours has settings, all of which may come to a scan: the best of as many.
  const scan = scanOf(packed, queries, bytes, passing, reader);
  return [...EFS.map(ours), ...settings.map(fetched), ...EFS.map((_, at) => side("scan", at, scan))];
}

/** A scan of vectors that lie one after the other. */
function scanOf(
  packed: Vectors,
  queries: Vectors,
  bytes: boolean,
  rows: Int32Array,
  reader: VectorReader,
): Side["search"] {
  const { dimensions, count } = packed;
  const stride = (CELL_HEADER_BYTES + dimensions * (bytes ? 1 : 4) + 15) & ~15;
  const arena = new Arena(createArena({ capacityBytes: arenaBytes(count * stride) }));
  const kernels = new Kernels(compileKernels(), arena);
  const cells = arena.allocate(count * stride);
  for (let at = 0; at < count; at++) {
    const cell = cells + at * stride;
    arena.i32[(cell >>> 2) + USER0] = 1;
    if (bytes) arena.bytes.set(packed.at(at), cell + CELL_HEADER_BYTES);
    else arena.f32.set(packed.at(at), (cell + CELL_HEADER_BYTES) >>> 2);
  }
  return (query) => {
    const vector = queries.at(query);
    kernels.beginScan(METRIC.L2, bytes ? ELEMENT.U8 : ELEMENT.F32, bytes ? Uint8Array.from(vector) : vector, K);
    kernels.scanCells(cells, stride, 0, count);
    const found = Array.from({ length: kernels.endScan() }, (_, at) => rows[kernels.hitRow(at)] as number);
    for (const row of found) must(reader.document(row)?.payload !== undefined, `document ${row} was not read`);
    return found;
  };
}

function takeTurns(sides: readonly Side[], queries: number, blocks: number): void {
  const size = Math.ceil(queries / blocks);
  for (const side of sides) for (let query = 0; query < Math.min(5, queries); query++) side.search(query); // warm
  for (let first = 0; first < queries; first += size) {
    const end = Math.min(queries, first + size);
    for (const side of sides) {
      const before = process.cpuUsage();
      const answers = Array.from({ length: end - first }, (_, at) => side.search(first + at));
      const { user, system } = process.cpuUsage(before);
      side.cpu.push(((end - first) / Math.max(1, user + system)) * 1_000_000);
      for (const [at, rows] of answers.entries()) {
        const nearest = side.truth.subarray((first + at) * K, (first + at + 1) * K);
        side.found += rows.filter((row) => nearest.includes(row)).length;
        side.asked += K;
      }
    }
  }
}

function report(sides: readonly Side[], shares: readonly number[], goals: Parameters<typeof judge>[0]): PartReport {
  const pointsOf = (name: string, share: number): Measured[] =>
    sides
      .filter((side) => side.name === name && side.share === share)
      .map(({ found, asked, cpu }) => ({ recall: found / asked, qps: median(cpu) }));
  const rate = (name: string, share: number): number =>
    costAt(fastest(pointsOf(name, share)), RECALL, ({ qps }) => qps);
  const plain = rate("no filter", 1);
  const rows: BenchRow[] = sides.map(({ name, share, setting, found, asked, cpu }) =>
    toRow(`${share * 100} % pass, ${setting}`, name, "queries/s", cpu, `recall ${(found / asked).toFixed(4)}`),
  );
  const ratios = shares.map((share) => {
    const best = Math.max(rate("scan", share), rate("over-fetch", share) || 0);
    return { share, ratio: rate("filtered", share) / best, plain: rate("filtered", share) / plain };
  });
  const worst = ratios.reduce((a, b) => (a.ratio < b.ratio ? a : b));
  const small = ratios.filter(({ share }) => share <= SMALL);
  const recalls = shares.map((share) => Math.max(...pointsOf("filtered", share).map(({ recall }) => recall)));
  const each = ratios.map(({ share, ratio }) => `${share * 100} %: ${ratio.toFixed(2)}`).join(", ");
  const eachPlain = ratios.map((of) => `${of.share * 100} %: ${of.plain.toFixed(2)}`).join(", ");
  return {
    rows,
    goals: [
      judge(goals, "V4", Math.min(...recalls)),
      judge(goals, "V4b", worst.ratio, each),
      ...(small.length === 0 ? [] : [judge(goals, "V4c", Math.min(...small.map((of) => of.plain)), eachPlain)]),
    ],
    notes: [`filters: rates at recall ${RECALL}; ${plain.toFixed(0)} queries per CPU second without one`],
    curves: shares.map(
      (share): Curve => ({ name: `filtered, ${share * 100} % pass`, points: pointsOf("filtered", share) }),
    ),
  };
}

/** Without settings that find no more than a faster one. */
function fastest(points: readonly Measured[]): Measured[] {
  return points.filter(
    (point) =>
      !points.some(
        (other) =>
          other !== point &&
          other.qps >= point.qps &&
          other.recall >= point.recall &&
          (other.qps > point.qps || other.recall > point.recall),
      ),
  );
}
