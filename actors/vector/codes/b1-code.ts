/**
 * One bit a component: whether it is above the collection's mean of it. Ranked by the bits that differ.
 *
 * A 32nd of the bytes, and only a rough guide: hits must be ranked again by exact distances, from many candidates. Signs against the
 * mean rather than 0, as most data (pictures, texts' embeddings) lie to one side of 0. For cosine vectors are normalised first.
 * Invariant: bits beyond the last component are 0.
 */
import { ELEMENT, type MetricCode } from "../../../native-bridge/kernels.ts";
import { invalidArgument } from "../../../src/errors.ts";
import { assertVector, type CodeParameters, factorOf, type VectorCode } from "./vector-code.ts";

type B1Parameters = Extract<CodeParameters, { name: "b1" }>;

/** @param sample At least one vector, all finite. */
export function learnB1(dimensions: number, metric: MetricCode, sample: readonly Float32Array[]): B1Parameters {
  if (sample.length === 0) throw invalidArgument("learn code", "sample", "at least one vector", 0);
  const sums = new Float64Array(dimensions);
  for (const vector of sample) {
    const factor = factorOf(metric, vector);
    for (let i = 0; i < dimensions; i++) sums[i] = (sums[i] as number) + (vector[i] as number) * factor;
  }
  return { name: "b1", dimensions, metric, mean: Array.from(sums, (sum) => sum / sample.length) };
}

export function createB1Code(parameters: B1Parameters, overfetch: number): VectorCode {
  const { dimensions, metric } = parameters;
  const mean = Float64Array.from(parameters.mean);
  if (mean.length !== dimensions)
    throw invalidArgument("create code", "mean.length", `the ${dimensions} dimensions`, mean.length);
  const length = (dimensions + 7) >>> 3;
  const encode = (vector: Float32Array, bytes: Uint8Array, at: number): boolean => {
    assertVector(dimensions, vector);
    const factor = factorOf(metric, vector);
    for (let byte = 0; byte < length; byte++) {
      let bits = 0;
      for (let i = byte * 8, end = Math.min(dimensions, i + 8); i < end; i++)
        if ((vector[i] as number) * factor > (mean[i] as number)) bits |= 1 << (i & 7);
      bytes[at + byte] = bits;
    }
    return false;
  };
  return {
    parameters,
    element: ELEMENT.B1,
    searchElement: ELEMENT.B1,
    bytesPerVector: length,
    bytesPerQuery: length,
    exact: false,
    overfetch,
    encode,
    encodeQuery: encode,
    distanceOf: (distance) => distance,
  };
}
