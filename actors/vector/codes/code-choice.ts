/**
 * Chooses and learns the code of a collection from a sample of its vectors, and makes a code from what was learnt.
 *
 * `auto` takes bytes where the sample is bytes, as that is exact and the fastest, and f16 otherwise, of which hardly anything shows.
 * Invariant: what `learnCode` gives, `createCode` takes, also after a trip through JSON.
 */
import type { MetricCode } from "../../../native-bridge/kernels.ts";
import { invalidArgument } from "../../../src/errors.ts";
import { createB1Code, learnB1 } from "./b1-code.ts";
import { createF16Code } from "./f16-code.ts";
import { createF32Code } from "./f32-code.ts";
import { createI8Code, learnI8 } from "./i8-code.ts";
import { createU8Code, isBytes } from "./u8-code.ts";
import { assertVector, CODE_NAMES, type CodeName, type CodeParameters, type VectorCode } from "./vector-code.ts";

/**
 * Candidates a wanted hit, besides a few for all. Measured, 20,000 vectors, k = 10: candidates that hold 99 % of the true ten, for each metric of
 * clusters (64 and 128 dimensions), one Gaussian (96), a flat one (256 dimensions, 40 of them strong) and MNIST: f16 10, i8 10 to 13.
 * b1: 180 of clusters of 128 dimensions, 45 (l2) and 266 (cosine) of MNIST, thousands of data with fewer dimensions or no structure, and no
 * use for inner product unless norms are about equal: bits know nothing of length.
 */
const OVERFETCH = { f16: 1.2, i8: 1.5, b1: 20 } as const;

/**
 * @param sample Vectors of the collection, drawn at random; a thousand are plenty. `auto` takes f16 without any.
 * @throws {ShardloomError} `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE` for the sample, `ERR_INVALID_ARGUMENT`.
 */
export function learnCode(
  choice: CodeName | "auto",
  dimensions: number,
  metric: MetricCode,
  sample: readonly Float32Array[],
): CodeParameters {
  for (const vector of sample) assertVector(dimensions, vector);
  switch (choice) {
    case "auto":
      return { name: sample.length > 0 && sample.every(isBytes) ? "u8" : "f16", dimensions, metric };
    case "i8":
      return learnI8(dimensions, metric, sample);
    case "b1":
      return learnB1(dimensions, metric, sample);
    default:
      if (!CODE_NAMES.includes(choice)) throw unknownCode("learn", choice);
      return { name: choice, dimensions, metric };
  }
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for parameters that no code has. */
export function createCode(parameters: CodeParameters): VectorCode {
  switch (parameters.name) {
    case "f32":
      return createF32Code(parameters);
    case "f16":
      return createF16Code(parameters, OVERFETCH.f16);
    case "u8":
      return createU8Code(parameters);
    case "i8":
      return createI8Code(parameters, OVERFETCH.i8);
    case "b1":
      return createB1Code(parameters, OVERFETCH.b1);
    default:
      throw unknownCode("create", (parameters as { name: unknown }).name);
  }
}

function unknownCode(action: string, name: unknown): Error {
  return invalidArgument(`${action} code`, "name", `one of ${CODE_NAMES.join(", ")}`, name);
}
