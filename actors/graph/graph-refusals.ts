/**
 * Why a graph, or one shard's part of it, refuses a call before it has changed anything.
 *
 * Invariant: what passes by itself, and soon, says so with `runs: 0` in its details.
 */
import { ShardloomError } from "../../src/errors.ts";

/** The graph must stay as it is for now. @param why "it is being moved" */
export function busy(action: string, why: string, runs = 0): ShardloomError {
  return new ShardloomError("ERR_OVERLOADED", `Cannot ${action} as ${why}`, { details: { runs } });
}

/** What was begun or computed where a graph lay before. */
export function movedAway(name: string): ShardloomError {
  const reason = `Cannot go on with what belongs to graph ${JSON.stringify(name)} as it was moved to other shards since`;
  return new ShardloomError("ERR_UNKNOWN_COLLECTION", reason, { details: { name } });
}

export function unmet(): ShardloomError {
  const reason = "Cannot look up vertices as this shard has not been told where its peers are";
  return new ShardloomError("ERR_REGION_ACCESS", reason, { retryable: true });
}

export function changed(): ShardloomError {
  return new ShardloomError("ERR_STALE_EPOCH", "Cannot begin run as the graph has changed since it was built");
}

export function notOpen(run: number): ShardloomError {
  return new ShardloomError("ERR_UNAVAILABLE", "Cannot keep result as the run is not open on this shard", {
    details: { run },
  });
}
