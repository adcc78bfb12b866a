/**
 * Options of a vector collection, with their defaults and checks.
 *
 * Invariant: two shards of one collection have equal resolved options; a second open with others is refused.
 */

import { MAX_DIMENSIONS, METRIC } from "../../native-bridge/kernels.ts";
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";

export const METRIC_NAMES = ["l2", "cosine", "inner-product"] as const;
/** `l2` = squared distance, `cosine` = 1 − cos, `inner-product` = 1 − dot; smaller is closer in all. */
export type MetricName = (typeof METRIC_NAMES)[number];

export const QUANTIZATION_NAMES = ["f32", "f16", "u8", "i8", "b1"] as const;
/** Element type inside the index. Scores always come from the stored f32. */
export type QuantizationName = (typeof QUANTIZATION_NAMES)[number];

export const STRATEGY_NAMES = ["scatter", "one-sided", "compass", "spire", "cotra", "auto"] as const;
/**
 * How a search finds its documents. `scatter`: every shard searches its own index, answers are merged. All others need the graph that the
 * shards of a node link their documents into. `one-sided`: the thread that asks searches the whole graph by itself, in the shards' memory, and
 * sends no message. `compass`: the shards whose leaves are near the query are asked, as many as the recall target needs; each searches its own
 * part of the graph. `spire`: leaves are chosen from the tables that the shards have exchanged, and read where they are. `cotra`: the shards search
 * the graph together. `auto`: one of them, by what the query asks for.
 */
export type StrategyName = (typeof STRATEGY_NAMES)[number];

export const INDEX_NAMES = ["leaves", "levels"] as const;
/**
 * What `spire` chooses by. `leaves`: the leaves of the collection, fewer than one in a hundred vectors, which every shard knows. `levels`: small leaves
 * of some twenty vectors, under levels of clusters of centroids; every shard knows the highest level, those below are read where they are, a round of
 * messages each.
 */
export type IndexName = (typeof INDEX_NAMES)[number];

/** Whether the shards link their documents into the graph of their node, instead of keeping an index each. */
export function usesGraph({ strategy }: { readonly strategy: StrategyName }): boolean {
  return strategy !== "scatter";
}

/**
 * Whether vertices of the graph are placed by leaves. By inner product they are not. Measured, 3,000 vectors of 16 components around 40 centres on 4
 * shards, recall@10 at ef 100, five collections each: .92 to .96 while vertices stay where they are, .75 to .96 once they were placed, by one thread
 * and by shards together; around fewer centres there is no difference. Reading leaves whole finds all, searching the graph does not. Nor are codes
 * that are no f32 and no u8: leaves are means of codes.
 */
export function learnsLeaves({
  metric,
  quantization,
}: Pick<ResolvedVectorOptions, "metric" | "quantization">): boolean {
  return metric !== "inner-product" && (quantization === "f32" || quantization === "u8");
}

/** Whether a distance of codes is that of their vectors. */
export function isExactCode({ metric, quantization }: Pick<ResolvedVectorOptions, "metric" | "quantization">): boolean {
  return quantization === "f32" || quantization === "u8" || (quantization === "i8" && metric !== "cosine");
}

const DEFAULT_RECALL = 0.95;

/** Bytes of vectors that may wait for the index: every search scans them, which takes about a millisecond. */
const TAIL_BYTES: number = 8 * 1024 * 1024;
const MIN_TAIL_ROWS = 1_024;
const MAX_TAIL_ROWS = 16_384;

/** Largest finite float16. */
const MAX_F16 = 65_504;

/**
 * How a collection is made.
 *
 * Limits: every collection takes four entries of the node's region table (4096) on each shard, and one more for each chunk
 * that it grows by (chunks of rows double up to 16 MiB, of records up to 4 MiB). So a node of S shards holds at most 1024 / S
 * collections, however small; beyond that an open or a first upsert fails with `ERR_REGION_TABLE_FULL`. A graph takes more: an entry for
 * its root, one for each chunk of vertices (at most 1 MiB, smaller where there are many shards), so one a shard at first, and once leaves are
 * known (from about 1,000 documents) one for their table and up to one chunk for each pair of shards, as each shard keeps apart the
 * vertices that another computes for. So small collections with a graph are at most 4096 / (5 S + 1), and those with leaves 4096 / (S² + 4 S + 2):
 * 41 on 8 shards. Documents for which there is no entry wait to be linked, and searches scan them. Instead of many small collections make one,
 * with a field to filter by.
 */
