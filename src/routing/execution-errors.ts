/**
 * The errors with which an execution ends parts and calls, in the house grammar.
 *
 * Invariant: what an error says about vshards is in its details too: which (at most {@link NAMED_VSHARDS} of them), how
 * many, and why.
 */
import { ShardloomError } from "../errors.ts";
import type { UnavailableVshards } from "./plan.ts";

const NAMED_VSHARDS = 64;

/** Nobody may answer for these vshards: `ERR_STALE_REPLICA` when copies are there but not fresh enough. */
export function unavailable({ vshards, reason }: UnavailableVshards, waitedMs?: number): ShardloomError {
  const waited = waitedMs === undefined ? "" : ` after waiting ${Math.round(waitedMs)} ms`;
  const details = { vshards: Array.from(vshards.subarray(0, NAMED_VSHARDS)), count: vshards.length, reason };
  const which = `${vshards.length} vshards (the first is ${vshards[0]})`;
  if (reason === "stale" || reason === "behind") {
    const message = `Cannot answer for ${which} as no copy in service is fresh enough (${reason})${waited}`;
    return new ShardloomError("ERR_STALE_REPLICA", message, { details });
  }
  const message = `Cannot answer for ${which} as no shard with a copy may answer (${reason})${waited}`;
  return new ShardloomError("ERR_UNAVAILABLE", message, { details });
}

/** A shard answered, but not for these vshards. */
export function refused(shard: number, vshards: readonly number[], reason: string): ShardloomError {
  const details = { shard, vshards: vshards.slice(0, NAMED_VSHARDS), count: vshards.length, reason };
  const message = `Cannot answer for ${vshards.length} vshards (the first is ${vshards[0]}) on shard ${shard} as it is ${reason}`;
  return new ShardloomError(reason === "not-owner" ? "ERR_UNAVAILABLE" : "ERR_STALE_REPLICA", message, { details });
}

/** The breaker of a shard is open and no other copy may answer. */
export function breakerOpen(shard: number, retryAfterMs: number, cause: ShardloomError | undefined): ShardloomError {
  return new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot ask shard ${shard} as it has not answered lately and no other copy may answer`,
    {
      details: { shard, reason: "breaker-open", retryAfterMs },
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

/** The call's deadline came before the request could be sent. */
export function tooLate(shard: number, cause: ShardloomError | undefined): ShardloomError {
  return new ShardloomError("ERR_TIMEOUT", `Cannot ask shard ${shard} as the deadline of the call has passed`, {
    details: { shard, sent: false },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The deadline was no deadline. */
export function deadlineInPast(deadlineAtMs: number, nowMs: number): ShardloomError {
  return new ShardloomError(
    "ERR_TIMEOUT",
    `Cannot execute plan as deadlineAtMs must be later than now (${nowMs}): current value is ${deadlineAtMs}`,
    { details: { deadlineAtMs, nowMs } },
  );
}

/** The caller's signal fired. */
export function aborted(signal: AbortSignal): ShardloomError {
  return new ShardloomError("ERR_ABORTED", "Cannot finish call as its signal was aborted", { cause: signal.reason });
}

/** Enough other parts have answered. */
export function notNeeded(): ShardloomError {
  return new ShardloomError("ERR_ABORTED", "Cannot finish part as a quorum of the others has answered", {
    details: { reason: "quorum" },
  });
}

/** The call has been answered. This and the next are one for all: nobody but a sink that no longer listens gets them. */
export const GIVEN_UP: ShardloomError = new ShardloomError(
  "ERR_ABORTED",
  "Cannot finish request as its call has ended",
);

/** The other way to the same answer was faster. */
export const OUTRUN: ShardloomError = new ShardloomError(
  "ERR_ABORTED",
  "Cannot finish request as another copy has answered",
);
