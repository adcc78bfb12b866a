/**
 * Checks of what users hand to a collection, shared by every entry point, so that each rule has one message.
 */
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { VectorId } from "./id-codec.ts";

/** Most answers that one search may ask for. */
export const MAX_K = 65_536;

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` unless k is an integer in `[1, MAX_K]`. */
export function assertK(k: number): void {
  if (!Number.isInteger(k) || k < 1 || k > MAX_K) throw invalidArgument("search", "k", `an integer between 1 and ${MAX_K}`, k);
}

/**
 * Checks length and components.
 *
 * @throws {ShardloomError} `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE` naming component, value and id.
 */
export function assertVector(action: string, dimensions: number, vector: ArrayLike<number>, id?: VectorId): void {
  const owner = id === undefined ? "query" : `vector of ${JSON.stringify(id)}`;
  if (vector === null || typeof vector !== "object" || vector.length !== dimensions) {
    const length: unknown = vector === null || typeof vector !== "object" ? describeValue(vector) : vector.length;
    throw new ShardloomError("ERR_DIMENSION_MISMATCH", `Cannot ${action} as the ${owner} must have ${dimensions} components: current value is ${String(length)}`, {
      details: { dimensions, length, ...(id === undefined ? {} : { id }) },
    });
  }
  for (let at = 0; at < dimensions; at++) {
    const component = vector[at] as number;
    // A value beyond float32 would be stored as an infinity.
    if (Number.isFinite(Math.fround(component)) && typeof component === "number") continue;
    throw new ShardloomError("ERR_NOT_FINITE", `Cannot ${action} as component ${at} of the ${owner} must be a finite float32: current value is ${describeValue(component)}`, {
      details: { component: at, value: describeValue(component), ...(id === undefined ? {} : { id }) },
    });
  }
}

/** @throws {ShardloomError} `ERR_DUPLICATE_ID` when the batch has had this id. */
export function refuseDuplicate(seen: Set<VectorId>, id: VectorId, position: number): void {
  if (seen.has(id)) {
    throw new ShardloomError("ERR_DUPLICATE_ID", `Cannot upsert batch as its ids must be distinct: ${JSON.stringify(id)} stands again at position ${position}`, {
      details: { id, position },
    });
  }
  seen.add(id);
}
