/**
 * Collects one typed outcome per planned shard and tells how complete the whole is.
 *
 * Invariant: `planned` is fixed at creation; every planned shard ends in exactly one outcome, an empty answer is an
 * answer, and a missing shard is never silent: it is in `outcomes` with its error.
 */
import { ShardloomError } from "../errors.ts";
import type { ReplyFrame, ReplySink } from "./requester.ts";

/** How one shard's part of a gather ended. */
export interface ShardOutcome {
  readonly shard: number;
  readonly status: "answered" | "empty" | "failed" | "timed-out" | "unavailable";
  /** Items in the shard's answer. */
  readonly count: number;
  /** Present unless the shard answered. */
  readonly error?: ShardloomError;
}

/** How much of what was planned was answered. */
export interface Completeness {
  readonly planned: number;
  readonly answered: number;
  /** Shards that answered with nothing; they count as answered too. */
  readonly empty: number;
  readonly failed: number;
  readonly timedOut: number;
  readonly unavailable: number;
  /** Whether every planned shard answered. */
  readonly complete: boolean;
  readonly outcomes: readonly ShardOutcome[];
}

/** What a gather does when a shard gives no answer. */
export type PartialPolicy = "fail" | "allow";

/** Answers of the shards that gave one, in shard order, and the record of all. */
export interface Gathered<T> {
  readonly answers: readonly T[];
  readonly completeness: Completeness;
}

/** Collects the answers of a fixed set of shards. */
export class Gather<T> {
  readonly promise: Promise<Gathered<T>>;
  readonly #planned: number;
  readonly #policy: PartialPolicy;
  readonly #outcomes: ShardOutcome[] = [];
  readonly #answers: T[] = [];
  #settled = false;
  #resolve!: (gathered: Gathered<T>) => void;
  #reject!: (error: ShardloomError) => void;

  constructor(planned: number, policy: PartialPolicy) {
    this.#planned = planned;
    this.#policy = policy;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Whether the caller has been answered; later outcomes change nothing. */
  get settled(): boolean {
    return this.#settled;
  }

  /** The sink for one planned shard. `decode` runs while the frame is valid and returns the answer and its item count. */
  sink(shard: number, decode: (frame: ReplyFrame) => T, count: (answer: T) => number): ReplySink {
    return {
      onReply: (frame) => {
        let answer: T;
        try {
          answer = decode(frame);
        } catch (error) {
          this.fail(shard, ShardloomError.from(error, "ERR_CORRUPT"));
          return;
        }
        const items = count(answer);
        this.#answers.push(answer);
        this.#add({ shard, status: items === 0 ? "empty" : "answered", count: items });
      },
      onFailure: (error) => this.fail(shard, error),
    };
  }

  /** Records that a shard gave no answer. */
  fail(shard: number, error: ShardloomError): void {
    const status =
      error.code === "ERR_TIMEOUT" ? "timed-out" : error.code === "ERR_UNAVAILABLE" ? "unavailable" : "failed";
    this.#add({ shard, status, count: 0, error });
  }

  /** Ends the gather at once, whatever is still missing. */
  abort(error: ShardloomError): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#reject(error);
  }

  #add(outcome: ShardOutcome): void {
    if (this.#settled) return;
    this.#outcomes.push(outcome);
    if (outcome.error !== undefined && this.#policy === "fail") {
      this.abort(outcome.error);
      return;
    }
    if (this.#outcomes.length < this.#planned) return;
    this.#settled = true;
    const completeness = summarize(this.#planned, this.#outcomes);
    const first = this.#outcomes.find((entry) => entry.error !== undefined);
    if (completeness.answered === 0 && first?.error !== undefined) this.#reject(first.error);
    else this.#resolve({ answers: this.#answers, completeness });
  }
}

/** Counts outcomes by kind. */
export function summarize(planned: number, outcomes: readonly ShardOutcome[]): Completeness {
  let answered = 0;
  let empty = 0;
  let failed = 0;
  let timedOut = 0;
  let unavailable = 0;
  for (const { status } of outcomes) {
    if (status === "answered" || status === "empty") answered++;
    if (status === "empty") empty++;
    else if (status === "failed") failed++;
    else if (status === "timed-out") timedOut++;
    else if (status === "unavailable") unavailable++;
  }
  const complete = answered === planned;
  return {
    planned,
    answered,
    empty,
    failed,
    timedOut,
    unavailable,
    complete,
    outcomes: [...outcomes].sort((a, b) => a.shard - b.shard),
  };
}
