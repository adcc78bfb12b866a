/**
 * Why one shard's part of a graph refuses a call before it has changed anything.
 *
 * Invariant: all of them pass: `runs: 0` in the details says that it will do so by itself, and soon.
 */
import { ShardloomError } from "../../src/errors.ts";

/** The graph must stay as it is for now. @param why "it is being moved" */
export function busy(action: string, why: string, runs = 0): ShardloomError {
  return new ShardloomError("ERR_OVERLOADED", `Cannot ${action} as ${why}`, { details: { runs } });
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
