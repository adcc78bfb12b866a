/**
 * The errors of a barrier: refused arrivals, which name value and rule, and failed ticks, which name cause and member.
 *
 * Invariant: `details.reason` is one of the words below, so that a program need not read messages.
 */
import { describeValue, ShardloomError } from "../errors.ts";

/** Why an arrival or a call was refused. */
export type RefusalReason =
  | "unknown-member"
  | "unknown-phase"
  | "phase-order"
  | "stale-round"
  | "future-round"
  | "not-yet-member"
  | "unfinished"
  | "tick-overflow";

/** Why a tick failed. */
export type FailureReason = "lost" | "poisoned" | "deadline" | "quorum";

/** A call that is against the rules; nothing has changed. */
export function refusal(
  barrier: string,
  reason: RefusalReason,
  action: string,
  what: string,
  rule: string,
  value: unknown,
  details: Readonly<Record<string, unknown>> = {},
): ShardloomError {
  return new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot ${action} barrier ${JSON.stringify(barrier)} as ${what} must be ${rule}: current value is ${describeValue(value)}`,
    { details: { barrier, reason, value, ...details } },
  );
}

/** What ended a tick. */
export interface Failure {
  readonly reason: FailureReason;
  readonly member?: string | undefined;
  readonly cause?: unknown;
  /** Members that had not arrived in time: some of them, and how many there are. */
  readonly missing?: readonly string[];
  readonly missingCount?: number;
}

const REASONS: Readonly<Record<FailureReason, (failure: Failure) => string>> = {
  lost: ({ member }) => `member ${JSON.stringify(member)} was lost`,
  poisoned: ({ member }) => `it was poisoned${member === undefined ? "" : ` by member ${JSON.stringify(member)}`}`,
  deadline: ({ missing = [], missingCount }) =>
    `${missingCount} members had not arrived at its deadline: ${missing.map((name) => JSON.stringify(name)).join(", ")}`,
  quorum: ({ member }) => `too few members are left for its quorum since ${JSON.stringify(member)} has gone`,
};

/** The error with which every member of a failed tick ends. */
export function tickFailed(barrier: string, tick: number, phase: string | undefined, failure: Failure): ShardloomError {
  const { cause, ...details } = failure;
  const message = cause === undefined ? "" : `: ${cause instanceof Error ? cause.message : describeValue(cause)}`;
  return new ShardloomError(
    "ERR_BARRIER",
    `Cannot finish tick ${tick} of barrier ${JSON.stringify(barrier)} as ${REASONS[failure.reason](failure)}${message}`,
    { details: { barrier, tick, phase, ...details }, ...(cause === undefined ? {} : { cause }) },
  );
}

/** Nobody else may join. */
export function tooManyMembers(barrier: string, limit: number, size: number): ShardloomError {
  return new ShardloomError(
    "ERR_OVERLOADED",
    `Cannot join barrier ${JSON.stringify(barrier)} as its members must be at most ${limit}: current value is ${size}`,
    { details: { barrier, limit } },
  );
}