export interface VectorCollectionOptions {
  /** Components of every vector, in [1, 65536]. */
  readonly dimensions: number;
  /**
   * Scores are right for all finite vectors. The index compares squares and products in float32, so with `l2` and
   * `inner-product` and components beyond about 1e18 or all below 1e-18, use exact searches. @default "cosine"
   */
  readonly metric?: MetricName;
  /**
   * With `f16` and `l2` or `inner-product`, upserts of components beyond ±65504 are refused, and components closer to 0 than
   * about 6e-8 are 0 to the index; `cosine` has no such limits. `u8` is for vectors of whole numbers from 0 to 255, others are refused; it takes a
   * quarter of the memory and loses nothing. `i8` is the same for whole numbers from -128 to 127; by `cosine` it takes any vector, and searches rank what
   * they find by the vectors themselves. `b1` keeps signs, by `cosine` alone: a guide for vectors of many components around 0, of which 20 times as
   * many are ranked again as are wanted. The last three need a graph (see `strategy`). @default "f32"
   */
  readonly quantization?: QuantizationName;
  /**
   * What searches do that name no strategy. With any but `scatter` the shards link their documents into one graph instead of keeping an index
   * each, and every search may name any strategy; one that asks for `scatter` is exact then, as it scans. By `compass` and `spire` search collections of
   * `f32` and `u8` alone; in others this thread searches. @default "scatter"
   */
  readonly strategy?: StrategyName;
  /**
   * What `spire` chooses by (see {@link IndexName}). `levels` needs a strategy other than `scatter`, a metric other than `inner-product`, and `f32` or
   * `u8`; its centroids take a twentieth of the codes' memory, once a node. @default "leaves"
   */
  readonly index?: IndexName;
  /** Mean share of the true nearest that searches by `compass` and `spire` are to find, which choose how far to look, in (0, 1]. @default 0.95 */
  readonly recall?: number;
  /** Links per node of the index, in [2, 256]. @default 16 */
  readonly connectivity?: number;
  /** Candidates while building, in [1, 65536]. @default 128 */
  readonly expansionAdd?: number;
  /**
   * Candidates while searching, in [1, 65536]: more recall, slower. With a graph a search that names another number (`ef`) has that, be it more or
   * less; without one usearch fixes it when the index is made, and a search can only raise it. `spire` does not go by it. @default 64
   */
  readonly expansionSearch?: number;
  /** A shard with at most this many rows is scanned and has no index, in [0, 2^30]. @default 1000 */
  readonly scanRows?: number;
}

export type ResolvedVectorOptions = Required<VectorCollectionOptions>;

/**
 * Fills the defaults and checks every option.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` with the name and value of the first option that is out of its range.
 */
