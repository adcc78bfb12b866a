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

export const QUANTIZATION_NAMES = ["f32", "f16"] as const;
/** Element type inside the index. Scores always come from the stored f32. */
export type QuantizationName = (typeof QUANTIZATION_NAMES)[number];

/** Largest finite float16. */
const MAX_F16 = 65_504;

/**
 * How a collection is made.
 *
 * Limits: every collection takes four entries of the node's region table (4096) on each shard, and one more for each chunk
 * that it grows by (chunks of rows double up to 16 MiB, of records up to 4 MiB). So a node of S shards holds at most 1024 / S
 * collections, however small; beyond that an open or a first upsert fails with `ERR_REGION_TABLE_FULL`. Instead of many
 * small collections make one, with a field to filter by.
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
   * about 6e-8 are 0 to the index; `cosine` has no such limits. @default "f32"
   */
  readonly quantization?: QuantizationName;
  /** Links per node of the index, in [2, 256]. @default 16 */
  readonly connectivity?: number;
  /** Candidates while building, in [1, 65536]. @default 128 */
  readonly expansionAdd?: number;
  /**
   * Candidates while searching, in [1, 65536]: more recall, slower. usearch fixes it when the index is made; a search
   * can only raise it (`ef`), never lower it. @default 64
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
  const { metric = "cosine", quantization = "f32" } = options;
  if (!METRIC_NAMES.includes(metric))
    throw invalidArgument("open collection", "metric", `one of ${METRIC_NAMES.join(", ")}`, metric);
  if (!QUANTIZATION_NAMES.includes(quantization)) {
    throw invalidArgument("open collection", "quantization", `one of ${QUANTIZATION_NAMES.join(", ")}`, quantization);
  }
  return {
    dimensions: integerIn("dimensions", options.dimensions, 1, MAX_DIMENSIONS),
    metric,
    quantization,
    connectivity: integerIn("connectivity", options.connectivity ?? 16, 2, 256),
    expansionAdd: integerIn("expansionAdd", options.expansionAdd ?? 128, 1, 65_536),
    expansionSearch: integerIn("expansionSearch", options.expansionSearch ?? 64, 1, 65_536),
    scanRows: integerIn("scanRows", options.scanRows ?? 1000, 0, 2 ** 30),
  };
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
