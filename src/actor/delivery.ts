/**
 * What crosses the border of an actor system: a message in, an outcome out, and the count of both.
 *
 * Invariant: every ask gets exactly one outcome through its sink; and at any moment
 * `received = delivered + rejected + dead + pending`, where dead is the sum over its reasons.
 */

import type { ShardloomError } from "../errors.ts";

/**
 * A message as it arrives. The system reads it during `deliver` only and keeps no reference to it nor to `bytes`, so a
 * plane may use one object for all.
 */
export interface Delivery {
  readonly actorName: string;
  readonly key: string;
  readonly handler: string;
  /** The message itself; ignored when `bytes` is present. */
  readonly message?: unknown;
  /** The encoded message, decoded only once the message is known to be deliverable. */
  readonly bytes?: Uint8Array | undefined;
  /** Range of the message in `bytes`; a length of 0 stands for `undefined`. */
  readonly byteOffset?: number;
  readonly byteLength?: number;
  /** Whether an outcome is awaited. */
  readonly ask: boolean;
  /** Absolute, on the system's clock; 0 is none. */
  readonly deadlineAtMs: number;
  /** The time on the same clock, when the plane has just read it. @default the clock is read */
  readonly nowMs?: number;
  /** With `requestToken`, what {@link ActorSystem.cancel} and the sink name the request by. Safe integers. */
  readonly senderId: number;
  readonly requestToken: number;
}

/** Where outcomes go. One object serves all requests, so that no closure is made for one. */
export interface ReplySink {
  /** Takes the answer. May throw when it cannot be encoded: the error is then the outcome. */
  value(senderId: number, requestToken: number, value: unknown): void;
  /** Takes the failure. Must not throw. */
  error(senderId: number, requestToken: number, error: ShardloomError): void;
  /** Whether the sender has given the request up; asked before a waiting ask starts. */
  isCancelled?(senderId: number, requestToken: number): boolean;
}

/** Why a message was not handled, or its handling has no result. */
export const DEAD_LETTER_REASONS = [
  "no-actor",
  "no-handler",
  "expired",
  "cancelled",
  "stopped",
  "failed",
  "closed",
  "corrupt",
] as const;

/** One of {@link DEAD_LETTER_REASONS}; `mailbox-full` counts as rejected, not dead, as its sender may try again. */
export type DeadLetterReason = (typeof DEAD_LETTER_REASONS)[number];

/** What became of the messages. Mutable: it may be shared by the systems of one thread. */
export interface ActorCounters {
  /** Calls of `deliver`. */
  received: number;
  /** Handled: answered with a value or with an error that its handler threw on purpose. */
  delivered: number;
  /** Refused as a mailbox was full. */
  rejected: number;
  /** Dead letters by reason. */
  readonly dead: Record<DeadLetterReason, number>;
  activations: number;
  passivations: number;
  restarts: number;
  /** Actors stopped as their restart budget was spent. */
  escalations: number;
  /** Hooks (`onStop`, `onPassivate`) that threw. */
  hookFailures: number;
}

/** Counters at zero. */
export function createActorCounters(): ActorCounters {
  const dead = Object.fromEntries(DEAD_LETTER_REASONS.map((reason) => [reason, 0])) as Record<DeadLetterReason, number>;
  return {
    received: 0,
    delivered: 0,
    rejected: 0,
    dead,
    activations: 0,
    passivations: 0,
    restarts: 0,
    escalations: 0,
    hookFailures: 0,
  };
}

/** All dead letters. */
export function countDead(counters: ActorCounters): number {
  let sum = 0;
  for (const reason of DEAD_LETTER_REASONS) sum += counters.dead[reason];
  return sum;
}
