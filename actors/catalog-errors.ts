/**
 * What a catalog of collections refuses, and why.
 *
 * Invariant: every error names the collection.
 */
import { type ErrorCode, ShardloomError } from "../src/errors.ts";
import { shardsOf, type TopologySnapshot } from "../src/topology/snapshot.ts";

export function notThere(name: string): ShardloomError {
  return cannot("ERR_UNKNOWN_COLLECTION", "open", name, "it does not exist and no options were given", {});
}

export function dropped(name: string): ShardloomError {
  return cannot("ERR_UNKNOWN_COLLECTION", "use", name, "it was dropped", {});
}

export function allDropped(name: string, generations: number): ShardloomError {
  const reason = `${generations} generations of it were dropped`;
  return cannot("ERR_UNAVAILABLE", "open", name, reason, { generations });
}

export function sameHash(name: string, other: string, collectionId: number): ShardloomError {
  const reason = `its hash must differ from that of ${JSON.stringify(other)}: current value is ${collectionId}`;
  return cannot("ERR_COLLECTION_MISMATCH", "open", name, reason, { other, collectionId });
}

export function tooOften(name: string, attempts: number): ShardloomError {
  return cannot("ERR_UNAVAILABLE", "open", name, `workers were replaced during ${attempts} attempts`, { attempts });
}

function cannot(
  code: ErrorCode,
  action: string,
  name: string,
  reason: string,
  details: Readonly<Record<string, string | number>>,
): ShardloomError {
  const message = `Cannot ${action} collection ${JSON.stringify(name)} as ${reason}`;
  return new ShardloomError(code, message, { details: { name, ...details } });
}

/** @throws {ShardloomError} `ERR_UNAVAILABLE` for what lies on all shards, when one of them was removed. */
export function assertAllShards(snapshot: TopologySnapshot, kind: string, name: string): void {
  const shards = shardsOf(snapshot);
  if (shards.length === snapshot.shards) return;
  throw new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot open ${kind} ${JSON.stringify(name)} as no shard may have been removed: ${snapshot.shards - shards.length} were`,
    { details: { name, shards }, retryable: false },
  );
}
