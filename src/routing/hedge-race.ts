/**
 * The race of a request against its vshards' next copies.
 *
 * Invariant: while a hedge is live its original and all its children are open or hold an answer that does not count yet;
 * when it ends, exactly one way counts, and every request of the other is cancelled. A hedge never makes an answer worse:
 * when any child fails, or does not cover all its vshards, the original goes on alone.
 */
import { Attempt, type Hedge } from "./attempt.ts";
import type { Execution } from "./execution.ts";
import { OUTRUN } from "./execution-errors.ts";
import type { Answered } from "./part.ts";
import { byFallback } from "./regroup.ts";

/** Sends the vshards of a slow request to their next copies too, if all have one, there is room, and the budget allows. */
export function sendHedge<T>(execution: Execution<T>, original: Attempt<T>, nowMs: number): void {
  const { state } = execution;
  const { part, plan, target, number, replans, sentAtMs, deadlineAtMs } = original;
  const tried = original.triedBy();
  const closed = (shard: number): boolean => state.breakers.isClosed(shard);
  const { targets, missing } = byFallback(plan, target.vshards, tried, closed);
  if (missing.length > 0) return;
  if (targets.length > execution.spare) {
    const againMs = nowMs + Math.max(1, nowMs - sentAtMs);
    if (againMs < deadlineAtMs) state.due.add(original, againMs, nowMs);
    return;
  }
  if (!state.hedger.budget.take(targets.length, nowMs)) {
    state.stats.denied++;
    return;
  }
  const hedge: Hedge<T> = { original, children: [], missing: targets.length, live: true };
  for (const next of targets) {
    const child = new Attempt(execution, part, plan, next, tried, number + 1, replans, undefined);
    child.within = hedge;
    hedge.children.push(child);
  }
  original.hedge = hedge;
  part.hedges += targets.length;
  for (const child of hedge.children) if (hedge.live) execution.start(child, nowMs);
}

/** A child has ended. @param answered Its answer, when it covers all its vshards. */
export function settleChild<T>(
  execution: Execution<T>,
  child: Attempt<T>,
  answered: Answered<T> | undefined,
  nowMs: number,
): void {
  const hedge = child.within as Hedge<T>;
  if (answered === undefined) return dropHedge(execution, hedge, nowMs);
  child.held = answered;
  hedge.missing--;
  if (hedge.missing > 0) return;
  const { original, children } = hedge;
  hedge.live = false;
  execution.state.stats.hedgesWon++;
  execution.cancel(original, OUTRUN, nowMs);
  for (const { held } of children) original.part.record(held as Answered<T>);
  execution.leave(original.part, nowMs);
}

/** Takes the second way back; the original goes on alone, or has answered. */
export function dropHedge<T>(execution: Execution<T>, hedge: Hedge<T>, nowMs: number): void {
  if (!hedge.live) return;
  hedge.live = false;
  hedge.original.hedge = undefined;
  execution.state.stats.hedgesLost++;
  for (const child of hedge.children) execution.cancel(child, OUTRUN, nowMs);
}

/** The original has failed: the second way is the only one, its children are pieces of their part like others. */
export function promoteHedge<T>(execution: Execution<T>, hedge: Hedge<T>, nowMs: number): void {
  const { part } = hedge.original;
  hedge.live = false;
  execution.state.stats.hedgesWon++;
  for (const child of hedge.children) {
    child.within = undefined;
    if (child.held !== undefined) part.record(child.held);
    else part.open++;
  }
  execution.leave(part, nowMs);
}
