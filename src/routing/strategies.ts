/**
 * The six ways to choose one copy among those that may answer.
 *
 * Invariant: a chooser returns one of the gathered candidates. Each is uniform over candidates that are alike: ties are drawn, a
 * turn belongs to one replica group, and what the running plan has assigned already counts as load. So no strategy prefers the
 * first copy of a list, and one plan does not pile up on the shard that was idle when it began.
 *
 * Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12 (2001).
 */
import { MAX_COPIES, MAX_SHARDS } from "../topology/snapshot.ts";
import { UNAVAILABLE_REASONS } from "./eligibility.ts";
import type { Strategy } from "./plan.ts";
import type { ReplicaLoads } from "./replica-loads.ts";

/** The local shard is overloaded when it has more than twice the mean in flight, and this much on top. */
const LOCAL_SLACK = 4;

/** A vshard's place in a plan is its shard, or {@link MAX_SHARDS} + the number of its reason. This many are possible. */
export const PLACES: number = MAX_SHARDS + UNAVAILABLE_REASONS.length;

/** What a chooser looks at. One per planner, used again and again: nothing in it outlives a plan. */
export class Choice {
  readonly loads: ReplicaLoads;
  /** The shard on the caller's own thread or host, -1 when there is none. */
  readonly localShard: number;
  /** Shards that may answer, the first `count` of them, in the order of the copies. */
  readonly candidates: Uint16Array = new Uint16Array(MAX_COPIES);
  count = 0;
  /** Shape: `Int32Array[PLACES]`, replica groups that the running plan has given to each place. */
  readonly assigned: Int32Array = new Int32Array(PLACES);
  assignedTotal = 0;
  upShards = 1;
  /** The replica group's turn, not negative. */
  turn = 0;
  /** 32 random bits. */
  draw = 0;

  constructor(loads: ReplicaLoads, localShard: number) {
    this.loads = loads;
    this.localShard = localShard;
  }

  /** Gathers the copies of the best rank; none when nobody may answer. Bit i of `mask` admits copy i. */
  gather(copies: Uint16Array, mask: number, states: Uint8Array, ranks: Readonly<Uint8Array>): void {
    let best = 1;
    this.count = 0;
    for (let at = 0; at < copies.length; at++) {
      if (((mask >>> at) & 1) === 0) continue;
      const shard = copies[at] as number;
      const rank = ranks[states[shard] as number] as number;
      if (rank < best) continue;
      if (rank > best) {
        best = rank;
        this.count = 0;
      }
      this.candidates[this.count++] = shard;
    }
  }

  load(shard: number): number {
    return this.loads.inFlight(shard) + (this.assigned[shard] as number);
  }
}

/** Chooses one of at least one candidate. */
export type Chooser = (choice: Choice) => number;

/** The choosers by name. */
export const CHOOSERS: Readonly<Record<Strategy, Chooser>> = {
  "round-robin": ({ candidates, count, turn }) => candidates[turn % count] as number,
  "least-connections": leastConnections,
  random: ({ candidates, count, draw }) => candidates[below(draw >>> 16, count)] as number,
  "prefer-local": preferLocal,
  "primary-only": ({ candidates }) => candidates[0] as number, // nobody but the primary was gathered
  "power-of-two": powerOfTwo,
};

function leastConnections(choice: Choice): number {
  const { candidates, count } = choice;
  let least = 0x7fffffff;
  let ties = 0;
  for (let at = 0; at < count; at++) {
    const shard = candidates[at] as number;
    const load = choice.load(shard);
    if (load > least) continue;
    if (load < least) ties = 0;
    least = load;
    candidates[ties++] = shard; // at or before the place that was read
  }
  return candidates[below(choice.draw >>> 16, ties)] as number;
}

function preferLocal(choice: Choice): number {
  const { candidates, count, localShard } = choice;
  for (let at = 0; at < count; at++) {
    if (candidates[at] !== localShard) continue;
    const mean = (choice.loads.totalInFlight + choice.assignedTotal) / choice.upShards;
    if (choice.load(localShard) <= 2 * mean + LOCAL_SLACK) return localShard;
    break;
  }
  return powerOfTwo(choice);
}

function powerOfTwo(choice: Choice): number {
  const { candidates, count, draw } = choice;
  if (count === 1) return candidates[0] as number;
  const first = below(draw >>> 16, count);
  let second = below(draw & 0xffff, count - 1);
  if (second >= first) second++;
  return choice.loads.cheaper(candidates[first] as number, candidates[second] as number, choice.assigned);
}

/** A number below `count` from 16 random bits; `count` is at most 16, so none is preferred by more than one in 4096. */
export function below(bits: number, count: number): number {
  return (bits * count) >>> 16;
}

/** 32 well-mixed bits from any 32. Source: the finalizer of MurmurHash3 (Appleby). */
export function mix(value: number): number {
  let mixed = value ^ (value >>> 16);
  mixed = Math.imul(mixed, 0x85ebca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}
