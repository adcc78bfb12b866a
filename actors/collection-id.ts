/**
 * Numbers that stand for collections in messages.
 *
 * Invariant: every node makes the same number of the same engine, name and generation, without asking.
 */
import { hashString } from "../src/topology/stable-hash.ts";

/** A positive int32. */
export function collectionIdOf(engine: string, name: string, generation: number): number {
  return hashString(`${engine} ${name} ${generation}`) & 0x7fffffff || 1;
}
