/**
 * The vector itself, as f32: the code of those who want none.
 *
 * Invariant: nothing is ever lost, so that distances are what the rows give.
 */
import { ELEMENT } from "../../../native-bridge/kernels.ts";
import { assertVector, type CodeParameters, type VectorCode } from "./vector-code.ts";

export function createF32Code(parameters: CodeParameters): VectorCode {
  const { dimensions } = parameters;
  return {
    parameters,
    element: ELEMENT.F32,
    searchElement: ELEMENT.F32,
    bytesPerVector: dimensions * 4,
    bytesPerQuery: dimensions * 4,
    exact: true,
    overfetch: 1,
    encode: (vector, bytes, at) => copyFloats(dimensions, vector, bytes, at),
    encodeQuery: (vector, bytes, at) => copyFloats(dimensions, vector, bytes, at),
    distanceOf: (distance) => distance,
  };
}

/** @returns True: nothing is lost. */
export function copyFloats(dimensions: number, vector: Float32Array, bytes: Uint8Array, at: number): true {
  assertVector(dimensions, vector);
  bytes.set(new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength), at);
  return true;
}
