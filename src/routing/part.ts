/**
 * One part of a plan on its way to its outcome, and the pieces that it may be split into.
 *
 * Invariant: the pieces of a part never share a vshard, so that a vshard is answered at most once however often it was
 * asked for. A part ends when none of its pieces is left.
 */
import type { ShardloomError } from "../errors.ts";
import { type ShardOutcome, statusOf } from "./gather.ts";

/** A vshard that a shard refuses to answer for, and why. */
export interface RefusedVshard {
  readonly vshard: number;
  readonly reason: "stale" | "behind" | "not-owner";
}

/** A shard's answer as the caller's decoder read it. */
export interface Decoded<T> {
  readonly answer: T;
  /** Items in it. */
  readonly items: number;
  /** vshards of the request that the answer does not cover. */
  readonly refused: readonly RefusedVshard[];
}

/** A decoded reply with its figures, which outlives its frame. */
export interface Answered<T> {
  readonly shard: number;
  readonly answer: T;
  readonly items: number;
  /** vshards that it covers. */
  readonly vshards: number;
  readonly queueUs: number;
  readonly serviceUs: number;
  readonly bytes: number;
}

/** What has become of one part so far. */
export class Part<T> {
  readonly index: number;
  readonly shard: number;
  /** How many vshards it has. */
  readonly vshards: number;
  readonly answers: T[] = [];
  readonly servedBy: number[] = [];
  /** Pieces that have not ended. */
  open = 0;
  attempts = 0;
  hedges = 0;
  /** Whether all that is missing may be missing. */
  excused = true;
  #error: ShardloomError | undefined;
  #count = 0;
  #vshardsAnswered = 0;
  #queueUs = 0;
  #serviceUs = 0;
  #bytes = 0;

  constructor(index: number, shard: number, vshards: number) {
    this.index = index;
    this.shard = shard;
    this.vshards = vshards;
  }

  /** An answer counts. */
  record(answered: Answered<T>): void {
    this.answers.push(answered.answer);
    this.servedBy.push(answered.shard);
    this.#count += answered.items;
    this.#vshardsAnswered += answered.vshards;
    if (answered.queueUs > this.#queueUs) this.#queueUs = answered.queueUs;
    if (answered.serviceUs > this.#serviceUs) this.#serviceUs = answered.serviceUs;
    this.#bytes += answered.bytes;
  }

  /** Some of its vshards will not be answered. The first reason is the part's. */
  lose(error: ShardloomError, excused: boolean): void {
    if (!excused && this.excused) this.#error = error;
    else this.#error ??= error;
    if (!excused) this.excused = false;
  }

  /** @param latencyUs From the begin of the call to now. */
  outcome(latencyUs: number): ShardOutcome {
    const error = this.#error;
    const outcome = {
      shard: this.shard,
      servedBy: this.servedBy,
      status: error === undefined ? (this.#count === 0 ? ("empty" as const) : ("answered" as const)) : statusOf(error),
      count: this.#count,
      vshards: this.vshards,
      vshardsAnswered: this.#vshardsAnswered,
      attempts: this.attempts,
      hedges: this.hedges,
      queueUs: this.#queueUs,
      serviceUs: this.#serviceUs,
      latencyUs,
      bytes: this.#bytes,
    };
    return error === undefined ? outcome : { ...outcome, error };
  }
}
