/**
 * Components as signed bytes (scalar quantisation): one offset and one scale for a collection, learnt from a sample.
 *
 * One scale for all components keeps distances: those of codes are those of the vectors divided by its square, but for rounding (at most
 * half a step a component) and clamping (of what is beyond the sample's range). Squared distances do not mind the offset, so for l2 it
 * is the low end of the range; dot products do, so for cosine and inner product it is 0, and cosine normalises first.
 * Invariant: codes are in −128..127 for l2, in −127..127 otherwise.
 */
import { ELEMENT, METRIC, type MetricCode } from "../../../native-bridge/kernels.ts";
import { invalidArgument } from "../../../src/errors.ts";
import { assertVector, type CodeParameters, factorOf, type VectorCode } from "./vector-code.ts";

type I8Parameters = Extract<CodeParameters, { name: "i8" }>;

/** Share of the sample's components at either end that is clamped: outliers must not coarsen the rest. */
const CLIPPED = 1e-4;
/** Components of the sample that are looked at. */
const MAX_COMPONENTS = 1 << 20;

/** @param sample At least one vector, all finite. */
export function learnI8(dimensions: number, metric: MetricCode, sample: readonly Float32Array[]): I8Parameters {
  const components = componentsOf(metric, sample);
  if (components.length === 0) throw invalidArgument("learn code", "sample", "at least one vector", 0);
  const skipped = Math.floor(components.length * CLIPPED);
  const low = components[skipped] as number;
  const high = components[components.length - 1 - skipped] as number;
  if (metric === METRIC.L2)
    return { name: "i8", dimensions, metric, offset: low, scale: high > low ? (high - low) / 255 : 1 };
  const limit = Math.max(Math.abs(low), Math.abs(high));
  return { name: "i8", dimensions, metric, offset: 0, scale: limit > 0 ? limit / 127 : 1 };
}

/** Components as they are encoded, in order. */
function componentsOf(metric: MetricCode, sample: readonly Float32Array[]): Float64Array {
  const total = sample.reduce((sum, vector) => sum + vector.length, 0);
  const step = Math.max(1, Math.ceil(total / MAX_COMPONENTS)) | 1; // odd: an even step would pass over half of the components of an even number of them
  const components = new Float64Array(Math.ceil(total / step));
  let count = 0;
  let at = 0;
  for (const vector of sample) {
    const factor = factorOf(metric, vector);
    for (; at < vector.length; at += step) components[count++] = (vector[at] as number) * factor;
    at -= vector.length;
  }
  return components.subarray(0, count).sort();
}

export function createI8Code(parameters: I8Parameters, overfetch: number): VectorCode {
  const { dimensions, metric, offset, scale } = parameters;
  if (!(scale > 0 && Number.isFinite(scale))) throw invalidArgument("create code", "scale", "a positive number", scale);
  if (!Number.isFinite(offset)) throw invalidArgument("create code", "offset", "a finite number", offset);
  const [shift, least] = metric === METRIC.L2 ? [-128, -128] : [0, -127];
  const encode = (vector: Float32Array, bytes: Uint8Array, at: number): boolean => {
    assertVector(dimensions, vector);
    const factor = factorOf(metric, vector);
    let same = true;
    for (let i = 0; i < dimensions; i++) {
      const value = ((vector[i] as number) * factor - offset) / scale + shift;
      const code = Math.min(127, Math.max(least, Math.round(value)));
      if (code !== value) same = false;
      bytes[at + i] = code;
    }
    return same;
  };
  return {
    parameters,
    element: ELEMENT.I8,
    searchElement: ELEMENT.I8,
    bytesPerVector: dimensions,
    bytesPerQuery: dimensions,
    exact: false,
    overfetch,
    encode,
    encodeQuery: encode,
    distanceOf: distanceOf(metric, scale),
  };
}

function distanceOf(metric: MetricCode, scale: number): (distance: number) => number {
  if (metric === METRIC.L2) return (distance) => distance * scale * scale;
  if (metric === METRIC.COSINE) return (distance) => distance;
  return (distance) => 1 - (1 - distance) * scale * scale;
}
