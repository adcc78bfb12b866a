/**
 * Checks of what users hand to a collection, shared by every entry point, so that each rule has one message.
 */
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { VectorId } from "../../src/store/id-codec.ts";
import { componentLimit, firstBeyond, firstUncoded, type ResolvedVectorOptions } from "./vector-options.ts";
import type { ReceivedSearch } from "./vector-requests.ts";

/** Most answers that one search may ask for, and most candidates. */
export const MAX_K = 65_536;
/** Most hits of all queries of one request: what a shard holds of them at a time is bounded by it. */
export const MAX_HITS = 1_048_576;

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
  const odd = firstUncoded(options, copy);
  if (odd !== undefined) {
    throw new ShardloomError(
      "ERR_INVALID_ARGUMENT",
      `Cannot ${action} as component ${odd.at} of the ${owner()} must be ${odd.rule}: current value is ${copy[odd.at]}`,
      { details: { component: odd.at, value: copy[odd.at], id } },
    );
  }
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

/** A checked copy of a query. @param into As long as the query is to be. @default a new one */
export function checkedQuery(dimensions: number, vector: ArrayLike<number>, into?: Float32Array): Float32Array {
  const owner = (): string => "query";
  assertLength("search", dimensions, vector, owner, {});
  return checkedCopy("search", vector, owner, {}, into);
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

function checkedCopy(
  action: string,
  vector: ArrayLike<number>,
  owner: () => string,
  details: object,
  into?: Float32Array,
): Float32Array {
  // Holes, strings and bigints must not become numbers on the way.
  const plain = vector instanceof Float32Array || vector instanceof Float64Array || !hasOther(vector);
  if (plain) {
    const copy = into ?? new Float32Array(vector.length);
    copy.set(vector); // a value beyond float32 becomes an infinity here, which is refused too
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

/** Checks a search as a shard has received it. */
export function checkReceivedSearch(search: ReceivedSearch, dimensions: number, rows: number): void {
  const { k, ef, queryCount, skip } = search;
  if (k < 1 || k > MAX_K) throw invalidArgument("search", "k", `an integer in [1, ${MAX_K}]`, k);
  if (ef < 0 || ef > MAX_K) throw invalidArgument("search", "ef", `an integer in [0, ${MAX_K}]`, ef);
  if (queryCount < 1) throw invalidArgument("search", "queries", "at least one", queryCount);
  const most = Math.floor(MAX_HITS / Math.max(1, Math.min(k, rows)));
  if (queryCount > most) throw invalidArgument("search", "queries", `at most ${most} for ${k} hits each`, queryCount);
  if (skip < 0 || skip > k || (skip > 0 && queryCount > 1))
    throw invalidArgument("search", "skip", `in [0, ${k}], and 0 for several queries`, skip);
  if (search.dimensions !== dimensions) {
    throw new ShardloomError(
      "ERR_DIMENSION_MISMATCH",
      `Cannot search as the query must have ${dimensions} components: current value is ${search.dimensions}`,
      {
        details: { expected: dimensions, value: search.dimensions },
      },
    );
  }
  for (let i = 0; i < search.queries.length; i++) {
    const value = search.queries[i] as number;
    if (Number.isFinite(value)) continue;
    throw new ShardloomError(
      "ERR_NOT_FINITE",
      `Cannot search as component ${i % dimensions} of the query must be finite: current value is ${describeValue(value)}`,
      {
        details: { query: Math.floor(i / dimensions), component: i % dimensions, value: String(value) },
      },
    );
  }
}
