/**
 * What calls do that do not say so themselves: one set for a whole cluster, on every thread of it.
 */
import type { Consistency, Strategy } from "./plan.ts";

/** How many copies must have applied a write before it is acknowledged, the primary counted. */
export type Acks = "one" | "quorum" | "all" | number;

/** Defaults of calls. Plain data: it crosses threads. */
export interface CallDefaults {
  /** Deadline of calls that give none, in ms. */
  readonly requestTimeoutMs: number;
  readonly consistency: Consistency;
  readonly strategy: Strategy;
  readonly acks: Acks;
}
