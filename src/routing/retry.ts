/**
 * What happens to vshards whose request was not answered, or whose shard refused them.
 *
 * Invariant: every vshard given is enqueued, paused, handed to a wait, or lost, before the function returns; each request
 * that it makes, but for those of a newer plan or past an open breaker, takes a token from the retry budget.
 */
import { ShardloomError } from "../errors.ts";
import { Attempt } from "./attempt.ts";
import type { Execution } from "./execution.ts";
import { breakerOpen, refused } from "./execution-errors.ts";
import type { RefusedVshard } from "./part.ts";
import type { Plan, PlanTarget, UnavailableReason } from "./plan.ts";
import { byFallback, byPlan } from "./regroup.ts";
import { fullJitterMs } from "./retry-budget.ts";

/** Shortest wait for another call's probe of a shard. */
const PROBE_WAIT_MS = 5;
/** Range of the first pause before the same shard is asked again, in ms; it doubles with every retry. */
const PAUSE_BASE_MS = 20;
const PAUSE_LIMIT_MS = 500;
/** Pause before a primary that refused every try is looked at again, in ms. */
const REFUSED_LOOK_MS = 50;
/** Newer maps that one piece may meet. */
const MAX_REPLANS = 16;

/** Tries these vshards of a failed attempt again, elsewhere if it can, or loses them. */
export function retry<T>(
  execution: Execution<T>,
  attempt: Attempt<T>,
  vshards: Uint16Array,
  error: ShardloomError,
  nowMs: number,
): void {
  const { call, limits, state } = execution;
  const { part, plan, number, replans } = attempt;
  if (error.code === "ERR_STALE_EPOCH") return replan(execution, attempt, vshards, error, nowMs);
  const over = attempt.tries + 1 >= limits.maxAttempts || nowMs >= call.deadlineAtMs;
  if (!call.idempotent || !error.retryable || over) return end(execution, attempt, vshards, error, nowMs);
  const tried = attempt.triedBy();
  const { targets, missing } = byFallback(plan, vshards, tried, (shard) => state.breakers.mayAdmit(shard, nowMs));
  for (const target of targets) {
    if (hasToken(execution, nowMs))
      execution.enqueue(new Attempt(execution, part, plan, target, tried, number + 1, replans, error));
    else end(execution, attempt, target.vshards, error, nowMs);
  }
  if (missing.length > 0) again(execution, attempt, missing, tried, error, nowMs);
}

/**
 * Tries vshards again that an answer did not cover.
 *
 * @returns how many of the request's vshards these are
 */
export function retryRefused<T>(
  execution: Execution<T>,
  attempt: Attempt<T>,
  list: readonly RefusedVshard[],
  nowMs: number,
): number {
  const { target, part } = attempt;
  const byReason = new Map<RefusedVshard["reason"], number[]>();
  const left = new Set(target.vshards);
  for (const { vshard, reason } of list) {
    if (!left.delete(vshard)) continue;
    byReason.set(reason, [...(byReason.get(reason) ?? []), vshard]);
  }
  for (const [reason, vshards] of byReason) {
    const error = refused(target.shard, vshards, reason);
    const mayReplan = reason === "not-owner" && execution.call.replan !== undefined && attempt.replans === 0;
    if (mayReplan) replan(execution, attempt, Uint16Array.from(vshards), error, nowMs);
    else if (execution.call.idempotent) retry(execution, attempt, Uint16Array.from(vshards), error, nowMs);
    else execution.lose(part, error);
  }
  return target.vshards.length - left.size;
}

/** Sends a piece elsewhere that its shard's breaker kept back; without another copy it waits for the breaker, or is lost, as the call says. */
export function redirect<T>(execution: Execution<T>, attempt: Attempt<T>, nowMs: number): void {
  const { breakers } = execution.state;
  const { part, plan, target, number, replans, cause } = attempt;
  const tried = attempt.triedBy();
  const admits = (shard: number): boolean => breakers.mayAdmit(shard, nowMs);
  const { targets, missing } = byFallback(plan, target.vshards, tried, admits);
  for (const next of targets)
    execution.enqueue(new Attempt(execution, part, plan, next, tried, number, replans, cause));
  if (missing.length === 0) return;
  const retryAfterMs = breakers.retryAfterMs(target.shard, nowMs);
  const atMs = nowMs + Math.max(PROBE_WAIT_MS, retryAfterMs);
  if (execution.call.unavailable !== "wait" || atMs >= execution.call.deadlineAtMs)
    return execution.lose(part, breakerOpen(target.shard, retryAfterMs, cause));
  // It waits for the shard's probe, as for any copy that may not answer now.
  const whole = target.whole && missing.length === target.vshards.length;
  const rest: PlanTarget = { shard: target.shard, vshards: Uint16Array.from(missing), whole };
  execution.pause(new Attempt(execution, part, plan, rest, attempt.tried, number, replans, cause), atMs, nowMs);
}

