/**
 * Who may answer: which copies are fresh enough for a consistency, and in which order the states of shards are asked.
 *
 * Invariant: what is unknown does not qualify. A strong read and the strategy `primary-only` know the primary and nobody else,
 * so that neither ever ends at a replica. The primary always qualifies: it assigns the LSNs, and nothing is newer than it has.
 *
 * Copies on shards that are up go first; then those on draining shards, which answer as ever and only want no new work; then those
 * on suspect ones, which may well be dead; then, when the caller would rather wait, those on joining ones, whose ring keeps the
 * request until they serve. Never those that are down or removed.
 */
import { MEMBER_STATE } from "../topology/snapshot.ts";
import type { LagSource, ReadRules, UnavailableReason } from "./plan.ts";

/** Reasons by number. */
export const UNAVAILABLE_REASONS: readonly UnavailableReason[] = ["down", "stale", "behind", "no-copy"];

/** By state, in the order of `MEMBER_STATE`: the highest is asked first; 0 is never asked. */
const RANKS: Readonly<Uint8Array> = Uint8Array.of(0, 4, 2, 0, 3, 0);
const RANKS_WHEN_WAITING: Readonly<Uint8Array> = Uint8Array.of(1, 4, 2, 0, 3, 0);

/** The primary is the first copy. */
const PRIMARY_MASK = 1;

/** Ranks by state: who is asked first, and who never. */
export function ranksFor(rules: ReadRules): Readonly<Uint8Array> {
  return rules.policy === "wait" ? RANKS_WHEN_WAITING : RANKS;
}

/** Which copies are fresh enough. */
export class Eligibility {
  readonly #lag: LagSource | undefined;

  constructor(lag: LagSource | undefined) {
    this.#lag = lag;
  }

  /** Bit i stands for copy i. */
  maskOf(rules: ReadRules, vshard: number, copies: Uint16Array, nowMs: number): number {
    if (onlyPrimary(rules)) return PRIMARY_MASK;
    const all = (1 << copies.length) - 1;
    if (rules.consistency === "eventual") return all;
    const leastLsn = rules.consistency === "session" ? (rules.session?.lsnOf(vshard) ?? Infinity) : 0;
    if (rules.consistency === "session" && leastLsn <= 0) return all;
    let mask = PRIMARY_MASK;
    if (this.#lag === undefined) return mask;
    for (let at = 1; at < copies.length; at++) {
      const shard = copies[at] as number;
      const qualifies =
        rules.consistency === "session"
          ? this.#lag.appliedLsn(vshard, shard) >= leastLsn
          : isFresh(this.#lag, vshard, shard, nowMs, rules.maxStalenessMs);
      if (qualifies) mask |= 1 << at;
    }
    return mask;
  }
}

/** A lag of NaN, like none at all, is not fresh. A sample from another thread's clock may be a moment ahead. */
function isFresh(lag: LagSource, vshard: number, shard: number, nowMs: number, maxStalenessMs: number): boolean {
  const sample = lag.lag(vshard, shard);
  if (sample === undefined) return false;
  return Math.max(0, sample.lagMs) + Math.max(0, nowMs - sample.sampledAtMs) <= maxStalenessMs;
}

/** Why none of the copies may answer. */
export function whyNobody(rules: ReadRules, copies: Uint16Array, states: Uint8Array): UnavailableReason {
  const ranks = ranksFor(rules);
  const asked = onlyPrimary(rules) ? 1 : copies.length;
  let reason: UnavailableReason = "no-copy";
  for (let at = 0; at < asked; at++) {
    const state = states[copies[at] as number] as number;
    if ((ranks[state] as number) > 0) return rules.consistency === "session" ? "behind" : "stale";
    if (state !== MEMBER_STATE.REMOVED) reason = "down";
  }
  return reason;
}

function onlyPrimary(rules: ReadRules): boolean {
  return rules.consistency === "strong" || rules.strategy === "primary-only";
}
