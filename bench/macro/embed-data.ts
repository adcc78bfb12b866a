/** The documents of bench `embed`: the same on both sides, from one seed. */
import { createSeededRandom } from "../../src/runtime/random.ts";

export const DIMENSIONS = 384;
export const NEIGHBOURS = 10;

export function idOf(row: number): string {
  return `d${row}`;
}

/** Shape: `Float32Array[rows * DIMENSIONS]`. */
export function makeVectors(rows: number, seed: number): Float32Array {
  const random = createSeededRandom(seed);
  const vectors = new Float32Array(rows * DIMENSIONS);
  for (let at = 0; at < vectors.length; at++) vectors[at] = random.float() - 0.5;
  return vectors;
}