/**
 * Plans vshards anew whose shard knows a newer map. Whoever refuses the newest map there is has failed; while a shard dies
 * and returns several maps follow each other, and a request may meet each of them.
 */
function replan<T>(
  execution: Execution<T>,
  attempt: Attempt<T>,
  vshards: Uint16Array,
  error: ShardloomError,
  nowMs: number,
): void {
  const { call, state } = execution;
  const { part, number, replans } = attempt;
  if (replans >= MAX_REPLANS || call.replan === undefined) return execution.lose(part, error);
  let plan: Plan;
  try {
    plan = call.replan(vshards);
  } catch (fault) {
    return execution.lose(part, ShardloomError.from(fault));
  }
  const isNewer = plan.snapshot.topologyEpoch > attempt.plan.snapshot.topologyEpoch;
  if (replans > 0 && !isNewer) return execution.lose(part, error);
  state.stats.replans++;
  const { targets, unavailable, missing } = byPlan(plan, vshards);
  for (const target of targets)
    execution.enqueue(new Attempt(execution, part, plan, target, [], number + 1, replans + 1, error));
  for (const group of unavailable) execution.giveUp(part, group, nowMs);
  if (missing.length > 0) execution.lose(part, error);
}

/** Asks a shard again that was asked before, as no other copy is left: after a pause, so that it can recover. */
function again<T>(
  execution: Execution<T>,
  attempt: Attempt<T>,
  missing: readonly number[],
  tried: readonly number[],
  error: ShardloomError,
  nowMs: number,
): void {
  const { call, state } = execution;
  const { part, plan, number, replans } = attempt;
  const atMs = nowMs + fullJitterMs(state.random, PAUSE_BASE_MS, PAUSE_LIMIT_MS, number);
  // Who timed out has had all the time that there was.
  const over = error.code === "ERR_TIMEOUT" || atMs >= call.deadlineAtMs;
  if (over || !hasToken(execution, nowMs)) return end(execution, attempt, Uint16Array.from(missing), error, nowMs);
  // The one whose failure is oldest, as it has had the longest time to recover.
  const shard = tried.find((one) => state.breakers.mayAdmit(one, nowMs)) ?? attempt.target.shard;
  const others = tried.filter((one) => one !== shard);
  const { target: last } = attempt;
  const whole = last.whole && shard === last.shard && missing.length === last.vshards.length;
  const target: PlanTarget = { shard, vshards: Uint16Array.from(missing), whole };
  execution.pause(new Attempt(execution, part, plan, target, others, number + 1, replans, error), atMs, nowMs);
}

/** No try is left. Who may not answer now, but may soon, is waited for or left out if the call says so, as when it is planned for. */
function end<T>(
  execution: Execution<T>,
  { part }: Attempt<T>,
  vshards: Uint16Array,
  error: ShardloomError,
  nowMs: number,
): void {
  const { unavailable: policy = "fail" } = execution.call;
  const reason = policy === "fail" ? undefined : passingReason(error);
  if (reason === undefined) return execution.lose(part, error);
  // Who is too old may be level at once; a primary that is not to serve has to hear so first.
  if (reason === "down") execution.giveUp(part, { vshards, reason }, nowMs, REFUSED_LOOK_MS);
  else execution.giveUp(part, { vshards, reason }, nowMs);
}

/** Why a shard may not answer at present, when it was that what it refused for; undefined for all other errors. */
function passingReason({ code, details }: ShardloomError): UnavailableReason | undefined {
  if (code === "ERR_STALE_REPLICA") return details["reason"] === "behind" ? "behind" : "stale";
  // A primary that does not know whether it is one still, such as while its vshards are given to another shard.
  return code === "ERR_UNAVAILABLE" && details["written"] === false ? "down" : undefined;
}

function hasToken<T>({ state }: Execution<T>, nowMs: number): boolean {
  if (state.retries.take(1, nowMs)) return true;
  state.stats.denied++;
  return false;
}
