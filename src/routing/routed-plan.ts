/**
 * A plan that was made, and the search for the next copy when one of its targets does not answer.
 *
 * Invariant: a fallback follows the rules of its plan: another copy that is fresh enough now, in the order of states of the plan's
 * snapshot; never one that was tried, and never a replica for a strong read.
 *
 * **Divergence** from a plain rotation: on a ring of copies the next one after a failing shard is the same in every replica
 * group, and would take all of its load. So the copies that are left are rotated by an offset of the plan and the group.
 */
import type { Clock } from "../runtime/clock.ts";
import { NO_SHARD, type ReplicaGroup, type TopologySnapshot } from "../topology/snapshot.ts";
import { type Eligibility, ranksFor } from "./eligibility.ts";
import type { Consistency, Plan, PlanTarget, ReadRules, Strategy, UnavailableVshards } from "./plan.ts";
import { below, type Choice, mix } from "./strategies.ts";

/** Step of the random numbers of fallbacks, see `planner.ts`. */
const FALLBACK_STEP = 0x7feb352d;

/** Looks for the next copy on behalf of all plans of one planner. */
export class Fallbacks {
  readonly #clock: Clock;
  readonly #eligibility: Eligibility;
  readonly #choice: Choice;

  constructor(clock: Clock, eligibility: Eligibility, choice: Choice) {
    this.#clock = clock;
    this.#eligibility = eligibility;
    this.#choice = choice;
  }

  next(snapshot: TopologySnapshot, rules: ReadRules, salt: number, vshard: number, tried: readonly number[]): number {
    const index = snapshot.groupOf[vshard];
    if (index === undefined) return NO_SHARD;
    const { copies } = snapshot.groups[index] as ReplicaGroup;
    let mask = this.#eligibility.maskOf(rules, vshard, copies, this.#clock.nowMs());
    for (let at = 0; at < copies.length; at++) if (tried.includes(copies[at] as number)) mask &= ~(1 << at);
    const choice = this.#choice;
    choice.gather(copies, mask, snapshot.states, ranksFor(rules));
    if (choice.count === 0) return NO_SHARD;
    const chosenAt = tried[0] === undefined ? -1 : copies.indexOf(tried[0]);
    let after = 0;
    while (after < choice.count && copies.indexOf(choice.candidates[after] as number) < chosenAt) after++;
    const offset = below(mix((mix(salt) + Math.imul(index, FALLBACK_STEP)) | 0) >>> 16, choice.count);
    return choice.candidates[(after + offset) % choice.count] as number;
  }
}

/** See {@link Plan}. */
export class RoutedPlan implements Plan {
  readonly snapshot: TopologySnapshot;
  readonly kind: Plan["kind"];
  readonly targets: readonly PlanTarget[];
  readonly unavailable: readonly UnavailableVshards[];
  readonly #rules: ReadRules;
  readonly #salt: number;
  readonly #fallbacks: Fallbacks;

  constructor(
    snapshot: TopologySnapshot,
    kind: Plan["kind"],
    rules: ReadRules,
    targets: readonly PlanTarget[],
    unavailable: readonly UnavailableVshards[],
    salt: number,
    fallbacks: Fallbacks,
  ) {
    this.snapshot = snapshot;
    this.kind = kind;
    this.targets = targets;
    this.unavailable = unavailable;
    this.#rules = rules;
    this.#salt = salt;
    this.#fallbacks = fallbacks;
  }

  get strategy(): Strategy {
    return this.#rules.strategy;
  }

  get consistency(): Consistency {
    return this.#rules.consistency;
  }

  fallback(vshard: number, tried: readonly number[]): number {
    return this.#fallbacks.next(this.snapshot, this.#rules, this.#salt, vshard, tried);
  }
}
