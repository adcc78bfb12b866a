/**
 * What planning decided: which shard answers for which vshards, under one snapshot of the topology.
 *
 * Invariant: every vshard that the caller wants is in exactly one target or in exactly one unavailable group, and a plan never
 * changes after it is made.
 */
import type { TopologySnapshot } from "../topology/snapshot.ts";

/** How a copy is chosen among those that qualify. */
export type Strategy =
  | "round-robin"
  | "least-connections"
  | "random"
  | "prefer-local"
  | "primary-only"
  | "power-of-two";

/** What a copy must know to qualify. */
export type Consistency = "strong" | "session" | "bounded-staleness" | "eventual";

/** What to do about vshards that no copy may answer for. */
export type UnavailablePolicy = "fail" | "partial" | "wait";

/** One envelope of a plan: a shard and the vshards that it is to answer for. */
export interface PlanTarget {
  readonly shard: number;
  readonly vshards: Uint16Array;
  /** Whether these are all vshards that the shard holds: then no filter is needed there. */
  readonly whole: boolean;
}

/** vshards that no copy may answer for, and why. */
export interface UnavailableVshards {
  readonly vshards: Uint16Array;
  readonly reason: "down" | "stale" | "behind" | "no-copy";
}

/** Who answers what. */
export interface Plan {
  /** The one snapshot that the whole plan was made with. */
  readonly snapshot: TopologySnapshot;
  readonly kind: "point" | "batch" | "scatter";
  readonly strategy: Strategy;
  readonly consistency: Consistency;
  readonly targets: readonly PlanTarget[];
  readonly unavailable: readonly UnavailableVshards[];
  /** The next copy to try for a vshard after those in `tried`, or `NO_SHARD` when no other may answer. */
  fallback(vshard: number, tried: readonly number[]): number;
}
