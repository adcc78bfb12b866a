/**
 * What a plan is, what a caller may ask of it, and the check of what was asked.
 *
 * Invariant: every vshard that was asked for stands in exactly one target or in exactly one entry of `unavailable`; a target's
 * shard holds a copy of each of its vshards and may answer at the plan's consistency. A vshard that nobody may answer is an
 * outcome with a reason, never a target that stands for nobody.
 */
import { invalidArgument } from "../errors.ts";
import type { TopologySnapshot } from "../topology/snapshot.ts";

/** How a copy is chosen among those that may answer; see `strategies.ts`. */
export type Strategy =
  | "round-robin"
  | "least-connections"
  | "random"
  | "prefer-local"
  | "primary-only"
  | "power-of-two";
/**
 * Which copies may answer.
 *
 * `strong`: the primary, or nobody. `session`: copies that have applied what the session depends on. `bounded-staleness`:
 * copies whose known lag, aged by the time since it was sampled, is within `maxStalenessMs`. `eventual`: any copy.
 */
export type Consistency = "strong" | "session" | "bounded-staleness" | "eventual";
/** What to do about vshards that nobody may answer now: fail the call, answer for the others, or wait. */
export type UnavailablePolicy = "fail" | "partial" | "wait";

export const STRATEGIES: readonly Strategy[] = [
  "round-robin",
  "least-connections",
  "random",
  "prefer-local",
  "primary-only",
  "power-of-two",
];
export const CONSISTENCIES: readonly Consistency[] = ["strong", "session", "bounded-staleness", "eventual"];
const POLICIES: readonly UnavailablePolicy[] = ["fail", "partial", "wait"];

const DEFAULT_STRATEGY: Strategy = "power-of-two";
const DEFAULT_CONSISTENCY: Consistency = "eventual";
const DEFAULT_POLICY: UnavailablePolicy = "fail";
const DEFAULT_MAX_STALENESS_MS = 5_000;

/** The lag of one copy as it was last reported. */
export interface LagSample {
  /** How far the copy was behind its primary, in milliseconds. */
  readonly lagMs: number;
  /** When that was so, by the clock of this host. */
  readonly sampledAtMs: number;
}

/** What is known about the progress of copies. */
export interface LagSource {
  /** `undefined` while unknown. */
  lag(vshard: number, shard: number): LagSample | undefined;
  /** The last LSN that the copy is known to have applied, -1 while unknown. */
  appliedLsn(vshard: number, shard: number): number;
}

/** What a session depends on. */
export interface SessionView {
  /** The LSN that a copy of this vshard must have applied; 0 when any copy will do. */
  lsnOf(vshard: number): number;
}

/** How a read is to be routed. */
export interface ReadOptions {
  /** @default "power-of-two" */
  readonly strategy?: Strategy | undefined;
  /** @default "eventual" */
  readonly consistency?: Consistency | undefined;
  /**
   * For `bounded-staleness`: the greatest age of an answer in milliseconds, in `[0, Infinity]`. 0 admits only copies that were in
   * step the moment they are looked at, in practice the primary.
   *
   * @default 5000
   */
  readonly maxStalenessMs?: number | undefined;
  /** For `session`, which needs one. */
  readonly session?: SessionView | undefined;
  /** `wait` also lets copies on joining shards answer when there is nobody else. @default "fail" */
  readonly policy?: UnavailablePolicy | undefined;
}

/** {@link ReadOptions}, checked and complete. */
export interface ReadRules {
  readonly strategy: Strategy;
  readonly consistency: Consistency;
  readonly maxStalenessMs: number;
  readonly session: SessionView | undefined;
  readonly policy: UnavailablePolicy;
}

/**
 * Checks the options of a read and fills in the defaults.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for an unknown strategy, consistency or policy, a `maxStalenessMs` that is
 *   negative or no number, or `session` consistency without a session.
 */