export function resolveVectorOptions(options: VectorCollectionOptions): ResolvedVectorOptions {
  const { metric = "cosine", quantization = "f32", strategy = "scatter", index = "leaves" } = options;
  if (!METRIC_NAMES.includes(metric))
    throw invalidArgument("open collection", "metric", `one of ${METRIC_NAMES.join(", ")}`, metric);
  if (!QUANTIZATION_NAMES.includes(quantization)) {
    throw invalidArgument("open collection", "quantization", `one of ${QUANTIZATION_NAMES.join(", ")}`, quantization);
  }
  if (!STRATEGY_NAMES.includes(strategy))
    throw invalidArgument("open collection", "strategy", `one of ${STRATEGY_NAMES.join(", ")}`, strategy);
  if (!usesGraph({ strategy }) && quantization !== "f32" && quantization !== "f16")
    throw invalidArgument("open collection", "quantization", "f32 or f16 with strategy scatter", quantization);
  if (quantization === "b1" && metric !== "cosine")
    throw invalidArgument("open collection", "quantization", `another than b1 with metric ${metric}`, quantization);
  if (!INDEX_NAMES.includes(index))
    throw invalidArgument("open collection", "index", `one of ${INDEX_NAMES.join(", ")}`, index);
  if (index === "levels" && !(usesGraph({ strategy }) && learnsLeaves({ metric, quantization })))
    throw invalidArgument(
      "open collection",
      "index",
      `"leaves" with strategy ${strategy}, metric ${metric} and quantization ${quantization}`,
      index,
    );
  return {
    dimensions: integerIn("dimensions", options.dimensions, 1, MAX_DIMENSIONS),
    metric,
    quantization,
    strategy,
    index,
    recall: checkedRecall("open collection", options.recall ?? DEFAULT_RECALL),
    connectivity: integerIn("connectivity", options.connectivity ?? 16, 2, 256),
    expansionAdd: integerIn("expansionAdd", options.expansionAdd ?? 128, 1, 65_536),
    expansionSearch: integerIn("expansionSearch", options.expansionSearch ?? 64, 1, 65_536),
    scanRows: integerIn("scanRows", options.scanRows ?? 1000, 0, 2 ** 30),
  };
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function checkedRecall(action: string, recall: number): number {
  if (typeof recall === "number" && recall > 0 && recall <= 1) return recall;
  throw invalidArgument(action, "recall", "a number in (0, 1]", recall);
}

/** Largest magnitude of a component that the index can hold. For cosine it gets vectors of length 1. */
export function componentLimit({ metric, quantization }: ResolvedVectorOptions): number {
  return quantization === "f16" && metric !== "cosine" ? MAX_F16 : Number.POSITIVE_INFINITY;
}

/** Index of the first component from `from` to `to` whose magnitude is above the limit, or −1. */
export function firstBeyond(components: Float32Array, from: number, to: number, limit: number): number {
  if (limit === Number.POSITIVE_INFINITY) return -1;
  for (let at = from; at < to; at++) if (Math.abs(components[at] as number) > limit) return at;
  return -1;
}

/** Index of the first component that is no whole number from 0 to 255, or −1. */
export function firstBeyondByte(components: Float32Array): number {
  for (let at = 0; at < components.length; at++) {
    const value = components[at] as number;
    if (value !== (value & 255)) return at;
  }
  return -1;
}

/** Index of the first component that is no whole number from −128 to 127, or −1. */
export function firstBeyondSignedByte(components: Float32Array): number {
  for (let at = 0; at < components.length; at++) {
    const value = components[at] as number;
    if (value !== (value << 24) >> 24) return at;
  }
  return -1;
}

/** The first component that keeps a vector from having a code of bytes, and what it must be; undefined: none does. */
export function firstUncoded(
  { metric, quantization }: Pick<ResolvedVectorOptions, "metric" | "quantization">,
  components: Float32Array,
): { readonly at: number; readonly rule: string } | undefined {
  if (quantization !== "u8" && (quantization !== "i8" || metric === "cosine")) return undefined;
  const at = quantization === "u8" ? firstBeyondByte(components) : firstBeyondSignedByte(components);
  const range = quantization === "u8" ? "0 to 255" : "-128 to 127";
  return at < 0 ? undefined : { at, rule: `a whole number from ${range} with ${quantization}` };
}

/** Rows that may wait for the index of a shard before writes are slowed. */
export function tailRowsOf({ dimensions }: Pick<ResolvedVectorOptions, "dimensions">): number {
  return Math.min(MAX_TAIL_ROWS, Math.max(MIN_TAIL_ROWS, Math.floor(TAIL_BYTES / (4 * dimensions))));
}

/** Kernel code of a metric. */
export function metricCode(metric: MetricName): number {
  return metric === "l2" ? METRIC.L2 : metric === "cosine" ? METRIC.COSINE : METRIC.INNER_PRODUCT;
}

/** @throws {ShardloomError} `ERR_COLLECTION_MISMATCH` naming the first option in which the two differ. */
export function assertSameOptions(existing: ResolvedVectorOptions, wanted: ResolvedVectorOptions): void {
  for (const name of Object.keys(existing) as (keyof ResolvedVectorOptions)[]) {
    if (existing[name] === wanted[name]) continue;
    throw new ShardloomError(
      "ERR_COLLECTION_MISMATCH",
      `Cannot open collection as ${name} must be ${existing[name]}: current value is ${describeValue(wanted[name])}`,
      { details: { name, expected: existing[name], value: wanted[name] } },
    );
  }
}

function integerIn(name: string, value: number, least: number, most: number): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw invalidArgument("open collection", name, `an integer in [${least}, ${most}]`, value);
}
