/**
 * What happens to an actor that fails: a state machine without I/O, clock or randomness of its own.
 *
 * Invariant: within any window of `withinMs` an actor is restarted at most `maxRestarts` times; the failure after that
 * stops it. Waits grow from none over `backoffMs` by doubling to `maxBackoffMs`. `failuresAtMs` never holds more than
 * `maxRestarts + 1` times.
 * Source: Erlang/OTP supervisors (restart intensity), with Pekko's back-off supervisor for the waits.
 * Divergence: the first failure in a window restarts at once, so that a lone failure costs microseconds.
 */

import { ShardloomError } from "../errors.ts";
import type { ResolvedRestartOptions } from "./actor-options.ts";

/** Where an actor stands. */
export type SupervisionState =
  /** It may run. */
  | { readonly kind: "running"; readonly failuresAtMs: readonly number[] }
  /** It failed and waits; `untilMs` may be now. */
  | { readonly kind: "backing-off"; readonly failuresAtMs: readonly number[]; readonly untilMs: number }
  /** It will not run again under this activation. */
  | { readonly kind: "stopped"; readonly atMs: number };

/** What can happen to it. */
export type SupervisionEvent =
  /**
   * A handler failed, or, if `atStart`, `init` or `onStart` did: then even the first restart waits, as nothing
   * else keeps an actor that cannot start from trying for ever. `jitter` is a random number in [0, 1).
   */
  | { readonly kind: "failed"; readonly atMs: number; readonly jitter: number; readonly atStart: boolean }
  /** The wait is over: the actor is being set up anew. */
  | { readonly kind: "back-off-over" }
  /** It was told to give up. */
  | { readonly kind: "stop"; readonly atMs: number };

type FailedEvent = Extract<SupervisionEvent, { kind: "failed" }>;

/** The state of an actor that never failed; shared by all of them. */
export const HEALTHY: SupervisionState = Object.freeze({ kind: "running", failuresAtMs: Object.freeze([]) });

/**
 * The next state.
 *
 * @throws {ShardloomError} `ERR_INTERNAL` if the event cannot happen in this state.
 */
export function transition(
  policy: ResolvedRestartOptions,
  state: SupervisionState,
  event: SupervisionEvent,
): SupervisionState {
  if (state.kind === "stopped") throw impossible(state, event);
  switch (event.kind) {
    case "stop":
      return { kind: "stopped", atMs: event.atMs };
    case "back-off-over":
      if (state.kind !== "backing-off") throw impossible(state, event);
      return { kind: "running", failuresAtMs: state.failuresAtMs };
    case "failed":
      if (state.kind !== "running") throw impossible(state, event);
      return afterFailure(policy, state.failuresAtMs, event);
  }
}

function afterFailure(policy: ResolvedRestartOptions, before: readonly number[], event: FailedEvent): SupervisionState {
  const { atMs, jitter } = event;
  const failuresAtMs = [...before.filter((failedAtMs) => failedAtMs > atMs - policy.withinMs), atMs];
  if (failuresAtMs.length > policy.maxRestarts) return { kind: "stopped", atMs };
  const restart = failuresAtMs.length + (event.atStart ? 1 : 0);
  return { kind: "backing-off", failuresAtMs, untilMs: atMs + backoffMs(policy, restart, jitter) };
}

/** Wait before the n-th restart within the window: 0 for the first, then between half and all of the doubled base. */
export function backoffMs(policy: ResolvedRestartOptions, restart: number, jitter: number): number {
  if (restart <= 1) return 0;
  const fullMs = Math.min(policy.maxBackoffMs, policy.backoffMs * 2 ** (restart - 2));
  return fullMs * (1 - jitter / 2);
}

function impossible(state: SupervisionState, event: SupervisionEvent): ShardloomError {
  return new ShardloomError("ERR_INTERNAL", `Cannot apply "${event.kind}" to an actor that is ${state.kind}`);
}
