/**
 * How a worker's death reads to those who waited for it.
 *
 * Invariant: whatever a thread died of, its shard and the reason are in the error's details.
 */
import { ShardloomError } from "../errors.ts";

/** Says in our words why a task's thread died. */
export function describeDeath(shard: number, reason: unknown): ShardloomError {
  const message = reason instanceof Error ? reason.message : String(reason);
  return new ShardloomError(
    "ERR_WORKER_LOST",
    `Cannot finish request as the worker of shard ${shard} died: ${message}`,
    {
      details: { shard, reason: (reason as { code?: unknown })?.code ?? "unknown" },
      cause: reason,
    },
  );
}

/** For calls to a worker that may fail once it is lost, and then only. */
export function unlessLost(worker: { readonly state: string }): (error: unknown) => void {
  return (error) => {
    if (worker.state !== "lost") throw error;
  };
}

/** A worker has not told in time that it serves. */
export function notStarted(shard: number, startTimeoutMs: number): ShardloomError {
  return new ShardloomError("ERR_TIMEOUT", `Cannot start shard ${shard} within ${startTimeoutMs} ms`, {
    details: { shard },
  });
}

/** What is asked of a worker that was stopped in order. */
export function hasStopped(shard: number): ShardloomError {
  return new ShardloomError("ERR_CLOSED", `Cannot call the worker of shard ${shard} as it has stopped`);
}

/** What is asked of a shard that has no worker any more, as it is being removed. */
export function hasLeft(shard: number): ShardloomError {
  return new ShardloomError("ERR_UNAVAILABLE", `Cannot ask shard ${shard} as it has left the cluster`, {
    details: { shard },
  });
}
