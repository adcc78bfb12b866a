/**
 * Components as bytes, for data that are bytes (pictures, SIFT): then nothing is lost and distances are exact.
 *
 * Other components are rounded and clamped to 0..255, so that a collection of bytes may hold a few vectors of others; `encode` says
 * so, and their hits need exact distances.
 * Invariant: a vector of whole numbers in 0..255 comes back as it was.
 */
import { ELEMENT } from "../../../native-bridge/kernels.ts";
import { assertVector, type CodeParameters, type VectorCode } from "./vector-code.ts";

/** Whether every component is a whole number in 0..255. */
export function isBytes(vector: Float32Array): boolean {
  for (let i = 0; i < vector.length; i++) {
    const value = vector[i] as number;
    if (!(value >= 0 && value <= 255 && Math.floor(value) === value)) return false;
  }
  return true;
}

export function createU8Code(parameters: CodeParameters): VectorCode {
  const { dimensions } = parameters;
  const encode = (vector: Float32Array, bytes: Uint8Array, at: number): boolean => {
    assertVector(dimensions, vector);
    let same = true;
    for (let i = 0; i < dimensions; i++) {
      const value = vector[i] as number;
      const byte = Math.min(255, Math.max(0, Math.round(value)));
      if (byte !== value) same = false;
      bytes[at + i] = byte;
    }
    return same;
  };
  return {
    parameters,
    element: ELEMENT.U8,
    searchElement: ELEMENT.U8,
    bytesPerVector: dimensions,
    bytesPerQuery: dimensions,
    exact: true,
    overfetch: 1,
    encode,
    encodeQuery: encode,
    distanceOf: (distance) => distance,
  };
}