export function checkReadOptions(options: ReadOptions = {}): ReadRules {
  const {
    strategy = DEFAULT_STRATEGY,
    consistency = DEFAULT_CONSISTENCY,
    maxStalenessMs = DEFAULT_MAX_STALENESS_MS,
    session,
    policy = DEFAULT_POLICY,
  } = options;
  requireWord("strategy", STRATEGIES, strategy);
  requireWord("consistency", CONSISTENCIES, consistency);
  requireWord("policy", POLICIES, policy);
  if (typeof maxStalenessMs !== "number" || !(maxStalenessMs >= 0))
    throw invalidArgument("plan read", "maxStalenessMs", "a number of at least 0", maxStalenessMs);
  if (consistency === "session" && typeof session?.lsnOf !== "function")
    throw invalidArgument("plan read", "session", 'a Session when consistency is "session"', session);
  return { strategy, consistency, maxStalenessMs, session, policy };
}

function requireWord(name: string, words: readonly string[], value: unknown): void {
  if (!words.includes(value as string))
    throw invalidArgument("plan read", name, `one of ${words.map((word) => JSON.stringify(word)).join(", ")}`, value);
}

/**
 * What is to be planned, with the one snapshot that the whole plan uses.
 *
 * `point`: one vshard. `batch`: the vshard of every item of a list, in the list's order. `scatter`: a set of vshards (doubles
 * count once), all of them when left out.
 */
export type PlanRequest =
  | {
      readonly kind: "point";
      readonly snapshot: TopologySnapshot;
      readonly rules: ReadRules;
      readonly vshard: number;
    }
  | {
      readonly kind: "batch";
      readonly snapshot: TopologySnapshot;
      readonly rules: ReadRules;
      readonly vshards: ArrayLike<number>;
    }
  | {
      readonly kind: "scatter";
      readonly snapshot: TopologySnapshot;
      readonly rules: ReadRules;
      readonly vshards?: ArrayLike<number> | undefined;
    };

/** One envelope of a plan: a shard and the vshards that it is to answer for. Never without a vshard. */
export interface PlanTarget {
  readonly shard: number;
  /** Ascending, each once. */
  readonly vshards: Uint16Array;
  /** Whether these are all vshards that the shard holds a copy of, so that it needs no filter. */
  readonly whole: boolean;
  /** Of a batch: places of this target's items in the caller's list, ascending. A view of a buffer that the plan's parts share. */
  readonly items?: Uint32Array;
}

/**
 * Why nobody may answer. `down`: no copy that may answer at this consistency is on a shard in service. `stale`, `behind`: a
 * copy is in service, but too old for the bound, or not known to have what the session depends on. `no-copy`: every shard
 * that held a copy was removed.
 */
export type UnavailableReason = "down" | "stale" | "behind" | "no-copy";

/** Vshards that nobody may answer now. */
export interface UnavailableVshards {
  /** Ascending, each once. */
  readonly vshards: Uint16Array;
  readonly reason: UnavailableReason;
  /** Of a batch: places of these vshards' items in the caller's list, ascending. */
  readonly items?: Uint32Array;
}

/** Who answers what, all by one snapshot. */
export interface Plan {
  readonly snapshot: TopologySnapshot;
  readonly kind: "point" | "batch" | "scatter";
  readonly strategy: Strategy;
  readonly consistency: Consistency;
  /** At most one per shard. */
  readonly targets: readonly PlanTarget[];
  /** At most one per reason. */
  readonly unavailable: readonly UnavailableVshards[];
  /**
   * The copy to try next for a vshard. Its right to answer is judged anew, by the lag known now.
   *
   * The copies that are left, in the map's order beginning after the one that was chosen, are rotated by an offset that differs
   * by plan and replica group: the load of a failing shard spreads over all the others that may answer, and vshards of one
   * group go on to the same shard.
   *
   * @param tried Shards that were tried for it already, the chosen one first.
   * @returns A shard that is not in `tried`, or `NO_SHARD` when no other copy may answer.
   */
  fallback(vshard: number, tried: readonly number[]): number;
}
