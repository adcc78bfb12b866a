/**
 * The options of an actor definition, their defaults and their limits, resolved once.
 *
 * Invariant: a resolved set is complete and consistent; nothing downstream checks an option again.
 */

import { invalidArgument, ShardloomError } from "../errors.ts";

/**
 * What becomes of an actor whose handler threw: `resume` keeps its state and answers the error; `restart` drops the
 * state and begins anew; `stop` gives up at once.
 */
export type Directive = "resume" | "restart" | "stop";

/** When an actor restarts, and when it no longer does. */
export interface RestartOptions {
  /** Failures within `withinMs` after which the actor is stopped, in `[0, 1000]`. @default 10 */
  readonly maxRestarts?: number;
  /** Width of the window in which failures count, in ms; also how long a stopped actor stays stopped. @default 60000 */
  readonly withinMs?: number;
  /**
   * Wait before the second restart within the window, in ms, ≥ 1; it doubles with each further one and is shortened by up
   * to half at random. The first restart does not wait. @default 10
   */
  readonly backoffMs?: number;
  /** Longest wait, in ms, ≥ `backoffMs`. @default 10000 */
  readonly maxBackoffMs?: number;
  /**
   * Judges what a handler threw. @default a `ShardloomError` is an answer (`resume`), anything else a failure (`restart`)
   */
  readonly decide?: (error: unknown) => Directive;
}

/** Options of a definition. */
export interface ActorOptions {
  /** Messages that may wait, in `[1, 65536]`. One more is refused with `ERR_OVERLOADED`. @default 1024 */
  readonly mailboxCapacity?: number;
  /** Idle time after which an activation is dropped, in ms, > 0, or `Infinity` for never. @default 60000 */
  readonly idleAfterMs?: number;
  readonly restart?: RestartOptions;
  /** What a full mailbox does. Only `reject` exists; it is named so that a definition can say so. @default "reject" */
  readonly overload?: "reject";
}

/** {@link RestartOptions}, complete. */
export type ResolvedRestartOptions = Required<RestartOptions>;

/** {@link ActorOptions}, complete. */
export interface ResolvedActorOptions {
  readonly mailboxCapacity: number;
  readonly idleAfterMs: number;
  readonly restart: ResolvedRestartOptions;
  readonly overload: "reject";
}

const MAX_MAILBOX_CAPACITY = 65536;
const MAX_RESTARTS = 1000;
const ACTION = "define actor";

/**
 * Fills in defaults and checks ranges and relations.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`
 */
export function resolveActorOptions(options: ActorOptions = {}): ResolvedActorOptions {
  const { mailboxCapacity = 1024, idleAfterMs = 60_000, overload = "reject" } = options;
  if (!Number.isInteger(mailboxCapacity) || mailboxCapacity < 1 || mailboxCapacity > MAX_MAILBOX_CAPACITY) {
    throw invalidArgument(ACTION, "mailboxCapacity", `an integer in [1, ${MAX_MAILBOX_CAPACITY}]`, mailboxCapacity);
  }
  requirePositive("idleAfterMs", idleAfterMs);
  if (overload !== "reject") throw invalidArgument(ACTION, "overload", '"reject"', overload);
  return Object.freeze({ mailboxCapacity, idleAfterMs, overload, restart: resolveRestartOptions(options.restart) });
}

function resolveRestartOptions(options: RestartOptions = {}): ResolvedRestartOptions {
  const { maxRestarts = 10, withinMs = 60_000, backoffMs = 10, decide = decideByClass } = options;
  const { maxBackoffMs = Math.max(10_000, backoffMs) } = options;
  if (!Number.isInteger(maxRestarts) || maxRestarts < 0 || maxRestarts > MAX_RESTARTS) {
    throw invalidArgument(ACTION, "restart.maxRestarts", `an integer in [0, ${MAX_RESTARTS}]`, maxRestarts);
  }
  requirePositive("restart.withinMs", withinMs);
  if (!(backoffMs >= 1 && backoffMs < Infinity))
    throw invalidArgument(ACTION, "restart.backoffMs", "a number ≥ 1", backoffMs);
  if (!(maxBackoffMs >= backoffMs && maxBackoffMs < Infinity)) {
    throw invalidArgument(ACTION, "restart.maxBackoffMs", `a number ≥ backoffMs (${backoffMs})`, maxBackoffMs);
  }
  if (typeof decide !== "function") throw invalidArgument(ACTION, "restart.decide", "a function", decide);
  return Object.freeze({ maxRestarts, withinMs, backoffMs, maxBackoffMs, decide });
}

/** A typed error is thrown on purpose, so the state behind it is sound; anything else was not foreseen. */
function decideByClass(error: unknown): Directive {
  return ShardloomError.is(error) ? "resume" : "restart";
}

function requirePositive(name: string, value: number): void {
  if (!(value > 0)) throw invalidArgument(ACTION, name, "a number > 0", value);
}
