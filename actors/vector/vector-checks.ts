/**
 * Checks of what users hand to a collection, shared by every entry point, so that each rule has one message.
 */
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { VectorId } from "../../src/store/id-codec.ts";
import { componentLimit, firstBeyond, type ResolvedVectorOptions } from "./vector-options.ts";

/** Most answers that one search may ask for, and most candidates. */
const MAX_K = 65_536;

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` unless k is an integer in `[1, MAX_K]`. */
export function assertK(k: number): void {
  if (!Number.isInteger(k) || k < 1 || k > MAX_K)
    throw invalidArgument("search", "k", `an integer between 1 and ${MAX_K}`, k);
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` unless ef is an integer in `[0, MAX_K]`. */
export function assertEf(ef: number): void {
  if (!Number.isInteger(ef) || ef < 0 || ef > MAX_K)
    throw invalidArgument("search", "ef", `an integer between 0 and ${MAX_K}`, ef);
}

/**
 * A checked copy of a document's vector.
 *
 * @throws {ShardloomError} `ERR_DIMENSION_MISMATCH`; `ERR_NOT_FINITE`, or for what float16 cannot hold `ERR_INVALID_ARGUMENT`,
 * naming component, value and id.
 */
export function copyVector(
  action: string,
  options: ResolvedVectorOptions,
  vector: ArrayLike<number>,
  id: VectorId,
): Float32Array {
  const owner = (): string => `vector of ${describeValue(id)}`;
  assertLength(action, options.dimensions, vector, owner, { id });
  const copy = checkedCopy(action, vector, owner, { id });
  const limit = componentLimit(options);
  const at = firstBeyond(copy, 0, copy.length, limit);
  if (at < 0) return copy;
  throw new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot ${action} as component ${at} of the ${owner()} must be within ±${limit} with f16: current value is ${copy[at]}`,
    { details: { component: at, value: copy[at], limit, id } },
  );
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` unless the target holds a whole vector. */
export function assertTarget(dimensions: number, target: Float32Array): void {
  if (target instanceof Float32Array && target.length >= dimensions) return;
  throw invalidArgument("read vector", "target", `a Float32Array of at least ${dimensions} components`, target);
}

/** A checked copy of a query. */
export function checkedQuery(dimensions: number, vector: ArrayLike<number>): Float32Array {
  const owner = (): string => "query";
  assertLength("search", dimensions, vector, owner, {});
  return checkedCopy("search", vector, owner, {});
}

function assertLength(
  action: string,
  dimensions: number,
  vector: ArrayLike<number>,
  owner: () => string,
  details: object,
): void {
  const isList = Array.isArray(vector) || (ArrayBuffer.isView(vector) && !(vector instanceof DataView));
  if (isList && vector.length === dimensions) return;
  const length: unknown = isList ? vector.length : describeValue(vector);
  throw new ShardloomError(
    "ERR_DIMENSION_MISMATCH",
    `Cannot ${action} as the ${owner()} must have ${dimensions} components: current value is ${String(length)}`,
    {
      details: { dimensions, length, ...details },
    },
  );
}

function checkedCopy(action: string, vector: ArrayLike<number>, owner: () => string, details: object): Float32Array {
  // Holes, strings and bigints must not become numbers on the way.
  const plain = vector instanceof Float32Array || vector instanceof Float64Array || !hasOther(vector);
  if (plain) {
    const copy = new Float32Array(vector); // a value beyond float32 becomes an infinity here, which is refused too
    let sum = 0;
    for (let at = 0; at < copy.length; at++) sum += (copy[at] as number) * 0; // 0 unless one of them is not finite
    if (sum === 0) return copy;
  }
  const at = firstBad(vector);
  throw new ShardloomError(
    "ERR_NOT_FINITE",
    `Cannot ${action} as component ${at} of the ${owner()} must be a finite float32: current value is ${describeValue(vector[at])}`,
    {
      details: { component: at, value: describeValue(vector[at]), ...details },
    },
  );
}

function hasOther(vector: ArrayLike<number>): boolean {
  for (let at = 0; at < vector.length; at++) if (typeof vector[at] !== "number") return true;
  return false;
}

function firstBad(vector: ArrayLike<number>): number {
  for (let at = 0; at < vector.length; at++) {
    const component: unknown = vector[at];
    if (typeof component !== "number" || !Number.isFinite(Math.fround(component))) return at;
  }
  return -1;
}
