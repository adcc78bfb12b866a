/**
 * Components as float16, relative error 2^-11; queries stay f32, so that only one side is rounded.
 *
 * For cosine the vector is normalised first, so that its scale makes no difference. For other metrics components beyond ±65504 are
 * refused, and those closer to 0 than about 6e-8 become 0.
 * Invariant: no infinity and no NaN is ever written.
 */
import { ELEMENT } from "../../../native-bridge/kernels.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { copyFloats } from "./f32-code.ts";
import { fromHalf, MAX_HALF, toHalf } from "./half.ts";
import { assertVector, type CodeParameters, factorOf, type VectorCode } from "./vector-code.ts";

export function createF16Code(parameters: CodeParameters, overfetch: number): VectorCode {
  const { dimensions, metric } = parameters;
  return {
    parameters,
    element: ELEMENT.F16,
    searchElement: ELEMENT.F16_F32,
    bytesPerVector: dimensions * 2,
    bytesPerQuery: dimensions * 4,
    exact: false,
    overfetch,
    encode(vector, bytes, at) {
      assertVector(dimensions, vector);
      const factor = factorOf(metric, vector);
      let same = factor === 1;
      for (let i = 0; i < dimensions; i++) {
        const value = (vector[i] as number) * factor;
        if (value > MAX_HALF || value < -MAX_HALF) refuse(i, value);
        const half = toHalf(value);
        if (same && fromHalf(half) !== value) same = false;
        bytes[at + 2 * i] = half;
        bytes[at + 2 * i + 1] = half >>> 8;
      }
      return same;
    },
    encodeQuery: (vector, bytes, at) => copyFloats(dimensions, vector, bytes, at),
    distanceOf: (distance) => distance,
  };
}

function refuse(component: number, value: number): never {
  throw new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot encode as component ${component} of the vector must be within ±${MAX_HALF} with f16: current value is ${value}`,
    { details: { component, value, limit: MAX_HALF } },
  );
}
