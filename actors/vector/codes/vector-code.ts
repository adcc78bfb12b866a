/**
 * A code of vectors: what an index keeps of each, in fewer bytes, so that a kernel's distance of two codes stands for theirs.
 *
 * Invariant: a code is a pure function of its parameters, which are plain values and can be stored; two codes of equal parameters
 * encode alike. Hits found by distances of codes are ranked again by exact distances (rerank.ts) unless the code is exact.
 * Bytes are written at any offset; a code's inverse norm, for cosine, is that of the code, by `Kernels.inverseNorm`.
 */
import { type ElementCode, METRIC, type MetricCode } from "../../../native-bridge/kernels.ts";
import { describeValue, ShardloomError } from "../../../src/errors.ts";

export const CODE_NAMES = ["f32", "f16", "u8", "i8", "b1"] as const;
export type CodeName = (typeof CODE_NAMES)[number];

interface Shape {
  readonly dimensions: number;
  readonly metric: MetricCode;
}

/** What a code is made from: plain values, so that it can be stored and sent. */
export type CodeParameters =
  | (Shape & { readonly name: "f32" | "f16" | "u8" })
  /** Component x becomes the integer nearest to (x − offset) / scale − 128 for l2, to x / scale otherwise. */
  | (Shape & { readonly name: "i8"; readonly offset: number; readonly scale: number })
  /** Component i becomes the sign of x − mean[i]. */
  | (Shape & { readonly name: "b1"; readonly mean: readonly number[] });

export interface VectorCode {
  readonly parameters: CodeParameters;
  /** What the kernels take two codes of vectors for. */
  readonly element: ElementCode;
  /** What they take the code of a vector and that of a query for. */
  readonly searchElement: ElementCode;
  readonly bytesPerVector: number;
  readonly bytesPerQuery: number;
  /** Whether distances of codes are exact, of vectors and queries that were encoded without loss. */
  readonly exact: boolean;
  /** Candidates for each wanted hit that are worth an exact distance; measured, see code-choice.ts. */
  readonly overfetch: number;
  /**
   * Writes the code of a vector to `bytes` at `at`.
   *
   * @returns Whether nothing was lost by it.
   * @throws {ShardloomError} `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE`, `ERR_INVALID_ARGUMENT` for what the code cannot hold.
   */
  encode(vector: Float32Array, bytes: Uint8Array, at: number): boolean;
  /** As {@link encode}, of a query: `bytesPerQuery` bytes. */
  encodeQuery(vector: Float32Array, bytes: Uint8Array, at: number): boolean;
  /** About the distance of the vectors, from that of their codes; of `b1` the latter, which only ranks. */
  distanceOf(codeDistance: number): number;
}

/** @throws {ShardloomError} `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE`. */
export function assertVector(dimensions: number, vector: Float32Array): void {
  if (vector.length !== dimensions) {
    throw new ShardloomError(
      "ERR_DIMENSION_MISMATCH",
      `Cannot encode as the vector must have ${dimensions} components: current value is ${vector.length}`,
      { details: { dimensions, length: vector.length } },
    );
  }
  let sum = 0;
  for (let at = 0; at < vector.length; at++) sum += (vector[at] as number) * 0; // 0 unless one of them is not finite
  if (sum === 0) return;
  const at = vector.findIndex((value) => !Number.isFinite(value));
  const value = describeValue(vector[at]);
  throw new ShardloomError(
    "ERR_NOT_FINITE",
    `Cannot encode as component ${at} of the vector must be a finite float32: current value is ${value}`,
    { details: { component: at, value } },
  );
}

/** What the components of a vector are multiplied with before they are encoded: cosine looks at directions only. */
export function factorOf(metric: MetricCode, vector: Float32Array): number {
  if (metric !== METRIC.COSINE) return 1;
  let sum = 0;
  for (let at = 0; at < vector.length; at++) sum += (vector[at] as number) ** 2;
  return sum === 0 ? 1 : 1 / Math.sqrt(sum);
}
