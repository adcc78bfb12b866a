/**
 * Keys of vertices: non-negative safe integers and strings, their hashes, and which shard owns them.
 *
 * Invariant: a key's owner follows from the key and the number of the graph's shards alone. A graph has one copy and never moves with the map,
 * so that local numbers of vertices stand for as long as it lies on the same shards.
 */
import { invalidArgument } from "../../src/errors.ts";
import { hashId } from "../../src/topology/stable-hash.ts";

/** A string of 1 to 512 UTF-8 bytes, or a non-negative safe integer. `1` and `"1"` are different keys. */
export type VertexKey = string | number;

const MAX_KEY_BYTES = 512;

/** Hash of a key, unsigned. */
export function hashOfKey(key: VertexKey): number {
  return hashId(key) >>> 0;
}

/** The shard that owns a key with this hash. */
export function ownerOfHash(hash: number, shards: number): number {
  return hash % shards;
}

/** @param at Its place in a list. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` with the key. */
export function checkKey(action: string, name: string, key: unknown, at?: number): VertexKey {
  if (typeof key === "number" && Number.isSafeInteger(key) && key >= 0) return key;
  if (typeof key === "string" && key.length > 0 && key.length * 3 <= MAX_KEY_BYTES) return key;
  if (typeof key === "string" && key.length > 0 && new TextEncoder().encode(key).length <= MAX_KEY_BYTES) return key;
  const place = at === undefined ? name : `${name} ${at}`;
  throw invalidArgument(action, place, `a non-negative safe integer or a string of 1 to ${MAX_KEY_BYTES} bytes`, key);
}
