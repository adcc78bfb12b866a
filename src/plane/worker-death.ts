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
