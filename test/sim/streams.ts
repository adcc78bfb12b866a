/** Streams by name: the same seed and name, the same numbers. */
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { hashString } from "../../src/topology/stable-hash.ts";

export function createHashStream(seed: number): (name: string) => Random {
  return (name) => createSeededRandom(hashString(name, seed >>> 0));
}
