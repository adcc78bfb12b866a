/**
 * One total order of vertex keys: numbers by value, then strings by UTF-16 unit. It decides ties only, never what is stored where.
 *
 * Invariant: of two different keys exactly one comes before the other.
 */
import type { VertexKey } from "../vertex-key.ts";

export function isBefore(a: VertexKey, b: VertexKey): boolean {
  return typeof a === typeof b ? a < b : typeof a === "number";
}
